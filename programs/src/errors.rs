//! Errors in a person's words.

use libipc::protocol::files::FileError;
use libipc::protocol::process::{Errno, ProcessError};

/// What an error number means.
pub fn errno_text(error: Errno) -> &'static str {
    match error {
        Errno::EPERM => "not permitted",
        Errno::ENOENT => "no such file",
        Errno::ESRCH => "no such process",
        Errno::EINTR => "interrupted",
        Errno::EIO => "input/output error",
        Errno::E2BIG => "arguments too long",
        Errno::ENOEXEC => "not a program",
        Errno::EBADF => "no such open file",
        Errno::ECHILD => "no such child",
        Errno::EAGAIN => "too many processes",
        Errno::ENOMEM => "out of memory",
        Errno::EACCES => "permission denied",
        Errno::EFAULT => "bad address",
        Errno::EBUSY => "busy",
        Errno::EEXIST => "exists already",
        Errno::ENOTDIR => "not a directory",
        Errno::EISDIR => "is a directory",
        Errno::EINVAL => "invalid argument",
        Errno::EMFILE => "too many open files",
        Errno::ENOSPC => "no space left",
        Errno::ENAMETOOLONG => "name too long",
        Errno::ENOSYS => "not supported by this system",
        Errno::ELOOP => "too many links",
        Errno::EOPNOTSUPP => "not supported",
    }
}

/// What a file error means.
pub fn file_text(error: FileError) -> &'static str {
    match error {
        FileError::NotFound => "no such file",
        FileError::Interrupted => "interrupted",
        FileError::Io => "input/output error",
        FileError::NotAnImage => "not a program",
        FileError::BadAccess => "not opened for that",
        FileError::NoMemory => "out of memory",
        FileError::Denied => "permission denied",
        FileError::NotADirectory => "not a directory",
        FileError::IsADirectory => "is a directory",
        FileError::Invalid => "invalid argument",
        FileError::NotSeekable => "cannot be positioned",
        FileError::ReadOnly => "read-only",
        FileError::NameTooLong => "name too long",
    }
}

/// What a signal that ended a process is called.
pub fn signal_text(signal: u32) -> &'static str {
    match signal {
        1 => "hung up",
        2 => "interrupted",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trap",
        6 => "aborted",
        7 => "bus error",
        8 => "arithmetic error",
        9 => "killed",
        11 => "bad memory access",
        13 => "broken pipe",
        15 => "terminated",
        _ => "ended by a signal",
    }
}

/// What a refused process request means, whichever door was used.
pub fn process_text(error: ProcessError) -> &'static str {
    match error {
        ProcessError::Linux(error) => errno_text(error),
        ProcessError::Denied => "not permitted",
        ProcessError::Win32(error) => {
            use libipc::protocol::process::Win32Error::*;
            match error {
                InvalidFunction => "invalid function",
                FileNotFound | PathNotFound => "no such file",
                AccessDenied => "access denied",
                InvalidHandle => "invalid handle",
                NotEnoughMemory | NoSystemResources | CommitmentLimit => "out of memory",
                NotSupported => "not supported",
                InvalidParameter => "invalid argument",
                SignalRefused => "suspended too often",
                BadExeFormat => "not a program",
                Directory => "not a directory",
            }
        }
    }
}

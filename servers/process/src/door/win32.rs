//! CreateProcess, with the creation flags of `docs/spec/win32-process.md` section 1.2.
//!
//! Ids: dwProcessId is four times the process's PID, dwThreadId four times its first thread's TID.
//! A Win32 process's first thread has a number of its own, so the two ids differ and all ids come
//! from one space and are multiples of four (W32-CP-06).

use libipc::abi::Handle;
use libipc::protocol::process::{CreateProcess, Errno, Win32Error};

use crate::model::Kind;
use crate::plan::*;

pub use flags::CreationFlags;

mod flags {
    #![allow(missing_docs)] // Win32's own names

    use bitflags::bitflags;

    bitflags! {
        /// dwCreationFlags that make a difference here; others are accepted (W32-CP-57).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct CreationFlags: u32 {
            const DEBUG_PROCESS = 0x1;
            const DEBUG_ONLY_THIS_PROCESS = 0x2;
            const CREATE_SUSPENDED = 0x4;
            const DETACHED_PROCESS = 0x8;
            const CREATE_NEW_CONSOLE = 0x10;
            const CREATE_SEPARATE_WOW_VDM = 0x800;
            const CREATE_SHARED_WOW_VDM = 0x1000;
            const CREATE_PROTECTED_PROCESS = 0x4_0000;
            const CREATE_SECURE_PROCESS = 0x40_0000;
            const _ = !0;
        }
    }
}

/// A Win32 id from a number of the PID space.
pub fn id(number: u32) -> u32 {
    number * 4
}

/// CreateProcess. The checks are in the order of W32-CP-12.
pub fn create_process(
    order: &CreateProcess,
    directory: Option<Handle>,
) -> Result<SpawnPlan, Win32Error> {
    use CreationFlags as F;
    let flags = CreationFlags::from_bits_retain(order.flags);
    if flags.contains(F::DETACHED_PROCESS | F::CREATE_NEW_CONSOLE)
        || flags.contains(F::CREATE_SEPARATE_WOW_VDM | F::CREATE_SHARED_WOW_VDM)
    {
        return Err(Win32Error::InvalidParameter);
    }
    if flags.intersects(F::DEBUG_PROCESS | F::DEBUG_ONLY_THIS_PROCESS) {
        return Err(Win32Error::NotSupported);
    }
    if flags.intersects(F::CREATE_PROTECTED_PROCESS | F::CREATE_SECURE_PROCESS) {
        return Err(Win32Error::AccessDenied);
    }
    Ok(SpawnPlan {
        memory: MemoryChoice::Image(order.start),
        files: match order.inherit_handles {
            true => FilesChoice::Inheritable,
            false => FilesChoice::Fresh,
        },
        directory: match directory {
            Some(directory) => DirectoryChoice::At(directory),
            None => DirectoryChoice::Copy,
        },
        dispositions: DispositionChoice::Default,
        group: GroupChoice::New(Kind::Win32),
        parent: ParentChoice::Caller,
        first: FirstInstruction::Image,
        start: match flags.contains(F::CREATE_SUSPENDED) {
            true => StartChoice::Suspended,
            false => StartChoice::Run,
        },
        end: EndChoice::Holders {
            process_inherit: order.process_inherit,
            thread_inherit: order.thread_inherit,
        },
        words: Words::default(),
        name: Some(crate::name(&order.start.name)),
    })
}

/// What a Win32 caller is told of a failure that the model or the loader reports.
pub fn error(errno: Errno) -> Win32Error {
    match errno {
        Errno::ENOENT => Win32Error::FileNotFound,
        Errno::ENOTDIR => Win32Error::PathNotFound,
        Errno::EACCES | Errno::EPERM | Errno::EISDIR => Win32Error::AccessDenied,
        Errno::EBADF => Win32Error::InvalidHandle,
        Errno::ENOMEM => Win32Error::NotEnoughMemory,
        Errno::ENOEXEC => Win32Error::BadExeFormat,
        Errno::EAGAIN => Win32Error::NoSystemResources,
        _ => Win32Error::InvalidParameter,
    }
}

//! Open files and directories: the file server's protocol, and that of every stream.
//!
//! A capability stands for one open file: offset and status live behind it, so a copied table
//! shares them. Console streams speak the same protocol, so a program need not know what its
//! standard input is.

use serde::{Deserialize, Serialize};

use crate::wire::{Blob, Bytes};

/// Why a file request was refused. The numbers are Linux's errno values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum FileError {
    /// No such file or directory (ENOENT).
    NotFound = 2,
    /// The caller wanted its call back (EINTR).
    Interrupted = 4,
    /// The device failed (EIO).
    Io = 5,
    /// The file cannot be the image of a program (ENOEXEC).
    NotAnImage = 8,
    /// The capability does not permit this (EBADF).
    BadAccess = 9,
    /// Out of memory or slots (ENOMEM).
    NoMemory = 12,
    /// Permission denied, or not executable (EACCES).
    Denied = 13,
    /// A component of the path is no directory (ENOTDIR).
    NotADirectory = 20,
    /// The file is a directory (EISDIR).
    IsADirectory = 21,
    /// An argument makes no sense (EINVAL).
    Invalid = 22,
    /// The file cannot be positioned (ESPIPE).
    NotSeekable = 29,
    /// The file system cannot be written (EROFS).
    ReadOnly = 30,
    /// A name or path is too long (ENAMETOOLONG).
    NameTooLong = 36,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// Bytes with a size.
    Regular,
    /// Names of files.
    Directory,
    /// A stream of bytes, such as a terminal.
    Stream,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// What it is.
    pub kind: FileKind,
    /// Its size in bytes; 0 for a stream.
    pub size: u64,
    /// Whether it may be executed.
    pub executable: bool,
    /// Whether it is a terminal, with a person at the other end.
    pub terminal: bool,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// The file's name, without a path.
    pub name: Blob,
    /// What it is.
    pub info: FileInfo,
}

/// Where [`Client::seek`] counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum From {
    /// The beginning.
    Start,
    /// The current offset.
    Current,
    /// The end.
    End,
}

/// Access mask bits of an open file's capability.
pub mod access {
    /// It may be read.
    pub const READ: u32 = 1 << 0;
    /// It may be written.
    pub const WRITE: u32 = 1 << 1;
    /// It may be mapped for execution, and names may be looked up in it.
    pub const EXECUTE: u32 = 1 << 2;
}

crate::protocol! {
    /// Open files, directories and streams.
    files refuses FileError;

    /// Opens the file at `path`, relative to the directory that the capability stands for; a path
    /// that begins with `/` begins there too. `access` holds the bits of [`access`] that are wanted.
    1 => open(path: Bytes<'m>, access: u32) -> FileInfo [long, short] gives(file);
    /// Reads at most `count` bytes (and at most a page) at the file's offset and moves it. An empty
    /// answer is the end of the file. A stream waits until there is something.
    2 => read(count: u64) -> Blob [long];
    /// Reads like `read`, at `offset`, without moving the file's own.
    3 => read_at(offset: u64, count: u64) -> Blob [long];
    /// Writes at the file's offset and moves it. Returns how many bytes were taken, at least one
    /// of a non-empty request.
    4 => write(bytes: Bytes<'m>) -> u64 [long, short];
    /// Moves the offset; returns it, counted from the start.
    5 => seek(offset: i64, from: From) -> u64 [short];
    /// What is known of the file.
    6 => info() -> FileInfo [short];
    /// Directory entry number `index`; `None` past the last.
    7 => entry(index: u64) -> Option<DirectoryEntry> [long];
    /// A window on the file's pages, to be mapped shared for reading or executing, or as a private
    /// copy. The answer is the file's size in bytes.
    8 => window() -> u64 [short] gives(window);
    /// Sets a terminal's mode: raw input comes byte by byte and without echo.
    9 => set_raw(raw: bool) -> () [short];
    /// A window on the pages of the executable file at `path`, to be mapped for reading, executing, or
    /// as a private copy: what opening the file for reading and executing and asking for its `window`
    /// would bring. As long as a file stays as it is, everybody gets the same window on it. The answer
    /// is the file's size in bytes.
    10 => image(path: Bytes<'m>) -> u64 [long, short] gives(window);
}

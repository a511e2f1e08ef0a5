//! Open files: descriptors of the process's files table, spoken to by the files protocol.
//!
//! A descriptor is a slot number of the files table, so there is no table here: opening a file lets
//! the kernel choose the lowest free slot, `dup2` replaces a slot. Paths are looked up from the root or
//! the working directory in the fs table. The offset lives behind the capability; whoever holds a copy
//! shares it.

use libipc::abi::{Access, Error, Handle, SlotFlags, TableSelector};
use libipc::protocol::files::{self, DirectoryEntry, FileError, FileInfo, From, access};
use libipc::protocol::process::fs_slots;
use libipc::wire::{Bytes, CallError, Connection, Received};

use crate::syscall;

/// The most that one read or write moves, in bytes.
pub const CHUNK: usize = 4096;

/// A file descriptor: a slot number of the files table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fd(pub u32);

impl Fd {
    /// The handle that names this slot, whatever its generation.
    pub const fn handle(self) -> Handle {
        Handle::new(TableSelector::Files, self.0, 0)
    }

    /// The files protocol over this descriptor.
    pub const fn client(self) -> files::Client<Connection> {
        files::Client::new(Connection::new(self.handle()))
    }
}

/// A directory in the fs table: where paths begin.
pub(crate) fn directory(path: &[u8]) -> Handle {
    let slot = if path.first() == Some(&b'/') {
        fs_slots::ROOT
    } else {
        fs_slots::WORKING_DIRECTORY
    };
    Handle::new(TableSelector::Fs, slot, 0)
}

/// A failed call in the terms of the protocol: a capability that is not there or is no file is
/// `BadAccess` (EBADF), a server that does not answer is `Io`.
pub fn file_error(error: CallError<FileError>) -> FileError {
    match error {
        CallError::Refused(error) => error,
        CallError::Kernel(error) => kernel_error(error),
        CallError::Protocol => FileError::Io,
    }
}

fn kernel_error(error: Error) -> FileError {
    match error {
        Error::BadHandle | Error::WrongKind | Error::AccessDenied => FileError::BadAccess,
        Error::NoMemory | Error::Exhausted => FileError::NoMemory,
        Error::Interrupted => FileError::Interrupted,
        Error::InvalidArgument | Error::TooLong => FileError::Invalid,
        _ => FileError::Io,
    }
}

/// Opens a file at the lowest free descriptor. `access` holds bits of
/// [`files::access`].
pub fn open(path: &[u8], access: u32) -> Result<Fd, FileError> {
    let lowest_free = Handle::new(TableSelector::Files, 0, 0);
    open_into(path, access, lowest_free).map(|(handle, _)| Fd(handle.index()))
}

/// Opens a file for reading.
pub fn open_read(path: &str) -> Result<Fd, FileError> {
    open(path.as_bytes(), access::READ)
}

/// Opens a file into the table that `receive_slots` selects, as `Extended::receive_slots` says.
pub fn open_into(
    path: &[u8],
    access: u32,
    receive_slots: Handle,
) -> Result<(Handle, FileInfo), FileError> {
    open_from(directory(path), path, access, receive_slots)
}

/// As [`open_into`], with `path` looked up from the directory that a capability stands for.
pub fn open_from(
    directory: Handle,
    path: &[u8],
    access: u32,
    receive_slots: Handle,
) -> Result<(Handle, FileInfo), FileError> {
    let mut client = files::Client::new(Connection {
        receive_slots,
        ..Connection::new(directory)
    });
    let mut received = Received::new();
    let info = client
        .open(Bytes(path), access, &mut received)
        .map_err(file_error)?;
    received
        .first()
        .map(|handle| (*handle, info))
        .ok_or(FileError::Io)
}

/// A window on the executable file at `path`. It may be mapped for reading, executing, and as a private
/// copy.
pub fn image(path: &[u8]) -> Result<Handle, FileError> {
    image_from(directory(path), path)
}

/// As [`image`], with `path` looked up from the directory that a capability stands for.
pub fn image_from(directory: Handle, path: &[u8]) -> Result<Handle, FileError> {
    let mut received = Received::new();
    files::Client::new(Connection::new(directory))
        .image(Bytes(path), &mut received)
        .map_err(file_error)?;
    received.first().copied().ok_or(FileError::Io)
}

/// Reads up to `into.len()` bytes (at most [`CHUNK`]); 0 is the end of the file.
pub fn read(fd: Fd, into: &mut [u8]) -> Result<usize, FileError> {
    let count = into.len().min(CHUNK);
    let blob = fd.client().read(count as u64).map_err(file_error)?;
    let got = blob.0.len().min(count);
    into[..got].copy_from_slice(&blob.0[..got]);
    Ok(got)
}

/// Writes some of `bytes`; returns how many, at least one of a non-empty slice.
pub fn write(fd: Fd, bytes: &[u8]) -> Result<usize, FileError> {
    let piece = &bytes[..bytes.len().min(CHUNK)];
    let taken = fd.client().write(Bytes(piece)).map_err(file_error)?;
    usize::try_from(taken)
        .ok()
        .filter(|taken| *taken <= piece.len() && (*taken > 0 || piece.is_empty()))
        .ok_or(FileError::Io)
}

/// Writes all of `bytes`.
pub fn write_all(fd: Fd, mut bytes: &[u8]) -> Result<(), FileError> {
    while !bytes.is_empty() {
        let taken = write(fd, bytes)?;
        bytes = &bytes[taken..];
    }
    Ok(())
}

/// Moves the offset; returns it, counted from the start.
pub fn seek(fd: Fd, offset: i64, from: From) -> Result<u64, FileError> {
    fd.client().seek(offset, from).map_err(file_error)
}

/// What is known of the file.
pub fn info(fd: Fd) -> Result<FileInfo, FileError> {
    fd.client().info().map_err(file_error)
}

/// Entry `index` of a directory; `None` past the last.
pub fn entry(fd: Fd, index: u64) -> Result<Option<DirectoryEntry>, FileError> {
    fd.client().entry(index).map_err(file_error)
}

/// Sets a terminal's mode: raw input comes byte by byte and without echo.
pub fn set_raw(fd: Fd, raw: bool) -> Result<(), FileError> {
    fd.client().set_raw(raw).map_err(file_error)
}

/// Closes a descriptor.
pub fn close(fd: Fd) -> Result<(), FileError> {
    syscall::cap_close(fd.handle()).map_err(kernel_error)
}

/// Makes another descriptor of the same open file, the lowest free one not below `lowest`.
pub fn duplicate(fd: Fd, lowest: u32) -> Result<Fd, FileError> {
    let slot = syscall::cap_copy(
        fd.handle(),
        Handle::OWN_FILES,
        lowest.into(),
        Access::all(),
        SlotFlags::empty(),
    )
    .map_err(kernel_error)?;
    Ok(Fd(slot as u32))
}

/// Makes `to` another descriptor of the open file behind `fd`, closing what `to` was, in one step.
pub fn duplicate_to(fd: Fd, to: Fd) -> Result<(), FileError> {
    syscall::cap_replace(
        fd.handle(),
        Handle::OWN_FILES,
        to.0.into(),
        Access::all(),
        SlotFlags::empty(),
    )
    .map(drop)
    .map_err(kernel_error)
}

/// Sets or clears a descriptor's marks.
pub fn set_flags(fd: Fd, mask: SlotFlags, value: SlotFlags) -> Result<(), FileError> {
    syscall::cap_set_flags(fd.handle(), mask, value).map_err(kernel_error)
}

/// Makes `path` the working directory of everybody who shares the fs table.
pub fn change_directory(path: &[u8]) -> Result<(), FileError> {
    let lowest_private = Handle::NONE;
    let (opened, info) = open_into(path, access::EXECUTE | access::READ, lowest_private)?;
    let result = if info.kind == files::FileKind::Directory {
        syscall::cap_replace(
            opened,
            Handle::OWN_FS,
            fs_slots::WORKING_DIRECTORY.into(),
            Access::all(),
            SlotFlags::empty(),
        )
        .map(drop)
        .map_err(kernel_error)
    } else {
        Err(FileError::NotADirectory)
    };
    let _ = syscall::cap_close(opened);
    result
}

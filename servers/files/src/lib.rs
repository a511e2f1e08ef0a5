//! The file server: the boot archive, read only, behind open-file capabilities.
//!
//! A capability's badge names an open file, its access mask says what may be done with it. Offset and
//! file live here, so whoever has a copy of the capability shares them. Opening looks a path up from the
//! directory that the used capability stands for, and never gives more rights than that one has.
//! A directory is a place in the tree, not a fence: `..` leads up to the root.
//!
//! Invariant: an open file is in the table exactly as long as somebody holds a sender with its badge, or
//! an answer that carries one is on its way. Badge 0 is the root directory and is always there.
//!
//! The archive never changes, so one window on a file serves everybody: it is made when it is first
//! asked for and kept, and who asks gets a copy with the rights that it may have.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod archive;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;

use libipc::abi::{Access, Error, Handle, PAGE_BYTES, SendCap, TAIL_BYTES};
use libipc::protocol::files::{
    DirectoryEntry, FileError, FileInfo, FileKind, From, Server, access,
};
use libipc::wire::{Answer, Blob, Bytes, Caller};

use archive::{NodeId, ROOT, Tree};

/// All bits of an access mask that mean something here.
const ALL_ACCESS: u32 = access::READ | access::WRITE | access::EXECUTE;

/// What the server does to the world.
pub trait Kernel {
    /// A sender with this badge and access mask, to be handed over.
    fn sender(&mut self, badge: u64, access: u32) -> Result<Handle, Error>;
    /// A window on `pages` pages of the archive, `first` its first page, for reading and executing.
    fn window(&mut self, first: u64, pages: u64) -> Result<Handle, Error>;
}

#[derive(Clone, Copy, Debug)]
struct Open {
    node: NodeId,
    offset: u64,
}

/// The state: the tree, the open files by badge, and the windows that were asked for.
#[derive(Debug)]
pub struct Files<'a> {
    tree: Tree<'a>,
    open: BTreeMap<u64, Open>,
    next: u64,
    windows: BTreeMap<NodeId, Handle>,
}

impl<'a> Files<'a> {
    /// A server for this archive.
    pub fn new(archive: &'a [u8]) -> Files<'a> {
        let root = Open {
            node: ROOT,
            offset: 0,
        };
        Files {
            tree: Tree::read(archive),
            open: BTreeMap::from([(0, root)]),
            next: 1,
            windows: BTreeMap::new(),
        }
    }

    /// Nobody holds the open file `badge` any more.
    pub fn closed(&mut self, badge: u64) {
        if badge != 0 {
            self.open.remove(&badge);
        }
    }

    /// How many files are open, the root directory included.
    pub fn open_files(&self) -> usize {
        self.open.len()
    }

    /// The caller's open file, if its capability has these rights.
    fn file(&mut self, caller: &Caller, rights: u32) -> Result<&mut Open, FileError> {
        if caller.access & rights != rights {
            return Err(FileError::BadAccess);
        }
        self.open.get_mut(&caller.badge).ok_or(FileError::BadAccess)
    }

    /// Whether who may do `held` in the directory may open what it finds there with `wanted`.
    fn permits(info: &FileInfo, held: u32, wanted: u32) -> Result<(), FileError> {
        if wanted & !ALL_ACCESS != 0 {
            return Err(FileError::Invalid);
        }
        if wanted & access::WRITE != 0 {
            return Err(if info.kind == FileKind::Directory {
                FileError::IsADirectory
            } else {
                FileError::ReadOnly
            });
        }
        let executable = info.executable || info.kind == FileKind::Directory;
        if wanted & access::EXECUTE != 0 && !executable || wanted & !held != 0 {
            return Err(FileError::Denied);
        }
        Ok(())
    }

    /// Gives the caller the window on a file, for reading and what `rights` add; the file's size.
    fn give_window(
        &mut self,
        kernel: &mut impl Kernel,
        caller: &mut Caller,
        node: NodeId,
        rights: Access,
    ) -> Result<u64, FileError> {
        let bytes = self.tree.data(node)?.len() as u64;
        let offset = self.tree.data_offset(node)?;
        // An empty file has no pages; and an archive of another make may not have put the data on one.
        if bytes == 0 || !offset.is_multiple_of(PAGE_BYTES) {
            return Err(FileError::Invalid);
        }
        let window = match self.windows.entry(node) {
            Entry::Occupied(window) => *window.get(),
            Entry::Vacant(place) => {
                let pages = bytes.div_ceil(PAGE_BYTES);
                let window = kernel.window(offset / PAGE_BYTES, pages);
                *place.insert(window.map_err(out_of_memory)?)
            }
        };
        caller.give(SendCap::narrowed(window, Access::READ | rights));
        Ok(bytes)
    }

    /// Up to `count` bytes of a file at `offset`, at most a page.
    fn bytes_at(&self, node: NodeId, offset: u64, count: u64) -> Result<Blob, FileError> {
        let data = self.tree.data(node)?;
        let start = usize::try_from(offset).map_or(data.len(), |offset| offset.min(data.len()));
        let count = usize::try_from(count).map_or(TAIL_BYTES, |count| count.min(TAIL_BYTES));
        let end = start.saturating_add(count).min(data.len());
        Blob::from_slice(&data[start..end]).ok_or(FileError::Io)
    }
}

fn out_of_memory(_: Error) -> FileError {
    FileError::NoMemory
}

impl<K: Kernel> Server<K> for Files<'_> {
    fn open<'m>(
        &mut self,
        kernel: &mut K,
        caller: &mut Caller,
        path: Bytes<'m>,
        wanted: u32,
    ) -> Result<Answer<FileInfo>, FileError> {
        let directory = self.file(caller, access::EXECUTE)?.node;
        let node = self.tree.look_up(directory, path.0)?;
        let info = self.tree.info(node);
        Self::permits(&info, caller.access, wanted)?;
        let badge = self.next;
        let sender = kernel.sender(badge, wanted).map_err(out_of_memory)?;
        self.next += 1;
        self.open.insert(badge, Open { node, offset: 0 });
        caller.give(SendCap::moved(sender));
        Ok(Answer::Now(info))
    }

    fn read<'m>(
        &mut self,
        _: &mut K,
        caller: &mut Caller,
        count: u64,
    ) -> Result<Answer<Blob>, FileError> {
        let Open { node, offset } = *self.file(caller, access::READ)?;
        let bytes = self.bytes_at(node, offset, count)?;
        self.file(caller, access::READ)?.offset += bytes.0.len() as u64;
        Ok(Answer::Now(bytes))
    }

    fn read_at<'m>(
        &mut self,
        _: &mut K,
        caller: &mut Caller,
        offset: u64,
        count: u64,
    ) -> Result<Answer<Blob>, FileError> {
        let node = self.file(caller, access::READ)?.node;
        self.bytes_at(node, offset, count).map(Answer::Now)
    }

    fn write<'m>(
        &mut self,
        _: &mut K,
        caller: &mut Caller,
        _: Bytes<'m>,
    ) -> Result<Answer<u64>, FileError> {
        self.file(caller, access::WRITE)?;
        Err(FileError::ReadOnly)
    }

    fn seek<'m>(
        &mut self,
        _: &mut K,
        caller: &mut Caller,
        offset: i64,
        from: From,
    ) -> Result<Answer<u64>, FileError> {
        let Open {
            node,
            offset: current,
        } = *self.file(caller, 0)?;
        let base = match from {
            From::Start => 0,
            From::Current => current,
            From::End => self.tree.data(node)?.len() as u64,
        };
        // Offsets are what a signed 64-bit number can say (lseek).
        let moved = base
            .checked_add_signed(offset)
            .filter(|moved| *moved <= i64::MAX as u64)
            .ok_or(FileError::Invalid)?;
        self.tree.data(node)?;
        self.file(caller, 0)?.offset = moved;
        Ok(Answer::Now(moved))
    }

    fn info<'m>(&mut self, _: &mut K, caller: &mut Caller) -> Result<Answer<FileInfo>, FileError> {
        let node = self.file(caller, 0)?.node;
        Ok(Answer::Now(self.tree.info(node)))
    }

    fn entry<'m>(
        &mut self,
        _: &mut K,
        caller: &mut Caller,
        index: u64,
    ) -> Result<Answer<Option<DirectoryEntry>>, FileError> {
        let node = self.file(caller, access::READ)?.node;
        let entry = match self.tree.child(node, index)? {
            Some((name, child)) => Some(DirectoryEntry {
                name: Blob::from_slice(name).ok_or(FileError::NameTooLong)?,
                info: self.tree.info(child),
            }),
            None => None,
        };
        Ok(Answer::Now(entry))
    }

    fn window<'m>(
        &mut self,
        kernel: &mut K,
        caller: &mut Caller,
    ) -> Result<Answer<u64>, FileError> {
        let node = self.file(caller, access::READ)?.node;
        let rights = if caller.access & access::EXECUTE != 0 {
            Access::EXECUTE
        } else {
            Access::empty()
        };
        self.give_window(kernel, caller, node, rights)
            .map(Answer::Now)
    }

    fn set_raw<'m>(
        &mut self,
        _: &mut K,
        caller: &mut Caller,
        _: bool,
    ) -> Result<Answer<()>, FileError> {
        self.file(caller, 0)?;
        Err(FileError::Invalid)
    }

    fn image<'m>(
        &mut self,
        kernel: &mut K,
        caller: &mut Caller,
        path: Bytes<'m>,
    ) -> Result<Answer<u64>, FileError> {
        let directory = self.file(caller, access::EXECUTE)?.node;
        let node = self.tree.look_up(directory, path.0)?;
        let info = self.tree.info(node);
        Self::permits(&info, caller.access, access::READ | access::EXECUTE)?;
        if info.kind == FileKind::Directory {
            return Err(FileError::Denied);
        }
        if info.size == 0 {
            return Err(FileError::NotAnImage);
        }
        self.give_window(kernel, caller, node, Access::EXECUTE)
            .map(Answer::Now)
    }
}

//! The boot archive as a tree of directories and files.
//!
//! The archive lists files by path; directories that it does not name follow from the paths.
//!
//! Invariant: node 0 is the root and its own parent; every other node is in the children of exactly one
//! directory, which is its parent; children have different names. Nothing changes after
//! [`Tree::read`].

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use cpio_reader::Mode;
use libipc::protocol::files::{FileError, FileInfo, FileKind};

/// The longest path, in bytes.
pub const PATH_BYTES: usize = 4095;
/// The longest name in a path, in bytes.
pub const NAME_BYTES: usize = 255;

/// The name of entries that only take up room, so that file data begins on pages
/// (`xtask/src/archive.rs`).
const PADDING: &str = ".pad";

/// A file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(usize);

/// The root directory.
pub const ROOT: NodeId = NodeId(0);

#[derive(Debug)]
struct Node<'a> {
    parent: NodeId,
    content: Content<'a>,
}

/// A name in a directory. Names are ordered by their bytes; comparing their beginnings as numbers says
/// the same, and says it of most names at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name<'a> {
    /// The first eight bytes, the first one highest; zeros where there are fewer.
    beginning: u64,
    bytes: &'a [u8],
}

impl<'a> Name<'a> {
    fn new(bytes: &'a [u8]) -> Name<'a> {
        let beginning = match bytes.first_chunk() {
            Some(first) => u64::from_be_bytes(*first),
            None => {
                let all = bytes
                    .iter()
                    .fold(0, |all, byte| all << 8 | u64::from(*byte));
                all.unbounded_shl(u64::BITS - 8 * bytes.len() as u32)
            }
        };
        Name { beginning, bytes }
    }
}

#[derive(Debug)]
enum Content<'a> {
    Directory(BTreeMap<Name<'a>, NodeId>),
    File { data: &'a [u8], executable: bool },
}

/// All files of an archive.
#[derive(Debug)]
pub struct Tree<'a> {
    archive: &'a [u8],
    nodes: Vec<Node<'a>>,
}

impl<'a> Tree<'a> {
    /// Reads an archive as far as it is well-formed. Entries that are neither files nor directories,
    /// that lie below a file, or whose path has a name `..` are left out; of two entries with one path
    /// the first counts.
    pub fn read(archive: &'a [u8]) -> Tree<'a> {
        let mut tree = Tree {
            archive,
            nodes: Vec::from([Node {
                parent: ROOT,
                content: Content::Directory(BTreeMap::new()),
            }]),
        };
        for entry in cpio_reader::iter_files(archive) {
            let mode = entry.mode();
            let kind = mode.bits() & 0o170_000;
            if entry.name() == PADDING || entry.name().split('/').any(|name| name == "..") {
                continue;
            }
            if kind == Mode::DIRECTORY.bits() {
                tree.directory(entry.name());
            } else if kind == Mode::REGULAR_FILE.bits() {
                let executable =
                    Mode::USER_EXECUTABLE | Mode::GROUP_EXECUTABLE | Mode::WORLD_EXECUTABLE;
                tree.file(entry.name(), entry.file(), mode.intersects(executable));
            }
        }
        tree
    }

    /// The directory at `path`, made if it is not there; `None` if a file is in the way.
    fn directory(&mut self, path: &'a str) -> Option<NodeId> {
        let names = path.split('/').filter(|name| !matches!(*name, "" | "."));
        names.into_iter().try_fold(ROOT, |parent, name| {
            let new = NodeId(self.nodes.len());
            let Content::Directory(children) = &mut self.nodes[parent.0].content else {
                return None;
            };
            let node = *children.entry(Name::new(name.as_bytes())).or_insert(new);
            if node == new {
                self.nodes.push(Node {
                    parent,
                    content: Content::Directory(BTreeMap::new()),
                });
            }
            matches!(self.nodes[node.0].content, Content::Directory(_)).then_some(node)
        })
    }

    fn file(&mut self, path: &'a str, data: &'a [u8], executable: bool) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if matches!(name, "" | ".") {
            return;
        }
        let Some(parent) = self.directory(directory) else {
            return;
        };
        let new = NodeId(self.nodes.len());
        if let Content::Directory(children) = &mut self.nodes[parent.0].content
            && *children.entry(Name::new(name.as_bytes())).or_insert(new) == new
        {
            self.nodes.push(Node {
                parent,
                content: Content::File { data, executable },
            });
        }
    }

    /// Looks up a path from a directory. `/` at its beginning counts for nothing; `..` leads to the
    /// parent, in the root to the root.
    ///
    /// # Errors
    /// `NotFound` also for an empty path; `NotADirectory` if something is to be looked up in a file;
    /// `NameTooLong`.
    pub fn look_up(&self, from: NodeId, path: &[u8]) -> Result<NodeId, FileError> {
        if path.is_empty() {
            return Err(FileError::NotFound);
        }
        if path.len() > PATH_BYTES {
            return Err(FileError::NameTooLong);
        }
        path.split(|byte| *byte == b'/')
            .try_fold(from, |node, name| {
                // Also for an empty name: `file/` is no file.
                let Content::Directory(children) = &self.nodes[node.0].content else {
                    return Err(FileError::NotADirectory);
                };
                match name {
                    b"" | b"." => Ok(node),
                    b".." => Ok(self.nodes[node.0].parent),
                    _ if name.len() > NAME_BYTES => Err(FileError::NameTooLong),
                    _ => children
                        .get(&Name::new(name))
                        .copied()
                        .ok_or(FileError::NotFound),
                }
            })
    }

    /// What is known of a node.
    pub fn info(&self, node: NodeId) -> FileInfo {
        let (kind, size, executable) = match self.nodes[node.0].content {
            Content::Directory(_) => (FileKind::Directory, 0, false),
            Content::File { data, executable } => {
                (FileKind::Regular, data.len() as u64, executable)
            }
        };
        FileInfo {
            kind,
            size,
            executable,
            terminal: false,
        }
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// `IsADirectory`.
    pub fn data(&self, node: NodeId) -> Result<&'a [u8], FileError> {
        match self.nodes[node.0].content {
            Content::File { data, .. } => Ok(data),
            Content::Directory(_) => Err(FileError::IsADirectory),
        }
    }

    /// Where in the archive a file's bytes begin.
    ///
    /// # Errors
    /// `IsADirectory`.
    pub fn data_offset(&self, node: NodeId) -> Result<u64, FileError> {
        let data = self.data(node)?;
        Ok((data.as_ptr() as usize - self.archive.as_ptr() as usize) as u64)
    }

    /// Name and node of a directory's child number `index`, in the order of the names.
    ///
    /// # Errors
    /// `NotADirectory`.
    pub fn child(&self, node: NodeId, index: u64) -> Result<Option<(&'a [u8], NodeId)>, FileError> {
        let Content::Directory(children) = &self.nodes[node.0].content else {
            return Err(FileError::NotADirectory);
        };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        Ok(children
            .iter()
            .nth(index)
            .map(|(name, node)| (name.bytes, *node)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_are_ordered_by_their_bytes(
            same in vec(0..3u8, 0..12), one in vec(0..3u8, 0..4), other in vec(0..3u8, 0..4),
        ) {
            let [one, other] = [one, other].map(|rest| [&same[..], &rest[..]].concat());
            prop_assert_eq!(Name::new(&one).cmp(&Name::new(&other)), one.cmp(&other));
            prop_assert_eq!(Name::new(&one) == Name::new(&other), one == other);
        }
    }
}

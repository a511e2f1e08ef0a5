//! An address space that a test fills and looks into through the kernel.

use libipc::abi::{PAGE_BYTES, Protection};
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::syscall;

/// Readable and writable.
pub const READ_WRITE: Protection = Protection::READ.union(Protection::WRITE);

/// A space without a thread or a pager.
#[derive(Debug)]
pub struct Space(Handle);

impl Space {
    /// An empty space that the process's own pool pays for.
    pub fn new() -> Result<Space, Error> {
        Space::in_pool(slots::POOL)
    }

    /// An empty space that `pool` pays for.
    pub fn in_pool(pool: Handle) -> Result<Space, Error> {
        syscall::space_create(pool, Handle::NONE).map(Space)
    }

    /// A copy-on-write snapshot that the process's own pool pays for.
    pub fn snapshot(&self) -> Result<Space, Error> {
        self.snapshot_in(slots::POOL)
    }

    /// A copy-on-write snapshot that `pool` pays for.
    pub fn snapshot_in(&self, pool: Handle) -> Result<Space, Error> {
        syscall::space_snapshot(self.0, pool, 0).map(Space)
    }

    /// The capability.
    pub fn handle(&self) -> Handle {
        self.0
    }

    /// Maps demand-zero pages for reading and writing.
    pub fn map(&self, address: u64, pages: u64) -> Result<(), Error> {
        syscall::space_map(self.0, address, pages, READ_WRITE)
    }

    /// The word at `address`.
    pub fn load(&self, address: u64) -> Result<u64, Error> {
        let mut word = 0u64;
        syscall::space_read(self.0, address, (&raw mut word) as u64, 8)?;
        // SAFETY: a live local, written by the kernel behind the compiler's back.
        Ok(unsafe { (&raw const word).read_volatile() })
    }

    /// Stores a word.
    pub fn store(&self, address: u64, word: u64) -> Result<(), Error> {
        syscall::space_write(self.0, address, (&raw const word) as u64, 8, 0)
    }

    /// Stores `value + n` in the n-th of `pages` pages.
    pub fn fill(&self, address: u64, pages: u64, value: u64) -> Result<(), Error> {
        (0..pages).try_for_each(|page| self.store(address + page * PAGE_BYTES, value + page))
    }

    /// The first page that does not hold what [`fill`](Space::fill) put there.
    pub fn differs(&self, address: u64, pages: u64, value: u64) -> Result<Option<u64>, Error> {
        for page in 0..pages {
            if self.load(address + page * PAGE_BYTES)? != value + page {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    /// The mapped range at or above `address`: start and length in pages.
    pub fn next(&self, address: u64) -> Result<(u64, u64), Error> {
        syscall::space_next(self.0, address)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = syscall::cap_close(self.0);
    }
}

//! The memory server: quotas over the root pool.
//!
//! A quota is a pool and a name. Init's first capability speaks for the root quota, which is all memory;
//! each further quota is made under the one that its maker's capability speaks for, so nobody gives out
//! more than it has. The kernel does the counting ([pools nest](libipc::abi::Kind::Pool)); the server
//! keeps the names, the tree and the right to take a pool back.
//!
//! Invariant: every quota but the root has a live parent quota, and the server holds exactly one
//! capability for each quota's pool.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

use alloc::collections::BTreeMap;

use libipc::abi::{Access, Error, Handle, SendCap};
use libipc::protocol::memory::{MemoryError, Quota, QuotaLine, ROOT, Server, access};
use libipc::wire::{Answer, Caller};

#[cfg(test)]
mod tests;

/// How many quotas one quota may be divided into: a client must not fill the server's own memory.
pub const CHILDREN: u32 = 1024;

/// What the server does to the world.
pub trait Pools {
    /// Makes a pool.
    fn create(&mut self, parent: Handle, limit_pages: u64) -> Result<Handle, Error>;
    /// A pool's figures.
    fn status(&mut self, pool: Handle) -> Result<Quota, Error>;
    /// Ends a pool and what is charged to it, and closes the handle.
    fn destroy(&mut self, pool: Handle);
}

#[derive(Debug)]
struct Entry {
    name: [u8; 16],
    pool: Handle,
    parent: u64,
    children: u32,
}

/// The state: all quotas by number.
#[derive(Debug)]
pub struct Quotas {
    entries: BTreeMap<u64, Entry>,
    next: u64,
}

impl Quotas {
    /// Begins with the root pool.
    pub fn new(root: Handle) -> Quotas {
        let root = Entry {
            name: *b"all memory\0\0\0\0\0\0",
            pool: root,
            parent: ROOT,
            children: 0,
        };
        Quotas {
            entries: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
        }
    }

    /// The caller's quota, if its capability has this right.
    fn of(&mut self, caller: &Caller, right: u32) -> Result<&mut Entry, MemoryError> {
        if caller.access & right != right {
            return Err(MemoryError::Denied);
        }
        // A capability may outlive its quota.
        self.entries
            .get_mut(&caller.badge)
            .ok_or(MemoryError::Denied)
    }

    /// Forgets a quota and those below it; the deepest first, as their pools end first.
    fn forget(&mut self, number: u64, pools: &mut impl Pools) {
        // Numbers grow downwards in the tree, so a backwards walk meets children before parents.
        let mut doomed = alloc::vec![number];
        for (&child, entry) in self.entries.range(number + 1..) {
            if doomed.contains(&entry.parent) {
                doomed.push(child);
            }
        }
        for number in doomed.into_iter().rev() {
            if let Some(entry) = self.entries.remove(&number) {
                if let Some(parent) = self.entries.get_mut(&entry.parent) {
                    parent.children -= 1;
                }
                pools.destroy(entry.pool);
            }
        }
    }
}

impl<P: Pools> Server<P> for Quotas {
    fn make_pool<'m>(
        &mut self,
        pools: &mut P,
        caller: &mut Caller,
        mut name: [u8; 16],
        limit: u64,
    ) -> Result<Answer<u64>, MemoryError> {
        let number = self.next;
        let parent = self.of(caller, access::MAKE_POOL)?;
        if limit == 0 {
            return Err(MemoryError::Invalid);
        }
        if parent.children >= CHILDREN {
            return Err(MemoryError::OverQuota);
        }
        let pool = pools
            .create(parent.pool, limit)
            .map_err(|error| match error {
                Error::NoMemory | Error::Exhausted => MemoryError::OverQuota,
                _ => MemoryError::Invalid,
            })?;
        parent.children += 1;
        name[15] = 0;
        let entry = Entry {
            name,
            pool,
            parent: caller.badge,
            children: 0,
        };
        self.entries.insert(number, entry);
        self.next += 1;
        let rights = Access::CHARGE | Access::STATUS | Access::LABEL;
        caller.give(SendCap::narrowed(pool, rights));
        Ok(Answer::Now(number))
    }

    fn quota<'m>(
        &mut self,
        pools: &mut P,
        caller: &mut Caller,
    ) -> Result<Answer<Quota>, MemoryError> {
        let pool = self.of(caller, 0)?.pool;
        pools
            .status(pool)
            .map(Answer::Now)
            .map_err(|_| MemoryError::Denied)
    }

    fn quota_at<'m>(
        &mut self,
        pools: &mut P,
        caller: &mut Caller,
        number: u64,
    ) -> Result<Answer<Option<QuotaLine>>, MemoryError> {
        self.of(caller, access::INSPECT)?;
        let line = self.entries.range(number..).find_map(|(&number, entry)| {
            Some(QuotaLine {
                number,
                parent: entry.parent,
                name: entry.name,
                quota: pools.status(entry.pool).ok()?,
            })
        });
        Ok(Answer::Now(line))
    }

    fn drop_pool<'m>(
        &mut self,
        pools: &mut P,
        caller: &mut Caller,
        number: u64,
    ) -> Result<Answer<()>, MemoryError> {
        self.of(caller, access::MAKE_POOL)?;
        match self.entries.get(&number) {
            Some(entry) if number != ROOT && entry.parent == caller.badge => {
                self.forget(number, pools);
                Ok(Answer::Now(()))
            }
            Some(_) => Err(MemoryError::Denied),
            None => Err(MemoryError::Invalid),
        }
    }
}

//! Many at once: processes alive, capabilities in a table, capabilities derived from one.

extern crate alloc;

use alloc::vec::Vec;

use libipc::abi::{Access, Handle, SlotFlags, TableSelector};
use runtime::memory::own_pool;
use runtime::process::{self, Fork, exit_status, fork, wait};
use runtime::syscall;

use crate::measure::{Failure, Sum, begin, end};
use crate::meeting::{Meeting, wait_for_the_end};
use crate::processes::{fork_once, order, reap};

/// What of a process's life is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Both,
    Make,
    Reap,
}

const ALIVE: usize = 1000;

/// Makes children that wait for the end of the meeting; their PIDs go to `made`.
fn make(meeting: &Meeting, count: u64, mut made: impl FnMut(u32)) -> Result<(), Failure> {
    for _ in 0..count {
        match fork()? {
            Fork::Child => {
                wait_for_the_end(meeting.sender());
                process::exit(0)
            }
            Fork::Parent(child) => made(child),
        }
    }
    Ok(())
}

/// Operation: one of 1000 processes that all live at once, from fork to reaping.
pub fn alive(sum: &mut Sum, part: Part) -> Result<(), Failure> {
    let count = sum.count(ALIVE as u64);
    let meeting = Meeting::new()?;
    let mut children = [0; ALIVE];
    let mut made = 0;
    let mut from = begin();
    let result = make(&meeting, count, |child| {
        children[made] = child;
        made += 1;
    });
    // Let each child reach its wait.
    syscall::thread_yield()?;
    let mut to = end();
    if part == Part::Both {
        // Both stretches in one; the marks between them are a dozen instructions.
        sum.add(from, to, 0);
    }
    if part != Part::Make {
        from = begin();
    }
    drop(meeting);
    let mut reaped = Ok(());
    for child in &children[..made] {
        reaped = reaped.and(reap(*child));
    }
    if part != Part::Make {
        to = end();
    }
    sum.add(from, to, made as u64);
    result.and(reaped)
}

/// Operation: one link of a chain of processes, each the child of the one before and waiting for the next.
pub fn chain(sum: &mut Sum) -> Result<(), Failure> {
    const DEPTH: u64 = 100;
    let rounds = sum.count(10);
    sum.measure(rounds * DEPTH, || {
        for _ in 0..rounds {
            match fork()? {
                Fork::Child => process::exit(link(DEPTH - 1)),
                Fork::Parent(child) => reap(child)?,
            }
        }
        Ok(())
    })
}

/// Makes the rest of a chain; the exit status.
fn link(rest: u64) -> i32 {
    for _ in 0..rest {
        match fork() {
            Err(_) => return 2,
            Ok(Fork::Parent(child)) => return reap(child).is_err().into(),
            Ok(Fork::Child) => {}
        }
    }
    0
}

/// Operation: fork, exit and waiting for any child, with so many other children alive.
pub fn fork_beside(sum: &mut Sum, others: u64) -> Result<(), Failure> {
    beside(sum, others, || fork_once().map_err(Failure::from))
}

/// Operation: posix_spawn of this program and waiting for any child, with so many others alive.
pub fn spawn_beside(sum: &mut Sum, others: u64) -> Result<(), Failure> {
    beside(sum, others, || Ok(process::spawn(order()?)?))
}

fn beside(
    sum: &mut Sum,
    others: u64,
    mut make_one: impl FnMut() -> Result<u32, Failure>,
) -> Result<(), Failure> {
    let meeting = Meeting::new()?;
    let mut made = 0;
    let result = make(&meeting, others, |_| made += 1).and_then(|()| {
        syscall::thread_yield()?;
        let count = sum.count(200);
        sum.measure(count, || {
            for _ in 0..count {
                make_one()?;
                if exit_status(wait(-1, 0)?.status) != Some(0) {
                    return Err(Failure::Child);
                }
            }
            Ok(())
        })
    });
    drop(meeting);
    for _ in 0..made {
        wait(-1, 0)?;
    }
    result
}

/// Operation: asking what a capability is, in a table with so many.
pub fn lookup(sum: &mut Sum, size: u64) -> Result<(), Failure> {
    const LOWEST_SLOT: u64 = 100;
    let notification = syscall::notification_create(own_pool(), 0)?;
    let mut last = 0;
    for _ in 0..size {
        last = syscall::cap_copy(
            notification,
            Handle::OWN_FILES,
            LOWEST_SLOT,
            Access::all(),
            SlotFlags::empty(),
        )?;
    }
    let handle = Handle::new(TableSelector::Files, last as u32, 0);
    let count = sum.count(10_000);
    let result = sum.measure(count, || {
        for _ in 0..count {
            syscall::cap_info(handle)?;
        }
        Ok(())
    });
    for slot in LOWEST_SLOT..LOWEST_SLOT + size {
        syscall::table_close(Handle::OWN_FILES, slot)?;
    }
    syscall::cap_close(notification)?;
    result
}

/// Operation: revoking, for each of so many capabilities that were derived from one.
pub fn revoke(sum: &mut Sum, size: u64) -> Result<(), Failure> {
    let rounds = sum.count((1000 / size).max(1));
    derive_and_revoke(sum, rounds, size, |source, _| source)
}

/// Operation: the same in a chain of 50, each derived from the one before (nodes nest at most 64 deep).
pub fn revoke_chain(sum: &mut Sum) -> Result<(), Failure> {
    let rounds = sum.count(10);
    derive_and_revoke(sum, rounds, 50, |_, before| before)
}

/// Revokes a capability from which `size` others come; `parent` chooses, of the first and the one that was
/// derived last, from which the next one is derived.
fn derive_and_revoke(
    sum: &mut Sum,
    rounds: u64,
    size: u64,
    parent: fn(Handle, Handle) -> Handle,
) -> Result<(), Failure> {
    let source = syscall::notification_create(own_pool(), 0)?;
    for _ in 0..rounds {
        let mut last = source;
        let mut derived = Vec::new();
        for _ in 0..size {
            last = syscall::cap_derive(parent(source, last), own_pool(), 0, Access::all())?;
            derived.push(last);
        }
        let from = begin();
        let revoked = syscall::cap_revoke(source);
        let to = end();
        revoked?;
        sum.add(from, to, size);
        for handle in derived {
            // Revoking may have closed it.
            let _ = syscall::cap_close(handle);
        }
    }
    syscall::cap_close(source)?;
    Ok(())
}

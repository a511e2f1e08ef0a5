//! Memory: forks with much of it, snapshots, and each kind of fault.

use libipc::abi::{Access, Error, Handle, IpcCall, PAGE_BYTES, Protection, layout};
use runtime::memory::{Mapping, own_pool};
use runtime::process::{self, Fork, fork};
use runtime::syscall;

use crate::measure::{Failure, Moment, Sum, begin, end};
use crate::meeting::{Meeting, message, wait_for_the_end};
use crate::processes::{fork_once, reap};

const MIB: u64 = 1 << 20;
const MIB_PAGES: u64 = MIB / PAGE_BYTES;
/// What the fault cases work on.
const FAULT_PAGES: u64 = 4 * MIB_PAGES;

/// Writes the first byte of each page.
#[inline(always)]
fn touch(memory: &Mapping, value: u8) {
    for page in 0..memory.bytes() as u64 / PAGE_BYTES {
        let byte = (memory.address() + page * PAGE_BYTES) as *mut u8;
        // SAFETY: within the mapping, which is writable and nobody else's.
        unsafe { byte.write_volatile(value) };
    }
}

/// Reads the first byte of each page.
#[inline(always)]
fn look(memory: &Mapping) {
    for page in 0..memory.bytes() as u64 / PAGE_BYTES {
        let byte = (memory.address() + page * PAGE_BYTES) as *const u8;
        // SAFETY: within the mapping.
        unsafe { byte.read_volatile() };
    }
}

/// Operation: fork, exit, wait with so much memory, touched or only mapped.
pub fn fork_with_memory(
    sum: &mut Sum,
    mib: u64,
    usually: u64,
    touched: bool,
) -> Result<(), Failure> {
    let count = sum.count(usually);
    let memory = Mapping::anonymous(mib * MIB_PAGES)?;
    if touched {
        touch(&memory, 1);
    }
    reap(fork_once()?)?;
    sum.measure(count, || {
        for _ in 0..count {
            reap(fork_once()?)?;
        }
        Ok(())
    })
}

/// Operation: a snapshot of a space with so much memory touched (dropping it is not measured). The space is
/// one of our own making, because no process holds the right to take snapshots of the space it runs in.
pub fn snapshot(sum: &mut Sum, mib: u64) -> Result<(), Failure> {
    let space = syscall::space_create(own_pool(), Handle::NONE)?;
    let result = fill(space, mib * MIB_PAGES).and_then(|()| {
        for _ in 0..sum.count(100) {
            let from = begin();
            let snapshot = syscall::space_snapshot(space, own_pool(), 0);
            let to = end();
            syscall::cap_close(snapshot?)?;
            sum.add(from, to, 1);
        }
        Ok(())
    });
    syscall::cap_close(space)?;
    Ok(result?)
}

/// Maps so many pages in another space and writes each.
fn fill(space: Handle, pages: u64) -> Result<(), Error> {
    let protection = Protection::READ | Protection::WRITE;
    syscall::space_map(space, layout::BULK, pages, protection)?;
    let byte = 1u8;
    for page in 0..pages {
        let address = layout::BULK + page * PAGE_BYTES;
        syscall::space_write(space, address, &raw const byte as u64, 1, 0)?;
    }
    Ok(())
}

/// Who writes the pages after a fork.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The child: each page is copied.
    Child,
    /// The parent while the child lives: each page is copied.
    Parent,
    /// The parent after the child is gone: nothing is copied.
    LastOwner,
}

/// Operation: one page written for the first time after a fork.
pub fn copy_on_write(sum: &mut Sum, writer: Writer) -> Result<(), Failure> {
    let memory = Mapping::anonymous(FAULT_PAGES)?;
    touch(&memory, 1);
    for _ in 0..sum.count(8) {
        let meeting = Meeting::new()?;
        let child = match fork()? {
            Fork::Child => {
                let mut times = [Moment::default(); 2];
                if writer == Writer::Child {
                    times[0] = begin();
                    touch(&memory, 2);
                    times[1] = end();
                }
                let [from, to] = times;
                let words = [from.ns, from.tsc, to.ns, to.tsc, 0, 0, 0, 0];
                let sent = message(IpcCall::Call, meeting.sender(), words, 32);
                if sent.is_ok() && writer != Writer::LastOwner {
                    wait_for_the_end(meeting.sender());
                }
                process::exit(sent.is_err().into())
            }
            Fork::Parent(child) => child,
        };
        let words = message(IpcCall::Receive, meeting.receiver(), [0; 8], 0)?.body;
        message(IpcCall::Reply, Handle::NONE, [0; 8], 0)?;
        let moment = |place: usize| Moment {
            ns: words[place],
            tsc: words[place + 1],
        };
        let mut times = [moment(0), moment(2)];
        if writer == Writer::LastOwner {
            reap(child)?;
        }
        if writer != Writer::Child {
            times[0] = begin();
            touch(&memory, 3);
            times[1] = end();
        }
        drop(meeting);
        if writer != Writer::LastOwner {
            reap(child)?;
        }
        sum.add(times[0], times[1], FAULT_PAGES);
    }
    Ok(())
}

/// Operation: the fault of the first write after the child is gone. It may give back more than one page.
pub fn last_owner_fault(sum: &mut Sum) -> Result<(), Failure> {
    let memory = Mapping::anonymous(FAULT_PAGES)?;
    touch(&memory, 1);
    for _ in 0..sum.count(200) {
        reap(fork_once()?)?;
        let byte = memory.address() as *mut u8;
        let from = begin();
        // SAFETY: the first byte of the mapping, which is writable and nobody else's.
        unsafe { byte.write_volatile(4) };
        let to = end();
        sum.add(from, to, 1);
    }
    Ok(())
}

/// Operation: the first write to one page of fresh anonymous memory.
pub fn zero_fill(sum: &mut Sum) -> Result<(), Failure> {
    for _ in 0..sum.count(8) {
        let memory = Mapping::anonymous(FAULT_PAGES)?;
        let from = begin();
        touch(&memory, 1);
        let to = end();
        sum.add(from, to, FAULT_PAGES);
    }
    Ok(())
}

/// Operation: the first read of one page of fresh anonymous memory.
pub fn zero_read(sum: &mut Sum) -> Result<(), Failure> {
    for _ in 0..sum.count(8) {
        let memory = Mapping::anonymous(FAULT_PAGES)?;
        let from = begin();
        look(&memory);
        let to = end();
        sum.add(from, to, FAULT_PAGES);
    }
    Ok(())
}

/// Operation: the first read of a page of a shared window on memory that is there.
pub fn link(sum: &mut Sum) -> Result<(), Failure> {
    let memory = Mapping::anonymous(FAULT_PAGES)?;
    touch(&memory, 1);
    let window = memory.make_window(Access::READ)?;
    for _ in 0..sum.count(8) {
        let view = Mapping::window(window, Protection::READ)?;
        let from = begin();
        look(&view);
        let to = end();
        sum.add(from, to, FAULT_PAGES);
    }
    syscall::cap_close(window)?;
    Ok(())
}

/// Operation: 1 MiB is mapped, its pages are written if `touched`, and unmapped.
pub fn map_unmap(sum: &mut Sum, usually: u64, touched: bool) -> Result<(), Failure> {
    let count = sum.count(usually);
    sum.measure(count, || {
        for _ in 0..count {
            let memory = Mapping::anonymous(MIB_PAGES)?;
            if touched {
                touch(&memory, 1);
            }
        }
        Ok(())
    })
}

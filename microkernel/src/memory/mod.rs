//! Physical memory, kernel objects and address spaces.
//!
//! [`Memory`] owns every frame of RAM. A frame has one record; what holds frames
//! pays for them through a [`Pool`]; kernel objects live in frames cut into
//! slots; an address space is a persistent radix tree of frames that *is* the
//! page table. Copy-on-write is what such a tree does by itself: a copy of a
//! space is a new root whose entries refer to the same tables, and whoever
//! writes first copies the path that it writes through.
//!
//! Where to read on:
//!
//! | file | idea |
//! |---|---|
//! | `frame.rs` | frames, their records, free lists that wait for a flush |
//! | `pool.rs` | who pays, what happens to a charge when the payer ends |
//! | `store.rs` | typed objects in slabs of one kind and one pool |
//! | `entry.rs` | kinds and logical permission in software bits, hardware bits derived |
//! | `tree.rs` | walking, and the four steps in which an owner parts from the others |
//! | `lines.rs` | copying and emptying tables by the cache lines that are used |
//! | `space.rs` | making, snapshotting, loading and ending spaces |
//! | `map.rs`, `protect.rs` | ranges: the largest entries that fit, work in steps |
//! | `window.rs` | memory of one space mapped by others |
//! | `resolve.rs` | what a page fault does, and the kernel before it touches user memory |
//! | `access.rs` | the kernel's own reads and writes, futex keys |
//! | `fake.rs`, `audit.rs`, `tests/` | CPUs that forget only when told; counting anew; the rules |
//!
//! Invariant: every frame that is not free has exactly one record saying what it
//! is, how often it is referred to and which pool pays for it, and the sum of
//! what the records say is what the pools say.
//!
//! Choices that are not obvious from the code:
//!
//! - A link entry names a [`Mapping`], a counted object, and not a window by
//!   number, generation and page. No id can come round again, no table bounds
//!   the number of windows, and one entry can stand for any power of 512 pages,
//!   because the page follows from the address.
//! - A private page that somebody maps through a window becomes shared and is
//!   marked *exported*. When a table is copied and nobody else has the page any
//!   more, it is private again; so memory that was lent out for one transfer is
//!   copied at a later fork like all other. While a mapper has the page it is
//!   shared with both sides of a snapshot.
//! - A futex in exported memory keeps the key of private memory: that somebody
//!   maps a window must not part the threads of the space from each other. So
//!   two spaces meet at a futex if both map it through windows.
//! - What one side of a snapshot reads below a table that both still share (zeros
//!   or a link) is settled for both.
//! - A range operation that needs several steps checks each step before it
//!   changes anything; earlier steps stay done.
//! - A window that is mapped holds its source. Spaces that map windows of each
//!   other and are otherwise forgotten stay until their pool ends.

mod access;
#[cfg(any(test, feature = "fake"))]
mod audit;
mod entry;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod frame;
mod lines;
mod map;
mod pool;
mod protect;
mod resolve;
mod space;
mod store;
#[cfg(test)]
mod tests;
mod tree;
mod window;

pub use access::{FaultAt, FutexKey, SPAN_BYTES, Span};
pub use entry::Caching;
pub use frame::{Frame, FrameKind, FrameRecord, PAGE_SIZE, PageContent};
pub use libipc::Error;
pub(crate) use lines::Bits;
pub use pool::{Ending, Pool, PoolStatus};
pub use resolve::{Fault, Intent};
pub use space::{Loadable, PagerRef, Progress, Space};
pub use store::{AnyRef, Object, ObjectKind, Ref};
pub use window::{Mapping, Window, WindowMode, WindowPart};

use crate::machine::{MAX_CPUS, Machine};
use core::ops::Range;
use frame::{FreeList, Pending};

/// What happened since boot; for benches and the `mem` command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Frames of RAM that the pools can pay for.
    pub frames_total: u64,
    /// Frames that nobody holds now.
    pub frames_free: u64,
    /// Pages copied because two owners had to part.
    pub page_copies: u64,
    /// Pages filled with zeros on first touch.
    pub zero_fills: u64,
    /// Pages and tables that their last owner took back without copying.
    pub take_backs: u64,
    /// Tables copied because two owners had to part.
    pub table_copies: u64,
    /// Single addresses flushed from TLBs.
    pub page_flushes: u64,
    /// Whole address spaces flushed from TLBs.
    pub full_flushes: u64,
    /// Translation roots loaded.
    pub root_loads: u64,
}

/// The memory of one machine.
pub struct Memory<M: Machine> {
    machine: M,
    records: &'static mut [FrameRecord],
    /// Free frames with any content.
    dirty: FreeList,
    /// Free frames known to hold zeros only.
    clean: FreeList,
    /// Frames that become free with the next flush; none between operations.
    pending: Pending,
    /// The space that each CPU has loaded.
    loaded: [Option<Ref<Space>>; MAX_CPUS],
    next_space_id: u64,
    next_window_id: u64,
    /// Spaces that nobody holds and that have not been ended.
    unheld: Option<Ref<Space>>,
    /// The lines of the kernel's root that have entries.
    kernel_lines: u64,
    root_pool: Ref<Pool>,
    statistics: Statistics,
}

impl<M: Machine> Memory<M> {
    /// Takes over `ram`, ranges of frames that nobody uses, and makes the root
    /// pool that pays for all of them. `records` has one record for each frame
    /// number from zero to the highest in RAM; those outside `ram` that are RAM
    /// all the same (the boot archive, say) may be marked with
    /// [`Memory::mark_foreign`] afterwards.
    ///
    /// # Panics
    ///
    /// If `ram` is empty or has a frame without a record.
    pub fn new(machine: M, records: &'static mut [FrameRecord], ram: &[Range<u32>]) -> Memory<M> {
        let mut memory = Memory {
            machine,
            records,
            dirty: FreeList::EMPTY,
            clean: FreeList::EMPTY,
            pending: Pending::NONE,
            loaded: [None; MAX_CPUS],
            next_space_id: 1,
            next_window_id: 1,
            unheld: None,
            kernel_lines: 0,
            root_pool: Ref::DANGLING,
            statistics: Statistics::default(),
        };
        // Backwards, so that frames are handed out in rising order.
        for range in ram.iter().rev() {
            for number in range.clone().rev() {
                // Frame zero is the end mark of lists.
                if number != 0 {
                    memory.add_free(Frame::from_number(number));
                }
            }
        }
        memory.find_kernel_lines();
        memory.create_root_pool();
        memory
    }

    /// The machine.
    #[inline]
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, to be changed.
    #[inline]
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The pool that all others descend from.
    pub fn root_pool(&self) -> Ref<Pool> {
        self.root_pool
    }

    /// The counters.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }
}

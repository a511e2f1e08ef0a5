//! A global allocator over anonymous memory of the program's own space, with the feature `heap`.
//!
//! The heap is one range that grows at its end on demand. In a program its pages are demand-zero, so a
//! page that nobody touches costs nothing, and a fork copies it with the rest. In a server they are paid
//! for at once: a pool at its limit is then a failed allocation, which the server answers with an error,
//! and not a fault in the middle of its work.

use core::alloc::Layout;
use core::ptr::NonNull;

use libipc::abi::{Error, PAGE_BYTES, Protection};
use talc::DefaultBinning;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;
use talc::sync::TalcLock;

use crate::memory::{HEAP, own_space};
use crate::start::{self, Role};
use crate::sync::RawLock;
use crate::syscall;

/// The heap grows in steps of at least this many bytes.
const STEP: u64 = 256 * 1024;
/// The heap never gets larger than this, in bytes.
const LIMIT: u64 = 0x40_0000_0000;

/// Maps the next pages behind the heap. Invariant: `HEAP..end` is mapped, nothing behind it is ours.
#[derive(Debug)]
struct Pages {
    end: u64,
    heap_end: Option<NonNull<u8>>,
}

// SAFETY: `heap_end` points into the heap, which every thread of the program sees at the same address.
unsafe impl Send for Pages {}

// SAFETY: the memory that `acquire` adds was mapped by it just now, so nobody else uses it, and it is
// never unmapped. It makes system calls and allocates nothing.
unsafe impl Source for Pages {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let base = talc.source.end;
        let free_at_end = talc.source.heap_end.map_or(0, |heap_end| {
            // SAFETY: `heap_end` is what the last `claim` or `extend` returned.
            let reserved = unsafe { talc.reserved(heap_end) };
            heap_end.addr().get() - reserved.up_to.addr().get()
        });
        // The allocator keeps some metadata of its own beside the block.
        let bytes = (layout.size() as u64)
            .saturating_add(layout.align() as u64)
            .saturating_add(PAGE_BYTES)
            .saturating_sub(free_at_end as u64)
            .max(STEP)
            .next_multiple_of(PAGE_BYTES);
        if bytes > HEAP + LIMIT - base {
            return Err(());
        }
        let protection = Protection::READ | Protection::WRITE;
        syscall::space_map(own_space(), base, bytes / PAGE_BYTES, protection).map_err(drop)?;
        let end = base + bytes;
        if start::role() != Role::Program && commit(base, end).is_err() {
            let _ = syscall::space_unmap(own_space(), base, bytes / PAGE_BYTES);
            return Err(());
        }
        talc.source.end = end;
        talc.source.heap_end = match talc.source.heap_end {
            // SAFETY: the pages between the old end and the new one were mapped just now.
            Some(heap_end) => Some(unsafe { talc.extend(heap_end, end as *mut u8) }),
            // SAFETY: as above, and nothing was claimed before.
            None => unsafe { talc.claim(base as *mut u8, bytes as usize) },
        };
        talc.source.heap_end.map(drop).ok_or(())
    }
}

/// Has the pool pay for the pages of a range.
fn commit(base: u64, end: u64) -> Result<(), Error> {
    // Untouched memory reads as zero, and so nothing changes but that each page is there.
    (base..end)
        .step_by(PAGE_BYTES as usize)
        .try_for_each(|page| syscall::space_compare_exchange(own_space(), page, 0, 0).map(drop))
}

#[cfg_attr(target_os = "none", global_allocator)]
#[cfg_attr(not(target_os = "none"), allow(dead_code))]
static ALLOCATOR: TalcLock<RawLock, Pages, DefaultBinning> = TalcLock::new(Pages {
    end: HEAP,
    heap_end: None,
});

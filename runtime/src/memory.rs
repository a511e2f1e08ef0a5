//! Anonymous memory and windows in the program's own space, by direct kernel calls.
//!
//! Which ranges are free is the kernel's knowledge, not ours: a free range is looked for in the bulk
//! part of the layout and taken by mapping it. If somebody else (a thread, a vfork child) took it in
//! between, the kernel says `Occupied` and the search goes on. We only remember where it is worth trying
//! first, which may be wrong at any time: so there is no state that a fork would copy wrongly.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use libipc::abi::{Access, Error, Handle, PAGE_BYTES, Protection, initial, layout};
use libipc::protocol::{process, startup};

use crate::start::{self, Role};
use crate::syscall;

/// How far the search for free ranges goes; the heap lies behind it.
const BULK_END: u64 = layout::BULK + 0x40_0000_0000;
/// Where the heap begins.
#[cfg(feature = "heap")]
pub(crate) const HEAP: u64 = BULK_END;

/// Where to try to map first.
static TRY_FIRST: AtomicU64 = AtomicU64::new(layout::BULK);

/// The program's own space.
pub fn own_space() -> Handle {
    match start::role() {
        Role::Program => process::slots::SPACE,
        Role::Server => startup::SPACE,
        Role::Init => initial::SPACE,
    }
}

/// The pool that pays for the program's memory.
pub fn own_pool() -> Handle {
    match start::role() {
        Role::Program => process::slots::POOL,
        Role::Server => startup::POOL,
        Role::Init => initial::POOL,
    }
}

/// Mapped pages of the program's own space.
#[derive(Debug, PartialEq, Eq)]
pub struct Mapping {
    address: u64,
    pages: u64,
}

impl Mapping {
    /// Maps demand-zero memory for reading and writing.
    pub fn anonymous(pages: u64) -> Result<Mapping, Error> {
        place(pages, |address| {
            let protection = Protection::READ | Protection::WRITE;
            syscall::space_map(own_space(), address, pages, protection)
        })
    }

    /// Maps a whole window shared, with these rights.
    pub fn window(window: Handle, protection: Protection) -> Result<Mapping, Error> {
        let (pages, _) = syscall::window_status(window, Access::empty())?;
        place(pages, |address| {
            syscall::window_map(window, 0, own_space(), address, pages, protection, 0)
        })
    }

    /// Maps the first pages of a physical range read-only.
    pub fn physical(range: Handle, pages: u64) -> Result<Mapping, Error> {
        place(pages, |address| {
            syscall::range_map(range, 0, own_space(), address, pages, Protection::READ, 0)
        })
    }

    /// No pages at all.
    pub(crate) const fn none() -> Mapping {
        Mapping {
            address: 0,
            pages: 0,
        }
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        (self.pages * PAGE_BYTES) as usize
    }

    /// A window on these pages for somebody else.
    pub fn make_window(&self, access: Access) -> Result<Handle, Error> {
        syscall::window_create(own_space(), own_pool(), self.address, self.pages, access)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the pages are mapped readable until `self` is dropped.
        unsafe { core::slice::from_raw_parts(self.address as *const u8, self.bytes()) }
    }

    /// The bytes, for writing.
    ///
    /// # Safety
    /// The mapping is writable and nobody else writes it meanwhile.
    pub unsafe fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: mapped until `self` is dropped; the rest is the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.address as *mut u8, self.bytes()) }
    }

    /// The bytes, for writing those that are nobody's yet.
    ///
    /// # Safety
    /// As for [`as_mut_slice`](Self::as_mut_slice); what is written is initialised.
    pub(crate) unsafe fn as_uninit_slice(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: mapped until `self` is dropped; the rest is the caller's promise.
        unsafe {
            core::slice::from_raw_parts_mut(self.address as *mut MaybeUninit<u8>, self.bytes())
        }
    }

    /// Keeps the pages mapped for ever; returns their address.
    pub fn leak(self) -> u64 {
        let address = self.address;
        core::mem::forget(self);
        address
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.pages == 0 {
            return;
        }
        // Nothing is left to do if the kernel refuses.
        let _ = syscall::space_unmap(own_space(), self.address, self.pages);
        TRY_FIRST.store(self.address, Ordering::Relaxed);
    }
}

/// Tries `map` at free ranges until it does not say `Occupied`.
///
/// What was unmapped last, or lies behind what was mapped last, is tried without asking.
fn place(pages: u64, mut map: impl FnMut(u64) -> Result<(), Error>) -> Result<Mapping, Error> {
    let mut placed = |address: u64| {
        map(address)?;
        TRY_FIRST.store(address + pages * PAGE_BYTES, Ordering::Relaxed);
        Ok(Mapping { address, pages })
    };
    let guess = TRY_FIRST.load(Ordering::Relaxed);
    if pages > 0 && pages <= (BULK_END - guess) / PAGE_BYTES {
        match placed(guess) {
            Err(Error::Occupied) => {}
            done => return done,
        }
    }
    let mut from = layout::BULK;
    loop {
        let address = free_range(from, pages, |at| syscall::space_next(own_space(), at))?;
        match placed(address) {
            Err(Error::Occupied) => from = address + PAGE_BYTES,
            done => return done,
        }
    }
}

/// The first range of `pages` at or above `from` in which `next_mapped` finds nothing.
fn free_range(
    mut from: u64,
    pages: u64,
    mut next_mapped: impl FnMut(u64) -> Result<(u64, u64), Error>,
) -> Result<u64, Error> {
    let bytes = pages.checked_mul(PAGE_BYTES).ok_or(Error::NoMemory)?;
    if pages == 0 {
        return Err(Error::InvalidArgument);
    }
    loop {
        let end = from.checked_add(bytes).ok_or(Error::NoMemory)?;
        if end > BULK_END {
            return Err(Error::NoMemory);
        }
        let (mapped, mapped_pages) = next_mapped(from)?;
        if mapped_pages == 0 || mapped >= end {
            return Ok(from);
        }
        from = mapped + mapped_pages * PAGE_BYTES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as the kernel would, of these mapped ranges.
    fn next_of(mapped: &[(u64, u64)]) -> impl FnMut(u64) -> Result<(u64, u64), Error> + '_ {
        move |at| {
            Ok(mapped
                .iter()
                .find(|(start, pages)| start + pages * PAGE_BYTES > at)
                .map_or((0, 0), |(start, pages)| {
                    let begin = (*start).max(at);
                    (begin, (start + pages * PAGE_BYTES - begin) / PAGE_BYTES)
                }))
        }
    }

    #[test]
    fn the_first_gap_that_is_large_enough_is_taken() {
        let base = layout::BULK;
        let mapped = [(base, 2), (base + 0x3000, 1), (base + 0x8000, 4)];
        assert_eq!(free_range(base, 1, next_of(&mapped)), Ok(base + 0x2000));
        assert_eq!(free_range(base, 2, next_of(&mapped)), Ok(base + 0x4000));
        assert_eq!(free_range(base, 5, next_of(&mapped)), Ok(base + 0xc000));
        assert_eq!(free_range(base, 1, next_of(&[])), Ok(base));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(
            free_range(layout::BULK, u64::MAX, next_of(&[])),
            Err(Error::NoMemory)
        );
        assert_eq!(
            free_range(layout::BULK, 0, next_of(&[])),
            Err(Error::InvalidArgument)
        );
    }
}

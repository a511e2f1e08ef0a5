//! The numbers of one PID namespace: what each stands for, and which comes next.
//!
//! Processes, threads, process groups and sessions share the numbers. A number is taken while any
//! of them uses it (LX-PID-04), or while a creation has reserved it. Allocation goes round
//! (LX-PID-01), so that a freed number rests as long as possible. Numbers are kept in pages that
//! are made when first used, and go with the last number on them unless the next one is about to be
//! given out there; a full page is skipped in one step.
//!
//! Invariant: `used` of a page counts its entries that are taken.

use alloc::vec::Vec;

use crate::model::{GroupId, ProcessId, ThreadId};

/// After the first pass numbers below this are not given out again.
const SECOND_PASS: u32 = 300;
/// Default end of the number space, exclusive (LX-PID-03).
pub const DEFAULT_MAX: u32 = 32768;
/// Highest end that the number space can have.
pub const LARGEST_MAX: u32 = 4_194_304;
const PAGE: usize = 128;

/// What a number stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The process with this PID, dead but unreaped ones included.
    pub process: Option<ProcessId>,
    /// The thread with this TID.
    pub thread: Option<ThreadId>,
    /// The process group with this ID.
    pub group: Option<GroupId>,
    /// Number of groups whose session has this ID.
    pub session: u32,
    /// A creation holds it, or a record that is still looked at by handle.
    pub reserved: bool,
}

impl Entry {
    #[inline]
    fn is_free(&self) -> bool {
        let Entry {
            process,
            thread,
            group,
            session,
            reserved,
        } = *self;
        process.is_none() && thread.is_none() && group.is_none() && session == 0 && !reserved
    }
}

#[derive(Default)]
struct Page {
    used: usize,
    /// None while the page is not there.
    entries: Vec<Entry>,
}

/// Why there is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNumber {
    /// All are taken (EAGAIN).
    Exhausted,
    /// The server has no memory for another page (ENOMEM).
    NoMemory,
    /// The number asked for is taken (EEXIST).
    Taken,
    /// The number asked for is not one (EINVAL).
    Invalid,
}

/// The numbers of one namespace.
pub struct PidSpace {
    pages: Vec<Page>,
    last: u32,
    max: u32,
}

impl PidSpace {
    /// An empty space of the numbers 1 to `max` - 1.
    pub fn new(max: u32) -> PidSpace {
        PidSpace {
            pages: Vec::new(),
            last: 0,
            max: max.clamp(SECOND_PASS + 1, LARGEST_MAX),
        }
    }

    /// What `number` stands for.
    pub fn get(&self, number: u32) -> Entry {
        let page = self.pages.get(number as usize / PAGE);
        page.and_then(|page| page.entries.get(place(number)))
            .copied()
            .unwrap_or_default()
    }

    /// Changes what a taken number stands for; it becomes free when nothing is left.
    pub fn update(&mut self, number: u32, change: impl FnOnce(&mut Entry)) {
        let Some(page) = self.pages.get_mut(number as usize / PAGE) else {
            return;
        };
        let Some(entry) = page.entries.get_mut(place(number)) else {
            return;
        };
        if entry.is_free() {
            return;
        }
        change(entry);
        if entry.is_free() {
            page.used -= 1;
            if page.used == 0 {
                self.forget_unused(number);
            }
        }
    }

    /// Drops the page of a number if nothing on it is taken. The cursor's page stays: the next number
    /// comes from there, and processes that come and go one by one must not make it anew each time.
    #[inline]
    fn forget_unused(&mut self, number: u32) {
        let index = number as usize / PAGE;
        let is_unused = |page: &Page| page.used == 0 && !page.entries.is_empty();
        if index != self.last as usize / PAGE && self.pages.get(index).is_some_and(is_unused) {
            self.forget_page(index);
        }
    }

    #[cold]
    fn forget_page(&mut self, index: usize) {
        self.pages[index] = Page::default();
    }

    /// Reserves the next number.
    pub fn allocate(&mut self) -> Result<u32, NoNumber> {
        let next = self.last + 1;
        let number = if next < self.max && self.reserve_on_page(next) {
            next
        } else {
            let number = self
                .free_between(next, self.max)
                .or_else(|| self.free_between(SECOND_PASS, self.max))
                .ok_or(NoNumber::Exhausted)?;
            self.reserve(number)?;
            number
        };
        let before = core::mem::replace(&mut self.last, number);
        if before as usize / PAGE != number as usize / PAGE {
            self.forget_unused(before);
        }
        Ok(number)
    }

    /// Reserves a number that is free, if its page is there; mostly the next number's is.
    fn reserve_on_page(&mut self, number: u32) -> bool {
        let Some(page) = self.pages.get_mut(number as usize / PAGE) else {
            return false;
        };
        let Some(entry) = page.entries.get_mut(place(number)) else {
            return false;
        };
        let free = entry.is_free();
        if free {
            entry.reserved = true;
            page.used += 1;
        }
        free
    }

    /// Reserves `number` itself (set_tid, LX-CLONE3-14).
    pub fn allocate_exactly(&mut self, number: u32) -> Result<u32, NoNumber> {
        if number == 0 || number >= self.max {
            return Err(NoNumber::Invalid);
        }
        if !self.get(number).is_free() {
            return Err(NoNumber::Taken);
        }
        self.reserve(number)?;
        Ok(number)
    }

    /// Gives back what `allocate` reserved; the cursor stays (LX-PID-08).
    pub fn release(&mut self, number: u32) {
        self.update(number, |entry| entry.reserved = false);
    }

    fn free_between(&self, from: u32, end: u32) -> Option<u32> {
        let mut number = from.max(1);
        while number < end {
            match self.pages.get(number as usize / PAGE) {
                Some(page) if page.used == PAGE => {
                    number = (number / PAGE as u32 + 1) * PAGE as u32
                }
                _ if self.get(number).is_free() => return Some(number),
                _ => number += 1,
            }
        }
        None
    }

    fn reserve(&mut self, number: u32) -> Result<(), NoNumber> {
        let index = number as usize / PAGE;
        if index >= self.pages.len() {
            let more = index + 1 - self.pages.len();
            self.pages
                .try_reserve(more)
                .map_err(|_| NoNumber::NoMemory)?;
            self.pages.resize_with(index + 1, Page::default);
        }
        let entries = &mut self.pages[index].entries;
        if entries.is_empty() {
            entries
                .try_reserve_exact(PAGE)
                .map_err(|_| NoNumber::NoMemory)?;
            entries.resize(PAGE, Entry::default());
        }
        self.reserve_on_page(number);
        Ok(())
    }

    /// The first number not below `from` that stands for a process.
    pub fn next_process(&self, from: u32) -> Option<ProcessId> {
        let mut number = from.max(1);
        while (number as usize) < self.pages.len() * PAGE {
            match self.pages[number as usize / PAGE].used {
                0 => number = (number / PAGE as u32 + 1) * PAGE as u32,
                _ => match self.get(number).process {
                    Some(process) => return Some(process),
                    None => number += 1,
                },
            }
        }
        None
    }

    /// How many numbers are taken.
    pub fn taken(&self) -> usize {
        self.pages.iter().map(|page| page.used).sum()
    }
}

fn place(number: u32) -> usize {
    number as usize % PAGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn lx_pid_01_numbers_go_round_and_restart_at_300() {
        let mut pids = PidSpace::new(310);
        let first: Vec<u32> = (0..309).map(|_| pids.allocate().unwrap()).collect();
        assert_eq!(first, (1..310).collect::<Vec<_>>());
        for number in 280..310 {
            pids.release(number);
        }
        let second: Vec<u32> = (0..10).map(|_| pids.allocate().unwrap()).collect();
        assert_eq!(second, (300..310).collect::<Vec<_>>());
    }

    #[test]
    fn lx_pid_02_a_freed_number_rests_until_the_cursor_wraps() {
        let mut pids = PidSpace::new(400);
        let mut last = 0;
        for _ in 0..399 {
            let number = pids.allocate().unwrap();
            pids.release(number);
            assert!(number > last);
            last = number;
        }
        assert_eq!(pids.allocate(), Ok(300));
    }

    #[test]
    fn numbers_that_come_and_go_leave_no_pages_behind() {
        let mut pids = PidSpace::new(4000);
        let kept = pids.allocate().unwrap();
        for _ in 0..3000 {
            let number = pids.allocate().unwrap();
            pids.release(number);
        }
        let there = |page: &&Page| !page.entries.is_empty();
        assert_eq!(pids.pages.iter().filter(there).count(), 2);
        assert!(pids.get(kept).reserved);
    }

    #[test]
    fn lx_pid_06_a_full_space_is_exhausted_until_a_number_is_freed() {
        let mut pids = PidSpace::new(301);
        while pids.allocate().is_ok() {}
        assert_eq!(pids.taken(), 300);
        pids.release(7);
        assert_eq!(pids.allocate(), Err(NoNumber::Exhausted));
        pids.release(300);
        assert_eq!(pids.allocate(), Ok(300));
    }

    #[test]
    fn a_number_asked_for_by_name_must_be_one_and_be_free() {
        let mut pids = PidSpace::new(400);
        assert_eq!(pids.allocate_exactly(0), Err(NoNumber::Invalid));
        assert_eq!(pids.allocate_exactly(400), Err(NoNumber::Invalid));
        assert_eq!(pids.allocate_exactly(42), Ok(42));
        assert_eq!(pids.allocate_exactly(42), Err(NoNumber::Taken));
        assert_eq!(pids.allocate(), Ok(1), "the cursor has not moved");
    }
}

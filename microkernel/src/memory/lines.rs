//! Tables by cache line: eight entries at a time, and only lines that are used.
//!
//! A table's record has two words with a bit for each of its 64 lines. *Occupied*
//! lines have an entry; *busy* ones have one that is more than untouched zeros,
//! so that something has to be counted, dropped or flushed with it. Copying,
//! emptying and scanning visit only what they must, and a table that is given
//! back holds zeros again.
//!
//! Invariant: a line that is not occupied holds zeros; an occupied line that is
//! not busy holds entries of the kinds absent and zero only.

use super::entry::{Entry, Kind};
use super::frame::{Content, Frame, FrameKind, table};
use super::store::Ref;
use super::tree::{ROOT_LEVEL, USER_LINES, index};
use super::{Error, Memory, Pool};
use crate::machine::Machine;
use core::sync::atomic::{AtomicU64, Ordering};

/// The numbers of the bits that are set in a word, lowest first.
pub(crate) struct Bits(pub(crate) u64);

impl Iterator for Bits {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

/// One line of a table.
#[inline(always)]
fn line<M: Machine>(machine: &M, in_table: Frame, line: usize) -> &[AtomicU64; 8] {
    let (lines, _) = table(machine, in_table).as_chunks::<8>();
    &lines[line & 63]
}

#[inline(always)]
pub(super) fn copy_line<M: Machine>(machine: &M, from: Frame, to: Frame, number: usize) {
    let (from, to) = (line(machine, from, number), line(machine, to, number));
    for (from, to) in from.iter().zip(to) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[inline(always)]
pub(super) fn clear_line<M: Machine>(machine: &M, in_table: Frame, number: usize) {
    for slot in line(machine, in_table, number) {
        slot.store(0, Ordering::Relaxed);
    }
}

/// Stores the same entry in a run of slots.
#[inline]
pub(super) fn fill_slots(slots: &[AtomicU64], entry: Entry) {
    // Four lines to a turn: this loop is most of what mapping a small range
    // costs.
    let (lines, rest) = slots.as_chunks::<32>();
    for line in lines {
        for slot in line {
            slot.store(entry.bits(), Ordering::Relaxed);
        }
    }
    for slot in rest {
        slot.store(entry.bits(), Ordering::Relaxed);
    }
}

impl<M: Machine> Memory<M> {
    /// Copies the entries in `lines` of `from` to the same places of `to`: both
    /// then own what the entries refer to, so private ones are masked in both.
    /// Says whether any entry of `from` lost hardware write.
    ///
    /// # Errors
    ///
    /// `Exhausted` if a count is at its highest value. What was copied before
    /// stays and is valid; masked entries of `from` stay masked.
    pub(super) fn copy_entries(
        &mut self,
        from: Frame,
        to: Frame,
        lines: u64,
    ) -> Result<bool, Error> {
        let busy = self.record(from).busy_lines() & lines;
        let record = self.record_mut(to);
        record.lines |= lines;
        record.set_busy_lines(record.busy_lines() | busy);
        for line in Bits(lines & !busy) {
            copy_line(&self.machine, from, to, line);
        }
        let mut masked = false;
        for number in Bits(busy) {
            masked |= self.copy_busy_line(from, to, number, None)?;
        }
        Ok(masked)
    }

    /// Copies the entries of a line, but for one that counts.
    #[inline(always)]
    fn copy_busy_line(
        &mut self,
        from: Frame,
        to: Frame,
        number: usize,
        except: Option<usize>,
    ) -> Result<bool, Error> {
        let mut masked = false;
        for index in number * 8..number * 8 + 8 {
            let entry = self.entry(from, index);
            if !entry.counts() {
                self.replace_entry(to, index, entry);
            } else if Some(index) != except {
                masked |= self.copy_counted(from, to, index, entry)?;
            }
        }
        Ok(masked)
    }

    /// Copies the entries of a space's lower half from one root to another, and what lies on the way
    /// to the page at `address`, which both sides will write, parts at once: where it is the
    /// source's alone, the source keeps it and the copy gets tables and a page of its own. So
    /// neither faults there. What `pool` cannot pay for is shared.
    ///
    /// # Errors
    ///
    /// As for [`Memory::copy_entries`].
    pub(super) fn copy_entries_apart(
        &mut self,
        from_root: Frame,
        to_root: Frame,
        address: u64,
        pool: Ref<Pool>,
    ) -> Result<bool, Error> {
        let (mut from, mut to) = (from_root, to_root);
        let mut lines = self.record(from).lines & USER_LINES;
        let mut masked = false;
        for level in (1..=ROOT_LEVEL).rev() {
            let index = index(address, level);
            let entry = self.entry(from, index);
            let own = match entry.kind() {
                Kind::Table if entry.is_writable() => {
                    self.take(pool, FrameKind::Table, Content::Zero)
                }
                Kind::Private if entry.is_writable() => {
                    self.take(pool, FrameKind::Data, Content::Any)
                }
                _ => break,
            };
            let Ok(own) = own else { break };
            let line = 1 << (index / 8);
            if entry.is_table() {
                self.statistics.table_copies += 1;
                self.set_entry(to, index, Entry::table(own, true));
            } else {
                self.statistics.page_copies += 1;
                self.machine.copy_frame(entry.frame(), own);
                let page = Entry::page(Kind::Private, own, entry).unmasked();
                self.set_entry(to, index, page);
            }
            masked |= self.copy_busy_line(from, to, index / 8, Some(index))?;
            if lines != line {
                masked |= self.copy_entries(from, to, lines & !line)?;
            }
            if !entry.is_table() {
                return Ok(masked);
            }
            (from, to) = (entry.frame(), own);
            lines = self.record(from).lines;
        }
        Ok(masked | self.copy_entries(from, to, lines)?)
    }

    #[inline(always)]
    fn copy_counted(
        &mut self,
        from: Frame,
        to: Frame,
        index: usize,
        entry: Entry,
    ) -> Result<bool, Error> {
        if entry.is_link() {
            self.mapping_bump(entry.mapping(), 1);
            self.replace_entry(to, index, entry);
            return Ok(false);
        }
        let mut copy = entry;
        let record = &mut self.records[entry.frame().number() as usize];
        if entry.is_exported() && record.count == 1 {
            // Whoever mapped the window has let go of the page: it is
            // private again, and parts on write.
            copy = Entry::page(Kind::Private, entry.frame(), entry);
        } else if entry.kind() != Kind::Shared {
            copy = entry.masked();
        }
        if record.kind != FrameKind::Foreign {
            record.count = record.count.checked_add(1).ok_or(Error::Exhausted)?;
        }
        let masked = copy != entry;
        if masked {
            self.replace_entry(from, index, copy);
        }
        self.replace_entry(to, index, copy);
        Ok(masked)
    }

    /// Takes everything out of the lines of a table that has one owner, tables
    /// below included, lowest address first. Stops when the budget of lines is
    /// used up; returns whether all is out. What goes away is pending until
    /// [`Memory::free_pending`].
    pub(super) fn clear_table(&mut self, in_table: Frame, lines: u64, budget: &mut u32) -> bool {
        let record = self.record(in_table);
        let occupied = record.lines & lines;
        let busy = record.busy_lines() & lines;
        for number in Bits(occupied & !busy) {
            clear_line(&self.machine, in_table, number);
        }
        let mut left = busy;
        while left != 0 && self.clear_busy_line(in_table, left.trailing_zeros() as usize, budget) {
            left &= left - 1;
        }
        let record = self.record_mut(in_table);
        record.lines &= left | !lines;
        record.set_busy_lines(record.busy_lines() & (left | !lines));
        left == 0
    }

    /// Takes everything out of a line; false, and some of it may be there, if the
    /// budget ends.
    #[inline(always)]
    fn clear_busy_line(&mut self, in_table: Frame, number: usize, budget: &mut u32) -> bool {
        if *budget == 0 {
            return false;
        }
        *budget -= 1;
        for index in number * 8..number * 8 + 8 {
            let entry = self.entry(in_table, index);
            if entry.counts() {
                if entry.is_table() && !self.clear_below(entry.frame(), budget) {
                    return false;
                }
                self.drop_counted(entry);
            }
            // Before the next: it must not be dropped again if the
            // budget ends there.
            self.replace_entry(in_table, index, Entry::ABSENT);
        }
        true
    }

    /// Empties a table if the entry at hand is its last.
    #[inline]
    pub(super) fn clear_below(&mut self, child: Frame, budget: &mut u32) -> bool {
        self.record(child).count > 1 || self.clear_table(child, u64::MAX, budget)
    }

    /// Takes lines of untouched zeros out of a table, all at once. Returns which
    /// of `lines` are left.
    pub(super) fn clear_idle_lines(&mut self, in_table: Frame, lines: u64) -> u64 {
        let record = self.record(in_table);
        let idle = record.lines & lines & !record.busy_lines();
        let mut rest = idle;
        while rest != 0 {
            // A run of lines at a time.
            let first = rest.trailing_zeros();
            let count = (!(rest >> first)).trailing_zeros();
            let slots = first as usize * 8..(first + count) as usize * 8;
            fill_slots(&table(&self.machine, in_table)[slots], Entry::ABSENT);
            rest &= u64::MAX.checked_shl(first + count).unwrap_or(0);
        }
        self.record_mut(in_table).lines &= !idle;
        lines & !idle
    }

    /// Drops what an entry that is going away refers to. A table has been
    /// emptied if this is its last entry.
    #[inline]
    pub(super) fn drop_entry(&mut self, entry: Entry) {
        if entry.counts() {
            self.drop_counted(entry);
        }
    }

    #[inline(always)]
    fn drop_counted(&mut self, entry: Entry) {
        if entry.is_link() {
            self.mapping_drop(entry.mapping());
        } else if entry.is_table() {
            self.drop_table(entry.frame());
        } else {
            self.drop_page(entry.frame());
        }
    }

    /// Drops a reference to a page of user memory.
    #[inline(always)]
    pub(super) fn drop_page(&mut self, frame: Frame) {
        let record = self.record_mut(frame);
        if record.kind == FrameKind::Foreign {
            return;
        }
        record.count -= 1;
        if record.count == 0 {
            self.release_later(frame, Content::Any);
        }
    }

    /// Drops a reference to a table; if it is the last, the table is empty.
    #[inline]
    pub(super) fn drop_table(&mut self, frame: Frame) {
        let record = self.record_mut(frame);
        record.count -= 1;
        if record.count == 0 {
            debug_assert!(record.lines == 0 && record.busy_lines() == 0);
            self.release_later(frame, Content::Zero);
        }
    }
}

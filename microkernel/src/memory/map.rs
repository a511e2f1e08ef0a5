//! Mapping and unmapping ranges of a space, and listing them.
//!
//! A range is written with the largest entries that fit it, so demand-zero
//! memory and windows of any size cost a few entries at each end. Work that
//! grows with what is mapped is cut into steps; a step's flush comes before the
//! frames that it freed are used again and before it returns.

use super::entry::{Caching, Entry, Kind};
use super::frame::{Frame, FrameKind, table};
use super::lines::{Bits, fill_slots};
use super::space::STEP_LINES;
use super::store::Ref;
use super::tree::{ROOT_LEVEL, Stale, index, span};
use super::{Error, Memory, PAGE_SIZE, Progress, Space};
use crate::machine::Machine;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use libipc::abi::Protection;
use libipc::abi::USER_END;

/// What a range is filled with.
#[derive(Clone, Copy)]
pub(super) enum Fill {
    /// The same entry everywhere, at any level.
    Same(Entry),
    /// Consecutive frames from `frame` on at `address`, with the permissions of
    /// `like`.
    Frames {
        frame: Frame,
        address: u64,
        like: Entry,
    },
}

/// The range of `pages` pages from `address` on, if it lies in user space.
///
/// # Errors
///
/// `InvalidArgument` if `address` is not a page's or there are no pages,
/// `BadAddress` if not all of it is user space.
pub(super) fn user_range(address: u64, pages: u64) -> Result<Range<u64>, Error> {
    if !address.is_multiple_of(PAGE_SIZE) || pages == 0 {
        return Err(Error::InvalidArgument);
    }
    let bytes = pages.checked_mul(PAGE_SIZE).ok_or(Error::BadAddress)?;
    let end = address.checked_add(bytes).ok_or(Error::BadAddress)?;
    if end > USER_END {
        return Err(Error::BadAddress);
    }
    Ok(address..end)
}

/// # Errors
///
/// `InvalidArgument` for write and execute together.
pub(super) fn check_protection(protection: Protection) -> Result<(), Error> {
    if protection.contains(Protection::WRITE.union(Protection::EXECUTE)) {
        return Err(Error::InvalidArgument);
    }
    Ok(())
}

/// Where the entry of this level ends that `at` goes through, or the range.
#[inline]
pub(super) fn slot_end(at: u64, level: u8, end: u64) -> u64 {
    ((at & !(span(level) - 1)) + span(level)).min(end)
}

/// The line bits of the entries that `at..end` goes through in one table.
fn lines_of(at: u64, end: u64, level: u8) -> u64 {
    let first = index(at, level) / 8;
    let last = index(end - 1, level) / 8;
    u64::MAX >> (63 - (last - first)) << first
}

/// How many entries one look for a mapped run takes in.
const RUN_ENTRIES: u32 = 4096;

/// Bytes that a line of a lowest table stands for.
const LINE: u64 = 8 * PAGE_SIZE;

/// The lines of a lowest table that a range within it covers in part.
fn edge_lines(range: &Range<u64>) -> u64 {
    let mut edges = 0;
    if !range.start.is_multiple_of(LINE) {
        edges |= 1 << (index(range.start, 1) / 8);
    }
    if !range.end.is_multiple_of(LINE) {
        edges |= 1 << (index(range.end, 1) / 8);
    }
    edges
}

impl<M: Machine> Memory<M> {
    /// Maps `pages` pages of demand-zero memory at `address`. No page gets a
    /// frame before it is touched.
    ///
    /// # Errors
    ///
    /// `Occupied` if something is mapped there, `NoMemory` if the space's pool
    /// cannot pay for tables, `BadAddress` for a range that is not user space,
    /// `InvalidArgument` for one that is empty or not of pages, or for write and
    /// execute together, `Gone` if the space has ended. Nothing has changed then.
    pub fn map_anonymous(
        &mut self,
        space: Ref<Space>,
        address: u64,
        pages: u64,
        protection: Protection,
    ) -> Result<(), Error> {
        let range = user_range(address, pages)?;
        check_protection(protection)?;
        self.fill(space, range, Fill::Same(Entry::zero(protection)))
    }

    /// Maps physical memory that no pool owns, pinned: the frames from `frame`
    /// on. They may at most be given `limit`. Call again with the rest of range
    /// and frames while the answer is `More`.
    ///
    /// # Errors
    ///
    /// As [`Memory::map_anonymous`], `AccessDenied` if `protection` is more than
    /// `limit`, and `InvalidArgument` if a frame is pool memory or has no number.
    /// What earlier steps mapped stays.
    #[expect(clippy::too_many_arguments, reason = "a place, a source and its terms")]
    pub fn map_physical(
        &mut self,
        space: Ref<Space>,
        address: u64,
        pages: u64,
        frame: Frame,
        protection: Protection,
        limit: Protection,
        caching: Caching,
    ) -> Result<Progress, Error> {
        let mut range = user_range(address, pages)?;
        check_protection(protection)?;
        if !(limit | Protection::READ).contains(protection) {
            return Err(Error::AccessDenied);
        }
        let end = range.end;
        range.end = end.min(range.start + STEP_LINES as u64 * 8 * PAGE_SIZE);
        let first = frame.number() as u64;
        let last = first + (range.end - range.start) / PAGE_SIZE - 1;
        if last > u32::MAX as u64 || !(first..=last).all(|number| self.may_be_pinned(number)) {
            return Err(Error::InvalidArgument);
        }
        let like = Entry::pinned(frame, protection, limit, caching);
        let mapped = range.end;
        self.fill(
            space,
            range,
            Fill::Frames {
                frame,
                address,
                like,
            },
        )?;
        Ok(if mapped == end {
            Progress::Done
        } else {
            Progress::More(mapped)
        })
    }

    fn may_be_pinned(&self, number: u64) -> bool {
        match self.records.get(number as usize) {
            Some(record) => matches!(record.kind(), FrameKind::Foreign | FrameKind::Unknown),
            None => true,
        }
    }

    /// Unmaps what is mapped in the range. Call again with the rest of the range
    /// while the answer is `More`.
    ///
    /// # Errors
    ///
    /// `NoMemory` if a table has to be split or copied first and the pool cannot
    /// pay: what lies below may be unmapped already. `BadAddress`,
    /// `InvalidArgument` and `Gone` as [`Memory::map_anonymous`].
    pub fn unmap(
        &mut self,
        space: Ref<Space>,
        address: u64,
        pages: u64,
    ) -> Result<Progress, Error> {
        let range = user_range(address, pages)?;
        let root = self.living_root(space)?;
        let mut step = Step::new();
        let way = self.way_to(root, &range);
        let result = self.unmap_in(space, way.end(), way.level, range.clone(), &mut step);
        self.prune(&way, range.start, &mut step.stale);
        self.flush(space, step.stale);
        result.map(|reached| progress(reached, range.end))
    }

    /// The first mapped run at or above `address`: its start and its length in
    /// pages; `None` if nothing is mapped there. A long run may be cut off, its
    /// rest is the next run.
    pub fn next_mapped(&self, space: Ref<Space>, address: u64) -> Option<(u64, u64)> {
        let root = self.get(space).root()?;
        let address = address & !(PAGE_SIZE - 1);
        if address >= USER_END {
            return None;
        }
        let mut run = None;
        let mut budget = RUN_ENTRIES;
        self.run_in(root, ROOT_LEVEL, address..USER_END, &mut run, &mut budget);
        run.map(|run| (run.start, (run.end - run.start) / PAGE_SIZE))
    }

    /// The way down towards the lowest table that the whole range goes through,
    /// as far as the space owns it.
    #[inline]
    fn way_to(&self, root: Frame, range: &Range<u64>) -> Way {
        let lowest = level_of(range);
        let mut way = Way::from(root);
        while way.level > lowest {
            let entry = self.entry(way.end(), index(range.start, way.level));
            if !entry.is_table() || !entry.is_writable() {
                break;
            }
            way.go_down(entry.frame());
        }
        way
    }

    /// Takes out the tables on the way to `address` that are empty.
    #[inline]
    fn prune(&mut self, way: &Way, address: u64, stale: &mut Stale) {
        for level in way.level..ROOT_LEVEL {
            let child = way.tables[level as usize];
            if self.record(child).lines != 0 {
                break;
            }
            // CPUs may remember the way to it; flushing any page makes them
            // forget that.
            stale.add(address);
            let upper = way.tables[level as usize + 1];
            self.clear_entry(upper, index(address, level + 1));
            self.drop_table(child);
        }
    }

    pub(super) fn living_root(&self, space: Ref<Space>) -> Result<Frame, Error> {
        self.get(space).root().ok_or(Error::Gone)
    }

    /// Fills a vacant range. Changes nothing if it fails.
    pub(super) fn fill(
        &mut self,
        space: Ref<Space>,
        range: Range<u64>,
        what: Fill,
    ) -> Result<(), Error> {
        let root = self.living_root(space)?;
        let mut way = self.way_to(root, &range);
        if !self.is_vacant(way.end(), way.level, range.clone()) {
            return Err(Error::Occupied);
        }
        let mut filled = range.start;
        let result = self.fill_below(space, &mut way, range.clone(), what, &mut filled);
        if result.is_err() {
            // What was filled are whole entries on owned paths: taking them out
            // again needs nothing, so it cannot fail.
            let mut undone = range.start;
            while undone < filled {
                let mut step = Step::new();
                let rest = undone..filled;
                undone = self.unmap_in(space, way.end(), way.level, rest, &mut step)?;
                self.flush(space, step.stale);
            }
            let mut stale = Stale::Nothing;
            self.prune(&way, range.start, &mut stale);
            self.flush(space, stale);
        }
        result
    }

    /// Goes on to the end of a way, whose tables become the space's own or are
    /// made, and fills the range there.
    #[inline]
    fn fill_below(
        &mut self,
        space: Ref<Space>,
        way: &mut Way,
        range: Range<u64>,
        what: Fill,
        reached: &mut u64,
    ) -> Result<(), Error> {
        let lowest = level_of(&range);
        while way.level > lowest {
            let child = self.own_or_add_table(space, way.end(), way.level, range.start)?;
            way.go_down(child);
        }
        self.fill_in(space, way.end(), lowest, range, what, reached)
    }

    /// The table, the space's own, below the entry that `address` goes through:
    /// absent, or a table.
    #[inline]
    fn own_or_add_table(
        &mut self,
        space: Ref<Space>,
        in_table: Frame,
        level: u8,
        address: u64,
    ) -> Result<Frame, Error> {
        let index = index(address, level);
        if self.entry(in_table, index).is_absent() {
            self.add_table(space, in_table, index)
        } else {
            self.table_at(space, in_table, level, address)
        }
    }

    #[inline]
    fn is_vacant(&self, in_table: Frame, level: u8, range: Range<u64>) -> bool {
        let (mut in_table, mut level) = (in_table, level);
        // Down to where the range needs more than one entry.
        while index(range.start, level) == index(range.end - 1, level) && level > 1 {
            let entry = self.entry(in_table, index(range.start, level));
            if !entry.is_table() {
                return entry.is_absent();
            }
            if range.end - range.start == span(level) {
                return false;
            }
            in_table = entry.frame();
            level -= 1;
        }
        if self.record(in_table).lines & lines_of(range.start, range.end, level) == 0 {
            return true;
        }
        let mut at = range.start;
        while at < range.end {
            let next = slot_end(at, level, range.end);
            let entry = self.entry(in_table, index(at, level));
            // A table that is there is not empty, so only one at the edge of the
            // range can have room.
            let vacant = entry.is_absent()
                || (entry.is_table()
                    && next - at < span(level)
                    && self.is_vacant(entry.frame(), level - 1, at..next));
            if !vacant {
                return false;
            }
            at = next;
        }
        true
    }

    #[inline]
    fn fill_in(
        &mut self,
        space: Ref<Space>,
        in_table: Frame,
        level: u8,
        range: Range<u64>,
        what: Fill,
        reached: &mut u64,
    ) -> Result<(), Error> {
        if level > 1 {
            return self.fill_upper(space, in_table, level, range, what, reached);
        }
        self.fill_leaves(in_table, range.clone(), what)?;
        *reached = range.end;
        Ok(())
    }

    fn fill_upper(
        &mut self,
        space: Ref<Space>,
        in_table: Frame,
        level: u8,
        range: Range<u64>,
        what: Fill,
        reached: &mut u64,
    ) -> Result<(), Error> {
        let mut at = range.start;
        while at < range.end {
            let next = slot_end(at, level, range.end);
            let index = index(at, level);
            match what {
                Fill::Same(entry) if next - at == span(level) => {
                    if entry.kind() == Kind::Link {
                        self.mapping_bump(entry.mapping(), 1);
                    }
                    self.set_entry(in_table, index, entry);
                    *reached = next;
                }
                _ => {
                    let child = self.own_or_add_table(space, in_table, level, at)?;
                    let result = self.fill_in(space, child, level - 1, at..next, what, reached);
                    if result.is_err() && self.record(child).lines == 0 {
                        self.clear_entry(in_table, index);
                        self.drop_table(child);
                        self.flush(space, Stale::Page(at));
                    }
                    result?;
                }
            }
            at = next;
        }
        Ok(())
    }

    /// Fills part of a lowest table, all of it or nothing.
    fn fill_leaves(&mut self, in_table: Frame, range: Range<u64>, what: Fill) -> Result<(), Error> {
        let first = index(range.start, 1);
        let count = ((range.end - range.start) / PAGE_SIZE) as usize;
        match what {
            Fill::Same(entry) => {
                if entry.kind() == Kind::Link {
                    self.mapping_bump(entry.mapping(), count as u64);
                }
                fill_slots(&table(&self.machine, in_table)[first..first + count], entry);
                if !Entry::refers(entry.bits()) {
                    self.record_mut(in_table).lines |= lines_of(range.start, range.end, 1);
                    return Ok(());
                }
            }
            Fill::Frames {
                frame,
                address,
                like,
            } => {
                let slots = &table(&self.machine, in_table)[first..first + count];
                let from = frame.address() + (range.start - address);
                for (slot, number) in slots.iter().zip(from / PAGE_SIZE..) {
                    let frame = Frame::from_number(number as u32);
                    let entry = Entry::page(Kind::Pinned, frame, like);
                    slot.store(entry.bits(), Ordering::Relaxed);
                }
            }
        }
        let lines = lines_of(range.start, range.end, 1);
        let record = self.record_mut(in_table);
        record.lines |= lines;
        record.set_busy_lines(record.busy_lines() | lines);
        Ok(())
    }

    /// Unmaps a range below a table that the space owns; returns how far it came.
    #[inline]
    fn unmap_in(
        &mut self,
        space: Ref<Space>,
        in_table: Frame,
        level: u8,
        range: Range<u64>,
        step: &mut Step,
    ) -> Result<u64, Error> {
        if level > 1 {
            return self.unmap_upper(space, in_table, level, range, step);
        }
        Ok(self.unmap_leaves(in_table, range, step))
    }

    fn unmap_upper(
        &mut self,
        space: Ref<Space>,
        in_table: Frame,
        level: u8,
        range: Range<u64>,
        step: &mut Step,
    ) -> Result<u64, Error> {
        let mut at = range.start;
        while at < range.end {
            if self.record(in_table).lines & lines_of(at, range.end, level) == 0 {
                break;
            }
            let next = slot_end(at, level, range.end);
            let index = index(at, level);
            let entry = self.entry(in_table, index);
            if entry.is_absent() {
                at = next;
                continue;
            }
            if !step.spend() {
                return Ok(at);
            }
            if next - at == span(level) {
                if entry.is_table() {
                    step.stale = Stale::Everything;
                    if !self.clear_below(entry.frame(), &mut step.budget) {
                        return Ok(at);
                    }
                }
                self.drop_entry(entry);
                self.clear_entry(in_table, index);
            } else {
                let child = self.table_at(space, in_table, level, at)?;
                let reached = self.unmap_in(space, child, level - 1, at..next, step);
                if self.record(child).lines == 0 {
                    step.stale.add(at);
                    self.clear_entry(in_table, index);
                    self.drop_table(child);
                }
                let reached = reached?;
                if reached < next {
                    return Ok(reached);
                }
            }
            at = next;
        }
        Ok(range.end)
    }

    fn unmap_leaves(&mut self, in_table: Frame, range: Range<u64>, step: &mut Step) -> u64 {
        let edges = edge_lines(&range);
        let lines = lines_of(range.start, range.end, 1);
        // Untouched memory: nothing to drop, nothing remembered.
        let left = edges | self.clear_idle_lines(in_table, lines & !edges);
        let occupied = self.record(in_table).lines & left;
        let base = range.start & !(span(2) - 1);
        for line in Bits(occupied) {
            let line_start = base + line as u64 * LINE;
            if !step.spend() {
                return line_start.max(range.start);
            }
            for index in line * 8..line * 8 + 8 {
                let at = base + index as u64 * PAGE_SIZE;
                let entry = self.entry(in_table, index);
                if entry.is_absent() || !range.contains(&at) {
                    continue;
                }
                if entry.is_present() {
                    step.stale.add(at);
                }
                self.drop_entry(entry);
                self.clear_entry(in_table, index);
            }
        }
        range.end
    }

    /// Adds what is mapped in `range` to `run`; returns whether it may go on.
    fn run_in(
        &self,
        in_table: Frame,
        level: u8,
        range: Range<u64>,
        run: &mut Option<Range<u64>>,
        budget: &mut u32,
    ) -> bool {
        if level == 1 {
            return self.run_in_leaves(in_table, range, run, budget);
        }
        let mut at = range.start;
        while at < range.end {
            let mut next = slot_end(at, level, range.end);
            let entry = self.entry(in_table, index(at, level));
            if entry.is_table() {
                if !self.run_in(entry.frame(), level - 1, at..next, run, budget) {
                    return false;
                }
            } else if entry.is_absent() {
                if run.is_some() {
                    return false;
                }
                let ahead = self.record(in_table).lines & lines_of(at, range.end, level);
                if ahead == 0 {
                    return true;
                }
                // Straight to the next line that has entries.
                let first = ahead.trailing_zeros() as u64 * 8;
                let table_start = at & !(span(level + 1) - 1);
                next = next.max(table_start + first * span(level));
            } else {
                if *budget == 0 {
                    return false;
                }
                *budget -= 1;
                match run {
                    Some(run) => run.end = next,
                    None => *run = Some(at..next),
                }
            }
            at = next;
        }
        true
    }

    /// The same in a lowest table.
    fn run_in_leaves(
        &self,
        in_table: Frame,
        range: Range<u64>,
        run: &mut Option<Range<u64>>,
        budget: &mut u32,
    ) -> bool {
        let first = index(range.start, 1);
        let slots = &table(&self.machine, in_table)[first..=index(range.end - 1, 1)];
        let mapped = |slot: &AtomicU64| slot.load(Ordering::Relaxed) != 0;
        let begin = match run {
            Some(_) => 0,
            None => match slots.iter().position(mapped) {
                Some(begin) => begin,
                None => return true,
            },
        };
        let rest = &slots[begin..];
        let count = rest
            .iter()
            .position(|slot| !mapped(slot))
            .unwrap_or(rest.len());
        let start = range.start + begin as u64 * PAGE_SIZE;
        let end = start + count as u64 * PAGE_SIZE;
        match run {
            Some(run) => run.end = end,
            None => *run = Some(start..end),
        }
        *budget = budget.saturating_sub(count as u32);
        end == range.end && *budget > 0
    }
}

/// The way down to a table.
struct Way {
    /// By level, from the root's to that of the table.
    tables: [Frame; ROOT_LEVEL as usize + 1],
    level: u8,
}

impl Way {
    fn from(root: Frame) -> Way {
        Way {
            tables: [root; ROOT_LEVEL as usize + 1],
            level: ROOT_LEVEL,
        }
    }

    /// The table that it leads to.
    #[inline]
    fn end(&self) -> Frame {
        self.tables[self.level as usize]
    }

    /// One level down.
    #[inline]
    fn go_down(&mut self, child: Frame) {
        self.level -= 1;
        self.tables[self.level as usize] = child;
    }
}

/// The level of the lowest table that a whole range goes through: where it is an
/// entry, or needs more than one.
#[inline]
fn level_of(range: &Range<u64>) -> u8 {
    // From bit 12 on each level has nine bits of an address.
    let differing = range.start ^ (range.end - 1) | (range.end - range.start);
    (differing.ilog2() as u8 - 3) / 9
}

/// What one step may still do, and what it has to flush.
pub(super) struct Step {
    budget: u32,
    pub(super) stale: Stale,
}

impl Step {
    pub(super) fn new() -> Step {
        Step {
            budget: STEP_LINES,
            stale: Stale::Nothing,
        }
    }

    /// Whether there is budget for one more line.
    fn spend(&mut self) -> bool {
        let some = self.budget > 0;
        self.budget = self.budget.saturating_sub(1);
        some
    }
}

pub(super) fn progress(reached: u64, end: u64) -> Progress {
    if reached == end {
        Progress::Done
    } else {
        Progress::More(reached)
    }
}

//! The tree itself: reading and writing entries, and owning a path.
//!
//! A table or page with a count above one has several owners, and every entry
//! that refers to it is masked. Before anything below is changed on behalf of
//! one of them, its path is *unshared*, from the root down:
//!
//! 1. fill a new table: clear hardware write on every private entry in both,
//!    bump the children;
//! 2. publish it with one 64-bit store into the upper entry;
//! 3. flush on every CPU that has the space loaded;
//! 4. only then drop the reference to the old table.
//!
//! A count of one means that the other owners are gone: take it back, copy
//! nothing. Raising hardware write needs no flush, as the processor drops what
//! it remembers of an address when it faults (Intel SDM 3A 4.10.4.1).
//!
//! Invariants: an entry of kind table or private that has hardware write is the
//! only one that refers to its frame (but for pages that a window's private copy
//! reads); upper entries are present exactly if they are tables; no table but a
//! root is empty.

use super::entry::Entry;
use super::frame::{Content, Frame, FrameKind, table};
use super::lines::fill_slots;
use super::space::STEP_LINES;
use super::store::Ref;
use super::{Error, Memory, Space};
use crate::machine::Machine;
use core::sync::atomic::Ordering;

/// Entries in a table.
pub(super) const ENTRIES: usize = 512;
/// The level of root tables; leaves are in tables of level one.
pub(super) const ROOT_LEVEL: u8 = 4;
/// The lines of a root's lower half.
pub(super) const USER_LINES: u64 = 0xffff_ffff;
/// All lines of a table.
pub(super) const ALL_LINES: u64 = u64::MAX;

/// Which entry of a table of this level `address` goes through.
#[inline]
pub(super) const fn index(address: u64, level: u8) -> usize {
    (address >> (3 + 9 * level as u32)) as usize & (ENTRIES - 1)
}

/// How many bytes an entry of this level stands for.
#[inline]
pub(super) const fn span(level: u8) -> u64 {
    1 << (3 + 9 * level as u32)
}

/// Where an address ends up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) table: Frame,
    pub(super) index: usize,
    pub(super) level: u8,
    /// Never of kind table.
    pub(super) entry: Entry,
}

/// What must be forgotten before an operation returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stale {
    #[default]
    Nothing,
    Page(u64),
    Everything,
}

impl Stale {
    /// One page more.
    pub(super) fn add(&mut self, address: u64) {
        *self = match *self {
            Stale::Nothing => Stale::Page(address),
            Stale::Page(same) if same == address => Stale::Page(same),
            _ => Stale::Everything,
        };
    }
}

impl<M: Machine> Memory<M> {
    #[inline(always)]
    pub(super) fn entry(&self, in_table: Frame, index: usize) -> Entry {
        let bits = table(&self.machine, in_table)[index & (ENTRIES - 1)].load(Ordering::Relaxed);
        Entry::from_bits(bits)
    }

    /// Publishes an entry that is not absent.
    #[inline(always)]
    pub(super) fn set_entry(&mut self, in_table: Frame, index: usize, entry: Entry) {
        debug_assert!(!entry.is_absent());
        let line = 1 << (index / 8);
        let record = self.record_mut(in_table);
        record.lines |= line;
        if Entry::refers(entry.bits()) {
            record.set_busy_lines(record.busy_lines() | line);
        }
        self.replace_entry(in_table, index, entry);
    }

    /// As [`Memory::set_entry`] in the place of an entry that made its line busy.
    #[inline(always)]
    pub(super) fn replace_entry(&mut self, in_table: Frame, index: usize, entry: Entry) {
        // Release: whoever walks to the new table or page sees it filled.
        table(&self.machine, in_table)[index & (ENTRIES - 1)]
            .store(entry.bits(), Ordering::Release);
    }

    /// Makes an entry absent; what it referred to is the caller's to drop.
    pub(super) fn clear_entry(&mut self, in_table: Frame, index: usize) {
        let entries = table(&self.machine, in_table);
        entries[index].store(0, Ordering::Relaxed);
        let line = &entries[index & !7..(index & !7) + 8];
        let all = line
            .iter()
            .fold(0, |all, entry| all | entry.load(Ordering::Relaxed));
        let line = 1 << (index / 8);
        let record = self.record_mut(in_table);
        if all == 0 {
            record.lines &= !line;
        }
        if !Entry::refers(all) {
            record.set_busy_lines(record.busy_lines() & !line);
        }
    }

    /// The table below `in_table` on the way to `address`, or the place where
    /// the way ends.
    #[inline(always)]
    fn below<const LEVEL: u8>(&self, in_table: Frame, address: u64) -> Result<Frame, Place> {
        let index = index(address, LEVEL);
        let entry = self.entry(in_table, index);
        // Upper entries that are present are tables.
        if entry.is_present() {
            return Ok(entry.frame());
        }
        Err(Place {
            table: in_table,
            index,
            level: LEVEL,
            entry,
        })
    }

    #[inline(always)]
    fn leaf(&self, in_table: Frame, address: u64) -> Place {
        let index = index(address, 1);
        Place {
            table: in_table,
            index,
            level: 1,
            entry: self.entry(in_table, index),
        }
    }

    /// Follows `address` down to the entry that says what is there.
    #[inline(always)]
    pub(super) fn walk(&self, root: Frame, address: u64) -> Place {
        let way = self
            .below::<4>(root, address)
            .and_then(|table| self.below::<3>(table, address))
            .and_then(|table| self.below::<2>(table, address));
        match way {
            Ok(table) => self.leaf(table, address),
            Err(place) => place,
        }
    }

    /// As [`Memory::walk`], and whether every entry above the place has hardware
    /// write: the space owns the path.
    #[inline(always)]
    pub(super) fn walk_owned(&self, root: Frame, address: u64) -> (Place, bool) {
        let mut in_table = root;
        let mut all = Entry::table(root, true).bits();
        for level in [4, 3, 2] {
            let index = index(address, level);
            let entry = self.entry(in_table, index);
            if !entry.is_present() {
                let place = Place {
                    table: in_table,
                    index,
                    level,
                    entry,
                };
                return (place, Entry::from_bits(all).is_writable());
            }
            all &= entry.bits();
            in_table = entry.frame();
        }
        let place = self.leaf(in_table, address);
        (place, Entry::from_bits(all).is_writable())
    }

    /// As [`Memory::walk`], and the space is the only owner of every table on
    /// the way.
    ///
    /// # Errors
    ///
    /// `NoMemory` if the space's pool cannot pay for a table; those above are
    /// unshared then, which nobody can tell.
    #[inline(always)]
    pub(super) fn own_path(
        &mut self,
        space: Ref<Space>,
        root: Frame,
        address: u64,
    ) -> Result<Place, Error> {
        let mut in_table = root;
        for level in [4, 3, 2] {
            let index = index(address, level);
            let entry = self.entry(in_table, index);
            if !entry.is_present() {
                return Ok(Place {
                    table: in_table,
                    index,
                    level,
                    entry,
                });
            }
            in_table = if entry.is_writable() {
                entry.frame()
            } else {
                self.own_table(space, in_table, index, entry, address)?
            };
        }
        Ok(self.leaf(in_table, address))
    }

    /// Makes the space the only owner of the table that `entry` refers to, and
    /// returns that table. `in_table`, which holds the entry, is the space's
    /// already.
    #[inline(always)]
    pub(super) fn own_table(
        &mut self,
        space: Ref<Space>,
        in_table: Frame,
        index: usize,
        entry: Entry,
        address: u64,
    ) -> Result<Frame, Error> {
        let old = entry.frame();
        if self.record(old).count > 1 {
            return self.copy_table(space, in_table, index, old, address);
        }
        self.recharge(old, self.get(space).pool)?;
        self.statistics.take_backs += 1;
        self.replace_entry(in_table, index, entry.unmasked());
        Ok(old)
    }

    /// Puts a copy of table `old` in its place, for this space alone.
    #[inline(never)]
    fn copy_table(
        &mut self,
        space: Ref<Space>,
        in_table: Frame,
        index: usize,
        old: Frame,
        address: u64,
    ) -> Result<Frame, Error> {
        // (1) fill
        let pool = self.get(space).pool;
        let new = self.take(pool, FrameKind::Table, Content::Zero)?;
        let lines = self.record(old).lines;
        if let Err(error) = self.copy_entries(old, new, lines) {
            self.discard_copy(new);
            return Err(error);
        }
        self.statistics.table_copies += 1;
        // (2) publish
        self.replace_entry(in_table, index, Entry::table(new, true));
        // (3) flush: CPUs may remember the way into the old table. What they
        // remember of single pages below is as true of the new one.
        self.flush_page(space, address);
        // (4) drop
        self.record_mut(old).count -= 1;
        Ok(new)
    }

    /// Undoes a copy that nobody has seen.
    #[cold]
    fn discard_copy(&mut self, new: Frame) {
        // Every child has another owner, so nothing goes away below.
        let mut budget = STEP_LINES;
        let emptied = self.clear_table(new, ALL_LINES, &mut budget);
        debug_assert!(emptied);
        self.discard_table(new);
    }

    /// Gives back an empty table that no entry ever referred to.
    fn discard_table(&mut self, new: Frame) {
        self.record_mut(new).count = 0;
        self.release_clean(new);
    }

    /// Puts a table in the place of an upper entry of kind zero or link; its
    /// 512 entries say the same. `place.table` may be shared: whoever else
    /// reaches it sees the same as before.
    pub(super) fn split(&mut self, space: Ref<Space>, place: Place) -> Result<Frame, Error> {
        let pool = self.get(space).pool;
        let new = self.take(pool, FrameKind::Table, Content::Zero)?;
        if place.entry.is_link() {
            self.mapping_bump(place.entry.mapping(), ENTRIES as u64 - 1);
        }
        fill_slots(table(&self.machine, new), place.entry);
        let record = self.record_mut(new);
        record.lines = ALL_LINES;
        if Entry::refers(place.entry.bits()) {
            record.set_busy_lines(ALL_LINES);
        }
        self.set_entry(place.table, place.index, Entry::table(new, true));
        Ok(new)
    }

    /// The table, the space's own, below the entry of a table of `level` that
    /// `address` goes through and that is not absent.
    #[inline(never)]
    pub(super) fn table_at(
        &mut self,
        space: Ref<Space>,
        in_table: Frame,
        level: u8,
        address: u64,
    ) -> Result<Frame, Error> {
        let index = index(address, level);
        let entry = self.entry(in_table, index);
        if entry.is_present() && entry.is_writable() {
            return Ok(entry.frame());
        }
        if entry.is_present() {
            return self.own_table(space, in_table, index, entry, address);
        }
        let place = Place {
            table: in_table,
            index,
            level,
            entry,
        };
        self.split(space, place)
    }

    /// Makes a new empty table in an absent place of a table that the space
    /// owns.
    pub(super) fn add_table(
        &mut self,
        space: Ref<Space>,
        in_table: Frame,
        index: usize,
    ) -> Result<Frame, Error> {
        let pool = self.get(space).pool;
        let new = self.take(pool, FrameKind::Table, Content::Zero)?;
        self.set_entry(in_table, index, Entry::table(new, true));
        Ok(new)
    }

    /// Makes the CPUs on which the space is loaded forget one page and the way
    /// to it. Frames that went away stay pending: more may be remembered of them.
    #[inline]
    pub(super) fn flush_page(&mut self, space: Ref<Space>, address: u64) {
        let active = self.get(space).active();
        if !active.is_empty() {
            self.statistics.page_flushes += 1;
            self.machine.flush_page(active, address);
        }
    }

    /// Makes the CPUs on which the space is loaded forget, and then lets the
    /// frames that went away be used again.
    #[inline]
    pub(super) fn flush(&mut self, space: Ref<Space>, stale: Stale) {
        let active = self.get(space).active();
        if !active.is_empty() {
            match stale {
                Stale::Nothing => {}
                Stale::Page(address) => {
                    self.statistics.page_flushes += 1;
                    self.machine.flush_page(active, address);
                }
                Stale::Everything => {
                    self.statistics.full_flushes += 1;
                    self.machine.flush_all(active);
                }
            }
        }
        self.free_pending();
    }
}

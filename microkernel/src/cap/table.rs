//! Capability tables: a persistent radix tree of slot pages.
//!
//! A slot page holds 256 slots, an inner page 512 references to pages of the level below; a table
//! is a root of level 0 to 2. Copying a table adds one to its root page's count; a write first
//! copies the shared pages on its path (*unsharing*), which is when the nodes count the new slots.
//!
//! Each page's 64-bit line word says where it is full: for a slot page a bit for four used slots,
//! for an inner page a bit for eight children that are all full. So the lowest free slot not below
//! a number is found by looking at no more than a few words a level. Another word says which lines
//! were ever written: copying, emptying and looking through a page visit only those, and what goes
//! back is zero already.
//!
//! Invariant: a page is reachable from as many places as its count says; a node's count of slots
//! includes the used slots of each page once; a line without its written bit is zero.

use super::slot::{Slot, SlotName};
use super::{Node, Nodes};
use crate::machine::Machine;
use crate::memory::{Bits, Frame, FrameKind, Memory, Object, ObjectKind, Pool, Ref};
use core::ops::Range;
use libipc::abi::{Error, SlotFlags};

/// Slots in a slot page.
const SLOTS: u32 = 256;
/// Children of an inner page.
const CHILDREN: u32 = 512;
/// The level of the largest root.
const TOP_LEVEL: u8 = 2;
/// One past the highest slot number.
pub const CAPACITY: u32 = span(TOP_LEVEL);
/// A line word with every line full.
const FULL: u64 = u64::MAX;
/// Words in a line: four slots, or eight children.
const LINE: usize = 8;

/// How many slots a page of this level stands for.
const fn span(level: u8) -> u32 {
    1 << (SLOTS.trailing_zeros() + level as u32 * CHILDREN.trailing_zeros())
}

type Page = [u64; 512];

/// No page, which has no slots.
const NO_SLOTS: (Frame, u32) = (Frame::from_number(0), 0);

/// A capability table.
pub struct CapTable {
    root: Option<Frame>,
    level: u8,
    /// The page of the first slots and how many those are; none if it is not there. Most handles
    /// name one of them, however large the table is.
    first: (Frame, u32),
    /// How many slots the root itself has: those of a slot page, or none.
    root_slots: u32,
    /// It is being emptied or has been.
    ended: bool,
    /// Capabilities and threads that refer to it.
    holds: u32,
    pool: Ref<Pool>,
    /// The next table whose slots are to be closed.
    pub(crate) next_ending: Option<Ref<CapTable>>,
    /// It is on that list.
    pub(crate) listed: bool,
}

impl Object for CapTable {
    const KIND: ObjectKind = ObjectKind::CapTable;
}

impl CapTable {
    /// Whether its slots have been or are being closed.
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether it has ended and nothing is in it any more.
    pub(crate) fn is_emptied(&self) -> bool {
        self.ended && self.root.is_none()
    }

    /// Marks it as ending; false if it was already.
    pub(crate) fn end(&mut self) -> bool {
        !core::mem::replace(&mut self.ended, true)
    }

    /// Capabilities and threads that refer to it.
    pub(crate) fn holds_mut(&mut self) -> &mut u32 {
        &mut self.holds
    }

    /// Who pays for its pages.
    pub fn pool(&self) -> Ref<Pool> {
        self.pool
    }

    /// An empty table with one hold.
    fn new(pool: Ref<Pool>) -> CapTable {
        CapTable {
            root: None,
            level: 0,
            first: NO_SLOTS,
            root_slots: 0,
            ended: false,
            holds: 1,
            pool,
            next_ending: None,
            listed: false,
        }
    }

    fn set_root(&mut self, root: Option<Frame>, level: u8) {
        (self.root, self.level) = (root, level);
        self.root_slots = 0;
        if level == 0 {
            self.first = root.map_or(NO_SLOTS, |frame| (frame, SLOTS));
            self.root_slots = self.first.1;
        }
    }

    fn capacity(&self) -> u32 {
        match self.root {
            Some(_) => span(self.level),
            None => 0,
        }
    }
}

/// What `table_next` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A used slot with this number.
    Used(u32, Slot),
    /// Nothing yet: look on from here.
    LookOn(u32),
    /// There is none.
    None,
}

/// How many pages one step looks at.
const STEP_PAGES: u32 = 16;

impl<M: Machine> Memory<M> {
    /// Makes an empty table with one hold, the caller's.
    ///
    /// # Errors
    ///
    /// `NoMemory` if the pool cannot pay.
    pub fn table_create(&mut self, pool: Ref<Pool>) -> Result<Ref<CapTable>, Error> {
        self.create(pool, CapTable::new(pool))
    }

    /// Makes a copy, which shares all pages with the original. It has one hold, the caller's.
    ///
    /// # Errors
    ///
    /// `NoMemory` if the pool cannot pay, `Exhausted` if a count is at its highest value.
    pub fn table_copy(
        &mut self,
        table: Ref<CapTable>,
        pool: Ref<Pool>,
    ) -> Result<Ref<CapTable>, Error> {
        let &CapTable {
            root,
            level,
            first,
            root_slots,
            ..
        } = self.get(table);
        if let Some(root) = root {
            self.frame_bump(root)?;
        }
        let copy = CapTable {
            root,
            level,
            first,
            root_slots,
            ..CapTable::new(pool)
        };
        match self.create(pool, copy) {
            Ok(copy) => Ok(copy),
            Err(error) => {
                if let Some(root) = root {
                    self.frame_drop(root);
                }
                Err(error)
            }
        }
    }

    /// The slot with this number, if it is used.
    #[inline(always)]
    pub fn table_get(&self, table: Ref<CapTable>, index: u32) -> Option<Slot> {
        match index < self.get(table).first.1 {
            true => self.table_get_first(table, index),
            false => self.table_get_deep(table, index),
        }
    }

    /// The same if it is one of the first slots; else nothing.
    #[inline(always)]
    pub fn table_get_first(&self, table: Ref<CapTable>, index: u32) -> Option<Slot> {
        let (first, slots) = self.get(table).first;
        match index < slots {
            true => self.slot_in(first, index),
            false => None,
        }
    }

    #[cold]
    fn table_get_deep(&self, table: Ref<CapTable>, index: u32) -> Option<Slot> {
        self.slot_in(self.slot_page(table, index)?, index)
    }

    /// The slot with this number in its page, if it is used.
    #[inline(always)]
    fn slot_in(&self, frame: Frame, index: u32) -> Option<Slot> {
        let at = place_of(index);
        let page = self.page::<Page>(frame);
        Slot::from_words([page[at], page[at + 1]])
    }

    /// The page of the slot with this number, of a table of any size.
    #[inline(always)]
    fn slot_page(&self, table: Ref<CapTable>, index: u32) -> Option<Frame> {
        let table = self.get(table);
        if index >= table.capacity() {
            return None;
        }
        let mut frame = table.root?;
        for level in (1..=TOP_LEVEL).rev() {
            if level <= table.level {
                frame = self.child(frame, child_index(level, index))?;
            }
        }
        Some(frame)
    }

    /// The same, if all pages on the path to it are the table's own.
    #[inline(always)]
    fn owned_slot_page(&self, table: Ref<CapTable>, index: u32) -> Option<Frame> {
        let table = self.get(table);
        let mut frame = table.root?;
        if index >= table.capacity() || self.record(frame).count() > 1 {
            return None;
        }
        for level in (1..=TOP_LEVEL).rev() {
            if level <= table.level {
                frame = self.child(frame, child_index(level, index))?;
                if self.record(frame).count() > 1 {
                    return None;
                }
            }
        }
        Some(frame)
    }

    #[inline(always)]
    fn child(&self, frame: Frame, index: usize) -> Option<Frame> {
        frame_in(self.page::<Page>(frame)[index])
    }

    /// Puts a capability into the lowest free slot not below `from`. The slot counts in the node.
    ///
    /// # Errors
    ///
    /// `NoMemory` if the table's pool cannot pay, `Exhausted` if no slot is free or a count is at
    /// its highest value.
    pub fn table_put(
        &mut self,
        table: Ref<CapTable>,
        from: u32,
        node: Ref<Node>,
        access: u32,
        flags: SlotFlags,
    ) -> Result<SlotName, Error> {
        let index = self.table_find_free(table, from)?;
        let generation = self.fill_slot(table, index, node, access, flags)?;
        Ok(SlotName { index, generation })
    }

    /// Puts a capability into exactly this slot. Returns the slot's name and the node that was
    /// there before, a hold on which is the caller's now.
    ///
    /// # Errors
    ///
    /// As [`Memory::table_put`]; `InvalidArgument` if no slot has this number.
    pub fn table_replace(
        &mut self,
        table: Ref<CapTable>,
        index: u32,
        node: Ref<Node>,
        access: u32,
        flags: SlotFlags,
    ) -> Result<(SlotName, Option<Ref<Node>>), Error> {
        let replaced = self.table_get(table, index).map(|slot| slot.node);
        let generation = self.fill_slot(table, index, node, access, flags)?;
        Ok((SlotName { index, generation }, replaced))
    }

    /// Puts a capability into a slot, whatever was there. Returns which use of the slot this is.
    #[inline(always)]
    fn fill_slot(
        &mut self,
        table: Ref<CapTable>,
        index: u32,
        node: Ref<Node>,
        access: u32,
        flags: SlotFlags,
    ) -> Result<u32, Error> {
        let frame = self.own_slot_page(table, index)?;
        self.node_hold(node)?;
        let at = place_of(index);
        let page = self.page_mut::<Page>(frame);
        let generation = Slot::next_generation(page[at + 1]);
        let slot = Slot {
            node,
            access,
            flags,
            generation,
        };
        [page[at], page[at + 1]] = slot.to_words();
        self.note_word(frame, at);
        self.note_used(table, frame, index);
        Ok(generation)
    }

    /// Prepares a slot in which something was found to be freed without failing: its page is the
    /// table's own.
    ///
    /// # Errors
    ///
    /// `NoMemory` if a shared page must be copied and the table's pool cannot pay.
    #[inline]
    pub fn table_own_slot(&mut self, table: Ref<CapTable>, index: u32) -> Result<(), Error> {
        self.own_slot_page(table, index).map(drop)
    }

    /// Frees a slot in which `slot` was found. Its hold on the node is the caller's now.
    ///
    /// # Errors
    ///
    /// As [`Memory::table_own_slot`].
    #[inline(always)]
    pub fn table_free(
        &mut self,
        table: Ref<CapTable>,
        index: u32,
        slot: &Slot,
    ) -> Result<(), Error> {
        let frame = self.own_slot_page(table, index)?;
        let at = place_of(index);
        let page = self.page_mut::<Page>(frame);
        [page[at], page[at + 1]] = Slot::freed(slot.generation);
        self.note_free(table, frame, index);
        Ok(())
    }

    /// Frees a slot, if it is used, whose page is the table's own. Returns its node, a hold on which
    /// is the caller's now.
    pub fn table_take_out(&mut self, table: Ref<CapTable>, index: u32) -> Option<Ref<Node>> {
        let slot = self.table_get(table, index)?;
        self.table_free(table, index, &slot).ok()?;
        Some(slot.node)
    }

    /// Frees a slot. If its node lost its last slot it goes to `reap`.
    ///
    /// # Errors
    ///
    /// As [`Memory::table_own_slot`].
    pub fn table_close(
        &mut self,
        table: Ref<CapTable>,
        index: u32,
        reap: &mut Nodes,
    ) -> Result<(), Error> {
        let slot = self.table_get(table, index).ok_or(Error::BadHandle)?;
        self.table_free(table, index, &slot)?;
        self.node_release(slot.node, reap);
        Ok(())
    }

    /// Changes a slot's flags: those in `mask` become those in `value`.
    ///
    /// # Errors
    ///
    /// As [`Memory::table_own_slot`].
    pub fn table_set_flags(
        &mut self,
        table: Ref<CapTable>,
        index: u32,
        mask: SlotFlags,
        value: SlotFlags,
    ) -> Result<(), Error> {
        let mut slot = self.table_get(table, index).ok_or(Error::BadHandle)?;
        let frame = self.own_slot_page(table, index)?;
        slot.flags = (slot.flags - mask) | (value & mask);
        let at = place_of(index);
        let page = self.page_mut::<Page>(frame);
        [page[at], page[at + 1]] = slot.to_words();
        Ok(())
    }

    /// Looks for the first used slot at or above `from`, in a bounded number of pages.
    pub fn table_next(&self, table: Ref<CapTable>, from: u32) -> Next {
        let table = self.get(table);
        let mut index = from;
        for _ in 0..STEP_PAGES {
            match self.next_page(table, index) {
                None => return Next::None,
                Some((frame, first)) => {
                    let page = self.page::<Page>(frame);
                    let start = (first.max(index) % SLOTS) as usize * 2;
                    for line in lines_of(self.record(frame).written() & FULL << (start / LINE)) {
                        for at in (line.start.max(start)..line.end).step_by(2) {
                            if let Some(found) = Slot::from_words([page[at], page[at + 1]]) {
                                let slot = at as u32 / 2;
                                return Next::Used(first / SLOTS * SLOTS + slot, found);
                            }
                        }
                    }
                    index = first / SLOTS * SLOTS + SLOTS;
                }
            }
        }
        Next::LookOn(index)
    }

    /// The first slot page that has a slot at or above `index`, and the first such slot.
    fn next_page(&self, table: &CapTable, mut index: u32) -> Option<(Frame, u32)> {
        'down: while index < table.capacity() {
            let mut frame = table.root?;
            for level in (1..=table.level).rev() {
                let page = self.page::<Page>(frame);
                let start = child_index(level, index);
                let Some(found) = (start..CHILDREN as usize).find(|&child| page[child] != 0) else {
                    index = (index / span(level) + 1).checked_mul(span(level))?;
                    continue 'down;
                };
                if found > start {
                    index = index / span(level) * span(level) + found as u32 * span(level - 1);
                }
                frame = frame_in(page[found]).expect("found used");
            }
            return Some((frame, index));
        }
        None
    }

    /// Closes, from slot `from` on, every slot whose flags cut to `mask` are not `value`, in a
    /// bounded number of pages. Returns where to go on, if there is more.
    ///
    /// # Errors
    ///
    /// `NoMemory` if a shared page must be copied and the table's pool cannot pay.
    pub fn table_retain(
        &mut self,
        table: Ref<CapTable>,
        from: u32,
        mask: SlotFlags,
        value: SlotFlags,
        reap: &mut Nodes,
    ) -> Result<Option<u32>, Error> {
        let mut index = from;
        for _ in 0..STEP_PAGES {
            let Some((mut frame, first)) = self.next_page(self.get(table), index) else {
                return Ok(None);
            };
            index = first / SLOTS * SLOTS;
            for at in lines_of(self.record(frame).written()).flatten().step_by(2) {
                let page = self.page::<Page>(frame);
                if let Some(found) = Slot::from_words([page[at], page[at + 1]])
                    && found.flags & mask != value
                {
                    self.table_close(table, index + at as u32 / 2, reap)?;
                    frame = self.slot_page(table, index).expect("it had a slot");
                }
            }
            index += SLOTS;
        }
        Ok(Some(index))
    }

    /// Forgets a table that nobody holds, if that is done at once: it is not being emptied, and has
    /// nothing or shares all that it has. False if there is more to do.
    #[inline(always)]
    pub(crate) fn table_forget_at_once(&mut self, table: Ref<CapTable>) -> bool {
        let entry = self.get(table);
        if entry.listed {
            return false;
        }
        if let Some(root) = entry.root {
            if self.record(root).count() == 1 {
                return false;
            }
            self.frame_drop(root);
        }
        self.destroy(table);
        true
    }

    /// Gives up one page of an ended table, or its hold on a shared part. False when nothing is left.
    pub fn table_empty_step(&mut self, table: Ref<CapTable>, reap: &mut Nodes) -> bool {
        let &CapTable { root, level, .. } = self.get(table);
        let Some(mut frame) = root else {
            return false;
        };
        let mut above = None;
        let mut level = level;
        // Down along the first children that are the table's alone.
        while level > 0 && self.record(frame).count() == 1 {
            let Some(first) = self.first_child(frame) else {
                break;
            };
            above = Some((frame, first));
            frame = frame_in(self.page::<Page>(frame)[first]).expect("found used");
            level -= 1;
        }
        match above {
            Some((parent, index)) => {
                self.page_mut::<Page>(parent)[index] = 0;
                self.get_mut(table).first = NO_SLOTS;
            }
            None => self.get_mut(table).set_root(None, 0),
        }
        if self.frame_drop(frame) == 0 {
            // Of an inner page all children were taken out before.
            if level == 0 {
                self.clear_slots(frame, reap);
            }
            self.release_clean(frame);
        }
        self.get(table).root.is_some()
    }

    /// The first child that an inner page has; lines before it are zero afterwards.
    fn first_child(&mut self, frame: Frame) -> Option<usize> {
        for line in lines_of(self.record(frame).written()) {
            let page = self.page::<Page>(frame);
            if let Some(found) = line.clone().find(|&place| page[place] != 0) {
                return Some(found);
            }
            self.note_cleared(frame, 1 << (line.start / LINE));
        }
        None
    }

    /// Takes all capabilities out of a slot page, which is zero then.
    fn clear_slots(&mut self, frame: Frame, reap: &mut Nodes) {
        for line in lines_of(self.record(frame).written()) {
            for at in line.step_by(2) {
                let page = self.page_mut::<Page>(frame);
                let words = [page[at], page[at + 1]];
                [page[at], page[at + 1]] = [0; 2];
                if let Some(slot) = Slot::from_words(words) {
                    self.node_release(slot.node, reap);
                }
            }
        }
    }

    // Finding a free slot.

    /// The lowest free slot not below `from`.
    #[inline]
    fn table_find_free(&self, table: Ref<CapTable>, from: u32) -> Result<u32, Error> {
        let (first, slots) = self.get(table).first;
        if from < slots
            && let Some(found) = self.free_slot_in(first, from)
        {
            return Ok(found);
        }
        self.find_free_in_large(table, from)
    }

    #[inline(never)]
    fn find_free_in_large(&self, table: Ref<CapTable>, from: u32) -> Result<u32, Error> {
        let table = self.get(table);
        let Some(root) = table.root else {
            return if from < CAPACITY {
                Ok(from)
            } else {
                Err(Error::Exhausted)
            };
        };
        let capacity = table.capacity();
        if from < capacity
            && let Some(found) = self.find_free_in(root, table.level, from)
        {
            return Ok(found);
        }
        let next = from.max(capacity);
        if next < CAPACITY {
            Ok(next)
        } else {
            Err(Error::Exhausted)
        }
    }

    /// The lowest free slot not below `from` under a page; numbers count from the page's first.
    fn find_free_in(&self, frame: Frame, level: u8, from: u32) -> Option<u32> {
        if level == 0 {
            return self.free_slot_in(frame, from);
        }
        let page = self.page::<Page>(frame);
        let below = span(level - 1);
        let free_at = |place: usize, from: u32| -> Option<u32> {
            let first = place as u32 * below;
            match frame_in(page[place]) {
                None => Some(first + from),
                Some(_) if self.is_full(page[place]) => None,
                Some(child) => Some(first + self.find_free_in(child, level - 1, from)?),
            }
        };
        let first = (from / below) as usize;
        free_at(first, from % below).or_else(|| {
            self.places_with_room(frame, first + 1, LINE)
                .find_map(|place| free_at(place, 0))
        })
    }

    /// The same in a slot page.
    #[inline]
    fn free_slot_in(&self, frame: Frame, from: u32) -> Option<u32> {
        let page = self.page::<Page>(frame);
        self.places_with_room(frame, from as usize, LINE / 2)
            .find(|&slot| !Slot::is_used(page[slot * 2]))
            .map(|slot| slot as u32)
    }

    /// The places of a page, of which `per_line` share a line, that are not below `from` and in
    /// lines that are not full.
    #[inline]
    fn places_with_room(
        &self,
        frame: Frame,
        from: usize,
        per_line: usize,
    ) -> impl Iterator<Item = usize> {
        let not_below = u32::try_from(from / per_line)
            .ok()
            .and_then(|line| FULL.checked_shl(line))
            .unwrap_or(0);
        let room = !self.record(frame).lines() & not_below;
        Bits(room)
            .flat_map(move |line| line * per_line..(line + 1) * per_line)
            .filter(move |&place| place >= from)
    }

    /// Whether the child in this word is there and has no free slot.
    fn is_full(&self, word: u64) -> bool {
        frame_in(word).is_some_and(|child| self.record(child).lines() == FULL)
    }

    // Writing.

    /// The page of a slot, as the table's own.
    #[inline]
    fn own_slot_page(&mut self, table: Ref<CapTable>, index: u32) -> Result<Frame, Error> {
        let &CapTable {
            first: (first, _),
            root_slots,
            ..
        } = self.get(table);
        if index < root_slots && self.record(first).count() == 1 {
            return Ok(first);
        }
        self.own_slot_path(table, index)
    }

    /// Makes the path to a slot the table's own: missing pages are made, shared ones copied.
    #[inline(never)]
    fn own_slot_path(&mut self, table: Ref<CapTable>, index: u32) -> Result<Frame, Error> {
        if let Some(frame) = self.owned_slot_page(table, index) {
            return Ok(frame);
        }
        if index >= CAPACITY {
            return Err(Error::InvalidArgument);
        }
        self.grow(table, index)?;
        let &CapTable {
            root, level, pool, ..
        } = self.get(table);
        let old = root.expect("grown");
        let mut frame = self.own_page_of(old, level, pool)?;
        if frame != old {
            self.get_mut(table).set_root(Some(frame), level);
        }
        for above in (1..=level).rev() {
            let place = child_index(above, index);
            let child = match self.child(frame, place) {
                Some(child) => self.own_page_of(child, above - 1, pool)?,
                None => self.take_frame(pool, FrameKind::SlotPage)?,
            };
            self.page_mut::<Page>(frame)[place] = child.number() as u64;
            self.note_word(frame, place);
            frame = child;
        }
        if index < SLOTS {
            self.get_mut(table).first = (frame, SLOTS);
        }
        Ok(frame)
    }

    /// Makes the table large enough for a slot of this number, and gives it a root.
    fn grow(&mut self, table: Ref<CapTable>, index: u32) -> Result<(), Error> {
        while index >= self.get(table).capacity() {
            let &CapTable {
                root, level, pool, ..
            } = self.get(table);
            let frame = self.take_frame(pool, FrameKind::SlotPage)?;
            let level = match root {
                None => (0..=TOP_LEVEL)
                    .find(|&level| index < span(level))
                    .expect("below the capacity"),
                Some(old) => {
                    self.page_mut::<Page>(frame)[0] = old.number() as u64;
                    self.note_word(frame, 0);
                    level + 1
                }
            };
            self.get_mut(table).set_root(Some(frame), level);
        }
        Ok(())
    }

    /// The page, or a copy of it if others share it; a copy takes the place of one reference.
    fn own_page_of(&mut self, frame: Frame, level: u8, pool: Ref<Pool>) -> Result<Frame, Error> {
        if self.record(frame).count() == 1 {
            return Ok(frame);
        }
        let copy = self.take_frame(pool, FrameKind::SlotPage)?;
        let written = self.record(frame).written();
        for line in lines_of(written) {
            for at in line.clone() {
                let word = self.page::<Page>(frame)[at];
                // The second word of a slot refers to nothing.
                if (level > 0 || at % 2 == 0)
                    && let Err(error) = self.count_again(word, level)
                {
                    self.discard_page(copy, level);
                    return Err(error);
                }
                self.page_mut::<Page>(copy)[at] = word;
            }
            self.note_word(copy, line.start);
        }
        let lines = self.record(frame).lines();
        self.set_frame_lines(copy, lines);
        self.frame_drop(frame);
        Ok(copy)
    }

    /// Records that a word of a page was written.
    #[inline]
    fn note_word(&mut self, frame: Frame, at: usize) {
        self.note_written(frame, 1 << (at / LINE));
    }

    /// Counts once more what a word of a page refers to.
    #[inline]
    fn count_again(&mut self, word: u64, level: u8) -> Result<(), Error> {
        match level {
            0 => match Slot::from_words([word, 0]) {
                Some(slot) => self.node_hold(slot.node),
                None => Ok(()),
            },
            _ => frame_in(word).map_or(Ok(()), |child| self.frame_bump(child)),
        }
    }

    /// Undoes an unfinished copy.
    #[cold]
    fn discard_page(&mut self, copy: Frame, level: u8) {
        // The original is there, so nothing that it refers to loses its last reference.
        let mut reap = Nodes::default();
        for at in 0..SLOTS as usize * 2 {
            let word = self.page::<Page>(copy)[at];
            if level > 0 {
                if let Some(child) = frame_in(word) {
                    self.frame_drop(child);
                }
            } else if at % 2 == 0
                && let Some(slot) = Slot::from_words([word, 0])
            {
                self.node_release(slot.node, &mut reap);
            }
        }
        debug_assert!(reap.is_empty());
        self.frame_drop(copy);
        self.release_frame(copy);
    }

    /// Keeps the line words of the path to a slot, whose page is `frame`, after it became used.
    #[inline]
    fn note_used(&mut self, table: Ref<CapTable>, frame: Frame, index: u32) {
        let line = place_of(index) / LINE;
        let page = self.page::<Page>(frame);
        let first = line * LINE;
        // From the end, where the slots are filled last.
        let is_full = (first..first + LINE)
            .step_by(2)
            .rev()
            .all(|at| Slot::is_used(page[at]));
        if is_full {
            let lines = self.record(frame).lines() | 1 << line;
            self.set_frame_lines(frame, lines);
            if lines == FULL {
                self.note_full_page(table, index);
            }
        }
    }

    /// The same further up, when a page has become full.
    #[cold]
    fn note_full_page(&mut self, table: Ref<CapTable>, index: u32) {
        for level in 1..=self.get(table).level {
            let frame = self.page_above(table, index, level);
            let line = child_index(level, index) / LINE;
            let page = self.page::<Page>(frame);
            if !page[line * LINE..(line + 1) * LINE]
                .iter()
                .all(|&word| self.is_full(word))
            {
                return;
            }
            let lines = self.record(frame).lines() | 1 << line;
            self.set_frame_lines(frame, lines);
            if lines != FULL {
                return;
            }
        }
    }

    /// Keeps the line words of the path to a slot, whose page is `frame`, after it became free.
    #[inline]
    fn note_free(&mut self, table: Ref<CapTable>, frame: Frame, index: u32) {
        let lines = self.record(frame).lines();
        self.set_frame_lines(frame, lines & !(1 << (place_of(index) / LINE)));
        if lines == FULL {
            self.note_room_above(table, index);
        }
    }

    /// The same further up, when a page is full no more.
    #[cold]
    fn note_room_above(&mut self, table: Ref<CapTable>, index: u32) {
        for level in 1..=self.get(table).level {
            let frame = self.page_above(table, index, level);
            let line = child_index(level, index) / LINE;
            let lines = self.record(frame).lines();
            self.set_frame_lines(frame, lines & !(1 << line));
        }
    }

    /// The page of this level on the path to a slot that is there.
    fn page_above(&self, table: Ref<CapTable>, index: u32, level: u8) -> Frame {
        let table = self.get(table);
        let mut frame = table.root.expect("it has a slot");
        for above in (level + 1..=table.level).rev() {
            let child = self.child(frame, child_index(above, index));
            frame = child.expect("it has a slot");
        }
        frame
    }
}

/// The words of each line that has a bit in `lines`.
#[inline]
fn lines_of(lines: u64) -> impl Iterator<Item = Range<usize>> {
    Bits(lines).map(|line| line * LINE..(line + 1) * LINE)
}

/// Where the words of a slot are in its page.
#[inline]
fn place_of(index: u32) -> usize {
    (index % SLOTS) as usize * 2
}

/// Which child of a page of this level a slot lies under.
#[inline(always)]
fn child_index(level: u8, index: u32) -> usize {
    (index / span(level - 1) % CHILDREN) as usize
}

/// The frame that a word of an inner page refers to.
#[inline]
fn frame_in(word: u64) -> Option<Frame> {
    (word != 0).then_some(Frame::from_number(word as u32))
}

#[cfg(test)]
mod tests;

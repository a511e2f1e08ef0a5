//! Records with names that are never reused.
//!
//! An [`Id`] is an index and the slot's generation, so looking one up costs an array access and one
//! comparison, and the id of something that is gone finds nothing, for ever. Thread ids double as
//! thread labels, which is how the server knows its callers.
//!
//! Invariant: a slot's generation grows each time it is filled, and begins at 1; no id is zero. A slot
//! that is free has the mark that no id has, and a record that nobody finds.

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::num::NonZeroU64;

const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
/// Adds one to the generation of an id's bits.
const NEXT: u64 = 1 << INDEX_BITS;
/// Ids are below this: an id and a marker bit fit a badge.
const END: u64 = 1 << 63;
/// What a free slot has in addition to the bits of its last id.
const FREE: u64 = END;

/// Names a record of an [`Arena`] of `T`.
pub struct Id<T> {
    bits: NonZeroU64,
    of: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// As a number: a label, or part of a badge. Below 2^63.
    pub fn bits(self) -> u64 {
        self.bits.get()
    }

    /// The id with these bits; it may name nothing. `None` if no id can have them.
    pub fn from_bits(bits: u64) -> Option<Id<T>> {
        if bits >= END {
            return None;
        }
        NonZeroU64::new(bits).map(|bits| Id {
            bits,
            of: PhantomData,
        })
    }

    fn index(self) -> usize {
        (self.bits.get() & INDEX_MASK) as usize
    }
}

/// An id that never names anything.
impl<T> Default for Id<T> {
    fn default() -> Self {
        Id {
            bits: NonZeroU64::MIN,
            of: PhantomData,
        }
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bits == other.bits
    }
}

impl<T> Eq for Id<T> {}

impl<T> core::fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.index(), self.bits() >> INDEX_BITS)
    }
}

struct Slot<T> {
    /// The bits of its record's id; of the last one's and [`FREE`] if it has none.
    name: u64,
    /// Of a free slot: the next one; `NO_SLOT` ends the list.
    next: u32,
    record: T,
}

/// Memory for another record is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Growable storage for records of one type.
pub struct Arena<T> {
    slots: Vec<Slot<T>>,
    /// Head of the list of free slots; `NO_SLOT` ends it.
    free: u32,
    live: usize,
}

const NO_SLOT: u32 = u32::MAX;

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena {
            slots: Vec::new(),
            free: NO_SLOT,
            live: 0,
        }
    }
}

impl<T: Default> Arena<T> {
    /// Makes room for the first `count` records, so that the arena uses no more memory until there
    /// are more. For want of memory it makes less.
    pub fn prepare(&mut self, count: usize) {
        let first = self.slots.len();
        if self.slots.try_reserve(count.saturating_sub(first)).is_err() {
            return;
        }
        for index in first..count {
            let next = match index + 1 < count {
                true => index as u32 + 1,
                false => self.free,
            };
            self.slots.push(Slot {
                name: FREE | index as u64,
                next,
                record: T::default(),
            });
        }
        if first < count {
            self.free = first as u32;
        }
    }

    /// Stores a value; nothing changes if there is no room.
    pub fn insert(&mut self, value: T) -> Result<Id<T>, Full>
    where
        T: Copy,
    {
        self.insert_with(|| value)
    }

    /// Stores what `make` makes, in its place; nothing changes if there is no room.
    #[inline]
    pub fn insert_with(&mut self, make: impl FnOnce() -> T) -> Result<Id<T>, Full> {
        if self.free == NO_SLOT {
            return self.append(make);
        }
        let slot = self.slots.get_mut(self.free as usize).ok_or(Full)?;
        let id = Id::from_bits((slot.name & !FREE) + NEXT).ok_or(Full)?;
        slot.name = id.bits();
        slot.record = make();
        self.free = slot.next;
        self.live += 1;
        Ok(id)
    }

    /// Stores a value in a new slot.
    #[cold]
    fn append(&mut self, make: impl FnOnce() -> T) -> Result<Id<T>, Full> {
        let index = self.slots.len() as u64;
        if index > INDEX_MASK {
            return Err(Full);
        }
        self.slots.try_reserve(1).map_err(|_| Full)?;
        let id = Id::from_bits(index + NEXT).ok_or(Full)?;
        self.slots.push(Slot {
            name: id.bits(),
            next: NO_SLOT,
            record: make(),
        });
        self.live += 1;
        Ok(id)
    }

    /// Takes the record out; `None` if the id names nothing. Where its content does not matter any
    /// more, [`discard`](Self::discard) moves nothing.
    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        let record = core::mem::take(self.get_mut(id)?);
        self.discard(id);
        Some(record)
    }
}

impl<T> Arena<T> {
    /// The first record, or the one behind another, in the order of their slots.
    pub fn next(&self, after: Option<Id<T>>) -> Option<Id<T>> {
        let from = after.map_or(0, |id| id.index() + 1);
        let mut slots = self.slots.get(from..)?.iter();
        slots.find_map(|slot| Id::from_bits(slot.name))
    }

    /// Ends the record, if the id names one. Memory that it has is freed when the slot is used again.
    pub fn discard(&mut self, id: Id<T>) {
        if let Some(slot) = self.slots.get_mut(id.index())
            && slot.name == id.bits()
        {
            slot.name |= FREE;
            slot.next = self.free;
            self.free = id.index() as u32;
            self.live -= 1;
        }
    }

    /// The record, if the id names one.
    #[inline]
    pub fn get(&self, id: Id<T>) -> Option<&T> {
        match self.slots.get(id.index()) {
            Some(slot) if slot.name == id.bits() => Some(&slot.record),
            _ => None,
        }
    }

    /// The record, if the id names one.
    #[inline]
    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        match self.slots.get_mut(id.index()) {
            Some(slot) if slot.name == id.bits() => Some(&mut slot.record),
            _ => None,
        }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.live
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// All records, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        let slots = self.slots.iter();
        slots.filter_map(|slot| Some((Id::from_bits(slot.name)?, &slot.record)))
    }

    /// All records, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let used = |slot: &&mut Slot<T>| slot.name & FREE == 0;
        self.slots
            .iter_mut()
            .filter(used)
            .map(|slot| &mut slot.record)
    }
}

/// For ids that the server's own records hold: they always name something.
impl<T> core::ops::Index<Id<T>> for Arena<T> {
    type Output = T;

    fn index(&self, id: Id<T>) -> &T {
        self.get(id).expect("an id kept in a record names a record")
    }
}

impl<T> core::ops::IndexMut<Id<T>> for Arena<T> {
    fn index_mut(&mut self, id: Id<T>) -> &mut T {
        self.get_mut(id)
            .expect("an id kept in a record names a record")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_never_finds_the_slots_next_record() {
        let mut arena = Arena::default();
        let first = arena.insert('a').unwrap();
        assert_eq!(arena.remove(first), Some('a'));
        let second = arena.insert('b').unwrap();
        assert_eq!(first.index(), second.index());
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&'b'));
        assert_eq!(Id::from_bits(second.bits()), Some(second));
        assert_eq!(arena.len(), 1);
    }

    #[test]
    fn a_free_slot_is_found_by_no_id() {
        let mut arena = Arena::default();
        arena.prepare(2);
        assert_eq!(arena.get(Id::default()), None);
        let id = arena.insert('a').unwrap();
        arena.discard(id);
        arena.discard(id);
        assert_eq!((arena.get(id), arena.len()), (None, 0));
        assert_eq!(Id::<char>::from_bits(id.bits() | FREE), None);
        assert_eq!(arena.iter().count(), 0);
        assert_eq!(arena.iter_mut().count(), 0);
    }

    #[test]
    fn a_prepared_arena_fills_from_the_front_and_then_grows() {
        let mut arena = Arena::default();
        arena.prepare(3);
        assert!(arena.is_empty());
        let indices: std::vec::Vec<usize> =
            (0..5).map(|n| arena.insert(n).unwrap().index()).collect();
        assert_eq!(indices, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_freed_slot_is_used_again_before_the_arena_grows() {
        let mut arena = Arena::default();
        let ids: std::vec::Vec<_> = (0..4).map(|n| arena.insert(n).unwrap()).collect();
        arena.remove(ids[1]);
        arena.remove(ids[2]);
        assert_eq!(arena.insert(9).unwrap().index(), 2);
        assert_eq!(arena.insert(8).unwrap().index(), 1);
        assert_eq!(arena.iter().map(|(_, n)| *n).sum::<i32>(), 9 + 8 + 3);
    }
}

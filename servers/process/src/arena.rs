//! Records with names that are never reused.
//!
//! An [`Id`] is an index and the slot's generation, so looking one up costs an array access, and
//! the id of something that is gone finds nothing, for ever. Thread ids double as thread labels,
//! which is how the server knows its callers.
//!
//! Invariant: a slot's generation grows each time it is filled, and begins at 1; no id is zero.

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::num::NonZeroU64;

const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
/// One bit less than fits, so that an id and a marker bit fit a badge.
const GENERATION_END: u64 = 1 << (63 - INDEX_BITS);

/// Names a record of an [`Arena`] of `T`.
pub struct Id<T> {
    bits: NonZeroU64,
    of: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    fn new(index: u32, generation: u64) -> Option<Id<T>> {
        NonZeroU64::new(generation << INDEX_BITS | u64::from(index)).map(|bits| Id {
            bits,
            of: PhantomData,
        })
    }

    /// As a number: a label, or part of a badge. Below 2^63.
    pub fn bits(self) -> u64 {
        self.bits.get()
    }

    /// The id with these bits; it may name nothing.
    pub fn from_bits(bits: u64) -> Option<Id<T>> {
        NonZeroU64::new(bits).map(|bits| Id {
            bits,
            of: PhantomData,
        })
    }

    fn index(self) -> usize {
        (self.bits.get() & INDEX_MASK) as usize
    }

    fn generation(self) -> u64 {
        self.bits.get() >> INDEX_BITS
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
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

enum Content<T> {
    Free(u32),
    Used(T),
}

struct Slot<T> {
    generation: u64,
    content: Content<T>,
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

impl<T> Arena<T> {
    /// Makes room for the first `count` records, so that the arena uses no more memory until there
    /// are more. For want of memory it makes less.
    pub fn prepare(&mut self, count: usize) {
        let more = count.saturating_sub(self.slots.len());
        if self.slots.try_reserve(more).is_err() {
            return;
        }
        let first = self.slots.len() as u32;
        for index in first..first + more as u32 {
            let next = match index + 1 - first == more as u32 {
                true => self.free,
                false => index + 1,
            };
            self.slots.push(Slot {
                generation: 0,
                content: Content::Free(next),
            });
        }
        if more > 0 {
            self.free = first;
        }
    }

    /// Stores `value`; nothing changes if there is no room.
    pub fn insert(&mut self, value: T) -> Result<Id<T>, Full> {
        if self.free == NO_SLOT {
            if self.slots.len() as u64 > INDEX_MASK {
                return Err(Full);
            }
            self.slots.try_reserve(1).map_err(|_| Full)?;
            self.free = self.slots.len() as u32;
            self.slots.push(Slot {
                generation: 0,
                content: Content::Free(NO_SLOT),
            });
        }
        let index = self.free;
        let slot = &mut self.slots[index as usize];
        let generation = slot.generation + 1;
        if generation >= GENERATION_END {
            return Err(Full);
        }
        let id = Id::new(index, generation).ok_or(Full)?;
        if let Content::Free(next) = slot.content {
            self.free = next;
        }
        slot.generation = generation;
        slot.content = Content::Used(value);
        self.live += 1;
        Ok(id)
    }

    /// Ends the record, if the id names one.
    pub fn discard(&mut self, id: Id<T>) {
        let free = self.free;
        if let Some(slot) = self.slots.get_mut(id.index())
            && slot.generation == id.generation()
            && matches!(slot.content, Content::Used(_))
        {
            slot.content = Content::Free(free);
            self.free = id.index() as u32;
            self.live -= 1;
        }
    }

    /// Takes the record out; `None` if the id names nothing. Where its content does not matter any
    /// more, [`discard`](Self::discard) moves nothing.
    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        let free = self.free;
        let slot = self.slots.get_mut(id.index())?;
        if slot.generation != id.generation() || matches!(slot.content, Content::Free(_)) {
            return None;
        }
        let content = core::mem::replace(&mut slot.content, Content::Free(free));
        self.free = id.index() as u32;
        self.live -= 1;
        match content {
            Content::Used(value) => Some(value),
            Content::Free(_) => None,
        }
    }

    /// The record, if the id names one.
    pub fn get(&self, id: Id<T>) -> Option<&T> {
        match self.slots.get(id.index()) {
            Some(Slot {
                generation,
                content: Content::Used(value),
            }) if *generation == id.generation() => Some(value),
            _ => None,
        }
    }

    /// The record, if the id names one.
    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        match self.slots.get_mut(id.index()) {
            Some(Slot {
                generation,
                content: Content::Used(value),
            }) if *generation == id.generation() => Some(value),
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
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let Content::Used(value) = &slot.content else {
                return None;
            };
            Some((Id::new(index as u32, slot.generation)?, value))
        })
    }

    /// All records, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots
            .iter_mut()
            .filter_map(|slot| match &mut slot.content {
                Content::Used(value) => Some(value),
                Content::Free(_) => None,
            })
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

//! Slots: what a table holds for one handle.
//!
//! Two words: the node's address in the first; access mask, flags and the slot's generation in the
//! second. A free slot keeps its generation, so that the next capability in it gets another one.

use super::Node;
use crate::memory::Ref;
use libipc::abi::{Handle, SlotFlags, TableSelector};

/// Where the flags stand in the second word.
const FLAGS_AT: u32 = 32;
/// Where the generation stands: it has the 24 bits from here on.
const GENERATION_AT: u32 = 40;

/// A used slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The grant that it names.
    pub node: Ref<Node>,
    /// What its holder may do.
    pub access: u32,
    /// Its marks.
    pub flags: SlotFlags,
    /// Which use of the slot this is.
    pub generation: u32,
}

impl Slot {
    /// The slot in these words; `None` if it is free.
    #[inline]
    pub fn from_words(words: [u64; 2]) -> Option<Slot> {
        Some(Slot {
            node: Ref::from_bits(words[0])?,
            access: words[1] as u32,
            flags: SlotFlags::from_bits_truncate((words[1] >> FLAGS_AT) as u8),
            generation: (words[1] >> GENERATION_AT) as u32,
        })
    }

    /// The slot as words.
    pub fn to_words(self) -> [u64; 2] {
        [
            self.node.to_bits(),
            self.access as u64
                | (self.flags.bits() as u64) << FLAGS_AT
                | (self.generation as u64) << GENERATION_AT,
        ]
    }

    /// The words of the slot once it is free.
    pub fn freed(generation: u32) -> [u64; 2] {
        [0, (generation as u64) << GENERATION_AT]
    }

    /// Whether this is the first word of a used slot.
    #[inline]
    pub fn is_used(first: u64) -> bool {
        first != 0
    }

    /// The generation that the next capability in a slot with this second word gets. After 2^24 - 1 uses of one slot
    /// it begins anew: a handle that old is no longer told from a new one.
    pub fn next_generation(second: u64) -> u32 {
        match second.wrapping_add(1 << GENERATION_AT) >> GENERATION_AT {
            0 => 1,
            next => next as u32,
        }
    }
}

/// Where a capability was put: index and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotName {
    /// The slot's number.
    pub index: u32,
    /// Which use of the slot it is.
    pub generation: u32,
}

impl SlotName {
    /// The handle by which a thread names the slot in that table of its own.
    pub fn handle(self, table: TableSelector) -> Handle {
        Handle::new(table, self.index, self.generation)
    }

    /// As calls that put into other tables return it: index and, in bits 32..56, generation.
    pub fn to_word(self) -> u64 {
        self.index as u64 | (self.generation as u64) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_survives_its_words() {
        let slot = Slot {
            node: Ref::from_bits(0xfff_ffff_ffc0).unwrap(),
            access: 0xdead_beef,
            flags: SlotFlags::CLOSE_ON_EXEC | SlotFlags::PROTECT,
            generation: 0xff_fffe,
        };
        assert_eq!(Slot::from_words(slot.to_words()), Some(slot));
        assert!(Slot::is_used(slot.to_words()[0]));
        assert_eq!(Slot::from_words(Slot::freed(7)), None);
        assert!(!Slot::is_used(Slot::freed(0xff_ffff)[0]));
        assert_eq!(Slot::next_generation(slot.to_words()[1]), 0xff_ffff);
    }

    #[test]
    fn generations_begin_at_one_and_skip_zero() {
        assert_eq!(Slot::next_generation(Slot::freed(0)[1]), 1);
        assert_eq!(Slot::next_generation(Slot::freed(0xff_ffff)[1]), 1);
    }
}

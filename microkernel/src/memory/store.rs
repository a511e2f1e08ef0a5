//! Where kernel objects live: frames cut into equal slots, one kind each.
//!
//! A slab frame belongs to one pool and holds objects of one kind, so a pool
//! pays for exactly the frames of its own objects, its objects can be listed
//! when it ends, and the kind of any slot can be checked from the frame record.
//! An empty slab frame goes back at once.
//!
//! Invariant: a [`Ref`] that is in use points at a slot that is marked used and
//! holds a value of its type. Refs are made only here; who keeps one sees to it
//! (by a count, a list or a node) that the object outlives it. Debug builds
//! check kind and use at every access.

use super::frame::{Content, Frame, FrameKind, PAGE_SIZE};
use super::{Error, Memory, Pool};
use crate::machine::Machine;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;
use core::num::NonZeroU64;

/// The kinds of kernel objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is described where the object is")]
pub enum ObjectKind {
    Pool,
    Space,
    Window,
    Mapping,
    Thread,
    Endpoint,
    Reply,
    Notification,
    CapTable,
    Node,
    Irq,
    IoPorts,
    PhysicalRange,
    Waiter,
}

impl ObjectKind {
    /// How many kinds there are.
    pub const COUNT: usize = 14;

    /// All kinds, in the order in which a pool ends its objects: what runs
    /// first, then what it ran in, nodes and inner pools last.
    pub const ALL: [ObjectKind; ObjectKind::COUNT] = [
        ObjectKind::Thread,
        ObjectKind::Waiter,
        ObjectKind::Irq,
        ObjectKind::Reply,
        ObjectKind::Endpoint,
        ObjectKind::Notification,
        ObjectKind::CapTable,
        ObjectKind::IoPorts,
        ObjectKind::PhysicalRange,
        ObjectKind::Window,
        ObjectKind::Space,
        ObjectKind::Mapping,
        ObjectKind::Pool,
        ObjectKind::Node,
    ];
}

/// A type whose values live in the store. At most 2048 bytes.
pub trait Object: 'static + Sized {
    /// Its kind; no two types share one.
    const KIND: ObjectKind;
}

/// Bytes of a slot for `T`: a power of two from 64 to 2048.
const fn slot_size<T>() -> usize {
    let size = if size_of::<T>() < 64 {
        64
    } else {
        size_of::<T>().next_power_of_two()
    };
    assert!(size <= 2048, "kernel objects are at most half a frame");
    size
}

/// A reference to an object in the store: the physical address of its slot.
pub struct Ref<T> {
    bits: NonZeroU64,
    of: PhantomData<fn() -> T>,
}

impl<T> Ref<T> {
    /// Stands for "not yet" while the first pool is made.
    pub(super) const DANGLING: Ref<T> = Ref {
        bits: NonZeroU64::MAX,
        of: PhantomData,
    };

    /// As a number, for keeping in packed words.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        self.bits.get()
    }

    /// Back from [`Ref::to_bits`]. Kernel-internal: `bits` must come from there.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Option<Ref<T>> {
        NonZeroU64::new(bits).map(Ref::from_nonzero)
    }

    /// The same from bits that are not zero.
    #[inline]
    pub(crate) fn from_nonzero(bits: NonZeroU64) -> Ref<T> {
        Ref {
            bits,
            of: PhantomData,
        }
    }

    #[inline]
    fn frame(self) -> Frame {
        Frame::containing(self.bits.get())
    }
}

impl<T> Clone for Ref<T> {
    #[inline]
    fn clone(&self) -> Ref<T> {
        *self
    }
}
impl<T> Copy for Ref<T> {}
impl<T> PartialEq for Ref<T> {
    #[inline]
    fn eq(&self, other: &Ref<T>) -> bool {
        self.bits == other.bits
    }
}
impl<T> Eq for Ref<T> {}
impl<T> PartialOrd for Ref<T> {
    fn partial_cmp(&self, other: &Ref<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Ref<T> {
    fn cmp(&self, other: &Ref<T>) -> Ordering {
        self.bits.cmp(&other.bits)
    }
}
impl<T> Hash for Ref<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits.hash(state);
    }
}
impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref({:#x})", self.bits)
    }
}

/// A reference to an object of any kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnyRef {
    kind: ObjectKind,
    bits: NonZeroU64,
}

impl AnyRef {
    /// Its kind.
    pub fn kind(self) -> ObjectKind {
        self.kind
    }

    /// The address of its slot, for keeping in packed words.
    pub fn to_bits(self) -> u64 {
        self.bits.get()
    }

    /// As a reference to a `T`, if it is one.
    #[inline]
    pub fn downcast<T: Object>(self) -> Option<Ref<T>> {
        (self.kind == T::KIND).then_some(Ref {
            bits: self.bits,
            of: PhantomData,
        })
    }
}

impl<T: Object> From<Ref<T>> for AnyRef {
    #[inline]
    fn from(reference: Ref<T>) -> AnyRef {
        AnyRef {
            kind: T::KIND,
            bits: reference.bits,
        }
    }
}

/// The slabs of one kind that a pool has, as two lists of frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slabs {
    /// With a free slot.
    pub(super) partial: u32,
    /// Without.
    full: u32,
}

impl Slabs {
    fn head(&mut self, full: bool) -> &mut u32 {
        if full {
            &mut self.full
        } else {
            &mut self.partial
        }
    }
}

/// How far the walk over the objects of an ending pool has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Lists begun so far: two for each kind of [`ObjectKind::ALL`].
    lists: u32,
    /// The slab looked at; zero to begin the next list.
    frame: u32,
    slot: u32,
}

impl Cursor {
    /// Goes on to the object behind the present one.
    pub(super) fn skip(&mut self) {
        self.slot += 1;
    }

    /// Slab `frame` leaves its list, in which `after` follows it.
    fn leave(&mut self, frame: Frame, after: u32) {
        if self.frame == frame.number() {
            self.frame = after;
            self.slot = 0;
        }
    }

    /// Begins the next list and says which it is: a kind, and whether full.
    fn next_list(&mut self) -> Option<(ObjectKind, bool)> {
        let kind = *ObjectKind::ALL.get(self.lists as usize / 2)?;
        let full = !self.lists.is_multiple_of(2);
        self.lists += 1;
        Some((kind, full))
    }
}

/// All slots of a slab for objects of `size` bytes, as a mask.
const fn all_slots(size: usize) -> u64 {
    let slots = PAGE_SIZE as usize / size;
    if slots == 64 {
        u64::MAX
    } else {
        (1 << slots) - 1
    }
}

fn previous(link: u64) -> u32 {
    (link >> 32) as u32
}

fn next(link: u64) -> u32 {
    link as u32
}

fn linked(previous: u32, next: u32) -> u64 {
    (previous as u64) << 32 | next as u64
}

impl<M: Machine> Memory<M> {
    /// Puts `value` into the store; `pool` pays for the slab frame.
    ///
    /// # Errors
    ///
    /// `NoMemory` if a new slab frame is needed and the pool is at its limit;
    /// `Gone` if the pool has ended.
    // Inlined, and what is rare is not, so that the value is built in its slot.
    #[inline(always)]
    pub fn create<T: Object>(&mut self, pool: Ref<Pool>, value: T) -> Result<Ref<T>, Error> {
        let owner = self.get(pool);
        if owner.has_ended() {
            return Err(Error::Gone);
        }
        let frame = match owner.slabs[T::KIND as usize].partial {
            0 => self.new_slab::<T>(pool)?,
            head => Frame::from_number(head),
        };
        Ok(self.place(pool, frame, value))
    }

    #[inline(never)]
    fn new_slab<T: Object>(&mut self, pool: Ref<Pool>) -> Result<Frame, Error> {
        let frame = self.take(pool, FrameKind::Slab, Content::Any)?;
        self.prepare_slab::<T>(frame);
        self.link_slab(pool, frame, false);
        Ok(frame)
    }

    /// Makes a frame a slab for `T`.
    pub(super) fn prepare_slab<T: Object>(&mut self, frame: Frame) {
        let record = self.record_mut(frame);
        record.object = T::KIND;
        record.slot_shift = const { slot_size::<T>() }.trailing_zeros() as u8;
    }

    /// Puts `value` into the lowest free slot of a slab on the partial list.
    #[inline(always)]
    pub(super) fn place<T: Object>(&mut self, pool: Ref<Pool>, frame: Frame, value: T) -> Ref<T> {
        let size = const { slot_size::<T>() };
        let record = self.record_mut(frame);
        let slot = (!record.lines).trailing_zeros() as usize;
        record.lines |= 1 << slot;
        let full = record.lines == all_slots(size);
        let bits = frame.address() + (slot * size) as u64;
        // SAFETY: the slot lies inside a slab frame of RAM, is aligned to its
        // size, was free until now and is written without being read.
        unsafe { self.machine.direct(bits).cast::<T>().write(value) };
        if full {
            self.move_slab(pool, frame, true);
        }
        Ref::from_bits(bits).expect("frame zero is never handed out")
    }

    /// The object.
    #[inline]
    pub fn get<T: Object>(&self, reference: Ref<T>) -> &T {
        debug_assert!(self.is_live(reference), "a reference outlived its object");
        // SAFETY: by the invariant of this file the slot holds a `T`; it changes
        // only through `&mut self`.
        unsafe { &*self.machine.direct(reference.to_bits()).cast() }
    }

    /// The object, to be changed.
    #[inline]
    pub fn get_mut<T: Object>(&mut self, reference: Ref<T>) -> &mut T {
        debug_assert!(self.is_live(reference), "a reference outlived its object");
        // SAFETY: as in `get`; `&mut self` makes it the only reference.
        unsafe { &mut *self.machine.direct(reference.to_bits()).cast() }
    }

    /// An object, and another one of its kind to be changed.
    #[inline]
    pub fn get_both<T: Object>(&mut self, one: Ref<T>, other: Ref<T>) -> (&T, &mut T) {
        debug_assert!(self.is_live(one) && self.is_live(other));
        assert!(one != other, "an object is no other one");
        let slot = |object: Ref<T>| self.machine.direct(object.to_bits()).cast::<T>();
        // SAFETY: as in `get` and `get_mut`; different references are different slots.
        unsafe { (&*slot(one), &mut *slot(other)) }
    }

    /// Who pays for an object.
    pub fn pool_of<T: Object>(&self, reference: Ref<T>) -> Ref<Pool> {
        let pool = self.record(reference.frame()).pool;
        pool.expect("a slab is paid for")
    }

    /// The object and the machine, both to be changed.
    #[inline]
    pub fn get_with_machine<T: Object>(&mut self, reference: Ref<T>) -> (&mut T, &mut M) {
        debug_assert!(self.is_live(reference), "a reference outlived its object");
        // SAFETY: as in `get_mut`; the object lies in RAM that the machine only
        // hands out pointers to, so it is no part of the machine value.
        let object = unsafe { &mut *self.machine.direct(reference.to_bits()).cast() };
        (object, &mut self.machine)
    }

    /// Ends the object; its slab frame goes back if it was the last one there.
    #[inline(always)]
    pub fn destroy<T: Object>(&mut self, reference: Ref<T>) {
        debug_assert!(self.is_live(reference), "an object is destroyed twice");
        // SAFETY: the slot holds a `T`, and nobody looks at it after this.
        unsafe {
            self.machine
                .direct(reference.to_bits())
                .cast::<T>()
                .drop_in_place();
        }
        let size = const { slot_size::<T>() };
        let frame = reference.frame();
        let record = self.record_mut(frame);
        record.lines &= !(1 << (reference.to_bits() % PAGE_SIZE / size as u64));
        if record.lines == 0 || record.on_full_list {
            self.note_free_slot(frame);
        }
    }

    /// A slab has become empty, or is full no more.
    #[inline(never)]
    fn note_free_slot(&mut self, frame: Frame) {
        let record = self.record(frame);
        let empty = record.lines == 0;
        let pool = record.pool.expect("a slab is paid for");
        if empty {
            self.unlink_slab(pool, frame);
            self.frame_drop(frame);
            self.release_frame(frame);
        } else if !self.get(pool).has_ended() {
            // While a pool ends, its slabs stay in the lists they are on, so
            // that the walk over its objects does not lose its place.
            self.move_slab(pool, frame, false);
        }
    }

    /// Puts a slab on the other list of its pool.
    #[inline(never)]
    fn move_slab(&mut self, pool: Ref<Pool>, frame: Frame, full: bool) {
        self.unlink_slab(pool, frame);
        self.link_slab(pool, frame, full);
    }

    pub(super) fn link_slab(&mut self, pool: Ref<Pool>, frame: Frame, full: bool) {
        let kind = self.record(frame).object;
        let head = *self.get_mut(pool).slabs[kind as usize].head(full);
        *self.get_mut(pool).slabs[kind as usize].head(full) = frame.number();
        let record = self.record_mut(frame);
        record.on_full_list = full;
        record.link = linked(0, head);
        if head != 0 {
            let record = self.record_mut(Frame::from_number(head));
            record.link = linked(frame.number(), next(record.link));
        }
    }

    fn unlink_slab(&mut self, pool: Ref<Pool>, frame: Frame) {
        let record = *self.record(frame);
        let (before, after) = (previous(record.link), next(record.link));
        let owner = self.get_mut(pool);
        if before == 0 {
            *owner.slabs[record.object as usize].head(record.on_full_list) = after;
        }
        owner.cursor.leave(frame, after);
        if before != 0 {
            let record = self.record_mut(Frame::from_number(before));
            record.link = linked(previous(record.link), after);
        }
        if after != 0 {
            let record = self.record_mut(Frame::from_number(after));
            record.link = linked(before, next(record.link));
        }
    }

    /// The first object at or after the cursor of an ending pool; the cursor
    /// moves to it. Kinds of which the pool has no say (mappings go with the
    /// last entry that names them) are passed over.
    pub(super) fn object_at_cursor(&mut self, pool: Ref<Pool>) -> Option<AnyRef> {
        let mut cursor = self.get(pool).cursor;
        let found = loop {
            if cursor.frame == 0 {
                let Some(list) = cursor.next_list() else {
                    break None;
                };
                let (kind, full) = list;
                cursor.frame = *self.get_mut(pool).slabs[kind as usize].head(full);
                cursor.slot = 0;
                continue;
            }
            let frame = Frame::from_number(cursor.frame);
            let record = self.record(frame);
            let rest = if cursor.slot < 64 {
                record.lines >> cursor.slot << cursor.slot
            } else {
                0
            };
            if rest == 0 {
                cursor.frame = next(record.link);
                cursor.slot = 0;
                continue;
            }
            cursor.slot = rest.trailing_zeros();
            let offset = (cursor.slot as u64) << record.slot_shift;
            break Some(AnyRef {
                kind: record.object,
                bits: NonZeroU64::new(frame.address() + offset)
                    .expect("frame zero is never handed out"),
            });
        };
        self.get_mut(pool).cursor = cursor;
        found
    }

    /// Whether the slot is in use by an object of this type.
    pub fn is_live<T: Object>(&self, reference: Ref<T>) -> bool {
        let size = const { slot_size::<T>() };
        self.records
            .get(reference.frame().number() as usize)
            .is_some_and(|record| {
                record.kind == FrameKind::Slab
                    && record.object == T::KIND
                    && reference.to_bits().is_multiple_of(size as u64)
                    && record.lines >> (reference.to_bits() % PAGE_SIZE / size as u64) & 1 != 0
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;
    use std::collections::BTreeSet;

    #[derive(Debug, PartialEq)]
    struct Small(u64);
    impl Object for Small {
        const KIND: ObjectKind = ObjectKind::Node;
    }
    struct Large([u64; 100]);
    impl Object for Large {
        const KIND: ObjectKind = ObjectKind::Thread;
    }

    #[test]
    fn an_object_keeps_its_value_until_it_is_destroyed() {
        let mut memory = fake::memory(16);
        let pool = memory.root_pool();
        let one = memory.create(pool, Small(1)).unwrap();
        let two = memory.create(pool, Small(2)).unwrap();
        memory.get_mut(one).0 = 11;
        assert_eq!(memory.get(one), &Small(11));
        memory.destroy(one);
        assert!(!memory.is_live(one));
        assert_eq!(memory.get(two), &Small(2));
    }

    #[test]
    fn slots_do_not_overlap_and_an_empty_slab_goes_back() {
        let mut memory = fake::memory(64);
        let pool = memory.root_pool();
        let used = memory.pool_status(pool).used;
        let mut large: Vec<_> = (0..9)
            .map(|i| memory.create(pool, Large([i; 100])).unwrap())
            .collect();
        assert_eq!(memory.pool_status(pool).used, used + 3, "four to a frame");
        let distinct: BTreeSet<_> = large.iter().map(|r| r.to_bits() / 1024).collect();
        assert_eq!(distinct.len(), 9);
        for (i, &r) in large.iter().enumerate() {
            assert_eq!(memory.get(r).0, [i as u64; 100]);
        }
        // A hole in a full slab is used again before a new slab is.
        memory.destroy(large.remove(1));
        large.push(memory.create(pool, Large([0; 100])).unwrap());
        assert_eq!(memory.pool_status(pool).used, used + 3);
        large.into_iter().for_each(|r| memory.destroy(r));
        assert_eq!(memory.pool_status(pool).used, used);
    }

    #[test]
    fn an_object_of_one_kind_is_not_one_of_another() {
        let mut memory = fake::memory(16);
        let pool = memory.root_pool();
        let any = AnyRef::from(memory.create(pool, Small(1)).unwrap());
        assert_eq!(any.kind(), ObjectKind::Node);
        assert!(any.downcast::<Large>().is_none());
        assert!(any.downcast::<Small>().is_some());
    }

    #[test]
    fn creating_in_a_full_pool_is_refused() {
        let mut memory = fake::memory(16);
        let pool = memory.pool_create(memory.root_pool(), 1).unwrap();
        for _ in 0..4 {
            memory.create(pool, Large([0; 100])).unwrap();
        }
        assert_eq!(
            memory.create(pool, Large([0; 100])).err(),
            Some(Error::NoMemory)
        );
    }

    #[test]
    #[should_panic(expected = "outlived")]
    #[cfg(debug_assertions)]
    fn a_stale_reference_is_caught_in_debug_builds() {
        let mut memory = fake::memory(16);
        let pool = memory.root_pool();
        let one = memory.create(pool, Small(1)).unwrap();
        memory.create(pool, Small(2)).unwrap();
        memory.destroy(one);
        memory.get(one);
    }
}

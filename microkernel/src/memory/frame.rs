//! Frames of physical memory and what is known about each.
//!
//! Invariant: a frame is on exactly one free list, or it has a kind other than
//! free and one pool pays for it, or it is foreign (RAM that no pool pays for).
//! Frames on the clean list hold zeros only.

use super::store::ObjectKind;
use super::{Error, Memory, Pool, Ref};
use crate::machine::Machine;
use core::sync::atomic::AtomicU64;

/// Bytes in a frame and in a page.
pub const PAGE_SIZE: u64 = 4096;

/// A 4 KiB frame of physical memory, by number: physical address / 4096.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Frame(u32);

impl Frame {
    /// The frame with this number.
    pub const fn from_number(number: u32) -> Frame {
        Frame(number)
    }

    /// The frame that holds physical address `physical`, which is below 16 TiB.
    pub const fn containing(physical: u64) -> Frame {
        Frame((physical / PAGE_SIZE) as u32)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The physical address of its first byte.
    pub const fn address(self) -> u64 {
        self.0 as u64 * PAGE_SIZE
    }
}

/// What a frame is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// Not RAM, or RAM that the kernel was not given.
    Unknown,
    /// RAM that no pool pays for, such as the boot archive; never counted, never freed.
    Foreign,
    /// RAM that the kernel took before there were pools; never mapped, never freed.
    Boot,
    /// On a free list.
    Free,
    /// Cut into slots for kernel objects.
    Slab,
    /// A page table.
    Table,
    /// User memory.
    Data,
    /// A page of capability slots.
    SlotPage,
    /// A page of another kernel structure.
    Kernel,
}

/// What is known about one frame.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FrameRecord {
    /// How many entries refer to the frame.
    pub(super) count: u32,
    pub(super) kind: FrameKind,
    /// Of a slab: the kind of its objects.
    pub(super) object: ObjectKind,
    /// Of a slab: whether it is on the list of full ones.
    pub(super) on_full_list: bool,
    /// Of a slab: the logarithm of its slot size.
    pub(super) slot_shift: u8,
    /// Who pays.
    pub(super) pool: Option<Ref<Pool>>,
    /// Of a table: a bit for each cache line that has an entry. Of a slab: a bit
    /// for each slot in use. Of a slot page: its user's.
    pub(super) lines: u64,
    /// Neighbours in the list that the frame is on. Of a table: a bit for each
    /// cache line that has more than untouched zeros. Of a slot page: a bit for
    /// each that may hold something but zeros.
    pub(super) link: u64,
}

const _: () = assert!(size_of::<FrameRecord>() == 32);

impl FrameRecord {
    /// The record of a frame that the kernel knows nothing about; the array
    /// handed to [`Memory::new`] is filled with it.
    pub const UNKNOWN: FrameRecord = FrameRecord {
        count: 0,
        kind: FrameKind::Unknown,
        object: ObjectKind::Pool,
        on_full_list: false,
        slot_shift: 0,
        pool: None,
        lines: 0,
        link: 0,
    };

    /// How many entries refer to the frame.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// What the frame is used for.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Who pays for the frame.
    pub fn pool(&self) -> Option<Ref<Pool>> {
        self.pool
    }

    /// Of a table: the lines that have more than untouched zeros.
    #[inline]
    pub(super) fn busy_lines(&self) -> u64 {
        self.link
    }

    #[inline]
    pub(super) fn set_busy_lines(&mut self, lines: u64) {
        self.link = lines;
    }

    /// The 64 bits that the frame's user keeps about its cache lines.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Of a slot page: the cache lines that may hold something but zeros.
    #[inline]
    pub fn written(&self) -> u64 {
        self.link
    }
}

/// A list of free frames, linked through their records.
#[derive(Clone, Copy)]
pub(super) struct FreeList {
    head: u32,
    tail: u32,
}

impl FreeList {
    pub(super) const EMPTY: FreeList = FreeList { head: 0, tail: 0 };

    #[cfg(any(test, feature = "fake"))]
    pub(super) fn iter(&self, records: &[FrameRecord]) -> impl Iterator<Item = Frame> {
        let mut next = self.head;
        core::iter::from_fn(move || {
            let frame = (next != 0).then_some(Frame(next))?;
            next = records[next as usize].link as u32;
            Some(frame)
        })
    }
}

/// Frames that nobody holds any more but that a CPU may still remember.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    dirty: FreeList,
    clean: FreeList,
}

impl Pending {
    pub(super) const NONE: Pending = Pending {
        dirty: FreeList::EMPTY,
        clean: FreeList::EMPTY,
    };

    pub(super) fn is_empty(&self) -> bool {
        self.dirty.head == 0 && self.clean.head == 0
    }
}

/// What the content of a frame must be when it is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Anything: it will be overwritten.
    Any,
    /// Zeros.
    Zero,
}

/// A type that can be laid over a whole frame.
///
/// # Safety
///
/// The type is 4096 bytes long, its alignment divides 4096, every bit pattern
/// is a value of it and it has nothing to drop.
pub unsafe trait PageContent: 'static {}

// SAFETY: words and bytes have no invalid patterns, and 512 words are a page.
unsafe impl PageContent for [u64; 512] {}
// SAFETY: as above.
unsafe impl PageContent for [u8; 4096] {}
// SAFETY: an atomic word has the layout of a word.
unsafe impl PageContent for [AtomicU64; 512] {}

/// The frame as a table of entries; the CPUs' page walkers may read it at the
/// same time, hence the atomics.
#[inline]
pub(super) fn table<M: Machine>(machine: &M, frame: Frame) -> &[AtomicU64; 512] {
    // SAFETY: `frame` is RAM by the contract of `Machine::direct`; all access to
    // frames in use as tables goes through atomics.
    unsafe { &*machine.direct(frame.address()).cast() }
}

impl<M: Machine> Memory<M> {
    /// The record of a frame that has one.
    #[inline]
    pub fn record(&self, frame: Frame) -> &FrameRecord {
        &self.records[frame.number() as usize]
    }

    #[inline]
    pub(super) fn record_mut(&mut self, frame: Frame) -> &mut FrameRecord {
        &mut self.records[frame.number() as usize]
    }

    /// The content of a kernel page taken with [`Memory::take_frame`] (a slot
    /// page, say). Never for user data, which programs change at any time.
    #[inline]
    pub fn page<T: PageContent>(&self, frame: Frame) -> &T {
        debug_assert!(size_of::<T>() as u64 == PAGE_SIZE && self.is_kernel_page(frame));
        // SAFETY: the frame is RAM by the contract of `Machine::direct`, any
        // content is a `T` by that of `PageContent`, and writers need `&mut self`.
        unsafe { &*self.machine.direct(frame.address()).cast() }
    }

    /// As [`Memory::page`], to be changed.
    #[inline]
    pub fn page_mut<T: PageContent>(&mut self, frame: Frame) -> &mut T {
        debug_assert!(size_of::<T>() as u64 == PAGE_SIZE && self.is_kernel_page(frame));
        // SAFETY: as in `page`; `&mut self` makes it the only reference.
        unsafe { &mut *self.machine.direct(frame.address()).cast() }
    }

    fn is_kernel_page(&self, frame: Frame) -> bool {
        matches!(
            self.record(frame).kind,
            FrameKind::SlotPage | FrameKind::Kernel
        )
    }

    /// Sets the 64 bits that the frame's user keeps about its cache lines.
    #[inline]
    pub fn set_frame_lines(&mut self, frame: Frame, lines: u64) {
        self.record_mut(frame).lines = lines;
    }

    /// Records that these cache lines of a slot page may hold something but zeros.
    #[inline]
    pub fn note_written(&mut self, frame: Frame, lines: u64) {
        let record = self.record_mut(frame);
        debug_assert!(record.kind == FrameKind::SlotPage);
        record.link |= lines;
    }

    /// Records that these cache lines of a slot page hold zeros again.
    #[inline]
    pub fn note_cleared(&mut self, frame: Frame, lines: u64) {
        let record = self.record_mut(frame);
        debug_assert!(record.kind == FrameKind::SlotPage);
        record.link &= !lines;
    }

    /// Takes a frame filled with zeros that `pool` pays for; its count is one.
    ///
    /// # Errors
    ///
    /// `NoMemory` if the pool or an ancestor is at its limit.
    pub fn take_frame(&mut self, pool: Ref<Pool>, kind: FrameKind) -> Result<Frame, Error> {
        self.take(pool, kind, Content::Zero)
    }

    /// One more reference to a counted frame.
    ///
    /// # Errors
    ///
    /// `Exhausted` if the count is at its highest value.
    #[inline]
    pub fn frame_bump(&mut self, frame: Frame) -> Result<(), Error> {
        let record = self.record_mut(frame);
        record.count = record.count.checked_add(1).ok_or(Error::Exhausted)?;
        Ok(())
    }

    /// One reference less; returns how many remain. At zero the caller owes a
    /// [`Memory::release_frame`].
    #[inline]
    pub fn frame_drop(&mut self, frame: Frame) -> u32 {
        let record = self.record_mut(frame);
        debug_assert!(record.count > 0, "a reference that was never counted");
        record.count -= 1;
        record.count
    }

    /// Gives back a frame that no translation can reach any more and whose
    /// count is zero.
    pub fn release_frame(&mut self, frame: Frame) {
        let payer = self.put(frame, Content::Any);
        self.uncharge(payer.expect("a frame in use is paid for"));
    }

    /// As [`Memory::release_frame`], and the frame holds zeros.
    pub(crate) fn release_clean(&mut self, frame: Frame) {
        let payer = self.put(frame, Content::Zero);
        self.uncharge(payer.expect("a frame in use is paid for"));
    }

    #[inline(always)]
    pub(super) fn take(
        &mut self,
        pool: Ref<Pool>,
        kind: FrameKind,
        content: Content,
    ) -> Result<Frame, Error> {
        self.charge(pool)?;
        let Some(frame) = self.take_uncharged(content) else {
            self.uncharge(pool);
            return Err(Error::NoMemory);
        };
        let record = self.record_mut(frame);
        debug_assert!(record.kind == FrameKind::Free && record.lines == 0);
        record.count = 1;
        record.kind = kind;
        record.pool = Some(pool);
        record.link = 0;
        Ok(frame)
    }

    #[inline(always)]
    pub(super) fn take_uncharged(&mut self, content: Content) -> Option<Frame> {
        // Clean frames are kept for those who need zeros, if there is a choice.
        let frame = match content {
            Content::Any => match self.pop_dirty() {
                Some(frame) => frame,
                None => self.pop_clean()?,
            },
            Content::Zero => match self.pop_clean() {
                Some(frame) => frame,
                None => {
                    let frame = self.pop_dirty()?;
                    self.machine.zero_frame(frame);
                    frame
                }
            },
        };
        self.statistics.frames_free -= 1;
        Some(frame)
    }

    #[inline(always)]
    fn pop_dirty(&mut self) -> Option<Frame> {
        pop(&mut self.dirty, self.records)
    }

    #[inline(always)]
    fn pop_clean(&mut self) -> Option<Frame> {
        pop(&mut self.clean, self.records)
    }

    /// Puts a frame back and returns who paid for it; `Content::Zero` promises
    /// that it holds zeros.
    fn put(&mut self, frame: Frame, content: Content) -> Option<Ref<Pool>> {
        self.statistics.frames_free += 1;
        let list = match content {
            Content::Any => &mut self.dirty,
            Content::Zero => &mut self.clean,
        };
        push(list, self.records, frame)
    }

    /// As [`Memory::release_frame`] for a frame that a CPU may still remember;
    /// it is used again only after [`Memory::free_pending`].
    #[inline]
    pub(super) fn release_later(&mut self, frame: Frame, content: Content) {
        self.statistics.frames_free += 1;
        let list = match content {
            Content::Any => &mut self.pending.dirty,
            Content::Zero => &mut self.pending.clean,
        };
        let payer = push(list, self.records, frame);
        self.uncharge(payer.expect("a frame in use is paid for"));
    }

    /// No CPU remembers the pending frames any more.
    #[inline]
    pub(super) fn free_pending(&mut self) {
        if !self.pending.is_empty() {
            let Pending { dirty, clean } = core::mem::replace(&mut self.pending, Pending::NONE);
            splice(&mut self.dirty, self.records, dirty);
            splice(&mut self.clean, self.records, clean);
        }
    }

    /// Hands a frame of RAM to the free lists at boot.
    pub(super) fn add_free(&mut self, frame: Frame) {
        let nobody = self.put(frame, Content::Any);
        debug_assert!(nobody.is_none());
        self.statistics.frames_total += 1;
    }

    /// Says that a frame is RAM that holds something from before the kernel.
    /// It can be mapped but is never counted, charged or freed.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the frame has no record or is one of the kernel's.
    pub fn mark_foreign(&mut self, frame: Frame) -> Result<(), Error> {
        match self.records.get_mut(frame.number() as usize) {
            Some(record) if record.kind == FrameKind::Unknown => {
                record.kind = FrameKind::Foreign;
                Ok(())
            }
            Some(record) if record.kind == FrameKind::Foreign => Ok(()),
            _ => Err(Error::InvalidArgument),
        }
    }

    /// Says that a frame is RAM that the kernel took before there were pools: its
    /// image, its page tables. Nobody can map it.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the frame has no record or is used for something else.
    pub fn mark_boot(&mut self, frame: Frame) -> Result<(), Error> {
        match self.records.get_mut(frame.number() as usize) {
            Some(record) if record.kind == FrameKind::Unknown => {
                record.kind = FrameKind::Boot;
                Ok(())
            }
            _ => Err(Error::InvalidArgument),
        }
    }
}

/// Makes a frame a free one, first in `list`. Returns who paid for it.
#[inline(always)]
fn push(list: &mut FreeList, records: &mut [FrameRecord], frame: Frame) -> Option<Ref<Pool>> {
    let record = &mut records[frame.number() as usize];
    debug_assert!(record.count == 0, "a frame in use is given back");
    debug_assert!(
        record.kind != FrameKind::Free,
        "a frame is given back twice"
    );
    record.kind = FrameKind::Free;
    record.lines = 0;
    record.link = list.head as u64;
    if list.head == 0 {
        list.tail = frame.number();
    }
    list.head = frame.number();
    record.pool.take()
}

/// Puts all of `more` in front of `list`.
fn splice(list: &mut FreeList, records: &mut [FrameRecord], more: FreeList) {
    if more.head != 0 {
        records[more.tail as usize].link = list.head as u64;
        if list.head == 0 {
            list.tail = more.tail;
        }
        list.head = more.head;
    }
}

#[inline(always)]
fn pop(list: &mut FreeList, records: &mut [FrameRecord]) -> Option<Frame> {
    if list.head == 0 {
        return None;
    }
    let frame = Frame(list.head);
    list.head = records[frame.number() as usize].link as u32;
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;

    #[test]
    fn a_taken_frame_is_zero_whatever_was_in_it() {
        let mut memory = fake::memory(4);
        let pool = memory.root_pool();
        for _ in 0..3 {
            let frame = memory.take_frame(pool, FrameKind::Kernel).unwrap();
            assert_eq!(memory.page::<[u64; 512]>(frame), &[0; 512]);
            memory.page_mut::<[u64; 512]>(frame)[511] = 7;
            assert_eq!(memory.frame_drop(frame), 0);
            memory.release_frame(frame);
        }
    }

    #[test]
    fn the_last_frame_can_be_taken_and_then_no_more() {
        let mut memory = fake::memory(4);
        let pool = memory.root_pool();
        memory.take_frame(pool, FrameKind::Kernel).unwrap();
        memory.take_frame(pool, FrameKind::Kernel).unwrap();
        assert_eq!(memory.statistics().frames_free, 0);
        assert_eq!(
            memory.take_frame(pool, FrameKind::Kernel),
            Err(Error::NoMemory)
        );
    }

    #[test]
    fn only_memory_that_the_kernel_does_not_own_becomes_foreign() {
        let mut memory = fake::memory(4);
        let taken = memory
            .take_frame(memory.root_pool(), FrameKind::Kernel)
            .unwrap();
        assert_eq!(memory.mark_foreign(taken), Err(Error::InvalidArgument));
        assert_eq!(
            memory.mark_foreign(Frame::from_number(4)),
            Err(Error::InvalidArgument)
        );
        assert_eq!(memory.mark_foreign(Frame::from_number(0)), Ok(()));
    }

    #[test]
    fn a_frame_that_cpus_may_remember_is_not_used_again_before_the_flush() {
        let mut memory = fake::memory(4);
        let pool = memory.root_pool();
        let frame = memory.take_frame(pool, FrameKind::Data).unwrap();
        memory.take_frame(pool, FrameKind::Kernel).unwrap();
        memory.drop_page(frame);
        let none_left = memory.take_frame(pool, FrameKind::Kernel);
        assert_eq!(none_left, Err(Error::NoMemory));
        memory.free_pending();
        assert_eq!(memory.take_frame(pool, FrameKind::Kernel), Ok(frame));
    }

    #[test]
    fn a_count_at_its_highest_value_is_not_raised() {
        let mut memory = fake::memory(4);
        let frame = memory
            .take_frame(memory.root_pool(), FrameKind::Kernel)
            .unwrap();
        memory.record_mut(frame).count = u32::MAX;
        assert_eq!(memory.frame_bump(frame), Err(Error::Exhausted));
    }
}

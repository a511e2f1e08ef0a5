//! The kernel's own access to user memory.
//!
//! Everything here resolves the address first and then goes through the direct
//! map. Both sides of a copy are resolved, as [`Span`]s, before a byte moves: a
//! copy that has begun cannot fail. Resolve the side that is written first: that
//! can replace the frame which the other side reads, not the other way round.

use super::entry::{Entry, Kind};
use super::resolve::{Fault, Intent};
use super::store::Ref;
use super::{Frame, FrameKind, Memory, PAGE_SIZE, Space};
use crate::machine::Machine;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The longest [`Span`] in bytes: it touches two pages at most.
pub const SPAN_BYTES: usize = PAGE_SIZE as usize;

/// A resolved piece of user memory. Valid until the next change of any space.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    frames: [Frame; 2],
    offset: usize,
    length: usize,
}

impl Span {
    /// No bytes at all.
    pub const EMPTY: Span = Span {
        frames: [Frame::from_number(0); 2],
        offset: 0,
        length: 0,
    };

    /// The same without its first `bytes` bytes, of which it has that many.
    fn behind(self, bytes: usize) -> Span {
        let (offset, length) = (self.offset + bytes, self.length - bytes);
        if offset < SPAN_BYTES {
            return Span {
                offset,
                length,
                ..self
            };
        }
        Span {
            frames: [self.frames[1]; 2],
            offset: offset - SPAN_BYTES,
            length,
        }
    }

    /// The physical address of byte `at`, and how many bytes follow it in the
    /// same frame.
    fn physical(&self, at: usize) -> (u64, usize) {
        let offset = self.offset + at;
        let (frame, offset) = if offset < SPAN_BYTES {
            (self.frames[0], offset)
        } else {
            (self.frames[1], offset - SPAN_BYTES)
        };
        let there = (SPAN_BYTES - offset).min(self.length - at);
        (frame.address() + offset as u64, there)
    }
}

/// An address that could not be resolved, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultAt {
    /// The first address of the page at fault that was wanted.
    pub address: u64,
    /// Why.
    pub fault: Fault,
}

/// What identifies a futex: two threads meet if they have the same key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FutexKey {
    /// In memory that the space has for itself (its id, the address).
    Private(u64, u64),
    /// In memory that is shared through a window.
    Shared(Frame, u64),
}

impl<M: Machine> Memory<M> {
    /// Resolves an address to memory that the kernel can reach: device memory
    /// that a program has mapped is not in the direct map.
    #[inline(always)]
    fn reach(&mut self, space: Ref<Space>, address: u64, intent: Intent) -> Result<Frame, FaultAt> {
        // Most pages are ready, and a frame alone is returned in a register.
        match self.reach_ready(space, address, intent) {
            Some(frame) => Ok(frame),
            None => self
                .make_reachable(space, address, intent)
                .map_err(|fault| FaultAt { address, fault }),
        }
    }

    #[inline(never)]
    fn reach_ready(&self, space: Ref<Space>, address: u64, intent: Intent) -> Option<Frame> {
        let entry = self.ready(space, address, intent)?;
        // Pinned pages do not count, and all that count are RAM.
        entry.counts().then_some(entry.frame())
    }

    #[inline(never)]
    fn make_reachable(
        &mut self,
        space: Ref<Space>,
        address: u64,
        intent: Intent,
    ) -> Result<Frame, Fault> {
        let frame = self.resolve(space, address, intent)?;
        match self.records.get(frame.number() as usize) {
            Some(record) if record.kind() != FrameKind::Unknown => Ok(frame),
            _ => Err(Fault::Denied),
        }
    }

    /// Resolves `length` bytes, at most [`SPAN_BYTES`], from `address` on.
    ///
    /// # Errors
    ///
    /// The first page that could not be resolved.
    ///
    /// # Panics
    ///
    /// If `length` is more than [`SPAN_BYTES`].
    #[inline(always)]
    pub fn span(
        &mut self,
        space: Ref<Space>,
        address: u64,
        length: usize,
        intent: Intent,
    ) -> Result<Span, FaultAt> {
        assert!(length <= SPAN_BYTES);
        if length == 0 {
            return Ok(Span::EMPTY);
        }
        let offset = (address % PAGE_SIZE) as usize;
        let frames = if offset + length <= SPAN_BYTES {
            [self.reach(space, address, intent)?; 2]
        } else {
            self.two_pages(space, address, intent)?
        };
        Ok(Span {
            frames,
            offset,
            length,
        })
    }

    /// The frames of the page at `address` and of the next one.
    #[inline(never)]
    fn two_pages(
        &mut self,
        space: Ref<Space>,
        address: u64,
        intent: Intent,
    ) -> Result<[Frame; 2], FaultAt> {
        let first = self.reach(space, address, intent)?;
        let next = (address & !(PAGE_SIZE - 1)) + PAGE_SIZE;
        if let Some(second) = self.reach_ready(space, next, intent) {
            return Ok([first, second]);
        }
        let second = self.reach(space, next, intent)?;
        // Settling the second page of a window can have parted the first.
        let first = self.reach(space, address, intent)?;
        Ok([first, second])
    }

    /// Copies `from` to `to`, as far as both go. They may overlap.
    #[inline]
    pub fn copy_span(&mut self, from: &Span, to: &Span) {
        let mut at = 0;
        // Once, for most.
        while at < from.length && at < to.length {
            let (source, source_left) = from.physical(at);
            let (target, target_left) = to.physical(at);
            let count = source_left.min(target_left);
            let source = self.machine.direct(source);
            let target = self.machine.direct(target);
            // SAFETY: both are within one frame each that `resolve` found, which
            // are RAM or mapped device memory; nobody keeps references into user
            // memory.
            unsafe { target.copy_from(source, count) };
            at += count;
        }
    }

    /// Copies bytes out of a span.
    pub fn read_span(&self, from: &Span, into: &mut [u8]) {
        let length = from.length.min(into.len());
        let mut at = 0;
        while at < length {
            let (source, left) = from.physical(at);
            let count = left.min(length - at);
            let source = self.machine.direct(source);
            // SAFETY: as in `copy_span`; `into` is kernel memory.
            unsafe { into[at..].as_mut_ptr().copy_from(source, count) };
            at += count;
        }
    }

    /// Copies bytes into a span.
    pub fn write_span(&mut self, to: &Span, from: &[u8]) {
        let length = to.length.min(from.len());
        let mut at = 0;
        while at < length {
            let (target, left) = to.physical(at);
            let count = left.min(length - at);
            let target = self.machine.direct(target);
            // SAFETY: as in `copy_span`; `from` is kernel memory.
            unsafe { target.copy_from(from[at..].as_ptr(), count) };
            at += count;
        }
    }

    /// Where `count` words at byte `at` of a span are, if they are aligned and in one frame.
    #[inline(always)]
    fn words_at(&self, span: &Span, at: usize, count: usize) -> Option<*mut u64> {
        let (address, left) = span.physical(at);
        let whole = address.is_multiple_of(8) && count * size_of::<u64>() <= left;
        whole.then(|| self.machine.direct(address).cast())
    }

    /// Reads 64-bit words from byte `at` of a span on, which has them.
    #[inline(always)]
    pub fn read_span_words<const N: usize>(&self, from: &Span, at: usize) -> [u64; N] {
        match self.words_at(from, at, N) {
            // SAFETY: aligned words within one frame that `resolve` found, which is RAM; programs
            // may change them at the same time, hence volatile.
            Some(words) => core::array::from_fn(|at| unsafe { words.add(at).read_volatile() }),
            None => core::array::from_fn(|word| {
                let mut bytes = [0; size_of::<u64>()];
                self.read_span(&from.behind(at + word * bytes.len()), &mut bytes);
                u64::from_le_bytes(bytes)
            }),
        }
    }

    /// Writes 64-bit words to the start of a span.
    #[inline(always)]
    pub fn write_span_words<const N: usize>(&mut self, to: &Span, words: [u64; N]) {
        let place = self.words_at(to, 0, N);
        for (at, word) in words.into_iter().enumerate() {
            match place {
                // SAFETY: as in `read_span_words`.
                Some(place) => unsafe { place.add(at).write_volatile(word) },
                None => self.write_span(&to.behind(at * size_of::<u64>()), &word.to_le_bytes()),
            }
        }
    }

    /// Reads from a space's memory.
    ///
    /// # Errors
    ///
    /// The first page that could not be resolved; what lies before it is read.
    pub fn read(
        &mut self,
        space: Ref<Space>,
        address: u64,
        into: &mut [u8],
    ) -> Result<(), FaultAt> {
        let mut address = address;
        for piece in into.chunks_mut(SPAN_BYTES) {
            let span = self.span(space, address, piece.len(), Intent::Read)?;
            self.read_span(&span, piece);
            address = address.wrapping_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Writes to a space's memory with one of the writing intents.
    ///
    /// # Errors
    ///
    /// The first page that could not be resolved; what lies before it is written.
    pub fn write(
        &mut self,
        space: Ref<Space>,
        address: u64,
        from: &[u8],
        intent: Intent,
    ) -> Result<(), FaultAt> {
        let mut address = address;
        for piece in from.chunks(SPAN_BYTES) {
            let span = self.span(space, address, piece.len(), intent)?;
            self.write_span(&span, piece);
            address = address.wrapping_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Reads 64-bit words of a space's memory.
    ///
    /// # Errors
    ///
    /// The first page that could not be resolved.
    #[inline(always)]
    pub fn read_words<const N: usize>(
        &mut self,
        space: Ref<Space>,
        address: u64,
    ) -> Result<[u64; N], FaultAt> {
        let bytes = (N * size_of::<u64>()) as u64;
        if !address.is_multiple_of(8) || address % PAGE_SIZE + bytes > PAGE_SIZE {
            return self.read_scattered_words(space, address);
        }
        let frame = self.reach(space, address, Intent::Read)?;
        let from = self.machine.direct(frame.address() + address % PAGE_SIZE);
        let from = from.cast::<u64>();
        // SAFETY: aligned words within one frame that `resolve` found, which is RAM; programs may
        // change them at the same time, hence volatile.
        Ok(core::array::from_fn(|at| unsafe {
            from.add(at).read_volatile()
        }))
    }

    #[cold]
    fn read_scattered_words<const N: usize>(
        &mut self,
        space: Ref<Space>,
        address: u64,
    ) -> Result<[u64; N], FaultAt> {
        let mut words = [0; N];
        for (at, word) in words.iter_mut().enumerate() {
            let mut bytes = [0; size_of::<u64>()];
            self.read(space, address.wrapping_add(at as u64 * 8), &mut bytes)?;
            *word = u64::from_le_bytes(bytes);
        }
        Ok(words)
    }

    /// Writes a 64-bit word of a space's memory.
    ///
    /// # Errors
    ///
    /// The page that could not be resolved.
    #[inline]
    pub fn write_word(
        &mut self,
        space: Ref<Space>,
        address: u64,
        word: u64,
    ) -> Result<(), FaultAt> {
        if !address.is_multiple_of(8) {
            return self.write(space, address, &word.to_le_bytes(), Intent::Write);
        }
        let frame = self.reach(space, address, Intent::Write)?;
        let to = self.machine.direct(frame.address() + address % PAGE_SIZE);
        // SAFETY: as in `read_words`.
        unsafe { to.cast::<u64>().write_volatile(word) };
        Ok(())
    }

    /// Replaces the 64-bit word at `address`, which is a multiple of 8, by `new`
    /// if it is `expected`. Returns what it was.
    ///
    /// # Errors
    ///
    /// Why the address cannot be written; `Denied` if it is not a multiple of 8.
    pub fn compare_exchange(
        &mut self,
        space: Ref<Space>,
        address: u64,
        expected: u64,
        new: u64,
    ) -> Result<u64, Fault> {
        if !address.is_multiple_of(8) {
            return Err(Fault::Denied);
        }
        let frame = self.make_reachable(space, address, Intent::Write)?;
        let word = self.machine.direct(frame.address() + address % PAGE_SIZE);
        // SAFETY: eight aligned bytes of a frame that `resolve` found. Programs
        // may change them at the same time: hence the atomic.
        let word = unsafe { &*word.cast::<AtomicU64>() };
        let order = Ordering::SeqCst;
        Ok(word
            .compare_exchange(expected, new, order, order)
            .unwrap_or_else(|was| was))
    }

    /// The 32-bit word at `address`, which is a multiple of 4.
    ///
    /// # Errors
    ///
    /// Why the address cannot be read; `Denied` if it is not a multiple of 4.
    #[cfg(any(test, feature = "fake"))]
    pub fn load_word(&mut self, space: Ref<Space>, address: u64) -> Result<u32, Fault> {
        let (_, word) = self.futex(space, address, Intent::Read)?;
        Ok(word.load(Ordering::SeqCst))
    }

    /// Stores the 32-bit word at `address`, which is a multiple of 4.
    ///
    /// # Errors
    ///
    /// Why the address cannot be written; `Denied` if it is not a multiple of 4.
    pub fn store_word(&mut self, space: Ref<Space>, address: u64, value: u32) -> Result<(), Fault> {
        let (_, word) = self.futex(space, address, Intent::Write)?;
        word.store(value, Ordering::SeqCst);
        Ok(())
    }

    /// The key of the futex at `address`, which is a multiple of 4.
    ///
    /// # Errors
    ///
    /// Why the address cannot be read; `Denied` if it is not a multiple of 4.
    pub fn futex_key(&mut self, space: Ref<Space>, address: u64) -> Result<FutexKey, Fault> {
        Ok(self.futex(space, address, Intent::Read)?.0)
    }

    /// The futex at `address`, which is a multiple of 4: its key, and its word. Memory that
    /// the space shared out through windows of its own stays private to it here:
    /// whether somebody maps such a window must not part threads of the space.
    ///
    /// # Errors
    ///
    /// Why the address cannot be used so; `Denied` if it is not a multiple of 4.
    pub fn futex(
        &mut self,
        space: Ref<Space>,
        address: u64,
        intent: Intent,
    ) -> Result<(FutexKey, &AtomicU32), Fault> {
        if !address.is_multiple_of(4) {
            return Err(Fault::Denied);
        }
        // Pinned pages do not count, and all that count are RAM.
        let ready = self.ready(space, address, intent);
        let entry = match ready.filter(|entry| entry.counts()) {
            Some(entry) => entry,
            None => self.make_entry_reachable(space, address, intent)?,
        };
        let shared = match entry.kind() {
            Kind::Shared => !entry.is_exported(),
            kind => kind == Kind::Pinned,
        };
        let key = if shared {
            FutexKey::Shared(entry.frame(), address % PAGE_SIZE)
        } else {
            FutexKey::Private(self.get(space).id(), address)
        };
        let word = self
            .machine
            .direct(entry.frame().address() + address % PAGE_SIZE);
        // SAFETY: as in `compare_exchange`, with four bytes.
        Ok((key, unsafe { &*word.cast::<AtomicU32>() }))
    }

    /// As [`Memory::make_reachable`]; the entry that says so.
    #[inline(never)]
    fn make_entry_reachable(
        &mut self,
        space: Ref<Space>,
        address: u64,
        intent: Intent,
    ) -> Result<Entry, Fault> {
        self.make_reachable(space, address, intent)?;
        let root = self.get(space).root().ok_or(Fault::Denied)?;
        Ok(self.walk(root, address).entry)
    }
}

//! Address spaces: making, snapshotting, loading and ending them.
//!
//! A space is a root table, the pool that pays for what is added to it, and a
//! pager. Whoever keeps a reference to a space *holds* it; a space that has
//! ended is an empty shell until the last hold is given back.
//!
//! A snapshot is a new root whose entries refer to the same lower tables. Write
//! permission of a page is the AND over all levels, so masking the entries of
//! both roots protects everything below at once, whatever there is: the cost
//! does not depend on the amount of memory.
//!
//! Invariant: a CPU is in `active` exactly if the space's root is loaded there;
//! the root's count is one, and its upper half is the kernel's.

use super::frame::{Content, Frame, FrameKind, table};
use super::lines::{Bits, clear_line, copy_line};
use super::store::{Object, ObjectKind, Ref};
use super::tree::{ENTRIES, USER_LINES};
use super::{Error, Memory, Pool};
use crate::machine::{CpuSet, Machine};
use core::ops::Range;
use core::sync::atomic::Ordering;
use libipc::abi::USER_END;

/// Whom to ask for pages: an opaque word of the object layer, which alone knows
/// what kind of reference it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagerRef(pub u64);

/// An address space.
#[derive(Debug)]
pub struct Space {
    id: u64,
    pub(super) pool: Ref<Pool>,
    /// `None` from the moment its end begins.
    root: Option<Frame>,
    /// The root of a space whose end has begun and is not done.
    remains: Option<Frame>,
    pager: Option<PagerRef>,
    active: CpuSet,
    native: Range<u64>,
    holds: u32,
    /// The next space that nobody holds and that has not been ended.
    next_unheld: Option<Ref<Space>>,
}

impl Object for Space {
    const KIND: ObjectKind = ObjectKind::Space;
}

impl Space {
    /// A number that no other space had or will have.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Who pays for what is added to the space.
    pub fn pool(&self) -> Ref<Pool> {
        self.pool
    }

    /// Who is asked for pages that nothing is known about.
    pub fn pager(&self) -> Option<PagerRef> {
        self.pager
    }

    /// The CPUs on which the space is loaded.
    pub fn active(&self) -> CpuSet {
        self.active
    }

    /// Addresses from which system calls are native; from elsewhere they go to
    /// the thread's upcall address.
    pub fn native_range(&self) -> &Range<u64> {
        &self.native
    }

    /// Whether it has ended or is being ended.
    pub fn has_ended(&self) -> bool {
        self.root.is_none()
    }

    /// Whether nothing but holds is left of it.
    pub(super) fn is_shell(&self) -> bool {
        self.root.is_none() && self.remains.is_none()
    }

    /// The root, also of a space whose end is not done.
    #[cfg(any(test, feature = "fake"))]
    pub(super) fn any_root(&self) -> Option<Frame> {
        self.root.or(self.remains)
    }

    #[inline]
    pub(super) fn root(&self) -> Option<Frame> {
        self.root
    }
}

/// A space that has not ended, to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct Loadable {
    space: Ref<Space>,
    root: Frame,
}

/// How far an operation that is cut into steps has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Progress {
    /// All is done.
    Done,
    /// All below this address is done; call again with the rest.
    More(u64),
}

/// How many cache lines of tables one step works on: at most 2,048 pages, some
/// 150,000 instructions.
pub(super) const STEP_LINES: u32 = 256;

impl<M: Machine> Memory<M> {
    /// Makes an empty space with one hold, the caller's. `pool` pays for it and
    /// for what is added to it.
    ///
    /// # Errors
    ///
    /// `NoMemory` if the pool cannot pay, `Gone` if it has ended.
    pub fn space_create(
        &mut self,
        pool: Ref<Pool>,
        pager: Option<PagerRef>,
    ) -> Result<Ref<Space>, Error> {
        self.new_space(pool, pager, 0..USER_END)
    }

    fn new_space(
        &mut self,
        pool: Ref<Pool>,
        pager: Option<PagerRef>,
        native: Range<u64>,
    ) -> Result<Ref<Space>, Error> {
        let id = self.next_space_id;
        let space = Space {
            id,
            pool,
            root: None,
            remains: None,
            pager,
            active: CpuSet::EMPTY,
            native,
            holds: 1,
            next_unheld: None,
        };
        let space = self.create(pool, space)?;
        match self.take(pool, FrameKind::Table, Content::Zero) {
            Ok(root) => {
                self.copy_kernel_half(root);
                self.get_mut(space).root = Some(root);
                self.next_space_id += 1;
                Ok(space)
            }
            Err(error) => {
                self.destroy(space);
                Err(error)
            }
        }
    }

    /// The kernel's entries are fixed at boot and the same in every root.
    fn copy_kernel_half(&mut self, root: Frame) {
        let from = self.machine.kernel_root();
        for line in Bits(self.kernel_lines) {
            copy_line(&self.machine, from, root, line);
        }
        self.record_mut(root).lines = self.kernel_lines;
    }

    /// Which lines of the kernel's root have entries; looked at once, at boot.
    pub(super) fn find_kernel_lines(&mut self) {
        let root = table(&self.machine, self.machine.kernel_root());
        let used = |index: &usize| root[*index].load(Ordering::Relaxed) != 0;
        let half = ENTRIES / 2..ENTRIES;
        self.kernel_lines = half
            .filter(used)
            .fold(0, |lines, index| lines | 1 << (index / 8));
    }

    /// Makes a copy-on-write copy of `source` with one hold, the caller's, and
    /// the same pager. `pool` pays for it and for what it comes to own. Costs
    /// the same whatever is mapped. The page at `apart`, if it is the source's
    /// alone, is copied at once, so that neither side faults when it writes there.
    ///
    /// # Errors
    ///
    /// `NoMemory` if the pool cannot pay, `Gone` if the pool or the source has
    /// ended, `Exhausted` if a count is at its highest value.
    pub fn space_snapshot(
        &mut self,
        source: Ref<Space>,
        pool: Ref<Pool>,
        apart: Option<u64>,
    ) -> Result<Ref<Space>, Error> {
        let from = self.get(source);
        let from_root = from.root.ok_or(Error::Gone)?;
        let (pager, native, active) = (from.pager, from.native.clone(), from.active);
        let copy = self.new_space(pool, pager, native)?;
        let root = self.get(copy).root.expect("it was just made");
        let copied = match apart.filter(|address| *address < USER_END) {
            Some(address) => self.copy_entries_apart(from_root, root, address, pool),
            None => {
                let lines = self.record(from_root).lines & USER_LINES;
                self.copy_entries(from_root, root, lines)
            }
        };
        match copied {
            Ok(masked) => {
                // Before this call returns, no CPU may write through what it
                // remembers from before the masking.
                if masked && !active.is_empty() {
                    self.statistics.full_flushes += 1;
                    self.machine.flush_all(active);
                }
                Ok(copy)
            }
            Err(error) => {
                while self.space_end_step(copy) != Progress::Done {}
                self.space_release(copy);
                Err(error)
            }
        }
    }

    /// Sets the addresses from which system calls are native.
    pub fn space_set_native_range(&mut self, space: Ref<Space>, native: Range<u64>) {
        self.get_mut(space).native = native;
    }

    /// Sets who is asked for pages that nothing is known about.
    pub fn space_set_pager(&mut self, space: Ref<Space>, pager: Option<PagerRef>) {
        self.get_mut(space).pager = pager;
    }

    /// The space that is loaded on `cpu`.
    #[inline]
    pub fn space_on(&self, cpu: usize) -> Option<Ref<Space>> {
        self.loaded[cpu]
    }

    /// Loads `space` on this CPU, if it is not loaded there already.
    ///
    /// # Errors
    ///
    /// `Gone` if the space has ended; what was loaded before still is.
    #[inline]
    pub fn space_load(&mut self, space: Ref<Space>) -> Result<(), Error> {
        let loadable = self.space_loadable(space).ok_or(Error::Gone)?;
        self.load(loadable);
        Ok(())
    }

    /// A space that can be loaded; `None` if it has ended.
    #[inline(always)]
    pub fn space_loadable(&self, space: Ref<Space>) -> Option<Loadable> {
        let root = self.get(space).root?;
        Some(Loadable { space, root })
    }

    /// Loads a space on this CPU, if it is not loaded there already. Nothing has ended since it was
    /// found loadable.
    #[inline(always)]
    pub fn load(&mut self, Loadable { space, root }: Loadable) {
        let cpu = self.machine.cpu();
        if self.loaded[cpu] == Some(space) {
            return;
        }
        self.get_mut(space).active.insert(cpu);
        if let Some(old) = self.loaded[cpu].replace(space) {
            self.get_mut(old).active.remove(cpu);
        }
        self.statistics.root_loads += 1;
        self.machine.load_root(root);
    }

    /// Loads the kernel's own root on this CPU, so that it is in no space.
    pub fn space_unload(&mut self) {
        let cpu = self.machine.cpu();
        if let Some(old) = self.loaded[cpu].take() {
            self.get_mut(old).active.remove(cpu);
            self.statistics.root_loads += 1;
            let root = self.machine.kernel_root();
            self.machine.load_root(root);
        }
    }

    /// One more hold on the space.
    ///
    /// # Errors
    ///
    /// `Exhausted` if there are 2^32 - 1 holds.
    pub fn space_hold(&mut self, space: Ref<Space>) -> Result<(), Error> {
        let holds = &mut self.get_mut(space).holds;
        *holds = holds.checked_add(1).ok_or(Error::Exhausted)?;
        Ok(())
    }

    /// Gives a hold back. With the last one, a space that has ended is
    /// forgotten; one that has not waits for somebody to end it, see
    /// [`Memory::unheld_space`].
    pub fn space_release(&mut self, space: Ref<Space>) {
        let unheld = self.unheld;
        let here = self.get_mut(space);
        here.holds -= 1;
        if here.holds > 0 {
            return;
        }
        if here.is_shell() {
            self.destroy(space);
        } else {
            here.next_unheld = unheld;
            self.unheld = Some(space);
        }
    }

    /// A space that nobody holds and that has not been ended: the last hold can
    /// go with a window in the middle of unmapping something. It is to be ended
    /// step by step and then handed to [`Memory::space_forget`].
    #[inline]
    pub fn unheld_space(&self) -> Option<Ref<Space>> {
        self.unheld
    }

    /// Forgets the space that [`Memory::unheld_space`] named, which has ended.
    pub fn space_forget(&mut self, space: Ref<Space>) {
        let here = self.get(space);
        debug_assert!(here.is_shell() && here.holds == 0);
        let next = here.next_unheld;
        // Ending it can have left others unheld, which stand before it.
        if self.unheld == Some(space) {
            self.unheld = next;
        } else {
            let mut at = self.unheld;
            while let Some(other) = at {
                at = self.get(other).next_unheld;
                if at == Some(space) {
                    self.get_mut(other).next_unheld = next;
                    break;
                }
            }
        }
        self.destroy(space);
    }

    /// How many holds there are on the space.
    pub fn space_holds(&self, space: Ref<Space>) -> u32 {
        self.get(space).holds
    }

    /// Ends a space, a step at a time: call until `Done` (the address in `More`
    /// means nothing here). It is taken off every CPU by the first step; what it
    /// alone reaches is given back. Ending an ended space is `Done` at once.
    pub fn space_end_step(&mut self, space: Ref<Space>) -> Progress {
        let here = self.get_mut(space);
        here.remains = here.root.take().or(here.remains);
        let active = core::mem::replace(&mut here.active, CpuSet::EMPTY);
        let Some(root) = here.remains else {
            return Progress::Done;
        };
        if !active.is_empty() {
            for cpu in active.iter() {
                self.loaded[cpu] = None;
            }
            self.statistics.root_loads += active.0.count_ones() as u64;
            let kernel_root = self.machine.kernel_root();
            self.machine.load_root_on(active, kernel_root);
        }
        let mut budget = STEP_LINES;
        let emptied = self.clear_table(root, USER_LINES, &mut budget);
        if emptied {
            self.get_mut(space).remains = None;
            self.clear_kernel_half(root);
            self.drop_table(root);
        }
        // No CPU has the space loaded, so none remembers what went away.
        self.free_pending();
        if emptied {
            Progress::Done
        } else {
            Progress::More(0)
        }
    }

    fn clear_kernel_half(&mut self, root: Frame) {
        for line in Bits(self.kernel_lines) {
            clear_line(&self.machine, root, line);
        }
        self.record_mut(root).lines = 0;
    }
}

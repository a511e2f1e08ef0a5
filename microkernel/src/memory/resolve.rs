//! Finding the frame behind a user address, as a page fault does.
//!
//! [`Memory::resolve`] is the one way from a user address to memory: the fault
//! handler calls it and lets the thread try again, and the kernel calls it
//! before it touches user memory, which it does through the direct map only.
//! What it can settle it settles, at the cost of the space's pool: zeros on
//! first touch, a copy where owners part, a link.

use super::entry::{Entry, Kind};
use super::frame::{Content, Frame, FrameKind};
use super::store::Ref;
use super::tree::Place;
use super::{Error, Memory, PAGE_SIZE, PagerRef, Space};
use crate::machine::Machine;
use libipc::abi::Protection;
use libipc::abi::USER_END;

/// What an address is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// Loading.
    Read,
    /// Fetching instructions.
    Execute,
    /// Storing.
    Write,
    /// A debugger's store into a page that need not permit it: a private page
    /// is parted from its other owners first, a shared one is refused.
    ForcedPrivateWrite,
}

/// Why an address could not be resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// `pager` has to be asked for the page at `address` of `space`, which is
    /// the faulting one or the source of a window that it maps.
    Pager {
        /// Whom to ask.
        pager: PagerRef,
        /// The space that lacks the page.
        space: Ref<Space>,
        /// The page's address there.
        address: u64,
    },
    /// Nothing is mapped there, and there is no pager to ask.
    Missing,
    /// What is mapped there does not permit the access, or cannot be had any
    /// more because its window or the window's source has ended.
    Denied,
    /// The pool that should pay is at its limit.
    NoMemory,
}

impl From<Error> for Fault {
    fn from(_: Error) -> Fault {
        // What unsharing and filling can be refused for is a lack of frames or,
        // far beyond what RAM can hold, of counts.
        Fault::NoMemory
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        match fault {
            Fault::Pager { .. } | Fault::Missing | Fault::Denied => Error::BadAddress,
            Fault::NoMemory => Error::NoMemory,
        }
    }
}

impl<M: Machine> Memory<M> {
    /// The frame behind `address`, ready for what is intended. It stays valid
    /// until the next change of any space, under the kernel lock.
    ///
    /// # Errors
    ///
    /// What the thread that wanted the address has to be faulted with.
    #[inline]
    pub fn resolve(
        &mut self,
        space: Ref<Space>,
        address: u64,
        intent: Intent,
    ) -> Result<Frame, Fault> {
        match self.ready(space, address, intent) {
            Some(entry) => Ok(entry.frame()),
            None => self.make_ready(space, address, intent),
        }
    }

    /// The entry of `address`, if nothing has to be done for what is intended: this only looks.
    #[inline]
    pub(super) fn ready(&self, space: Ref<Space>, address: u64, intent: Intent) -> Option<Entry> {
        let root = self.get(space).root()?;
        if address >= USER_END {
            return None;
        }
        let (place, owned) = self.walk_owned(root, address);
        let ready = place.entry.is_present()
            && match intent {
                Intent::Read => true,
                Intent::Write => owned && place.entry.is_writable(),
                Intent::Execute | Intent::ForcedPrivateWrite => false,
            };
        ready.then_some(place.entry)
    }

    /// A thread of the space faulted at `address`, and may try again after this.
    ///
    /// # Errors
    ///
    /// What the thread has to be faulted with.
    #[inline]
    pub fn page_fault(
        &mut self,
        space: Ref<Space>,
        address: u64,
        intent: Intent,
    ) -> Result<(), Fault> {
        if self.settle_at_once(space, address, intent).is_some() {
            return Ok(());
        }
        self.make_ready(space, address, intent).map(drop)
    }

    /// What nearly every page fault wants, where a lowest table says what the page is: zeros that
    /// get a frame, a page that parts from its other owners, a page of a window. `None` says that
    /// it is something else; nothing has changed then that anybody could tell.
    #[inline]
    fn settle_at_once(&mut self, space: Ref<Space>, address: u64, intent: Intent) -> Option<()> {
        let root = self.get(space).root()?;
        if address >= USER_END {
            return None;
        }
        let (place, needed) = match intent {
            Intent::Read => (self.walk(root, address), Protection::READ),
            Intent::Write => (self.own_path(space, root, address).ok()?, Protection::WRITE),
            Intent::Execute | Intent::ForcedPrivateWrite => return None,
        };
        if place.level > 1 {
            return None;
        }
        let settled = if place.entry.is_zero(needed) {
            self.fill_zero(space, place)
        } else if place.entry.is_private(Protection::WRITE) && intent == Intent::Write {
            self.part(space, place, address, intent)
        } else if place.entry.is_permitting_link(needed) {
            let settled = self.settle(space, place, address, intent, 0);
            return settled.is_ok().then_some(());
        } else {
            return None;
        };
        settled.ok().map(drop)
    }

    /// As [`Memory::resolve`], where something has to be done.
    #[inline(never)]
    fn make_ready(
        &mut self,
        space: Ref<Space>,
        address: u64,
        intent: Intent,
    ) -> Result<Frame, Fault> {
        if address >= USER_END {
            return Err(Fault::Denied);
        }
        let address = address & !(PAGE_SIZE - 1);
        let needed = match intent {
            Intent::Read => Protection::READ,
            Intent::Execute => Protection::EXECUTE,
            Intent::Write => Protection::WRITE,
            Intent::ForcedPrivateWrite => Protection::empty(),
        };
        let changes = matches!(intent, Intent::Write | Intent::ForcedPrivateWrite);
        loop {
            let root = self.get(space).root().ok_or(Fault::Denied)?;
            let place = if changes {
                self.own_path(space, root, address)?
            } else {
                self.walk(root, address)
            };
            let entry = place.entry;
            if !entry.protection().contains(needed) || entry.is_absent() {
                return Err(match entry.is_absent() {
                    true => self.missing(space, address, None),
                    false => Fault::Denied,
                });
            }
            match entry.kind() {
                Kind::Private if changes => return self.part(space, place, address, intent),
                Kind::Shared | Kind::Pinned if intent == Intent::ForcedPrivateWrite => {
                    return Err(Fault::Denied);
                }
                Kind::Private | Kind::Shared | Kind::Pinned => return Ok(entry.frame()),
                Kind::Zero if place.level == 1 => return self.fill_zero(space, place),
                Kind::Link if place.level == 1 => self.settle(space, place, address, intent, 0)?,
                _ => {
                    self.split(space, place)?;
                }
            }
        }
    }

    /// Gives the private zero page at `place` a frame. The table may be shared:
    /// then all its owners see the same new page, as they saw the same zeros.
    #[inline(always)]
    fn fill_zero(&mut self, space: Ref<Space>, place: Place) -> Result<Frame, Fault> {
        let pool = self.get(space).pool();
        let frame = self.take(pool, FrameKind::Data, Content::Zero)?;
        self.statistics.zero_fills += 1;
        // The entry is the frame's only one; if its table is shared, masking
        // above keeps writes off.
        let entry = Entry::page(Kind::Private, frame, place.entry).unmasked();
        self.set_entry(place.table, place.index, entry);
        Ok(frame)
    }

    /// [`Memory::part`] for callers that are not in a hurry.
    #[inline(never)]
    pub(super) fn own_page(
        &mut self,
        space: Ref<Space>,
        place: Place,
        address: u64,
        intent: Intent,
    ) -> Result<Frame, Fault> {
        self.part(space, place, address, intent)
    }

    /// Makes the space the only owner of the private page at `place`, whose path
    /// is its own already.
    #[inline(always)]
    fn part(
        &mut self,
        space: Ref<Space>,
        place: Place,
        address: u64,
        intent: Intent,
    ) -> Result<Frame, Fault> {
        let entry = place.entry;
        let old = entry.frame();
        if entry.is_writable() {
            return Ok(old);
        }
        let pool = self.get(space).pool();
        let owned = |entry: Entry| match intent {
            Intent::ForcedPrivateWrite => entry,
            _ => entry.unmasked(),
        };
        let record = self.record(old);
        if record.count() == 1 && record.kind() != FrameKind::Foreign {
            self.recharge(old, pool)?;
            self.statistics.take_backs += 1;
            self.replace_entry(place.table, place.index, owned(entry));
            return Ok(old);
        }
        // The same four steps as for a table: fill, publish, flush, drop.
        let new = self.take(pool, FrameKind::Data, Content::Any)?;
        self.machine.copy_frame(old, new);
        self.statistics.page_copies += 1;
        let entry = owned(Entry::page(Kind::Private, new, entry));
        self.replace_entry(place.table, place.index, entry);
        self.flush_page(space, address);
        self.drop_page(old);
        Ok(new)
    }

    /// Nothing is known about `address` of `space`: whom to ask?
    #[cold]
    pub(super) fn missing(
        &self,
        space: Ref<Space>,
        address: u64,
        pager: Option<PagerRef>,
    ) -> Fault {
        match pager.or(self.get(space).pager()) {
            Some(pager) => Fault::Pager {
                pager,
                space,
                address,
            },
            None => Fault::Missing,
        }
    }
}

//! From a handle to an object.
//!
//! The one place where handles, generations, kinds and access masks are checked.

use super::Kernel;
use crate::cap::{Cap, CapTable, Node, Slot};
use crate::machine::Machine;
use crate::memory::{Object, Ref, Space};
use crate::object::Thread;
use core::num::NonZeroU64;
use libipc::abi::{Access, Error, Handle, Kind, SlotFlags, TableSelector};

/// What a handle names.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The table that it is in.
    pub table: Ref<CapTable>,
    /// The slot's number.
    pub index: u32,
    /// The grant.
    pub node: Ref<Node>,
    /// The object's kind.
    pub kind: Kind,
    /// The object's address bits.
    pub object: u64,
    /// The grant's badge.
    pub badge: u64,
    /// The slot's access mask.
    pub access: u32,
    /// The slot's marks.
    pub flags: SlotFlags,
    /// Which use of the slot it is.
    pub generation: u32,
}

/// What stands for a space or a table: it itself, or a thread that lives in it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HomeOf {
    /// A thread that the caller may direct.
    Thread(Ref<Thread>),
    /// Something else, of whatever kind.
    Itself(Found),
}

impl Found {
    /// The slot.
    pub fn slot(&self) -> Slot {
        Slot {
            node: self.node,
            access: self.access,
            flags: self.flags,
            generation: self.generation,
        }
    }

    /// The object, if it is of this kind and the slot gives these rights.
    #[inline]
    pub fn object<T: Object>(&self, kind: Kind, needed: Access) -> Result<Ref<T>, Error> {
        if self.kind != kind {
            return Err(Error::WrongKind);
        }
        if self.access & needed.bits() != needed.bits() {
            return Err(Error::AccessDenied);
        }
        Ref::from_bits(self.object).ok_or(Error::WrongKind)
    }
}

/// The bits of an object, or why there are none: a result in two registers.
struct Named {
    object: Option<NonZeroU64>,
    error: Error,
}

impl Named {
    fn none(error: Error) -> Named {
        Named {
            object: None,
            error,
        }
    }
}

impl<M: Machine> Kernel<M> {
    /// What a handle of a thread names.
    #[inline(never)]
    pub(crate) fn find_in(&self, thread: Ref<Thread>, handle: Handle) -> Result<Found, Error> {
        self.found_in(thread, handle).ok_or(Error::BadHandle)
    }

    #[inline(always)]
    fn found_in(&self, thread: Ref<Thread>, handle: Handle) -> Option<Found> {
        let (table, slot) = self.look_up(thread, handle)?;
        let node = self.memory.get(slot.node);
        Some(Found {
            table,
            index: handle.index(),
            node: slot.node,
            kind: node.kind()?,
            object: self.object_of(node, thread),
            badge: node.badge(),
            access: slot.access,
            flags: slot.flags,
            generation: slot.generation,
        })
    }

    /// The slot that a handle of a thread names, and its table. The grant may have been revoked.
    #[inline(always)]
    pub(crate) fn look_up(
        &self,
        thread: Ref<Thread>,
        handle: Handle,
    ) -> Option<(Ref<CapTable>, Slot)> {
        let table = self.memory.get(thread).tables[handle.table_bits()]?;
        let slot = self.memory.table_get(table, handle.index())?;
        if slot.generation != handle.generation_bits() {
            let any_generation = handle.generation_bits() == 0
                && handle.table_bits() != TableSelector::Private as usize;
            if !any_generation {
                return None;
            }
        }
        Some((table, slot))
    }

    /// What a handle of the caller names.
    pub(crate) fn find(&self, handle: Handle) -> Result<Found, Error> {
        self.find_in(self.caller(), handle)
    }

    /// The same where it is done often: only what is used of it is looked up.
    #[inline(always)]
    pub(crate) fn find_here(&self, handle: Handle) -> Result<Found, Error> {
        self.found_in(self.caller(), handle).ok_or(Error::BadHandle)
    }

    /// Address bits of what a grant stands for when a thread uses it.
    #[inline(always)]
    fn object_of(&self, node: &Node, thread: Ref<Thread>) -> u64 {
        match node.is_own_space() {
            true => self.memory.get(thread).space.map_or(0, Ref::to_bits),
            false => node.object(),
        }
    }

    /// The object that a handle of the caller names.
    #[inline]
    pub(crate) fn object<T: Object>(
        &self,
        handle: Handle,
        kind: Kind,
        needed: Access,
    ) -> Result<Ref<T>, Error> {
        self.object_in(self.caller(), handle, kind, needed)
    }

    /// The object that a handle of a thread names.
    #[inline]
    pub(crate) fn object_in<T: Object>(
        &self,
        thread: Ref<Thread>,
        handle: Handle,
        kind: Kind,
        needed: Access,
    ) -> Result<Ref<T>, Error> {
        let Named { object, error } = self.object_bits(thread, handle, kind, needed.bits());
        object.map(Ref::from_nonzero).ok_or(error)
    }

    /// The same for all kinds: what most calls do first. The usual case is a function without calls.
    #[inline(never)]
    fn object_bits(&self, thread: Ref<Thread>, handle: Handle, kind: Kind, needed: u32) -> Named {
        let table = self.memory.get(thread).tables[handle.table_bits()];
        if let Some(table) = table
            && let Some(slot) = self.memory.table_get_first(table, handle.index())
            && slot.generation == handle.generation_bits()
        {
            return self.named(thread, slot, kind, needed);
        }
        self.object_bits_elsewhere(thread, handle, kind, needed)
    }

    #[cold]
    fn object_bits_elsewhere(
        &self,
        thread: Ref<Thread>,
        handle: Handle,
        kind: Kind,
        needed: u32,
    ) -> Named {
        match self.look_up(thread, handle) {
            Some((_, slot)) => self.named(thread, slot, kind, needed),
            None => Named::none(Error::BadHandle),
        }
    }

    /// The object that a slot names, if it is of this kind and the slot gives these rights.
    #[inline(always)]
    fn named(&self, thread: Ref<Thread>, slot: Slot, kind: Kind, needed: u32) -> Named {
        let node = self.memory.get(slot.node);
        if node.kind() != Some(kind) {
            return Named::none(match node.is_alive() {
                true => Error::WrongKind,
                false => Error::BadHandle,
            });
        }
        if slot.access & needed != needed {
            return Named::none(Error::AccessDenied);
        }
        Named {
            object: NonZeroU64::new(self.object_of(node, thread)),
            error: Error::WrongKind,
        }
    }

    /// What a space or table argument names.
    pub(crate) fn home(&self, handle: Handle) -> Result<HomeOf, Error> {
        match self.object(handle, Kind::Thread, Access::CONTROL | Access::REGISTERS) {
            Ok(thread) => Ok(HomeOf::Thread(thread)),
            Err(Error::WrongKind) => Ok(HomeOf::Itself(self.find(handle)?)),
            Err(error) => Err(error),
        }
    }

    /// A table argument: a capability, a thread (its files table), or one of the caller's own.
    pub(crate) fn table(&self, handle: Handle, needed: Access) -> Result<Ref<CapTable>, Error> {
        if handle.is_own_table() {
            let selector = handle.table().ok_or(Error::BadHandle)?;
            return self.home_table(HomeOf::Thread(self.caller()), selector, needed);
        }
        self.home_table(self.home(handle)?, TableSelector::Files, needed)
    }

    /// A table that has not ended, where a thread stands for that one of its tables.
    pub(crate) fn home_table(
        &self,
        home: HomeOf,
        selector: TableSelector,
        needed: Access,
    ) -> Result<Ref<CapTable>, Error> {
        let table = match home {
            // One that has ended lives in nothing.
            HomeOf::Thread(thread) => {
                let table = self.memory.get(thread).table(selector);
                table.ok_or(Error::Gone)?
            }
            HomeOf::Itself(found) => found.object(Kind::Table, needed)?,
        };
        if self.memory.get(table).has_ended() {
            return Err(Error::Gone);
        }
        Ok(table)
    }

    /// A space argument that has not ended: a capability, or a thread (the space that it runs in).
    pub(crate) fn space(&self, handle: Handle, needed: Access) -> Result<Ref<Space>, Error> {
        match self.object::<Space>(handle, Kind::Space, needed) {
            Ok(space) if self.memory.get(space).has_ended() => Err(Error::Gone),
            // Perhaps a thread.
            Err(Error::WrongKind) => Ok(self.home_space(self.home(handle)?, needed)?.0),
            space => space,
        }
    }

    /// The same, and all that the caller may do with it.
    pub(crate) fn home_space(
        &self,
        home: HomeOf,
        needed: Access,
    ) -> Result<(Ref<Space>, u32), Error> {
        let (space, access) = match home {
            HomeOf::Thread(thread) => {
                let thread = self.memory.get(thread);
                (thread.space.ok_or(Error::Gone)?, thread.space_access)
            }
            HomeOf::Itself(found) => (found.object(Kind::Space, Access::empty())?, found.access),
        };
        if access & needed.bits() != needed.bits() {
            return Err(Error::AccessDenied);
        }
        if self.memory.get(space).has_ended() {
            return Err(Error::Gone);
        }
        Ok((space, access))
    }

    /// An optional sender, as the kernel keeps it: one more slot of its node counts.
    pub(crate) fn hold_sender(&mut self, handle: Handle) -> Result<Option<Cap>, Error> {
        if !handle.is_some() {
            return Ok(None);
        }
        let found = self.find(handle)?;
        if found.kind != Kind::Sender {
            return Err(Error::WrongKind);
        }
        self.memory.node_hold(found.node)?;
        Ok(Some(Cap {
            node: found.node,
            access: found.access,
        }))
    }

    /// Gives back what the kernel kept.
    pub(crate) fn release_cap(&mut self, cap: Option<Cap>) {
        if let Some(Cap { node, .. }) = cap {
            self.release_node(node);
        }
    }

    /// One slot less names a node. What that ends goes later: this is part of other ends, which
    /// [`drop_slot`](Self::drop_slot) would nest in each other.
    pub(crate) fn release_node(&mut self, node: Ref<Node>) {
        self.memory.node_release(node, &mut self.garbage.nodes);
        if !self.garbage.is_empty() {
            self.note_garbage();
        }
    }

    /// Puts a capability into the caller's private table. The node is new and has no slot yet;
    /// it goes, with its object, if there is no room.
    pub(crate) fn give(&mut self, node: Ref<Node>, access: u32) -> Result<Handle, Error> {
        match self.give_slot(node, access) {
            Ok(handle) => Ok(handle),
            Err(error) => {
                let entry = self.memory.get(node);
                let (kind, object) = (entry.kind(), entry.object());
                self.memory.node_discard(node);
                self.note_garbage();
                self.drop_object(kind.expect("a new node"), object);
                Err(error)
            }
        }
    }

    fn give_slot(&mut self, node: Ref<Node>, access: u32) -> Result<Handle, Error> {
        let table = self.table(Handle::OWN_PRIVATE, Access::PUT)?;
        let name = self
            .memory
            .table_put(table, 0, node, access, SlotFlags::empty())?;
        Ok(name.handle(TableSelector::Private))
    }
}

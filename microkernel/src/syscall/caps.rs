//! Tables and capabilities.

use super::slot_number;
use crate::cap::Slot;
use crate::cap::table::Next;
use crate::kernel::{Kernel, Stop};
use crate::machine::Machine;
use crate::memory::Ref;
use libipc::abi::{Access, Error, Handle, Kind, SlotFlags, TableSelector};

impl<M: Machine> Kernel<M> {
    pub(super) fn table_create(&mut self, pool: Handle) -> Result<Handle, Stop> {
        let pool = self.payer(pool)?;
        let table = self.memory.table_create(pool)?;
        self.give_new(pool, Kind::Table, table)
    }

    pub(super) fn table_copy(&mut self, table: Handle, pool: Handle) -> Result<Handle, Stop> {
        let table = self.table(table, Access::USE_TABLE)?;
        let pool = self.payer(pool)?;
        let copy = self.memory.table_copy(table, pool)?;
        self.give_new(pool, Kind::Table, copy)
    }

    pub(super) fn table_retain(
        &mut self,
        table: Handle,
        mask: SlotFlags,
        value: SlotFlags,
    ) -> Result<(), Stop> {
        let table = self.table(table, Access::PUT)?;
        let from = self.mark().unwrap_or(0) as u32;
        self.note_garbage();
        let reached =
            self.memory
                .table_retain(table, from, mask, value, &mut self.garbage.nodes)?;
        match reached {
            None => Ok(()),
            Some(index) => Err(self.again(index as u64)),
        }
    }

    pub(super) fn table_next(&mut self, table: Handle, index: u64) -> Result<(u64, u64), Stop> {
        let table = self.table(table, Access::TAKE)?;
        let from = slot_number(self.mark().unwrap_or(index))?;
        match self.memory.table_next(table, from) {
            Next::None => Ok((u64::MAX, 0)),
            Next::Used(index, slot) => Ok((index as u64, self.describe(&slot).0)),
            Next::LookOn(index) => Err(self.again(index as u64)),
        }
    }

    pub(super) fn table_take(&mut self, table: Handle, index: u64) -> Result<Handle, Stop> {
        let table = self.table(table, Access::TAKE)?;
        let slot = self.memory.table_get(table, slot_number(index)?);
        let slot = slot.ok_or(Error::BadHandle)?;
        if !self.memory.get(slot.node).is_alive() {
            return Err(Error::BadHandle.into());
        }
        let own = self.table(Handle::OWN_PRIVATE, Access::PUT)?;
        let name = self
            .memory
            .table_put(own, 0, slot.node, slot.access, slot.flags)?;
        Ok(name.handle(TableSelector::Private))
    }

    pub(super) fn table_close(&mut self, table: Handle, index: u64) -> Result<(), Stop> {
        let table = self.table(table, Access::PUT)?;
        let index = slot_number(index)?;
        let slot = self.memory.table_get(table, index);
        let slot = slot.ok_or(Error::BadHandle)?;
        self.close(table, index, &slot)
    }

    /// Closes a slot, unless it is marked as protected.
    #[inline(always)]
    pub(super) fn close(
        &mut self,
        table: Ref<crate::cap::CapTable>,
        index: u32,
        slot: &Slot,
    ) -> Result<(), Stop> {
        if slot.flags.contains(SlotFlags::PROTECT) {
            return Err(Error::AccessDenied.into());
        }
        self.memory.table_free(table, index, slot)?;
        self.drop_slot(slot.node);
        Ok(())
    }

    pub(super) fn cap_copy(
        &mut self,
        source: Handle,
        table: Handle,
        index: u64,
        access: Access,
        flags: SlotFlags,
    ) -> Result<u64, Stop> {
        let found = self.find(source)?;
        let table = self.table(table, Access::PUT)?;
        let index = slot_number(index)?;
        let access = found.access & access.bits();
        let name = self
            .memory
            .table_put(table, index, found.node, access, flags)?;
        Ok(name.to_word())
    }

    pub(super) fn cap_replace(
        &mut self,
        source: Handle,
        table: Handle,
        index: u64,
        access: Access,
        flags: SlotFlags,
    ) -> Result<u64, Stop> {
        let found = self.find(source)?;
        let table = self.table(table, Access::PUT)?;
        let index = slot_number(index)?;
        let there = self.memory.table_get(table, index);
        if there.is_some_and(|slot| slot.flags.contains(SlotFlags::PROTECT)) {
            return Err(Error::AccessDenied.into());
        }
        let access = found.access & access.bits();
        let (name, replaced) = self
            .memory
            .table_replace(table, index, found.node, access, flags)?;
        if let Some(node) = replaced {
            self.drop_slot(node);
        }
        Ok(name.to_word())
    }

    pub(super) fn cap_derive(
        &mut self,
        source: Handle,
        pool: Handle,
        badge: u64,
        access: Access,
    ) -> Result<Handle, Stop> {
        let found = self.find(source)?;
        let pool = self.payer(pool)?;
        let (kind, badge, access) = match found.kind {
            Kind::Receiver => {
                found.object::<crate::object::Endpoint>(Kind::Receiver, Access::USE)?;
                (Kind::Sender, badge, access.bits())
            }
            _ if badge != 0 => return Err(Error::InvalidArgument.into()),
            kind => (kind, found.badge, found.access & access.bits()),
        };
        self.hold_object(found.kind, found.object)?;
        let node = self
            .memory
            .node_derive(found.node, pool, kind, found.object, badge);
        match node {
            Ok(node) => Ok(self.give(node, access)?),
            Err(error) => {
                // The source still holds the object, so this is not the last reference.
                self.drop_object(kind, found.object);
                Err(error.into())
            }
        }
    }

    pub(super) fn cap_close(&mut self, handle: Handle) -> Result<(), Stop> {
        // A revoked capability can be closed, so the node does not count here.
        let found = self.look_up(self.caller(), handle);
        let (table, slot) = found.ok_or(Error::BadHandle)?;
        self.close(table, handle.index(), &slot)
    }

    pub(super) fn cap_revoke(&mut self, handle: Handle) -> Result<(), Stop> {
        let found = self.find(handle)?;
        // A sender's rights are its server's.
        let access = Access::from_bits_retain(found.access);
        if found.kind != Kind::Sender && !access.contains(Access::REVOKE) {
            return Err(Error::AccessDenied.into());
        }
        self.note_garbage();
        self.memory.node_revoke(found.node, &mut self.garbage.nodes);
        Ok(())
    }

    pub(super) fn cap_info(&mut self, handle: Handle) -> Result<(u64, u64), Stop> {
        let found = self.find(handle)?;
        let slot = self.memory.table_get(found.table, found.index);
        Ok(self.describe(&slot.ok_or(Error::BadHandle)?))
    }

    /// Kind, flags and access of a slot, and its badge. A revoked one has kind 0.
    fn describe(&self, slot: &Slot) -> (u64, u64) {
        let node = self.memory.get(slot.node);
        let (kind, badge) = match node.kind() {
            Some(kind) => (kind as u64, node.badge()),
            None => (0, 0),
        };
        let word = kind | (slot.flags.bits() as u64) << 8 | (slot.access as u64) << 32;
        (word, badge)
    }

    pub(super) fn cap_set_flags(
        &mut self,
        handle: Handle,
        mask: SlotFlags,
        value: SlotFlags,
    ) -> Result<(), Stop> {
        let found = self.find(handle)?;
        self.memory
            .table_set_flags(found.table, found.index, mask, value)?;
        Ok(())
    }
}

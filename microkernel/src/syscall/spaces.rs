//! Pools, address spaces and windows.

use super::truth;
use crate::kernel::fault::{node_of_pager, pager_ref};
use crate::kernel::{Kernel, Side, Stop};
use crate::machine::Machine;
use crate::memory::{
    Fault, FaultAt, Intent, Pool, Progress, Ref, SPAN_BYTES, Space, WindowMode, WindowPart,
};
use libipc::abi::{Access, Error, Handle, Kind, PAGE_BYTES, Protection};

impl<M: Machine> Kernel<M> {
    pub(super) fn pool_create(&mut self, parent: Handle, limit_pages: u64) -> Result<Handle, Stop> {
        let (parent, rights) = self.payer_and_rights(parent)?;
        let pool = self.memory.pool_create(parent, limit_pages)?;
        self.memory.pool_hold(pool)?;
        self.give_new_with(parent, Kind::Pool, pool, rights)
    }

    pub(super) fn pool_status(&mut self, pool: Handle) -> Result<(u64, u64), Stop> {
        let pool: Ref<Pool> = self.object(pool, Kind::Pool, Access::STATUS)?;
        let status = self.memory.pool_status(pool);
        Ok((status.limit, status.used))
    }

    pub(super) fn pool_set_limit(&mut self, pool: Handle, limit_pages: u64) -> Result<(), Stop> {
        let pool: Ref<Pool> = self.object(pool, Kind::Pool, Access::MANAGE_POOL)?;
        if self.memory.pool_status(pool).used > limit_pages {
            return Err(Error::NoMemory.into());
        }
        self.memory.pool_set_limit(pool, limit_pages)?;
        Ok(())
    }

    pub(super) fn pool_destroy(&mut self, pool: Handle) -> Result<(), Stop> {
        let pool: Ref<Pool> = self.object(pool, Kind::Pool, Access::MANAGE_POOL)?;
        self.end_pool(pool)?;
        Ok(())
    }

    pub(super) fn space_create(&mut self, pool: Handle, pager: Handle) -> Result<Handle, Stop> {
        let pool = self.payer(pool)?;
        let pager = self.hold_sender(pager)?;
        let word = pager.as_ref().map(|cap| pager_ref(cap.node));
        match self.memory.space_create(pool, word) {
            Ok(space) => self.give_new(pool, Kind::Space, space),
            Err(error) => {
                self.release_cap(pager);
                Err(error.into())
            }
        }
    }

    pub(super) fn space_snapshot(
        &mut self,
        source: Handle,
        pool: Handle,
        prefault: u64,
    ) -> Result<Handle, Stop> {
        let source = self.space(source, Access::SNAPSHOT)?;
        let pool = self.payer(pool)?;
        let space = self.snapshot(source, pool, prefault)?;
        self.give_new(pool, Kind::Space, space)
    }

    /// A snapshot with one hold, the caller's, and its page at `prefault` (0: none) copied.
    pub(super) fn snapshot(
        &mut self,
        source: Ref<Space>,
        pool: Ref<Pool>,
        prefault: u64,
    ) -> Result<Ref<Space>, Error> {
        let pager = self.memory.get(source).pager().and_then(node_of_pager);
        if let Some(node) = pager {
            self.memory.node_hold(node)?;
        }
        let apart = (prefault != 0).then_some(prefault);
        match self.memory.space_snapshot(source, pool, apart) {
            Ok(space) => {
                if prefault != 0 {
                    // Only to save a fault: one that cannot be settled now comes when it is due.
                    let _ = self.memory.resolve(space, prefault, Intent::Write);
                }
                Ok(space)
            }
            Err(error) => {
                if let Some(node) = pager {
                    self.release_node(node);
                }
                Err(error)
            }
        }
    }

    pub(super) fn space_own(
        &mut self,
        system: Handle,
        pool: Handle,
        access: Access,
    ) -> Result<Handle, Stop> {
        self.check_system(system, Access::OWN_SPACE)?;
        let pool = self.payer(pool)?;
        let node = self.memory.node_create(pool, Kind::Space, 0)?;
        Ok(self.give(node, access.bits())?)
    }

    pub(super) fn space_map(
        &mut self,
        space: Handle,
        address: u64,
        pages: u64,
        protection: Protection,
    ) -> Result<(), Stop> {
        let space = self.space(space, Access::MAP)?;
        self.memory
            .map_anonymous(space, address, pages, protection)?;
        Ok(())
    }

    pub(super) fn space_unmap(
        &mut self,
        space: Handle,
        address: u64,
        pages: u64,
    ) -> Result<(), Stop> {
        let space = self.space(space, Access::MAP)?;
        let (from, left) = self.rest_of_range(address, pages)?;
        let progress = self.memory.unmap(space, from, left)?;
        self.go_on(progress)
    }

    pub(super) fn space_protect(
        &mut self,
        space: Handle,
        address: u64,
        pages: u64,
        protection: Protection,
    ) -> Result<(), Stop> {
        let space = self.space(space, Access::MAP)?;
        let (from, left) = self.rest_of_range(address, pages)?;
        let progress = self.memory.protect(space, from, left, protection)?;
        self.go_on(progress)
    }

    /// What is left of a range, if the call is being made again.
    pub(super) fn rest_of_range(&mut self, address: u64, pages: u64) -> Result<(u64, u64), Error> {
        let Some(from) = self.mark() else {
            return Ok((address, pages));
        };
        let done = from.checked_sub(address).ok_or(Error::InvalidArgument)? / PAGE_BYTES;
        let left = pages.checked_sub(done).ok_or(Error::InvalidArgument)?;
        Ok((from, left))
    }

    /// Ends a call on a range, or has it made again for the rest.
    pub(super) fn go_on(&mut self, progress: Progress) -> Result<(), Stop> {
        match progress {
            Progress::Done => Ok(()),
            Progress::More(reached) => Err(self.again(reached)),
        }
    }

    pub(super) fn window_create(
        &mut self,
        space: Handle,
        pool: Handle,
        address: u64,
        pages: u64,
        access: Access,
    ) -> Result<Handle, Stop> {
        let found = self.find(space)?;
        let space: Ref<Space> = found.object(Kind::Space, Access::MAKE_WINDOW)?;
        let pool = self.payer(pool)?;
        let protection = u8::try_from(access.bits())
            .ok()
            .and_then(Protection::from_bits)
            .ok_or(Error::InvalidArgument)?;
        let window = self
            .memory
            .window_create(space, pool, address, pages, protection, None)?;
        self.memory.window_hold(window)?;
        let access = access | Access::REVOKE;
        self.give_part(found.node, pool, Kind::Window, window, access.bits())
    }

    pub(super) fn window_map(
        &mut self,
        window: Handle,
        offset_pages: u64,
        space: Handle,
        address: u64,
        pages: u64,
        protection: Protection,
        private: u64,
    ) -> Result<(), Stop> {
        let found = self.find(window)?;
        let window = found.object(Kind::Window, Access::READ)?;
        let space = self.space(space, Access::MAP)?;
        let part = WindowPart {
            offset_pages,
            protection,
            limit: Protection::from_bits_truncate(found.access as u8),
            mode: match truth(private)? {
                false => WindowMode::Shared,
                true => WindowMode::PrivateCopy,
            },
        };
        self.memory
            .window_map(window, space, address, pages, part)?;
        Ok(())
    }

    pub(super) fn window_status(
        &mut self,
        window: Handle,
        needed: Access,
    ) -> Result<(u64, u64), Stop> {
        let window = self.object(window, Kind::Window, needed)?;
        let window: &crate::memory::Window = self.memory.get(window);
        Ok((window.pages(), window.id()))
    }

    /// The caller's own space.
    pub(super) fn own_space(&self) -> Ref<Space> {
        let space = self.memory.get(self.caller()).space;
        space.expect("a thread that runs has a space")
    }

    pub(super) fn space_read(
        &mut self,
        space: Handle,
        address: u64,
        into: u64,
        bytes: u64,
    ) -> Result<(), Stop> {
        let space = self.space(space, Access::READ_MEMORY)?;
        let bytes = copy_length(bytes)?;
        let own = self.own_space();
        let target = self
            .memory
            .span(own, into, bytes, Intent::Write)
            .map_err(|at| self.stop_to_fault(at, Side::Write))?;
        let source = self
            .memory
            .span(space, address, bytes, Intent::Read)
            .map_err(far)?;
        self.memory.copy_span(&source, &target);
        Ok(())
    }

    pub(super) fn space_write(
        &mut self,
        space: Handle,
        address: u64,
        from: u64,
        bytes: u64,
        force: u64,
    ) -> Result<(), Stop> {
        let space = self.space(space, Access::WRITE_MEMORY)?;
        let bytes = copy_length(bytes)?;
        let intent = match truth(force)? {
            false => Intent::Write,
            true => Intent::ForcedPrivateWrite,
        };
        let own = self.own_space();
        let target = self
            .memory
            .span(space, address, bytes, intent)
            .map_err(far)?;
        let source = self
            .memory
            .span(own, from, bytes, Intent::Read)
            .map_err(|at| self.stop_to_fault(at, Side::Read))?;
        self.memory.copy_span(&source, &target);
        Ok(())
    }

    pub(super) fn space_copy(
        &mut self,
        from: Handle,
        from_address: u64,
        to: Handle,
        to_address: u64,
        bytes: u64,
    ) -> Result<(), Stop> {
        let from = self.space(from, Access::READ_MEMORY)?;
        let to = self.space(to, Access::WRITE_MEMORY)?;
        let bytes = copy_length(bytes)?;
        let target = self
            .memory
            .span(to, to_address, bytes, Intent::Write)
            .map_err(far)?;
        let source = self
            .memory
            .span(from, from_address, bytes, Intent::Read)
            .map_err(far)?;
        self.memory.copy_span(&source, &target);
        Ok(())
    }

    pub(super) fn space_compare_exchange(
        &mut self,
        space: Handle,
        address: u64,
        expected: u64,
        new: u64,
    ) -> Result<u64, Stop> {
        let space = self.space(space, Access::WRITE_MEMORY)?;
        let was = self
            .memory
            .compare_exchange(space, address, expected, new)
            .map_err(|fault| far(FaultAt { address, fault }))?;
        Ok(was)
    }

    pub(super) fn space_next(&mut self, space: Handle, address: u64) -> Result<(u64, u64), Stop> {
        let space = self.space(space, Access::READ_MEMORY)?;
        Ok(self.memory.next_mapped(space, address).unwrap_or((0, 0)))
    }
}

impl<M: Machine> Kernel<M> {
    /// What to do about one address that could not be resolved.
    pub(super) fn at_address(&mut self, address: u64, fault: Fault, side: Side) -> Stop {
        self.stop_to_fault(FaultAt { address, fault }, side)
    }
}

/// What to do about an address of the space that a call names. Its pager is not asked: it may be the
/// caller itself, and the address means nothing in the caller's own space.
fn far(at: FaultAt) -> Stop {
    Error::from(at.fault).into()
}

/// The length of a copy between spaces.
fn copy_length(bytes: u64) -> Result<usize, Error> {
    if bytes > SPAN_BYTES as u64 {
        return Err(Error::TooLong);
    }
    Ok(bytes as usize)
}

//! Endpoints, replies, notifications, timers and futexes.

use super::truth;
use crate::kernel::{Kernel, Side, Stop};
use crate::machine::Machine;
use crate::memory::{FutexKey, Intent, Ref};
use crate::object::{Endpoint, Notification, Reply, State};
use crate::sched::timers::Owner;
use core::sync::atomic::Ordering;
use libipc::abi::{Access, Error, Handle, Kind, NEVER};

impl<M: Machine> Kernel<M> {
    pub(super) fn endpoint_create(
        &mut self,
        pool: Handle,
        keep_queued: u64,
    ) -> Result<Handle, Stop> {
        let pool = self.payer(pool)?;
        let endpoint = Endpoint::new(truth(keep_queued)?);
        let endpoint = self.memory.create(pool, endpoint)?;
        self.give_new(pool, Kind::Receiver, endpoint)
    }

    pub(super) fn endpoint_bind(
        &mut self,
        receiver: Handle,
        notification: Handle,
    ) -> Result<(), Stop> {
        let endpoint = self.object(receiver, Kind::Receiver, Access::USE)?;
        let notification = self.object(notification, Kind::Notification, Access::WAIT)?;
        self.bind(endpoint, notification)?;
        Ok(())
    }

    pub(super) fn reply_create(&mut self, pool: Handle) -> Result<Handle, Stop> {
        let pool = self.payer(pool)?;
        let reply = self.memory.create(pool, Reply::new())?;
        self.give_new(pool, Kind::Reply, reply)
    }

    pub(super) fn reply_keep(&mut self, reply: Handle) -> Result<(), Stop> {
        let thread = self.caller();
        Ok(self.keep_owed(thread, reply)?)
    }

    pub(super) fn notification_create(
        &mut self,
        pool: Handle,
        sticky: u64,
    ) -> Result<Handle, Stop> {
        let pool = self.payer(pool)?;
        let notification = self.memory.create(pool, Notification::new(sticky))?;
        self.give_new(pool, Kind::Notification, notification)
    }

    pub(super) fn signal(&mut self, notification: Handle, bits: u64) -> Result<(), Stop> {
        match self.short_signal(notification, bits) {
            Some(()) => Ok(()),
            None => self.long_signal(notification, bits),
        }
    }

    pub(super) fn notification_wait(
        &mut self,
        notification: Handle,
        mask: u64,
        consume: u64,
        deadline: u64,
    ) -> Result<u64, Stop> {
        let consume = truth(consume)?;
        if deadline == NEVER && self.short_wait(notification, mask).is_some() {
            return Err(Stop::Done);
        }
        self.long_wait(notification, mask, consume, deadline)
    }

    pub(super) fn notification_clear(
        &mut self,
        notification: Handle,
        bits: u64,
    ) -> Result<u64, Stop> {
        let notification: Ref<Notification> =
            self.object(notification, Kind::Notification, Access::WAIT)?;
        Ok(self.memory.get_mut(notification).clear(bits))
    }

    pub(super) fn timer_set(
        &mut self,
        notification: Handle,
        bits: u64,
        deadline: u64,
    ) -> Result<(), Stop> {
        let notification: Ref<Notification> =
            self.object(notification, Kind::Notification, Access::WAIT)?;
        if self.memory.get(notification).ended {
            return Err(Error::Gone.into());
        }
        let owner = Owner::Notification(notification);
        self.timers.remove(&mut self.memory, owner);
        if deadline != NEVER {
            self.memory.get_mut(notification).timer_bits = bits;
            self.timers.insert(&mut self.memory, owner, deadline);
            self.set_timer(deadline);
        }
        Ok(())
    }

    /// The key of a word of the caller's memory, and its value.
    fn futex(&mut self, address: u64) -> Result<(FutexKey, u64), Stop> {
        if !address.is_multiple_of(4) {
            return Err(Error::InvalidArgument.into());
        }
        let space = self.own_space();
        match self.memory.futex(space, address, Intent::Read) {
            Ok((key, word)) => Ok((key, word.load(Ordering::SeqCst) as u64)),
            Err(fault) => Err(self.at_address(address, fault, Side::Read)),
        }
    }

    pub(super) fn futex_wait(
        &mut self,
        address: u64,
        expected: u64,
        deadline: u64,
    ) -> Result<(), Stop> {
        let (key, word) = self.futex(address)?;
        if word != expected {
            return Err(Error::WouldBlock.into());
        }
        let thread = self.caller();
        self.may_wait(thread, deadline)?;
        self.futexes.enter(&mut self.memory, thread, key);
        self.wait(thread, State::Futex, deadline);
        Err(Stop::Done)
    }

    pub(super) fn futex_wake(&mut self, address: u64, count: u64) -> Result<u64, Stop> {
        let (key, _) = self.futex(address)?;
        Ok(self.wake_futex(key, count))
    }

    pub(super) fn futex_requeue(
        &mut self,
        from: u64,
        to: u64,
        wake: u64,
        move_count: u64,
        expected: u64,
    ) -> Result<(u64, u64), Stop> {
        let (target, _) = self.futex(to)?;
        let (source, word) = self.futex(from)?;
        if word != expected {
            return Err(Error::WouldBlock.into());
        }
        let woken = self.wake_futex(source, wake);
        let mut moved = 0;
        while moved < move_count && source != target {
            let Some(thread) = self.futexes.pop(&mut self.memory, source) else {
                break;
            };
            self.futexes.enter(&mut self.memory, thread, target);
            moved += 1;
        }
        Ok((woken, moved))
    }
}

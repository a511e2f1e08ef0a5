//! Waiting for notifications and for words of memory.
//!
//! A thread that waits for notifications is looked at again whenever a bit that it wants is set:
//! its call is evaluated as if it were made at that moment, from its registers and its memory. A
//! wait for one notification is all in registers.

use super::{Kernel, Side, Stop};
use crate::machine::Machine;
use crate::memory::{Intent, Ref};
use crate::object::{Endpoint, Notification, State, Thread, Waiter};
use libipc::abi::{Access, Error, Handle, Kind, WAIT_ITEMS, WaitItem};

/// Waiters that a thread keeps for its next wait.
const SPARE_WAITERS: usize = 4;

const ITEM_BYTES: u64 = size_of::<WaitItem>() as u64;

impl<M: Machine> Kernel<M> {
    /// Sets bits of a notification and lets those go on who wait for them.
    pub(crate) fn signal_bits(&mut self, notification: Ref<Notification>, bits: u64) {
        let entry = self.memory.get_mut(notification);
        if entry.ended {
            return;
        }
        entry.set(bits);
        let (lone, others) = (entry.lone, entry.first_waiter());
        if let Some(endpoint) = entry.bound {
            self.tell_receiver(endpoint);
        }
        if let Some(thread) = lone {
            self.finish_lone_wait(thread, notification);
        }
        if others.is_some() {
            self.finish_waits(notification);
        }
    }

    /// Looks at all who wait for a notification in company.
    fn finish_waits(&mut self, notification: Ref<Notification>) {
        let mut at = self.memory.get(notification).first_waiter();
        while let Some(waiter) = at {
            let &Waiter { thread, bits, .. } = self.memory.get(waiter);
            let set = self.memory.get(notification).bits();
            if set == 0 {
                return;
            }
            let finished = set & bits != 0
                && match self.memory.get(thread).waits_for {
                    Some(notification) => self.finish_lone_wait(thread, notification),
                    None => self.finish_wait(thread),
                };
            at = match finished {
                // It left with all its waiters; who stood before it does not want these bits, or
                // not only these.
                true => self.memory.get(notification).first_waiter(),
                false => self.memory.waiter_after(waiter),
            };
        }
    }

    /// Ends the wait of a thread for one notification, if a bit is set that it wants.
    fn finish_lone_wait(&mut self, thread: Ref<Thread>, notification: Ref<Notification>) -> bool {
        let [_, mask, consume, ..] = *self.memory.get(thread).context.arguments();
        let seen = self.memory.get_mut(notification).look(mask, consume != 0);
        if seen == 0 {
            return false;
        }
        self.leave_waits(thread);
        self.stop_timer(thread);
        let entry = self.memory.get_mut(thread);
        entry.context.set_results(0, [seen, 0]);
        self.make_ready(thread);
        true
    }

    /// `signal` without the short path.
    #[inline(never)]
    pub(crate) fn long_signal(&mut self, notification: Handle, bits: u64) -> Result<(), Stop> {
        let notification = self.object(notification, Kind::Notification, Access::SIGNAL)?;
        self.signal_bits(notification, bits);
        Ok(())
    }

    /// `notification_wait` without the short path.
    #[inline(never)]
    pub(crate) fn long_wait(
        &mut self,
        notification: Handle,
        mask: u64,
        consume: bool,
        deadline: u64,
    ) -> Result<u64, Stop> {
        let thread = self.caller();
        let notification: Ref<Notification> =
            self.object(notification, Kind::Notification, Access::WAIT)?;
        let entry = self.memory.get_mut(notification);
        let seen = entry.look(mask, consume);
        if seen != 0 {
            return Ok(seen);
        }
        if entry.ended {
            return Err(Error::Gone.into());
        }
        let is_alone = entry.is_alone();
        self.may_wait(thread, deadline)?;
        if is_alone {
            self.memory.get_mut(notification).lone = Some(thread);
        } else {
            self.wait_behind_others(thread, notification, mask)?;
        }
        self.memory.get_mut(thread).waits_for = Some(notification);
        self.wait(thread, State::Waiting, deadline);
        Err(Stop::Done)
    }

    #[inline(never)]
    fn wait_behind_others(
        &mut self,
        thread: Ref<Thread>,
        notification: Ref<Notification>,
        mask: u64,
    ) -> Result<(), Error> {
        let waiter = match self.memory.get(thread).waiters {
            Some(waiter) => waiter,
            None => self.new_waiter(thread, notification)?,
        };
        let entry = self.memory.get_mut(waiter);
        (entry.notification, entry.bits) = (notification, mask);
        self.memory.waiter_enter(waiter);
        Ok(())
    }

    /// Looks again at what a thread waits for; true if it waits no more.
    fn finish_wait(&mut self, thread: Ref<Thread>) -> bool {
        let stop = match self.evaluate_wait(thread) {
            Ok(None) => return false,
            Ok(Some(index)) => {
                self.stop_waiting(thread);
                let context = &mut self.memory.get_mut(thread).context;
                context.set_results(0, [index, 0]);
                self.let_run(thread);
                return true;
            }
            Err(stop) => stop,
        };
        self.stop_waiting(thread);
        self.stopped(thread, stop, |context, error| {
            context.set_results(error as u64, [0; 2]);
        });
        self.let_run(thread);
        true
    }

    /// One item of a thread's `wait_many`, and the notification that it names.
    fn wait_item(
        &mut self,
        thread: Ref<Thread>,
        items: u64,
        index: u64,
    ) -> Result<(WaitItem, Ref<Notification>), Stop> {
        let address = items.wrapping_add(index * ITEM_BYTES);
        let space = self.memory.get(thread).space;
        let space = space.expect("a thread that waits has a space");
        let [notification, mask, seen, consume] = self
            .memory
            .read_words(space, address)
            .map_err(|at| self.stop_to_fault(at, Side::Read))?;
        let item = WaitItem {
            notification: Handle(notification),
            mask,
            seen,
            consume,
        };
        let notification =
            self.object_in(thread, item.notification, Kind::Notification, Access::WAIT)?;
        Ok((item, notification))
    }

    /// Carries out a thread's `wait_many` if what it waits for is so: writes what was seen, takes
    /// what is to be taken (of any, only what the first that has something has: W32-WAIT-06), and
    /// returns the index of the first item that has something.
    fn evaluate_wait(&mut self, thread: Ref<Thread>) -> Result<Option<u64>, Stop> {
        let [items, count, all, ..] = *self.memory.get(thread).context.arguments();
        if count == 0 || count > WAIT_ITEMS as u64 || all > 1 {
            return Err(Error::InvalidArgument.into());
        }
        let (mut first, mut having) = (None, 0);
        for index in 0..count {
            let (item, notification) = self.wait_item(thread, items, index)?;
            if self.memory.get(notification).bits() & item.mask != 0 {
                first.get_or_insert(index);
                having += 1;
            }
        }
        let satisfied = match all {
            0 => having > 0,
            _ => having == count,
        };
        if !satisfied {
            return Ok(None);
        }
        let bytes = (count * ITEM_BYTES) as usize;
        self.user_span(thread, items, bytes, Intent::Write)
            .map_err(|at| self.stop_to_fault(at, Side::Write))?;
        for index in 0..count {
            let (item, notification) = self.wait_item(thread, items, index)?;
            let entry = self.memory.get_mut(notification);
            let consume = item.consume != 0 && (all == 1 || first == Some(index));
            let seen = entry.look(item.mask, consume);
            let address = items.wrapping_add(index * ITEM_BYTES + SEEN_AT);
            let space = self.memory.get(thread).space;
            let space = space.expect("a thread that waits has a space");
            // Resolved above, and nothing has changed since.
            let _ = self.memory.write_word(space, address, seen);
        }
        Ok(first)
    }

    pub(crate) fn wait_many(
        &mut self,
        items: u64,
        count: u64,
        _all: u64,
        deadline: u64,
    ) -> Result<u64, Stop> {
        let thread = self.caller();
        if let Some(index) = self.evaluate_wait(thread)? {
            return Ok(index);
        }
        self.may_wait(thread, deadline)?;
        if let Err(stop) = self.enter_waits(thread, items, count) {
            self.leave_waits(thread);
            return Err(stop);
        }
        self.wait(thread, State::Waiting, deadline);
        Err(Stop::Done)
    }

    /// One more link for a thread's waits.
    fn new_waiter(
        &mut self,
        thread: Ref<Thread>,
        notification: Ref<Notification>,
    ) -> Result<Ref<Waiter>, Error> {
        let pool = self.memory.pool_of(thread);
        let waiter = Waiter::new(thread, notification, 0);
        let waiter = self.memory.create(pool, waiter)?;
        let first = self.memory.get_mut(thread).waiters.replace(waiter);
        self.memory.get_mut(waiter).next_of_thread = first;
        Ok(waiter)
    }

    /// Puts a thread into the rings of all that it waits for.
    fn enter_waits(&mut self, thread: Ref<Thread>, items: u64, count: u64) -> Result<(), Stop> {
        let mut spare = self.memory.get(thread).waiters;
        for index in 0..count {
            let (item, notification) = self.wait_item(thread, items, index)?;
            let waiter = match spare {
                Some(waiter) => {
                    spare = self.memory.get(waiter).next_of_thread;
                    waiter
                }
                None => self.new_waiter(thread, notification)?,
            };
            let entry = self.memory.get_mut(waiter);
            entry.notification = notification;
            entry.bits = item.mask;
            self.memory.waiter_enter(waiter);
        }
        Ok(())
    }

    /// A thread waits for no notification any more; it keeps a few waiters for its next wait.
    #[inline(always)]
    pub(crate) fn leave_waits(&mut self, thread: Ref<Thread>) {
        if let Some(notification) = self.memory.get_mut(thread).waits_for.take() {
            let lone = &mut self.memory.get_mut(notification).lone;
            if *lone == Some(thread) {
                *lone = None;
                return;
            }
        }
        self.leave_rings(thread);
    }

    #[inline(never)]
    fn leave_rings(&mut self, thread: Ref<Thread>) {
        let mut at = self.memory.get(thread).waiters;
        let mut kept = 0;
        let mut last = None;
        while let Some(waiter) = at {
            self.memory.waiter_leave(waiter);
            at = self.memory.get(waiter).next_of_thread;
            if kept < SPARE_WAITERS {
                kept += 1;
                last = Some(waiter);
            } else {
                self.memory.destroy(waiter);
            }
        }
        if let Some(last) = last {
            self.memory.get_mut(last).next_of_thread = None;
        }
    }

    /// Binds a notification to an endpoint, in place of the one that was.
    pub(crate) fn bind(
        &mut self,
        endpoint: Ref<Endpoint>,
        notification: Ref<Notification>,
    ) -> Result<(), Error> {
        let entry = self.memory.get_mut(notification);
        if entry.ended || self.memory.get(endpoint).has_ended() {
            return Err(Error::Gone);
        }
        let entry = self.memory.get_mut(notification);
        if entry.sticky() != 0 {
            // It would be delivered without end.
            return Err(Error::InvalidArgument);
        }
        if entry.bound.is_some() {
            return Err(Error::Occupied);
        }
        entry.bound = Some(endpoint);
        entry.holds += 1;
        self.unbind(endpoint);
        self.memory.get_mut(endpoint).set_bound(Some(notification));
        self.tell_receiver(endpoint);
        Ok(())
    }

    /// Takes off the notification that is bound to an endpoint.
    pub(crate) fn unbind(&mut self, endpoint: Ref<Endpoint>) {
        if let Some(notification) = self.memory.get_mut(endpoint).set_bound(None) {
            self.memory.get_mut(notification).bound = None;
            self.release_notification(notification);
        }
    }
}

/// Offset of [`WaitItem::seen`].
const SEEN_AT: u64 = core::mem::offset_of!(WaitItem, seen) as u64;

const _: () = assert!(core::mem::offset_of!(WaitItem, consume) == 24 && ITEM_BYTES == 32);

//! Waiting for notifications and for words of memory.
//!
//! A thread that waits for notifications is looked at again whenever a bit that it wants is set:
//! its call is evaluated as if it were made at that moment, from its registers and its memory.

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
        if let Some(endpoint) = entry.bound {
            self.tell_receiver(endpoint);
        }
        let mut at = self.memory.get(notification).first_waiter();
        while let Some(waiter) = at {
            let &Waiter {
                thread,
                bits,
                is_alone,
                takes,
                ..
            } = self.memory.get(waiter);
            let set = self.memory.get(notification).bits();
            if set == 0 {
                return;
            }
            if set & bits == 0 {
                at = self.memory.waiter_after(waiter);
            } else if is_alone && self.finish_lone_wait(thread, notification, bits, takes)
                || self.finish_wait(thread)
            {
                // It left with all its waiters; who stood before it does not want these bits, or
                // not only these.
                at = self.memory.get(notification).first_waiter();
            } else {
                at = self.memory.waiter_after(waiter);
            }
        }
    }

    /// Ends the wait of a thread for these bits of one notification; false, and nothing has
    /// changed, if its memory cannot be written at once.
    fn finish_lone_wait(
        &mut self,
        thread: Ref<Thread>,
        notification: Ref<Notification>,
        mask: u64,
        takes: bool,
    ) -> bool {
        let entry = self.memory.get(thread);
        let item = entry.context.arguments()[0];
        let Some(space) = entry.space else {
            return false;
        };
        let seen = self.memory.get(notification).bits() & mask;
        let written = self
            .memory
            .write_word(space, item.wrapping_add(SEEN_AT), seen);
        if written.is_err() {
            return false;
        }
        if takes {
            self.memory.get_mut(notification).take(mask);
        }
        self.stop_waiting(thread);
        let context = &mut self.memory.get_mut(thread).context;
        context.set_results(0, [0; 2]);
        self.let_run(thread);
        true
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
            let seen = match item.consume != 0 && (all == 1 || first == Some(index)) {
                true => entry.take(item.mask),
                false => entry.bits() & item.mask,
            };
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
        all: u64,
        deadline: u64,
    ) -> Result<u64, Stop> {
        let thread = self.caller();
        if count == 1 && all <= 1 {
            return self.wait_for_one(thread, items, deadline);
        }
        if let Some(index) = self.evaluate_wait(thread)? {
            return Ok(index);
        }
        self.may_wait(thread, deadline)?;
        if let Err(stop) = self.enter_waits(thread, items, count) {
            self.leave_waits(thread);
            return Err(stop);
        }
        self.block(thread, State::Waiting, deadline);
        Err(Stop::Done)
    }

    /// The usual wait, for one notification, with less ado.
    fn wait_for_one(
        &mut self,
        thread: Ref<Thread>,
        items: u64,
        deadline: u64,
    ) -> Result<u64, Stop> {
        let (item, notification) = self.wait_item(thread, items, 0)?;
        if self.memory.get(notification).bits() & item.mask != 0 {
            let index = self.evaluate_wait(thread)?;
            return Ok(index.unwrap_or(0));
        }
        self.may_wait(thread, deadline)?;
        let waiter = match self.memory.get(thread).waiters {
            Some(waiter) => waiter,
            None => self.new_waiter(thread, notification)?,
        };
        let entry = self.memory.get_mut(waiter);
        entry.notification = notification;
        entry.bits = item.mask;
        entry.is_alone = true;
        entry.takes = item.consume != 0;
        self.memory.waiter_enter(waiter);
        self.block(thread, State::Waiting, deadline);
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
            entry.is_alone = false;
            self.memory.waiter_enter(waiter);
        }
        Ok(())
    }

    /// Takes a thread out of all rings; it keeps a few waiters for its next wait.
    pub(crate) fn leave_waits(&mut self, thread: Ref<Thread>) {
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
        if entry.ended || self.memory.get(endpoint).ended {
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
        self.memory.get_mut(endpoint).bound = Some(notification);
        self.tell_receiver(endpoint);
        Ok(())
    }

    /// Takes off the notification that is bound to an endpoint.
    pub(crate) fn unbind(&mut self, endpoint: Ref<Endpoint>) {
        if let Some(notification) = self.memory.get_mut(endpoint).bound.take() {
            self.memory.get_mut(notification).bound = None;
            self.release_notification(notification);
        }
    }
}

/// Offset of [`WaitItem::seen`].
const SEEN_AT: u64 = core::mem::offset_of!(WaitItem, seen) as u64;

const _: () = assert!(core::mem::offset_of!(WaitItem, consume) == 24 && ITEM_BYTES == 32);

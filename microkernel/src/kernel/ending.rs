//! How objects go.
//!
//! An object ends when the last capability to it goes or when its pool is destroyed, and is
//! forgotten once nothing refers to it. Ending one can end others, without bound, so it is a list
//! of things to do: each step does one of them, the lists are linked through what is on them, and
//! the priority of who caused it decides who has to wait for it.
//!
//! Invariant: what is on a list is neither destroyed nor put on it a second time.

use super::{Garbage, Kernel};
use crate::cap::node::Killed;
use crate::cap::{CapTable, Fate, Node};
use crate::machine::Machine;
use crate::memory::{AnyRef, Ending, FutexKey, Intent, Pool, Progress, Ref, Space, Window};
use crate::object::device::{IoPorts, Irq, PhysicalRange};
use crate::object::{Endpoint, Notification, Reply, State, Thread, Waiter};
use core::sync::atomic::Ordering;
use libipc::abi::{Error, Kind};

/// How much is done between two looks at interrupts; one unit is some hundred instructions.
const BUDGET: u32 = 256;
/// What a step on a table costs: a page of slots.
const TABLE_COST: u32 = 4;
/// What a step on a space costs.
const SPACE_COST: u32 = 64;

/// What became of an object that was to end with its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It is no more.
    Gone,
    /// It has ended; something still refers to it.
    Remnant,
    /// There is more to do.
    Unfinished,
}

impl<M: Machine> Kernel<M> {
    /// Something is to be cleaned up on behalf of the current thread.
    #[inline]
    pub(crate) fn note_garbage(&mut self) {
        self.cpu_mut().ready.set_undecided(true);
        if let Some(thread) = self.current() {
            let priority = self.memory.get(thread).priority;
            self.garbage.priority = self.garbage.priority.max(priority);
        }
    }

    /// Whether there is nothing to clean up.
    #[inline]
    pub(crate) fn is_clean(&self) -> bool {
        self.garbage.is_empty() && self.memory.unheld_space().is_none()
    }

    /// Cleans up for a while; false if there is more.
    pub(crate) fn collect(&mut self) -> bool {
        let mut done = 0;
        while done < BUDGET {
            match self.clean_up_step() {
                0 => {
                    self.garbage.priority = 0;
                    return true;
                }
                cost => done += cost,
            }
        }
        false
    }

    /// Does one thing and says what it cost; 0 if there is nothing to do. Pools come last, so that what their
    /// objects leave behind is gone before the next object.
    fn clean_up_step(&mut self) -> u32 {
        let Garbage {
            nodes,
            endpoints,
            tables,
            pools,
            ..
        } = self.garbage;
        if let Some(node) = nodes.first() {
            self.node_step(node);
        } else if let Some(endpoint) = endpoints {
            if self.endpoint_step(endpoint) {
                self.garbage.endpoints = self.memory.get_mut(endpoint).next_ending.take();
                self.memory.get_mut(endpoint).listed = false;
                self.forget_endpoint(endpoint);
            }
        } else if let Some(table) = tables {
            if !self.memory.table_empty_step(table, &mut self.garbage.nodes) {
                let entry = self.memory.get_mut(table);
                entry.listed = false;
                self.garbage.tables = entry.next_ending.take();
                self.forget_table(table);
            }
            return TABLE_COST;
        } else if let Some(space) = self.memory.unheld_space() {
            if self.end_space_step(space) {
                self.memory.space_forget(space);
            }
            return SPACE_COST;
        } else if let Some(pool) = pools {
            return self.pool_step(pool);
        } else {
            return 0;
        }
        1
    }

    // Nodes.

    fn node_step(&mut self, node: Ref<Node>) {
        if self.memory.get(node).is_revoking() {
            let killed = self.memory.node_kill_below(node, &mut self.garbage.nodes);
            if let Killed::One(kind, object) = killed {
                // Closing the last capability lets mappings live on, revoking it does not.
                if let (Kind::Window, Some(window)) = (kind, Ref::from_bits(object)) {
                    self.memory.window_end(window);
                }
                self.drop_object(kind, object);
            }
            return;
        }
        self.garbage.nodes.pop(&mut self.memory);
        self.settle_node(node);
    }

    /// One slot less names a node: what that ends goes at once, as far as it is bounded.
    pub(crate) fn drop_slot(&mut self, node: Ref<Node>) {
        if !self.memory.node_drop(node) {
            return;
        }
        let entry = self.memory.get(node);
        if entry.kind() == Some(Kind::Thread)
            && Some(entry.object()) == self.current().map(Ref::to_bits)
        {
            // Its own call is still to be answered.
            self.garbage.nodes.push(&mut self.memory, node);
        } else {
            self.settle_node(node);
        }
        if !self.is_clean() {
            self.note_garbage();
        }
    }

    /// Decides about a node that is on no list and that perhaps nothing keeps.
    fn settle_node(&mut self, node: Ref<Node>) {
        match self.memory.node_settle(node, &mut self.garbage.nodes) {
            Fate::Stays | Fate::Forgotten => {}
            Fate::LastReceiver(endpoint) => {
                if let Some(endpoint) = Ref::from_bits(endpoint) {
                    self.last_receiver_gone(endpoint);
                }
            }
            Fate::Notice(endpoint) => {
                let endpoint: Ref<Endpoint> =
                    Ref::from_bits(endpoint).expect("a sender has an endpoint");
                if !self.memory.get(endpoint).is_served() {
                    self.garbage.nodes.push(&mut self.memory, node);
                    return;
                }
                let mut notices = self.memory.get(endpoint).notices();
                notices.push(&mut self.memory, node);
                self.memory.get_mut(endpoint).set_notices(notices);
                self.tell_receiver(endpoint);
            }
            Fate::Gone(kind, object) => self.drop_object(kind, object),
        }
    }

    /// A node's reference to its object goes.
    pub(crate) fn drop_object(&mut self, kind: Kind, object: u64) {
        /// The object of a kind that has one.
        fn object_at<T>(bits: u64) -> Ref<T> {
            Ref::from_bits(bits).expect("all other capabilities have an object")
        }
        match kind {
            Kind::Pool => self.memory.pool_release(object_at(object)),
            // 0: its user's own space, on which the node has no hold.
            Kind::Space if object == 0 => {}
            Kind::Space => self.release_space(object_at(object)),
            Kind::Window => self.memory.window_release(object_at(object)),
            Kind::Table => self.release_table(object_at(object)),
            Kind::Thread => self.release_thread(object_at(object)),
            Kind::Receiver => {
                let endpoint = object_at(object);
                self.last_receiver_gone(endpoint);
                self.release_endpoint(endpoint);
            }
            Kind::Sender => self.release_endpoint(object_at(object)),
            Kind::Reply => self.release_reply(object_at(object)),
            Kind::Notification => self.release_notification(object_at(object)),
            Kind::Irq => self.release_irq(object_at(object)),
            Kind::IoPorts => {
                let ports: Ref<IoPorts> = object_at(object);
                let entry = self.memory.get_mut(ports);
                entry.holds -= 1;
                if entry.holds == 0 {
                    self.memory.destroy(ports);
                }
            }
            Kind::PhysicalRange => {
                let range: Ref<PhysicalRange> = object_at(object);
                let entry = self.memory.get_mut(range);
                entry.holds -= 1;
                if entry.holds == 0 {
                    self.memory.destroy(range);
                }
            }
            Kind::System => {}
        }
    }

    /// One more reference to an object: a node of it is made.
    pub(crate) fn hold_object(&mut self, kind: Kind, object: u64) -> Result<(), Error> {
        let Some(object) = core::num::NonZeroU64::new(object) else {
            return Ok(());
        };
        fn object_at<T>(bits: core::num::NonZeroU64) -> Ref<T> {
            Ref::from_bits(bits.get()).expect("not zero")
        }
        let memory = &mut self.memory;
        let holds = match kind {
            Kind::Pool => return memory.pool_hold(object_at(object)),
            Kind::Space => return memory.space_hold(object_at(object)),
            Kind::Window => return memory.window_hold(object_at(object)),
            Kind::Table => memory.get_mut(object_at::<CapTable>(object)).holds_mut(),
            Kind::Thread => &mut memory.get_mut(object_at::<Thread>(object)).holds,
            Kind::Receiver | Kind::Sender => {
                &mut memory.get_mut(object_at::<Endpoint>(object)).holds
            }
            Kind::Reply => &mut memory.get_mut(object_at::<Reply>(object)).holds,
            Kind::Notification => &mut memory.get_mut(object_at::<Notification>(object)).holds,
            Kind::Irq => &mut memory.get_mut(object_at::<Irq>(object)).holds,
            Kind::IoPorts => &mut memory.get_mut(object_at::<IoPorts>(object)).holds,
            Kind::PhysicalRange => &mut memory.get_mut(object_at::<PhysicalRange>(object)).holds,
            Kind::System => return Ok(()),
        };
        *holds = holds.checked_add(1).ok_or(Error::Exhausted)?;
        Ok(())
    }

    // Endpoints.

    pub(crate) fn release_endpoint(&mut self, endpoint: Ref<Endpoint>) {
        let entry = self.memory.get_mut(endpoint);
        entry.holds -= 1;
        if entry.holds == 0 {
            self.end_endpoint(endpoint);
        }
    }

    fn last_receiver_gone(&mut self, endpoint: Ref<Endpoint>) {
        self.memory.get_mut(endpoint).lose_receiver();
        self.list_endpoint(endpoint);
    }

    fn end_endpoint(&mut self, endpoint: Ref<Endpoint>) {
        self.memory.get_mut(endpoint).end();
        self.list_endpoint(endpoint);
    }

    fn list_endpoint(&mut self, endpoint: Ref<Endpoint>) {
        self.note_garbage();
        let entry = self.memory.get_mut(endpoint);
        if !core::mem::replace(&mut entry.listed, true) {
            entry.next_ending = self.garbage.endpoints.replace(endpoint);
        }
    }

    /// Sends away one of those who wait in vain; true when nobody is left.
    fn endpoint_step(&mut self, endpoint: Ref<Endpoint>) -> bool {
        let entry = self.memory.get(endpoint);
        let (ended, served) = (entry.has_ended(), entry.is_served());
        if let Some(receiver) = entry.receiver()
            && (ended || entry.is_without_receiver())
        {
            self.abort(receiver, Error::Gone);
            return false;
        }
        if let Some(sender) = entry.sender()
            && !served
        {
            self.abort(sender, Error::ServerGone);
            return false;
        }
        if !served {
            let mut notices = self.memory.get(endpoint).notices();
            if let Some(node) = notices.pop(&mut self.memory) {
                self.memory.get_mut(endpoint).set_notices(notices);
                self.garbage.nodes.push(&mut self.memory, node);
                return false;
            }
        }
        if ended {
            self.unbind(endpoint);
        }
        true
    }

    fn forget_endpoint(&mut self, endpoint: Ref<Endpoint>) {
        let entry = self.memory.get(endpoint);
        if entry.has_ended() && entry.holds == 0 && !entry.listed {
            self.memory.destroy(endpoint);
        }
    }

    // Replies, notifications, interrupt lines.

    fn release_reply(&mut self, reply: Ref<Reply>) {
        let entry = self.memory.get_mut(reply);
        entry.holds -= 1;
        if entry.holds == 0 {
            self.end_reply(reply);
            self.memory.destroy(reply);
        }
    }

    /// The caller behind a reply is not answered any more.
    fn end_reply(&mut self, reply: Ref<Reply>) {
        if let Some(caller) = self.memory.get(reply).caller() {
            self.abort(caller, Error::Gone);
        }
    }

    pub(crate) fn release_notification(&mut self, notification: Ref<Notification>) {
        let entry = self.memory.get_mut(notification);
        entry.holds -= 1;
        if entry.holds == 0 {
            self.end_notification(notification);
            self.memory.destroy(notification);
        }
    }

    fn end_notification(&mut self, notification: Ref<Notification>) {
        self.memory.get_mut(notification).ended = true;
        let owner = crate::sched::timers::Owner::Notification(notification);
        self.timers.remove(&mut self.memory, owner);
        if let Some(thread) = self.memory.get(notification).lone {
            self.abort(thread, Error::Gone);
        }
        while let Some(waiter) = self.memory.get(notification).first_waiter() {
            let thread = self.memory.get(waiter).thread;
            self.abort(thread, Error::Gone);
        }
    }

    fn release_irq(&mut self, irq: Ref<Irq>) {
        let entry = self.memory.get_mut(irq);
        entry.holds -= 1;
        if entry.holds == 0 {
            self.end_irq(irq);
            self.memory.destroy(irq);
        }
    }

    fn end_irq(&mut self, irq: Ref<Irq>) {
        let entry = self.memory.get_mut(irq);
        if core::mem::replace(&mut entry.ended, true) {
            return;
        }
        let (line, notification) = (entry.line, entry.notification.take());
        if let Some(place) = self.lines.get_mut(line as usize) {
            *place = None;
        }
        self.memory.machine_mut().interrupt_mask(line);
        if let Some(notification) = notification {
            self.release_notification(notification);
        }
    }

    // Tables and spaces.

    pub(crate) fn release_table(&mut self, table: Ref<CapTable>) {
        let entry = self.memory.get_mut(table);
        *entry.holds_mut() -= 1;
        if *entry.holds_mut() > 0 || self.memory.table_forget_at_once(table) {
            return;
        }
        // It may have ended before, with its pool.
        self.end_table(table);
        self.forget_table(table);
    }

    /// Closes all slots of a table, or begins to, if it has many; false if that was done before.
    fn end_table(&mut self, table: Ref<CapTable>) -> bool {
        if !self.memory.get_mut(table).end() {
            return false;
        }
        let more = self.memory.table_empty_step(table, &mut self.garbage.nodes);
        if more {
            let entry = self.memory.get_mut(table);
            entry.listed = true;
            entry.next_ending = self.garbage.tables.replace(table);
        }
        if !self.garbage.is_empty() {
            self.note_garbage();
        }
        true
    }

    fn forget_table(&mut self, table: Ref<CapTable>) {
        let entry = self.memory.get_mut(table);
        if entry.is_emptied() && !entry.listed && *entry.holds_mut() == 0 {
            self.memory.destroy(table);
        }
    }

    /// Gives a hold on a space back. Without one it ends, at once if it is small.
    pub(crate) fn release_space(&mut self, space: Ref<Space>) {
        self.memory.space_release(space);
        if self.memory.unheld_space() == Some(space) && self.end_space_step(space) {
            self.memory.space_forget(space);
        }
    }

    /// A step of ending a space; true when it has ended.
    fn end_space_step(&mut self, space: Ref<Space>) -> bool {
        if self.memory.space_end_step(space) != Progress::Done {
            return false;
        }
        if let Some(pager) = self.memory.get(space).pager() {
            self.memory.space_set_pager(space, None);
            if let Some(node) = super::fault::node_of_pager(pager) {
                self.release_node(node);
            }
        }
        true
    }

    // Threads.

    pub(crate) fn release_thread(&mut self, thread: Ref<Thread>) {
        let entry = self.memory.get_mut(thread);
        entry.holds -= 1;
        if entry.holds == 0 {
            self.end_thread(thread);
            self.memory.destroy(thread);
        }
    }

    /// Ends a thread: it never runs again, and everybody who counts on it is told.
    #[inline]
    pub(crate) fn end_thread(&mut self, thread: Ref<Thread>) {
        if self.memory.get(thread).state != State::Ended {
            self.end_living_thread(thread);
        }
    }

    #[inline(never)]
    fn end_living_thread(&mut self, thread: Ref<Thread>) {
        if self.current() == Some(thread) {
            // While it is known on whose behalf it is.
            self.note_garbage();
        }
        // As a fault's sender it would be ended again.
        self.memory.get_mut(thread).set_fault(None);
        self.stop_waiting(thread);
        self.stop_running(thread);
        self.clear_and_wake(thread);
        self.memory.get_mut(thread).state = State::Ended;
        self.drop_owed(thread);
        let cpu = self.cpu_mut();
        // Its context stays where it is until the CPU has another one or idles.
        for place in [&mut cpu.entered, &mut cpu.current, &mut cpu.next] {
            if *place == Some(thread) {
                *place = None;
                cpu.ready.set_undecided(true);
            }
        }
        if cpu.fpu == Some(thread) {
            cpu.fpu = None;
            self.memory.machine_mut().fpu_allow(false);
        }
        let entry = self.memory.get_mut(thread);
        let (space, tables) = (entry.space.take(), core::mem::take(&mut entry.tables));
        let (exceptions, fpu) = (entry.exceptions.take(), entry.fpu.take());
        let waiters = entry.waiters.take();
        if let Some(area) = fpu {
            self.memory.frame_drop(area);
            self.memory.release_frame(area);
        }
        if let Some(space) = space {
            self.release_space(space);
        }
        for table in tables.into_iter().flatten() {
            self.release_table(table);
        }
        self.release_cap(exceptions);
        let mut at = waiters;
        while let Some(waiter) = at {
            at = self.memory.get(waiter).next_of_thread;
            self.memory.destroy(waiter);
        }
        while let Some(watch) = self.memory.get(thread).watches {
            let &Waiter {
                notification, bits, ..
            } = self.memory.get(watch);
            self.signal_bits(notification, bits);
            self.end_watch(watch);
        }
        if !self.is_clean() {
            self.note_garbage();
        }
    }

    /// Stores 0 at the thread's clear address and wakes one who waits for that.
    fn clear_and_wake(&mut self, thread: Ref<Thread>) {
        let entry = self.memory.get_mut(thread);
        let (address, space) = (core::mem::take(&mut entry.clear_address), entry.space);
        let (Some(space), true) = (space, address != 0) else {
            return;
        };
        // A program that gave an address it cannot write to gets nothing.
        if let Ok((key, word)) = self.memory.futex(space, address, Intent::Write) {
            word.store(0, Ordering::SeqCst);
            self.wake_futex(key, 1);
        }
    }

    /// Wakes up to `count` threads that wait for a word; returns how many.
    pub(crate) fn wake_futex(&mut self, key: FutexKey, count: u64) -> u64 {
        let mut woken = 0;
        while woken < count {
            let Some(thread) = self.futexes.pop(&mut self.memory, key) else {
                break;
            };
            self.stop_timer(thread);
            self.memory.get_mut(thread).context.set_results(0, [0; 2]);
            self.make_ready(thread);
            woken += 1;
        }
        woken
    }

    /// Takes a watch out of its thread's list and forgets it.
    fn end_watch(&mut self, watch: Ref<Waiter>) {
        let entry = self.memory.get(watch);
        let (thread, notification) = (entry.thread, entry.notification);
        let (previous, next) = (entry.previous_of_thread, entry.next_of_thread);
        match previous {
            Some(previous) => self.memory.get_mut(previous).next_of_thread = next,
            None => self.memory.get_mut(thread).watches = next,
        }
        if let Some(next) = next {
            self.memory.get_mut(next).previous_of_thread = previous;
        }
        self.memory.destroy(watch);
        self.release_notification(notification);
    }

    // Pools.

    /// Begins to end all objects of a pool.
    pub(crate) fn end_pool(&mut self, pool: Ref<Pool>) -> Result<(), Error> {
        if self.memory.get(pool).parent().is_none() {
            return Err(Error::InvalidArgument);
        }
        if self.memory.get(pool).has_ended() {
            return Ok(());
        }
        // It stays until the last of its objects has ended.
        self.memory.pool_hold(pool)?;
        // From here on it pays for nothing new.
        let _ = self.memory.pool_end(pool)?;
        self.note_garbage();
        let next = self.garbage.pools.replace(pool);
        self.memory.get_mut(pool).next_ending = next;
        Ok(())
    }

    /// Does a step of ending a pool and says what it cost.
    fn pool_step(&mut self, pool: Ref<Pool>) -> u32 {
        match self.memory.pool_end(pool) {
            Ok(Ending::Object(object)) => {
                let is_space = object.downcast::<Space>().is_some();
                if self.end_object(object) == Ended::Remnant {
                    self.memory.pool_end_skip(pool);
                }
                if is_space { SPACE_COST } else { TABLE_COST }
            }
            Ok(Ending::Done) | Err(_) => {
                self.garbage.pools = self.memory.get_mut(pool).next_ending.take();
                self.memory.pool_release(pool);
                1
            }
        }
    }

    /// Does a step of ending an object whose pool ends.
    fn end_object(&mut self, object: AnyRef) -> Ended {
        if let Some(pool) = object.downcast::<Pool>() {
            // It goes before the outer one, to which it comes back when it has ended.
            return match self.end_pool(pool) {
                Ok(()) => Ended::Unfinished,
                Err(_) => Ended::Remnant,
            };
        }
        if let Some(thread) = object.downcast::<Thread>() {
            self.end_thread(thread);
            return Ended::Remnant;
        }
        if let Some(waiter) = object.downcast::<Waiter>() {
            if self.memory.get(waiter).is_watch {
                self.end_watch(waiter);
                return Ended::Gone;
            }
            return Ended::Remnant;
        }
        if let Some(endpoint) = object.downcast::<Endpoint>() {
            if !self.memory.get(endpoint).has_ended() {
                self.end_endpoint(endpoint);
                return Ended::Unfinished;
            }
            return Ended::Remnant;
        }
        if let Some(table) = object.downcast::<CapTable>() {
            return match self.end_table(table) {
                true => Ended::Unfinished,
                false => Ended::Remnant,
            };
        }
        if let Some(space) = object.downcast::<Space>() {
            return match self.end_space_step(space) {
                true => Ended::Remnant,
                false => Ended::Unfinished,
            };
        }
        if let Some(window) = object.downcast::<Window>() {
            self.memory.window_end(window);
            return match self.memory.is_live(window) {
                true => Ended::Remnant,
                false => Ended::Gone,
            };
        }
        if let Some(node) = object.downcast::<Node>() {
            return self.end_node_step(node);
        }
        if let Some(reply) = object.downcast::<Reply>() {
            self.end_reply(reply);
        }
        if let Some(notification) = object.downcast::<Notification>() {
            self.end_notification(notification);
        }
        if let Some(irq) = object.downcast::<Irq>() {
            self.end_irq(irq);
        }
        if let Some(ports) = object.downcast::<IoPorts>() {
            self.memory.get_mut(ports).ended = true;
        }
        if let Some(range) = object.downcast::<PhysicalRange>() {
            self.memory.get_mut(range).ended = true;
        }
        Ended::Remnant
    }

    /// A node whose pool ends is revoked, and killed with what is below it.
    fn end_node_step(&mut self, node: Ref<Node>) -> Ended {
        if !self.memory.get(node).is_alive() {
            return Ended::Remnant;
        }
        let killed = self.memory.node_kill_below(node, &mut self.garbage.nodes);
        let (kind, object) = match killed {
            Killed::One(kind, object) => (kind, object),
            Killed::Nothing => self.memory.node_kill(node, &mut self.garbage.nodes),
        };
        self.drop_object(kind, object);
        Ended::Unfinished
    }
}

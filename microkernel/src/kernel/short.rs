//! The short path: a call to a receiver that waits, and the answer to a caller that waits, at once
//! or later; a signal to who waits for it alone; and waits for messages and signals that are not
//! there yet.
//!
//! Nothing here does anything that the long path does not; it only knows that there is nothing
//! else to do. The preconditions come first, in one piece; if one does not hold, nothing has
//! changed and the long path decides. A memory part is the last of them: it passes, or it does not
//! and nothing has changed. What fits the registers does without (`MEMORY` is false).

use super::transfer::Passing;
use super::{CALL, Kernel, REPLY_RECEIVE};
use crate::machine::Machine;
use crate::memory::{Loadable, Object, Ref};
use crate::object::endpoint::Found;
use crate::object::thread::Holder;
use crate::object::{Endpoint, Notification, Owed, Reply, State, Thread};
use core::ops::Range;
use libipc::abi::{
    Access, Delivery, Handle, INLINE_BYTES, IpcCall, IpcFlags, Kind, MessageKind, OpWord,
    REPLY_BYTES, REPLY_WORD,
};

/// Whether a message fits the registers and brings no capabilities, whose number stands above the
/// length.
#[inline(always)]
fn fits_registers(operation: u64) -> bool {
    operation >> 16 <= INLINE_BYTES as u64
}

/// A `call` with the flag that only death ends it.
const KILLABLE_CALL: u64 = CALL | (IpcFlags::KILLABLE_ONLY.bits() as u64) << 8;
/// `receive`, which is also what a `reply_receive` is once the answer has been given.
const RECEIVE: u64 = IpcCall::Receive as u64;
/// The two that name a reply.
const KEEP_RECEIVE: u64 = RECEIVE | REPLY;
const REPLY_KEPT_RECEIVE: u64 = REPLY_RECEIVE | REPLY;
const REPLY: u64 = (IpcFlags::REPLY.bits() as u64) << 8;

/// What a handle names, as far as it matters here.
struct Grant<T> {
    object: Ref<T>,
    badge: u64,
    access: u32,
}

impl<M: Machine> Kernel<M> {
    /// Nothing if all is to go the long path, which tests compare with.
    #[inline(always)]
    fn may_be_short(&self) -> Option<()> {
        #[cfg(test)]
        if self.long_only {
            return None;
        }
        Some(())
    }

    #[inline(always)]
    fn short_find<T: Object>(
        &self,
        thread: Ref<Thread>,
        handle: u64,
        kind: Kind,
        needed: Access,
    ) -> Option<Grant<T>> {
        let (_, slot) = self.look_up(thread, Handle(handle))?;
        let node = self.memory.get(slot.node);
        if node.kind() != Some(kind) || slot.access & needed.bits() != needed.bits() {
            return None;
        }
        Some(Grant {
            object: Ref::from_bits(node.object())?,
            badge: node.badge(),
            access: slot.access,
        })
    }

    /// The space to load for a thread that waits, if it can be given the CPU at once. The caller
    /// blocks.
    #[inline(always)]
    fn can_switch_to(&self, thread: &Thread) -> Option<Loadable> {
        if !thread.unusual.is_empty() || !self.cpu().ready.yields_to(thread.priority) {
            return None;
        }
        self.memory.space_loadable(thread.space?)
    }

    /// Whether an endpoint has nothing for a receiver.
    #[inline(always)]
    fn must_wait_at(&self, endpoint: Ref<Endpoint>) -> bool {
        match self.memory.get(endpoint).found() {
            Found::Nothing => true,
            Found::Bits(notification) => self.memory.get(notification).bits() == 0,
            Found::Something => false,
        }
    }

    /// Copies the part of a body of this length that is in registers. Most are short.
    #[inline(always)]
    fn copy_body(&mut self, from: Ref<Thread>, to: Ref<Thread>, length: usize) {
        const FEW: usize = 2;
        if length > 0 {
            self.copy_words(from, to, 0..FEW);
            if length > FEW * 8 {
                self.copy_words(from, to, FEW..INLINE_BYTES / 8);
            }
        }
    }

    #[inline(always)]
    fn copy_words(&mut self, from: Ref<Thread>, to: Ref<Thread>, places: Range<usize>) {
        // Word by word: the threads are not known to be different, and eight words at once do not
        // fit the registers.
        for place in places {
            let word = self.memory.get(from).context.body()[place];
            self.memory.get_mut(to).context.body_mut()[place] = word;
        }
    }

    /// `call` and `reply_receive` with a memory part or a flag, and `receive`: true if that was all
    /// there was to do. Not inlined, so that the two without save no registers for it.
    #[inline(never)]
    pub(super) fn short_beside(&mut self, thread: Ref<Thread>, operation: OpWord) -> bool {
        let passed = match operation.0 & 0xffff {
            CALL => self.short_call::<true>(thread, operation.0),
            REPLY_RECEIVE => self.short_reply_receive::<true>(thread, operation.0),
            RECEIVE => self.short_receive(thread),
            KEEP_RECEIVE => self.short_keep_receive(thread),
            REPLY_KEPT_RECEIVE => self.short_reply_kept_receive(thread, operation.0),
            KILLABLE_CALL => self.short_killable_call(thread, operation.0),
            _ => None,
        };
        passed.is_some()
    }

    #[inline(always)]
    fn short_killable_call(&mut self, thread: Ref<Thread>, operation: u64) -> Option<()> {
        self.short_call::<false>(thread, operation)?;
        self.memory.get_mut(thread).message.killable_only = true;
        Some(())
    }

    /// How many bytes and capabilities a message brings to `to`, once its memory part is there: the
    /// last precondition.
    #[inline(always)]
    fn bring<const MEMORY: bool>(
        &mut self,
        from: Ref<Thread>,
        to: Ref<Thread>,
        operation: u64,
        has_memory: bool,
        passing: Passing,
    ) -> Option<(usize, usize)> {
        match (MEMORY, has_memory) {
            (false, false) => Some(((operation >> 16) as usize, 0)),
            (true, true) => self.transfer_at_once(from, to, OpWord(operation), passing),
            _ => None,
        }
    }

    /// `call` without flags; `None`, and nothing has changed, if the long path has to do it.
    #[inline(always)]
    pub(super) fn short_call<const MEMORY: bool>(
        &mut self,
        thread: Ref<Thread>,
        operation: u64,
    ) -> Option<()> {
        // Preconditions.
        self.may_be_short()?;
        if !MEMORY && !fits_registers(operation) {
            return None;
        }
        let [handle, extended, ..] = *self.memory.get(thread).context.arguments();
        let grant = self.short_find(thread, handle, Kind::Sender, Access::empty())?;
        let endpoint: Ref<Endpoint> = grant.object;
        let (badge, access) = (grant.badge, grant.access);
        let receiver = self.memory.get(endpoint).receiver_to_stay()?;
        let space = self.can_switch_to(self.memory.get(receiver))?;
        let has_memory = extended != 0 || !fits_registers(operation);
        let (length, caps) =
            self.bring::<MEMORY>(thread, receiver, operation, has_memory, Passing::Call)?;

        // The message.
        self.memory.endpoint_leave_receiver(endpoint, receiver);
        self.memory.get_mut(endpoint).holds += 1;
        let caller = self.memory.get_mut(thread);
        caller.state = State::Answer;
        caller.holder = Holder::Thread(receiver);
        caller.message.endpoint = Some(endpoint);
        caller.message.badge = badge;
        caller.message.access = access;
        caller.message.kind = MessageKind::Call;
        caller.message.killable_only = false;
        caller.message.cancelled = false;
        let label = caller.label;
        self.copy_body(thread, receiver, length);
        let server = self.memory.get_mut(receiver);
        server.state = State::Ready;
        server.owed = Owed::Caller(thread);
        server.message.endpoint = None;
        let status = Delivery::message(MessageKind::Call, length, caps, access);
        server.context.set_received(status.0, badge, label);
        self.switch(thread, receiver, space);
        Some(())
    }

    /// `reply_receive` without flags; `None`, and nothing has changed, if the long path has to do it.
    #[inline(always)]
    pub(super) fn short_reply_receive<const MEMORY: bool>(
        &mut self,
        thread: Ref<Thread>,
        operation: u64,
    ) -> Option<()> {
        // Preconditions.
        self.may_be_short()?;
        if MEMORY == fits_registers(operation) {
            return None;
        }
        let Owed::Caller(caller) = self.memory.get(thread).owed else {
            return None;
        };
        self.short_answer_receive::<MEMORY>(thread, operation, caller)
    }

    /// The same that answers a kept call, when no other is to be given up.
    #[inline(always)]
    fn short_reply_kept_receive(&mut self, thread: Ref<Thread>, operation: u64) -> Option<()> {
        // Preconditions.
        self.may_be_short()?;
        let server = self.memory.get(thread);
        if operation >> 16 > REPLY_BYTES as u64 || matches!(server.owed, Owed::Caller(_)) {
            return None;
        }
        let handle = server.context.body()[REPLY_WORD];
        let grant = self.short_find(thread, handle, Kind::Reply, Access::empty())?;
        let reply: Ref<Reply> = grant.object;
        let caller = self.memory.get(reply).caller()?;
        self.short_answer_receive::<false>(thread, operation, caller)?;

        // What is left.
        self.memory.get_mut(reply).take_caller();
        self.memory.get_mut(caller).context.body_mut()[REPLY_WORD] = 0;
        Some(())
    }

    /// Answers `caller` and waits for the next call. A reply that keeps the answered one is still to
    /// be told.
    #[inline(always)]
    fn short_answer_receive<const MEMORY: bool>(
        &mut self,
        thread: Ref<Thread>,
        operation: u64,
        caller: Ref<Thread>,
    ) -> Option<()> {
        // Preconditions.
        let server = self.memory.get(thread);
        if !server.unusual.is_empty() {
            return None;
        }
        let label = server.label;
        let handle = server.context.arguments()[0];
        let grant = self.short_find(thread, handle, Kind::Receiver, Access::USE)?;
        let endpoint: Ref<Endpoint> = grant.object;
        if !self.must_wait_at(endpoint) {
            return None;
        }
        let waiting = self.memory.get(caller);
        // It called through this endpoint, where its hold is not the last.
        if waiting.message.endpoint != Some(endpoint) {
            return None;
        }
        let space = self.can_switch_to(waiting)?;
        let (length, caps) =
            self.bring::<MEMORY>(thread, caller, operation, MEMORY, Passing::Answer)?;

        // The answer.
        self.memory.get_mut(endpoint).holds -= 1;
        let server = self.memory.get_mut(thread);
        server.owed = Owed::Nothing;
        server.state = State::Receiving;
        server.message.endpoint = Some(endpoint);
        server.context.set_status(RECEIVE);
        self.copy_body(thread, caller, length);
        self.memory.endpoint_queue_receiver(endpoint, thread);
        let waiting = self.memory.get_mut(caller);
        waiting.state = State::Ready;
        waiting.holder = Holder::Nobody;
        waiting.message.endpoint = None;
        let status = Delivery::message(MessageKind::Call, length, caps, 0);
        waiting.context.set_received(status.0, 0, label);
        self.switch(thread, caller, space);
        Some(())
    }

    /// `receive` without flags when there is nothing to receive and no call to be given up; `None`, and
    /// nothing has changed, if the long path has to do it.
    #[inline(always)]
    fn short_receive(&mut self, thread: Ref<Thread>) -> Option<()> {
        // Preconditions.
        self.may_be_short()?;
        if let Owed::Caller(_) = self.memory.get(thread).owed {
            return None;
        }
        self.short_wait_at(thread)
    }

    /// The same that keeps the last received call.
    #[inline(always)]
    fn short_keep_receive(&mut self, thread: Ref<Thread>) -> Option<()> {
        // Preconditions.
        self.may_be_short()?;
        let server = self.memory.get(thread);
        let Owed::Caller(caller) = server.owed else {
            return None;
        };
        let handle = server.context.body()[REPLY_WORD];
        let grant = self.short_find(thread, handle, Kind::Reply, Access::KEEP)?;
        let reply: Ref<Reply> = grant.object;
        if self.memory.get(reply).caller().is_some() {
            return None;
        }
        self.short_wait_at(thread)?;

        // What is left.
        self.memory.get_mut(reply).set_caller(caller);
        self.memory.get_mut(caller).holder = Holder::Reply(reply);
        self.memory.get_mut(thread).context.set_status(RECEIVE);
        Some(())
    }

    /// Waits for a message. A caller whom `thread` owes an answer is still to be kept.
    #[inline(always)]
    fn short_wait_at(&mut self, thread: Ref<Thread>) -> Option<()> {
        // Preconditions.
        let server = self.memory.get(thread);
        if !server.unusual.is_empty() {
            return None;
        }
        let handle = server.context.arguments()[0];
        let grant = self.short_find(thread, handle, Kind::Receiver, Access::USE)?;
        let endpoint: Ref<Endpoint> = grant.object;
        if !self.must_wait_at(endpoint) {
            return None;
        }
        let next = self.next_in_line()?;

        // The wait.
        let server = self.memory.get_mut(thread);
        server.owed = Owed::Nothing;
        server.state = State::Receiving;
        server.message.endpoint = Some(endpoint);
        self.memory.endpoint_queue_receiver(endpoint, thread);
        self.switch_to_next(thread, next);
        Some(())
    }

    /// `reply` to a kept call; `None`, and nothing has changed, if the long path has to do it. It may
    /// have to be decided who runs.
    #[inline(always)]
    pub(super) fn short_reply(&mut self, thread: Ref<Thread>, operation: OpWord) -> Option<()> {
        // Preconditions.
        self.may_be_short()?;
        let server = self.memory.get(thread);
        let [handle, extended, ..] = *server.context.arguments();
        if operation.0 & 0xff00 != 0 || !fits_registers(operation.0) || extended != 0 {
            return None;
        }
        let label = server.label;
        let grant = self.short_find(thread, handle, Kind::Reply, Access::empty())?;
        let reply: Ref<Reply> = grant.object;
        let caller = self.memory.get(reply).caller()?;
        let waiting = self.memory.get(caller);
        let endpoint = waiting.message.endpoint?;
        if !waiting.unusual.is_empty() || self.memory.get(endpoint).holds <= 1 {
            return None;
        }

        // The answer.
        self.memory.get_mut(endpoint).holds -= 1;
        self.memory.get_mut(reply).take_caller();
        self.copy_body(thread, caller, operation.length());
        let waiting = self.memory.get_mut(caller);
        waiting.state = State::Ready;
        waiting.holder = Holder::Nobody;
        waiting.message.endpoint = None;
        let status = Delivery::message(MessageKind::Call, operation.length(), 0, 0);
        waiting.context.set_received(status.0, 0, label);
        self.queue(caller);
        self.memory.get_mut(thread).context.set_status(0);
        Some(())
    }

    /// `signal`; `None`, and nothing has changed, if the long path has to do it. It may have to be
    /// decided who runs.
    #[inline(always)]
    pub(crate) fn short_signal(&mut self, notification: Handle, bits: u64) -> Option<()> {
        // Preconditions.
        self.may_be_short()?;
        let (kind, needed) = (Kind::Notification, Access::SIGNAL);
        let notification: Ref<Notification> = self
            .short_find(self.caller(), notification.0, kind, needed)?
            .object;
        let there = self.memory.get(notification);
        if there.ended || there.bound.is_some() || there.first_waiter().is_some() {
            return None;
        }
        let lone = there.lone;
        if let Some(waiter) = lone
            && !self.memory.get(waiter).unusual.is_empty()
        {
            return None;
        }

        // The signal.
        self.memory.get_mut(notification).set(bits);
        if let Some(waiter) = lone {
            let [_, mask, consume, ..] = *self.memory.get(waiter).context.arguments();
            let there = self.memory.get_mut(notification);
            let seen = there.look(mask, consume != 0);
            if seen != 0 {
                there.lone = None;
                let waiting = self.memory.get_mut(waiter);
                waiting.waits_for = None;
                waiting.state = State::Ready;
                waiting.context.set_results(0, [seen, 0]);
                self.queue(waiter);
            }
        }
        Some(())
    }

    /// `notification_wait` without a deadline for what is not there yet, when somebody else can run;
    /// `None`, and nothing has changed, if the long path has to do it.
    #[inline(always)]
    pub(crate) fn short_wait(&mut self, notification: Handle, mask: u64) -> Option<()> {
        // Preconditions.
        self.may_be_short()?;
        let thread = self.caller();
        if !self.memory.get(thread).unusual.is_empty() {
            return None;
        }
        let (kind, needed) = (Kind::Notification, Access::WAIT);
        let notification: Ref<Notification> = self
            .short_find(thread, notification.0, kind, needed)?
            .object;
        let there = self.memory.get(notification);
        if there.ended || there.bits() & mask != 0 || !there.is_alone() {
            return None;
        }
        let next = self.next_in_line()?;

        // The wait.
        self.memory.get_mut(notification).lone = Some(thread);
        let waiting = self.memory.get_mut(thread);
        waiting.waits_for = Some(notification);
        waiting.state = State::Waiting;
        self.switch_to_next(thread, next);
        Some(())
    }
}

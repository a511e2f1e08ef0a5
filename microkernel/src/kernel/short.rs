//! The short path: a call to a receiver that waits, and the answer to a caller that waits.
//!
//! Nothing here does anything that the long path does not; it only knows that there is nothing
//! else to do. The preconditions come first, in one piece; if one does not hold, nothing has
//! changed and the long path decides.

use super::Kernel;
use crate::machine::Machine;
use crate::memory::Ref;
use crate::object::thread::Holder;
use crate::object::{Endpoint, Owed, State, Thread};
use libipc::abi::{
    Access, Delivery, Handle, INLINE_BYTES, IpcCall, IpcFlags, Kind, MessageKind, OpWord,
};

/// The length of a message without flags and capabilities that fits the registers.
#[inline(always)]
fn short_length(operation: u64) -> Option<u64> {
    let length = operation >> 16;
    (length <= INLINE_BYTES as u64 && operation & 0xff00 == 0).then_some(length)
}

/// What a server's `reply_receive` is once the answer has been given.
const RECEIVE: OpWord = OpWord::new(IpcCall::Receive, IpcFlags::empty(), 0, 0);

impl<M: Machine> Kernel<M> {
    /// Whether a thread that waits can be given the CPU at once. The caller blocks.
    #[inline(always)]
    fn can_switch_to(&self, thread: &Thread) -> bool {
        let cpu = &self.cpus[self.here];
        thread.suspends == 0
            && !thread.timer.is_set()
            && !cpu.reschedule
            && !cpu.ready.has_above(thread.priority)
            && thread
                .space
                .is_some_and(|space| !self.memory.get(space).has_ended())
    }

    /// `call`; false, and nothing has changed, if the long path has to do it.
    #[inline(always)]
    pub(super) fn short_call(&mut self, thread: Ref<Thread>, operation: u64) -> bool {
        // Preconditions.
        let Some(length) = short_length(operation) else {
            return false;
        };
        let [handle, extended, ..] = *self.memory.get(thread).context.arguments();
        let Ok(found) = self.find_in(thread, Handle(handle)) else {
            return false;
        };
        let Ok(endpoint) = found.object::<Endpoint>(Kind::Sender, Access::empty()) else {
            return false;
        };
        let Some(receiver) = self.memory.get(endpoint).receiver() else {
            return false;
        };
        if extended != 0 || !self.can_switch_to(self.memory.get(receiver)) {
            return false;
        }

        // The message.
        self.memory.endpoint_leave(endpoint, receiver);
        self.memory.get_mut(endpoint).holds += 1;
        let caller = self.memory.get_mut(thread);
        caller.state = State::Answer;
        caller.holder = Holder::Thread(receiver);
        caller.message.endpoint = Some(endpoint);
        caller.message.badge = found.badge;
        caller.message.access = found.access;
        caller.message.kind = MessageKind::Call;
        caller.message.killable_only = false;
        caller.message.cancelled = false;
        let label = caller.label;
        if length > 0 {
            let body = *caller.context.body();
            *self.memory.get_mut(receiver).context.body_mut() = body;
        }
        let server = self.memory.get_mut(receiver);
        server.state = State::Ready;
        server.owed = Owed::Caller(thread);
        server.message.endpoint = None;
        let status = Delivery::message(MessageKind::Call, length as usize, 0, found.access);
        server.context.set_received(status.0, found.badge, label);

        // The switch.
        let loaded = self.run(receiver);
        debug_assert!(loaded, "the space was there");
        true
    }

    /// `reply_receive`; false, and nothing has changed, if the long path has to do it.
    #[inline(always)]
    pub(super) fn short_reply_receive(&mut self, thread: Ref<Thread>, operation: u64) -> bool {
        // Preconditions.
        let Some(length) = short_length(operation) else {
            return false;
        };
        let server = self.memory.get(thread);
        let (Owed::Caller(caller), false) = (server.owed, server.interrupted) else {
            return false;
        };
        let label = server.label;
        let handle = Handle(server.context.arguments()[0]);
        let Ok(found) = self.find_in(thread, handle) else {
            return false;
        };
        let Ok(endpoint) = found.object::<Endpoint>(Kind::Receiver, Access::USE) else {
            return false;
        };
        let there = self.memory.get(endpoint);
        let silent = match there.bound {
            None => true,
            Some(notification) => self.memory.get(notification).bits() == 0,
        };
        if there.ended || !there.is_quiet() || !silent {
            return false;
        }
        let waiting = self.memory.get(caller);
        let Some(called) = waiting.message.endpoint else {
            return false;
        };
        if waiting.fault.is_some()
            || waiting.message.cancel_queued
            || self.memory.get(called).holds <= 1
            || !self.can_switch_to(waiting)
        {
            return false;
        }

        // The answer.
        self.memory.get_mut(called).holds -= 1;
        let server = self.memory.get_mut(thread);
        server.owed = Owed::Nothing;
        server.state = State::Receiving;
        server.message.endpoint = Some(endpoint);
        server.message.killable_only = false;
        if length > 0 {
            let body = *server.context.body();
            *self.memory.get_mut(caller).context.body_mut() = body;
        }
        self.memory.get_mut(thread).context.set_status(RECEIVE.0);
        self.memory.endpoint_queue_receiver(endpoint, thread);
        let waiting = self.memory.get_mut(caller);
        waiting.state = State::Ready;
        waiting.holder = Holder::Nobody;
        waiting.message.endpoint = None;
        let status = Delivery::message(MessageKind::Call, length as usize, 0, 0);
        waiting.context.set_received(status.0, 0, label);

        // The switch.
        let loaded = self.run(caller);
        debug_assert!(loaded, "the space was there");
        true
    }
}

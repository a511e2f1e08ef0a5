//! The short path: a call to a receiver that waits, and the answer to a caller that waits.
//!
//! Nothing here does anything that the long path does not; it only knows that there is nothing
//! else to do. The preconditions come first, in one piece; if one does not hold, nothing has
//! changed and the long path decides.

use super::Kernel;
use crate::machine::Machine;
use crate::memory::{Loadable, Ref};
use crate::object::thread::Holder;
use crate::object::{Endpoint, Owed, State, Thread};
use libipc::abi::{
    Access, Delivery, Handle, INLINE_BYTES, IpcCall, IpcFlags, Kind, MessageKind, OpWord,
};

/// The length of a message that fits the registers and brings no capabilities, which stand above it.
#[inline(always)]
fn short_length(operation: u64) -> Option<u64> {
    let length = operation >> 16;
    (length <= INLINE_BYTES as u64).then_some(length)
}

/// What a server's `reply_receive` is once the answer has been given.
const RECEIVE: OpWord = OpWord::new(IpcCall::Receive, IpcFlags::empty(), 0, 0);

impl<M: Machine> Kernel<M> {
    /// The space to load for a thread that waits, if it can be given the CPU at once. The caller
    /// blocks.
    #[inline(always)]
    fn can_switch_to(&self, thread: &Thread) -> Option<Loadable> {
        if !thread.unusual.is_empty() || !self.cpu().ready.yields_to(thread.priority) {
            return None;
        }
        self.memory.space_loadable(thread.space?)
    }

    /// Copies the part of a body that is in registers.
    #[inline(always)]
    fn copy_body(&mut self, from: Ref<Thread>, to: Ref<Thread>) {
        // Word by word: the threads are not known to be different, and eight words at once do not
        // fit the registers.
        for place in 0..INLINE_BYTES / 8 {
            let word = self.memory.get(from).context.body()[place];
            self.memory.get_mut(to).context.body_mut()[place] = word;
        }
    }

    /// `call` without flags; `None`, and nothing has changed, if the long path has to do it.
    #[inline(always)]
    pub(super) fn short_call(&mut self, thread: Ref<Thread>, operation: u64) -> Option<()> {
        #[cfg(test)]
        if self.long_only {
            return None;
        }
        // Preconditions.
        let length = short_length(operation)?;
        let [handle, extended, ..] = *self.memory.get(thread).context.arguments();
        let (_, slot) = self.look_up(thread, Handle(handle))?;
        let grant = self.memory.get(slot.node);
        if grant.kind() != Some(Kind::Sender) {
            return None;
        }
        let (badge, access) = (grant.badge(), slot.access);
        let endpoint: Ref<Endpoint> = Ref::from_bits(grant.object())?;
        let receiver = self.memory.get(endpoint).receiver()?;
        let space = self.can_switch_to(self.memory.get(receiver))?;
        if extended != 0 {
            return None;
        }

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
        if length > 0 {
            self.copy_body(thread, receiver);
        }
        let server = self.memory.get_mut(receiver);
        server.state = State::Ready;
        server.owed = Owed::Caller(thread);
        server.message.endpoint = None;
        let status = Delivery::message(MessageKind::Call, length as usize, 0, access);
        server.context.set_received(status.0, badge, label);
        self.switch(thread, receiver, space);
        Some(())
    }

    /// `reply_receive` without flags; `None`, and nothing has changed, if the long path has to do it.
    #[inline(always)]
    pub(super) fn short_reply_receive(
        &mut self,
        thread: Ref<Thread>,
        operation: u64,
    ) -> Option<()> {
        #[cfg(test)]
        if self.long_only {
            return None;
        }
        // Preconditions.
        let length = short_length(operation)?;
        let server = self.memory.get(thread);
        let Owed::Caller(caller) = server.owed else {
            return None;
        };
        if !server.unusual.is_empty() {
            return None;
        }
        let label = server.label;
        let handle = Handle(server.context.arguments()[0]);
        let (_, slot) = self.look_up(thread, handle)?;
        let grant = self.memory.get(slot.node);
        if grant.kind() != Some(Kind::Receiver) || slot.access & Access::USE.bits() == 0 {
            return None;
        }
        let endpoint: Ref<Endpoint> = Ref::from_bits(grant.object())?;
        let there = self.memory.get(endpoint);
        if there.ended || !there.is_quiet() {
            return None;
        }
        if let Some(notification) = there.bound
            && self.memory.get(notification).bits() != 0
        {
            return None;
        }
        let waiting = self.memory.get(caller);
        // It called through this endpoint, where its hold is not the last.
        if waiting.message.endpoint != Some(endpoint) {
            return None;
        }
        let space = self.can_switch_to(waiting)?;

        // The answer.
        self.memory.get_mut(endpoint).holds -= 1;
        let server = self.memory.get_mut(thread);
        server.owed = Owed::Nothing;
        server.state = State::Receiving;
        server.message.endpoint = Some(endpoint);
        server.context.set_status(RECEIVE.0);
        if length > 0 {
            self.copy_body(thread, caller);
        }
        self.memory.endpoint_queue_receiver(endpoint, thread);
        let waiting = self.memory.get_mut(caller);
        waiting.state = State::Ready;
        waiting.holder = Holder::Nobody;
        waiting.message.endpoint = None;
        let status = Delivery::message(MessageKind::Call, length as usize, 0, 0);
        waiting.context.set_received(status.0, 0, label);
        self.switch(thread, caller, space);
        Some(())
    }
}

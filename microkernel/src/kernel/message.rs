//! Sending, receiving and answering: the long way, which does everything.
//!
//! A message passes when its sender and a receiver meet. A call's sender then waits for the answer,
//! held by the thread that received it or, once that was asked for, by a reply. The answer
//! comes from the server's registers in the same way; what is wrong on the caller's side is then
//! the caller's loss and never stops the server.
//!
//! A call that is made again (because memory had to be asked of a pager) begins anew, so what
//! answers and receives, or keeps and receives, turns into `receive` once its first part is done.

use super::transfer::{MemoryPart, Meta, Trouble};
use super::{Kernel, Stop};
use crate::cap::Node;
use crate::machine::{Machine, Next};
use crate::memory::Ref;
use crate::object::endpoint::End;
use crate::object::thread::{Holder, Unusual};
use crate::object::{Endpoint, Owed, Reply, State, Thread};
use libipc::abi::{
    Access, Delivery, Error, Handle, INLINE_BYTES, IpcCall, IpcFlags, Kind, MESSAGE_BYTES,
    MESSAGE_CAPS, MessageKind, NEVER, OpWord, REPLY_BYTES, REPLY_WORD,
};

/// A decoded memory part.
struct Head {
    memory: Option<MemoryPart>,
    deadline_ns: u64,
}

impl<M: Machine> Kernel<M> {
    /// Carries out a message call of the current thread.
    #[inline(never)]
    pub(crate) fn message_call(
        &mut self,
        thread: Ref<Thread>,
        call: IpcCall,
        operation: OpWord,
    ) -> Next {
        let result = match call {
            IpcCall::Call => self.send(thread, operation, MessageKind::Call),
            IpcCall::Send => self.send(thread, operation, MessageKind::Send),
            IpcCall::Receive => self.receive(thread, operation),
            IpcCall::ReplyReceive => self.reply_receive(thread, operation),
            IpcCall::Reply => match self.short_reply(thread, operation) {
                Some(()) => Ok(()),
                None => self.reply(thread, operation),
            },
        };
        if let Err(stop) = result {
            self.stopped(thread, stop, |context, error| {
                context.set_status(Delivery::failure(error).0);
            });
        }
        self.leave()
    }

    /// Checks what all message calls have in common.
    fn head(&mut self, thread: Ref<Thread>, operation: OpWord) -> Result<Head, Stop> {
        if operation.length() > MESSAGE_BYTES {
            return Err(Error::TooLong.into());
        }
        if operation.caps() > MESSAGE_CAPS {
            return Err(Error::InvalidArgument.into());
        }
        let has_deadline = operation.flags().contains(IpcFlags::DEADLINE);
        let memory = self.memory_part(thread)?;
        if memory.is_none()
            && (has_deadline || operation.caps() > 0 || operation.length() > INLINE_BYTES)
        {
            return Err(Error::BadAddress.into());
        }
        let deadline_ns = match memory {
            Some(memory) if has_deadline => memory.deadline,
            _ => NEVER,
        };
        Ok(Head {
            memory,
            deadline_ns,
        })
    }

    /// Whether a call may wait until its deadline now.
    pub(crate) fn may_wait(&mut self, thread: Ref<Thread>, deadline_ns: u64) -> Result<(), Error> {
        if deadline_ns != NEVER && deadline_ns <= self.memory.machine().now_ns() {
            return Err(Error::TimedOut);
        }
        let unusual = &mut self.memory.get_mut(thread).unusual;
        if unusual.contains(Unusual::INTERRUPTED) {
            unusual.remove(Unusual::INTERRUPTED);
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    // Sending.

    fn send(
        &mut self,
        thread: Ref<Thread>,
        operation: OpWord,
        kind: MessageKind,
    ) -> Result<(), Stop> {
        let head = self.head(thread, operation)?;
        let handle = Handle(self.memory.get(thread).context.arguments()[0]);
        let found = self.find_in(thread, handle)?;
        let endpoint: Ref<Endpoint> = found.object(Kind::Sender, Access::empty())?;
        if let (MessageKind::Call, Some(memory)) = (kind, &head.memory) {
            self.prepare_room(thread, memory)?;
        }
        let message = &mut self.memory.get_mut(thread).message;
        message.badge = found.badge;
        message.access = found.access;
        message.kind = kind;
        message.killable_only = operation.flags().contains(IpcFlags::KILLABLE_ONLY);
        self.send_message(thread, endpoint, found.node, head.deadline_ns)?;
        if kind == MessageKind::Send && self.memory.get(thread).state == State::Ready {
            let context = &mut self.memory.get_mut(thread).context;
            context.set_status(0);
        }
        Ok(())
    }

    /// Delivers a thread's message to a receiver that waits, or queues the thread.
    pub(crate) fn send_message(
        &mut self,
        thread: Ref<Thread>,
        endpoint: Ref<Endpoint>,
        node: Ref<Node>,
        deadline_ns: u64,
    ) -> Result<(), Stop> {
        if !self.memory.get(endpoint).is_served() {
            return Err(Error::ServerGone.into());
        }
        while let Some(receiver) = self.memory.get(endpoint).receiver() {
            match self.transfer(thread, receiver, self.meta(thread)) {
                Ok(()) => {
                    self.memory.endpoint_leave_receiver(endpoint, receiver);
                    self.received(thread, receiver, endpoint);
                    if self.memory.get(thread).state == State::Answer {
                        self.block(thread, State::Answer, deadline_ns);
                        self.hand_over(receiver);
                    } else {
                        self.make_ready(receiver);
                    }
                    return Ok(());
                }
                Err(Trouble::Sender(stop)) => return Err(stop),
                Err(Trouble::Receiver(stop)) => {
                    self.memory.endpoint_leave_receiver(endpoint, receiver);
                    self.stop_timer(receiver);
                    self.fail(receiver, stop);
                }
            }
        }
        self.may_wait(thread, deadline_ns)?;
        self.memory.node_hold(node)?;
        let message = &mut self.memory.get_mut(thread).message;
        message.endpoint = Some(endpoint);
        message.node = Some(node);
        self.memory
            .endpoint_queue_sender(endpoint, thread, End::Back);
        self.block(thread, State::Sending, deadline_ns);
        Ok(())
    }

    fn meta(&self, thread: Ref<Thread>) -> Meta {
        let message = &self.memory.get(thread).message;
        Meta {
            kind: message.kind,
            badge: message.badge,
            access: message.access,
        }
    }

    /// A message has been delivered: a caller waits for the answer now and the receiver owes it.
    /// Both threads are in no queue; the receiver's deadline is off.
    #[inline]
    pub(crate) fn received(
        &mut self,
        sender: Ref<Thread>,
        receiver: Ref<Thread>,
        endpoint: Ref<Endpoint>,
    ) {
        self.stop_timer(receiver);
        self.memory.get_mut(receiver).message.endpoint = None;
        let entry = self.memory.get_mut(sender);
        if entry.message.kind == MessageKind::Send {
            return;
        }
        entry.message.endpoint = Some(endpoint);
        entry.message.cancelled = false;
        entry.state = State::Answer;
        entry.holder = Holder::Thread(receiver);
        self.memory.get_mut(receiver).owed = Owed::Caller(sender);
        self.memory.get_mut(endpoint).holds += 1;
    }

    // Receiving.

    fn receive(&mut self, thread: Ref<Thread>, operation: OpWord) -> Result<(), Stop> {
        let deadline_ns = match operation.flags().contains(IpcFlags::DEADLINE) {
            true => self.head(thread, OpWord(operation.0 & 0xffff))?.deadline_ns,
            false => NEVER,
        };
        let handle = Handle(self.memory.get(thread).context.arguments()[0]);
        let endpoint = self.object_in(thread, handle, Kind::Receiver, Access::USE)?;
        if operation.flags().contains(IpcFlags::REPLY) {
            self.keep_owed(thread, self.named_reply(thread))?;
            self.only_receives(thread, operation);
        } else {
            // Whoever goes on without answering will not answer.
            self.drop_owed(thread);
        }
        self.receive_at(thread, endpoint, deadline_ns)
    }

    /// The reply that a message call with [`IpcFlags::REPLY`] names.
    fn named_reply(&self, thread: Ref<Thread>) -> Handle {
        Handle(self.memory.get(thread).context.body()[REPLY_WORD])
    }

    /// A thread's call, should it be made again, is no more than a `receive`.
    fn only_receives(&mut self, thread: Ref<Thread>, operation: OpWord) {
        let flags = operation.flags() - IpcFlags::REPLY;
        let again = OpWord::new(IpcCall::Receive, flags, 0, 0);
        self.memory.get_mut(thread).context.set_status(again.0);
    }

    fn receive_at(
        &mut self,
        thread: Ref<Thread>,
        endpoint: Ref<Endpoint>,
        deadline_ns: u64,
    ) -> Result<(), Stop> {
        if self.memory.get(endpoint).has_ended() {
            return Err(Error::Gone.into());
        }
        if self.take_message(thread, endpoint)? {
            return Ok(());
        }
        self.may_wait(thread, deadline_ns)?;
        let message = &mut self.memory.get_mut(thread).message;
        message.endpoint = Some(endpoint);
        self.memory.endpoint_queue_receiver(endpoint, thread);
        self.wait(thread, State::Receiving, deadline_ns);
        Ok(())
    }

    /// Delivers what an endpoint has for a receiver; false if there is nothing.
    fn take_message(&mut self, thread: Ref<Thread>, endpoint: Ref<Endpoint>) -> Result<bool, Stop> {
        if self.take_notice(thread, endpoint) {
            return Ok(true);
        }
        while let Some(sender) = self.memory.get(endpoint).sender() {
            let node = self.memory.get(sender).message.node;
            let alive = node.is_some_and(|node| self.memory.get(node).is_alive());
            if !alive {
                self.abort(sender, Error::Gone);
                continue;
            }
            match self.transfer(sender, thread, self.meta(sender)) {
                Ok(()) => {
                    self.leave_queue(sender);
                    self.received(sender, thread, endpoint);
                    if self.memory.get(sender).message.kind == MessageKind::Send {
                        self.stop_timer(sender);
                        self.memory.get_mut(sender).context.set_status(0);
                        self.make_ready(sender);
                    }
                    return Ok(true);
                }
                Err(Trouble::Receiver(stop)) => return Err(stop),
                Err(Trouble::Sender(stop)) => {
                    self.leave_queue(sender);
                    self.stop_timer(sender);
                    self.fail(sender, stop);
                }
            }
        }
        Ok(false)
    }

    /// A queued sender leaves its endpoint's queue; its grant loses a slot.
    fn leave_queue(&mut self, sender: Ref<Thread>) {
        let message = &mut self.memory.get_mut(sender).message;
        let (endpoint, node) = (message.endpoint.take(), message.node.take());
        if let Some(endpoint) = endpoint {
            self.memory.endpoint_leave_sender(endpoint, sender);
        }
        if let Some(node) = node {
            self.release_node(node);
        }
    }

    /// Delivers what an endpoint has to tell beside messages; false if there is nothing.
    pub(crate) fn take_notice(&mut self, thread: Ref<Thread>, endpoint: Ref<Endpoint>) -> bool {
        if let Some(notification) = self.memory.get(endpoint).bound() {
            let bits = self.memory.get_mut(notification).take(u64::MAX);
            if bits != 0 {
                self.tell(thread, MessageKind::Notification, 0, 0, 0, Some(bits));
                return true;
            }
        }
        let mut cancels = self.memory.get(endpoint).cancels();
        if let Some(caller) = cancels.pop(&mut self.memory) {
            self.memory.get_mut(endpoint).set_cancels(cancels);
            let entry = self.memory.get_mut(caller);
            entry.unusual.remove(Unusual::CANCEL_QUEUED);
            let (label, badge, access) = (entry.label, entry.message.badge, entry.message.access);
            self.tell(thread, MessageKind::Cancel, badge, label, access, None);
            return true;
        }
        loop {
            let mut notices = self.memory.get(endpoint).notices();
            let Some(node) = notices.pop(&mut self.memory) else {
                return false;
            };
            self.memory.get_mut(endpoint).set_notices(notices);
            let (badge, alive) = (
                self.memory.get(node).badge(),
                self.memory.get(node).is_alive(),
            );
            self.note_garbage();
            self.garbage.nodes.push(&mut self.memory, node);
            if alive {
                self.tell(thread, MessageKind::NoMoreSenders, badge, 0, 0, None);
                return true;
            }
        }
    }

    /// Sets the results of a receive that brings no thread's message.
    fn tell(
        &mut self,
        thread: Ref<Thread>,
        kind: MessageKind,
        badge: u64,
        label: u64,
        access: u32,
        word: Option<u64>,
    ) {
        let context = &mut self.memory.get_mut(thread).context;
        let length = word.map_or(0, |_| size_of::<u64>());
        *context.body_mut() = [word.unwrap_or(0), 0, 0, 0, 0, 0, 0, 0];
        let status = Delivery::message(kind, length, 0, access);
        context.set_received(status.0, badge, label);
    }

    /// An endpoint has something to tell: a receiver that waits gets it.
    pub(crate) fn tell_receiver(&mut self, endpoint: Ref<Endpoint>) {
        let Some(receiver) = self.memory.get(endpoint).receiver() else {
            return;
        };
        // The receiver leaves first: no receiver waits while there is something to tell.
        if self.take_notice(receiver, endpoint) {
            self.memory.endpoint_leave_receiver(endpoint, receiver);
            self.stop_timer(receiver);
            self.memory.get_mut(receiver).message.endpoint = None;
            self.make_ready(receiver);
        }
    }

    // Answering.

    fn reply_receive(&mut self, thread: Ref<Thread>, operation: OpWord) -> Result<(), Stop> {
        let head = self.head(thread, operation)?;
        let handle = Handle(self.memory.get(thread).context.arguments()[0]);
        let endpoint = self.object_in(thread, handle, Kind::Receiver, Access::USE)?;
        if operation.flags().contains(IpcFlags::REPLY) {
            // What fits the registers cannot fail to be sent.
            if operation.length() > REPLY_BYTES || operation.caps() > 0 {
                return Err(Error::InvalidArgument.into());
            }
            let caller = self.kept_caller(thread, self.named_reply(thread))?;
            // The name is not the caller's to know.
            self.memory.get_mut(thread).context.body_mut()[REPLY_WORD] = 0;
            self.answer(thread, caller)?;
            self.drop_owed(thread);
        } else {
            self.answer_owed(thread)?;
        }
        self.only_receives(thread, operation);
        self.receive_at(thread, endpoint, head.deadline_ns)
    }

    fn reply(&mut self, thread: Ref<Thread>, operation: OpWord) -> Result<(), Stop> {
        self.head(thread, operation)?;
        let handle = Handle(self.memory.get(thread).context.arguments()[0]);
        if handle.is_some() {
            let caller = self.kept_caller(thread, handle)?;
            self.answer(thread, caller)?;
        } else {
            self.answer_owed(thread)?;
        }
        self.memory.get_mut(thread).context.set_status(0);
        Ok(())
    }

    /// The caller whose call is kept by the reply that a handle of a thread names.
    fn kept_caller(&self, thread: Ref<Thread>, reply: Handle) -> Result<Ref<Thread>, Error> {
        let reply: Ref<Reply> = self.object_in(thread, reply, Kind::Reply, Access::empty())?;
        self.memory.get(reply).caller().ok_or(Error::Gone)
    }

    /// The call that a thread received last is kept by a reply from now on.
    pub(crate) fn keep_owed(&mut self, thread: Ref<Thread>, reply: Handle) -> Result<(), Error> {
        let reply: Ref<Reply> = self.object_in(thread, reply, Kind::Reply, Access::KEEP)?;
        if self.memory.get(reply).caller().is_some() {
            return Err(Error::WrongState);
        }
        let caller = self.caller_owed(thread)?;
        self.memory.get_mut(reply).set_caller(caller);
        self.memory.get_mut(caller).holder = Holder::Reply(reply);
        self.memory.get_mut(thread).owed = Owed::Nothing;
        Ok(())
    }

    /// Whom a thread owes an answer. Of one that has gone it is told once.
    fn caller_owed(&mut self, thread: Ref<Thread>) -> Result<Ref<Thread>, Error> {
        match self.memory.get(thread).owed {
            Owed::Nothing => Err(Error::WrongState),
            Owed::Gone => {
                self.memory.get_mut(thread).owed = Owed::Nothing;
                Err(Error::Gone)
            }
            Owed::Caller(caller) => Ok(caller),
        }
    }

    /// Answers the call that a thread received last.
    fn answer_owed(&mut self, thread: Ref<Thread>) -> Result<(), Stop> {
        let caller = self.caller_owed(thread)?;
        self.answer(thread, caller)
    }

    /// Answers a caller with the message in `thread`'s registers.
    fn answer(&mut self, thread: Ref<Thread>, caller: Ref<Thread>) -> Result<(), Stop> {
        if self.memory.get(caller).fault().is_some() {
            self.release_caller(caller);
            self.memory.get_mut(caller).set_fault(None);
            self.make_ready(caller);
            return Ok(());
        }
        let error = match self.transfer(thread, caller, Meta::ANSWER) {
            Ok(()) => {
                self.release_caller(caller);
                self.make_ready(caller);
                return Ok(());
            }
            Err(Trouble::Receiver(Stop::Error(error))) => error,
            // Its buffer was there when it called.
            Err(Trouble::Receiver(_)) => Error::BadAddress,
            // The caller has no room for it.
            Err(Trouble::Sender(Stop::Error(Error::TooLong))) => Error::TooLong,
            Err(Trouble::Sender(stop)) => return Err(stop),
        };
        // The call fails with the answer, and has been answered all the same.
        let was_owed = self.memory.get(thread).owed == Owed::Caller(caller);
        self.abort(caller, error);
        if was_owed {
            self.memory.get_mut(thread).owed = Owed::Nothing;
        }
        self.lose_cargo(thread);
        Ok(())
    }

    /// Nobody owes this caller an answer any more: it has it.
    #[inline]
    pub(crate) fn release_caller(&mut self, caller: Ref<Thread>) {
        self.stop_timer(caller);
        let entry = self.memory.get_mut(caller);
        let holder = core::mem::replace(&mut entry.holder, Holder::Nobody);
        let endpoint = entry.message.endpoint.take();
        let cancel_queued = entry.unusual.contains(Unusual::CANCEL_QUEUED);
        entry.unusual.remove(Unusual::CANCEL_QUEUED);
        match holder {
            Holder::Thread(server) => self.memory.get_mut(server).owed = Owed::Nothing,
            Holder::Reply(reply) => {
                self.memory.get_mut(reply).take_caller();
            }
            Holder::Nobody => {}
        }
        if let Some(endpoint) = endpoint {
            if cancel_queued {
                let mut cancels = self.memory.get(endpoint).cancels();
                cancels.remove(&mut self.memory, caller);
                self.memory.get_mut(endpoint).set_cancels(cancels);
            }
            self.release_endpoint(endpoint);
        }
    }

    /// A thread will not answer the call that it received last.
    pub(crate) fn drop_owed(&mut self, thread: Ref<Thread>) {
        let owed = core::mem::replace(&mut self.memory.get_mut(thread).owed, Owed::Nothing);
        if let Owed::Caller(caller) = owed {
            self.abort(caller, Error::Gone);
            self.memory.get_mut(thread).owed = Owed::Nothing;
        }
    }

    // Ending a wait.

    /// A thread that is in no queue any more does not get what it waited for.
    fn fail(&mut self, thread: Ref<Thread>, stop: Stop) {
        let entry = self.memory.get_mut(thread);
        entry.message.endpoint = None;
        entry.state = State::Ready;
        match (stop, entry.message.kind) {
            // A fault that cannot be told.
            (_, MessageKind::Fault) if entry.fault().is_some() => self.end_thread(thread),
            (stop, _) => {
                self.stopped(thread, stop, |context, error| {
                    context.set_status(Delivery::failure(error).0);
                });
                self.let_run(thread);
            }
        }
    }

    /// Ends what a thread waits for with an error. Does nothing to a thread that does not wait.
    pub(crate) fn abort(&mut self, thread: Ref<Thread>, error: Error) {
        let state = self.memory.get(thread).state;
        self.stop_waiting(thread);
        let entry = self.memory.get_mut(thread);
        match state {
            State::Ready | State::Ended => return,
            State::Sending | State::Answer if entry.fault().is_some() => {
                self.end_thread(thread);
                return;
            }
            State::Sending | State::Answer | State::Receiving => {
                entry.context.set_status(Delivery::failure(error).0);
            }
            State::Waiting | State::Futex => entry.context.set_results(error as u64, [0; 2]),
        }
        self.let_run(thread);
    }

    /// Takes a thread out of whatever it waits for. It is in state Ready afterwards, but in no
    /// queue.
    pub(crate) fn stop_waiting(&mut self, thread: Ref<Thread>) {
        let state = self.memory.get(thread).state;
        match state {
            State::Ready | State::Ended => return,
            State::Sending => self.leave_queue(thread),
            State::Receiving => {
                let endpoint = self.memory.get_mut(thread).message.endpoint.take();
                if let Some(endpoint) = endpoint {
                    self.memory.endpoint_leave_receiver(endpoint, thread);
                }
            }
            State::Answer => {
                let holder = self.memory.get(thread).holder;
                self.release_caller(thread);
                if let Holder::Thread(server) = holder {
                    self.memory.get_mut(server).owed = Owed::Gone;
                }
            }
            State::Waiting => self.leave_waits(thread),
            State::Futex => self.futexes.leave(&mut self.memory, thread),
        }
        self.stop_timer(thread);
        self.memory.get_mut(thread).state = State::Ready;
    }

    /// Interrupts what a thread waits for, if its kind of wait permits it.
    pub(crate) fn interrupt_thread(&mut self, thread: Ref<Thread>) {
        let entry = self.memory.get_mut(thread);
        match entry.state {
            State::Ready | State::Ended => {}
            State::Sending | State::Answer if entry.fault().is_some() => {}
            State::Sending | State::Answer if entry.message.killable_only => {
                entry.unusual.insert(Unusual::INTERRUPTED);
            }
            State::Answer => self.cancel(thread),
            _ => self.abort(thread, Error::Interrupted),
        }
    }

    /// Tells the server of a received call that its caller wants it back, once.
    fn cancel(&mut self, caller: Ref<Thread>) {
        let entry = self.memory.get_mut(caller);
        let Some(endpoint) = entry.message.endpoint else {
            return;
        };
        if core::mem::replace(&mut entry.message.cancelled, true) {
            return;
        }
        entry.unusual.insert(Unusual::CANCEL_QUEUED);
        let mut cancels = self.memory.get(endpoint).cancels();
        cancels.push(&mut self.memory, caller);
        self.memory.get_mut(endpoint).set_cancels(cancels);
        self.tell_receiver(endpoint);
    }
}

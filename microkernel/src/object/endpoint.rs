//! Endpoints: where a sender and a receiver meet.
//!
//! A message goes straight from one thread to the other, so the kernel never stores one. Beside
//! messages an endpoint has things to tell its receiver: bits of a bound notification, calls that
//! their callers want back, badges of which no capability is left.
//!
//! Invariant: threads that send wait here, or threads that receive do, or nobody: never both, and
//! no receiver waits while there is something to tell.

use super::{Notification, Queue, Thread};
use crate::cap::Nodes;
use crate::machine::Machine;
use crate::memory::{Memory, Object, ObjectKind, Ref};
use bitflags::bitflags;

bitflags! {
    /// What a receiver has to look at before it waits at an endpoint, and a sender before its message
    /// passes at once, in one word.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Pending: u8 {
        /// Threads wait with messages.
        const SENDERS = 1 << 0;
        /// Callers want their calls back.
        const CANCELS = 1 << 1;
        /// Badges have no capability left.
        const NOTICES = 1 << 2;
        /// A notification is bound, which may have bits.
        const BOUND = 1 << 3;
        /// It has ended.
        const ENDED = 1 << 4;
        /// No capability to receive here is left.
        const UNRECEIVED = 1 << 5;
    }
}

/// What a receiver finds at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: it has to wait.
    Nothing,
    /// The bits of this notification, if it has any.
    Bits(Ref<Notification>),
    /// A message, something to be told, or that the endpoint has ended.
    Something,
}

/// A meeting point for sending and receiving threads.
pub struct Endpoint {
    senders: Queue,
    receivers: Queue,
    /// What happens to queued calls when the last receiver goes.
    keep_queued: bool,
    /// Says of the four fields below whether there is anything in them, of `senders` too; whether
    /// its pool has ended or nobody refers to it: no message goes through it any more; and whether
    /// anybody may still receive.
    pending: Pending,
    /// Callers that want their received calls back.
    cancels: Queue,
    /// Sender nodes of which no slot is left.
    notices: Nodes,
    /// Its bits are delivered here; a hold on it.
    bound: Option<Ref<Notification>>,
    /// Capabilities and threads that refer to it.
    pub(crate) holds: u32,
    /// The next one in the list of those to be looked at.
    pub(crate) next_ending: Option<Ref<Endpoint>>,
    /// It is on that list.
    pub(crate) listed: bool,
}

impl Object for Endpoint {
    const KIND: ObjectKind = ObjectKind::Endpoint;
}

impl Endpoint {
    /// An endpoint at which nobody waits, with one hold.
    pub fn new(keep_queued: bool) -> Endpoint {
        Endpoint {
            senders: Queue::EMPTY,
            receivers: Queue::EMPTY,
            keep_queued,
            pending: Pending::empty(),
            cancels: Queue::EMPTY,
            notices: Nodes::default(),
            bound: None,
            holds: 1,
            next_ending: None,
            listed: false,
        }
    }

    /// Whether a message sent now can ever be received.
    #[inline]
    pub fn is_served(&self) -> bool {
        !self.has_ended() && (!self.is_without_receiver() || self.keep_queued)
    }

    /// Whether no capability to receive here is left.
    #[inline]
    pub fn is_without_receiver(&self) -> bool {
        self.pending.contains(Pending::UNRECEIVED)
    }

    /// No capability to receive here is left.
    pub fn lose_receiver(&mut self) {
        self.pending.insert(Pending::UNRECEIVED);
    }

    /// The receiver that has waited longest, if it will get what is sent now.
    #[inline(always)]
    pub fn receiver_to_stay(&self) -> Option<Ref<Thread>> {
        match self
            .pending
            .intersects(Pending::ENDED | Pending::UNRECEIVED)
        {
            true => None,
            false => self.receiver(),
        }
    }

    /// The receiver that has waited longest.
    #[inline]
    pub fn receiver(&self) -> Option<Ref<Thread>> {
        self.receivers.first()
    }

    /// The sender that has waited longest.
    #[inline]
    pub fn sender(&self) -> Option<Ref<Thread>> {
        self.senders.first()
    }

    /// What a receiver finds here.
    #[inline(always)]
    pub fn found(&self) -> Found {
        if self.pending.is_empty() {
            return Found::Nothing;
        }
        match self.bound {
            Some(notification) if self.pending == Pending::BOUND => Found::Bits(notification),
            _ => Found::Something,
        }
    }

    /// Whether no message goes through it any more.
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.pending.contains(Pending::ENDED)
    }

    /// No message goes through it any more.
    pub fn end(&mut self) {
        self.pending.insert(Pending::ENDED);
    }

    fn set_senders(&mut self, senders: Queue) {
        self.senders = senders;
        self.pending.set(Pending::SENDERS, !senders.is_empty());
    }

    /// Callers that want their received calls back.
    pub fn cancels(&self) -> Queue {
        self.cancels
    }

    /// Changes them.
    pub fn set_cancels(&mut self, cancels: Queue) {
        self.cancels = cancels;
        self.pending.set(Pending::CANCELS, !cancels.is_empty());
    }

    /// Sender nodes of which no slot is left.
    pub fn notices(&self) -> Nodes {
        self.notices
    }

    /// Changes them.
    pub fn set_notices(&mut self, notices: Nodes) {
        self.notices = notices;
        self.pending.set(Pending::NOTICES, !notices.is_empty());
    }

    /// The notification whose bits are delivered here.
    pub fn bound(&self) -> Option<Ref<Notification>> {
        self.bound
    }

    /// Changes it, and returns which it was.
    pub fn set_bound(&mut self, to: Option<Ref<Notification>>) -> Option<Ref<Notification>> {
        self.pending.set(Pending::BOUND, to.is_some());
        core::mem::replace(&mut self.bound, to)
    }
}

/// Which end of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Behind the others.
    Back,
    /// Before the others.
    Front,
}

impl<M: Machine> Memory<M> {
    /// Lets a thread wait here for a receiver.
    pub fn endpoint_queue_sender(
        &mut self,
        endpoint: Ref<Endpoint>,
        thread: Ref<Thread>,
        end: End,
    ) {
        let here = self.get(endpoint);
        debug_assert!(here.receivers.is_empty());
        let mut senders = here.senders;
        match end {
            End::Back => senders.push(self, thread),
            End::Front => senders.push_front(self, thread),
        }
        self.get_mut(endpoint).set_senders(senders);
    }

    /// Lets a thread wait here for a message.
    #[inline(always)]
    pub fn endpoint_queue_receiver(&mut self, endpoint: Ref<Endpoint>, thread: Ref<Thread>) {
        let here = self.get(endpoint);
        debug_assert!(here.found() != Found::Something);
        let mut receivers = here.receivers;
        receivers.push(self, thread);
        self.get_mut(endpoint).receivers = receivers;
    }

    /// Takes a thread out that waits here for a receiver.
    #[inline]
    pub fn endpoint_leave_sender(&mut self, endpoint: Ref<Endpoint>, thread: Ref<Thread>) {
        let mut senders = self.get(endpoint).senders;
        senders.remove(self, thread);
        self.get_mut(endpoint).set_senders(senders);
    }

    /// Takes a thread out that waits here for a message.
    #[inline(always)]
    pub fn endpoint_leave_receiver(&mut self, endpoint: Ref<Endpoint>, thread: Ref<Thread>) {
        let mut receivers = self.get(endpoint).receivers;
        receivers.remove(self, thread);
        self.get_mut(endpoint).receivers = receivers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;

    #[test]
    fn senders_or_receivers_wait_but_never_both() {
        let mut memory = fake::memory(64);
        let pool = memory.root_pool();
        let endpoint = memory.create(pool, Endpoint::new(false)).unwrap();
        let one = memory.create(pool, Thread::new()).unwrap();
        let two = memory.create(pool, Thread::new()).unwrap();
        memory.endpoint_queue_sender(endpoint, one, End::Back);
        memory.endpoint_queue_sender(endpoint, two, End::Front);
        assert_eq!(memory.get(endpoint).sender(), Some(two));
        assert_eq!(memory.get(endpoint).found(), Found::Something);
        assert_eq!(memory.get(endpoint).receiver(), None);
        memory.endpoint_leave_sender(endpoint, two);
        memory.endpoint_leave_sender(endpoint, one);
        assert_eq!(memory.get(endpoint).found(), Found::Nothing);
        memory.endpoint_queue_receiver(endpoint, one);
        assert_eq!(memory.get(endpoint).sender(), None);
        assert_eq!(memory.get(endpoint).receiver(), Some(one));
    }

    #[test]
    fn an_endpoint_without_receiver_serves_only_if_its_maker_chose_so() {
        let mut endpoint = Endpoint::new(true);
        endpoint.lose_receiver();
        assert!(endpoint.is_served());
        endpoint.end();
        assert!(!endpoint.is_served());
        let mut endpoint = Endpoint::new(false);
        endpoint.lose_receiver();
        assert!(!endpoint.is_served());
    }
}

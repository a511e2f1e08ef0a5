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

/// A meeting point for sending and receiving threads.
pub struct Endpoint {
    senders: Queue,
    receivers: Queue,
    /// What happens to queued calls when the last receiver goes.
    keep_queued: bool,
    /// No capability to receive here is left.
    pub(crate) without_receiver: bool,
    /// Its pool has ended, or nobody refers to it: no message goes through it any more.
    pub(crate) ended: bool,
    /// Callers that want their received calls back.
    pub(crate) cancels: Queue,
    /// Sender nodes of which no slot is left.
    pub(crate) notices: Nodes,
    /// Its bits are delivered here; a hold on it.
    pub(crate) bound: Option<Ref<Notification>>,
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
            without_receiver: false,
            ended: false,
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
        !self.ended && (!self.without_receiver || self.keep_queued)
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

    /// Whether a receiver would find nothing here, not counting a bound notification.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.senders.is_empty() && self.cancels.is_empty() && self.notices.is_empty()
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
        self.get_mut(endpoint).senders = senders;
    }

    /// Lets a thread wait here for a message.
    #[inline(always)]
    pub fn endpoint_queue_receiver(&mut self, endpoint: Ref<Endpoint>, thread: Ref<Thread>) {
        let here = self.get(endpoint);
        debug_assert!(here.is_quiet());
        let mut receivers = here.receivers;
        receivers.push(self, thread);
        self.get_mut(endpoint).receivers = receivers;
    }

    /// Takes a thread out that waits here for a receiver.
    #[inline]
    pub fn endpoint_leave_sender(&mut self, endpoint: Ref<Endpoint>, thread: Ref<Thread>) {
        let mut senders = self.get(endpoint).senders;
        senders.remove(self, thread);
        self.get_mut(endpoint).senders = senders;
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
        assert_eq!(memory.get(endpoint).receiver(), None);
        memory.endpoint_leave_sender(endpoint, two);
        memory.endpoint_leave_sender(endpoint, one);
        assert!(memory.get(endpoint).is_quiet());
        memory.endpoint_queue_receiver(endpoint, one);
        assert_eq!(memory.get(endpoint).sender(), None);
        assert_eq!(memory.get(endpoint).receiver(), Some(one));
    }

    #[test]
    fn an_endpoint_without_receiver_serves_only_if_its_maker_chose_so() {
        let mut endpoint = Endpoint::new(true);
        endpoint.without_receiver = true;
        assert!(endpoint.is_served());
        endpoint.ended = true;
        assert!(!endpoint.is_served());
        let mut endpoint = Endpoint::new(false);
        endpoint.without_receiver = true;
        assert!(!endpoint.is_served());
    }
}

//! Notifications: a word of bits that can be waited for.
//!
//! Interrupts, timers, process ends and server events all arrive as bits. Taking a bit clears it
//! unless it is sticky (a sticky bit says that something *is* so, a taking one that it happened).
//!
//! A thread that waits for one notification, for which nobody else waits, is named by it, and names
//! it. Otherwise a [`Waiter`] links a thread and a notification: the thread waits for the
//! notification, or the notification is to be told of the thread's end. A thread may wait for many
//! notifications, so the links are objects of their own, charged to the waiting thread's pool.

use super::{Endpoint, Thread};
use crate::machine::Machine;
use crate::memory::{Memory, Object, ObjectKind, Ref};
use crate::sched::timers::TimerNode;

/// A word of bits.
pub struct Notification {
    bits: u64,
    sticky: u64,
    /// The thread that has waited longest, if it waits for nothing else.
    pub(crate) lone: Option<Ref<Thread>>,
    /// Others that wait for it.
    waiters: Option<Ref<Waiter>>,
    /// The endpoint at which its bits are delivered. The endpoint holds the notification.
    pub(crate) bound: Option<Ref<Endpoint>>,
    /// Its timer, and the bits that are set when it fires.
    pub(crate) timer: TimerNode,
    pub(crate) timer_bits: u64,
    /// Capabilities, watchers, interrupt lines and endpoints that refer to it.
    pub(crate) holds: u32,
    pub(crate) ended: bool,
}

impl Object for Notification {
    const KIND: ObjectKind = ObjectKind::Notification;
}

impl Notification {
    /// A notification with no bit set and one hold. Bits in `sticky` stay set when they are taken.
    pub fn new(sticky: u64) -> Notification {
        Notification {
            bits: 0,
            sticky,
            lone: None,
            waiters: None,
            bound: None,
            timer: TimerNode::default(),
            timer_bits: 0,
            holds: 1,
            ended: false,
        }
    }

    /// The bits that are set.
    #[inline]
    pub fn bits(&self) -> u64 {
        self.bits
    }

    /// The bits that stay when they are taken.
    pub fn sticky(&self) -> u64 {
        self.sticky
    }

    /// Sets bits.
    #[inline]
    pub fn set(&mut self, bits: u64) {
        self.bits |= bits;
    }

    /// Takes what is set of `mask`: sticky bits stay.
    #[inline]
    pub fn take(&mut self, mask: u64) -> u64 {
        let seen = self.bits & mask;
        self.bits &= !seen | self.sticky;
        seen
    }

    /// What is set of `mask`; `consume` takes it.
    #[inline]
    pub fn look(&mut self, mask: u64, consume: bool) -> u64 {
        match consume {
            true => self.take(mask),
            false => self.bits & mask,
        }
    }

    /// Clears bits, sticky ones too; returns what was set of them.
    pub fn clear(&mut self, bits: u64) -> u64 {
        let was = self.bits & bits;
        self.bits &= !bits;
        was
    }

    /// The first of the links to those who wait.
    #[inline]
    pub fn first_waiter(&self) -> Option<Ref<Waiter>> {
        self.waiters
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_alone(&self) -> bool {
        self.lone.is_none() && self.waiters.is_none()
    }
}

/// A link between a thread and a notification.
///
/// Invariant: a waiter is in its thread's list of waits, and while the thread waits in its
/// notification's ring; or it is a watch, in its thread's list of watches, and holds its notification.
pub struct Waiter {
    /// Who waits or is watched.
    pub(crate) thread: Ref<Thread>,
    /// What is waited for or told.
    pub(crate) notification: Ref<Notification>,
    /// The bits that count or are set.
    pub(crate) bits: u64,
    /// The next of the same thread.
    pub(crate) next_of_thread: Option<Ref<Waiter>>,
    /// The one before of the same thread; kept for watches only.
    pub(crate) previous_of_thread: Option<Ref<Waiter>>,
    /// The notification is to be told of the thread's end.
    pub(crate) is_watch: bool,
    /// Neighbours in the notification's ring, if it is in it.
    ring: Option<[Ref<Waiter>; 2]>,
}

impl Object for Waiter {
    const KIND: ObjectKind = ObjectKind::Waiter;
}

impl Waiter {
    /// A link that is in no list yet.
    pub fn new(thread: Ref<Thread>, notification: Ref<Notification>, bits: u64) -> Waiter {
        Waiter {
            thread,
            notification,
            bits,
            next_of_thread: None,
            previous_of_thread: None,
            is_watch: false,
            ring: None,
        }
    }
}

impl<M: Machine> Memory<M> {
    /// Puts a waiter behind all others that wait for its notification.
    pub fn waiter_enter(&mut self, waiter: Ref<Waiter>) {
        let notification = self.get(waiter).notification;
        debug_assert!(self.get(waiter).ring.is_none());
        match self.get(notification).waiters {
            None => {
                self.get_mut(waiter).ring = Some([waiter, waiter]);
                self.get_mut(notification).waiters = Some(waiter);
            }
            Some(first) => {
                let [last, _] = self.get(first).ring.expect("in the ring");
                self.get_mut(waiter).ring = Some([last, first]);
                self.ring_set(last, 1, waiter);
                self.ring_set(first, 0, waiter);
            }
        }
    }

    /// Takes a waiter out of its notification's ring, if it is in it.
    pub fn waiter_leave(&mut self, waiter: Ref<Waiter>) {
        let entry = self.get_mut(waiter);
        let notification = entry.notification;
        let Some([before, after]) = entry.ring.take() else {
            return;
        };
        if after == waiter {
            self.get_mut(notification).waiters = None;
            return;
        }
        self.ring_set(before, 1, after);
        self.ring_set(after, 0, before);
        let head = &mut self.get_mut(notification).waiters;
        if *head == Some(waiter) {
            *head = Some(after);
        }
    }

    /// The waiter behind this one in the ring; `None` at the end.
    pub fn waiter_after(&self, waiter: Ref<Waiter>) -> Option<Ref<Waiter>> {
        let entry = self.get(waiter);
        let [_, next] = entry.ring?;
        (self.get(entry.notification).waiters != Some(next)).then_some(next)
    }

    fn ring_set(&mut self, waiter: Ref<Waiter>, side: usize, to: Ref<Waiter>) {
        if let Some(ring) = &mut self.get_mut(waiter).ring {
            ring[side] = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;

    #[test]
    fn taking_clears_what_is_not_sticky() {
        let mut notification = Notification::new(0b100);
        notification.set(0b111);
        assert_eq!(notification.take(0b110), 0b110);
        assert_eq!(notification.bits(), 0b101);
        assert_eq!(notification.clear(0b100), 0b100);
        assert_eq!(notification.bits(), 1);
    }

    #[test]
    fn waiters_stand_in_line_and_leave_from_anywhere() {
        let mut memory = fake::memory(64);
        let pool = memory.root_pool();
        let thread = memory.create(pool, Thread::new()).unwrap();
        let notification = memory.create(pool, Notification::new(0)).unwrap();
        let [one, two, three] = core::array::from_fn(|_| {
            let waiter = Waiter::new(thread, notification, 1);
            let waiter = memory.create(pool, waiter).unwrap();
            memory.waiter_enter(waiter);
            waiter
        });
        assert_eq!(memory.get(notification).first_waiter(), Some(one));
        assert_eq!(memory.waiter_after(one), Some(two));
        memory.waiter_leave(two);
        memory.waiter_leave(two);
        assert_eq!(memory.waiter_after(one), Some(three));
        memory.waiter_leave(one);
        assert_eq!(memory.waiter_after(three), None);
        memory.waiter_leave(three);
        assert_eq!(memory.get(notification).first_waiter(), None);
    }
}

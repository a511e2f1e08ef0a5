//! The ready queues of a CPU: one for each priority, and a word that says which are not empty.
//!
//! Cleaning up after ended objects takes part as if it were a thread: it has the priority of who
//! caused it, so that a thread of higher priority need not wait for it.
//!
//! Invariant: a bit of `occupied` is set exactly if its queue is not empty.

use crate::machine::Machine;
use crate::memory::{Memory, Ref};
use crate::object::{Queue, Thread};

/// Number of priorities.
pub const PRIORITIES: usize = 32;

/// The threads that could run on a CPU but do not.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    queues: [Queue; PRIORITIES],
    occupied: u32,
}

impl Ready {
    /// Nobody.
    pub const EMPTY: Ready = Ready {
        queues: [Queue::EMPTY; PRIORITIES],
        occupied: 0,
    };

    /// Whether nobody is ready.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Whether somebody of a higher priority than this is ready.
    #[inline]
    pub fn has_above(&self, priority: u8) -> bool {
        (self.occupied >> priority) > 1
    }

    /// Whether somebody of this or a higher priority is ready.
    #[inline]
    pub fn has_at_least(&self, priority: u8) -> bool {
        (self.occupied >> priority) != 0
    }

    /// The highest priority of those who are ready.
    #[inline]
    pub fn highest(&self) -> Option<u8> {
        self.occupied.checked_ilog2().map(|bit| bit as u8)
    }

    /// Puts a thread behind the others of its priority.
    #[inline]
    pub fn push<M: Machine>(&mut self, memory: &mut Memory<M>, thread: Ref<Thread>) {
        let priority = mark(memory, thread);
        self.queues[priority].push(memory, thread);
        self.occupied |= 1 << priority;
    }

    /// Puts a thread before the others of its priority: it had its turn taken away.
    #[inline]
    pub fn push_front<M: Machine>(&mut self, memory: &mut Memory<M>, thread: Ref<Thread>) {
        let priority = mark(memory, thread);
        self.queues[priority].push_front(memory, thread);
        self.occupied |= 1 << priority;
    }

    /// Takes out the first thread of the highest priority.
    #[inline]
    pub fn pop<M: Machine>(&mut self, memory: &mut Memory<M>) -> Option<Ref<Thread>> {
        let priority = self.highest()?;
        let thread = self.queues[priority as usize]
            .first()
            .expect("the bit says that there is one");
        self.remove(memory, thread);
        Some(thread)
    }

    /// Takes out a thread that is ready, before its priority changes.
    #[inline]
    pub fn remove<M: Machine>(&mut self, memory: &mut Memory<M>, thread: Ref<Thread>) {
        let entry = memory.get_mut(thread);
        entry.queued = false;
        let priority = entry.priority as usize % PRIORITIES;
        self.queues[priority].remove(memory, thread);
        if self.queues[priority].is_empty() {
            self.occupied &= !(1 << priority);
        }
    }
}

/// Notes that a thread is in a queue; returns which.
#[inline]
fn mark<M: Machine>(memory: &mut Memory<M>, thread: Ref<Thread>) -> usize {
    let entry = memory.get_mut(thread);
    entry.queued = true;
    entry.priority as usize % PRIORITIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;

    #[test]
    fn the_highest_priority_comes_first_and_equals_take_turns() {
        let mut memory = fake::memory(64);
        let pool = memory.root_pool();
        let mut ready = Ready::EMPTY;
        assert_eq!(ready.pop(&mut memory), None);
        let [low, high, other] = [0, 31, 31].map(|priority| {
            let mut thread = Thread::new();
            thread.priority = priority;
            let thread = memory.create(pool, thread).unwrap();
            ready.push(&mut memory, thread);
            thread
        });
        assert_eq!(ready.highest(), Some(31));
        assert!(ready.has_above(30) && !ready.has_above(31) && ready.has_at_least(31));
        assert_eq!(ready.pop(&mut memory), Some(high));
        ready.push(&mut memory, high);
        assert_eq!(ready.pop(&mut memory), Some(other));
        ready.push_front(&mut memory, other);
        assert_eq!(ready.pop(&mut memory), Some(other));
        ready.remove(&mut memory, high);
        assert_eq!(ready.pop(&mut memory), Some(low));
        assert!(ready.is_empty());
    }
}

//! The ready queues of a CPU: one for each priority, and a word that says which are not empty and
//! whether it has to be decided anew who runs.
//!
//! Cleaning up after ended objects takes part as if it were a thread: it has the priority of who
//! caused it, so that a thread of higher priority need not wait for it.
//!
//! Invariant: a priority's bit of `occupied` is set exactly if its queue is not empty.

use crate::machine::Machine;
use crate::memory::{Memory, Ref};
use crate::object::{Queue, Thread};

/// Number of priorities.
pub const PRIORITIES: usize = 32;

/// The threads that could run on a CPU but do not.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    queues: [Queue; PRIORITIES],
    occupied: u64,
}

/// Bit of `occupied`: it has to be decided who runs. It stands above those of the priorities.
const UNDECIDED: u64 = 1 << PRIORITIES;

impl Ready {
    /// Nobody.
    pub const EMPTY: Ready = Ready {
        queues: [Queue::EMPTY; PRIORITIES],
        occupied: 0,
    };

    /// Whether it has to be decided who runs.
    #[inline]
    pub fn is_undecided(&self) -> bool {
        self.occupied & UNDECIDED != 0
    }

    /// It has to be decided who runs, or has been.
    #[inline]
    pub fn set_undecided(&mut self, undecided: bool) {
        match undecided {
            true => self.occupied |= UNDECIDED,
            false => self.occupied &= !UNDECIDED,
        }
    }

    /// Whether nothing is to be decided and nobody of a higher priority than this is ready.
    #[inline]
    pub fn yields_to(&self, priority: u8) -> bool {
        (self.occupied >> priority) <= 1
    }

    /// Whether somebody of a higher priority than this is ready.
    #[inline]
    pub fn has_above(&self, priority: u8) -> bool {
        (self.priorities() >> priority) > 1
    }

    /// Whether somebody of this or a higher priority is ready.
    #[inline]
    pub fn has_at_least(&self, priority: u8) -> bool {
        (self.priorities() >> priority) != 0
    }

    /// The highest priority of those who are ready.
    #[inline]
    pub fn highest(&self) -> Option<u8> {
        self.priorities().checked_ilog2().map(|bit| bit as u8)
    }

    /// A bit for each priority of which somebody is ready.
    #[inline]
    fn priorities(&self) -> u32 {
        self.occupied as u32
    }

    /// The first thread of the highest priority.
    #[inline]
    pub fn first(&self) -> Option<Ref<Thread>> {
        self.queues[self.highest()? as usize].first()
    }

    /// Puts a thread behind the others of its priority.
    #[inline(always)]
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
        let thread = self.first()?;
        self.remove(memory, thread);
        Some(thread)
    }

    /// Takes out a thread that is ready, before its priority changes.
    #[inline(always)]
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
        assert!(ready.yields_to(31) && !ready.yields_to(30));
        ready.set_undecided(true);
        assert!(!ready.yields_to(31) && ready.is_undecided());
        assert!(ready.has_above(30) && !ready.has_above(31) && ready.has_at_least(31));
        assert_eq!(ready.pop(&mut memory), Some(high));
        ready.push(&mut memory, high);
        assert_eq!(ready.pop(&mut memory), Some(other));
        ready.push_front(&mut memory, other);
        assert_eq!(ready.pop(&mut memory), Some(other));
        ready.remove(&mut memory, high);
        assert_eq!(ready.pop(&mut memory), Some(low));
        assert_eq!(ready.highest(), None);
        ready.set_undecided(false);
        assert!(ready.yields_to(0));
    }
}

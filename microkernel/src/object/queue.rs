//! Queues of threads, linked through the threads.
//!
//! A ring: the first thread's predecessor is the last one, so a queue is one word and any thread
//! leaves it without being searched for.
//!
//! Invariant: a thread is in at most one queue; its links are set exactly while it is in one.

use super::Thread;
use crate::machine::Machine;
use crate::memory::{Memory, Ref};

/// A queue of threads, first come first served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    first: Option<Ref<Thread>>,
}

impl Queue {
    /// A queue without threads.
    pub const EMPTY: Queue = Queue { first: None };

    /// Whether nobody is in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Who comes next.
    #[inline]
    pub fn first(&self) -> Option<Ref<Thread>> {
        self.first
    }

    /// Appends a thread.
    #[inline(always)]
    pub fn push<M: Machine>(&mut self, memory: &mut Memory<M>, thread: Ref<Thread>) {
        let Some(first) = self.first else {
            let links = &mut memory.get_mut(thread).links;
            debug_assert!(links.is_none(), "a thread is in one queue");
            *links = Some([thread, thread]);
            self.first = Some(thread);
            return;
        };
        let [last, after] = memory.get(first).links.expect("in a queue");
        debug_assert!(
            memory.get(thread).links.is_none(),
            "a thread is in one queue"
        );
        memory.get_mut(thread).links = Some([last, first]);
        if last == first {
            memory.get_mut(first).links = Some([thread, thread]);
        } else {
            memory.get_mut(first).links = Some([thread, after]);
            set_next(memory, last, thread);
        }
    }

    /// Puts a thread before all others.
    #[inline]
    pub fn push_front<M: Machine>(&mut self, memory: &mut Memory<M>, thread: Ref<Thread>) {
        self.push(memory, thread);
        self.first = Some(thread);
    }

    /// Takes the first thread out.
    #[inline]
    pub fn pop<M: Machine>(&mut self, memory: &mut Memory<M>) -> Option<Ref<Thread>> {
        let first = self.first?;
        self.remove(memory, first);
        Some(first)
    }

    /// Takes out a thread that is in this queue.
    #[inline(always)]
    pub fn remove<M: Machine>(&mut self, memory: &mut Memory<M>, thread: Ref<Thread>) {
        let [before, after] = memory.get_mut(thread).links.take().expect("in a queue");
        if after == thread {
            self.first = None;
            return;
        }
        set_next(memory, before, after);
        set_previous(memory, after, before);
        if self.first == Some(thread) {
            self.first = Some(after);
        }
    }

    /// The thread behind this one; `None` at the end.
    pub fn after<M: Machine>(
        &self,
        memory: &Memory<M>,
        thread: Ref<Thread>,
    ) -> Option<Ref<Thread>> {
        let [_, next] = memory.get(thread).links.expect("in a queue");
        (Some(next) != self.first).then_some(next)
    }
}

#[inline]
fn set_next<M: Machine>(memory: &mut Memory<M>, thread: Ref<Thread>, next: Ref<Thread>) {
    if let Some(links) = &mut memory.get_mut(thread).links {
        links[1] = next;
    }
}

#[inline]
fn set_previous<M: Machine>(memory: &mut Memory<M>, thread: Ref<Thread>, previous: Ref<Thread>) {
    if let Some(links) = &mut memory.get_mut(thread).links {
        links[0] = previous;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;
    use std::collections::VecDeque;
    use std::vec::Vec;

    #[test]
    fn threads_leave_in_the_order_in_which_they_came() {
        let mut memory = fake::memory(64);
        let pool = memory.root_pool();
        let threads: Vec<_> = (0..3)
            .map(|_| memory.create(pool, Thread::new()).unwrap())
            .collect();
        let mut queue = Queue::EMPTY;
        for &thread in &threads {
            queue.push(&mut memory, thread);
        }
        assert_eq!(queue.after(&memory, threads[0]), Some(threads[1]));
        assert_eq!(queue.after(&memory, threads[2]), None);
        for &thread in &threads {
            assert_eq!(queue.pop(&mut memory), Some(thread));
        }
        assert_eq!(queue.pop(&mut memory), None);
    }

    #[test]
    fn any_thread_can_leave_and_come_back() {
        let mut memory = fake::memory(64);
        let pool = memory.root_pool();
        let threads: Vec<_> = (0..7)
            .map(|_| memory.create(pool, Thread::new()).unwrap())
            .collect();
        let (mut queue, mut model) = (Queue::EMPTY, VecDeque::new());
        let mut random = 12345u64;
        for _ in 0..2000 {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let thread = threads[(random >> 33) as usize % threads.len()];
            match (memory.get(thread).links.is_some(), random >> 60 & 1) {
                (true, _) => {
                    queue.remove(&mut memory, thread);
                    model.retain(|&other| other != thread);
                }
                (false, 0) => {
                    queue.push(&mut memory, thread);
                    model.push_back(thread);
                }
                (false, _) => {
                    queue.push_front(&mut memory, thread);
                    model.push_front(thread);
                }
            }
            let mut seen = Vec::new();
            let mut at = queue.first();
            while let Some(thread) = at {
                seen.push(thread);
                at = queue.after(&memory, thread);
            }
            assert_eq!(seen, Vec::from(model.clone()));
        }
    }
}

//! Threads that wait for a word of memory, found by the word's key.
//!
//! A fixed number of buckets, each a queue linked through the threads, so that any number can
//! wait. Threads of other keys in the same bucket are passed over.
//!
//! Invariant: a thread in state Futex is in the bucket of its key.

use crate::machine::Machine;
use crate::memory::{FutexKey, Memory, Ref};
use crate::object::{Queue, Thread};

/// Number of buckets.
const BUCKETS: usize = 256;

/// All threads that wait for words.
#[derive(Clone, Debug)]
pub struct Futexes {
    buckets: [Queue; BUCKETS],
}

impl Default for Futexes {
    fn default() -> Self {
        Futexes::EMPTY
    }
}

impl Futexes {
    /// Nobody waits.
    pub const EMPTY: Futexes = Futexes {
        buckets: [Queue::EMPTY; BUCKETS],
    };

    fn bucket(key: FutexKey) -> usize {
        // Fibonacci hashing: the multiplier is 2^64 divided by the golden ratio.
        let (one, two) = match key {
            FutexKey::Private(space, address) => (space, address),
            FutexKey::Shared(frame, offset) => (frame.number() as u64, offset),
        };
        let mixed = (one.rotate_left(32) ^ two).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - BUCKETS.ilog2())) as usize
    }

    /// Lets a thread wait for `key`.
    pub fn enter<M: Machine>(
        &mut self,
        memory: &mut Memory<M>,
        thread: Ref<Thread>,
        key: FutexKey,
    ) {
        memory.get_mut(thread).futex = Some(key);
        self.buckets[Self::bucket(key)].push(memory, thread);
    }

    /// Takes a thread out that waits.
    pub fn leave<M: Machine>(&mut self, memory: &mut Memory<M>, thread: Ref<Thread>) {
        let key = memory
            .get_mut(thread)
            .futex
            .take()
            .expect("it waits for a word");
        self.buckets[Self::bucket(key)].remove(memory, thread);
    }

    /// Takes out the thread that has waited longest for `key`.
    pub fn pop<M: Machine>(
        &mut self,
        memory: &mut Memory<M>,
        key: FutexKey,
    ) -> Option<Ref<Thread>> {
        let bucket = &mut self.buckets[Self::bucket(key)];
        let mut at = bucket.first();
        while let Some(thread) = at {
            if memory.get(thread).futex == Some(key) {
                memory.get_mut(thread).futex = None;
                bucket.remove(memory, thread);
                return Some(thread);
            }
            at = bucket.after(memory, thread);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;

    #[test]
    fn threads_are_woken_by_their_own_key_in_the_order_in_which_they_came() {
        let mut memory = fake::memory(64);
        let pool = memory.root_pool();
        let mut futexes = Futexes::EMPTY;
        // More keys than buckets, so that some share one.
        let key = |n: u64| FutexKey::Private(n % 3, n);
        let mut threads = std::vec::Vec::new();
        for n in 0..300 {
            let Ok(thread) = memory.create(pool, Thread::new()) else {
                break;
            };
            futexes.enter(&mut memory, thread, key(n % 290));
            threads.push(thread);
        }
        assert!(threads.len() > 100);
        assert_eq!(futexes.pop(&mut memory, FutexKey::Private(9, 9)), None);
        for n in (0..threads.len().min(290)).rev() {
            assert_eq!(futexes.pop(&mut memory, key(n as u64)), Some(threads[n]));
        }
    }
}

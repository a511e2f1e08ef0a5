//! Locks on futexes: a waiter sleeps in the kernel.

use core::sync::atomic::{AtomicU32, Ordering};

use libipc::abi::NEVER;

use crate::syscall;

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may sleep.
const CONTENDED: u32 = 2;

/// A mutual exclusion lock. Invariant: a thread sleeps only while the word is [`CONTENDED`].
#[derive(Debug)]
pub struct RawLock(AtomicU32);

// SAFETY: the word goes from FREE to a held value by an atomic exchange that exactly one thread wins,
// and back to FREE only in `unlock`.
unsafe impl lock_api::RawMutex for RawLock {
    const INIT: RawLock = RawLock(AtomicU32::new(FREE));

    type GuardMarker = lock_api::GuardSend;

    fn lock(&self) {
        if self.try_lock() {
            return;
        }
        // From now on we do not know whether others sleep, so we leave the word at CONTENDED.
        while self.0.swap(CONTENDED, Ordering::Acquire) != FREE {
            let _ = syscall::futex_wait(self.0.as_ptr() as u64, CONTENDED.into(), NEVER);
        }
    }

    fn try_lock(&self) -> bool {
        self.0
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    unsafe fn unlock(&self) {
        if self.0.swap(FREE, Ordering::Release) == CONTENDED {
            let _ = syscall::futex_wake(self.0.as_ptr() as u64, 1);
        }
    }
}

/// A value that one thread at a time may use.
pub type Mutex<T> = lock_api::Mutex<RawLock, T>;

/// Waits until the word is not `value`.
pub fn wait_while(word: &AtomicU32, value: u32) {
    while word.load(Ordering::Acquire) == value {
        let _ = syscall::futex_wait(word.as_ptr() as u64, value.into(), NEVER);
    }
}

/// Wakes up to `count` of those who wait for the word to change.
pub fn wake(word: &AtomicU32, count: u64) {
    let _ = syscall::futex_wake(word.as_ptr() as u64, count);
}

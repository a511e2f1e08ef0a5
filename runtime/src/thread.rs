//! Threads of the calling process: clone with everything shared, and join.

use core::sync::atomic::{AtomicU32, Ordering};

use libipc::protocol::process::{CloneArguments, Errno};

use crate::memory::Mapping;
use crate::process::{self, clone_flags as flags};
use crate::sync;

/// Where a joiner waits; the kernel stores 0 when the thread has ended.
const RUNNING: u32 = u32::MAX;

/// A thread that can be joined. Its stack is freed by joining; a thread that is never joined keeps it.
#[derive(Debug)]
#[must_use = "a thread that is not joined keeps its stack"]
pub struct Thread {
    tid: u32,
    /// Its first word is the clear word, the rest the stack.
    memory: Mapping,
}

/// Runs `function` in a new thread with a stack of `stack_pages`. Its value is the thread's exit code,
/// which only a debugger sees.
pub fn spawn<F: FnOnce() -> i32 + Send + 'static>(
    stack_pages: u64,
    function: F,
) -> Result<Thread, Errno> {
    // The stack grows down towards the clear word, with a page between them.
    let mut memory = Mapping::anonymous(stack_pages.max(2) + 1).map_err(|_| Errno::ENOMEM)?;
    let word = memory.address() as *const AtomicU32;
    // SAFETY: just mapped, aligned, and it stays mapped as long as `memory`.
    unsafe { &*word }.store(RUNNING, Ordering::Relaxed);
    let arguments = CloneArguments {
        flags: flags::VM
            | flags::FS
            | flags::FILES
            | flags::SIGHAND
            | flags::THREAD
            | flags::CHILD_CLEARTID,
        child_tid: word as u64,
        ..CloneArguments::default()
    };
    match process::clone(arguments, Some(&mut memory), function) {
        Ok(tid) => Ok(Thread { tid, memory }),
        Err(error) => Err(error),
    }
}

impl Thread {
    /// Its TID.
    pub fn tid(&self) -> u32 {
        self.tid
    }

    /// Waits until the thread has ended.
    pub fn join(self) {
        // SAFETY: as in `spawn`.
        let word = unsafe { &*(self.memory.address() as *const AtomicU32) };
        sync::wait_while(word, RUNNING);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: as in `spawn`.
        let word = unsafe { &*(self.memory.address() as *const AtomicU32) };
        if word.load(Ordering::Acquire) == RUNNING {
            // It may still be on its stack.
            let stack = core::mem::replace(&mut self.memory, Mapping::none());
            stack.leak();
        }
    }
}

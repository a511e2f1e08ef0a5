//! Threads made by direct kernel calls, in the test's own space and with its own tables.
//!
//! The process server knows nothing of them; they are for tests of the kernel. A worker borrows the
//! closure that it runs, and dropping it ends the thread first, so nothing dangles. What the closure
//! returns lies at the low end of the worker's stack until [`Worker::join`] takes it.

use core::marker::PhantomData;

use libipc::abi::{Copies, NEVER};
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::memory::Mapping;
use runtime::syscall;

use crate::Outcome;

/// Pages of a worker's stack. A `Mail` and a frame or two of test code fit many times.
const STACK_PAGES: u64 = 16;

/// A thread that runs a closure.
pub struct Worker<'f> {
    thread: Handle,
    /// Bit 0 is set and stays when the thread has ended.
    ended: Handle,
    stack: Mapping,
    entry: u64,
    body: *const (),
    lifetime: PhantomData<&'f ()>,
}

impl<'f> Worker<'f> {
    /// Makes a thread that will run `body`; [`run`](Worker::run) starts it. `exceptions` gets its
    /// faults. Receivers see the test's own label.
    pub fn new<F: Fn() -> Outcome + Sync>(
        body: &'f F,
        exceptions: Handle,
    ) -> Result<Worker<'f>, Error> {
        let stack = Mapping::anonymous(STACK_PAGES)?;
        let ended = syscall::notification_create(slots::POOL, 1)?;
        let thread = syscall::thread_create(
            slots::POOL,
            slots::SPACE,
            Handle::OWN_PRIVATE,
            Handle::OWN_FILES,
            Handle::OWN_FS,
            Copies::empty(),
            crate::own_label()?,
            exceptions,
            0,
        )?;
        syscall::thread_watch(thread, ended, 1)?;
        let worker = Worker {
            thread,
            ended,
            stack,
            entry: run::<F> as *const () as u64,
            body: (&raw const *body).cast(),
            lifetime: PhantomData,
        };
        // SAFETY: the low end of a fresh mapping, aligned and large enough.
        unsafe { worker.result().write(None) };
        Ok(worker)
    }

    /// Makes a thread and starts it at once. Its faults go where the space's go.
    pub fn start<F: Fn() -> Outcome + Sync>(body: &'f F) -> Result<Worker<'f>, Error> {
        let worker = Worker::new(body, Handle::NONE)?;
        worker.run()?;
        Ok(worker)
    }

    /// Starts the thread.
    pub fn run(&self) -> Result<(), Error> {
        // At the top of the stack: what to run and where the result goes.
        let top = (self.stack_end() - 32) as *mut u64;
        // SAFETY: the worker's own stack, on which nothing runs yet.
        unsafe {
            top.write(self.body as u64);
            top.add(1).write(self.result() as u64);
        }
        // As after a call instruction: the return address's place below a multiple of 16.
        syscall::thread_start(self.thread, self.entry, top as u64 - 8, top as u64)
    }

    /// The thread's capability.
    pub fn thread(&self) -> Handle {
        self.thread
    }

    /// The stack's highest address.
    pub fn stack_end(&self) -> u64 {
        self.stack.address() + self.stack.bytes() as u64
    }

    /// Waits until the closure has returned and hands on its result; `TimedOut` after
    /// [`PATIENCE`](crate::PATIENCE).
    pub fn join(self) -> Outcome {
        self.wait_until(crate::after(crate::PATIENCE)?)?;
        // SAFETY: `new` put `None` there and `run` may have replaced it; the thread has ended.
        unsafe { self.result().read() }.unwrap_or(Ok(()))
    }

    /// Where the closure's result is.
    fn result(&self) -> *mut Option<Outcome> {
        self.stack.address() as *mut Option<Outcome>
    }

    /// Waits for the thread's end until `deadline`.
    pub fn wait_until(&self, deadline: u64) -> Result<(), Error> {
        wait_for(self.ended, 1, deadline).map(drop)
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        // The thread may have ended by itself; then there is nothing to end.
        let _ = syscall::thread_end(self.thread, 0);
        let _ = wait_for(self.ended, 1, NEVER);
        let _ = syscall::cap_close(self.thread);
        let _ = syscall::cap_close(self.ended);
    }
}

/// Waits until a bit of `mask` is set in the notification and takes those that are.
pub fn wait_for(notification: Handle, mask: u64, deadline: u64) -> Result<u64, Error> {
    syscall::notification_wait(notification, mask, 1, deadline)
}

/// Calls a worker's closure, keeps its result and ends the thread.
///
/// # Safety
/// `start` points to the addresses of an `F` and of the place for its result, which live until the
/// thread has ended.
unsafe extern "C" fn run<F: Fn() -> Outcome>(start: *const [u64; 2]) -> ! {
    // SAFETY: the caller's promise.
    unsafe {
        let [body, result] = *start;
        let outcome = (*(body as *const F))();
        (result as *mut Option<Outcome>).write(Some(outcome));
    }
    loop {
        let _ = syscall::thread_exit();
    }
}

//! Service threads: kernel threads in all but the kernel (LX-KTHREAD).
//!
//! A service thread runs in its creator's memory as a process of its own, child of PID 2. It begins
//! stopped, runs when woken, and ends with a result when it is asked to stop.

use core::convert::Infallible;

use libipc::protocol::process::Errno;

use crate::memory::Mapping;
use crate::process::{client, errno};
use crate::syscall;

/// A service thread's function. It polls [`should_stop`] and ends by returning its result.
pub type Function = fn(u64) -> i32;

/// The argument and function of a thread that begins, on top of its stack.
#[repr(C)]
struct Beginning {
    function: Function,
    argument: u64,
}

/// A service thread that was created and not yet stopped. Its stack belongs to it.
#[derive(Debug)]
pub struct ServiceThread {
    pid: u32,
    stack: Mapping,
}

/// The first instruction: `rdi` points to the [`Beginning`].
extern "C" fn begin(beginning: *const Beginning) -> ! {
    // SAFETY: `create` put it on top of this thread's stack, where it stays.
    let Beginning { function, argument } = unsafe { beginning.read() };
    let _ = exit(function(argument));
    loop {
        let _ = syscall::thread_exit();
    }
}

/// Makes a service thread with a stack of `stack_pages` that will run `function(argument)` when woken.
/// The name is cut to 15 bytes.
pub fn create(
    name: &str,
    function: Function,
    argument: u64,
    stack_pages: u64,
) -> Result<ServiceThread, Errno> {
    let stack = Mapping::anonymous(stack_pages.max(1)).map_err(|_| Errno::ENOMEM)?;
    let top = stack.address() + (stack.bytes() - 64) as u64;
    // SAFETY: within the stack that was just mapped, aligned; nobody else uses it yet.
    unsafe { (top as *mut Beginning).write(Beginning { function, argument }) };
    let mut padded = [0; 16];
    let length = name.len().min(15);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    // As if `begin` had been called: the psABI wants rsp + 8 on a 16-byte border.
    let stack_pointer = top - 8;
    let pid = client()
        .service_create(padded, begin as *const () as u64, top, stack_pointer)
        .map_err(errno)?;
    Ok(ServiceThread { pid, stack })
}

impl ServiceThread {
    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it run.
    pub fn wake(&self) -> Result<(), Errno> {
        client().service_wake(self.pid).map_err(errno)
    }

    /// Asks it to stop, waits until it has, and returns its result (LX-KTHREAD-10).
    pub fn stop(self) -> Result<i32, Errno> {
        let result = client().service_stop(self.pid).map_err(errno);
        // The thread has ended, so nobody is on its stack any more.
        drop(self.stack);
        result
    }
}

/// Whether the calling service thread was asked to stop.
pub fn should_stop() -> bool {
    client().service_should_stop(false).unwrap_or(true)
}

/// Waits until the calling service thread is asked to stop.
pub fn wait_for_stop() {
    while let Ok(false) = client().service_should_stop(true) {}
}

/// Ends the calling service thread with its result. Returns only if the server refused.
pub fn exit(result: i32) -> Result<Infallible, Errno> {
    match client().service_exit(result) {
        Ok(()) => Err(Errno::EIO), // the server does not answer a thread that has ended
        Err(error) => Err(errno(error)),
    }
}

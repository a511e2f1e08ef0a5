//! From the entry code into the portable kernel and back.

use microkernel::object::context::Context;

/// A program made a system call.
pub extern "C" fn on_syscall(context: &mut Context) -> *mut Context {
    unreachable!("no program runs yet, and one made a call: {context:?}")
}

/// A program was interrupted, or an instruction of it failed.
pub extern "C" fn on_vector(context: &mut Context) -> *mut Context {
    unreachable!("no program runs yet, and one was interrupted: {context:?}")
}

/// An interrupt woke an idle CPU.
pub extern "C" fn on_wake(vector: u32) -> *mut Context {
    unreachable!("the CPU was not idle, and vector {vector} woke it")
}

//! From the entry code into the portable kernel and back.
//!
//! This is where the kernel's state is borrowed, once per entry, under the one
//! lock; below are ordinary safe functions. They say what the CPU does next;
//! it is done here, after the lock is given back.

use core::mem::MaybeUninit;

use microkernel::kernel::Kernel;
use microkernel::machine::{Exception, Next};
use microkernel::object::context::Context;
use spin::Mutex;
use x86_64::registers::control::Cr2;

use super::entry::{self, FIRST_INTERRUPT};
use super::hardware::Hardware;
use super::percpu;

/// The kernel. Its place is filled once, before anything can enter.
static KERNEL: Mutex<MaybeUninit<Kernel<Hardware>>> = Mutex::new(MaybeUninit::uninit());

/// Gives the kernel its place and does what it says for the first time.
pub fn run(kernel: Kernel<Hardware>, next: Next) -> ! {
    KERNEL.lock().write(kernel);
    leave(next)
}

/// A program made a system call.
pub extern "C" fn on_syscall() -> ! {
    enter(|kernel| kernel.syscall())
}

/// A program was interrupted, or one of its instructions failed.
pub extern "C" fn on_vector(context: &Context) -> ! {
    let (vector, error_code) = (context.entry() as u8, context.error_code());
    if vector >= FIRST_INTERRUPT {
        enter(|kernel| interrupt(kernel, vector, Next::Resume));
    }
    let address = match vector {
        // The register may hold an address that is not canonical.
        Exception::PAGE_FAULT => Cr2::read_raw(),
        _ => 0,
    };
    enter(|kernel| {
        kernel.exception(Exception {
            vector,
            error_code,
            address,
        })
    })
}

/// An interrupt woke an idle CPU.
pub extern "C" fn on_wake(vector: u32) -> ! {
    enter(|kernel| interrupt(kernel, vector as u8, Next::Idle))
}

/// Tells the kernel of an interrupt, if it is one for the kernel; else the CPU
/// goes on with what it did.
fn interrupt(kernel: &mut Kernel<Hardware>, vector: u8, before: Next) -> Next {
    match kernel.memory.machine_mut().interrupted(vector) {
        Some(interrupt) => kernel.interrupt(interrupt),
        None => before,
    }
}

/// Lets the kernel do its work, and then the CPU what it says.
#[inline(always)]
fn enter(work: impl FnOnce(&mut Kernel<Hardware>) -> Next) -> ! {
    // At once, as a rule.
    let mut guard = KERNEL.try_lock().unwrap_or_else(|| KERNEL.lock());
    // SAFETY: only programs and the idle loop come here, and `run` started
    // those after it had filled the place.
    let next = work(unsafe { guard.assume_init_mut() });
    drop(guard);
    leave(next)
}

/// Leaves the kernel. The lock is given back; the stack is empty but for calls
/// that end here.
#[inline(always)]
fn leave(next: Next) -> ! {
    match next {
        // SAFETY: `Next::Resume` says that a thread was entered, so there is a
        // context, which keeps its invariant; nothing on this stack is needed.
        Next::Resume => unsafe { entry::resume(percpu::boot_cpu().context()) },
        // SAFETY: no lock is held, and nothing on this stack is needed.
        Next::Idle => unsafe { entry::idle() },
    }
}

//! The last words of the kernel: what happened, where, and how it got there;
//! then the machine stops.

use core::arch::asm;
use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use microkernel::boot::symbols::Symbols;
use microkernel::object::context::Context;
use spin::Once;
use x86_64::registers::control::{Cr2, Cr3};

use super::power::{self, Status};
use super::{image, percpu, serial};

/// How many callers a backtrace names at most.
const DEPTH: usize = 48;

/// What the kernel's functions are called, once the boot archive has been read.
static SYMBOLS: Once<Symbols<'static>> = Once::new();

static PANICKING: AtomicBool = AtomicBool::new(false);

/// Lets backtraces name functions, if `file` says how.
pub fn set_symbols(file: &'static [u8]) {
    if let Some(symbols) = Symbols::parse(file) {
        SYMBOLS.call_once(|| symbols);
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    begin();
    let place = info.location().expect("a panic has a place");
    say(format_args!(
        "\nkernel panic: {}\n  at {place}\n",
        info.message()
    ));
    let frame: u64;
    // SAFETY: reads a register; the kernel is compiled with frame pointers.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    backtrace(frame);
    power::stop(Status::Failure)
}

/// An exception that the kernel does not survive; `context` shows its registers.
pub extern "C" fn on_fatal(context: &Context) -> ! {
    begin();
    let registers = context.registers();
    say(format_args!(
        "\nkernel panic: {} in the kernel, error code {:#x}, at {:#x}\n",
        exception_name(context.entry()),
        context.error_code(),
        registers.rip,
    ));
    if context.entry() == 14 || context.entry() == 8 {
        let address = Cr2::read_raw();
        let guard = percpu::is_stack_guard(address);
        let remark = if guard {
            " (a guard: the kernel's stack is used up)"
        } else {
            ""
        };
        say(format_args!(
            "  address {address:#x}{remark}, tables {:#x}\n",
            Cr3::read_raw().0.start_address()
        ));
    }
    say(format_args!("{registers:#x?}\n"));
    place(registers.rip);
    backtrace(registers.rbp);
    power::stop(Status::Failure)
}

/// Nothing else may run from here on. A panic within a panic ends at once.
fn begin() {
    x86_64::instructions::interrupts::disable();
    if PANICKING.swap(true, Ordering::Relaxed) {
        power::stop(Status::Failure);
    }
    // SAFETY: interrupts are off and what was interrupted never runs again.
    unsafe { serial::seize() };
}

fn say(text: fmt::Arguments) {
    serial::write(text);
}

/// Prints the return addresses from the frame pointer `frame` on. The chain
/// ends where it leaves the kernel's stacks: entries from programs keep the
/// program's frame pointer.
fn backtrace(mut frame: u64) {
    for _ in 0..DEPTH {
        if !frame.is_multiple_of(8) || !percpu::is_stack(frame) || !percpu::is_stack(frame + 8) {
            return;
        }
        // SAFETY: two words on a mapped kernel stack.
        let [caller, address] = unsafe { *(frame as *const [u64; 2]) };
        if address < image::text().start || address >= image::text().end {
            return;
        }
        // The call is before the address it returns to.
        place(address - 1);
        if caller <= frame {
            return;
        }
        frame = caller;
    }
    say(format_args!("  and more\n"));
}

fn place(address: u64) {
    match SYMBOLS.get().and_then(|symbols| symbols.lookup(address)) {
        Some((name, offset)) => say(format_args!("  {address:#x} {name} + {offset:#x}\n")),
        None => say(format_args!("  {address:#x}\n")),
    }
}

fn exception_name(vector: u64) -> &'static str {
    match vector {
        0 => "a division error",
        2 => "a non-maskable interrupt",
        3 => "a breakpoint",
        6 => "an invalid instruction",
        7 => "an FPU instruction",
        8 => "a double fault",
        10 => "an invalid task state",
        11 => "a missing segment",
        12 => "a stack fault",
        13 => "a general protection fault",
        14 => "a page fault",
        17 => "an unaligned access",
        18 => "a machine check",
        _ => "an exception",
    }
}

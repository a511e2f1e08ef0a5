//! Ending it: for the emulator with a status, for a machine by a reset.

use x86_64::instructions::port::Port;

/// The port of QEMU's isa-debug-exit device, as all our commands set it up.
const DEBUG_EXIT: u16 = 0xf4;

/// What is written there after a panic; QEMU ends with status `value << 1 | 1`.
const PANIC: u8 = 0x11;

/// Ends the emulator with an error, or stands still where there is none.
pub fn halt_with_error() -> ! {
    // SAFETY: on a machine without that device nobody listens at this port.
    unsafe { Port::new(DEBUG_EXIT).write(PANIC) };
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

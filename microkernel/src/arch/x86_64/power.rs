//! Ending it: for the emulator with a status, for a machine by a reset.

use acpi::address::{AddressSpace, GenericAddress};
use x86_64::instructions::port::Port;
use x86_64::structures::idt::InterruptDescriptorTable;

use super::acpi::ResetRegister;
use super::layout;
use super::paging::{Kernel, Memory};

/// The port of QEMU's isa-debug-exit device, as all our commands set it up.
const DEBUG_EXIT: u16 = 0xf4;

/// What is written there; QEMU ends with status `value << 1 | 1`.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Status {
    /// All went well.
    Success = 0x10,
    /// A panic, or whatever else was not meant to be.
    Failure = 0x11,
}

/// Ends the emulator with a status, or stands still where there is none. Power
/// off by ACPI belongs to a server.
pub fn stop(status: Status) -> ! {
    // SAFETY: on a machine without that device nobody listens at this port.
    unsafe { Port::new(DEBUG_EXIT).write(status as u8) };
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Starts again from the firmware, in the ways that machines know, one by one.
pub fn reset(register: Option<ResetRegister>) -> ! {
    if let Some(ResetRegister { register, value }) = register {
        write(&register, value);
    }
    // SAFETY: asks the keyboard controller to pulse the reset line.
    unsafe { Port::<u8>::new(0x64).write(0xfe) };
    // An exception without a gate, twice over, resets every PC.
    let empty = InterruptDescriptorTable::new();
    // SAFETY: nothing is to work any more.
    unsafe {
        empty.load_unsafe();
        core::arch::asm!("ud2", options(noreturn));
    }
}

/// Makes a register that lies in memory reachable for [`reset`].
pub fn map_register(register: &GenericAddress, tables: &mut Kernel) {
    if register.address_space == AddressSpace::SystemMemory {
        tables.map_direct(register.address, 1, Memory::Device);
    }
}

fn write(register: &GenericAddress, value: u8) {
    // SAFETY: the firmware says that this write resets the machine.
    unsafe {
        match register.address_space {
            AddressSpace::SystemIo => Port::<u8>::new(register.address as u16).write(value),
            // Mapped at boot, see `map_register`.
            AddressSpace::SystemMemory => {
                (layout::direct(register.address) as *mut u8).write_volatile(value);
            }
            // In PCI configuration space and the like: never seen.
            _ => {}
        }
    }
}

//! The kernel's own image: where the linker put its parts.

use core::ops::Range;

use microkernel::boot::PhysicalSpan;

unsafe extern "C" {
    static kernel_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static kernel_end: u8;
    static boot_stack_bottom: u8;
    static boot_stack_top: u8;
}

/// Where the linker script asks to be loaded: what a monitor that honours load
/// addresses did.
pub const LOAD_ADDRESS: u64 = 0x20_0000;

/// A part of the image with one protection; linked addresses, whole pages.
pub struct Part {
    /// The first byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// The first linked address of the image.
pub fn start() -> u64 {
    (&raw const kernel_start).addr() as u64
}

/// Code: read and execute.
pub fn text() -> Part {
    Part {
        start: start(),
        end: (&raw const text_end).addr() as u64,
    }
}

/// Constants: read only.
pub fn rodata() -> Part {
    Part {
        start: text().end,
        end: (&raw const rodata_end).addr() as u64,
    }
}

/// Variables and boot stack: read and write, never execute.
pub fn data() -> Part {
    Part {
        start: rodata().end,
        end: (&raw const kernel_end).addr() as u64,
    }
}

/// The physical range of the image, if its first byte was loaded at `physical`.
pub fn span(physical: u64) -> PhysicalSpan {
    PhysicalSpan {
        start: physical,
        bytes: data().end - start(),
    }
}

/// The stack that both doors start on.
pub fn boot_stack() -> Range<u64> {
    (&raw const boot_stack_bottom).addr() as u64..(&raw const boot_stack_top).addr() as u64
}

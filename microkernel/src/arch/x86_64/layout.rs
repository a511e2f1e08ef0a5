//! Where things are in the kernel's half of every address space.
//!
//! ```text
//! ffff_8000_0000_0000  direct map: physical address p is here + p
//! ffff_f000_0000_0000  kernel stacks, each with an unmapped guard below it
//! ffff_ffff_8020_0000  the kernel's image
//! ```

/// Start of the direct map of RAM and devices.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;

/// One past the highest physical address the direct map has room for.
pub const DIRECT_MAP_BYTES: u64 = STACKS - DIRECT_MAP;

/// Start of the kernel stacks.
pub const STACKS: u64 = 0xffff_f000_0000_0000;

/// Address of a physical byte in the direct map.
pub fn direct(physical: u64) -> u64 {
    debug_assert!(physical < DIRECT_MAP_BYTES);
    DIRECT_MAP + physical
}

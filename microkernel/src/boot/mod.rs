//! From the door to the first thread: what the machine is ([`info`]), whose its
//! RAM is ([`ram`]), what was loaded with the kernel ([`archive`]), what the
//! kernel's functions are called ([`symbols`]), and the first thread ([`first`],
//! [`image`]).

pub mod archive;
pub mod first;
pub mod image;
pub mod info;
pub mod ram;
pub mod symbols;

pub use info::{
    BootInfo, Door, Framebuffer, MemoryMap, PhysicalSpan, Platform, Region, RegionKind,
};

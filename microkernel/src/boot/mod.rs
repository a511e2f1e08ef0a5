//! From the door to the first thread: what the machine is ([`info`]), and what
//! its kernel's functions are called ([`symbols`]).

pub mod info;
pub mod symbols;

pub use info::{BootInfo, Door, Framebuffer, MemoryMap, PhysicalSpan, Region, RegionKind};

//! From the door to the first thread: what the machine is ([`info`]).

pub mod info;

pub use info::{BootInfo, Door, Framebuffer, MemoryMap, PhysicalSpan, Region, RegionKind};

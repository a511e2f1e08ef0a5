//! Capabilities: who may do what with which object.
//!
//! * [`node`]: the derivation tree. A node stands for one grant of one object; copies share it.
//! * [`slot`]: 16 bytes that name a node, an access mask and flags.
//! * [`table`]: a thread's capabilities, a persistent radix tree of slot pages.
//!
//! Invariant: a node counts the slots (and kernel fields) that name it; a slot page that several
//! tables share counts once. The count reaching zero *is* the no-more-senders notice.

pub mod node;
pub mod slot;
pub mod table;

pub use node::{Cap, Fate, Node, Nodes};
pub use slot::{Slot, SlotName};
pub use table::CapTable;

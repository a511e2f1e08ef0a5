//! Kernel objects: what a capability can stand for, beside memory.
//!
//! An object's file holds its state and what may happen to it. Memory's objects (pools, spaces,
//! windows) are in [`crate::memory`], tables and derivation in [`crate::cap`]; what makes several
//! objects act together is in [`crate::kernel`].

pub mod context;
pub mod device;
pub mod endpoint;
pub mod notification;
pub mod queue;
pub mod reply;
pub mod thread;

pub use endpoint::Endpoint;
pub use notification::{Notification, Waiter};
pub use queue::Queue;
pub use reply::Reply;
pub use thread::{Owed, State, Thread};

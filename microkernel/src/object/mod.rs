//! Kernel objects.

pub mod context;

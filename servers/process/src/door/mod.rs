//! The front doors: each turns the calls of one world into spawn plans.
//!
//! A door checks everything that can be told from the call itself, in the order and with the
//! errors of its world, and touches nothing.

pub mod linux;
pub mod service;
pub mod win32;

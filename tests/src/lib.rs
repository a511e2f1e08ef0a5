//! Guest tests: what the tests in `src/bin` share.
//!
//! Each file in `src/bin` is a program that runs on Mitosis in ring 3 with no more authority than any
//! program has, and tests one subject. [`suite!`] lists its tests; [`harness`] runs them and reports.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod child;
pub mod harness;
pub mod mail;
pub mod random;
pub mod space;
pub mod twin;
pub mod worker;

pub use harness::{Failure, Outcome};
pub use mail::Mail;
pub use random::Random;
pub use space::Space;
pub use twin::Twin;
pub use worker::Worker;

use libipc::Error;
use runtime::syscall;

/// Nanoseconds in a millisecond.
pub const MILLISECOND: u64 = 1_000_000;
/// Long enough for anything that ought to happen: a test that waits this long has failed.
pub const PATIENCE: u64 = 2_000 * MILLISECOND;

/// A deadline this many nanoseconds from now.
pub fn after(nanoseconds: u64) -> Result<u64, Error> {
    Ok(syscall::clock()? + nanoseconds)
}

//! The portable kernel: everything that needs no hardware, so that it runs
//! under `cargo test` on the fake machine of `memory/fake.rs`. The machine
//! itself is in `src/arch`, part of the binary.
#![cfg_attr(not(any(test, feature = "fake")), no_std)]

pub mod boot;
pub mod cap;
pub mod kernel;
pub mod machine;
pub mod memory;
pub mod object;
pub mod sched;
pub mod syscall;
#[cfg(test)]
pub mod testkit;

//! The portable kernel: everything that needs no hardware, so that it runs
//! under `cargo test`. The machine itself is in `src/arch`, part of the binary.
#![cfg_attr(not(test), no_std)]

pub mod boot;

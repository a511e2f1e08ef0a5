//! What init decides, without the machine: which program to start and with what, what to say, how to
//! switch the machine off.
//!
//! The binary (`src/main.rs`) carries it out with kernel calls.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod archive;
pub mod boot_words;
pub mod power;
pub mod report;

//! What every native program is built on: first instruction, panic, system calls, files, processes.
//!
//! Two kinds of program use it. *Programs* ([`entry!`]) begin with a System V initial stack that
//! their creator built, and find their capabilities in the slots of `libipc::protocol::process::slots`.
//! *Servers* ([`server_entry!`]) are started by init with the slots of `libipc::protocol::startup`.
//!
//! Nothing here keeps hidden state that a fork would duplicate wrongly: output is not buffered across
//! calls ([`io`]), free address ranges are asked of the kernel ([`memory`]). Everything compiles for
//! the host too, so that whole programs are checked and linted there; only the entry point, the panic
//! handler and the allocator exist on Mitosis alone.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod elf;
pub mod file;
#[cfg(feature = "heap")]
pub mod heap;
pub mod initial_stack;
pub mod io;
pub mod load;
pub mod log;
pub mod memory;
#[cfg(target_os = "none")]
mod panic;
pub mod process;
pub mod server;
pub mod service;
pub mod start;
pub mod sync;
pub mod thread;

pub use libipc;
pub use libipc::stub as syscall;

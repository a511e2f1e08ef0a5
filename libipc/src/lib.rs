//! What two sides must agree on, declared once.
//!
//! The kernel, the servers, the programs and the documentation expand the same tables:
//!
//! * [`abi`]: handles, errors, access masks, the layout of a message;
//! * [`syscall`]: the system calls, one line each;
//! * [`mod@protocol`]: the servers' protocols, one table each;
//! * [`wire`]: how a request becomes bytes (postcard) and how a client reaches a server;
//! * [`exec_channel`], [`command_line`]: how a program run by `cargo xtask exec` speaks to the host;
//! * [`stub`]: the system calls as functions, for programs that run on Mitosis.
//!
//! Nothing here allocates or keeps state.
#![no_std]

#[cfg(any(test, feature = "docs"))]
extern crate std;

pub mod abi;
pub mod command_line;
pub mod exec_channel;
pub mod protocol;
#[cfg(target_arch = "x86_64")]
pub mod stub;
pub mod syscall;
pub mod wire;

pub use abi::{Access, Error, Handle};

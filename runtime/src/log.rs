//! The kernel's log, for init and servers that were given the right to write it.

use core::fmt::{self, Write};

use libipc::abi::initial;
use libipc::protocol::startup;

use crate::io::Lines;
use crate::start::{self, Role};
use crate::syscall;

/// The most that one system call takes, in bytes.
const CHUNK: usize = 256;

/// Writes to the log. A program has no right to: nothing happens.
pub fn print(text: fmt::Arguments<'_>) {
    let system = match start::role() {
        Role::Program => return,
        Role::Server => startup::LOG,
        Role::Init => initial::SYSTEM,
    };
    let mut lines = Lines::<CHUNK, _>::new(|bytes: &[u8]| {
        let _ = syscall::system_log(system, bytes.as_ptr() as u64, bytes.len() as u64);
    });
    let _ = lines.write_fmt(text);
}

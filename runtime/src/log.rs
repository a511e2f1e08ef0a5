//! The kernel's log, for init and servers that were given the right to write it.

use core::fmt::{self, Write};

use libipc::Handle;
use libipc::protocol::startup;

use crate::io::Lines;
use crate::syscall;

/// The most that one system call takes, in bytes.
const CHUNK: usize = 256;

/// Writes to the log with the capability that every server holds (init's system capability has
/// another slot, see [`print_with`]).
pub fn print(text: fmt::Arguments<'_>) {
    print_with(startup::LOG, text);
}

/// Writes to the log with this capability; without the right to, nothing happens.
pub fn print_with(system: Handle, text: fmt::Arguments<'_>) {
    let mut lines = Lines::<CHUNK, _>::new(|bytes: &[u8]| {
        let _ = syscall::system_log(system, bytes.as_ptr() as u64, bytes.len() as u64);
    });
    let _ = lines.write_fmt(text);
}

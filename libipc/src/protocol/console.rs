//! The console server: serial line, exec channel, keyboard.

use serde::{Deserialize, Serialize};

/// Why a console request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsoleError {
    /// The capability does not permit this.
    Denied,
    /// The machine has no such device.
    NoDevice,
    /// Out of memory or slots.
    NoMemory,
}

/// Access mask bits of a console server capability.
pub mod access {
    /// Open streams.
    pub const OPEN: u32 = 1 << 0;
    /// Report the first program's end.
    pub const REPORT: u32 = 1 << 1;
}

crate::protocol! {
    /// Gives out streams that speak the files protocol.
    console refuses ConsoleError;

    /// The three standard streams of the first program.
    1 => standard_streams() -> () [short] gives(input, output, error);
    /// The first program has ended with this exit status; everything written before is flushed to
    /// the other end before the answer.
    2 => report_exit(status: u8) -> () [short];
}

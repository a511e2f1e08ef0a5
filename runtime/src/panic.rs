//! What a panic does: say where, and end.
//!
//! A program says it on its standard error and ends with status 101, as Rust programs do. A server
//! says it in the kernel's log and ends its thread; its clients' calls end with `ServerGone`.

use core::fmt::Write;
use core::panic::PanicInfo;

use crate::{io, log, process, start, syscall};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if start::role() != start::Role::Program {
        log::print(format_args!("{info}\n"));
    } else {
        let _ = writeln!(io::Stream::new(io::STDERR), "{info}");
        process::exit(101);
    }
    end_thread()
}

/// Ends the calling thread, whatever the kernel says.
pub fn end_thread() -> ! {
    loop {
        let _ = syscall::thread_exit();
    }
}

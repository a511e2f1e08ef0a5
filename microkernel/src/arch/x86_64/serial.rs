//! The kernel's own log: lines on COM1, until the console server takes the port
//! over; after that only a panic writes here.

use core::fmt::{self, Write};

use log::{LevelFilter, Log, Metadata, Record};
use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550, Uart16550Tty};

/// First I/O port of COM1.
const COM1: u16 = 0x3f8;

/// `None` while nothing answers at COM1; then the log goes nowhere.
static PORT: Mutex<Option<Uart16550Tty<PioBackend>>> = Mutex::new(None);

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        write(format_args!("{}\n", record.args()));
    }

    fn flush(&self) {}
}

/// Opens COM1 and makes it the target of the `log` macros.
pub fn init() {
    *PORT.lock() = open();
    log::set_logger(&Logger).expect("the logger is set once");
    log::set_max_level(LevelFilter::Info);
}

/// COM1, if there is one. Without the crate's loopback test: a boot loader that
/// logs to the same port leaves it in a state in which the test fails.
fn open() -> Option<Uart16550Tty<PioBackend>> {
    // SAFETY: COM1 belongs to the kernel until a program gets the port.
    let mut port = unsafe { Uart16550::new_port(COM1) }.ok()?;
    port.init(Config::default()).ok()?;
    Some(Uart16550Tty::from_inner(port))
}

/// Writes text to COM1; the line ends are the text's own.
pub fn write(text: fmt::Arguments) {
    if let Some(port) = PORT.lock().as_mut() {
        // Writing to a serial port reports no errors.
        let _ = port.write_fmt(text);
    }
}

/// Makes the port usable for the last words of a CPU that may hold its lock.
///
/// # Safety
/// No other CPU runs, and the caller never returns to what it interrupted.
pub unsafe fn seize() {
    if PORT.is_locked() {
        // SAFETY: the holder is the interrupted code of this CPU, which never
        // runs again.
        unsafe { PORT.force_unlock() };
    }
}

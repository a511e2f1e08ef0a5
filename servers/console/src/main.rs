//! The console server's shell: the serial line's registers and interrupts.
#![cfg_attr(target_os = "none", no_std, no_main)]

use console_server::{CONTROL, Console, World};
use libipc::abi::{Access, Error, Handle};
use libipc::protocol::files::FileError;
use libipc::protocol::{console, files, startup};
use libipc::wire::{Blob, Caller, Kept, LongBody, Refusal, Served, answer};
use runtime::server::Replies;
use runtime::{log, server, syscall};
use uart_16550::backend::Backend;
use uart_16550::spec::registers::{FifoTriggerLevel, IER, LSR};
use uart_16550::{BaudRate, Config, Uart16550};

runtime::server_entry!(run);

/// The bit of the notification that the line's interrupt sets.
const INTERRUPT: u64 = 1;

/// The registers of a serial port, through a capability for its I/O ports.
struct Registers {
    ports: Handle,
    base: u64,
}

impl Backend for Registers {
    unsafe fn read(&mut self, register_offset: u8) -> u8 {
        // All bits set is what a port without a device reads as.
        let port = self.base + u64::from(register_offset);
        syscall::port_read(self.ports, port, 1).map_or(0xff, |value| value as u8)
    }

    unsafe fn write(&mut self, register_offset: u8, value: u8) {
        let port = self.base + u64::from(register_offset);
        let _ = syscall::port_write(self.ports, port, 1, value.into());
    }
}

/// The serial line and our end of the endpoint.
struct Machine {
    /// `None` if there is no such port: output goes nowhere, input never comes.
    line: Option<Uart16550<Registers>>,
    irq: Handle,
    replies: Replies,
}

impl Machine {
    fn open(exec: bool) -> Machine {
        let (ports, base, irq, baud_rate) = if exec {
            let baud_rate = BaudRate::Baud115200;
            (
                startup::console::COM2_PORTS,
                0x2f8,
                startup::console::COM2_IRQ,
                baud_rate,
            )
        } else {
            // The kernel's log shares this port, so the speed stays what it is.
            let baud_rate = Config::DEFAULT.baud_rate;
            (
                startup::console::COM1_PORTS,
                0x3f8,
                startup::console::COM1_IRQ,
                baud_rate,
            )
        };
        let config = Config {
            interrupts: IER::DATA_READY,
            // A few bytes that stay below the level interrupt too, when the line falls silent.
            fifo_trigger_level: Some(FifoTriggerLevel::Fourteen),
            baud_rate,
            ..Config::DEFAULT
        };
        // SAFETY: the capability covers the eight registers, and nobody else was given it.
        let mut line = unsafe { Uart16550::new_with_backend(Registers { ports, base }) };
        let result = line.init(config);
        if let Err(error) = &result {
            log::print(format_args!(
                "console: no serial line at {base:#x}: {error:?}\n"
            ));
        }
        if let Err(error) = syscall::irq_bind(irq, startup::console::NOTIFICATION, INTERRUPT) {
            log::print(format_args!(
                "console: no interrupt for the line: {error:?}\n"
            ));
        }
        Machine {
            line: result.is_ok().then_some(line),
            irq,
            replies: Replies::new(startup::POOL),
        }
    }

    /// Takes what the line has received; returns how many bytes.
    fn receive(&mut self, into: &mut [u8]) -> usize {
        self.line
            .as_mut()
            .map_or(0, |line| line.receive_bytes(into))
    }
}

impl World for Machine {
    fn send(&mut self, mut bytes: &[u8]) {
        let Some(line) = &mut self.line else { return };
        while !bytes.is_empty() {
            let sent = line.send_bytes(bytes);
            bytes = &bytes[sent..];
            if sent == 0 {
                // The other end is slow; let others run meanwhile.
                let _ = syscall::thread_yield();
            }
        }
    }

    fn drain(&mut self) {
        let Some(line) = &mut self.line else { return };
        while !line.lsr().contains(LSR::TRANSMITTER_EMPTY) {
            let _ = syscall::thread_yield();
        }
    }

    fn keep_reply(&mut self) -> Result<Kept, Error> {
        self.replies.keep()
    }

    fn answer(&mut self, kept: Kept, result: Result<Blob, FileError>) -> bool {
        let mut body = LongBody::new();
        answer(result.map_err(Refusal::Error), &mut body);
        self.replies.answer(kept, &mut body, &[]).is_ok()
    }

    fn sender(&mut self, badge: u64, access: u32) -> Result<Handle, Error> {
        let access = Access::from_bits_retain(access);
        syscall::cap_derive(startup::RECEIVER, startup::POOL, badge, access)
    }
}

struct Shell {
    console: Console,
    machine: Machine,
    /// The line has bytes for which there is no room yet.
    behind: bool,
}

impl Shell {
    /// Takes what the line has received, as far as there is room. The interrupt is not acknowledged
    /// before all is taken: the line's other end waits when its buffers are full.
    fn take_input(&mut self) {
        let mut bytes = [0; 64];
        self.behind = true;
        while self.console.has_room(bytes.len()) {
            let count = self.machine.receive(&mut bytes);
            if count == 0 {
                self.behind = false;
                let _ = syscall::irq_acknowledge(self.machine.irq);
                return;
            }
            self.console.arrived(&mut self.machine, &bytes[..count]);
        }
    }
}

impl server::Handler for Shell {
    fn request(&mut self, caller: &mut Caller, request: &[u8], answer: &mut LongBody) -> Served {
        let served = if caller.badge == CONTROL {
            console::serve(
                &mut self.console,
                &mut self.machine,
                caller,
                request,
                answer,
            )
        } else {
            files::serve(
                &mut self.console,
                &mut self.machine,
                caller,
                request,
                answer,
            )
        };
        if self.behind {
            self.take_input();
        }
        served
    }

    fn replies(&mut self) -> Option<&mut Replies> {
        Some(&mut self.machine.replies)
    }

    fn cancel(&mut self, label: u64) {
        self.console.cancel(&mut self.machine, label);
    }

    fn notified(&mut self, _: u64) {
        self.take_input();
    }
}

fn run(exec: u64) -> ! {
    let mut machine = Machine::open(exec != 0);
    let console = if exec != 0 {
        Console::channel(&mut machine)
    } else {
        Console::terminal()
    };
    let mut shell = Shell {
        console,
        machine,
        behind: false,
    };
    server::run(startup::RECEIVER, &mut shell)
}

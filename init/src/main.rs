//! init: the first thread. It holds everything that the kernel gives out, starts the servers with what
//! each needs, becomes PID 1, starts the first program, and collects orphans until that program ends.
//! Then it reports the exit status and switches the machine off.
//!
//! What is decided without the machine is in the library beside this file.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod machine;
mod servers;
mod tree;

use init::boot_words::BootWords;
use init::report::final_status;
use libipc::abi::{Access, BootPage, Error, Handle, SendCap, SlotFlags, initial};
use libipc::protocol::console;
use libipc::protocol::process::{Errno, fs_slots};
use libipc::wire::{CallError, Connection, Received};
use machine::{Stop, stop};
use runtime::log;
use runtime::process::{Order, ending_signal, errno, exit_status, spawn_by};
use runtime::start::{Role, set_role};
use runtime::syscall;
use servers::Servers;

runtime::server_entry!(run);

/// What init cannot go on without.
#[derive(Debug)]
#[allow(dead_code)] // the fields are for whoever reads the message
enum Failure {
    /// A system call failed, made for this.
    Kernel(&'static str, Error),
    /// The boot archive has no such file, or none that can be mapped.
    NoFile(&'static str),
    /// A file of the archive is no image.
    BadImage(&'static str, &'static str),
    /// The memory server refused to share.
    Memory(&'static str),
    /// The process server refused.
    Process(Errno),
    /// The console server gave no streams.
    Console,
}

/// Says for what a system call was made.
trait For<T> {
    fn r#for(self, purpose: &'static str) -> Result<T, Failure>;
}

impl<T> For<T> for Result<T, Error> {
    fn r#for(self, purpose: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure::Kernel(purpose, error))
    }
}

fn run(boot_page: u64) -> ! {
    set_role(Role::Init);
    // SAFETY: the kernel maps the boot page, readable and for good, at the address in the first `rdi`.
    let boot = unsafe { &*(boot_page as *const BootPage) };
    if boot.magic != BootPage::MAGIC {
        panic!("the kernel and init do not agree on the boot page");
    }
    let line = &boot.command_line[..boot
        .command_line
        .len()
        .min(boot.command_line_bytes as usize)];
    let words = BootWords::read(line);
    log::print(format_args!("init: starting the servers\n"));
    match bring_up(boot, &words) {
        Ok(servers) => live(boot, &words, servers),
        Err(failure) => {
            log::print(format_args!("init: cannot start: {failure:?}\n"));
            stop(boot, Stop::Failure)
        }
    }
}

/// Starts the servers and becomes PID 1.
fn bring_up(boot: &BootPage, words: &BootWords) -> Result<Servers, Failure> {
    let servers = servers::start(boot, words.console)?;
    tree::print(&servers);
    open_streams(&servers)?;
    place(servers.root, Handle::OWN_FS, fs_slots::ROOT)?;
    place(servers.root, Handle::OWN_FS, fs_slots::WORKING_DIRECTORY)?;
    let mut process = servers.process;
    process
        .adopt_init(SendCap::copy(initial::THREAD))
        .map_err(|error| Failure::Process(errno(error)))?;
    Ok(servers)
}

/// Opens the console's streams as descriptors 0, 1 and 2.
fn open_streams(servers: &Servers) -> Result<(), Failure> {
    let mut streams = Received::new();
    console::Client::new(Connection::new(servers.console))
        .standard_streams(&mut streams)
        .map_err(|_| Failure::Console)?;
    for (descriptor, stream) in streams.into_iter().enumerate() {
        place(stream, Handle::OWN_FILES, descriptor as u32)?;
        syscall::cap_close(stream).r#for("a stream")?;
    }
    Ok(())
}

fn place(source: Handle, table: Handle, slot: u32) -> Result<(), Failure> {
    let whole = Access::from_bits_retain(u32::MAX);
    syscall::cap_replace(source, table, slot.into(), whole, SlotFlags::empty())
        .map(drop)
        .r#for("a slot of a table")
}

/// Starts the first program and collects every child until that one ends.
fn live(boot: &BootPage, words: &BootWords, servers: Servers) -> ! {
    let Some(first) = start_program(words, &servers) else {
        log::print(format_args!(
            "No working init found.  Try passing init= option to kernel. See docs/ARCHITECTURE.md.\n"
        ));
        report(&servers, 127);
        stop(boot, Stop::Failure)
    };
    let mut process = servers.process;
    loop {
        match process.wait4(-1, 0) {
            Ok(waited) if waited.pid == first => {
                let status = final_status(exit_status(waited.status), ending_signal(waited.status));
                report(&servers, status);
                log::print(format_args!(
                    "init: the first program ended with status {status}\n"
                ));
                stop(boot, Stop::Success)
            }
            // An orphan, collected.
            Ok(_) => {}
            Err(CallError::Kernel(Error::Interrupted)) => {}
            Err(error) => {
                log::print(format_args!(
                    "init: waiting for children fails: {error:?}\n"
                ));
                report(&servers, 255);
                stop(boot, Stop::Failure)
            }
        }
    }
}

/// Tells whoever waits for the first program's end.
fn report(servers: &Servers, status: u8) {
    if let Err(error) = console::Client::new(Connection::new(servers.console)).report_exit(status) {
        log::print(format_args!(
            "init: the exit status cannot be reported: {error:?}\n"
        ));
    }
}

/// Starts the first of the programs that will (LX-INIT-05); its PID.
fn start_program(words: &BootWords, servers: &Servers) -> Option<u32> {
    words.programs().find_map(|path| {
        let name = Text(path);
        let order = Order::of(
            servers.root,
            path,
            core::iter::once(path).chain(words.arguments.iter().map(|word| &word[..])),
            words.environment.iter().map(|word| &word[..]),
        );
        let result = order.and_then(|order| {
            log::print(format_args!("Run {name} as init process\n"));
            spawn_by(servers.process, order)
        });
        match result {
            Ok(pid) => return Some(pid),
            Err(error) if words.is_asked_for(path) => log::print(format_args!(
                "Requested init {name} failed (error {}).\n",
                -(error as i32)
            )),
            Err(Errno::ENOENT) => {}
            Err(error) => log::print(format_args!(
                "Starting init: {name} exists but couldn't execute it (error {})\n",
                -(error as i32)
            )),
        }
        None
    })
}

/// Bytes that are mostly text.
struct Text<'a>(&'a [u8]);

impl core::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

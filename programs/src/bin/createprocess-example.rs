//! CreateProcess: a child that starts suspended, with an environment and a handle of its parent's,
//! and one that is ended from outside.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::SlotFlags;
use libipc::protocol::process::CreateProcess;
use libipc::protocol::process::{Errno, ProcessError};
use programs::errors::{errno_text, process_text};
use runtime::file::{self, Fd};
use runtime::io::{STDOUT, Stream};
use runtime::process::{ObjectHandle, Order, WaitOutcome, create_process, exit_process, getpid};
use runtime::{eprintln, println, start, syscall};

runtime::entry!(run);

const CREATE_SUSPENDED: u32 = 0x4;
const MILLISECOND: u64 = 1_000_000;

fn run() -> i32 {
    match start::argument(1) {
        Some("greet") => greet(),
        Some("stay") => stay(),
        _ => match parent() {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("createprocess-example: {}", process_text(error));
                1
            }
        },
    }
}

/// The first child: says what it was given, by the handle that it inherited.
fn greet() -> i32 {
    use core::fmt::Write;
    let number = start::variable("OUTPUT")
        .and_then(|value| core::str::from_utf8(value).ok())
        .and_then(|text| text.parse().ok());
    let Some(number) = number else {
        return 1;
    };
    let greeting = start::variable("GREETING").unwrap_or(b"?");
    let mut inherited = Stream::new(Fd(number));
    for chunk in greeting.utf8_chunks() {
        let _ = writeln!(inherited, "child: GREETING is {}", chunk.valid());
    }
    exit_process(0x1234_5678)
}

/// The second child: never ends by itself.
fn stay() -> i32 {
    loop {
        let _ = syscall::thread_yield();
    }
}

/// Starts this program again with one argument.
fn child(
    what: &'static [u8],
    environment: &[&'static [u8]],
    options: CreateProcess,
) -> Result<(ObjectHandle, ObjectHandle), ProcessError> {
    let name = start::arguments().next().unwrap_or_default();
    // A shell gives the name that was typed, which it found in /bin.
    let directory: &[u8] = if name.contains(&b'/') { b"" } else { b"/bin/" };
    let mut path = heapless::Vec::<u8, 256>::new();
    path.extend_from_slice(directory)
        .and_then(|()| path.extend_from_slice(name))
        .map_err(|_| ProcessError::Linux(Errno::ENAMETOOLONG))?;
    let order = Order::new(&path, [name, what].into_iter(), environment.iter().copied())
        .map_err(ProcessError::Linux)?;
    create_process(order, None, options).map(|(_, process, thread)| (process, thread))
}

fn parent() -> Result<(), ProcessError> {
    println!("parent pid is {}", getpid());
    let handle = match file::duplicate(STDOUT, 10) {
        Ok(handle) => handle,
        Err(_) => return Err(ProcessError::Denied),
    };
    if file::set_flags(handle, SlotFlags::INHERIT, SlotFlags::INHERIT).is_err() {
        return Err(ProcessError::Denied);
    }
    let (process, thread) = child(
        b"greet",
        &[b"GREETING=good morning", b"OUTPUT=10"],
        CreateProcess {
            flags: CREATE_SUSPENDED,
            inherit_handles: true,
            ..CreateProcess::default()
        },
    )?;
    println!("created suspended: exit code is {}", process.exit_code()?);
    match process.wait(Some(20 * MILLISECOND))? {
        WaitOutcome::TimedOut => println!("it does not run yet: the wait timed out"),
        WaitOutcome::Ended => println!("it ran although it was suspended"),
    }
    println!("resumed: the suspend count was {}", thread.resume()?);
    process.wait(None)?;
    println!("ended: exit code is {:#x}", process.exit_code()?);
    close(process, thread);

    let (process, thread) = child(b"stay", &[], CreateProcess::default())?;
    println!("second child: exit code is {}", process.exit_code()?);
    process.terminate(42)?;
    process.wait(None)?;
    println!("terminated: exit code is {}", process.exit_code()?);
    close(process, thread);
    Ok(())
}

fn close(process: ObjectHandle, thread: ObjectHandle) {
    for handle in [process, thread] {
        if handle.close().is_err() {
            eprintln!("createprocess-example: {}", errno_text(Errno::EBADF));
        }
    }
}

//! A service thread: made stopped, run, asked to stop, its result collected.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use libipc::protocol::process::Errno;
use programs::errors::errno_text;
use runtime::process::{getpid, identity};
use runtime::{eprintln, println, service, syscall};

runtime::entry!(run);

static ROUNDS: AtomicU64 = AtomicU64::new(0);
/// What the service thread finds its parent to be. It has no files of its own to print it to.
static PARENT: AtomicU32 = AtomicU32::new(u32::MAX);

fn run() -> i32 {
    match try_run() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("kthread-example: {}", errno_text(error));
            1
        }
    }
}

fn try_run() -> Result<(), Errno> {
    println!("creator pid is {}", getpid());
    let thread = service::create("counter", count, 40, 8)?;
    println!(
        "service thread {} created; rounds so far: {}",
        thread.pid(),
        ROUNDS.load(SeqCst)
    );
    thread.wake()?;
    while ROUNDS.load(SeqCst) < 3 {
        let _ = syscall::thread_yield();
    }
    println!("service thread: its parent is {}", PARENT.load(SeqCst));
    println!("it runs: at least 3 rounds");
    println!("asked to stop: its result is {}", thread.stop()?);
    Ok(())
}

/// Counts until it is asked to stop; the result is the argument plus 2.
fn count(argument: u64) -> i32 {
    if let Ok(identity) = identity() {
        PARENT.store(identity.ppid, SeqCst);
    }
    while !service::should_stop() {
        ROUNDS.fetch_add(1, SeqCst);
        let _ = syscall::thread_yield();
    }
    argument as i32 + 2
}

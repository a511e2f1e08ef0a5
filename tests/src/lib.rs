//! Guest tests: what the tests in `src/bin` share.
//!
//! Each file in `src/bin` is a program that runs on Mitosis in ring 3 with no more authority than any
//! program has, and tests one subject. [`suite!`] lists its tests; [`harness`] runs them and reports.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod child;
pub mod harness;
pub mod mail;
pub mod random;
pub mod space;
pub mod twin;
pub mod worker;

pub use harness::{Failure, Outcome};
pub use mail::Mail;
pub use random::Random;
pub use space::Space;
pub use twin::Twin;
pub use worker::Worker;

use core::sync::atomic::{AtomicU64, Ordering};

use libipc::abi::Access;
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::syscall;

/// Nanoseconds in a millisecond.
pub const MILLISECOND: u64 = 1_000_000;
/// Long enough for anything that ought to happen: a test that waits this long has failed.
pub const PATIENCE: u64 = 2_000 * MILLISECOND;

/// The label of the calling thread, which is what every receiver sees of it.
///
/// A program may give its threads no other label than its own, and learns that one from a thread
/// made by the process server, which shares its tables. It is asked for once; a forked child, whose
/// label is another, does not use it.
pub fn own_label() -> Result<u64, Error> {
    static LABEL: AtomicU64 = AtomicU64::new(0);
    if LABEL.load(Ordering::SeqCst) == 0 {
        let receiver = syscall::endpoint_create(slots::POOL, 0)?;
        let sender = syscall::cap_derive(receiver, slots::POOL, 1, Access::all())?;
        let thread = runtime::thread::spawn(16, move || {
            let mut mail = Mail::new();
            if mail.receive(receiver).is_ok() {
                LABEL.store(mail.label, Ordering::SeqCst);
                let _ = mail.reply(Handle::NONE, &[], &[]);
            }
            0
        })
        .map_err(|_| Error::NoMemory)?;
        let called = Mail::new().within(PATIENCE)?.call(sender, &[], &[]);
        syscall::cap_close(sender)?;
        syscall::cap_close(receiver)?;
        called?;
        thread.join();
    }
    Ok(LABEL.load(Ordering::SeqCst))
}

/// Keeps the call that was received last in a new reply.
pub fn keep() -> Result<Handle, Error> {
    let reply = syscall::reply_create(slots::POOL)?;
    syscall::reply_keep(reply).inspect_err(|_| {
        let _ = syscall::cap_close(reply);
    })?;
    Ok(reply)
}

/// A deadline this many nanoseconds from now.
pub fn after(nanoseconds: u64) -> Result<u64, Error> {
    Ok(syscall::clock()? + nanoseconds)
}

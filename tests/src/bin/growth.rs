//! What fork costs: time that does not grow with the memory that the process has touched, and little
//! memory.
//!
//! Time is the processor's counter; under an emulator that counts instructions it is instructions.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::ptr::null_mut;
use core::sync::atomic::AtomicU32;

use libipc::Handle;
use libipc::abi::{Access, IpcCall, IpcFlags, NEVER, OpWord, SlotFlags, TableSelector};
use runtime::memory::{Mapping, own_pool};
use runtime::process::{self, Fork, exit_status, fork, kill, wait};
use runtime::{println, syscall};
use tests::{Failure, Outcome, check, check_eq};

tests::suite! {
    an_idle_forked_process_uses_at_most_24_kib_of_kernel_and_table_memory,
    fork_exit_wait_costs_at_most_a_fifth_more_with_256_mib_than_with_1_mib,
}

const SIGKILL: u32 = 9;

/// Pages of 4 KiB.
const ONE_MIB: u64 = 256;
const ROUNDS: usize = 5;

fn counter() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Makes a child that ends at once, writes one page of the own stack, waits. Returns what it took.
fn fork_exit_wait() -> Result<u64, Failure> {
    let mut page = [0u8; 4096];
    let before = counter();
    let child = match fork()? {
        Fork::Child => process::exit(0),
        Fork::Parent(pid) => pid,
    };
    // SAFETY: a live local; volatile, so that the page is really written.
    unsafe { page.as_mut_ptr().add(2048).write_volatile(1) };
    let waited = wait(child as i32, 0)?;
    let took = counter() - before;
    check_status(waited.status)?;
    Ok(took)
}

fn check_status(status: u32) -> Outcome {
    check_eq!(exit_status(status), Some(0));
    Ok(())
}

/// The least of several rounds, after one that warms up.
fn least() -> Result<u64, Failure> {
    fork_exit_wait()?;
    let mut least = u64::MAX;
    for _ in 0..ROUNDS {
        least = least.min(fork_exit_wait()?);
    }
    Ok(least)
}

/// Memory of which every page was written.
fn touched(pages: u64) -> Result<Mapping, Failure> {
    let mut memory = Mapping::anonymous(pages)?;
    // SAFETY: just mapped, and nobody else knows of it.
    let bytes = unsafe { memory.as_mut_slice() };
    for page in bytes.chunks_mut(4096) {
        page[0] = 1;
    }
    Ok(memory)
}

/// A word that nobody changes.
static NEVER_SET: AtomicU32 = AtomicU32::new(0);

/// A message without a body.
fn message(call: IpcCall, endpoint: Handle) -> Outcome {
    let operation = OpWord::new(call, IpcFlags::empty(), 0, 0);
    // SAFETY: there is no memory part.
    let incoming = unsafe { syscall::message(operation, endpoint, null_mut(), [0; 8]) };
    check_eq!(incoming.delivery.error(), None);
    Ok(())
}

/// Makes a child that tells `sender`, which it finds among its open files, that it runs, and then
/// waits until it is killed. Its stack is all that it writes.
fn idle_child(sender: Handle) -> Result<i32, Failure> {
    match fork()? {
        Fork::Child => {
            if message(IpcCall::Send, sender).is_err() {
                process::exit(1);
            }
            loop {
                let _ = syscall::futex_wait(NEVER_SET.as_ptr() as u64, 0, NEVER);
            }
        }
        Fork::Parent(pid) => Ok(pid as i32),
    }
}

/// Pages in use by the job.
fn used() -> Result<u64, Failure> {
    Ok(syscall::pool_status(own_pool())?.1)
}

fn an_idle_forked_process_uses_at_most_24_kib_of_kernel_and_table_memory() -> Outcome {
    const CHILDREN: usize = 100;
    const SLOT: u32 = 10;
    let receiver = syscall::endpoint_create(own_pool(), 0)?;
    let own = syscall::cap_derive(receiver, own_pool(), 1, Access::all())?;
    syscall::cap_replace(
        own,
        Handle::OWN_FILES,
        SLOT as u64,
        Access::all(),
        SlotFlags::empty(),
    )?;
    let sender = Handle::new(TableSelector::Files, SLOT, 0);
    let mut children = [0; CHILDREN];
    let before = used()?;
    for child in &mut children {
        *child = idle_child(sender)?;
        message(IpcCall::Receive, receiver)?;
    }
    let pages = used()? - before;
    for child in children {
        kill(child, SIGKILL)?;
        wait(child, 0)?;
    }
    for handle in [own, sender, receiver] {
        syscall::cap_close(handle)?;
    }
    println!("{CHILDREN} idle children use {pages} pages");
    // Beside what the kernel keeps, each has a copy of the page that its stack pointer is in.
    let kept = pages - CHILDREN as u64;
    check!(kept * 4096 <= CHILDREN as u64 * 24 * 1024, "{kept} pages");
    Ok(())
}

fn fork_exit_wait_costs_at_most_a_fifth_more_with_256_mib_than_with_1_mib() -> Outcome {
    let _first = touched(ONE_MIB)?;
    let small = least()?;
    let _rest = touched(255 * ONE_MIB)?;
    let large = least()?;
    println!("fork + exit + wait: {small} with 1 MiB touched, {large} with 256 MiB");
    check!(
        large * 10 <= small * 12,
        "{large} is more than 1.2 times {small}"
    );
    Ok(())
}

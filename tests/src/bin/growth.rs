//! What fork costs must not grow with the memory that the process has touched.
//!
//! Time is the processor's counter; under an emulator that counts instructions it is instructions.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::memory::Mapping;
use runtime::println;
use runtime::process::{self, Fork, exit_status, fork, wait};
use tests::{Failure, Outcome, check, check_eq};

tests::suite! {
    fork_exit_wait_costs_at_most_a_fifth_more_with_256_mib_than_with_1_mib,
}

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

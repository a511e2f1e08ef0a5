//! procbench: what process calls, memory and messages cost.
//!
//! The native counterpart of `bench/procbench.c`: the same cases by the same names do the same work here,
//! and print the same lines, `name iterations ns_per_op tsc_per_op`. Beside them stand cases that only a
//! microkernel has. A case that the system has no feature for says so in a line `# name n/a: why`.
//!
//! Use: `procbench [-l] [-r REPEATS] [-d DIVISOR] [CASE...]`. `-l` lists the cases; `-r` runs each that
//! often; `-d` divides the iteration counts; a CASE is a name or the beginning of several, `-CASE` leaves
//! those out. With counted instructions (`cargo xtask bench`) both figures are guest instructions of all
//! code: program, servers, kernel.
#![cfg_attr(target_os = "none", no_std, no_main)]

mod growth;
mod ipc;
mod measure;
mod meeting;
mod memory;
mod processes;

use measure::{Failure, Sum};
use runtime::println;
use runtime::start;

runtime::entry!(run);

/// A case's code: adds to the sum, or says why it cannot.
type Run = fn(&mut Sum) -> Result<(), Failure>;

const HANDLERS: Failure = Failure::NotHere("signals have no handlers yet");

const CASES: &[(&str, Run)] = &[
    ("calibrate_2000", measure::calibrate),
    ("null_syscall", ipc::null_syscall),
    ("null_getppid", processes::null_getppid),
    ("ipc_rtt_0", |sum| ipc::round_trips(sum, 0, 0)),
    ("ipc_rtt_8", |sum| ipc::round_trips(sum, 8, 0)),
    ("ipc_rtt_64", |sum| ipc::round_trips(sum, 64, 0)),
    ("ipc_rtt_512", |sum| ipc::round_trips(sum, 512, 0)),
    ("ipc_rtt_4096", |sum| ipc::round_trips(sum, 4096, 0)),
    ("ipc_rtt_caps_1", |sum| ipc::round_trips(sum, 8, 1)),
    ("ipc_rtt_caps_4", |sum| ipc::round_trips(sum, 8, 4)),
    ("ipc_rtt_same_0", |sum| {
        ipc::round_trips_in_one_space(sum, 0)
    }),
    ("ipc_rtt_same_64", |sum| {
        ipc::round_trips_in_one_space(sum, 64)
    }),
    ("signal_wait", ipc::signal_wait),
    ("signal_nobody", ipc::signal_nobody),
    ("pipe_rtt", |sum| ipc::round_trips(sum, 1, 0)),
    ("fork_exit", processes::fork_exit),
    ("vfork_exit", processes::vfork_exit),
    ("vfork_exec", processes::vfork_exec),
    ("posix_spawn", processes::posix_spawn),
    ("posix_spawn_new", processes::posix_spawn_new),
    ("create_process", processes::create),
    ("fork_exec", processes::fork_exec),
    ("thread_clone", processes::thread_clone),
    ("thread_pthread", processes::thread_with_stack),
    ("service_thread", processes::service_thread),
    ("fork_mem_1m", |sum| {
        memory::fork_with_memory(sum, 1, 400, true)
    }),
    ("fork_mem_16m", |sum| {
        memory::fork_with_memory(sum, 16, 100, true)
    }),
    ("fork_mem_64m", |sum| {
        memory::fork_with_memory(sum, 64, 40, true)
    }),
    ("fork_mem_256m", |sum| {
        memory::fork_with_memory(sum, 256, 12, true)
    }),
    ("fork_mem_1024m", |sum| {
        memory::fork_with_memory(sum, 1024, 12, true)
    }),
    ("fork_untouched_256m", |sum| {
        memory::fork_with_memory(sum, 256, 400, false)
    }),
    ("snapshot_1m", |sum| memory::snapshot(sum, 1)),
    ("snapshot_16m", |sum| memory::snapshot(sum, 16)),
    ("snapshot_64m", |sum| memory::snapshot(sum, 64)),
    ("snapshot_256m", |sum| memory::snapshot(sum, 256)),
    ("snapshot_1024m", |sum| memory::snapshot(sum, 1024)),
    ("cow_child_page", |sum| {
        memory::copy_on_write(sum, memory::Writer::Child)
    }),
    ("cow_parent_page", |sum| {
        memory::copy_on_write(sum, memory::Writer::Parent)
    }),
    ("cow_last_owner_page", |sum| {
        memory::copy_on_write(sum, memory::Writer::LastOwner)
    }),
    ("cow_last_owner_fault", memory::last_owner_fault),
    ("zero_fill_page", memory::zero_fill),
    ("zero_read_page", memory::zero_read),
    ("link_page", memory::link),
    ("mmap_munmap_1m", |sum| memory::map_unmap(sum, 5000, false)),
    ("mmap_touch_munmap_1m", |sum| {
        memory::map_unmap(sum, 50, true)
    }),
    ("alive_1000", |sum| growth::alive(sum, growth::Part::Both)),
    ("alive_1000_make", |sum| {
        growth::alive(sum, growth::Part::Make)
    }),
    ("alive_1000_reap", |sum| {
        growth::alive(sum, growth::Part::Reap)
    }),
    ("chain_100", growth::chain),
    ("fork_beside_1", |sum| growth::fork_beside(sum, 1)),
    ("fork_beside_100", |sum| growth::fork_beside(sum, 100)),
    ("fork_beside_10000", |sum| growth::fork_beside(sum, 10_000)),
    ("spawn_beside_1", |sum| growth::spawn_beside(sum, 1)),
    ("spawn_beside_100", |sum| growth::spawn_beside(sum, 100)),
    ("spawn_beside_10000", |sum| {
        growth::spawn_beside(sum, 10_000)
    }),
    ("lookup_1", |sum| growth::lookup(sum, 1)),
    ("lookup_100", |sum| growth::lookup(sum, 100)),
    ("lookup_10000", |sum| growth::lookup(sum, 10_000)),
    ("revoke_1", |sum| growth::revoke(sum, 1)),
    ("revoke_100", |sum| growth::revoke(sum, 100)),
    ("revoke_10000", |sum| growth::revoke(sum, 10_000)),
    ("revoke_deep_50", growth::revoke_chain),
    ("signal_self", |_| Err(HANDLERS)),
    ("signal_rtt", |_| Err(HANDLERS)),
];

/// Whether a case was asked for: no words at all ask for everything.
fn wanted(name: &str) -> bool {
    let (mut any, mut yes) = (false, false);
    let mut is_number = false;
    for word in start::arguments().skip(1) {
        let skip = core::mem::replace(&mut is_number, matches!(word, b"-r" | b"-d"));
        if skip || is_number || word == b"-l" {
            continue;
        }
        match word.strip_prefix(b"-") {
            Some(left_out) if name.as_bytes().starts_with(left_out) => return false,
            Some(_) => {}
            None => {
                any = true;
                yes |= name.as_bytes().starts_with(word);
            }
        }
    }
    yes || !any
}

/// The number behind an option.
fn number(option: &[u8]) -> Option<u64> {
    let mut words = start::arguments().skip_while(|word| *word != option);
    words.next()?;
    core::str::from_utf8(words.next()?).ok()?.parse().ok()
}

fn run() -> i32 {
    if start::argument(1) == Some("x") {
        // What the exec cases run.
        return 0;
    }
    if start::arguments().any(|word| word == b"-l") {
        for (name, _) in CASES {
            println!("{name}");
        }
        return 0;
    }
    let divisor = number(b"-d").unwrap_or(1).max(1);
    println!("# procbench: name iterations ns_per_op tsc_per_op");
    let mut status = 0;
    for _ in 0..number(b"-r").unwrap_or(1) {
        for (name, case) in CASES.iter().filter(|(name, _)| wanted(name)) {
            let mut sum = Sum::new(divisor);
            match case(&mut sum) {
                Ok(()) => println!("{name} {sum}"),
                Err(Failure::NotHere(why)) => {
                    println!("# {name} n/a: {why}");
                    continue;
                }
                Err(failure) => {
                    println!("# {name} failed: {failure}");
                    status = 1;
                }
            }
            measure::report();
        }
    }
    println!("# procbench: end");
    status
}

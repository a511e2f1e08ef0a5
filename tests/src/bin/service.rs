//! Service threads: processes under PID 2 that run in their creator's memory. Rules:
//! `docs/spec/linux-process.md`, LX-KTHREAD.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use libipc::protocol::process::Errno;
use runtime::process::{client, errno, getpid, getppid, kill, wait};
use runtime::{service, syscall};
use tests::{MILLISECOND, Outcome, PATIENCE, after, check, check_eq};

tests::suite! {
    lx_kthread_02_a_service_thread_is_a_child_of_the_service_root,
    lx_kthread_03_signals_do_nothing_to_it,
    lx_kthread_05_it_is_created_stopped_and_runs_when_woken,
    lx_kthread_09_one_that_never_ran_ends_with_eintr,
    lx_kthread_10_stop_waits_for_its_end_and_brings_its_result,
    lx_kthread_10_waking_it_twice_runs_it_once,
    lx_kthread_12_only_a_service_thread_is_asked_to_stop,
    a_waiting_service_thread_learns_that_it_should_stop,
    one_that_is_gone_cannot_be_woken_or_stopped,
    many_service_threads_run_side_by_side,
}

static CELL: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU32 = AtomicU32::new(0);

const STACK_PAGES: u64 = 8;

/// Waits until `CELL` is `value`.
fn until_cell(value: u64) -> Outcome {
    let deadline = after(PATIENCE)?;
    while CELL.load(SeqCst) != value {
        check!(
            syscall::clock()? < deadline,
            "the cell is {}, not {value}",
            CELL.load(SeqCst)
        );
        syscall::thread_yield()?;
    }
    Ok(())
}

/// Says who it is, then waits to be stopped.
fn introduce(argument: u64) -> i32 {
    CELL.store(u64::from(getpid()) << 32 | u64::from(getppid()), SeqCst);
    service::wait_for_stop();
    argument as i32
}

fn lx_kthread_02_a_service_thread_is_a_child_of_the_service_root() -> Outcome {
    CELL.store(0, SeqCst);
    let thread = service::create("introducer", introduce, 1, STACK_PAGES)?;
    let pid = thread.pid();
    check!(pid != getpid());
    thread.wake()?;
    until_cell(u64::from(pid) << 32 | 2)?;
    let line = client().process_at(pid)?;
    check!(
        line.is_some_and(|line| {
            (line.pid, line.ppid, line.pgid, line.sid) == (pid, 2, 0, 0)
                && line.name.0.as_slice() == b"introducer"
        }),
        "its line in the list of processes is wrong"
    );
    // Its creator is not its parent.
    check_eq!(wait(pid as i32, 0).err(), Some(Errno::ECHILD));
    check_eq!(thread.stop()?, 1);
    Ok(())
}

fn lx_kthread_03_signals_do_nothing_to_it() -> Outcome {
    CELL.store(0, SeqCst);
    let thread = service::create("deaf", introduce, 2, STACK_PAGES)?;
    thread.wake()?;
    until_cell(u64::from(thread.pid()) << 32 | 2)?;
    for signal in [9, 15, 19, 1] {
        kill(thread.pid() as i32, signal)?;
    }
    check_eq!(
        client().setpgid(thread.pid() as i32, 0).err().map(errno),
        Some(Errno::ESRCH)
    );
    check_eq!(thread.stop()?, 2);
    Ok(())
}

fn store(argument: u64) -> i32 {
    CALLS.fetch_add(1, SeqCst);
    CELL.store(argument, SeqCst);
    service::wait_for_stop();
    argument as i32 * 2
}

fn lx_kthread_05_it_is_created_stopped_and_runs_when_woken() -> Outcome {
    CELL.store(0, SeqCst);
    let thread = service::create("stopped", store, 33, STACK_PAGES)?;
    let later = after(20 * MILLISECOND)?;
    while syscall::clock()? < later {
        syscall::thread_yield()?;
    }
    check_eq!(CELL.load(SeqCst), 0);
    thread.wake()?;
    until_cell(33)?;
    check_eq!(thread.stop()?, 66);
    Ok(())
}

fn lx_kthread_09_one_that_never_ran_ends_with_eintr() -> Outcome {
    CALLS.store(0, SeqCst);
    let thread = service::create("never", store, 1, STACK_PAGES)?;
    check_eq!(thread.stop()?, -(Errno::EINTR as i32));
    check_eq!(CALLS.load(SeqCst), 0);
    Ok(())
}

fn count_until_stopped(limit: u64) -> i32 {
    while !service::should_stop() {
        CELL.fetch_add(1, SeqCst);
        let _ = syscall::thread_yield();
    }
    // Work left to do after the request is done before the stopper goes on.
    for _ in 0..limit {
        let _ = syscall::thread_yield();
    }
    CELL.store(u64::MAX, SeqCst);
    -7
}

fn lx_kthread_10_stop_waits_for_its_end_and_brings_its_result() -> Outcome {
    CELL.store(0, SeqCst);
    let thread = service::create("counter", count_until_stopped, 20, STACK_PAGES)?;
    let pid = thread.pid();
    thread.wake()?;
    while CELL.load(SeqCst) < 5 {
        syscall::thread_yield()?;
    }
    check_eq!(thread.stop()?, -7);
    check_eq!(CELL.load(SeqCst), u64::MAX);
    check_eq!(kill(pid as i32, 0), Err(Errno::ESRCH));
    Ok(())
}

fn lx_kthread_10_waking_it_twice_runs_it_once() -> Outcome {
    CELL.store(0, SeqCst);
    CALLS.store(0, SeqCst);
    let thread = service::create("once", introduce_once, 0, STACK_PAGES)?;
    thread.wake()?;
    thread.wake()?;
    until_cell(1)?;
    thread.wake()?;
    check_eq!(thread.stop()?, 0);
    check_eq!(CALLS.load(SeqCst), 1);
    Ok(())
}

fn introduce_once(_: u64) -> i32 {
    CALLS.fetch_add(1, SeqCst);
    CELL.store(1, SeqCst);
    service::wait_for_stop();
    0
}

fn lx_kthread_12_only_a_service_thread_is_asked_to_stop() -> Outcome {
    let refused = client().service_should_stop(false).err().map(errno);
    check_eq!(refused, Some(Errno::EINVAL));
    check!(client().service_exit(0).is_err());
    Ok(())
}

fn wait_then_answer(argument: u64) -> i32 {
    CELL.store(1, SeqCst);
    service::wait_for_stop();
    CELL.store(2, SeqCst);
    argument as i32
}

fn a_waiting_service_thread_learns_that_it_should_stop() -> Outcome {
    CELL.store(0, SeqCst);
    let thread = service::create("waiter", wait_then_answer, 5, STACK_PAGES)?;
    thread.wake()?;
    until_cell(1)?;
    check_eq!(thread.stop()?, 5);
    check_eq!(CELL.load(SeqCst), 2);
    Ok(())
}

fn one_that_is_gone_cannot_be_woken_or_stopped() -> Outcome {
    let thread = service::create("gone", store, 1, STACK_PAGES)?;
    let pid = thread.pid();
    thread.stop()?;
    for pid in [pid, getpid(), 1, 2, 4_000_000] {
        check_eq!(
            client().service_wake(pid).err().map(errno),
            Some(Errno::ESRCH)
        );
        check_eq!(
            client().service_stop(pid).err().map(errno),
            Some(Errno::ESRCH)
        );
    }
    Ok(())
}

fn add(argument: u64) -> i32 {
    CELL.fetch_add(argument, SeqCst);
    service::wait_for_stop();
    argument as i32
}

fn many_service_threads_run_side_by_side() -> Outcome {
    CELL.store(0, SeqCst);
    let mut threads = [const { None }; 20];
    for (number, place) in threads.iter_mut().enumerate() {
        let thread = service::create("one of many", add, number as u64, 4)?;
        thread.wake()?;
        *place = Some(thread);
    }
    until_cell((0..20).sum())?;
    for (number, thread) in threads.into_iter().flatten().enumerate() {
        check_eq!(thread.stop()?, number as i32);
    }
    Ok(())
}

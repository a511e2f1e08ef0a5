//! fork, vfork, exec, exit, wait and kill as Linux has them. Rules: `docs/spec/linux-process.md`.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;

use libipc::abi::{Access, SendCap, SlotFlags};
use libipc::protocol::files::{From, access};
use libipc::protocol::process::{Errno, Start, slots};
use libipc::{Error, Handle};
use runtime::file::{self, Fd};
use runtime::io::STDOUT;
use runtime::process::{
    self, Fork, NO_HANG, Order, client, ending_signal, errno, exit_status, fork, getpid, getppid,
    gettid, identity, kill, vfork, wait,
};
use runtime::{start, syscall};
use tests::child::{SharedPage, check_child, child, in_child, own_path};
use tests::{Failure, MILLISECOND, Outcome, Worker, after, check, check_eq};

tests::suite! {
    child other_image;
    lx_fork_01_the_parent_gets_the_childs_pid_and_the_child_none,
    lx_fork_02_a_child_has_a_new_pid_and_its_parents_as_ppid,
    lx_fork_06_a_copied_descriptor_shares_the_offset_and_closes_alone,
    lx_pid_02_numbers_rise_and_are_not_reused_at_once,
    lx_pgrp_01_a_child_is_in_its_parents_group_and_session,
    lx_vfork_02_a_failed_exec_does_not_release_the_parent,
    lx_vfork_03_the_child_runs_before_the_parent_goes_on,
    lx_vfork_04_only_memory_is_shared,
    lx_vfork_07_killing_the_waiting_parent_keeps_the_child,
    lx_vfork_09_exec_releases_the_parent_while_the_new_program_runs,
    lx_exec_01_exec_keeps_pid_and_parent_and_brings_arguments_and_environment,
    lx_exec_03_close_on_exec_descriptors_are_closed_and_others_kept,
    lx_exec_05_a_failed_exec_changes_nothing,
    an_initial_stack_that_is_not_there_or_too_large_is_refused,
    an_image_that_ran_before_begins_anew,
    an_image_needs_a_window_that_may_be_executed,
    starting_an_image_leaves_no_capability_behind_whether_it_works_or_not,
    lx_exit_01_the_status_has_the_low_byte_of_the_code,
    lx_exit_03_a_zombie_keeps_its_pid_until_it_is_waited_for,
    lx_exit_04_orphans_go_to_init,
    lx_exit_06_a_subreaper_adopts_its_descendants,
    lx_wait_02_a_child_is_waited_for_by_pid_or_any,
    lx_wait_02_unknown_options_are_refused,
    lx_wait_04_no_hang_returns_at_once_and_no_child_is_an_error,
    lx_wait_08_children_are_found_in_the_order_of_their_creation,
    lx_wait_12_ignoring_sigchld_reaps_children_automatically,
    lx_wait_15_what_is_no_child_cannot_be_waited_for,
    a_call_under_the_label_of_a_thread_that_waits_is_refused,
    lx_sig_01_impossible_signals_and_processes_are_refused,
    lx_sig_02_kill_ends_a_process_with_its_signal,
    lx_sig_02_kill_reaches_a_whole_group,
    lx_sig_12_a_stopped_process_continues_on_sigcont,
    lx_sig_15_init_cannot_be_killed,
    faults_end_a_process_with_their_signals,
    images_that_a_program_made_itself_cost_nothing_once_they_are_gone,
    an_image_cannot_be_taken_from_others,
    a_program_gets_the_memory_that_is_kept_for_images_before_it_ends_for_want_of_it,
}

const SIGCHLD: u32 = 17;
const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;
const SIGCONT: u32 = 18;
const SIGSTOP: u32 = 19;
const UNTRACED: u32 = 2;

/// Zero, and then the number of times that this memory was used.
static RUNS: AtomicU64 = AtomicU64::new(0);
/// The same from 41 on.
static MARKED: AtomicU64 = AtomicU64::new(41);

/// What this program does when a test starts its image anew: `child WHAT [NUMBER]`.
fn other_image() -> i32 {
    let number = start::argument(3).and_then(|text| text.parse::<u32>().ok());
    let good = match start::argument(2) {
        Some("pids") => number == Some(getpid()) && getpid() == gettid(),
        Some("parent") => number == Some(getppid()),
        Some("variable") => start::variable("COLOUR") == Some(b"blue"),
        Some("anew") => {
            let before = [RUNS.fetch_add(1, SeqCst), MARKED.fetch_add(1, SeqCst)];
            // Below the first page of the stack nobody has written before either.
            let here = 0u8;
            let below = ((&raw const here).addr() & !0xfff) - 0x3000;
            // SAFETY: part of the first stack, which nothing uses so deep.
            let word = unsafe { core::ptr::with_exposed_provenance_mut::<u64>(below).as_mut() };
            let untouched = word.map(|word| core::mem::replace(word, 7));
            before == [0, 41] && untouched == Some(0)
        }
        Some("descriptors") => {
            file::info(Fd(20)).is_ok() && file::info(Fd(21)).is_err() && file::info(STDOUT).is_ok()
        }
        Some("stay") => loop {
            let _ = syscall::thread_yield();
        },
        _ => false,
    };
    i32::from(!good)
}

/// Decimal digits, for an argument of another image.
struct Digits([u8; 10], usize);

impl Digits {
    fn of(mut number: u32) -> Digits {
        let mut digits = Digits([b'0'; 10], 9);
        while number > 0 {
            digits.0[digits.1] = b'0' + (number % 10) as u8;
            number /= 10;
            digits.1 -= 1;
        }
        digits.1 = (digits.1 + 1).min(9);
        digits
    }

    fn bytes(&self) -> &[u8] {
        &self.0[self.1..]
    }
}

/// Replaces the calling process by this image, told `what` and `number`.
fn exec_self(what: &[u8], number: u32) -> Outcome {
    let digits = Digits::of(number);
    let arguments = [own_path(), b"child", what, digits.bytes()];
    let environment: [&[u8]; 2] = [b"SHAPE=round", b"COLOUR=blue"];
    let error = process::exec(own_path(), arguments.into_iter(), environment.into_iter());
    Err(error.into())
}

/// What Linux says of a refused call.
fn refused<T>(
    result: Result<T, libipc::wire::CallError<libipc::protocol::process::ProcessError>>,
) -> Option<Errno> {
    result.err().map(errno)
}

fn lx_fork_01_the_parent_gets_the_childs_pid_and_the_child_none() -> Outcome {
    let shared = SharedPage::new()?;
    let pid = match fork()? {
        Fork::Child => {
            shared.word(0).store(getpid().into(), SeqCst);
            process::exit(0)
        }
        Fork::Parent(pid) => pid,
    };
    check_child(pid)?;
    check_eq!(shared.word(0).load(SeqCst), u64::from(pid));
    Ok(())
}

fn lx_fork_02_a_child_has_a_new_pid_and_its_parents_as_ppid() -> Outcome {
    let parent = getpid();
    check_eq!(gettid(), parent);
    in_child(|| {
        check!(getpid() != parent);
        check_eq!(getppid(), parent);
        check_eq!(gettid(), getpid());
        let child = getpid();
        in_child(|| {
            check_eq!(getppid(), child);
            Ok(())
        })
    })
}

fn lx_fork_06_a_copied_descriptor_shares_the_offset_and_closes_alone() -> Outcome {
    let opened = file::open(own_path(), access::READ)?;
    file::seek(opened, 100, From::Start)?;
    in_child(|| {
        check_eq!(file::seek(opened, 23, From::Current)?, 123);
        file::close(opened)?;
        Ok(())
    })?;
    check_eq!(file::seek(opened, 0, From::Current)?, 123);
    let mut bytes = [0; 16];
    check_eq!(file::read(opened, &mut bytes)?, 16);
    file::close(opened)?;
    Ok(())
}

fn lx_pid_02_numbers_rise_and_are_not_reused_at_once() -> Outcome {
    let mut last = 0;
    for _ in 0..20 {
        let pid = child(|| Ok(()))?;
        check!(pid > last, "{pid} comes after {last}");
        check_child(pid)?;
        last = pid;
    }
    Ok(())
}

fn lx_pgrp_01_a_child_is_in_its_parents_group_and_session() -> Outcome {
    let own = identity()?;
    in_child(|| {
        let child = identity()?;
        check_eq!((child.pgid, child.sid), (own.pgid, own.sid));
        check_eq!(client().setsid()?, getpid());
        let leader = identity()?;
        check_eq!((leader.pgid, leader.sid), (getpid(), getpid()));
        check_eq!(refused(client().setsid()), Some(Errno::EPERM));
        Ok(())
    })?;
    in_child(|| {
        client().setpgid(0, 0)?;
        check_eq!(identity()?.pgid, getpid());
        check_eq!(client().getpgid(0)?, getpid());
        check_eq!(refused(client().setpgid(1, 0)), Some(Errno::ESRCH));
        check_eq!(refused(client().setpgid(0, -1)), Some(Errno::EINVAL));
        Ok(())
    })
}

fn lx_vfork_02_a_failed_exec_does_not_release_the_parent() -> Outcome {
    let shared = SharedPage::new()?;
    let pid = vfork(|_| {
        let nothing = core::iter::empty::<&[u8]>();
        let error = process::exec(b"/no/such/file", nothing.clone(), nothing);
        for _ in 0..20 {
            let _ = syscall::thread_yield();
        }
        shared.word(0).store(error as u64, SeqCst);
        0
    })?;
    check_eq!(shared.word(0).load(SeqCst), Errno::ENOENT as u64);
    check_child(pid)
}

fn lx_vfork_03_the_child_runs_before_the_parent_goes_on() -> Outcome {
    let mut steps = 0;
    let parent = getpid();
    let seen = SharedPage::new()?;
    let pid = vfork(|_| {
        for _ in 0..5 {
            let _ = syscall::thread_yield();
            steps += 1;
        }
        seen.word(0).store(getpid().into(), SeqCst);
        seen.word(1).store(getppid().into(), SeqCst);
        7
    })?;
    check_eq!(steps, 5);
    check_eq!(seen.word(0).load(SeqCst), u64::from(pid));
    check_eq!(seen.word(1).load(SeqCst), u64::from(parent));
    check_eq!(getpid(), parent);
    let waited = wait(pid as i32, 0)?;
    check_eq!(exit_status(waited.status), Some(7));
    Ok(())
}

fn lx_vfork_04_only_memory_is_shared() -> Outcome {
    let mut changed = 1;
    let pid = vfork(|_| {
        changed = 2;
        i32::from(file::duplicate_to(STDOUT, Fd(30)).is_err())
    })?;
    check_eq!(changed, 2);
    check!(file::info(Fd(30)).is_err());
    check_child(pid)
}

fn lx_vfork_07_killing_the_waiting_parent_keeps_the_child() -> Outcome {
    let shared = SharedPage::new()?;
    let parent = child(|| {
        let _ = vfork(|_| {
            shared.word(0).store(getpid().into(), SeqCst);
            while shared.word(1).load(SeqCst) == 0 {
                let _ = syscall::thread_yield();
            }
            shared.word(2).store(getppid().into(), SeqCst);
            0
        });
        Ok(())
    })?;
    while shared.word(0).load(SeqCst) == 0 {
        syscall::thread_yield()?;
    }
    kill(parent as i32, SIGKILL)?;
    let waited = wait(parent as i32, 0)?;
    check_eq!(ending_signal(waited.status), Some(SIGKILL));
    // The child lives on, in memory that was its parent's, as a child of init.
    shared.word(1).store(1, SeqCst);
    shared.wait_for(2, 1)
}

fn lx_vfork_09_exec_releases_the_parent_while_the_new_program_runs() -> Outcome {
    let pid = vfork(|_| match exec_self(b"stay", 0) {
        Ok(()) => 0,
        Err(_) => 1,
    })?;
    check_eq!(wait(pid as i32, NO_HANG)?.pid, 0);
    kill(pid as i32, SIGKILL)?;
    check_eq!(ending_signal(wait(pid as i32, 0)?.status), Some(SIGKILL));
    Ok(())
}

fn lx_exec_01_exec_keeps_pid_and_parent_and_brings_arguments_and_environment() -> Outcome {
    let parent = getpid();
    in_child(|| exec_self(b"pids", getpid()))?;
    in_child(|| exec_self(b"parent", parent))?;
    in_child(|| exec_self(b"variable", 0))
}

fn lx_exec_03_close_on_exec_descriptors_are_closed_and_others_kept() -> Outcome {
    in_child(|| {
        file::duplicate_to(STDOUT, Fd(20))?;
        file::duplicate_to(STDOUT, Fd(21))?;
        file::set_flags(Fd(21), SlotFlags::CLOSE_ON_EXEC, SlotFlags::CLOSE_ON_EXEC)?;
        exec_self(b"descriptors", 0)
    })
}

fn lx_exec_05_a_failed_exec_changes_nothing() -> Outcome {
    let nothing = core::iter::empty::<&[u8]>();
    let pid = getpid();
    for (path, error) in [
        (b"/bin/no-such-program".as_slice(), Errno::ENOENT),
        (b"/bin", Errno::EACCES),
        (b"/bin/sh/x", Errno::ENOTDIR),
        (b"", Errno::ENOENT),
    ] {
        let result = process::exec(path, nothing.clone(), nothing.clone());
        check!(
            result == error,
            "exec of {:?}: {result:?}, expected {error:?}",
            core::str::from_utf8(path)
        );
    }
    check_eq!(getpid(), pid);
    in_child(|| Ok(()))
}

fn an_initial_stack_that_is_not_there_or_too_large_is_refused() -> Outcome {
    let image = || file::image(own_path()).map(SendCap::moved);
    let stack = [0u64; 16];
    let start = Start {
        name: *b"none\0\0\0\0\0\0\0\0\0\0\0\0",
        stack: (&raw const stack).addr() as u64,
        stack_bytes: 128,
    };
    for (start, error) in [
        (Start { stack: 8, ..start }, Errno::EFAULT),
        (
            Start {
                stack: u64::MAX - 64,
                ..start
            },
            Errno::EFAULT,
        ),
        (
            Start {
                stack_bytes: 0,
                ..start
            },
            Errno::EINVAL,
        ),
        (
            Start {
                stack_bytes: 120,
                ..start
            },
            Errno::EINVAL,
        ),
        (
            Start {
                stack_bytes: 1 << 20,
                ..start
            },
            Errno::E2BIG,
        ),
        (
            Start {
                stack_bytes: u64::MAX - 15,
                ..start
            },
            Errno::E2BIG,
        ),
    ] {
        // Once with the loader, and once when the image is there.
        for _ in 0..2 {
            check_eq!(refused(client().spawn(start, image()?)), Some(error));
            check_eq!(refused(client().exec(start, image()?)), Some(error));
        }
    }
    Ok(())
}

fn an_image_that_ran_before_begins_anew() -> Outcome {
    for _ in 0..3 {
        in_child(|| exec_self(b"anew", 0))?;
    }
    Ok(())
}

fn an_image_needs_a_window_that_may_be_executed() -> Outcome {
    let image = file::image(own_path())?;
    in_child(|| exec_self(b"variable", 0))?;
    let readable = syscall::cap_derive(image, slots::POOL, 0, Access::READ)?;
    let stack = [0u64; 16];
    let start = Start {
        name: [0; 16],
        stack: (&raw const stack).addr() as u64,
        stack_bytes: 128,
    };
    for (window, error) in [(readable, Errno::EACCES), (slots::POOL, Errno::EINVAL)] {
        let result = client().spawn(start, SendCap::copy(window));
        check_eq!(refused(result), Some(error));
    }
    syscall::cap_close(readable)?;
    syscall::cap_close(image)?;
    Ok(())
}

/// How many slots of the caller's private table are in use.
fn private_slots() -> Result<u64, Error> {
    let mut from = 0;
    let mut count = 0;
    loop {
        match syscall::table_next(Handle::OWN_PRIVATE, from)? {
            (u64::MAX, _) => return Ok(count),
            (index, _) => (from, count) = (index + 1, count + 1),
        }
    }
}

fn starting_an_image_leaves_no_capability_behind_whether_it_works_or_not() -> Outcome {
    let arguments = [own_path(), b"child", b"variable"];
    let environment = [b"COLOUR=blue".as_slice()];
    let before = private_slots()?;
    for (path, error) in [
        (b"/bin/no-such-program".as_slice(), Some(Errno::ENOENT)),
        (b"/bin", Some(Errno::EACCES)),
        (b"/kernel.symbols", Some(Errno::ENOEXEC)),
        (own_path(), None),
    ] {
        let spawned = Order::new(path, arguments.into_iter(), environment.into_iter())
            .and_then(process::spawn);
        check_eq!(spawned.err(), error);
        if let Ok(pid) = spawned {
            check_child(pid)?;
        } else {
            process::exec(path, arguments.into_iter(), environment.into_iter());
            let child = vfork(|child| {
                child.exec(path, arguments.into_iter(), environment.into_iter());
                0
            })?;
            check_child(child)?;
        }
        check_eq!(private_slots()?, before);
    }
    Ok(())
}

fn lx_exit_01_the_status_has_the_low_byte_of_the_code() -> Outcome {
    for code in [0, 1, 77, 255, 256, 0x1ff, -1] {
        let pid = match fork()? {
            Fork::Child => process::exit(code),
            Fork::Parent(pid) => pid,
        };
        let waited = wait(pid as i32, 0)?;
        check_eq!(
            (waited.pid, waited.status),
            (pid, (code as u32 & 0xff) << 8)
        );
    }
    Ok(())
}

/// Waits until the process with this PID is in `state`.
fn until_state(pid: u32, state: u8) -> Outcome {
    let deadline = tests::after(tests::PATIENCE)?;
    loop {
        let line = client().process_at(pid)?;
        if line.is_some_and(|line| line.pid == pid && line.state == state) {
            return Ok(());
        }
        check!(
            syscall::clock()? < deadline,
            "not in state {}",
            state as char
        );
        syscall::thread_yield()?;
    }
}

fn lx_exit_03_a_zombie_keeps_its_pid_until_it_is_waited_for() -> Outcome {
    let pid = child(|| Ok(()))?;
    until_state(pid, b'Z')?;
    kill(pid as i32, SIGKILL)?;
    kill(pid as i32, 0)?;
    check_child(pid)?;
    check_eq!(kill(pid as i32, 0), Err(Errno::ESRCH));
    Ok(())
}

fn lx_exit_04_orphans_go_to_init() -> Outcome {
    let shared = SharedPage::new()?;
    let parent = child(|| {
        child(|| {
            let own_parent = getppid();
            shared.word(0).store(own_parent.into(), SeqCst);
            while getppid() == own_parent {
                syscall::thread_yield()?;
            }
            shared.word(1).store(getppid().into(), SeqCst);
            Ok(())
        })?;
        while shared.word(0).load(SeqCst) == 0 {
            syscall::thread_yield()?;
        }
        Ok(())
    })?;
    check_child(parent)?;
    check_eq!(shared.word(0).load(SeqCst), u64::from(parent));
    shared.wait_for(1, 1)
}

fn lx_exit_06_a_subreaper_adopts_its_descendants() -> Outcome {
    in_child(|| {
        client().set_subreaper(true)?;
        let shared = SharedPage::new()?;
        in_child(|| {
            let grandchild = child(|| Ok(()))?;
            shared.word(0).store(grandchild.into(), SeqCst);
            Ok(())
        })?;
        check_child(shared.word(0).load(SeqCst) as u32)
    })
}

fn lx_wait_02_a_child_is_waited_for_by_pid_or_any() -> Outcome {
    let first = child(|| Ok(()))?;
    let second = child(|| Ok(()))?;
    check_child(second)?;
    check_eq!(wait(-1, 0)?.pid, first);
    // 0: the own group; less than -1: a group by its number.
    let third = child(|| Ok(()))?;
    check_eq!(wait(0, 0)?.pid, third);
    let fourth = child(|| Ok(()))?;
    let group = identity()?.pgid as i32;
    check_eq!(wait(-group, 0)?.pid, fourth);
    Ok(())
}

fn lx_wait_02_unknown_options_are_refused() -> Outcome {
    for options in [4, 0x10, 0x0100_0000, 0x8] {
        let expected = if options == 8 {
            Errno::ECHILD
        } else {
            Errno::EINVAL
        };
        check_eq!(wait(-1, options | NO_HANG).err(), Some(expected));
    }
    check_eq!(wait(i32::MIN, NO_HANG).err(), Some(Errno::ESRCH));
    Ok(())
}

fn lx_wait_04_no_hang_returns_at_once_and_no_child_is_an_error() -> Outcome {
    check_eq!(wait(-1, 0).err(), Some(Errno::ECHILD));
    check_eq!(wait(-1, NO_HANG).err(), Some(Errno::ECHILD));
    let shared = SharedPage::new()?;
    let pid = child(|| shared.wait_for(0, 1))?;
    check_eq!(wait(-1, NO_HANG)?.pid, 0);
    check_eq!(wait(pid as i32, NO_HANG)?.pid, 0);
    shared.word(0).store(1, SeqCst);
    check_child(pid)
}

fn lx_wait_08_children_are_found_in_the_order_of_their_creation() -> Outcome {
    let mut pids = [0; 3];
    for pid in &mut pids {
        *pid = child(|| Ok(()))?;
    }
    for pid in pids {
        until_state(pid, b'Z')?;
    }
    for pid in pids {
        check_eq!(wait(-1, 0)?.pid, pid);
    }
    Ok(())
}

fn lx_wait_12_ignoring_sigchld_reaps_children_automatically() -> Outcome {
    in_child(|| {
        check_eq!(client().ignore_signal(SIGCHLD, true)?, false);
        let pid = child(|| Ok(()))?;
        // The wait lasts until the last child is gone, and then there is none.
        check_eq!(wait(-1, 0).err(), Some(Errno::ECHILD));
        check_eq!(kill(pid as i32, 0), Err(Errno::ESRCH));
        Ok(())
    })
}

fn lx_wait_15_what_is_no_child_cannot_be_waited_for() -> Outcome {
    for pid in [getpid(), getppid(), 1, 2, 4_000_000] {
        check_eq!(wait(pid as i32, 0).err(), Some(Errno::ECHILD));
    }
    let sibling = child(|| {
        syscall::thread_yield()?;
        Ok(())
    })?;
    in_child(|| {
        check_eq!(wait(sibling as i32, 0).err(), Some(Errno::ECHILD));
        Ok(())
    })?;
    check_child(sibling)
}

/// A program can make a thread with the label of another, which the process server takes for that one.
fn a_call_under_the_label_of_a_thread_that_waits_is_refused() -> Outcome {
    let shared = SharedPage::new()?;
    let busy = child(|| shared.wait_for(0, 1))?;
    let twin = || check_child(busy);
    let twin = Worker::start(&twin)?;
    let waits = after(20 * MILLISECOND)?;
    while syscall::clock()? < waits {
        syscall::thread_yield()?;
    }
    check_eq!(wait(-1, 0), Err(Errno::EAGAIN));
    check_eq!(vfork(|_| 0), Err(Errno::EAGAIN));
    check_eq!(wait(-1, NO_HANG)?.pid, 0);
    shared.word(0).store(1, SeqCst);
    twin.join()
}

fn lx_sig_01_impossible_signals_and_processes_are_refused() -> Outcome {
    let own = getpid() as i32;
    for signal in [65, 1000, u32::MAX] {
        check_eq!(kill(own, signal), Err(Errno::EINVAL));
    }
    kill(own, 0)?;
    for pid in [4_000_000, i32::MAX, i32::MIN] {
        check_eq!(kill(pid, 0), Err(Errno::ESRCH));
    }
    Ok(())
}

/// A child that waits for ever.
fn lasting_child() -> Result<u32, Failure> {
    child(|| {
        loop {
            syscall::thread_yield()?;
        }
    })
}

fn lx_sig_02_kill_ends_a_process_with_its_signal() -> Outcome {
    for signal in [1, 2, SIGKILL, 13, SIGTERM, 34] {
        let pid = lasting_child()?;
        kill(pid as i32, signal)?;
        check_eq!(ending_signal(wait(pid as i32, 0)?.status), Some(signal));
    }
    // A signal whose default is to do nothing does nothing.
    let pid = lasting_child()?;
    kill(pid as i32, SIGCHLD)?;
    check_eq!(wait(pid as i32, NO_HANG)?.pid, 0);
    kill(pid as i32, SIGKILL)?;
    wait(pid as i32, 0)?;
    Ok(())
}

fn lx_sig_02_kill_reaches_a_whole_group() -> Outcome {
    let first = lasting_child()?;
    client().setpgid(first as i32, 0)?;
    let second = lasting_child()?;
    client().setpgid(second as i32, first as i32)?;
    let other = lasting_child()?;
    kill(-(first as i32), SIGTERM)?;
    for pid in [first, second] {
        check_eq!(ending_signal(wait(pid as i32, 0)?.status), Some(SIGTERM));
    }
    check_eq!(wait(other as i32, NO_HANG)?.pid, 0);
    kill(other as i32, SIGKILL)?;
    wait(other as i32, 0)?;
    Ok(())
}

fn lx_sig_12_a_stopped_process_continues_on_sigcont() -> Outcome {
    let shared = SharedPage::new()?;
    let pid = child(|| {
        loop {
            shared.word(0).fetch_add(1, SeqCst);
        }
    })?;
    while shared.word(0).load(SeqCst) == 0 {
        syscall::thread_yield()?;
    }
    kill(pid as i32, SIGSTOP)?;
    let stopped = wait(pid as i32, UNTRACED)?;
    check_eq!((stopped.pid, stopped.status), (pid, SIGSTOP << 8 | 0x7f));
    let count = shared.word(0).load(SeqCst);
    for _ in 0..100 {
        syscall::thread_yield()?;
    }
    check_eq!(shared.word(0).load(SeqCst), count);
    kill(pid as i32, SIGCONT)?;
    let deadline = tests::after(tests::PATIENCE)?;
    while shared.word(0).load(SeqCst) == count {
        check!(syscall::clock()? < deadline, "it does not go on");
        syscall::thread_yield()?;
    }
    // A stopped process can be killed.
    kill(pid as i32, SIGSTOP)?;
    kill(pid as i32, SIGKILL)?;
    check_eq!(ending_signal(wait(pid as i32, 0)?.status), Some(SIGKILL));
    Ok(())
}

fn lx_sig_15_init_cannot_be_killed() -> Outcome {
    kill(1, SIGKILL)?;
    kill(1, SIGSTOP)?;
    kill(1, SIGTERM)?;
    check_eq!(identity()?.ppid, 1);
    in_child(|| Ok(()))
}

fn faults_end_a_process_with_their_signals() -> Outcome {
    use core::arch::asm;
    // SAFETY: each faults in a child process, which ends by it.
    let faults: [(u32, fn()); 6] = unsafe {
        [
            (11, || asm!("mov byte ptr [{}], 1", in(reg) 8u64)),
            (
                11,
                || asm!("mov al, [{}]", in(reg) u64::MAX << 47, out("al") _),
            ),
            (11, || asm!("cli")),
            (4, || asm!("ud2")),
            (
                8,
                || asm!("xor ecx, ecx", "div ecx", out("ecx") _, out("eax") _, out("edx") _),
            ),
            (5, || asm!("int3")),
        ]
    };
    for (signal, fault) in faults {
        let pid = child(|| {
            fault();
            Ok(())
        })?;
        let status = wait(pid as i32, 0)?.status;
        check_eq!(ending_signal(status & !0x80), Some(signal));
    }
    Ok(())
}

/// An image in memory: a page with its header, and `pages` zero pages to be mapped writable.
fn image_of_zeroes(pages: u64) -> Result<(runtime::memory::Mapping, Handle), Failure> {
    let whole = pages + 2;
    let file = runtime::memory::Mapping::anonymous(whole)?;
    let base = libipc::abi::layout::IMAGE;
    // SAFETY: ours alone.
    let bytes = unsafe { core::slice::from_raw_parts_mut(file.address() as *mut u8, 4096) };
    bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut put = |at: usize, value: u64, size: usize| {
        bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    };
    put(16, 2, 2); // executable
    put(18, 62, 2); // x86-64
    put(20, 1, 4);
    put(24, base, 8); // entry
    put(32, 64, 8); // the two program headers and their size
    put(52, 64, 2);
    put(54, 56, 2);
    put(56, 2, 2);
    for (n, (flags, offset, address, size)) in [
        (5u64, 0u64, base, 4096u64),
        (6, 4096, base + 4096, pages * 4096),
    ]
    .into_iter()
    .enumerate()
    {
        let at = 64 + 56 * n;
        put(at, 1, 4);
        put(at + 4, flags, 4);
        put(at + 8, offset, 8);
        put(at + 16, address, 8);
        put(at + 24, address, 8);
        put(at + 32, size, 8);
        put(at + 40, size, 8);
        put(at + 48, 4096, 8);
    }
    let window = syscall::window_create(
        slots::SPACE,
        slots::POOL,
        file.address(),
        whole,
        Access::READ | Access::EXECUTE,
    )?;
    Ok((file, window))
}

/// Runs such an image, whose program faults at once.
fn run_image_of_zeroes(pages: u64) -> Outcome {
    let stack = [0u64; 16];
    let start = Start {
        name: [0; 16],
        stack: (&raw const stack).addr() as u64,
        stack_bytes: size_of_val(&stack) as u64,
    };
    let (_file, window) = image_of_zeroes(pages)?;
    let pid = client()
        .spawn(start, SendCap::moved(window))
        .map_err(errno)?;
    wait(pid as i32, 0)?;
    Ok(())
}

fn images_that_a_program_made_itself_cost_nothing_once_they_are_gone() -> Outcome {
    let mut before = 0;
    for round in 0..20 {
        run_image_of_zeroes(890)?;
        let (_, used) = syscall::pool_status(slots::POOL)?;
        match round {
            0 => before = used,
            _ => check!(used < before + 16),
        }
    }
    Ok(())
}

fn an_image_cannot_be_taken_from_others() -> Outcome {
    let image = file::image(own_path())?;
    let derived = syscall::cap_derive(image, slots::POOL, 0, Access::all())?;
    for grant in [image, derived] {
        check!(syscall::cap_revoke(grant) == Err(Error::AccessDenied));
        syscall::cap_close(grant)?;
    }
    // Somebody else's use of the same file.
    let again = file::image(own_path())?;
    runtime::memory::Mapping::window(again, libipc::abi::Protection::READ)?;
    in_child(|| exec_self(b"variable", 0))?;
    Ok(())
}

fn a_program_gets_the_memory_that_is_kept_for_images_before_it_ends_for_want_of_it() -> Outcome {
    run_image_of_zeroes(200)?; // small enough to be kept
    let (_, before) = syscall::pool_status(slots::POOL)?;
    let pid = child(|| {
        const PAGES: u64 = 1 << 24; // more than there is
        let all = runtime::memory::Mapping::anonymous(PAGES)?;
        for page in 0..PAGES {
            // SAFETY: ours alone.
            unsafe { ((all.address() + page * 4096) as *mut u8).write_volatile(1) };
        }
        Ok(())
    })?;
    let status = wait(pid as i32, 0)?.status;
    check_eq!(ending_signal(status), Some(SIGKILL));
    let (_, after) = syscall::pool_status(slots::POOL)?;
    check!(after + 200 <= before);
    Ok(())
}

//! clone and clone3: what is shared, what is stored where, and what is refused. Rules:
//! `docs/spec/linux-process.md`.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use libipc::protocol::process::{Client, CloneArguments, Errno};
use libipc::wire::{Address, Bytes};
use runtime::file::{self, Fd};
use runtime::io::STDOUT;
use runtime::memory::Mapping;
use runtime::process::{
    self, NO_HANG, client, clone, clone_flags as flags, errno, exit_status, getpid, getppid,
    gettid, wait,
};
use runtime::{sync, syscall, thread};
use tests::child::{check_child, child, in_child};
use tests::{Failure, Outcome, check, check_eq};

tests::suite! {
    lx_clone_01_the_low_byte_is_the_exit_signal,
    lx_clone_02_memory_is_shared_only_with_vm,
    lx_clone_03_the_working_directory_is_shared_only_with_fs,
    lx_clone_04_the_file_table_is_shared_only_with_files,
    lx_clone_08_vfork_without_vm_waits_and_shares_nothing,
    lx_clone_09_a_child_with_parent_belongs_to_the_callers_parent,
    lx_clone_10_a_thread_has_its_processs_pid_and_is_never_waited_for,
    lx_clone_13_settls_sets_the_fs_base,
    lx_clone_13_a_bad_tls_address_is_refused,
    lx_clone_14_parent_settid_stores_the_number_in_the_parent,
    lx_clone_15_child_cleartid_wakes_the_joiner,
    lx_clone_18_child_settid_stores_the_number_in_the_childs_memory,
    lx_clone_26_unknown_high_bits_are_dropped,
    lx_clone_31_the_functions_value_is_the_status,
    lx_clone_40_to_50_illegal_combinations_are_refused,
    lx_clone3_02_sizes_are_checked_first,
    lx_clone3_04_a_longer_record_must_end_with_zeros,
    lx_clone3_06_exit_signals_are_checked,
    lx_clone3_07_unknown_flags_are_refused,
    lx_futex_01_set_tid_address_returns_the_tid,
    lx_thread_02_threads_share_the_pid_and_have_their_own_tids,
    lx_thread_04_exit_ends_one_thread_and_exit_group_all,
    lx_thread_05_the_last_thread_to_leave_gives_the_status,
    lx_thread_08_a_signal_to_one_thread_ends_the_process,
    lx_thread_14_a_child_of_a_thread_that_ended_stays_a_child,
    fifty_threads_come_and_go,
}

const PTHREAD: u64 = flags::VM | flags::FS | flags::FILES | flags::SIGHAND | flags::THREAD;
const CLONE_CHILDREN: u32 = 0x8000_0000;

static CELL: AtomicU64 = AtomicU64::new(0);
static WORD: AtomicU32 = AtomicU32::new(0);

fn with(flags: u64) -> CloneArguments {
    CloneArguments {
        flags,
        ..CloneArguments::default()
    }
}

/// A child process on a stack of its own; returns when it has ended, with its status.
fn run(what: u64, body: fn() -> i32) -> Result<u32, Failure> {
    let mut stack = Mapping::anonymous(16)?;
    let pid = clone(with(what | flags::SIGCHLD), Some(&mut stack), body)?;
    let waited = wait(pid as i32, 0)?;
    check_eq_pid(waited.pid, pid)?;
    Ok(waited.status)
}

fn check_eq_pid(got: u32, expected: u32) -> Outcome {
    check_eq!(got, expected);
    Ok(())
}

fn lx_clone_01_the_low_byte_is_the_exit_signal() -> Outcome {
    let mut stack = Mapping::anonymous(16)?;
    // A child without SIGCHLD is a clone child: an ordinary wait does not see it.
    let pid = clone(with(0), Some(&mut stack), || 3)?;
    check_eq!(wait(pid as i32, 0).err(), Some(Errno::ECHILD));
    let waited = wait(pid as i32, CLONE_CHILDREN)?;
    check_eq!((waited.pid, exit_status(waited.status)), (pid, Some(3)));
    Ok(())
}

fn lx_clone_02_memory_is_shared_only_with_vm() -> Outcome {
    CELL.store(1, SeqCst);
    let add: fn() -> i32 = || {
        CELL.fetch_add(10, SeqCst);
        0
    };
    run(0, add)?;
    check_eq!(CELL.load(SeqCst), 1);
    run(flags::VM, add)?;
    check_eq!(CELL.load(SeqCst), 11);
    Ok(())
}

fn lx_clone_03_the_working_directory_is_shared_only_with_fs() -> Outcome {
    let change: fn() -> i32 = || i32::from(file::change_directory(b"/bin").is_err());
    file::change_directory(b"/")?;
    check_eq!(run(0, change)?, 0);
    check!(file::open(b"sh", 1).is_err());
    check_eq!(run(flags::FS, change)?, 0);
    file::close(file::open(b"sh", 1)?)?;
    file::change_directory(b"/")?;
    Ok(())
}

fn lx_clone_04_the_file_table_is_shared_only_with_files() -> Outcome {
    let open: fn() -> i32 = || i32::from(file::duplicate_to(STDOUT, Fd(40)).is_err());
    let close: fn() -> i32 = || i32::from(file::close(Fd(40)).is_err());
    check_eq!(run(0, open)?, 0);
    check!(file::info(Fd(40)).is_err());
    check_eq!(run(flags::FILES, open)?, 0);
    file::info(Fd(40))?;
    check_eq!(run(0, close)?, 0);
    file::info(Fd(40))?;
    check_eq!(run(flags::FILES, close)?, 0);
    check!(file::info(Fd(40)).is_err());
    Ok(())
}

fn lx_clone_08_vfork_without_vm_waits_and_shares_nothing() -> Outcome {
    CELL.store(5, SeqCst);
    let before = syscall::clock()?;
    let mut stack = Mapping::anonymous(16)?;
    let pid = clone(
        with(flags::VFORK | flags::SIGCHLD),
        Some(&mut stack),
        || {
            CELL.store(6, SeqCst);
            let end = tests::after(20 * tests::MILLISECOND).unwrap_or_default();
            while syscall::clock().is_ok_and(|now| now < end) {
                let _ = syscall::thread_yield();
            }
            0
        },
    )?;
    check!(syscall::clock()? >= before + 20 * tests::MILLISECOND);
    check_eq!(CELL.load(SeqCst), 5);
    check_child(pid)
}

fn lx_clone_09_a_child_with_parent_belongs_to_the_callers_parent() -> Outcome {
    let grandparent = getpid();
    CELL.store(grandparent.into(), SeqCst);
    let caller = child(|| {
        let mut stack = Mapping::anonymous(16)?;
        let pid = clone(
            with(flags::PARENT | flags::SIGCHLD),
            Some(&mut stack),
            || i32::from(u64::from(getppid()) != CELL.load(SeqCst)),
        )?;
        check_eq!(wait(pid as i32, 0).err(), Some(Errno::ECHILD));
        Ok(())
    })?;
    check_child(caller)?;
    let other = wait(-1, 0)?;
    check!(other.pid > caller);
    check_eq!(exit_status(other.status), Some(0));
    Ok(())
}

fn lx_clone_10_a_thread_has_its_processs_pid_and_is_never_waited_for() -> Outcome {
    CELL.store(0, SeqCst);
    let thread = thread::spawn(16, || {
        CELL.store(u64::from(getpid()) << 32 | u64::from(gettid()), SeqCst);
        0
    })?;
    let tid = thread.tid();
    check!(tid != getpid());
    check_eq!(wait(tid as i32, 0x4000_0000).err(), Some(Errno::ECHILD));
    thread.join();
    check_eq!(
        CELL.load(SeqCst),
        u64::from(getpid()) << 32 | u64::from(tid)
    );
    Ok(())
}

static TLS: [u64; 2] = [0x1234_5678, 0];

fn lx_clone_13_settls_sets_the_fs_base() -> Outcome {
    let mut stack = Mapping::anonymous(16)?;
    let arguments = CloneArguments {
        tls: TLS.as_ptr() as u64,
        ..with(flags::SETTLS | flags::SIGCHLD)
    };
    let pid = clone(arguments, Some(&mut stack), || {
        let word: u64;
        // SAFETY: the FS base is the address of `TLS`.
        unsafe { core::arch::asm!("mov {}, fs:[0]", out(reg) word) };
        i32::from(word != TLS[0])
    })?;
    check_child(pid)
}

/// A legacy clone that is expected to fail.
fn refused(arguments: CloneArguments) -> Option<Errno> {
    // By its full name: a client is `Clone` too.
    Client::clone(&mut client(), arguments).err().map(errno)
}

fn lx_clone_13_a_bad_tls_address_is_refused() -> Outcome {
    for tls in [0x8000_0000_0000, 0xffff_8000_0000_0000, u64::MAX] {
        let arguments = CloneArguments {
            tls,
            ..with(flags::SETTLS | flags::SIGCHLD)
        };
        check_eq!(refused(arguments), Some(Errno::EPERM));
    }
    Ok(())
}

fn lx_clone_14_parent_settid_stores_the_number_in_the_parent() -> Outcome {
    let word = AtomicU32::new(0);
    let mut stack = Mapping::anonymous(16)?;
    let mut arguments = CloneArguments {
        parent_tid: word.as_ptr() as u64,
        ..with(flags::PARENT_SETTID | flags::SIGCHLD)
    };
    let pid = clone(arguments, Some(&mut stack), || 0)?;
    check_eq!(word.load(SeqCst), pid);
    check_child(pid)?;
    // A bad address is ignored.
    arguments.parent_tid = 8;
    let pid = clone(arguments, Some(&mut stack), || 0)?;
    check_child(pid)
}

fn lx_clone_15_child_cleartid_wakes_the_joiner() -> Outcome {
    WORD.store(77, SeqCst);
    let mut stack = Mapping::anonymous(16)?;
    let arguments = CloneArguments {
        child_tid: WORD.as_ptr() as u64,
        ..with(PTHREAD | flags::CHILD_CLEARTID)
    };
    clone(arguments, Some(&mut stack), || {
        for _ in 0..50 {
            let _ = syscall::thread_yield();
        }
        i32::from(WORD.load(SeqCst) != 77)
    })?;
    sync::wait_while(&WORD, 77);
    check_eq!(WORD.load(SeqCst), 0);
    Ok(())
}

fn lx_clone_18_child_settid_stores_the_number_in_the_childs_memory() -> Outcome {
    WORD.store(0, SeqCst);
    let mut stack = Mapping::anonymous(16)?;
    let arguments = CloneArguments {
        child_tid: WORD.as_ptr() as u64,
        ..with(flags::CHILD_SETTID | flags::SIGCHLD)
    };
    let pid = clone(arguments, Some(&mut stack), || {
        i32::from(WORD.load(SeqCst) != gettid())
    })?;
    check_child(pid)?;
    check_eq!(WORD.load(SeqCst), 0);
    Ok(())
}

fn lx_clone_26_unknown_high_bits_are_dropped() -> Outcome {
    let mut stack = Mapping::anonymous(16)?;
    let pid = clone(with(0x7_0000_0000 | flags::SIGCHLD), Some(&mut stack), || 0)?;
    check_child(pid)
}

fn lx_clone_31_the_functions_value_is_the_status() -> Outcome {
    check_eq!(run(0, || 77)?, 0x4d00);
    check_eq!(run(flags::VM, || 0x1ff)?, 0xff00);
    Ok(())
}

fn lx_clone_40_to_50_illegal_combinations_are_refused() -> Outcome {
    const NEWNS: u64 = 0x2_0000;
    const NEWUSER: u64 = 0x1000_0000;
    const NEWPID: u64 = 0x2000_0000;
    const NEWIPC: u64 = 0x800_0000;
    const SYSVSEM: u64 = 0x4_0000;
    const PIDFD: u64 = 0x1000;
    const DETACHED: u64 = 0x40_0000;
    for illegal in [
        PIDFD | flags::PARENT_SETTID,
        NEWNS | flags::FS,
        NEWUSER | flags::FS,
        flags::THREAD,
        flags::THREAD | flags::VM,
        flags::SIGHAND,
        flags::THREAD | flags::SIGHAND,
        flags::THREAD | flags::SIGHAND | flags::VM | NEWUSER,
        flags::THREAD | flags::SIGHAND | flags::VM | NEWPID,
        PIDFD | DETACHED,
        NEWIPC | SYSVSEM,
    ] {
        let got = refused(with(illegal | flags::SIGCHLD));
        check!(got == Some(Errno::EINVAL), "{illegal:#x}: {got:?}");
    }
    // Nothing was made.
    check_eq!(wait(-1, NO_HANG).err(), Some(Errno::ECHILD));
    Ok(())
}

/// A clone3 record of `size` bytes: flags at 0, exit signal at 32, one more byte somewhere.
fn clone3(size: usize, flags: u64, signal: u64, extra: Option<usize>) -> Result<u32, Errno> {
    let mut record = [0u8; 4000];
    record[..8].copy_from_slice(&flags.to_le_bytes());
    record[32..40].copy_from_slice(&signal.to_le_bytes());
    if let Some(place) = extra {
        record[place] = 1;
    }
    let bytes = &record[..size.min(record.len())];
    client().clone3(Bytes(bytes), size as u64).map_err(errno)
}

fn lx_clone3_02_sizes_are_checked_first() -> Outcome {
    check_eq!(clone3(8, 0, 17, None), Err(Errno::EINVAL));
    check_eq!(clone3(63, u64::MAX, 17, None), Err(Errno::EINVAL));
    check_eq!(clone3(4097, 0, 17, None), Err(Errno::E2BIG));
    check_eq!(clone3(8192, u64::MAX, 17, None), Err(Errno::E2BIG));
    Ok(())
}

fn lx_clone3_04_a_longer_record_must_end_with_zeros() -> Outcome {
    check_eq!(clone3(100, 0, 17, Some(88)), Err(Errno::E2BIG));
    check_eq!(clone3(2000, 0, 17, Some(1999)), Err(Errno::E2BIG));
    Ok(())
}

fn lx_clone3_06_exit_signals_are_checked() -> Outcome {
    for signal in [65, 255, 256, 0x1_0000_0011] {
        check_eq!(clone3(88, 0, signal, None), Err(Errno::EINVAL));
    }
    Ok(())
}

fn lx_clone3_07_unknown_flags_are_refused() -> Outcome {
    for bit in 34..63 {
        check_eq!(clone3(88, 1 << bit, 17, None), Err(Errno::EINVAL));
    }
    for flags in [0x11, 0x40, 0x40_0000, 0x1_0000_0900] {
        check_eq!(clone3(88, flags, 17, None), Err(Errno::EINVAL));
    }
    Ok(())
}

fn lx_futex_01_set_tid_address_returns_the_tid() -> Outcome {
    let word = AtomicU32::new(9);
    check_eq!(
        client().set_tid_address(Address(word.as_ptr() as u64))?,
        gettid()
    );
    check_eq!(client().set_tid_address(Address(0))?, gettid());
    Ok(())
}

fn lx_thread_02_threads_share_the_pid_and_have_their_own_tids() -> Outcome {
    static SEEN: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    let spawn = |number: usize| {
        thread::spawn(16, move || {
            SEEN[number].store(u64::from(getpid()) << 32 | u64::from(gettid()), SeqCst);
            0
        })
    };
    let threads = [spawn(0)?, spawn(1)?, spawn(2)?];
    let tids = [threads[0].tid(), threads[1].tid(), threads[2].tid()];
    for thread in threads {
        thread.join();
    }
    check!(tids[0] != tids[1] && tids[1] != tids[2] && tids[0] != tids[2]);
    for (seen, tid) in SEEN.iter().zip(tids) {
        check_eq!(
            seen.load(SeqCst),
            u64::from(getpid()) << 32 | u64::from(tid)
        );
    }
    Ok(())
}

fn lx_thread_04_exit_ends_one_thread_and_exit_group_all() -> Outcome {
    let pid = child(|| {
        let thread = thread::spawn(16, || process::exit_thread(9))?;
        thread.join();
        Ok(())
    })?;
    check_child(pid)?;
    let pid = child(|| {
        let _running = thread::spawn(16, || process::exit(42))?;
        loop {
            syscall::thread_yield()?;
        }
    })?;
    check_eq!(exit_status(wait(pid as i32, 0)?.status), Some(42));
    Ok(())
}

fn lx_thread_05_the_last_thread_to_leave_gives_the_status() -> Outcome {
    let pid = child(|| {
        let _last = thread::spawn(16, || {
            let end = tests::after(20 * tests::MILLISECOND).unwrap_or_default();
            while syscall::clock().is_ok_and(|now| now < end) {
                let _ = syscall::thread_yield();
            }
            process::exit_thread(7)
        })?;
        process::exit_thread(3)
    })?;
    // LX-THREAD-06: the leader is gone, the process is not.
    check_eq!(exit_status(wait(pid as i32, 0)?.status), Some(7));
    Ok(())
}

fn lx_thread_08_a_signal_to_one_thread_ends_the_process() -> Outcome {
    let pid = child(|| {
        // SAFETY: the fault ends the process.
        let _faults = thread::spawn(16, || unsafe {
            core::arch::asm!("ud2");
            0
        })?;
        loop {
            syscall::thread_yield()?;
        }
    })?;
    let status = wait(pid as i32, 0)?.status;
    check_eq!(process::ending_signal(status & !0x80), Some(4));
    Ok(())
}

fn lx_thread_14_a_child_of_a_thread_that_ended_stays_a_child() -> Outcome {
    CELL.store(0, SeqCst);
    let thread = thread::spawn(16, || {
        let forked = child(|| {
            let parent = getppid();
            for _ in 0..50 {
                syscall::thread_yield()?;
            }
            check_eq!(getppid(), parent);
            Ok(())
        });
        CELL.store(forked.unwrap_or_default().into(), SeqCst);
        0
    })?;
    thread.join();
    check_child(CELL.load(SeqCst) as u32)
}

fn fifty_threads_come_and_go() -> Outcome {
    CELL.store(0, SeqCst);
    in_child(|| {
        for _ in 0..5 {
            let mut threads = [const { None }; 10];
            for place in &mut threads {
                *place = Some(thread::spawn(8, || {
                    CELL.fetch_add(1, SeqCst);
                    0
                })?);
            }
            for thread in threads.into_iter().flatten() {
                thread.join();
            }
        }
        check_eq!(CELL.load(SeqCst), 50);
        Ok(())
    })
}

//! The process server: every way of creating a process, ending one, and learning of its end.
//!
//! Three groups of methods, one behind each personality: Linux (`fork` to `set_tid_address`), Win32
//! (`create_process` to `wait_object`) and service threads. A caller is known by its thread's
//! label. Rules in brackets are those of `docs/spec/`.

use serde::{Deserialize, Serialize};

use crate::wire::{Address, Blob, Bytes, Words};

/// Linux's error numbers, as far as process calls return them (LX legend).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)] // the field's own names
pub enum Errno {
    EPERM = 1,
    ENOENT = 2,
    ESRCH = 3,
    EINTR = 4,
    EIO = 5,
    E2BIG = 7,
    ENOEXEC = 8,
    EBADF = 9,
    ECHILD = 10,
    EAGAIN = 11,
    ENOMEM = 12,
    EACCES = 13,
    EFAULT = 14,
    EBUSY = 16,
    EEXIST = 17,
    ENOTDIR = 20,
    EISDIR = 21,
    EINVAL = 22,
    EMFILE = 24,
    ENOSPC = 28,
    ENAMETOOLONG = 36,
    ENOSYS = 38,
    ELOOP = 40,
    EOPNOTSUPP = 95,
}

/// Win32's last-error values, as far as process calls set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u16)]
pub enum Win32Error {
    /// ERROR_INVALID_FUNCTION.
    InvalidFunction = 1,
    /// ERROR_FILE_NOT_FOUND.
    FileNotFound = 2,
    /// ERROR_PATH_NOT_FOUND.
    PathNotFound = 3,
    /// ERROR_ACCESS_DENIED.
    AccessDenied = 5,
    /// ERROR_INVALID_HANDLE.
    InvalidHandle = 6,
    /// ERROR_NOT_ENOUGH_MEMORY.
    NotEnoughMemory = 8,
    /// ERROR_NOT_SUPPORTED.
    NotSupported = 50,
    /// ERROR_INVALID_PARAMETER.
    InvalidParameter = 87,
    /// ERROR_SIGNAL_REFUSED.
    SignalRefused = 156,
    /// ERROR_BAD_EXE_FORMAT.
    BadExeFormat = 193,
    /// ERROR_DIRECTORY.
    Directory = 267,
    /// ERROR_NO_SYSTEM_RESOURCES.
    NoSystemResources = 1450,
    /// ERROR_COMMITMENT_LIMIT.
    CommitmentLimit = 1455,
}

/// Why a process request was refused, in the terms of the door that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessError {
    /// A Linux call's error.
    Linux(Errno),
    /// A Win32 call's error.
    Win32(Win32Error),
    /// The caller's capability does not permit this.
    Denied,
}

/// The numbers by which a thread and its process are known in their namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the field's own names
pub struct Identity {
    pub pid: u32,
    pub tid: u32,
    pub ppid: u32,
    pub pgid: u32,
    pub sid: u32,
}

/// The arguments of clone, as both clone and clone3 have them (LX-NAME-01).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Words<5>", into = "Words<5>")]
pub struct CloneArguments {
    /// CLONE_* bits; for the legacy call the exit signal is in the low byte.
    pub flags: u64,
    /// Initial stack pointer, 0: the caller's.
    pub stack: u64,
    /// Where PARENT_SETTID stores (and PIDFD, in the legacy call).
    pub parent_tid: u64,
    /// Where CHILD_SETTID and CHILD_CLEARTID store.
    pub child_tid: u64,
    /// The child's FS base with SETTLS.
    pub tls: u64,
}

impl From<Words<5>> for CloneArguments {
    fn from(Words([flags, stack, parent_tid, child_tid, tls]): Words<5>) -> CloneArguments {
        CloneArguments {
            flags,
            stack,
            parent_tid,
            child_tid,
            tls,
        }
    }
}

impl From<CloneArguments> for Words<5> {
    fn from(it: CloneArguments) -> Words<5> {
        Words([it.flags, it.stack, it.parent_tid, it.child_tid, it.tls])
    }
}

/// What a wait brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// The child's PID; 0 if WNOHANG found nothing.
    pub pid: u32,
    /// The status word (LX-WAIT-05).
    pub status: u32,
}

/// What a new image is started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Words<4>", into = "Words<4>")]
pub struct Start {
    /// The process's name: the last component of the image's path, cut to 15 bytes and filled with
    /// NULs.
    pub name: [u8; 16],
    /// Where the caller has the new program's initial stack in its memory, as it will lie at the end
    /// of the first stack ([`layout::STACK_END`](crate::abi::layout)).
    pub stack: u64,
    /// How long it is, in bytes: a multiple of 16, at most
    /// [`layout::INITIAL_STACK_BYTES`](crate::abi::layout). The initial stack pointer is that far
    /// below the end.
    pub stack_bytes: u64,
}

impl From<Words<4>> for Start {
    fn from(Words([first, second, stack, stack_bytes]): Words<4>) -> Start {
        let name = u128::from(second) << 64 | u128::from(first);
        Start {
            name: name.to_le_bytes(),
            stack,
            stack_bytes,
        }
    }
}

impl From<Start> for Words<4> {
    fn from(it: Start) -> Words<4> {
        let name = u128::from_le_bytes(it.name);
        Words([name as u64, (name >> 64) as u64, it.stack, it.stack_bytes])
    }
}

/// How `create_process` makes the child (W32-CP; the strings are in the initial stack).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateProcess {
    /// dwCreationFlags.
    pub flags: u32,
    /// bInheritHandles.
    pub inherit_handles: bool,
    /// Whether hProcess and hThread are inheritable (param 3 and 4).
    pub process_inherit: bool,
    /// See `process_inherit`.
    pub thread_inherit: bool,
    /// Name and strings.
    pub start: Start,
}

/// PROCESS_INFORMATION's ids; the handles travel as capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIds {
    /// dwProcessId.
    pub process: u32,
    /// dwThreadId.
    pub thread: u32,
}

/// A line of `ps`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLine {
    /// PID.
    pub pid: u32,
    /// Parent's PID.
    pub ppid: u32,
    /// Process group.
    pub pgid: u32,
    /// Session.
    pub sid: u32,
    /// R, S, D, T or Z as Linux's ps has them.
    pub state: u8,
    /// Number of threads.
    pub threads: u32,
    /// Name, at most 15 bytes.
    pub name: Blob,
}

/// A line of `caps PID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityLine {
    /// Table: 0 files, 1 private, 2 fs.
    pub table: u8,
    /// Slot number.
    pub index: u32,
    /// [`Kind`](crate::abi::Kind) of the object.
    pub kind: u8,
    /// [`SlotFlags`](crate::abi::SlotFlags).
    pub flags: u8,
    /// Access mask.
    pub access: u32,
}

/// Access mask bits of process server capabilities that are not Win32 object handles.
pub mod access {
    /// Calls for oneself: every process's own capability.
    pub const SELF: u32 = 1 << 0;
    /// Make service threads.
    pub const SERVICE: u32 = 1 << 1;
    /// Look at all processes (`ps`, `caps`).
    pub const INSPECT: u32 = 1 << 2;
    /// Register the first process; end the machine's processes.
    pub const INIT: u32 = 1 << 3;
}

/// Win32 process and thread access rights (W32-HND).
pub mod win32_access {
    /// PROCESS_TERMINATE.
    pub const PROCESS_TERMINATE: u32 = 0x1;
    /// PROCESS_QUERY_INFORMATION.
    pub const PROCESS_QUERY_INFORMATION: u32 = 0x400;
    /// PROCESS_QUERY_LIMITED_INFORMATION.
    pub const PROCESS_QUERY_LIMITED_INFORMATION: u32 = 0x1000;
    /// SYNCHRONIZE.
    pub const SYNCHRONIZE: u32 = 0x10_0000;
    /// PROCESS_ALL_ACCESS.
    pub const PROCESS_ALL_ACCESS: u32 = 0x1f_ffff;
    /// THREAD_SUSPEND_RESUME.
    pub const THREAD_SUSPEND_RESUME: u32 = 0x2;
    /// THREAD_QUERY_INFORMATION.
    pub const THREAD_QUERY_INFORMATION: u32 = 0x40;
    /// THREAD_QUERY_LIMITED_INFORMATION.
    pub const THREAD_QUERY_LIMITED_INFORMATION: u32 = 0x800;
    /// THREAD_ALL_ACCESS.
    pub const THREAD_ALL_ACCESS: u32 = 0x1f_ffff;
}

/// The slots of the private table that every process begins with.
pub mod slots {
    use crate::abi::{Handle, TableSelector};

    const fn slot(index: u32) -> Handle {
        Handle::new(TableSelector::Private, index, 1)
    }

    /// The process server.
    pub const PROCESS_SERVER: Handle = slot(0);
    /// The process's own space.
    pub const SPACE: Handle = slot(1);
    /// The job's pool.
    pub const POOL: Handle = slot(2);
    /// The memory server, where the process was given it.
    pub const MEMORY_SERVER: Handle = slot(3);
}

/// The slots of the fs table.
pub mod fs_slots {
    /// The root directory.
    pub const ROOT: u32 = 0;
    /// The working directory.
    pub const WORKING_DIRECTORY: u32 = 1;
}

crate::protocol! {
    /// Processes: fork, vfork, clone, exec, exit, wait, CreateProcess and service threads.
    process refuses ProcessError;

    /// Makes a copy of the caller (LX-NAME-02). The child gets an empty answer.
    1 => fork() -> u32 [short];
    /// Like fork, in the caller's memory; the caller goes on when the child execs or exits.
    2 => vfork() -> u32 [short];
    /// Makes a process or a thread as the flags say (LX-CLONE). A child whose stack pointer is
    /// given gets an empty answer there.
    3 => clone(arguments: CloneArguments) -> u32 [short];
    /// clone3 with its record as bytes (LX-CLONE3); `size` is what the caller said.
    4 => clone3(record: Bytes<'m>, size: u64) -> u32 [long, short];
    /// Replaces the caller's image. Answers only if it failed.
    5 => exec(start: Start) -> () [short] takes(image);
    /// Ends the calling thread (LX-THREAD-04).
    6 => exit(code: i32) -> () [short];
    /// Ends the calling process.
    7 => exit_group(code: i32) -> () [short];
    /// wait4 (LX-WAIT-02).
    8 => wait4(pid: i32, options: u32) -> Waited [short];
    /// The caller's numbers.
    9 => identity() -> Identity [short];
    /// Sends a signal (LX-SIG-02). Signals with handlers come with a later protocol.
    10 => kill(pid: i32, signal: u32) -> () [short];
    /// Sets the clear address; returns the TID (LX-FUTEX-01).
    11 => set_tid_address(address: Address) -> u32 [short];
    /// setpgid (LX-PGRP-02).
    12 => setpgid(pid: i32, pgid: i32) -> () [short];
    /// setsid (LX-PGRP-06).
    13 => setsid() -> u32 [short];
    /// Makes the caller's process adopt orphaned descendants, or not (LX-EXIT-06).
    14 => set_subreaper(on: bool) -> () [short];
    /// Ignores a signal, or takes its default action again; whether it was ignored before
    /// (LX-CLONE-05, LX-WAIT-12). Handlers come with a later protocol.
    15 => ignore_signal(signal: u32, ignore: bool) -> bool [short];
    /// getpgid (LX-PGRP-05); 0 is the caller.
    16 => getpgid(pid: i32) -> u32 [short];
    /// getsid (LX-PGRP-05); 0 is the caller.
    17 => getsid(pid: i32) -> u32 [short];

    /// Makes a process from an image (W32-CP-01). It begins in the caller's working directory.
    20 => create_process(order: CreateProcess) -> ProcessIds [short] takes(image) gives(process, thread);
    /// Ends the calling process with a 32-bit exit code.
    21 => exit_process(code: u32) -> () [short];
    /// Ends the process that the used handle names; needs PROCESS_TERMINATE.
    22 => terminate_process(code: u32) -> () [short];
    /// Exit code of the process that the used handle names; 259 while it runs.
    23 => exit_code() -> u32 [short];
    /// Suspends the thread that the used handle names; the suspend count before.
    24 => suspend_thread() -> u32 [short];
    /// Resumes the thread that the used handle names; the suspend count before.
    25 => resume_thread() -> u32 [short];
    /// A notification of the process or thread that the used handle names: its bit 0 is set and
    /// stays when the object has ended. Needs SYNCHRONIZE.
    26 => wait_object() -> () [short] gives(notification);

    /// As `create_process`; the process begins in `directory` (W32-CP-10).
    27 => create_process_in(order: CreateProcess) -> ProcessIds [short] takes(image, directory) gives(process, thread);

    /// Makes a service thread: its own process, child of PID 2, in the caller's memory, all signals
    /// ignored, stopped until woken (LX-KTHREAD-05). Returns its PID.
    40 => service_create(name: [u8; 16], entry: u64, argument: u64, stack: u64) -> u32 [short];
    /// Lets a created service thread run.
    41 => service_wake(pid: u32) -> () [short];
    /// Asks a service thread to stop and waits for its result (LX-KTHREAD-10).
    42 => service_stop(pid: u32) -> i32 [short];
    /// Whether the calling service thread was asked to stop; waits until it was if `wait`.
    43 => service_should_stop(wait: bool) -> bool [short];
    /// Ends the calling service thread with its result.
    44 => service_exit(result: i32) -> () [short];

    /// The loader asks what to load.
    60 => load_order() -> () [short] gives(image);
    /// The loader is done: programs begin at `entry`. Answers only if they cannot.
    61 => loaded(entry: u64) -> () [short];
    /// The loader gives up.
    62 => load_failed(errno: Errno) -> () [short];

    /// The first live process or zombie with a PID not below `pid`.
    80 => process_at(pid: u32) -> Option<ProcessLine> [long];
    /// The first used slot of a process's tables not below (`table`, `index`).
    81 => capability_at(pid: u32, table: u8, index: u32) -> Option<CapabilityLine> [short];
    /// Registers the caller as PID 1. Its thread is labelled from then on.
    82 => adopt_init() -> Identity [short] takes(thread);
    /// Makes a child of the caller from an image, as fork and exec would (posix_spawn): with copies
    /// of the caller's files that are not close-on-exec. Answers with its PID once it is loaded.
    83 => spawn(start: Start) -> u32 [short] takes(image);
}

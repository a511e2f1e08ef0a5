//! vfork, clone and clone3, with the checks of `docs/spec/linux-process.md` sections 2 and 3.
//!
//! Both forms of clone are first brought to one record (LX-NAME-01). What Linux knows and this
//! server does not yet (namespaces, pidfds, cgroups) is refused with the error of a Linux that was
//! built without it.

use libipc::abi::{USER_END, is_clear_address};
use libipc::protocol::process::{CloneArguments, Errno, Start};

use crate::model::Kind;
use crate::plan::*;
use crate::signal::SIGCHLD;

pub use flags::CloneFlags;

mod flags {
    #![allow(missing_docs)] // Linux's own names

    use bitflags::bitflags;

    bitflags! {
        /// CLONE_* (section 2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct CloneFlags: u64 {
            const NEWTIME = 0x80;
            const VM = 0x100;
            const FS = 0x200;
            const FILES = 0x400;
            const SIGHAND = 0x800;
            const PIDFD = 0x1000;
            const PTRACE = 0x2000;
            const VFORK = 0x4000;
            const PARENT = 0x8000;
            const THREAD = 0x1_0000;
            const NEWNS = 0x2_0000;
            const SYSVSEM = 0x4_0000;
            const SETTLS = 0x8_0000;
            const PARENT_SETTID = 0x10_0000;
            const CHILD_CLEARTID = 0x20_0000;
            const DETACHED = 0x40_0000;
            const UNTRACED = 0x80_0000;
            const CHILD_SETTID = 0x100_0000;
            const NEWCGROUP = 0x200_0000;
            const NEWUTS = 0x400_0000;
            const NEWIPC = 0x800_0000;
            const NEWUSER = 0x1000_0000;
            const NEWPID = 0x2000_0000;
            const NEWNET = 0x4000_0000;
            const IO = 0x8000_0000;
            const CLEAR_SIGHAND = 0x1_0000_0000;
            const INTO_CGROUP = 0x2_0000_0000;
        }
    }
}

/// Low byte of a legacy clone's flags: the exit signal.
const CSIGNAL: u64 = 0xff;

/// Every kind of namespace.
const NAMESPACES: CloneFlags = CloneFlags::NEWTIME
    .union(CloneFlags::NEWNS)
    .union(CloneFlags::NEWCGROUP)
    .union(CloneFlags::NEWUTS)
    .union(CloneFlags::NEWIPC)
    .union(CloneFlags::NEWUSER)
    .union(CloneFlags::NEWPID)
    .union(CloneFlags::NEWNET);

/// What the checks need to know of the caller.
#[derive(Clone, Copy, Debug)]
pub struct CallerFacts {
    /// It belongs to the init of its PID namespace.
    pub is_init: bool,
}

/// The one record that both forms are brought to.
#[derive(Clone, Copy, Debug)]
struct Record {
    flags: CloneFlags,
    exit_signal: u32,
    /// Initial stack pointer, 0: the caller's.
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
    pidfd: u64,
    /// Number asked for, and how many levels it was asked for at.
    number: Option<(u32, u64)>,
}

/// vfork: only memory is shared (LX-VFORK-04), and the caller waits.
pub static VFORK: SpawnPlan = SpawnPlan {
    memory: MemoryChoice::Share,
    start: StartChoice::RunAndRelease,
    ..SpawnPlan::FORK
};

/// fork and exec in one: copies of the files that do not close on exec.
pub fn spawn(start: Start) -> SpawnPlan {
    SpawnPlan {
        memory: MemoryChoice::Image(start),
        files: FilesChoice::Kept,
        dispositions: DispositionChoice::Reset,
        first: FirstInstruction::Image,
        name: Some(crate::name(&start.name)),
        ..SpawnPlan::FORK
    }
}

/// The legacy clone.
pub fn clone(arguments: &CloneArguments, caller: CallerFacts) -> Result<SpawnPlan, Errno> {
    // LX-CLONE-26: the high half is dropped. LX-CLONE-24: 0x80 belongs to the signal here.
    let word = arguments.flags & 0xffff_ffff;
    compile(
        Record {
            flags: CloneFlags::from_bits_truncate(word & !CSIGNAL),
            exit_signal: (word & CSIGNAL) as u32,
            stack: arguments.stack,
            parent_tid: arguments.parent_tid,
            child_tid: arguments.child_tid,
            tls: arguments.tls,
            pidfd: arguments.parent_tid,
            number: None,
        },
        caller,
    )
}

const FIRST_SIZE: u64 = 64;
const LAST_SIZE: usize = 88;
const PAGE: u64 = 4096;
const MAX_LEVELS: u64 = 32;

/// clone3. `read_word` reads the caller's memory, for the array of numbers.
pub fn clone3(
    record: &[u8],
    size: u64,
    caller: CallerFacts,
    mut read_word: impl FnMut(u64) -> Option<u32>,
) -> Result<SpawnPlan, Errno> {
    if size < FIRST_SIZE {
        return Err(Errno::EINVAL);
    }
    if size > PAGE {
        return Err(Errno::E2BIG);
    }
    if record.len() as u64 != size {
        return Err(Errno::EFAULT);
    }
    let (known, rest) = record.split_at(record.len().min(LAST_SIZE));
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let mut padded = [0; LAST_SIZE];
    padded[..known.len()].copy_from_slice(known);
    let field = |offset: usize| {
        u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| padded[offset + byte]))
    };
    let (flags, pidfd, child_tid, parent_tid) = (field(0), field(8), field(16), field(24));
    let (exit_signal, stack, stack_size, tls) = (field(32), field(40), field(48), field(56));
    let (set_tid, set_tid_size, cgroup) = (field(64), field(72), field(80));

    // The order of LX-CLONE3-15.
    if set_tid_size > MAX_LEVELS || (set_tid == 0) != (set_tid_size == 0) {
        return Err(Errno::EINVAL);
    }
    if exit_signal > 64 {
        return Err(Errno::EINVAL);
    }
    let into_cgroup = flags & CloneFlags::INTO_CGROUP.bits() != 0;
    if into_cgroup && (size < LAST_SIZE as u64 || cgroup > i32::MAX as u64) {
        return Err(Errno::EINVAL);
    }
    let mut number = None;
    for level in 0..set_tid_size {
        let word = read_word(set_tid.wrapping_add(4 * level)).ok_or(Errno::EFAULT)?;
        number.get_or_insert((word, set_tid_size));
    }
    let Some(flags) = CloneFlags::from_bits(flags) else {
        return Err(Errno::EINVAL);
    };
    if flags.contains(CloneFlags::DETACHED)
        || flags.contains(CloneFlags::CLEAR_SIGHAND | CloneFlags::SIGHAND)
        || (flags.intersects(CloneFlags::THREAD | CloneFlags::PARENT) && exit_signal != 0)
        || (stack == 0) != (stack_size == 0)
    {
        return Err(Errno::EINVAL);
    }
    let top = stack.checked_add(stack_size).ok_or(Errno::EINVAL)?;
    if top > USER_END {
        return Err(Errno::EINVAL);
    }
    compile(
        Record {
            flags,
            exit_signal: exit_signal as u32,
            stack: top,
            parent_tid,
            child_tid,
            tls,
            pidfd,
            number,
        },
        caller,
    )
}

/// The checks of section 2.1, by their numbers; those that refuse alike in one go. Then the plan.
fn compile(record: Record, caller: CallerFacts) -> Result<SpawnPlan, Errno> {
    use CloneFlags as F;
    let flags = record.flags;
    let has = |wanted: CloneFlags| flags.contains(wanted);
    let thread = has(F::THREAD);
    let refused = (has(F::PIDFD | F::PARENT_SETTID) && record.pidfd == record.parent_tid) // 40
        || (thread && !has(F::SIGHAND)) // 43
        || (has(F::SIGHAND) && !has(F::VM)) // 44
        || (has(F::PARENT) && caller.is_init) // 45
        || has(F::PIDFD | F::DETACHED) // 47
        // 41, 42, 46, 49, 50: no namespaces are built in, whatever else is asked for.
        || flags.intersects(NAMESPACES);
    if refused {
        return Err(Errno::EINVAL);
    }
    if has(F::SETTLS) && record.tls >= USER_END {
        return Err(Errno::EPERM); // LX-CLONE-13
    }
    let number = match record.number {
        Some((_, levels)) if levels > 1 => return Err(Errno::EINVAL), // LX-CLONE3-13
        Some((number, _)) => Some(number),
        None => None,
    };
    if has(F::PIDFD) {
        return Err(Errno::EINVAL); // not yet
    }
    if has(F::INTO_CGROUP) {
        return Err(Errno::EBADF); // LX-CLONE3-11: no descriptor is a cgroup here
    }

    Ok(SpawnPlan {
        memory: match has(F::VM) {
            true => MemoryChoice::Share,
            false => MemoryChoice::Snapshot,
        },
        files: match has(F::FILES) {
            true => FilesChoice::Share,
            false => FilesChoice::Copy,
        },
        directory: match has(F::FS) {
            true => DirectoryChoice::Share,
            false => DirectoryChoice::Copy,
        },
        dispositions: match (has(F::SIGHAND), has(F::CLEAR_SIGHAND)) {
            (true, _) => DispositionChoice::Share,
            (false, true) => DispositionChoice::Reset,
            (false, false) => DispositionChoice::Copy,
        },
        group: match thread {
            true => GroupChoice::Join,
            false => GroupChoice::New(Kind::Linux),
        },
        parent: match has(F::PARENT) {
            true => ParentChoice::CallersParent,
            false => ParentChoice::Caller,
        },
        first: FirstInstruction::AfterCall {
            stack: record.stack,
        },
        start: match has(F::VFORK) {
            true => StartChoice::RunAndRelease,
            false => StartChoice::Run,
        },
        end: match (thread, has(F::PARENT)) {
            (true, _) => EndChoice::Nobody,
            (false, true) => EndChoice::ParentLikeCaller,
            (false, false) => EndChoice::Parent(record.exit_signal),
        },
        words: Words {
            parent_tid: has(F::PARENT_SETTID).then_some(record.parent_tid),
            child_tid: has(F::CHILD_SETTID).then_some(record.child_tid),
            // A bad address is ignored, as Linux does when the time comes.
            clear: has(F::CHILD_CLEARTID)
                .then_some(record.child_tid)
                .filter(|address| is_clear_address(*address)),
            thread_pointer: has(F::SETTLS).then_some(record.tls),
            number,
        },
        name: None,
    })
}

const _: () = assert!(SIGCHLD == 17);

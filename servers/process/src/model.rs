//! The records that the process model is made of.
//!
//! A process is a set of shares. Its memory and tables are what its threads live in: the kernel
//! counts who shares them, and they go with the last such thread. Its signal dispositions are a
//! record of their own that counts its users; sharing them means naming the same record.

use alloc::vec::Vec;

use libipc::abi::Handle;
use libipc::protocol::process::Waited;
use libipc::wire::Kept;

use crate::arena::Id;
use crate::exit::Ending;
use crate::list::{Links, List};
use crate::ready::Branches;

/// Names a process: never reused.
pub type ProcessId = Id<Process>;
/// Names a thread, and is its label: never reused.
pub type ThreadId = Id<Thread>;
/// Names a set of signal dispositions.
pub type DispositionsId = Id<Dispositions>;
/// Names a process group.
pub type GroupId = Id<Group>;
/// Names an image that is being loaded.
pub type LoadId = Id<crate::image::Load>;

/// A process's name: at most 15 bytes, filled with NULs.
pub type Name = [u8; 16];

/// What signals do.
#[derive(Clone, Copy, Default)]
pub struct Dispositions {
    /// Bit n - 1: signal n is ignored on request.
    pub ignored: u64,
    /// Processes and reservations that hold it.
    pub users: u32,
}

/// A process group.
#[derive(Clone, Copy, Default)]
pub struct Group {
    /// Its ID.
    pub number: u32,
    /// Its session's ID.
    pub session: u32,
    /// The processes in it, unreaped ones included.
    pub members: List<Process>,
}

/// What kind of process this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Made by fork, vfork, clone or spawn.
    Linux,
    /// Made by CreateProcess.
    Win32,
    /// A service thread.
    Service,
    /// PID 1.
    Init,
    /// PID 2: parent of the service threads, without a thread of its own.
    ServiceRoot,
}

/// Whether a process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Not yet visible: a creation has reserved the record.
    Reserved,
    /// It runs.
    Running,
    /// Stopped by a signal.
    Stopped,
    /// All its threads are gone.
    Ended,
}

/// A change of state that a parent may be told once (LX-WAIT-07).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing to tell.
    None,
    /// Stopped by this signal.
    Stopped(u32),
    /// Continued.
    Continued,
    /// Ended, with this status word.
    Ended(u32),
}

/// What a service thread's creator is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// First instruction.
    pub entry: u64,
    /// Its argument.
    pub argument: u64,
    /// Its stack pointer.
    pub stack: u64,
    /// It was let run.
    pub woken: bool,
    /// It was asked to stop.
    pub should_stop: bool,
    /// What it returned, once it has ended.
    pub result: i32,
}

/// A process: one thread group.
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Whether it lives.
    pub life: Life,
    /// How it is ending, or ended.
    pub ending: Option<Ending>,
    /// Its place in the queue of those that are to end.
    pub end: Links<Process>,
    /// `None` for PID 1 and 2, whose parent is PID 0.
    pub parent: Option<ProcessId>,
    /// Place among its parent's children, in order of creation.
    pub order: u64,
    /// Place in the parent's list.
    pub sibling: Links<Process>,
    /// The thread that made it, for `__WNOTHREAD`.
    pub creator: Option<ThreadId>,
    /// Its children, in order of creation.
    pub children: List<Process>,
    /// The order that the next child gets.
    pub next_order: u64,
    /// Children that a plain wait sees.
    pub plain_children: u32,
    /// Children that a wait with `__WCLONE` sees.
    pub clone_children: u32,
    /// Children with an event to tell ([`crate::ready`]).
    pub ready: Option<ProcessId>,
    /// Its branches in the parent's tree of those.
    pub branches: Branches,
    /// Threads that wait for children, first come first.
    pub waiters: Vec<ThreadId>,
    /// Threads that wait until this service thread has stopped.
    pub stoppers: Vec<ThreadId>,
    /// The process that made this service thread and has not collected its result.
    pub maker: Option<ProcessId>,
    /// Service threads that it made and that are nobody else's concern: not woken yet, or ended by
    /// themselves and their result not collected.
    pub made: Vec<ProcessId>,
    /// Its live threads, in order of creation.
    pub threads: List<Thread>,
    /// How many.
    pub thread_count: u32,
    /// `None` once it has ended.
    pub dispositions: Option<DispositionsId>,
    /// Its group.
    pub group: GroupId,
    /// Place in the group's list.
    pub member: Links<Process>,
    /// Signal to the parent at its end; 0: none.
    pub exit_signal: u32,
    /// How often the parent had exec'd when it was made (LX-EXIT-11).
    pub parent_execs: u32,
    /// How often it has exec'd.
    pub execs: u32,
    /// The parent may still move it to another group (LX-PGRP-04).
    pub fresh: bool,
    /// It adopts orphaned descendants.
    pub subreaper: bool,
    /// Signals that wait until it is continued or released: bit n - 1 for signal n.
    pub pending: u64,
    /// What to tell the parent.
    pub event: Event,
    /// Win32 exit code once it has ended.
    pub exit_code: u32,
    /// Handles on it that are out.
    pub handles: u32,
    /// Bit 0 is set when it ends; `NONE` until somebody asks for it.
    pub notification: Handle,
    /// An exec of one of its threads, not yet decided.
    pub exec: Option<LoadId>,
    /// The TID of its first thread where that differs from the PID (Win32).
    pub first_tid: u32,
    /// What is known of a service thread.
    pub service: Service,
}

/// What a thread is in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reserved by a creation.
    Reserved,
    /// Runs the loader for this image.
    Loader(LoadId),
    /// Belongs to a process.
    Member(ProcessId),
    /// Has ended; the record stays for the handles on it.
    Ended,
}

/// Which children a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Any child.
    Any,
    /// The child with this PID.
    Child(u32),
    /// Any child in the group with this ID.
    Group(u32),
}

/// What the server owes a thread that waits in a call.
#[derive(Clone, Copy, Debug)]
pub enum Owed {
    /// wait4.
    Wait {
        /// For whom.
        selector: Selector,
        /// With which options.
        options: u32,
    },
    /// A creation with VFORK: the child's task, and the number to answer.
    Release {
        /// Who releases it.
        by: ThreadId,
        /// The answer.
        pid: u32,
    },
    /// exec, spawn or create_process: the loader decides.
    Load(LoadId),
    /// service_stop.
    Stop(ProcessId),
    /// service_should_stop, waiting.
    ShouldStop,
}

/// A thread.
pub struct Thread {
    /// What it is.
    pub role: Role,
    /// The kernel's thread.
    pub handle: Handle,
    /// Its number.
    pub tid: u32,
    /// Place in the process's list.
    pub sibling: Links<Thread>,
    /// What the server owes it, and the call to be answered with it.
    pub owed: Option<(Owed, Kept)>,
    /// Who waits until it execs or exits (vfork).
    pub releases: Option<ThreadId>,
    /// Win32 suspend count.
    pub suspends: u32,
    /// Win32 exit code once it has ended.
    pub exit_code: u32,
    /// Handles on it that are out.
    pub handles: u32,
    /// Bit 0 is set when it ends; `NONE` until somebody asks for it.
    pub notification: Handle,
}

impl Default for Thread {
    fn default() -> Self {
        Thread {
            role: Role::Reserved,
            handle: Handle::NONE,
            tid: 0,
            sibling: Links::default(),
            owed: None,
            releases: None,
            suspends: 0,
            exit_code: STILL_ACTIVE,
            handles: 0,
            notification: Handle::NONE,
        }
    }
}

impl Default for Process {
    fn default() -> Self {
        Process::new(Kind::Linux, GroupId::default())
    }
}

/// The exit code of what has not ended (W32-EXIT-16).
pub const STILL_ACTIVE: u32 = 259;

impl Process {
    /// A reserved process without threads.
    pub fn new(kind: Kind, group: GroupId) -> Process {
        Process {
            pid: 0,
            kind,
            name: [0; 16],
            life: Life::Reserved,
            parent: None,
            order: 0,
            sibling: Links::default(),
            creator: None,
            children: List::default(),
            next_order: 0,
            plain_children: 0,
            clone_children: 0,
            ready: None,
            ending: None,
            end: Links::default(),
            branches: Branches::default(),
            waiters: Vec::new(),
            stoppers: Vec::new(),
            maker: None,
            made: Vec::new(),
            threads: List::default(),
            thread_count: 0,
            dispositions: None,
            group,
            member: Links::default(),
            exit_signal: 0,
            parent_execs: 0,
            execs: 0,
            fresh: true,
            subreaper: false,
            pending: 0,
            event: Event::None,
            exit_code: STILL_ACTIVE,
            handles: 0,
            notification: Handle::NONE,
            exec: None,
            first_tid: 0,
            service: Service::default(),
        }
    }

    /// True while it has threads (or is the service root).
    pub fn is_alive(&self) -> bool {
        matches!(self.life, Life::Running | Life::Stopped)
    }

    /// Whether a parent waits for it at all.
    pub fn is_waitable(&self) -> bool {
        matches!(self.kind, Kind::Linux | Kind::Init)
    }

    /// Whether only a wait with `__WCLONE` or `__WALL` sees it (LX-WAIT-10).
    pub fn is_clone_child(&self) -> bool {
        self.exit_signal != crate::signal::SIGCHLD
    }

    /// How many children of that sort it has, see [`is_clone_child`](Self::is_clone_child).
    pub fn child_count(&mut self, clone_children: bool) -> &mut u32 {
        match clone_children {
            true => &mut self.clone_children,
            false => &mut self.plain_children,
        }
    }

    /// Its end as wait4 tells it.
    pub fn told(&self, status: u32) -> Waited {
        Waited {
            pid: self.pid,
            status,
        }
    }
}

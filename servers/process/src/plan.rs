//! The spawn plan: what a child shares with its creator, as one value.
//!
//! Every way of creating a process is compiled to a [`SpawnPlan`] by one of the [front
//! doors](crate::door) and carried out by [`crate::spawn`]. Reading a plan answers every question
//! about a creation; nothing else about the call that asked for it matters any more.

use libipc::abi::Handle;
use libipc::protocol::process::Start;

use crate::model::{Kind, Name, Service};

/// Where the child's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryChoice {
    /// The creator's own space.
    Share,
    /// A copy-on-write snapshot.
    Snapshot,
    /// An image's, with this initial stack.
    Image(Start),
}

/// Where the child's open files come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesChoice {
    /// The creator's table.
    Share,
    /// A copy.
    Copy,
    /// A copy without what closes on exec.
    Kept,
    /// A copy of what is marked inheritable, in the same slots.
    Inheritable,
    /// An empty table.
    Fresh,
}

/// Where the child's root and working directory come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryChoice {
    /// The creator's.
    Share,
    /// A copy.
    Copy,
    /// A copy with this working directory.
    At(Handle),
    /// Nothing.
    Fresh,
}

/// Where the child's signal dispositions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispositionChoice {
    /// The creator's.
    Share,
    /// A copy.
    Copy,
    /// A copy in which nothing is handled; what is ignored stays so.
    Reset,
    /// All default.
    Default,
    /// All ignored.
    IgnoreAll,
}

/// Which thread group the child belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupChoice {
    /// The creator's: the child is a thread.
    Join,
    /// A new process of this kind.
    New(Kind),
}

/// Whose child it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentChoice {
    /// The creator's process.
    Caller,
    /// The parent of the creator's process.
    CallersParent,
    /// PID 2.
    ServiceRoot,
}

/// What the child executes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstInstruction {
    /// What follows the creator's call, on this stack (0: the creator's stack pointer).
    AfterCall {
        /// Stack pointer.
        stack: u64,
    },
    /// The image's.
    Image,
    /// A function in the creator's memory.
    Function(Service),
}

/// Whether it runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartChoice {
    /// Yes.
    Run,
    /// Yes, and the creator waits until the child has left its memory (VFORK).
    RunAndRelease,
    /// Not before it is resumed (CREATE_SUSPENDED).
    Suspended,
    /// Not before it is woken (service threads).
    UntilWoken,
}

/// Who is told of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndChoice {
    /// The parent, with this signal (0: none).
    Parent(u32),
    /// The parent, with the signal that the creator's own parent gets (CLONE_PARENT).
    ParentLikeCaller,
    /// Whoever holds a handle; the creator gets one, inheritable or not, on process and thread.
    Holders {
        /// hProcess is inheritable.
        process_inherit: bool,
        /// hThread is inheritable.
        thread_inherit: bool,
    },
    /// Whoever stops the service thread.
    Stopper,
    /// Nobody: a thread.
    Nobody,
}

/// Words of memory that a creation writes, and registers that it sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The child's TID is stored here in the creator's memory before the child runs.
    pub parent_tid: Option<u64>,
    /// The child's TID is stored here in the child's memory before the child runs.
    pub child_tid: Option<u64>,
    /// The kernel clears and wakes this word when the child ends.
    pub clear: Option<u64>,
    /// The child's FS base.
    pub thread_pointer: Option<u64>,
    /// The number that the child must get.
    pub number: Option<u32>,
}

/// Everything about one creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnPlan {
    /// Memory.
    pub memory: MemoryChoice,
    /// Open files.
    pub files: FilesChoice,
    /// Root and working directory.
    pub directory: DirectoryChoice,
    /// Signal dispositions.
    pub dispositions: DispositionChoice,
    /// Thread group.
    pub group: GroupChoice,
    /// Parent.
    pub parent: ParentChoice,
    /// First instruction.
    pub first: FirstInstruction,
    /// Start.
    pub start: StartChoice,
    /// End.
    pub end: EndChoice,
    /// Words and registers.
    pub words: Words,
    /// A name of its own; otherwise the creator's.
    pub name: Option<Name>,
}

impl SpawnPlan {
    /// Whether the child runs as soon as it is there; an image is started apart.
    pub fn runs(&self) -> bool {
        matches!(self.start, StartChoice::Run | StartChoice::RunAndRelease)
            && self.first != FirstInstruction::Image
    }

    /// fork: the plan that the others differ from.
    pub const FORK: SpawnPlan = SpawnPlan {
        memory: MemoryChoice::Snapshot,
        files: FilesChoice::Copy,
        directory: DirectoryChoice::Copy,
        dispositions: DispositionChoice::Copy,
        group: GroupChoice::New(Kind::Linux),
        parent: ParentChoice::Caller,
        first: FirstInstruction::AfterCall { stack: 0 },
        start: StartChoice::Run,
        end: EndChoice::Parent(crate::signal::SIGCHLD),
        words: Words {
            parent_tid: None,
            child_tid: None,
            clear: None,
            thread_pointer: None,
            number: None,
        },
        name: None,
    };
}

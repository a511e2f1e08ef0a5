//! What the process server does to the machine.
//!
//! The IPC shell implements [`Machine`] with kernel calls; the tests implement it with a fake that
//! counts live objects and fails on request. The first group of methods may fail and is only used
//! while a creation reserves what it needs; the second cannot, and is what commits are made of.

use libipc::abi::{Error, Handle, SendCap, SlotFlags, TableSelector};
use libipc::protocol::process::{Errno, ProcessError, ProcessIds, Start, Waited, Win32Error};
use libipc::wire::{self, Kept, Refusal, ShortBody};

/// What a new thread lives in, as seen from the thread that it is made like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Address space, and with it the private table.
    pub memory: MemoryShare,
    /// Files table.
    pub files: TableShare,
    /// Root and working directory.
    pub fs: TableShare,
}

/// Where a new thread's memory comes from. Other memory than the other thread's comes with a
/// private table of its own: [`slots`](libipc::protocol::process::slots).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryShare {
    /// The other thread's.
    Same,
    /// A copy-on-write snapshot of it.
    Snapshot,
    /// A space that the server has, as it is: the loader fills a template.
    Within(Handle),
    /// A snapshot of a template.
    Image(Handle),
}

/// A thread that goes on where another waits in its call to the server, in the same surroundings or
/// in copies of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The other thread.
    pub like: Handle,
    /// The new thread's label.
    pub label: u64,
    /// Its memory is a copy-on-write snapshot, and it has a private table of its own:
    /// [`slots`](libipc::protocol::process::slots).
    pub copies_memory: bool,
    /// Its files table is a copy.
    pub copies_files: bool,
    /// Its fs table is a copy.
    pub copies_fs: bool,
    /// Stack pointer; 0: the other's.
    pub stack: u64,
    /// FS base, if not the other's.
    pub thread_pointer: Option<u64>,
    /// The address that is cleared and woken when the thread ends; a multiple of 4.
    pub clear: Option<u64>,
    /// A word that is stored in the new thread's memory, and where. If that cannot be written,
    /// nothing is.
    pub word: Option<(u64, u32)>,
    /// It runs at once; otherwise it is suspended once.
    pub runs: bool,
}

/// Where a template is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its space.
    pub space: Handle,
    /// The pool that pays for it and what is loaded into it: one of its own, of the job's.
    pub pool: Handle,
}

/// Where a new thread's table comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableShare {
    /// The other thread's.
    Same,
    /// A copy of it.
    Copy,
    /// An empty one.
    Empty,
}

/// The machine as the process server sees it. Objects are charged to the job's pool; every handle
/// that a method returns is the server's to close. A thread holds what it lives in: the server has
/// no handles on spaces and tables, and reaches them through a thread.
pub trait Machine {
    /// A suspended thread without registers.
    fn create_thread(&mut self, like: Handle, shares: Shares, label: u64) -> Result<Handle, Error>;
    /// Forks a thread.
    fn fork_thread(&mut self, fork: &Fork) -> Result<Handle, Error>;
    /// The id of a window that lets an image be loaded: the same for all who have it. No other
    /// window ever has it.
    fn image_id(&mut self, window: Handle) -> Result<u64, Error>;
    /// A space in which only the loader is mapped, for an image to be loaded into.
    fn template(&mut self) -> Result<Place, Error>;
    /// What a template and what is loaded into it cost, in pages.
    fn pages_of(&mut self, template: Place) -> u64;
    /// Gives a template up. What processes have of it stays theirs.
    fn drop_template(&mut self, template: Place);
    /// Copies an initial stack from the memory of `from` to the end of the first stack of `to`.
    fn copy_stack(&mut self, from: Handle, start: &Start, to: Handle) -> Result<(), Error>;
    /// Closes the slots of a thread's files table whose flags, cut to `mask`, are not `value`.
    fn retain(&mut self, thread: Handle, mask: SlotFlags, value: SlotFlags) -> Result<(), Error>;
    /// Puts a copy of `source` into slot `index` of a thread's fs table.
    fn place(&mut self, source: Handle, thread: Handle, index: u32) -> Result<(), Error>;
    /// Sets the address that is cleared and woken when the thread ends.
    fn set_clear_address(&mut self, thread: Handle, address: u64) -> Result<(), Error>;
    /// Labels a thread that the server did not make.
    fn set_label(&mut self, thread: Handle, label: u64) -> Result<(), Error>;
    /// Keeps the call that is being served.
    fn keep_reply(&mut self) -> Result<Kept, Error>;
    /// A sender to this server with `badge` and `access`. [`Served`](crate::ProcessServer) is told
    /// when the last copy of it is gone.
    fn derive_sender(&mut self, badge: u64, access: u32) -> Result<Handle, Error>;
    /// A notification; `ended`: with bit 0 set. The bit stays set when it is taken.
    fn end_notification(&mut self, ended: bool) -> Result<Handle, Error>;
    /// Reads 4 bytes of a thread's memory.
    fn read_word(&mut self, thread: Handle, address: u64) -> Result<u32, Error>;
    /// Writes 4 bytes of a thread's memory.
    fn write_word(&mut self, thread: Handle, address: u64, value: u32) -> Result<(), Error>;

    /// The first used slot of one of a thread's tables at or above `index`, described as
    /// `cap_info` does.
    fn slot_at(&mut self, thread: Handle, table: TableSelector, index: u32) -> Option<(u32, u64)>;
    /// Answers a kept call. Capabilities in the answer are handed over.
    fn answer(&mut self, kept: Kept, answer: &Late);
    /// Gives a kept call up. One that is still being served can be answered as if it had not been kept.
    fn give_up(&mut self, kept: Kept);
    /// Adds one to a thread's suspend count; on return it runs nowhere.
    fn suspend(&mut self, thread: Handle);
    /// Takes one from a thread's suspend count.
    fn resume(&mut self, thread: Handle);
    /// Starts a thread at an address, out of whatever call it waits in, and resumes it once.
    fn start(
        &mut self,
        thread: Handle,
        instruction_pointer: u64,
        stack_pointer: u64,
        argument: u64,
    );
    /// Starts a thread in the loader.
    fn start_loader(&mut self, thread: Handle);
    /// Takes the loader out of a template.
    fn remove_loader(&mut self, space: Handle);
    /// Ends a thread and closes its handle.
    fn end_thread(&mut self, thread: Handle);
    /// Closes a handle.
    fn close(&mut self, handle: Handle);
    /// Sets bit 0 of a notification.
    fn signal_end(&mut self, notification: Handle);
    /// PID 1 has ended with this status word.
    fn init_ended(&mut self, status: u32);
}

/// An answer that was owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// The child's number: vfork, spawn.
    Number(u32),
    /// wait4.
    Waited(Waited),
    /// create_process, with its two handles.
    Created {
        /// The ids.
        ids: ProcessIds,
        /// The process and the thread handle.
        handles: [SendCap; 2],
    },
    /// service_stop.
    Stopped(i32),
    /// service_should_stop.
    ShouldStop(bool),
    /// A Linux call failed.
    Errno(Errno),
    /// A Win32 call failed.
    Win32(Win32Error),
}

impl Late {
    /// Encodes the answer.
    pub fn encode(&self, body: &mut ShortBody) {
        fn encode<T: serde::Serialize>(result: Result<T, ProcessError>, body: &mut ShortBody) {
            wire::answer(result.map_err(Refusal::Error), body);
        }
        match *self {
            Late::Number(pid) => encode(Ok(pid), body),
            Late::Waited(waited) => encode(Ok(waited), body),
            Late::Created { ids, .. } => encode(Ok(ids), body),
            Late::Stopped(result) => encode(Ok(result), body),
            Late::ShouldStop(stop) => encode(Ok(stop), body),
            Late::Errno(errno) => encode::<()>(Err(ProcessError::Linux(errno)), body),
            Late::Win32(error) => encode::<()>(Err(ProcessError::Win32(error)), body),
        }
    }

    /// The capabilities that go with it.
    pub fn caps(&self) -> &[SendCap] {
        match self {
            Late::Created { handles, .. } => handles,
            _ => &[],
        }
    }
}

/// A kernel refusal as an error number: out of memory, unless the caller itself is at fault.
pub fn errno(error: Error) -> Errno {
    match error {
        Error::NoMemory => Errno::ENOMEM,
        Error::Exhausted => Errno::EAGAIN,
        Error::BadAddress => Errno::EFAULT,
        Error::AccessDenied => Errno::EACCES,
        Error::BadHandle => Errno::EBADF,
        Error::Gone | Error::Interrupted => Errno::EINTR,
        _ => Errno::EINVAL,
    }
}

//! Handles, errors, access masks and message layout.
//!
//! A native system call puts an *op word* in `rax` and its arguments in `rdi, rsi, rdx, r8, r9,
//! r10, r12, r13, r14, r15`; `rbx`, `rbp` and `rsp` are preserved, `rcx` and `r11` are destroyed by
//! the instruction itself. There are two shapes:
//!
//! * **plain calls** return a status in `rax` (0, or an [`Error`]) and up to two values in `rdx`
//!   and `r8`; every other register is preserved;
//! * **message calls** ([`IpcCall`]) carry the first [`INLINE_BYTES`] bytes of a body in eight
//!   registers and use all eleven both ways. [`OpWord`] and [`Delivery`] give the bits.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

/// The size of a page frame and of a slot page, in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of a message body that travel in registers.
pub const INLINE_BYTES: usize = 64;
/// Which of the body registers names a reply, with [`IpcFlags::REPLY`].
pub const REPLY_WORD: usize = 7;
/// The longest body that leaves that register free, in bytes.
pub const REPLY_BYTES: usize = REPLY_WORD * 8;
/// Bytes of a message body that are copied from memory to memory behind the inline part.
pub const TAIL_BYTES: usize = 4096;
/// The longest body of one message, in bytes. More goes through a window.
pub const MESSAGE_BYTES: usize = INLINE_BYTES + TAIL_BYTES;
/// Capabilities that one message can carry.
pub const MESSAGE_CAPS: usize = 4;
/// A deadline that never comes. Deadlines are nanoseconds since boot.
pub const NEVER: u64 = u64::MAX;
/// The first address that no user mapping may reach: the top page of the lower half stays
/// unmapped, so that `sysret` never sees a non-canonical address (Intel SDM volume 2, SYSRET).
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// Whether this can be a thread's clear address, where the kernel stores a 32-bit 0 at its end.
pub const fn is_clear_address(address: u64) -> bool {
    address.is_multiple_of(4) && address < USER_END
}

/// Where native programs lie in their address space. What they only read has one 2 MiB range, and so
/// one page table, which all processes that run the image share. Data, loader and first stack have the
/// next, so that a process that writes copies one path of tables, with few entries in the last.
pub mod layout {
    /// Link address of a native program.
    pub const IMAGE: u64 = 0x7f00_0000_0000;
    /// Link address of the loader. A program may use its range: it is unmapped before the first
    /// instruction, unless there was no memory for that.
    pub const LOADER: u64 = 0x7f00_0038_0000;
    /// First address past the loader's range.
    pub const LOADER_END: u64 = 0x7f00_003c_0000;
    /// First address past the first thread's stack.
    pub const STACK_END: u64 = 0x7f00_003f_f000;
    /// Here, in the first stack's last word, a program finds the address of its initial stack: it
    /// need not write anything to know it later.
    pub const INITIAL_STACK_AT: u64 = STACK_END - 8;
    /// Size of the first thread's stack in bytes.
    pub const STACK_BYTES: u64 = 0x3_0000;
    /// The most of it that arguments, environment and what belongs to them take, so that the rest
    /// stays free for the program.
    pub const INITIAL_STACK_BYTES: u64 = STACK_BYTES - 0x8000;
    /// Where bulk mappings begin.
    pub const BULK: u64 = 0x7e80_0000_0000;
}

/// Which of a thread's three capability tables a handle looks into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TableSelector {
    /// Open files (or Win32 handles). Copied or shared by process creation.
    Files = 0,
    /// Server, pool, space and thread capabilities. A new process begins with
    /// a copy of its server's, not of its creator's.
    Private = 1,
    /// Root and working directory.
    Fs = 2,
}

impl TableSelector {
    /// The selector with this number, if there is one.
    pub const fn from_code(code: u64) -> Option<TableSelector> {
        match code {
            0 => Some(TableSelector::Files),
            1 => Some(TableSelector::Private),
            2 => Some(TableSelector::Fs),
            _ => None,
        }
    }
}

/// A thread's name for one of its capabilities.
///
/// Bits 0..32 are the slot index, 32..56 the slot's generation, 62..64 the [`TableSelector`].
/// Generations begin at 1. A handle whose generation is not the slot's is an error, never someone
/// else's object. In the files and fs tables generation 0 stands for any, so a small plain number
/// (a file descriptor) is a handle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(transparent)]
pub struct Handle(pub u64);

/// None.
impl Default for Handle {
    fn default() -> Self {
        Handle::NONE
    }
}

impl Handle {
    /// No capability, where one is optional.
    pub const NONE: Handle = Handle(u64::MAX);
    /// Stands for the caller's own files table where a call takes a table.
    pub const OWN_FILES: Handle = Handle::own(TableSelector::Files);
    /// Stands for the caller's own private table where a call takes a table.
    pub const OWN_PRIVATE: Handle = Handle::own(TableSelector::Private);
    /// Stands for the caller's own fs table where a call takes a table.
    pub const OWN_FS: Handle = Handle::own(TableSelector::Fs);

    const OWN_INDEX: u32 = u32::MAX;

    const fn own(table: TableSelector) -> Handle {
        Handle::new(table, Self::OWN_INDEX, 0)
    }

    /// Puts a handle together from its parts; `generation` is cut to 24 bits.
    pub const fn new(table: TableSelector, index: u32, generation: u32) -> Handle {
        Handle((table as u64) << 62 | ((generation & 0xff_ffff) as u64) << 32 | index as u64)
    }

    /// The table that the handle looks into; `None` if the bits name none.
    pub const fn table(self) -> Option<TableSelector> {
        if self.0 >> 56 & 0x3f != 0 {
            return None;
        }
        TableSelector::from_code(self.0 >> 62)
    }

    /// The bits that select the table, as a number below 4.
    pub const fn table_bits(self) -> usize {
        (self.0 >> 62) as usize
    }

    /// What a slot's generation is compared with: [`Handle::generation`], and no generation if one
    /// of the bits is set that have no meaning.
    pub const fn generation_bits(self) -> u32 {
        (self.0 >> 32) as u32 & 0x3fff_ffff
    }

    /// The slot number.
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// The generation, 24 bits.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    /// True for [`Handle::OWN_FILES`] and its siblings.
    pub const fn is_own_table(self) -> bool {
        self.index() == Self::OWN_INDEX && self.generation() == 0 && self.table().is_some()
    }

    /// True unless this is [`Handle::NONE`].
    pub const fn is_some(self) -> bool {
        self.0 != Self::NONE.0
    }
}

impl core::fmt::Debug for Handle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.table() {
            Some(table) => write!(f, "{:?}:{}.{}", table, self.index(), self.generation()),
            None => write!(f, "Handle({:#x})", self.0),
        }
    }
}

/// Why the kernel refused a call. Each value tells the caller something else to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Error {
    /// The handle names no capability: empty slot, stale generation, or a revoked one.
    BadHandle = 1,
    /// The capability stands for another kind of object than the call works on.
    WrongKind = 2,
    /// The capability's access mask lacks a right that the call needs.
    AccessDenied = 3,
    /// An argument is outside what the call accepts.
    InvalidArgument = 4,
    /// A memory range is not the caller's: unmapped, wrong protection, or outside user space.
    BadAddress = 5,
    /// The pool that pays has reached its limit.
    NoMemory = 6,
    /// The range or slot is already in use.
    Occupied = 7,
    /// The deadline passed.
    TimedOut = 8,
    /// Somebody interrupted the call before it was received.
    Interrupted = 9,
    /// The other side of the call has ended.
    Gone = 10,
    /// The last receive right of the endpoint went away with the call unanswered.
    ServerGone = 11,
    /// Nothing is there now, and the caller asked not to wait.
    WouldBlock = 12,
    /// The message, or a range, is longer than the receiver or the call takes.
    TooLong = 13,
    /// The object is in a state in which the call has no meaning.
    WrongState = 14,
    /// No system call has this number.
    UnknownCall = 15,
    /// A counter or a number space is used up.
    Exhausted = 16,
}

impl Error {
    /// The error with this number, if there is one.
    pub const fn from_code(code: u8) -> Option<Error> {
        use Error::*;
        const ALL: [Error; 16] = [
            BadHandle,
            WrongKind,
            AccessDenied,
            InvalidArgument,
            BadAddress,
            NoMemory,
            Occupied,
            TimedOut,
            Interrupted,
            Gone,
            ServerGone,
            WouldBlock,
            TooLong,
            WrongState,
            UnknownCall,
            Exhausted,
        ];
        if code >= 1 && code as usize <= ALL.len() {
            Some(ALL[code as usize - 1])
        } else {
            None
        }
    }
}

/// What a capability stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// The right to use up to N page frames.
    Pool = 1,
    /// An address space.
    Space = 2,
    /// A range of a space that its holder may map.
    Window = 3,
    /// A capability table.
    Table = 4,
    /// A thread.
    Thread = 5,
    /// The receive side of an endpoint; badged senders are derived from it.
    Receiver = 6,
    /// The send side of an endpoint. Its access mask belongs to the server's protocol.
    Sender = 7,
    /// A place where a server keeps a call until it answers it, and the right to answer it.
    Reply = 8,
    /// A word of bits that can be waited for.
    Notification = 9,
    /// An interrupt line.
    Irq = 10,
    /// A range of I/O ports.
    IoPorts = 11,
    /// A range of physical memory that is not pool memory.
    PhysicalRange = 12,
    /// Power, the kernel's log, and the making of [`Kind::Irq`] capabilities.
    System = 13,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub const fn from_code(code: u8) -> Option<Kind> {
        use Kind::*;
        const ALL: [Kind; 13] = [
            Pool,
            Space,
            Window,
            Table,
            Thread,
            Receiver,
            Sender,
            Reply,
            Notification,
            Irq,
            IoPorts,
            PhysicalRange,
            System,
        ];
        if code >= 1 && code as usize <= ALL.len() {
            Some(ALL[code as usize - 1])
        } else {
            None
        }
    }
}

bitflags! {
    /// What a slot lets its holder do. The meaning depends on the [`Kind`]; for [`Kind::Sender`]
    /// all 32 bits belong to the server, which sees them with every message (a Win32 handle's
    /// granted access is such a mask).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Access: u32 {
        /// Pool: create objects and frames charged to it.
        const CHARGE = 1 << 0;
        /// Pool: change the limit, destroy it.
        const MANAGE_POOL = 1 << 1;
        /// Pool: read its figures.
        const STATUS = 1 << 2;
        /// Pool, Thread: give threads labels that are not the giver's own. A pool or a thread that
        /// is made with a pool capability without it has none either, so who is known by a label
        /// cannot make somebody else of a thread.
        const LABEL = 1 << 3;

        /// Space: map, unmap and protect.
        const MAP = 1 << 0;
        /// Space: take a snapshot.
        const SNAPSHOT = 1 << 1;
        /// Space: read its memory.
        const READ_MEMORY = 1 << 2;
        /// Space: write its memory.
        const WRITE_MEMORY = 1 << 3;
        /// Space: derive windows.
        const MAKE_WINDOW = 1 << 4;
        /// Space: make threads in it.
        const MAKE_THREAD = 1 << 5;

        /// Window: map readable.
        const READ = 1 << 0;
        /// Window: map writable.
        const WRITE = 1 << 1;
        /// Window: map executable.
        const EXECUTE = 1 << 2;

        /// Table: look at and copy capabilities out of it.
        const TAKE = 1 << 0;
        /// Table: put capabilities into it, close them, change their flags.
        const PUT = 1 << 1;
        /// Table: copy it whole; make threads that use it.
        const USE_TABLE = 1 << 2;

        /// Thread: start, suspend, resume, end, interrupt, label, priority.
        const CONTROL = 1 << 0;
        /// Thread: read and write registers; with CONTROL also what it lives in, since whoever
        /// directs a thread can have it use its space and tables. The rights are those that the
        /// thread was made with: as its code goes on when they are revoked, so do they.
        const REGISTERS = 1 << 1;
        /// Thread: read its state, be told of its end.
        const OBSERVE = 1 << 2;

        /// Reply: keep a call in it. To answer what it keeps takes no right.
        const KEEP = 1 << 0;

        /// Notification: signal it.
        const SIGNAL = 1 << 0;
        /// Notification: wait for it.
        const WAIT = 1 << 1;

        /// Irq, IoPorts, PhysicalRange, Receiver: use it.
        const USE = 1 << 0;

        /// System: power off and reset.
        const POWER = 1 << 0;
        /// System: write the kernel's log.
        const LOG = 1 << 1;
        /// System: make Irq capabilities.
        const MAKE_IRQ = 1 << 2;
        /// System: make capabilities that stand for their user's own space.
        const OWN_SPACE = 1 << 3;

        /// All kinds but Sender: take back what was derived from this grant. Copies of a capability
        /// share its grant, and the end of a derived window is the window's end for everybody; so who
        /// hands out copies keeps this right for itself. The maker of an object has it.
        const REVOKE = 1 << 31;

        const _ = !0;
    }

    /// Marks on a slot.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SlotFlags: u8 {
        /// Closed when the process that uses the table execs.
        const CLOSE_ON_EXEC = 1 << 0;
        /// Win32: a child may inherit it.
        const INHERIT = 1 << 1;
        /// Win32: closing it is refused until the mark is taken off.
        const PROTECT = 1 << 2;
    }

    /// Of which parts a new thread gets a copy of its own. The others it shares.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Copies: u8 {
        /// The space: a copy-on-write snapshot.
        const SPACE = 1 << 0;
        /// The private table.
        const PRIVATE = 1 << 1;
        /// The files table.
        const FILES = 1 << 2;
        /// The fs table.
        const FS = 1 << 3;
    }

    /// How `thread_fork` makes a thread. Of the parts that are not copied it shares those of the
    /// thread that it is like.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ForkFlags: u8 {
        /// It gets a copy-on-write snapshot of the space.
        const COPY_SPACE = Copies::SPACE.bits();
        /// It gets a copy of the private table.
        const COPY_PRIVATE = Copies::PRIVATE.bits();
        /// It gets a copy of the files table.
        const COPY_FILES = Copies::FILES.bits();
        /// It gets a copy of the fs table.
        const COPY_FS = Copies::FS.bits();
        /// Of a copied space, the page that the new thread's next push goes to is copied at once.
        const PREFAULT = 1 << 4;
        /// The FS base is the given one.
        const BASE = 1 << 5;
        /// It runs at once; otherwise it is suspended once.
        const START = 1 << 6;
    }

    /// What a mapping permits. A mapping without [`Protection::READ`] cannot be written or
    /// executed either on this machine.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Protection: u8 {
        /// Loads.
        const READ = 1 << 0;
        /// Stores.
        const WRITE = 1 << 1;
        /// Instruction fetches. Refused together with WRITE.
        const EXECUTE = 1 << 2;
    }
}

/// Which message call an op word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IpcCall {
    /// Sends to an endpoint and waits for the answer.
    Call = 1,
    /// Answers the last received call, or a kept one, then waits at an endpoint.
    ReplyReceive = 2,
    /// Waits at an endpoint.
    Receive = 3,
    /// Sends to an endpoint and goes on once it is received; there is no answer.
    Send = 4,
    /// Answers: the last received call (handle [`Handle::NONE`]), or what a reply keeps.
    Reply = 5,
}

impl IpcCall {
    /// The message call with this system call number, if it is one.
    pub const fn from_number(number: u8) -> Option<IpcCall> {
        match number {
            1 => Some(IpcCall::Call),
            2 => Some(IpcCall::ReplyReceive),
            3 => Some(IpcCall::Receive),
            4 => Some(IpcCall::Send),
            5 => Some(IpcCall::Reply),
            _ => None,
        }
    }
}

bitflags! {
    /// Flags of a message call, bits 8..16 of the op word.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct IpcFlags: u8 {
        /// [`Extended::deadline`] counts; without it the call waits for ever.
        const DEADLINE = 1 << 0;
        /// Only the thread's death ends the wait; an interrupt stays pending (vfork).
        const KILLABLE_ONLY = 1 << 1;
        /// The body register [`REPLY_WORD`] names a reply. With `receive` it keeps the last received
        /// call, as `reply_keep` does; with `reply_receive`, whose body has at most [`REPLY_BYTES`]
        /// and no capabilities then, it is the call that it keeps which is answered, and the last
        /// received one is given up as `receive` does. If that cannot be done nothing happens; once
        /// it is done, what fails is the receiving. Other calls do not look at it.
        const REPLY = 1 << 2;
    }
}

/// `rax` on entry to a message call: number in bits 0..8, [`IpcFlags`] in 8..16, body length in
/// bytes in 16..32, number of capabilities in 32..36.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct OpWord(pub u64);

impl OpWord {
    /// An op word for a message of `length` bytes and `caps` capabilities.
    pub const fn new(call: IpcCall, flags: IpcFlags, length: usize, caps: usize) -> OpWord {
        OpWord(
            call as u64
                | (flags.bits() as u64) << 8
                | ((length as u64) & 0xffff) << 16
                | ((caps as u64) & 0xf) << 32,
        )
    }

    /// The system call number.
    pub const fn number(self) -> u8 {
        self.0 as u8
    }

    /// The flags; unknown bits are dropped.
    pub const fn flags(self) -> IpcFlags {
        IpcFlags::from_bits_truncate((self.0 >> 8) as u8)
    }

    /// Length of the body in bytes.
    pub const fn length(self) -> usize {
        (self.0 >> 16) as u16 as usize
    }

    /// Number of capabilities.
    pub const fn caps(self) -> usize {
        (self.0 >> 32) as usize & 0xf
    }
}

/// What kind of message `receive` delivers, bits 12..16 of a [`Delivery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageKind {
    /// A call: somebody waits for the answer. Also the answer itself, on the caller's side.
    Call = 0,
    /// A one-way message.
    Send = 1,
    /// A thread faulted ([`FaultMessage`] in the body); the answer lets it go on.
    Fault = 2,
    /// No capability with this badge is left.
    NoMoreSenders = 3,
    /// The caller with this label wants its received call back; the server answers it early.
    Cancel = 4,
    /// Bits of the notification that is bound to the endpoint, in body word 0.
    Notification = 5,
}

impl MessageKind {
    /// The kind with this number, if there is one.
    pub const fn from_code(code: u8) -> Option<MessageKind> {
        use MessageKind::*;
        match code {
            0 => Some(Call),
            1 => Some(Send),
            2 => Some(Fault),
            3 => Some(NoMoreSenders),
            4 => Some(Cancel),
            5 => Some(Notification),
            _ => None,
        }
    }
}

/// `rax` after a message call: status in bits 0..8 (0, or an [`Error`]), number of received
/// capabilities in 8..12, [`MessageKind`] in 12..16, body length in bytes in 16..32, the access
/// mask of the capability that the sender used in 32..64. `rdi` is its badge, `rsi` the sending
/// thread's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Delivery(pub u64);

impl Delivery {
    /// A delivered message.
    pub const fn message(kind: MessageKind, length: usize, caps: usize, access: u32) -> Delivery {
        Delivery(
            (caps as u64 & 0xf) << 8
                | (kind as u64) << 12
                | (length as u64 & 0xffff) << 16
                | (access as u64) << 32,
        )
    }

    /// A failed call.
    pub const fn failure(error: Error) -> Delivery {
        Delivery(error as u64)
    }

    /// The error, if the call failed.
    pub const fn error(self) -> Option<Error> {
        match self.0 as u8 {
            0 => None,
            // A status that this libipc does not know is still a failure.
            code => match Error::from_code(code) {
                Some(error) => Some(error),
                None => Some(Error::UnknownCall),
            },
        }
    }

    /// Number of capabilities that arrived; their handles are in [`Extended::received`].
    pub const fn caps(self) -> usize {
        (self.0 >> 8) as usize & 0xf
    }

    /// What kind of message this is; `None` for a kind that this libipc does not know.
    pub const fn kind(self) -> Option<MessageKind> {
        MessageKind::from_code((self.0 >> 12) as u8 & 0xf)
    }

    /// Body length in bytes.
    pub const fn length(self) -> usize {
        (self.0 >> 16) as u16 as usize
    }

    /// The access mask of the sender's capability.
    pub const fn access(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A capability to send along with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SendCap {
    /// The sender's capability.
    pub handle: Handle,
    /// The receiver gets at most these rights.
    pub access: u32,
    /// Bits 0..8 the [`SlotFlags`] of the new slot, without PROTECT, which is the receiver's to set;
    /// bit 8: the sender's slot is closed (a move).
    pub options: u32,
}

impl SendCap {
    /// Bit of [`SendCap::options`]: close the sender's slot once the message is delivered.
    pub const MOVE: u32 = 1 << 8;
    /// An unused place.
    pub const EMPTY: SendCap = SendCap {
        handle: Handle::NONE,
        access: 0,
        options: 0,
    };

    /// A copy with the rights that the sender's slot has.
    pub const fn copy(handle: Handle) -> SendCap {
        SendCap {
            handle,
            access: u32::MAX,
            options: 0,
        }
    }

    /// A copy with fewer rights.
    pub const fn narrowed(handle: Handle, access: Access) -> SendCap {
        SendCap {
            handle,
            access: access.bits(),
            options: 0,
        }
    }

    /// Hands the capability over: the sender's slot is closed.
    pub const fn moved(handle: Handle) -> SendCap {
        SendCap {
            handle,
            access: u32::MAX,
            options: Self::MOVE,
        }
    }
}

/// The memory part of a message call, at the address in `rsi`. Without one (`rsi` 0) a call sends
/// and takes at most [`INLINE_BYTES`] bytes and no capabilities, and waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Extended {
    /// Nanoseconds since boot; counts only with [`IpcFlags::DEADLINE`].
    pub deadline: u64,
    /// Address of the body's bytes from [`INLINE_BYTES`] on.
    pub send: u64,
    /// Address of the buffer for an incoming body's bytes from [`INLINE_BYTES`] on.
    pub receive: u64,
    /// Size of that buffer in bytes.
    pub receive_bytes: u64,
    /// Where incoming capabilities go: the table selector counts, and the index as the lowest slot
    /// to use. [`Handle::NONE`]: the private table, any slot.
    pub receive_slots: Handle,
    /// Capabilities to send; as many as the op word says.
    pub send_caps: [SendCap; MESSAGE_CAPS],
    /// Handles of the capabilities that arrived; as many as the delivery says.
    pub received: [Handle; MESSAGE_CAPS],
}

impl Extended {
    /// Nothing to send, nothing expected.
    pub const EMPTY: Extended = Extended {
        deadline: NEVER,
        send: 0,
        receive: 0,
        receive_bytes: 0,
        receive_slots: Handle::NONE,
        send_caps: [SendCap::EMPTY; MESSAGE_CAPS],
        received: [Handle::NONE; MESSAGE_CAPS],
    };
}

const _: () = assert!(size_of::<Extended>() == 136);
const _: () = assert!(size_of::<SendCap>() == 16);

/// One object of a `wait_many` call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WaitItem {
    /// A notification capability with [`Access::WAIT`].
    pub notification: Handle,
    /// The bits that count.
    pub mask: u64,
    /// On return: those of them that were set.
    pub seen: u64,
    /// Non-zero: take the bits (sticky ones stay); zero: only look.
    pub consume: u64,
}

/// How many objects one `wait_many` takes.
pub const WAIT_ITEMS: usize = 64;

/// What went wrong in a thread, as body words of a [`MessageKind::Fault`] message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FaultMessage {
    /// What happened.
    pub kind: FaultKind,
    /// Page faults: the address that was accessed; otherwise 0.
    pub address: u64,
    /// Page faults: [`FaultMessage::WRITE`], [`FaultMessage::EXECUTE`], [`FaultMessage::PRESENT`].
    pub access: u64,
    /// The instruction that faulted.
    pub instruction_pointer: u64,
    /// The thread's stack pointer.
    pub stack_pointer: u64,
    /// The machine's error code, 0 where there is none.
    pub code: u64,
}

impl FaultMessage {
    /// The access was a store.
    pub const WRITE: u64 = 1 << 0;
    /// The access was an instruction fetch.
    pub const EXECUTE: u64 = 1 << 1;
    /// A page is there; it does not permit the access.
    pub const PRESENT: u64 = 1 << 2;

    /// The message as body words.
    pub const fn to_words(self) -> [u64; 8] {
        [
            self.kind as u64,
            self.address,
            self.access,
            self.instruction_pointer,
            self.stack_pointer,
            self.code,
            0,
            0,
        ]
    }

    /// The message in these body words; `None` if they hold none.
    pub const fn from_words(words: [u64; 8]) -> Option<FaultMessage> {
        let Some(kind) = FaultKind::from_code(words[0]) else {
            return None;
        };
        Some(FaultMessage {
            kind,
            address: words[1],
            access: words[2],
            instruction_pointer: words[3],
            stack_pointer: words[4],
            code: words[5],
        })
    }
}

/// What kind of fault a thread took. (Vectors: Intel SDM volume 3, chapter 6.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum FaultKind {
    /// #PF that the kernel could not settle.
    Page = 1,
    /// #GP: a privileged instruction, a non-canonical address, a bad selector.
    Protection = 2,
    /// #UD.
    InvalidInstruction = 3,
    /// #DE.
    Divide = 4,
    /// #BP.
    Breakpoint = 5,
    /// #DB.
    Debug = 6,
    /// #MF or #XM.
    FloatingPoint = 7,
    /// #AC, #SS, #NP, #OF, #BR and the rest.
    Other = 8,
    /// A page fault that the kernel would have settled, had the pool not been at its limit.
    OutOfMemory = 9,
}

impl FaultKind {
    /// The kind with this number, if there is one.
    pub const fn from_code(code: u64) -> Option<FaultKind> {
        use FaultKind::*;
        const ALL: [FaultKind; 9] = [
            Page,
            Protection,
            InvalidInstruction,
            Divide,
            Breakpoint,
            Debug,
            FloatingPoint,
            Other,
            OutOfMemory,
        ];
        if code >= 1 && code as usize <= ALL.len() {
            Some(ALL[code as usize - 1])
        } else {
            None
        }
    }
}

/// The user registers of a thread, as `thread_get_registers` and `thread_set_registers` move them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)] // the machine's own names
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// The capabilities that the kernel puts into init's private table, by slot number.
/// A slot's first generation is 1.
pub mod initial {
    use super::{Handle, TableSelector};

    const fn slot(index: u32) -> Handle {
        Handle::new(TableSelector::Private, index, 1)
    }

    /// The pool with all memory.
    pub const POOL: Handle = slot(0);
    /// Init's own space.
    pub const SPACE: Handle = slot(1);
    /// Init's own thread.
    pub const THREAD: Handle = slot(2);
    /// Init's own private table.
    pub const TABLE: Handle = slot(3);
    /// Power, log, interrupts.
    pub const SYSTEM: Handle = slot(4);
    /// All I/O ports.
    pub const IO_PORTS: Handle = slot(5);
    /// All physical addresses that are not pool memory.
    pub const PHYSICAL: Handle = slot(6);
    /// The boot archive, a window with READ and EXECUTE.
    pub const ARCHIVE: Handle = slot(7);
}

/// What the kernel tells init about the machine, at the address in init's first `rdi`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BootPage {
    /// [`BootPage::MAGIC`].
    pub magic: u64,
    /// Size of the boot archive in bytes.
    pub archive_bytes: u64,
    /// Physical address of the ACPI root pointer, 0 if there is none.
    pub rsdp: u64,
    /// Physical address of the DSDT, 0 if there is none.
    pub dsdt: u64,
    /// I/O ports of the ACPI PM1a and PM1b control blocks, 0 if there is none.
    pub pm1_control: [u16; 2],
    /// Number of CPUs that the machine has.
    pub cpus: u32,
    /// Framebuffer: physical address, 0 if there is none.
    pub framebuffer: u64,
    /// Framebuffer: width and height in pixels, bytes per line, bits per pixel.
    pub framebuffer_shape: [u32; 4],
    /// Length of the command line in bytes.
    pub command_line_bytes: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// The kernel's command line.
    pub command_line: [u8; crate::command_line::MOST_BYTES],
}

impl BootPage {
    /// Marks a boot page of this layout.
    pub const MAGIC: u64 = u64::from_le_bytes(*b"mitosis1");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_comes_apart_as_it_was_put_together() {
        let handle = Handle::new(TableSelector::Fs, 7, 0x12_3456);
        assert_eq!(handle.table(), Some(TableSelector::Fs));
        assert_eq!((handle.index(), handle.generation()), (7, 0x12_3456));
        assert_eq!(Handle(3).table(), Some(TableSelector::Files));
        assert_eq!(Handle::NONE.table(), None);
        assert!(Handle::OWN_FILES.is_own_table());
    }

    #[test]
    fn op_word_and_delivery_keep_their_fields_apart() {
        let op = OpWord::new(
            IpcCall::ReplyReceive,
            IpcFlags::KILLABLE_ONLY,
            MESSAGE_BYTES,
            4,
        );
        assert_eq!(op.number(), 2);
        assert_eq!(
            (op.flags(), op.length(), op.caps()),
            (IpcFlags::KILLABLE_ONLY, MESSAGE_BYTES, 4)
        );
        let delivery = Delivery::message(MessageKind::Cancel, 5, 1, u32::MAX);
        assert_eq!(delivery.error(), None);
        assert_eq!(
            (delivery.kind(), delivery.length()),
            (Some(MessageKind::Cancel), 5)
        );
        assert_eq!((delivery.caps(), delivery.access()), (1, u32::MAX));
        assert_eq!(Delivery::failure(Error::Gone).error(), Some(Error::Gone));
    }

    #[test]
    fn every_error_comes_back_from_its_code() {
        for code in 0..=255 {
            if let Some(error) = Error::from_code(code) {
                assert_eq!(error as u8, code);
            }
        }
    }
}

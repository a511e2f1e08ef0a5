//! A kernel on the fake machine, with threads that make system calls when a test says so.
//!
//! A [`Rig`] lets any thread run by force, puts a call into its registers and enters by the same
//! door as the machine does. The calls' names come out of the system call table, so a test reads
//! like a program: `rig.signal(thread, notification, 1)`.

use crate::cap::CapTable;
use crate::kernel::Kernel;
use crate::machine::{Exception, Interrupt, Next};
use crate::memory::fake::{self, FakeMachine};
use crate::memory::{Intent, Pool, Ref, Space};
use crate::object::context::Context;
use crate::object::device::{IoPorts, PhysicalRange};
use crate::object::{State, Thread};
use libipc::abi::{
    Access, Copies, Delivery, Error, Extended, ForkFlags, Handle, IpcCall, IpcFlags, Kind,
    MessageKind, OpWord, Protection, REPLY_WORD, SendCap, SlotFlags, TableSelector, initial,
};
use libipc::syscall::{ARGUMENTS, Argument, Values};
use std::vec;
use std::vec::Vec;

/// Where every thread's memory begins, and how much of it is mapped.
pub const DATA: u64 = 0x10_0000;
/// Pages of mapped memory at [`DATA`].
pub const DATA_PAGES: u64 = 16;
/// Where threads keep their [`Extended`].
pub const EXTENDED: u64 = DATA;
/// Where threads keep the tail of what they send.
pub const SEND: u64 = DATA + 0x1f80;
/// Where threads receive a tail.
pub const RECEIVE: u64 = DATA + 0x4f40;
/// Where other things of a test go.
pub const SCRATCH: u64 = DATA + 0x8000;

/// The instruction behind which a thread is while it makes a call.
pub const CALL_SITE: u64 = 0x1000;

/// What a message call brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Got {
    /// What kind of message.
    pub kind: MessageKind,
    /// Length of the body.
    pub length: usize,
    /// Number of capabilities.
    pub caps: usize,
    /// Access mask of the sender's capability.
    pub access: u32,
    /// Its badge.
    pub badge: u64,
    /// The sender's label.
    pub label: u64,
    /// The inline part.
    pub body: [u64; 8],
}

/// A kernel and the first thread in it.
pub struct Rig {
    /// The kernel under test.
    pub kernel: Kernel<FakeMachine>,
    /// The first thread; it has the capabilities of [`initial`].
    pub root: Ref<Thread>,
}

/// A body of `length` bytes that can be told from others.
pub fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u8).wrapping_mul(31) ^ seed)
        .collect()
}

impl Rig {
    /// A kernel with `frames` frames of memory.
    pub fn new(frames: u32) -> Rig {
        let mut memory = fake::memory(frames);
        let pool = memory.root_pool();
        let space = memory.space_create(pool, None).unwrap();
        let mut thread = Thread::new();
        thread.set_suspends(0);
        thread.label = 1;
        thread.space = Some(space);
        for place in &mut thread.tables[..3] {
            *place = Some(memory.table_create(pool).unwrap());
        }
        let table = thread.table(TableSelector::Private).unwrap();
        let root = memory.create(pool, thread).unwrap();
        let ports = memory.create(pool, IoPorts::all()).unwrap();
        let range = memory.create(pool, PhysicalRange::all()).unwrap();
        let mut kernel = Kernel::new(memory);
        kernel.hold_object(Kind::Pool, pool.to_bits()).unwrap();
        kernel.hold_object(Kind::Space, space.to_bits()).unwrap();
        kernel.hold_object(Kind::Table, table.to_bits()).unwrap();
        for (handle, kind, object) in [
            (initial::POOL, Kind::Pool, pool.to_bits()),
            (initial::SPACE, Kind::Space, space.to_bits()),
            (initial::THREAD, Kind::Thread, root.to_bits()),
            (initial::TABLE, Kind::Table, table.to_bits()),
            (initial::SYSTEM, Kind::System, 0),
            (initial::IO_PORTS, Kind::IoPorts, ports.to_bits()),
            (initial::PHYSICAL, Kind::PhysicalRange, range.to_bits()),
        ] {
            let node = kernel.memory.node_create(pool, kind, object).unwrap();
            let index = handle.index();
            let flags = SlotFlags::empty();
            let put = kernel
                .memory
                .table_replace(table, index, node, u32::MAX, flags);
            put.unwrap();
        }
        let mut rig = Rig { kernel, root };
        rig.kernel.let_run(root);
        assert_eq!(rig.kernel.start(), Next::Resume);
        let protection = Protection::READ | Protection::WRITE;
        rig.space_map(root, initial::SPACE, DATA, DATA_PAGES, protection)
            .unwrap();
        rig
    }

    // Threads.

    /// Makes a thread that runs, in the root thread's space and tables, charged to `pool`.
    pub fn thread_in(&mut self, pool: Handle, label: u64) -> (Handle, Ref<Thread>) {
        let root = self.root;
        let tables = [Handle::OWN_PRIVATE, Handle::OWN_FILES, Handle::OWN_FS];
        let [private, files, fs] = tables;
        let none = Handle::NONE;
        let handle = self
            .thread_create(
                root,
                pool,
                initial::SPACE,
                private,
                files,
                fs,
                Copies::empty(),
                label,
                none,
                0,
            )
            .unwrap();
        self.thread_start(root, handle, CALL_SITE, 0x7000, 0)
            .unwrap();
        (handle, self.thread_of(handle))
    }

    /// The same, charged to the root pool.
    pub fn thread(&mut self, label: u64) -> Ref<Thread> {
        self.thread_in(initial::POOL, label).1
    }

    /// A thread with a space and tables of its own; its private table is otherwise empty.
    pub fn stranger(&mut self, pool: Handle, label: u64) -> (Handle, Ref<Thread>) {
        let root = self.root;
        let space = self.space_create(root, pool, Handle::NONE).unwrap();
        let protection = Protection::READ | Protection::WRITE;
        self.space_map(root, space, DATA, DATA_PAGES, protection)
            .unwrap();
        let tables = [(); 3].map(|()| self.table_create(root, pool).unwrap());
        let [private, files, fs] = tables;
        let none = Handle::NONE;
        let handle = self
            .thread_create(
                root,
                pool,
                space,
                private,
                files,
                fs,
                Copies::empty(),
                label,
                none,
                0,
            )
            .unwrap();
        self.thread_start(root, handle, CALL_SITE, 0x7000, 0)
            .unwrap();
        for handle in tables.into_iter().chain([space]) {
            self.cap_close(root, handle).unwrap();
        }
        (handle, self.thread_of(handle))
    }

    /// Gives a thread a copy of one of the root thread's capabilities; returns its handle.
    pub fn give_to(&mut self, to: Ref<Thread>, source: Handle) -> Handle {
        let found = self.kernel.find_in(self.root, source).unwrap();
        let table = self.table_of(to);
        let name =
            self.kernel
                .memory
                .table_put(table, 0, found.node, found.access, SlotFlags::empty());
        name.unwrap().handle(TableSelector::Private)
    }

    /// Puts a capability to a thread's own private table into that table.
    pub fn give_table_to_itself(&mut self, thread: Ref<Thread>) {
        let table = self.table_of(thread);
        let pool = self.kernel.memory.get(table).pool();
        let object = table.to_bits();
        self.kernel.hold_object(Kind::Table, object).unwrap();
        let node = self.kernel.memory.node_create(pool, Kind::Table, object);
        let flags = SlotFlags::empty();
        let put = self
            .kernel
            .memory
            .table_put(table, 0, node.unwrap(), u32::MAX, flags);
        put.unwrap();
    }

    /// A thread's private table.
    pub fn table_of(&self, thread: Ref<Thread>) -> Ref<CapTable> {
        let entry = self.kernel.memory.get(thread);
        entry.table(TableSelector::Private).unwrap()
    }

    /// The thread that one of the root thread's handles names.
    pub fn thread_of(&self, handle: Handle) -> Ref<Thread> {
        let found = self.kernel.find_in(self.root, handle).unwrap();
        found.object(Kind::Thread, Access::empty()).unwrap()
    }

    /// The pool that one of the root thread's handles names.
    pub fn pool_of(&self, handle: Handle) -> Ref<Pool> {
        let found = self.kernel.find_in(self.root, handle).unwrap();
        found.object(Kind::Pool, Access::empty()).unwrap()
    }

    /// A thread's state.
    pub fn state(&self, thread: Ref<Thread>) -> State {
        self.kernel.memory.get(thread).state
    }

    fn context(&mut self, thread: Ref<Thread>) -> &mut Context {
        &mut self.kernel.memory.get_mut(thread).context
    }

    // Entering the kernel.

    /// Lets a thread run now.
    pub fn run(&mut self, thread: Ref<Thread>) {
        assert!(
            self.kernel.memory.get(thread).is_runnable(),
            "the thread {thread:?} waits"
        );
        self.kernel.force(thread);
    }

    /// Lets a thread make a call with these registers.
    pub fn enter(&mut self, thread: Ref<Thread>, operation: u64, arguments: [u64; ARGUMENTS]) {
        self.run(thread);
        let context = self.context(thread);
        context.set_rip(CALL_SITE + 2).unwrap();
        context.set_status(operation);
        context.set_arguments(arguments);
        self.resume_call(thread);
    }

    /// Makes a thread's call, again and again if it is put back.
    pub fn resume_call(&mut self, thread: Ref<Thread>) {
        let _ = self.kernel.syscall();
        while self.kernel.memory.is_live(thread)
            && self.kernel.memory.get(thread).is_runnable()
            && self.context(thread).rip() == CALL_SITE
        {
            self.run(thread);
            self.context(thread).set_rip(CALL_SITE + 2).unwrap();
            let _ = self.kernel.syscall();
        }
        self.settle();
    }

    /// Lets a thread make the call again that was put back for want of a page.
    pub fn resume_restarted(&mut self, thread: Ref<Thread>) {
        assert_eq!(self.context(thread).rip(), CALL_SITE);
        self.context(thread).set_rip(CALL_SITE + 2).unwrap();
        self.resume_call(thread);
    }

    /// Lets the machine's timer fire until nothing is left to clean up.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.kernel.memory.machine().timer != Some(0) {
                return;
            }
            self.kernel.memory.machine_mut().timer = None;
            let _ = self.kernel.interrupt(Interrupt::Timer);
        }
        panic!("cleaning up never ends");
    }

    /// Lets time pass until `now_ns`.
    pub fn sleep_until(&mut self, now_ns: u64) {
        self.kernel.memory.machine_mut().now_ns = now_ns;
        let due = self.kernel.memory.machine().timer;
        if due.is_some_and(|due| due <= now_ns) {
            self.kernel.memory.machine_mut().timer = None;
            let _ = self.kernel.interrupt(Interrupt::Timer);
        }
        self.settle();
    }

    /// Lets a thread's instruction fail.
    pub fn fault(&mut self, thread: Ref<Thread>, vector: u8, address: u64, error_code: u64) {
        self.run(thread);
        let exception = Exception {
            vector,
            error_code,
            address,
        };
        let _ = self.kernel.exception(exception);
        self.settle();
    }

    /// What a plain call of a thread brought. The thread may have been woken since.
    pub fn result(&mut self, thread: Ref<Thread>) -> Result<[u64; 2], Error> {
        assert_eq!(self.state(thread), State::Ready, "the call goes on");
        let context = self.context(thread);
        let values = [context.arguments()[2], context.arguments()[3]];
        match Delivery(context.operation()).error() {
            None => Ok(values),
            Some(error) => Err(error),
        }
    }

    // Messages.

    /// Lets a thread make a message call without a memory part.
    pub fn message(
        &mut self,
        thread: Ref<Thread>,
        call: IpcCall,
        handle: Handle,
        length: usize,
        body: [u64; 8],
    ) {
        let operation = OpWord::new(call, IpcFlags::empty(), length, 0);
        self.message_with(thread, operation, handle, None, body);
    }

    /// Lets a thread make a message call; its memory part is put at [`EXTENDED`].
    pub fn message_with(
        &mut self,
        thread: Ref<Thread>,
        operation: OpWord,
        handle: Handle,
        extended: Option<Extended>,
        body: [u64; 8],
    ) {
        let mut at = 0;
        if let Some(extended) = extended {
            at = EXTENDED;
            self.poke(thread, at, &extended_bytes(&extended));
        }
        let mut arguments = [0; ARGUMENTS];
        arguments[0] = handle.0;
        arguments[1] = at;
        arguments[2..].copy_from_slice(&body);
        self.enter(thread, operation.0, arguments);
    }

    /// Lets a thread send `bytes`, with capabilities, and take an answer of any length.
    pub fn send_bytes(
        &mut self,
        thread: Ref<Thread>,
        call: IpcCall,
        handle: Handle,
        bytes: &[u8],
        caps: &[SendCap],
    ) {
        let mut body = [0; 8];
        for (word, part) in body.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..part.len()].copy_from_slice(part);
            *word = u64::from_le_bytes(whole);
        }
        self.poke(thread, SEND, bytes.get(64..).unwrap_or(&[]));
        let mut extended = Extended {
            send: SEND,
            receive: RECEIVE,
            receive_bytes: 4096,
            ..Extended::EMPTY
        };
        extended.send_caps[..caps.len()].copy_from_slice(caps);
        let operation = OpWord::new(call, IpcFlags::empty(), bytes.len(), caps.len());
        self.message_with(thread, operation, handle, Some(extended), body);
    }

    /// Lets a thread wait for a message of any length, with a memory part.
    pub fn receive_bytes(&mut self, thread: Ref<Thread>, handle: Handle) {
        self.send_bytes(thread, IpcCall::Receive, handle, &[], &[]);
    }

    /// What a message call of a thread brought.
    pub fn got(&mut self, thread: Ref<Thread>) -> Result<Got, Error> {
        assert_eq!(self.state(thread), State::Ready, "the call goes on");
        let context = self.context(thread);
        let delivery = Delivery(context.operation());
        if let Some(error) = delivery.error() {
            return Err(error);
        }
        Ok(Got {
            kind: delivery.kind().unwrap(),
            length: delivery.length(),
            caps: delivery.caps(),
            access: delivery.access(),
            badge: context.arguments()[0],
            label: context.arguments()[1],
            body: *context.body(),
        })
    }

    /// All bytes of a message that a thread received.
    pub fn got_bytes(&mut self, thread: Ref<Thread>) -> Vec<u8> {
        let got = self.got(thread).unwrap();
        let mut bytes: Vec<u8> = got
            .body
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        if got.length > 64 {
            bytes.extend(self.peek(thread, RECEIVE, got.length - 64));
        }
        bytes.truncate(got.length);
        bytes
    }

    /// The handles of capabilities that a thread received.
    pub fn got_handles(&mut self, thread: Ref<Thread>) -> Vec<Handle> {
        let caps = self.got(thread).unwrap().caps;
        let at = core::mem::offset_of!(Extended, received) as u64;
        let bytes = self.peek(thread, EXTENDED + at, caps * 8);
        let handle = |bytes: &[u8; 8]| Handle(u64::from_le_bytes(*bytes));
        bytes.as_chunks::<8>().0.iter().map(handle).collect()
    }

    // Memory.

    fn space(&self, thread: Ref<Thread>) -> Ref<Space> {
        self.kernel.memory.get(thread).space.unwrap()
    }

    /// Writes a thread's memory.
    pub fn poke(&mut self, thread: Ref<Thread>, address: u64, bytes: &[u8]) {
        let space = self.space(thread);
        self.kernel
            .memory
            .write(space, address, bytes, Intent::Write)
            .unwrap();
    }

    /// Writes the memory of a space that one of the root thread's handles names.
    pub fn space_write_bytes(&mut self, space: Handle, address: u64, bytes: &[u8]) {
        let found = self.kernel.find_in(self.root, space).unwrap();
        let space = found.object(Kind::Space, Access::empty()).unwrap();
        self.kernel
            .memory
            .write(space, address, bytes, Intent::Write)
            .unwrap();
    }

    /// Reads a thread's memory.
    pub fn peek(&mut self, thread: Ref<Thread>, address: u64, length: usize) -> Vec<u8> {
        let space = self.space(thread);
        let mut bytes = vec![0; length];
        self.kernel.memory.read(space, address, &mut bytes).unwrap();
        bytes
    }

    /// Reads a word of a thread's memory.
    pub fn peek_word(&mut self, thread: Ref<Thread>, address: u64) -> u64 {
        u64::from_le_bytes(self.peek(thread, address, 8).try_into().unwrap())
    }

    // The whole.

    /// An endpoint: its receiver, and a sender with a badge and an access mask.
    pub fn endpoint(&mut self, badge: u64, access: u32) -> (Handle, Handle) {
        let root = self.root;
        let receiver = self.endpoint_create(root, initial::POOL, 0).unwrap();
        let access = Access::from_bits_retain(access);
        let sender = self
            .cap_derive(root, receiver, initial::POOL, badge, access)
            .unwrap();
        (receiver, sender)
    }

    /// A reply of the root thread and those that share its table.
    pub fn reply(&mut self) -> Handle {
        self.reply_create(self.root, initial::POOL).unwrap()
    }

    /// Keeps the call that a thread received last in such a reply.
    pub fn keep(&mut self, server: Ref<Thread>) -> Handle {
        let reply = self.reply();
        self.reply_keep(server, reply).unwrap();
        reply
    }

    /// Lets a thread make a message call that names a reply.
    pub fn message_naming(
        &mut self,
        thread: Ref<Thread>,
        call: IpcCall,
        handle: Handle,
        reply: Handle,
        length: usize,
        word: u64,
    ) {
        let operation = OpWord::new(call, IpcFlags::REPLY, length, 0);
        let mut body = [word; 8];
        body[REPLY_WORD] = reply.0;
        self.message_with(thread, operation, handle, None, body);
    }

    /// Frames that nobody holds.
    pub fn free(&self) -> u64 {
        self.kernel.memory.statistics().frames_free
    }
}

/// An [`Extended`] as a program has it in memory.
fn extended_bytes(extended: &Extended) -> Vec<u8> {
    let mut words = vec![
        extended.deadline,
        extended.send,
        extended.receive,
        extended.receive_bytes,
        extended.receive_slots.0,
    ];
    for cap in &extended.send_caps {
        words.push(cap.handle.0);
        words.push(cap.access as u64 | (cap.options as u64) << 32);
    }
    words.extend(extended.received.iter().map(|handle| handle.0));
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Makes a method of [`Rig`] for each plain system call: a thread makes it, and its result comes
/// back. It must not block.
macro_rules! calls {
    ($( $(#[doc = $doc:literal])* $number:literal => $name:ident($($arg:ident : $ty:ty),*) -> $ret:ty; )*) => {
        #[allow(clippy::too_many_arguments)]
        impl Rig {
            $(
                $(#[doc = $doc])*
                pub fn $name(&mut self, by: Ref<Thread>, $($arg: $ty),*) -> Result<$ret, Error> {
                    #[allow(unused_mut)]
                    let mut words = [0; ARGUMENTS];
                    #[allow(unused_mut, unused_variables)]
                    let mut next = words.iter_mut();
                    $( *next.next().unwrap() = Argument::encode($arg); )*
                    self.enter(by, $number, words);
                    self.result(by).map(Values::decode)
                }
            )*
        }
    };
}
libipc::syscalls!(calls);

//! A process server with a fake machine, and clients that reach it through the real stubs.

use libipc::abi::{Error, FaultMessage, Handle, SendCap, layout};
use libipc::protocol::process::*;
use libipc::protocol::startup::process::CLIENT_BADGE;
use libipc::wire::{Body, CallError, Caller, LongBody, Received, Served, Transport, decode_answer};
use process_server::{Faulted, Machine, ProcessServer};

use crate::fake::{Fake, FakeThread, Object, Surroundings};

pub const ALL_ACCESS: u32 = access::SELF | access::SERVICE | access::INSPECT | access::INIT;

pub struct World {
    pub server: ProcessServer,
    pub fake: Fake,
    /// Label of init's thread.
    pub init: u64,
    /// Capabilities that answers brought, in order.
    pub given: Vec<SendCap>,
    /// Whether to look at all invariants after each call; costs time with many processes.
    pub checked: bool,
    /// The id of the image that requests name; 0: a new one each time.
    pub image: u64,
    images: u64,
}

/// Where an image's first thread finds its initial stack.
pub const STACK_POINTER: u64 = layout::STACK_END - START.stack_bytes;

/// What images are started with.
pub const START: Start = Start {
    name: *b"program\0\0\0\0\0\0\0\0\0",
    stack: 0x7000_0000,
    stack_bytes: 112,
};

/// Why a call has no value (yet).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// The answer is owed.
    Yet,
    Errno(Errno),
    Win32(Win32Error),
    Denied,
    /// The request was not understood.
    Protocol,
}

pub type Outcome<T> = Result<T, No>;

/// A client's result, as tests compare it.
pub fn outcome<T>(result: Result<T, CallError<ProcessError>>) -> Outcome<T> {
    result.map_err(|error| match error {
        CallError::Kernel(Error::WouldBlock) => No::Yet,
        CallError::Kernel(error) => panic!("the transport does not fail: {error:?}"),
        CallError::Refused(ProcessError::Linux(errno)) => No::Errno(errno),
        CallError::Refused(ProcessError::Win32(error)) => No::Win32(error),
        CallError::Refused(ProcessError::Denied) => No::Denied,
        CallError::Protocol => No::Protocol,
    })
}

/// The way from a stub to the server's dispatcher, for one calling thread and capability.
pub struct Wire<'w> {
    world: &'w mut World,
    label: u64,
    badge: u64,
    access: u32,
}

impl Transport for Wire<'_> {
    fn call<const OUT: usize, const IN: usize>(
        &mut self,
        request: &mut Body<OUT>,
        caps: &[SendCap],
        answer: &mut Body<IN>,
        received: &mut Received,
        _: usize,
    ) -> Result<(), Error> {
        let mut caller = Caller::new(self.label, self.badge, self.access);
        for _ in caps {
            let window = self.world.window();
            let _ = caller.received.push(window);
        }
        let bytes = self
            .world
            .dispatch(&mut caller, request.bytes())
            .ok_or(Error::WouldBlock)?;
        for cap in &caller.gives {
            let _ = received.push(cap.handle);
        }
        assert!(answer.extend(&bytes), "the answer fits");
        Ok(())
    }
}

impl World {
    pub fn new() -> World {
        World::with_pid_max(32768)
    }

    /// A world with init and the service root, and nothing else.
    pub fn with_pid_max(pid_max: u32) -> World {
        let mut world = World::empty(pid_max);
        let thread = world.add_init();
        let mut caller = Caller::new(0, CLIENT_BADGE, ALL_ACCESS);
        caller.received.extend([thread]);
        let answer = world.dispatch(&mut caller, &[82]).expect("an answer");
        let identity: Identity = outcome(decode_answer(&answer)).expect("init is adopted");
        assert_eq!((identity.pid, identity.ppid), (1, 0));
        let Some(Object::Thread(thread)) = world.fake.objects.get(&thread.0) else {
            panic!("init's thread is there");
        };
        world.init = thread.label;
        world
    }

    /// The thread of init, not adopted yet.
    pub fn add_init(&mut self) -> Handle {
        let within = Surroundings {
            space: self.fake.add(Object::Space {
                words: Default::default(),
            }),
            private: self.fake.add_table(),
            files: self.fake.add_table(),
            fs: self.fake.add_table(),
        };
        let mut thread = FakeThread::new(0, within);
        thread.suspends = 0;
        self.fake.add_thread(thread)
    }

    pub fn empty(pid_max: u32) -> World {
        World {
            server: ProcessServer::new(pid_max),
            fake: Fake::default(),
            init: 0,
            given: Vec::new(),
            checked: true,
            image: 0,
            images: 1000,
        }
    }

    pub fn window(&mut self) -> Handle {
        self.images += 1;
        let id = match self.image {
            0 => self.images,
            id => id,
        };
        self.fake.add(Object::Window(id))
    }

    /// What the shell does with one call; `None` if the answer is owed.
    pub fn dispatch(&mut self, caller: &mut Caller, request: &[u8]) -> Option<Vec<u8>> {
        let (server, fake) = (&mut self.server, &mut self.fake);
        let mut answer = LongBody::new();
        (fake.current, fake.keeps) = (Some(caller.label), None);
        let served = serve(server, fake, caller, request, &mut answer);
        let kept = fake.current.take().is_none();
        for handle in caller.received.iter().filter(|handle| handle.is_some()) {
            fake.close(*handle);
        }
        for cap in &caller.gives {
            if cap.options & SendCap::MOVE != 0 {
                fake.close(cap.handle);
            }
            self.given.push(*cap);
        }
        if self.checked {
            self.server.check().expect("the invariants hold");
        }
        match served {
            Served::Answered => {
                assert!(!kept, "an answered call is not kept");
                Some(answer.bytes().to_vec())
            }
            Served::Owed => {
                let thread = self.fake.thread(caller.label);
                let goes_on = kept || thread.is_none_or(|thread| thread.started.is_some());
                assert!(
                    goes_on,
                    "a call without an answer is owed one, or its caller is gone"
                );
                None
            }
        }
    }

    /// A client with every right that programs have.
    pub fn client(&mut self, label: u64) -> Client<Wire<'_>> {
        self.client_with(label, CLIENT_BADGE, ALL_ACCESS)
    }

    pub fn client_with(&mut self, label: u64, badge: u64, access: u32) -> Client<Wire<'_>> {
        let label = self.fake.label(label);
        Client::new(Wire {
            world: self,
            label,
            badge,
            access,
        })
    }

    /// A thread wants its call back.
    pub fn cancel(&mut self, label: u64) {
        let label = self.fake.label(label);
        self.server.cancel(&mut self.fake, label);
    }

    /// A thread faulted.
    pub fn fault(&mut self, label: u64, fault: &FaultMessage) -> Faulted {
        let label = self.fake.label(label);
        self.server.fault(&mut self.fake, label, fault)
    }

    /// The late answer to what `label` waits for, if it has come.
    pub fn late<T: serde::de::DeserializeOwned>(&mut self, label: u64) -> Option<Outcome<T>> {
        let label = self.fake.label(label);
        let (bytes, caps) = self.fake.answers.remove(&label)?;
        for cap in caps {
            // The kernel moves them to the caller.
            self.given.push(cap);
        }
        Some(outcome(decode_answer(&bytes)))
    }

    /// The label of the thread that was made last.
    pub fn newest(&self) -> u64 {
        self.fake.newest_since(0).expect("there is a thread")
    }

    pub fn identity(&mut self, label: u64) -> Identity {
        outcome(self.client(label).identity()).expect("identity does not fail")
    }

    /// fork: the child's PID and label.
    pub fn fork(&mut self, label: u64) -> (u32, u64) {
        let pid = self.try_fork(label).expect("fork works");
        (pid, self.newest())
    }

    pub fn try_fork(&mut self, label: u64) -> Outcome<u32> {
        outcome(self.client(label).fork())
    }

    /// vfork: the child's label; the parent waits.
    pub fn vfork(&mut self, label: u64) -> u64 {
        assert_eq!(outcome(self.client(label).vfork()), Err(No::Yet));
        self.newest()
    }

    pub fn clone(&mut self, label: u64, flags: u64) -> Outcome<u32> {
        self.clone_with(
            label,
            CloneArguments {
                flags,
                ..CloneArguments::default()
            },
        )
    }

    pub fn clone_with(&mut self, label: u64, arguments: CloneArguments) -> Outcome<u32> {
        outcome(self.client(label).clone(arguments))
    }

    pub fn clone3(&mut self, label: u64, record: &[u8]) -> Outcome<u32> {
        let size = record.len() as u64;
        let bytes = libipc::wire::Bytes(record);
        outcome(self.client(label).clone3(bytes, size))
    }

    pub fn exit(&mut self, label: u64, code: i32) {
        assert_eq!(outcome(self.client(label).exit(code)), Err(No::Yet));
    }

    pub fn exit_group(&mut self, label: u64, code: i32) {
        assert_eq!(outcome(self.client(label).exit_group(code)), Err(No::Yet));
    }

    pub fn wait(&mut self, label: u64, pid: i32, options: u32) -> Outcome<(u32, u32)> {
        outcome(self.client(label).wait4(pid, options)).map(|waited| (waited.pid, waited.status))
    }

    pub fn late_wait(&mut self, label: u64) -> Option<Outcome<(u32, u32)>> {
        let answer = self.late::<Waited>(label)?;
        Some(answer.map(|waited| (waited.pid, waited.status)))
    }

    pub fn kill(&mut self, label: u64, pid: i32, signal: u32) -> Outcome<()> {
        outcome(self.client(label).kill(pid, signal))
    }

    /// Begins an exec: the loader's label.
    pub fn exec(&mut self, label: u64) -> u64 {
        assert_eq!(self.try_exec(label), Err(No::Yet));
        self.newest()
    }

    pub fn try_exec(&mut self, label: u64) -> Outcome<()> {
        let cap = SendCap::copy(Handle(1));
        outcome(self.client(label).exec(START, cap))
    }

    pub fn try_spawn(&mut self, label: u64) -> Outcome<u32> {
        let cap = SendCap::copy(Handle(1));
        outcome(self.client(label).spawn(START, cap))
    }

    pub fn try_create_process(&mut self, label: u64, order: CreateProcess) -> Outcome<ProcessIds> {
        let cap = SendCap::copy(Handle(1));
        let mut received = Received::new();
        let result = self.client(label).create_process(order, cap, &mut received);
        outcome(result)
    }

    pub fn try_create_process_in(
        &mut self,
        label: u64,
        order: CreateProcess,
    ) -> Outcome<ProcessIds> {
        let cap = SendCap::copy(Handle(1));
        let mut received = Received::new();
        let result = self
            .client(label)
            .create_process_in(order, cap, cap, &mut received);
        outcome(result)
    }

    /// The loader reports success; the program that waited for it goes by the loader's label.
    pub fn loaded(&mut self, loader: u64) -> Outcome<()> {
        let mut received = Received::new();
        let order = self.client(loader).load_order(&mut received);
        assert_eq!(outcome(order), Ok(()));
        assert_eq!(received.len(), 1);
        let before = self.fake.clock();
        let result = outcome(self.client(loader).loaded(0x40_1000));
        if let Some(label) = self.fake.newest_since(before) {
            self.fake.begun.insert(loader, label);
        }
        result
    }

    pub fn load_failed(&mut self, loader: u64, errno: Errno) {
        let result = outcome(self.client(loader).load_failed(errno));
        assert_eq!(result, Err(No::Yet));
    }

    /// Makes the first program: an ordinary child of init. Its PID and label.
    pub fn first_program(&mut self) -> (u32, u64) {
        let init = self.init;
        assert_eq!(self.try_spawn(init), Err(No::Yet));
        let label = self.newest();
        assert_eq!(self.loaded(label), Err(No::Yet));
        let pid = self.late::<u32>(init).expect("answered").expect("a PID");
        (pid, label)
    }

    /// A world with an ordinary program in it.
    pub fn with_program() -> (World, u64) {
        let mut world = World::new();
        let (_, label) = world.first_program();
        (world, label)
    }

    /// The same, where requests name one image, which the program was begun from.
    pub fn with_image(id: u64) -> (World, u64) {
        let mut world = World::new();
        world.image = id;
        let (_, label) = world.first_program();
        (world, label)
    }

    /// The line of a process, if it is listed.
    pub fn line(&mut self, pid: u32) -> Option<ProcessLine> {
        let init = self.init;
        outcome(self.client(init).process_at(pid))
            .expect("listing works")
            .filter(|line| line.pid == pid)
    }

    pub fn state(&mut self, pid: u32) -> Option<char> {
        self.line(pid).map(|line| line.state as char)
    }

    pub fn thread(&self, label: u64) -> &FakeThread {
        self.fake.thread(self.fake.label(label)).expect("it lives")
    }

    pub fn space_of(&self, label: u64) -> Handle {
        self.thread(label).within.space
    }

    pub fn files_of(&self, label: u64) -> Handle {
        self.thread(label).within.files
    }
}

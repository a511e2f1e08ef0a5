//! A machine in memory: it counts live objects, so that leaks show, and fails on request.
//!
//! It is strict where the kernel is forgiving: a handle closed twice, a call answered twice, a reply
//! dropped while its caller lives, a thread ended twice are panics.

use std::collections::BTreeMap;

use libipc::abi::{Error, Handle, SendCap, SlotFlags, TableSelector};
use libipc::protocol::process::Start;
use libipc::wire::{Kept, ShortBody};
use process_server::{Fork, Late, Machine, MemoryShare, Place, Shares, TableShare};

use crate::thrift;

/// A capability in a fake table: what it stands for, and its flags.
pub type Slot = (u64, SlotFlags);

/// What a thread lives in: numbers of objects that live as long as a thread names them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surroundings {
    pub space: Handle,
    pub private: Handle,
    pub files: Handle,
    pub fs: Handle,
}

/// What a handle of the server stands for, or what a thread lives in.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Space {
        words: BTreeMap<u64, u32>,
    },
    /// A space that the server keeps for an image; it has a loader until that is removed.
    Template {
        loader: bool,
    },
    Table {
        slots: BTreeMap<u32, Slot>,
    },
    Thread(FakeThread),
    /// A call that is still owed an answer, by its caller's label.
    Reply(u64),
    Sender {
        badge: u64,
        access: u32,
    },
    Notification {
        bits: u64,
    },
    /// A window on an image, and its id.
    Window(u64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct FakeThread {
    pub label: u64,
    pub within: Surroundings,
    pub suspends: u32,
    pub stack: u64,
    pub thread_pointer: u64,
    pub clear: u64,
    /// Where it was started: instruction pointer, stack pointer, argument.
    pub started: Option<(u64, u64, u64)>,
    pub in_loader: bool,
}

#[derive(Default)]
pub struct Fake {
    pub objects: BTreeMap<u64, Object>,
    /// What each template costs.
    pub template_pages: u64,
    /// There is no memory left as long as there are templates.
    pub templates_take_all: bool,
    /// How many threads live in a space or table.
    holds: BTreeMap<u64, u32>,
    next: u64,
    /// The call that is being served, until its reply is kept.
    pub current: Option<u64>,
    /// The reply that is to keep it: until the call has been served it is no answer owed.
    pub keeps: Option<Handle>,
    /// Late answers that nobody has looked at yet, by the caller's label.
    pub answers: BTreeMap<u64, (Vec<u8>, Vec<SendCap>)>,
    /// Fallible calls made since the count was reset.
    pub fallible: u32,
    /// The fallible call with this number fails.
    pub fail_at: Option<u32>,
    /// The call that failed; made again, it fails again, as long as one is to fail.
    failed: Option<&'static str>,
    /// The threads that programs began with, by the thread that loaded their image.
    pub begun: BTreeMap<u64, u64>,
    /// Every call, by name.
    pub log: Vec<&'static str>,
    pub init_status: Option<u32>,
}

impl Fake {
    pub fn add(&mut self, object: Object) -> Handle {
        self.next += 1;
        self.objects.insert(self.next, object);
        Handle(self.next)
    }

    fn attempt(&mut self, name: &'static str) -> Result<(), Error> {
        self.log.push(name);
        self.fallible += 1;
        let again = self.fail_at.is_some() && self.failed == Some(name);
        let is_template = |object| matches!(object, &Object::Template { .. });
        if self.templates_take_all && self.objects.values().any(is_template) {
            return Err(Error::NoMemory);
        }
        match again || self.fail_at == Some(self.fallible) {
            true => {
                self.failed = Some(name);
                Err(Error::NoMemory)
            }
            false => {
                if self.fail_at.is_none() {
                    self.failed = None;
                }
                Ok(())
            }
        }
    }

    /// What is there beside templates, which are kept or not as there is room.
    pub fn belongings(&self) -> BTreeMap<u64, Object> {
        let mut objects = self.objects.clone();
        objects.retain(|_, object| !matches!(object, Object::Template { .. }));
        objects
    }

    /// A program goes by the label of the thread that loaded its image.
    pub fn label(&self, label: u64) -> u64 {
        self.begun.get(&label).copied().unwrap_or(label)
    }

    fn object(&mut self, handle: Handle) -> &mut Object {
        self.objects
            .get_mut(&handle.0)
            .unwrap_or_else(|| panic!("{handle:?} is open"))
    }

    pub fn table(&mut self, handle: Handle) -> &mut BTreeMap<u32, Slot> {
        match self.object(handle) {
            Object::Table { slots } => slots,
            other => panic!("{other:?} is a table"),
        }
    }

    fn thread_at(&mut self, handle: Handle) -> &mut FakeThread {
        match self.object(handle) {
            Object::Thread(thread) => thread,
            other => panic!("{other:?} is a thread"),
        }
    }

    /// The live thread with this label.
    pub fn thread(&self, label: u64) -> Option<&FakeThread> {
        let label = self.label(label);
        self.objects.values().find_map(|object| match object {
            Object::Thread(thread) if thread.label == label => Some(thread),
            _ => None,
        })
    }

    /// How many objects there ever were.
    pub fn clock(&self) -> u64 {
        self.next
    }

    /// The label of the live thread that was made last, if that was since then.
    pub fn newest_since(&self, then: u64) -> Option<u64> {
        let mut threads = self.objects.range(then + 1..).rev();
        threads.find_map(|(_, object)| match object {
            Object::Thread(thread) => Some(thread.label),
            _ => None,
        })
    }

    pub fn words(&mut self, space: Handle) -> &mut BTreeMap<u64, u32> {
        match self.object(space) {
            Object::Space { words, .. } => words,
            other => panic!("{other:?} is a space"),
        }
    }

    /// How many live objects of each kind; templates are kept and do not count.
    pub fn census(&self) -> [usize; 7] {
        let mut census = [0; 7];
        for object in self.objects.values() {
            census[match object {
                Object::Template { .. } => continue,
                Object::Space { .. } => 0,
                Object::Table { .. } => 1,
                Object::Thread(_) => 2,
                Object::Reply(_) => 3,
                Object::Sender { .. } => 4,
                Object::Notification { .. } => 5,
                Object::Window(_) => 6,
            }] += 1;
        }
        census
    }

    /// A table of each kind for a thread's surroundings.
    pub fn add_table(&mut self) -> Handle {
        let slots = BTreeMap::new();
        self.add(Object::Table { slots })
    }

    /// What a new thread lives in.
    fn surroundings(&mut self, like: Surroundings, shares: Shares) -> Surroundings {
        let space = match shares.memory {
            MemoryShare::Same => like.space,
            MemoryShare::Snapshot => {
                let copy = self.object(like.space).clone();
                self.add(copy)
            }
            MemoryShare::Within(space) => space,
            MemoryShare::Image(template) => {
                assert_eq!(self.object(template), &Object::Template { loader: false });
                let words = BTreeMap::new();
                self.add(Object::Space { words })
            }
        };
        let private = match shares.memory {
            MemoryShare::Same => like.private,
            _ => {
                let slots = [(1, (space.0, SlotFlags::empty()))].into();
                self.add(Object::Table { slots })
            }
        };
        let mut table = |share, like| match share {
            TableShare::Same => like,
            TableShare::Copy => {
                let copy = self.object(like).clone();
                self.add(copy)
            }
            TableShare::Empty => self.add_table(),
        };
        Surroundings {
            space,
            private,
            files: table(shares.files, like.files),
            fs: table(shares.fs, like.fs),
        }
    }

    fn new_thread(&mut self, like: Handle, shares: Shares, label: u64) -> Handle {
        let within = self.thread_at(like).within;
        let within = self.surroundings(within, shares);
        self.add_thread(FakeThread::new(label, within))
    }

    /// Adds a thread, which holds what it lives in.
    pub fn add_thread(&mut self, thread: FakeThread) -> Handle {
        for part in thread.within.parts() {
            if let Object::Template { .. } = self.object(part) {
                continue; // the server's
            }
            *self.holds.entry(part.0).or_default() += 1;
        }
        self.add(Object::Thread(thread))
    }

    /// What a thread lived in goes with the last one that lives there.
    fn leave(&mut self, within: Surroundings) {
        for part in within.parts() {
            let Some(holds) = self.holds.get_mut(&part.0) else {
                continue; // a template
            };
            *holds -= 1;
            if *holds == 0 {
                self.holds.remove(&part.0);
                self.objects.remove(&part.0);
            }
        }
    }
}

impl Surroundings {
    fn parts(self) -> [Handle; 4] {
        [self.space, self.private, self.files, self.fs]
    }
}

impl FakeThread {
    /// A thread that does not run yet.
    pub fn new(label: u64, within: Surroundings) -> FakeThread {
        FakeThread {
            label,
            within,
            suspends: 1,
            stack: 0,
            thread_pointer: 0,
            clear: 0,
            started: None,
            in_loader: false,
        }
    }
}

impl Machine for Fake {
    fn create_thread(&mut self, like: Handle, shares: Shares, label: u64) -> Result<Handle, Error> {
        self.attempt("create_thread")?;
        Ok(self.new_thread(like, shares, label))
    }

    fn fork_thread(&mut self, fork: &Fork) -> Result<Handle, Error> {
        self.attempt("fork_thread")?;
        let table = |copies| match copies {
            true => TableShare::Copy,
            false => TableShare::Same,
        };
        let shares = Shares {
            memory: match fork.copies_memory {
                true => MemoryShare::Snapshot,
                false => MemoryShare::Same,
            },
            files: table(fork.copies_files),
            fs: table(fork.copies_fs),
        };
        let thread_pointer = self.thread_at(fork.like).thread_pointer;
        let handle = self.new_thread(fork.like, shares, fork.label);
        let made = self.thread_at(handle);
        made.stack = fork.stack;
        made.thread_pointer = fork.thread_pointer.unwrap_or(thread_pointer);
        made.clear = fork.clear.unwrap_or_default();
        made.suspends = u32::from(!fork.runs);
        if let Some((address, word)) = fork.word
            && address >= 4096
        {
            let space = self.thread_at(handle).within.space;
            self.words(space).insert(address, word);
        }
        Ok(handle)
    }

    fn image_id(&mut self, window: Handle) -> Result<u64, Error> {
        self.attempt("image_id")?;
        match self.object(window) {
            Object::Window(id) => Ok(*id),
            other => panic!("{other:?} is a window"),
        }
    }

    fn template(&mut self) -> Result<Place, Error> {
        self.attempt("template")?;
        let space = self.add(Object::Template { loader: true });
        Ok(Place { space, pool: space })
    }

    fn pages_of(&mut self, template: Place) -> u64 {
        assert_eq!(
            self.object(template.space),
            &Object::Template { loader: false }
        );
        self.template_pages
    }

    fn drop_template(&mut self, Place { space, .. }: Place) {
        let dropped = self.objects.remove(&space.0);
        assert!(
            matches!(dropped, Some(Object::Template { .. })),
            "{dropped:?}"
        );
    }

    fn copy_stack(&mut self, from: Handle, start: &Start, to: Handle) -> Result<(), Error> {
        self.attempt("copy_stack")?;
        self.thread_at(from);
        self.thread_at(to).stack = start.stack_bytes;
        Ok(())
    }

    fn retain(&mut self, thread: Handle, mask: SlotFlags, value: SlotFlags) -> Result<(), Error> {
        self.attempt("retain")?;
        let table = self.thread_at(thread).within.files;
        self.table(table)
            .retain(|_, (_, flags)| flags.intersection(mask) == value);
        Ok(())
    }

    fn place(&mut self, source: Handle, thread: Handle, index: u32) -> Result<(), Error> {
        self.attempt("place")?;
        self.object(source);
        let table = self.thread_at(thread).within.fs;
        self.table(table)
            .insert(index, (source.0, SlotFlags::empty()));
        Ok(())
    }

    fn set_clear_address(&mut self, thread: Handle, address: u64) -> Result<(), Error> {
        self.attempt("set_clear_address")?;
        self.thread_at(thread).clear = address;
        Ok(())
    }

    fn set_label(&mut self, thread: Handle, label: u64) -> Result<(), Error> {
        self.attempt("set_label")?;
        self.thread_at(thread).label = label;
        Ok(())
    }

    fn keep_reply(&mut self) -> Result<Kept, Error> {
        self.attempt("keep_reply")?;
        let label = self.current.take().expect("a call is being served");
        let reply = self.add(Object::Reply(label));
        self.keeps = Some(reply);
        Ok(Kept::by(reply))
    }

    fn derive_sender(&mut self, badge: u64, access: u32) -> Result<Handle, Error> {
        self.attempt("derive_sender")?;
        Ok(self.add(Object::Sender { badge, access }))
    }

    fn end_notification(&mut self, ended: bool) -> Result<Handle, Error> {
        self.attempt("end_notification")?;
        Ok(self.add(Object::Notification { bits: ended.into() }))
    }

    fn read_word(&mut self, thread: Handle, address: u64) -> Result<u32, Error> {
        let space = self.thread_at(thread).within.space;
        let words = self.words(space);
        words.get(&address).copied().ok_or(Error::BadAddress)
    }

    fn write_word(&mut self, thread: Handle, address: u64, value: u32) -> Result<(), Error> {
        self.log.push("write_word");
        if address < 4096 {
            return Err(Error::BadAddress);
        }
        let space = self.thread_at(thread).within.space;
        self.words(space).insert(address, value);
        Ok(())
    }

    fn slot_at(&mut self, thread: Handle, table: TableSelector, index: u32) -> Option<(u32, u64)> {
        let within = self.thread_at(thread).within;
        let table = match table {
            TableSelector::Files => within.files,
            TableSelector::Private => within.private,
            TableSelector::Fs => within.fs,
        };
        let (index, (what, flags)) = self.table(table).range(index..).next()?;
        Some((*index, what << 32 | u64::from(flags.bits()) << 8))
    }

    fn answer(&mut self, kept: Kept, answer: &Late) {
        let _pause = thrift::pause();
        self.log.push("answer");
        let Some(Object::Reply(label)) = self.objects.remove(&kept.into_reply().0) else {
            panic!("an answer goes to a reply that was not used");
        };
        assert!(self.thread(label).is_some(), "the caller lives");
        let mut body = ShortBody::new();
        answer.encode(&mut body);
        let caps = answer.caps().to_vec();
        for cap in &caps {
            assert!(cap.options & SendCap::MOVE != 0);
        }
        let earlier = self.answers.insert(label, (body.bytes().to_vec(), caps));
        assert!(earlier.is_none(), "a call has one answer");
    }

    fn suspend(&mut self, thread: Handle) {
        let _pause = thrift::pause();
        self.thread_at(thread).suspends += 1;
    }

    fn resume(&mut self, thread: Handle) {
        let _pause = thrift::pause();
        self.log.push("resume");
        let thread = self.thread_at(thread);
        assert!(thread.suspends > 0, "only what is suspended is resumed");
        thread.suspends -= 1;
    }

    fn start(&mut self, thread: Handle, ip: u64, sp: u64, argument: u64) {
        self.log.push("start");
        let thread = self.thread_at(thread);
        thread.started = Some((ip, sp, argument));
        thread.in_loader = false;
        thread.suspends = thread.suspends.saturating_sub(1);
    }

    fn start_loader(&mut self, thread: Handle) {
        let thread = self.thread_at(thread);
        thread.in_loader = true;
        thread.suspends -= 1;
    }

    fn remove_loader(&mut self, space: Handle) {
        match self.object(space) {
            Object::Template { loader } => assert!(core::mem::replace(loader, false)),
            other => panic!("{other:?} is a template"),
        }
    }

    fn end_thread(&mut self, thread: Handle) {
        let _pause = thrift::pause();
        self.log.push("end_thread");
        let ended = self.objects.remove(&thread.0);
        let Some(Object::Thread(thread)) = ended else {
            panic!("a thread is ended once");
        };
        self.answers.remove(&thread.label);
        self.leave(thread.within);
    }

    fn give_up(&mut self, kept: Kept) {
        let _pause = thrift::pause();
        let reply = kept.into_reply();
        let Some(Object::Reply(label)) = self.objects.remove(&reply.0) else {
            panic!("a reply that was not used is given up");
        };
        if self.keeps == Some(reply) {
            self.current = Some(label);
            return;
        }
        assert!(
            self.thread(label).is_none(),
            "a reply is dropped with its caller"
        );
    }

    fn close(&mut self, handle: Handle) {
        let _pause = thrift::pause();
        match self.objects.remove(&handle.0) {
            Some(Object::Reply(_)) => panic!("a reply is answered or given up, not closed"),
            Some(Object::Thread(_)) => panic!("threads are ended, not closed"),
            Some(_) => {}
            None => panic!("{handle:?} is closed once"),
        }
    }

    fn signal_end(&mut self, notification: Handle) {
        let _pause = thrift::pause();
        match self.object(notification) {
            Object::Notification { bits } => *bits |= 1,
            other => panic!("{other:?} is a notification"),
        }
    }

    fn init_ended(&mut self, status: u32) {
        let _pause = thrift::pause();
        self.init_status = Some(status);
    }
}

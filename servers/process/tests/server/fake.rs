//! A machine in memory: it counts live objects, so that leaks show, and fails on request.
//!
//! It is strict where the kernel is forgiving: a handle closed twice, a call answered twice, a reply
//! dropped while its caller lives, a thread ended twice are panics.

use std::collections::BTreeMap;

use libipc::abi::{Error, Handle, SendCap, SlotFlags};
use libipc::wire::LongBody;
use process_server::{Late, Machine, Surroundings};

/// A capability in a fake table: what it stands for, and its flags.
pub type Slot = (u64, SlotFlags);

/// What a handle of the server stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Space {
        words: BTreeMap<u64, u32>,
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
    Window,
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
    next: u64,
    /// The call that is being served, until its reply is kept.
    pub current: Option<u64>,
    /// Late answers that nobody has looked at yet, by the caller's label.
    pub answers: BTreeMap<u64, (Vec<u8>, Vec<SendCap>)>,
    /// Fallible calls made since the count was reset.
    pub fallible: u32,
    /// The fallible call with this number fails.
    pub fail_at: Option<u32>,
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
        match self.fail_at == Some(self.fallible) {
            true => Err(Error::NoMemory),
            false => Ok(()),
        }
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
        self.objects.values().find_map(|object| match object {
            Object::Thread(thread) if thread.label == label => Some(thread),
            _ => None,
        })
    }

    pub fn words(&mut self, space: Handle) -> &mut BTreeMap<u64, u32> {
        match self.object(space) {
            Object::Space { words, .. } => words,
            other => panic!("{other:?} is a space"),
        }
    }

    /// How many live objects of each kind.
    pub fn census(&self) -> [usize; 7] {
        let mut census = [0; 7];
        for object in self.objects.values() {
            census[match object {
                Object::Space { .. } => 0,
                Object::Table { .. } => 1,
                Object::Thread(_) => 2,
                Object::Reply(_) => 3,
                Object::Sender { .. } => 4,
                Object::Notification { .. } => 5,
                Object::Window => 6,
            }] += 1;
        }
        census
    }

    fn new_thread(
        &mut self,
        label: u64,
        within: Surroundings,
        like: Option<&FakeThread>,
    ) -> Handle {
        for handle in [within.space, within.private, within.files, within.fs] {
            self.object(handle);
        }
        self.add(Object::Thread(FakeThread {
            label,
            within,
            suspends: 1,
            stack: 0,
            thread_pointer: like.map_or(0, |like| like.thread_pointer),
            clear: 0,
            started: None,
            in_loader: false,
        }))
    }
}

impl Machine for Fake {
    fn snapshot(&mut self, space: Handle, _: u64) -> Result<Handle, Error> {
        self.attempt("snapshot")?;
        let copy = self.object(space).clone();
        Ok(self.add(copy))
    }

    fn image_space(&mut self) -> Result<Handle, Error> {
        self.attempt("image_space")?;
        Ok(self.add(Object::Space {
            words: BTreeMap::new(),
            loader: true,
        }))
    }

    fn private_table(&mut self, space: Handle) -> Result<Handle, Error> {
        self.attempt("private_table")?;
        self.object(space);
        let slots = [(1, (space.0, SlotFlags::empty()))].into();
        Ok(self.add(Object::Table { slots }))
    }

    fn empty_table(&mut self) -> Result<Handle, Error> {
        self.attempt("empty_table")?;
        let slots = BTreeMap::new();
        Ok(self.add(Object::Table { slots }))
    }

    fn copy_table(&mut self, table: Handle) -> Result<Handle, Error> {
        self.attempt("copy_table")?;
        let slots = self.table(table).clone();
        Ok(self.add(Object::Table { slots }))
    }

    fn retain(&mut self, table: Handle, mask: SlotFlags, value: SlotFlags) -> Result<(), Error> {
        self.attempt("retain")?;
        self.table(table)
            .retain(|_, (_, flags)| flags.intersection(mask) == value);
        Ok(())
    }

    fn place(&mut self, source: Handle, table: Handle, index: u32) -> Result<(), Error> {
        self.attempt("place")?;
        self.object(source);
        self.table(table)
            .insert(index, (source.0, SlotFlags::empty()));
        Ok(())
    }

    fn create_thread(&mut self, within: Surroundings, label: u64) -> Result<Handle, Error> {
        self.attempt("create_thread")?;
        Ok(self.new_thread(label, within, None))
    }

    fn fork_thread(
        &mut self,
        like: Handle,
        within: Surroundings,
        label: u64,
        stack: u64,
    ) -> Result<Handle, Error> {
        self.attempt("fork_thread")?;
        let like = self.thread_at(like).clone();
        let handle = self.new_thread(label, within, Some(&like));
        self.thread_at(handle).stack = stack;
        Ok(handle)
    }

    fn set_thread_pointer(&mut self, thread: Handle, base: u64) -> Result<(), Error> {
        self.attempt("set_thread_pointer")?;
        self.thread_at(thread).thread_pointer = base;
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

    fn keep_reply(&mut self) -> Result<Handle, Error> {
        self.attempt("keep_reply")?;
        let label = self.current.take().expect("a call is being served");
        Ok(self.add(Object::Reply(label)))
    }

    fn derive_sender(&mut self, badge: u64, access: u32) -> Result<Handle, Error> {
        self.attempt("derive_sender")?;
        Ok(self.add(Object::Sender { badge, access }))
    }

    fn end_notification(&mut self, ended: bool) -> Result<Handle, Error> {
        self.attempt("end_notification")?;
        Ok(self.add(Object::Notification { bits: ended.into() }))
    }

    fn read_word(&mut self, space: Handle, address: u64) -> Result<u32, Error> {
        let words = self.words(space);
        words.get(&address).copied().ok_or(Error::BadAddress)
    }

    fn write_word(&mut self, space: Handle, address: u64, value: u32) -> Result<(), Error> {
        if address < 4096 {
            return Err(Error::BadAddress);
        }
        self.words(space).insert(address, value);
        Ok(())
    }

    fn slot_at(&mut self, table: Handle, index: u32) -> Option<(u32, u64)> {
        let (index, (what, flags)) = self.table(table).range(index..).next()?;
        Some((*index, what << 32 | u64::from(flags.bits()) << 8))
    }

    fn answer(&mut self, reply: Handle, answer: &Late) {
        self.log.push("answer");
        let Some(Object::Reply(label)) = self.objects.remove(&reply.0) else {
            panic!("an answer goes to a reply that was not used");
        };
        assert!(self.thread(label).is_some(), "the caller lives");
        let body: LongBody = answer.body();
        let caps = answer.caps().to_vec();
        for cap in &caps {
            assert!(cap.options & SendCap::MOVE != 0);
        }
        let earlier = self.answers.insert(label, (body.bytes().to_vec(), caps));
        assert!(earlier.is_none(), "a call has one answer");
    }

    fn suspend(&mut self, thread: Handle) {
        self.thread_at(thread).suspends += 1;
    }

    fn resume(&mut self, thread: Handle) {
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
            Object::Space { loader, .. } => assert!(core::mem::replace(loader, false)),
            other => panic!("{other:?} is a space"),
        }
    }

    fn end_thread(&mut self, thread: Handle) {
        self.log.push("end_thread");
        let ended = self.objects.remove(&thread.0);
        let Some(Object::Thread(thread)) = ended else {
            panic!("a thread is ended once");
        };
        self.answers.remove(&thread.label);
    }

    fn close(&mut self, handle: Handle) {
        match self.objects.remove(&handle.0) {
            Some(Object::Reply(label)) => {
                assert!(
                    self.thread(label).is_none(),
                    "a reply is dropped with its caller"
                );
            }
            Some(Object::Thread(_)) => panic!("threads are ended, not closed"),
            Some(_) => {}
            None => panic!("{handle:?} is closed once"),
        }
    }

    fn signal_end(&mut self, notification: Handle) {
        match self.object(notification) {
            Object::Notification { bits } => *bits |= 1,
            other => panic!("{other:?} is a notification"),
        }
    }

    fn init_ended(&mut self, status: u32) {
        self.init_status = Some(status);
    }
}

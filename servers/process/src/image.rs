//! Images: exec, and creations that begin with a fresh image.
//!
//! The server parses no images. The first time one is asked for, the loader maps it into a space of
//! its own, a *template*, while the caller waits. A process begins with a copy-on-write snapshot of
//! the template, to which the initial stack is copied from its creator's memory; so whoever asks
//! for an image that is there gets its process in one step. What a child copies of its creator, it
//! copies in that step, when the image is there.
//!
//! An image is known by the id of the window that stands for it: only who has that very window, with
//! the rights to load it, gets the template that was made of it.
//!
//! Templates are charged to the jobs' memory like what is made of them, each to a pool of its own, and
//! only small ones are kept: a program's own images cost others no more than its own memory does. When
//! memory is short, those that are not in use go first.

use alloc::vec::Vec;
use core::mem;

use libipc::abi::{Access, Handle, SendCap, SlotFlags, USER_END, layout};
use libipc::protocol::process::{Errno, ProcessIds, Start};
use libipc::wire::{Answer, Caller};

use crate::door::win32;
use crate::machine::{Late, MemoryShare, Place, Shares, TableShare, errno};
use crate::model::*;
use crate::plan::*;
use crate::signal::SIGCHLD;
use crate::spawn::Parts;
use crate::{Machine, ProcessServer};

/// How many templates are kept.
const KEPT: usize = 16;
/// Above how many pages a template is not kept. What lies in the image's file costs it only tables.
const KEPT_PAGES: u64 = 256;

/// A loaded image.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// The id of its window.
    id: u64,
    /// Where it is: every process gets a snapshot of its space.
    place: Place,
    /// First instruction.
    entry: u64,
}

/// The templates that are kept, the one that was used last first.
#[derive(Default)]
pub struct Images {
    kept: Vec<Template>,
}

impl Images {
    /// The template of an image, which is the one that was used last then.
    fn find(&mut self, id: u64) -> Option<Template> {
        let place = self.kept.iter().position(|template| template.id == id)?;
        if place > 0 {
            self.kept[..=place].rotate_right(1);
        }
        Some(self.kept[0])
    }

    /// Keeps a template; returns one that is not kept any more, if there is one.
    fn keep(&mut self, template: Template) -> Option<Template> {
        let dropped = match self.kept.len() >= KEPT {
            true => self.kept.pop(),
            false => None,
        };
        if self.kept.try_reserve(1).is_err() {
            return Some(template);
        }
        self.kept.insert(0, template);
        dropped
    }
}

/// What is done with an image.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// It replaces the memory and threads of a process.
    Exec {
        /// The caller.
        thread: ThreadId,
        /// Its process.
        process: ProcessId,
        /// What the image is started with.
        start: Start,
    },
    /// It is a new process.
    Create {
        /// The caller and its process.
        creator: (ThreadId, ProcessId),
        /// What to make.
        plan: SpawnPlan,
    },
}

impl Purpose {
    /// The thread that asks.
    fn caller(&self) -> ThreadId {
        match self {
            Purpose::Exec { thread, .. } => *thread,
            Purpose::Create { creator, .. } => creator.0,
        }
    }

    /// A failure in the words of the door that was used.
    fn failure(&self, errno: Errno) -> Late {
        match self {
            Purpose::Create { plan, .. } if plan.group == GroupChoice::New(Kind::Win32) => {
                Late::Win32(win32::error(errno))
            }
            _ => Late::Errno(errno),
        }
    }

    /// The directory that was given to the server for as long as the request waits.
    fn directory(&self) -> Option<Handle> {
        match self {
            Purpose::Create {
                plan:
                    SpawnPlan {
                        directory: DirectoryChoice::At(directory),
                        ..
                    },
                ..
            } => Some(*directory),
            _ => None,
        }
    }
}

/// A request that waits until its image is loaded.
pub struct Request {
    pub(crate) purpose: Purpose,
    /// Signals to a set of processes that the child would have been in, had it been visible
    /// (LX-SIG-19): bit n - 1 for signal n.
    pub(crate) late: u64,
}

/// An image that is being loaded.
#[derive(Default)]
pub struct Load {
    id: u64,
    /// The image's window.
    window: Handle,
    /// Where it is loaded, and by whom.
    place: Place,
    loader: ThreadId,
    /// Who waits for it.
    pub(crate) requests: Vec<Request>,
}

impl ProcessServer {
    /// exec: answers only if it fails.
    pub(crate) fn exec<M: Machine>(
        &mut self,
        machine: &mut M,
        (thread, process): (ThreadId, ProcessId),
        caller: &mut Caller,
        start: Start,
    ) -> Result<Answer<()>, Errno> {
        if self.processes[process].kind == Kind::Service {
            return Err(Errno::EINVAL); // LX-KTHREAD-03
        }
        if self.processes[process].exec.is_some() {
            return Err(Errno::EAGAIN); // LX-THREAD-10
        }
        let purpose = Purpose::Exec {
            thread,
            process,
            start,
        };
        // Whoever called is gone if it has worked already.
        self.use_image(machine, purpose, &start, caller)
            .map(|_| Answer::Later)
    }

    /// A creation that begins with an image.
    pub(crate) fn create<M: Machine>(
        &mut self,
        machine: &mut M,
        creator: (ThreadId, ProcessId),
        plan: SpawnPlan,
        caller: &mut Caller,
    ) -> Result<Answer<Late>, Errno> {
        let MemoryChoice::Image(start) = plan.memory else {
            unreachable!("the door made it a plan with an image");
        };
        self.use_image(machine, Purpose::Create { creator, plan }, &start, caller)
    }

    /// Carries a request out if its image is there. Else the request waits for it, and the
    /// capabilities that came along are the server's.
    fn use_image<M: Machine>(
        &mut self,
        machine: &mut M,
        purpose: Purpose,
        start: &Start,
        caller: &mut Caller,
    ) -> Result<Answer<Late>, Errno> {
        if start.stack_bytes > layout::INITIAL_STACK_BYTES {
            return Err(Errno::E2BIG); // LX-EXEC-12
        }
        if start.stack_bytes == 0 || !start.stack_bytes.is_multiple_of(16) {
            return Err(Errno::EINVAL);
        }
        let window = caller.received[0];
        let id = machine.image_id(window).map_err(errno)?;
        if let Some(template) = self.images.find(id) {
            let done = self.carry_out(machine, &purpose, template, 0)?;
            return Ok(Answer::Now(done));
        }
        let under_way = self.loads.iter().find(|(_, load)| load.id == id);
        let (load, is_new) = match under_way {
            Some((load, _)) => (load, false),
            None => (self.new_load(machine, purpose.caller(), id)?, true),
        };
        if let Err(error) = self.enqueue(machine, load, purpose) {
            if is_new {
                self.drop_load(machine, load, error);
            }
            return Err(error);
        }
        if is_new {
            caller.take(0);
            let record = &mut self.loads[load];
            record.window = window;
            machine.start_loader(self.threads[record.loader].handle);
        }
        if purpose.directory().is_some() {
            caller.take(1);
        }
        Ok(Answer::Later)
    }

    /// Prepares the load of an image.
    fn new_load<M: Machine>(
        &mut self,
        machine: &mut M,
        like: ThreadId,
        id: u64,
    ) -> Result<LoadId, Errno> {
        let (place, loader) = match self.new_loader(machine, like) {
            Err(Errno::ENOMEM) if self.make_room(machine, Place::default()) => {
                self.new_loader(machine, like)
            }
            made => made,
        }?;
        let load = self.loads.insert_with(|| Load {
            id,
            window: Handle::NONE,
            place,
            loader,
            requests: Vec::new(),
        });
        match load {
            Ok(load) => {
                self.threads[loader].role = Role::Loader(load);
                Ok(load)
            }
            Err(_) => {
                self.end_loader(machine, loader);
                machine.drop_template(place);
                Err(Errno::ENOMEM)
            }
        }
    }

    /// Prepares a template and the loader's thread in it.
    fn new_loader<M: Machine>(
        &mut self,
        machine: &mut M,
        like: ThreadId,
    ) -> Result<(Place, ThreadId), Errno> {
        let place = machine.template().map_err(errno)?;
        let loader = self.threads.insert_with(Thread::default);
        let made = loader.map_err(|_| Errno::ENOMEM).and_then(|loader| {
            let shares = Shares {
                memory: MemoryShare::Within(place.space),
                files: TableShare::Empty,
                fs: TableShare::Empty,
            };
            let like = self.threads[like].handle;
            match machine.create_thread(like, shares, loader.bits()) {
                Ok(handle) => {
                    self.threads[loader].handle = handle;
                    Ok((place, loader))
                }
                Err(error) => {
                    self.threads.discard(loader);
                    Err(errno(error))
                }
            }
        });
        made.inspect_err(|_| machine.drop_template(place))
    }

    /// Gives up the templates that are kept, but for the one in use; whether there were any.
    #[cold]
    pub(crate) fn make_room<M: Machine>(&mut self, machine: &mut M, in_use: Place) -> bool {
        let kept = &mut self.images.kept;
        let before = kept.len();
        kept.retain(|template| {
            let stays = template.place == in_use;
            if !stays {
                machine.drop_template(template.place);
            }
            stays
        });
        kept.len() < before
    }

    fn enqueue<M: Machine>(
        &mut self,
        machine: &mut M,
        load: LoadId,
        purpose: Purpose,
    ) -> Result<(), Errno> {
        let requests = &mut self.loads[load].requests;
        requests.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let kept = self.keep_call(machine, purpose.caller())?;
        let requests = &mut self.loads[load].requests;
        requests.push(Request { purpose, late: 0 });
        self.threads[purpose.caller()].owed = Some((Owed::Load(load), kept));
        if let Purpose::Exec { process, .. } = purpose {
            self.processes[process].exec = Some(load);
        }
        Ok(())
    }

    /// The load that a calling loader works on.
    pub fn loader(&self, label: u64) -> Option<LoadId> {
        match self.threads.get(ThreadId::from_bits(label)?)?.role {
            Role::Loader(load) => Some(load),
            _ => None,
        }
    }

    /// The window on the image, for its loader.
    pub fn load_order(&self, load: LoadId) -> SendCap {
        SendCap::narrowed(self.loads[load].window, Access::READ | Access::EXECUTE)
    }

    /// The loader is done: whoever waits gets what it asked for. Refused, without effect, if nothing
    /// could begin there.
    pub fn loaded<M: Machine>(
        &mut self,
        machine: &mut M,
        id: LoadId,
        entry: u64,
    ) -> Result<(), Errno> {
        if entry == 0 || entry >= USER_END {
            return Err(Errno::EINVAL);
        }
        let load = self.loads.remove(id).ok_or(Errno::ESRCH)?;
        self.end_loader(machine, load.loader);
        if load.window.is_some() {
            machine.close(load.window);
        }
        machine.remove_loader(load.place.space);
        let template = Template {
            id: load.id,
            place: load.place,
            entry,
        };
        for Request { purpose, late } in load.requests {
            let caller = purpose.caller();
            // A request before this one may have ended the caller, and with it what it was owed.
            let owed = self.threads.get_mut(caller).and_then(|it| it.owed.take());
            let done = owed.map(|(_, kept)| {
                self.no_exec(&purpose);
                (self.carry_out(machine, &purpose, template, late), kept)
            });
            release_directory(machine, &purpose);
            let Some((done, kept)) = done else {
                continue;
            };
            match self
                .threads
                .get(caller)
                .is_some_and(|it| it.handle.is_some())
            {
                true => {
                    let answer = done.unwrap_or_else(|errno| purpose.failure(errno));
                    machine.answer(kept, &answer);
                }
                // It has become another program.
                false => machine.give_up(kept),
            }
        }
        let dropped = match machine.pages_of(template.place) > KEPT_PAGES {
            true => Some(template),
            false => self.images.keep(template),
        };
        if let Some(template) = dropped {
            machine.drop_template(template.place);
        }
        Ok(())
    }

    /// Does with a loaded image what was asked; `late` signals reach a child before its first
    /// instruction. Nothing has happened if this fails.
    fn carry_out<M: Machine>(
        &mut self,
        machine: &mut M,
        purpose: &Purpose,
        template: Template,
        late: u64,
    ) -> Result<Late, Errno> {
        match purpose {
            Purpose::Exec {
                thread,
                process,
                start,
            } => {
                let mut parts = Parts::default();
                self.reserve_by(machine, template.place, &mut parts, |reserving| {
                    reserving.dispositions(*process, DispositionChoice::Reset)?;
                    // The table is copied even if nobody shares it: what closes on exec is closed in
                    // the copy, where that may fail, and a failed exec has not touched the old one.
                    reserving.thread(
                        *thread,
                        MemoryShare::Image(template.place.space),
                        FilesChoice::Kept,
                        DirectoryChoice::Share,
                    )?;
                    reserving.stack(*thread, start)
                })?;
                let begins = parts.thread;
                self.commit_exec(machine, *process, parts, crate::name(&start.name));
                self.start_image(machine, begins, template.entry, start);
                Ok(Late::Number(0))
            }
            Purpose::Create { creator, plan } => {
                let mut parts = Parts::default();
                self.reserve(machine, *creator, plan, template.place, &mut parts)?;
                let number = self.commit(machine, *creator, plan, &mut parts);
                let created = self.created(plan, number, parts.thread, parts.handles);
                if late != 0
                    && let Some(process) = self.pids.get(number).process
                {
                    self.deliver_late(machine, process, late);
                }
                if let MemoryChoice::Image(start) = &plan.memory {
                    self.start_image(machine, parts.thread, template.entry, start);
                }
                Ok(created)
            }
        }
    }

    /// Lets an image's first thread begin, or wait where its process is stopped or it was to be
    /// suspended.
    fn start_image<M: Machine>(
        &mut self,
        machine: &mut M,
        thread: Option<ThreadId>,
        entry: u64,
        start: &Start,
    ) {
        let Some(record) = thread.and_then(|thread| self.threads.get(thread)) else {
            return;
        };
        let Role::Member(process) = record.role else {
            return; // ended by what was told of its creation
        };
        let stopped = self.processes[process].life == Life::Stopped;
        for _ in 0..record.suspends + u32::from(stopped) {
            machine.suspend(record.handle);
        }
        let stack_pointer = layout::STACK_END - start.stack_bytes;
        machine.start(record.handle, entry, stack_pointer, 0);
    }

    /// What the creator of a process from an image is told.
    fn created(
        &mut self,
        plan: &SpawnPlan,
        number: u32,
        thread: Option<ThreadId>,
        [process_handle, thread_handle]: [Handle; 2],
    ) -> Late {
        let (Some(thread), Some(process)) = (thread, self.pids.get(number).process) else {
            unreachable!("a process from an image has its records");
        };
        if plan.start == StartChoice::Suspended {
            self.threads[thread].suspends = 1;
        }
        let EndChoice::Holders {
            process_inherit,
            thread_inherit,
        } = plan.end
        else {
            return Late::Number(number);
        };
        self.processes[process].handles = 1;
        self.threads[thread].handles = 1;
        let give = |handle, inherit| {
            let flags = match inherit {
                true => SlotFlags::INHERIT,
                false => SlotFlags::empty(),
            };
            SendCap {
                options: SendCap::MOVE | u32::from(flags.bits()),
                ..SendCap::moved(handle)
            }
        };
        Late::Created {
            ids: ProcessIds {
                process: win32::id(number),
                thread: win32::id(self.threads[thread].tid),
            },
            handles: [
                give(process_handle, process_inherit),
                give(thread_handle, thread_inherit),
            ],
        }
    }

    /// The process goes on as the image's thread (LX-EXEC-02 to 04, LX-THREAD-09).
    fn commit_exec<M: Machine>(
        &mut self,
        machine: &mut M,
        process: ProcessId,
        parts: Parts,
        name: Name,
    ) {
        let Some(thread) = parts.thread else {
            unreachable!("an exec has a thread");
        };
        let record = &mut self.processes[process];
        record.name = name;
        record.execs += 1;
        record.fresh = false;
        let old_dispositions = mem::replace(&mut record.dispositions, parts.dispositions);
        let tid = record.first_tid;
        // This is also where a vfork parent is released: what closes on exec is closed already.
        while let Some(old) = self.processes[process].threads.first() {
            self.end_thread(machine, old, 0);
        }
        if let Some(old) = old_dispositions {
            self.drop_dispositions(old);
        }
        self.set_exit_signal(process, SIGCHLD);
        self.join_process(thread, process, tid);
    }

    /// A loader has come to grief. Where it had too little memory, it begins anew with what templates
    /// give back.
    pub fn load_failed<M: Machine>(&mut self, machine: &mut M, id: LoadId, error: Errno) {
        if error != Errno::ENOMEM || !self.make_room(machine, Place::default()) {
            return self.drop_load(machine, id, error);
        }
        let load = &mut self.loads[id];
        let (place, loader) = (mem::take(&mut load.place), mem::take(&mut load.loader));
        let like = load.requests.first().map(|it| it.purpose.caller());
        self.end_loader(machine, loader);
        machine.drop_template(place);
        match like
            .ok_or(error)
            .and_then(|it| self.new_loader(machine, it))
        {
            Ok((place, loader)) => {
                (self.loads[id].place, self.loads[id].loader) = (place, loader);
                self.threads[loader].role = Role::Loader(id);
                machine.start_loader(self.threads[loader].handle);
            }
            Err(error) => self.drop_load(machine, id, error),
        }
    }

    /// Gives a load up, with all requests that wait for it.
    pub(crate) fn drop_load<M: Machine>(&mut self, machine: &mut M, id: LoadId, error: Errno) {
        let Some(load) = self.loads.remove(id) else {
            return;
        };
        self.end_loader(machine, load.loader);
        if load.window.is_some() {
            machine.close(load.window);
        }
        if load.place != Place::default() {
            machine.drop_template(load.place);
        }
        for Request { purpose, .. } in load.requests {
            release_directory(machine, &purpose);
            self.no_exec(&purpose);
            if let Some((_, kept)) = self.threads[purpose.caller()].owed.take() {
                machine.answer(kept, &purpose.failure(error));
            }
        }
    }

    /// The caller of a request is gone. Nobody else's request is the end of the load.
    pub(crate) fn drop_request<M: Machine>(
        &mut self,
        machine: &mut M,
        caller: ThreadId,
        id: LoadId,
    ) {
        // It may have come to its end, and this be one of the consequences.
        let Some(load) = self.loads.get_mut(id) else {
            return;
        };
        let requests = &mut load.requests;
        if let Some(place) = requests
            .iter()
            .position(|request| request.purpose.caller() == caller)
        {
            let Request { purpose, .. } = requests.remove(place);
            release_directory(machine, &purpose);
            self.no_exec(&purpose);
        }
        if self.loads[id].requests.is_empty() {
            self.drop_load(machine, id, Errno::EINTR);
        }
    }

    /// If the request was an exec, the process may make another.
    fn no_exec(&mut self, purpose: &Purpose) {
        if let Purpose::Exec { process, .. } = purpose {
            self.processes[*process].exec = None;
        }
    }

    fn end_loader<M: Machine>(&mut self, machine: &mut M, loader: ThreadId) {
        if let Some(record) = self.threads.remove(loader) {
            machine.end_thread(record.handle);
        }
    }
}

fn release_directory<M: Machine>(machine: &mut M, purpose: &Purpose) {
    if let Some(directory) = purpose.directory() {
        machine.close(directory);
    }
}

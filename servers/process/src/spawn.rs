//! The executor: carries out a spawn plan in three steps.
//!
//! *Validate* is the doors' work. *Reserve* collects everything that can fail into [`Parts`]; when
//! a step fails, what there is so far is given back in reverse order, so it leaves nothing.
//! *Commit* takes the finished parts, cannot fail, and is the one point at which a child becomes
//! visible: number, parent's children, group.
//!
//! Tables and memory are not the server's: one kernel call makes a thread with what it lives in, and
//! they go with it. A forked thread is reserved last, because that call lets it run too: nothing of
//! what runs is ever taken back.

use libipc::abi::{Handle, SlotFlags};

use libipc::protocol::process::{Errno, Start, fs_slots, win32_access};
use libipc::wire::{Answer, Kept};

use crate::arena::Full;
use crate::machine::errno;
use crate::model::*;
use crate::object::Object;
use crate::pid::NoNumber;
use crate::plan::*;
use crate::{Fork, Machine, MemoryShare, Place, ProcessServer, Shares, TableShare};

/// What a creation has reserved. Each field is one reference or object that somebody must take
/// over: [`commit`](ProcessServer::commit) or [`release`](ProcessServer::release).
#[must_use]
#[derive(Default)]
pub struct Parts {
    pub(crate) dispositions: Option<DispositionsId>,
    pub(crate) thread: Option<ThreadId>,
    /// The thread runs already.
    runs: bool,
    /// Where the child's number is still to be stored in the creator's memory.
    parent_word: Option<u64>,
    pub(crate) number: Option<u32>,
    /// A second number, for the first thread of a Win32 process.
    pub(crate) first_tid: Option<u32>,
    pub(crate) process: Option<ProcessId>,
    /// The creator's call, if it is kept.
    pub(crate) kept: Option<Kept>,
    /// hProcess and hThread, or none.
    pub(crate) handles: [Handle; 2],
}

/// A reservation under way.
pub(crate) struct Reserving<'r, M: Machine> {
    server: &'r mut ProcessServer,
    machine: &'r mut M,
    parts: &'r mut Parts,
}

fn full(_: Full) -> Errno {
    Errno::ENOMEM
}

fn table_share(files: FilesChoice) -> TableShare {
    match files {
        FilesChoice::Share => TableShare::Same,
        FilesChoice::Copy | FilesChoice::Kept | FilesChoice::Inheritable => TableShare::Copy,
        FilesChoice::Fresh => TableShare::Empty,
    }
}

fn directory_share(directory: DirectoryChoice) -> TableShare {
    match directory {
        DirectoryChoice::Share => TableShare::Same,
        DirectoryChoice::Copy | DirectoryChoice::At(_) => TableShare::Copy,
        DirectoryChoice::Fresh => TableShare::Empty,
    }
}

impl<M: Machine> Reserving<'_, M> {
    pub(crate) fn dispositions(
        &mut self,
        of: ProcessId,
        choice: DispositionChoice,
    ) -> Result<(), Errno> {
        let source = self.server.processes[of].dispositions.ok_or(Errno::ESRCH)?;
        let ignored = match choice {
            DispositionChoice::Share => {
                self.parts.dispositions = Some(self.server.hold_dispositions(source));
                return Ok(());
            }
            // Nothing is handled yet, so a copy and a reset are the same.
            DispositionChoice::Copy | DispositionChoice::Reset => {
                self.server.dispositions[source].ignored
            }
            DispositionChoice::Default => 0,
            DispositionChoice::IgnoreAll => u64::MAX,
        };
        self.parts.dispositions = Some(self.server.new_dispositions(ignored).map_err(full)?);
        Ok(())
    }

    /// A record for the thread.
    fn record(&mut self) -> Result<ThreadId, Errno> {
        let thread = self.server.threads.insert_with(Thread::default);
        let thread = thread.map_err(full)?;
        self.parts.thread = Some(thread);
        Ok(thread)
    }

    /// A thread without registers, with memory and tables.
    pub(crate) fn thread(
        &mut self,
        like: ThreadId,
        memory: MemoryShare,
        files: FilesChoice,
        directory: DirectoryChoice,
    ) -> Result<(), Errno> {
        let thread = self.record()?;
        let shares = Shares {
            memory,
            files: table_share(files),
            fs: directory_share(directory),
        };
        let like = self.server.threads[like].handle;
        let made = self.machine.create_thread(like, shares, thread.bits());
        let handle = made.map_err(errno)?;
        self.server.threads[thread].handle = handle;
        // What the child is not to have is taken out of its copy before it runs.
        match files {
            FilesChoice::Kept => {
                self.machine
                    .retain(handle, SlotFlags::CLOSE_ON_EXEC, SlotFlags::empty())
            }
            FilesChoice::Inheritable => {
                self.machine
                    .retain(handle, SlotFlags::INHERIT, SlotFlags::INHERIT)
            }
            FilesChoice::Share | FilesChoice::Copy | FilesChoice::Fresh => Ok(()),
        }
        .map_err(errno)?;
        if let DirectoryChoice::At(directory) = directory {
            self.machine
                .place(directory, handle, fs_slots::WORKING_DIRECTORY)
                .map_err(errno)?;
        }
        Ok(())
    }

    /// A thread that goes on where the creator waits. It runs as soon as it is there, unless something
    /// is to be done first.
    fn forked_thread(
        &mut self,
        thread: ThreadId,
        (creator, process): (ThreadId, ProcessId),
        plan: &SpawnPlan,
        stack: u64,
    ) -> Result<(), Errno> {
        let words = &plan.words;
        let number = self.parts.number.ok_or(Errno::EINVAL)?;
        // One word goes with the thread. Where both see the same memory, it may be the parent's.
        let shares_memory = plan.memory == MemoryChoice::Share;
        let (word_at, parent_word) = match (words.child_tid, words.parent_tid) {
            (None, Some(address)) if shares_memory => (Some(address), None),
            words => words,
        };
        self.parts.parent_word = parent_word;
        // A thread that joins a stopped process joins the stop (LX-THREAD-11).
        let stopped =
            plan.group == GroupChoice::Join && self.server.processes[process].life != Life::Running;
        self.parts.runs = plan.runs() && parent_word.is_none() && !stopped;
        let fork = Fork {
            like: self.server.threads[creator].handle,
            label: thread.bits(),
            copies_memory: !shares_memory,
            copies_files: plan.files != FilesChoice::Share,
            copies_fs: plan.directory != DirectoryChoice::Share,
            stack,
            thread_pointer: words.thread_pointer,
            clear: words.clear,
            word: word_at.map(|address| (address, number)),
            runs: self.parts.runs,
        };
        let made = self.machine.fork_thread(&fork);
        self.server.threads[thread].handle = made.map_err(errno)?;
        Ok(())
    }

    fn numbers(&mut self, plan: &SpawnPlan) -> Result<(), Errno> {
        let number = |result: Result<u32, NoNumber>| {
            result.map_err(|error| match error {
                NoNumber::Exhausted => Errno::EAGAIN,
                NoNumber::NoMemory => Errno::ENOMEM,
                NoNumber::Taken => Errno::EEXIST,
                NoNumber::Invalid => Errno::EINVAL,
            })
        };
        self.parts.number = Some(number(match plan.words.number {
            Some(wanted) => self.server.pids.allocate_exactly(wanted),
            None => self.server.pids.allocate(),
        })?);
        if plan.group == GroupChoice::New(Kind::Win32) {
            self.parts.first_tid = Some(number(self.server.pids.allocate())?);
        }
        Ok(())
    }

    fn process(&mut self, of: ProcessId, kind: Kind) -> Result<(), Errno> {
        let group = self.server.processes[of].group;
        if kind == Kind::Service {
            let made = &mut self.server.processes[of].made;
            made.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        }
        let made = self
            .server
            .processes
            .insert_with(|| Process::new(kind, group));
        self.parts.process = Some(made.map_err(full)?);
        Ok(())
    }

    fn call(&mut self, creator: ThreadId) -> Result<(), Errno> {
        self.parts.kept = Some(self.server.keep_call(self.machine, creator)?);
        Ok(())
    }

    /// The creator's handles on the process and its first thread.
    fn handles(&mut self) -> Result<(), Errno> {
        let process = self.parts.process.ok_or(Errno::EINVAL)?;
        let thread = self.parts.thread.ok_or(Errno::EINVAL)?;
        let wanted = [
            (Object::Process(process), win32_access::PROCESS_ALL_ACCESS),
            (Object::Thread(thread), win32_access::THREAD_ALL_ACCESS),
        ];
        for (place, (object, access)) in wanted.into_iter().enumerate() {
            let handle = self
                .machine
                .derive_sender(object.badge(), access)
                .map_err(errno)?;
            self.parts.handles[place] = handle;
        }
        Ok(())
    }

    /// The initial stack of an image's first thread.
    pub(crate) fn stack(&mut self, creator: ThreadId, start: &Start) -> Result<(), Errno> {
        let thread = self.parts.thread.ok_or(Errno::EINVAL)?;
        let [from, to] = [creator, thread].map(|thread| self.server.threads[thread].handle);
        self.machine.copy_stack(from, start, to).map_err(errno)
    }
}

impl ProcessServer {
    /// Creates what the plan says for `creator`, from what it has itself. The answer is the child's
    /// number, now or, with VFORK, later.
    pub(crate) fn spawn<M: Machine>(
        &mut self,
        machine: &mut M,
        creator: (ThreadId, ProcessId),
        plan: &SpawnPlan,
    ) -> Result<Answer<u32>, Errno> {
        let mut parts = Parts::default();
        self.reserve(machine, creator, plan, Place::default(), &mut parts)?;
        let number = self.commit(machine, creator, plan, &mut parts);
        match plan.start {
            StartChoice::RunAndRelease => Ok(Answer::Later),
            _ => Ok(Answer::Now(number)),
        }
    }

    /// Reserves all that the plan needs, into `parts`; `template` is where the image is, if the plan
    /// has one.
    pub(crate) fn reserve<M: Machine>(
        &mut self,
        machine: &mut M,
        (creator, process): (ThreadId, ProcessId),
        plan: &SpawnPlan,
        template: Place,
        parts: &mut Parts,
    ) -> Result<(), Errno> {
        let memory = match plan.memory {
            MemoryChoice::Share => MemoryShare::Same,
            MemoryChoice::Snapshot => MemoryShare::Snapshot,
            MemoryChoice::Image(_) => MemoryShare::Image(template.space),
        };
        self.reserve_by(machine, template, parts, move |reserving| {
            // A thread shares those of its process.
            if plan.group != GroupChoice::Join {
                reserving.dispositions(process, plan.dispositions)?;
            }
            let forked = match plan.first {
                FirstInstruction::AfterCall { stack } => Some((reserving.record()?, stack)),
                FirstInstruction::Image | FirstInstruction::Function(_) => {
                    reserving.thread(creator, memory, plan.files, plan.directory)?;
                    None
                }
            };
            reserving.numbers(plan)?;
            if let GroupChoice::New(kind) = plan.group {
                reserving.process(process, kind)?;
            }
            if let EndChoice::Holders { .. } = plan.end {
                reserving.handles()?;
            }
            if let MemoryChoice::Image(start) = &plan.memory {
                reserving.stack(creator, start)?;
            }
            if plan.start == StartChoice::RunAndRelease {
                reserving.call(creator)?;
            }
            // The last step: the thread may run from here on.
            match forked {
                Some((thread, stack)) => {
                    reserving.forked_thread(thread, (creator, process), plan, stack)
                }
                None => Ok(()),
            }
        })
    }

    /// Reserves by `steps` into `parts`, which are empty; when one fails, what those before it have
    /// reserved is given back.
    #[inline]
    pub(crate) fn reserve_by<M: Machine>(
        &mut self,
        machine: &mut M,
        in_use: Place,
        parts: &mut Parts,
        steps: impl Fn(&mut Reserving<M>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let done = steps(&mut Reserving {
            server: self,
            machine,
            parts,
        });
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.reserve_again(machine, in_use, parts, &steps, error),
        }
    }

    /// The steps have failed. Where memory is short, they get another try without the templates that
    /// are not in use.
    #[cold]
    fn reserve_again<M: Machine>(
        &mut self,
        machine: &mut M,
        in_use: Place,
        parts: &mut Parts,
        steps: &dyn Fn(&mut Reserving<M>) -> Result<(), Errno>,
        mut error: Errno,
    ) -> Result<(), Errno> {
        loop {
            self.release(machine, core::mem::take(parts));
            if error != Errno::ENOMEM || !self.make_room(machine, in_use) {
                return Err(error);
            }
            let done = steps(&mut Reserving {
                server: self,
                machine,
                parts,
            });
            match done {
                Ok(()) => return Ok(()),
                Err(next) => error = next,
            }
        }
    }

    /// Gives back what was reserved, last first.
    pub(crate) fn release<M: Machine>(&mut self, machine: &mut M, parts: Parts) {
        let [process_handle, thread_handle] = parts.handles;
        if let Some(kept) = parts.kept {
            machine.give_up(kept);
        }
        for handle in [thread_handle, process_handle] {
            if handle.is_some() {
                machine.close(handle);
            }
        }
        if let Some(process) = parts.process {
            self.processes.discard(process);
        }
        for number in [parts.first_tid, parts.number].into_iter().flatten() {
            self.pids.release(number);
        }
        if let Some(thread) = parts.thread
            && let Some(record) = self.threads.remove(thread)
            && record.handle.is_some()
        {
            machine.end_thread(record.handle);
        }
        if let Some(dispositions) = parts.dispositions {
            self.drop_dispositions(dispositions);
        }
    }

    /// Makes the child visible and, unless it is to wait, runs it. Returns its number.
    pub(crate) fn commit<M: Machine>(
        &mut self,
        machine: &mut M,
        (creator, creator_process): (ThreadId, ProcessId),
        plan: &SpawnPlan,
        parts: &mut Parts,
    ) -> u32 {
        let (Some(thread), Some(number)) = (parts.thread, parts.number) else {
            unreachable!("a finished reservation has a thread and a number");
        };
        let tid = parts.first_tid.unwrap_or(number);
        let process = match parts.process {
            None => creator_process,
            Some(process) => {
                let child = &mut self.processes[process];
                child.pid = number;
                child.first_tid = tid;
                child.dispositions = parts.dispositions;
                self.appear((creator, creator_process), plan, process);
                process
            }
        };
        self.join_process(thread, process, tid);
        if let Some(address) = parts.parent_word {
            // An error of this store is ignored (LX-CLONE-14).
            let _ = machine.write_word(self.threads[creator].handle, address, number);
        }
        let record = &mut self.threads[thread];
        let handle = record.handle;
        if let Some(kept) = parts.kept.take() {
            record.releases = Some(creator);
            let owed = Owed::Release {
                by: thread,
                pid: number,
            };
            self.threads[creator].owed = Some((owed, kept));
        }
        if plan.runs() && !parts.runs && self.processes[process].life == Life::Running {
            machine.resume(handle);
        }
        number
    }

    /// The one point at which a new process becomes visible. It has its number.
    fn appear(
        &mut self,
        (creator, creator_process): (ThreadId, ProcessId),
        plan: &SpawnPlan,
        process: ProcessId,
    ) {
        let like = &mut self.processes[creator_process];
        if let FirstInstruction::Function(_) = plan.first {
            like.made.push(process);
        }
        let (like_signal, name) = (like.exit_signal, plan.name.unwrap_or(like.name));
        // The creator may have changed its group while a loader was at work.
        let (parent, mut group) = match plan.parent {
            ParentChoice::Caller => (Some(creator_process), like.group),
            ParentChoice::CallersParent => (like.parent, like.group),
            ParentChoice::ServiceRoot => (self.service_root, like.group),
        };
        if plan.parent == ParentChoice::ServiceRoot
            && let Some(root) = parent
        {
            group = self.processes[root].group;
        }
        let child = &mut self.processes[process];
        child.life = Life::Running;
        child.name = name;
        child.creator = Some(creator);
        child.exit_signal = match plan.end {
            EndChoice::Parent(signal) => signal,
            EndChoice::ParentLikeCaller => like_signal,
            EndChoice::Stopper => crate::signal::SIGCHLD,
            EndChoice::Holders { .. } | EndChoice::Nobody => 0,
        };
        if let FirstInstruction::Function(service) = plan.first {
            child.service = service;
            child.maker = Some(creator_process);
        }
        self.pids.update(child.pid, |entry| {
            entry.process = Some(process);
            entry.reserved = false;
        });
        self.join_group(process, group);
        if let Some(parent) = parent {
            self.adopt(parent, process);
        }
    }
}

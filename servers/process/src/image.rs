//! Images: exec, and creations that begin with a fresh image.
//!
//! The server parses no images. It makes a space in which only the loader is mapped and a thread
//! in it, keeps the caller's reply, and waits. The loader asks for its order, maps the image, and
//! reports. If it succeeds the reservation is committed: exec swaps the process's memory and
//! threads, a creation makes its child visible. If it fails, crashes, or its caller dies, the
//! reservation is released and nothing has happened.

use libipc::abi::{Handle, SendCap, SlotFlags, USER_END};
use libipc::protocol::process::{Errno, LoadOrder, ProcessIds};
use libipc::wire::Answer;

use crate::door::win32;
use crate::machine::Late;
use crate::model::*;
use crate::plan::*;
use crate::signal::SIGCHLD;
use crate::spawn::{Parts, Reserving};
use crate::{Machine, ProcessServer};

/// What happens once the image is loaded.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// It replaces the memory and threads of a process.
    Exec {
        /// The caller.
        thread: ThreadId,
        /// Its process.
        process: ProcessId,
    },
    /// It is a new process.
    Create {
        /// The caller and its process.
        creator: (ThreadId, ProcessId),
        /// What to make.
        plan: SpawnPlan,
    },
}

/// An image that is being loaded.
pub struct Load {
    pub(crate) purpose: Purpose,
    start_bytes: u64,
    /// Windows that the loader has not fetched yet.
    windows: [Handle; 2],
    parts: Parts,
    /// Signals to a set of processes that the child would have been in, had it been visible
    /// (LX-SIG-19): bit n - 1 for signal n.
    pub(crate) late: u64,
}

impl Load {
    pub(crate) fn new(purpose: Purpose, start_bytes: u64) -> Load {
        Load {
            purpose,
            start_bytes,
            windows: [Handle::NONE; 2],
            parts: Parts::default(),
            late: 0,
        }
    }
}

impl ProcessServer {
    /// exec: answers only if it fails. The windows are the server's from now on if this succeeds.
    pub fn exec<M: Machine>(
        &mut self,
        machine: &mut M,
        (thread, process): (ThreadId, ProcessId),
        image: Handle,
        start: Handle,
        start_bytes: u64,
    ) -> Result<Answer<()>, Errno> {
        if self.processes[process].kind == Kind::Service {
            return Err(Errno::EINVAL); // LX-KTHREAD-03
        }
        if self.processes[process].exec.is_some() {
            return Err(Errno::EAGAIN); // LX-THREAD-10
        }
        let mut reserving = Reserving::new(self, machine);
        reserving.dispositions(process, DispositionChoice::Reset)?;
        let memory = MemoryChoice::Image {
            image,
            start,
            start_bytes,
        };
        // The table is copied even if nobody shares it: what closes on exec is closed in the copy
        // now, where that may still fail, and a failed exec has not touched the old one.
        reserving.thread(
            thread,
            FirstInstruction::Loader,
            memory,
            FilesChoice::Kept,
            DirectoryChoice::Share,
        )?;
        reserving.load(Purpose::Exec { thread, process }, start_bytes)?;
        reserving.reply()?;
        let parts = reserving.finish();
        self.processes[process].exec = parts.load;
        self.begin_load(machine, thread, parts, image, start);
        Ok(Answer::Later)
    }

    /// Lets the loader run; `caller` waits.
    pub(crate) fn begin_load<M: Machine>(
        &mut self,
        machine: &mut M,
        caller: ThreadId,
        mut parts: Parts,
        image: Handle,
        start: Handle,
    ) {
        let (Some(load), Some(thread)) = (parts.load.take(), parts.thread) else {
            unreachable!("a reservation with an image has a load and a thread");
        };
        let reply = parts.reply.take().unwrap_or(Handle::NONE);
        self.threads[caller].owed = Some((Owed::Load(load), reply));
        let record = &mut self.loads[load];
        record.windows = [image, start];
        record.parts = parts;
        machine.start_loader(self.threads[thread].handle);
    }

    /// The load that a calling loader works on.
    pub fn loader(&self, label: u64) -> Option<LoadId> {
        match self.threads.get(ThreadId::from_bits(label)?)?.role {
            Role::Loader(load) => Some(load),
            _ => None,
        }
    }

    /// Hands the loader its order and the two windows, once.
    pub fn load_order(&mut self, load: LoadId) -> Result<(LoadOrder, [SendCap; 2]), Errno> {
        let load = &mut self.loads[load];
        let windows = core::mem::replace(&mut load.windows, [Handle::NONE; 2]);
        if windows.iter().any(|window| !window.is_some()) {
            return Err(Errno::EINVAL);
        }
        let order = LoadOrder {
            start_bytes: load.start_bytes,
        };
        Ok((order, windows.map(SendCap::moved)))
    }

    /// The loader is done: commits. Refused, without effect, if the process could not begin there.
    pub fn loaded<M: Machine>(
        &mut self,
        machine: &mut M,
        id: LoadId,
        (entry, stack_pointer): (u64, u64),
        name: Name,
    ) -> Result<(), Errno> {
        if entry == 0 || entry >= USER_END || stack_pointer >= USER_END {
            return Err(Errno::EINVAL);
        }
        let Some(mut load) = self.loads.remove(id) else {
            return Err(Errno::ESRCH);
        };
        close_windows(machine, &load);
        let parts = core::mem::take(&mut load.parts);
        let Some(thread) = parts.thread else {
            unreachable!("a load has a thread");
        };
        let handle = self.threads[thread].handle;
        let name = crate::name(&name);
        let process = match load.purpose {
            Purpose::Exec { thread, process } => {
                self.commit_exec(machine, thread, process, parts, name);
                process
            }
            Purpose::Create { creator, plan } => {
                let reply = self.threads[creator.0].owed.take().map(|(_, reply)| reply);
                let process = self.commit_create(machine, creator, &plan, parts, name, reply);
                self.deliver_late(machine, process, load.late);
                process
            }
        };
        // A signal that came before the commit may have ended it by now.
        let alive = |thread: &Thread| thread.role == Role::Member(process);
        if !self.threads.get(thread).is_some_and(alive) {
            return Ok(());
        }
        machine.remove_loader(handle);
        let stopped = self.processes[process].life == Life::Stopped;
        let holds = self.threads[thread].suspends + u32::from(stopped);
        if holds > 0 {
            // `start` takes one back.
            for _ in 0..=holds {
                machine.suspend(handle);
            }
        }
        machine.start(handle, entry, stack_pointer, 0);
        Ok(())
    }

    fn commit_create<M: Machine>(
        &mut self,
        machine: &mut M,
        creator: (ThreadId, ProcessId),
        plan: &SpawnPlan,
        parts: Parts,
        name: Name,
        reply: Option<Handle>,
    ) -> ProcessId {
        let (Some(process), Some(thread)) = (parts.process, parts.thread) else {
            unreachable!("a process from an image has its records");
        };
        let handles = parts.handles;
        let number = self.commit(machine, creator, plan, parts);
        self.processes[process].name = name;
        if plan.start == StartChoice::Suspended {
            self.threads[thread].suspends = 1;
        }
        let answer = match (plan.end, handles) {
            (
                EndChoice::Holders {
                    process_inherit,
                    thread_inherit,
                },
                [Some(process_handle), Some(thread_handle)],
            ) => {
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
            _ => Late::Number(number),
        };
        if let Some(reply) = reply {
            machine.answer(reply, &answer);
        }
        process
    }

    /// The process goes on as the loader's thread (LX-EXEC-02 to 04, LX-THREAD-09).
    fn commit_exec<M: Machine>(
        &mut self,
        machine: &mut M,
        caller: ThreadId,
        process: ProcessId,
        parts: Parts,
        name: Name,
    ) {
        let Some(thread) = parts.thread else {
            unreachable!("an exec has a thread");
        };
        let reply = self.threads[caller].owed.take().map(|(_, reply)| reply);
        let record = &mut self.processes[process];
        record.exec = None;
        record.name = name;
        record.execs += 1;
        record.fresh = false;
        let old_dispositions = core::mem::replace(&mut record.dispositions, parts.dispositions);
        let tid = record.first_tid;
        // This is also where a vfork parent is released: what closes on exec is closed already.
        while let Some(old) = self.processes[process].threads.first() {
            self.end_thread(machine, old, 0);
        }
        if let Some(reply) = reply {
            machine.close(reply);
        }
        if let (Some(old), Some(new)) = (old_dispositions, parts.dispositions) {
            // A sibling thread may have changed them while the loader was at work.
            self.dispositions[new].ignored = self.dispositions[old].ignored;
            self.drop_dispositions(old);
        }
        self.set_exit_signal(process, SIGCHLD);
        self.join_process(thread, process, tid);
    }

    /// Gives a load up. With an error its caller is told, without one it is gone.
    pub(crate) fn drop_load<M: Machine>(
        &mut self,
        machine: &mut M,
        id: LoadId,
        error: Option<Errno>,
    ) {
        let Some(mut load) = self.loads.remove(id) else {
            return;
        };
        close_windows(machine, &load);
        let parts = core::mem::take(&mut load.parts);
        self.release(machine, parts);
        let (caller, win32_caller) = match load.purpose {
            Purpose::Exec { thread, process } => {
                self.processes[process].exec = None;
                (thread, false)
            }
            Purpose::Create { creator, plan } => {
                (creator.0, plan.group == GroupChoice::New(Kind::Win32))
            }
        };
        let Some((_, reply)) = self.threads[caller].owed.take() else {
            return;
        };
        match error {
            None => machine.close(reply),
            Some(errno) if win32_caller => {
                machine.answer(reply, &Late::Win32(win32::error(errno)));
            }
            Some(errno) => machine.answer(reply, &Late::Errno(errno)),
        }
    }
}

fn close_windows<M: Machine>(machine: &mut M, load: &Load) {
    for window in load.windows {
        if window.is_some() {
            machine.close(window);
        }
    }
}

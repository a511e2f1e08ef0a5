//! The process server's state machine: what a process is on Mitosis.
//!
//! The kernel knows threads, address spaces and capability tables; a process is a set of shares in
//! them, and this crate keeps the books. It makes no system call and reads no clock: what it does
//! to the machine goes through [`Machine`], which the IPC shell (`main.rs`) implements with kernel
//! calls and the tests with a fake.
//!
//! Where to start reading: [`plan`] (a creation as one value), [`door`] (the calls that compile to
//! it), [`spawn`] (validate, reserve, commit), [`exit`] and [`wait`] (the other end of a life).
//!
//! Invariants, checked by [`ProcessServer::check`] after every step of the property test:
//! every waiting call is kept, once; shares count their users; the tree of processes
//! has PID 1 and PID 2 as its roots; a number is taken exactly while something has it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod arena;
mod check;
pub mod door;
pub mod exit;
pub mod group;
pub mod image;
mod inspect;
mod list;
pub mod machine;
pub mod model;
mod object;
pub mod pid;
pub mod plan;
mod ready;
mod serve;
mod service;
mod shares;
pub mod signal;
pub mod spawn;
pub mod wait;

pub use machine::{Fork, Late, Machine, MemoryShare, Place, Shares, TableShare};
pub use signal::Faulted;

use arena::Arena;
use libipc::abi::Handle;
use libipc::protocol::process::{Errno, Identity};
use libipc::wire::Kept;
use list::List;
use model::*;
use pid::PidSpace;

/// Label of threads that the server has not made: none of its ids.
pub const NO_LABEL: u64 = 0;

/// For so many processes the server has its memory from the start: what it uses then does not depend
/// on how many of them there ever were at once.
const PREPARED: usize = 64;

/// Every process there is.
pub struct ProcessServer {
    processes: Arena<Process>,
    threads: Arena<Thread>,
    dispositions: Arena<Dispositions>,
    groups: Arena<Group>,
    loads: Arena<image::Load>,
    images: image::Images,
    pids: PidSpace,
    /// PID 1, once it is there.
    init: Option<ProcessId>,
    /// PID 2, once PID 1 is there.
    service_root: Option<ProcessId>,
    /// How many live processes are subreapers; 0 saves the search for one.
    subreapers: u32,
    /// Ends that other ends caused and that are still to be carried out.
    ends: List<Process>,
    /// An end is being carried out.
    ending: bool,
}

impl Default for ProcessServer {
    fn default() -> Self {
        ProcessServer::new(pid::DEFAULT_MAX)
    }
}

impl ProcessServer {
    /// A server without processes, whose numbers stay below `pid_max`.
    pub fn new(pid_max: u32) -> ProcessServer {
        let mut server = ProcessServer {
            processes: Arena::default(),
            threads: Arena::default(),
            dispositions: Arena::default(),
            groups: Arena::default(),
            loads: Arena::default(),
            images: image::Images::default(),
            pids: PidSpace::new(pid_max),
            init: None,
            service_root: None,
            subreapers: 0,
            ends: List::default(),
            ending: false,
        };
        server.processes.prepare(PREPARED);
        server.threads.prepare(PREPARED);
        server.dispositions.prepare(PREPARED);
        server
    }

    /// Makes the process of `thread`, the caller's, PID 1, with the service root as PID 2
    /// (LX-INIT-02). The handle is the server's from now on if this succeeds.
    pub fn adopt_init<M: Machine>(
        &mut self,
        machine: &mut M,
        thread: Handle,
    ) -> Result<Identity, Errno> {
        if self.init.is_some() {
            return Err(Errno::EEXIST);
        }
        const ROOM: Errno = Errno::ENOMEM;
        let group = self
            .groups
            .insert(Group {
                number: 0,
                session: 0,
                members: list::List::default(),
            })
            .map_err(|_| ROOM)?;
        let record = self
            .threads
            .insert_with(Thread::default)
            .map_err(|_| ROOM)?;
        if let Err(error) = machine.set_label(thread, record.bits()) {
            self.threads.discard(record);
            self.groups.discard(group);
            return Err(machine::errno(error));
        }
        // The first records of an empty server: for want of this much the server cannot run at all.
        let identity = self.first_processes(group, record, thread);
        Ok(identity.expect("there is memory for the first records"))
    }

    fn first_processes(
        &mut self,
        group: GroupId,
        thread: ThreadId,
        handle: Handle,
    ) -> Option<Identity> {
        let dispositions = self.new_dispositions(0).ok()?;
        for kind in [Kind::Init, Kind::ServiceRoot] {
            let pid = self.pids.allocate().ok()?;
            let mut process = Process::new(kind, group);
            process.pid = pid;
            process.first_tid = pid;
            process.life = Life::Running;
            process.exit_signal = signal::SIGCHLD;
            if kind == Kind::Init {
                process.dispositions = Some(dispositions);
                process.name = name(b"init");
            } else {
                process.name = name(b"services");
            }
            let id = self.processes.insert_with(|| process).ok()?;
            self.pids.update(pid, |entry| {
                entry.process = Some(id);
                entry.reserved = false;
            });
            self.join_group(id, group);
            if kind == Kind::Init {
                self.init = Some(id);
                self.threads[thread].handle = handle;
                self.join_process(thread, id, pid);
            } else {
                self.service_root = Some(id);
            }
        }
        Some(self.identity_of(thread))
    }

    /// The process that a calling thread belongs to.
    pub fn caller(&self, label: u64) -> Option<(ThreadId, ProcessId)> {
        let thread = ThreadId::from_bits(label)?;
        match self.threads.get(thread)?.role {
            Role::Member(process) => Some((thread, process)),
            _ => None,
        }
    }

    /// Keeps the call that is being served, a member thread's, which waits in no other: a program can
    /// make a thread with another's label, which is taken for that one.
    fn keep_call<M: Machine>(&self, machine: &mut M, thread: ThreadId) -> Result<Kept, Errno> {
        if self.threads[thread].owed.is_some() {
            return Err(Errno::EAGAIN);
        }
        machine.keep_reply().map_err(machine::errno)
    }

    /// The numbers of a member thread.
    fn identity_of(&self, thread: ThreadId) -> Identity {
        let record = &self.threads[thread];
        let Role::Member(process) = record.role else {
            return Identity {
                pid: 0,
                tid: record.tid,
                ppid: 0,
                pgid: 0,
                sid: 0,
            };
        };
        let process = &self.processes[process];
        let group = &self.groups[process.group];
        Identity {
            pid: process.pid,
            tid: record.tid,
            ppid: process
                .parent
                .map_or(0, |parent| self.processes[parent].pid),
            pgid: group.number,
            sid: group.session,
        }
    }

    /// Links a thread to its process under a number that is reserved.
    #[inline(always)]
    fn join_process(&mut self, thread: ThreadId, process: ProcessId, tid: u32) {
        let record = &mut self.threads[thread];
        record.role = Role::Member(process);
        record.tid = tid;
        self.pids.update(tid, |entry| {
            entry.thread = Some(thread);
            entry.reserved = false;
        });
        let owner = &mut self.processes[process];
        owner
            .threads
            .push(&mut self.threads, thread, |thread| &mut thread.sibling);
        owner.thread_count += 1;
    }
}

/// A name from a string, cut to 15 bytes.
pub fn name(text: &[u8]) -> Name {
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().take(15).zip(text) {
        *to = *from;
    }
    name
}

//! The end of threads and processes (`docs/spec/linux-process.md` section 10).
//!
//! Ends cause ends (a child's exit signal may kill its parent), so they are queued and carried out
//! one after the other: the depth of the stack does not depend on anybody's family tree.

use libipc::Handle;
use libipc::protocol::process::Errno;

use crate::machine::Late;
use crate::model::*;
use crate::signal::{LAST, SIGCHLD};
use crate::{Machine, ProcessServer, ready};

/// Exit signals from here on are none.
const NO_SIGNAL: u32 = LAST + 1;

/// How a process ended, in the words of those who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Linux status word (LX-EXIT-01).
    pub status: u32,
    /// Win32 exit code (W32-EXIT-16).
    pub code: u32,
    /// Result of a service thread.
    pub result: i32,
}

impl Ending {
    /// exit and exit_group.
    pub fn exited(code: i32) -> Ending {
        Ending {
            status: (code as u32 & 0xff) << 8,
            code: code as u32,
            result: code,
        }
    }

    /// ExitProcess and TerminateProcess: all 32 bits count.
    pub fn with_code(code: u32) -> Ending {
        Ending::exited(code as i32)
    }

    /// A service thread's that was never woken (LX-KTHREAD-09).
    pub fn interrupted() -> Ending {
        Ending::exited(-(Errno::EINTR as i32))
    }

    /// A signal's default action.
    pub fn signalled(signal: u32) -> Ending {
        Ending::forced(signal, 128 + signal)
    }

    /// A fault.
    pub fn forced(signal: u32, code: u32) -> Ending {
        Ending {
            status: signal,
            code,
            result: -(Errno::EINTR as i32),
        }
    }
}

impl ProcessServer {
    /// exit: ends one thread, and with the last one its process (LX-THREAD-04 to 07).
    pub fn exit_thread<M: Machine>(
        &mut self,
        machine: &mut M,
        (thread, process): (ThreadId, ProcessId),
        code: i32,
    ) {
        if self.processes[process].thread_count == 1 {
            self.end_process(machine, process, Ending::exited(code));
        } else {
            self.end_thread(machine, thread, code as u32);
        }
    }

    /// Ends a process; what that causes has happened too when this returns.
    pub(crate) fn end_process<M: Machine>(
        &mut self,
        machine: &mut M,
        process: ProcessId,
        ending: Ending,
    ) {
        // The first end counts (W32-EXIT-08).
        let Some(record) = self.processes.get_mut(process) else {
            return;
        };
        if !record.is_alive() || record.ending.is_some() {
            return;
        }
        record.ending = Some(ending);
        if self.ending {
            self.ends
                .push(&mut self.processes, process, |process| &mut process.end);
            return;
        }
        self.ending = true;
        self.end_one(machine, process, ending);
        self.end_queued(machine);
    }

    /// Does what may cause ends, which come when it has been done: until then nobody leaves a list.
    pub(crate) fn before_ends<M: Machine>(
        &mut self,
        machine: &mut M,
        work: impl FnOnce(&mut Self, &mut M),
    ) {
        debug_assert!(!self.ending, "ends do not wait for ends");
        self.ending = true;
        work(self, machine);
        self.end_queued(machine);
    }

    /// Carries out the ends that have been caused, and those that these cause.
    fn end_queued<M: Machine>(&mut self, machine: &mut M) {
        while let Some(next) = self.ends.first() {
            self.ends
                .remove(&mut self.processes, next, |process| &mut process.end);
            if let Some(ending) = self.processes[next].ending {
                self.end_one(machine, next, ending);
            }
        }
        self.ending = false;
    }

    fn end_one<M: Machine>(&mut self, machine: &mut M, id: ProcessId, ending: Ending) {
        // All of them go, so that none need be looked for among the others.
        self.processes[id].waiters.clear();
        while let Some(thread) = self.processes[id].threads.first() {
            self.end_thread(machine, thread, ending.code);
        }
        let process = &mut self.processes[id];
        process.life = Life::Ended;
        process.exit_code = ending.code;
        process.pending = 0;
        let dispositions = process.dispositions.take();
        let notification = process.notification;
        let is_parent = process.children.first().is_some();
        let serves = process.kind == Kind::Service || !process.made.is_empty();
        if core::mem::take(&mut process.subreaper) {
            self.subreapers -= 1;
        }
        if let Some(dispositions) = dispositions {
            self.drop_dispositions(dispositions);
        }
        if is_parent {
            self.reparent_children(machine, id);
        }
        if notification.is_some() {
            machine.signal_end(notification);
        }
        if serves {
            self.end_service(machine, id, ending.result);
        }
        if Some(id) == self.init {
            machine.init_ended(ending.status);
        }
        self.tell_parent(machine, id, ending.status);
    }

    /// The end of a service thread, or of who made some.
    fn end_service<M: Machine>(&mut self, machine: &mut M, id: ProcessId, result: i32) {
        let process = &mut self.processes[id];
        process.service.result = result;
        let made = core::mem::take(&mut process.made);
        let stoppers = core::mem::take(&mut process.stoppers);
        if !stoppers.is_empty() {
            process.maker = None;
        }
        for service in made {
            // Nobody will wake it, or ask for its result, any more.
            self.processes[service].maker = None;
            if self.processes[service].is_alive() {
                self.end_process(machine, service, Ending::interrupted());
            } else {
                self.reap(machine, service);
            }
        }
        for stopper in stoppers {
            if let Some((_, kept)) = self.threads[stopper].owed.take() {
                machine.answer(kept, &Late::Stopped(result));
            }
        }
    }

    /// The zombie is reported to its parent, or vanishes.
    fn tell_parent<M: Machine>(&mut self, machine: &mut M, id: ProcessId, status: u32) {
        let process = &self.processes[id];
        let Some(parent) = process.parent else {
            self.processes[id].event = Event::Ended(status);
            return;
        };
        let owner = &self.processes[parent];
        // LX-EXIT-11: an odd signal is not for a parent that has become another program.
        let odd = process.parent_execs != owner.execs;
        let signal = match process.exit_signal {
            0 | NO_SIGNAL.. => 0, // LX-CLONE-27
            _ if odd => SIGCHLD,
            signal => signal,
        };
        let vanishes = self.vanishes(process, owner);
        let maker = process.maker;
        if maker.is_some_and(|maker| self.keeps_result(id, maker)) {
            self.processes[id].event = Event::Ended(status);
        } else if vanishes {
            self.reap(machine, id);
            self.wake_waiters(machine, parent);
        } else {
            self.report(machine, id, Event::Ended(status));
        }
        if signal != SIGCHLD && self.processes.get(parent).is_some() {
            self.send(machine, parent, signal);
        }
    }

    /// A service thread that ends before it was asked to keeps its result for its maker, as long as
    /// that lives: else the maker could not stop it without a race (LX-KTHREAD-11).
    fn keeps_result(&mut self, id: ProcessId, maker: ProcessId) -> bool {
        let Some(maker) = self.processes.get_mut(maker) else {
            return false;
        };
        let keeps = maker.is_alive() && maker.made.try_reserve(1).is_ok();
        if keeps {
            maker.made.push(id);
        }
        keeps
    }

    /// Whether nobody waits for the end of this child (LX-WAIT-12, LX-KTHREAD-02, W32-EXIT-18).
    #[inline]
    fn vanishes(&self, child: &Process, parent: &Process) -> bool {
        let ignores = || {
            parent.dispositions.is_some_and(|dispositions| {
                self.dispositions[dispositions].ignored & 1 << (SIGCHLD - 1) != 0
            })
        };
        !child.is_waitable()
            || parent.kind == Kind::ServiceRoot
            || (child.exit_signal == SIGCHLD && ignores())
    }

    /// Ends a thread that is a member of a process: what it waits for, whom it keeps waiting, its
    /// number.
    pub(crate) fn end_thread<M: Machine>(&mut self, machine: &mut M, id: ThreadId, code: u32) {
        let thread = &mut self.threads[id];
        let Role::Member(process) = thread.role else {
            return;
        };
        thread.exit_code = code;
        machine.end_thread(core::mem::replace(&mut thread.handle, Handle::NONE));
        let (owed, waiter) = (thread.owed.take(), thread.releases.take());
        let (tid, kept, notification) = (thread.tid, thread.handles > 0, thread.notification);
        let links = core::mem::take(&mut thread.sibling);
        thread.role = Role::Ended;
        let owner = &mut self.processes[process];
        owner.threads.detach(links);
        owner.thread_count -= 1;
        links.close(&mut self.threads, |thread| &mut thread.sibling);
        if let Some((owed, kept)) = owed {
            self.drop_owed(machine, id, process, owed);
            machine.give_up(kept);
        }
        if let Some(waiter) = waiter {
            self.release_waiter(machine, waiter);
        }
        self.pids.update(tid, |entry| {
            entry.thread = None;
            entry.reserved |= kept;
        });
        if notification.is_some() {
            machine.signal_end(notification);
        }
        if !kept {
            self.forget_thread(machine, id, notification);
        }
    }

    /// The end of a record that nothing refers to.
    #[inline]
    pub(crate) fn forget_thread<M: Machine>(
        &mut self,
        machine: &mut M,
        id: ThreadId,
        notification: Handle,
    ) {
        if notification.is_some() {
            machine.close(notification);
        }
        self.threads.discard(id);
    }

    /// Whoever waits in a vfork goes on.
    fn release_waiter<M: Machine>(&mut self, machine: &mut M, waiter: ThreadId) {
        let thread = &mut self.threads[waiter];
        let Some((Owed::Release { pid, .. }, kept)) = thread.owed.take() else {
            unreachable!("a releasing thread has a waiter");
        };
        let role = thread.role;
        machine.answer(kept, &Late::Number(pid));
        if let Role::Member(process) = role {
            self.deliver_pending(machine, process);
        }
    }

    /// What is owed to a thread that is gone, or wants its call back, is dropped, with what was under
    /// way for it.
    fn drop_owed<M: Machine>(
        &mut self,
        machine: &mut M,
        id: ThreadId,
        process: ProcessId,
        owed: Owed,
    ) {
        match owed {
            Owed::Wait { .. } => self.processes[process]
                .waiters
                .retain(|waiter| *waiter != id),
            Owed::Release { by, .. } => self.threads[by].releases = None,
            Owed::Stop(service) => self.processes[service]
                .stoppers
                .retain(|stopper| *stopper != id),
            Owed::Load(load) => self.drop_request(machine, id, load),
            Owed::ShouldStop => {}
        }
    }

    /// A thread wants its call back (a cancel notice): a wait ends with EINTR, what only death may
    /// end goes on.
    pub fn cancel<M: Machine>(&mut self, machine: &mut M, label: u64) {
        let Some((thread, process)) = self.caller(label) else {
            return;
        };
        let owed = &mut self.threads[thread].owed;
        let given_up =
            owed.take_if(|(owed, _)| !matches!(owed, Owed::Release { .. } | Owed::Load(_)));
        let Some((owed, kept)) = given_up else {
            return;
        };
        self.drop_owed(machine, thread, process, owed);
        machine.answer(kept, &Late::Errno(Errno::EINTR));
    }

    /// Makes `child` the youngest child of `parent`.
    #[inline]
    pub(crate) fn adopt(&mut self, parent: ProcessId, child: ProcessId) {
        let record = &self.processes[child];
        let (counts, clone_child) = (record.is_waitable(), record.is_clone_child());
        let tells = counts && record.event != Event::None;
        let owner = &mut self.processes[parent];
        let order = owner.next_order;
        owner.next_order += 1;
        let execs = owner.execs;
        if counts {
            *owner.child_count(clone_child) += 1;
        }
        let links = owner.children.append(child);
        let record = &mut self.processes[child];
        record.sibling = links;
        record.parent = Some(parent);
        record.order = order;
        record.parent_execs = execs;
        links.tell(&mut self.processes, child, |process| &mut process.sibling);
        if tells {
            ready::insert(&mut self.processes, parent, child);
        }
    }

    /// Takes `child` from its parent.
    #[inline(always)]
    fn disown(&mut self, child: ProcessId) {
        let record = &mut self.processes[child];
        let Some(parent) = record.parent.take() else {
            return;
        };
        let (counts, clone_child) = (record.is_waitable(), record.is_clone_child());
        let (links, branches) = (core::mem::take(&mut record.sibling), record.branches);
        let owner = &mut self.processes[parent];
        if counts {
            *owner.child_count(clone_child) -= 1;
        }
        owner.children.detach(links);
        if !ready::remove_alone(owner, child, branches) {
            ready::remove(&mut self.processes, parent, child);
        }
        links.close(&mut self.processes, |process| &mut process.sibling);
    }

    /// Changes which signal tells a process's end, and so which waits see it.
    pub(crate) fn set_exit_signal(&mut self, process: ProcessId, signal: u32) {
        let record = &mut self.processes[process];
        let before = record.is_clone_child();
        record.exit_signal = signal;
        let (after, counts) = (record.is_clone_child(), record.is_waitable());
        if let Some(parent) = record.parent
            && counts
        {
            let owner = &mut self.processes[parent];
            *owner.child_count(before) -= 1;
            *owner.child_count(after) += 1;
        }
    }

    /// Who adopts the children of `dead` (LX-EXIT-04).
    fn reaper_for(&self, dead: ProcessId) -> Option<ProcessId> {
        let mut ancestor = match self.subreapers {
            0 => None,
            _ => self.processes[dead].parent,
        };
        while let Some(id) = ancestor {
            let process = &self.processes[id];
            if process.subreaper && process.is_alive() {
                return Some(id);
            }
            ancestor = process.parent;
        }
        self.init
            .filter(|init| *init != dead && self.processes[*init].is_alive())
    }

    fn reparent_children<M: Machine>(&mut self, machine: &mut M, dead: ProcessId) {
        let reaper = self.reaper_for(dead);
        while let Some(child) = self.processes[dead].children.first() {
            self.disown(child);
            let record = &mut self.processes[child];
            record.creator = None;
            record.exit_signal = SIGCHLD; // LX-EXIT-05
            let ended = record.life == Life::Ended;
            let vanishes = |reaper: ProcessId| {
                ended && self.vanishes(&self.processes[child], &self.processes[reaper])
            };
            match reaper {
                Some(reaper) if !vanishes(reaper) => self.adopt(reaper, child),
                _ if ended => self.bury(machine, child),
                _ => {}
            }
        }
        if let Some(reaper) = reaper {
            self.wake_waiters(machine, reaper);
        }
    }

    /// The end of a process that has been told, or that nobody waits for.
    pub(crate) fn reap<M: Machine>(&mut self, machine: &mut M, id: ProcessId) {
        self.disown(id);
        self.bury(machine, id);
    }

    /// The end of a process that has no parent any more. Its record stays as long as there are
    /// handles on it, and so does its number (W32-EXIT-18).
    #[inline(always)]
    fn bury<M: Machine>(&mut self, machine: &mut M, id: ProcessId) {
        let process = &mut self.processes[id];
        let (pid, kept) = (process.pid, process.handles > 0);
        let (group, links) = (process.group, core::mem::take(&mut process.member));
        let notification = process.notification;
        self.part_from_group(group, links);
        self.pids.update(pid, |entry| {
            entry.process = None;
            entry.reserved |= kept;
        });
        if !kept {
            self.forget_process(machine, id, notification);
        }
    }

    /// The end of a record that nothing refers to.
    #[inline]
    pub(crate) fn forget_process<M: Machine>(
        &mut self,
        machine: &mut M,
        id: ProcessId,
        notification: Handle,
    ) {
        if notification.is_some() {
            machine.close(notification);
        }
        self.processes.discard(id);
    }

    /// Makes a process adopt its orphaned descendants, or not (LX-EXIT-06).
    pub fn set_subreaper(&mut self, process: ProcessId, on: bool) {
        let before = core::mem::replace(&mut self.processes[process].subreaper, on);
        self.subreapers = self.subreapers + u32::from(on) - u32::from(before);
    }
}

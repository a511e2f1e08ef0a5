//! Signals as far as the life of processes needs them (`docs/spec/linux-process.md` section 12).
//!
//! There are no handlers yet, so a signal is ignored, or does what it does by default. Signals
//! that cannot act at once (the process is stopped, or waits for a vfork child) stay pending.

use libipc::abi::{FaultKind, FaultMessage};
use libipc::protocol::process::Errno;

use crate::arena::Arena;
use crate::exit::Ending;
use crate::image::Purpose;
use crate::model::*;
use crate::{Machine, Place, ProcessServer};

/// A child has changed its state.
pub const SIGCHLD: u32 = 17;
/// Ends a process, whatever it wants.
pub const SIGKILL: u32 = 9;
/// Continues a stopped process.
pub const SIGCONT: u32 = 18;
/// Stops a process, whatever it wants.
pub const SIGSTOP: u32 = 19;
/// The highest signal.
pub const LAST: u32 = 64;

/// What a signal does by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ends the process.
    Terminate,
    /// Ends the process; other systems write a core file.
    Core,
    /// Stops it.
    Stop,
    /// Continues it.
    Continue,
    /// Nothing.
    Ignore,
}

/// The default action of a signal.
pub fn default_action(signal: u32) -> Action {
    match signal {
        3 | 4 | 5 | 6 | 7 | 8 | 11 | 24 | 25 | 31 => Action::Core,
        SIGSTOP | 20 | 21 | 22 => Action::Stop,
        SIGCONT => Action::Continue,
        SIGCHLD | 23 | 28 => Action::Ignore,
        _ => Action::Terminate,
    }
}

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// Every stop signal.
const STOPS: u64 = bit(SIGSTOP) | bit(20) | bit(21) | bit(22);

/// The signal and the Win32 exit code that a fault ends a process with (W32-EXIT-17).
fn of_fault(kind: FaultKind) -> (u32, u32) {
    match kind {
        FaultKind::Page => (11, 0xc000_0005),
        FaultKind::Protection => (11, 0xc000_0005),
        FaultKind::InvalidInstruction => (4, 0xc000_001d),
        FaultKind::Divide => (8, 0xc000_0094),
        FaultKind::Breakpoint => (5, 0x8000_0003),
        FaultKind::Debug => (5, 0x8000_0004),
        FaultKind::FloatingPoint => (8, 0xc000_008e),
        FaultKind::Other => (7, 0xc000_0005),
        FaultKind::OutOfMemory => (SIGKILL, 0xc000_0017),
    }
}

/// Several processes that a signal goes to.
#[derive(Clone, Copy)]
enum Targets {
    /// All that take signals, but for this one.
    AllBut(ProcessId),
    /// A group.
    Members(GroupId),
}

impl Targets {
    fn include(self, processes: &Arena<Process>, id: ProcessId) -> bool {
        let process = &processes[id];
        match self {
            Targets::AllBut(caller) => id != caller && is_ordinary(process),
            Targets::Members(group) => process.group == group,
        }
    }
}

/// What became of a thread that faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faulted {
    /// It can go on: what it lacked is there now.
    GoesOn,
    /// Its process ended by a signal.
    Ended {
        /// The process.
        pid: u32,
        /// The signal.
        signal: u32,
    },
    /// It belongs to no process.
    NoProcess,
}

impl ProcessServer {
    /// A thread faulted. Its process ends, or the image that it loads is given up, unless memory was
    /// all that it lacked and there is some now.
    pub fn fault<M: Machine>(
        &mut self,
        machine: &mut M,
        label: u64,
        fault: &FaultMessage,
    ) -> Faulted {
        let load = self.loader(label);
        let caller = self.caller(label);
        let known = load.is_some() || caller.is_some();
        let lacks_memory = fault.kind == FaultKind::OutOfMemory;
        if known && lacks_memory && self.make_room(machine, Place::default()) {
            return Faulted::GoesOn;
        }
        if let Some(load) = load {
            let errno = match fault.kind {
                FaultKind::OutOfMemory => Errno::ENOMEM,
                _ => Errno::ENOEXEC,
            };
            self.load_failed(machine, load, errno);
            return Faulted::NoProcess;
        }
        let Some((_, process)) = caller else {
            return Faulted::NoProcess;
        };
        let pid = self.processes[process].pid;
        let (signal, code) = of_fault(fault.kind);
        // A forced signal is not stopped by dispositions, nor by being PID 1 (LX-SIG-17).
        self.end_process(machine, process, Ending::forced(signal, code));
        Faulted::Ended { pid, signal }
    }

    /// kill (LX-SIG-01, 02).
    pub fn kill<M: Machine>(
        &mut self,
        machine: &mut M,
        caller: ProcessId,
        pid: i32,
        signal: u32,
    ) -> Result<(), Errno> {
        if signal > LAST {
            return Err(Errno::EINVAL);
        }
        let targets = match pid {
            i32::MIN => return Err(Errno::ESRCH),
            1.. => {
                let target = self.process_of_number(pid as u32).ok_or(Errno::ESRCH)?;
                self.send(machine, target, signal);
                return Ok(());
            }
            -1 => Targets::AllBut(caller),
            _ => {
                let group = match pid {
                    0 => Some(self.processes[caller].group),
                    _ => self.group_with(pid.unsigned_abs()),
                };
                Targets::Members(group.ok_or(Errno::ESRCH)?)
            }
        };
        let first = self.next_target(targets, None).ok_or(Errno::ESRCH)?;
        if signal != 0 {
            self.note_for_unborn(targets, signal);
            self.before_ends(machine, |server, machine| {
                let mut at = Some(first);
                while let Some(target) = at {
                    server.send(machine, target, signal);
                    at = server.next_target(targets, at);
                }
            });
        }
        Ok(())
    }

    /// The first target, or the one after another.
    fn next_target(&self, targets: Targets, after: Option<ProcessId>) -> Option<ProcessId> {
        match (targets, after) {
            (Targets::AllBut(_), _) => {
                let behind = |id: &ProcessId| self.processes.next(Some(*id));
                let mut all = core::iter::successors(self.processes.next(after), behind);
                all.find(|id| targets.include(&self.processes, *id))
            }
            (Targets::Members(group), None) => self.groups[group].members.first(),
            (Targets::Members(group), Some(id)) => {
                let members = &self.groups[group].members;
                members.next(&self.processes, id, |process| &process.member)
            }
        }
    }

    /// A signal to a set of processes also reaches children that a member is creating, once they
    /// are there (LX-SIG-19): so nobody escapes a kill of its group.
    fn note_for_unborn(&mut self, targets: Targets, signal: u32) {
        for request in self.loads.iter_mut().flat_map(|load| &mut load.requests) {
            if let Purpose::Create { creator, .. } = request.purpose
                && targets.include(&self.processes, creator.1)
            {
                request.late |= bit(signal);
            }
        }
    }

    /// Delivers what was noted while the child was not visible.
    pub(crate) fn deliver_late<M: Machine>(
        &mut self,
        machine: &mut M,
        process: ProcessId,
        signals: u64,
    ) {
        for signal in 1..=LAST {
            if signals & bit(signal) != 0 && self.processes.get(process).is_some() {
                self.send(machine, process, signal);
            }
        }
    }

    /// Sends a signal to a process; 0 sends nothing.
    pub(crate) fn send<M: Machine>(&mut self, machine: &mut M, target: ProcessId, signal: u32) {
        let process = &mut self.processes[target];
        // Init and the service threads take no signals (LX-SIG-15, LX-KTHREAD-03).
        if signal == 0 || !process.is_alive() || !is_ordinary(process) {
            return;
        }
        let action = default_action(signal);
        match action {
            Action::Continue => {
                process.pending &= !STOPS;
                self.continue_process(machine, target);
                return;
            }
            Action::Stop => process.pending &= !bit(SIGCONT),
            _ => {}
        }
        let process = &self.processes[target];
        let ignored = process
            .dispositions
            .map_or(0, |id| self.dispositions[id].ignored);
        let unstoppable = matches!(signal, SIGKILL | SIGSTOP);
        if action == Action::Ignore || (ignored & bit(signal) != 0 && !unstoppable) {
            return;
        }
        let stopped = process.life == Life::Stopped && signal != SIGKILL;
        // LX-VFORK-07: a core dump waits for the release, a plain end does not.
        let waits = action == Action::Core && self.waits_for_release(target);
        if (stopped && action != Action::Stop) || waits {
            self.processes[target].pending |= bit(signal);
            return;
        }
        match action {
            Action::Stop => self.stop_process(machine, target, signal),
            _ => self.end_process(machine, target, Ending::signalled(signal)),
        }
    }

    fn waits_for_release(&self, process: ProcessId) -> bool {
        let threads = &self.processes[process].threads;
        let mut threads = threads.iter(&self.threads, |thread| &thread.sibling);
        threads.all(|id| matches!(self.threads[id].owed, Some((Owed::Release { .. }, _))))
    }

    /// Delivers what had to wait, after a continue or a release.
    pub(crate) fn deliver_pending<M: Machine>(&mut self, machine: &mut M, process: ProcessId) {
        let Some(record) = self.processes.get_mut(process) else {
            return;
        };
        let pending = core::mem::take(&mut record.pending);
        if pending != 0 {
            self.deliver_late(machine, process, pending);
        }
    }

    fn stop_process<M: Machine>(&mut self, machine: &mut M, target: ProcessId, signal: u32) {
        if self.processes[target].life == Life::Stopped {
            return;
        }
        self.processes[target].life = Life::Stopped;
        let threads = &self.processes[target].threads;
        for thread in threads.iter(&self.threads, |thread| &thread.sibling) {
            machine.suspend(self.threads[thread].handle);
        }
        self.report(machine, target, Event::Stopped(signal));
    }

    fn continue_process<M: Machine>(&mut self, machine: &mut M, target: ProcessId) {
        if self.processes[target].life != Life::Stopped {
            return;
        }
        self.processes[target].life = Life::Running;
        let threads = &self.processes[target].threads;
        for thread in threads.iter(&self.threads, |thread| &thread.sibling) {
            machine.resume(self.threads[thread].handle);
        }
        self.report(machine, target, Event::Continued);
        self.deliver_pending(machine, target);
    }

    /// Ignores a signal or takes its default action again; whether it was ignored.
    pub fn ignore_signal(
        &mut self,
        caller: ProcessId,
        signal: u32,
        ignore: bool,
    ) -> Result<bool, Errno> {
        if signal == 0 || signal > LAST || matches!(signal, SIGKILL | SIGSTOP) {
            return Err(Errno::EINVAL); // LX-SIG-04
        }
        let process = &mut self.processes[caller];
        let dispositions = process.dispositions.ok_or(Errno::ESRCH)?;
        let set = &mut self.dispositions[dispositions].ignored;
        let before = *set & bit(signal) != 0;
        if ignore {
            *set |= bit(signal);
            process.pending &= !bit(signal); // LX-SIG-07
        } else {
            *set &= !bit(signal);
        }
        Ok(before)
    }
}

/// Neither PID 1 nor the service root nor a service thread.
fn is_ordinary(process: &Process) -> bool {
    matches!(process.kind, Kind::Linux | Kind::Win32)
}

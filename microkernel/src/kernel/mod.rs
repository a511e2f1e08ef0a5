//! The kernel's state, and the doors through which the machine enters it.
//!
//! An event kernel: each entry does its work to the end and says what the CPU does next. Nothing
//! here waits, and nothing is kept on a stack between two entries.
//!
//! * [`running`]: who runs: ready, blocked, preempted, timed;
//! * [`lookup`]: from a handle to an object;
//! * [`message`], [`transfer`], [`short`]: sending, receiving and answering;
//! * [`waiting`]: notifications and futexes;
//! * [`fault`]: exceptions and page faults as messages;
//! * [`ending`]: how objects go, in bounded steps.
//!
//! Invariant between two entries: the current thread is runnable and in no queue, or there is none.

pub mod ending;
pub mod fault;
pub mod lookup;
pub mod message;
pub mod running;
pub mod short;
#[cfg(test)]
mod tests;
pub mod transfer;
pub mod waiting;

use crate::cap::{CapTable, Nodes};
use crate::machine::{Interrupt, Machine, Next};
use crate::memory::{Fault, FaultAt, Memory, Pool, Ref};
use crate::object::device::Irq;
use crate::object::{Endpoint, Thread};
use crate::sched::futex::Futexes;
use crate::sched::ready::Ready;
use crate::sched::timers::Timers;
use crate::syscall;
use libipc::abi::{Error, IpcCall, NEVER, OpWord};

/// How many CPUs the scheduler has room for.
pub const CPUS: usize = 8;

/// How many interrupt lines there can be.
pub const LINES: usize = 256;

/// The number of the system call that does nothing.
const NULL_CALL: u64 = 8;
/// The numbers of the message calls that have a short path.
const CALL: u64 = IpcCall::Call as u64;
const REPLY_RECEIVE: u64 = IpcCall::ReplyReceive as u64;

/// What each CPU has for itself.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Who runs here.
    current: Option<Ref<Thread>>,
    /// Who is to run if the current thread cannot go on: it was handed the CPU.
    next: Option<Ref<Thread>>,
    /// Whose context the machine has. Its bases are in the CPU.
    entered: Option<Ref<Thread>>,
    /// Whose FPU state is in the CPU. Only while that thread is entered may programs use the FPU.
    fpu: Option<Ref<Thread>>,
    ready: Ready,
    /// When the running thread's turn is over; `NEVER` while the CPU idles.
    tick_ns: u64,
    /// What the machine's timer is set to.
    timer_ns: u64,
}

impl Cpu {
    const IDLE: Cpu = Cpu {
        current: None,
        next: None,
        entered: None,
        fpu: None,
        ready: Ready::EMPTY,
        tick_ns: NEVER,
        timer_ns: NEVER,
    };
}

/// Objects that are being ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Garbage {
    /// Nodes without slots, and nodes whose children are to be killed.
    pub(crate) nodes: Nodes,
    tables: Option<Ref<CapTable>>,
    endpoints: Option<Ref<Endpoint>>,
    pools: Option<Ref<Pool>>,
    /// The priority of who caused it.
    priority: u8,
}

impl Garbage {
    #[inline]
    fn is_empty(&self) -> bool {
        self.nodes.is_empty()
            && self.tables.is_none()
            && self.endpoints.is_none()
            && self.pools.is_none()
    }
}

/// What was counted since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries into the kernel.
    pub entries: u64,
    /// FPU states loaded.
    pub fpu_switches: u64,
}

/// Why a system call brings no value now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It failed.
    Error(Error),
    /// The thread waits, or its results are set already, or it has ended.
    Done,
    /// Memory that it needs, [`Kernel::lacking`], has to be asked of a pager first; nothing has
    /// changed. The thread faults, and makes the call again.
    Fault,
    /// It has done a part and is to be made again; interrupts get their turn in between.
    Again,
}

/// What a call wanted to do with memory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Read it.
    Read,
    /// Write it.
    Write,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(error)
    }
}

// Every system call returns one, in a register.
const _: () = assert!(size_of::<Stop>() == 1);

/// All state of the kernel.
pub struct Kernel<M: Machine> {
    /// Memory, and the objects in it.
    pub memory: Memory<M>,
    cpus: [Cpu; CPUS],
    pub(crate) timers: Timers,
    pub(crate) futexes: Futexes,
    pub(crate) lines: [Option<Ref<Irq>>; LINES],
    pub(crate) garbage: Garbage,
    counters: Counters,
    /// What the thread lacks whose call ended with [`Stop::Fault`] just now.
    lacking: Option<(FaultAt, Side)>,
    /// The short path is left out.
    #[cfg(test)]
    long_only: bool,
}

impl<M: Machine> Kernel<M> {
    /// A kernel without threads.
    pub fn new(memory: Memory<M>) -> Kernel<M> {
        Kernel {
            memory,
            cpus: [Cpu::IDLE; CPUS],
            timers: Timers::default(),
            futexes: Futexes::EMPTY,
            lines: [None; LINES],
            garbage: Garbage::default(),
            counters: Counters::default(),
            lacking: None,
            #[cfg(test)]
            long_only: false,
        }
    }

    /// What was counted since boot.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The number of the CPU that runs this.
    #[inline]
    fn here(&self) -> usize {
        self.memory.machine().cpu() % CPUS
    }

    /// The CPU that runs this.
    #[inline]
    fn cpu(&self) -> &Cpu {
        &self.cpus[self.here()]
    }

    /// The same, to be changed.
    #[inline]
    fn cpu_mut(&mut self) -> &mut Cpu {
        let here = self.here();
        &mut self.cpus[here]
    }

    /// The same, and beside it what its ready queue links its threads in.
    #[inline]
    fn cpu_and_memory(&mut self) -> (&mut Cpu, &mut Memory<M>) {
        let here = self.here();
        (&mut self.cpus[here], &mut self.memory)
    }

    /// The thread that runs on this CPU.
    #[inline]
    pub fn current(&self) -> Option<Ref<Thread>> {
        self.cpu().current
    }

    /// The thread that makes the call that is being carried out.
    #[inline]
    pub(crate) fn caller(&self) -> Ref<Thread> {
        self.current().expect("a system call has a caller")
    }

    #[inline]
    fn enter(&mut self) {
        self.counters.entries += 1;
    }

    /// Door: the current thread made a system call.
    #[inline(always)]
    pub fn syscall(&mut self) -> Next {
        self.enter();
        let thread = self.caller();
        let operation = self.memory.get(thread).context.operation();
        // A message without flags may take the short path.
        let taken = match operation & 0xffff {
            NULL_CALL => {
                self.memory.get_mut(thread).context.set_status(0);
                true
            }
            CALL => self.short_call::<false>(thread, operation).is_some(),
            REPLY_RECEIVE => self
                .short_reply_receive::<false>(thread, operation)
                .is_some(),
            _ => false,
        };
        if taken {
            return Next::Resume;
        }
        // The message calls have the lowest numbers.
        let number = operation as u8;
        if number > NULL_CALL as u8 {
            return self.plain_call(thread, operation);
        }
        let operation = OpWord(operation);
        match IpcCall::from_number(number) {
            Some(IpcCall::Call | IpcCall::ReplyReceive | IpcCall::Receive)
                if self.short_beside(thread, operation) =>
            {
                Next::Resume
            }
            Some(call) => self.message_call(thread, call, operation),
            None => self.plain_call(thread, operation.0),
        }
    }

    /// A plain call. Not inlined, so that the short path saves no registers for it.
    #[inline(never)]
    fn plain_call(&mut self, thread: Ref<Thread>, operation: u64) -> Next {
        match syscall::dispatch(self, thread, operation as u8) {
            Ok(()) | Err(Stop::Done) => {}
            Err(stop) => self.plain_call_stopped(thread, stop),
        }
        self.leave()
    }

    #[cold]
    fn plain_call_stopped(&mut self, thread: Ref<Thread>, stop: Stop) {
        self.stopped(thread, stop, |context, error| {
            context.set_results(error as u64, [0; 2]);
        });
    }

    /// What to do about memory that a call needs and could not be resolved.
    #[cold]
    pub(crate) fn stop_to_fault(&mut self, at: FaultAt, side: Side) -> Stop {
        match at.fault {
            Fault::Pager { .. } => {
                self.lacking = Some((at, side));
                Stop::Fault
            }
            fault => Stop::Error(fault.into()),
        }
    }

    /// A call stops short of a result.
    fn stopped(
        &mut self,
        thread: Ref<Thread>,
        stop: Stop,
        fail: impl FnOnce(&mut crate::object::context::Context, Error),
    ) {
        match stop {
            Stop::Error(error) => fail(&mut self.memory.get_mut(thread).context, error),
            Stop::Done => {}
            Stop::Fault => {
                self.memory.get_mut(thread).context.restart_syscall();
                let (at, side) = self.lacking.take().expect("it was noted");
                self.memory_fault(thread, at, side);
            }
            Stop::Again => self.memory.get_mut(thread).context.restart_syscall(),
        }
    }

    /// Door: the machine's timer, or a device.
    pub fn interrupt(&mut self, interrupt: Interrupt) -> Next {
        self.enter();
        match interrupt {
            Interrupt::Timer => self.timer(),
            Interrupt::Line(line) => self.line(line),
        }
        self.leave()
    }

    /// Lets the first thread run.
    pub fn start(&mut self) -> Next {
        self.enter();
        self.leave()
    }
}

#[cfg(test)]
impl<M: Machine> Kernel<M> {
    /// Lets a runnable thread run now, whoever ought to.
    pub fn force(&mut self, thread: Ref<Thread>) {
        if self.current() == Some(thread) {
            return;
        }
        if let Some(current) = self.current() {
            self.cpu_mut().current = None;
            self.let_run(current);
        }
        self.stop_running(thread);
        assert!(self.run(thread), "its space has ended");
        self.cpu_mut().ready.set_undecided(false);
    }

    /// Whether the short path is to be left out, to compare with the long one.
    pub fn set_long_only(&mut self, long_only: bool) {
        self.long_only = long_only;
    }
}

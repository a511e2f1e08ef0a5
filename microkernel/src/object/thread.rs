//! Threads: registers, where they run, what they wait for and what they owe.
//!
//! Suspension is a count beside the state, so a suspended thread still completes its IPC; it only
//! does not run. A thread runs or is in its CPU's ready queue exactly if its state is
//! [`State::Ready`] and the count is 0.
//!
//! Invariant: a thread in state Sending or Receiving is in its endpoint's queue; one in state
//! Answer is named by exactly one holder (the thread that received its message last, or a
//! reply), which names it back; in no other state does anybody hold it.

use super::context::Context;
use super::{Endpoint, Notification, Reply, Waiter};
use crate::cap::{Cap, CapTable, Node};
use crate::memory::{Frame, FutexKey, Object, ObjectKind, Ref, Space};
use crate::sched::timers::TimerNode;
use bitflags::bitflags;
use libipc::abi::{FaultMessage, Handle, MessageKind, TableSelector};

/// What a thread does, suspension aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It runs, or could.
    Ready,
    /// Its message waits for a receiver.
    Sending,
    /// It waits for a message.
    Receiving,
    /// Its message was received; it waits for the answer.
    Answer,
    /// It waits for notifications.
    Waiting,
    /// It waits for a futex.
    Futex,
    /// It has ended.
    Ended,
}

/// The answer that a thread owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// None.
    Nothing,
    /// To this caller.
    Caller(Ref<Thread>),
    /// To a caller that has gone.
    Gone,
}

/// Who is to answer a received call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody: the thread does not wait for an answer.
    Nobody,
    /// The thread that received it last.
    Thread(Ref<Thread>),
    /// Whoever has this reply.
    Reply(Ref<Reply>),
}

/// The message that a thread sends, or the place where it receives.
pub struct Message {
    /// Where it was sent or is received. The thread holds it while it waits.
    pub endpoint: Option<Ref<Endpoint>>,
    /// The grant that was used; a hold on it while the message is queued.
    pub node: Option<Ref<Node>>,
    /// That grant's badge.
    pub badge: u64,
    /// The access mask of the capability that was used.
    pub access: u32,
    /// Call, send or fault.
    pub kind: MessageKind,
    /// Only death ends the wait.
    pub killable_only: bool,
    /// Its server has been, or is to be, told that the caller wants it back.
    pub cancelled: bool,
}

/// Where a thread takes what does not fit the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Address of its buffer for the rest of a body.
    pub address: u64,
    /// Size of the buffer in bytes.
    pub bytes: u64,
    /// The table for capabilities, and the lowest slot to use.
    pub slots: Handle,
}

impl Room {
    /// No room for anything.
    pub const NONE: Room = Room {
        address: 0,
        bytes: 0,
        slots: Handle::NONE,
    };
}

bitflags! {
    /// What is unusual about a thread and keeps it from the short path of messages, in one word.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Unusual: u8 {
        /// Its count of suspensions is not 0.
        const SUSPENDED = 1 << 0;
        /// Its deadline runs.
        const TIMED = 1 << 1;
        /// A fault is its message.
        const FAULTED = 1 << 2;
        /// It is in its endpoint's queue of cancel notices.
        const CANCEL_QUEUED = 1 << 3;
        /// An interrupt came while only death could end the wait.
        const INTERRUPTED = 1 << 4;
    }
}

/// A thread.
#[repr(C)]
pub struct Thread {
    /// Its user registers. First, so that the entry code finds them.
    pub context: Context,

    // Who it is. Set by whoever made it.
    /// What receivers of its messages learn.
    pub label: u64,
    /// Where it runs; a hold. `None` once it has ended.
    pub space: Option<Ref<Space>>,
    /// What its maker may do with that space.
    pub space_access: u32,
    /// Its tables, by [`TableSelector`]; holds. The fourth place, which no handle means, is empty.
    pub tables: [Option<Ref<CapTable>>; 4],
    /// Who gets its faults.
    pub exceptions: Option<Cap>,
    /// Where a 0 is stored when it ends; 0: nowhere.
    pub clear_address: u64,

    // Running.
    /// What it does.
    pub state: State,
    /// 0 (lowest) to 31.
    pub priority: u8,
    /// What keeps it from the short path.
    pub(crate) unusual: Unusual,
    /// It is in its CPU's ready queue.
    pub queued: bool,
    /// It runs only when this is 0.
    suspends: u32,
    /// Neighbours in the queue that it is in.
    pub links: Option<[Ref<Thread>; 2]>,
    /// Its deadline.
    pub timer: TimerNode,
    /// Nanoseconds that it ran, by the scheduler's tick.
    pub ran_ns: u64,

    // Waiting.
    /// The message in flight.
    pub message: Message,
    /// In state Answer, if its call has a memory part: the room for the answer.
    pub room: Room,
    /// Who is to answer it.
    pub holder: Holder,
    /// Whom it is to answer.
    pub owed: Owed,
    /// What happened, while a fault is its message.
    fault: Option<FaultMessage>,
    /// The notification that it waits for, if its call is the one for one.
    pub(crate) waits_for: Option<Ref<Notification>>,
    /// Links to notifications that it waits for, and spare ones.
    pub waiters: Option<Ref<Waiter>>,
    /// Notifications to be told of its end.
    pub watches: Option<Ref<Waiter>>,
    /// The word that it waits for in state Futex.
    pub futex: Option<FutexKey>,
    /// How far a call that is cut into steps has come: its op word and first argument, and a mark.
    pub progress: Option<(u64, u64, u64)>,

    // Its life.
    /// Capabilities that refer to it.
    pub holds: u32,
    /// Where its FPU state is saved; the machine's affair.
    pub fpu: Option<Frame>,
}

impl Object for Thread {
    const KIND: ObjectKind = ObjectKind::Thread;
}

const _: () = assert!(core::mem::offset_of!(Thread, context) == 0);
const _: () = assert!(size_of::<Thread>() <= 1024);

/// The priority of a new thread.
pub const FIRST_PRIORITY: u8 = 8;
/// The highest priority.
pub const HIGHEST_PRIORITY: u8 = 31;

impl Thread {
    /// A thread that is nowhere yet: all registers zero, suspended once, with one hold.
    #[allow(
        clippy::new_without_default,
        reason = "there is nothing usual about it"
    )]
    pub fn new() -> Thread {
        // A constant, to be copied whole.
        const {
            Thread {
                context: Context::ZERO,
                label: 0,
                space: None,
                space_access: 0,
                tables: [None; 4],
                exceptions: None,
                clear_address: 0,
                state: State::Ready,
                priority: FIRST_PRIORITY,
                unusual: Unusual::SUSPENDED,
                queued: false,
                suspends: 1,
                links: None,
                timer: TimerNode::IDLE,
                ran_ns: 0,
                message: Message {
                    endpoint: None,
                    node: None,
                    badge: 0,
                    access: 0,
                    kind: MessageKind::Call,
                    killable_only: false,
                    cancelled: false,
                },
                room: Room::NONE,
                holder: Holder::Nobody,
                owed: Owed::Nothing,
                fault: None,
                waits_for: None,
                waiters: None,
                watches: None,
                futex: None,
                progress: None,
                holds: 1,
                fpu: None,
            }
        }
    }

    /// How often it was suspended and not resumed; it runs only when this is 0.
    #[inline]
    pub fn suspends(&self) -> u32 {
        self.suspends
    }

    /// Changes that count.
    pub fn set_suspends(&mut self, suspends: u32) {
        self.suspends = suspends;
        self.unusual.set(Unusual::SUSPENDED, suspends > 0);
    }

    /// What happened, while a fault is its message.
    #[inline]
    pub fn fault(&self) -> Option<&FaultMessage> {
        self.fault.as_ref()
    }

    /// Makes a fault its message, or no longer.
    pub fn set_fault(&mut self, fault: Option<FaultMessage>) {
        self.unusual.set(Unusual::FAULTED, fault.is_some());
        self.fault = fault;
    }

    /// Whether it runs or could run now.
    #[inline]
    pub fn is_runnable(&self) -> bool {
        self.state == State::Ready && self.suspends == 0
    }

    /// Whether its registers are in [`Thread::context`] and stay there for now: it waits or is
    /// suspended.
    pub fn is_stopped(&self) -> bool {
        self.state != State::Ready || self.suspends > 0
    }

    /// One of its tables.
    #[inline]
    pub fn table(&self, selector: TableSelector) -> Option<Ref<CapTable>> {
        self.tables[selector as usize]
    }

    /// The state as `thread_status` gives it.
    pub fn status_word(&self) -> u64 {
        let state = match self.state {
            State::Ready => 0,
            State::Ended => 2,
            _ => 1,
        };
        state | (self.suspends as u64) << 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_thread_runs_only_after_it_was_resumed() {
        let mut thread = Thread::new();
        assert!(!thread.is_runnable() && thread.is_stopped());
        assert_eq!(thread.status_word(), 1 << 8);
        thread.set_suspends(0);
        assert!(thread.is_runnable() && !thread.is_stopped());
        thread.state = State::Answer;
        assert!(!thread.is_runnable() && thread.is_stopped());
        assert_eq!(thread.status_word(), 1);
    }
}

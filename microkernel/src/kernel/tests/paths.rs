//! The short path of messages and signals does what the long one does.

use crate::memory::Ref;
use crate::object::{State, Thread};
use crate::testkit::{EXTENDED, RECEIVE, Rig, SEND, pattern};
use libipc::abi::{
    Extended, Handle, IpcCall, IpcFlags, NEVER, OpWord, Registers, SendCap, initial,
};
use proptest::prelude::*;

const NOTIFICATION_WAIT: u64 = 99;

/// What there is to compare of a thread.
#[derive(Debug, PartialEq)]
struct Seen {
    registers: Registers,
    state: State,
    owes: bool,
    runs: bool,
}

struct Scene {
    rig: Rig,
    threads: Vec<(Handle, Ref<Thread>)>,
    receivers: [Handle; 2],
    senders: [Handle; 2],
    notification: Handle,
    /// One that is not bound to an endpoint.
    unbound: Handle,
    /// Replies that were kept.
    kept: Vec<Handle>,
}

impl Scene {
    fn new(long_only: bool) -> Scene {
        let mut rig = Rig::new(256);
        let (one, to_one) = rig.endpoint(11, 0xf0f0);
        let (two, to_two) = rig.endpoint(22, 0x0f0f);
        let root = rig.root;
        let notification = rig.notification_create(root, initial::POOL, 0).unwrap();
        rig.endpoint_bind(root, two, notification).unwrap();
        let unbound = rig.notification_create(root, initial::POOL, 0b100).unwrap();
        let threads = (0..4)
            .map(|label| rig.thread_in(initial::POOL, label))
            .collect();
        rig.kernel.set_long_only(long_only);
        Scene {
            rig,
            threads,
            receivers: [one, two],
            senders: [to_one, to_two],
            notification,
            unbound,
            kept: Vec::new(),
        }
    }

    fn step(&mut self, &(what, who, which, length, part, word): &Step) {
        let (handle, thread) = self.threads[who];
        let root = self.rig.root;
        let call = match what {
            0..4 => IpcCall::Call,
            4..9 => IpcCall::ReplyReceive,
            9..11 => IpcCall::Receive,
            11 => IpcCall::Reply,
            12 => IpcCall::Send,
            13 => return self.rig.thread_interrupt(root, handle).unwrap(),
            14 => {
                let _ = self.rig.thread_suspend(root, handle);
                return;
            }
            15 => {
                let _ = self.rig.thread_resume(root, handle);
                return;
            }
            16 => {
                let priority = word % 9;
                return self
                    .rig
                    .thread_set_priority(root, handle, priority)
                    .unwrap();
            }
            17 => return self.rig.signal(root, self.notification, word | 1).unwrap(),
            18 => return self.rig.signal(root, self.unbound, word & 0b111).unwrap(),
            19 => {
                let all = self.rig.notification_clear(root, self.unbound, word);
                return all.map(drop).unwrap();
            }
            20..22 => IpcCall::Reply,
            22..24 => {
                if self.rig.kernel.memory.get(thread).is_runnable()
                    && let Ok(reply) = self.rig.reply_keep(thread)
                {
                    self.kept.push(reply);
                }
                return;
            }
            _ => {
                if self.rig.kernel.memory.get(thread).is_runnable() {
                    let (mask, consume) = (word & 0b111, which as u64);
                    let arguments = [self.unbound.0, mask, consume, NEVER, 0, 0, 0, 0, 0, 0];
                    self.rig.enter(thread, NOTIFICATION_WAIT, arguments);
                }
                return;
            }
        };
        if !self.rig.kernel.memory.get(thread).is_runnable() {
            return;
        }
        let target = match call {
            IpcCall::Call | IpcCall::Send => self.senders[which],
            IpcCall::Reply if what == 11 => Handle::NONE,
            IpcCall::Reply => self.kept.pop().unwrap_or(self.unbound),
            _ => self.receivers[which],
        };
        let extended = self.memory_part(thread, part, word);
        let caps = extended.map_or(0, |extended| {
            let sent = extended.send_caps.iter().filter(|cap| cap.handle.is_some());
            sent.count()
        });
        let flags = match what {
            3 => IpcFlags::KILLABLE_ONLY,
            _ => IpcFlags::empty(),
        };
        let operation = OpWord::new(call, flags, length, caps);
        let body = core::array::from_fn(|at| match at * 8 < length {
            true => word.wrapping_mul(at as u64 + 1),
            false => 0,
        });
        self.rig
            .message_with(thread, operation, target, extended, body);
    }

    /// The memory part of a message, if it has one: with nothing but the buffers, with a copy of a
    /// capability, or with the capability that came last, which moves, and a copy of the same.
    fn memory_part(&mut self, thread: Ref<Thread>, part: u8, word: u64) -> Option<Extended> {
        if part == 0 {
            return None;
        }
        let received = EXTENDED + core::mem::offset_of!(Extended, received) as u64;
        let last = Handle(self.rig.peek_word(thread, received));
        self.rig.poke(thread, SEND, &pattern(200, word as u8));
        let mut extended = Extended {
            send: SEND,
            receive: RECEIVE,
            // Too small for some.
            receive_bytes: 100,
            ..Extended::EMPTY
        };
        let caps: &[SendCap] = match part {
            1 => &[],
            2 => &[SendCap::copy(self.notification)],
            _ => &[SendCap::moved(last), SendCap::copy(last)],
        };
        extended.send_caps[..caps.len()].copy_from_slice(caps);
        extended.received[0] = last;
        Some(extended)
    }

    /// What messages left in memory.
    fn memory(&mut self) -> [Vec<u8>; 2] {
        let root = self.rig.root;
        [
            self.rig.peek(root, EXTENDED, size_of::<Extended>()),
            self.rig.peek(root, RECEIVE, 200),
        ]
    }

    fn bits(&mut self) -> u64 {
        let root = self.rig.root;
        let bits = self.rig.notification_clear(root, self.unbound, u64::MAX);
        let bits = bits.unwrap();
        // Nobody waits for what was there, so it wakes nobody now.
        self.rig.signal(root, self.unbound, bits).unwrap();
        bits
    }

    fn seen(&self) -> Vec<Seen> {
        let threads = self.threads.iter().map(|&(_, thread)| {
            let entry = self.rig.kernel.memory.get(thread);
            let mut registers = entry.context.registers();
            // A message's registers past its length mean nothing.
            if entry.state == State::Ready {
                let words = libipc::abi::Delivery(registers.rax).length().div_ceil(8);
                let body = [
                    &mut registers.rdx,
                    &mut registers.r8,
                    &mut registers.r9,
                    &mut registers.r10,
                    &mut registers.r12,
                    &mut registers.r13,
                    &mut registers.r14,
                    &mut registers.r15,
                ];
                for word in body.into_iter().skip(words) {
                    *word = 0;
                }
            }
            if entry.state == State::Receiving {
                // What waits to be overwritten.
                registers = Registers::default();
            }
            Seen {
                registers,
                state: entry.state,
                owes: entry.owed != crate::object::Owed::Nothing,
                runs: entry.is_runnable(),
            }
        });
        threads.collect()
    }
}

type Step = (u8, usize, usize, usize, u8, u64);

proptest! {
    #[test]
    fn the_short_path_and_the_long_path_agree(
        steps in prop::collection::vec(
            (0u8..28, 0usize..4, 0usize..2, 0usize..200, 0u8..4, any::<u64>()), 1..80
        )
    ) {
        let (mut short, mut long) = (Scene::new(false), Scene::new(true));
        for step in &steps {
            short.step(step);
            long.step(step);
            prop_assert_eq!(short.seen(), long.seen());
            prop_assert_eq!(short.bits(), long.bits());
            prop_assert_eq!(short.memory(), long.memory());
        }
    }
}

//! The short path of messages and signals does what the long one does.

use crate::memory::Ref;
use crate::object::thread::Holder;
use crate::object::{Owed, Reply, State, Thread};
use crate::testkit::{CALL_SITE, EXTENDED, RECEIVE, Rig, SEND, pattern};
use libipc::abi::{
    Access, Extended, Handle, IpcCall, IpcFlags, Kind, NEVER, OpWord, REPLY_BYTES, REPLY_WORD,
    Registers, SendCap, initial,
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
    now_ns: u64,
    receivers: [Handle; 2],
    senders: [Handle; 2],
    notification: Handle,
    /// One that is not bound to an endpoint.
    unbound: Handle,
    /// Two replies, one of them once more without the right to keep a call, and what is none.
    replies: [Handle; 4],
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
        let [first, second] = [rig.reply(), rig.reply()];
        let answers_only = rig
            .cap_derive(root, second, initial::POOL, 0, Access::empty())
            .unwrap();
        rig.kernel.set_long_only(long_only);
        let mut scene = Scene {
            rig,
            threads: Vec::new(),
            now_ns: 0,
            receivers: [one, two],
            senders: [to_one, to_two],
            notification,
            unbound,
            replies: [first, second, answers_only, unbound],
        };
        scene.threads = (0..4).map(|label| scene.thread(label)).collect();
        scene
    }

    /// A thread that runs, and whose faults go to the first endpoint.
    fn thread(&mut self, label: u64) -> (Handle, Ref<Thread>) {
        let root = self.rig.root;
        self.rig.run(root);
        let (handle, thread) = self.rig.thread_in(initial::POOL, label);
        self.rig.run(root);
        let exceptions = self.rig.kernel.hold_sender(self.senders[0]).unwrap();
        self.rig.kernel.memory.get_mut(thread).exceptions = exceptions;
        (handle, thread)
    }

    /// Others take the places of those that have ended.
    fn replace_dead(&mut self) {
        for place in 0..self.threads.len() {
            let (handle, thread) = self.threads[place];
            if self.rig.state(thread) == State::Ended {
                self.rig.thread_end(self.rig.root, handle, 1).unwrap();
                self.threads[place] = self.thread(place as u64);
            }
        }
    }

    fn step(&mut self, &(what, who, which, length, part, word): &Step) {
        self.replace_dead();
        let (handle, thread) = self.threads[who];
        let root = self.rig.root;
        if self.first_from(0, |_, _| true).is_none() {
            // All wait for each other: one gives up.
            let start = self.rig.thread_start(root, handle, CALL_SITE, 0x7000, 0);
            return start.unwrap();
        }
        let reply = self.reply(word);
        let call = match what {
            0..4 => IpcCall::Call,
            4..9 => IpcCall::ReplyReceive,
            9..=10 | 24..=26 | 28..31 => IpcCall::Receive,
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
            20..=21 => IpcCall::Reply,
            22..=23 => {
                if let Some(thread) = self.first_from(who, Self::owes) {
                    let _ = self.rig.reply_keep(thread, reply);
                }
                return;
            }
            31..36 | 45..=46 => IpcCall::ReplyReceive,
            36 => return self.rig.thread_end(root, handle, 0).unwrap(),
            37..=38 => {
                if let Some(thread) = self.first_from(who, |_, _| true) {
                    self.rig.fault(thread, 6, 0, 0);
                }
                return;
            }
            39 => {
                self.now_ns += word % 2000;
                return self.rig.sleep_until(self.now_ns);
            }
            40 => {
                // Whoever waits there is given up, and so is the right to answer.
                let _ = self.rig.cap_close(root, self.replies[which]);
                let _ = self.rig.cap_close(root, self.replies[2]);
                self.replies[which] = self.rig.reply();
                let pool = initial::POOL;
                let narrow = self
                    .rig
                    .cap_derive(root, self.replies[1], pool, 0, Access::empty());
                self.replies[2] = narrow.unwrap();
                return;
            }
            41 => return self.rig.cap_revoke(root, self.replies[1]).unwrap(),
            42..=44 => IpcCall::Receive,
            _ => {
                if self.rig.kernel.memory.get(thread).is_runnable() {
                    let (mask, consume) = (word & 0b111, which as u64);
                    let arguments = [self.unbound.0, mask, consume, NEVER, 0, 0, 0, 0, 0, 0];
                    self.rig.enter(thread, NOTIFICATION_WAIT, arguments);
                }
                return;
            }
        };
        // Who can do it: to keep a call, one that has it.
        let keeper = match what {
            28..31 | 43 => self.first_from(who, Self::owes),
            _ => None,
        };
        let Some(thread) = keeper.or(self.first_from(who, |_, _| true)) else {
            return;
        };
        let target = match call {
            IpcCall::Call | IpcCall::Send => self.senders[which],
            IpcCall::Reply if what == 11 => Handle::NONE,
            IpcCall::Reply => reply,
            _ => self.receivers[which],
        };
        let has_deadline = matches!(what, 0 | 42..=46);
        let part = if has_deadline { part.max(1) } else { part };
        let mut extended = self.memory_part(thread, part, word);
        if let Some(extended) = &mut extended {
            extended.deadline = self.now_ns + word % 1500;
        }
        let caps = extended.map_or(0, |extended| {
            let sent = extended.send_caps.iter().filter(|cap| cap.handle.is_some());
            sent.count()
        });
        let flags = match what {
            3 => IpcFlags::KILLABLE_ONLY,
            0 | 42 | 44 | 46 => IpcFlags::DEADLINE,
            43 | 45 => IpcFlags::REPLY | IpcFlags::DEADLINE,
            28.. => IpcFlags::REPLY,
            _ => IpcFlags::empty(),
        };
        let names_reply = flags.contains(IpcFlags::REPLY);
        let length = match names_reply {
            true => length % (REPLY_BYTES + 2),
            false => length,
        };
        let operation = OpWord::new(call, flags, length, caps);
        let mut body = core::array::from_fn(|at| match at * 8 < length {
            true => word.wrapping_mul(at as u64 + 1),
            false => 0,
        });
        if names_reply {
            body[REPLY_WORD] = reply.0;
        }
        self.rig
            .message_with(thread, operation, target, extended, body);
    }

    /// A reply; three times out of four one that keeps a call, if there is one.
    fn reply(&self, word: u64) -> Handle {
        let busy = self.kept().iter().position(Option::is_some);
        match busy {
            Some(place) if word & 0b1100 != 0 => self.replies[place],
            _ => self.replies[word as usize % self.replies.len()],
        }
    }

    /// The first thread from this number on, around, that can make a call and is such a one.
    fn first_from(
        &self,
        who: usize,
        is: impl Fn(&Self, Ref<Thread>) -> bool,
    ) -> Option<Ref<Thread>> {
        let threads = self.threads[who..].iter().chain(&self.threads[..who]);
        let mut threads = threads.map(|&(_, thread)| thread);
        threads.find(|&thread| self.rig.kernel.memory.get(thread).is_runnable() && is(self, thread))
    }

    fn owes(&self, thread: Ref<Thread>) -> bool {
        matches!(self.rig.kernel.memory.get(thread).owed, Owed::Caller(_))
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

    /// The labels of those whose calls are kept.
    fn kept(&self) -> [Option<u64>; 2] {
        [self.replies[0], self.replies[1]].map(|reply| {
            let found = self.rig.kernel.find_in(self.rig.root, reply).unwrap();
            let reply: Ref<Reply> = found.object(Kind::Reply, Access::empty()).unwrap();
            let caller = self.rig.kernel.memory.get(reply).caller()?;
            let entry = self.rig.kernel.memory.get(caller);
            assert_eq!(entry.holder, Holder::Reply(reply));
            Some(entry.label)
        })
    }

    fn seen(&self) -> Vec<Seen> {
        let threads = self.threads.iter().map(|&(_, thread)| {
            let entry = self.rig.kernel.memory.get(thread);
            let mut registers = entry.context.registers();
            // A message's registers past its length mean nothing.
            if entry.state == State::Ready || entry.state == State::Ended {
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
            if entry.state == State::Receiving || entry.fault().is_some() {
                // What waits to be overwritten, or is of no more interest.
                registers = Registers::default();
            }
            Seen {
                registers,
                state: entry.state,
                owes: entry.owed != Owed::Nothing,
                runs: entry.is_runnable(),
            }
        });
        threads.collect()
    }
}

type Step = (u8, usize, usize, usize, u8, u64);

proptest! {
    // Some paths take many steps to get to.
    #![proptest_config(ProptestConfig::with_cases(2048))]
    #[test]
    fn the_short_path_and_the_long_path_agree(
        steps in prop::collection::vec(
            (0u8..47, 0usize..4, 0usize..2, 0usize..200, 0u8..4, any::<u64>()), 1..200
        )
    ) {
        let (mut short, mut long) = (Scene::new(false), Scene::new(true));
        for step in &steps {
            short.step(step);
            long.step(step);
            prop_assert_eq!(short.seen(), long.seen());
            prop_assert_eq!(short.kept(), long.kept());
            prop_assert_eq!(short.bits(), long.bits());
            prop_assert_eq!(short.memory(), long.memory());
        }
    }
}

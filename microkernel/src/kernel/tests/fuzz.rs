//! Random system calls with random arguments: the kernel lives on, its books stay in order, and
//! what was made goes with the pool that paid.

use crate::machine::{Exception, Interrupt};
use crate::memory::Ref;
use crate::object::thread::Holder;
use crate::object::{Owed, State, Thread};
use crate::testkit::{DATA, Rig, SCRATCH};
use libipc::abi::{Handle, IpcCall, IpcFlags, REPLY_WORD, TableSelector, initial};
use libipc::syscall::{ARGUMENTS, TABLE};

/// A generator of random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Number of the calls that are left out: yes, the machine may be switched off.
const POWER: u64 = 113;

/// A thread in the sandbox with capabilities to almost everything there.
struct Sandbox {
    pool: Handle,
    threads: Vec<(Handle, Ref<Thread>)>,
    /// The same handles in each of them.
    replies: [Handle; 2],
}

fn sandbox(rig: &mut Rig) -> Sandbox {
    let root = rig.root;
    let pool = rig.pool_create(root, initial::POOL, 400).unwrap();
    let threads: Vec<_> = (0..3).map(|label| rig.stranger(pool, label)).collect();
    let receiver = rig.endpoint_create(root, pool, 0).unwrap();
    let sender = rig
        .cap_derive(root, receiver, pool, 3, libipc::abi::Access::all())
        .unwrap();
    let notification = rig.notification_create(root, pool, 0b1000).unwrap();
    let inner = rig.pool_create(root, pool, 200).unwrap();
    let space = rig.space_create(root, pool, sender).unwrap();
    let table = rig.table_create(root, pool).unwrap();
    let ports = rig
        .ports_narrow(root, initial::IO_PORTS, pool, 0, 8)
        .unwrap();
    let replies = [(); 2].map(|()| rig.reply_create(root, pool).unwrap());
    let made = [
        receiver,
        sender,
        notification,
        inner,
        space,
        table,
        ports,
        replies[0],
        replies[1],
    ];
    let mut given = made;
    for &(handle, thread) in &threads {
        given = made.map(|capability| rig.give_to(thread, capability));
        rig.give_to(thread, pool);
        rig.give_to(thread, handle);
        let own = rig.kernel.memory.get(thread).space.unwrap();
        rig.kernel
            .hold_object(libipc::abi::Kind::Space, own.to_bits())
            .unwrap();
        let payer = rig.pool_of(pool);
        let node = rig
            .kernel
            .memory
            .node_create(payer, libipc::abi::Kind::Space, own.to_bits());
        let table = rig.table_of(thread);
        let flags = Default::default();
        let put = rig
            .kernel
            .memory
            .table_put(table, 0, node.unwrap(), u32::MAX, flags);
        put.unwrap();
    }
    for capability in made {
        rig.cap_close(root, capability).unwrap();
    }
    for &(handle, _) in &threads {
        rig.cap_close(root, handle).unwrap();
    }
    let [.., first, second] = given;
    Sandbox {
        pool,
        threads,
        replies: [first, second],
    }
}

/// An argument: a handle, an address, a small or a large number.
fn argument(random: &mut Random, now_ns: u64) -> u64 {
    match random.below(12) {
        0..=4 => {
            let generation = random.pick(&[1, 1, 1, 1, 2, 3, 0]);
            let table = random.pick(&[
                TableSelector::Private,
                TableSelector::Private,
                TableSelector::Private,
                TableSelector::Files,
            ]);
            Handle::new(table, random.below(24) as u32, generation).0
        }
        5 => {
            random
                .pick(&[Handle::OWN_FILES, Handle::OWN_PRIVATE, Handle::NONE])
                .0
        }
        6 => DATA + random.below(17) * 4096,
        7 => SCRATCH + random.below(4096),
        8 => random.below(4),
        9 => now_ns + random.below(1000),
        10 => random.below(5000),
        _ => random.next() >> random.below(64),
    }
}

/// Whoever waits for an answer and whoever owes it name each other.
fn check_answers(rig: &Rig, thread: Ref<Thread>) {
    let memory = &rig.kernel.memory;
    let entry = memory.get(thread);
    match entry.holder {
        Holder::Nobody => {}
        Holder::Thread(server) => assert_eq!(memory.get(server).owed, Owed::Caller(thread)),
        Holder::Reply(reply) => assert_eq!(memory.get(reply).caller(), Some(thread)),
    }
    let is_held = entry.holder != Holder::Nobody;
    assert_eq!(entry.state == State::Answer, is_held);
    if let Owed::Caller(caller) = entry.owed {
        assert_eq!(memory.get(caller).holder, Holder::Thread(thread));
    }
}

fn play(seed: u64, calls: u32) {
    let mut random = Random(seed);
    let mut rig = Rig::new(2048);
    let root = rig.root;
    let mut free = None;
    // The second round has to leave what the first one left.
    for _ in 0..2 {
        let Sandbox {
            pool,
            threads,
            replies,
        } = sandbox(&mut rig);
        let mut now_ns = rig.kernel.memory.machine().now_ns;
        for _ in 0..calls {
            for &(_, thread) in &threads {
                if rig.kernel.memory.is_live(thread) {
                    check_answers(&rig, thread);
                }
            }
            let (_, thread) = random.pick(&threads);
            if !rig.kernel.memory.is_live(thread) {
                continue;
            }
            if !rig.kernel.memory.get(thread).is_runnable() {
                now_ns += 500;
                rig.sleep_until(now_ns);
                continue;
            }
            match random.below(40) {
                0 => {
                    let vector = random.pick(&[0, 6, 13, Exception::NO_FPU]);
                    rig.fault(thread, vector, random.next(), 4);
                }
                1 => {
                    let address = argument(&mut random, now_ns);
                    rig.fault(thread, Exception::PAGE_FAULT, address, random.below(32));
                }
                2 => {
                    let _ = rig
                        .kernel
                        .interrupt(Interrupt::Line(random.below(300) as u32));
                }
                kind => {
                    let number = match kind {
                        3..16 => random.below(6),
                        16..18 => random.next() & 0xff,
                        _ => random.pick(TABLE).number as u64,
                    };
                    if number == POWER {
                        continue;
                    }
                    let mut operation = number;
                    if IpcCall::from_number(number as u8).is_some() {
                        let any = IpcFlags::from_bits_truncate(random.next() as u8);
                        let flags = random.pick(&[
                            IpcFlags::empty(),
                            IpcFlags::empty(),
                            IpcFlags::REPLY,
                            any,
                        ]);
                        operation |= (flags.bits() as u64) << 8
                            | random.pick(&[0, 8, 64, 65, 200, 5000]) << 16
                            | random.pick(&[0, 0, 1, 5]) << 32;
                        // A memory part with whatever is there, and a short deadline.
                        let words: Vec<u8> = (0..17)
                            .map(|_| argument(&mut random, now_ns))
                            .flat_map(u64::to_le_bytes)
                            .collect();
                        let space = rig.kernel.memory.get(thread).space.unwrap();
                        let intent = crate::memory::Intent::Write;
                        let _ = rig.kernel.memory.write(space, SCRATCH, &words, intent);
                    }
                    let mut arguments = [0u64; ARGUMENTS];
                    for place in &mut arguments {
                        *place = argument(&mut random, now_ns);
                    }
                    if random.below(3) > 0 && IpcCall::from_number(number as u8).is_some() {
                        arguments[1] = random.pick(&[0, SCRATCH]);
                        let reply = random.pick(&replies);
                        if random.below(2) == 0 {
                            arguments[2 + REPLY_WORD] = reply.0;
                        }
                        if random.below(4) == 0 && number == IpcCall::Reply as u64 {
                            arguments[0] = reply.0;
                        }
                    }
                    rig.enter(thread, operation, arguments);
                }
            }
        }
        assert_eq!(rig.state(root), State::Ready);
        rig.pool_destroy(root, pool).unwrap();
        let used = rig.pool_status(root, pool).unwrap().1;
        rig.cap_close(root, pool).unwrap();
        assert_eq!(used, 0, "seed {seed}");
        let left = rig.free();
        assert_eq!(*free.get_or_insert(left), left, "seed {seed}");
    }
}

#[test]
fn random_calls_neither_stop_the_kernel_nor_leave_anything_behind() {
    let seeds = std::env::var("FUZZ_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok());
    for seed in 1..=seeds.unwrap_or(60) {
        play(seed * 0x9e37_79b9, 1500);
    }
}

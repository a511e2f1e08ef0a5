//! Notifications, timers and futexes.

use crate::machine::Interrupt;
use crate::memory::Ref;
use crate::object::{State, Thread};
use crate::testkit::{DATA, Rig, SCRATCH};
use libipc::abi::{Access, Error, Handle, IpcCall, MessageKind, NEVER, Protection, initial};

const WAIT_MANY: u64 = 94;
const FUTEX_WAIT: u64 = 96;
const NOTIFICATION_WAIT: u64 = 99;

/// Lets a thread wait for one notification.
fn wait_for(rig: &mut Rig, thread: Ref<Thread>, handle: Handle, mask: u64, deadline: u64) {
    let arguments = [handle.0, mask, 1, deadline, 0, 0, 0, 0, 0, 0];
    rig.enter(thread, NOTIFICATION_WAIT, arguments);
}

/// Lets a thread wait for these: handle, mask, consume.
fn wait(rig: &mut Rig, thread: Ref<Thread>, items: &[(Handle, u64, u64)], all: u64, deadline: u64) {
    let bytes: Vec<u8> = items
        .iter()
        .flat_map(|&(handle, mask, consume)| [handle.0, mask, 0, consume])
        .flat_map(u64::to_le_bytes)
        .collect();
    let at = place(thread);
    rig.poke(thread, at, &bytes);
    let count = items.len() as u64;
    rig.enter(
        thread,
        WAIT_MANY,
        [at, count, all, deadline, 0, 0, 0, 0, 0, 0],
    );
}

/// Where a thread keeps its items: threads share their memory here.
fn place(thread: Ref<Thread>) -> u64 {
    SCRATCH + thread.to_bits() % 0x4000 / 0x400 * 0x800
}

fn seen(rig: &mut Rig, thread: Ref<Thread>, index: u64) -> u64 {
    rig.peek_word(thread, place(thread) + index * 32 + 16)
}

#[test]
fn a_signal_wakes_who_waits_for_its_bits_and_they_are_taken_once() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let notification = rig.notification_create(root, initial::POOL, 0).unwrap();
    let (one, two) = (rig.thread(1), rig.thread(2));
    wait(&mut rig, one, &[(notification, 0b01, 1)], 0, NEVER);
    wait(&mut rig, two, &[(notification, 0b11, 1)], 0, NEVER);
    rig.signal(root, notification, 0b10).unwrap();
    assert_eq!(rig.state(one), State::Waiting);
    assert_eq!(rig.result(two), Ok([0, 0]));
    assert_eq!(seen(&mut rig, two, 0), 0b10);
    rig.signal(root, notification, 0b01).unwrap();
    assert_eq!(rig.result(one), Ok([0, 0]));
    assert_eq!(rig.notification_clear(root, notification, u64::MAX), Ok(0));
}

#[test]
fn who_waits_for_one_notification_gets_its_bits_as_the_result() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let notification = rig.notification_create(root, initial::POOL, 0b100).unwrap();
    let waiter = rig.thread(1);
    wait_for(&mut rig, waiter, notification, 0b101, NEVER);
    rig.signal(root, notification, 0b010).unwrap();
    assert_eq!(rig.state(waiter), State::Waiting);
    rig.signal(root, notification, 0b101).unwrap();
    assert_eq!(rig.result(waiter), Ok([0b101, 0]));
    wait_for(&mut rig, waiter, notification, u64::MAX, NEVER);
    assert_eq!(rig.result(waiter), Ok([0b110, 0]), "what was there");
    assert_eq!(
        rig.notification_clear(root, notification, u64::MAX),
        Ok(0b100),
        "the sticky one stayed"
    );
    rig.enter(
        waiter,
        NOTIFICATION_WAIT,
        [notification.0, 1, 2, NEVER, 0, 0, 0, 0, 0, 0],
    );
    assert_eq!(rig.result(waiter), Err(Error::InvalidArgument));
}

#[test]
fn those_who_wait_for_one_notification_are_served_in_turn() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let notification = rig.notification_create(root, initial::POOL, 0).unwrap();
    let threads = [1, 2, 3, 4].map(|label| rig.thread(label));
    wait_for(&mut rig, threads[0], notification, 1, NEVER);
    wait_for(&mut rig, threads[1], notification, 1, NEVER);
    wait(&mut rig, threads[2], &[(notification, 1, 1)], 0, NEVER);
    for round in 0..2 {
        rig.signal(root, notification, 1).unwrap();
        assert_eq!(rig.result(threads[round]), Ok([1, 0]));
        assert_eq!(rig.state(threads[round + 1]), State::Waiting);
        // Whoever comes later stands behind the others.
        wait_for(&mut rig, threads[3 * (1 - round)], notification, 1, NEVER);
    }
    rig.signal(root, notification, 1).unwrap();
    assert_eq!(seen(&mut rig, threads[2], 0), 1);
    for thread in [threads[3], threads[0]] {
        assert_eq!(rig.state(thread), State::Waiting);
        rig.signal(root, notification, 1).unwrap();
        assert_eq!(rig.result(thread), Ok([1, 0]));
    }
    assert_eq!(rig.notification_clear(root, notification, 1), Ok(0));
}

#[test]
fn a_wait_for_one_notification_ends_as_others_do() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let notification = rig.notification_create(root, initial::POOL, 0).unwrap();
    let (handle, waiter) = rig.thread_in(initial::POOL, 1);
    let (other_handle, other) = rig.thread_in(initial::POOL, 2);
    wait_for(&mut rig, waiter, notification, 1, 50);
    rig.sleep_until(50);
    assert_eq!(rig.result(waiter), Err(Error::TimedOut));
    wait_for(&mut rig, waiter, notification, 1, NEVER);
    rig.thread_interrupt(root, handle).unwrap();
    assert_eq!(rig.result(waiter), Err(Error::Interrupted));
    // Who ends or is interrupted is not signalled any more, and the next one is.
    for _ in 0..2 {
        wait_for(&mut rig, waiter, notification, 1, NEVER);
        wait_for(&mut rig, other, notification, 1, NEVER);
        rig.thread_interrupt(root, handle).unwrap();
        rig.signal(root, notification, 1).unwrap();
        assert_eq!(rig.result(other), Ok([1, 0]));
    }
    // A suspended one is, and goes on when it is resumed.
    wait_for(&mut rig, waiter, notification, 1, NEVER);
    rig.thread_suspend(root, handle).unwrap();
    rig.signal(root, notification, 1).unwrap();
    assert_eq!(rig.notification_clear(root, notification, 1), Ok(0));
    assert!(!rig.kernel.memory.get(waiter).is_runnable());
    rig.thread_resume(root, handle).unwrap();
    assert_eq!(rig.result(waiter), Ok([1, 0]));
    wait_for(&mut rig, waiter, notification, 1, NEVER);
    wait_for(&mut rig, other, notification, 1, NEVER);
    rig.thread_end(root, handle, 0).unwrap();
    rig.signal(root, notification, 2).unwrap();
    assert_eq!(rig.state(other), State::Waiting);
    rig.cap_close(root, notification).unwrap();
    assert_eq!(rig.result(other), Err(Error::Gone));
    rig.thread_end(root, other_handle, 0).unwrap();
}

#[test]
fn bits_set_before_the_wait_are_found_and_sticky_ones_stay() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let notification = rig.notification_create(root, initial::POOL, 0b100).unwrap();
    rig.signal(root, notification, 0b101).unwrap();
    wait(&mut rig, root, &[(notification, 0b111, 0)], 0, NEVER);
    assert_eq!(seen(&mut rig, root, 0), 0b101, "only looked at");
    wait(&mut rig, root, &[(notification, 0b111, 1)], 0, NEVER);
    assert_eq!(seen(&mut rig, root, 0), 0b101);
    wait(&mut rig, root, &[(notification, 0b111, 1)], 0, NEVER);
    assert_eq!(seen(&mut rig, root, 0), 0b100, "the sticky one stayed");
    assert_eq!(rig.notification_clear(root, notification, 0b100), Ok(0b100));
}

#[test]
fn waiting_for_all_takes_nothing_until_all_are_there() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let [a, b, c] = [(); 3].map(|()| rig.notification_create(root, initial::POOL, 0).unwrap());
    let waiter = rig.thread(1);
    let items = [(a, 1, 1), (b, 1, 1), (c, 1, 0)];
    wait(&mut rig, waiter, &items, 1, NEVER);
    rig.signal(root, b, 1).unwrap();
    rig.signal(root, c, 1).unwrap();
    assert_eq!(rig.state(waiter), State::Waiting);
    rig.signal(root, a, 1).unwrap();
    assert_eq!(rig.result(waiter), Ok([0, 0]));
    let left = [a, b, c].map(|n| rig.notification_clear(root, n, 1).unwrap());
    assert_eq!(left, [0, 0, 1]);
}

#[test]
fn waiting_for_any_of_many_tells_the_first_that_has_something() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let all: Vec<Handle> = (0..64)
        .map(|_| rig.notification_create(root, initial::POOL, 0).unwrap())
        .collect();
    let items: Vec<_> = all.iter().map(|&n| (n, u64::MAX, 1)).collect();
    let waiter = rig.thread(1);
    for index in [63, 0, 17] {
        wait(&mut rig, waiter, &items, 0, NEVER);
        rig.signal(root, all[index], 1 << index).unwrap();
        assert_eq!(rig.result(waiter), Ok([index as u64, 0]));
        assert_eq!(seen(&mut rig, waiter, index as u64), 1 << index);
    }
    wait(&mut rig, waiter, &[], 0, NEVER);
    assert_eq!(rig.result(waiter), Err(Error::InvalidArgument));
    rig.enter(waiter, WAIT_MANY, [SCRATCH, 65, 0, NEVER, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.result(waiter), Err(Error::InvalidArgument));
    rig.enter(
        waiter,
        WAIT_MANY,
        [0x5000_0000, 1, 0, NEVER, 0, 0, 0, 0, 0, 0],
    );
    assert_eq!(rig.result(waiter), Err(Error::BadAddress));
}

#[test]
fn a_wait_ends_at_its_deadline_by_interrupt_or_with_its_notification() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let notification = rig.notification_create(root, initial::POOL, 0).unwrap();
    let (handle, waiter) = rig.thread_in(initial::POOL, 1);
    wait(&mut rig, waiter, &[(notification, 1, 1)], 0, 50);
    rig.sleep_until(50);
    assert_eq!(rig.result(waiter), Err(Error::TimedOut));
    wait(&mut rig, waiter, &[(notification, 1, 1)], 0, 50);
    assert_eq!(rig.result(waiter), Err(Error::TimedOut));
    wait(&mut rig, waiter, &[(notification, 1, 1)], 0, NEVER);
    rig.thread_interrupt(root, handle).unwrap();
    assert_eq!(rig.result(waiter), Err(Error::Interrupted));
    wait(&mut rig, waiter, &[(notification, 1, 1)], 0, NEVER);
    rig.cap_close(root, notification).unwrap();
    assert_eq!(rig.result(waiter), Err(Error::Gone));
}

#[test]
fn a_timer_sets_its_bits_once_and_can_be_moved_and_taken_off() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let notification = rig.notification_create(root, initial::POOL, 0).unwrap();
    let bits = |rig: &mut Rig| {
        rig.notification_clear(root, notification, u64::MAX)
            .unwrap()
    };
    rig.timer_set(root, notification, 1, 100).unwrap();
    rig.timer_set(root, notification, 2, 200).unwrap();
    rig.sleep_until(150);
    assert_eq!(bits(&mut rig), 0);
    rig.sleep_until(250);
    assert_eq!(bits(&mut rig), 2);
    rig.sleep_until(1000);
    assert_eq!(bits(&mut rig), 0);
    rig.timer_set(root, notification, 1, 2000).unwrap();
    rig.timer_set(root, notification, 1, NEVER).unwrap();
    rig.sleep_until(3000);
    assert_eq!(bits(&mut rig), 0);
}

#[test]
fn a_bound_notification_arrives_as_a_message() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, _sender) = rig.endpoint(0, 0);
    let server = rig.thread(1);
    let notification = rig.notification_create(root, initial::POOL, 0).unwrap();
    let sticky = rig.notification_create(root, initial::POOL, 1).unwrap();
    assert_eq!(
        rig.endpoint_bind(root, receiver, sticky),
        Err(Error::InvalidArgument)
    );
    rig.endpoint_bind(root, receiver, notification).unwrap();
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.signal(root, notification, 0b101).unwrap();
    let got = rig.got(server).unwrap();
    assert_eq!((got.kind, got.length), (MessageKind::Notification, 8));
    assert_eq!(got.body[0], 0b101);
    rig.signal(root, notification, 0b10).unwrap();
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.got(server).unwrap().body[0], 0b10);
    assert_eq!(
        rig.endpoint_bind(root, receiver, notification),
        Err(Error::Occupied)
    );
}

#[test]
fn an_interrupt_signals_whoever_its_line_is_bound_to() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let notification = rig.notification_create(root, initial::POOL, 0).unwrap();
    let create = |rig: &mut Rig| rig.irq_create(root, initial::SYSTEM, initial::POOL, 4);
    let irq = create(&mut rig).unwrap();
    assert_eq!(create(&mut rig), Err(Error::Occupied));
    let _ = rig.kernel.interrupt(Interrupt::Line(4));
    rig.irq_bind(root, irq, notification, 8).unwrap();
    let waiter = rig.thread(1);
    wait(&mut rig, waiter, &[(notification, 8, 1)], 0, NEVER);
    let _ = rig.kernel.interrupt(Interrupt::Line(4));
    assert_eq!(rig.result(waiter), Ok([0, 0]));
    rig.irq_acknowledge(root, irq).unwrap();
    rig.cap_close(root, irq).unwrap();
    let _ = rig.kernel.interrupt(Interrupt::Line(4));
    let _ = rig.kernel.interrupt(Interrupt::Line(9999));
    assert_eq!(rig.notification_clear(root, notification, 8), Ok(0));
    assert!(create(&mut rig).is_ok());
}

#[test]
fn a_futex_waits_only_while_its_word_has_the_value() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let threads = [1, 2, 3].map(|label| rig.thread(label));
    let wait = |rig: &mut Rig, thread, expected, deadline| {
        rig.enter(
            thread,
            FUTEX_WAIT,
            [DATA, expected, deadline, 0, 0, 0, 0, 0, 0, 0],
        );
    };
    rig.poke(root, DATA, &7u32.to_le_bytes());
    wait(&mut rig, threads[0], 8, NEVER);
    assert_eq!(rig.result(threads[0]), Err(Error::WouldBlock));
    for thread in threads {
        wait(&mut rig, thread, 7, NEVER);
        assert_eq!(rig.state(thread), State::Futex);
    }
    assert_eq!(rig.futex_wake(root, DATA + 4, 9), Ok(0));
    assert_eq!(rig.futex_wake(root, DATA, 1), Ok(1));
    assert_eq!(rig.result(threads[0]), Ok([0, 0]));
    assert_eq!(
        rig.futex_requeue(root, DATA, DATA + 8, 0, 9, 8),
        Err(Error::WouldBlock)
    );
    assert_eq!(rig.futex_requeue(root, DATA, DATA + 8, 1, 9, 7), Ok((1, 1)));
    assert_eq!(rig.result(threads[1]), Ok([0, 0]));
    assert_eq!(rig.futex_wake(root, DATA, 9), Ok(0));
    assert_eq!(rig.futex_wake(root, DATA + 8, 9), Ok(1));
    assert_eq!(rig.result(threads[2]), Ok([0, 0]));
    wait(&mut rig, threads[0], 7, 10);
    rig.sleep_until(10);
    assert_eq!(rig.result(threads[0]), Err(Error::TimedOut));
    assert_eq!(rig.futex_wake(root, DATA, 9), Ok(0));
    assert_eq!(
        rig.futex_wake(root, DATA + 1, 1),
        Err(Error::InvalidArgument)
    );
    assert_eq!(rig.futex_wake(root, 0x5000_0000, 1), Err(Error::BadAddress));
}

#[test]
fn a_futex_in_shared_memory_is_one_and_the_same_in_two_spaces() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let protection = Protection::READ | Protection::WRITE;
    let access = Access::READ | Access::WRITE;
    let source = rig.space_create(root, initial::POOL, Handle::NONE).unwrap();
    rig.space_map(root, source, DATA, 1, protection).unwrap();
    let window = rig
        .window_create(root, source, initial::POOL, DATA, 1, access)
        .unwrap();
    let (_, stranger) = rig.stranger(initial::POOL, 1);
    let at = DATA + 0x10_0000;
    for space in [root, stranger] {
        let space = rig.kernel.memory.get(space).space.unwrap();
        rig.kernel
            .hold_object(libipc::abi::Kind::Space, space.to_bits())
            .unwrap();
        let node = rig
            .kernel
            .memory
            .node_create(
                rig.kernel.memory.root_pool(),
                libipc::abi::Kind::Space,
                space.to_bits(),
            )
            .unwrap();
        let handle = rig.kernel.give(node, u32::MAX).unwrap();
        rig.window_map(root, window, 0, handle, at, 1, protection, 0)
            .unwrap();
    }
    rig.enter(stranger, FUTEX_WAIT, [at, 0, NEVER, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.state(stranger), State::Futex);
    assert_eq!(rig.futex_wake(root, at, 1), Ok(1));
    rig.enter(stranger, FUTEX_WAIT, [DATA, 0, NEVER, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        rig.futex_wake(root, DATA, 1),
        Ok(0),
        "private memory is not"
    );
}

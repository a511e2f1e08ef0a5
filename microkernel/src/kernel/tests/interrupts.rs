//! Calls that do not come to their end: deadlines, interrupts, cancels.

use crate::object::State;
use crate::testkit::{Got, Rig};
use libipc::abi::{
    Error, Extended, Handle, IpcCall, IpcFlags, MessageKind, NEVER, OpWord, initial,
};

fn with_deadline(call: IpcCall) -> OpWord {
    OpWord::new(call, IpcFlags::DEADLINE, 0, 0)
}

fn until(deadline: u64) -> Option<Extended> {
    Some(Extended {
        deadline,
        ..Extended::EMPTY
    })
}

#[test]
fn every_message_call_gives_up_at_its_deadline() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (server, client) = (rig.thread(1), rig.thread(2));
    rig.message_with(
        server,
        with_deadline(IpcCall::Receive),
        receiver,
        until(100),
        [0; 8],
    );
    rig.sleep_until(99);
    assert_eq!(rig.state(server), State::Receiving);
    rig.sleep_until(100);
    assert_eq!(rig.got(server), Err(Error::TimedOut));
    rig.message_with(
        client,
        with_deadline(IpcCall::Call),
        sender,
        until(200),
        [0; 8],
    );
    rig.sleep_until(200);
    assert_eq!(rig.got(client), Err(Error::TimedOut));
    // Received, not answered: the server learns of it when it answers.
    rig.message_with(
        client,
        with_deadline(IpcCall::Call),
        sender,
        until(300),
        [0; 8],
    );
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.state(client), State::Answer);
    rig.sleep_until(300);
    assert_eq!(rig.got(client), Err(Error::TimedOut));
    rig.message(server, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    assert_eq!(rig.got(server), Err(Error::Gone));
    // A deadline that has passed: what is there is taken, nothing is waited for.
    rig.message_with(
        server,
        with_deadline(IpcCall::Receive),
        receiver,
        until(1),
        [0; 8],
    );
    assert_eq!(rig.got(server), Err(Error::TimedOut));
    rig.message_with(
        client,
        with_deadline(IpcCall::Send),
        sender,
        until(NEVER),
        [0; 8],
    );
    rig.message_with(
        server,
        with_deadline(IpcCall::Receive),
        receiver,
        until(1),
        [0; 8],
    );
    assert_eq!(rig.got(server).unwrap().kind, MessageKind::Send);
}

#[test]
fn an_answer_in_time_takes_the_deadline_off() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (server, client) = (rig.thread(1), rig.thread(2));
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.message_with(
        client,
        with_deadline(IpcCall::Call),
        sender,
        until(50),
        [0; 8],
    );
    rig.message(server, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    rig.sleep_until(60);
    assert_eq!(rig.state(client), State::Sending);
}

#[test]
fn a_call_that_nobody_received_is_interrupted_at_once() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let (handle, client) = rig.thread_in(initial::POOL, 2);
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    rig.thread_interrupt(root, handle).unwrap();
    assert_eq!(rig.got(client), Err(Error::Interrupted));
    rig.message(client, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.thread_interrupt(root, handle).unwrap();
    assert_eq!(rig.got(client), Err(Error::Interrupted));
    // Nothing to interrupt: nothing happens, now or later.
    rig.thread_interrupt(root, handle).unwrap();
    rig.message(client, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.state(client), State::Receiving);
}

#[test]
fn a_received_call_stays_and_its_server_gets_one_cancel_notice() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(7, 5);
    let server = rig.thread(1);
    let (handle, client) = rig.thread_in(initial::POOL, 2);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    let reply = rig.keep(server);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.thread_interrupt(root, handle).unwrap();
    rig.thread_interrupt(root, handle).unwrap();
    assert_eq!(rig.state(client), State::Answer);
    let Got {
        kind,
        label,
        badge,
        access,
        ..
    } = rig.got(server).unwrap();
    assert_eq!((kind, label), (MessageKind::Cancel, 2));
    assert_eq!((badge, access), (7, 5));
    rig.message(server, IpcCall::Reply, reply, 8, [4; 8]);
    assert_eq!(rig.got(client).unwrap().body[0], 4);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.state(server), State::Receiving, "one notice");
}

#[test]
fn an_answer_takes_back_a_cancel_notice_that_was_not_delivered() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let server = rig.thread(1);
    let (handle, client) = rig.thread_in(initial::POOL, 2);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    rig.thread_interrupt(root, handle).unwrap();
    rig.message(server, IpcCall::ReplyReceive, receiver, 0, [0; 8]);
    assert!(rig.got(client).is_ok());
    assert_eq!(rig.state(server), State::Receiving);
    // The same with the caller's death.
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    rig.thread_interrupt(root, handle).unwrap();
    rig.thread_end(root, handle, 0).unwrap();
    rig.message(server, IpcCall::ReplyReceive, receiver, 0, [0; 8]);
    assert_eq!(rig.got(server), Err(Error::Gone));
}

#[test]
fn only_death_ends_a_killable_call_and_the_interrupt_stays_pending() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let server = rig.thread(1);
    let (handle, client) = rig.thread_in(initial::POOL, 2);
    let operation = OpWord::new(IpcCall::Call, IpcFlags::KILLABLE_ONLY, 0, 0);
    rig.message_with(client, operation, sender, None, [0; 8]);
    rig.thread_interrupt(root, handle).unwrap();
    assert_eq!(rig.state(client), State::Sending);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.thread_interrupt(root, handle).unwrap();
    assert_eq!(rig.state(client), State::Answer);
    rig.message(server, IpcCall::ReplyReceive, receiver, 0, [0; 8]);
    assert!(rig.got(client).is_ok());
    assert_eq!(rig.state(server), State::Receiving, "no cancel notice");
    rig.message(client, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(
        rig.got(client),
        Err(Error::Interrupted),
        "the next wait that can be interrupted is"
    );
    rig.message_with(client, operation, sender, None, [0; 8]);
    rig.thread_end(root, handle, 0).unwrap();
    rig.message(server, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    assert_eq!(rig.got(server), Err(Error::Gone));
}

#[test]
fn a_suspended_thread_completes_its_call_and_runs_when_resumed() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let server = rig.thread(1);
    let (handle, client) = rig.thread_in(initial::POOL, 2);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    assert_eq!(rig.thread_suspend(root, handle), Ok(0));
    assert_eq!(rig.thread_suspend(root, handle), Ok(1));
    rig.message(server, IpcCall::ReplyReceive, receiver, 8, [9; 8]);
    assert_eq!(rig.got(client).unwrap().body[0], 9);
    assert!(!rig.kernel.memory.get(client).is_runnable());
    assert_eq!(rig.thread_status(root, handle).unwrap().0, 2 << 8);
    assert_eq!(rig.thread_resume(root, handle), Ok(2));
    assert_eq!(rig.thread_resume(root, handle), Ok(1));
    assert_eq!(rig.thread_resume(root, handle), Ok(0));
    assert!(rig.kernel.memory.get(client).is_runnable());
}

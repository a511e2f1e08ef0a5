//! How objects end, and who is told.

use crate::object::State;
use crate::testkit::{DATA, Rig};
/// The number of `thread_exit`.
const EXIT: u64 = 70;

use libipc::abi::{
    Access, Error, Handle, IpcCall, MessageKind, Protection, SendCap, SlotFlags, initial,
};

#[test]
fn a_server_that_dies_answers_all_its_calls_with_gone() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let (handle, server) = rig.stranger(initial::POOL, 1);
    let own = rig.give_to(server, receiver);
    let (kept, implicit) = (rig.thread(2), rig.thread(3));
    rig.message(kept, IpcCall::Call, sender, 0, [0; 8]);
    rig.message(implicit, IpcCall::Call, sender, 0, [0; 8]);
    rig.message(server, IpcCall::Receive, own, 0, [0; 8]);
    let pay = rig.give_to(server, initial::POOL);
    let reply = rig.reply_create(server, pay).unwrap();
    rig.reply_keep(server, reply).unwrap();
    rig.message(server, IpcCall::Receive, own, 0, [0; 8]);
    rig.thread_end(root, handle, 0).unwrap();
    assert_eq!(rig.got(implicit), Err(Error::Gone));
    assert_eq!(rig.got(kept), Err(Error::Gone), "its table went with it");
    assert_eq!(rig.thread_status(root, handle).unwrap().0 & 0xff, 2);
}

#[test]
fn receiving_again_without_an_answer_gives_the_caller_up() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (server, client) = (rig.thread(1), rig.thread(2));
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.got(client), Err(Error::Gone));
    assert_eq!(rig.state(server), State::Receiving);
}

#[test]
fn closing_a_kept_reply_gives_the_caller_up() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (server, client) = (rig.thread(1), rig.thread(2));
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    let reply = rig.keep(server);
    rig.cap_close(server, reply).unwrap();
    assert_eq!(rig.got(client), Err(Error::Gone));
}

#[test]
fn a_caller_that_dies_makes_the_answer_fail() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let server = rig.thread(1);
    for kept in [false, true] {
        let (handle, client) = rig.thread_in(initial::POOL, 2);
        rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
        rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
        let reply = match kept {
            true => rig.keep(server),
            false => Handle::NONE,
        };
        rig.thread_end(root, handle, 0).unwrap();
        rig.message(server, IpcCall::Reply, reply, 0, [0; 8]);
        assert_eq!(rig.got(server), Err(Error::Gone));
        rig.cap_close(root, handle).unwrap();
    }
}

#[test]
fn queued_callers_learn_that_the_last_receiver_has_gone() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let (one, two) = (rig.thread(1), rig.thread(2));
    rig.message(one, IpcCall::Call, sender, 0, [0; 8]);
    rig.message(two, IpcCall::Send, sender, 0, [0; 8]);
    rig.cap_close(root, receiver).unwrap();
    assert_eq!(rig.got(one), Err(Error::ServerGone));
    assert_eq!(rig.got(two), Err(Error::ServerGone));
    rig.message(one, IpcCall::Call, sender, 0, [0; 8]);
    assert_eq!(rig.got(one), Err(Error::ServerGone));
}

#[test]
fn queued_callers_wait_on_if_the_endpoint_was_made_so() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let receiver = rig.endpoint_create(root, initial::POOL, 1).unwrap();
    let sender = rig
        .cap_derive(root, receiver, initial::POOL, 0, Access::empty())
        .unwrap();
    let (one, two) = (rig.thread(1), rig.thread(2));
    rig.message(two, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.cap_close(root, receiver).unwrap();
    assert_eq!(rig.got(two), Err(Error::Gone), "nobody can receive here");
    rig.message(one, IpcCall::Call, sender, 0, [0; 8]);
    assert_eq!(rig.state(one), State::Sending);
}

#[test]
fn the_receiver_learns_of_a_badge_without_capabilities() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(77, 0);
    let (_, server) = rig.stranger(initial::POOL, 1);
    let own = rig.give_to(server, receiver);
    let copy = rig
        .cap_copy(
            root,
            sender,
            Handle::OWN_FILES,
            0,
            Access::all(),
            SlotFlags::empty(),
        )
        .unwrap();
    let table = rig
        .table_copy(root, Handle::OWN_FILES, initial::POOL)
        .unwrap();
    rig.cap_close(root, sender).unwrap();
    rig.message(server, IpcCall::Receive, own, 0, [0; 8]);
    assert_eq!(rig.state(server), State::Receiving, "two tables share one");
    rig.cap_close(root, Handle(copy & 0xffff_ffff)).unwrap();
    assert_eq!(rig.state(server), State::Receiving, "the copy has it");
    rig.cap_close(root, table).unwrap();
    let got = rig.got(server).unwrap();
    assert_eq!((got.kind, got.badge), (MessageKind::NoMoreSenders, 77));
    // Not waiting at the time: it is told later, each badge once.
    for badge in [5, 6] {
        let sender = rig
            .cap_derive(root, receiver, initial::POOL, badge, Access::empty())
            .unwrap();
        rig.cap_close(root, sender).unwrap();
    }
    for badge in [5, 6] {
        rig.message(server, IpcCall::Receive, own, 0, [0; 8]);
        let got = rig.got(server).unwrap();
        assert_eq!((got.kind, got.badge), (MessageKind::NoMoreSenders, badge));
    }
    rig.message(server, IpcCall::Receive, own, 0, [0; 8]);
    assert_eq!(rig.state(server), State::Receiving);
}

#[test]
fn a_queued_message_keeps_its_badge_alive() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(5, 0);
    let (server, client) = (rig.thread(1), rig.thread(2));
    rig.message(client, IpcCall::Send, sender, 0, [0; 8]);
    rig.cap_close(root, sender).unwrap();
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.got(server).unwrap().kind, MessageKind::Send);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.got(server).unwrap().kind, MessageKind::NoMoreSenders);
}

#[test]
fn revoking_an_endpoint_wakes_its_senders_with_an_error() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(5, 0);
    let (server, client) = (rig.thread(1), rig.thread(2));
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    rig.cap_revoke(root, receiver).unwrap();
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.got(client), Err(Error::Gone));
    assert_eq!(rig.state(server), State::Receiving);
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    assert_eq!(rig.got(client), Err(Error::BadHandle));
}

#[test]
fn a_pool_takes_everything_with_it_that_was_charged_to_it() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    // Warm up what stays: slot pages of the root thread's table.
    let pool = rig.pool_create(root, initial::POOL, 300).unwrap();
    rig.pool_destroy(root, pool).unwrap();
    rig.cap_close(root, pool).unwrap();
    let free = rig.free();
    let pool = rig.pool_create(root, initial::POOL, 300).unwrap();
    let inner = rig.pool_create(root, pool, 200).unwrap();
    let mut handles = vec![inner];
    let receiver = rig.endpoint_create(root, pool, 0).unwrap();
    let sender = rig
        .cap_derive(root, receiver, inner, 1, Access::empty())
        .unwrap();
    let notification = rig.notification_create(root, inner, 0).unwrap();
    rig.endpoint_bind(root, receiver, notification).unwrap();
    rig.timer_set(root, notification, 1, 1_000_000).unwrap();
    let irq = rig.irq_create(root, initial::SYSTEM, inner, 3).unwrap();
    rig.irq_bind(root, irq, notification, 2).unwrap();
    let (handle, server) = rig.stranger(inner, 1);
    let (other, client) = rig.stranger(pool, 2);
    rig.thread_watch(root, other, notification, 4).unwrap();
    let own = rig.give_to(server, receiver);
    let to_server = rig.give_to(client, sender);
    rig.message(client, IpcCall::Call, to_server, 0, [0; 8]);
    rig.message(server, IpcCall::Receive, own, 0, [0; 8]);
    let pay = rig.give_to(server, initial::POOL);
    let own_pool = rig.give_to(server, inner);
    let reply = rig.reply_create(server, own_pool).unwrap();
    rig.reply_keep(server, reply).unwrap();
    rig.cap_derive(server, pay, pay, 0, Access::all()).unwrap();
    let space = rig.space_create(root, pool, sender).unwrap();
    rig.space_map(root, space, DATA, 40, Protection::READ | Protection::WRITE)
        .unwrap();
    let window = rig
        .window_create(root, space, inner, DATA, 4, Access::READ)
        .unwrap();
    let snapshot = rig.space_snapshot(root, space, inner, DATA).unwrap();
    let ports = rig
        .ports_narrow(root, initial::IO_PORTS, inner, 8, 8)
        .unwrap();
    handles.extend([
        receiver,
        sender,
        notification,
        irq,
        handle,
        other,
        space,
        window,
        snapshot,
        ports,
    ]);
    rig.pool_destroy(root, pool).unwrap();
    for handle in handles {
        assert!(rig.cap_info(root, handle).is_err() || rig.kernel.find_in(root, handle).is_ok(),);
        rig.cap_close(root, handle).unwrap();
    }
    rig.cap_close(root, pool).unwrap();
    assert_eq!(rig.free(), free);
    assert_eq!(
        rig.irq_create(root, initial::SYSTEM, initial::POOL, 3)
            .map(drop),
        Ok(())
    );
}

#[test]
fn objects_go_when_their_last_capability_is_closed() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let pool = rig.pool_create(root, initial::POOL, 300).unwrap();
    let before = rig.pool_status(root, pool).unwrap();
    for _ in 0..2 {
        let (handle, thread) = rig.stranger(pool, 1);
        let notification = rig.notification_create(root, pool, 0).unwrap();
        rig.thread_watch(root, handle, notification, 1).unwrap();
        let receiver = rig.endpoint_create(root, pool, 0).unwrap();
        let sender = rig
            .cap_derive(root, receiver, pool, 1, Access::empty())
            .unwrap();
        let own = rig.give_to(thread, sender);
        rig.message(thread, IpcCall::Call, own, 0, [0; 8]);
        for handle in [receiver, sender, notification, handle] {
            rig.cap_close(root, handle).unwrap();
        }
        assert_eq!(rig.pool_status(root, pool).unwrap(), before);
    }
}

#[test]
fn a_pool_without_capabilities_stays_as_long_as_something_is_in_it() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    rig.poke(root, DATA, b"x");
    let warm = rig.pool_create(root, initial::POOL, 50).unwrap();
    rig.cap_close(root, warm).unwrap();
    let free = rig.free();
    let pool = rig.pool_create(root, initial::POOL, 50).unwrap();
    let space = rig.space_create(root, pool, Handle::NONE).unwrap();
    rig.cap_close(root, pool).unwrap();
    rig.space_map(root, space, DATA, 1, Protection::READ | Protection::WRITE)
        .unwrap();
    rig.space_write(root, space, DATA, DATA, 1, 0).unwrap();
    rig.cap_close(root, space).unwrap();
    assert_eq!(rig.free(), free);
}

#[test]
fn a_window_alone_keeps_its_space() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let protection = Protection::READ | Protection::WRITE;
    let warm = rig.space_create(root, initial::POOL, Handle::NONE).unwrap();
    rig.cap_close(root, warm).unwrap();
    let free = rig.free();
    let space = rig.space_create(root, initial::POOL, Handle::NONE).unwrap();
    rig.space_map(root, space, DATA, 1, protection).unwrap();
    let window = rig
        .window_create(
            root,
            space,
            initial::POOL,
            DATA,
            1,
            Access::READ | Access::WRITE,
        )
        .unwrap();
    rig.cap_close(root, space).unwrap();
    let at = DATA + 0x10_0000;
    rig.window_map(root, window, 0, initial::SPACE, at, 1, protection, 0)
        .unwrap();
    rig.poke(root, at, b"shared");
    rig.cap_close(root, window).unwrap();
    assert_eq!(rig.peek(root, at, 6), b"shared");
    rig.space_unmap(root, initial::SPACE, at, 1).unwrap();
    assert_eq!(rig.free(), free);
}

#[test]
fn a_thread_that_alone_holds_itself_goes_when_it_exits() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let pool = rig.pool_create(root, initial::POOL, 100).unwrap();
    let (handle, thread) = rig.stranger(pool, 1);
    rig.give_to(thread, handle);
    rig.cap_close(root, handle).unwrap();
    assert!(rig.kernel.memory.is_live(thread));
    rig.enter(thread, EXIT, [0; 10]);
    assert_eq!(rig.pool_status(root, pool).unwrap().1, 0);
}

#[test]
fn a_table_that_holds_itself_goes_with_its_pool() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let pool = rig.pool_create(root, initial::POOL, 100).unwrap();
    let (handle, thread) = rig.stranger(pool, 1);
    rig.give_table_to_itself(thread);
    rig.cap_close(root, handle).unwrap();
    assert_ne!(rig.pool_status(root, pool).unwrap().1, 0);
    rig.pool_destroy(root, pool).unwrap();
    assert_eq!(rig.pool_status(root, pool).unwrap().1, 0);
}

#[test]
fn moving_a_capability_to_a_dead_end_loses_nothing_else() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let server = rig.thread(1);
    let notification = rig.notification_create(root, initial::POOL, 0).unwrap();
    rig.receive_bytes(server, receiver);
    rig.cap_revoke(root, receiver).unwrap();
    rig.send_bytes(
        root,
        IpcCall::Call,
        sender,
        &[],
        &[SendCap::moved(notification)],
    );
    assert_eq!(rig.got(root), Err(Error::BadHandle));
    assert_eq!(rig.signal(root, notification, 1), Ok(()));
}

//! Messages: what passes from one thread to another.

use crate::object::State;
use crate::testkit::{EXTENDED, RECEIVE, Rig, SEND, pattern};
use libipc::abi::{
    Access, Error, Extended, Handle, IpcCall, IpcFlags, Kind, MessageKind, OpWord, SendCap,
    SlotFlags, TableSelector, initial,
};

const BODY: [u64; 8] = [11, 22, 33, 44, 55, 66, 77, 88];

#[test]
fn a_call_reaches_a_waiting_receiver_and_the_answer_comes_back() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(7, 0xabcd);
    let (server, client) = (rig.thread(100), rig.thread(200));
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.state(server), State::Receiving);
    rig.message(client, IpcCall::Call, sender, 64, BODY);
    assert_eq!(rig.state(client), State::Answer);
    assert_eq!(rig.kernel.current(), Some(server), "the CPU went with it");
    let got = rig.got(server).unwrap();
    assert_eq!((got.kind, got.length), (MessageKind::Call, 64));
    assert_eq!((got.badge, got.access, got.label), (7, 0xabcd, 200));
    assert_eq!(got.body, BODY);
    rig.message(server, IpcCall::ReplyReceive, receiver, 8, [99; 8]);
    assert_eq!(rig.state(server), State::Receiving);
    assert_eq!(rig.kernel.current(), Some(client), "and came back");
    let got = rig.got(client).unwrap();
    assert_eq!((got.length, got.body[0], got.label), (8, 99, 100));
}

#[test]
fn callers_are_served_in_the_order_in_which_they_came() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(0, 0);
    let server = rig.thread(1);
    let clients = [10, 11, 12].map(|label| rig.thread(label));
    for client in clients {
        rig.message(client, IpcCall::Call, sender, 8, [5; 8]);
        assert_eq!(rig.state(client), State::Sending);
    }
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    for (index, client) in clients.into_iter().enumerate() {
        assert_eq!(rig.got(server).unwrap().label, 10 + index as u64);
        rig.message(
            server,
            IpcCall::ReplyReceive,
            receiver,
            8,
            [index as u64; 8],
        );
        assert_eq!(rig.got(client).unwrap().body[0], index as u64);
    }
    assert_eq!(rig.state(server), State::Receiving);
}

#[test]
fn a_message_of_any_length_arrives_whole_both_ways() {
    let mut rig = Rig::new(512);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (_, server) = rig.stranger(initial::POOL, 1);
    let (_, client) = rig.stranger(initial::POOL, 2);
    let receiver = rig.give_to(server, receiver);
    let sender = rig.give_to(client, sender);
    for (waits_first, length) in [0, 1, 63, 64, 65, 100, 128, 2000, 4096, 4160]
        .into_iter()
        .flat_map(|length| [(true, length), (false, length)])
    {
        let bytes = pattern(length, length as u8);
        if waits_first {
            rig.receive_bytes(server, receiver);
        }
        rig.send_bytes(client, IpcCall::Call, sender, &bytes, &[]);
        if !waits_first {
            rig.receive_bytes(server, receiver);
        }
        assert_eq!(rig.got_bytes(server), bytes);
        let answer = pattern(length, !length as u8);
        rig.send_bytes(server, IpcCall::Reply, Handle::NONE, &answer, &[]);
        assert_eq!(rig.got(server).unwrap().length, 0);
        assert_eq!(rig.got_bytes(client), answer);
    }
}

#[test]
fn a_message_longer_than_can_be_is_refused() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (server, client) = (rig.thread(1), rig.thread(2));
    rig.send_bytes(client, IpcCall::Call, sender, &pattern(4160, 0), &[]);
    assert_eq!(rig.state(client), State::Sending);
    // A receiver without room: the sender hears of it, the receiver waits on.
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.got(client), Err(Error::TooLong));
    assert_eq!(rig.state(server), State::Receiving);
    let operation = OpWord::new(IpcCall::Call, IpcFlags::empty(), 4161, 0);
    rig.message_with(client, operation, sender, Some(Extended::EMPTY), [0; 8]);
    assert_eq!(rig.got(client), Err(Error::TooLong));
    let operation = OpWord::new(IpcCall::Call, IpcFlags::empty(), 65, 0);
    rig.message_with(client, operation, sender, None, [0; 8]);
    assert_eq!(rig.got(client), Err(Error::BadAddress));
    let operation = OpWord::new(IpcCall::Call, IpcFlags::empty(), 0, 5);
    rig.message_with(client, operation, sender, Some(Extended::EMPTY), [0; 8]);
    assert_eq!(rig.got(client), Err(Error::InvalidArgument));
}

#[test]
fn an_answer_too_long_for_the_caller_is_the_callers_loss() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (server, client) = (rig.thread(1), rig.thread(2));
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.send_bytes(server, IpcCall::Reply, Handle::NONE, &pattern(65, 0), &[]);
    assert_eq!(rig.got(server).unwrap().length, 0);
    assert_eq!(rig.got(client), Err(Error::TooLong));
    rig.message(server, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    assert_eq!(rig.got(server), Err(Error::WrongState), "answered once");
}

#[test]
fn a_one_way_message_lets_its_sender_go_on() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(3, 0);
    let (server, client) = (rig.thread(1), rig.thread(2));
    rig.message(client, IpcCall::Send, sender, 16, BODY);
    assert_eq!(rig.state(client), State::Sending, "until it is received");
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.got(server).unwrap().kind, MessageKind::Send);
    assert!(rig.got(client).is_ok());
    rig.message(server, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    assert_eq!(rig.got(server), Err(Error::WrongState), "nothing is owed");
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.message(client, IpcCall::Send, sender, 16, BODY);
    assert_eq!(rig.got(server).unwrap().body[..2], BODY[..2]);
    assert!(rig.got(client).is_ok());
}

#[test]
fn capabilities_travel_narrowed_moved_and_marked() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let (_, server) = rig.stranger(initial::POOL, 1);
    let receiver = rig.give_to(server, receiver);
    let notification = rig.notification_create(root, initial::POOL, 0).unwrap();
    let moved = rig.notification_create(root, initial::POOL, 0).unwrap();
    rig.receive_bytes(server, receiver);
    let marked = SendCap {
        handle: moved,
        access: u32::MAX,
        options: SendCap::MOVE | SlotFlags::INHERIT.bits() as u32,
    };
    let caps = [
        SendCap::narrowed(notification, Access::SIGNAL),
        SendCap::EMPTY,
        marked,
    ];
    rig.send_bytes(root, IpcCall::Call, sender, &[], &caps);
    let handles = rig.got_handles(server);
    assert_eq!(handles.len(), 3);
    assert_eq!(handles[1], Handle::NONE);
    assert_eq!(
        rig.signal(server, handles[0], 1),
        Ok(()),
        "what was passed on can be used"
    );
    assert_eq!(
        rig.notification_clear(server, handles[0], 1),
        Err(Error::AccessDenied)
    );
    let (word, _) = rig.cap_info(server, handles[2]).unwrap();
    assert_eq!(word as u8, Kind::Notification as u8);
    assert_eq!((word >> 8) as u8, SlotFlags::INHERIT.bits());
    rig.send_bytes(server, IpcCall::Reply, Handle::NONE, &[], &[]);
    assert_eq!(rig.notification_clear(root, notification, 1), Ok(1));
    assert_eq!(rig.signal(root, moved, 1), Err(Error::BadHandle));
}

#[test]
fn capabilities_arrive_in_the_lowest_free_slots_that_the_receiver_named() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let (_, server) = rig.stranger(initial::POOL, 1);
    let receiver = rig.give_to(server, receiver);
    let extended = Extended {
        receive_slots: Handle::new(TableSelector::Files, 3, 0),
        ..Extended::EMPTY
    };
    let operation = OpWord::new(IpcCall::Receive, IpcFlags::empty(), 0, 0);
    rig.message_with(server, operation, receiver, Some(extended), [0; 8]);
    let caps = [SendCap::copy(sender), SendCap::copy(initial::POOL)];
    rig.send_bytes(root, IpcCall::Call, sender, &[], &caps);
    let handles = rig.got_handles(server);
    let at = |index| Handle::new(TableSelector::Files, index, 1);
    assert_eq!(handles, [at(3), at(4)]);
    assert!(
        rig.cap_info(server, Handle(4)).is_ok(),
        "a plain number too"
    );
}

#[test]
fn a_message_whose_capabilities_cannot_be_sent_is_not_delivered() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let server = rig.thread(1);
    rig.receive_bytes(server, receiver);
    let protected = rig.notification_create(root, initial::POOL, 0).unwrap();
    let all = SlotFlags::all();
    rig.cap_set_flags(root, protected, all, SlotFlags::PROTECT)
        .unwrap();
    let stale = Handle::new(TableSelector::Private, protected.index(), 9);
    let odd = SendCap {
        options: 1 << 9,
        ..SendCap::copy(protected)
    };
    for (cap, error) in [
        (SendCap::copy(stale), Error::BadHandle),
        (SendCap::moved(protected), Error::AccessDenied),
        (odd, Error::InvalidArgument),
    ] {
        rig.send_bytes(root, IpcCall::Call, sender, &[], &[cap]);
        assert_eq!(rig.got(root), Err(error));
        assert_eq!(rig.state(server), State::Receiving);
    }
}

#[test]
fn a_receiver_without_room_for_a_capability_fails_and_the_sender_waits_on() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let pool = rig.pool_create(root, initial::POOL, 12).unwrap();
    let (_, server) = rig.stranger(pool, 1);
    let receiver = rig.give_to(server, receiver);
    rig.poke(server, EXTENDED, &[1]);
    let used = rig.pool_status(root, pool).unwrap().1;
    rig.pool_set_limit(root, pool, used).unwrap();
    let extended = Extended {
        receive_slots: Handle::new(TableSelector::Files, 0, 0),
        ..Extended::EMPTY
    };
    let operation = OpWord::new(IpcCall::Receive, IpcFlags::empty(), 0, 0);
    rig.message_with(server, operation, receiver, Some(extended), [0; 8]);
    let caps = [SendCap::copy(sender)];
    rig.send_bytes(root, IpcCall::Call, sender, &[], &caps);
    assert_eq!(rig.got(server), Err(Error::NoMemory));
    assert_eq!(rig.state(root), State::Sending);
    rig.receive_bytes(server, receiver);
    assert_eq!(rig.got_handles(server).len(), 1);
}

#[test]
fn bad_memory_is_the_loss_of_whose_it_is() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (server, client) = (rig.thread(1), rig.thread(2));
    let bad = 0x5000_0000;
    let out = |send, receive| Extended {
        send,
        receive,
        receive_bytes: 4096,
        ..Extended::EMPTY
    };
    let long = |call| OpWord::new(call, IpcFlags::empty(), 100, 0);
    let receive = OpWord::new(IpcCall::Receive, IpcFlags::empty(), 0, 0);
    // The sender's tail.
    rig.receive_bytes(server, receiver);
    rig.message_with(
        client,
        long(IpcCall::Call),
        sender,
        Some(out(bad, RECEIVE)),
        [0; 8],
    );
    assert_eq!(rig.got(client), Err(Error::BadAddress));
    assert_eq!(rig.state(server), State::Receiving);
    // The caller's buffer for the answer.
    rig.message_with(
        client,
        long(IpcCall::Call),
        sender,
        Some(out(SEND, bad)),
        [0; 8],
    );
    assert_eq!(rig.got(client), Err(Error::BadAddress));
    // The memory part itself.
    rig.enter(
        client,
        long(IpcCall::Call).0,
        [sender.0, bad, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    assert_eq!(rig.got(client), Err(Error::BadAddress));
    rig.enter(
        client,
        long(IpcCall::Call).0,
        [sender.0, u64::MAX - 3, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    assert_eq!(rig.got(client), Err(Error::BadAddress));
    // The receiver's buffer: the sender waits for another receiver.
    let (_, other) = rig.stranger(initial::POOL, 3);
    let other_receiver = rig.give_to(other, receiver);
    rig.send_bytes(client, IpcCall::Call, sender, &pattern(100, 1), &[]);
    rig.message(server, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    rig.message_with(other, receive, other_receiver, Some(out(0, bad)), [0; 8]);
    rig.send_bytes(client, IpcCall::Call, sender, &pattern(100, 2), &[]);
    assert_eq!(rig.got(other), Err(Error::BadAddress));
    assert_eq!(rig.state(client), State::Sending);
    rig.receive_bytes(server, receiver);
    assert_eq!(rig.got_bytes(server), pattern(100, 2));
}

#[test]
fn only_senders_send_and_only_receivers_receive() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    for (call, handle, error) in [
        (IpcCall::Call, receiver, Error::WrongKind),
        (IpcCall::Receive, sender, Error::WrongKind),
        (IpcCall::Call, initial::POOL, Error::WrongKind),
        (IpcCall::Call, Handle::NONE, Error::BadHandle),
        (IpcCall::Send, Handle(1 << 60), Error::BadHandle),
        (IpcCall::ReplyReceive, receiver, Error::WrongState),
        (IpcCall::Reply, Handle::NONE, Error::WrongState),
        (IpcCall::Reply, sender, Error::WrongKind),
    ] {
        rig.message(root, call, handle, 0, [0; 8]);
        assert_eq!(rig.got(root), Err(error), "{call:?}");
    }
}

#[test]
fn a_kept_reply_answers_once_and_from_any_thread() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (server, other, client) = (rig.thread(1), rig.thread(2), rig.thread(3));
    let reply = rig.reply();
    assert_eq!(rig.reply_keep(server, reply), Err(Error::WrongState));
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
    rig.reply_keep(server, reply).unwrap();
    rig.message(server, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    assert_eq!(rig.got(server), Err(Error::WrongState), "it was kept");
    rig.message(other, IpcCall::Reply, reply, 8, [42; 8]);
    assert!(rig.got(other).is_ok());
    let got = rig.got(client).unwrap();
    assert_eq!((got.body[0], got.label), (42, 2));
    rig.message(other, IpcCall::Reply, reply, 0, [0; 8]);
    assert_eq!(rig.got(other), Err(Error::Gone), "it keeps nothing now");
}

#[test]
fn a_server_may_call_another_before_it_answers() {
    let mut rig = Rig::new(256);
    let (front, to_front) = rig.endpoint(1, 0);
    let (back, to_back) = rig.endpoint(2, 0);
    let (client, server, helper) = (rig.thread(1), rig.thread(2), rig.thread(3));
    rig.message(helper, IpcCall::Receive, back, 0, [0; 8]);
    rig.message(server, IpcCall::Receive, front, 0, [0; 8]);
    rig.message(client, IpcCall::Call, to_front, 8, [1; 8]);
    rig.message(server, IpcCall::Call, to_back, 8, [2; 8]);
    rig.message(helper, IpcCall::ReplyReceive, back, 8, [3; 8]);
    assert_eq!(rig.got(server).unwrap().body[0], 3);
    rig.message(server, IpcCall::ReplyReceive, front, 8, [4; 8]);
    assert_eq!(rig.got(client).unwrap().body[0], 4);
}

#[test]
fn an_endpoint_that_nobody_can_serve_any_more_takes_no_call_before_it_is_cleaned_up() {
    for long_only in [true, false] {
        let mut rig = Rig::new(256);
        let root = rig.root;
        rig.kernel.set_long_only(long_only);
        let (receiver, sender) = rig.endpoint(0, 0);
        let (server, client) = (rig.thread(1), rig.thread(2));
        let (handle, closer) = rig.thread_in(initial::POOL, 3);
        rig.thread_set_priority(root, handle, 1).unwrap();
        rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
        // What this leaves behind waits for those of higher priority.
        rig.cap_close(closer, receiver).unwrap();
        assert_eq!(rig.state(server), State::Receiving);
        rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
        assert_eq!(rig.got(client), Err(Error::ServerGone), "{long_only}");
    }
}

//! Replies: calls that are kept, and answered later.

use crate::memory::Ref;
use crate::object::{State, Thread};
use crate::testkit::Rig;
use libipc::abi::{
    Access, Error, Extended, Handle, IpcCall, IpcFlags, MessageKind, OpWord, REPLY_BYTES,
    REPLY_WORD, SendCap, SlotFlags, initial,
};

/// A server with a reply, and two clients whose calls have been received: `waiting`'s is kept.
struct Scene {
    rig: Rig,
    receiver: Handle,
    sender: Handle,
    reply: Handle,
    server: Ref<Thread>,
    waiting: Ref<Thread>,
    current: Ref<Thread>,
    /// The clients' handles, in this order.
    handles: [Handle; 2],
}

impl Scene {
    fn new() -> Scene {
        let mut rig = Rig::new(256);
        let (receiver, sender) = rig.endpoint(7, 0);
        let reply = rig.reply();
        let server = rig.thread(1);
        let (one, waiting) = rig.thread_in(initial::POOL, 2);
        let (two, current) = rig.thread_in(initial::POOL, 3);
        rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
        rig.message(waiting, IpcCall::Call, sender, 0, [0; 8]);
        rig.message_naming(server, IpcCall::Receive, receiver, reply, 0, 0);
        assert_eq!(rig.state(server), State::Receiving);
        rig.message(current, IpcCall::Call, sender, 8, [5; 8]);
        assert_eq!(rig.got(server).unwrap().body[0], 5);
        Scene {
            rig,
            receiver,
            sender,
            reply,
            server,
            waiting,
            current,
            handles: [one, two],
        }
    }
}

#[test]
fn a_receive_can_keep_the_last_call_and_a_reply_receive_answer_it() {
    let Scene {
        mut rig,
        receiver,
        reply,
        server,
        waiting,
        current,
        ..
    } = Scene::new();
    let other = rig.reply();
    assert_eq!(rig.state(waiting), State::Answer);
    // The call of the second is kept elsewhere meanwhile.
    rig.reply_keep(server, other).unwrap();
    rig.message_naming(server, IpcCall::ReplyReceive, receiver, reply, 56, 9);
    assert_eq!(rig.state(server), State::Receiving);
    let got = rig.got(waiting).unwrap();
    assert_eq!(
        (got.kind, got.length, got.label),
        (MessageKind::Call, 56, 1)
    );
    assert_eq!(got.body[..7], [9; 7]);
    assert_ne!(got.body[REPLY_WORD], reply.0, "nobody else's affair");
    assert_eq!(rig.state(current), State::Answer);
}

#[test]
fn a_reply_keeps_one_call_after_the_other() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(7, 0);
    let (reply, server, client) = (rig.reply(), rig.thread(1), rig.thread(2));
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    let free = rig.free();
    for round in 0..50 {
        rig.message(client, IpcCall::Call, sender, 0, [0; 8]);
        rig.reply_keep(server, reply).unwrap();
        match round % 2 {
            0 => {
                rig.message(server, IpcCall::Reply, reply, 8, [round; 8]);
                assert!(rig.got(server).is_ok());
                rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
            }
            _ => rig.message_naming(server, IpcCall::ReplyReceive, receiver, reply, 8, round),
        }
        assert_eq!(rig.got(client).unwrap().body[0], round);
    }
    assert_eq!(rig.free(), free);
}

#[test]
fn a_reply_receive_that_answers_a_kept_call_gives_the_last_one_up() {
    let Scene {
        mut rig,
        receiver,
        reply,
        server,
        waiting,
        current,
        ..
    } = Scene::new();
    rig.message_naming(server, IpcCall::ReplyReceive, receiver, reply, 8, 4);
    assert_eq!(rig.got(waiting).unwrap().body[0], 4);
    assert_eq!(rig.got(current), Err(Error::Gone));
    assert_eq!(rig.state(server), State::Receiving);
}

#[test]
fn a_reply_that_keeps_a_call_keeps_no_other() {
    let Scene {
        mut rig,
        receiver,
        reply,
        server,
        waiting,
        current,
        ..
    } = Scene::new();
    assert_eq!(rig.reply_keep(server, reply), Err(Error::WrongState));
    rig.message_naming(server, IpcCall::Receive, receiver, reply, 0, 0);
    assert_eq!(rig.got(server), Err(Error::WrongState));
    // Nothing has happened: both can be answered.
    rig.message(server, IpcCall::Reply, reply, 8, [1; 8]);
    assert_eq!(rig.got(waiting).unwrap().body[0], 1);
    rig.message(server, IpcCall::ReplyReceive, receiver, 8, [2; 8]);
    assert_eq!(rig.got(current).unwrap().body[0], 2);
}

#[test]
fn without_a_call_there_is_nothing_to_keep_or_to_answer() {
    let mut rig = Rig::new(256);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (reply, server) = (rig.reply(), rig.thread(1));
    for (call, name, error) in [
        (IpcCall::Receive, reply, Error::WrongState),
        (IpcCall::ReplyReceive, reply, Error::Gone),
        (IpcCall::Receive, sender, Error::WrongKind),
        (IpcCall::ReplyReceive, sender, Error::WrongKind),
        (IpcCall::Receive, Handle::NONE, Error::BadHandle),
        (IpcCall::ReplyReceive, Handle(1 << 60), Error::BadHandle),
    ] {
        rig.message_naming(server, call, receiver, name, 0, 0);
        assert_eq!(rig.got(server), Err(error), "{call:?} {name:?}");
    }
    rig.message(server, IpcCall::Reply, reply, 0, [0; 8]);
    assert_eq!(rig.got(server), Err(Error::Gone));
    rig.cap_close(server, reply).unwrap();
    assert_eq!(rig.reply_keep(server, reply), Err(Error::BadHandle));
}

#[test]
fn an_answer_that_leaves_no_register_for_the_reply_is_refused() {
    let Scene {
        mut rig,
        receiver,
        reply,
        server,
        waiting,
        current,
        ..
    } = Scene::new();
    for (length, caps) in [(REPLY_BYTES + 1, 0), (100, 0), (0, 1)] {
        let operation = OpWord::new(IpcCall::ReplyReceive, IpcFlags::REPLY, length, caps);
        let mut body = [0; 8];
        body[REPLY_WORD] = reply.0;
        let extended = Extended {
            send_caps: [SendCap::copy(initial::POOL); 4],
            ..Extended::EMPTY
        };
        rig.message_with(server, operation, receiver, Some(extended), body);
        assert_eq!(rig.got(server), Err(Error::InvalidArgument));
    }
    assert_eq!(rig.state(waiting), State::Answer);
    assert_eq!(rig.state(current), State::Answer);
}

#[test]
fn a_caller_that_dies_or_gives_up_frees_the_reply_for_the_next() {
    for dies in [true, false] {
        let Scene {
            mut rig,
            receiver,
            sender,
            reply,
            server,
            current,
            handles,
            ..
        } = Scene::new();
        let root = rig.root;
        rig.message(server, IpcCall::ReplyReceive, receiver, 0, [0; 8]);
        match dies {
            true => rig.thread_end(root, handles[0], 0).unwrap(),
            false => rig
                .thread_start(root, handles[0], 0x1000, 0x7000, 0)
                .unwrap(),
        }
        rig.message(current, IpcCall::Call, sender, 0, [0; 8]);
        // The answer comes too late, and takes nothing from the call that is to be answered now.
        rig.message_naming(server, IpcCall::ReplyReceive, receiver, reply, 8, 1);
        assert_eq!(rig.got(server), Err(Error::Gone));
        assert_eq!(rig.state(current), State::Answer);
        rig.message_naming(server, IpcCall::Receive, receiver, reply, 0, 0);
        assert_eq!(rig.state(server), State::Receiving);
        rig.message(root, IpcCall::Reply, reply, 8, [2; 8]);
        assert_eq!(rig.got(current).unwrap().body[0], 2);
    }
}

#[test]
fn keeping_the_call_of_a_dead_caller_is_gone_once() {
    let Scene {
        mut rig,
        receiver,
        server,
        handles,
        ..
    } = Scene::new();
    let root = rig.root;
    let other = rig.reply();
    rig.thread_end(root, handles[1], 0).unwrap();
    rig.message_naming(server, IpcCall::Receive, receiver, other, 0, 0);
    assert_eq!(rig.got(server), Err(Error::Gone));
    rig.message_naming(server, IpcCall::Receive, receiver, other, 0, 0);
    assert_eq!(rig.got(server), Err(Error::WrongState));
}

#[test]
fn a_late_answer_without_room_leaves_what_is_to_be_said_of_the_last_call() {
    let Scene {
        mut rig,
        reply,
        server,
        waiting,
        handles,
        ..
    } = Scene::new();
    let root = rig.root;
    rig.thread_end(root, handles[1], 0).unwrap();
    rig.send_bytes(server, IpcCall::Reply, reply, &[1; 100], &[]);
    assert!(rig.got(server).is_ok());
    assert_eq!(rig.got(waiting), Err(Error::TooLong));
    rig.message(server, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    assert_eq!(rig.got(server), Err(Error::Gone), "its caller has died");
    rig.message(server, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    assert_eq!(rig.got(server), Err(Error::WrongState));
}

#[test]
fn a_wait_that_fails_has_kept_or_answered_all_the_same() {
    for call in [IpcCall::Receive, IpcCall::ReplyReceive] {
        let Scene {
            mut rig,
            receiver,
            reply,
            server,
            waiting,
            current,
            ..
        } = Scene::new();
        let name = match call {
            IpcCall::Receive => rig.reply(),
            _ => reply,
        };
        let flags = IpcFlags::REPLY | IpcFlags::DEADLINE;
        let extended = Extended {
            deadline: 0,
            ..Extended::EMPTY
        };
        let mut body = [6; 8];
        body[REPLY_WORD] = name.0;
        let operation = OpWord::new(call, flags, 8, 0);
        rig.message_with(server, operation, receiver, Some(extended), body);
        assert_eq!(rig.got(server), Err(Error::TimedOut));
        match call {
            IpcCall::Receive => {
                rig.message(server, IpcCall::Reply, name, 0, [0; 8]);
                assert!(rig.got(current).is_ok());
            }
            _ => assert_eq!(rig.got(waiting).unwrap().body[0], 6),
        }
    }
}

#[test]
fn to_keep_a_call_takes_the_right_to_and_to_answer_it_none() {
    let Scene {
        mut rig,
        receiver,
        reply,
        server,
        waiting,
        ..
    } = Scene::new();
    let root = rig.root;
    let narrow = rig
        .cap_derive(root, reply, initial::POOL, 0, Access::empty())
        .unwrap();
    rig.message(server, IpcCall::Reply, narrow, 8, [3; 8]);
    assert_eq!(rig.got(waiting).unwrap().body[0], 3);
    assert_eq!(rig.reply_keep(server, narrow), Err(Error::AccessDenied));
    rig.message_naming(server, IpcCall::Receive, receiver, narrow, 0, 0);
    assert_eq!(rig.got(server), Err(Error::AccessDenied));
    // Who was let answer can be kept from answering what is kept later.
    rig.cap_revoke(root, reply).unwrap();
    rig.reply_keep(server, reply).unwrap();
    rig.message(server, IpcCall::Reply, narrow, 0, [0; 8]);
    assert_eq!(rig.got(server), Err(Error::BadHandle));
    rig.message(server, IpcCall::Reply, reply, 0, [0; 8]);
    assert!(rig.got(server).is_ok());
}

#[test]
fn the_end_of_a_reply_gives_up_the_call_that_it_keeps() {
    let Scene {
        mut rig,
        reply,
        server,
        waiting,
        ..
    } = Scene::new();
    let root = rig.root;
    let (access, flags) = (Access::all(), SlotFlags::empty());
    let copy = rig
        .cap_copy(root, reply, Handle::OWN_FILES, 0, access, flags)
        .unwrap();
    rig.cap_close(server, reply).unwrap();
    assert_eq!(rig.state(waiting), State::Answer, "the copy keeps it");
    rig.cap_close(root, Handle(copy & 0xffff_ffff)).unwrap();
    assert_eq!(rig.got(waiting), Err(Error::Gone));
}

#[test]
fn a_call_kept_while_the_pool_of_its_reply_ends_is_given_up_with_it() {
    for waits in [false, true] {
        let Scene {
            mut rig,
            receiver,
            server,
            current,
            ..
        } = Scene::new();
        let root = rig.root;
        let pool = rig.pool_create(root, initial::POOL, 50).unwrap();
        let reply = rig.reply_create(root, pool).unwrap();
        let (handle, closer) = rig.thread_in(initial::POOL, 3);
        rig.thread_set_priority(root, handle, 1).unwrap();
        // What it leaves to be done waits for those of higher priority.
        rig.pool_destroy(closer, pool).unwrap();
        match waits {
            true => rig.message_naming(server, IpcCall::Receive, receiver, reply, 0, 0),
            false => rig.reply_keep(server, reply).unwrap(),
        }
        assert_eq!(rig.state(current), State::Answer);
        // Now it is done, with what this leaves.
        let other = rig.pool_create(root, initial::POOL, 0).unwrap();
        rig.pool_destroy(root, other).unwrap();
        assert_eq!(rig.got(current), Err(Error::Gone));
        assert_eq!(rig.reply_keep(root, reply), Err(Error::BadHandle));
        rig.cap_close(root, reply).unwrap();
        assert_eq!(rig.pool_status(root, pool).unwrap().1, 0);
    }
}

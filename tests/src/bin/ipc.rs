//! Messages: sizes, capabilities, who is told what, deadlines, interruption, and ends of either side.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use libipc::abi::{
    Access, IpcCall, IpcFlags, Kind, MESSAGE_BYTES, MessageKind, OpWord, SendCap, SlotFlags,
    TableSelector,
};
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::syscall;
use tests::{
    MILLISECOND, Mail, Outcome, PATIENCE, Worker, after, check, check_eq, keep, own_label,
};

tests::suite! {
    every_length_of_message_arrives_whole_both_ways,
    a_message_longer_than_the_largest_is_refused,
    a_message_longer_than_the_receivers_room_is_refused_and_the_receiver_waits_on,
    none_to_four_capabilities_travel_with_a_message,
    a_capability_arrives_with_at_most_the_rights_it_was_sent_with,
    a_moved_capability_leaves_the_sender_when_it_arrives,
    a_capability_cannot_be_sent_protected,
    capabilities_go_to_the_lowest_free_slot_from_the_named_one_on,
    the_receiver_learns_badge_access_and_label,
    threads_of_the_process_server_have_labels_of_their_own,
    a_one_way_message_waits_for_its_receiver,
    callers_are_served_in_the_order_in_which_they_came,
    a_call_that_nobody_receives_times_out,
    a_receive_without_a_message_times_out,
    a_deadline_counts_for_the_answer_too,
    calling_what_is_no_endpoint_is_refused,
    replying_without_a_call_is_refused,
    one_reply_keeps_call_after_call,
    calls_are_kept_and_answered_while_the_server_waits_for_others,
    a_caller_that_dies_leaves_its_reply_free_for_the_next,
    a_reply_that_is_busy_or_not_named_keeps_nothing,
    an_answer_to_a_kept_call_leaves_a_register_for_the_reply,
}

/// An endpoint: its receiver, and a sender with badge 7.
struct Pair {
    receiver: Handle,
    sender: Handle,
}

impl Pair {
    fn new() -> Result<Pair, Error> {
        let receiver = syscall::endpoint_create(slots::POOL, 0)?;
        let sender = syscall::cap_derive(receiver, slots::POOL, 7, Access::all())?;
        Ok(Pair { receiver, sender })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = syscall::cap_close(self.sender);
        let _ = syscall::cap_close(self.receiver);
    }
}

/// Byte `place` of the message of this length.
fn pattern(length: usize, place: usize) -> u8 {
    (length.wrapping_mul(31) ^ place.wrapping_mul(7) ^ (place >> 8)) as u8
}

fn every_length_of_message_arrives_whole_both_ways() -> Outcome {
    let pair = Pair::new()?;
    let serve = || {
        let mut mail = Mail::new();
        mail.receive(pair.receiver)?;
        for length in 0..=MESSAGE_BYTES {
            check_eq!(mail.bytes().len(), length);
            let wrong = (0..length).find(|place| mail.bytes()[*place] != pattern(length, *place));
            check_eq!(wrong, None);
            let mut answer = [0; MESSAGE_BYTES];
            let back = MESSAGE_BYTES - length;
            for (place, byte) in answer[..back].iter_mut().enumerate() {
                *byte = pattern(back, place);
            }
            if length == MESSAGE_BYTES {
                mail.reply(Handle::NONE, &answer[..back], &[])?;
            } else {
                mail.reply_receive(pair.receiver, &answer[..back], &[])?;
            }
        }
        Ok(())
    };
    let server = Worker::start(&serve)?;
    let mut mail = Mail::new();
    let mut bytes = [0; MESSAGE_BYTES];
    for length in 0..=MESSAGE_BYTES {
        for (place, byte) in bytes[..length].iter_mut().enumerate() {
            *byte = pattern(length, place);
        }
        mail.deadline = Some(after(PATIENCE)?);
        mail.call(pair.sender, &bytes[..length], &[])?;
        let back = MESSAGE_BYTES - length;
        check_eq!(mail.bytes().len(), back);
        let wrong = (0..back).find(|place| mail.bytes()[*place] != pattern(back, *place));
        check_eq!(wrong, None);
    }
    server.join()
}

fn a_message_longer_than_the_largest_is_refused() -> Outcome {
    let pair = Pair::new()?;
    let mut extended = libipc::abi::Extended::EMPTY;
    extended.deadline = 0;
    let bytes = [0u8; MESSAGE_BYTES];
    extended.send = bytes.as_ptr() as u64;
    for (length, caps, error) in [
        (MESSAGE_BYTES + 1, 0, Error::TooLong),
        (u16::MAX as usize, 0, Error::TooLong),
        (0, 5, Error::InvalidArgument),
        (0, 15, Error::InvalidArgument),
    ] {
        let op = OpWord::new(IpcCall::Call, IpcFlags::DEADLINE, length, caps);
        // SAFETY: the kernel must refuse the length before it reads anything.
        let incoming = unsafe { syscall::message(op, pair.sender, &mut extended, [0; 8]) };
        check_eq!(incoming.delivery.error(), Some(error));
    }
    // Without a memory part only what fits the registers can be sent.
    let op = OpWord::new(IpcCall::Call, IpcFlags::empty(), 65, 0);
    // SAFETY: no memory part.
    let incoming = unsafe { syscall::message(op, pair.sender, core::ptr::null_mut(), [0; 8]) };
    check_eq!(incoming.delivery.error(), Some(Error::BadAddress));
    Ok(())
}

fn a_message_longer_than_the_receivers_room_is_refused_and_the_receiver_waits_on() -> Outcome {
    let pair = Pair::new()?;
    let serve = || {
        let mut mail = Mail::new().within(PATIENCE)?;
        mail.room = 100;
        mail.receive(pair.receiver)?;
        check_eq!(mail.bytes().len(), 164);
        mail.reply(Handle::NONE, &[], &[])?;
        Ok(())
    };
    let server = Worker::start(&serve)?;
    let mut mail = Mail::new().within(PATIENCE)?;
    check_eq!(mail.call(pair.sender, &[0; 165], &[]), Err(Error::TooLong));
    mail.call(pair.sender, &[0; 164], &[])?;
    server.join()
}

fn none_to_four_capabilities_travel_with_a_message() -> Outcome {
    let pair = Pair::new()?;
    let mut notifications = [Handle::NONE; 4];
    for notification in &mut notifications {
        *notification = syscall::notification_create(slots::POOL, 0)?;
    }
    // The server signals bit n of the n-th capability and sends all of them back.
    let serve = || {
        let mut mail = Mail::new();
        mail.receive(pair.receiver)?;
        for count in 0..=4 {
            check_eq!(mail.caps().len(), count);
            let mut back = [SendCap::EMPTY; 4];
            for (place, handle) in mail.caps().iter().enumerate() {
                check_eq!(handle.table(), Some(TableSelector::Private));
                syscall::signal(*handle, 1 << place)?;
                back[place] = SendCap::moved(*handle);
            }
            if count == 4 {
                mail.reply(Handle::NONE, &[count as u8], &back[..count])?;
            } else {
                mail.reply_receive(pair.receiver, &[count as u8], &back[..count])?;
            }
        }
        Ok(())
    };
    let server = Worker::start(&serve)?;
    for count in 0..=4 {
        let mut mail = Mail::new().within(PATIENCE)?;
        let mut caps = [SendCap::EMPTY; 4];
        for (cap, handle) in caps.iter_mut().zip(notifications) {
            *cap = SendCap::copy(handle);
        }
        mail.call(pair.sender, &[], &caps[..count])?;
        check_eq!(mail.bytes(), [count as u8]);
        check_eq!(mail.caps().len(), count);
        for (place, handle) in mail.caps().iter().enumerate() {
            // What came back is the object that was sent.
            check_eq!(syscall::notification_clear(*handle, u64::MAX)?, 1 << place);
            check_eq!(
                syscall::notification_clear(notifications[place], u64::MAX)?,
                0
            );
        }
        mail.close_caps()?;
    }
    for notification in notifications {
        syscall::cap_close(notification)?;
    }
    server.join()
}

/// Sends `cap` to a server that keeps it and says which handle it has there.
fn deliver(cap: SendCap, slots_wanted: Handle) -> Result<Handle, Error> {
    let pair = Pair::new()?;
    let got = AtomicU64::new(0);
    let serve = || {
        let mut mail = Mail::new().within(PATIENCE)?;
        mail.slots = slots_wanted;
        mail.receive(pair.receiver)?;
        check_eq!(mail.caps().len(), 1);
        got.store(mail.caps()[0].0, SeqCst);
        mail.reply(Handle::NONE, &[], &[])?;
        Ok(())
    };
    let server = Worker::start(&serve)?;
    // A refused call leaves the server waiting; it ends with this function.
    Mail::new()
        .within(PATIENCE)?
        .call(pair.sender, &[], &[cap])?;
    let _ = server.join();
    Ok(Handle(got.load(SeqCst)))
}

/// The access mask of a capability.
fn access_of(handle: Handle) -> Result<Access, Error> {
    let (description, _) = syscall::cap_info(handle)?;
    Ok(Access::from_bits_retain((description >> 32) as u32))
}

fn a_capability_arrives_with_at_most_the_rights_it_was_sent_with() -> Outcome {
    let notification = syscall::notification_create(slots::POOL, 0)?;
    let narrow = deliver(
        SendCap::narrowed(notification, Access::SIGNAL),
        Handle::NONE,
    )?;
    let (description, _) = syscall::cap_info(narrow)?;
    check_eq!(Kind::from_code(description as u8), Some(Kind::Notification));
    check_eq!(access_of(narrow)?, Access::SIGNAL);
    syscall::signal(narrow, 1)?;
    check_eq!(
        syscall::notification_clear(narrow, 1),
        Err(Error::AccessDenied)
    );
    // Sending it on with all rights gives no more than it has.
    let again = deliver(SendCap::copy(narrow), Handle::NONE)?;
    check_eq!(access_of(again)?, Access::SIGNAL);
    for handle in [notification, narrow, again] {
        syscall::cap_close(handle)?;
    }
    Ok(())
}

fn a_moved_capability_leaves_the_sender_when_it_arrives() -> Outcome {
    let notification = syscall::notification_create(slots::POOL, 0)?;
    let arrived = deliver(SendCap::moved(notification), Handle::NONE)?;
    check_eq!(syscall::signal(notification, 1), Err(Error::BadHandle));
    syscall::signal(arrived, 1)?;
    // A call that fails moves nothing.
    let pair = Pair::new()?;
    let mut mail = Mail::new();
    mail.deadline = Some(0);
    let failed = mail.call(pair.sender, &[], &[SendCap::moved(arrived)]);
    check_eq!(failed, Err(Error::TimedOut));
    syscall::signal(arrived, 1)?;
    syscall::cap_close(arrived)?;
    Ok(())
}

fn a_capability_cannot_be_sent_protected() -> Outcome {
    let notification = syscall::notification_create(slots::POOL, 0)?;
    let cap = SendCap {
        options: SlotFlags::PROTECT.bits().into(),
        ..SendCap::copy(notification)
    };
    check_eq!(deliver(cap, Handle::NONE), Err(Error::InvalidArgument));
    let marked = SendCap {
        options: (SlotFlags::INHERIT | SlotFlags::CLOSE_ON_EXEC)
            .bits()
            .into(),
        ..cap
    };
    let arrived = deliver(marked, Handle::NONE)?;
    check_eq!((syscall::cap_info(arrived)?.0 >> 8) as u8, 0b11);
    syscall::cap_close(arrived)?;
    syscall::cap_close(notification)?;
    Ok(())
}

fn capabilities_go_to_the_lowest_free_slot_from_the_named_one_on() -> Outcome {
    let notification = syscall::notification_create(slots::POOL, 0)?;
    let cap = SendCap::copy(notification);
    let from = |index| Handle::new(TableSelector::Files, index, 0);
    let first = deliver(cap, from(40))?;
    let second = deliver(cap, from(40))?;
    check_eq!(
        (first.table(), first.index()),
        (Some(TableSelector::Files), 40)
    );
    check_eq!(second.index(), 41);
    syscall::cap_close(from(40))?;
    let third = deliver(cap, from(39))?;
    check_eq!(third.index(), 39);
    let fourth = deliver(cap, from(39))?;
    check_eq!(fourth.index(), 40);
    // A slot far away is as good as a near one.
    let far = deliver(cap, from(100_000))?;
    check_eq!(far.index(), 100_000);
    for index in [39, 40, 41, 100_000] {
        syscall::cap_close(from(index))?;
    }
    syscall::cap_close(notification)?;
    Ok(())
}

fn the_receiver_learns_badge_access_and_label() -> Outcome {
    let pair = Pair::new()?;
    let access = Access::from_bits_retain(0xa5a5_0001);
    let badged = syscall::cap_derive(pair.receiver, slots::POOL, u64::MAX - 5, access)?;
    let client = || {
        Mail::new().within(PATIENCE)?.call(badged, b"hello", &[])?;
        Ok(())
    };
    let worker = Worker::start(&client)?;
    let mut mail = Mail::new().within(PATIENCE)?;
    mail.receive(pair.receiver)?;
    check_eq!(mail.bytes(), b"hello");
    check_eq!(mail.kind, Some(MessageKind::Call));
    check_eq!(mail.badge, u64::MAX - 5);
    check_eq!(mail.access, 0xa5a5_0001);
    check_eq!(mail.label, own_label()?);
    mail.reply(Handle::NONE, &[], &[])?;
    syscall::cap_close(badged)?;
    worker.join()
}

fn threads_of_the_process_server_have_labels_of_their_own() -> Outcome {
    let pair = Pair::new()?;
    let sender = pair.sender;
    let mut labels = [own_label()?, 0, 0];
    let mut mail = Mail::new().within(PATIENCE)?;
    for label in &mut labels[1..] {
        let thread = runtime::thread::spawn(16, move || {
            i32::from(Mail::new().call(sender, &[], &[]).is_err())
        })?;
        mail.receive(pair.receiver)?;
        *label = mail.label;
        mail.reply(Handle::NONE, &[], &[])?;
        thread.join();
    }
    check!(
        labels[0] != labels[1] && labels[1] != labels[2] && labels[0] != labels[2],
        "labels: {labels:?}"
    );
    Ok(())
}

fn a_one_way_message_waits_for_its_receiver() -> Outcome {
    let pair = Pair::new()?;
    let sent = AtomicBool::new(false);
    let client = || {
        Mail::new()
            .within(PATIENCE)?
            .send(pair.sender, &[1; 100], &[])?;
        sent.store(true, SeqCst);
        Ok(())
    };
    let worker = Worker::start(&client)?;
    check_eq!(
        worker.wait_until(after(20 * MILLISECOND)?),
        Err(Error::TimedOut)
    );
    check!(!sent.load(SeqCst));
    let mut mail = Mail::new().within(PATIENCE)?;
    mail.receive(pair.receiver)?;
    check_eq!(mail.kind, Some(MessageKind::Send));
    check_eq!(mail.bytes(), [1; 100]);
    worker.join()?;
    check!(sent.load(SeqCst));
    // There is nobody to answer.
    check!(mail.reply(Handle::NONE, &[], &[]).is_err());
    Ok(())
}

fn callers_are_served_in_the_order_in_which_they_came() -> Outcome {
    let pair = Pair::new()?;
    let turn = AtomicU64::new(0);
    let client = || {
        let number = turn.fetch_add(1, SeqCst);
        Mail::new()
            .within(PATIENCE)?
            .call(pair.sender, &[number as u8], &[])?;
        Ok(())
    };
    let workers = [
        Worker::start(&client)?,
        Worker::start(&client)?,
        Worker::start(&client)?,
        Worker::start(&client)?,
    ];
    while turn.load(SeqCst) < 4 {
        syscall::thread_yield()?;
    }
    // Each is in its call soon after it took its number.
    check_eq!(
        workers[3].wait_until(after(10 * MILLISECOND)?),
        Err(Error::TimedOut)
    );
    let mut mail = Mail::new().within(PATIENCE)?;
    for number in 0..4u8 {
        mail.receive(pair.receiver)?;
        check_eq!(mail.bytes(), [number]);
        mail.reply(Handle::NONE, &[], &[])?;
    }
    for worker in workers {
        worker.join()?;
    }
    Ok(())
}

fn a_call_that_nobody_receives_times_out() -> Outcome {
    let pair = Pair::new()?;
    let deadline = after(5 * MILLISECOND)?;
    let mut mail = Mail::new();
    mail.deadline = Some(deadline);
    check_eq!(mail.call(pair.sender, &[], &[]), Err(Error::TimedOut));
    check!(syscall::clock()? >= deadline);
    check_eq!(mail.send(pair.sender, &[], &[]), Err(Error::TimedOut));
    // Nothing of it is left for a receiver.
    check_eq!(mail.receive(pair.receiver), Err(Error::TimedOut));
    Ok(())
}

fn a_receive_without_a_message_times_out() -> Outcome {
    let pair = Pair::new()?;
    let deadline = after(5 * MILLISECOND)?;
    let mut mail = Mail::new();
    mail.deadline = Some(deadline);
    check_eq!(mail.receive(pair.receiver), Err(Error::TimedOut));
    let late = syscall::clock()?;
    check!(late >= deadline && late < deadline + PATIENCE);
    Ok(())
}

fn a_deadline_counts_for_the_answer_too() -> Outcome {
    let pair = Pair::new()?;
    let serve = || {
        let mut mail = Mail::new().within(PATIENCE)?;
        mail.receive(pair.receiver)?;
        let reply = keep()?;
        let late = Mail::new().within(50 * MILLISECOND)?.receive(pair.receiver);
        check_eq!(late, Err(Error::TimedOut));
        // The caller has gone its way; whoever answers learns of it.
        check_eq!(mail.reply(reply, b"late", &[]), Err(Error::Gone));
        syscall::cap_close(reply)?;
        Ok(())
    };
    let server = Worker::start(&serve)?;
    let deadline = after(10 * MILLISECOND)?;
    let mut mail = Mail::new();
    mail.deadline = Some(deadline);
    check_eq!(mail.call(pair.sender, &[], &[]), Err(Error::TimedOut));
    check!(syscall::clock()? >= deadline);
    server.join()
}

fn calling_what_is_no_endpoint_is_refused() -> Outcome {
    let mut mail = Mail::new();
    mail.deadline = Some(0);
    let pair = Pair::new()?;
    let closed = syscall::notification_create(slots::POOL, 0)?;
    syscall::cap_close(closed)?;
    for (handle, error) in [
        (Handle::NONE, Error::BadHandle),
        (closed, Error::BadHandle),
        (slots::POOL, Error::WrongKind),
        (pair.receiver, Error::WrongKind),
    ] {
        check_eq!(mail.call(handle, &[], &[]), Err(error));
        check_eq!(mail.send(handle, &[], &[]), Err(error));
    }
    check_eq!(mail.receive(pair.sender), Err(Error::WrongKind));
    check_eq!(mail.receive(slots::SPACE), Err(Error::WrongKind));
    // A capability that is not there cannot be sent either: it is looked for when somebody
    // receives.
    let serve = || {
        let mut waiting = Mail::new().within(20 * MILLISECOND)?;
        check_eq!(waiting.receive(pair.receiver), Err(Error::TimedOut));
        Ok(())
    };
    let server = Worker::start(&serve)?;
    mail.deadline = Some(after(PATIENCE)?);
    check_eq!(
        mail.call(pair.sender, &[], &[SendCap::copy(closed)]),
        Err(Error::BadHandle)
    );
    server.join()
}

fn replying_without_a_call_is_refused() -> Outcome {
    let mut mail = Mail::new();
    check!(mail.reply(Handle::NONE, &[], &[]).is_err());
    check_eq!(keep(), Err(Error::WrongState));
    check_eq!(mail.reply(slots::POOL, &[], &[]), Err(Error::WrongKind));
    Ok(())
}

fn one_reply_keeps_call_after_call() -> Outcome {
    let pair = Pair::new()?;
    let serve = || {
        let mut mail = Mail::new().within(PATIENCE)?;
        let reply = syscall::reply_create(slots::POOL)?;
        mail.receive(pair.receiver)?;
        let (_, used) = syscall::pool_status(slots::POOL)?;
        for round in 0..100 {
            check_eq!(mail.bytes(), [round]);
            syscall::reply_keep(reply)?;
            if round < 99 {
                mail.reply_kept_receive(pair.receiver, reply, &[round, 1])?;
            }
        }
        check_eq!(syscall::pool_status(slots::POOL)?.1, used);
        mail.reply(reply, &[99, 1], &[])?;
        check_eq!(mail.reply(reply, &[], &[]), Err(Error::Gone));
        syscall::cap_close(reply)?;
        Ok(())
    };
    let server = Worker::start(&serve)?;
    let mut mail = Mail::new().within(PATIENCE)?;
    for round in 0..100 {
        mail.call(pair.sender, &[round], &[])?;
        check_eq!(mail.bytes(), [round, 1]);
    }
    server.join()
}

fn calls_are_kept_and_answered_while_the_server_waits_for_others() -> Outcome {
    let pair = Pair::new()?;
    let client = || {
        let mut mail = Mail::new().within(PATIENCE)?;
        mail.call(pair.sender, b"please", &[])?;
        check_eq!(mail.bytes(), [7; 56]);
        Ok(())
    };
    let replies = [
        syscall::reply_create(slots::POOL)?,
        syscall::reply_create(slots::POOL)?,
    ];
    let workers = [Worker::start(&client)?, Worker::start(&client)?];
    let mut mail = Mail::new().within(PATIENCE)?;
    mail.receive(pair.receiver)?;
    mail.keep_receive(pair.receiver, replies[0])?;
    // The second wait fails; what it was to do first is done.
    mail.deadline = Some(0);
    check_eq!(
        mail.keep_receive(pair.receiver, replies[1]),
        Err(Error::TimedOut)
    );
    for reply in replies {
        let waits = mail.reply_kept_receive(pair.receiver, reply, &[7; 56]);
        check_eq!(waits, Err(Error::TimedOut));
    }
    for worker in workers {
        worker.join()?;
    }
    for reply in replies {
        check_eq!(mail.reply(reply, &[], &[]), Err(Error::Gone));
        syscall::cap_close(reply)?;
    }
    Ok(())
}

fn a_caller_that_dies_leaves_its_reply_free_for_the_next() -> Outcome {
    let pair = Pair::new()?;
    let client = || {
        Mail::new().within(PATIENCE)?.call(pair.sender, &[], &[])?;
        Ok(())
    };
    let reply = syscall::reply_create(slots::POOL)?;
    let mut mail = Mail::new().within(PATIENCE)?;
    for _ in 0..3 {
        let worker = Worker::start(&client)?;
        mail.receive(pair.receiver)?;
        syscall::reply_keep(reply)?;
        drop(worker);
        let waits = mail.reply_kept_receive(pair.receiver, reply, b"late");
        check_eq!(waits, Err(Error::Gone));
    }
    let worker = Worker::start(&client)?;
    mail.receive(pair.receiver)?;
    syscall::reply_keep(reply)?;
    mail.reply(reply, &[], &[])?;
    worker.join()?;
    syscall::cap_close(reply)?;
    Ok(())
}

fn a_reply_that_is_busy_or_not_named_keeps_nothing() -> Outcome {
    let pair = Pair::new()?;
    let client = || {
        let mut mail = Mail::new().within(PATIENCE)?;
        mail.call(pair.sender, &[], &[])?;
        check_eq!(mail.bytes(), b"answer");
        Ok(())
    };
    let workers = [Worker::start(&client)?, Worker::start(&client)?];
    let mut mail = Mail::new().within(PATIENCE)?;
    mail.receive(pair.receiver)?;
    let reply = keep()?;
    // Nothing is owed, and the reply is busy.
    check_eq!(
        mail.keep_receive(pair.receiver, reply),
        Err(Error::WrongState)
    );
    mail.receive(pair.receiver)?;
    for (name, error) in [
        (reply, Error::WrongState),
        (slots::POOL, Error::WrongKind),
        (Handle::NONE, Error::BadHandle),
    ] {
        check_eq!(mail.keep_receive(pair.receiver, name), Err(error));
    }
    check_eq!(
        mail.reply_kept_receive(pair.receiver, slots::POOL, &[]),
        Err(Error::WrongKind)
    );
    // All this has changed nothing.
    mail.reply(Handle::NONE, b"answer", &[])?;
    mail.reply(reply, b"answer", &[])?;
    for worker in workers {
        worker.join()?;
    }
    let narrow = syscall::cap_derive(reply, slots::POOL, 0, Access::empty())?;
    check_eq!(syscall::reply_keep(narrow), Err(Error::AccessDenied));
    for handle in [narrow, reply] {
        syscall::cap_close(handle)?;
    }
    Ok(())
}

fn an_answer_to_a_kept_call_leaves_a_register_for_the_reply() -> Outcome {
    let pair = Pair::new()?;
    let client = || {
        let mut mail = Mail::new().within(PATIENCE)?;
        mail.call(pair.sender, &[], &[])?;
        check_eq!(mail.bytes(), [3; 100]);
        Ok(())
    };
    let worker = Worker::start(&client)?;
    let mut mail = Mail::new().within(PATIENCE)?;
    mail.receive(pair.receiver)?;
    let reply = keep()?;
    for length in [57, 64, 65, 4096] {
        let refused = mail.reply_kept_receive(pair.receiver, reply, &[3; 4096][..length]);
        check_eq!(refused, Err(Error::InvalidArgument));
    }
    mail.names = Some(reply);
    let caps = [SendCap::copy(pair.sender)];
    check_eq!(
        mail.reply_receive(pair.receiver, &[], &caps),
        Err(Error::InvalidArgument)
    );
    mail.reply(reply, &[3; 100], &[])?;
    worker.join()?;
    syscall::cap_close(reply)?;
    Ok(())
}

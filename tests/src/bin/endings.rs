//! Calls that end otherwise than by an answer: interruption, and the death of either side.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::abi::{Access, IpcFlags, MessageKind, SlotFlags};
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::syscall;
use tests::worker::wait_for;
use tests::{
    MILLISECOND, Mail, Outcome, PATIENCE, Worker, after, check, check_eq, keep, own_label,
};

tests::suite! {
    interrupting_a_call_that_nobody_received_ends_it_at_once,
    interrupting_a_received_call_asks_the_server_and_brings_its_answer,
    a_killable_only_call_stays_when_it_is_interrupted,
    interrupting_a_receive_ends_it,
    a_received_call_can_be_answered_after_the_last_receiver_has_gone,
    a_queued_call_ends_with_server_gone_or_waits_as_the_endpoint_was_made,
    a_receiver_that_has_a_copy_keeps_the_endpoint_alive,
    the_end_of_a_server_thread_ends_the_calls_it_had_received,
    answering_a_dead_caller_is_gone,
    a_reply_can_be_kept_and_answered_later_once,
    a_dropped_reply_ends_the_call,
    the_last_sender_with_a_badge_is_told,
    senders_that_are_revoked_are_not_told,
    bits_of_a_bound_notification_arrive_as_a_message,
}

fn endpoint() -> Result<(Handle, Handle), Error> {
    let receiver = syscall::endpoint_create(slots::POOL, 0)?;
    let sender = syscall::cap_derive(receiver, slots::POOL, 7, Access::all())?;
    Ok((receiver, sender))
}

fn close(handles: &[Handle]) -> Outcome {
    for handle in handles {
        syscall::cap_close(*handle)?;
    }
    Ok(())
}

/// Waits until the thread waits for something.
fn until_it_waits(thread: Handle) -> Outcome {
    let deadline = after(PATIENCE)?;
    while syscall::thread_status(thread)?.0 & 0xff != 1 {
        check!(syscall::clock()? < deadline, "the thread does not wait");
        syscall::thread_yield()?;
    }
    Ok(())
}

fn interrupting_a_call_that_nobody_received_ends_it_at_once() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let client = || {
        check_eq!(Mail::new().call(sender, &[], &[]), Err(Error::Interrupted));
        Ok(())
    };
    let worker = Worker::start(&client)?;
    until_it_waits(worker.thread())?;
    syscall::thread_interrupt(worker.thread())?;
    worker.join()?;
    let mut mail = Mail::new();
    mail.deadline = Some(0);
    check_eq!(mail.receive(receiver), Err(Error::TimedOut));
    close(&[sender, receiver])
}

fn interrupting_a_received_call_asks_the_server_and_brings_its_answer() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let client = || {
        let mut mail = Mail::new();
        mail.call(sender, b"please", &[])?;
        check_eq!(mail.bytes(), b"half done");
        Ok(())
    };
    let worker = Worker::start(&client)?;
    let mut mail = Mail::new().within(PATIENCE)?;
    mail.receive(receiver)?;
    let reply = keep()?;
    syscall::thread_interrupt(worker.thread())?;
    mail.receive(receiver)?;
    check_eq!(mail.kind, Some(MessageKind::Cancel));
    check_eq!(mail.label, own_label()?);
    // A second interrupt is not a second notice.
    syscall::thread_interrupt(worker.thread())?;
    let mut impatient = Mail::new().within(10 * MILLISECOND)?;
    check_eq!(impatient.receive(receiver), Err(Error::TimedOut));
    mail.reply(reply, b"half done", &[])?;
    worker.join()?;
    close(&[reply, sender, receiver])
}

fn a_killable_only_call_stays_when_it_is_interrupted() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let client = || {
        let mut mail = Mail::new();
        mail.flags = IpcFlags::KILLABLE_ONLY;
        mail.call(sender, &[], &[])?;
        check_eq!(mail.bytes(), b"done");
        Ok(())
    };
    let worker = Worker::start(&client)?;
    until_it_waits(worker.thread())?;
    syscall::thread_interrupt(worker.thread())?;
    check_eq!(
        worker.wait_until(after(10 * MILLISECOND)?),
        Err(Error::TimedOut)
    );
    let mut mail = Mail::new().within(PATIENCE)?;
    mail.receive(receiver)?;
    check_eq!(mail.kind, Some(MessageKind::Call));
    syscall::thread_interrupt(worker.thread())?;
    mail.reply(Handle::NONE, b"done", &[])?;
    worker.join()?;
    // Another such thread is ended while it waits.
    let worker = Worker::start(&client)?;
    until_it_waits(worker.thread())?;
    drop(worker);
    mail.deadline = Some(0);
    check_eq!(mail.receive(receiver), Err(Error::TimedOut));
    close(&[sender, receiver])
}

fn interrupting_a_receive_ends_it() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let serve = || {
        check_eq!(Mail::new().receive(receiver), Err(Error::Interrupted));
        Ok(())
    };
    let worker = Worker::start(&serve)?;
    until_it_waits(worker.thread())?;
    syscall::thread_interrupt(worker.thread())?;
    worker.join()?;
    close(&[sender, receiver])
}

fn a_received_call_can_be_answered_after_the_last_receiver_has_gone() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let client = || {
        let mut mail = Mail::new();
        mail.call(sender, &[], &[])?;
        check_eq!(mail.bytes(), b"last words");
        check_eq!(mail.call(sender, &[], &[]), Err(Error::ServerGone));
        Ok(())
    };
    let worker = Worker::start(&client)?;
    let mut mail = Mail::new().within(PATIENCE)?;
    mail.receive(receiver)?;
    let reply = keep()?;
    close(&[receiver])?;
    mail.reply(reply, b"last words", &[])?;
    worker.join()?;
    close(&[reply, sender])
}

fn a_queued_call_ends_with_server_gone_or_waits_as_the_endpoint_was_made() -> Outcome {
    for keep_queued in [0, 1] {
        let receiver = syscall::endpoint_create(slots::POOL, keep_queued)?;
        let sender = syscall::cap_derive(receiver, slots::POOL, 7, Access::all())?;
        let expected = [Error::ServerGone, Error::TimedOut][keep_queued as usize];
        let client = || {
            let result = Mail::new().within(50 * MILLISECOND)?.call(sender, &[], &[]);
            check_eq!(result, Err(expected));
            Ok(())
        };
        let worker = Worker::start(&client)?;
        until_it_waits(worker.thread())?;
        close(&[receiver])?;
        worker.join()?;
        close(&[sender])?;
    }
    Ok(())
}

fn a_receiver_that_has_a_copy_keeps_the_endpoint_alive() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let copy = syscall::cap_copy(
        receiver,
        Handle::OWN_FILES,
        50,
        Access::all(),
        SlotFlags::empty(),
    )?;
    let copy = Handle(copy);
    let client = || {
        Mail::new().within(PATIENCE)?.call(sender, &[], &[])?;
        Ok(())
    };
    let worker = Worker::start(&client)?;
    until_it_waits(worker.thread())?;
    close(&[receiver])?;
    let mut mail = Mail::new().within(PATIENCE)?;
    mail.receive(copy)?;
    mail.reply(Handle::NONE, &[], &[])?;
    worker.join()?;
    close(&[sender, copy])
}

fn the_end_of_a_server_thread_ends_the_calls_it_had_received() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let serve = || {
        Mail::new().receive(receiver)?;
        Ok(()) // ends with the call unanswered
    };
    let server = Worker::start(&serve)?;
    let mut mail = Mail::new().within(PATIENCE)?;
    let result = mail.call(sender, &[], &[]);
    check!(
        result == Err(Error::Gone) || result == Err(Error::ServerGone),
        "the call ended with {result:?}"
    );
    server.join()?;
    close(&[sender, receiver])
}

fn answering_a_dead_caller_is_gone() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let client = || {
        let _ = Mail::new().call(sender, &[], &[]);
        Ok(())
    };
    let mut mail = Mail::new().within(PATIENCE)?;
    let worker = Worker::start(&client)?;
    mail.receive(receiver)?;
    drop(worker);
    check_eq!(mail.reply(Handle::NONE, &[], &[]), Err(Error::Gone));
    let worker = Worker::start(&client)?;
    mail.receive(receiver)?;
    let reply = keep()?;
    drop(worker);
    check_eq!(mail.reply(reply, &[], &[]), Err(Error::Gone));
    check_eq!(mail.reply(reply, &[], &[]), Err(Error::Gone));
    close(&[reply, sender, receiver])
}

fn a_reply_can_be_kept_and_answered_later_once() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let client = || {
        let mut mail = Mail::new().within(PATIENCE)?;
        mail.call(sender, &[], &[])?;
        check_eq!(mail.bytes(), b"first");
        mail.call(sender, &[], &[])?;
        check_eq!(mail.bytes(), b"second");
        Ok(())
    };
    let worker = Worker::start(&client)?;
    let mut mail = Mail::new().within(PATIENCE)?;
    mail.receive(receiver)?;
    let reply = keep()?;
    // It is no longer the implicit one.
    check!(mail.reply(Handle::NONE, b"wrong", &[]).is_err());
    mail.reply(reply, b"first", &[])?;
    check_eq!(mail.reply(reply, b"again", &[]), Err(Error::Gone));
    mail.receive(receiver)?;
    mail.reply(Handle::NONE, b"second", &[])?;
    check!(mail.reply(Handle::NONE, b"again", &[]).is_err());
    worker.join()?;
    close(&[reply, sender, receiver])
}

fn a_dropped_reply_ends_the_call() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let client = || {
        let result = Mail::new().call(sender, &[], &[]);
        check!(
            result == Err(Error::Gone) || result == Err(Error::ServerGone),
            "the call ended with {result:?}"
        );
        Ok(())
    };
    let worker = Worker::start(&client)?;
    let mut mail = Mail::new().within(PATIENCE)?;
    mail.receive(receiver)?;
    let reply = keep()?;
    close(&[reply])?;
    worker.join()?;
    close(&[sender, receiver])
}

fn the_last_sender_with_a_badge_is_told() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let other = syscall::cap_derive(receiver, slots::POOL, 8, Access::all())?;
    let copy = syscall::cap_copy(
        sender,
        Handle::OWN_PRIVATE,
        0,
        Access::all(),
        SlotFlags::empty(),
    )?;
    let copy = Handle::new(
        libipc::abi::TableSelector::Private,
        copy as u32,
        (copy >> 32) as u32,
    );
    let mut mail = Mail::new();
    mail.deadline = Some(0);
    close(&[sender])?;
    check_eq!(mail.receive(receiver), Err(Error::TimedOut));
    close(&[copy])?;
    mail.receive(receiver)?;
    check_eq!(mail.kind, Some(MessageKind::NoMoreSenders));
    check_eq!(mail.badge, 7);
    check_eq!(mail.receive(receiver), Err(Error::TimedOut));
    close(&[other])?;
    mail.receive(receiver)?;
    check_eq!(
        (mail.kind, mail.badge),
        (Some(MessageKind::NoMoreSenders), 8)
    );
    close(&[receiver])
}

fn senders_that_are_revoked_are_not_told() -> Outcome {
    let (receiver, sender) = endpoint()?;
    syscall::cap_revoke(receiver)?;
    let mut mail = Mail::new();
    mail.deadline = Some(0);
    check_eq!(mail.call(sender, &[], &[]), Err(Error::BadHandle));
    // Who revokes knows.
    check_eq!(mail.receive(receiver), Err(Error::TimedOut));
    close(&[sender])?;
    check_eq!(mail.receive(receiver), Err(Error::TimedOut));
    close(&[receiver])
}

fn bits_of_a_bound_notification_arrive_as_a_message() -> Outcome {
    let (receiver, sender) = endpoint()?;
    let notification = syscall::notification_create(slots::POOL, 0)?;
    syscall::endpoint_bind(receiver, notification)?;
    let seen = AtomicU64::new(0);
    let serve = || {
        let mut mail = Mail::new().within(PATIENCE)?;
        while seen.load(SeqCst) != 0b111 {
            mail.receive(receiver)?;
            check_eq!(mail.kind, Some(MessageKind::Notification));
            seen.fetch_or(mail.word(0), SeqCst);
        }
        mail.receive(receiver)?;
        check_eq!(mail.kind, Some(MessageKind::Call));
        mail.reply(Handle::NONE, &[], &[])?;
        Ok(())
    };
    // Bits that were set before are there at once, together.
    syscall::signal(notification, 0b011)?;
    let worker = Worker::start(&serve)?;
    until_it_waits(worker.thread())?;
    check_eq!(seen.load(SeqCst), 0b011);
    syscall::signal(notification, 0b100)?;
    Mail::new().within(PATIENCE)?.call(sender, &[], &[])?;
    worker.join()?;
    check_eq!(wait_for(notification, u64::MAX, 0), Err(Error::TimedOut));
    close(&[sender, receiver, notification])
}

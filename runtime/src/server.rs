//! The loop that every server runs: receive, have it handled, answer, receive.
//!
//! Invariant: when the loop waits again, every capability that came with the last message was either
//! taken by the handler or closed, and every capability that was to be handed over with an answer has
//! either arrived or is closed.

mod replies;

use libipc::abi::{
    Error, Extended, Handle, INLINE_BYTES, IpcCall, IpcFlags, MESSAGE_CAPS, MessageKind, OpWord,
    REPLY_WORD, SendCap, TAIL_BYTES,
};
use libipc::wire::{Body, Caller, LongBody, Served};

pub use replies::Replies;
use replies::Wait;

use crate::syscall;

/// What a server does with what arrives at its endpoint.
pub trait Handler {
    /// A call. With [`Served::Answered`] the caller gets `answer` and `caller.gives`; with
    /// [`Served::Owed`] the handler keeps it ([`Replies::keep`]), or has ended the caller.
    fn request(&mut self, caller: &mut Caller, request: &[u8], answer: &mut LongBody) -> Served;

    /// Its replies, if it answers some calls later.
    fn replies(&mut self) -> Option<&mut Replies> {
        None
    }

    /// Nobody holds a sender with this badge any more.
    fn no_more_senders(&mut self, badge: u64) {
        let _ = badge;
    }

    /// The thread with this label wants its call back.
    fn cancel(&mut self, label: u64) {
        let _ = label;
    }

    /// Bits of the notification that is bound to the endpoint.
    fn notified(&mut self, bits: u64) {
        let _ = bits;
    }

    /// A one-way message.
    fn message(&mut self, caller: &mut Caller, body: &[u8]) {
        let _ = (caller, body);
    }

    /// A thread faulted. With [`Served::Answered`] it goes on where it faulted; otherwise the handler
    /// keeps the call, or gives it up, and with it the thread.
    fn fault(&mut self, caller: &mut Caller, words: [u64; 8]) -> Served {
        let _ = (caller, words);
        Served::Owed
    }
}

/// Serves `receiver` for ever.
pub fn run<H: Handler>(receiver: Handle, handler: &mut H) -> ! {
    let mut request = LongBody::new();
    let mut answer = LongBody::new();
    let mut extended = Extended {
        send: answer.tail_address(),
        receive: request.tail_address(),
        receive_bytes: TAIL_BYTES as u64,
        ..Extended::EMPTY
    };
    let mut wait = Wait::Receive;
    // How many of `extended.send_caps` go with the loop's answer.
    let mut gives = 0;
    loop {
        let (op, body) = match wait {
            Wait::Receive => (operation(IpcCall::Receive, 0, 0), [0; 8]),
            Wait::Keep(reply) => naming(reply, operation(IpcCall::Receive, 0, 0), [0; 8]),
            Wait::Answer => (
                operation(IpcCall::ReplyReceive, answer.len(), gives),
                answer.words(),
            ),
            Wait::AnswerLate | Wait::AnswerKept(_) => {
                let late = handler.replies().map(|replies| replies.late());
                let (length, words) = late.map_or((0, [0; 8]), |late| (late.len(), late.words()));
                let op = operation(IpcCall::ReplyReceive, length, 0);
                match wait {
                    Wait::AnswerKept(reply) => naming(reply, op, words),
                    _ => (op, words),
                }
            }
        };
        // SAFETY: `send` and `receive` are the tails of two bodies that outlive the call, with the
        // lengths given.
        let incoming = unsafe { syscall::message(op, receiver, &mut extended, body) };
        if let Some(error) = incoming.delivery.error() {
            // What was kept or answered late is settled: if its caller is gone nobody has to be told.
            if wait == Wait::Answer {
                undeliverable(error, &extended.send_caps[..gives]);
            }
            wait = Wait::Receive;
            continue;
        }
        // SAFETY: the kernel filled the tail up to the delivered length.
        unsafe { request.set_delivered(incoming.body, incoming.delivery.length()) };
        let mut caller = Caller::new(incoming.label, incoming.badge, incoming.delivery.access());
        for handle in extended.received.iter().take(incoming.delivery.caps()) {
            let _ = caller.received.push(*handle);
        }
        let mut served = Served::Owed;
        match incoming.delivery.kind() {
            Some(MessageKind::Call) => {
                answer.clear();
                served = handler.request(&mut caller, request.bytes(), &mut answer);
            }
            Some(MessageKind::Send) => handler.message(&mut caller, request.bytes()),
            Some(MessageKind::Fault) => {
                answer.clear();
                served = handler.fault(&mut caller, incoming.body);
            }
            Some(MessageKind::NoMoreSenders) => handler.no_more_senders(incoming.badge),
            Some(MessageKind::Cancel) => handler.cancel(incoming.label),
            Some(MessageKind::Notification) => handler.notified(incoming.body[0]),
            None => {}
        }
        for handle in caller.received.iter().filter(|handle| handle.is_some()) {
            let _ = syscall::cap_close(*handle);
        }
        wait = match (handler.replies(), served) {
            (Some(replies), served) => replies.wait(served),
            (None, Served::Answered) => Wait::Answer,
            (None, Served::Owed) => Wait::Receive,
        };
        if wait == Wait::Answer {
            for (place, cap) in extended.send_caps.iter_mut().zip(&caller.gives) {
                *place = *cap;
            }
            gives = caller.gives.len();
        }
    }
}

const fn operation(call: IpcCall, length: usize, caps: usize) -> OpWord {
    OpWord::new(call, IpcFlags::empty(), length, caps)
}

/// The same message, which names a reply.
fn naming(reply: Handle, OpWord(operation): OpWord, mut body: [u64; 8]) -> (OpWord, [u64; 8]) {
    const REPLY: u64 = (IpcFlags::REPLY.bits() as u64) << 8;
    body[REPLY_WORD] = reply.0;
    (OpWord(operation | REPLY), body)
}

/// An answer did not arrive. If the caller is gone there is nobody to tell; otherwise (its table is
/// full, its pool at its limit) it gets an empty answer, which its stub reports as a protocol error.
fn undeliverable(error: Error, gives: &[SendCap]) {
    if error != Error::Gone {
        let op = OpWord::new(IpcCall::Reply, IpcFlags::empty(), 0, 0);
        // SAFETY: no memory part.
        unsafe { syscall::message(op, Handle::NONE, core::ptr::null_mut(), [0; 8]) };
    }
    forget(gives);
}

/// Closes the capabilities that were to move with an answer that did not arrive.
fn forget(gives: &[SendCap]) {
    for cap in gives.iter().filter(|cap| cap.options & SendCap::MOVE != 0) {
        let _ = syscall::cap_close(cap.handle);
    }
}

/// Answers the last received call, or the one that `reply` keeps, and hands over `gives`.
fn send<const TAIL: usize>(
    reply: Handle,
    answer: &mut Body<TAIL>,
    gives: &[SendCap],
) -> Result<(), Error> {
    let count = gives.len().min(MESSAGE_CAPS);
    let op = OpWord::new(IpcCall::Reply, IpcFlags::empty(), answer.len(), count);
    let incoming = if count == 0 && answer.len() <= INLINE_BYTES {
        // What fits the registers needs no memory part, which the kernel would have to read.
        // SAFETY: no memory part.
        unsafe { syscall::message(op, reply, core::ptr::null_mut(), answer.words()) }
    } else {
        let mut extended = Extended {
            send: answer.tail_address(),
            ..Extended::EMPTY
        };
        extended.send_caps[..count].copy_from_slice(&gives[..count]);
        // SAFETY: `send` is the tail of a body that outlives the call, with the length given.
        unsafe { syscall::message(op, reply, &mut extended, answer.words()) }
    };
    match incoming.delivery.error() {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

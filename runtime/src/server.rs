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

/// What goes into the kernel with a message call.
type Message = (OpWord, [u64; 8]);

/// Nothing goes with a wait that answers nobody.
const RECEIVE: Message = (operation(IpcCall::Receive, 0, 0), [0; 8]);

const fn operation(call: IpcCall, length: usize, caps: usize) -> OpWord {
    OpWord::new(call, IpcFlags::empty(), length, caps)
}

/// The same message, which names a reply.
#[inline(always)]
fn naming(reply: Handle, (OpWord(operation), mut body): Message) -> Message {
    const REPLY: u64 = (IpcFlags::REPLY.bits() as u64) << 8;
    body[REPLY_WORD] = reply.0;
    (OpWord(operation | REPLY), body)
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
    let mut caller = Caller::new(0, 0, 0);
    let mut served = Served::Owed;
    let mut message = RECEIVE;
    loop {
        // SAFETY: `send` and `receive` are the tails of two bodies that outlive the call, with the
        // lengths given.
        let incoming = unsafe { syscall::message(message.0, receiver, &mut extended, message.1) };
        if let Some(error) = incoming.delivery.error() {
            // A call that was kept, or answered late, is settled: should its caller be gone, nobody
            // has to be told.
            if served == Served::Answered {
                undeliverable(error, &caller.gives);
            }
            (served, message) = (Served::Owed, RECEIVE);
            continue;
        }
        // SAFETY: the kernel filled the tail up to the delivered length.
        unsafe { request.set_delivered(incoming.body, incoming.delivery.length()) };
        caller.begin(incoming.label, incoming.badge, incoming.delivery.access());
        for handle in extended.received.iter().take(incoming.delivery.caps()) {
            let _ = caller.received.push(*handle);
        }
        if !answer.is_empty() {
            answer.clear();
        }
        served = Served::Owed;
        match incoming.delivery.kind() {
            Some(MessageKind::Call) => {
                served = handler.request(&mut caller, request.bytes(), &mut answer);
            }
            Some(MessageKind::Send) => handler.message(&mut caller, request.bytes()),
            Some(MessageKind::Fault) => served = handler.fault(&mut caller, request.words()),
            Some(MessageKind::NoMoreSenders) => handler.no_more_senders(incoming.badge),
            Some(MessageKind::Cancel) => handler.cancel(incoming.label),
            Some(MessageKind::Notification) => handler.notified(request.words()[0]),
            None => {}
        }
        for handle in caller.received.iter().filter(|handle| handle.is_some()) {
            let _ = syscall::cap_close(*handle);
        }
        message = match (served, handler.replies()) {
            (Served::Answered, replies) => {
                if let Some(replies) = replies {
                    replies.before_answer();
                }
                for (place, cap) in extended.send_caps.iter_mut().zip(&caller.gives) {
                    *place = *cap;
                }
                let (length, caps) = (answer.len(), caller.gives.len());
                (
                    operation(IpcCall::ReplyReceive, length, caps),
                    answer.words(),
                )
            }
            (Served::Owed, Some(replies)) => replies.wait(),
            (Served::Owed, None) => RECEIVE,
        };
    }
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

//! The loop that every server runs: receive, have it handled, answer, receive.
//!
//! Invariant: when the loop waits again, every capability that came with the last message was either
//! taken by the handler or closed, and every capability that was to be handed over with an answer has
//! either arrived or is closed.

use libipc::abi::{
    Error, Extended, Handle, INLINE_BYTES, IpcCall, IpcFlags, MESSAGE_CAPS, MessageKind, OpWord,
    SendCap, TAIL_BYTES,
};
use libipc::wire::{Body, Caller, LongBody, Served};

use crate::syscall;

/// What a server does with what arrives at its endpoint.
pub trait Handler {
    /// A call. With [`Served::Answered`] the caller gets `answer` and `caller.gives`; with
    /// [`Served::Owed`] the handler has kept the reply.
    fn request(&mut self, caller: &mut Caller, request: &[u8], answer: &mut LongBody) -> Served;

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
    /// keeps the reply, or drops it with the thread.
    fn fault(&mut self, caller: &mut Caller, words: [u64; 8]) -> Served {
        let _ = (caller, words);
        Served::Owed
    }
}

/// Serves `receiver` for ever.
pub fn run(receiver: Handle, handler: &mut impl Handler) -> ! {
    const RECEIVE: OpWord = OpWord::new(IpcCall::Receive, IpcFlags::empty(), 0, 0);
    let mut request = LongBody::new();
    let mut answer = LongBody::new();
    let mut extended = Extended {
        send: answer.tail_address(),
        receive: request.tail_address(),
        receive_bytes: TAIL_BYTES as u64,
        ..Extended::EMPTY
    };
    // While there is an answer: how many of `extended.send_caps` go with it.
    let mut answered: Option<usize> = None;
    loop {
        let op = answered.map_or(RECEIVE, |gives| {
            OpWord::new(
                IpcCall::ReplyReceive,
                IpcFlags::empty(),
                answer.len(),
                gives,
            )
        });
        // SAFETY: `send` and `receive` are the tails of two bodies that outlive the call, with the
        // lengths given.
        let incoming = unsafe { syscall::message(op, receiver, &mut extended, answer.words()) };
        if let Some(error) = incoming.delivery.error() {
            if let Some(gives) = answered.take() {
                undeliverable(error, &extended.send_caps[..gives]);
            }
            continue;
        }
        answered = None;
        // SAFETY: the kernel filled the tail up to the delivered length.
        unsafe { request.set_delivered(incoming.body, incoming.delivery.length()) };
        let mut caller = Caller::new(incoming.label, incoming.badge, incoming.delivery.access());
        for handle in extended.received.iter().take(incoming.delivery.caps()) {
            let _ = caller.received.push(*handle);
        }
        match incoming.delivery.kind() {
            Some(MessageKind::Call) => {
                answer.clear();
                let served = handler.request(&mut caller, request.bytes(), &mut answer);
                if served == Served::Answered {
                    for (place, cap) in extended.send_caps.iter_mut().zip(&caller.gives) {
                        *place = *cap;
                    }
                    answered = Some(caller.gives.len());
                }
            }
            Some(MessageKind::Send) => handler.message(&mut caller, request.bytes()),
            Some(MessageKind::Fault) => {
                answer.clear();
                if handler.fault(&mut caller, incoming.body) == Served::Answered {
                    answered = Some(0);
                }
            }
            Some(MessageKind::NoMoreSenders) => handler.no_more_senders(incoming.badge),
            Some(MessageKind::Cancel) => handler.cancel(incoming.label),
            Some(MessageKind::Notification) => handler.notified(incoming.body[0]),
            None => {}
        }
        for handle in caller.received.iter().filter(|handle| handle.is_some()) {
            let _ = syscall::cap_close(*handle);
        }
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
    for cap in gives {
        if cap.options & SendCap::MOVE != 0 {
            let _ = syscall::cap_close(cap.handle);
        }
    }
}

/// Answers the call behind a kept reply, and hands over `gives`. An error (the caller is gone) leaves
/// nothing open: the reply and capabilities to be moved are closed.
pub fn reply<const TAIL: usize>(
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
        Some(error) => {
            let _ = syscall::cap_close(reply);
            for cap in gives.iter().filter(|cap| cap.options & SendCap::MOVE != 0) {
                let _ = syscall::cap_close(cap.handle);
            }
            Err(error)
        }
    }
}

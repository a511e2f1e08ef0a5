//! The calls that a server answers later.
//!
//! A call that the handler keeps is bound to a reply when the loop waits again, and the last of the
//! answers that the handler gives late goes out then too: each is part of the one system call that
//! waits. Replies that keep nothing are used again.
//!
//! Invariant: an idle reply keeps no call, and nobody else has its handle.

use heapless::Vec;
use libipc::abi::{Error, Handle, IpcCall, REPLY_BYTES, SendCap};
use libipc::wire::{Body, Kept, ShortBody};

use super::{Message, RECEIVE, forget, naming, operation, send};
use crate::syscall;

/// How many idle replies there are at most: as many as a busy server may have in use at once, and
/// they cost it some pages.
const IDLE: usize = 128;

/// The replies of a server.
pub struct Replies {
    /// What pays for them.
    pool: Handle,
    idle: Vec<Handle, IDLE>,
    /// The one that is to keep the call that is being handled, or none.
    keeps: Handle,
    /// The one whose call is to be answered with `answer`, or none.
    answers: Handle,
    answer: ShortBody,
}

impl Replies {
    /// No replies yet; `pool` pays for those that are needed.
    pub const fn new(pool: Handle) -> Replies {
        Replies {
            pool,
            idle: Vec::new(),
            keeps: Handle::NONE,
            answers: Handle::NONE,
            answer: ShortBody::new(),
        }
    }

    /// Keeps the call that is being handled; its handler says
    /// [`Served::Owed`](libipc::wire::Served::Owed) then.
    ///
    /// # Errors
    ///
    /// `NoMemory` if a new reply is needed and the pool is at its limit; `WrongState` if the call is
    /// kept already.
    pub fn keep(&mut self) -> Result<Kept, Error> {
        if self.keeps.is_some() {
            return Err(Error::WrongState);
        }
        let reply = match self.idle.pop() {
            Some(reply) => reply,
            None => syscall::reply_create(self.pool)?,
        };
        self.keeps = reply;
        Ok(Kept::by(reply))
    }

    /// Answers a kept call now, and hands over `gives`. An error (the caller is gone, or something
    /// that cannot be given) leaves nothing open: capabilities to be moved are closed, and the caller
    /// is given up.
    pub fn answer<const TAIL: usize>(
        &mut self,
        kept: Kept,
        answer: &mut Body<TAIL>,
        gives: &[SendCap],
    ) -> Result<(), Error> {
        self.answer_first();
        self.send(kept.into_reply(), answer, gives)
            .inspect_err(|_| forget(gives))
    }

    /// Answers a kept call when the server waits again, but before any other answer that is given
    /// after this. `write` writes the answer; whether the caller is still there nobody learns.
    #[inline]
    pub fn answer_soon(&mut self, kept: Kept, write: impl FnOnce(&mut ShortBody)) {
        self.answer_first();
        self.answer.clear();
        write(&mut self.answer);
        self.answers = kept.into_reply();
    }

    /// Gives a kept call up: its caller, if it is still there, hears that nobody will answer.
    pub fn close(&mut self, kept: Kept) {
        let reply = kept.into_reply();
        if self.keeps == reply {
            // It keeps nothing yet. The loop answers the call, or gives it up.
            self.keeps = Handle::NONE;
            self.put_back(reply);
        } else {
            let _ = syscall::cap_close(reply);
        }
    }

    /// Gives the late answer before the server waits.
    #[inline(always)]
    fn answer_first(&mut self) {
        if self.answers.is_some() {
            self.answer_now();
        }
    }

    #[cold]
    fn answer_now(&mut self) {
        let reply = core::mem::take(&mut self.answers);
        let mut answer = core::mem::take(&mut self.answer);
        let _ = self.send(reply, &mut answer, &[]);
    }

    /// Answers the call that a reply keeps, or is to keep when the server waits.
    fn send<const TAIL: usize>(
        &mut self,
        reply: Handle,
        answer: &mut Body<TAIL>,
        gives: &[SendCap],
    ) -> Result<(), Error> {
        if self.keeps == reply {
            self.keeps = Handle::NONE;
            self.put_back(reply);
            return send(Handle::NONE, answer, gives);
        }
        let sent = send(reply, answer, gives);
        match sent {
            Ok(()) | Err(Error::Gone) => self.put_back(reply),
            // It still keeps the call.
            Err(_) => {
                let _ = syscall::cap_close(reply);
            }
        }
        sent
    }

    /// A reply that keeps nothing is idle.
    #[inline(always)]
    fn put_back(&mut self, reply: Handle) {
        if self.idle.push(reply).is_err() {
            let _ = syscall::cap_close(reply);
        }
    }

    /// The loop has an answer to the call that was handled.
    #[inline(always)]
    pub(super) fn before_answer(&mut self) {
        self.answer_first();
        debug_assert!(!self.keeps.is_some(), "an answered call is not kept");
    }

    /// How the server waits when the loop has no answer: one call can keep or answer.
    #[inline(always)]
    pub(super) fn wait(&mut self) -> Message {
        if self.answers.is_some() {
            if let Some(message) = self.wait_and_answer() {
                return message;
            }
            self.answer_now();
        }
        match core::mem::take(&mut self.keeps) {
            Handle::NONE => RECEIVE,
            reply => naming(reply, RECEIVE),
        }
    }

    /// The same with the late answer, if they go together.
    #[inline(always)]
    fn wait_and_answer(&mut self) -> Option<Message> {
        let (reply, length) = (self.answers, self.answer.len());
        let message = (
            operation(IpcCall::ReplyReceive, length, 0),
            self.answer.words(),
        );
        let message = if self.keeps == reply {
            // Kept and answered in one turn.
            self.keeps = Handle::NONE;
            message
        } else if !self.keeps.is_some() && length <= REPLY_BYTES && !self.idle.is_full() {
            naming(reply, message)
        } else {
            return None;
        };
        self.answers = Handle::NONE;
        self.put_back(reply);
        Some(message)
    }
}

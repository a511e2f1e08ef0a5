//! Kept replies: the one-shot right to answer one call.
//!
//! The last received call is answered without any object; only a server that wants to answer later
//! makes one of these. Invariant: a reply that has a caller is that caller's holder, so either one
//! finds the other when it goes away.

use super::Thread;
use crate::memory::{Object, ObjectKind, Ref};

/// The right to answer one call.
pub struct Reply {
    caller: Option<Ref<Thread>>,
    /// Capabilities that refer to it.
    pub(crate) holds: u32,
}

impl Object for Reply {
    const KIND: ObjectKind = ObjectKind::Reply;
}

impl Reply {
    /// The right to answer `caller`, with one hold.
    pub fn new(caller: Ref<Thread>) -> Reply {
        Reply {
            caller: Some(caller),
            holds: 1,
        }
    }

    /// Who waits for it; `None` once it is answered or has given up.
    pub fn caller(&self) -> Option<Ref<Thread>> {
        self.caller
    }

    /// The caller is answered or has gone.
    pub fn take_caller(&mut self) -> Option<Ref<Thread>> {
        self.caller.take()
    }
}

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
    /// The right to answer nobody yet, with one hold.
    #[allow(
        clippy::new_without_default,
        reason = "there is nothing usual about it"
    )]
    pub fn new() -> Reply {
        Reply {
            caller: None,
            holds: 1,
        }
    }

    /// From now on it is this caller that is answered.
    pub fn set_caller(&mut self, caller: Ref<Thread>) {
        self.caller = Some(caller);
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

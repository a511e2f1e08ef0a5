//! Replies: where calls are kept that are answered later.
//!
//! The last received call is answered without any object; only a server that wants to answer later
//! has these, and uses them again. Invariant: a reply that keeps a call is its caller's holder, so
//! either one finds the other when it goes away.

use super::Thread;
use crate::memory::{Object, ObjectKind, Ref};

/// A place for one call, and the right to answer it.
pub struct Reply {
    caller: Option<Ref<Thread>>,
    /// Capabilities that refer to it.
    pub(crate) holds: u32,
}

impl Object for Reply {
    const KIND: ObjectKind = ObjectKind::Reply;
}

impl Reply {
    /// A reply that keeps nothing yet, with one hold.
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
        debug_assert!(self.caller.is_none(), "it keeps one call at a time");
        self.caller = Some(caller);
    }

    /// Who waits for it; `None` if it keeps no call.
    pub fn caller(&self) -> Option<Ref<Thread>> {
        self.caller
    }

    /// The caller is answered or has gone.
    pub fn take_caller(&mut self) -> Option<Ref<Thread>> {
        self.caller.take()
    }
}

//! The derivation tree: a node for each grant of an object.
//!
//! Copying or narrowing a capability shares its node; deriving makes a child node; revoking kills
//! everything below a node. A killed node is out of the tree at once and goes when its last slot
//! is closed, so nobody has to search for slots.
//!
//! Invariant: an alive node holds one reference to its object and is linked with its parent (if it
//! has one) and its children, which are alive or being killed; a dead node holds none and has no
//! relatives. A node without slots and children is on the list of nodes to be looked at, or is its
//! endpoint's notice, and for nothing else.

use crate::machine::Machine;
use crate::memory::{Memory, Object, ObjectKind, Pool, Ref};
use libipc::abi::{Error, Kind};

/// How deep derivations nest. It bounds the walk from a revoked node to a leaf.
pub const MAX_DEPTH: u8 = 64;

/// A grant of an object.
pub struct Node {
    /// Address bits of the object; 0 for [`Kind::System`], which has none, and for the capability
    /// that stands for its user's own space.
    object: u64,
    badge: u64,
    parent: Option<Ref<Node>>,
    child: Option<Ref<Node>>,
    next: Option<Ref<Node>>,
    previous: Option<Ref<Node>>,
    /// The next one in a list of [`Nodes`].
    link: Option<Ref<Node>>,
    /// Slot pages' slots and kernel fields that name this node.
    slots: u32,
    /// What it grants; `None` once it was killed.
    kind: Option<Kind>,
    depth: u8,
    marks: u8,
}

/// Marks of a node: it is on a list of [`Nodes`].
const LISTED: u8 = 1 << 0;
/// Its children are to be killed.
const REVOKING: u8 = 1 << 1;
/// Its notice has been delivered.
const NOTICED: u8 = 1 << 2;

const _: () = assert!(size_of::<Node>() == 64);

impl Object for Node {
    const KIND: ObjectKind = ObjectKind::Node;
}

/// A capability that the kernel itself holds: it counts as a slot of its node.
///
/// Not `Copy`: whoever drops one owes a [`Memory::node_release`].
#[derive(Debug, PartialEq, Eq)]
pub struct Cap {
    /// The grant.
    pub node: Ref<Node>,
    /// What it permits.
    pub access: u32,
}

/// A list of nodes, linked through them. A node is on at most one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    first: Option<Ref<Node>>,
    last: Option<Ref<Node>>,
}

impl Nodes {
    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The first one.
    pub fn first(&self) -> Option<Ref<Node>> {
        self.first
    }

    /// Appends a node that is on no list.
    pub fn push<M: Machine>(&mut self, memory: &mut Memory<M>, node: Ref<Node>) {
        let entry = memory.get_mut(node);
        debug_assert!(entry.marks & LISTED == 0, "a node is on one list");
        entry.marks |= LISTED;
        entry.link = None;
        match self.last {
            Some(last) => memory.get_mut(last).link = Some(node),
            None => self.first = Some(node),
        }
        self.last = Some(node);
    }

    /// Takes the first one out.
    pub fn pop<M: Machine>(&mut self, memory: &mut Memory<M>) -> Option<Ref<Node>> {
        let node = self.first?;
        let entry = memory.get_mut(node);
        entry.marks &= !LISTED;
        self.first = entry.link.take();
        if self.first.is_none() {
            self.last = None;
        }
        Some(node)
    }
}

/// What a listed node turns out to be, and what its reaper owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has slots or children again, or still: nothing to do.
    Stays,
    /// The last receive right of this endpoint has gone; senders remain.
    LastReceiver(u64),
    /// The last capability with this badge has gone: its endpoint wants to know.
    /// The node stays until the notice is delivered.
    Notice(u64),
    /// It has gone; one reference to this object went with it.
    Gone(Kind, u64),
    /// It has gone and had no object any more.
    Forgotten,
}

/// One step of killing what is below a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    /// One node was killed, and one reference to this object went with it.
    One(Kind, u64),
    /// There is nothing left to kill.
    Nothing,
}

impl Node {
    /// What kind of object it grants; `None` once it was revoked.
    #[inline]
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Address bits of the object.
    #[inline]
    pub fn object(&self) -> u64 {
        self.object
    }

    /// Whether it grants whoever uses it the space that it runs in.
    #[inline]
    pub fn is_own_space(&self) -> bool {
        self.object == 0 && self.kind == Some(Kind::Space)
    }

    /// The badge that receivers see.
    #[inline]
    pub fn badge(&self) -> u64 {
        self.badge
    }

    /// False once it was revoked.
    #[inline]
    pub fn is_alive(&self) -> bool {
        self.kind.is_some()
    }

    /// How many slots and kernel fields name it.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Whether its children are being killed.
    pub fn is_revoking(&self) -> bool {
        self.marks & REVOKING != 0
    }
}

impl<M: Machine> Memory<M> {
    /// Makes the first node of an object; it takes over one reference to it. It has no slot yet.
    ///
    /// # Errors
    ///
    /// `NoMemory` if the pool cannot pay.
    pub fn node_create(
        &mut self,
        pool: Ref<Pool>,
        kind: Kind,
        object: u64,
    ) -> Result<Ref<Node>, Error> {
        self.create(pool, fresh(kind, object))
    }

    /// Makes a child of `parent` for `object`, to which it takes over one reference.
    ///
    /// # Errors
    ///
    /// `NoMemory` if the pool cannot pay, `BadHandle` if the parent was revoked, `WrongState` while
    /// its children are being revoked, `Exhausted` if it is too deep in the tree.
    pub fn node_derive(
        &mut self,
        parent: Ref<Node>,
        pool: Ref<Pool>,
        kind: Kind,
        object: u64,
        badge: u64,
    ) -> Result<Ref<Node>, Error> {
        let above = self.get(parent);
        if !above.is_alive() {
            return Err(Error::BadHandle);
        }
        if above.is_own_space() {
            // Many programs share this grant: what one derives is not for others to take back.
            return self.node_create(pool, kind, object);
        }
        if above.is_revoking() {
            return Err(Error::WrongState);
        }
        if above.depth >= MAX_DEPTH {
            return Err(Error::Exhausted);
        }
        let value = Node {
            badge,
            depth: above.depth + 1,
            parent: Some(parent),
            next: above.child,
            ..fresh(kind, object)
        };
        let sibling = value.next;
        let node = self.create(pool, value)?;
        if let Some(sibling) = sibling {
            self.get_mut(sibling).previous = Some(node);
        }
        self.get_mut(parent).child = Some(node);
        Ok(node)
    }

    /// Takes back a node that never got a slot; its reference to the object is the caller's again.
    pub fn node_discard(&mut self, node: Ref<Node>) {
        debug_assert!(self.get(node).slots == 0 && self.get(node).child.is_none());
        self.node_unlink(node);
        self.destroy(node);
    }

    /// One more slot names the node.
    ///
    /// # Errors
    ///
    /// `Exhausted` if the count is at its highest value.
    #[inline]
    pub fn node_hold(&mut self, node: Ref<Node>) -> Result<(), Error> {
        let node = self.get_mut(node);
        node.slots = node.slots.checked_add(1).ok_or(Error::Exhausted)?;
        Ok(())
    }

    /// One slot less names the node. Says whether it is to be looked at: nothing may keep it now.
    #[inline]
    #[must_use]
    pub fn node_drop(&mut self, node: Ref<Node>) -> bool {
        let entry = self.get_mut(node);
        debug_assert!(entry.slots > 0, "a slot that was never counted");
        entry.slots -= 1;
        entry.slots == 0
            && entry.marks & LISTED == 0
            && (entry.child.is_none() || entry.kind == Some(Kind::Receiver))
    }

    /// One slot less names the node. If it is to be looked at, it goes to `reap`.
    #[inline]
    pub fn node_release(&mut self, node: Ref<Node>, reap: &mut Nodes) {
        if self.node_drop(node) {
            reap.push(self, node);
        }
    }

    /// Asks for all children of a node to be killed: marks it and puts it on `reap`.
    pub fn node_revoke(&mut self, node: Ref<Node>, reap: &mut Nodes) {
        let entry = self.get_mut(node);
        if entry.child.is_none() {
            return;
        }
        entry.marks |= REVOKING;
        if entry.marks & LISTED == 0 {
            reap.push(self, node);
        }
    }

    /// Kills one node below `top`: the first leaf. At most [`MAX_DEPTH`] nodes are looked at, and
    /// no node on the way can be derived from any more.
    pub fn node_kill_below(&mut self, top: Ref<Node>, reap: &mut Nodes) -> Killed {
        let mut leaf = top;
        while let Some(child) = self.get(leaf).child {
            leaf = child;
            self.get_mut(leaf).marks |= REVOKING;
        }
        if leaf == top {
            self.get_mut(top).marks &= !REVOKING;
            return Killed::Nothing;
        }
        let (kind, object) = self.node_kill(leaf, reap);
        Killed::One(kind, object)
    }

    /// Kills an alive node without children. Returns its object, one reference to which is the
    /// caller's now.
    pub fn node_kill(&mut self, node: Ref<Node>, reap: &mut Nodes) -> (Kind, u64) {
        debug_assert!(self.get(node).child.is_none());
        let parent = self.get(node).parent;
        self.node_unlink(node);
        if let Some(parent) = parent {
            self.node_look_at(parent, reap);
        }
        let entry = self.get_mut(node);
        let kind = entry.kind.take().expect("it is killed once");
        entry.marks &= !REVOKING;
        let object = (kind, entry.object);
        if entry.slots == 0 && entry.marks & LISTED == 0 {
            reap.push(self, node);
        }
        object
    }

    /// Decides about a node that was taken from the list of those to be looked at.
    pub fn node_settle(&mut self, node: Ref<Node>, reap: &mut Nodes) -> Fate {
        let entry = self.get(node);
        if entry.slots > 0 {
            return Fate::Stays;
        }
        let Some(kind) = entry.kind else {
            self.destroy(node);
            return Fate::Forgotten;
        };
        if entry.child.is_some() {
            return match kind {
                Kind::Receiver => Fate::LastReceiver(entry.object),
                _ => Fate::Stays,
            };
        }
        let (object, parent) = (entry.object, entry.parent);
        let from_receiver =
            parent.is_some_and(|parent| self.get(parent).kind == Some(Kind::Receiver));
        if kind == Kind::Sender && from_receiver && self.get(node).marks & NOTICED == 0 {
            self.get_mut(node).marks |= NOTICED;
            return Fate::Notice(object);
        }
        self.node_unlink(node);
        if let Some(parent) = parent {
            self.node_look_at(parent, reap);
        }
        self.destroy(node);
        Fate::Gone(kind, object)
    }

    /// Puts a node on the list if nothing keeps it.
    fn node_look_at(&mut self, node: Ref<Node>, reap: &mut Nodes) {
        let entry = self.get(node);
        if entry.slots == 0 && entry.child.is_none() && entry.marks & LISTED == 0 {
            reap.push(self, node);
        }
    }

    /// Takes a node out of its parent's children.
    fn node_unlink(&mut self, node: Ref<Node>) {
        let entry = self.get_mut(node);
        let (parent, next) = (entry.parent.take(), entry.next.take());
        let previous = entry.previous.take();
        if let Some(next) = next {
            self.get_mut(next).previous = previous;
        }
        match (previous, parent) {
            (Some(previous), _) => self.get_mut(previous).next = next,
            (None, Some(parent)) => self.get_mut(parent).child = next,
            (None, None) => {}
        }
    }
}

fn fresh(kind: Kind, object: u64) -> Node {
    Node {
        object,
        badge: 0,
        parent: None,
        child: None,
        next: None,
        previous: None,
        link: None,
        slots: 0,
        kind: Some(kind),
        depth: 0,
        marks: 0,
    }
}

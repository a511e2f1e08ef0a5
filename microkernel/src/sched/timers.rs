//! Deadlines: a leftist heap that is linked through threads and notifications.
//!
//! In a leftist heap the way down the right-hand side is the shortest way out, so it has at most
//! log2(n + 1) nodes, and everything is done along such ways: two heaps are merged along their
//! right sides; a node leaves by putting the merge of its two halves in its place, after which
//! ranks are put right upwards, which stops where a rank did not change.
//!
//! Invariant: no node's deadline is before its parent's; a node's rank is one more than its right
//! half's, and the left half's rank is not smaller than the right half's (no node: rank 0).

use crate::machine::Machine;
use crate::memory::{Memory, Ref};
use crate::object::thread::Unusual;
use crate::object::{Notification, Thread};

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A thread's, for the call in which it waits.
    Thread(Ref<Thread>),
    /// A notification's, for its timer.
    Notification(Ref<Notification>),
}

/// An owner in one word: objects are aligned to 64 bytes, bit 0 tells the kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id(core::num::NonZeroU64);

impl Id {
    fn new(owner: Owner) -> Id {
        let bits = match owner {
            Owner::Thread(thread) => thread.to_bits(),
            Owner::Notification(notification) => notification.to_bits() | 1,
        };
        Id(core::num::NonZeroU64::new(bits).expect("no object is at address 0"))
    }

    fn owner(self) -> Owner {
        let bits = self.0.get();
        let kind = bits & 1;
        let found = if kind == 0 {
            Ref::from_bits(bits).map(Owner::Thread)
        } else {
            Ref::from_bits(bits & !1).map(Owner::Notification)
        };
        found.expect("no object is at address 0")
    }
}

/// A deadline's place in the heap; part of its owner.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimerNode {
    deadline_ns: u64,
    parent: Option<Id>,
    left: Option<Id>,
    right: Option<Id>,
    /// 0: not in the heap.
    rank: u32,
}

impl TimerNode {
    /// No deadline.
    pub const IDLE: TimerNode = TimerNode {
        deadline_ns: 0,
        parent: None,
        left: None,
        right: None,
        rank: 0,
    };

    /// Whether a deadline runs.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.rank != 0
    }
}

/// All deadlines that run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timers {
    root: Option<Id>,
}

impl Timers {
    /// The earliest deadline in nanoseconds since boot.
    #[inline]
    pub fn earliest<M: Machine>(&self, memory: &Memory<M>) -> Option<u64> {
        Some(node(memory, self.root?).deadline_ns)
    }

    /// Starts a deadline for an owner that has none.
    pub fn insert<M: Machine>(&mut self, memory: &mut Memory<M>, owner: Owner, deadline_ns: u64) {
        let id = Id::new(owner);
        mark(memory, owner, true);
        let entry = node_mut(memory, id);
        debug_assert!(entry.rank == 0, "one deadline at a time");
        *entry = TimerNode {
            deadline_ns,
            rank: 1,
            ..TimerNode::default()
        };
        self.root = merge(memory, self.root, Some(id));
        if let Some(root) = self.root {
            node_mut(memory, root).parent = None;
        }
    }

    /// Takes off an owner's deadline, if it has one.
    pub fn remove<M: Machine>(&mut self, memory: &mut Memory<M>, owner: Owner) {
        let id = Id::new(owner);
        let entry = *node(memory, id);
        if entry.rank == 0 {
            return;
        }
        mark(memory, owner, false);
        *node_mut(memory, id) = TimerNode::default();
        let rest = merge(memory, entry.left, entry.right);
        if let Some(rest) = rest {
            node_mut(memory, rest).parent = entry.parent;
        }
        let Some(parent) = entry.parent else {
            self.root = rest;
            return;
        };
        let above = node_mut(memory, parent);
        if above.left == Some(id) {
            above.left = rest;
        } else {
            above.right = rest;
        }
        let mut at = Some(parent);
        while let Some(id) = at {
            let before = node(memory, id).rank;
            put_right(memory, id);
            let entry = node(memory, id);
            if entry.rank == before {
                break;
            }
            at = entry.parent;
        }
    }

    /// Takes off the earliest deadline if it is not after `now_ns`.
    pub fn pop_due<M: Machine>(&mut self, memory: &mut Memory<M>, now_ns: u64) -> Option<Owner> {
        let root = self.root?;
        if node(memory, root).deadline_ns > now_ns {
            return None;
        }
        let owner = root.owner();
        self.remove(memory, owner);
        Some(owner)
    }
}

/// A thread also says in a word of its own that its deadline runs.
fn mark<M: Machine>(memory: &mut Memory<M>, owner: Owner, runs: bool) {
    if let Owner::Thread(thread) = owner {
        memory.get_mut(thread).unusual.set(Unusual::TIMED, runs);
    }
}

fn node<M: Machine>(memory: &Memory<M>, id: Id) -> &TimerNode {
    match id.owner() {
        Owner::Thread(thread) => &memory.get(thread).timer,
        Owner::Notification(notification) => &memory.get(notification).timer,
    }
}

fn node_mut<M: Machine>(memory: &mut Memory<M>, id: Id) -> &mut TimerNode {
    match id.owner() {
        Owner::Thread(thread) => &mut memory.get_mut(thread).timer,
        Owner::Notification(notification) => &mut memory.get_mut(notification).timer,
    }
}

fn rank<M: Machine>(memory: &Memory<M>, id: Option<Id>) -> u32 {
    id.map_or(0, |id| node(memory, id).rank)
}

/// Puts the half with the higher rank to the left and sets the node's rank.
fn put_right<M: Machine>(memory: &mut Memory<M>, id: Id) {
    let TimerNode { left, right, .. } = *node(memory, id);
    let (left_rank, right_rank) = (rank(memory, left), rank(memory, right));
    let entry = node_mut(memory, id);
    if left_rank < right_rank {
        (entry.left, entry.right) = (right, left);
    }
    entry.rank = left_rank.min(right_rank) + 1;
}

/// Merges two heaps: down their right sides, always going on with the earlier root, then up again
/// putting ranks right. Returns the root, whose parent is the caller's to set.
fn merge<M: Machine>(memory: &mut Memory<M>, one: Option<Id>, two: Option<Id>) -> Option<Id> {
    let (mut one, mut two) = match (one, two) {
        (Some(one), Some(two)) => (one, two),
        (one, two) => return one.or(two),
    };
    let mut above: Option<Id> = None;
    let mut root = None;
    loop {
        if node(memory, two).deadline_ns < node(memory, one).deadline_ns {
            core::mem::swap(&mut one, &mut two);
        }
        node_mut(memory, one).parent = above;
        match above {
            Some(above) => node_mut(memory, above).right = Some(one),
            None => root = Some(one),
        }
        above = Some(one);
        match node(memory, one).right {
            Some(right) => one = right,
            None => {
                node_mut(memory, one).right = Some(two);
                node_mut(memory, two).parent = above;
                break;
            }
        }
    }
    while let Some(id) = above {
        put_right(memory, id);
        above = node(memory, id).parent;
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake::{self, FakeMachine};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// Checks the heap below `id` and returns how many nodes it has.
    fn check(memory: &Memory<FakeMachine>, id: Option<Id>, parent: Option<Id>) -> usize {
        let Some(id) = id else { return 0 };
        let entry = node(memory, id);
        assert_eq!(entry.parent, parent);
        if let Some(parent) = parent {
            assert!(node(memory, parent).deadline_ns <= entry.deadline_ns);
        }
        assert!(rank(memory, entry.left) >= rank(memory, entry.right));
        assert_eq!(entry.rank, rank(memory, entry.right) + 1);
        1 + check(memory, entry.left, Some(id)) + check(memory, entry.right, Some(id))
    }

    proptest! {
        #[test]
        fn deadlines_fire_in_order_whatever_is_started_and_stopped(
            steps in prop::collection::vec((0usize..40, 0u64..50, 0u8..4), 1..200)
        ) {
            let mut memory = fake::memory(128);
            let pool = memory.root_pool();
            let owners: Vec<Owner> = (0..40)
                .map(|index| match index % 2 {
                    0 => Owner::Thread(memory.create(pool, Thread::new()).unwrap()),
                    _ => Owner::Notification(memory.create(pool, Notification::new(0)).unwrap()),
                })
                .collect();
            let mut timers = Timers::default();
            let mut model = BTreeSet::new();
            for (index, deadline, what) in steps {
                let running = model.iter().find(|&&(_, other)| other == index).copied();
                match (what, running) {
                    (0, _) => {
                        let due = timers.pop_due(&mut memory, deadline);
                        match due {
                            None => prop_assert!(model.first().is_none_or(|&(at, _)| at > deadline)),
                            Some(owner) => {
                                let index = owners.iter().position(|&o| o == owner).unwrap();
                                let at = model.iter().find(|&&(_, other)| other == index).copied().unwrap();
                                prop_assert_eq!(at.0, model.first().unwrap().0);
                                model.remove(&at);
                            }
                        }
                    }
                    (1, Some(at)) => {
                        timers.remove(&mut memory, owners[index]);
                        model.remove(&at);
                    }
                    (_, None) => {
                        timers.insert(&mut memory, owners[index], deadline);
                        model.insert((deadline, index));
                    }
                    _ => {}
                }
                prop_assert_eq!(timers.earliest(&memory), model.first().map(|&(at, _)| at));
                prop_assert_eq!(check(&memory, timers.root, None), model.len());
                for &owner in &owners {
                    if let Owner::Thread(thread) = owner {
                        let thread = memory.get(thread);
                        let marked = thread.unusual.contains(Unusual::TIMED);
                        prop_assert_eq!(marked, thread.timer.is_set());
                    }
                }
            }
        }
    }
}

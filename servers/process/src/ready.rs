//! The children of a process that have something to tell, in order of creation.
//!
//! A tree through the children's own records, so that a child that ends needs no memory for telling it.
//! It is a treap: ordered by the children's places, and no child below one of less weight. Weights are
//! the places well mixed, which keeps the tree as flat as one of random weights.
//!
//! Invariant: a record that is in no tree has no branches.

use crate::arena::Arena;
use crate::model::{Process, ProcessId};

/// What hangs below a child: those made before it, and those made after it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Branches {
    before: Option<ProcessId>,
    after: Option<ProcessId>,
}

/// Where a tree's root or a branch is kept.
#[derive(Clone, Copy)]
enum Link {
    Root(ProcessId),
    Before(ProcessId),
    After(ProcessId),
}

fn weight(order: u64) -> u64 {
    // Knuth's multiplicative hash: 2^64 divided by the golden ratio.
    order.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Link {
    fn target(self, processes: &mut Arena<Process>) -> &mut Option<ProcessId> {
        match self {
            Link::Root(parent) => &mut processes[parent].ready,
            Link::Before(child) => &mut processes[child].branches.before,
            Link::After(child) => &mut processes[child].branches.after,
        }
    }

    /// Where to look on for a place, from `child` on, which has another one.
    fn towards(order: u64, child: ProcessId, processes: &Arena<Process>) -> Link {
        match order < processes[child].order {
            true => Link::Before(child),
            false => Link::After(child),
        }
    }
}

/// Adds a child to those of its parent that have news, if there are no others: most parents have one
/// such child at a time.
#[inline(always)]
#[must_use = "false: there are others"]
pub fn insert_alone(parent: &mut Process, child: ProcessId) -> bool {
    let alone = parent.ready.is_none();
    if alone {
        parent.ready = Some(child);
    }
    alone
}

/// Adds a child to those of `parent` that have news, if it is not among them.
pub fn insert(processes: &mut Arena<Process>, parent: ProcessId, child: ProcessId) {
    let order = processes[child].order;
    let mut link = Link::Root(parent);
    while let Some(found) = *link.target(processes) {
        if found == child {
            return;
        }
        if weight(processes[found].order) < weight(order) {
            break;
        }
        link = Link::towards(order, found, processes);
    }
    // What was there is divided among the two sides of the child.
    let mut rest = link.target(processes).replace(child);
    let (mut before, mut after) = (Link::Before(child), Link::After(child));
    while let Some(id) = rest {
        let (side, next) = match processes[id].order < order {
            true => (&mut before, Link::After(id)),
            false => (&mut after, Link::Before(id)),
        };
        *side.target(processes) = rest;
        *side = next;
        rest = next.target(processes).take();
    }
}

/// Takes a child with these branches out, if there are no others.
#[inline(always)]
#[must_use = "false: there are others"]
pub fn remove_alone(parent: &mut Process, child: ProcessId, branches: Branches) -> bool {
    match parent.ready {
        None => true,
        Some(only) if only == child && branches.before.or(branches.after).is_none() => {
            parent.ready = None;
            true
        }
        Some(_) => false,
    }
}

/// Takes a child out, if it is among them.
pub fn remove(processes: &mut Arena<Process>, parent: ProcessId, child: ProcessId) {
    let order = processes[child].order;
    let mut link = Link::Root(parent);
    loop {
        match *link.target(processes) {
            None => return,
            Some(found) if found == child => break,
            Some(found) => link = Link::towards(order, found, processes),
        }
    }
    let Branches {
        mut before,
        mut after,
    } = core::mem::take(&mut processes[child].branches);
    // Its two sides become one.
    loop {
        let (Some(left), Some(right)) = (before, after) else {
            *link.target(processes) = before.or(after);
            return;
        };
        if weight(processes[left].order) > weight(processes[right].order) {
            *link.target(processes) = before;
            link = Link::After(left);
            before = processes[left].branches.after;
        } else {
            *link.target(processes) = after;
            link = Link::Before(right);
            after = processes[right].branches.before;
        }
    }
}

/// The eldest child with news.
pub fn first(processes: &Arena<Process>, parent: ProcessId) -> Option<ProcessId> {
    not_below(processes, parent, 0)
}

/// The eldest child with news whose place is not below `order`.
fn not_below(processes: &Arena<Process>, parent: ProcessId, order: u64) -> Option<ProcessId> {
    let (mut at, mut best) = (processes[parent].ready, None);
    while let Some(id) = at {
        let record = &processes[id];
        at = match record.order < order {
            true => record.branches.after,
            false => {
                best = at;
                record.branches.before
            }
        };
    }
    best
}

/// The children with news, eldest first.
pub fn iter(processes: &Arena<Process>, parent: ProcessId) -> impl Iterator<Item = ProcessId> {
    core::iter::successors(first(processes, parent), move |id| {
        not_below(processes, parent, processes[*id].order + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A parent, and children with the places 0, 1, ...
    fn family(children: u64) -> (Arena<Process>, ProcessId, Vec<ProcessId>) {
        let mut processes = Arena::default();
        let mut make = |order| {
            let mut process = Process::new(Kind::Linux, Default::default());
            process.order = order;
            processes.insert_with(|| process).unwrap()
        };
        let parent = make(0);
        let children = (0..children).map(&mut make).collect();
        (processes, parent, children)
    }

    fn depth(processes: &Arena<Process>, at: Option<ProcessId>) -> usize {
        let Some(id) = at else { return 0 };
        let Branches { before, after } = processes[id].branches;
        1 + depth(processes, before).max(depth(processes, after))
    }

    proptest! {
        #[test]
        fn children_come_in_order_whatever_happens(
            steps in prop::collection::vec((any::<bool>(), 0..40usize), 0..120)
        ) {
            let (mut processes, parent, children) = family(40);
            let mut model = BTreeMap::new();
            for (inserts, order) in steps {
                if inserts {
                    insert(&mut processes, parent, children[order]);
                    model.insert(order, children[order]);
                } else {
                    remove(&mut processes, parent, children[order]);
                    model.remove(&order);
                    let Branches { before, after } = processes[children[order]].branches;
                    prop_assert_eq!((before, after), (None, None));
                }
                prop_assert_eq!(first(&processes, parent), model.values().next().copied());
                let found: Vec<_> = iter(&processes, parent).collect();
                prop_assert_eq!(found, model.values().copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_tree_stays_flat_in_whatever_order_children_end() {
        const MANY: u64 = 10_000;
        let orders: [fn(u64) -> u64; 4] = [
            |at| at,
            |at| MANY - 1 - at,
            |at| at * 7919 % MANY,
            // Those whose weights rise slowly, which is the worst that can be asked for.
            |at| at * 89 % MANY,
        ];
        for order in orders {
            let (mut processes, parent, children) = family(MANY);
            for at in 0..MANY {
                insert(&mut processes, parent, children[order(at) as usize]);
            }
            let depth = depth(&processes, processes[parent].ready);
            assert!(depth < 60, "{depth}");
        }
        let (mut processes, parent, children) = family(MANY);
        for child in children.iter().step_by(89) {
            insert(&mut processes, parent, *child);
        }
        let depth = depth(&processes, processes[parent].ready);
        assert!(depth <= 113, "{depth}");
    }
}

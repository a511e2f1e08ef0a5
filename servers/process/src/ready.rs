//! The children of a process that have something to tell, in order of creation.
//!
//! Most parents have one such child at a time, so the first has a place of its own and only further
//! ones cost memory. Children mostly end in the order in which they were made, so a new one mostly goes
//! to the end; any other place costs a move of those behind it.
//!
//! Invariant: the first comes before all others, the others are in order, and there are none without a
//! first.

use alloc::collections::VecDeque;

use crate::model::ProcessId;

/// Children with news.
#[derive(Default)]
pub struct Ready {
    first: Option<(u64, ProcessId)>,
    others: VecDeque<(u64, ProcessId)>,
}

impl Ready {
    /// Puts a child in its place.
    #[inline]
    pub fn insert(&mut self, order: u64, child: ProcessId) {
        match self.first {
            None => self.first = Some((order, child)),
            Some(first) => self.insert_beside(first, (order, child)),
        }
    }

    fn insert_beside(&mut self, first: (u64, ProcessId), new: (u64, ProcessId)) {
        let (order, child) = new;
        if order <= first.0 {
            self.first = Some(new);
            if order < first.0 {
                self.others.push_front(first);
            }
            return;
        }
        match self.place(order) {
            Ok(place) => self.others[place].1 = child,
            Err(place) => self.others.insert(place, new),
        }
    }

    /// Takes a child out, if it is there.
    #[inline]
    pub fn remove(&mut self, order: u64) {
        match self.first {
            Some((first, _)) if first == order => self.first = self.others.pop_front(),
            Some(_) => self.remove_other(order),
            None => {}
        }
    }

    fn remove_other(&mut self, order: u64) {
        if let Ok(place) = self.place(order) {
            self.others.remove(place);
        }
    }

    /// Where a child is among the others, or belongs.
    fn place(&self, order: u64) -> Result<usize, usize> {
        match self.others.back() {
            Some((last, _)) if *last >= order => self
                .others
                .binary_search_by_key(&order, |(order, _)| *order),
            _ => Err(self.others.len()),
        }
    }

    /// The children, eldest first.
    pub fn iter(&self) -> impl Iterator<Item = ProcessId> {
        let first = self.first.map(|(_, child)| child);
        let others = self.others.iter().map(|(_, child)| *child);
        first.into_iter().chain(others)
    }

    /// The child with this place.
    pub fn get(&self, order: u64) -> Option<ProcessId> {
        match self.first {
            Some((first, child)) if first == order => Some(child),
            _ => self.place(order).ok().map(|place| self.others[place].1),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn children_come_in_order_whatever_happens(
            steps in prop::collection::vec((any::<bool>(), 1u64..12), 0..60)
        ) {
            let (mut ready, mut model) = (Ready::default(), BTreeMap::new());
            for (inserts, order) in steps {
                let child = ProcessId::from_bits(order << 24 | 1).unwrap();
                if inserts {
                    ready.insert(order, child);
                    model.insert(order, child);
                } else {
                    ready.remove(order);
                    model.remove(&order);
                }
                prop_assert_eq!(ready.get(order), model.get(&order).copied());
                prop_assert_eq!(ready.iter().collect::<Vec<_>>(), model.values().copied().collect::<Vec<_>>());
                prop_assert_eq!((ready.len(), ready.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }
}

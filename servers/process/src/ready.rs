//! The children of a process that have something to tell, in order of creation.
//!
//! Most parents have one such child at a time, so the first has a place of its own and only further
//! ones cost memory.
//!
//! Invariant: the first comes before all others, and there are no others without a first.

use alloc::collections::BTreeMap;

use crate::model::ProcessId;

/// Children with news.
#[derive(Default)]
pub struct Ready {
    first: Option<(u64, ProcessId)>,
    others: BTreeMap<u64, ProcessId>,
}

impl Ready {
    /// Puts a child in its place.
    pub fn insert(&mut self, order: u64, child: ProcessId) {
        match self.first {
            None => self.first = Some((order, child)),
            Some((first, _)) if first == order => self.first = Some((order, child)),
            Some((first, other)) if first > order => {
                self.first = Some((order, child));
                self.others.insert(first, other);
            }
            Some(_) => {
                self.others.insert(order, child);
            }
        }
    }

    /// Takes a child out, if it is there.
    pub fn remove(&mut self, order: u64) {
        match self.first {
            Some((first, _)) if first == order => self.first = self.others.pop_first(),
            Some(_) => {
                self.others.remove(&order);
            }
            None => {}
        }
    }

    /// The children, eldest first.
    pub fn iter(&self) -> impl Iterator<Item = ProcessId> {
        let first = self.first.map(|(_, child)| child);
        first.into_iter().chain(self.others.values().copied())
    }

    /// The child with this place.
    pub fn get(&self, order: u64) -> Option<ProcessId> {
        match self.first {
            Some((first, child)) if first == order => Some(child),
            _ => self.others.get(&order).copied(),
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

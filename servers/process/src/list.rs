//! Lists through records of an arena: order of insertion, constant time, no memory of their own.

use crate::arena::{Arena, Id};

/// A record's place in one list.
pub struct Links<T> {
    previous: Option<Id<T>>,
    next: Option<Id<T>>,
}

impl<T> Default for Links<T> {
    fn default() -> Self {
        Links {
            previous: None,
            next: None,
        }
    }
}

/// Which of a record's links a list goes through.
pub type Through<T> = fn(&mut T) -> &mut Links<T>;

/// A list's ends.
pub struct List<T> {
    first: Option<Id<T>>,
    last: Option<Id<T>>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List {
            first: None,
            last: None,
        }
    }
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<T> {}

impl<T> List<T> {
    /// The first member.
    pub fn first(&self) -> Option<Id<T>> {
        self.first
    }

    /// Appends `id`, which is in no list through these links.
    pub fn push(&mut self, arena: &mut Arena<T>, id: Id<T>, through: Through<T>) {
        *through(&mut arena[id]) = Links {
            previous: self.last,
            next: None,
        };
        match self.last {
            Some(last) => through(&mut arena[last]).next = Some(id),
            None => self.first = Some(id),
        }
        self.last = Some(id);
    }

    /// Takes `id` out of this list.
    pub fn remove(&mut self, arena: &mut Arena<T>, id: Id<T>, through: Through<T>) {
        let Links { previous, next } = core::mem::take(through(&mut arena[id]));
        match previous {
            Some(previous) => through(&mut arena[previous]).next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => through(&mut arena[next]).previous = previous,
            None => self.last = previous,
        }
    }

    /// The member after `id`.
    pub fn next(&self, arena: &Arena<T>, id: Id<T>, links: fn(&T) -> &Links<T>) -> Option<Id<T>> {
        links(&arena[id]).next
    }

    /// The members in order.
    pub fn iter<'a>(
        &self,
        arena: &'a Arena<T>,
        links: fn(&T) -> &Links<T>,
    ) -> impl Iterator<Item = Id<T>> + use<'a, T> {
        let mut at = self.first;
        core::iter::from_fn(move || {
            let id = at?;
            at = links(&arena[id]).next;
            Some(id)
        })
    }
}

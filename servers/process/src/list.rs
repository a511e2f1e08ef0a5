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

impl<T> Clone for Links<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Links<T> {}

impl<T> Links<T> {
    /// Has the member before the new last one know it.
    pub fn tell(self, arena: &mut Arena<T>, id: Id<T>, through: Through<T>) {
        if let Some(previous) = self.previous {
            through(&mut arena[previous]).next = Some(id);
        }
    }

    /// Joins the members on both sides of one that was taken out.
    pub fn close(self, arena: &mut Arena<T>, through: Through<T>) {
        if let Some(previous) = self.previous {
            through(&mut arena[previous]).next = self.next;
        }
        if let Some(next) = self.next {
            through(&mut arena[next]).previous = self.previous;
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
        let links = self.append(id);
        *through(&mut arena[id]) = links;
        links.tell(arena, id, through);
    }

    /// Takes `id` out of this list.
    pub fn remove(&mut self, arena: &mut Arena<T>, id: Id<T>, through: Through<T>) {
        let links = core::mem::take(through(&mut arena[id]));
        self.detach(links);
        links.close(arena, through);
    }

    /// The list's part of [`push`](Self::push), for an owner that is in the arena itself: the links
    /// that the new member gets and is to [tell](Links::tell) of.
    pub fn append(&mut self, id: Id<T>) -> Links<T> {
        let previous = self.last.replace(id);
        if previous.is_none() {
            self.first = Some(id);
        }
        Links {
            previous,
            next: None,
        }
    }

    /// The list's part of [`remove`](Self::remove): what it had between `links`, which are to be
    /// [closed](Links::close), is a member no more.
    pub fn detach(&mut self, links: Links<T>) {
        if links.previous.is_none() {
            self.first = links.next;
        }
        if links.next.is_none() {
            self.last = links.previous;
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

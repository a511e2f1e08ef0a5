//! Memory pools: the right to use up to so many frames.
//!
//! Every frame in use is charged to one pool, its owner, and counts as used in
//! the owner and in all its ancestors; a frame is had only if all of them are
//! below their limits. Nothing is reserved: limits of children may add up to
//! more than the parent's. Pools nest at most [`MAX_DEPTH`] deep, which bounds
//! the walk that each charge makes.
//!
//! A pool ends by ending its objects one after the other. What other pools'
//! spaces still reach stays, and the ended pool stays behind it as a forwarding
//! record: it can pay for nothing new, and as every ancestor has counted its
//! frames all along, their charge is the parent's from then on. The record goes
//! with the last of those frames.
//!
//! Invariant: `own` is the number of frames whose record names this pool, and
//! `used` is `own` plus the `used` of all children, ended ones included.

use super::frame::{Content, Frame, FrameKind};
use super::store::{AnyRef, Cursor, Object, ObjectKind, Ref, Slabs};
use super::{Error, Memory, Space, Window};
use crate::machine::Machine;

/// How deep pools nest; the root is at depth zero.
pub const MAX_DEPTH: u8 = 15;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Live,
    /// Nobody holds it, so it goes with the last frame that it pays for; until
    /// then it pays like a living one.
    Abandoned,
    /// Its objects are being ended.
    Ending,
    /// Only forwards the charge of frames that others reach.
    Ended,
}

/// The right to use up to `limit` frames.
#[derive(Debug)]
pub struct Pool {
    parent: Option<Ref<Pool>>,
    limit: u64,
    used: u64,
    own: u64,
    depth: u8,
    state: State,
    /// The slabs of its objects, by kind.
    pub(super) slabs: [Slabs; ObjectKind::COUNT],
    pub(super) cursor: Cursor,
    /// Capabilities that refer to it.
    holds: u32,
    /// The next pool whose objects are to be ended.
    pub(crate) next_ending: Option<Ref<Pool>>,
}

impl Object for Pool {
    const KIND: ObjectKind = ObjectKind::Pool;
}

/// A pool's figures, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolStatus {
    /// It and its descendants may use at most this many.
    pub limit: u64,
    /// It and its descendants use this many.
    pub used: u64,
    /// It alone uses this many.
    pub own: u64,
}

/// What the caller of [`Memory::pool_end`] has to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Ending {
    /// End this object of the pool, then ask again. It is named again as long
    /// as it is there; if only a remnant that others hold is left, say so with
    /// [`Memory::pool_end_skip`].
    Object(AnyRef),
    /// The pool has ended.
    Done,
}

impl Pool {
    pub(super) fn new(parent: Option<Ref<Pool>>, depth: u8, limit: u64) -> Pool {
        Pool {
            parent,
            limit,
            used: 0,
            own: 0,
            depth,
            state: State::Live,
            slabs: [Slabs::default(); ObjectKind::COUNT],
            cursor: Cursor::default(),
            holds: 0,
            next_ending: None,
        }
    }

    /// The pool that it is part of; the root pool has none.
    pub fn parent(&self) -> Option<Ref<Pool>> {
        self.parent
    }

    /// Whether it can pay for nothing new.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ending | State::Ended)
    }
}

impl<M: Machine> Memory<M> {
    /// Makes the pool that pays for everything, its own record included.
    pub(super) fn create_root_pool(&mut self) {
        let frame = self
            .take_uncharged(Content::Any)
            .expect("the machine has RAM");
        let limit = self.statistics.frames_total;
        self.prepare_slab::<Pool>(frame);
        let pool = Pool {
            used: 1,
            own: 1,
            ..Pool::new(None, 0, limit)
        };
        let record = self.record_mut(frame);
        record.kind = FrameKind::Slab;
        record.count = 1;
        // `place` looks at the pool only when the slab is full: not with one.
        self.root_pool = self.place(Ref::DANGLING, frame, pool);
        self.record_mut(frame).pool = Some(self.root_pool);
        self.link_slab(self.root_pool, frame, false);
    }

    /// Makes a pool inside `parent`, which pays for its record.
    ///
    /// # Errors
    ///
    /// `NoMemory` if `parent` cannot pay, `Gone` if it has ended,
    /// `Exhausted` if pools would nest too deep.
    pub fn pool_create(&mut self, parent: Ref<Pool>, limit: u64) -> Result<Ref<Pool>, Error> {
        let depth = self.get(parent).depth;
        if depth >= MAX_DEPTH {
            return Err(Error::Exhausted);
        }
        self.create(parent, Pool::new(Some(parent), depth + 1, limit))
    }

    /// The pool's figures.
    pub fn pool_status(&self, pool: Ref<Pool>) -> PoolStatus {
        let Pool {
            limit, used, own, ..
        } = *self.get(pool);
        PoolStatus { limit, used, own }
    }

    /// Sets how many frames the pool and its descendants may use.
    ///
    /// # Errors
    ///
    /// `NoMemory` if more is in use already, `Gone` if the pool has ended.
    pub fn pool_set_limit(&mut self, pool: Ref<Pool>, limit: u64) -> Result<(), Error> {
        let pool = self.get_mut(pool);
        if pool.has_ended() {
            return Err(Error::Gone);
        }
        if limit < pool.used {
            return Err(Error::NoMemory);
        }
        pool.limit = limit;
        Ok(())
    }

    /// Ends the pool, one object at a time: the caller ends the object that is
    /// named and asks again until it is told `Done`. From the first call on the
    /// pool pays for nothing new. Inner pools are named like other objects.
    /// Mappings are never named: they go with the last entry that uses them.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for the root pool.
    pub fn pool_end(&mut self, pool: Ref<Pool>) -> Result<Ending, Error> {
        if self.get(pool).parent.is_none() {
            return Err(Error::InvalidArgument);
        }
        match self.get(pool).state {
            State::Ended => return Ok(Ending::Done),
            State::Ending => {}
            State::Live | State::Abandoned => {
                let pool = self.get_mut(pool);
                pool.state = State::Ending;
                pool.limit = 0;
            }
        }
        while let Some(object) = self.object_at_cursor(pool) {
            if !self.is_remnant(object) {
                return Ok(Ending::Object(object));
            }
            self.pool_end_skip(pool);
        }
        self.get_mut(pool).state = State::Ended;
        self.forget_ended_pool(pool);
        Ok(Ending::Done)
    }

    /// Passes over the object that [`Memory::pool_end`] named last: it has ended
    /// but its slot stays in use while others refer to it.
    pub fn pool_end_skip(&mut self, pool: Ref<Pool>) {
        self.get_mut(pool).cursor.skip();
    }

    /// Whether an object of this module's has ended and only stays because
    /// others refer to it.
    fn is_remnant(&self, object: AnyRef) -> bool {
        if let Some(pool) = object.downcast::<Pool>() {
            return self.get(pool).state == State::Ended;
        }
        if let Some(space) = object.downcast::<Space>() {
            return self.get(space).is_shell();
        }
        if let Some(window) = object.downcast::<Window>() {
            return self.get(window).has_ended();
        }
        object.kind() == ObjectKind::Mapping
    }

    /// One more hold on the pool; a new one has none.
    ///
    /// # Errors
    ///
    /// `Exhausted` if there are 2^32 - 1 holds.
    pub fn pool_hold(&mut self, pool: Ref<Pool>) -> Result<(), Error> {
        let holds = &mut self.get_mut(pool).holds;
        *holds = holds.checked_add(1).ok_or(Error::Exhausted)?;
        Ok(())
    }

    /// Gives a hold back. With the last one the pool is abandoned: it goes with
    /// the last frame that it pays for.
    pub fn pool_release(&mut self, pool: Ref<Pool>) {
        let here = self.get_mut(pool);
        here.holds -= 1;
        if here.holds == 0 && here.state == State::Live {
            here.state = State::Abandoned;
        }
        self.forget_ended_pool(pool);
    }

    /// Drops the record of an ended or abandoned pool that nobody holds and no
    /// frame names any more.
    fn forget_ended_pool(&mut self, pool: Ref<Pool>) {
        let here = self.get(pool);
        let over = matches!(here.state, State::Ended | State::Abandoned);
        if over && here.own == 0 && here.holds == 0 && here.parent.is_some() {
            self.destroy(pool);
        }
    }

    /// Counts one more frame in `pool` and its ancestors.
    #[inline]
    pub(super) fn charge(&mut self, pool: Ref<Pool>) -> Result<(), Error> {
        let mut at = pool;
        loop {
            let here = self.get_mut(at);
            if here.used >= here.limit {
                self.undo_charge(pool, at);
                return Err(Error::NoMemory);
            }
            here.used += 1;
            match here.parent {
                Some(parent) => at = parent,
                None => break,
            }
        }
        self.get_mut(pool).own += 1;
        Ok(())
    }

    /// Takes back what `charge` counted below `refused`.
    #[cold]
    fn undo_charge(&mut self, pool: Ref<Pool>, refused: Ref<Pool>) {
        let mut at = pool;
        while at != refused {
            let here = self.get_mut(at);
            here.used -= 1;
            at = here.parent.expect("the refusing pool is an ancestor");
        }
    }

    /// Counts one frame less in `pool` and its ancestors.
    #[inline]
    pub(super) fn uncharge(&mut self, pool: Ref<Pool>) {
        let mut at = Some(pool);
        while let Some(pool) = at {
            let here = self.get_mut(pool);
            here.used -= 1;
            at = here.parent;
        }
        let here = self.get_mut(pool);
        here.own -= 1;
        if here.own == 0 && here.state != State::Live {
            self.forget_ended_pool(pool);
        }
    }

    /// Moves the charge of a frame to `pool`. Ancestors that both payers have
    /// notice nothing, even if they are at their limits.
    ///
    /// # Errors
    ///
    /// `NoMemory` if `pool` cannot pay; nothing has changed then.
    #[inline]
    pub(super) fn recharge(&mut self, frame: Frame, pool: Ref<Pool>) -> Result<(), Error> {
        let old = self.record(frame).pool.expect("a frame in use is paid for");
        if old == pool {
            return Ok(());
        }
        self.move_charge(old, pool)?;
        self.record_mut(frame).pool = Some(pool);
        Ok(())
    }

    /// Counts one frame less in `from` and one more in `to`.
    fn move_charge(&mut self, from: Ref<Pool>, to: Ref<Pool>) -> Result<(), Error> {
        let (mut above_from, mut above_to) = (from, to);
        while above_from != above_to {
            let (one, other) = (self.get(above_from), self.get(above_to));
            let parent = |pool: &Pool| pool.parent.expect("the root is above all pools");
            if one.depth >= other.depth {
                above_from = parent(one);
            } else {
                above_to = parent(other);
            }
        }
        let meet = above_to;
        let mut at = to;
        while at != meet {
            let here = self.get_mut(at);
            if here.used >= here.limit {
                self.undo_charge(to, at);
                return Err(Error::NoMemory);
            }
            here.used += 1;
            at = here.parent.expect("the common ancestor is above");
        }
        self.get_mut(to).own += 1;
        let mut at = from;
        while at != meet {
            let here = self.get_mut(at);
            here.used -= 1;
            at = here.parent.expect("the common ancestor is above");
        }
        self.get_mut(from).own -= 1;
        self.forget_ended_pool(from);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake::{self, FakeMachine};

    struct Thing(#[allow(dead_code, reason = "only takes up room")] [u64; 8]);
    impl Object for Thing {
        const KIND: ObjectKind = ObjectKind::Thread;
    }

    fn end(memory: &mut Memory<FakeMachine>, pool: Ref<Pool>) {
        while let Ending::Object(object) = memory.pool_end(pool).unwrap() {
            if let Some(pool) = object.downcast::<Pool>() {
                end(memory, pool);
            } else {
                memory.destroy(object.downcast::<Thing>().unwrap());
            }
        }
    }

    #[test]
    fn the_root_pool_may_use_all_memory_and_pays_for_itself() {
        let memory = fake::memory(16);
        let status = memory.pool_status(memory.root_pool());
        assert_eq!(
            status,
            PoolStatus {
                limit: 15,
                used: 1,
                own: 1
            }
        );
        assert_eq!(memory.statistics().frames_free, 14);
    }

    #[test]
    fn a_frame_counts_in_its_pool_and_in_all_ancestors() {
        let mut memory = fake::memory(64);
        let root = memory.root_pool();
        let outer = memory.pool_create(root, 10).unwrap();
        let inner = memory.pool_create(outer, 10).unwrap();
        let frame = memory.take_frame(inner, FrameKind::Kernel).unwrap();
        assert_eq!(memory.pool_status(inner).used, 1);
        assert_eq!(
            memory.pool_status(outer).used,
            2,
            "its inner pool's slab, and the frame"
        );
        assert_eq!(memory.pool_status(outer).own, 1);
        assert_eq!(memory.frame_drop(frame), 0);
        memory.release_frame(frame);
        assert_eq!(memory.pool_status(inner).used, 0);
        assert_eq!(memory.pool_status(outer).used, 1);
    }

    #[test]
    fn a_limit_anywhere_above_refuses_and_leaves_nothing_counted() {
        let mut memory = fake::memory(64);
        let root = memory.root_pool();
        let outer = memory.pool_create(root, 2).unwrap();
        let inner = memory.pool_create(outer, 10).unwrap();
        memory.take_frame(inner, FrameKind::Kernel).unwrap();
        let before = memory.pool_status(root);
        assert_eq!(
            memory.take_frame(inner, FrameKind::Kernel),
            Err(Error::NoMemory)
        );
        assert_eq!(memory.pool_status(inner).used, 1);
        assert_eq!(memory.pool_status(outer).used, 2);
        assert_eq!(memory.pool_status(root), before);
        memory.pool_set_limit(outer, 3).unwrap();
        assert!(memory.take_frame(inner, FrameKind::Kernel).is_ok());
    }

    #[test]
    fn an_ended_pool_gives_everything_back() {
        let mut memory = fake::memory(256);
        let root = memory.root_pool();
        let free = memory.statistics().frames_free;
        let pool = memory.pool_create(root, 100).unwrap();
        let inner = memory.pool_create(pool, 100).unwrap();
        for _ in 0..150 {
            memory.create(pool, Thing([7; 8])).unwrap();
            memory.create(inner, Thing([7; 8])).unwrap();
        }
        assert_eq!(memory.pool_status(pool).used, 7);
        end(&mut memory, pool);
        assert_eq!(memory.statistics().frames_free, free);
        assert_eq!(memory.pool_status(root).used, 1);
    }

    #[test]
    fn an_ended_pool_forwards_the_charge_of_what_stays() {
        let mut memory = fake::memory(64);
        let root = memory.root_pool();
        let outer = memory.pool_create(root, 20).unwrap();
        let inner = memory.pool_create(outer, 20).unwrap();
        let frame = memory.take_frame(inner, FrameKind::Kernel).unwrap();
        end(&mut memory, inner);
        assert_eq!(
            memory.pool_status(outer).used,
            2,
            "the record and the frame"
        );
        assert_eq!(
            memory.take_frame(inner, FrameKind::Kernel),
            Err(Error::NoMemory)
        );
        memory.frame_drop(frame);
        memory.release_frame(frame);
        assert_eq!(
            memory.pool_status(outer).used,
            0,
            "the record went with the last frame"
        );
    }

    #[test]
    fn a_chain_of_ended_pools_goes_with_the_last_frame() {
        let mut memory = fake::memory(64);
        let root = memory.root_pool();
        let free = memory.statistics().frames_free;
        let outer = memory.pool_create(root, 20).unwrap();
        let inner = memory.pool_create(outer, 20).unwrap();
        let frame = memory.take_frame(inner, FrameKind::Kernel).unwrap();
        end(&mut memory, outer);
        assert_eq!(memory.pool_status(root).used, 3);
        memory.frame_drop(frame);
        memory.release_frame(frame);
        assert_eq!(memory.statistics().frames_free, free);
    }

    #[test]
    fn the_root_pool_never_ends_and_pools_nest_only_so_deep() {
        let mut memory = fake::memory(64);
        let mut pool = memory.root_pool();
        assert_eq!(memory.pool_end(pool), Err(Error::InvalidArgument));
        for _ in 0..MAX_DEPTH {
            pool = memory.pool_create(pool, 64).unwrap();
        }
        assert_eq!(memory.pool_create(pool, 64), Err(Error::Exhausted));
    }
}

//! Changing what mapped pages permit.
//!
//! Logical permission changes in the entries themselves; hardware write follows
//! only where the page is known to have one owner. Taking permission away is
//! flushed before the call returns, giving it needs no flush.

use super::entry::Kind;
use super::frame::{Frame, FrameKind};
use super::map::{Step, check_protection, progress, slot_end, user_range};
use super::space::STEP_LINES;
use super::store::Ref;
use super::tree::{ROOT_LEVEL, index, span};
use super::{Error, Memory, PAGE_SIZE, Progress, Space};
use crate::machine::Machine;
use core::ops::Range;
use libipc::abi::Protection;

impl<M: Machine> Memory<M> {
    /// Changes what the mapped pages of the range permit. Call again with the
    /// rest of the range while the answer is `More`.
    ///
    /// # Errors
    ///
    /// `BadAddress` if a page is not mapped, `AccessDenied` if one may not be
    /// given this permission, `NoMemory` if a table has to be split or copied
    /// first and the pool cannot pay, `InvalidArgument` and `Gone` as
    /// [`Memory::map_anonymous`]. Each step checks all its pages before it
    /// changes the first; earlier steps stay done.
    pub fn protect(
        &mut self,
        space: Ref<Space>,
        address: u64,
        pages: u64,
        protection: Protection,
    ) -> Result<Progress, Error> {
        let range = user_range(address, pages)?;
        check_protection(protection)?;
        let root = self.living_root(space)?;
        let mut budget = STEP_LINES;
        let checked = self.check_in(root, ROOT_LEVEL, range.clone(), protection, &mut budget)?;
        let mut step = Step::new();
        let start = range.start;
        let result = self.protect_in(
            space,
            root,
            ROOT_LEVEL,
            start..checked,
            protection,
            &mut step,
        );
        self.flush(space, step.stale);
        result.map(|()| progress(checked, range.end))
    }

    /// Checks that all of the range is mapped and may be given `protection`, as
    /// far as the budget goes; returns how far that is.
    fn check_in(
        &self,
        in_table: Frame,
        level: u8,
        range: Range<u64>,
        protection: Protection,
        budget: &mut u32,
    ) -> Result<u64, Error> {
        let mut at = range.start;
        while at < range.end {
            if level > 1 || at.is_multiple_of(8 * PAGE_SIZE) {
                if *budget == 0 {
                    return Ok(at);
                }
                *budget -= 1;
            }
            let next = slot_end(at, level, range.end);
            let entry = self.entry(in_table, index(at, level));
            if entry.is_absent() {
                return Err(Error::BadAddress);
            } else if entry.is_table() {
                let reached =
                    self.check_in(entry.frame(), level - 1, at..next, protection, budget)?;
                if reached < next {
                    return Ok(reached);
                }
            } else if !entry.limit().contains(protection) {
                return Err(Error::AccessDenied);
            }
            at = next;
        }
        Ok(range.end)
    }

    fn protect_in(
        &mut self,
        space: Ref<Space>,
        in_table: Frame,
        level: u8,
        range: Range<u64>,
        protection: Protection,
        step: &mut Step,
    ) -> Result<(), Error> {
        let mut at = range.start;
        while at < range.end {
            let next = slot_end(at, level, range.end);
            let index = index(at, level);
            let entry = self.entry(in_table, index);
            if !entry.is_table() && next - at == span(level) {
                self.protect_entry(space, in_table, index, at, protection, step);
                at = next;
                continue;
            }
            let child = self.table_at(space, in_table, level, at)?;
            self.protect_in(space, child, level - 1, at..next, protection, step)?;
            at = next;
        }
        Ok(())
    }

    fn protect_entry(
        &mut self,
        space: Ref<Space>,
        in_table: Frame,
        index: usize,
        address: u64,
        protection: Protection,
        step: &mut Step,
    ) {
        let old = self.entry(in_table, index);
        let mut new = old.with_protection(protection);
        if old.kind() == Kind::Private {
            let record = self.record(old.frame());
            let pool = self.get(space).pool();
            // Spares the write fault that would take the page back; where that
            // has something to do, it is left to it.
            let own = old.is_writable()
                || (record.count() == 1
                    && record.kind() != FrameKind::Foreign
                    && record.pool() == Some(pool));
            if own {
                new = new.unmasked();
            }
        }
        if old.permits_more_than(new) {
            step.stale.add(address);
        }
        self.set_entry(in_table, index, new);
    }
}

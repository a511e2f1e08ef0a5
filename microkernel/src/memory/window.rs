//! Windows: a range of one space that others may map.
//!
//! Mapping a window writes link entries; nothing is looked up until a page is
//! touched, or one near it where the source's pages are pinned. A link is settled
//! in the *source* first, so that all who share a page get the same frame. A
//! private copy reads the source's frame until its own first write; the source
//! keeps its hardware write.
//!
//! A *mapping* is one act of mapping a window: all link entries that came of it
//! refer to it, in whatever space snapshots have carried them. As a snapshot
//! does not move addresses, the page that a link stands for follows from its
//! address, so a link can stand for any power of 512 pages.
//!
//! Ending a window (revoking it) stops new mappings and the settling of links;
//! pages that were settled stay with those who have them.
//!
//! Invariant: `Mapping::count` is the number of link entries in tables that
//! refer to it, `Window::mappings` the number of its mappings; an ended window
//! stays as a shell until the last one is gone, and holds its source until then.

use super::entry::{Entry, Kind};
use super::frame::{Content, FrameKind};
use super::map::{Fill, user_range};
use super::resolve::{Fault, Intent};
use super::store::{Object, ObjectKind, Ref};
use super::tree::{ENTRIES, Place};
use super::{Error, Frame, Memory, PAGE_SIZE, PagerRef, Pool, Space};
use crate::machine::Machine;
use libipc::abi::Protection;

/// How often a link may lead to another link before it is refused: windows of
/// spaces that map windows can form a circle.
const MAX_LINKS: u32 = 4;

/// How many entries of a table, counted from a multiple of that, one fault may
/// settle at most.
const AROUND: usize = 16;

/// The right to map a range of a space.
#[derive(Debug)]
pub struct Window {
    id: u64,
    source: Ref<Space>,
    address: u64,
    pages: u64,
    access: Protection,
    pager: Option<PagerRef>,
    pub(super) mappings: u64,
    /// Capabilities that refer to it.
    holds: u32,
    /// Nobody can map it any more; what is mapped goes on.
    closed: bool,
    ended: bool,
}

impl Object for Window {
    const KIND: ObjectKind = ObjectKind::Window;
}

impl Window {
    /// A number that no other window had or will have. It tells whether two
    /// capabilities stand for one window and nothing else: not what the window
    /// shows, nor whether that is as it was.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The number of pages that it shows.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// What a mapping of it may at most permit.
    pub fn access(&self) -> Protection {
        self.access
    }

    /// The space that it shows.
    pub fn source(&self) -> Ref<Space> {
        self.source
    }

    /// The address in the source space of its first page.
    pub fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

/// One act of mapping a window.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    pub(super) window: Ref<Window>,
    /// Added to an address in the mapping space gives the one in the source.
    delta: u64,
    /// 2^64 entries do not fit any memory.
    pub(super) count: u64,
    mode: WindowMode,
}

impl Object for Mapping {
    const KIND: ObjectKind = ObjectKind::Mapping;
}

/// What a mapping of a window does with writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowMode {
    /// Everybody sees them.
    Shared,
    /// The mapper's are its own.
    PrivateCopy,
}

/// What a private copy finds in the source.
enum Peeked {
    Zero,
    Page(Frame),
}

/// A range of a window to be mapped, and how.
#[derive(Clone, Copy, Debug)]
pub struct WindowPart {
    /// The first page, counted from the window's first.
    pub offset_pages: u64,
    /// What the mapping permits at first.
    pub protection: Protection,
    /// What it may at most permit, as far as the window permits that too.
    pub limit: Protection,
    /// What it does with writes.
    pub mode: WindowMode,
}

/// What `link` becomes when `found` is what it stands for in the source: no more
/// than either permits.
fn settled_as(link: Entry, found: Entry) -> Entry {
    let limit = found.limit();
    if found.kind() == Kind::Pinned {
        let limit = link.limit().intersection(limit);
        let protection = link.protection().intersection(limit);
        Entry::pinned(found.frame(), protection, limit, found.caching())
    } else {
        Entry::page(Kind::Shared, found.frame(), link).limited(limit)
    }
}

impl<M: Machine> Memory<M> {
    /// Makes a window on `pages` pages of `source` from `address`, which need
    /// not be mapped yet. Pages that the source lacks when they are touched are
    /// asked of `pager`, or of the source's pager if there is none.
    ///
    /// # Errors
    ///
    /// `NoMemory` if `pool` cannot pay for the window, `BadAddress` or
    /// `InvalidArgument` if the range is not one of user pages, `Gone` if the
    /// source or the pool has ended.
    pub fn window_create(
        &mut self,
        source: Ref<Space>,
        pool: Ref<Pool>,
        address: u64,
        pages: u64,
        access: Protection,
        pager: Option<PagerRef>,
    ) -> Result<Ref<Window>, Error> {
        user_range(address, pages)?;
        if self.get(source).has_ended() {
            return Err(Error::Gone);
        }
        let window = Window {
            id: self.next_window_id,
            source,
            address,
            pages,
            access: access | Protection::READ,
            pager,
            mappings: 0,
            holds: 0,
            closed: false,
            ended: false,
        };
        let window = self.create(pool, window)?;
        if let Err(error) = self.space_hold(source) {
            self.destroy(window);
            return Err(error);
        }
        self.next_window_id += 1;
        Ok(window)
    }

    /// Ends (revokes) a window: no new mappings, and links that have not been
    /// settled are violations from now on. Unless it is held, the reference must
    /// not be used any more.
    pub fn window_end(&mut self, window: Ref<Window>) {
        self.get_mut(window).ended = true;
        self.forget_ended_window(window);
    }

    /// One more hold on the window; a new one has none. A window that has ended
    /// stays as a shell until the last hold is given back.
    ///
    /// # Errors
    ///
    /// `Exhausted` if there are 2^32 - 1 holds.
    pub fn window_hold(&mut self, window: Ref<Window>) -> Result<(), Error> {
        let holds = &mut self.get_mut(window).holds;
        *holds = holds.checked_add(1).ok_or(Error::Exhausted)?;
        Ok(())
    }

    /// Gives a hold back. With the last one nobody can map the window any more, but
    /// its links are still settled: whoever has mapped it may drop the capability.
    pub fn window_release(&mut self, window: Ref<Window>) {
        let here = self.get_mut(window);
        here.holds -= 1;
        if here.holds == 0 {
            here.closed = true;
            self.forget_ended_window(window);
        }
    }

    /// Maps `pages` pages of a window at `address` of `space`, whose pool pays
    /// for the tables.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the part is not within the window or asks for write
    /// and execute together, `AccessDenied` if it asks for more than its limit
    /// or the window permits, `Occupied` if something is mapped there,
    /// `NoMemory` if the pool cannot pay, `BadAddress` for a range that is not
    /// user space, `Gone` if window or space has ended. Nothing has changed then.
    pub fn window_map(
        &mut self,
        window: Ref<Window>,
        space: Ref<Space>,
        address: u64,
        pages: u64,
        part: WindowPart,
    ) -> Result<(), Error> {
        let range = user_range(address, pages)?;
        let from = self.get(window);
        if from.ended {
            return Err(Error::Gone);
        }
        let end = part.offset_pages.checked_add(pages);
        if end.is_none_or(|end| end > from.pages) {
            return Err(Error::InvalidArgument);
        }
        let mut limit = part.limit & from.access | Protection::READ;
        if part.mode == WindowMode::PrivateCopy {
            // Its writes reach nobody else.
            limit |= Protection::WRITE;
        }
        if !limit.contains(part.protection) {
            return Err(Error::AccessDenied);
        }
        let there = from.address + part.offset_pages * PAGE_SIZE;
        let mapping = Mapping {
            window,
            delta: there.wrapping_sub(address),
            // Until it is mapped, so that taking back a part keeps it.
            count: 1,
            mode: part.mode,
        };
        let pool = self.get(space).pool();
        let mapping = self.create(pool, mapping)?;
        self.get_mut(window).mappings += 1;
        let link = Entry::link(mapping, part.protection, limit);
        let result = self.fill(space, range, Fill::Same(link));
        self.mapping_drop(mapping);
        result
    }

    /// `count` more entries refer to the mapping.
    #[inline]
    pub(super) fn mapping_bump(&mut self, mapping: Ref<Mapping>, count: u64) {
        self.get_mut(mapping).count += count;
    }

    /// An entry less refers to the mapping.
    #[inline]
    pub(super) fn mapping_drop(&mut self, mapping: Ref<Mapping>) {
        let here = self.get_mut(mapping);
        here.count -= 1;
        if here.count == 0 {
            self.forget_mapping(mapping);
        }
    }

    fn forget_mapping(&mut self, mapping: Ref<Mapping>) {
        let window = self.get(mapping).window;
        self.destroy(mapping);
        self.get_mut(window).mappings -= 1;
        self.forget_ended_window(window);
    }

    fn forget_ended_window(&mut self, window: Ref<Window>) {
        let Window {
            source,
            mappings,
            holds,
            closed,
            ended,
            ..
        } = *self.get(window);
        if (ended || closed) && mappings == 0 && holds == 0 {
            self.destroy(window);
            self.space_release(source);
        }
    }

    /// Puts what the link at `place` stands for in its place, if the place is
    /// still what it was when the source has been asked; the caller looks again.
    /// `own` says whether the path to it is to be owned. `links` counts how many
    /// links led here.
    pub(super) fn settle(
        &mut self,
        space: Ref<Space>,
        place: Place,
        address: u64,
        intent: Intent,
        links: u32,
    ) -> Result<(), Fault> {
        let link = place.entry;
        let mapping = link.mapping();
        let Mapping {
            window,
            delta,
            mode,
            ..
        } = *self.get(mapping);
        let from = self.get(window);
        if from.ended || links == MAX_LINKS {
            return Err(Fault::Denied);
        }
        let (source, pager) = (from.source, from.pager);
        let there = address.wrapping_add(delta);
        if mode == WindowMode::Shared && intent == Intent::ForcedPrivateWrite {
            return Err(Fault::Denied);
        }
        if mode == WindowMode::Shared
            && source != space
            && let Some(found) = self.shared_already(source, there)
        {
            // Nothing has changed, so the place is what it was.
            let settled = settled_as(link, found);
            return self.put_settled(place, address, settled);
        }
        let settled = match mode {
            WindowMode::Shared => settled_as(link, self.share(source, there, pager, links + 1)?),
            WindowMode::PrivateCopy => match self.peek(source, there, pager, links + 1)? {
                Peeked::Zero => Entry::zero_like(link),
                Peeked::Page(frame) => Entry::page(Kind::Private, frame, link),
            },
        };
        // Asking the source can have unshared tables of this very space.
        let root = self.get(space).root().ok_or(Fault::Denied)?;
        let now = match intent {
            Intent::Read | Intent::Execute => self.walk(root, address),
            Intent::Write | Intent::ForcedPrivateWrite => self.own_path(space, root, address)?,
        };
        if now.entry != link || now.level != 1 {
            return Ok(());
        }
        self.put_settled(now, address, settled)
    }

    /// Puts what the link at `place` stands for in its place.
    fn put_settled(&mut self, place: Place, address: u64, settled: Entry) -> Result<(), Fault> {
        let link = place.entry;
        let counted = match settled.kind() {
            Kind::Private | Kind::Shared => {
                self.record(settled.frame()).kind() != FrameKind::Foreign
            }
            _ => false,
        };
        if counted {
            self.frame_bump(settled.frame())?;
        }
        self.set_entry(place.table, place.index, settled);
        if !counted && settled.is_present() {
            self.settle_around(place, address, link);
        }
        self.mapping_drop(link.mapping());
        Ok(())
    }

    /// Settles links of the same mapping around `place` whose pages are pinned in
    /// the source, as the boot archive's are: there is nothing to be counted or
    /// asked for them, and a program that begins to run touches many.
    fn settle_around(&mut self, place: Place, address: u64, link: Entry) {
        let Mapping {
            window,
            delta,
            mode,
            ..
        } = *self.get(link.mapping());
        let source = self.get(window).source;
        let Some(root) = self.get(source).root() else {
            return;
        };
        let there = self.walk(root, address.wrapping_add(delta));
        if there.level != 1 {
            return;
        }
        let first = place.index & !(AROUND - 1);
        for index in first..first + AROUND {
            let there_index = (there.index + index).wrapping_sub(place.index);
            if there_index >= ENTRIES || self.entry(place.table, index) != link {
                continue;
            }
            let found = self.entry(there.table, there_index);
            if found.kind() != Kind::Pinned {
                continue;
            }
            let settled = match mode {
                WindowMode::Shared => settled_as(link, found),
                WindowMode::PrivateCopy if self.may_be_copied(found.frame()) => {
                    Entry::page(Kind::Private, found.frame(), link)
                }
                WindowMode::PrivateCopy => continue,
            };
            self.replace_entry(place.table, index, settled);
            self.mapping_drop(link.mapping());
        }
    }

    /// Whether a pinned page can be copied on write: what a device holds cannot.
    fn may_be_copied(&self, frame: Frame) -> bool {
        let record = self.records.get(frame.number() as usize);
        record.is_some_and(|record| record.kind() == FrameKind::Foreign)
    }

    /// The page at `address` of a window's source, if it is shared or pinned and
    /// nothing has to be done for it.
    fn shared_already(&self, source: Ref<Space>, address: u64) -> Option<Entry> {
        let (place, owned) = self.walk_owned(self.get(source).root()?, address);
        let ready = matches!(place.entry.kind(), Kind::Shared | Kind::Pinned);
        (owned && ready).then_some(place.entry)
    }

    /// Makes the page at `address` of a window's source one that can be shared
    /// and returns its entry, of kind shared or pinned.
    fn share(
        &mut self,
        source: Ref<Space>,
        address: u64,
        pager: Option<PagerRef>,
        links: u32,
    ) -> Result<Entry, Fault> {
        loop {
            let root = self.get(source).root().ok_or(Fault::Denied)?;
            let place = self.own_path(source, root, address)?;
            let entry = place.entry;
            if entry.is_absent() {
                return Err(self.missing(source, address, pager));
            }
            if place.level > 1 {
                self.split(source, place)?;
                continue;
            }
            let frame = match entry.kind() {
                Kind::Shared | Kind::Pinned => return Ok(entry),
                Kind::Link => {
                    self.settle(source, place, address, Intent::Write, links)?;
                    continue;
                }
                Kind::Zero => {
                    let pool = self.get(source).pool();
                    self.statistics.zero_fills += 1;
                    self.take(pool, FrameKind::Data, Content::Zero)?
                }
                // A private page of which others have copies is not ours to share.
                _ => self.own_page(source, place, address, Intent::ForcedPrivateWrite)?,
            };
            let shared = Entry::page(Kind::Shared, frame, entry).exported();
            self.set_entry(place.table, place.index, shared);
            return Ok(shared);
        }
    }

    /// What is at `address` of a window's source now.
    fn peek(
        &mut self,
        source: Ref<Space>,
        address: u64,
        pager: Option<PagerRef>,
        links: u32,
    ) -> Result<Peeked, Fault> {
        loop {
            let root = self.get(source).root().ok_or(Fault::Denied)?;
            let place = self.walk(root, address);
            let entry = place.entry;
            match entry.kind() {
                Kind::Zero => return Ok(Peeked::Zero),
                Kind::Private | Kind::Shared => return Ok(Peeked::Page(entry.frame())),
                Kind::Pinned if self.may_be_copied(entry.frame()) => {
                    return Ok(Peeked::Page(entry.frame()));
                }
                Kind::Pinned => return Err(Fault::Denied),
                Kind::Link if place.level > 1 => {
                    self.split(source, place)?;
                }
                Kind::Link => self.settle(source, place, address, Intent::Read, links)?,
                Kind::Absent | Kind::Table => return Err(self.missing(source, address, pager)),
            }
        }
    }
}

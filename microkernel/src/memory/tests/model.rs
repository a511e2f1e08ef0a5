//! The plain model that `property.rs` compares the tree with: a map from pages
//! to values for each space, copied whole by a snapshot.

use super::*;
use crate::memory::fake::Lost;
use crate::memory::{Error, Fault, Intent, PagerRef, WindowMode, WindowPart};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::collections::BTreeMap;

/// Pages that the operations begin at.
pub(super) const SPOTS: usize = 30;
/// The first spaces are servers.
const SERVERS: usize = 2;
const SPACES: usize = 8;
const CPUS: usize = 3;
const WINDOWS: usize = 6;
const POOLS: usize = 3;
/// A run of pages that is mapped with one entry of level 2.
const BLOCK: u64 = 0x20_0000_0000;
const BLOCK_PAGES: u64 = 512;
/// As in `window.rs`.
const MAX_LINKS: u32 = 4;
const PAGER: PagerRef = PagerRef(77);

/// The address of a spot: around the edge between two lowest tables, around the
/// edge between two halves of the root, and in the block.
fn address(spot: usize) -> u64 {
    let spot = spot as u64;
    match spot {
        0..12 => 0x10_0020_0000 + spot * PAGE_SIZE - 5 * PAGE_SIZE,
        12..22 => 0x80_0000_0000 + (spot - 12) * PAGE_SIZE - 4 * PAGE_SIZE,
        22..26 => BLOCK + (spot - 22) * PAGE_SIZE,
        26 => BLOCK + 255 * PAGE_SIZE,
        _ => BLOCK + (BLOCK_PAGES - 30 + spot) * PAGE_SIZE,
    }
}

#[derive(Clone, Debug)]
#[rustfmt::skip]
pub(super) enum Op {
    Store { cpu: usize, spot: usize, value: u64 },
    Load { cpu: usize, spot: usize },
    Execute { cpu: usize, spot: usize },
    KernelRead { space: usize, spot: usize },
    ForcedWrite { space: usize, spot: usize, value: u64 },
    Enter { cpu: usize, space: usize },
    Snapshot { source: usize, slot: usize, pool: usize, apart: Option<usize> },
    Create { slot: usize, pool: usize },
    End { space: usize },
    Map { space: usize, spot: usize, pages: u64, protection: Protection },
    MapBlock { space: usize, protection: Protection },
    Unmap { space: usize, spot: usize, pages: u64 },
    UnmapBlock { space: usize },
    Protect { space: usize, spot: usize, pages: u64, protection: Protection },
    MakeWindow { slot: usize, source: usize, pool: usize, spot: usize, pages: u64, access: Protection },
    MapWindow { window: usize, space: usize, spot: usize, pages: u64, protection: Protection, private: bool, replace: bool },
    EndWindow { window: usize },
    EndPool { pool: usize },
}

/// What a page has in it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Content {
    /// A value of its own.
    Own(u64),
    /// What the object has; writes change the object.
    Shared(usize),
    /// What the object has, until the first write.
    Reads(usize),
    /// A page of a window that has not been looked up by this space.
    Link {
        window: usize,
        page: u64,
        private: bool,
        relatives: Relatives,
    },
    /// Something that the model does not follow.
    Unknown,
}

/// What a link can have become through a snapshot's other side: while they share
/// a table, what one of them reads is settled for both.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Relatives {
    /// Nothing: there is no other side.
    None,
    /// This object, as long as the window and the source's page last.
    SettleTo(usize),
    /// Anything.
    Uncertain,
}

/// Why the model has no page to show.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Stop {
    Fault(Fault),
    /// It does not know, and nobody should try: that would change something.
    Uncertain,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    protection: Protection,
    limit: Protection,
    content: Content,
    /// Of a server's page: it has a frame.
    touched: bool,
}

#[derive(Clone, Debug)]
struct ModelSpace {
    real: Ref<Space>,
    pool: usize,
    pages: BTreeMap<u64, Page>,
}

/// Windows are never forgotten by the model: links name them by number.
#[derive(Debug)]
struct ModelWindow {
    real: Ref<Window>,
    pool: usize,
    /// The number of the space in `all`.
    source: usize,
    address: u64,
    pages: u64,
    access: Protection,
    ended: bool,
}

pub(super) struct Model {
    memory: Memory<FakeMachine>,
    pools: [Ref<Pool>; POOLS],
    /// Spaces by number, `None` once they have ended.
    all: Vec<Option<ModelSpace>>,
    /// The spaces that operations can name, by their number in `all`.
    spaces: [Option<usize>; SPACES],
    servers: [Option<usize>; SERVERS],
    all_windows: Vec<ModelWindow>,
    windows: [Option<usize>; WINDOWS],
    cpus: [Option<usize>; CPUS],
    objects: Vec<u64>,
    /// With limited pools only counts are compared: what was done before a
    /// refusal shows.
    limit: Option<u64>,
}

/// How often something worth testing happened, over all cases.
static REACHED: [(&str, AtomicU64); 9] = [
    ("page copies", AtomicU64::new(0)),
    ("table copies", AtomicU64::new(0)),
    ("take-backs", AtomicU64::new(0)),
    ("shared links settled", AtomicU64::new(0)),
    ("private links settled", AtomicU64::new(0)),
    ("links refused", AtomicU64::new(0)),
    ("links through links", AtomicU64::new(0)),
    ("pages exchanged between processes", AtomicU64::new(0)),
    ("accesses denied", AtomicU64::new(0)),
];

fn reach(what: &str, times: u64) {
    let found = REACHED.iter().find(|(name, _)| *name == what);
    found
        .expect("it is in the list")
        .1
        .fetch_add(times, Relaxed);
}

pub(super) fn reached() -> Vec<(&'static str, u64)> {
    let count = |(what, times): &(&'static str, AtomicU64)| (*what, times.load(Relaxed));
    REACHED.iter().map(count).collect()
}

impl Model {
    pub(super) fn new(lost: Lost, limit: Option<u64>) -> Model {
        let mut memory = fake::memory(800);
        memory.machine_mut().lost = lost;
        let root = memory.root_pool();
        let frames = limit.unwrap_or(1000);
        let pools = core::array::from_fn(|_| memory.pool_create(root, frames).unwrap());
        let mut model = Model {
            memory,
            pools,
            all: Vec::new(),
            spaces: [None; SPACES],
            servers: [None; SERVERS],
            all_windows: Vec::new(),
            windows: [None; WINDOWS],
            cpus: [None; CPUS],
            objects: Vec::new(),
            limit,
        };
        for slot in 0..4 {
            model.create(slot, slot % POOLS);
        }
        // Something to begin with: two CPUs in a process with memory of its own
        // and memory of a server.
        for (cpu, space) in [(0, 2), (1, 2), (2, 3)] {
            model.enter(cpu, space);
        }
        model.map(0, BLOCK, BLOCK_PAGES, READ_WRITE);
        model.map(1, address(0), 12, READ_WRITE);
        model.map(2, address(0), 7, READ_WRITE);
        model.make_window(0, 1, 2, address(0), 12, READ_WRITE);
        for spot in 1..5 {
            model.user(0, address(spot), Intent::Write, spot as u64);
        }
        model
    }

    /// The space in this slot or the next one that has one.
    fn live(&self, slot: usize) -> Option<usize> {
        (slot..slot + SPACES).find_map(|slot| self.spaces[slot % SPACES])
    }

    /// The same among processes.
    fn process(&self, slot: usize) -> Option<usize> {
        let processes = SPACES - SERVERS;
        (slot..slot + processes).find_map(|slot| self.spaces[SERVERS + slot % processes])
    }

    /// The window in this slot or the next one that has one.
    fn live_window(&self, slot: usize) -> Option<usize> {
        (slot..slot + WINDOWS).find_map(|slot| self.windows[slot % WINDOWS])
    }

    fn is_server(&self, number: usize) -> bool {
        self.servers.contains(&Some(number))
    }

    fn space(&self, number: usize) -> &ModelSpace {
        self.all[number].as_ref().expect("named spaces live")
    }

    fn pages(&mut self, number: usize) -> &mut BTreeMap<u64, Page> {
        &mut self.all[number].as_mut().expect("named spaces live").pages
    }

    pub(super) fn step(&mut self, op: &Op) {
        self.carry_out(op);
        self.memory.audit();
        self.probe();
    }

    /// Ends everything and looks for what is left.
    pub(super) fn finish(mut self) {
        for pool in self.pools {
            end_pool(&mut self.memory, pool);
            self.memory.audit();
        }
        self.memory.audit_clean_frames();
        let done = self.memory.statistics();
        reach("page copies", done.page_copies);
        reach("table copies", done.table_copies);
        reach("take-backs", done.take_backs);
        let root = self.memory.root_pool();
        assert_eq!(self.memory.pool_status(root).used, 1, "something is left");
    }

    fn carry_out(&mut self, op: &Op) {
        match *op {
            Op::Store { cpu, spot, value } => self.user(cpu, address(spot), Intent::Write, value),
            Op::Load { cpu, spot } => self.user(cpu, address(spot), Intent::Read, 0),
            Op::Execute { cpu, spot } => self.user(cpu, address(spot), Intent::Execute, 0),
            Op::KernelRead { space, spot } => self.kernel_read(space, address(spot)),
            Op::ForcedWrite { space, spot, value } => self.forced(space, address(spot), value),
            Op::Enter { cpu, space } => self.enter(cpu, space),
            Op::Snapshot {
                source,
                slot,
                pool,
                apart,
            } => {
                self.snapshot(source, slot, pool, apart.map(address));
            }
            Op::Create { slot, pool } => self.create(slot, pool),
            Op::End { space } => self.end(space),
            Op::Map {
                space,
                spot,
                pages,
                protection,
            } => {
                self.map(space, address(spot), pages, protection);
            }
            Op::MapBlock { space, protection } => {
                self.map(space, BLOCK, BLOCK_PAGES, protection);
            }
            Op::Unmap { space, spot, pages } => self.unmap(space, address(spot), pages),
            Op::UnmapBlock { space } => self.unmap(space, BLOCK, BLOCK_PAGES),
            Op::Protect {
                space,
                spot,
                pages,
                protection,
            } => {
                self.protect(space, address(spot), pages, protection);
            }
            Op::MakeWindow {
                slot,
                source,
                pool,
                spot,
                pages,
                access,
            } => {
                self.make_window(slot, source, pool, address(spot), pages, access);
            }
            Op::MapWindow {
                window,
                space,
                spot,
                pages,
                protection,
                private,
                replace,
            } => {
                if replace {
                    self.unmap_process(space, address(spot), pages);
                }
                self.map_window(window, space, address(spot), pages, protection, private);
            }
            Op::EndWindow { window } => self.end_window(window),
            Op::EndPool { pool } => self.end_pool(pool),
        }
    }

    /// Compares an outcome with the expected one, unless pools run dry.
    fn check<T: PartialEq + core::fmt::Debug>(&self, real: T, expected: T) {
        if self.limit.is_none() {
            assert_eq!(real, expected);
        }
    }

    // Spaces and pools

    fn create(&mut self, slot: usize, pool: usize) {
        if self.spaces[slot].is_some() {
            return;
        }
        // The first server has a pager.
        let pager = (slot == 0).then_some(PAGER);
        let Ok(real) = self.memory.space_create(self.pools[pool], pager) else {
            assert!(self.limit.is_some());
            return;
        };
        self.add_space(slot, real, pool, BTreeMap::new());
    }

    fn add_space(
        &mut self,
        slot: usize,
        real: Ref<Space>,
        pool: usize,
        pages: BTreeMap<u64, Page>,
    ) {
        let number = self.all.len();
        self.all.push(Some(ModelSpace { real, pool, pages }));
        self.spaces[slot] = Some(number);
        if slot < SERVERS {
            self.servers[slot] = Some(number);
        }
    }

    fn enter(&mut self, cpu: usize, slot: usize) {
        if let Some(number) = self.live(slot) {
            let real = self.space(number).real;
            self.memory.enter(cpu, real);
            self.cpus[cpu] = Some(number);
        }
    }

    fn snapshot(&mut self, source: usize, slot: usize, pool: usize, apart: Option<u64>) {
        let vacant = (slot..slot + SPACES)
            .map(|slot| slot % SPACES)
            .find(|&slot| slot >= SERVERS && self.spaces[slot].is_none());
        let (Some(number), Some(slot)) = (self.process(source), vacant) else {
            return;
        };
        self.mark_links(number);
        let from = self.space(number).clone();
        let Ok(real) = self
            .memory
            .space_snapshot(from.real, self.pools[pool], apart)
        else {
            assert!(self.limit.is_some());
            return;
        };
        self.add_space(slot, real, pool, from.pages);
    }

    /// From now on relatives can settle the links of this space.
    fn mark_links(&mut self, number: usize) {
        let links: Vec<(u64, Page)> = self.space(number).pages.clone().into_iter().collect();
        for (at, mut link) in links {
            let Content::Link {
                window,
                page,
                private,
                relatives,
            } = &mut link.content
            else {
                continue;
            };
            if *relatives == Relatives::None {
                *relatives = match self.settles_to(*window, *page, *private) {
                    Some(object) => Relatives::SettleTo(object),
                    None => Relatives::Uncertain,
                };
                self.pages(number).insert(at, link);
            }
        }
    }

    /// The object that a link on a server's page is settled to, if that does not
    /// depend on when.
    fn settles_to(&self, window: usize, page: u64, private: bool) -> Option<usize> {
        let window = &self.all_windows[window];
        let found = self.all[window.source].as_ref()?.pages.get(&page)?;
        match found.content {
            Content::Shared(object)
                if self.is_server(window.source)
                    && !window.ended
                    && (found.touched || !private) =>
            {
                Some(object)
            }
            _ => None,
        }
    }

    fn end(&mut self, slot: usize) {
        if let Some(number) = self.spaces[slot] {
            let real = self.space(number).real;
            self.memory.end_space(real);
            self.forget_space(number);
        }
    }

    fn forget_space(&mut self, number: usize) {
        self.all[number] = None;
        for slot in self.spaces.iter_mut().chain(&mut self.servers) {
            slot.take_if(|slot| *slot == number);
        }
        for cpu in &mut self.cpus {
            cpu.take_if(|space| *space == number);
        }
    }

    fn end_pool(&mut self, pool: usize) {
        end_pool(&mut self.memory, self.pools[pool]);
        for number in 0..self.all.len() {
            if self.all[number]
                .as_ref()
                .is_some_and(|space| space.pool == pool)
            {
                self.forget_space(number);
            }
        }
        for (number, window) in self.all_windows.iter_mut().enumerate() {
            if window.pool == pool && !window.ended {
                window.ended = true;
                for slot in &mut self.windows {
                    slot.take_if(|slot| *slot == number);
                }
            }
        }
        let root = self.memory.root_pool();
        let frames = self.limit.unwrap_or(1000);
        self.pools[pool] = self.memory.pool_create(root, frames).unwrap();
    }

    // Mappings

    fn map(&mut self, slot: usize, address: u64, pages: u64, protection: Protection) {
        let Some(number) = self.live(slot) else {
            return;
        };
        let server = self.is_server(number);
        let protection = if server { READ_WRITE } else { protection };
        let real = self.space(number).real;
        let range = address..address + pages * PAGE_SIZE;
        let occupied = self.pages(number).range(range).next().is_some();
        let expected = if occupied {
            Err(Error::Occupied)
        } else {
            Ok(())
        };
        let result = self.memory.map_anonymous(real, address, pages, protection);
        self.check(result, expected);
        if result.is_err() {
            return;
        }
        for page in 0..pages {
            let content = if server {
                self.objects.push(0);
                Content::Shared(self.objects.len() - 1)
            } else {
                Content::Own(0)
            };
            let entry = Page {
                protection,
                limit: Protection::all(),
                content,
                touched: false,
            };
            self.pages(number).insert(address + page * PAGE_SIZE, entry);
        }
    }

    fn unmap(&mut self, slot: usize, address: u64, pages: u64) {
        let Some(number) = self.live(slot) else {
            return;
        };
        let real = self.space(number).real;
        let result = self.memory.unmap(real, address, pages);
        self.check(result, Ok(Progress::Done));
        if result.is_ok() {
            let range = address..address + pages * PAGE_SIZE;
            self.pages(number).retain(|at, _| !range.contains(at));
        }
    }

    fn unmap_process(&mut self, slot: usize, address: u64, pages: u64) {
        let processes = SPACES - SERVERS;
        let slots = (slot..slot + processes).map(|slot| SERVERS + slot % processes);
        if let Some(slot) = slots.into_iter().find(|&slot| self.spaces[slot].is_some()) {
            self.unmap(slot, address, pages);
        }
    }

    fn protect(&mut self, slot: usize, address: u64, pages: u64, protection: Protection) {
        let Some(number) = self.process(slot) else {
            return;
        };
        let real = self.space(number).real;
        let spots = (0..pages).map(|page| address + page * PAGE_SIZE);
        // What relatives settled may be limited more than the link.
        let uncertain = |page: &Page| match page.content {
            Content::Link { relatives, .. } => relatives != Relatives::None,
            _ => false,
        };
        if spots
            .clone()
            .any(|at| self.space(number).pages.get(&at).is_some_and(uncertain))
        {
            return;
        }
        let refused = spots
            .clone()
            .find_map(|at| match self.space(number).pages.get(&at) {
                None => Some(Error::BadAddress),
                Some(page) if !page.limit.contains(protection) => Some(Error::AccessDenied),
                Some(_) => None,
            });
        let result = self.memory.protect(real, address, pages, protection);
        self.check(result, refused.map_or(Ok(Progress::Done), Err));
        if refused.is_none() && result.is_ok() {
            for at in spots {
                self.pages(number)
                    .get_mut(&at)
                    .expect("it is mapped")
                    .protection = protection;
            }
        }
    }

    // Windows

    fn make_window(
        &mut self,
        slot: usize,
        source: usize,
        pool: usize,
        address: u64,
        pages: u64,
        access: Protection,
    ) {
        let (None, Some(number)) = (self.windows[slot], self.live(source)) else {
            return;
        };
        let real = self.space(number).real;
        let access = access | READ;
        let pool_ref = self.pools[pool];
        let made = self
            .memory
            .window_create(real, pool_ref, address, pages, access, None);
        let Ok(real) = made else {
            assert!(self.limit.is_some());
            return;
        };
        self.windows[slot] = Some(self.all_windows.len());
        self.all_windows.push(ModelWindow {
            real,
            pool,
            source: number,
            address,
            pages,
            access,
            ended: false,
        });
    }

    fn end_window(&mut self, slot: usize) {
        if let Some(number) = self.windows[slot].take() {
            self.all_windows[number].ended = true;
            self.memory.window_end(self.all_windows[number].real);
        }
    }

    fn map_window(
        &mut self,
        slot: usize,
        space: usize,
        address: u64,
        pages: u64,
        protection: Protection,
        private: bool,
    ) {
        let (Some(window), Some(number)) = (self.live_window(slot), self.process(space)) else {
            return;
        };
        let from = &self.all_windows[window];
        let mut limit = from.access;
        if private {
            limit |= Protection::WRITE;
        }
        let range = address..address + pages * PAGE_SIZE;
        let occupied = self.space(number).pages.range(range).next().is_some();
        let expected = if pages > from.pages {
            Err(Error::InvalidArgument)
        } else if !limit.contains(protection) {
            Err(Error::AccessDenied)
        } else if occupied {
            Err(Error::Occupied)
        } else {
            Ok(())
        };
        let part = WindowPart {
            offset_pages: from.pages.saturating_sub(pages),
            protection,
            limit: Protection::all(),
            mode: if private {
                WindowMode::PrivateCopy
            } else {
                WindowMode::Shared
            },
        };
        let real = self.space(number).real;
        let result = self
            .memory
            .window_map(from.real, real, address, pages, part);
        let first = from.address + part.offset_pages * PAGE_SIZE;
        self.check(result, expected);
        if result.is_err() {
            return;
        }
        for page in 0..pages {
            let content = Content::Link {
                window,
                page: first + page * PAGE_SIZE,
                private,
                relatives: Relatives::None,
            };
            let entry = Page {
                protection,
                limit,
                content,
                touched: false,
            };
            self.pages(number).insert(address + page * PAGE_SIZE, entry);
        }
        self.memory.enter(0, real);
        self.cpus[0] = Some(number);
    }

    /// Settles what a link at `address` stands for, as an access to it does.
    fn settle(&mut self, number: usize, address: u64, links: u32) -> Result<(), Stop> {
        let page = self.space(number).pages[&address];
        let Content::Link {
            window,
            page: there,
            private,
            relatives,
        } = page.content
        else {
            return Ok(());
        };
        let now = self.settles_to(window, there, private);
        match relatives {
            Relatives::SettleTo(object) if now != Some(object) => return Err(Stop::Uncertain),
            Relatives::Uncertain => return Err(Stop::Uncertain),
            _ => {}
        }
        let source = self.all_windows[window].source;
        if self.all_windows[window].ended || links == MAX_LINKS || self.all[source].is_none() {
            reach("links refused", 1);
            return Err(Stop::Fault(Fault::Denied));
        }
        let Some(&found) = self.space(source).pages.get(&there) else {
            return Err(Stop::Fault(self.missing(source, there)));
        };
        let server = self.is_server(source);
        if matches!(found.content, Content::Link { .. }) {
            self.settle(source, there, links + 1)?;
            reach("links through links", 1);
        }
        let found = self.space(source).pages[&there];
        let limit = page.limit & found.limit;
        reach(
            if private {
                "private links settled"
            } else {
                "shared links settled"
            },
            1,
        );
        if !server {
            reach("pages exchanged between processes", 1);
        }
        let settled = if private {
            let content = match found.content {
                Content::Shared(_) if server && !found.touched => Content::Own(0),
                Content::Shared(object) => Content::Reads(object),
                _ => Content::Unknown,
            };
            Page { content, ..page }
        } else {
            let content = match found.content {
                Content::Shared(object) => Content::Shared(object),
                _ => Content::Unknown,
            };
            let source_page = self.pages(source).get_mut(&there).expect("it is mapped");
            source_page.content = content;
            source_page.touched = true;
            Page {
                content,
                limit,
                protection: page.protection & limit,
                ..page
            }
        };
        self.pages(number).insert(address, settled);
        Ok(())
    }

    fn missing(&self, number: usize, address: u64) -> Fault {
        let space = self.space(number).real;
        match self.spaces[0] == Some(number) {
            true => Fault::Pager {
                pager: PAGER,
                space,
                address,
            },
            false => Fault::Missing,
        }
    }

    // Accesses

    /// What an access must come to; settles links on the way. `None` if that is
    /// uncertain.
    fn outcome(
        &mut self,
        number: usize,
        address: u64,
        needed: Protection,
    ) -> Option<Result<Page, Fault>> {
        match self.try_access(number, address, needed) {
            Ok(page) => Some(Ok(page)),
            Err(Stop::Fault(fault)) => Some(Err(fault)),
            Err(Stop::Uncertain) => None,
        }
    }

    fn try_access(
        &mut self,
        number: usize,
        address: u64,
        needed: Protection,
    ) -> Result<Page, Stop> {
        let denied = Err(Stop::Fault(Fault::Denied));
        let Some(page) = self.space(number).pages.get(&address) else {
            return Err(Stop::Fault(self.missing(number, address)));
        };
        if !page.protection.contains(needed) {
            return denied;
        }
        self.settle(number, address, 0)?;
        let page = self.pages(number).get_mut(&address).expect("it is mapped");
        if !page.protection.contains(needed) {
            return denied;
        }
        page.touched = true;
        Ok(*page)
    }

    fn value(&self, content: Content) -> Option<u64> {
        match content {
            Content::Own(value) => Some(value),
            Content::Shared(object) | Content::Reads(object) => Some(self.objects[object]),
            Content::Link { .. } | Content::Unknown => None,
        }
    }

    fn write(&mut self, number: usize, address: u64, value: u64) {
        let page = self.pages(number).get_mut(&address).expect("it is mapped");
        match page.content {
            Content::Own(_) | Content::Reads(_) => page.content = Content::Own(value),
            Content::Shared(object) => self.objects[object] = value,
            Content::Link { .. } | Content::Unknown => {}
        }
    }

    fn user(&mut self, cpu: usize, address: u64, intent: Intent, value: u64) {
        let Some(number) = self.cpus[cpu] else {
            return;
        };
        let needed = match intent {
            Intent::Read => READ,
            Intent::Execute => Protection::EXECUTE,
            Intent::Write | Intent::ForcedPrivateWrite => Protection::WRITE,
        };
        let Some(expected) = self.outcome(number, address, needed) else {
            return;
        };
        if expected
            .as_ref()
            .is_err_and(|fault| *fault == Fault::Denied)
        {
            reach("accesses denied", 1);
        }
        match intent {
            Intent::Read => {
                let real = self.memory.user_load(cpu, address);
                self.check(real.map(|_| ()), expected.map(|_| ()));
                if let (Ok(real), Ok(page)) = (real, expected)
                    && let Some(value) = self.value(page.content)
                {
                    self.check(real, value);
                }
            }
            Intent::Execute => {
                let real = self.memory.user_execute(cpu, address);
                self.check(real, expected.map(|_| ()));
            }
            Intent::Write | Intent::ForcedPrivateWrite => {
                let real = self.memory.user_store(cpu, address, value);
                self.check(real, expected.map(|_| ()));
                if expected.is_ok() {
                    self.write(number, address, value);
                }
            }
        }
    }

    fn kernel_read(&mut self, slot: usize, address: u64) {
        let Some(number) = self.live(slot) else {
            return;
        };
        let Some(expected) = self.outcome(number, address, READ) else {
            return;
        };
        let mut bytes = [0; 8];
        let space = self.space(number).real;
        let real = self.memory.read(space, address, &mut bytes);
        self.check(real.map_err(|at| at.fault), expected.map(|_| ()));
        if let (Ok(()), Ok(page)) = (real, expected)
            && let Some(value) = self.value(page.content)
        {
            self.check(u64::from_le_bytes(bytes), value);
        }
    }

    fn forced(&mut self, slot: usize, address: u64, value: u64) {
        let Some(number) = self.process(slot) else {
            return;
        };
        let space = self.space(number).real;
        let content = self
            .space(number)
            .pages
            .get(&address)
            .map(|page| page.content);
        let expected = match content {
            Some(Content::Shared(_) | Content::Link { private: false, .. }) => Err(Fault::Denied),
            _ => match self.outcome(number, address, Protection::empty()) {
                Some(expected) => expected.map(|_| ()),
                None => return,
            },
        };
        let intent = Intent::ForcedPrivateWrite;
        let real = self
            .memory
            .write(space, address, &value.to_le_bytes(), intent);
        if content != Some(Content::Unknown) {
            self.check(real.map_err(|at| at.fault), expected);
        }
        if expected.is_ok() {
            self.write(number, address, value);
        }
    }

    /// Compares all that the CPUs translate without asking the kernel.
    fn probe(&mut self) {
        if self.limit.is_some() {
            return;
        }
        for cpu in 0..CPUS {
            let Some(number) = self.cpus[cpu] else {
                continue;
            };
            self.memory.machine_mut().set_cpu(cpu);
            for spot in 0..SPOTS {
                let address = address(spot);
                let page = self.space(number).pages.get(&address).copied();
                let permits = |needed| page.is_some_and(|page| page.protection.contains(needed));
                let machine = self.memory.machine_mut();
                if machine.probe(address, Intent::Write).is_some() {
                    assert!(
                        permits(Protection::WRITE),
                        "CPU {cpu} may write {address:#x}"
                    );
                }
                if machine.probe(address, Intent::Execute).is_some() {
                    assert!(
                        permits(Protection::EXECUTE),
                        "CPU {cpu} may execute {address:#x}"
                    );
                }
                if let Some(seen) = machine.probe(address, Intent::Read) {
                    assert!(permits(READ), "CPU {cpu} may read {address:#x}");
                    let expected = page.and_then(|page| self.value(page.content));
                    if let Some(expected) = expected {
                        assert_eq!(seen, expected, "CPU {cpu} at {address:#x}");
                    }
                }
            }
        }
    }
}

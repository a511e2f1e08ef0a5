//! The rules of the memory tree, one test each, through the fake CPUs.

mod mapping;
mod model;
mod pools;
mod property;
mod sharing;
mod snapshot;
mod windows;

use super::fake::{self, FakeMachine};
use super::{Ending, Memory, PAGE_SIZE, Pool, Progress, Ref, Space, Window};
use libipc::abi::Protection;

const READ: Protection = Protection::READ;
const READ_WRITE: Protection = Protection::READ.union(Protection::WRITE);
const READ_EXECUTE: Protection = Protection::READ.union(Protection::EXECUTE);

/// A page address to use, in the middle of a lowest table.
const BASE: u64 = 0x40_0010_0000;

const fn page(number: u64) -> u64 {
    BASE + number * PAGE_SIZE
}

/// A machine, a pool and one space that CPU 0 is in.
struct Case {
    memory: Memory<FakeMachine>,
    pool: Ref<Pool>,
    space: Ref<Space>,
}

impl Case {
    fn new() -> Case {
        let mut memory = fake::memory(512);
        let pool = memory.pool_create(memory.root_pool(), 400).unwrap();
        let space = memory.space_create(pool, None).unwrap();
        memory.enter(0, space);
        Case {
            memory,
            pool,
            space,
        }
    }

    /// With `pages` pages mapped at [`BASE`].
    fn with_pages(pages: u64) -> Case {
        let mut case = Case::new();
        case.map(BASE, pages, READ_WRITE);
        case
    }

    fn map(&mut self, address: u64, pages: u64, protection: Protection) {
        self.memory
            .map_anonymous(self.space, address, pages, protection)
            .unwrap();
    }

    fn unmap(&mut self, space: Ref<Space>, address: u64, pages: u64) {
        let end = address + pages * PAGE_SIZE;
        let mut at = address;
        while let Progress::More(next) = self
            .memory
            .unmap(space, at, (end - at) / PAGE_SIZE)
            .unwrap()
        {
            at = next;
        }
    }

    fn protect(&mut self, address: u64, pages: u64, protection: Protection) {
        let result = self.memory.protect(self.space, address, pages, protection);
        assert_eq!(result, Ok(Progress::Done));
    }

    fn store(&mut self, cpu: usize, address: u64, value: u64) {
        self.memory.user_store(cpu, address, value).unwrap();
    }

    fn load(&mut self, cpu: usize, address: u64) -> u64 {
        self.memory.user_load(cpu, address).unwrap()
    }

    /// A snapshot of the space, which CPU `cpu` enters.
    fn snapshot(&mut self, cpu: usize) -> Ref<Space> {
        let copy = self
            .memory
            .space_snapshot(self.space, self.pool, None)
            .unwrap();
        self.memory.enter(cpu, copy);
        self.memory.machine_mut().set_cpu(0);
        copy
    }

    /// Frames that the pool uses.
    fn used(&self) -> u64 {
        self.memory.pool_status(self.pool).used
    }

    /// What `work` adds to page copies, table copies and take-backs.
    fn changes(&mut self, work: impl FnOnce(&mut Case)) -> [u64; 3] {
        let before = self.memory.statistics();
        work(self);
        let after = self.memory.statistics();
        self.memory.audit();
        [
            after.page_copies - before.page_copies,
            after.table_copies - before.table_copies,
            after.take_backs - before.take_backs,
        ]
    }

    fn window(&mut self, address: u64, pages: u64, access: Protection) -> Ref<Window> {
        self.memory
            .window_create(self.space, self.pool, address, pages, access, None)
            .unwrap()
    }

    /// A second space that CPU `cpu` is in.
    fn other_space(&mut self, cpu: usize) -> Ref<Space> {
        let space = self.memory.space_create(self.pool, None).unwrap();
        self.memory.enter(cpu, space);
        self.memory.machine_mut().set_cpu(0);
        space
    }
}

/// Ends a pool as the object layer does.
fn end_pool(memory: &mut Memory<FakeMachine>, pool: Ref<Pool>) {
    while let Ending::Object(object) = memory.pool_end(pool).unwrap() {
        if let Some(inner) = object.downcast::<Pool>() {
            end_pool(memory, inner);
        } else if let Some(window) = object.downcast::<Window>() {
            memory.window_end(window);
        } else if let Some(space) = object.downcast::<Space>() {
            memory.end_space(space);
        } else {
            panic!("{object:?}");
        }
    }
}

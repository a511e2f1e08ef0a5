//! Ends and signals cannot be refused, so they may not need memory, of which there may be none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use libipc::protocol::process::Errno;

use crate::world::{No, World, outcome};

thread_local! {
    /// Whether this thread may have memory now, and how often it asked when it might not.
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
    static ASKED: Cell<u32> = const { Cell::new(0) };
}

struct Watched;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

// SAFETY: the system's allocator; what is counted beside it needs no memory.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if FORBIDDEN.get() {
            ASKED.set(ASKED.get() + 1);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The time for which an allocation is no breach: the fake machine's own affairs.
pub struct Pause(bool);

pub fn pause() -> Pause {
    Pause(FORBIDDEN.replace(false))
}

impl Drop for Pause {
    fn drop(&mut self) {
        FORBIDDEN.set(self.0);
    }
}

/// Does something that may not need memory.
fn without_memory<T>(work: impl FnOnce() -> T) -> T {
    ASKED.set(0);
    FORBIDDEN.set(true);
    let result = work();
    FORBIDDEN.set(false);
    assert_eq!(ASKED.get(), 0, "how often memory was asked for");
    result
}

#[test]
fn a_breach_is_noticed() {
    without_memory(|| drop([(); 3].map(|()| pause())));
    let breach = std::panic::catch_unwind(|| without_memory(|| vec![1u8; 5]));
    assert!(breach.is_err());
}

const SIGKILL: u32 = 9;
const SIGSTOP: u32 = 19;
const SIGCONT: u32 = 18;

/// A family in which much is under way: children with threads and children, vforks, waits, groups.
fn family(world: &mut World, top: u64, children: u64) -> Vec<(u32, u64)> {
    (0..children)
        .map(|number| {
            let (pid, child) = world.fork(top);
            match number % 6 {
                0 => drop(world.clone(child, 0x1_0900).unwrap()),
                1 => {
                    world.fork(child);
                    assert_eq!(world.wait(child, -1, 0), Err(No::Yet));
                }
                2 => drop(world.vfork(child)),
                3 => drop(world.exec(child)),
                4 => drop(outcome(world.client(child).setpgid(0, 0))),
                _ => {}
            }
            (pid, child)
        })
        .collect()
}

#[test]
fn children_that_end_in_any_order_need_no_memory() {
    let (mut world, top) = World::with_program();
    let mut children = family(&mut world, top, 64);
    let mut ended = 0;
    while !children.is_empty() {
        let (pid, _) = children.remove(ended * 29 % children.len());
        let (_, killer) = world.server.caller(world.fake.label(top)).unwrap();
        let World { server, fake, .. } = &mut world;
        without_memory(|| server.kill(fake, killer, pid as i32, SIGKILL)).unwrap();
        world.server.check().unwrap();
        ended += 1;
    }
    for _ in 0..ended {
        assert!(world.wait(top, -1, 1).is_ok());
    }
    assert_eq!(world.wait(top, -1, 1), Err(No::Errno(Errno::ECHILD)));
}

#[test]
fn signals_to_many_need_no_memory() {
    for (pid, signals) in [
        (0, &[SIGSTOP, SIGCONT, SIGKILL][..]),
        (-1, &[SIGSTOP, SIGKILL]),
    ] {
        let (mut world, top) = World::with_program();
        let (_, leader) = world.fork(top);
        outcome(world.client(leader).setpgid(0, 0)).unwrap();
        family(&mut world, leader, 64);
        let (_, killer) = world.server.caller(world.fake.label(leader)).unwrap();
        for signal in signals {
            let World { server, fake, .. } = &mut world;
            without_memory(|| server.kill(fake, killer, pid, *signal)).unwrap();
            world.server.check().unwrap();
        }
        let left = world.server.figures().threads;
        assert!(left < 16, "{left} threads are left");
    }
}

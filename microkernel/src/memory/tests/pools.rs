//! Who pays: charges of trees when pools end and pages change hands.

use super::*;
use crate::memory::{Error, Fault, WindowMode, WindowPart};

/// A source space in one pool and a snapshot of it, on CPU 1, in another.
fn two_pools() -> (Case, Ref<Pool>, Ref<Space>) {
    let mut case = Case::with_pages(8);
    for number in 0..8 {
        case.store(0, page(number), number);
    }
    let root = case.memory.root_pool();
    let pool = case.memory.pool_create(root, 100).unwrap();
    let copy = case.memory.space_snapshot(case.space, pool, None).unwrap();
    case.memory.enter(1, copy);
    (case, pool, copy)
}

#[test]
fn a_snapshot_in_another_pool_pays_for_its_root_only() {
    let (case, pool, _) = two_pools();
    assert_eq!(case.memory.pool_status(pool).used, 2, "a slab and the root");
}

#[test]
fn what_another_pool_s_space_reaches_stays_and_is_charged_to_the_parent() {
    let (mut case, pool, copy) = two_pools();
    let root = case.memory.root_pool();
    let source_pool = case.pool;
    end_pool(&mut case.memory, source_pool);
    case.memory.audit();
    for number in 0..8 {
        assert_eq!(case.load(1, page(number)), number);
    }
    // Eight pages and the three tables; the root pool also has its own slabs.
    let of_others = case.memory.pool_status(root).used - case.memory.pool_status(pool).used;
    assert_eq!(of_others, 11 + 1);
    case.memory.end_space(copy);
    end_pool(&mut case.memory, pool);
    case.memory.audit();
    assert_eq!(case.memory.pool_status(root).used, 1);
}

#[test]
fn taking_back_moves_the_charge_to_the_taker() {
    let (mut case, pool, _) = two_pools();
    let source_pool = case.pool;
    end_pool(&mut case.memory, source_pool);
    let used = case.memory.pool_status(pool).used;
    assert_eq!(case.changes(|case| case.store(1, page(0), 9)), [0, 0, 1]);
    // The upper table moved, and with it write permission for all below it.
    assert_eq!(case.memory.pool_status(pool).used, used + 1);
}

#[test]
fn taking_a_page_back_moves_its_charge_too() {
    let (mut case, pool, _) = two_pools();
    // The source parts its path and one page; the old ones are the snapshot's.
    case.store(0, page(0), 9);
    let (theirs, mine) = (case.used(), case.memory.pool_status(pool).used);
    assert_eq!(case.changes(|case| case.store(1, page(0), 8)), [0, 0, 4]);
    assert_eq!(case.used(), theirs - 4, "three tables and the page");
    assert_eq!(case.memory.pool_status(pool).used, mine + 4);
}

#[test]
fn taking_back_what_the_taker_cannot_pay_is_no_memory() {
    let (mut case, pool, _) = two_pools();
    let source_pool = case.pool;
    end_pool(&mut case.memory, source_pool);
    case.memory.pool_set_limit(pool, 2).unwrap();
    assert_eq!(case.memory.user_store(1, page(0), 9), Err(Fault::NoMemory));
    assert_eq!(case.load(1, page(0)), 0);
    case.memory.audit();
}

#[test]
fn a_charge_that_moves_below_a_full_ancestor_is_not_refused() {
    let mut memory = fake::memory(256);
    let outer = memory.pool_create(memory.root_pool(), 100).unwrap();
    let [one, other] = [0, 1].map(|_| memory.pool_create(outer, 50).unwrap());
    let source = memory.space_create(one, None).unwrap();
    memory.enter(0, source);
    memory.map_anonymous(source, BASE, 2, READ_WRITE).unwrap();
    memory.user_store(0, page(0), 1).unwrap();
    let copy = memory.space_snapshot(source, other, None).unwrap();
    memory.end_space(source);
    let used = memory.pool_status(outer).used;
    memory.pool_set_limit(outer, used).unwrap();
    memory.enter(0, copy);
    assert_eq!(memory.user_store(0, page(0), 2), Ok(()));
    assert_eq!(memory.pool_status(outer).used, used);
    memory.audit();
}

#[test]
fn an_ended_pool_pays_for_nothing_new() {
    let (mut case, pool, _) = two_pools();
    case.store(1, page(0), 1);
    let _ = case.memory.pool_end(pool).unwrap();
    assert_eq!(case.memory.space_create(pool, None), Err(Error::Gone));
    assert_eq!(case.memory.user_store(1, page(1), 1), Err(Fault::NoMemory));
    end_pool(&mut case.memory, pool);
    case.memory.audit();
}

#[test]
fn ending_a_pool_ends_the_spaces_of_the_pools_inside_it() {
    let mut case = Case::with_pages(2);
    let root = case.memory.root_pool();
    let before = case.memory.pool_status(root).used;
    let outer = case.memory.pool_create(root, 100).unwrap();
    let inner = case.memory.pool_create(outer, 100).unwrap();
    for pool in [outer, inner] {
        let space = case.memory.space_create(pool, None).unwrap();
        case.memory.enter(1, space);
        case.memory
            .map_anonymous(space, BASE, 9, READ_WRITE)
            .unwrap();
        case.store(1, page(3), 1);
    }
    end_pool(&mut case.memory, outer);
    case.memory.audit();
    assert_eq!(case.memory.pool_status(root).used, before);
    assert_eq!(case.memory.space_on(1), None);
}

#[test]
fn a_mapper_keeps_what_it_settled_when_the_source_s_pool_ends() {
    let mut case = Case::with_pages(2);
    case.store(0, page(0), 5);
    let window = case.window(BASE, 2, READ_WRITE);
    let root = case.memory.root_pool();
    let pool = case.memory.pool_create(root, 100).unwrap();
    let mapper = case.memory.space_create(pool, None).unwrap();
    case.memory.enter(1, mapper);
    let part = WindowPart {
        offset_pages: 0,
        protection: READ_WRITE,
        limit: READ_WRITE,
        mode: WindowMode::Shared,
    };
    case.memory
        .window_map(window, mapper, BASE, 2, part)
        .unwrap();
    assert_eq!(case.load(1, page(0)), 5);
    let source_pool = case.pool;
    end_pool(&mut case.memory, source_pool);
    case.memory.audit();
    assert_eq!(case.load(1, page(0)), 5);
    assert_eq!(case.memory.user_load(1, page(1)), Err(Fault::Denied));
    end_pool(&mut case.memory, pool);
    case.memory.audit();
    assert_eq!(
        case.memory.pool_status(root).used,
        1,
        "the shells went with the last link"
    );
}

#[test]
fn an_idle_snapshot_uses_at_most_six_frames() {
    let mut case = Case::new();
    // The native layout: image, data and stack in one table, bulk elsewhere.
    case.map(0x7f00_0000_0000, 0x40, READ_EXECUTE);
    case.map(0x7f00_001c_f000, 0x30, READ_WRITE);
    case.map(0x7e80_0000_0000, 0x100, READ_WRITE);
    case.store(0, 0x7f00_001f_e000, 1);
    case.store(0, 0x7e80_0000_3000, 1);
    case.snapshot(1);
    let used = case.used();
    case.snapshot(2);
    // It waits in a call, with its stack page prefaulted.
    case.store(2, 0x7f00_001f_e000, 2);
    assert!(case.used() - used <= 6, "{}", case.used() - used);
}

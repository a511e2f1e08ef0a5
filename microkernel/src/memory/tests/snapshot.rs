//! Snapshots: what they share, when they part, who takes back.

use super::*;
use crate::memory::{Error, Fault};

#[test]
fn a_snapshot_reads_what_the_source_wrote_before() {
    let mut case = Case::with_pages(4);
    case.store(0, page(1), 11);
    case.snapshot(1);
    assert_eq!(case.load(1, page(1)), 11);
    assert_eq!(case.load(1, page(2)), 0);
    case.memory.audit();
}

#[test]
fn neither_side_sees_what_the_other_writes_afterwards() {
    let mut case = Case::with_pages(4);
    case.store(0, page(1), 11);
    case.snapshot(1);
    case.store(0, page(1), 12);
    case.store(1, page(2), 21);
    assert_eq!((case.load(0, page(1)), case.load(1, page(1))), (12, 11));
    assert_eq!((case.load(0, page(2)), case.load(1, page(2))), (0, 21));
    case.memory.audit();
}

#[test]
fn a_snapshot_of_a_space_costs_a_root_whatever_is_mapped() {
    let mut case = Case::with_pages(128);
    for number in 0..128 {
        case.store(0, page(number), number);
    }
    // The first snapshot may need a slab frame for its space object.
    case.snapshot(1);
    let used = case.used();
    let changes = case.changes(|case| {
        case.snapshot(2);
    });
    assert_eq!(changes, [0, 0, 0]);
    assert_eq!(case.used(), used + 1);
}

#[test]
fn a_write_after_snapshot_copies_only_the_path() {
    let mut case = Case::with_pages(128);
    for number in 0..128 {
        case.store(0, page(number), number);
    }
    case.snapshot(1);
    let used = case.used();
    assert_eq!(case.changes(|case| case.store(0, page(5), 1)), [1, 3, 0]);
    assert_eq!(case.used(), used + 4);
    // The path is the writer's own by now.
    assert_eq!(case.changes(|case| case.store(0, page(6), 1)), [1, 0, 0]);
}

#[test]
fn the_last_owner_takes_the_page_back_without_copying() {
    let mut case = Case::with_pages(4);
    case.store(0, page(1), 11);
    case.snapshot(1);
    case.store(0, page(1), 12);
    // The snapshot is the only one that still has the old path and page.
    assert_eq!(case.changes(|case| case.store(1, page(1), 21)), [0, 0, 4]);
    assert_eq!((case.load(0, page(1)), case.load(1, page(1))), (12, 21));
}

#[test]
fn taking_a_table_back_takes_all_pages_below_it_back() {
    let mut case = Case::with_pages(128);
    for number in 0..128 {
        case.store(0, page(number), number);
    }
    let copy = case.snapshot(1);
    case.memory.end_space(copy);
    // One entry of the root was masked, and nothing below.
    assert_eq!(case.changes(|case| case.store(0, page(1), 5)), [0, 0, 1]);
    assert_eq!(case.changes(|case| case.store(0, page(100), 5)), [0, 0, 0]);
}

#[test]
fn a_snapshot_is_flushed_on_every_cpu_that_runs_the_source() {
    let mut case = Case::with_pages(4);
    let space = case.space;
    case.memory.enter(2, space);
    case.store(0, page(1), 1);
    case.store(2, page(1), 2);
    case.snapshot(1);
    case.store(2, page(1), 3);
    assert_eq!(case.load(1, page(1)), 2);
    assert_eq!(case.load(0, page(1)), 3, "CPU 0 forgot the old page");
    case.memory.audit();
}

#[test]
fn a_snapshot_of_what_is_masked_already_needs_no_flush() {
    let mut case = Case::with_pages(4);
    case.store(0, page(1), 1);
    case.snapshot(1);
    let flushes = case.memory.statistics().full_flushes;
    case.snapshot(2);
    assert_eq!(case.memory.statistics().full_flushes, flushes);
}

#[test]
fn a_page_that_parts_at_once_costs_neither_side_a_fault() {
    let mut case = Case::with_pages(4);
    for number in 0..4 {
        case.store(0, page(number), number);
    }
    let mut copy = None;
    let apart = |case: &mut Case| {
        let copied = case
            .memory
            .space_snapshot(case.space, case.pool, Some(page(1)));
        copy = Some(copied.unwrap());
    };
    assert_eq!(case.changes(apart), [1, 3, 0]);
    case.memory.enter(1, copy.unwrap());
    case.memory.machine_mut().set_cpu(0);
    // No fault is settled for them: the CPUs' own walk finds the page writable.
    assert_eq!(case.changes(|case| case.store(0, page(1), 10)), [0, 0, 0]);
    assert_eq!(case.changes(|case| case.store(1, page(1), 20)), [0, 0, 0]);
    assert_eq!((case.load(0, page(1)), case.load(1, page(1))), (10, 20));
    // The other pages part when they are written.
    assert_eq!(case.changes(|case| case.store(0, page(2), 30)), [1, 0, 0]);
    assert_eq!((case.load(1, page(2)), case.load(1, page(3))), (2, 3));
}

#[test]
fn a_page_that_cannot_be_paid_for_at_once_is_shared_until_it_is_written() {
    for limit in 2..7 {
        let mut case = Case::with_pages(4);
        case.store(0, page(1), 1);
        let root = case.memory.root_pool();
        let poor = case.memory.pool_create(root, limit).unwrap();
        let copy = case.memory.space_snapshot(case.space, poor, Some(page(1)));
        case.memory.enter(1, copy.unwrap());
        case.memory.machine_mut().set_cpu(0);
        assert_eq!(case.load(1, page(1)), 1, "limit {limit}");
        case.store(0, page(1), 2);
        assert_eq!(case.load(1, page(1)), 1, "limit {limit}");
        case.memory.audit();
    }
}

#[test]
fn a_chain_of_ten_snapshots_keeps_every_generation() {
    let mut case = Case::with_pages(2);
    let first = case.space;
    let mut spaces = vec![first];
    for generation in 0..10 {
        case.store(0, page(0), generation);
        let copy = case
            .memory
            .space_snapshot(case.space, case.pool, None)
            .unwrap();
        case.space = copy;
        spaces.push(copy);
        case.memory.enter(0, copy);
    }
    case.store(0, page(0), 10);
    for (generation, &space) in spaces.iter().enumerate() {
        case.memory.enter(0, space);
        assert_eq!(case.load(0, page(0)), generation as u64);
    }
    // End them from the middle outwards; those that are left keep theirs.
    for at in [5, 4, 6, 3, 7, 2, 8, 1, 9] {
        case.memory.end_space(spaces[at]);
        case.memory.audit();
        case.memory.enter(0, spaces[10]);
        assert_eq!(case.load(0, page(0)), 10);
        case.memory.enter(0, first);
        assert_eq!(case.load(0, page(0)), 0);
    }
}

#[test]
fn a_read_only_page_stays_so_on_both_sides() {
    let mut case = Case::with_pages(2);
    case.store(0, page(0), 1);
    case.protect(page(0), 1, READ);
    case.snapshot(1);
    assert_eq!(case.memory.user_store(0, page(0), 2), Err(Fault::Denied));
    assert_eq!(case.memory.user_store(1, page(0), 2), Err(Fault::Denied));
    assert_eq!(case.load(1, page(0)), 1);
}

#[test]
fn untouched_memory_read_below_a_shared_table_is_filled_for_all() {
    let mut case = Case::with_pages(4);
    case.store(0, page(0), 1);
    case.snapshot(1);
    assert_eq!(case.load(1, page(3)), 0);
    let fills = case.memory.statistics().zero_fills;
    assert_eq!(case.load(0, page(3)), 0);
    assert_eq!(
        case.memory.statistics().zero_fills,
        fills,
        "one page for both"
    );
    case.store(0, page(3), 3);
    assert_eq!(case.load(1, page(3)), 0);
    case.memory.audit();
}

#[test]
fn ending_a_space_gives_back_what_it_alone_holds() {
    let mut case = Case::with_pages(8);
    for number in 0..8 {
        case.store(0, page(number), number);
    }
    let used = case.used();
    let copy = case.snapshot(1);
    case.store(1, page(0), 100);
    case.store(1, page(1), 100);
    case.memory.end_space(copy);
    case.memory.audit();
    // Its root and space object, path and two pages are back; the source's
    // former path is shared with nobody.
    assert_eq!(case.used(), used);
    assert_eq!(case.load(0, page(0)), 0);
    let space = case.space;
    case.memory.end_space(space);
    case.memory.audit();
    assert_eq!(case.used(), 0);
}

#[test]
fn ending_a_space_is_cut_into_steps() {
    let mut memory = fake::memory(6_000);
    let pool = memory.root_pool();
    let before = memory.pool_status(pool).used;
    let space = memory.space_create(pool, None).unwrap();
    memory.enter(0, space);
    memory
        .map_anonymous(space, BASE, 5_000, READ_WRITE)
        .unwrap();
    for number in 0..5_000 {
        memory.user_store(0, page(number), number).unwrap();
    }
    let mut steps = 1;
    while memory.space_end_step(space) != Progress::Done {
        steps += 1;
        assert_eq!(memory.space_load(space), Err(Error::Gone));
    }
    assert!(steps > 2, "{steps}");
    memory.space_release(space);
    memory.audit();
    assert_eq!(memory.pool_status(pool).used, before);
}

#[test]
fn an_ended_space_is_off_every_cpu_and_refuses_everything() {
    let mut case = Case::with_pages(2);
    let space = case.space;
    case.memory.space_hold(space).unwrap();
    case.memory.enter(1, space);
    case.memory.end_space(space);
    assert_eq!(
        (case.memory.space_on(0), case.memory.space_on(1)),
        (None, None)
    );
    let mapped = case.memory.map_anonymous(space, BASE, 1, READ);
    assert_eq!(mapped, Err(Error::Gone));
    assert_eq!(
        case.memory.space_snapshot(space, case.pool, None),
        Err(Error::Gone)
    );
    assert_eq!(case.memory.space_load(space), Err(Error::Gone));
    case.memory.space_release(space);
    case.memory.audit();
}

#[test]
fn a_snapshot_that_the_pool_cannot_pay_leaves_nothing_behind() {
    let mut case = Case::with_pages(2);
    case.store(0, page(0), 1);
    let used = case.used();
    let poor = case.memory.pool_create(case.memory.root_pool(), 1).unwrap();
    let refused = case.memory.space_snapshot(case.space, poor, None);
    assert_eq!(refused, Err(Error::NoMemory));
    case.memory.audit();
    assert_eq!(case.used(), used);
    assert_eq!(case.memory.pool_status(poor).used, 0);
}

#[test]
fn a_space_has_a_number_that_no_other_had() {
    let mut case = Case::new();
    let first = case.memory.get(case.space).id();
    case.memory.end_space(case.space);
    let space = case.memory.space_create(case.pool, None).unwrap();
    assert!(case.memory.get(space).id() > first);
}

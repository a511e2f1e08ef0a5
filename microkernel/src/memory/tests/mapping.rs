//! Mapping, unmapping, protecting and resolving.

use super::*;
use crate::memory::{Caching, Error, Fault, Frame, Intent, PagerRef};
use libipc::abi::USER_END;

#[test]
fn untouched_memory_costs_tables_only_and_reads_as_zero() {
    let mut case = Case::new();
    let used = case.used();
    case.map(BASE, 100, READ_WRITE);
    assert_eq!(case.used(), used + 3, "the path");
    assert_eq!(case.load(0, page(50)), 0);
    assert_eq!(case.used(), used + 4, "one page");
    case.memory.audit();
}

#[test]
fn a_gibibyte_is_mapped_with_one_entry() {
    let mut case = Case::new();
    let used = case.used();
    case.map(1 << 30, 1 << 18, READ_WRITE);
    assert_eq!(case.used(), used + 1);
    case.store(0, (1 << 30) + 0x1234_5000, 7);
    assert_eq!(case.used(), used + 4, "two tables and the page");
    assert_eq!(case.load(0, (1 << 30) + 0x1234_5000), 7);
    assert_eq!(case.load(0, (1 << 31) - PAGE_SIZE), 0);
    case.memory.audit();
    let space = case.space;
    case.unmap(space, 1 << 30, 1 << 18);
    assert_eq!(case.used(), used);
}

#[test]
fn all_of_user_space_can_be_mapped_at_once() {
    let mut case = Case::new();
    case.map(0, USER_END / PAGE_SIZE, READ_WRITE);
    case.store(0, 0, 1);
    case.store(0, USER_END - PAGE_SIZE, 2);
    case.memory.audit();
    let space = case.space;
    case.unmap(space, 0, USER_END / PAGE_SIZE);
    assert_eq!(case.memory.next_mapped(space, 0), None);
    case.memory.audit();
}

#[test]
fn ranges_outside_user_space_are_refused() {
    let mut case = Case::new();
    let mut map = |address, pages| {
        case.memory
            .map_anonymous(case.space, address, pages, READ_WRITE)
    };
    assert_eq!(map(USER_END, 1), Err(Error::BadAddress), "the top page");
    assert_eq!(map(USER_END - PAGE_SIZE, 2), Err(Error::BadAddress));
    assert_eq!(map(0, u64::MAX), Err(Error::BadAddress), "bytes overflow");
    assert_eq!(
        map(u64::MAX - 4095, 1),
        Err(Error::BadAddress),
        "end overflows"
    );
    assert_eq!(map(0xffff_8000_0000_0000, 1), Err(Error::BadAddress));
    assert_eq!(map(BASE + 1, 1), Err(Error::InvalidArgument));
    assert_eq!(map(BASE, 0), Err(Error::InvalidArgument));
    assert_eq!(map(USER_END - PAGE_SIZE, 1), Ok(()));
}

#[test]
fn addresses_outside_user_space_resolve_to_nothing() {
    let mut case = Case::new();
    for address in [USER_END, 1 << 47, 0xffff_8000_0000_0000, u64::MAX] {
        let found = case.memory.resolve(case.space, address, Intent::Write);
        assert_eq!(found, Err(Fault::Denied));
    }
}

#[test]
fn mapping_over_something_is_refused_and_changes_nothing() {
    let mut case = Case::with_pages(1);
    let used = case.used();
    let below = page(0) - 8 * PAGE_SIZE;
    let refused = case.memory.map_anonymous(case.space, below, 16, READ);
    assert_eq!(refused, Err(Error::Occupied));
    let big = BASE & !((1 << 30) - 1);
    let refused = case.memory.map_anonymous(case.space, big, 1 << 18, READ);
    assert_eq!(refused, Err(Error::Occupied));
    assert_eq!(case.used(), used);
    assert_eq!(case.memory.user_load(0, below), Err(Fault::Missing));
    case.memory.audit();
}

#[test]
fn mapping_that_the_pool_cannot_pay_changes_nothing() {
    let mut memory = fake::memory(64);
    for limit in 2..6 {
        let pool = memory.pool_create(memory.root_pool(), limit).unwrap();
        let space = memory.space_create(pool, None).unwrap();
        // Across the edge of two halves of the root: needs six tables.
        let refused = memory.map_anonymous(space, (1 << 39) - PAGE_SIZE, 2, READ_WRITE);
        assert_eq!(refused, Err(Error::NoMemory));
        memory.audit();
        assert_eq!(memory.pool_status(pool).used, 2);
        assert_eq!(memory.next_mapped(space, 0), None);
    }
}

#[test]
fn write_and_execute_together_are_refused() {
    let mut case = Case::new();
    let both = READ_WRITE | READ_EXECUTE;
    let mapped = case.memory.map_anonymous(case.space, BASE, 1, both);
    assert_eq!(mapped, Err(Error::InvalidArgument));
    case.map(BASE, 1, READ_WRITE);
    let changed = case.memory.protect(case.space, BASE, 1, both);
    assert_eq!(changed, Err(Error::InvalidArgument));
}

#[test]
fn unmapping_half_a_region_keeps_the_rest() {
    let mut case = Case::with_pages(20);
    for number in 0..20 {
        case.store(0, page(number), number);
    }
    let (space, used) = (case.space, case.used());
    case.unmap(space, page(5), 10);
    assert_eq!(case.used(), used - 10);
    for number in 0..20 {
        let expected = match number {
            5..15 => Err(Fault::Missing),
            _ => Ok(number),
        };
        assert_eq!(case.memory.user_load(0, page(number)), expected);
    }
    case.memory.audit();
}

#[test]
fn unmapping_everything_gives_the_tables_back() {
    let mut case = Case::new();
    let (space, used) = (case.space, case.used());
    case.map(BASE, 1000, READ_WRITE);
    case.store(0, page(500), 1);
    case.unmap(space, BASE, 1000);
    assert_eq!(case.used(), used);
    case.memory.audit();
    case.memory.audit_clean_frames();
}

#[test]
fn unmapping_part_of_a_large_zero_region_splits_it() {
    let mut case = Case::new();
    let space = case.space;
    case.map(1 << 30, 1 << 18, READ_WRITE);
    case.unmap(space, (1 << 30) + PAGE_SIZE, 1);
    assert_eq!(case.load(0, 1 << 30), 0);
    let hole = (1 << 30) + PAGE_SIZE;
    assert_eq!(case.memory.user_load(0, hole), Err(Fault::Missing));
    assert_eq!(case.load(0, (1 << 30) + 2 * PAGE_SIZE), 0);
    case.memory.audit();
}

#[test]
fn unmapping_in_one_space_keeps_the_page_in_its_snapshot() {
    let mut case = Case::with_pages(4);
    case.store(0, page(1), 11);
    case.snapshot(1);
    let space = case.space;
    case.unmap(space, BASE, 4);
    assert_eq!(case.memory.user_load(0, page(1)), Err(Fault::Missing));
    assert_eq!(case.load(1, page(1)), 11);
    case.memory.audit();
}

#[test]
fn unmapping_a_lot_is_cut_into_steps() {
    let mut memory = fake::memory(5_000);
    let pool = memory.root_pool();
    let space = memory.space_create(pool, None).unwrap();
    memory.enter(0, space);
    memory
        .map_anonymous(space, BASE, 4_500, READ_WRITE)
        .unwrap();
    for number in 0..4_500 {
        memory.user_store(0, page(number), 1).unwrap();
    }
    let mut at = BASE;
    let mut steps = 1;
    let end = page(4_500);
    while let Progress::More(next) = memory.unmap(space, at, (end - at) / PAGE_SIZE).unwrap() {
        assert!(next > at);
        memory.audit();
        at = next;
        steps += 1;
    }
    assert!(steps > 1);
    assert_eq!(memory.next_mapped(space, 0), None);
    memory.audit();
}

#[test]
fn a_cpu_forgets_an_unmapped_page_before_its_frame_is_used_again() {
    let mut case = Case::with_pages(2);
    let space = case.space;
    case.memory.enter(1, space);
    case.store(0, page(0), 1);
    assert_eq!(case.load(1, page(0)), 1);
    case.unmap(space, page(0), 1);
    case.map(page(5), 1, READ_WRITE);
    case.store(0, page(5), 5);
    assert_eq!(case.memory.user_load(1, page(0)), Err(Fault::Missing));
}

#[test]
fn protection_is_enforced_and_can_be_given_back() {
    let mut case = Case::with_pages(3);
    case.store(0, page(1), 1);
    case.protect(page(1), 1, READ);
    assert_eq!(case.memory.user_store(0, page(1), 2), Err(Fault::Denied));
    assert_eq!(case.memory.user_execute(0, page(1)), Err(Fault::Denied));
    case.protect(page(1), 1, READ_EXECUTE);
    assert_eq!(case.memory.user_execute(0, page(1)), Ok(()));
    case.protect(page(1), 1, Protection::empty());
    assert_eq!(case.memory.user_load(0, page(1)), Err(Fault::Denied));
    case.protect(page(1), 1, READ_WRITE);
    assert_eq!(case.load(0, page(1)), 1);
    // It is known to have one owner, so no fault has to take it back.
    assert_eq!(case.changes(|case| case.store(0, page(1), 2)), [0, 0, 0]);
}

#[test]
fn protecting_one_side_of_a_snapshot_leaves_the_other() {
    let mut case = Case::with_pages(3);
    case.store(0, page(1), 1);
    case.snapshot(1);
    case.protect(page(0), 3, READ);
    assert_eq!(case.memory.user_store(0, page(1), 2), Err(Fault::Denied));
    case.store(1, page(1), 2);
    assert_eq!(case.load(0, page(1)), 1);
    // Logical write is not hardware write: given back, it still parts.
    case.snapshot(2);
    case.protect(page(0), 3, READ_WRITE);
    case.store(0, page(1), 3);
    assert_eq!((case.load(1, page(1)), case.load(2, page(1))), (2, 1));
    case.memory.audit();
}

#[test]
fn protecting_what_is_not_all_mapped_changes_nothing() {
    let mut case = Case::with_pages(3);
    let result = case.memory.protect(case.space, page(0), 5, READ);
    assert_eq!(result, Err(Error::BadAddress));
    case.store(0, page(0), 1);
}

#[test]
fn a_missing_page_is_asked_of_the_pager() {
    let mut case = Case::new();
    let pager = PagerRef(9);
    case.memory.space_set_pager(case.space, Some(pager));
    let expected = Fault::Pager {
        pager,
        space: case.space,
        address: page(3),
    };
    assert_eq!(case.memory.user_load(0, page(3) + 8), Err(expected));
    case.map(page(3), 1, READ);
    assert_eq!(
        case.memory.user_store(0, page(3), 1),
        Err(Fault::Denied),
        "no page is missing"
    );
}

#[test]
fn a_first_touch_that_the_pool_cannot_pay_is_no_memory() {
    let mut memory = fake::memory(64);
    let pool = memory.pool_create(memory.root_pool(), 5).unwrap();
    let space = memory.space_create(pool, None).unwrap();
    memory.enter(0, space);
    memory.map_anonymous(space, BASE, 2, READ_WRITE).unwrap();
    assert_eq!(memory.user_store(0, page(0), 1), Err(Fault::NoMemory));
    memory.pool_set_limit(pool, 6).unwrap();
    assert_eq!(memory.user_store(0, page(0), 1), Ok(()));
    assert_eq!(memory.user_store(0, page(1), 1), Err(Fault::NoMemory));
    memory.audit();
}

#[test]
fn a_forced_write_parts_a_private_page_and_grants_nothing() {
    let mut case = Case::with_pages(2);
    case.store(0, page(0), 1);
    case.protect(page(0), 1, READ_EXECUTE);
    case.snapshot(1);
    let space = case.space;
    let written = case.memory.write(
        space,
        page(0),
        &9u64.to_le_bytes(),
        Intent::ForcedPrivateWrite,
    );
    assert_eq!(written, Ok(()));
    assert_eq!((case.load(0, page(0)), case.load(1, page(0))), (9, 1));
    assert_eq!(case.memory.user_store(0, page(0), 2), Err(Fault::Denied));
    case.memory.audit();
}

#[test]
fn device_memory_is_pinned_on_both_sides_of_a_snapshot() {
    let mut case = Case::new();
    let device = Frame::from_number(0xfec00);
    let map = |case: &mut Case, protection| {
        case.memory.map_physical(
            case.space,
            BASE,
            2,
            device,
            protection,
            READ_WRITE,
            Caching::Uncached,
        )
    };
    assert_eq!(map(&mut case, READ_EXECUTE), Err(Error::AccessDenied));
    assert_eq!(map(&mut case, READ_WRITE), Ok(Progress::Done));
    let copy = case.snapshot(1);
    for space in [case.space, copy] {
        let found = case.memory.resolve(space, page(1), Intent::Write);
        assert_eq!(found, Ok(Frame::from_number(0xfec01)));
        // The kernel has no way to it and does not try.
        let read = case.memory.load_word(space, page(1));
        assert_eq!(read, Err(Fault::Denied));
    }
    case.memory.audit();
}

#[test]
fn pool_memory_cannot_be_mapped_as_physical_memory() {
    let mut case = Case::new();
    let frame = Frame::from_number(100);
    let mapped =
        case.memory
            .map_physical(case.space, BASE, 1, frame, READ, READ, Caching::WriteBack);
    assert_eq!(mapped, Err(Error::InvalidArgument));
}

#[test]
fn a_large_physical_range_is_mapped_in_steps() {
    let mut case = Case::new();
    let (mut at, mut frame, mut steps) = (BASE, 0xfe000, 0);
    let end = page(20_000);
    loop {
        let progress = case.memory.map_physical(
            case.space,
            at,
            (end - at) / PAGE_SIZE,
            Frame::from_number(frame),
            READ,
            READ,
            Caching::Uncached,
        );
        steps += 1;
        let Progress::More(next) = progress.unwrap() else {
            break;
        };
        frame += ((next - at) / PAGE_SIZE) as u32;
        at = next;
    }
    assert_eq!(steps, 10, "2,048 pages each");
    let last = case.memory.resolve(case.space, page(19_999), Intent::Read);
    assert_eq!(last, Ok(Frame::from_number(0xfe000 + 19_999)));
    case.memory.audit();
}

#[test]
fn mapped_runs_are_found_in_order() {
    let mut case = Case::with_pages(3);
    case.map(page(5), 2, READ);
    case.map(1 << 46, 1 << 18, READ);
    let next = |address| case.memory.next_mapped(case.space, address);
    assert_eq!(next(0), Some((page(0), 3)));
    assert_eq!(next(page(1)), Some((page(1), 2)));
    assert_eq!(next(page(3)), Some((page(5), 2)));
    assert_eq!(next(page(7)), Some((1 << 46, 1 << 18)));
    assert_eq!(next((1 << 46) + (1 << 30)), None);
    assert_eq!(next(USER_END), None);
}

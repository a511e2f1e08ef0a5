//! Windows: sharing, private copies, limits, revocation.

use super::*;
use crate::memory::{Caching, Error, Fault, Frame, FutexKey, Intent, PagerRef};
use crate::memory::{WindowMode, WindowPart};

/// Maps the first `pages` pages of a window for `protection`.
fn map(
    case: &mut Case,
    window: Ref<Window>,
    space: Ref<Space>,
    pages: u64,
    protection: Protection,
    mode: WindowMode,
) -> Result<(), Error> {
    let part = WindowPart {
        offset_pages: 0,
        protection,
        limit: Protection::all(),
        mode,
    };
    case.memory.window_map(window, space, BASE, pages, part)
}

/// A source with four pages, a window on them, and another space on CPU 1.
fn source() -> (Case, Ref<Window>, Ref<Space>) {
    let mut case = Case::with_pages(4);
    let window = case.window(BASE, 4, READ_WRITE);
    let other = case.other_space(1);
    (case, window, other)
}

#[test]
fn a_shared_page_is_one_page_for_all_who_map_it() {
    let (mut case, window, other) = source();
    case.store(0, page(0), 1);
    map(&mut case, window, other, 4, READ_WRITE, WindowMode::Shared).unwrap();
    let third = case.other_space(2);
    map(&mut case, window, third, 4, READ_WRITE, WindowMode::Shared).unwrap();
    assert_eq!((case.load(1, page(0)), case.load(2, page(0))), (1, 1));
    case.store(1, page(0), 2);
    case.store(2, page(1), 3);
    assert_eq!((case.load(0, page(0)), case.load(2, page(0))), (2, 2));
    assert_eq!((case.load(0, page(1)), case.load(1, page(1))), (3, 3));
    case.memory.audit();
}

#[test]
fn an_untouched_page_is_filled_in_the_source_first() {
    let (mut case, window, other) = source();
    map(&mut case, window, other, 4, READ_WRITE, WindowMode::Shared).unwrap();
    case.store(1, page(2), 7);
    assert_eq!(case.load(0, page(2)), 7);
    case.memory.audit();
}

#[test]
fn the_source_s_pool_pays_for_its_pages_and_the_mapper_s_for_its_tables() {
    let (mut case, window, _) = source();
    let root = case.memory.root_pool();
    let pool = case.memory.pool_create(root, 10).unwrap();
    let mapper = case.memory.space_create(pool, None).unwrap();
    case.memory.enter(2, mapper);
    map(&mut case, window, mapper, 4, READ_WRITE, WindowMode::Shared).unwrap();
    let mine = case.memory.pool_status(pool).used;
    let theirs = case.used();
    case.store(2, page(0), 7);
    assert_eq!(case.memory.pool_status(pool).used, mine);
    assert_eq!(case.used(), theirs + 1);
}

#[test]
fn what_the_source_lacks_is_asked_of_the_window_s_pager_or_the_source_s() {
    let mut case = Case::new();
    let other = case.other_space(1);
    let (space, pool) = (case.space, case.pool);
    case.memory.space_set_pager(space, Some(PagerRef(1)));
    let plain = case.window(page(100), 4, READ);
    let with_pager = case
        .memory
        .window_create(space, pool, page(100), 4, READ, Some(PagerRef(2)))
        .unwrap();
    for (window, pager) in [(plain, PagerRef(1)), (with_pager, PagerRef(2))] {
        map(&mut case, window, other, 4, READ, WindowMode::Shared).unwrap();
        let expected = Fault::Pager {
            pager,
            space,
            address: page(103),
        };
        assert_eq!(case.memory.user_load(1, page(3)), Err(expected));
        case.unmap(other, BASE, 4);
    }
    // Once the pager has put a page there, the access goes through.
    map(&mut case, plain, other, 4, READ, WindowMode::Shared).unwrap();
    case.map(page(103), 1, READ_WRITE);
    case.store(0, page(103), 5);
    assert_eq!(case.load(1, page(3)), 5);
    case.memory.audit();
}

#[test]
fn a_private_copy_reads_the_source_and_keeps_its_own_writes() {
    let (mut case, window, other) = source();
    case.store(0, page(0), 1);
    let mode = WindowMode::PrivateCopy;
    map(&mut case, window, other, 4, READ_WRITE, mode).unwrap();
    assert_eq!(case.load(1, page(0)), 1);
    let frames = case.used();
    case.store(1, page(0), 2);
    assert_eq!(case.used(), frames + 1, "only the mapper copies");
    assert_eq!(case.load(0, page(0)), 1);
    // The source kept its hardware write: no fault, so nothing was taken back.
    assert_eq!(case.changes(|case| case.store(0, page(0), 3)), [0, 0, 0]);
    assert_eq!(case.load(1, page(0)), 2);
}

#[test]
fn a_private_copy_of_untouched_memory_is_zero_and_costs_the_source_nothing() {
    let (mut case, window, other) = source();
    let mode = WindowMode::PrivateCopy;
    map(&mut case, window, other, 4, READ_WRITE, mode).unwrap();
    case.store(1, page(1), 5);
    case.store(0, page(1), 6);
    assert_eq!((case.load(0, page(1)), case.load(1, page(1))), (6, 5));
    case.memory.audit();
}

#[test]
fn a_mapping_gets_at_most_what_the_window_and_its_holder_have() {
    let mut case = Case::with_pages(4);
    let window = case.window(BASE, 4, READ);
    let other = case.other_space(1);
    let refused = map(&mut case, window, other, 4, READ_WRITE, WindowMode::Shared);
    assert_eq!(refused, Err(Error::AccessDenied));
    map(&mut case, window, other, 4, READ, WindowMode::Shared).unwrap();
    assert_eq!(case.load(1, page(0)), 0);
    for number in [0, 1] {
        // Both for a settled page and for one that is still a link.
        let raised = case.memory.protect(other, page(number), 1, READ_WRITE);
        assert_eq!(raised, Err(Error::AccessDenied));
    }
    assert_eq!(case.memory.user_store(1, page(0), 1), Err(Fault::Denied));
    case.unmap(other, BASE, 4);
    // A private copy may be written whatever the window permits.
    let mode = WindowMode::PrivateCopy;
    map(&mut case, window, other, 4, READ_WRITE, mode).unwrap();
    case.store(1, page(0), 1);
    assert_eq!(case.load(0, page(0)), 0);
    let refused = case.memory.protect(other, page(0), 1, READ_EXECUTE);
    assert_eq!(refused, Err(Error::AccessDenied), "it may not be executed");
}

#[test]
fn an_ended_window_maps_no_more_and_settles_no_more() {
    let (mut case, window, other) = source();
    map(&mut case, window, other, 4, READ_WRITE, WindowMode::Shared).unwrap();
    case.store(1, page(0), 1);
    case.memory.window_end(window);
    assert_eq!(case.memory.user_load(1, page(1)), Err(Fault::Denied));
    // What was settled stays.
    case.store(0, page(0), 2);
    assert_eq!(case.load(1, page(0)), 2);
    case.memory.audit();
    case.memory.end_space(other);
    case.memory.audit();
}

#[test]
fn a_window_that_nobody_holds_goes_with_its_last_mapping() {
    let (mut case, window, other) = source();
    case.store(0, page(0), 1);
    case.store(0, page(1), 2);
    case.memory.window_hold(window).unwrap();
    map(&mut case, window, other, 2, READ, WindowMode::Shared).unwrap();
    assert_eq!(case.load(1, page(0)), 1);
    case.memory.window_release(window);
    assert_eq!(case.load(1, page(1)), 2, "links are settled as before");
    assert!(!case.memory.is_live(window));
    case.memory.audit();
}

#[test]
fn a_window_outlives_neither_its_source_nor_does_it_keep_it_alive() {
    let (mut case, window, other) = source();
    case.store(0, page(0), 1);
    map(&mut case, window, other, 4, READ_WRITE, WindowMode::Shared).unwrap();
    assert_eq!(case.load(1, page(0)), 1);
    let space = case.space;
    case.memory.end_space(space);
    case.memory.audit();
    assert_eq!(case.load(1, page(0)), 1, "what was settled stays");
    assert_eq!(case.memory.user_load(1, page(1)), Err(Fault::Denied));
    case.unmap(other, BASE, 4);
    case.memory.window_end(window);
    case.memory.audit();
}

#[test]
fn a_large_window_is_mapped_with_few_entries() {
    let mut case = Case::new();
    case.map(1 << 30, 1 << 18, READ_WRITE);
    let window = case.window(1 << 30, 1 << 18, READ_WRITE);
    let other = case.other_space(1);
    let part = WindowPart {
        offset_pages: 0,
        protection: READ_WRITE,
        limit: READ_WRITE,
        mode: WindowMode::Shared,
    };
    let used = case.used();
    case.memory
        .window_map(window, other, 3 << 30, 1 << 18, part)
        .unwrap();
    assert_eq!(case.used(), used + 2, "a table and the mapping's slab");
    case.store(1, (3 << 30) + 0x765_4000, 9);
    assert_eq!(case.load(0, (1 << 30) + 0x765_4000), 9);
    case.memory.audit();
    case.unmap(other, 3 << 30, 1 << 18);
    case.memory.audit();
}

#[test]
fn shared_memory_stays_shared_in_a_snapshot_of_the_mapper() {
    let (mut case, window, other) = source();
    map(&mut case, window, other, 4, READ_WRITE, WindowMode::Shared).unwrap();
    case.store(1, page(0), 1);
    let copy = case.memory.space_snapshot(other, case.pool, None).unwrap();
    case.memory.enter(2, copy);
    // A page that was settled, and one that is settled below shared tables.
    case.store(2, page(0), 2);
    case.store(2, page(1), 3);
    assert_eq!((case.load(0, page(0)), case.load(1, page(0))), (2, 2));
    assert_eq!((case.load(0, page(1)), case.load(1, page(1))), (3, 3));
    case.memory.audit();
}

#[test]
fn a_page_that_parted_from_a_snapshot_is_shared_as_it_is_now() {
    let (mut case, window, other) = source();
    case.store(0, page(0), 1);
    let copy = case
        .memory
        .space_snapshot(case.space, case.pool, None)
        .unwrap();
    case.memory.enter(2, copy);
    map(&mut case, window, other, 4, READ_WRITE, WindowMode::Shared).unwrap();
    case.store(1, page(0), 2);
    assert_eq!(case.load(0, page(0)), 2);
    assert_eq!(case.load(2, page(0)), 1, "the snapshot has its own");
    case.memory.audit();
}

#[test]
fn a_page_that_its_mapper_let_go_of_is_private_again() {
    let (mut case, window, other) = source();
    case.store(0, page(0), 1);
    map(&mut case, window, other, 1, READ_WRITE, WindowMode::Shared).unwrap();
    assert_eq!(case.load(1, page(0)), 1);
    case.unmap(other, BASE, 1);
    case.memory.window_end(window);
    let copy = case
        .memory
        .space_snapshot(case.space, case.pool, None)
        .unwrap();
    case.memory.enter(2, copy);
    case.store(0, page(0), 2);
    assert_eq!(case.load(2, page(0)), 1);
    case.memory.audit();
}

#[test]
fn windows_that_lead_in_a_circle_are_refused_in_the_end() {
    let mut case = Case::new();
    let other = case.other_space(1);
    let window = case.window(BASE, 1, READ_WRITE);
    let (space, pool) = (case.space, case.pool);
    let back = case
        .memory
        .window_create(other, pool, BASE, 1, READ_WRITE, None)
        .unwrap();
    for mode in [WindowMode::Shared, WindowMode::PrivateCopy] {
        map(&mut case, window, other, 1, READ_WRITE, mode).unwrap();
        map(&mut case, back, space, 1, READ_WRITE, mode).unwrap();
        assert_eq!(case.memory.user_store(0, BASE, 1), Err(Fault::Denied));
        assert_eq!(case.memory.user_load(1, BASE), Err(Fault::Denied));
        case.memory.audit();
        case.unmap(space, BASE, 1);
        case.unmap(other, BASE, 1);
    }
}

#[test]
fn a_window_leads_through_a_window() {
    let (mut case, window, middle) = source();
    case.store(0, page(0), 1);
    map(&mut case, window, middle, 4, READ_WRITE, WindowMode::Shared).unwrap();
    let pool = case.pool;
    let second = case
        .memory
        .window_create(middle, pool, BASE, 4, READ, None)
        .unwrap();
    let last = case.other_space(2);
    map(&mut case, second, last, 4, READ, WindowMode::Shared).unwrap();
    assert_eq!(case.load(2, page(0)), 1);
    case.store(0, page(0), 2);
    assert_eq!(case.load(2, page(0)), 2);
    case.memory.audit();
}

#[test]
fn a_part_that_is_not_in_the_window_is_refused() {
    let (mut case, window, other) = source();
    let mut part = WindowPart {
        offset_pages: 2,
        protection: READ,
        limit: READ,
        mode: WindowMode::Shared,
    };
    let mut map = |part, pages| case.memory.window_map(window, other, BASE, pages, part);
    assert_eq!(map(part, 3), Err(Error::InvalidArgument));
    part.offset_pages = u64::MAX;
    assert_eq!(map(part, 1), Err(Error::InvalidArgument));
    part.offset_pages = 2;
    assert_eq!(map(part, 2), Ok(()));
    assert_eq!(map(part, 2), Err(Error::Occupied));
    case.store(0, page(3), 4);
    assert_eq!(case.load(1, page(1)), 4);
    case.memory.audit();
}

#[test]
fn the_boot_archive_can_be_mapped_shared_and_privately() {
    let mut memory = fake::memory_with_archive(64, 4);
    let archive = Frame::from_number(60);
    let pool = memory.root_pool();
    let server = memory.space_create(pool, None).unwrap();
    memory.enter(0, server);
    let mapped = memory.map_physical(
        server,
        BASE,
        4,
        archive,
        READ,
        READ_EXECUTE,
        Caching::WriteBack,
    );
    assert_eq!(mapped, Ok(Progress::Done));
    let window = memory
        .window_create(server, pool, BASE, 4, READ_EXECUTE, None)
        .unwrap();
    let program = memory.space_create(pool, None).unwrap();
    memory.enter(1, program);
    let mut part = WindowPart {
        offset_pages: 0,
        protection: READ_EXECUTE,
        limit: Protection::all(),
        mode: WindowMode::Shared,
    };
    memory.window_map(window, program, BASE, 2, part).unwrap();
    part.protection = READ_WRITE;
    part.mode = WindowMode::PrivateCopy;
    part.offset_pages = 2;
    memory
        .window_map(window, program, page(2), 2, part)
        .unwrap();
    assert_eq!(memory.user_execute(1, page(0)), Ok(()));
    assert_eq!(memory.user_store(1, page(0), 1), Err(Fault::Denied));
    assert_eq!(memory.user_load(1, page(2)), Ok(62));
    memory.user_store(1, page(2), 5).unwrap();
    assert_eq!(
        (memory.user_load(0, page(2)), memory.user_load(1, page(2))),
        (Ok(62), Ok(5))
    );
    memory.audit();
    memory.end_space(program);
    memory.end_space(server);
    memory.window_end(window);
    memory.audit();
}

#[test]
fn a_fault_on_the_boot_archive_settles_the_pages_around_it_too() {
    let mut memory = fake::memory_with_archive(64, 4);
    let archive = Frame::from_number(60);
    let pool = memory.root_pool();
    let server = memory.space_create(pool, None).unwrap();
    let mapped = memory.map_physical(
        server,
        BASE,
        4,
        archive,
        READ,
        READ_EXECUTE,
        Caching::WriteBack,
    );
    assert_eq!(mapped, Ok(Progress::Done));
    let window = memory
        .window_create(server, pool, BASE, 4, READ_EXECUTE, None)
        .unwrap();
    let program = memory.space_create(pool, None).unwrap();
    memory.enter(1, program);
    let mut part = WindowPart {
        offset_pages: 0,
        protection: READ_EXECUTE,
        limit: Protection::all(),
        mode: WindowMode::Shared,
    };
    memory.window_map(window, program, BASE, 3, part).unwrap();
    part.protection = READ_WRITE;
    part.mode = WindowMode::PrivateCopy;
    let copies = page(8);
    memory.window_map(window, program, copies, 4, part).unwrap();
    memory.resolve(program, page(1), Intent::Execute).unwrap();
    memory.resolve(program, page(9), Intent::Read).unwrap();
    memory.audit();
    // Whoever ends the window cannot take back what was settled.
    memory.window_end(window);
    for at in 0..3 {
        assert_eq!(memory.user_load(1, page(at)), Ok(60 + at));
        assert_eq!(memory.user_execute(1, page(at)), Ok(()));
    }
    for at in 0..4 {
        assert_eq!(memory.user_load(1, page(8 + at)), Ok(60 + at));
        memory.user_store(1, page(8 + at), 7).unwrap();
    }
    assert_eq!(memory.user_load(1, page(0)), Ok(60), "a copy was written");
    memory.audit();
    memory.end_space(program);
    memory.end_space(server);
    memory.audit();
}

#[test]
fn a_private_copy_of_a_device_is_refused() {
    let mut case = Case::new();
    let device = Frame::from_number(0xfec00);
    let progress = case.memory.map_physical(
        case.space,
        BASE,
        1,
        device,
        READ_WRITE,
        READ_WRITE,
        Caching::Uncached,
    );
    assert_eq!(progress, Ok(Progress::Done));
    let window = case.window(BASE, 1, READ_WRITE);
    let other = case.other_space(1);
    let mode = WindowMode::PrivateCopy;
    map(&mut case, window, other, 1, READ_WRITE, mode).unwrap();
    let found = case.memory.resolve(other, BASE, Intent::Read);
    assert_eq!(found, Err(Fault::Denied));
    case.unmap(other, BASE, 1);
    map(&mut case, window, other, 1, READ_WRITE, WindowMode::Shared).unwrap();
    let found = case.memory.resolve(other, BASE, Intent::Write);
    assert_eq!(found, Ok(device));
}

#[test]
fn a_forced_write_into_shared_memory_is_refused() {
    let (mut case, window, other) = source();
    map(&mut case, window, other, 4, READ_WRITE, WindowMode::Shared).unwrap();
    case.store(1, page(0), 1);
    for (space, at) in [(other, page(0)), (case.space, page(0)), (other, page(1))] {
        let forced = case.memory.resolve(space, at, Intent::ForcedPrivateWrite);
        assert_eq!(forced, Err(Fault::Denied));
    }
}

#[test]
fn a_futex_is_found_by_frame_where_memory_is_shared_and_by_space_elsewhere() {
    let (mut case, window, other) = source();
    let third = case.other_space(2);
    for space in [other, third] {
        map(&mut case, window, space, 2, READ_WRITE, WindowMode::Shared).unwrap();
    }
    case.map(page(8), 1, READ_WRITE);
    let mut key = |space, at| case.memory.futex_key(space, at).unwrap();
    assert_eq!(key(other, page(1) + 4), key(third, page(1) + 4));
    assert_ne!(key(other, page(1) + 4), key(other, page(1) + 8));
    assert!(matches!(key(case.space, page(8)), FutexKey::Private(_, at) if at == page(8)));
    let before = case.memory.futex_key(case.space, page(3));
    case.unmap(other, BASE, 2);
    map(&mut case, window, other, 4, READ_WRITE, WindowMode::Shared).unwrap();
    case.store(1, page(3), 1);
    // Those who wait in the source are still found there.
    assert_eq!(case.memory.futex_key(case.space, page(3)), before);
    assert_eq!(
        case.memory.futex_key(case.space, page(3) + 2),
        Err(Fault::Denied)
    );
}

#[test]
fn a_mapping_that_cannot_be_paid_leaves_nothing_behind() {
    let (mut case, window, _) = source();
    for limit in 2..6 {
        let root = case.memory.root_pool();
        let poor = case.memory.pool_create(root, limit).unwrap();
        let space = case.memory.space_create(poor, None).unwrap();
        let refused = map(&mut case, window, space, 4, READ, WindowMode::Shared);
        assert_eq!(refused, Err(Error::NoMemory));
        case.memory.audit();
        assert_eq!(case.memory.pool_status(poor).used, 2);
    }
}

#[test]
fn a_page_that_its_mapper_still_has_stays_shared_with_it_across_a_snapshot() {
    let (mut case, window, other) = source();
    case.store(0, page(0), 1);
    map(&mut case, window, other, 1, READ_WRITE, WindowMode::Shared).unwrap();
    assert_eq!(case.load(1, page(0)), 1);
    case.snapshot(2);
    case.store(0, page(0), 2);
    assert_eq!(case.load(1, page(0)), 2);
    case.memory.audit();
}

#[test]
fn a_window_on_a_mapped_window_gives_no_more_than_that_has() {
    let mut case = Case::with_pages(1);
    let read_only = case.window(BASE, 1, READ);
    let middle = case.other_space(1);
    map(&mut case, read_only, middle, 1, READ, WindowMode::Shared).unwrap();
    let pool = case.pool;
    let second = case
        .memory
        .window_create(middle, pool, BASE, 1, READ_WRITE, None)
        .unwrap();
    let last = case.other_space(2);
    map(&mut case, second, last, 1, READ_WRITE, WindowMode::Shared).unwrap();
    assert_eq!(case.memory.user_store(2, BASE, 1), Err(Fault::Denied));
    assert_eq!(case.load(2, BASE), 0);
    let raised = case.memory.protect(last, BASE, 1, READ_WRITE);
    assert_eq!(raised, Err(Error::AccessDenied));
    case.memory.audit();
}

#[test]
fn no_two_windows_ever_have_one_id() {
    let mut case = Case::with_pages(1);
    let mut seen = std::vec![];
    for _ in 0..4 {
        // The second is made in the place of one that ended.
        let kept = case.window(BASE, 1, READ);
        let ended = case.window(BASE, 1, READ);
        seen.extend([kept, ended].map(|window| case.memory.get(window).id()));
        case.memory.window_end(ended);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 8);
}

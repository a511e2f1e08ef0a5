//! Address spaces: mapping, snapshots, windows, and what processes see of them.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::abi::{Access, PAGE_BYTES, Protection, SlotFlags, USER_END};
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::memory::Mapping;
use runtime::process::{self, Fork, fork};
use runtime::syscall;
use tests::child::{SharedPage, check_child, child, in_child};
use tests::space::READ_WRITE;
use tests::{Outcome, PATIENCE, Space, after, check, check_eq};

tests::suite! {
    mapped_pages_begin_as_zeros_and_keep_what_is_written,
    pages_that_were_unmapped_come_back_as_zeros,
    a_range_that_is_in_use_is_not_mapped_again,
    ranges_that_are_no_user_pages_are_refused,
    unmapping_half_a_range_keeps_the_rest,
    taking_a_protection_away_and_giving_it_back_keeps_the_contents,
    mapped_ranges_are_listed_in_order,
    a_word_is_exchanged_only_if_it_is_as_expected,
    a_forced_write_changes_a_private_read_only_page_on_a_copy,
    a_snapshot_and_its_source_do_not_see_each_others_writes,
    a_chain_of_ten_snapshots_keeps_every_generation,
    a_snapshot_reads_everything_when_all_others_are_gone,
    mapping_and_unmapping_in_a_snapshot_leaves_the_source_alone,
    a_huge_untouched_range_costs_next_to_nothing,
    a_shared_window_shows_the_same_memory_to_both,
    a_private_window_keeps_writes_to_itself,
    a_window_of_a_part_maps_that_part_and_nothing_beyond,
    a_window_has_one_id_in_every_capability_for_it,
    a_revoked_window_maps_no_more_and_keeps_what_was_settled,
    parent_and_child_write_the_same_pages_and_keep_their_own,
    memory_shared_by_a_window_stays_shared_across_a_fork,
    a_child_reads_everything_after_its_parent_has_died,
}

const AT: u64 = 0x40_0000;

fn mapped_pages_begin_as_zeros_and_keep_what_is_written() -> Outcome {
    let mut pages = Mapping::anonymous(20)?;
    check!(pages.as_slice().iter().all(|byte| *byte == 0));
    // SAFETY: mapped writable, and ours alone.
    let bytes = unsafe { pages.as_mut_slice() };
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = (place >> 4) as u8;
    }
    let wrong = bytes
        .iter()
        .enumerate()
        .find(|(place, byte)| **byte != (*place >> 4) as u8);
    check_eq!(wrong, None);
    Ok(())
}

fn pages_that_were_unmapped_come_back_as_zeros() -> Outcome {
    let space = Space::new()?;
    space.map(AT, 4)?;
    space.fill(AT, 4, 100)?;
    syscall::space_unmap(space.handle(), AT, 4)?;
    check_eq!(space.load(AT), Err(Error::BadAddress));
    space.map(AT, 4)?;
    for page in 0..4 {
        check_eq!(space.load(AT + page * PAGE_BYTES)?, 0);
    }
    Ok(())
}

fn a_range_that_is_in_use_is_not_mapped_again() -> Outcome {
    let space = Space::new()?;
    space.map(AT, 4)?;
    space.store(AT, 5)?;
    for (address, pages) in [(AT, 1), (AT - PAGE_BYTES, 2), (AT + 3 * PAGE_BYTES, 600)] {
        check_eq!(space.map(address, pages), Err(Error::Occupied));
    }
    check_eq!(space.next(0)?, (AT, 4));
    check_eq!(space.load(AT)?, 5);
    Ok(())
}

fn ranges_that_are_no_user_pages_are_refused() -> Outcome {
    let space = Space::new()?;
    for (address, pages, error) in [
        (AT + 1, 1, Error::InvalidArgument),
        (AT, 0, Error::InvalidArgument),
        (USER_END, 1, Error::BadAddress),
        (USER_END - PAGE_BYTES, 2, Error::BadAddress),
        (AT, u64::MAX, Error::BadAddress),
        (AT, 1 << 52, Error::BadAddress),
        (0x8000_0000_0000, 1, Error::BadAddress),
        (0xffff_8000_0000_0000, 1, Error::BadAddress),
    ] {
        let handle = space.handle();
        check_eq!(space.map(address, pages), Err(error));
        check_eq!(syscall::space_unmap(handle, address, pages), Err(error));
        check_eq!(
            syscall::space_protect(handle, address, pages, Protection::READ),
            Err(error)
        );
    }
    check_eq!(space.next(0)?.1, 0);
    space.map(USER_END - PAGE_BYTES, 1)?;
    space.map(0, 1)?;
    Ok(())
}

fn unmapping_half_a_range_keeps_the_rest() -> Outcome {
    let space = Space::new()?;
    space.map(AT, 1200)?;
    space.fill(AT, 1200, 7)?;
    syscall::space_unmap(space.handle(), AT + 300 * PAGE_BYTES, 600)?;
    check_eq!(space.differs(AT, 300, 7)?, None);
    check_eq!(space.differs(AT + 900 * PAGE_BYTES, 300, 907)?, None);
    check_eq!(space.load(AT + 300 * PAGE_BYTES), Err(Error::BadAddress));
    check_eq!(space.load(AT + 899 * PAGE_BYTES), Err(Error::BadAddress));
    // Unmapping what is not there is no error.
    syscall::space_unmap(space.handle(), AT, 2000)?;
    check_eq!(space.next(0)?.1, 0);
    Ok(())
}

fn taking_a_protection_away_and_giving_it_back_keeps_the_contents() -> Outcome {
    let space = Space::new()?;
    space.map(AT, 8)?;
    space.fill(AT, 4, 40)?;
    let protect =
        |protection| syscall::space_protect(space.handle(), AT + PAGE_BYTES, 6, protection);
    protect(Protection::READ)?;
    check_eq!(space.store(AT + PAGE_BYTES, 0), Err(Error::BadAddress));
    check_eq!(space.store(AT + 6 * PAGE_BYTES, 0), Err(Error::BadAddress));
    space.store(AT + 7 * PAGE_BYTES, 1)?;
    protect(Protection::empty())?;
    check_eq!(space.load(AT + PAGE_BYTES), Err(Error::BadAddress));
    protect(READ_WRITE)?;
    check_eq!(space.differs(AT, 4, 40)?, None);
    space.fill(AT, 8, 50)?;
    check_eq!(space.differs(AT, 8, 50)?, None);
    check_eq!(
        syscall::space_protect(space.handle(), AT, 9, Protection::READ),
        Err(Error::BadAddress)
    );
    Ok(())
}

fn mapped_ranges_are_listed_in_order() -> Outcome {
    let space = Space::new()?;
    check_eq!(space.next(0)?.1, 0);
    let ranges = [
        (0x1000, 3),
        (0x20_0000, 512),
        (0x7fff_0000_0000, 2),
        (USER_END - PAGE_BYTES, 1),
    ];
    for (address, pages) in ranges {
        space.map(address, pages)?;
    }
    let mut from = 0;
    for expected in ranges {
        check_eq!(space.next(from)?, expected);
        from = expected.0 + expected.1 * PAGE_BYTES;
    }
    check_eq!(space.next(from)?.1, 0);
    check_eq!(space.next(0x2000)?, (0x2000, 2));
    Ok(())
}

fn a_word_is_exchanged_only_if_it_is_as_expected() -> Outcome {
    let space = Space::new()?;
    space.map(AT, 1)?;
    let exchange =
        |expected, new| syscall::space_compare_exchange(space.handle(), AT + 8, expected, new);
    check_eq!(exchange(0, 5)?, 0);
    check_eq!(exchange(4, 6)?, 5);
    check_eq!(space.load(AT + 8)?, 5);
    check_eq!(exchange(5, 6)?, 5);
    check_eq!(space.load(AT + 8)?, 6);
    let misaligned = syscall::space_compare_exchange(space.handle(), AT + 4, 0, 1);
    check!(misaligned.is_err());
    Ok(())
}

fn a_forced_write_changes_a_private_read_only_page_on_a_copy() -> Outcome {
    let space = Space::new()?;
    space.map(AT, 1)?;
    space.store(AT, 1)?;
    syscall::space_protect(space.handle(), AT, 1, Protection::READ)?;
    let other = space.snapshot()?;
    let two = 2u64;
    let at = (&raw const two) as u64;
    syscall::space_write(space.handle(), AT, at, 8, 1)?;
    check_eq!(space.load(AT)?, 2);
    check_eq!(other.load(AT)?, 1);
    // The page is no more writable than before.
    check_eq!(space.store(AT, 3), Err(Error::BadAddress));
    // What others see too is not written by force.
    let window = syscall::window_create(space.handle(), slots::POOL, AT, 1, Access::READ)?;
    let mapper = Space::new()?;
    syscall::window_map(window, 0, mapper.handle(), AT, 1, Protection::READ, 0)?;
    check!(syscall::space_write(mapper.handle(), AT, at, 8, 1).is_err());
    check_eq!(space.load(AT)?, 2);
    syscall::cap_close(window)?;
    Ok(())
}

fn a_snapshot_and_its_source_do_not_see_each_others_writes() -> Outcome {
    let source = Space::new()?;
    source.map(AT, 600)?;
    source.fill(AT, 500, 1000)?;
    let copy = source.snapshot()?;
    source.fill(AT, 100, 2000)?;
    copy.fill(AT + 50 * PAGE_BYTES, 100, 3000)?;
    copy.store(AT + 550 * PAGE_BYTES, 9)?;
    check_eq!(source.differs(AT, 100, 2000)?, None);
    check_eq!(source.differs(AT + 100 * PAGE_BYTES, 400, 1100)?, None);
    check_eq!(source.load(AT + 550 * PAGE_BYTES)?, 0);
    check_eq!(copy.differs(AT, 50, 1000)?, None);
    check_eq!(copy.differs(AT + 50 * PAGE_BYTES, 100, 3000)?, None);
    check_eq!(copy.differs(AT + 150 * PAGE_BYTES, 350, 1150)?, None);
    check_eq!(copy.load(AT + 550 * PAGE_BYTES)?, 9);
    Ok(())
}

/// Snapshots of snapshots; generation `n` holds `1000 * n + page` in page `n` and all later ones.
fn chain() -> Result<[Option<Space>; 11], Error> {
    let mut generations = [const { None::<Space> }; 11];
    let first = Space::new()?;
    first.map(AT, 11)?;
    first.fill(AT, 11, 0)?;
    generations[0] = Some(first);
    for number in 1..11u64 {
        let before = generations[number as usize - 1].as_ref();
        let next = before.ok_or(Error::Gone)?.snapshot()?;
        for page in number..11 {
            next.store(AT + page * PAGE_BYTES, 1000 * number + page)?;
        }
        generations[number as usize] = Some(next);
    }
    Ok(generations)
}

fn check_generation(space: &Space, number: u64) -> Outcome {
    for page in 0..11u64 {
        let expected = 1000 * page.min(number) + page;
        check_eq!(space.load(AT + page * PAGE_BYTES)?, expected);
    }
    Ok(())
}

fn a_chain_of_ten_snapshots_keeps_every_generation() -> Outcome {
    let mut generations = chain()?;
    // They end in no particular order; the others stay whole.
    for ending in [4, 0, 10, 5, 1, 9, 3, 2, 8, 6, 7] {
        for (number, generation) in generations.iter().enumerate() {
            if let Some(space) = generation {
                check_generation(space, number as u64)?;
            }
        }
        generations[ending] = None;
    }
    Ok(())
}

fn a_snapshot_reads_everything_when_all_others_are_gone() -> Outcome {
    let mut generations = chain()?;
    let last = generations[10].take();
    drop(generations);
    let last = last.ok_or(Error::Gone)?;
    check_generation(&last, 10)?;
    last.fill(AT, 11, 77)?;
    check_eq!(last.differs(AT, 11, 77)?, None);
    Ok(())
}

fn mapping_and_unmapping_in_a_snapshot_leaves_the_source_alone() -> Outcome {
    let source = Space::new()?;
    source.map(AT, 4)?;
    source.fill(AT, 4, 1)?;
    let copy = source.snapshot()?;
    syscall::space_unmap(copy.handle(), AT + PAGE_BYTES, 2)?;
    copy.map(AT + 4 * PAGE_BYTES, 1)?;
    check_eq!(source.next(0)?, (AT, 4));
    check_eq!(source.differs(AT, 4, 1)?, None);
    syscall::space_unmap(source.handle(), AT, 4)?;
    check_eq!(copy.load(AT)?, 1);
    check_eq!(copy.load(AT + 3 * PAGE_BYTES)?, 4);
    check_eq!(copy.load(AT + PAGE_BYTES), Err(Error::BadAddress));
    Ok(())
}

fn a_huge_untouched_range_costs_next_to_nothing() -> Outcome {
    let pool = syscall::pool_create(slots::POOL, 64)?;
    {
        let space = Space::in_pool(pool)?;
        let before = syscall::pool_status(pool)?.1;
        space.map(0x100_0000_0000, 1 << 28)?; // 1 TiB
        space.store(0x100_0000_0000 + (1 << 39), 1)?;
        let used = syscall::pool_status(pool)?.1 - before;
        check!(used <= 12, "{used} frames for one touched page");
        check_eq!(space.load(0x100_0000_0000)?, 0);
        syscall::space_unmap(space.handle(), 0x100_0000_0000, 1 << 28)?;
        check_eq!(syscall::pool_status(pool)?.1, before);
    }
    syscall::pool_destroy(pool)?;
    syscall::cap_close(pool)?;
    Ok(())
}

fn window(space: &Space, page: u64, pages: u64, access: Access) -> Result<Handle, Error> {
    let address = AT + page * PAGE_BYTES;
    syscall::window_create(space.handle(), slots::POOL, address, pages, access)
}

const SHARED: u64 = 0;
const PRIVATE: u64 = 1;

fn a_shared_window_shows_the_same_memory_to_both() -> Outcome {
    let (source, mapper) = (Space::new()?, Space::new()?);
    source.map(AT, 10)?;
    source.store(AT, 1)?;
    let all = window(&source, 0, 10, Access::READ | Access::WRITE)?;
    check_eq!(syscall::window_status(all, Access::empty())?.0, 10);
    syscall::window_map(all, 0, mapper.handle(), AT, 10, READ_WRITE, SHARED)?;
    check_eq!(mapper.load(AT)?, 1);
    mapper.store(AT, 2)?;
    check_eq!(source.load(AT)?, 2);
    // A page that nobody touched yet becomes one page, whoever comes first.
    mapper.store(AT + 5 * PAGE_BYTES, 3)?;
    check_eq!(source.load(AT + 5 * PAGE_BYTES)?, 3);
    source.store(AT + 6 * PAGE_BYTES, 4)?;
    check_eq!(mapper.load(AT + 6 * PAGE_BYTES)?, 4);
    syscall::cap_close(all)?;
    Ok(())
}

fn a_private_window_keeps_writes_to_itself() -> Outcome {
    let (source, mapper) = (Space::new()?, Space::new()?);
    source.map(AT, 4)?;
    source.fill(AT, 4, 10)?;
    let read = window(&source, 0, 4, Access::READ)?;
    syscall::window_map(read, 0, mapper.handle(), AT, 4, READ_WRITE, PRIVATE)?;
    check_eq!(mapper.differs(AT, 4, 10)?, None);
    mapper.store(AT, 99)?;
    check_eq!(source.load(AT)?, 10);
    // The source keeps its pages and may write them.
    source.store(AT, 11)?;
    check_eq!(mapper.load(AT)?, 99);
    syscall::cap_close(read)?;
    Ok(())
}

fn a_window_has_one_id_in_every_capability_for_it() -> Outcome {
    let source = Space::new()?;
    let id = |window| syscall::window_status(window, Access::empty()).map(|(_, id)| id);
    let read = Access::READ;
    let (first, other) = (window(&source, 0, 4, read)?, window(&source, 0, 4, read)?);
    let derived = syscall::cap_derive(first, slots::POOL, 0, read)?;
    let flags = SlotFlags::empty();
    let copied = Handle(syscall::cap_copy(
        first,
        Handle::OWN_FILES,
        100,
        read,
        flags,
    )?);
    check_eq!((id(derived)?, id(copied)?), (id(first)?, id(first)?));
    check!(
        id(other)? != id(first)?,
        "two windows on the same pages have one id"
    );
    for handle in [derived, copied, first, other] {
        syscall::cap_close(handle)?;
    }
    Ok(())
}

fn a_window_of_a_part_maps_that_part_and_nothing_beyond() -> Outcome {
    let (source, mapper) = (Space::new()?, Space::new()?);
    source.map(AT, 10)?;
    source.fill(AT, 10, 0)?;
    let part = window(&source, 3, 4, Access::READ)?;
    let map = |offset, address, pages| {
        let to = mapper.handle();
        syscall::window_map(part, offset, to, address, pages, Protection::READ, SHARED)
    };
    map(1, 0x1000, 2)?;
    check_eq!(mapper.load(0x1000)?, 4);
    check_eq!(mapper.load(0x2000)?, 5);
    check_eq!(mapper.load(0x3000), Err(Error::BadAddress));
    for (offset, pages) in [(0, 5), (4, 1), (3, 2), (u64::MAX, 1), (1, u64::MAX >> 12)] {
        check!(map(offset, 0x10_0000, pages).is_err());
    }
    check_eq!(mapper.next(0x3000)?.1, 0);
    syscall::cap_close(part)?;
    Ok(())
}

fn a_revoked_window_maps_no_more_and_keeps_what_was_settled() -> Outcome {
    let (source, mapper) = (Space::new()?, Space::new()?);
    source.map(AT, 4)?;
    source.fill(AT, 4, 20)?;
    let original = window(&source, 0, 4, Access::READ)?;
    let given = syscall::cap_derive(original, slots::POOL, 0, Access::READ)?;
    let map = |address| {
        let to = mapper.handle();
        syscall::window_map(given, 0, to, address, 4, Protection::READ, SHARED)
    };
    map(AT)?;
    check_eq!(mapper.load(AT)?, 20);
    syscall::cap_revoke(original)?;
    check_eq!(map(2 * AT), Err(Error::BadHandle));
    check_eq!(mapper.load(AT)?, 20);
    syscall::cap_close(given)?;
    syscall::cap_close(original)?;
    Ok(())
}

/// Word 0 of a page of a mapping.
fn word(pages: &Mapping, page: u64) -> &AtomicU64 {
    // SAFETY: mapped as long as `pages`, aligned, used as an atomic only.
    unsafe { &*((pages.address() + page * PAGE_BYTES) as *const AtomicU64) }
}

fn parent_and_child_write_the_same_pages_and_keep_their_own() -> Outcome {
    const PAGES: u64 = 64;
    let pages = Mapping::anonymous(PAGES)?;
    for page in 0..PAGES {
        word(&pages, page).store(page, SeqCst);
    }
    let children = [0u64, 1, 2, 3].map(|number| match fork() {
        Ok(Fork::Child) => {
            // Each child writes every (number + 2)-th page, in three rounds.
            let step = number + 2;
            for round in 1..=3 {
                for page in (0..PAGES).filter(|page| page % step == 0) {
                    word(&pages, page).store(round * 1000 + number, SeqCst);
                }
                let _ = syscall::thread_yield();
            }
            let intact = (0..PAGES).all(|page| {
                let expected = if page % step == 0 {
                    3000 + number
                } else {
                    page
                };
                word(&pages, page).load(SeqCst) == expected
            });
            process::exit(i32::from(!intact))
        }
        Ok(Fork::Parent(pid)) => Ok(pid),
        Err(error) => Err(error),
    });
    for page in (0..PAGES).filter(|page| page % 3 == 1) {
        word(&pages, page).store(5000 + page, SeqCst);
    }
    for child in children {
        check_child(child?)?;
    }
    for page in 0..PAGES {
        let expected = if page % 3 == 1 { 5000 + page } else { page };
        check_eq!(word(&pages, page).load(SeqCst), expected);
    }
    Ok(())
}

fn memory_shared_by_a_window_stays_shared_across_a_fork() -> Outcome {
    let shared = SharedPage::new()?;
    shared.word(0).store(1, SeqCst);
    in_child(|| {
        check_eq!(shared.word(0).swap(2, SeqCst), 1);
        Ok(())
    })?;
    check_eq!(shared.word(0).load(SeqCst), 2);
    Ok(())
}

fn a_child_reads_everything_after_its_parent_has_died() -> Outcome {
    const PAGES: u64 = 300;
    let shared = SharedPage::new()?;
    let pages = Mapping::anonymous(PAGES)?;
    in_child(|| {
        for page in 0..PAGES {
            word(&pages, page).store(page * 3, SeqCst);
        }
        child(|| {
            let orphaned = after(PATIENCE)?;
            while process::getppid() != 1 {
                check!(syscall::clock()? < orphaned, "the parent lives on");
                syscall::thread_yield()?;
            }
            let intact = (0..PAGES).filter(|page| word(&pages, *page).load(SeqCst) == page * 3);
            shared.word(1).store(intact.count() as u64, SeqCst);
            shared.word(0).store(1, SeqCst);
            Ok(())
        })?;
        // The parent writes over some of it and dies.
        word(&pages, 7).store(0, SeqCst);
        Ok(())
    })?;
    shared.wait_for(0, 1)?;
    check_eq!(shared.word(1).load(SeqCst), PAGES);
    Ok(())
}

//! Memory pools: limits, who pays, and that everything comes back.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::{Access, Copies, FaultKind, PAGE_BYTES, SlotFlags};
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::syscall;
use tests::{Outcome, Space, Twin, check, check_eq, own_label};

tests::suite! {
    a_pool_says_its_limit_and_what_it_uses,
    a_pool_never_uses_more_than_its_limit,
    a_child_pool_counts_in_its_parent_and_is_bounded_by_it,
    a_limit_below_what_is_used_is_refused,
    every_kind_of_object_is_given_back_to_the_frame,
    a_space_gives_back_pages_and_tables,
    snapshots_give_back_what_only_they_had,
    a_failed_call_leaves_the_pool_as_it_was,
    destroying_a_pool_ends_the_objects_in_it,
    memory_that_others_still_reach_outlives_its_pool,
    a_page_fault_that_cannot_be_paid_is_told_as_such,
}

const AT: u64 = 0x40_0000;

fn pool(limit: u64) -> Result<Handle, Error> {
    syscall::pool_create(slots::POOL, limit)
}

fn used(pool: Handle) -> Result<u64, Error> {
    Ok(syscall::pool_status(pool)?.1)
}

fn destroy(pool: Handle) -> Outcome {
    syscall::pool_destroy(pool)?;
    syscall::cap_close(pool)?;
    Ok(())
}

fn a_pool_says_its_limit_and_what_it_uses() -> Outcome {
    let pool = pool(100)?;
    let (limit, before) = syscall::pool_status(pool)?;
    check_eq!(limit, 100);
    let space = Space::in_pool(pool)?;
    space.map(AT, 5)?;
    let mapped = used(pool)?;
    space.fill(AT, 5, 1)?;
    check!(used(pool)? >= mapped + 5);
    drop(space);
    check_eq!(used(pool)?, before);
    destroy(pool)
}

fn a_pool_never_uses_more_than_its_limit() -> Outcome {
    let pool = pool(40)?;
    let space = Space::in_pool(pool)?;
    space.map(AT, 1000)?;
    let mut written = 0;
    let refused = loop {
        match space.store(AT + written * PAGE_BYTES, written) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    check_eq!(refused, Error::NoMemory);
    check!(
        written > 20 && written <= 40,
        "{written} pages were written"
    );
    check_eq!(used(pool)?, 40);
    check_eq!(space.differs(AT, written, 0)?, None);
    // One page back, one page on.
    syscall::space_unmap(space.handle(), AT, 1)?;
    space.store(AT + written * PAGE_BYTES, written)?;
    drop(space);
    destroy(pool)
}

fn a_child_pool_counts_in_its_parent_and_is_bounded_by_it() -> Outcome {
    let parent = pool(50)?;
    let before = used(parent)?;
    let child = syscall::pool_create(parent, 1000)?;
    let space = Space::in_pool(child)?;
    space.map(AT, 100)?;
    let mut written = 0;
    while space.store(AT + written * PAGE_BYTES, 1).is_ok() {
        written += 1;
    }
    check!(written > 20 && written < 50, "{written} pages were written");
    check_eq!(used(parent)?, 50);
    check!(used(child)? < 50);
    drop(space);
    syscall::pool_destroy(child)?;
    syscall::cap_close(child)?;
    check_eq!(used(parent)?, before);
    destroy(parent)
}

fn a_limit_below_what_is_used_is_refused() -> Outcome {
    let pool = pool(50)?;
    let space = Space::in_pool(pool)?;
    space.map(AT, 10)?;
    space.fill(AT, 10, 0)?;
    let in_use = used(pool)?;
    check_eq!(
        syscall::pool_set_limit(pool, in_use - 1),
        Err(Error::NoMemory)
    );
    check_eq!(syscall::pool_status(pool)?, (50, in_use));
    syscall::pool_set_limit(pool, in_use)?;
    check_eq!(
        syscall::space_map(space.handle(), 1 << 40, 1, tests::space::READ_WRITE),
        Err(Error::NoMemory)
    );
    syscall::pool_set_limit(pool, in_use + 10)?;
    space.map(1 << 40, 1)?;
    drop(space);
    destroy(pool)
}

/// Makes one object of each kind in `pool` and closes them again.
fn make_one_of_each(pool: Handle) -> Outcome {
    let receiver = syscall::endpoint_create(pool, 0)?;
    let sender = syscall::cap_derive(receiver, pool, 3, Access::all())?;
    let bell = syscall::notification_create(pool, 0)?;
    let table = syscall::table_create(pool)?;
    syscall::cap_copy(bell, table, 9, Access::all(), SlotFlags::empty())?;
    let copied = syscall::table_copy(table, pool)?;
    syscall::cap_copy(bell, copied, 10, Access::all(), SlotFlags::empty())?;
    let space = Space::in_pool(pool)?;
    space.map(AT, 3)?;
    space.fill(AT, 3, 1)?;
    let window = syscall::window_create(space.handle(), pool, AT, 3, Access::READ)?;
    let thread = syscall::thread_create(
        pool,
        space.handle(),
        table,
        copied,
        Handle::OWN_FS,
        Copies::empty(),
        own_label()?,
        sender,
        0,
    )?;
    let child = syscall::pool_create(pool, 1)?;
    syscall::pool_destroy(child)?;
    syscall::thread_end(thread, 0)?;
    for handle in [child, thread, window, copied, table, bell, sender, receiver] {
        syscall::cap_close(handle)?;
    }
    Ok(())
}

fn every_kind_of_object_is_given_back_to_the_frame() -> Outcome {
    let pool = pool(200)?;
    let before = used(pool)?;
    for _ in 0..50 {
        make_one_of_each(pool)?;
        check_eq!(used(pool)?, before);
    }
    destroy(pool)?;
    // The pool that every process has balances as well, after a first round that fills tables.
    let own = used(slots::POOL)?;
    for _ in 0..20 {
        make_one_of_each(slots::POOL)?;
    }
    check_eq!(used(slots::POOL)?, own);
    Ok(())
}

fn a_space_gives_back_pages_and_tables() -> Outcome {
    let pool = pool(3000)?;
    let space = Space::in_pool(pool)?;
    let before = used(pool)?;
    for round in 0..3u64 {
        for base in [AT, 1 << 39, 5 << 39] {
            space.map(base, 600)?;
            space.fill(base, 600, round)?;
        }
        check!(used(pool)? >= before + 1800);
        for base in [AT, 1 << 39, 5 << 39] {
            syscall::space_unmap(space.handle(), base, 600)?;
        }
        check_eq!(used(pool)?, before);
    }
    drop(space);
    destroy(pool)
}

fn snapshots_give_back_what_only_they_had() -> Outcome {
    let pool = pool(3000)?;
    let before = used(pool)?;
    let source = Space::in_pool(pool)?;
    source.map(AT, 500)?;
    source.fill(AT, 500, 0)?;
    let alone = used(pool)?;
    for written in [0, 1, 100, 500] {
        let copy = source.snapshot_in(pool)?;
        copy.fill(AT, written, 7)?;
        check!(used(pool)? >= alone + written);
        drop(copy);
        // The source takes its tables back when it writes again.
        source.fill(AT, 500, 0)?;
        check_eq!(used(pool)?, alone);
    }
    let copy = source.snapshot_in(pool)?;
    drop(source);
    check_eq!(copy.differs(AT, 500, 0)?, None);
    copy.fill(AT, 500, 1)?;
    check_eq!(used(pool)?, alone);
    drop(copy);
    check_eq!(used(pool)?, before);
    destroy(pool)
}

fn a_failed_call_leaves_the_pool_as_it_was() -> Outcome {
    // With ever more frames, all calls succeed in the end; before, each fails without a trace.
    let mut limit = 1;
    loop {
        let pool = pool(limit)?;
        let before = used(pool)?;
        match make_one_of_each(pool) {
            Ok(()) => {
                check_eq!(used(pool)?, before);
                destroy(pool)?;
                break;
            }
            Err(_) => destroy(pool)?,
        }
        limit += 1;
        check!(limit < 200);
    }
    // And single calls, one frame short.
    for short in 0..12 {
        let pool = pool(short)?;
        let before = used(pool)?;
        let space = syscall::space_create(pool, Handle::NONE);
        if let Ok(space) = space {
            let made = used(pool)?;
            if syscall::space_map(space, AT, 1, tests::space::READ_WRITE).is_err() {
                check_eq!(used(pool)?, made);
            }
            let now = used(pool)?;
            if let Ok(copy) = syscall::space_snapshot(space, pool, 0) {
                syscall::cap_close(copy)?;
            }
            check_eq!(used(pool)?, now);
            syscall::cap_close(space)?;
        }
        check_eq!(used(pool)?, before);
        destroy(pool)?;
    }
    Ok(())
}

fn destroying_a_pool_ends_the_objects_in_it() -> Outcome {
    let own = used(slots::POOL)?;
    let pool = pool(200)?;
    let bell = syscall::notification_create(pool, 0)?;
    let space = Space::in_pool(pool)?;
    space.map(AT, 1)?;
    let receiver = syscall::endpoint_create(pool, 0)?;
    let sender = syscall::cap_derive(receiver, slots::POOL, 1, Access::all())?;
    let inner = syscall::pool_create(pool, 10)?;
    let inner_bell = syscall::notification_create(inner, 0)?;
    syscall::pool_destroy(pool)?;
    for handle in [bell, inner_bell] {
        check!(syscall::signal(handle, 1).is_err());
    }
    check!(space.store(AT, 1).is_err());
    check!(syscall::pool_status(inner).is_err());
    check!(syscall::notification_create(pool, 0).is_err());
    let mut mail = tests::Mail::new();
    mail.deadline = Some(0);
    check!(
        mail.call(sender, &[], &[])
            .is_err_and(|error| error != Error::TimedOut)
    );
    drop(space);
    for handle in [inner_bell, inner, sender, receiver, bell, pool] {
        syscall::cap_close(handle)?;
    }
    check_eq!(used(slots::POOL)?, own);
    Ok(())
}

fn memory_that_others_still_reach_outlives_its_pool() -> Outcome {
    let own = used(slots::POOL)?;
    let pool = pool(200)?;
    let source = Space::in_pool(pool)?;
    source.map(AT, 50)?;
    source.fill(AT, 50, 300)?;
    let copy = source.snapshot()?;
    let before = used(slots::POOL)?;
    destroy(pool)?;
    drop(source);
    check_eq!(copy.differs(AT, 50, 300)?, None);
    // The pages are paid for by the parent now.
    check!(used(slots::POOL)? + 50 >= before);
    copy.fill(AT, 50, 400)?;
    check_eq!(copy.differs(AT, 50, 400)?, None);
    drop(copy);
    check_eq!(used(slots::POOL)?, own);
    Ok(())
}

fn a_page_fault_that_cannot_be_paid_is_told_as_such() -> Outcome {
    let pool = pool(60)?;
    let mut twin = Twin::in_pool(pool)?;
    twin.map(AT, 100)?;
    // Once its code page is settled, running costs nothing more.
    twin.fault_of(&[0x0f, 0x0b], 0)?;
    // Nothing is left for the page that the thread touches.
    syscall::pool_set_limit(pool, used(pool)?)?;
    let fault = twin.fault_of(&[0xc6, 0x07, 0x01], AT + 5 * PAGE_BYTES)?;
    check_eq!(fault.message.kind, FaultKind::OutOfMemory);
    check_eq!(fault.message.address, AT + 5 * PAGE_BYTES);
    check_eq!(fault.label, own_label()?);
    // With more, it goes on.
    syscall::pool_set_limit(pool, 60)?;
    let next = twin.resume()?;
    check_eq!(next.message.kind, FaultKind::Breakpoint);
    drop(twin);
    destroy(pool)
}

//! Capabilities: derivation and revocation, rights on every kind of object, stale handles.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::{Access, Copies, Kind, NEVER, Protection, SlotFlags, TableSelector};
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::memory::Mapping;
use runtime::syscall;
use tests::{Outcome, check, check_eq, own_label};

tests::suite! {
    a_derived_capability_ends_with_its_revocation_and_the_source_stays,
    revocation_reaches_grandchildren_and_copies,
    a_copy_is_not_revoked_with_its_source_slot,
    a_derived_capability_never_has_more_rights,
    only_a_receiver_takes_a_badge,
    a_closed_slot_is_an_error_even_when_it_is_used_again,
    a_generation_of_zero_means_any_in_the_files_table_only,
    handles_that_name_no_table_are_refused,
    every_call_refuses_other_kinds_of_objects,
    a_pool_without_a_right_refuses_what_needs_it,
    a_space_without_a_right_refuses_what_needs_it,
    a_thread_without_a_right_refuses_what_needs_it,
    a_table_without_a_right_refuses_what_needs_it,
    a_window_maps_with_at_most_its_rights,
    a_process_cannot_give_a_thread_the_label_of_another,
}

const ALL: Access = Access::all();
const NO_FLAGS: SlotFlags = SlotFlags::empty();

fn bell() -> Result<Handle, Error> {
    syscall::notification_create(slots::POOL, 0)
}

fn derive(source: Handle, access: Access) -> Result<Handle, Error> {
    syscall::cap_derive(source, slots::POOL, 0, access)
}

/// A copy in the own private table.
fn copy(source: Handle, access: Access) -> Result<Handle, Error> {
    let slot = syscall::cap_copy(source, Handle::OWN_PRIVATE, 0, access, NO_FLAGS)?;
    Ok(private(slot))
}

/// The handle of a slot number and generation as the copying calls return them.
fn private(slot: u64) -> Handle {
    Handle::new(TableSelector::Private, slot as u32, (slot >> 32) as u32)
}

fn close(handles: &[Handle]) -> Outcome {
    for handle in handles {
        syscall::cap_close(*handle)?;
    }
    Ok(())
}

fn a_derived_capability_ends_with_its_revocation_and_the_source_stays() -> Outcome {
    let bell = bell()?;
    let (first, second) = (derive(bell, ALL)?, derive(bell, ALL)?);
    syscall::signal(first, 1)?;
    syscall::cap_revoke(first)?; // it has no children
    syscall::signal(first, 2)?;
    syscall::cap_revoke(bell)?;
    for handle in [first, second] {
        check_eq!(syscall::signal(handle, 4), Err(Error::BadHandle));
        check!(syscall::cap_info(handle).is_err());
        check_eq!(derive(handle, ALL), Err(Error::BadHandle));
    }
    check_eq!(syscall::notification_clear(bell, u64::MAX)?, 3);
    // A revoked slot can still be closed.
    close(&[first, second, bell])
}

fn revocation_reaches_grandchildren_and_copies() -> Outcome {
    let bell = bell()?;
    let child = derive(bell, ALL)?;
    let grandchild = derive(child, ALL)?;
    let copied = copy(grandchild, ALL)?;
    syscall::cap_revoke(child)?;
    syscall::signal(child, 1)?;
    check_eq!(syscall::signal(grandchild, 1), Err(Error::BadHandle));
    check_eq!(syscall::signal(copied, 1), Err(Error::BadHandle));
    close(&[copied, grandchild, child, bell])
}

fn a_copy_is_not_revoked_with_its_source_slot() -> Outcome {
    let bell = bell()?;
    let copied = copy(bell, ALL)?;
    syscall::cap_revoke(bell)?;
    syscall::signal(copied, 1)?;
    close(&[bell])?;
    syscall::signal(copied, 2)?;
    // Source and copy are one node: what is derived from either goes with a revocation of either.
    let child = derive(copied, ALL)?;
    let again = copy(copied, ALL)?;
    syscall::cap_revoke(again)?;
    check_eq!(syscall::signal(child, 1), Err(Error::BadHandle));
    close(&[child, again, copied])
}

/// Kind and access mask of a capability.
fn info(handle: Handle) -> Result<(Option<Kind>, Access), Error> {
    let (description, _) = syscall::cap_info(handle)?;
    let access = Access::from_bits_retain((description >> 32) as u32);
    Ok((Kind::from_code(description as u8), access))
}

fn a_derived_capability_never_has_more_rights() -> Outcome {
    let bell = bell()?;
    let narrow = derive(bell, Access::SIGNAL)?;
    check_eq!(info(narrow)?, (Some(Kind::Notification), Access::SIGNAL));
    let again = derive(narrow, ALL)?;
    check_eq!(info(again)?.1, Access::SIGNAL);
    let copied = copy(narrow, ALL)?;
    check_eq!(info(copied)?.1, Access::SIGNAL);
    let nothing = copy(narrow, Access::WAIT)?;
    check_eq!(info(nothing)?.1, Access::empty());
    check_eq!(syscall::signal(nothing, 1), Err(Error::AccessDenied));
    close(&[nothing, copied, again, narrow, bell])
}

fn only_a_receiver_takes_a_badge() -> Outcome {
    let bell = bell()?;
    check_eq!(
        syscall::cap_derive(bell, slots::POOL, 5, ALL),
        Err(Error::InvalidArgument)
    );
    let receiver = syscall::endpoint_create(slots::POOL, 0)?;
    let sender = syscall::cap_derive(receiver, slots::POOL, 5, ALL)?;
    check_eq!(info(sender)?.0, Some(Kind::Sender));
    check_eq!(syscall::cap_info(sender)?.1, 5);
    check_eq!(
        syscall::cap_derive(sender, slots::POOL, 6, ALL),
        Err(Error::InvalidArgument)
    );
    // A sender that can be revoked apart keeps its badge.
    let narrower = derive(sender, Access::from_bits_retain(3))?;
    check_eq!(syscall::cap_info(narrower)?.1, 5);
    close(&[narrower, sender, receiver, bell])
}

fn a_closed_slot_is_an_error_even_when_it_is_used_again() -> Outcome {
    let first = bell()?;
    close(&[first])?;
    check_eq!(syscall::signal(first, 1), Err(Error::BadHandle));
    check_eq!(syscall::cap_close(first), Err(Error::BadHandle));
    let second = bell()?;
    check_eq!(second.index(), first.index());
    check!(second.generation() != first.generation());
    check_eq!(syscall::signal(first, 1), Err(Error::BadHandle));
    check_eq!(syscall::notification_clear(second, u64::MAX)?, 0);
    close(&[second])
}

fn a_generation_of_zero_means_any_in_the_files_table_only() -> Outcome {
    let bell = bell()?;
    let slot = syscall::cap_copy(bell, Handle::OWN_FILES, 60, ALL, NO_FLAGS)?;
    check_eq!(slot as u32, 60);
    let plain = Handle::new(TableSelector::Files, 60, 0);
    syscall::signal(plain, 1)?;
    let exact = Handle(slot);
    syscall::signal(exact, 2)?;
    let stale = Handle::new(TableSelector::Files, 60, exact.generation() + 1);
    check_eq!(syscall::signal(stale, 4), Err(Error::BadHandle));
    let any_private = Handle::new(TableSelector::Private, bell.index(), 0);
    check_eq!(syscall::signal(any_private, 8), Err(Error::BadHandle));
    check_eq!(syscall::notification_clear(bell, u64::MAX)?, 3);
    close(&[plain, bell])
}

fn handles_that_name_no_table_are_refused() -> Outcome {
    let handles = [
        Handle::NONE,
        Handle(3 << 62),
        Handle(1 << 56),
        Handle(u64::MAX >> 1),
        Handle::new(TableSelector::Private, u32::MAX - 1, 1),
        Handle::new(TableSelector::Files, 1 << 31, 0),
    ];
    for handle in handles {
        check_eq!(syscall::signal(handle, 1), Err(Error::BadHandle));
        check_eq!(syscall::cap_close(handle), Err(Error::BadHandle));
        check_eq!(syscall::cap_info(handle), Err(Error::BadHandle));
    }
    Ok(())
}

fn every_call_refuses_other_kinds_of_objects() -> Outcome {
    let bell = bell()?;
    let wrong = Err(Error::WrongKind);
    let (pool, space) = (slots::POOL, slots::SPACE);
    let none = Handle::NONE;
    let word = 0u64;
    let at = (&raw const word) as u64;
    check_eq!(syscall::pool_create(bell, 1).map(drop), wrong);
    check_eq!(syscall::pool_status(bell).map(drop), wrong);
    check_eq!(syscall::pool_set_limit(bell, 1), wrong);
    check_eq!(syscall::pool_destroy(bell), wrong);
    check_eq!(syscall::space_create(bell, none).map(drop), wrong);
    check_eq!(syscall::space_create(pool, bell).map(drop), wrong);
    check_eq!(syscall::space_snapshot(bell, pool, 0).map(drop), wrong);
    let own = syscall::space_create(pool, none)?;
    check_eq!(syscall::space_snapshot(own, bell, 0).map(drop), wrong);
    close(&[own])?;
    check_eq!(syscall::space_map(bell, 0x1000, 1, Protection::READ), wrong);
    check_eq!(syscall::space_unmap(bell, 0x1000, 1), wrong);
    check_eq!(
        syscall::space_protect(bell, 0x1000, 1, Protection::READ),
        wrong
    );
    let page = at & !0xfff;
    check_eq!(
        syscall::window_create(bell, pool, page, 1, ALL).map(drop),
        wrong
    );
    check_eq!(
        syscall::window_create(space, bell, page, 1, ALL).map(drop),
        wrong
    );
    check_eq!(
        syscall::window_map(bell, 0, space, 0x1000, 1, Protection::READ, 0),
        wrong
    );
    check_eq!(
        syscall::window_status(bell, Access::empty()).map(drop),
        wrong
    );
    check_eq!(syscall::space_read(bell, at, at, 8), wrong);
    check_eq!(syscall::space_write(bell, at, at, 8, 0), wrong);
    check_eq!(
        syscall::space_compare_exchange(bell, at, 0, 0).map(drop),
        wrong
    );
    check_eq!(syscall::space_next(bell, 0).map(drop), wrong);
    check_eq!(syscall::table_create(bell).map(drop), wrong);
    check_eq!(syscall::table_copy(bell, pool).map(drop), wrong);
    check_eq!(syscall::table_retain(bell, NO_FLAGS, NO_FLAGS), wrong);
    check_eq!(syscall::table_next(bell, 0).map(drop), wrong);
    check_eq!(syscall::table_take(bell, 0).map(drop), wrong);
    check_eq!(syscall::table_close(bell, 0), wrong);
    check_eq!(
        syscall::cap_copy(bell, pool, 0, ALL, NO_FLAGS).map(drop),
        wrong
    );
    check_eq!(syscall::cap_derive(bell, space, 0, ALL).map(drop), wrong);
    check_eq!(syscall::thread_start(bell, 0, 0, 0), wrong);
    check_eq!(syscall::thread_suspend(bell).map(drop), wrong);
    check_eq!(syscall::thread_resume(bell).map(drop), wrong);
    check_eq!(syscall::thread_end(bell, 0), wrong);
    check_eq!(syscall::thread_interrupt(bell), wrong);
    check_eq!(syscall::thread_get_registers(bell, at), wrong);
    check_eq!(syscall::thread_set_registers(bell, at), wrong);
    check_eq!(syscall::thread_set_label(bell, 0), wrong);
    check_eq!(syscall::thread_set_priority(bell, 0), wrong);
    check_eq!(syscall::thread_set_clear_address(bell, 0), wrong);
    check_eq!(syscall::thread_set_base(bell, 0, 0), wrong);
    check_eq!(syscall::thread_status(bell).map(drop), wrong);
    check_eq!(syscall::thread_watch(bell, bell, 1), wrong);
    check_eq!(syscall::thread_set_files(bell, Handle::OWN_FILES), wrong);
    check_eq!(syscall::endpoint_create(bell, 0).map(drop), wrong);
    check_eq!(syscall::endpoint_bind(bell, bell), wrong);
    check_eq!(syscall::notification_create(bell, 0).map(drop), wrong);
    check_eq!(syscall::signal(pool, 1), wrong);
    check_eq!(syscall::notification_clear(pool, 1).map(drop), wrong);
    check_eq!(syscall::timer_set(pool, 1, NEVER), wrong);
    check_eq!(syscall::irq_create(bell, pool, 1).map(drop), wrong);
    check_eq!(syscall::irq_bind(bell, bell, 1), wrong);
    check_eq!(syscall::irq_acknowledge(bell), wrong);
    check_eq!(syscall::ports_narrow(bell, pool, 0, 1).map(drop), wrong);
    check_eq!(syscall::port_read(bell, 0, 1).map(drop), wrong);
    check_eq!(syscall::port_write(bell, 0, 1, 0), wrong);
    check_eq!(syscall::range_narrow(bell, pool, 0, 1).map(drop), wrong);
    check_eq!(
        syscall::range_map(bell, 0, space, 0x1000, 1, Protection::READ, 0),
        wrong
    );
    check_eq!(syscall::system_log(bell, at, 1), wrong);
    check_eq!(syscall::system_power(bell, 1), wrong);
    check_eq!(syscall::system_counter(bell, 0).map(drop), wrong);
    close(&[bell])
}

const DENIED: Result<(), Error> = Err(Error::AccessDenied);

fn a_pool_without_a_right_refuses_what_needs_it() -> Outcome {
    let pool = syscall::pool_create(slots::POOL, 16)?;
    let no_charge = derive(pool, Access::MANAGE_POOL | Access::STATUS)?;
    check_eq!(syscall::pool_create(no_charge, 1).map(drop), DENIED);
    check_eq!(syscall::notification_create(no_charge, 0).map(drop), DENIED);
    check_eq!(syscall::table_create(no_charge).map(drop), DENIED);
    check_eq!(syscall::endpoint_create(no_charge, 0).map(drop), DENIED);
    check_eq!(
        syscall::space_create(no_charge, Handle::NONE).map(drop),
        DENIED
    );
    check_eq!(
        syscall::cap_derive(pool, no_charge, 0, ALL).map(drop),
        DENIED
    );
    syscall::pool_set_limit(no_charge, 20)?;
    let charge_only = derive(pool, Access::CHARGE)?;
    check_eq!(syscall::pool_status(charge_only).map(drop), DENIED);
    check_eq!(syscall::pool_set_limit(charge_only, 10), DENIED);
    check_eq!(syscall::pool_destroy(charge_only), DENIED);
    check_eq!(syscall::pool_status(no_charge)?.0, 20);
    close(&[charge_only, no_charge])?;
    syscall::pool_destroy(pool)?;
    close(&[pool])
}

fn a_space_without_a_right_refuses_what_needs_it() -> Outcome {
    let space = syscall::space_create(slots::POOL, Handle::NONE)?;
    let at = 0x10_0000;
    syscall::space_map(space, at, 1, Protection::READ | Protection::WRITE)?;
    let word = 0u64;
    let here = (&raw const word) as u64;
    let without = |right: Access| derive(space, Access::from_bits_retain(0x3f) - right);
    let blind = without(Access::MAP)?;
    check_eq!(
        syscall::space_map(blind, 0x20_0000, 1, Protection::READ),
        DENIED
    );
    check_eq!(syscall::space_unmap(blind, at, 1), DENIED);
    check_eq!(
        syscall::space_protect(blind, at, 1, Protection::READ),
        DENIED
    );
    let no_snapshot = without(Access::SNAPSHOT)?;
    check_eq!(
        syscall::space_snapshot(no_snapshot, slots::POOL, 0).map(drop),
        DENIED
    );
    let unreadable = without(Access::READ_MEMORY)?;
    check_eq!(syscall::space_read(unreadable, at, here, 8), DENIED);
    let unwritable = without(Access::WRITE_MEMORY)?;
    check_eq!(syscall::space_write(unwritable, at, here, 8, 0), DENIED);
    check_eq!(syscall::space_write(unwritable, at, here, 8, 1), DENIED);
    check_eq!(
        syscall::space_compare_exchange(unwritable, at, 0, 1).map(drop),
        DENIED
    );
    let no_window = without(Access::MAKE_WINDOW)?;
    check_eq!(
        syscall::window_create(no_window, slots::POOL, at, 1, Access::READ).map(drop),
        DENIED
    );
    let no_thread = without(Access::MAKE_THREAD)?;
    check_eq!(new_thread(no_thread).map(drop), DENIED);
    syscall::space_write(no_thread, at, here, 8, 0)?;
    close(&[
        blind,
        no_snapshot,
        unreadable,
        unwritable,
        no_window,
        no_thread,
        space,
    ])
}

fn new_thread(space: Handle) -> Result<Handle, Error> {
    syscall::thread_create(
        slots::POOL,
        space,
        Handle::OWN_PRIVATE,
        Handle::OWN_FILES,
        Handle::OWN_FS,
        Copies::empty(),
        own_label()?,
        Handle::NONE,
        0,
    )
}

fn a_thread_without_a_right_refuses_what_needs_it() -> Outcome {
    let thread = new_thread(slots::SPACE)?;
    let bell = bell()?;
    let mut registers = libipc::abi::Registers::default();
    let at = (&raw mut registers) as u64;
    let no_control = derive(thread, Access::REGISTERS | Access::OBSERVE)?;
    check_eq!(syscall::thread_start(no_control, 0x1000, 0, 0), DENIED);
    check_eq!(syscall::thread_suspend(no_control).map(drop), DENIED);
    check_eq!(syscall::thread_resume(no_control).map(drop), DENIED);
    check_eq!(syscall::thread_interrupt(no_control), DENIED);
    check_eq!(syscall::thread_end(no_control, 0), DENIED);
    check_eq!(syscall::thread_set_label(no_control, 1), DENIED);
    check_eq!(syscall::thread_set_priority(no_control, 1), DENIED);
    syscall::thread_get_registers(no_control, at)?;
    let control = derive(thread, Access::CONTROL)?;
    check_eq!(syscall::thread_get_registers(control, at), DENIED);
    check_eq!(syscall::thread_set_registers(control, at), DENIED);
    check_eq!(syscall::thread_status(control).map(drop), DENIED);
    check_eq!(syscall::thread_watch(control, bell, 1), DENIED);
    syscall::thread_end(control, 0)?;
    check_eq!(syscall::thread_status(no_control)?.0 & 0xff, 2);
    close(&[control, no_control, thread, bell])
}

fn a_table_without_a_right_refuses_what_needs_it() -> Outcome {
    let bell = bell()?;
    let table = syscall::table_create(slots::POOL)?;
    syscall::cap_copy(bell, table, 3, ALL, NO_FLAGS)?;
    let no_take = derive(table, Access::PUT | Access::USE_TABLE)?;
    check_eq!(syscall::table_take(no_take, 3).map(drop), DENIED);
    check_eq!(syscall::table_next(no_take, 0).map(drop), DENIED);
    let no_put = derive(table, Access::TAKE | Access::USE_TABLE)?;
    check_eq!(
        syscall::cap_copy(bell, no_put, 0, ALL, NO_FLAGS).map(drop),
        DENIED
    );
    check_eq!(
        syscall::cap_replace(bell, no_put, 0, ALL, NO_FLAGS).map(drop),
        DENIED
    );
    check_eq!(syscall::table_close(no_put, 3), DENIED);
    check_eq!(syscall::table_retain(no_put, NO_FLAGS, NO_FLAGS), DENIED);
    let no_use = derive(table, Access::TAKE | Access::PUT)?;
    check_eq!(syscall::table_copy(no_use, slots::POOL).map(drop), DENIED);
    let thread = syscall::thread_create(
        slots::POOL,
        slots::SPACE,
        Handle::OWN_PRIVATE,
        no_use,
        Handle::OWN_FS,
        Copies::empty(),
        own_label()?,
        Handle::NONE,
        0,
    );
    check_eq!(thread.map(drop), DENIED);
    let taken = syscall::table_take(no_use, 3)?;
    syscall::signal(taken, 1)?;
    close(&[taken, no_use, no_put, no_take, table, bell])
}

fn a_process_cannot_give_a_thread_the_label_of_another() -> Outcome {
    let with_label = |pool, label| {
        syscall::thread_create(
            pool,
            slots::SPACE,
            Handle::OWN_PRIVATE,
            Handle::OWN_FILES,
            Handle::OWN_FS,
            Copies::empty(),
            label,
            Handle::NONE,
            0,
        )
    };
    let own = own_label()?;
    let pool = syscall::pool_create(slots::POOL, 16)?;
    for label in [0, 1, own - 1, own + 1, u64::MAX] {
        check_eq!(with_label(slots::POOL, label).map(drop), DENIED);
        // A pool of one's own gives no right that the parent pool did not.
        check_eq!(with_label(pool, label).map(drop), DENIED);
    }
    let thread = with_label(slots::POOL, own)?;
    check_eq!(syscall::thread_set_label(thread, own + 1), DENIED);
    syscall::pool_destroy(pool)?;
    close(&[thread, pool])
}

fn a_window_maps_with_at_most_its_rights() -> Outcome {
    let pages = Mapping::anonymous(1)?;
    let space = syscall::space_create(slots::POOL, Handle::NONE)?;
    let read_only = pages.make_window(Access::READ)?;
    let map = |window, at, protection, private| {
        syscall::window_map(window, 0, space, at, 1, protection, private)
    };
    let writable = Protection::READ | Protection::WRITE;
    check_eq!(map(read_only, 0x1000, writable, 0), DENIED);
    check_eq!(
        map(read_only, 0x1000, Protection::READ | Protection::EXECUTE, 0),
        DENIED
    );
    map(read_only, 0x1000, Protection::READ, 0)?;
    check_eq!(syscall::space_protect(space, 0x1000, 1, writable), DENIED);
    // A private copy may be written: the source does not see it.
    map(read_only, 0x2000, writable, 1)?;
    let word = 77u64;
    syscall::space_write(space, 0x2000, (&raw const word) as u64, 8, 0)?;
    check_eq!(pages.as_slice()[0], 0);
    let narrower = derive(read_only, Access::EXECUTE)?;
    check_eq!(map(narrower, 0x3000, Protection::READ, 0), DENIED);
    close(&[narrower, read_only, space])
}

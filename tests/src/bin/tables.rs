//! Capability tables: copying, retaining, replacing, listing, and which one a thread uses.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::{Access, Kind, SlotFlags, TableSelector};
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::syscall;
use tests::{Mail, Outcome, Worker, check, check_eq};

tests::suite! {
    a_copied_table_has_the_same_slots_and_then_its_own,
    retaining_closes_what_lacks_the_flags,
    replacing_a_slot_puts_the_new_capability_at_the_same_number,
    a_protected_slot_is_not_closed_until_the_mark_is_taken_off,
    a_table_lists_its_used_slots_in_order,
    slots_far_apart_cost_little_and_go_away,
    a_thread_uses_the_tables_it_was_made_with,
    a_new_files_table_takes_effect_at_once,
}

const ALL: Access = Access::all();
const NO_FLAGS: SlotFlags = SlotFlags::empty();

fn bell() -> Result<Handle, Error> {
    syscall::notification_create(slots::POOL, 0)
}

fn close(handles: &[Handle]) -> Outcome {
    for handle in handles {
        syscall::cap_close(*handle)?;
    }
    Ok(())
}

fn a_copied_table_has_the_same_slots_and_then_its_own() -> Outcome {
    let (first, second) = (bell()?, bell()?);
    let table = syscall::table_create(slots::POOL)?;
    for index in [0, 5, 300, 70_000] {
        check_eq!(
            syscall::cap_copy(first, table, index, ALL, NO_FLAGS)? as u32 as u64,
            index
        );
    }
    let other = syscall::table_copy(table, slots::POOL)?;
    for index in [0, 5, 300, 70_000] {
        let taken = syscall::table_take(other, index)?;
        syscall::signal(taken, 1)?;
        close(&[taken])?;
    }
    check_eq!(syscall::notification_clear(first, 1)?, 1);
    syscall::table_close(table, 300)?;
    syscall::cap_replace(second, other, 5, ALL, NO_FLAGS)?;
    check_eq!(
        syscall::table_take(table, 300).map(drop),
        Err(Error::BadHandle)
    );
    let kept = syscall::table_take(other, 300)?;
    let (in_table, in_other) = (
        syscall::table_take(table, 5)?,
        syscall::table_take(other, 5)?,
    );
    syscall::signal(in_table, 0b01)?;
    syscall::signal(in_other, 0b10)?;
    check_eq!(syscall::notification_clear(first, u64::MAX)?, 0b01);
    check_eq!(syscall::notification_clear(second, u64::MAX)?, 0b10);
    close(&[in_other, in_table, kept, table])?;
    // The copy outlives the original.
    let still = syscall::table_take(other, 70_000)?;
    syscall::signal(still, 4)?;
    close(&[still, other, first, second])
}

fn retaining_closes_what_lacks_the_flags() -> Outcome {
    let bell = bell()?;
    let table = syscall::table_create(slots::POOL)?;
    let flags = [
        NO_FLAGS,
        SlotFlags::CLOSE_ON_EXEC,
        SlotFlags::INHERIT,
        SlotFlags::CLOSE_ON_EXEC | SlotFlags::INHERIT,
    ];
    for (index, flags) in flags.into_iter().enumerate() {
        syscall::cap_copy(bell, table, index as u64, ALL, flags)?;
    }
    // exec keeps what is not close-on-exec, CreateProcess what is inheritable.
    let after_exec = syscall::table_copy(table, slots::POOL)?;
    syscall::table_retain(after_exec, SlotFlags::CLOSE_ON_EXEC, NO_FLAGS)?;
    check_eq!(used(after_exec)?, 0b0101);
    let inherited = syscall::table_copy(table, slots::POOL)?;
    syscall::table_retain(inherited, SlotFlags::INHERIT, SlotFlags::INHERIT)?;
    check_eq!(used(inherited)?, 0b1100);
    check_eq!(used(table)?, 0b1111);
    syscall::table_retain(table, SlotFlags::PROTECT, SlotFlags::PROTECT)?;
    check_eq!(used(table)?, 0);
    close(&[inherited, after_exec, table, bell])
}

/// The used slots below 64 as bits.
fn used(table: Handle) -> Result<u64, Error> {
    let mut bits = 0;
    let mut index = 0;
    loop {
        let (slot, _) = syscall::table_next(table, index)?;
        if slot >= 64 {
            return Ok(bits);
        }
        bits |= 1 << slot;
        index = slot + 1;
    }
}

fn replacing_a_slot_puts_the_new_capability_at_the_same_number() -> Outcome {
    let (first, second) = (bell()?, bell()?);
    let fd = |index| Handle::new(TableSelector::Files, index, 0);
    for index in [61, 5000] {
        // An empty slot is filled as well as a used one.
        syscall::cap_replace(first, Handle::OWN_FILES, index, ALL, NO_FLAGS)?;
        syscall::signal(fd(index as u32), 1)?;
        check_eq!(syscall::notification_clear(first, u64::MAX)?, 1);
        let slot = syscall::cap_replace(
            second,
            Handle::OWN_FILES,
            index,
            Access::SIGNAL,
            SlotFlags::CLOSE_ON_EXEC,
        )?;
        check_eq!(slot as u32 as u64, index);
        syscall::signal(fd(index as u32), 2)?;
        check_eq!(syscall::notification_clear(first, u64::MAX)?, 0);
        check_eq!(syscall::notification_clear(second, u64::MAX)?, 2);
        let (description, _) = syscall::cap_info(fd(index as u32))?;
        check_eq!((description >> 8) as u8, SlotFlags::CLOSE_ON_EXEC.bits());
        check_eq!(description >> 32, u64::from(Access::SIGNAL.bits()));
        close(&[fd(index as u32)])?;
    }
    close(&[first, second])
}

fn a_protected_slot_is_not_closed_until_the_mark_is_taken_off() -> Outcome {
    let bell = bell()?;
    syscall::cap_set_flags(bell, SlotFlags::PROTECT, SlotFlags::PROTECT)?;
    check!(syscall::cap_close(bell).is_err());
    syscall::signal(bell, 1)?;
    syscall::cap_set_flags(bell, SlotFlags::PROTECT, NO_FLAGS)?;
    close(&[bell])
}

fn a_table_lists_its_used_slots_in_order() -> Outcome {
    let bell = bell()?;
    let table = syscall::table_create(slots::POOL)?;
    check_eq!(syscall::table_next(table, 0)?.0, u64::MAX);
    let indices = [2, 255, 256, 65_535, 1 << 20];
    for index in indices {
        syscall::cap_copy(bell, table, index, Access::WAIT, SlotFlags::INHERIT)?;
    }
    let mut from = 0;
    for expected in indices {
        let (index, description) = syscall::table_next(table, from)?;
        check_eq!(index, expected);
        check_eq!(Kind::from_code(description as u8), Some(Kind::Notification));
        check_eq!((description >> 8) as u8, SlotFlags::INHERIT.bits());
        check_eq!(description >> 32, u64::from(Access::WAIT.bits()));
        from = index + 1;
    }
    check_eq!(syscall::table_next(table, from)?.0, u64::MAX);
    close(&[table, bell])
}

fn slots_far_apart_cost_little_and_go_away() -> Outcome {
    let pool = syscall::pool_create(slots::POOL, 64)?;
    let bell = bell()?;
    let table = syscall::table_create(pool)?;
    let before = syscall::pool_status(pool)?.1;
    for index in [0, 1 << 10, 1 << 16, 1 << 20] {
        syscall::cap_copy(bell, table, index, ALL, NO_FLAGS)?;
    }
    let filled = syscall::pool_status(pool)?.1;
    check!(
        filled > before && filled - before <= 16,
        "{before} to {filled} frames"
    );
    for index in [0, 1 << 10, 1 << 16, 1 << 20] {
        syscall::table_close(table, index)?;
    }
    close(&[table, bell])?;
    check_eq!(syscall::pool_status(pool)?.1, 0);
    syscall::pool_destroy(pool)?;
    close(&[pool])
}

fn a_thread_uses_the_tables_it_was_made_with() -> Outcome {
    let bell = bell()?;
    let body = || {
        // The worker shares all our tables, so the handle means the same.
        syscall::signal(bell, 1)?;
        Ok(())
    };
    Worker::start(&body)?.join()?;
    check_eq!(syscall::notification_clear(bell, u64::MAX)?, 1);
    close(&[bell])
}

fn a_new_files_table_takes_effect_at_once() -> Outcome {
    let bell = bell()?;
    let fd = Handle::new(TableSelector::Files, 62, 0);
    let receiver = syscall::endpoint_create(slots::POOL, 0)?;
    let sender = derive_sender(receiver)?;
    let body = || {
        check_eq!(syscall::signal(fd, 1), Err(Error::BadHandle));
        Mail::new().call(sender, &[], &[])?;
        syscall::signal(fd, 2)?;
        Ok(())
    };
    let worker = Worker::start(&body)?;
    let mut mail = Mail::new().within(tests::PATIENCE)?;
    mail.receive(receiver)?;
    let table = syscall::table_copy(Handle::OWN_FILES, slots::POOL)?;
    syscall::cap_copy(bell, table, 62, ALL, NO_FLAGS)?;
    syscall::thread_set_files(worker.thread(), table)?;
    mail.reply(Handle::NONE, &[], &[])?;
    worker.join()?;
    check_eq!(syscall::notification_clear(bell, u64::MAX)?, 2);
    // Ours is as it was.
    check_eq!(syscall::signal(fd, 1), Err(Error::BadHandle));
    close(&[table, sender, receiver, bell])
}

fn derive_sender(receiver: Handle) -> Result<Handle, Error> {
    syscall::cap_derive(receiver, slots::POOL, 1, ALL)
}

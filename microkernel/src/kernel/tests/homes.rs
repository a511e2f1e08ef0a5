//! What a new thread lives in: shared with another thread, copied from it, or its own space by that
//! name.

use crate::memory::Ref;
use crate::object::Thread;
use crate::testkit::{DATA, Rig, pattern};
use libipc::abi::{
    Access, Copies, Error, ForkFlags, Handle, IpcCall, Protection, SlotFlags, initial,
};

const FILES_SLOT: u64 = 5;

/// A thread with its own space and tables that waits in a call, as whoever forks does.
fn caller(rig: &mut Rig, pool: Handle) -> (Handle, Ref<Thread>) {
    let (receiver, sender) = rig.endpoint(0, 0);
    let (handle, thread) = rig.stranger(pool, 5);
    let sender = rig.give_to(thread, sender);
    let table = rig
        .thread_table(rig.root, handle, initial::POOL, 0)
        .unwrap();
    let flags = SlotFlags::CLOSE_ON_EXEC;
    rig.cap_copy(
        rig.root,
        initial::POOL,
        table,
        FILES_SLOT,
        Access::STATUS,
        flags,
    )
    .unwrap();
    rig.cap_close(rig.root, table).unwrap();
    rig.poke(thread, DATA, b"before");
    rig.message(thread, IpcCall::Call, sender, 0, [0; 8]);
    rig.message(rig.root, IpcCall::Receive, receiver, 0, [0; 8]);
    (handle, thread)
}

/// Makes a thread like `like`, that stays suspended.
fn fork(rig: &mut Rig, pool: Handle, like: Handle, flags: ForkFlags) -> Result<Handle, Error> {
    rig.thread_fork(rig.root, pool, like, Handle::NONE, flags, 6, 0, 0, 0, 0, 0)
}

/// All that can be copied.
const COPIES: ForkFlags = ForkFlags::COPY_SPACE
    .union(ForkFlags::COPY_PRIVATE)
    .union(ForkFlags::COPY_FILES)
    .union(ForkFlags::COPY_FS)
    .union(ForkFlags::PREFAULT);

#[test]
fn a_thread_made_like_another_shares_what_is_not_copied() {
    let mut rig = Rig::new(1024);
    let (like, thread) = caller(&mut rig, initial::POOL);
    let child = fork(&mut rig, initial::POOL, like, ForkFlags::empty()).unwrap();
    let child = rig.thread_of(child);
    rig.poke(child, DATA, b"after!");
    assert_eq!(rig.peek(thread, DATA, 6), b"after!");
    let (old, new) = (rig.kernel.memory.get(thread), rig.kernel.memory.get(child));
    assert_eq!((old.space, old.tables), (new.space, new.tables));
}

#[test]
fn a_thread_made_like_another_has_copies_of_its_own() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let (like, thread) = caller(&mut rig, initial::POOL);
    let handle = fork(&mut rig, initial::POOL, like, COPIES).unwrap();
    let child = rig.thread_of(handle);
    rig.poke(child, DATA, b"after!");
    assert_eq!(rig.peek(thread, DATA, 6), b"before");
    let (old, new) = (rig.kernel.memory.get(thread), rig.kernel.memory.get(child));
    assert!(old.space != new.space);
    assert!(
        old.tables[..3]
            .iter()
            .zip(new.tables)
            .all(|(old, new)| *old != new)
    );
    // The copied files are there, and what is closed in one stays in the other.
    rig.table_retain(root, handle, SlotFlags::CLOSE_ON_EXEC, SlotFlags::empty())
        .unwrap();
    assert_eq!(rig.table_next(root, handle, 0).unwrap().0, u64::MAX);
    assert_eq!(rig.table_next(root, like, 0).unwrap().0, FILES_SLOT);
}

#[test]
fn a_copy_of_no_table_is_an_empty_one_and_no_table_cannot_be_shared() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let (like, _) = caller(&mut rig, initial::POOL);
    let none = Handle::NONE;
    let mut make = |copies| {
        rig.thread_create(
            root,
            initial::POOL,
            like,
            like,
            none,
            like,
            copies,
            6,
            none,
            0,
        )
    };
    let child = make(Copies::FILES).unwrap();
    assert_eq!(make(Copies::empty()), Err(Error::BadHandle));
    assert_eq!(rig.table_next(root, child, 0).unwrap().0, u64::MAX);
}

#[test]
fn the_page_of_a_new_threads_snapshot_that_is_asked_for_is_there_at_once() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let (like, _) = caller(&mut rig, initial::POOL);
    let none = Handle::NONE;
    let untouched = DATA + 3 * 4096;
    let copies = Copies::SPACE;
    for (prefault, settled) in [(0, 1), (DATA, 0), (untouched, 0), (1 << 40, 1)] {
        let at = if prefault == untouched {
            prefault
        } else {
            DATA
        };
        let made = rig.thread_create(
            root,
            initial::POOL,
            like,
            like,
            like,
            like,
            copies,
            6,
            none,
            prefault,
        );
        let child = rig.thread_of(made.unwrap());
        let before = rig.kernel.memory.statistics();
        rig.poke(child, at, b"after!");
        let after = rig.kernel.memory.statistics();
        let count = after.page_copies + after.zero_fills - before.page_copies - before.zero_fills;
        assert_eq!(count, settled, "{prefault:#x}");
    }
}

#[test]
fn a_thread_that_cannot_be_paid_for_leaves_nothing() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let (like, _) = caller(&mut rig, initial::POOL);
    let mut refused = 0;
    for limit in 0.. {
        let pool = rig.pool_create(root, initial::POOL, limit).unwrap();
        let before = rig.free();
        match fork(&mut rig, pool, like, COPIES) {
            Ok(_) => break,
            Err(error) => assert_eq!(error, Error::NoMemory, "limit {limit}"),
        }
        assert_eq!(rig.pool_status(root, pool).unwrap().1, 0, "limit {limit}");
        assert_eq!(rig.free(), before, "limit {limit}");
        refused += 1;
    }
    assert!(
        refused >= 4,
        "a thread, a space, its root and a table are to be paid for"
    );
}

#[test]
fn a_thread_gives_no_more_rights_on_its_space_than_its_maker_had() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let rights = Access::MAKE_THREAD | Access::READ_MEMORY;
    let space = rig
        .cap_derive(root, initial::SPACE, initial::POOL, 0, rights)
        .unwrap();
    let [private, files, fs] = [Handle::OWN_PRIVATE, Handle::OWN_FILES, Handle::OWN_FS];
    let copies = Copies::empty();
    let thread = rig
        .thread_create(
            root,
            initial::POOL,
            space,
            private,
            files,
            fs,
            copies,
            1,
            Handle::NONE,
            0,
        )
        .unwrap();
    let denied = Err(Error::AccessDenied);
    assert_eq!(rig.space_snapshot(root, thread, initial::POOL, 0), denied);
    assert_eq!(
        rig.space_unmap(root, thread, DATA, 1),
        Err(Error::AccessDenied)
    );
    let all = Copies::all();
    let made = rig.thread_create(
        root,
        initial::POOL,
        thread,
        private,
        files,
        fs,
        all,
        1,
        Handle::NONE,
        0,
    );
    assert_eq!(made, denied);
    // And nobody learns by a thread what it may not direct.
    let watcher = rig
        .cap_derive(
            root,
            thread,
            initial::POOL,
            0,
            Access::OBSERVE | Access::CONTROL,
        )
        .unwrap();
    let made = rig.thread_create(
        root,
        initial::POOL,
        watcher,
        private,
        files,
        fs,
        copies,
        1,
        Handle::NONE,
        0,
    );
    assert_eq!(made, denied);
    assert_eq!(rig.thread_table(root, watcher, initial::POOL, 0), denied);
}

#[test]
fn a_thread_that_has_ended_lives_in_nothing() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let (like, _) = caller(&mut rig, initial::POOL);
    rig.thread_end(root, like, 0).unwrap();
    assert_eq!(
        rig.space_snapshot(root, like, initial::POOL, 0),
        Err(Error::Gone)
    );
    assert_eq!(
        rig.thread_table(root, like, initial::POOL, 1),
        Err(Error::Gone)
    );
}

#[test]
fn ending_a_thread_can_close_its_handle() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let before = rig.free();
    let (handle, _) = rig.stranger(initial::POOL, 5);
    rig.thread_end(root, handle, 1).unwrap();
    assert_eq!(rig.thread_status(root, handle), Err(Error::BadHandle));
    assert_eq!(rig.free(), before);
    assert_eq!(
        rig.thread_end(root, initial::THREAD, 2),
        Err(Error::InvalidArgument)
    );
}

#[test]
fn the_own_space_capability_means_the_space_of_whoever_uses_it() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let own = rig
        .space_own(
            root,
            initial::SYSTEM,
            initial::POOL,
            Access::MAP | Access::MAKE_WINDOW,
        )
        .unwrap();
    let (_, one) = rig.stranger(initial::POOL, 5);
    let (_, two) = rig.stranger(initial::POOL, 6);
    let handles = [one, two].map(|thread| (thread, rig.give_to(thread, own)));
    let place = DATA + (1 << 21);
    for (thread, handle) in handles {
        let write = Protection::READ | Protection::WRITE;
        rig.space_map(thread, handle, place, 1, write).unwrap();
        rig.poke(thread, place, b"mine");
        assert_eq!(
            rig.space_snapshot(thread, handle, initial::POOL, 0).err(),
            Some(Error::AccessDenied)
        );
    }
    rig.poke(one, place, b"ones");
    assert_eq!(rig.peek(two, place, 4), b"mine");
    assert_eq!(
        rig.space_own(root, initial::POOL, initial::POOL, Access::MAP),
        Err(Error::WrongKind)
    );
}

#[test]
fn what_one_program_derives_from_the_own_space_capability_no_other_takes_back() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let own = rig
        .space_own(root, initial::SYSTEM, initial::POOL, Access::all())
        .unwrap();
    let (_, other) = rig.stranger(initial::POOL, 5);
    let others = rig.give_to(other, own);
    let window = rig
        .window_create(root, own, initial::POOL, DATA, 1, Access::READ)
        .unwrap();
    let bound = rig
        .cap_derive(
            root,
            own,
            initial::POOL,
            0,
            Access::READ_MEMORY | Access::MAP,
        )
        .unwrap();
    rig.cap_revoke(other, others).unwrap();
    assert_eq!(rig.window_status(root, window, Access::READ).unwrap().0, 1);
    // What was derived stays with the space it was derived in.
    let given = rig.give_to(other, bound);
    rig.space_unmap(other, given, DATA, 1).unwrap();
    let gone = rig.space_next(root, initial::SPACE, DATA).unwrap();
    assert!(gone.0 != DATA);
}

#[test]
fn memory_is_copied_between_two_spaces_by_who_may_read_and_write_them() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let (from, one) = rig.stranger(initial::POOL, 5);
    let (to, two) = rig.stranger(initial::POOL, 6);
    let bytes = pattern(4096, 3);
    rig.poke(one, DATA + 100, &bytes[..2000]);
    rig.space_copy(root, from, DATA + 100, to, DATA + 3000, 2000)
        .unwrap();
    assert_eq!(rig.peek(two, DATA + 3000, 2000), bytes[..2000]);
    for (length, error) in [(4097, Error::TooLong), (u64::MAX, Error::TooLong)] {
        let copied = rig.space_copy(root, from, DATA, to, DATA, length);
        assert_eq!(copied, Err(error));
    }
    let nowhere = 0x5000_0000;
    for (source, target) in [(nowhere, DATA), (DATA, nowhere), (u64::MAX, DATA)] {
        let copied = rig.space_copy(root, from, source, to, target, 8);
        assert_eq!(copied, Err(Error::BadAddress));
    }
    let only = |rig: &mut Rig, rights| {
        rig.cap_derive(root, initial::SPACE, initial::POOL, 0, rights)
            .unwrap()
    };
    let readable = only(&mut rig, Access::READ_MEMORY);
    let writable = only(&mut rig, Access::WRITE_MEMORY);
    assert_eq!(
        rig.space_copy(root, readable, DATA, writable, DATA, 8),
        Ok(())
    );
    for (from, to) in [(writable, writable), (readable, readable)] {
        let copied = rig.space_copy(root, from, DATA, to, DATA, 8);
        assert_eq!(copied, Err(Error::AccessDenied));
    }
}

#[test]
fn a_thread_keeps_the_rights_to_its_space_that_it_was_made_with() {
    let mut rig = Rig::new(1024);
    let root = rig.root;
    let space = rig.space_create(root, initial::POOL, Handle::NONE).unwrap();
    let grant = rig
        .cap_derive(root, space, initial::POOL, 0, Access::all())
        .unwrap();
    let (_, client) = rig.stranger(initial::POOL, 5);
    let theirs = rig.give_to(client, grant);
    let pool = rig.give_to(client, initial::POOL);
    let none = Handle::NONE;
    let copies = Copies::PRIVATE | Copies::FILES | Copies::FS;
    let thread = rig
        .thread_create(client, pool, theirs, none, none, none, copies, 5, none, 0)
        .unwrap();
    rig.cap_revoke(root, space).unwrap();
    let protection = Protection::READ;
    let by_grant = rig.space_map(client, theirs, DATA, 1, protection);
    let by_thread = rig.space_map(client, thread, DATA, 1, protection);
    assert_eq!(by_grant, Err(Error::BadHandle));
    // Its code goes on too. Who wants to take that back ends the thread.
    assert_eq!(by_thread, Ok(()));
    rig.thread_end(client, thread, 0).unwrap();
    let by_thread = rig.space_map(client, thread, DATA, 1, protection);
    assert_eq!(by_thread, Err(Error::Gone));
}

//! Threads: made, forked, stopped, looked into, ended; and who runs when.

use crate::machine::Interrupt;
use crate::memory::Ref;
use crate::object::{State, Thread};
use crate::testkit::{DATA, Rig, SCRATCH};
use libipc::abi::{
    Access, Copies, Error, ForkFlags, Handle, IpcCall, NEVER, Registers, USER_END, initial,
};

const EXIT: u64 = 70;
const FUTEX_WAIT: u64 = 96;

fn registers(rig: &Rig, thread: Ref<Thread>) -> Registers {
    rig.kernel.memory.get(thread).context.registers()
}

#[test]
fn a_started_thread_has_its_three_registers_and_all_others_clear() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (handle, thread) = rig.thread_in(initial::POOL, 1);
    rig.thread_suspend(root, handle).unwrap();
    rig.thread_start(root, handle, 0x4000, 0x8000, 77).unwrap();
    let found = registers(&rig, thread);
    let expected = Registers {
        rip: 0x4000,
        rsp: 0x8000,
        rdi: 77,
        rflags: 0x202,
        ..Registers::default()
    };
    assert_eq!(found, expected);
    assert!(rig.kernel.memory.get(thread).is_runnable());
    assert_eq!(
        rig.thread_start(root, handle, u64::MAX, 0, 0),
        Err(Error::InvalidArgument)
    );
}

#[test]
fn starting_a_thread_aborts_what_it_waited_for() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let (handle, thread) = rig.thread_in(initial::POOL, 1);
    rig.message(thread, IpcCall::Call, sender, 0, [0; 8]);
    rig.thread_start(root, handle, 0x4000, 0, 0).unwrap();
    assert_eq!(rig.state(thread), State::Ready);
    let (other, server) = (rig.thread(2), rig.thread(3));
    rig.message(other, IpcCall::Call, sender, 0, [0; 8]);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.got(server).unwrap().label, 2, "the other one's");
}

#[test]
fn a_forked_thread_goes_on_behind_the_same_call_with_an_empty_message() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let (handle, parent) = rig.thread_in(initial::POOL, 5);
    assert_eq!(
        fork(&mut rig, handle, ForkFlags::empty(), 0, [0; 4]),
        Err(Error::WrongState)
    );
    rig.fault(parent, crate::machine::Exception::NO_FPU, 0, 0);
    rig.message(parent, IpcCall::Call, sender, 64, [3; 8]);
    rig.message(root, IpcCall::Receive, receiver, 0, [0; 8]);
    for stack in [0, 0x9000] {
        let child = fork(&mut rig, handle, ForkFlags::empty(), stack, [0; 4]).unwrap();
        let child_thread = rig.thread_of(child);
        let (like, made) = (registers(&rig, parent), registers(&rig, child_thread));
        assert_eq!((made.rax, made.rdi, made.rsi), (0, 0, 0));
        assert_eq!((made.rip, made.rbx), (like.rip, like.rbx));
        assert_eq!(made.rsp, if stack == 0 { like.rsp } else { stack });
        assert!(rig.kernel.memory.get(child_thread).fpu.is_some());
        assert_eq!(rig.thread_status(root, child).unwrap().0, 1 << 8);
        rig.thread_resume(root, child).unwrap();
        rig.run(child_thread);
    }
    assert_eq!(rig.state(parent), State::Answer);
}

/// Forks a thread in the root thread's surroundings. The words: base, clear address, where a word is
/// stored, and the word.
fn fork(
    rig: &mut Rig,
    like: Handle,
    flags: ForkFlags,
    stack: u64,
    [base, clear, word_at, word]: [u64; 4],
) -> Result<Handle, Error> {
    let (root, pool, none) = (rig.root, initial::POOL, Handle::NONE);
    rig.thread_fork(
        root, pool, like, none, flags, 6, stack, base, clear, word_at, word,
    )
}

/// A thread in the root thread's surroundings that waits in a call which the root thread received.
fn waiting_caller(rig: &mut Rig) -> Handle {
    let (receiver, sender) = rig.endpoint(0, 0);
    let (handle, thread) = rig.thread_in(initial::POOL, 5);
    rig.message(thread, IpcCall::Call, sender, 0, [0; 8]);
    rig.message(rig.root, IpcCall::Receive, receiver, 0, [0; 8]);
    handle
}

#[test]
fn a_forked_thread_can_start_at_once_with_its_first_words_in_place() {
    let mut rig = Rig::new(512);
    let like = waiting_caller(&mut rig);
    let flags = ForkFlags::START | ForkFlags::BASE;
    let words = [0x1234_5678, DATA + 8, DATA + 2, 0x1_0000_0041];
    let child = fork(&mut rig, like, flags, 0x9000, words).unwrap();
    let thread = rig.thread_of(child);
    assert_eq!(registers(&rig, thread).fs_base, 0x1234_5678);
    // 32 bits at an address that need not be aligned.
    assert_eq!(rig.peek(thread, DATA, 8), [0, 0, 0x41, 0, 0, 0, 0, 0]);
    rig.run(thread);
    rig.poke(thread, DATA + 8, &[0xff; 8]);
    rig.thread_end(rig.root, child, 0).unwrap();
    let expected = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let root = rig.root;
    assert_eq!(rig.peek(root, DATA + 8, 8), expected, "cleared at its end");
}

#[test]
fn the_word_of_a_fork_goes_to_the_new_threads_memory() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let like = waiting_caller(&mut rig);
    let flags = ForkFlags::COPY_SPACE | ForkFlags::PREFAULT;
    let child = fork(&mut rig, like, flags, DATA + 4096, [0, 0, DATA, 7]).unwrap();
    let child = rig.thread_of(child);
    assert_eq!(rig.peek_word(child, DATA), 7);
    assert_eq!(rig.peek_word(root, DATA), 0);
}

#[test]
fn where_the_word_of_a_fork_cannot_be_stored_nothing_is() {
    let mut rig = Rig::new(512);
    let like = waiting_caller(&mut rig);
    for nowhere in [1, 0x5000_0000, USER_END - 2, USER_END, u64::MAX - 1] {
        for flags in [ForkFlags::START, ForkFlags::COPY_SPACE] {
            fork(&mut rig, like, flags, 0, [0, 0, nowhere, 7]).unwrap();
        }
    }
}

#[test]
fn a_stack_pointer_that_points_nowhere_is_the_programs_affair() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let like = waiting_caller(&mut rig);
    let before = rig.free();
    let flags = ForkFlags::COPY_SPACE | ForkFlags::PREFAULT;
    for stack in [
        1,
        8,
        9,
        0x5000_0000,
        USER_END,
        USER_END + 8,
        1 << 63,
        u64::MAX,
    ] {
        let child = fork(&mut rig, like, flags, stack, [0; 4]).unwrap();
        rig.thread_end(root, child, 1).unwrap();
        assert_eq!(rig.free(), before, "{stack:#x}");
    }
}

#[test]
fn a_fork_that_cannot_be_paid_for_stores_and_clears_nothing() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let like = waiting_caller(&mut rig);
    rig.poke(root, DATA, &[0xff; 16]);
    let none = Handle::NONE;
    let flags = ForkFlags::empty();
    for limit in 0.. {
        let pool = rig.pool_create(root, initial::POOL, limit).unwrap();
        let made = rig.thread_fork(root, pool, like, none, flags, 6, 0, 0, DATA, DATA + 8, 7);
        if made.is_ok() {
            assert!(limit > 1, "a thread and a capability are to be paid for");
            break;
        }
        assert_eq!(made, Err(Error::NoMemory));
        assert_eq!(rig.peek(root, DATA, 16), [0xff; 16], "limit {limit}");
    }
}

#[test]
fn a_fork_with_bad_words_makes_no_thread() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let like = waiting_caller(&mut rig);
    let before = rig.free();
    let flags = ForkFlags::BASE | ForkFlags::COPY_SPACE;
    let bad = [[USER_END, 0, 0, 0], [0, 2, 0, 0], [0, USER_END, 0, 0]];
    for words in bad {
        let made = fork(&mut rig, like, flags, 0, words);
        assert_eq!(made, Err(Error::InvalidArgument), "{words:x?}");
    }
    // Whoever may not write the memory cannot have it written, nor fork what it may not direct.
    let rights = Access::MAKE_THREAD | Access::READ_MEMORY;
    let pool = initial::POOL;
    let space = rig.cap_derive(root, initial::SPACE, pool, 0, rights);
    let space = space.unwrap();
    let [private, files, fs] = [Handle::OWN_PRIVATE, Handle::OWN_FILES, Handle::OWN_FS];
    let copies = Copies::empty();
    let none = Handle::NONE;
    let reader = rig
        .thread_create(root, pool, space, private, files, fs, copies, 1, none, 0)
        .unwrap();
    rig.thread_start(root, reader, 0x4000, 0x7000, 0).unwrap();
    let (receiver, sender) = rig.endpoint(0, 0);
    let thread = rig.thread_of(reader);
    rig.message(thread, IpcCall::Call, sender, 0, [0; 8]);
    rig.message(root, IpcCall::Receive, receiver, 0, [0; 8]);
    for (word_at, expected) in [(DATA, Err(Error::AccessDenied)), (0, Ok(()))] {
        let made = fork(&mut rig, reader, ForkFlags::empty(), 0, [0, 0, word_at, 7]);
        assert_eq!(
            made.map(|made| rig.thread_end(root, made, 1).unwrap()),
            expected
        );
    }
    let seen = Access::OBSERVE | Access::REGISTERS;
    let watcher = rig.cap_derive(root, reader, pool, 0, seen).unwrap();
    let made = fork(&mut rig, watcher, ForkFlags::empty(), 0, [0; 4]);
    assert_eq!(made, Err(Error::AccessDenied));
    for handle in [watcher, receiver, sender, space] {
        rig.cap_close(root, handle).unwrap();
    }
    rig.thread_end(root, reader, 1).unwrap();
    assert_eq!(rig.free(), before);
}

#[test]
fn registers_can_be_seen_and_set_while_a_thread_does_not_run() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (handle, thread) = rig.thread_in(initial::POOL, 1);
    assert_eq!(
        rig.thread_get_registers(root, handle, SCRATCH),
        Err(Error::WrongState)
    );
    rig.thread_suspend(root, handle).unwrap();
    rig.thread_get_registers(root, handle, SCRATCH).unwrap();
    let mut words: Vec<u64> = (0..20)
        .map(|n| rig.peek_word(root, SCRATCH + n * 8))
        .collect();
    assert_eq!(words[16], registers(&rig, thread).rip);
    words[0] = 123;
    words[16] = 0x4444;
    words[17] = u64::MAX;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    rig.poke(root, SCRATCH, &bytes);
    rig.thread_set_registers(root, handle, SCRATCH).unwrap();
    let found = registers(&rig, thread);
    assert_eq!((found.rax, found.rip), (123, 0x4444));
    assert_eq!(found.rflags >> 12 & 3, 0, "no I/O privilege");
    rig.poke(root, SCRATCH + 16 * 8, &u64::MAX.to_le_bytes());
    assert_eq!(
        rig.thread_set_registers(root, handle, SCRATCH),
        Err(Error::InvalidArgument)
    );
    assert_eq!(
        rig.thread_set_registers(root, handle, 0x5000_0000),
        Err(Error::BadAddress)
    );
    let (_, other) = rig.thread_in(initial::POOL, 2);
    rig.thread_set_base(other, handle, 0, 0x1234).unwrap();
    assert_eq!(registers(&rig, thread).fs_base, 0x1234);
    assert_eq!(
        rig.thread_set_base(root, handle, 2, 0),
        Err(Error::InvalidArgument)
    );
    assert_eq!(
        rig.thread_set_base(root, handle, 1, 1 << 63),
        Err(Error::InvalidArgument)
    );
}

#[test]
fn a_thread_that_exits_clears_its_word_wakes_its_joiner_and_tells_who_watches() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (handle, thread) = rig.thread_in(initial::POOL, 1);
    let joiner = rig.thread(2);
    let one = rig.notification_create(root, initial::POOL, 0).unwrap();
    let two = rig.notification_create(root, initial::POOL, 0).unwrap();
    rig.poke(root, DATA, &9u64.to_le_bytes());
    rig.thread_set_clear_address(root, handle, DATA).unwrap();
    assert_eq!(
        rig.thread_set_clear_address(root, handle, DATA + 1),
        Err(Error::InvalidArgument)
    );
    rig.enter(joiner, FUTEX_WAIT, [DATA, 9, NEVER, 0, 0, 0, 0, 0, 0, 0]);
    rig.thread_watch(root, handle, one, 1).unwrap();
    rig.thread_watch(root, handle, two, 2).unwrap();
    rig.cap_close(root, two).unwrap();
    rig.enter(thread, EXIT, [0; 10]);
    assert_eq!(rig.result(joiner), Ok([0, 0]));
    assert_eq!(rig.peek_word(root, DATA), 0);
    assert_eq!(rig.notification_clear(root, one, u64::MAX), Ok(1));
    rig.thread_watch(root, handle, one, 4).unwrap();
    assert_eq!(
        rig.notification_clear(root, one, u64::MAX),
        Ok(4),
        "at once if it has ended"
    );
    for result in [
        rig.thread_suspend(root, handle).map(drop),
        rig.thread_resume(root, handle).map(drop),
        rig.thread_set_label(root, handle, 1),
    ] {
        assert_eq!(result, Err(Error::WrongState));
    }
    assert_eq!(rig.thread_end(root, handle, 0), Ok(()), "again is no error");
}

#[test]
fn equal_threads_take_turns_and_higher_ones_go_first() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (a, b) = (rig.thread(1), rig.thread(2));
    rig.run(a);
    let order = |rig: &mut Rig| {
        let due = rig.kernel.memory.machine().timer.unwrap();
        rig.sleep_until(due);
        rig.kernel.current().unwrap()
    };
    let first = order(&mut rig);
    let second = order(&mut rig);
    let third = order(&mut rig);
    let all = [first, second, third];
    assert!(all.contains(&a) && all.contains(&b) && all.contains(&root));
    // Lowered, a thread runs only when the others do not want to.
    let (low, low_thread) = rig.thread_in(initial::POOL, 3);
    rig.thread_set_priority(root, low, 1).unwrap();
    for _ in 0..6 {
        assert_ne!(order(&mut rig), low_thread);
    }
    assert_eq!(
        rig.thread_set_priority(root, low, 31),
        Err(Error::AccessDenied),
        "not above one's own"
    );
    assert_eq!(
        rig.thread_set_priority(root, low, 32),
        Err(Error::InvalidArgument)
    );
    assert!(rig.thread_status(root, initial::THREAD).unwrap().1 > 0);
}

#[test]
fn a_woken_thread_of_higher_priority_takes_the_cpu() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let server = rig.thread(1);
    let (client_handle, client) = rig.thread_in(initial::POOL, 2);
    rig.thread_set_priority(root, client_handle, 3).unwrap();
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.thread_suspend(root, initial::THREAD).map(drop).ok();
    assert_eq!(rig.kernel.current(), Some(client));
    rig.message(client, IpcCall::Send, sender, 0, [0; 8]);
    assert_eq!(rig.kernel.current(), Some(server));
}

#[test]
fn yielding_lets_an_equal_thread_run() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    rig.thread_yield(root).unwrap();
    assert_eq!(rig.kernel.current(), Some(root), "there is nobody else");
    let other = rig.thread(1);
    rig.run(root);
    rig.thread_yield(root).unwrap();
    assert_eq!(rig.kernel.current(), Some(other));
}

#[test]
fn nobody_runs_when_all_wait_and_a_deadline_wakes_the_cpu() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    rig.enter(root, FUTEX_WAIT, [DATA, 0, 777, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.kernel.current(), None);
    assert_eq!(rig.kernel.memory.machine().timer, Some(777));
    let _ = rig.kernel.interrupt(Interrupt::Line(1));
    rig.sleep_until(777);
    assert_eq!(rig.kernel.current(), Some(root));
    assert_eq!(rig.result(root), Err(Error::TimedOut));
}

#[test]
fn rights_decide_what_can_be_done_to_a_thread() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (handle, _) = rig.thread_in(initial::POOL, 1);
    let only = |rig: &mut Rig, access| {
        let word = rig
            .cap_copy(
                root,
                handle,
                Handle::OWN_PRIVATE,
                0,
                access,
                Default::default(),
            )
            .unwrap();
        Handle::new(
            libipc::abi::TableSelector::Private,
            word as u32,
            (word >> 32) as u32,
        )
    };
    let watcher = only(&mut rig, Access::OBSERVE);
    assert!(rig.thread_status(root, watcher).is_ok());
    assert_eq!(rig.thread_end(root, watcher, 0), Err(Error::AccessDenied));
    assert_eq!(
        rig.thread_get_registers(root, watcher, SCRATCH),
        Err(Error::AccessDenied)
    );
    let controller = only(&mut rig, Access::CONTROL);
    assert_eq!(
        rig.thread_status(root, controller),
        Err(Error::AccessDenied)
    );
    assert_eq!(rig.thread_end(root, controller, 0), Ok(()));
}

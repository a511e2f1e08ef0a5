//! Threads: made, forked, stopped, looked into, ended; and who runs when.

use crate::machine::Interrupt;
use crate::memory::Ref;
use crate::object::{State, Thread};
use crate::testkit::{DATA, Rig, SCRATCH};
use libipc::abi::{Access, Copies, Error, Handle, IpcCall, NEVER, Registers, initial};

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
        rig.thread_fork(
            root,
            initial::POOL,
            handle,
            initial::SPACE,
            Handle::OWN_PRIVATE,
            Handle::OWN_FILES,
            Handle::OWN_FS,
            Copies::empty(),
            6,
            0,
            0
        ),
        Err(Error::WrongState)
    );
    rig.fault(parent, crate::machine::Exception::NO_FPU, 0, 0);
    rig.message(parent, IpcCall::Call, sender, 64, [3; 8]);
    rig.message(root, IpcCall::Receive, receiver, 0, [0; 8]);
    for stack in [0, 0x9000] {
        let child = rig
            .thread_fork(
                root,
                initial::POOL,
                handle,
                initial::SPACE,
                Handle::OWN_PRIVATE,
                Handle::OWN_FILES,
                Handle::OWN_FS,
                Copies::empty(),
                6,
                stack,
                0,
            )
            .unwrap();
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

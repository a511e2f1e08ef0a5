//! What can fail fails, at each step in turn: the error comes back, and nothing else has happened.

use libipc::abi::SlotFlags;
use libipc::protocol::process::{CloneArguments, CreateProcess, Errno, Win32Error};

use crate::world::{No, START, World, outcome};

const THREAD: u64 = 0x1_0900;
const SIGCHLD: u64 = 17;

/// Has `attempt` run with its first, second, ... fallible machine call failing, until it works.
/// `attempt` says what the call came to: `Err(No::Yet)` and `Ok` count as working. Returns at how
/// many steps it failed.
fn fail_each_step<T>(attempt: impl Fn(&mut World, u64) -> Result<T, No>, error: No) -> u32 {
    fail_each_step_from(World::with_program, attempt, error)
}

fn fail_each_step_from<T>(
    begin: impl Fn() -> (World, u64),
    attempt: impl Fn(&mut World, u64) -> Result<T, No>,
    error: No,
) -> u32 {
    let mut steps = 0;
    loop {
        let (mut world, caller) = begin();
        // What the step could damage: a full table, a second thread, a child, a shared table.
        let table = world.files_of(caller);
        world
            .fake
            .table(table)
            .insert(3, (1, SlotFlags::CLOSE_ON_EXEC));
        world.fake.table(table).insert(4, (2, SlotFlags::INHERIT));
        world.clone(caller, THREAD).unwrap();
        world.fork(caller);
        let before = (
            world.server.figures(),
            world.fake.belongings(),
            world.identity(caller),
        );
        world.fake.fallible = 0;
        world.fake.fail_at = Some(steps + 1);
        let result = attempt(&mut world, caller);
        world.fake.fail_at = None;
        let failed = world.fake.fallible > steps;
        match result {
            Ok(_) | Err(No::Yet) => {
                assert!(!failed, "a failed step is an error");
                return steps;
            }
            Err(no) => assert_eq!(no, error, "step {}", steps + 1),
        }
        let after = (
            world.server.figures(),
            world.fake.belongings(),
            world.identity(caller),
        );
        assert_eq!(before.0, after.0, "step {}", steps + 1);
        assert_eq!(before.1, after.1, "step {}", steps + 1);
        assert_eq!(before.2, after.2, "step {}", steps + 1);
        // And the same call works afterwards.
        assert!(matches!(attempt(&mut world, caller), Ok(_) | Err(No::Yet)));
        steps += 1;
    }
}

const ENOMEM: No = No::Errno(Errno::ENOMEM);

/// A creation with everything that can fail.
const CREATE: CreateProcess = CreateProcess {
    flags: 0,
    inherit_handles: true,
    process_inherit: false,
    thread_inherit: false,
    start: START,
};

/// A program can make a thread with the label of another one of its own.
#[test]
fn a_call_under_the_label_of_a_thread_that_waits_may_not_wait_too() {
    let busy = |result| assert_eq!(result, Err(No::Errno(Errno::EAGAIN)));
    type Wait = fn(&mut World, u64) -> Result<(), No>;
    let waits: [Wait; 5] = [
        |world, top| world.wait(top, -1, 0).map(drop),
        |world, top| outcome(world.client(top).vfork()).map(drop),
        |world, top| world.try_spawn(top).map(drop),
        |world, top| world.try_exec(top),
        |world, top| world.clone(top, 0x4000 | SIGCHLD).map(drop),
    ];
    for first in waits {
        let (mut world, top) = World::with_program();
        world.fork(top);
        assert_eq!(first(&mut world, top), Err(No::Yet));
        let before = (world.server.figures(), world.fake.belongings());
        for next in waits {
            busy(next(&mut world, top));
        }
        assert_eq!(before, (world.server.figures(), world.fake.belongings()));
    }
}

#[test]
fn a_fork_that_fails_at_any_step_leaves_nothing() {
    assert_eq!(
        fail_each_step(|world, caller| world.try_fork(caller), ENOMEM),
        1
    );
}

#[test]
fn a_vfork_that_fails_at_any_step_leaves_nothing_and_the_caller_goes_on() {
    let vfork = |world: &mut World, caller| outcome(world.client(caller).vfork());
    assert_eq!(fail_each_step(vfork, ENOMEM), 2);
}

#[test]
fn a_thread_that_fails_at_any_step_leaves_nothing() {
    let thread = |world: &mut World, caller| world.clone(caller, THREAD | 0x600);
    assert_eq!(fail_each_step(thread, ENOMEM), 1);
}

#[test]
fn a_clone_that_copies_everything_and_fails_at_any_step_leaves_nothing() {
    for (flags, steps) in [(SIGCHLD, 1), (0x4000 | SIGCHLD, 2), (0x8000, 1)] {
        let clone = |world: &mut World, caller| {
            world.clone_with(
                caller,
                CloneArguments {
                    flags,
                    ..CloneArguments::default()
                },
            )
        };
        assert_eq!(fail_each_step(clone, ENOMEM), steps);
    }
}

#[test]
fn an_exec_that_fails_at_any_step_leaves_the_caller_as_it_was() {
    assert_eq!(
        fail_each_step(|world, caller| world.try_exec(caller), ENOMEM),
        4
    );
}

#[test]
fn a_spawn_that_fails_at_any_step_leaves_nothing() {
    assert_eq!(
        fail_each_step(|world, caller| world.try_spawn(caller), ENOMEM),
        4
    );
}

#[test]
fn a_create_process_that_fails_at_any_step_leaves_nothing() {
    let create = |world: &mut World, caller| world.try_create_process_in(caller, CREATE);
    let error = No::Win32(Win32Error::NotEnoughMemory);
    assert_eq!(fail_each_step(create, error), 4);
}

#[test]
fn with_its_image_there_an_exec_that_fails_at_any_step_leaves_the_caller_as_it_was() {
    let exec = |world: &mut World, caller| {
        world.image = 7;
        if world.thread(caller).started.is_none() {
            return Err(No::Yet); // it has become the new program
        }
        world.try_exec(caller)
    };
    assert_eq!(
        fail_each_step_from(|| World::with_image(7), exec, ENOMEM),
        4
    );
}

#[test]
fn with_its_image_there_a_spawn_that_fails_at_any_step_leaves_nothing() {
    let spawn = |world: &mut World, caller| world.try_spawn(caller);
    assert_eq!(
        fail_each_step_from(|| World::with_image(7), spawn, ENOMEM),
        4
    );
}

#[test]
fn with_its_image_there_a_create_process_that_fails_at_any_step_leaves_nothing() {
    let create = |world: &mut World, caller| world.try_create_process_in(caller, CREATE);
    let error = No::Win32(Win32Error::NotEnoughMemory);
    assert_eq!(
        fail_each_step_from(|| World::with_image(7), create, error),
        7
    );
}

#[test]
fn a_creation_that_fails_after_its_image_was_loaded_is_told_so() {
    let (mut world, caller) = World::with_program();
    assert_eq!(world.try_spawn(caller), Err(No::Yet));
    let loader = world.newest();
    let before = world.server.figures();
    world.fake.fallible = 0;
    world.fake.fail_at = Some(1);
    assert_eq!(world.loaded(loader), Err(No::Yet));
    assert_eq!(world.late::<u32>(caller), Some(Err(ENOMEM)));
    let after = world.server.figures();
    assert_eq!(
        (after.processes, after.numbers),
        (before.processes, before.numbers)
    );
    assert_eq!((after.loads, after.threads), (0, before.threads - 1));
}

#[test]
fn a_service_thread_that_fails_at_any_step_leaves_nothing() {
    let create = |world: &mut World, caller| {
        outcome(world.client(caller).service_create([b'a'; 16], 1, 2, 3))
    };
    assert_eq!(fail_each_step(create, ENOMEM), 1);
}

#[test]
fn a_wait_whose_reply_cannot_be_kept_is_an_error_and_takes_no_child() {
    assert_eq!(
        fail_each_step(|world, caller| world.wait(caller, -1, 0), ENOMEM),
        1
    );
}

#[test]
fn a_failed_exec_keeps_a_vfork_parent_waiting() {
    for step in 1..=4 {
        let (mut world, caller) = World::with_program();
        let child = world.vfork(caller);
        world.fake.fallible = 0;
        world.fake.fail_at = Some(step);
        assert_eq!(world.try_exec(child), Err(ENOMEM));
        world.fake.fail_at = None;
        assert!(world.late::<u32>(caller).is_none());
        world.exit(child, 0);
        assert!(world.late::<u32>(caller).is_some());
    }
}

#[test]
fn numbers_that_run_out_in_the_middle_of_a_creation_are_given_back() {
    // A Win32 process needs two numbers, and there is one.
    let mut world = World::with_pid_max(301);
    world.image = 7;
    let (_, top) = world.first_program();
    while world.server.figures().numbers < 299 {
        world.fork(top);
    }
    let before = (world.server.figures(), world.fake.census());
    let order = CreateProcess {
        start: START,
        ..CreateProcess::default()
    };
    let result = world.try_create_process(top, order);
    assert_eq!(result, Err(No::Win32(Win32Error::NoSystemResources)));
    assert_eq!((world.server.figures(), world.fake.census()), before);
    assert!(world.try_fork(top).is_ok());
}

#[test]
fn init_that_cannot_be_adopted_can_be_adopted_later() {
    let mut world = World::empty(400);
    let thread = world.add_init();
    let before = (world.server.figures(), world.fake.census());
    world.fake.fail_at = Some(1);
    let result = world.server.adopt_init(&mut world.fake, thread);
    assert_eq!(result, Err(Errno::ENOMEM));
    assert_eq!((world.server.figures(), world.fake.census()), before);
    world.fake.fail_at = None;
    assert!(world.server.adopt_init(&mut world.fake, thread).is_ok());
}

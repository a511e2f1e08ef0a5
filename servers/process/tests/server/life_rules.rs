//! fork, vfork, threads, exec and exit (sections 4 to 6, 9 and 10), and the numbers (section 8).

use libipc::abi::{FaultKind, FaultMessage, SlotFlags};
use libipc::protocol::process::{CloneArguments, Errno};
use process_server::Faulted;

use crate::fake::Object;
use crate::world::{No, STACK_POINTER, World};

const THREAD: u64 = 0x1_0900;
const VM: u64 = 0x100;
const VFORK: u64 = 0x4000;
const SIGCHLD: u64 = 17;
const ECHILD: No = No::Errno(Errno::ECHILD);

fn thread(world: &mut World, label: u64) -> (u32, u64) {
    let tid = world.clone(label, THREAD).unwrap();
    (tid, world.newest())
}

#[test]
fn lx_name_02_fork_and_clone_with_sigchld_make_the_same_child() {
    let (mut world, caller) = World::with_program();
    let (_, forked) = world.fork(caller);
    world.clone(caller, SIGCHLD).unwrap();
    let cloned = world.newest();
    let (first, second) = (world.identity(forked), world.identity(cloned));
    assert_eq!(
        (first.ppid, first.pgid, first.sid),
        (second.ppid, second.pgid, second.sid)
    );
    let labels = [forked, cloned].map(|label| {
        let thread = world.fake.thread(label).unwrap();
        (thread.suspends, thread.stack, thread.started)
    });
    assert_eq!(labels[0], labels[1]);
}

#[test]
fn lx_fork_01_the_parent_gets_the_pid_and_the_child_goes_on_after_the_call() {
    let (mut world, caller) = World::with_program();
    let (pid, child) = world.fork(caller);
    assert_eq!(world.identity(child).pid, pid);
    assert_eq!(world.fake.thread(child).unwrap().suspends, 0, "it runs");
}

#[test]
fn lx_fork_02_the_parent_is_the_process_whichever_thread_forks() {
    let (mut world, caller) = World::with_program();
    let (_, sibling) = thread(&mut world, caller);
    let (_, child) = world.fork(sibling);
    let (own, childs) = (world.identity(caller), world.identity(child));
    assert_eq!(childs.ppid, own.pid);
    assert_eq!(childs.pid, childs.tid);
    assert_eq!(world.line(childs.pid).unwrap().threads, 1);
}

#[test]
fn lx_fork_05_memory_is_a_snapshot() {
    let (mut world, caller) = World::with_program();
    let own = world.space_of(caller);
    world.fake.words(own).insert(0x5000, 1);
    let (_, child) = world.fork(caller);
    let copy = world.space_of(child);
    world.fake.words(own).insert(0x5000, 2);
    assert_eq!(world.fake.words(copy).get(&0x5000), Some(&1));
}

#[test]
fn lx_fork_06_files_directories_and_dispositions_are_copies() {
    let (mut world, caller) = World::with_program();
    let table = world.files_of(caller);
    world
        .fake
        .table(table)
        .insert(3, (77, SlotFlags::CLOSE_ON_EXEC));
    world.client(caller).ignore_signal(10, true).unwrap();
    let (_, child) = world.fork(caller);
    let copy = world.files_of(child);
    assert_ne!(copy, table);
    let slot = world.fake.table(copy).get(&3).copied();
    assert_eq!(slot, Some((77, SlotFlags::CLOSE_ON_EXEC)));
    assert!(world.client(child).ignore_signal(10, false).unwrap());
    assert!(world.client(caller).ignore_signal(10, true).unwrap());
}

#[test]
fn lx_fork_12_the_exit_signal_of_a_fork_child_is_sigchld() {
    let (mut world, caller) = World::with_program();
    let (pid, child) = world.fork(caller);
    world.exit(child, 0);
    assert_eq!(world.wait(caller, -1, 0x8000_0001), Err(ECHILD));
    assert_eq!(world.wait(caller, -1, 1), Ok((pid, 0)));
}

#[test]
fn fork_makes_one_kernel_call_that_can_fail_and_asks_no_other_server() {
    let (mut world, caller) = World::with_program();
    world.fake.log.clear();
    world.fork(caller);
    let calls = std::mem::take(&mut world.fake.log);
    assert_eq!(calls, ["fork_thread"]);
}

#[test]
fn a_pthread_is_one_kernel_call_and_runs_with_it() {
    let (mut world, caller) = World::with_program();
    world.fake.log.clear();
    // What pthread_create asks for: SETTLS, PARENT_SETTID, CHILD_CLEARTID.
    let arguments = CloneArguments {
        flags: 0x3d_0f00,
        stack: 0x8000,
        parent_tid: 0x6000,
        child_tid: 0x6000,
        tls: 0x7000,
    };
    let tid = world.clone_with(caller, arguments).unwrap();
    assert_eq!(std::mem::take(&mut world.fake.log), ["fork_thread"]);
    let thread = world.fake.thread(world.newest()).unwrap().clone();
    assert_eq!((thread.suspends, thread.clear), (0, 0x6000));
    let space = world.space_of(caller);
    assert_eq!(world.fake.words(space).get(&0x6000), Some(&tid));
}

#[test]
fn a_child_does_not_run_before_its_number_is_in_its_parents_memory() {
    let (mut world, caller) = World::with_program();
    world.fake.log.clear();
    let arguments = CloneArguments {
        flags: 0x10_0000 | 17, // PARENT_SETTID, SIGCHLD
        parent_tid: 0x6000,
        ..CloneArguments::default()
    };
    world.clone_with(caller, arguments).unwrap();
    let calls = std::mem::take(&mut world.fake.log);
    assert_eq!(calls, ["fork_thread", "write_word", "resume"]);
    assert_eq!(world.fake.thread(world.newest()).unwrap().suspends, 0);
}

#[test]
fn lx_vfork_01_the_child_runs_in_the_callers_memory_and_only_the_caller_waits() {
    let (mut world, caller) = World::with_program();
    let (_, sibling) = thread(&mut world, caller);
    let child = world.vfork(caller);
    assert_eq!(world.space_of(child), world.space_of(caller));
    assert!(world.late::<u32>(caller).is_none());
    let pid = world.identity(caller).pid;
    assert_eq!(world.identity(sibling).pid, pid);
    assert_eq!(world.state(pid), Some('D'));
}

#[test]
fn lx_vfork_02_exec_or_exit_releases_and_a_failed_exec_does_not() {
    let (mut world, caller) = World::with_program();
    let child = world.vfork(caller);
    let pid = world.identity(child).pid;
    let loader = world.exec(child);
    world.load_failed(loader, Errno::ENOEXEC);
    assert_eq!(
        world.late::<()>(child),
        Some(Err(No::Errno(Errno::ENOEXEC)))
    );
    assert!(world.late::<u32>(caller).is_none(), "still blocked");
    let loader = world.exec(child);
    assert!(world.late::<u32>(caller).is_none(), "still blocked");
    assert_eq!(world.loaded(loader), Err(No::Yet));
    assert_eq!(world.late(caller), Some(Ok(pid)));
    world.exit(loader, 3);
    assert_eq!(world.wait(caller, -1, 0), Ok((pid, 3 << 8)));
}

#[test]
fn lx_vfork_04_only_memory_is_shared() {
    let (mut world, caller) = World::with_program();
    let child = world.vfork(caller);
    assert_ne!(world.files_of(child), world.files_of(caller));
    world.client(child).ignore_signal(10, true).unwrap();
    world.exit(child, 0);
    assert!(!world.client(caller).ignore_signal(10, true).unwrap());
}

#[test]
fn lx_vfork_06_stops_and_ignored_signals_do_not_end_the_wait() {
    let (mut world, caller) = World::with_program();
    let pid = world.identity(caller).pid;
    let (_, other) = world.fork(caller);
    let child = world.vfork(caller);
    world.kill(other, pid as i32, 17).unwrap();
    world.kill(other, pid as i32, 19).unwrap();
    assert!(world.late::<u32>(caller).is_none());
    world.exit(child, 0);
    assert!(world.late::<u32>(caller).is_some());
    assert_eq!(world.fake.thread(caller).unwrap().suspends, 1, "stopped");
}

#[test]
fn lx_vfork_07_a_deadly_signal_ends_the_waiter_and_keeps_the_child() {
    let (mut world, top) = World::with_program();
    let (pid, caller) = world.fork(top);
    let child = world.vfork(caller);
    world.kill(top, pid as i32, 15).unwrap();
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 15)));
    assert_eq!(world.identity(child).ppid, 1, "reparented");
    world.exit(child, 0);
}

#[test]
fn lx_vfork_07_a_signal_that_dumps_core_acts_after_the_release() {
    let (mut world, top) = World::with_program();
    let (pid, caller) = world.fork(top);
    let child = world.vfork(caller);
    world.kill(top, pid as i32, 3).unwrap();
    assert_eq!(world.wait(top, -1, 1), Ok((0, 0)));
    world.exit(child, 0);
    assert_eq!(world.wait(top, -1, 1), Ok((pid, 3)));
}

#[test]
fn lx_vfork_08_a_stopped_child_keeps_the_caller_waiting() {
    let (mut world, caller) = World::with_program();
    let (_, other) = world.fork(caller);
    let child = world.vfork(caller);
    let pid = world.identity(child).pid;
    world.kill(other, pid as i32, 19).unwrap();
    assert_eq!(world.state(pid), Some('T'));
    assert!(world.late::<u32>(caller).is_none());
    world.kill(other, pid as i32, 9).unwrap();
    assert_eq!(world.late(caller), Some(Ok(pid)));
}

#[test]
fn lx_vfork_10_a_child_whose_waiter_was_killed_completes_nothing() {
    let (mut world, top) = World::with_program();
    let (pid, caller) = world.fork(top);
    let child = world.vfork(caller);
    world.kill(top, pid as i32, 9).unwrap();
    let loader = world.exec(child);
    assert_eq!(world.loaded(loader), Err(No::Yet));
    assert!(world.fake.answers.is_empty());
    assert_eq!(world.identity(loader).ppid, 1);
}

#[test]
fn lx_vfork_12_a_thread_made_with_vfork_blocks_its_creator() {
    let (mut world, caller) = World::with_program();
    assert_eq!(world.clone(caller, THREAD | VFORK), Err(No::Yet));
    let sibling = world.newest();
    let tid = world.identity(sibling).tid;
    world.exit(sibling, 0);
    assert_eq!(world.late(caller), Some(Ok(tid)));
}

#[test]
fn a_vfork_child_may_fork_and_vfork_itself() {
    let (mut world, caller) = World::with_program();
    let child = world.vfork(caller);
    let (_, grandchild) = world.fork(child);
    let inner = world.vfork(child);
    world.exit(inner, 0);
    assert!(world.late::<u32>(child).unwrap().is_ok());
    assert!(world.late::<u32>(caller).is_none());
    world.exit(child, 0);
    assert!(world.late::<u32>(caller).unwrap().is_ok());
    assert_eq!(world.identity(grandchild).ppid, 1);
}

#[test]
fn lx_thread_04_exit_ends_the_task_and_exit_group_the_process() {
    let (mut world, top) = World::with_program();
    let (pid, main) = world.fork(top);
    let (_, second) = thread(&mut world, main);
    let (_, third) = thread(&mut world, main);
    world.exit(main, 3);
    assert!(world.fake.thread(second).is_some());
    world.exit_group(third, 5);
    assert!(world.fake.thread(second).is_none());
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 5 << 8)));
}

#[test]
fn lx_thread_05_the_last_task_to_leave_gives_the_status() {
    let (mut world, top) = World::with_program();
    let (pid, main) = world.fork(top);
    let (_, second) = thread(&mut world, main);
    world.exit(main, 3);
    world.exit(second, 7);
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 0x700)));
}

#[test]
fn lx_thread_06_a_process_outlives_its_leader() {
    let (mut world, top) = World::with_program();
    let (pid, main) = world.fork(top);
    thread(&mut world, main);
    world.exit(main, 3);
    assert_eq!(world.wait(top, -1, 1), Ok((0, 0)));
    world.kill(top, pid as i32, 15).unwrap();
    assert_eq!(world.wait(top, -1, 1), Ok((pid, 15)));
}

#[test]
fn lx_thread_07_a_thread_leaves_no_zombie_and_its_number_is_free() {
    let (mut world, main) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    let (_, second) = thread(&mut world, main);
    world.exit(second, 0);
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn lx_thread_08_a_fault_of_one_thread_ends_the_process() {
    let (mut world, top) = World::with_program();
    for (kind, signal) in [
        (FaultKind::Page, 11),
        (FaultKind::Protection, 11),
        (FaultKind::InvalidInstruction, 4),
        (FaultKind::Divide, 8),
        (FaultKind::Breakpoint, 5),
    ] {
        let (pid, main) = world.fork(top);
        let (_, second) = thread(&mut world, main);
        let fault = FaultMessage {
            kind,
            address: 8,
            access: 0,
            instruction_pointer: 0x40_1000,
            stack_pointer: 0,
            code: 0,
        };
        let told = world.fault(second, &fault);
        assert_eq!(told, Faulted::Ended { pid, signal });
        assert_eq!(world.wait(top, -1, 0), Ok((pid, signal)));
    }
}

#[test]
fn lx_thread_09_exec_by_any_thread_leaves_one_thread_with_the_leaders_number() {
    let (mut world, top) = World::with_program();
    let (pid, main) = world.fork(top);
    let (tid, second) = thread(&mut world, main);
    let loader = world.exec(second);
    assert!(world.fake.thread(main).is_some(), "until it is loaded");
    assert_eq!(world.loaded(loader), Err(No::Yet));
    let identity = world.identity(loader);
    assert_eq!((identity.pid, identity.tid), (pid, pid));
    assert!(world.fake.thread(main).is_none() && world.fake.thread(second).is_none());
    assert_eq!(world.line(pid).unwrap().threads, 1);
    assert_eq!(world.kill(top, tid as i32, 0), Err(No::Errno(Errno::ESRCH)));
    world.exit(loader, 0);
    assert_eq!(world.wait(top, pid as i32, 0), Ok((pid, 0)));
}

#[test]
fn lx_thread_10_of_two_execs_at_once_one_image_runs() {
    let (mut world, main) = World::with_program();
    let (_, second) = thread(&mut world, main);
    let loader = world.exec(main);
    assert_eq!(world.try_exec(second), Err(No::Errno(Errno::EAGAIN)));
    assert_eq!(world.loaded(loader), Err(No::Yet));
    assert!(world.fake.thread(second).is_none());
}

#[test]
fn lx_thread_11_a_thread_made_during_a_stop_joins_the_stop() {
    let (mut world, top) = World::with_program();
    let (pid, main) = world.fork(top);
    world.kill(top, pid as i32, 19).unwrap();
    // Its call was on the way when the stop came.
    let (_, second) = thread(&mut world, main);
    assert_eq!(world.fake.thread(second).unwrap().suspends, 1);
    world.kill(top, pid as i32, 18).unwrap();
    assert_eq!(world.fake.thread(second).unwrap().suspends, 0);
    assert_eq!(world.fake.thread(main).unwrap().suspends, 0);
}

#[test]
fn lx_thread_12_kill_by_a_threads_number_reaches_its_process() {
    let (mut world, top) = World::with_program();
    let (pid, main) = world.fork(top);
    let (tid, _) = thread(&mut world, main);
    assert!(world.client(main).setpgid(tid as i32, 0).is_err());
    world.kill(top, tid as i32, 9).unwrap();
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 9)));
}

#[test]
fn lx_thread_13_processes_that_share_memory_die_alone() {
    let (mut world, top) = World::with_program();
    let pid = world.clone(top, VM | SIGCHLD).unwrap();
    let peer = world.newest();
    world.kill(top, pid as i32, 9).unwrap();
    assert!(world.fake.thread(peer).is_none());
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 9)));
}

#[test]
fn lx_thread_14_children_of_a_thread_that_is_gone_stay_children_of_the_process() {
    let (mut world, main) = World::with_program();
    let (_, second) = thread(&mut world, main);
    let (pid, child) = world.fork(second);
    world.exit(second, 0);
    assert_eq!(world.identity(child).ppid, world.identity(main).pid);
    world.exit(child, 0);
    assert_eq!(world.wait(main, -1, 0x2000_0001), Ok((pid, 0)));
}

#[test]
fn lx_pid_04_a_number_rests_while_a_group_or_session_uses_it() {
    let mut world = World::with_pid_max(310);
    let (_, top) = world.first_program();
    let (pid, leader) = world.fork(top);
    world.client(leader).setsid().unwrap();
    let (_, member) = world.fork(leader);
    world.exit(leader, 0);
    world.wait(top, pid as i32, 0).unwrap();
    let space = world.space_of(top);
    world.fake.words(space).insert(0x5000, pid);
    let mut record = vec![0; 80];
    record[65] = 0x50;
    record[72] = 1;
    assert_eq!(
        world.clone3(top, &record),
        Err(No::Errno(Errno::EEXIST)),
        "the group still has a member"
    );
    world.exit(member, 0);
    let init = world.init;
    world.wait(init, -1, 0).unwrap();
    assert_eq!(world.clone3(top, &record), Ok(pid));
}

#[test]
fn lx_pid_06_fork_is_eagain_when_no_number_is_left() {
    let mut world = World::with_pid_max(301);
    let (_, top) = world.first_program();
    let refused = loop {
        match world.try_fork(top) {
            Ok(_) => {}
            Err(no) => break no,
        }
    };
    assert_eq!(refused, No::Errno(Errno::EAGAIN));
    let before = (world.server.figures(), world.fake.census());
    assert!(world.try_fork(top).is_err());
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn lx_exec_01_the_process_keeps_its_numbers_and_children() {
    let (mut world, top) = World::with_program();
    let (_, main) = world.fork(top);
    let (pid, child) = world.fork(main);
    let before = world.identity(main);
    let loader = world.exec(main);
    assert_eq!(world.loaded(loader), Err(No::Yet));
    assert_eq!(world.identity(loader), before);
    let started = world.fake.thread(loader).unwrap().started;
    assert_eq!(started, Some((0x40_1000, STACK_POINTER, 0)));
    world.exit(child, 0);
    assert_eq!(world.wait(loader, -1, 0), Ok((pid, 0)));
}

#[test]
fn lx_exec_02_what_is_ignored_stays_ignored_and_the_name_is_the_images() {
    let (mut world, main) = World::with_program();
    world.client(main).ignore_signal(10, true).unwrap();
    let loader = world.exec(main);
    assert_eq!(world.loaded(loader), Err(No::Yet));
    assert!(world.client(loader).ignore_signal(10, true).unwrap());
    let pid = world.identity(loader).pid;
    assert_eq!(world.line(pid).unwrap().name.0.as_slice(), b"program");
}

#[test]
fn lx_exec_03_close_on_exec_closes_and_shared_tables_are_unshared() {
    let (mut world, main) = World::with_program();
    let table = world.files_of(main);
    world
        .fake
        .table(table)
        .insert(3, (1, SlotFlags::CLOSE_ON_EXEC));
    world.fake.table(table).insert(4, (2, SlotFlags::INHERIT));
    let loader = world.exec(main);
    assert_eq!(world.loaded(loader), Err(No::Yet));
    let own = world.files_of(loader);
    let kept: Vec<u32> = world.fake.table(own).keys().copied().collect();
    assert_eq!(kept, [4]);
}

#[test]
fn lx_exec_05_a_failed_exec_leaves_everything_as_it_was() {
    let (mut world, main) = World::with_program();
    let (_, second) = thread(&mut world, main);
    let table = world.files_of(main);
    world
        .fake
        .table(table)
        .insert(3, (1, SlotFlags::CLOSE_ON_EXEC));
    let before = (world.server.figures(), world.fake.census());
    let loader = world.exec(second);
    world.load_failed(loader, Errno::ENOENT);
    assert_eq!(
        world.late::<()>(second),
        Some(Err(No::Errno(Errno::ENOENT)))
    );
    assert_eq!((world.server.figures(), world.fake.census()), before);
    assert!(world.fake.table(table).contains_key(&3));
}

#[test]
fn a_loader_that_crashes_is_a_failed_exec() {
    let (mut world, main) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    let loader = world.exec(main);
    let words = [1, 0, 0, 0, 0, 0, 0, 0];
    let fault = FaultMessage::from_words(words).unwrap();
    assert_eq!(world.fault(loader, &fault), Faulted::NoProcess);
    assert_eq!(world.late::<()>(main), Some(Err(No::Errno(Errno::ENOEXEC))));
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn a_process_that_dies_while_its_image_is_loaded_takes_the_loader_along() {
    let (mut world, top) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    let (pid, main) = world.fork(top);
    let loader = world.exec(main);
    world.kill(top, pid as i32, 9).unwrap();
    assert!(world.fake.thread(loader).is_none());
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 9)));
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn only_the_loader_may_report_and_it_may_do_nothing_else() {
    let (mut world, main) = World::with_program();
    let loader = world.exec(main);
    let denied = |no| no == No::Denied;
    let result = crate::world::outcome(world.client(main).loaded(0x1000));
    assert!(result.is_err_and(denied));
    assert!(world.try_fork(loader).is_err_and(denied));
    assert!(world.loaded(loader).is_err_and(|no| no == No::Yet));
    let result = crate::world::outcome(world.client(loader).loaded(0x1000));
    assert!(result.is_err_and(denied));
}

#[test]
fn a_loader_that_names_an_address_outside_user_space_is_refused() {
    let (mut world, main) = World::with_program();
    let loader = world.exec(main);
    for entry in [0, 0x7fff_ffff_f000, u64::MAX] {
        let result = crate::world::outcome(world.client(loader).loaded(entry));
        assert_eq!(result, Err(No::Errno(Errno::EINVAL)));
    }
    assert_eq!(world.loaded(loader), Err(No::Yet));
}

#[test]
fn lx_exit_01_the_status_is_the_low_byte_of_the_code() {
    let (mut world, top) = World::with_program();
    let (pid, child) = world.fork(top);
    world.exit_group(child, 0x1ff);
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 0xff00)));
}

#[test]
fn lx_exit_02_descriptors_are_closed_when_wait_returns() {
    let (mut world, top) = World::with_program();
    let (_, child) = world.fork(top);
    let table = world.files_of(child);
    assert_eq!(world.wait(top, -1, 0), Err(No::Yet));
    world.exit(child, 0);
    assert!(world.late_wait(top).is_some());
    assert!(!world.fake.objects.contains_key(&table.0));
}

#[test]
fn lx_exit_03_a_zombie_keeps_its_numbers_and_takes_signals_in_silence() {
    let (mut world, top) = World::with_program();
    let (pid, child) = world.fork(top);
    world.exit(child, 0);
    let line = world.line(pid).unwrap();
    assert_eq!((line.state, line.threads), (b'Z', 0));
    assert_eq!(world.kill(top, pid as i32, 9), Ok(()));
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 0)));
    assert!(world.line(pid).is_none());
}

#[test]
fn lx_exit_04_orphans_go_to_the_nearest_subreaper_and_then_to_init() {
    let (mut world, top) = World::with_program();
    let (a_pid, a) = world.fork(top);
    world.client(a).set_subreaper(true).unwrap();
    let (_, b) = world.fork(a);
    let (c_pid, c) = world.fork(b);
    let (_, leaf) = world.fork(c);
    world.exit(c, 0);
    assert_eq!(world.identity(leaf).ppid, a_pid);
    assert_eq!(
        world.wait(a, c_pid as i32, 1),
        Err(ECHILD),
        "its own parent lives"
    );
    world.exit(b, 0);
    assert_eq!(
        world.wait(a, c_pid as i32, 1),
        Ok((c_pid, 0)),
        "a zombie moves too"
    );
    world.exit(a, 0);
    assert_eq!(world.identity(leaf).ppid, 1);
}

#[test]
fn lx_exit_05_orphans_get_sigchld_and_dead_ones_are_told_at_once() {
    let (mut world, top) = World::with_program();
    let (middle_pid, middle) = world.fork(top);
    let child = world.clone(middle, 0).unwrap();
    let label = world.newest();
    let init = world.init;
    assert_eq!(world.wait(init, child as i32, 0), Err(ECHILD));
    world.exit(label, 4);
    assert_eq!(world.wait(init, -1, 0), Err(No::Yet));
    world.exit(middle, 0);
    assert_eq!(world.late_wait(init), Some(Ok((child, 4 << 8))));
    assert_eq!(world.wait(top, -1, 0), Ok((middle_pid, 0)));
}

#[test]
fn lx_exit_06_the_subreaper_mark_is_not_inherited_and_kept_over_exec() {
    let (mut world, top) = World::with_program();
    let (a_pid, a) = world.fork(top);
    world.client(a).set_subreaper(true).unwrap();
    let (_, b) = world.fork(a);
    let (_, c) = world.fork(b);
    let (_, leaf) = world.fork(c);
    let loader = world.exec(a);
    assert_eq!(world.loaded(loader), Err(No::Yet));
    world.exit(b, 0);
    assert_eq!(world.identity(c).ppid, a_pid);
    world.exit(c, 0);
    assert_eq!(world.identity(leaf).ppid, a_pid);
}

#[test]
fn lx_exit_10_the_end_of_init_is_told_to_the_machine() {
    let mut world = World::new();
    let init = world.init;
    world.exit_group(init, 2);
    assert_eq!(world.fake.init_status, Some(0x200));
}

#[test]
fn lx_exit_11_an_odd_exit_signal_is_not_for_a_parent_that_has_execd() {
    let (mut world, top) = World::with_program();
    let (_, parent) = world.fork(top);
    let child = world.clone(parent, 9).unwrap();
    let label = world.newest();
    let loader = world.exec(parent);
    assert_eq!(world.loaded(loader), Err(No::Yet));
    world.exit(label, 0);
    assert!(world.fake.thread(loader).is_some(), "not killed");
    assert_eq!(world.wait(loader, -1, 1), Err(ECHILD));
    assert_eq!(world.wait(loader, -1, 0x8000_0001), Ok((child, 0)));
}

#[test]
fn a_chain_of_deadly_exit_signals_of_any_length_is_carried_out() {
    let (mut world, top) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    let (_, first) = world.fork(top);
    let mut last = first;
    world.checked = false;
    for _ in 0..5_000 {
        world.clone(last, 9).unwrap();
        last = world.newest();
    }
    world.exit(last, 0);
    assert!(world.fake.thread(first).is_none());
    assert!(world.wait(top, -1, 0).is_ok());
    let init = world.init;
    while world
        .wait(init, -1, 0x4000_0001)
        .is_ok_and(|(pid, _)| pid != 0)
    {}
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn spawn_makes_a_child_with_the_files_that_do_not_close_on_exec() {
    let (mut world, top) = World::with_program();
    let table = world.files_of(top);
    world
        .fake
        .table(table)
        .insert(3, (1, SlotFlags::CLOSE_ON_EXEC));
    world.fake.table(table).insert(4, (2, SlotFlags::empty()));
    assert_eq!(world.try_spawn(top), Err(No::Yet));
    let child = world.newest();
    assert!(world.server.caller(child).is_none(), "not visible yet");
    assert_eq!(world.loaded(child), Err(No::Yet));
    let pid = world.late::<u32>(top).unwrap().unwrap();
    assert_eq!(world.identity(child).pid, pid);
    let own = world.files_of(child);
    assert_eq!(
        world.fake.table(own).keys().copied().collect::<Vec<_>>(),
        [4]
    );
    world.exit(child, 1);
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 1 << 8)));
}

#[test]
fn a_clone_with_a_stack_starts_there() {
    let (mut world, top) = World::with_program();
    let arguments = CloneArguments {
        flags: VM | SIGCHLD,
        stack: 0x9000,
        ..CloneArguments::default()
    };
    world.clone_with(top, arguments).unwrap();
    assert_eq!(world.fake.thread(world.newest()).unwrap().stack, 0x9000);
}

#[test]
fn a_known_image_starts_without_the_loader() {
    let (mut world, top) = World::with_image(7);
    world.fake.log.clear();
    assert!(world.try_spawn(top).is_ok());
    let calls = std::mem::take(&mut world.fake.log);
    assert_eq!(
        calls,
        ["image_id", "create_thread", "retain", "copy_stack", "start"]
    );
    let child = world.newest();
    let (_, caller) = world.fork(top);
    assert_eq!(world.try_exec(caller), Err(No::Yet));
    assert!(world.fake.thread(caller).is_none(), "it is another program");
    let started = [child, world.newest()].map(|label| world.thread(label).started);
    assert_eq!(started, [Some((0x40_1000, STACK_POINTER, 0)); 2]);
}

#[test]
fn everybody_who_asks_for_an_image_waits_for_the_same_load() {
    let (mut world, top) = World::with_program();
    world.image = 7;
    let callers = [(); 3].map(|()| world.fork(top).1);
    assert_eq!(world.try_spawn(callers[0]), Err(No::Yet));
    let loader = world.newest();
    assert_eq!(world.try_spawn(callers[1]), Err(No::Yet));
    assert_eq!(world.try_exec(callers[2]), Err(No::Yet));
    assert_eq!(world.server.figures().loads, 1);
    // Who gives up does not spoil it for the others.
    let pid = world.identity(callers[0]).pid;
    world.kill(top, pid as i32, 9).unwrap();
    assert_eq!(world.loaded(loader), Err(No::Yet));
    assert!(world.late::<u32>(callers[1]).is_some_and(|pid| pid.is_ok()));
    assert!(world.fake.thread(callers[2]).is_none());
    assert_eq!(world.server.figures().loads, 0);
}

#[test]
fn an_image_that_nobody_waits_for_any_more_is_given_up() {
    let (mut world, top) = World::with_program();
    let (pid, caller) = world.fork(top);
    assert_eq!(world.try_spawn(caller), Err(No::Yet));
    let loader = world.newest();
    world.kill(top, pid as i32, 9).unwrap();
    assert!(world.fake.thread(loader).is_none());
    assert_eq!(world.server.figures().loads, 0);
}

#[test]
fn only_so_many_templates_are_kept_and_those_used_last() {
    let (mut world, top) = World::with_image(1);
    for image in 2..=40 {
        world.image = image;
        assert_eq!(world.try_spawn(top), Err(No::Yet), "image {image} is new");
        let loader = world.newest();
        assert_eq!(world.loaded(loader), Err(No::Yet));
        assert!(world.late::<u32>(top).is_some_and(|pid| pid.is_ok()));
        world.image = 1;
        assert!(world.try_spawn(top).is_ok(), "the first one is in use");
    }
    let objects = world.fake.objects.values();
    let templates = objects.filter(|object| matches!(object, Object::Template { .. }));
    assert_eq!(templates.count(), 16);
}

#[test]
fn a_template_that_costs_much_is_not_kept() {
    let (mut world, top) = World::with_image(1);
    for (pages, kept) in [(256, true), (257, false)] {
        world.image += 1;
        world.fake.template_pages = pages;
        assert_eq!(world.try_spawn(top), Err(No::Yet));
        let loader = world.newest();
        assert_eq!(world.loaded(loader), Err(No::Yet));
        assert!(world.late::<u32>(top).is_some_and(|pid| pid.is_ok()));
        assert_eq!(world.try_spawn(top).is_ok(), kept, "{pages} pages");
    }
}

#[test]
fn a_process_that_finds_no_memory_gets_that_of_templates() {
    let (mut world, top) = World::with_image(1);
    world.fake.templates_take_all = true;
    assert!(world.try_fork(top).is_ok());
    world.fake.templates_take_all = false;
    assert_eq!(world.try_spawn(top), Err(No::Yet), "the template is gone");
}

#[test]
fn a_fault_for_want_of_memory_ends_nobody_as_long_as_there_are_templates() {
    let fault = FaultMessage {
        kind: FaultKind::OutOfMemory,
        address: 0x7000,
        access: 1,
        instruction_pointer: 0x40_1000,
        stack_pointer: 0,
        code: 0,
    };
    let (mut world, top) = World::with_image(1);
    let (pid, child) = world.fork(top);
    assert_eq!(world.fault(0xdead, &fault), Faulted::NoProcess);
    assert!(world.try_spawn(top).is_ok(), "a stranger's is no reason");
    assert_eq!(world.fault(child, &fault), Faulted::GoesOn);
    let killed = Faulted::Ended { pid, signal: 9 };
    assert_eq!(world.fault(child, &fault), killed, "nothing is left");
    // A loader's is met in the same way.
    assert_eq!(world.try_spawn(top), Err(No::Yet), "the template is gone");
    let loader = world.newest();
    assert_eq!(world.loaded(loader), Err(No::Yet));
    world.late::<u32>(top).unwrap().unwrap();
    world.image = 2;
    assert_eq!(world.try_spawn(top), Err(No::Yet));
    let loader = world.newest();
    assert_eq!(world.fault(loader, &fault), Faulted::GoesOn);
    assert_eq!(world.loaded(loader), Err(No::Yet));
    world.late::<u32>(top).unwrap().unwrap();
}

#[test]
fn a_loader_that_finds_no_memory_begins_anew_with_that_of_templates() {
    let (mut world, top) = World::with_image(1);
    world.image = 2;
    assert_eq!(world.try_spawn(top), Err(No::Yet));
    let first = world.newest();
    world.load_failed(first, Errno::ENOMEM);
    assert!(world.late::<u32>(top).is_none());
    let second = world.newest();
    assert_ne!(first, second);
    assert!(world.fake.thread(first).is_none());
    // Now there are no others to take it from.
    world.load_failed(second, Errno::ENOMEM);
    assert_eq!(world.late::<u32>(top), Some(Err(No::Errno(Errno::ENOMEM))));
    assert_eq!(world.server.figures().loads, 0);
    world.image = 1;
    assert_eq!(world.try_spawn(top), Err(No::Yet), "its template is gone");
    let loader = world.newest();
    assert_eq!(world.loaded(loader), Err(No::Yet));
    assert!(world.late::<u32>(top).is_some_and(|pid| pid.is_ok()));
}

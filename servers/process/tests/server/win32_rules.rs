//! CreateProcess, handles, exit codes and suspension (`docs/spec/win32-process.md`), and service
//! threads (`docs/spec/linux-process.md` section 20).

use libipc::abi::{Handle, SendCap, SlotFlags};
use libipc::protocol::process::*;
use libipc::wire::Received;

use crate::fake::Object;
use crate::world::{No, Outcome, START, World, outcome};

const SUSPENDED: u32 = 4;

fn win32(error: Win32Error) -> No {
    No::Win32(error)
}

fn order(flags: u32) -> CreateProcess {
    CreateProcess {
        flags,
        start: START,
        ..CreateProcess::default()
    }
}

/// A created process: its ids, the label of its thread, and badges of the two handles.
struct Created {
    ids: ProcessIds,
    label: u64,
    process: u64,
    thread: u64,
    caps: [SendCap; 2],
}

fn create(world: &mut World, creator: u64, order: CreateProcess) -> Created {
    assert_eq!(world.try_create_process(creator, order), Err(No::Yet));
    created(world, creator)
}

/// The process that is being created last, once its image is loaded.
fn created(world: &mut World, creator: u64) -> Created {
    let label = world.newest();
    assert_eq!(world.loaded(label), Err(No::Yet));
    world.given.clear();
    let ids = world.late::<ProcessIds>(creator).unwrap().unwrap();
    let caps = [world.given[0], world.given[1]];
    let badge = |world: &World, cap: SendCap| match world.fake.objects[&cap.handle.0] {
        Object::Sender { badge, access } => {
            assert_eq!(access, 0x1f_ffff);
            badge
        }
        _ => panic!("a handle is a sender"),
    };
    Created {
        ids,
        label,
        process: badge(world, caps[0]),
        thread: badge(world, caps[1]),
        caps,
    }
}

/// The last copies of both handles go.
fn close(world: &mut World, created: &Created) {
    for (cap, badge) in created.caps.iter().zip([created.process, created.thread]) {
        world.fake.objects.remove(&cap.handle.0);
        world.server.unreferenced(&mut world.fake, badge);
    }
}

fn exit_code(world: &mut World, badge: u64) -> Outcome<u32> {
    outcome(world.client_with(0, badge, 0x1f_ffff).exit_code())
}

#[test]
fn w32_cp_03_the_answer_brings_both_handles_with_all_access_and_both_ids() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(0));
    assert!(child.process != child.thread);
    assert_eq!(exit_code(&mut world, child.process), Ok(259));
    assert_eq!(world.identity(child.label).pid * 4, child.ids.process);
}

#[test]
fn w32_cp_06_ids_are_different_multiples_of_four_from_one_space() {
    let (mut world, creator) = World::with_program();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let ids = create(&mut world, creator, order(0)).ids;
        for id in [ids.process, ids.thread] {
            assert!(id != 0 && id % 4 == 0 && seen.insert(id));
        }
    }
}

#[test]
fn w32_cp_07_a_child_is_not_reaped_and_outlives_its_creator() {
    let (mut world, top) = World::with_program();
    let (_, creator) = world.fork(top);
    let child = create(&mut world, creator, order(0));
    let pid = world.identity(child.label).pid;
    assert_eq!(
        world.wait(creator, pid as i32, 0x4000_0001),
        Err(No::Errno(Errno::ECHILD))
    );
    world.exit_group(creator, 0);
    assert!(world.fake.thread(child.label).is_some());
    close(&mut world, &child);
    outcome(world.client(child.label).exit_process(5)).unwrap_err();
    assert!(world.line(pid).is_none(), "nothing is left of it");
}

#[test]
fn w32_cp_10_the_working_directory_is_the_given_one_or_the_creators() {
    let (mut world, creator) = World::with_program();
    let own = world.fake.thread(creator).unwrap().within.fs;
    world.fake.table(own).insert(1, (777, SlotFlags::empty()));
    let inherits = create(&mut world, creator, order(0));
    let table = world.fake.thread(inherits.label).unwrap().within.fs;
    assert_eq!(world.fake.table(table)[&1].0, 777);
    let result = world.try_create_process_in(creator, order(0));
    assert_eq!(result, Err(No::Yet));
    let given = created(&mut world, creator);
    let table = world.fake.thread(given.label).unwrap().within.fs;
    assert_ne!(world.fake.table(table)[&1].0, 777);
    assert_eq!(world.fake.table(own)[&1].0, 777, "the creator's stays");
}

#[test]
fn w32_cp_12_flag_pairs_that_contradict_are_87() {
    let (mut world, creator) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    for (flags, error) in [
        (0x8 | 0x10, Win32Error::InvalidParameter),
        (0x800 | 0x1000, Win32Error::InvalidParameter),
        (0x8 | 0x10 | 0x1, Win32Error::InvalidParameter),
    ] {
        let result = world.try_create_process(creator, order(flags));
        assert_eq!(result, Err(win32(error)), "{flags:#x}");
    }
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn w32_cp_30_debugging_is_not_supported() {
    let (mut world, creator) = World::with_program();
    for flags in [1, 2] {
        let result = world.try_create_process(creator, order(flags));
        assert_eq!(result, Err(win32(Win32Error::NotSupported)));
    }
}

#[test]
fn w32_cp_48_protected_processes_are_refused() {
    let (mut world, creator) = World::with_program();
    for flags in [0x4_0000, 0x40_0000] {
        let result = world.try_create_process(creator, order(flags));
        assert_eq!(result, Err(win32(Win32Error::AccessDenied)));
    }
}

#[test]
fn w32_cp_57_unknown_flags_are_accepted() {
    let (mut world, creator) = World::with_program();
    create(&mut world, creator, order(0xf080_0000));
}

#[test]
fn w32_cp_19_the_handles_are_inheritable_on_request_only() {
    let (mut world, creator) = World::with_program();
    let inherit = u32::from(SlotFlags::INHERIT.bits());
    for (process_inherit, thread_inherit) in [(false, false), (true, false), (false, true)] {
        let child = create(
            &mut world,
            creator,
            CreateProcess {
                process_inherit,
                thread_inherit,
                ..order(0)
            },
        );
        let marks = child.caps.map(|cap| cap.options & inherit != 0);
        assert_eq!(marks, [process_inherit, thread_inherit]);
    }
}

#[test]
fn w32_inh_01_only_inheritable_handles_are_inherited_and_only_on_request() {
    let (mut world, creator) = World::with_program();
    let table = world.files_of(creator);
    world.fake.table(table).insert(4, (1, SlotFlags::INHERIT));
    world.fake.table(table).insert(7, (2, SlotFlags::empty()));
    let slots = |world: &mut World, label| -> Vec<u32> {
        let table = world.files_of(label);
        world.fake.table(table).keys().copied().collect()
    };
    let child = create(&mut world, creator, order(0));
    assert!(slots(&mut world, child.label).is_empty());
    let inheriting = CreateProcess {
        inherit_handles: true,
        ..order(0)
    };
    let child = create(&mut world, creator, inheriting);
    assert_eq!(slots(&mut world, child.label), [4]);
}

#[test]
fn w32_inh_02_an_inherited_handle_keeps_its_number_and_its_mark() {
    let (mut world, creator) = World::with_program();
    let table = world.files_of(creator);
    world.fake.table(table).insert(9, (42, SlotFlags::INHERIT));
    let inheriting = CreateProcess {
        inherit_handles: true,
        ..order(0)
    };
    let child = create(&mut world, creator, inheriting);
    let own = world.files_of(child.label);
    assert_eq!(world.fake.table(own)[&9], (42, SlotFlags::INHERIT));
}

#[test]
fn ids_and_handles_are_published_only_after_the_loader_reports() {
    let (mut world, creator) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    assert_eq!(world.try_create_process(creator, order(0)), Err(No::Yet));
    let loader = world.newest();
    let listed = (0..100).filter(|pid| world.line(*pid).is_some()).count();
    assert_eq!(listed, 3, "init, the service root, the creator");
    world.load_failed(loader, Errno::ENOEXEC);
    assert_eq!(
        world.late::<ProcessIds>(creator),
        Some(Err(win32(Win32Error::BadExeFormat)))
    );
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn a_creator_that_dies_takes_its_unfinished_child_along() {
    let (mut world, top) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    let (pid, creator) = world.fork(top);
    assert_eq!(world.try_create_process(creator, order(0)), Err(No::Yet));
    world.kill(top, pid as i32, 9).unwrap();
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 9)));
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn w32_hnd_08_the_handle_must_be_valid_then_of_the_type_then_carry_the_right() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(0));
    for (badge, access, error) in [
        (0, 0x1f_ffff, Win32Error::InvalidHandle),
        (u64::MAX, 0x1f_ffff, Win32Error::InvalidHandle),
        (0xdead_beef << 30, 0x1f_ffff, Win32Error::InvalidHandle),
        (child.thread, 0x1f_ffff, Win32Error::InvalidHandle),
        (child.thread, 0, Win32Error::InvalidHandle),
        (child.process, 0x1f_fffe, Win32Error::AccessDenied),
    ] {
        let result = world.client_with(0, badge, access).terminate_process(1);
        assert_eq!(outcome(result), Err(win32(error)), "{badge:#x} {access:#x}");
    }
}

#[test]
fn w32_hnd_30_terminate_needs_its_right_and_the_target_lives_without_it() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(0));
    let result = world
        .client_with(0, child.process, 0x1000)
        .terminate_process(1);
    assert_eq!(outcome(result), Err(win32(Win32Error::AccessDenied)));
    assert!(world.fake.thread(child.label).is_some());
    let result = world
        .client_with(0, child.process, 0x1)
        .terminate_process(7);
    assert_eq!(outcome(result), Ok(()));
    assert_eq!(exit_code(&mut world, child.process), Ok(7));
}

#[test]
fn w32_hnd_31_the_exit_code_needs_a_right_to_query() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(0));
    for (access, result) in [
        (0x1000, Ok(259)),
        (0x400, Ok(259)),
        (0x1, Err(win32(Win32Error::AccessDenied))),
    ] {
        let code = world.client_with(0, child.process, access).exit_code();
        assert_eq!(outcome(code), result);
    }
}

#[test]
fn w32_hnd_32_waiting_needs_synchronize() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(0));
    let mut received = Received::new();
    let result = world
        .client_with(0, child.process, 0xf_ffff)
        .wait_object(&mut received);
    assert_eq!(outcome(result), Err(win32(Win32Error::AccessDenied)));
}

#[test]
fn w32_hnd_14_closing_the_handles_does_not_end_the_process() {
    let (mut world, creator) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    let child = create(&mut world, creator, order(0));
    close(&mut world, &child);
    assert!(world.fake.thread(child.label).is_some());
    outcome(world.client(child.label).exit_process(1)).unwrap_err();
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn w32_exit_08_the_first_end_counts() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(0));
    let terminate = |world: &mut World, code| {
        outcome(
            world
                .client_with(0, child.process, 1)
                .terminate_process(code),
        )
    };
    assert_eq!(terminate(&mut world, 7), Ok(()));
    assert_eq!(
        terminate(&mut world, 8),
        Err(win32(Win32Error::AccessDenied))
    );
    assert_eq!(exit_code(&mut world, child.process), Ok(7));
    assert_eq!(exit_code(&mut world, child.thread), Ok(7), "W32-EXIT-05");
}

#[test]
fn w32_exit_05_a_process_may_terminate_itself_by_handle_and_does_not_return() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(0));
    let result = world
        .client_with(child.label, child.process, 1)
        .terminate_process(33);
    assert_eq!(outcome(result), Err(No::Yet));
    assert_eq!(exit_code(&mut world, child.process), Ok(33));
}

#[test]
fn w32_exit_16_exit_codes_have_32_bits() {
    let (mut world, creator) = World::with_program();
    for code in [0xdead_beef, 259, 0, u32::MAX] {
        let child = create(&mut world, creator, order(0));
        outcome(world.client(child.label).exit_process(code)).unwrap_err();
        assert_eq!(exit_code(&mut world, child.process), Ok(code));
        assert_eq!(exit_code(&mut world, child.thread), Ok(code));
    }
}

#[test]
fn w32_exit_17_a_fault_ends_with_the_exceptions_code() {
    let (mut world, creator) = World::with_program();
    for (kind, code) in [
        (1, 0xc000_0005),
        (4, 0xc000_0094),
        (3, 0xc000_001d),
        (5, 0x8000_0003),
    ] {
        let child = create(&mut world, creator, order(0));
        let words = [kind, 0, 0, 0, 0, 0, 0, 0];
        let fault = libipc::abi::FaultMessage::from_words(words).unwrap();
        world.fault(child.label, &fault);
        assert_eq!(exit_code(&mut world, child.process), Ok(code));
    }
}

#[test]
fn w32_exit_18_the_object_and_its_numbers_stay_while_a_handle_is_open() {
    let mut world = World::with_pid_max(320);
    let (_, creator) = world.first_program();
    let before = (world.server.figures(), world.fake.census());
    let child = create(&mut world, creator, order(0));
    outcome(world.client(child.label).exit_process(1)).unwrap_err();
    let taken = [child.ids.process / 4, child.ids.thread / 4];
    for _ in 0..700 {
        let (pid, label) = world.fork(creator);
        assert!(!taken.contains(&pid));
        world.exit(label, 0);
        world.wait(creator, -1, 0).unwrap();
    }
    assert_eq!(
        world.kill(creator, taken[0] as i32, 0),
        Err(No::Errno(Errno::ESRCH))
    );
    close(&mut world, &child);
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

fn wait_object(world: &mut World, badge: u64) -> Handle {
    let mut received = Received::new();
    let result = world
        .client_with(0, badge, 0x10_0000)
        .wait_object(&mut received);
    outcome(result).unwrap();
    received[0]
}

fn bits(world: &World, notification: Handle) -> u64 {
    match world.fake.objects[&notification.0] {
        Object::Notification { bits } => bits,
        _ => panic!("a notification"),
    }
}

#[test]
fn w32_wait_04_process_and_thread_are_signalled_at_their_end_for_ever() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(0));
    let process = wait_object(&mut world, child.process);
    assert_eq!(bits(&world, process), 0);
    outcome(world.client(child.label).exit_process(1)).unwrap_err();
    assert_eq!(bits(&world, process), 1);
    let thread = wait_object(&mut world, child.thread);
    assert_eq!(bits(&world, thread), 1, "made after the end");
    assert_eq!(
        wait_object(&mut world, child.process),
        process,
        "one object, one notification"
    );
}

fn suspend(world: &mut World, badge: u64) -> Outcome<u32> {
    outcome(world.client_with(0, badge, 2).suspend_thread())
}

fn resume(world: &mut World, badge: u64) -> Outcome<u32> {
    outcome(world.client_with(0, badge, 2).resume_thread())
}

#[test]
fn w32_thr_11_suspend_and_resume_return_the_count_before() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(SUSPENDED));
    assert_eq!(suspend(&mut world, child.thread), Ok(1));
    assert_eq!(resume(&mut world, child.thread), Ok(2));
    assert_eq!(world.fake.thread(child.label).unwrap().suspends, 1);
    assert_eq!(resume(&mut world, child.thread), Ok(1));
    assert_eq!(world.fake.thread(child.label).unwrap().suspends, 0);
    assert_eq!(resume(&mut world, child.thread), Ok(0));
}

#[test]
fn w32_thr_12_a_suspended_child_has_run_nothing_and_can_be_terminated() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(SUSPENDED));
    assert_eq!(world.fake.thread(child.label).unwrap().suspends, 1);
    assert_eq!(exit_code(&mut world, child.process), Ok(259));
    assert_eq!(exit_code(&mut world, child.thread), Ok(259));
    let ended = wait_object(&mut world, child.process);
    outcome(world.client_with(0, child.process, 1).terminate_process(9)).unwrap();
    assert_eq!(bits(&world, ended), 1);
}

#[test]
fn w32_thr_13_the_suspend_count_ends_at_127() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(0));
    for count in 0..127 {
        assert_eq!(suspend(&mut world, child.thread), Ok(count));
    }
    assert_eq!(
        suspend(&mut world, child.thread),
        Err(win32(Win32Error::SignalRefused))
    );
}

#[test]
fn w32_thr_14_an_ended_thread_is_not_suspended_and_resuming_it_is_0() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(0));
    outcome(world.client(child.label).exit_process(1)).unwrap_err();
    assert_eq!(
        suspend(&mut world, child.thread),
        Err(win32(Win32Error::AccessDenied))
    );
    assert_eq!(resume(&mut world, child.thread), Ok(0));
}

#[test]
fn a_handle_cannot_be_used_for_calls_for_oneself() {
    let (mut world, creator) = World::with_program();
    let child = create(&mut world, creator, order(0));
    let result = world.client_with(creator, child.process, u32::MAX).fork();
    assert_eq!(outcome(result), Err(No::Denied));
    let result = world.client_with(creator, 0, access::INSPECT).fork();
    assert_eq!(outcome(result), Err(No::Denied));
    let result = world.client_with(12345, 0, u32::MAX).fork();
    assert_eq!(outcome(result), Err(No::Denied), "a label that is nobody's");
}

// Service threads.

fn service(world: &mut World, creator: u64) -> (u32, u64) {
    let name = *b"counter\0\0\0\0\0\0\0\0\0";
    let pid = world
        .client(creator)
        .service_create(name, 0x40_2000, 7, 0x9000)
        .unwrap();
    (pid, world.newest())
}

fn stop(world: &mut World, label: u64, pid: u32) -> Outcome<i32> {
    outcome(world.client(label).service_stop(pid))
}

#[test]
fn lx_kthread_02_a_service_thread_is_a_child_of_pid_2_in_its_creators_memory() {
    let (mut world, creator) = World::with_program();
    let (pid, label) = service(&mut world, creator);
    let line = world.line(pid).unwrap();
    assert_eq!((line.ppid, line.pgid, line.sid), (2, 0, 0));
    assert_eq!(line.name.0.as_slice(), b"counter");
    assert_eq!(world.space_of(label), world.space_of(creator));
    let files = world.files_of(label);
    assert!(world.fake.table(files).is_empty());
}

#[test]
fn lx_kthread_03_a_service_thread_takes_no_signals_and_does_not_exec() {
    let (mut world, creator) = World::with_program();
    let (pid, label) = service(&mut world, creator);
    for signal in 1..=64 {
        assert_eq!(world.kill(creator, pid as i32, signal), Ok(()));
    }
    assert_eq!(world.state(pid), Some('S'));
    assert_eq!(
        outcome(world.client(creator).setpgid(pid as i32, 0)),
        Err(No::Errno(Errno::ESRCH))
    );
    world.client(creator).service_wake(pid).unwrap();
    assert_eq!(world.try_exec(label), Err(No::Errno(Errno::EINVAL)));
}

#[test]
fn lx_kthread_05_it_does_not_run_before_it_is_woken() {
    let (mut world, creator) = World::with_program();
    let (pid, label) = service(&mut world, creator);
    assert_eq!(world.fake.thread(label).unwrap().suspends, 1);
    assert_eq!(world.fake.thread(label).unwrap().started, None);
    world.client(creator).service_wake(pid).unwrap();
    let thread = world.fake.thread(label).unwrap();
    assert_eq!(thread.started, Some((0x40_2000, 0x9000, 7)));
    world.client(creator).service_wake(pid).unwrap();
}

#[test]
fn lx_kthread_09_stopped_before_it_was_woken_its_function_never_runs() {
    let (mut world, creator) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    let (pid, _) = service(&mut world, creator);
    assert_eq!(stop(&mut world, creator, pid), Ok(-4));
    assert_eq!((world.server.figures(), world.fake.census()), before);
    assert_eq!(stop(&mut world, creator, pid), Err(No::Errno(Errno::ESRCH)));
}

#[test]
fn lx_kthread_11_stop_waits_for_the_result() {
    let (mut world, creator) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    let (pid, label) = service(&mut world, creator);
    world.client(creator).service_wake(pid).unwrap();
    let polled = outcome(world.client(label).service_should_stop(false));
    assert_eq!(polled, Ok(false));
    let waits = outcome(world.client(label).service_should_stop(true));
    assert_eq!(waits, Err(No::Yet));
    assert_eq!(stop(&mut world, creator, pid), Err(No::Yet));
    assert_eq!(world.late(label), Some(Ok(true)));
    let polled = outcome(world.client(label).service_should_stop(true));
    assert_eq!(polled, Ok(true));
    assert_eq!(outcome(world.client(label).service_exit(42)), Err(No::Yet));
    assert_eq!(world.late(creator), Some(Ok(42)));
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn lx_kthread_11_one_that_ended_by_itself_keeps_its_result_while_its_maker_lives() {
    let (mut world, top) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    let (maker_pid, maker) = world.fork(top);
    let end = |world: &mut World, result| {
        let (pid, label) = service(world, maker);
        world.client(maker).service_wake(pid).unwrap();
        outcome(world.client(label).service_exit(result)).unwrap_err();
        pid
    };
    let (first, second) = (end(&mut world, 5), end(&mut world, 6));
    assert_eq!(world.state(first), Some('Z'));
    world.client(maker).service_wake(first).unwrap();
    assert_eq!(stop(&mut world, maker, first), Ok(5));
    assert_eq!(stop(&mut world, maker, first), Err(No::Errno(Errno::ESRCH)));
    assert_eq!(world.state(second), Some('Z'));
    world.exit(maker, 0);
    assert!(
        world.line(second).is_none(),
        "nobody can ask for it any more"
    );
    assert_eq!(world.wait(top, -1, 0), Ok((maker_pid, 0)));
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn lx_kthread_06_one_that_its_maker_has_not_woken_goes_with_it() {
    let (mut world, top) = World::with_program();
    let before = (world.server.figures(), world.fake.census());
    let (maker_pid, maker) = world.fork(top);
    let (never, _) = service(&mut world, maker);
    let (woken, label) = service(&mut world, maker);
    world.client(maker).service_wake(woken).unwrap();
    world.kill(top, maker_pid as i32, 9).unwrap();
    assert!(world.line(never).is_none());
    assert!(world.line(woken).is_some());
    outcome(world.client(label).service_exit(0)).unwrap_err();
    assert!(world.line(woken).is_none());
    assert_eq!(world.wait(top, -1, 0), Ok((maker_pid, 9)));
    assert_eq!((world.server.figures(), world.fake.census()), before);
}

#[test]
fn lx_kthread_12_should_stop_is_for_service_threads_only() {
    let (mut world, creator) = World::with_program();
    let result = outcome(world.client(creator).service_should_stop(false));
    assert_eq!(result, Err(No::Errno(Errno::EINVAL)));
    let result = outcome(world.client(creator).service_exit(0));
    assert_eq!(result, Err(No::Errno(Errno::EINVAL)));
    let (pid, label) = service(&mut world, creator);
    world.client(creator).service_wake(pid).unwrap();
    assert_eq!(stop(&mut world, label, pid), Err(No::Errno(Errno::EINVAL)));
}

#[test]
fn lx_kthread_15_every_stopper_gets_the_result_and_a_dead_one_nothing() {
    let (mut world, top) = World::with_program();
    let (dies_pid, dies) = world.fork(top);
    let (pid, label) = service(&mut world, top);
    world.client(top).service_wake(pid).unwrap();
    assert_eq!(stop(&mut world, dies, pid), Err(No::Yet));
    assert_eq!(stop(&mut world, top, pid), Err(No::Yet));
    let (_, killer) = world.fork(label);
    world.kill(killer, dies_pid as i32, 9).unwrap();
    outcome(world.client(label).service_exit(-3)).unwrap_err();
    assert_eq!(world.late(top), Some(Ok(-3)));
}

#[test]
fn lx_init_02_pids_1_and_2_are_init_and_the_service_root() {
    let mut world = World::new();
    let names = [1, 2].map(|pid| world.line(pid).unwrap().name.0);
    assert_eq!(names[0].as_slice(), b"init");
    assert_eq!(names[1].as_slice(), b"services");
    assert_eq!(
        (world.line(1).unwrap().ppid, world.line(2).unwrap().ppid),
        (0, 0)
    );
    let init = world.init;
    let identity = world.identity(init);
    assert_eq!((identity.pgid, identity.sid), (0, 0), "LX-INIT-07");
}

#[test]
fn init_is_adopted_once() {
    let mut world = World::new();
    let init = world.init;
    let cap = SendCap::copy(Handle(1));
    let result = world.client(init).adopt_init(cap);
    assert_eq!(outcome(result), Err(No::Errno(Errno::EEXIST)));
}

#[test]
fn capabilities_of_a_process_are_listed_table_by_table() {
    let (mut world, top) = World::with_program();
    let pid = world.identity(top).pid;
    let table = world.files_of(top);
    world.fake.table(table).insert(3, (1, SlotFlags::INHERIT));
    let at = |world: &mut World, table, index| {
        outcome(world.client(top).capability_at(pid, table, index)).unwrap()
    };
    let first = at(&mut world, 0, 0).unwrap();
    assert_eq!((first.table, first.index), (0, 3));
    assert_eq!(first.flags, SlotFlags::INHERIT.bits());
    let second = at(&mut world, 0, 4).unwrap();
    assert_eq!((second.table, second.index), (1, 1));
    assert_eq!(at(&mut world, 1, 2), None);
    assert_eq!(at(&mut world, 77, 0), None);
}

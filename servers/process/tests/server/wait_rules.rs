//! wait4, signals, process groups and sessions (sections 11 to 13).

use libipc::protocol::process::{CreateProcess, Errno};

use crate::world::{No, START, World, outcome};

const WNOHANG: u32 = 1;
const WUNTRACED: u32 = 2;
const WCONTINUED: u32 = 8;
const WNOTHREAD: u32 = 0x2000_0000;
const WALL: u32 = 0x4000_0000;
const WCLONE: u32 = 0x8000_0000;
const THREAD: u64 = 0x1_0900;
const ECHILD: No = No::Errno(Errno::ECHILD);
const EINVAL: No = No::Errno(Errno::EINVAL);
const ESRCH: No = No::Errno(Errno::ESRCH);
const EPERM: No = No::Errno(Errno::EPERM);

#[test]
fn lx_wait_02_unknown_options_are_einval_and_the_smallest_number_is_esrch() {
    let (mut world, top) = World::with_program();
    world.fork(top);
    for options in [4, 0x10, 0x0100_0000] {
        assert_eq!(world.wait(top, -1, options), Err(EINVAL));
    }
    assert_eq!(world.wait(top, i32::MIN, WNOHANG), Err(ESRCH));
}

#[test]
fn lx_wait_02_a_wait_is_for_one_child_a_group_or_any() {
    let (mut world, top) = World::with_program();
    world.client(top).setsid().unwrap();
    let (a, a_label) = world.fork(top);
    let (b, b_label) = world.fork(top);
    world.client(b_label).setpgid(0, 0).unwrap();
    world.exit(b_label, 0);
    assert_eq!(world.wait(top, a as i32, WNOHANG), Ok((0, 0)));
    assert_eq!(world.wait(top, 0, WNOHANG), Ok((0, 0)), "own group: only a");
    assert_eq!(world.wait(top, -(b as i32), WNOHANG), Ok((b, 0)));
    assert_eq!(world.wait(top, -(b as i32), WNOHANG), Err(ECHILD));
    world.exit(a_label, 0);
    assert_eq!(world.wait(top, 0, WNOHANG), Ok((a, 0)));
}

#[test]
fn lx_wait_02_the_own_group_may_be_that_of_init() {
    let (mut world, top) = World::with_program();
    assert_eq!(world.identity(top).pgid, 0);
    let (pid, child) = world.fork(top);
    assert_eq!(world.wait(top, 0, WNOHANG), Ok((0, 0)));
    assert_eq!(world.wait(top, 0, 0), Err(No::Yet));
    world.exit(child, 0);
    assert_eq!(world.late_wait(top), Some(Ok((pid, 0))));
}

#[test]
fn lx_wait_04_wnohang_answers_at_once_and_without_children_it_is_echild() {
    let (mut world, top) = World::with_program();
    assert_eq!(world.wait(top, -1, WNOHANG), Err(ECHILD));
    assert_eq!(world.wait(top, -1, 0), Err(ECHILD));
    let (pid, child) = world.fork(top);
    assert_eq!(world.wait(top, -1, WNOHANG), Ok((0, 0)));
    assert_eq!(world.wait(top, -1, 0), Err(No::Yet));
    assert!(world.late_wait(top).is_none());
    world.exit(child, 2);
    assert_eq!(world.late_wait(top), Some(Ok((pid, 0x200))));
}

#[test]
fn lx_wait_05_status_words_of_stops_and_continues() {
    let (mut world, top) = World::with_program();
    let (pid, _) = world.fork(top);
    world.kill(top, pid as i32, 19).unwrap();
    assert_eq!(world.wait(top, -1, WUNTRACED), Ok((pid, 0x137f)));
    world.kill(top, pid as i32, 18).unwrap();
    assert_eq!(world.wait(top, -1, WCONTINUED), Ok((pid, 0xffff)));
}

#[test]
fn lx_wait_07_an_event_is_told_once_and_the_last_one_wins() {
    let (mut world, top) = World::with_program();
    let (pid, _) = world.fork(top);
    for signal in [19, 18, 20] {
        world.kill(top, pid as i32, signal).unwrap();
    }
    assert_eq!(world.wait(top, -1, WNOHANG), Ok((0, 0)), "not asked for");
    let all = WUNTRACED | WCONTINUED | WNOHANG;
    assert_eq!(world.wait(top, -1, all), Ok((pid, 20 << 8 | 0x7f)));
    assert_eq!(world.wait(top, -1, all), Ok((0, 0)));
}

#[test]
fn lx_wait_08_children_are_told_in_the_order_of_their_creation() {
    let (mut world, top) = World::with_program();
    let children: Vec<(u32, u64)> = (0..4).map(|_| world.fork(top)).collect();
    for (_, label) in children.iter().rev() {
        world.exit(*label, 0);
    }
    for (pid, _) in children {
        assert_eq!(world.wait(top, -1, 0), Ok((pid, 0)));
    }
}

#[test]
fn lx_wait_09_children_of_sibling_threads_count_unless_wnothread() {
    let (mut world, main) = World::with_program();
    world.clone(main, THREAD).unwrap();
    let sibling = world.newest();
    let (pid, child) = world.fork(sibling);
    assert_eq!(world.wait(main, -1, WNOTHREAD), Err(ECHILD));
    world.exit(child, 0);
    assert_eq!(world.wait(main, -1, WNOTHREAD), Err(ECHILD));
    assert_eq!(world.wait(main, -1, 0), Ok((pid, 0)));
}

#[test]
fn lx_wait_10_clone_children_are_seen_with_wclone_or_wall_only() {
    for (signal, plain, clone) in [(0, false, true), (10, false, true), (17, true, false)] {
        for (options, sees) in [
            (0, plain),
            (WCLONE, clone),
            (WALL, true),
            (WALL | WCLONE, true),
        ] {
            let (mut world, top) = World::with_program();
            world.client(top).ignore_signal(10, true).unwrap();
            let pid = world.clone(top, signal).unwrap();
            let expected = if sees { Ok((0, 0)) } else { Err(ECHILD) };
            assert_eq!(world.wait(top, -1, options | WNOHANG), expected);
            let child = world.newest();
            world.exit(child, 0);
            let expected = if sees { Ok((pid, 0)) } else { Err(ECHILD) };
            assert_eq!(world.wait(top, -1, options | WNOHANG), expected);
        }
    }
}

#[test]
fn lx_wait_11_a_cancelled_wait_is_eintr_once() {
    let (mut world, top) = World::with_program();
    let (pid, child) = world.fork(top);
    assert_eq!(world.wait(top, -1, 0), Err(No::Yet));
    world.cancel(top);
    assert_eq!(world.late_wait(top), Some(Err(No::Errno(Errno::EINTR))));
    world.cancel(top);
    world.exit(child, 0);
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 0)));
}

#[test]
fn lx_wait_12_with_sigchld_ignored_children_vanish_and_waits_end_with_echild() {
    let (mut world, top) = World::with_program();
    let (_, before) = world.fork(top);
    world.exit(before, 0);
    world.client(top).ignore_signal(17, true).unwrap();
    assert!(
        world.wait(top, -1, WNOHANG).is_ok(),
        "made before the change"
    );
    let (first, a) = world.fork(top);
    let (_, b) = world.fork(top);
    assert_eq!(world.wait(top, -1, 0), Err(No::Yet));
    world.exit(a, 0);
    assert!(world.late_wait(top).is_none());
    world.exit(b, 0);
    assert_eq!(world.late_wait(top), Some(Err(ECHILD)));
    assert_eq!(world.kill(top, first as i32, 0), Err(ESRCH));
}

#[test]
fn lx_wait_15_threads_strangers_parents_and_oneself_are_no_children() {
    let (mut world, top) = World::with_program();
    let (own, caller) = world.fork(top);
    let tid = world.clone(caller, THREAD).unwrap();
    world.fork(caller);
    let parent = world.identity(top).pid;
    for pid in [own, tid, parent, 1, 2, 9999] {
        assert_eq!(world.wait(caller, pid as i32, WNOHANG), Err(ECHILD));
    }
}

#[test]
fn lx_wait_16_a_process_without_its_leader_is_an_existing_child() {
    let (mut world, top) = World::with_program();
    let (pid, main) = world.fork(top);
    world.clone(main, THREAD).unwrap();
    world.exit(main, 0);
    assert_eq!(world.wait(top, pid as i32, WNOHANG), Ok((0, 0)));
    world.kill(top, pid as i32, 19).unwrap();
    assert_eq!(world.wait(top, -1, WUNTRACED), Ok((pid, 0x137f)));
}

#[test]
fn lx_wait_18_one_waiter_gets_the_child_and_the_other_echild() {
    let (mut world, main) = World::with_program();
    world.clone(main, THREAD).unwrap();
    let sibling = world.newest();
    let (pid, child) = world.fork(main);
    assert_eq!(world.wait(main, -1, 0), Err(No::Yet));
    assert_eq!(world.wait(sibling, -1, 0), Err(No::Yet));
    world.exit(child, 0);
    assert_eq!(world.late_wait(main), Some(Ok((pid, 0))));
    assert_eq!(world.late_wait(sibling), Some(Err(ECHILD)));
}

#[test]
fn a_waiter_that_dies_is_owed_nothing_and_leaves_the_child_to_the_others() {
    let (mut world, main) = World::with_program();
    world.clone(main, THREAD).unwrap();
    let sibling = world.newest();
    let (pid, child) = world.fork(main);
    let loader = world.exec(sibling);
    assert_eq!(world.wait(main, -1, 0), Err(No::Yet));
    assert_eq!(world.loaded(loader), Err(No::Yet));
    world.exit(child, 0);
    assert_eq!(world.wait(loader, -1, 0), Ok((pid, 0)));
}

#[test]
fn ten_thousand_children_are_waited_for_without_looking_at_those_that_live() {
    let (mut world, top) = World::with_program();
    world.checked = false;
    let children: Vec<(u32, u64)> = (0..10_000).map(|_| world.fork(top)).collect();
    let begin = std::time::Instant::now();
    for _ in 0..10_000 {
        assert_eq!(world.wait(top, -1, WNOHANG), Ok((0, 0)));
    }
    let looking = begin.elapsed();
    assert!(looking.as_millis() < 2_000, "{looking:?} for 10,000 looks");
    let (pid, label) = children[9_999];
    world.checked = true;
    world.exit(label, 0);
    assert_eq!(world.wait(top, -1, WNOHANG), Ok((pid, 0)));
}

#[test]
fn lx_sig_01_signal_numbers_end_at_64_and_0_only_looks() {
    let (mut world, top) = World::with_program();
    let (pid, _) = world.fork(top);
    assert_eq!(world.kill(top, pid as i32, 65), Err(EINVAL));
    assert_eq!(world.kill(top, pid as i32, u32::MAX), Err(EINVAL));
    assert_eq!(world.kill(top, pid as i32, 0), Ok(()));
    assert_eq!(world.kill(top, 9999, 0), Err(ESRCH));
    assert_eq!(world.wait(top, -1, WNOHANG), Ok((0, 0)));
}

#[test]
fn lx_sig_02_minus_one_is_everybody_but_init_and_the_caller() {
    let mut world = World::new();
    let init = world.init;
    let (_, top) = world.first_program();
    let (_, a) = world.fork(top);
    let (_, b) = world.fork(a);
    assert_eq!(world.kill(b, i32::MIN, 9), Err(ESRCH));
    assert_eq!(world.kill(b, -1, 9), Ok(()));
    assert!(world.fake.thread(b).is_some());
    assert!(world.fake.thread(init).is_some());
    assert!(world.fake.thread(a).is_none() && world.fake.thread(top).is_none());
    assert_eq!(world.identity(b).ppid, 1);
}

#[test]
fn lx_sig_02_a_group_is_killed_as_one() {
    let (mut world, top) = World::with_program();
    let (group, leader) = world.fork(top);
    world.client(leader).setpgid(0, 0).unwrap();
    let (_, member) = world.fork(leader);
    assert_eq!(world.kill(top, -(group as i32), 15), Ok(()));
    assert!(world.fake.thread(leader).is_none() && world.fake.thread(member).is_none());
    assert!(world.fake.thread(top).is_some());
    assert_eq!(world.wait(top, -1, 0), Ok((group, 15)));
    let init = world.init;
    while world.wait(init, -1, WNOHANG).is_ok_and(|(pid, _)| pid != 0) {}
    assert_eq!(world.kill(top, -(group as i32), 15), Err(ESRCH));
}

#[test]
fn lx_sig_02_zero_is_the_callers_group_and_the_caller_does_not_return() {
    let (mut world, top) = World::with_program();
    let (pid, leader) = world.fork(top);
    world.client(leader).setpgid(0, 0).unwrap();
    world.fork(leader);
    assert_eq!(world.kill(leader, 0, 9), Err(No::Yet));
    assert_eq!(world.wait(top, -1, 0), Ok((pid, 9)));
}

#[test]
fn lx_sig_04_kill_and_stop_cannot_be_ignored() {
    let (mut world, top) = World::with_program();
    for signal in [0, 9, 19, 65] {
        let result = outcome(world.client(top).ignore_signal(signal, true));
        assert_eq!(result, Err(EINVAL));
    }
}

#[test]
fn lx_sig_07_an_ignored_signal_is_discarded() {
    let (mut world, top) = World::with_program();
    let (pid, child) = world.fork(top);
    world.client(child).ignore_signal(15, true).unwrap();
    world.kill(top, pid as i32, 15).unwrap();
    for signal in [17, 23, 28] {
        world.kill(top, pid as i32, signal).unwrap();
    }
    assert!(world.fake.thread(child).is_some());
    world.client(child).ignore_signal(15, false).unwrap();
    assert!(world.fake.thread(child).is_some(), "not even later");
}

#[test]
fn default_actions_are_those_of_the_table() {
    for signal in 1..=64u32 {
        let (mut world, top) = World::with_program();
        let (pid, _) = world.fork(top);
        world.kill(top, pid as i32, signal).unwrap();
        let state = world.state(pid);
        let expected = match signal {
            17 | 18 | 23 | 28 => Some('R'),
            19..=22 => Some('T'),
            _ => Some('Z'),
        };
        assert_eq!(state, expected, "signal {signal}");
    }
}

#[test]
fn lx_sig_10_continue_takes_away_pending_stops() {
    let (mut world, top) = World::with_program();
    let (pid, child) = world.fork(top);
    for signal in [19, 20, 21, 18] {
        world.kill(top, pid as i32, signal).unwrap();
    }
    assert_eq!(world.state(pid), Some('R'));
    assert_eq!(world.fake.thread(child).unwrap().suspends, 0);
}

#[test]
fn lx_sig_11_a_stopped_process_takes_only_kill_and_continue_at_once() {
    let (mut world, top) = World::with_program();
    let (a, _) = world.fork(top);
    let (b, _) = world.fork(top);
    for pid in [a, b] {
        world.kill(top, pid as i32, 19).unwrap();
        world.kill(top, pid as i32, 15).unwrap();
        assert_eq!(world.state(pid), Some('T'));
    }
    world.kill(top, a as i32, 9).unwrap();
    assert_eq!(world.wait(top, a as i32, 0), Ok((a, 9)));
    world.kill(top, b as i32, 18).unwrap();
    assert_eq!(world.wait(top, b as i32, 0), Ok((b, 15)));
}

#[test]
fn lx_sig_12_a_stop_holds_every_thread() {
    let (mut world, top) = World::with_program();
    let (pid, main) = world.fork(top);
    world.clone(main, THREAD).unwrap();
    let second = world.newest();
    assert_eq!(world.wait(top, -1, WUNTRACED), Err(No::Yet));
    world.kill(top, pid as i32, 19).unwrap();
    world.kill(top, pid as i32, 19).unwrap();
    for label in [main, second] {
        assert_eq!(world.fake.thread(label).unwrap().suspends, 1);
    }
    assert_eq!(world.late_wait(top), Some(Ok((pid, 0x137f))));
}

#[test]
fn lx_sig_15_init_and_service_root_take_no_signals() {
    let (mut world, top) = World::with_program();
    let init = world.init;
    for signal in 1..=64 {
        assert_eq!(world.kill(top, 1, signal), Ok(()));
        assert_eq!(world.kill(top, 2, signal), Ok(()));
        assert_eq!(world.kill(init, 1, signal), Ok(()));
    }
    assert_eq!(world.state(1), Some('R'));
    assert_eq!(world.state(2), Some('S'));
}

#[test]
fn lx_sig_17_a_fault_ends_even_init() {
    let mut world = World::new();
    let init = world.init;
    let fault = libipc::abi::FaultMessage::from_words([1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    world.fault(init, &fault);
    assert_eq!(world.fake.init_status, Some(11));
}

#[test]
fn lx_sig_19_a_group_kill_during_a_creation_reaches_the_child() {
    for signal in [9, 15] {
        let (mut world, top) = World::with_program();
        let (group, creator) = world.fork(top);
        world.client(creator).setpgid(0, 0).unwrap();
        world.client(creator).ignore_signal(15, true).unwrap();
        let order = CreateProcess {
            start: START,
            ..CreateProcess::default()
        };
        assert_eq!(world.try_create_process(creator, order), Err(No::Yet));
        let loader = world.newest();
        world.kill(top, -(group as i32), signal).unwrap();
        if signal == 9 {
            assert!(
                world.fake.thread(loader).is_none(),
                "it died with its creator"
            );
            continue;
        }
        assert_eq!(world.loaded(loader), Err(No::Yet));
        assert!(
            world
                .late::<libipc::protocol::process::ProcessIds>(creator)
                .is_some()
        );
        assert!(
            world.fake.thread(loader).is_none(),
            "it ends before its first instruction"
        );
    }
}

#[test]
fn lx_sig_20_dispositions_survive_fork_and_pending_signals_do_not() {
    let (mut world, top) = World::with_program();
    let (pid, parent) = world.fork(top);
    world.kill(top, pid as i32, 19).unwrap();
    world.kill(top, pid as i32, 15).unwrap();
    let (_, child) = world.fork(parent);
    world.kill(top, pid as i32, 18).unwrap();
    assert!(world.fake.thread(parent).is_none());
    assert!(world.fake.thread(child).is_some());
}

#[test]
fn lx_pgrp_01_a_child_inherits_group_and_session() {
    let (mut world, top) = World::with_program();
    world.client(top).setsid().unwrap();
    let (_, child) = world.fork(top);
    let (own, childs) = (world.identity(top), world.identity(child));
    assert_eq!((own.pgid, own.sid), (own.pid, own.pid));
    assert_eq!((childs.pgid, childs.sid), (own.pgid, own.sid));
}

fn setpgid(world: &mut World, label: u64, pid: i32, pgid: i32) -> Result<(), No> {
    outcome(world.client(label).setpgid(pid, pgid))
}

#[test]
fn lx_pgrp_02_setpgid_is_for_oneself_and_ones_children() {
    let (mut world, top) = World::with_program();
    let (_, child) = world.fork(top);
    let (grandchild, _) = world.fork(child);
    let tid = world.clone(top, THREAD).unwrap();
    for (pid, pgid, no) in [
        (0, -5, EINVAL),
        (9999, 0, ESRCH),
        (-3, 0, ESRCH),
        (tid as i32, 0, EINVAL),
        (1, 0, ESRCH),
        (2, 0, ESRCH),
        (grandchild as i32, 0, ESRCH),
    ] {
        assert_eq!(setpgid(&mut world, top, pid, pgid), Err(no), "{pid} {pgid}");
    }
}

#[test]
fn lx_pgrp_03_sessions_and_unknown_groups_are_eperm() {
    let (mut world, top) = World::with_program();
    let (pid, child) = world.fork(top);
    assert_eq!(setpgid(&mut world, top, pid as i32, 9999), Err(EPERM));
    assert_eq!(setpgid(&mut world, top, pid as i32, 0), Ok(()));
    assert_eq!(
        setpgid(&mut world, top, 0, pid as i32),
        Ok(()),
        "joins the child's"
    );
    let (leader, own_session) = world.fork(top);
    world.client(own_session).setsid().unwrap();
    assert_eq!(setpgid(&mut world, top, leader as i32, 0), Err(EPERM));
    assert_eq!(setpgid(&mut world, own_session, 0, 0), Err(EPERM));
    assert_eq!(setpgid(&mut world, own_session, 0, pid as i32), Err(EPERM));
    let (zombie, label) = world.fork(top);
    world.exit(label, 0);
    assert_eq!(setpgid(&mut world, top, zombie as i32, 0), Ok(()));
    assert!(world.fake.thread(child).is_some());
}

#[test]
fn lx_pgrp_04_a_child_that_has_execd_is_eacces() {
    let (mut world, top) = World::with_program();
    let (pid, child) = world.fork(top);
    let loader = world.exec(child);
    assert_eq!(world.loaded(loader), Err(No::Yet));
    assert_eq!(
        setpgid(&mut world, top, pid as i32, 0),
        Err(No::Errno(Errno::EACCES))
    );
    assert_eq!(setpgid(&mut world, loader, 0, 0), Ok(()), "itself may");
    let (grandchild, _) = world.fork(loader);
    assert_eq!(setpgid(&mut world, loader, grandchild as i32, 0), Ok(()));
}

#[test]
fn lx_pgrp_05_getpgid_and_getsid_of_others() {
    let (mut world, top) = World::with_program();
    let (pid, child) = world.fork(top);
    world.client(child).setsid().unwrap();
    assert_eq!(outcome(world.client(top).getpgid(pid as i32)), Ok(pid));
    assert_eq!(outcome(world.client(top).getsid(pid as i32)), Ok(pid));
    assert_eq!(outcome(world.client(child).getsid(0)), Ok(pid));
    assert_eq!(outcome(world.client(top).getpgid(2)), Ok(0));
    for pid in [9999, -1] {
        assert_eq!(outcome(world.client(top).getpgid(pid)), Err(ESRCH));
    }
}

#[test]
fn lx_pgrp_06_setsid_is_not_for_group_leaders() {
    let (mut world, top) = World::with_program();
    let pid = world.identity(top).pid;
    assert_eq!(outcome(world.client(top).setsid()), Ok(pid));
    assert_eq!(outcome(world.client(top).setsid()), Err(EPERM));
    // A group lives on while a member stays, and so does the refusal.
    let (leader, label) = world.fork(top);
    setpgid(&mut world, label, 0, 0).unwrap();
    world.fork(label);
    setpgid(&mut world, label, 0, pid as i32).unwrap();
    assert_ne!(world.identity(label).pgid, leader);
    assert_eq!(outcome(world.client(label).setsid()), Err(EPERM));
}

#[test]
fn lx_pgrp_07_a_pipeline_may_be_joined_after_its_first_process_has_ended() {
    let (mut world, shell) = World::with_program();
    world.client(shell).setsid().unwrap();
    let (first, label) = world.fork(shell);
    setpgid(&mut world, shell, first as i32, first as i32).unwrap();
    setpgid(&mut world, label, 0, first as i32).unwrap();
    world.exit(label, 0);
    let (second, _) = world.fork(shell);
    assert_eq!(
        setpgid(&mut world, shell, second as i32, first as i32),
        Ok(())
    );
    assert_eq!(world.wait(shell, -(first as i32), 0), Ok((first, 0)));
    assert_eq!(world.wait(shell, -(first as i32), WNOHANG), Ok((0, 0)));
}

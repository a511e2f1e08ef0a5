//! Random requests: bytes that are none, and orders of calls that nobody thought of.
//!
//! The second test runs the server beside a plain model (lists that are searched from the front)
//! and compares what every call comes to.

use std::collections::BTreeMap;

use libipc::abi::Handle;
use libipc::protocol::process::{CreateProcess, Errno, ProcessIds};
use libipc::protocol::startup::process::{CLIENT_BADGE, FAULT_BADGE};
use libipc::wire::Caller;
use proptest::prelude::*;

use crate::fake::Object;
use crate::world::{ALL_ACCESS, No, World};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_from_anybody_are_answered_and_break_nothing(
        requests in prop::collection::vec(
            (any::<u8>(), prop::collection::vec(any::<u8>(), 0..60), 0usize..5, 0u8..6), 1..40)
    ) {
        let (mut world, top) = World::with_program();
        let (_, child) = world.fork(top);
        let loader = world.exec(child);
        for (method, mut bytes, caps, who) in requests {
            bytes.insert(0, method % 96);
            let (label, badge) = match who {
                0 => (top, CLIENT_BADGE),
                1 => (loader, CLIENT_BADGE),
                2 => (world.newest(), CLIENT_BADGE),
                3 => (0, CLIENT_BADGE),
                4 => (top, u64::from(method) << 25 | 2),
                _ => (top, FAULT_BADGE),
            };
            // A thread that waits for an answer may call again: under its label, another one.
            if label != 0 && world.fake.thread(label).is_none() {
                continue;
            }
            world.fake.answers.remove(&label);
            let mut caller = Caller::new(label, badge, ALL_ACCESS);
            for _ in 0..caps.min(4) {
                let _ = caller.received.push(world.window());
            }
            world.dispatch(&mut caller, &bytes);
        }
    }
}

/// What a step does; the numbers pick among whoever is there.
#[derive(Clone, Debug)]
enum Step {
    Fork(usize),
    Vfork(usize),
    Thread(usize),
    Sibling(usize),
    Exit(usize, i32),
    ExitGroup(usize, i32),
    Wait(usize, i32, bool),
    Kill(usize, usize, u32),
    KillGroup(usize, u32),
    Exec(usize),
    Spawn(usize),
    Create(usize),
    Loaded(usize),
    LoadFailed(usize),
    Subreaper(usize, bool),
    NewGroup(usize),
    NewSession(usize),
    IgnoreChildren(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let who = 0usize..64;
    prop_oneof![
        6 => who.clone().prop_map(Fork),
        3 => who.clone().prop_map(Vfork),
        3 => who.clone().prop_map(Thread),
        2 => who.clone().prop_map(Sibling),
        6 => (who.clone(), 0i32..4).prop_map(|(who, code)| Exit(who, code)),
        2 => (who.clone(), 0i32..4).prop_map(|(who, code)| ExitGroup(who, code)),
        8 => (who.clone(), -1i32..64, any::<bool>()).prop_map(|(w, p, h)| Wait(w, p, h)),
        3 => (who.clone(), 0usize..64, prop::sample::select(vec![0u32, 9, 15, 10]))
            .prop_map(|(w, t, s)| Kill(w, t, s)),
        1 => (who.clone(), prop::sample::select(vec![9u32, 15])).prop_map(|(w, s)| KillGroup(w, s)),
        3 => who.clone().prop_map(Exec),
        2 => who.clone().prop_map(Spawn),
        2 => who.clone().prop_map(Create),
        5 => who.clone().prop_map(Loaded),
        2 => who.clone().prop_map(LoadFailed),
        1 => (who.clone(), any::<bool>()).prop_map(|(w, on)| Subreaper(w, on)),
        1 => who.clone().prop_map(NewGroup),
        1 => who.clone().prop_map(NewSession),
        1 => (who, any::<bool>()).prop_map(|(w, on)| IgnoreChildren(w, on)),
    ]
}

/// What the plain model expects a waiting thread to be told.
type Told = Result<(u32, u32), Errno>;

#[derive(Clone, Debug, PartialEq)]
enum Waits {
    Child(i32),
    Release(u64),
    Load,
}

#[derive(Clone, Debug)]
struct Task {
    label: u64,
    pid: u32,
    waits: Option<Waits>,
}

#[derive(Clone, Debug)]
struct Proc {
    pid: u32,
    parent: u32,
    group: u32,
    session: u32,
    /// When it joined its group, compared with others.
    joined: u32,
    zombie: Option<u32>,
    subreaper: bool,
    ignores_children: bool,
    win32: bool,
    /// Its exit signal is none, so a plain wait does not see it.
    hidden: bool,
}

#[derive(Clone, Debug)]
struct Loading {
    loader: u64,
    caller: u64,
    /// For a creation: whether it is a Win32 process. What it copies it copies once its image is
    /// loaded.
    child: Option<bool>,
}

/// The plain model. Processes are in order of their creation or adoption.
#[derive(Default)]
struct Plain {
    processes: Vec<Proc>,
    tasks: Vec<Task>,
    loading: Vec<Loading>,
    told: BTreeMap<u64, Told>,
    joins: u32,
}

impl Plain {
    fn process(&mut self, pid: u32) -> &mut Proc {
        self.processes
            .iter_mut()
            .find(|process| process.pid == pid)
            .expect("it is there")
    }

    fn pid_of(&self, label: u64) -> u32 {
        let task = self.tasks.iter().find(|task| task.label == label);
        task.expect("it lives").pid
    }

    fn tell(&mut self, label: u64, told: Told) {
        let task = self.tasks.iter_mut().find(|task| task.label == label);
        task.expect("a waiter lives").waits = None;
        assert!(self.told.insert(label, told).is_none());
    }

    /// Removes a thread; whoever waits for its release goes on.
    fn end_task(&mut self, label: u64) {
        let pid = self.pid_of(label);
        self.tasks.retain(|task| task.label != label);
        self.told.remove(&label);
        if let Some(at) = self.loading.iter().position(|load| load.caller == label) {
            self.loading.remove(at);
        }
        let waiter = self
            .tasks
            .iter()
            .find(|task| task.waits == Some(Waits::Release(label)))
            .map(|task| task.label);
        if let Some(waiter) = waiter {
            // The number is checked by the caller of the model: it is the answer's.
            let _ = pid;
            self.tell(waiter, Ok((u32::MAX, 0)));
        }
    }

    fn end_process(&mut self, pid: u32, status: u32) {
        let labels: Vec<u64> = self
            .tasks
            .iter()
            .filter(|task| task.pid == pid)
            .map(|task| task.label)
            .collect();
        for label in labels {
            self.end_task(label);
        }
        let reaper = self.reaper(pid);
        let orphans: Vec<u32> = self
            .processes
            .iter()
            .filter(|process| process.parent == pid)
            .map(|process| process.pid)
            .collect();
        for orphan in orphans {
            // Adopted children are the youngest.
            let at = self.processes.iter().position(|p| p.pid == orphan).unwrap();
            let mut process = self.processes.remove(at);
            process.parent = reaper;
            process.hidden = false;
            let vanishes = process.zombie.is_some() && self.process(reaper).ignores_children;
            if !vanishes {
                self.processes.push(process);
            }
        }
        self.settle(reaper);
        // Its own end is told after those of its orphans.
        self.process(pid).zombie = Some(status);
        let process = self.process(pid).clone();
        let ignored = !process.hidden && self.process(process.parent).ignores_children;
        if process.win32 || ignored {
            self.processes.retain(|other| other.pid != pid);
        }
        self.settle(process.parent);
    }

    fn reaper(&self, pid: u32) -> u32 {
        let find = |pid: u32| self.processes.iter().find(|process| process.pid == pid);
        let mut at = find(pid).map(|process| process.parent);
        while let Some(process) = at.and_then(find) {
            if process.subreaper && process.zombie.is_none() {
                return process.pid;
            }
            at = Some(process.parent);
        }
        1
    }

    fn look(&mut self, parent: u32, pid: i32) -> Option<Told> {
        let mut children = self.processes.iter().filter(|process| {
            let seen = !process.win32 && !process.hidden;
            process.parent == parent && seen && (pid == -1 || process.pid == pid as u32)
        });
        let all: Vec<Proc> = children.by_ref().cloned().collect();
        if all.is_empty() {
            return Some(Err(Errno::ECHILD));
        }
        let found = all.iter().find(|process| process.zombie.is_some())?;
        self.processes.retain(|process| process.pid != found.pid);
        Some(Ok((found.pid, found.zombie.unwrap())))
    }

    /// Answers the waiters of `parent` that can be answered.
    fn settle(&mut self, parent: u32) {
        while let Some((label, told)) = self.next_told(parent) {
            self.tell(label, told);
        }
    }

    fn next_told(&mut self, parent: u32) -> Option<(u64, Told)> {
        // Those who came first are first: `tasks` is kept in the order of waiting.
        let waiting: Vec<(u64, i32)> = self
            .tasks
            .iter()
            .filter(|task| task.pid == parent)
            .filter_map(|task| match task.waits {
                Some(Waits::Child(pid)) => Some((task.label, pid)),
                _ => None,
            })
            .collect();
        waiting
            .into_iter()
            .find_map(|(label, pid)| Some((label, self.look(parent, pid)?)))
    }

    fn wait(&mut self, label: u64, waits: Waits) {
        let at = self.tasks.iter().position(|t| t.label == label).unwrap();
        let mut task = self.tasks.remove(at);
        task.waits = Some(waits);
        self.tasks.push(task);
    }

    fn add(&mut self, label: u64, parent: u32, pid: u32, like: u32, win32: bool) {
        let like = self.process(like).clone();
        self.joins += 1;
        self.tasks.push(Task {
            label,
            pid,
            waits: None,
        });
        self.processes.push(Proc {
            pid,
            parent,
            group: like.group,
            session: like.session,
            joined: self.joins,
            zombie: None,
            subreaper: false,
            ignores_children: like.ignores_children && !win32,
            win32,
            hidden: win32,
        });
    }
}

/// Both, side by side.
struct Pair {
    world: World,
    plain: Plain,
}

impl Pair {
    fn new() -> Pair {
        let (world, label) = World::with_program();
        let mut plain = Plain::default();
        for (pid, label) in [(1, world.init), (3, label)] {
            plain.processes.push(Proc {
                pid,
                parent: if pid == 1 { 0 } else { 1 },
                group: 0,
                session: 0,
                joined: 0,
                zombie: None,
                subreaper: false,
                ignores_children: false,
                win32: false,
                hidden: false,
            });
            plain.tasks.push(Task {
                label,
                pid,
                waits: None,
            });
        }
        Pair { world, plain }
    }

    /// A thread that can make a call now; never init's only one.
    fn free(&self, who: usize) -> Option<u64> {
        let mut free: Vec<u64> = self
            .plain
            .tasks
            .iter()
            .filter(|task| task.waits.is_none() && task.pid != 1)
            .map(|task| task.label)
            .collect();
        free.sort();
        (!free.is_empty()).then(|| free[who % free.len()])
    }

    fn run(&mut self, step: Step) {
        self.carry_out(step);
        self.compare();
    }

    fn carry_out(&mut self, step: Step) {
        use Step::*;
        let who = match step {
            Loaded(who) | LoadFailed(who) => {
                let fails = matches!(step, LoadFailed(_));
                return self.finish_load(who, fails);
            }
            Fork(who) | Vfork(who) | Thread(who) | Sibling(who) | Exec(who) | Spawn(who)
            | Create(who) | NewGroup(who) | NewSession(who) => who,
            Exit(who, _) | ExitGroup(who, _) | KillGroup(who, _) => who,
            Wait(who, _, _) | Kill(who, _, _) => who,
            Subreaper(who, _) | IgnoreChildren(who, _) => who,
        };
        let Some(label) = self.free(who) else { return };
        let (world, plain) = (&mut self.world, &mut self.plain);
        let pid = plain.pid_of(label);
        let parent = plain.process(pid).parent;
        match step {
            Fork(_) => {
                let (child, new) = world.fork(label);
                plain.add(new, pid, child, pid, false);
            }
            Vfork(_) => {
                let new = world.vfork(label);
                let child = world.identity(new).pid;
                plain.add(new, pid, child, pid, false);
                plain.wait(label, Waits::Release(new));
            }
            Thread(_) => {
                world.clone(label, 0x1_0900).unwrap();
                plain.tasks.push(Task {
                    label: world.newest(),
                    pid,
                    waits: None,
                });
            }
            Sibling(_) => {
                let child = world.clone(label, 0x8000).unwrap();
                plain.add(world.newest(), parent, child, pid, false);
                // The exit signal is that of the creator.
                let creator = plain.process(pid).clone();
                plain.process(child).hidden = creator.hidden;
            }
            Exit(_, code) => {
                world.exit(label, code);
                match plain.tasks.iter().filter(|task| task.pid == pid).count() {
                    1 => plain.end_process(pid, (code as u32) << 8),
                    _ => plain.end_task(label),
                }
            }
            ExitGroup(_, code) => {
                world.exit_group(label, code);
                plain.end_process(pid, (code as u32) << 8);
            }
            Wait(_, child, hang) => {
                let result = world.wait(label, child.max(-1), u32::from(!hang));
                let child = child.max(-1);
                if child == 0 {
                    return self.undo_group_wait(label, result);
                }
                match (plain.look(pid, child), hang) {
                    (Some(Ok(told)), _) => {
                        assert_eq!(result, Ok(told));
                        plain.settle(pid);
                    }
                    (Some(Err(errno)), _) => assert_eq!(result, Err(No::Errno(errno))),
                    (None, false) => assert_eq!(result, Ok((0, 0))),
                    (None, true) => {
                        assert_eq!(result, Err(No::Yet));
                        plain.wait(label, Waits::Child(child));
                    }
                }
            }
            Kill(_, target, signal) => {
                let target = plain.processes[target % plain.processes.len()].clone();
                if target.pid == 1 {
                    return;
                }
                let result = world.kill(label, target.pid as i32, signal);
                let dies = signal != 0 && target.zombie.is_none();
                let suicide = dies && target.pid == pid;
                assert_eq!(result, if suicide { Err(No::Yet) } else { Ok(()) });
                if dies {
                    plain.end_process(target.pid, signal);
                }
            }
            KillGroup(_, signal) => {
                let group = plain.process(pid).group;
                if group == 0 {
                    return;
                }
                let mut members: Vec<Proc> = plain
                    .processes
                    .iter()
                    .filter(|process| process.group == group)
                    .cloned()
                    .collect();
                members.sort_by_key(|process| process.joined);
                assert_eq!(world.kill(label, 0, signal), Err(No::Yet));
                // Creations of members go with their creators, so nobody is left to be told.
                for member in members {
                    let there = plain.processes.iter().find(|p| p.pid == member.pid);
                    if there.is_some_and(|process| process.zombie.is_none()) {
                        plain.end_process(member.pid, signal);
                    }
                }
            }
            Exec(_) => {
                let busy = plain
                    .loading
                    .iter()
                    .any(|load| load.child.is_none() && plain.pid_of(load.caller) == pid);
                let result = world.try_exec(label);
                if busy {
                    assert_eq!(result, Err(No::Errno(Errno::EAGAIN)));
                    return;
                }
                assert_eq!(result, Err(No::Yet));
                plain.loading.push(Loading {
                    loader: world.newest(),
                    caller: label,
                    child: None,
                });
                plain.wait(label, Waits::Load);
            }
            Spawn(_) | Create(_) => {
                let win32 = matches!(step, Create(_));
                let waits = match win32 {
                    true => world
                        .try_create_process(
                            label,
                            CreateProcess {
                                start: crate::world::START,
                                ..CreateProcess::default()
                            },
                        )
                        .map(drop),
                    false => world.try_spawn(label).map(drop),
                };
                assert_eq!(waits, Err(No::Yet));
                plain.loading.push(Loading {
                    loader: world.newest(),
                    caller: label,
                    child: Some(win32),
                });
                plain.wait(label, Waits::Load);
            }
            Subreaper(_, on) => {
                world.client(label).set_subreaper(on).unwrap();
                plain.process(pid).subreaper = on;
            }
            NewGroup(_) => {
                let leads = plain.process(pid).session == pid;
                let result = world.client(label).setpgid(0, 0);
                assert_eq!(result.is_ok(), !leads);
                if !leads && plain.process(pid).group != pid {
                    plain.joins += 1;
                    let joined = plain.joins;
                    let process = plain.process(pid);
                    (process.group, process.joined) = (pid, joined);
                }
            }
            NewSession(_) => {
                let taken = plain.processes.iter().any(|process| process.group == pid);
                assert_eq!(world.client(label).setsid().is_ok(), !taken);
                if !taken {
                    plain.joins += 1;
                    let joined = plain.joins;
                    let process = plain.process(pid);
                    (process.group, process.session, process.joined) = (pid, pid, joined);
                }
            }
            IgnoreChildren(_, on) => {
                world.client(label).ignore_signal(17, on).unwrap();
                plain.process(pid).ignores_children = on;
            }
            Loaded(_) | LoadFailed(_) => {}
        }
    }

    /// A wait for the own group is not in the plain model: it is taken back.
    fn undo_group_wait(&mut self, label: u64, result: Result<(u32, u32), No>) {
        match result {
            Ok((0, _)) | Err(No::Errno(_)) => {}
            Ok((pid, _)) => {
                self.plain.processes.retain(|process| process.pid != pid);
                let parent = self.plain.pid_of(label);
                self.plain.settle(parent);
            }
            Err(_) => {
                self.world.cancel(label);
                let told = self.world.late_wait(label);
                assert_eq!(told, Some(Err(No::Errno(Errno::EINTR))));
            }
        }
    }

    fn finish_load(&mut self, who: usize, fails: bool) {
        let (world, plain) = (&mut self.world, &mut self.plain);
        if plain.loading.is_empty() {
            return;
        }
        let load = plain.loading.remove(who % plain.loading.len());
        let pid = plain.pid_of(load.caller);
        if fails {
            world.load_failed(load.loader, Errno::ENOENT);
            // Compared below: the number stands for any error.
            plain.tell(load.caller, Err(Errno::ENOENT));
            return;
        }
        assert_eq!(world.loaded(load.loader), Err(No::Yet));
        match load.child {
            None => {
                // The new thread comes first, so that the process is never without one.
                plain.tasks.push(Task {
                    label: load.loader,
                    pid,
                    waits: None,
                });
                let old: Vec<u64> = plain
                    .tasks
                    .iter()
                    .filter(|task| task.pid == pid && task.label != load.loader)
                    .map(|task| task.label)
                    .collect();
                for label in old {
                    plain.end_task(label);
                }
                plain.process(pid).hidden = false;
            }
            Some(win32) => {
                let child = world.identity(load.loader).pid;
                plain.add(load.loader, pid, child, pid, win32);
                plain.tell(load.caller, Ok((child, u32::from(win32))));
            }
        }
    }

    /// Every expected answer is there and right, and no other.
    fn compare(&mut self) {
        let (world, plain) = (&mut self.world, &mut self.plain);
        for (label, told) in std::mem::take(&mut plain.told) {
            let label = world.fake.label(label);
            let (bytes, caps) = world.fake.answers.remove(&label).expect("an answer");
            let whole = |bytes: &[u8]| bytes.first() == Some(&0);
            assert_eq!(whole(&bytes), told.is_ok(), "{told:?} {bytes:?}");
            if let Ok((pid, status)) = told {
                world.fake.answers.insert(label, (bytes, Vec::new()));
                if caps.len() == 2 {
                    let ids = world.late::<ProcessIds>(label).unwrap().unwrap();
                    assert_eq!(ids.process, pid * 4);
                    // Nobody keeps the handles.
                    for cap in caps {
                        let Handle(at) = cap.handle;
                        if let Some(Object::Sender { badge, .. }) = world.fake.objects.remove(&at) {
                            world.server.unreferenced(&mut world.fake, badge);
                        }
                    }
                } else if pid == u32::MAX {
                    assert!(world.late::<u32>(label).unwrap().is_ok());
                } else {
                    let number = world.late::<(u32,)>(label).unwrap().unwrap();
                    assert_eq!(number, (pid,));
                    let _ = status;
                }
            }
        }
        assert!(world.fake.answers.is_empty(), "nobody else is answered");
        let mut plain_list: Vec<(u32, u32, u32, bool, u32)> = plain
            .processes
            .iter()
            .map(|process| {
                let threads = plain.tasks.iter().filter(|task| task.pid == process.pid);
                (
                    process.pid,
                    process.parent,
                    process.group,
                    process.zombie.is_some(),
                    threads.count() as u32,
                )
            })
            .collect();
        plain_list.sort();
        let mut list = Vec::new();
        let mut at = 1;
        let init = world.init;
        while let Ok(Some(line)) = world.client(init).process_at(at) {
            at = line.pid + 1;
            if line.pid != 2 {
                let zombie = line.state == b'Z';
                list.push((line.pid, line.ppid, line.pgid, zombie, line.threads));
            }
        }
        assert_eq!(list, plain_list);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_calls_comes_to_what_a_plain_model_says_and_leaves_nothing(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut pair = Pair::new();
        let before = (pair.world.server.figures(), pair.world.fake.census());
        for step in steps {
            pair.run(step);
        }
        // The end of the world: everybody is killed and waited for.
        let mut world = pair.world;
        let init = world.init;
        world.fake.answers.clear();
        while world.kill(init, -1, 9).is_ok() {
            let mut left = false;
            while world.wait(init, -1, 0x4000_0001).is_ok_and(|(pid, _)| pid != 0) {
                left = true;
            }
            if !left {
                break;
            }
        }
        // The program that the world began with is gone too.
        let (figures, census) = before;
        let after = world.server.figures();
        prop_assert_eq!(after.processes, figures.processes - 1);
        prop_assert_eq!(after.threads, 1);
        prop_assert_eq!(after.loads, 0);
        prop_assert_eq!(after.numbers, figures.numbers - 1);
        prop_assert_eq!(after.groups, 1);
        let gone = world.fake.census();
        prop_assert_eq!((gone[0], gone[2], gone[3]), (1, 1, 0));
        prop_assert_eq!((gone[4], gone[5], gone[6]), (0, 0, 0));
        prop_assert_eq!(gone[1], census[1] - 3);
    }
}

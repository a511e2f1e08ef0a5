//! The model's invariants as code, for the property test.

use crate::model::*;
use crate::{ProcessServer, ready};

fn holds(condition: bool, what: &'static str) -> Result<(), &'static str> {
    condition.then_some(()).ok_or(what)
}

impl ProcessServer {
    /// Says which invariant does not hold, if one does not. Looks at every record.
    pub fn check(&self) -> Result<(), &'static str> {
        holds(
            !self.ending && self.ends.first().is_none(),
            "an end is under way",
        )?;
        let mut members = 0;
        for (id, process) in self.processes.iter() {
            if process.life == Life::Reserved {
                continue;
            }
            let known = self.pids.get(process.pid).process == Some(id);
            let buried = process.life == Life::Ended && process.parent.is_none();
            holds(known || buried, "a process is found by its number")?;
            holds(
                process.is_alive() == (process.thread_count > 0)
                    || process.kind == Kind::ServiceRoot,
                "a process lives as long as it has threads",
            )?;
            for thread in process
                .threads
                .iter(&self.threads, |thread| &thread.sibling)
            {
                members += 1;
                holds(
                    self.threads[thread].role == Role::Member(id),
                    "a thread in a process's list is its member",
                )?;
            }
            for waiter in &process.waiters {
                let owed = &self.threads[*waiter].owed;
                holds(
                    matches!(owed, Some((Owed::Wait { .. }, _))),
                    "a waiter waits",
                )?;
            }
            self.check_children(id, process)?;
        }
        let alive = |role| matches!(role, Role::Member(_));
        let threads = self.threads.iter().filter(|(_, t)| alive(t.role)).count();
        holds(
            members == threads,
            "a member thread is in its process's list",
        )?;
        for (id, thread) in self.threads.iter() {
            if let Some((Owed::Release { by, .. }, _)) = thread.owed {
                holds(
                    self.threads
                        .get(by)
                        .is_some_and(|by| by.releases == Some(id)),
                    "a vfork waiter has a releaser that knows it",
                )?;
            }
            if let Some((Owed::Load(load), _)) = thread.owed {
                holds(
                    self.loads.get(load).is_some(),
                    "a load that is owed is under way",
                )?;
            }
        }
        self.check_users()
    }

    fn check_children(&self, id: ProcessId, process: &Process) -> Result<(), &'static str> {
        let (mut plain, mut clone, mut last) = (0, 0, None);
        let mut ready = ready::iter(&self.processes, id);
        let children = process.children;
        for child in children.iter(&self.processes, |process| &process.sibling) {
            let record = &self.processes[child];
            if record.parent != Some(id) {
                return Err("a child names its parent");
            }
            if last.is_some_and(|last| last >= record.order) {
                return Err("children are in order of creation");
            }
            last = Some(record.order);
            if record.is_waitable() {
                *(if record.is_clone_child() {
                    &mut clone
                } else {
                    &mut plain
                }) += 1;
                if record.event != Event::None {
                    holds(ready.next() == Some(child), "a child with news is ready")?;
                }
            }
        }
        if (plain, clone) != (process.plain_children, process.clone_children) {
            return Err("children are counted");
        }
        holds(ready.next().is_none(), "only children with news are ready")?;
        if process.life == Life::Ended && process.children.first().is_some() {
            return Err("the dead have no children");
        }
        Ok(())
    }

    /// Shares count their users.
    fn check_users(&self) -> Result<(), &'static str> {
        let mut dispositions = 0;
        for (_, process) in self.processes.iter() {
            dispositions += u32::from(process.dispositions.is_some());
        }
        let users = |counts: &mut dyn Iterator<Item = u32>| counts.sum::<u32>();
        if users(&mut self.dispositions.iter().map(|(_, d)| d.users)) != dispositions {
            return Err("dispositions count their users");
        }
        Ok(())
    }
}

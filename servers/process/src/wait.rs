//! wait4 (`docs/spec/linux-process.md` section 11).
//!
//! A parent keeps its children with something to tell in a map ordered by creation, and counts the
//! children that each form of wait may see. So a wait looks at children that have news, never at
//! those that have none, and knows at once when there is nobody to wait for.

use libipc::protocol::process::{Errno, Waited};
use libipc::wire::Answer;

use crate::machine::Late;
use crate::model::*;
use crate::{Machine, ProcessServer, ready};

/// Do not wait.
pub const WNOHANG: u32 = 1;
/// Stopped children too.
pub const WUNTRACED: u32 = 2;
/// Continued children too.
pub const WCONTINUED: u32 = 8;
/// Only children that the calling thread made.
pub const WNOTHREAD: u32 = 0x2000_0000;
/// All kinds of children.
pub const WALL: u32 = 0x4000_0000;
/// Only clone children.
pub const WCLONE: u32 = 0x8000_0000;

const KNOWN: u32 = WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WALL | WCLONE;

impl Event {
    /// Whether a wait with these options is for it.
    fn is_wanted(self, options: u32) -> bool {
        match self {
            Event::Ended(_) => true,
            Event::Stopped(_) => options & WUNTRACED != 0,
            Event::Continued => options & WCONTINUED != 0,
            Event::None => false,
        }
    }
}

/// What a look at the children found.
enum Look {
    Found(Waited),
    NotYet,
    NoChild,
}

impl ProcessServer {
    /// wait4.
    pub fn wait4<M: Machine>(
        &mut self,
        machine: &mut M,
        (thread, process): (ThreadId, ProcessId),
        pid: i32,
        options: u32,
    ) -> Result<Answer<Waited>, Errno> {
        if options & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let selector = match pid {
            i32::MIN => return Err(Errno::ESRCH),
            -1 => Selector::Any,
            0 => Selector::Group(self.groups[self.processes[process].group].number),
            1.. => Selector::Child(pid as u32),
            _ => Selector::Group(pid.unsigned_abs()),
        };
        match self.look(machine, (thread, process), selector, options) {
            Look::Found(waited) => {
                // The other waiters may have nobody left to wait for.
                self.wake_waiters(machine, process);
                Ok(Answer::Now(waited))
            }
            Look::NoChild => Err(Errno::ECHILD),
            Look::NotYet if options & WNOHANG != 0 => Ok(Answer::Now(Waited::default())),
            Look::NotYet => {
                let waiters = &mut self.processes[process].waiters;
                waiters.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                let kept = self.keep_call(machine, thread)?;
                self.processes[process].waiters.push(thread);
                self.threads[thread].owed = Some((Owed::Wait { selector, options }, kept));
                Ok(Answer::Later)
            }
        }
    }

    /// Whether `child` is one that such a wait may see at all.
    fn is_eligible(
        &self,
        (thread, process): (ThreadId, ProcessId),
        child: &Process,
        selector: Selector,
        options: u32,
    ) -> bool {
        child.parent == Some(process)
            && child.is_waitable()
            && (options & WALL != 0 || child.is_clone_child() == (options & WCLONE != 0))
            && match selector {
                Selector::Any => true,
                Selector::Child(pid) => child.pid == pid,
                Selector::Group(number) => self.groups[child.group].number == number,
            }
            && (options & WNOTHREAD == 0 || self.is_child_of_thread(child, thread, process))
    }

    /// Whether `child` has something to tell that such a wait is for.
    fn is_news(
        &self,
        waiter: (ThreadId, ProcessId),
        child: &Process,
        selector: Selector,
        options: u32,
    ) -> bool {
        child.event.is_wanted(options) && self.is_eligible(waiter, child, selector, options)
    }

    /// A child belongs to the thread that made it; when that is gone, to the oldest thread left.
    fn is_child_of_thread(&self, child: &Process, thread: ThreadId, process: ProcessId) -> bool {
        let creator = child.creator.filter(|creator| {
            self.threads
                .get(*creator)
                .is_some_and(|creator| creator.role == Role::Member(process))
        });
        creator.or(self.processes[process].threads.first()) == Some(thread)
    }

    fn look<M: Machine>(
        &mut self,
        machine: &mut M,
        waiter: (ThreadId, ProcessId),
        selector: Selector,
        options: u32,
    ) -> Look {
        if let Selector::Child(pid) = selector {
            return self.look_at(machine, waiter, pid, options);
        }
        let parent = &self.processes[waiter.1];
        let has_news =
            |id: &ProcessId| self.is_news(waiter, &self.processes[*id], selector, options);
        let found = ready::iter(&self.processes, waiter.1).find(has_news);
        if let Some(child) = found {
            return Look::Found(self.tell(machine, waiter.1, child));
        }
        let eligible =
            |id: ProcessId| self.is_eligible(waiter, &self.processes[id], selector, options);
        let exists = match selector {
            Selector::Child(_) => unreachable!("one child is looked at by itself"),
            Selector::Group(number) => self.group_with(number).is_some_and(|group| {
                let mut members = self.groups[group]
                    .members
                    .iter(&self.processes, |process| &process.member);
                members.any(eligible)
            }),
            Selector::Any if options & WNOTHREAD != 0 => {
                let mut children = parent
                    .children
                    .iter(&self.processes, |process| &process.sibling);
                children.any(eligible)
            }
            Selector::Any if options & WALL != 0 => {
                parent.plain_children + parent.clone_children > 0
            }
            Selector::Any if options & WCLONE != 0 => parent.clone_children > 0,
            Selector::Any => parent.plain_children > 0,
        };
        match exists {
            true => Look::NotYet,
            false => Look::NoChild,
        }
    }

    /// Looks at the child with this PID, if there is one.
    fn look_at<M: Machine>(
        &mut self,
        machine: &mut M,
        waiter: (ThreadId, ProcessId),
        pid: u32,
        options: u32,
    ) -> Look {
        let Some(id) = self.pids.get(pid).process else {
            return Look::NoChild;
        };
        let child = &self.processes[id];
        if !self.is_eligible(waiter, child, Selector::Child(pid), options) {
            return Look::NoChild;
        }
        match child.event.is_wanted(options) {
            true => Look::Found(self.tell(machine, waiter.1, id)),
            false => Look::NotYet,
        }
    }

    /// Tells a child's event, once; a dead child is gone after that.
    fn tell<M: Machine>(&mut self, machine: &mut M, parent: ProcessId, child: ProcessId) -> Waited {
        let record = &mut self.processes[child];
        let event = core::mem::replace(&mut record.event, Event::None);
        let status = match event {
            Event::Ended(status) => status,
            Event::Stopped(signal) => signal << 8 | 0x7f,
            Event::Continued => 0xffff,
            Event::None => 0,
        };
        let waited = record.told(status);
        if let Event::Ended(_) = event {
            self.reap(machine, child);
        } else {
            ready::remove(&mut self.processes, parent, child);
        }
        waited
    }

    /// Answers whoever waits for children of `parent` and can be answered now.
    #[inline]
    pub(crate) fn wake_waiters<M: Machine>(&mut self, machine: &mut M, parent: ProcessId) {
        if !self.processes[parent].waiters.is_empty() {
            self.wake_each(machine, parent);
        }
    }

    fn wake_each<M: Machine>(&mut self, machine: &mut M, parent: ProcessId) {
        let mut at = 0;
        while let Some(thread) = self.processes[parent].waiters.get(at).copied() {
            let (selector, options) = self.waits_for(thread);
            let answer = match self.look(machine, (thread, parent), selector, options) {
                Look::NotYet => {
                    at += 1;
                    continue;
                }
                Look::Found(waited) => Late::Waited(waited),
                Look::NoChild => Late::Errno(Errno::ECHILD),
            };
            self.processes[parent].waiters.remove(at);
            if let Some((_, kept)) = self.threads[thread].owed.take() {
                machine.answer(kept, &answer);
            }
            // What was taken now may have been the last child that an earlier one waited for.
            at = 0;
        }
    }

    /// A child has something to tell.
    #[inline]
    pub(crate) fn report<M: Machine>(&mut self, machine: &mut M, child: ProcessId, event: Event) {
        let record = &mut self.processes[child];
        record.event = event;
        if let Some(parent) = record.parent
            && record.is_waitable()
        {
            let owner = &mut self.processes[parent];
            if !owner.waiters.is_empty() {
                self.report_to_waiters(machine, parent, child);
            } else if !ready::insert_alone(owner, child) {
                ready::insert(&mut self.processes, parent, child);
            }
        }
    }

    fn report_to_waiters<M: Machine>(
        &mut self,
        machine: &mut M,
        parent: ProcessId,
        child: ProcessId,
    ) {
        // Whoever waits has found no news, so these are the first.
        match self.waiter_for(parent, child) {
            Some((place, thread)) => {
                self.processes[parent].waiters.remove(place);
                let owed = self.threads[thread].owed.take();
                let waited = self.tell(machine, parent, child);
                if let Some((_, kept)) = owed {
                    machine.answer(kept, &Late::Waited(waited));
                }
                self.wake_waiters(machine, parent);
            }
            // Nobody who waits has less to wait for.
            None => ready::insert(&mut self.processes, parent, child),
        }
    }

    /// What a waiter waits for.
    fn waits_for(&self, thread: ThreadId) -> (Selector, u32) {
        match &self.threads[thread].owed {
            Some((Owed::Wait { selector, options }, _)) => (*selector, *options),
            _ => unreachable!("a waiter is owed an answer"),
        }
    }

    /// The first who waits for what `child` has to tell, and its place.
    fn waiter_for(&self, parent: ProcessId, child: ProcessId) -> Option<(usize, ThreadId)> {
        let waiters = self.processes[parent].waiters.iter().enumerate();
        waiters.into_iter().find_map(|(place, thread)| {
            let (selector, options) = self.waits_for(*thread);
            let child = &self.processes[child];
            self.is_news((*thread, parent), child, selector, options)
                .then_some((place, *thread))
        })
    }
}

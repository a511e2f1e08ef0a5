//! Who runs.
//!
//! The current thread is in no queue. It goes on unless it blocked, ended, was suspended, or
//! somebody of a higher priority became ready; a call hands the CPU straight to the thread that it
//! wakes, without a detour through the ready queue.
//!
//! Turns end at a tick that does not move with each switch: a switch costs no timer, and a thread's
//! first turn may be shorter than the others.

use super::Kernel;
use crate::machine::{Machine, Next};
use crate::memory::{Loadable, Memory, Ref};
use crate::object::thread::Unusual;
use crate::object::{State, Thread};
use crate::sched::timers::Owner;
use libipc::abi::{Error, NEVER};

/// Length of a turn.
const TURN_NS: u64 = 5_000_000;

impl<M: Machine> Kernel<M> {
    /// A thread may run, if nothing else keeps it from it.
    #[inline]
    pub(crate) fn make_ready(&mut self, thread: Ref<Thread>) {
        let entry = self.memory.get_mut(thread);
        entry.state = State::Ready;
        self.let_run(thread);
    }

    /// Queues a thread if it is runnable and neither queued nor running.
    #[inline]
    pub(crate) fn let_run(&mut self, thread: Ref<Thread>) {
        let entry = self.memory.get(thread);
        if !entry.is_runnable() || entry.queued || self.current() == Some(thread) {
            return;
        }
        self.queue(thread);
    }

    /// The same for a thread that is so.
    #[inline(always)]
    pub(crate) fn queue(&mut self, thread: Ref<Thread>) {
        let (cpu, memory) = self.cpu_and_memory();
        let priority = memory.get(thread).priority;
        cpu.ready.push(memory, thread);
        // If the current thread cannot go on, whoever stopped it has asked already.
        if cpu
            .current
            .is_none_or(|current| memory.get(current).priority < priority)
        {
            cpu.ready.set_undecided(true);
        }
    }

    /// A thread may run, and gets the CPU next if the current thread blocked and nobody more
    /// important wants it.
    pub(crate) fn hand_over(&mut self, thread: Ref<Thread>) {
        let entry = self.memory.get_mut(thread);
        entry.state = State::Ready;
        if entry.suspends() > 0 {
            return;
        }
        let cpu = self.cpu_mut();
        if cpu.next.is_none() {
            cpu.next = Some(thread);
            cpu.ready.set_undecided(true);
        } else {
            self.let_run(thread);
        }
    }

    /// A thread does not run until it is made ready. It may have a deadline.
    #[inline]
    pub(crate) fn block(&mut self, thread: Ref<Thread>, state: State, deadline_ns: u64) {
        self.memory.get_mut(thread).state = state;
        if deadline_ns != NEVER {
            self.start_timer(thread, deadline_ns);
        }
        self.cpu_mut().ready.set_undecided(true);
    }

    /// A thread leaves the ready queue or the CPU: it was suspended or has ended.
    pub(crate) fn stop_running(&mut self, thread: Ref<Thread>) {
        let (cpu, memory) = self.cpu_and_memory();
        if cpu.next == Some(thread) {
            cpu.next = None;
        }
        if memory.get(thread).queued {
            cpu.ready.remove(memory, thread);
        }
        if cpu.current == Some(thread) {
            cpu.ready.set_undecided(true);
        }
    }

    /// Changes a thread's priority, in the ready queue too.
    pub(crate) fn change_priority(&mut self, thread: Ref<Thread>, priority: u8) {
        let (cpu, memory) = self.cpu_and_memory();
        let queued = memory.get(thread).queued;
        if queued {
            cpu.ready.remove(memory, thread);
        }
        memory.get_mut(thread).priority = priority;
        cpu.ready.set_undecided(true);
        self.let_run(thread);
    }

    /// Whether a thread's FPU state is in the CPU.
    #[inline]
    pub(crate) fn owns_fpu(&self, thread: Ref<Thread>) -> bool {
        self.cpu().fpu == Some(thread)
    }

    /// The same as the last thing that the current thread's call does: who is next in line gets the
    /// CPU at once.
    #[inline]
    pub(crate) fn wait(&mut self, thread: Ref<Thread>, state: State, deadline_ns: u64) {
        match self.next_in_line() {
            Some(next) if deadline_ns == NEVER => {
                self.memory.get_mut(thread).state = state;
                self.switch_to_next(thread, next);
            }
            _ => self.block(thread, state, deadline_ns),
        }
    }

    #[inline(never)]
    fn start_timer(&mut self, thread: Ref<Thread>, deadline_ns: u64) {
        self.timers
            .insert(&mut self.memory, Owner::Thread(thread), deadline_ns);
        self.set_timer(deadline_ns);
    }

    /// Takes off a thread's deadline.
    #[inline]
    pub(crate) fn stop_timer(&mut self, thread: Ref<Thread>) {
        if self.memory.get(thread).unusual.contains(Unusual::TIMED) {
            self.timers.remove(&mut self.memory, Owner::Thread(thread));
        }
    }

    /// Sees to it that the timer fires at `deadline_ns` or before.
    pub(crate) fn set_timer(&mut self, deadline_ns: u64) {
        let cpu = self.cpu_mut();
        if deadline_ns < cpu.timer_ns {
            cpu.timer_ns = deadline_ns;
            self.memory.machine_mut().set_timer(Some(deadline_ns));
        }
    }

    /// The timer fired: deadlines that have come, and the end of a turn.
    pub(crate) fn timer(&mut self) {
        let now = self.memory.machine().now_ns();
        self.cpu_mut().timer_ns = NEVER;
        // At most as many as were set; each is taken off.
        while let Some(owner) = self.timers.pop_due(&mut self.memory, now) {
            match owner {
                Owner::Thread(thread) => self.abort(thread, Error::TimedOut),
                Owner::Notification(notification) => {
                    let bits = self.memory.get(notification).timer_bits;
                    self.signal_bits(notification, bits);
                }
            }
        }
        if now >= self.cpu_mut().tick_ns {
            self.end_turn();
            self.cpu_mut().tick_ns = now + TURN_NS;
        }
        self.program_timer();
    }

    /// The running thread's turn is over.
    fn end_turn(&mut self) {
        let Some(thread) = self.current() else { return };
        let entry = self.memory.get_mut(thread);
        entry.ran_ns += TURN_NS;
        if entry.is_runnable() {
            self.pass_on(thread);
        }
    }

    /// The current thread goes behind the others of its priority.
    pub(crate) fn pass_on(&mut self, thread: Ref<Thread>) {
        let (cpu, memory) = self.cpu_and_memory();
        let priority = memory.get(thread).priority;
        if cpu.ready.has_at_least(priority) {
            cpu.ready.push(memory, thread);
            cpu.current = None;
            cpu.ready.set_undecided(true);
        }
    }

    /// Sets the machine's timer to what comes first.
    fn program_timer(&mut self) {
        let earliest = self.timers.earliest(&self.memory).unwrap_or(NEVER);
        let cpu = self.cpu_mut();
        let wanted = earliest.min(cpu.tick_ns);
        if wanted != cpu.timer_ns {
            cpu.timer_ns = wanted;
            self.memory
                .machine_mut()
                .set_timer((wanted != NEVER).then_some(wanted));
        }
    }

    /// Ends an entry: cleans up, decides who runs, and makes it so.
    #[inline(always)]
    pub(crate) fn leave(&mut self) -> Next {
        let cpu = self.cpu();
        // Whatever is to be cleaned up asks for this too, except for spaces.
        if !cpu.ready.is_undecided() && self.memory.unheld_space().is_none() {
            return match cpu.current {
                Some(_) => Next::Resume,
                None => Next::Idle,
            };
        }
        self.choose()
    }

    /// Decides who runs.
    #[inline(never)]
    fn choose(&mut self) -> Next {
        if !self.is_clean() {
            return self.choose_and_clean();
        }
        self.cpu_mut().ready.set_undecided(false);
        match self.pick() {
            Some(thread) if self.run(thread) => Next::Resume,
            Some(_) => self.choose_and_clean(),
            None => self.idle(),
        }
    }

    /// The same while there are things to be cleaned up, which has a priority of its own.
    #[cold]
    fn choose_and_clean(&mut self) -> Next {
        loop {
            let clean = self.is_clean();
            if !clean && !self.is_wanted_above(self.garbage.priority) {
                if self.collect() {
                    continue;
                }
                // There is more: let interrupts in, one of which is the timer's, now.
                self.put_back();
                let next = self.idle();
                self.cpu_mut().ready.set_undecided(true);
                self.set_timer(0);
                return next;
            }
            self.cpu_mut().ready.set_undecided(!clean);
            let Some(thread) = self.pick() else {
                return self.idle();
            };
            if self.run(thread) {
                return Next::Resume;
            }
        }
    }

    /// Takes out who is to run: the current thread, or whom it handed the CPU, goes before others of
    /// its priority.
    #[inline(always)]
    fn pick(&mut self) -> Option<Ref<Thread>> {
        let (cpu, memory) = self.cpu_and_memory();
        let candidate = |memory: &Memory<M>, thread: Option<Ref<Thread>>| {
            let entry = memory.get(thread?);
            (entry.is_runnable() && !entry.queued).then_some((thread?, entry.priority))
        };
        let current = candidate(memory, cpu.current.take());
        let next = candidate(memory, cpu.next.take());
        let (first, priority) = match (current, next) {
            (Some(current), Some((next, _))) => {
                cpu.ready.push_front(memory, next);
                current
            }
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return cpu.ready.pop(memory),
        };
        if cpu.ready.has_above(priority) {
            cpu.ready.push_front(memory, first);
            return cpu.ready.pop(memory);
        }
        Some(first)
    }

    /// Whether a thread of a higher priority than this could run.
    fn is_wanted_above(&self, priority: u8) -> bool {
        let cpu = self.cpu();
        let wants = |thread: Option<Ref<Thread>>| {
            thread.is_some_and(|thread| {
                let entry = self.memory.get(thread);
                entry.is_runnable() && entry.priority > priority
            })
        };
        cpu.ready.has_above(priority) || wants(cpu.current) || wants(cpu.next)
    }

    /// Puts who runs, or was handed the CPU, before the others of its priority.
    fn put_back(&mut self) {
        let (cpu, memory) = self.cpu_and_memory();
        let (current, next) = (cpu.current.take(), cpu.next.take());
        for thread in [next, current].into_iter().flatten() {
            let entry = memory.get(thread);
            if entry.is_runnable() && !entry.queued {
                cpu.ready.push_front(memory, thread);
            }
        }
    }

    /// Makes a thread that is in no queue the current one. False if it cannot run any more.
    pub(crate) fn run(&mut self, thread: Ref<Thread>) -> bool {
        let space = self.memory.get(thread).space;
        let loaded = space.is_some_and(|space| self.memory.space_load(space).is_ok());
        if !loaded {
            // Its space has ended, so no instruction of it can be fetched.
            self.end_thread(thread);
            return false;
        }
        self.enter_thread(thread);
        if self.cpu_mut().tick_ns == NEVER {
            let due = self.memory.machine().now_ns() + TURN_NS;
            self.cpu_mut().tick_ns = due;
            self.set_timer(due);
        }
        true
    }

    /// Gives the machine a thread's context, and the former one back its bases.
    #[inline]
    pub(crate) fn enter_thread(&mut self, thread: Ref<Thread>) {
        let cpu = self.cpu_mut();
        cpu.current = Some(thread);
        if cpu.entered != Some(thread) {
            let old = cpu.entered.replace(thread);
            self.change_context(old, thread);
        }
    }

    /// The current thread, which waits now, hands the CPU to another.
    #[inline(always)]
    pub(super) fn switch(&mut self, from: Ref<Thread>, to: Ref<Thread>, space: Loadable) {
        self.memory.load(space);
        let cpu = self.cpu_mut();
        debug_assert!(cpu.entered == Some(from) && cpu.tick_ns != NEVER);
        (cpu.current, cpu.entered) = (Some(to), Some(to));
        self.change_context(Some(from), to);
    }

    /// Who gets the CPU if the current thread waits, and nothing else is to be decided.
    #[inline(always)]
    pub(super) fn next_in_line(&self) -> Option<(Ref<Thread>, Loadable)> {
        let cpu = self.cpu();
        if cpu.next.is_some() || cpu.ready.is_undecided() {
            return None;
        }
        let next = cpu.ready.first()?;
        let space = self.memory.get(next).space?;
        Some((next, self.memory.space_loadable(space)?))
    }

    /// Gives it the CPU.
    #[inline(always)]
    pub(super) fn switch_to_next(
        &mut self,
        from: Ref<Thread>,
        (next, space): (Ref<Thread>, Loadable),
    ) {
        let (cpu, memory) = self.cpu_and_memory();
        cpu.ready.remove(memory, next);
        self.switch(from, next, space);
    }

    #[inline(always)]
    fn change_context(&mut self, from: Option<Ref<Thread>>, to: Ref<Thread>) {
        // With nobody's state in it, the FPU is forbidden anyway.
        if let Some(owner) = self.cpu().fpu {
            self.memory.machine_mut().fpu_allow(owner == to);
        }
        let (to, machine) = self.memory.get_with_machine(to);
        let bases = machine.enter(&mut to.context);
        if let (Some(from), Some([fs, gs])) = (from, bases) {
            self.memory.get_mut(from).context.record_bases(fs, gs);
        }
    }

    /// Nobody runs: the tick rests.
    #[inline(never)]
    fn idle(&mut self) -> Next {
        self.leave_thread();
        self.cpu_mut().tick_ns = NEVER;
        self.program_timer();
        Next::Idle
    }

    /// Takes a thread's bases out of the CPU: it idles, or the thread ends.
    pub(crate) fn leave_thread(&mut self) {
        let cpu = self.cpu_mut();
        cpu.current = None;
        if let Some(old) = cpu.entered.take() {
            let (old, machine) = self.memory.get_with_machine(old);
            machine.save_bases(&mut old.context);
        }
    }

    /// Brings a thread's context up to date before it is looked at or copied.
    pub(crate) fn sync_context(&mut self, thread: Ref<Thread>) {
        if self.cpu_mut().entered == Some(thread) {
            let (thread, machine) = self.memory.get_with_machine(thread);
            machine.save_bases(&mut thread.context);
        }
    }

    /// After a thread's bases were set: loads them if the CPU has them.
    pub(crate) fn reload_bases(&mut self, thread: Ref<Thread>) {
        if self.cpu_mut().entered == Some(thread) {
            let (thread, machine) = self.memory.get_with_machine(thread);
            let _ = machine.enter(&mut thread.context);
        }
    }
}

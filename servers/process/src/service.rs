//! The life of service threads after their creation: wake, stop, exit (section 20).

use libipc::protocol::process::Errno;
use libipc::wire::Answer;

use crate::exit::Ending;
use crate::machine::Late;
use crate::model::*;
use crate::{Machine, ProcessServer};

impl ProcessServer {
    fn service(&self, pid: u32) -> Result<ProcessId, Errno> {
        self.pids
            .get(pid)
            .process
            .filter(|id| self.processes[*id].kind == Kind::Service)
            .ok_or(Errno::ESRCH)
    }

    /// Lets a service thread run; nothing if it was woken before.
    pub(crate) fn service_wake<M: Machine>(
        &mut self,
        machine: &mut M,
        pid: u32,
    ) -> Result<(), Errno> {
        let id = self.service(pid)?;
        if !self.processes[id].service.woken {
            self.unmake(id);
        }
        let process = &mut self.processes[id];
        let Service {
            entry,
            argument,
            stack,
            ..
        } = process.service;
        if !core::mem::replace(&mut process.service.woken, true)
            && let Some(thread) = process.threads.first()
        {
            machine.start(self.threads[thread].handle, entry, stack, argument);
        }
        Ok(())
    }

    /// Asks a service thread to stop; the answer is its result, once it has ended.
    pub(crate) fn service_stop<M: Machine>(
        &mut self,
        machine: &mut M,
        (caller, own): (ThreadId, ProcessId),
        pid: u32,
    ) -> Result<Answer<i32>, Errno> {
        let id = self.service(pid)?;
        if id == own {
            return Err(Errno::EINVAL); // it would wait for itself
        }
        if self.processes[id].life == Life::Ended {
            return Ok(Answer::Now(self.collect(machine, id)));
        }
        if !self.processes[id].service.woken {
            // LX-KTHREAD-09: its function is never called.
            let ending = Ending::interrupted();
            self.unmake(id);
            self.processes[id].maker = None;
            self.end_process(machine, id, ending);
            return Ok(Answer::Now(ending.result));
        }
        let stoppers = &mut self.processes[id].stoppers;
        stoppers.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let kept = self.keep_call(machine, caller)?;
        let process = &mut self.processes[id];
        process.stoppers.push(caller);
        process.service.should_stop = true;
        self.threads[caller].owed = Some((Owed::Stop(id), kept));
        let threads = self.processes[id].threads;
        let mut at = threads.first();
        while let Some(thread) = at {
            at = threads.next(&self.threads, thread, |thread| &thread.sibling);
            let owed = &mut self.threads[thread].owed;
            let asks = owed.take_if(|(owed, _)| matches!(owed, Owed::ShouldStop));
            if let Some((_, kept)) = asks {
                machine.answer(kept, &Late::ShouldStop(true));
            }
        }
        Ok(Answer::Later)
    }

    /// Takes the result of a service thread that has ended by itself.
    fn collect<M: Machine>(&mut self, machine: &mut M, id: ProcessId) -> i32 {
        let result = self.processes[id].service.result;
        self.unmake(id);
        self.reap(machine, id);
        result
    }

    /// Takes a service thread off its maker's list.
    fn unmake(&mut self, id: ProcessId) {
        let maker = self.processes[id].maker;
        if let Some(maker) = maker.and_then(|maker| self.processes.get_mut(maker)) {
            maker.made.retain(|service| *service != id);
        }
    }

    /// Whether the calling service thread was asked to stop.
    pub(crate) fn service_should_stop<M: Machine>(
        &mut self,
        machine: &mut M,
        (thread, process): (ThreadId, ProcessId),
        wait: bool,
    ) -> Result<Answer<bool>, Errno> {
        let process = &self.processes[process];
        if process.kind != Kind::Service {
            return Err(Errno::EINVAL);
        }
        if process.service.should_stop || !wait {
            return Ok(Answer::Now(process.service.should_stop));
        }
        let kept = self.keep_call(machine, thread)?;
        self.threads[thread].owed = Some((Owed::ShouldStop, kept));
        Ok(Answer::Later)
    }

    /// Ends the calling service thread with its result.
    pub(crate) fn service_exit<M: Machine>(
        &mut self,
        machine: &mut M,
        process: ProcessId,
        result: i32,
    ) -> Result<(), Errno> {
        if self.processes[process].kind != Kind::Service {
            return Err(Errno::EINVAL);
        }
        self.end_process(machine, process, Ending::exited(result));
        Ok(())
    }
}

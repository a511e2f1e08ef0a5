//! Win32 handles: senders that stand for one process or one thread.
//!
//! The badge says which object, the access mask is the handle's granted access. The object's
//! record, its number and its exit code stay until the last handle is gone; a Linux wait has
//! nothing to do with that.

use libipc::abi::{Access, SendCap};
use libipc::protocol::process::{ProcessError, Win32Error, win32_access};
use libipc::protocol::startup::process::{CLIENT_BADGE, FAULT_BADGE};

use crate::exit::Ending;
use crate::model::*;
use crate::{Machine, ProcessServer};

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// hProcess.
    Process(ProcessId),
    /// hThread.
    Thread(ThreadId),
}

/// Highest suspend count (W32-THR-13).
const MAX_SUSPENDS: u32 = 127;

impl Object {
    /// The badge of senders that stand for it.
    pub fn badge(self) -> u64 {
        match self {
            Object::Process(id) => id.bits() << 1,
            Object::Thread(id) => id.bits() << 1 | 1,
        }
    }

    fn of(badge: u64) -> Option<Object> {
        if badge == CLIENT_BADGE || badge == FAULT_BADGE {
            return None;
        }
        match badge & 1 {
            0 => Some(Object::Process(ProcessId::from_bits(badge >> 1)?)),
            _ => Some(Object::Thread(ThreadId::from_bits(badge >> 1)?)),
        }
    }
}

fn refuse<T>(error: Win32Error) -> Result<T, ProcessError> {
    Err(ProcessError::Win32(error))
}

impl ProcessServer {
    /// The process behind a used handle, with the check order of W32-HND-08. Any one of the rights
    /// is enough.
    fn process_behind(
        &self,
        badge: u64,
        access: u32,
        rights: u32,
    ) -> Result<ProcessId, ProcessError> {
        match Object::of(badge) {
            Some(Object::Process(id)) if self.processes.get(id).is_some() => {
                if access & rights == 0 {
                    return refuse(Win32Error::AccessDenied);
                }
                Ok(id)
            }
            _ => refuse(Win32Error::InvalidHandle),
        }
    }

    fn thread_behind(
        &self,
        badge: u64,
        access: u32,
        rights: u32,
    ) -> Result<ThreadId, ProcessError> {
        match Object::of(badge) {
            Some(Object::Thread(id)) if self.threads.get(id).is_some() => {
                if access & rights == 0 {
                    return refuse(Win32Error::AccessDenied);
                }
                Ok(id)
            }
            _ => refuse(Win32Error::InvalidHandle),
        }
    }

    /// TerminateProcess.
    pub(crate) fn terminate<M: Machine>(
        &mut self,
        machine: &mut M,
        (badge, access): (u64, u32),
        code: u32,
    ) -> Result<(), ProcessError> {
        let process = self.process_behind(badge, access, win32_access::PROCESS_TERMINATE)?;
        if !self.processes[process].is_alive() {
            return refuse(Win32Error::AccessDenied); // W32-EXIT-08
        }
        self.end_process(machine, process, Ending::with_code(code));
        Ok(())
    }

    /// GetExitCodeProcess and GetExitCodeThread.
    pub(crate) fn exit_code_behind(&self, badge: u64, access: u32) -> Result<u32, ProcessError> {
        if let Some(Object::Thread(_)) = Object::of(badge) {
            let rights = win32_access::THREAD_QUERY_INFORMATION
                | win32_access::THREAD_QUERY_LIMITED_INFORMATION;
            return Ok(self.threads[self.thread_behind(badge, access, rights)?].exit_code);
        }
        let rights = win32_access::PROCESS_QUERY_INFORMATION
            | win32_access::PROCESS_QUERY_LIMITED_INFORMATION;
        Ok(self.processes[self.process_behind(badge, access, rights)?].exit_code)
    }

    /// SuspendThread: the count before.
    pub(crate) fn suspend_behind<M: Machine>(
        &mut self,
        machine: &mut M,
        badge: u64,
        access: u32,
    ) -> Result<u32, ProcessError> {
        let id = self.thread_behind(badge, access, win32_access::THREAD_SUSPEND_RESUME)?;
        let thread = &mut self.threads[id];
        if thread.role == Role::Ended {
            return refuse(Win32Error::AccessDenied); // W32-THR-14
        }
        if thread.suspends == MAX_SUSPENDS {
            return refuse(Win32Error::SignalRefused);
        }
        machine.suspend(thread.handle);
        thread.suspends += 1;
        Ok(thread.suspends - 1)
    }

    /// ResumeThread: the count before.
    pub(crate) fn resume_behind<M: Machine>(
        &mut self,
        machine: &mut M,
        badge: u64,
        access: u32,
    ) -> Result<u32, ProcessError> {
        let id = self.thread_behind(badge, access, win32_access::THREAD_SUSPEND_RESUME)?;
        let thread = &mut self.threads[id];
        if thread.role == Role::Ended || thread.suspends == 0 {
            return Ok(0);
        }
        machine.resume(thread.handle);
        thread.suspends -= 1;
        Ok(thread.suspends + 1)
    }

    /// The notification that tells the end of the object, made when first asked for.
    pub(crate) fn notification_behind<M: Machine>(
        &mut self,
        machine: &mut M,
        badge: u64,
        access: u32,
    ) -> Result<SendCap, ProcessError> {
        let (ended, place) = if let Some(Object::Thread(_)) = Object::of(badge) {
            let id = self.thread_behind(badge, access, win32_access::SYNCHRONIZE)?;
            let thread = &mut self.threads[id];
            (thread.role == Role::Ended, &mut thread.notification)
        } else {
            let id = self.process_behind(badge, access, win32_access::SYNCHRONIZE)?;
            let process = &mut self.processes[id];
            (!process.is_alive(), &mut process.notification)
        };
        if !place.is_some() {
            match machine.end_notification(ended) {
                Ok(notification) => *place = notification,
                Err(_) => return refuse(Win32Error::NotEnoughMemory),
            }
        }
        Ok(SendCap::narrowed(*place, Access::WAIT))
    }

    /// The last handle with this badge is gone.
    pub fn unreferenced<M: Machine>(&mut self, machine: &mut M, badge: u64) {
        match Object::of(badge) {
            Some(Object::Process(id)) => {
                let Some(process) = self.processes.get_mut(id) else {
                    return;
                };
                process.handles = process.handles.saturating_sub(1);
                let buried = process.life == Life::Ended && process.parent.is_none();
                if process.handles == 0 && buried {
                    let (pid, notification) = (process.pid, process.notification);
                    self.forget_process(machine, id, notification);
                    self.pids.release(pid);
                }
            }
            Some(Object::Thread(id)) => {
                let Some(thread) = self.threads.get_mut(id) else {
                    return;
                };
                thread.handles = thread.handles.saturating_sub(1);
                if thread.handles == 0 && thread.role == Role::Ended {
                    let (tid, notification) = (thread.tid, thread.notification);
                    self.forget_thread(machine, id, notification);
                    self.pids.release(tid);
                }
            }
            None => {}
        }
    }
}

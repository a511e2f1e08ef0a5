//! The protocol's methods: who may call what, and in which words the answer goes back.
//!
//! A capability of this server is either a client's own (badge [`CLIENT_BADGE`]; the caller is
//! known by its label, the access mask says which groups of methods it may use) or a Win32 handle
//! (the badge names the object). Nobody else's call does anything.

use libipc::Handle;
use libipc::protocol::process::*;
use libipc::protocol::startup::process::CLIENT_BADGE;
use libipc::wire::{Address, Answer, Bytes, Caller};

use crate::door::{linux, service, win32};
use crate::exit::Ending;
use crate::machine::Late;
use crate::model::{Kind, LoadId, ProcessId, ThreadId};
use crate::plan::SpawnPlan;
use crate::{Machine, ProcessServer};

type Reply<T> = Result<Answer<T>, ProcessError>;

fn linux_error(errno: Errno) -> ProcessError {
    ProcessError::Linux(errno)
}

impl ProcessServer {
    /// Refuses capabilities that are handles, or that lack a right.
    fn permit(&self, caller: &Caller, right: u32) -> Result<(), ProcessError> {
        if caller.badge == CLIENT_BADGE && caller.access & right == right {
            Ok(())
        } else {
            Err(ProcessError::Denied)
        }
    }

    /// The calling thread and process.
    fn client(&self, caller: &Caller, right: u32) -> Result<(ThreadId, ProcessId), ProcessError> {
        self.permit(caller, right)?;
        self.caller(caller.label).ok_or(ProcessError::Denied)
    }

    fn calling_loader(&self, caller: &Caller) -> Result<LoadId, ProcessError> {
        self.permit(caller, access::SELF)?;
        self.loader(caller.label).ok_or(ProcessError::Denied)
    }

    fn facts(&self, process: ProcessId) -> linux::CallerFacts {
        linux::CallerFacts {
            is_init: self.processes[process].kind == Kind::Init,
        }
    }

    fn create_win32<M: Machine>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        order: &CreateProcess,
        directory: Option<Handle>,
    ) -> Reply<ProcessIds> {
        let client = self.client(caller, access::SELF)?;
        let plan = win32::create_process(order, directory).map_err(ProcessError::Win32)?;
        let created = self
            .create(machine, client, plan, caller)
            .map_err(|errno| ProcessError::Win32(win32::error(errno)))?;
        Ok(match created {
            Answer::Now(Late::Created { ids, handles }) => {
                for handle in handles {
                    caller.give(handle);
                }
                Answer::Now(ids)
            }
            _ => Answer::Later,
        })
    }

    /// The answer to a call that may have ended its caller, who was `before`.
    fn unless_gone(&self, caller: &Caller, before: Option<(ThreadId, ProcessId)>) -> Reply<()> {
        match before.is_some() && self.caller(caller.label).is_none() {
            true => Ok(Answer::Later),
            false => Ok(Answer::Now(())),
        }
    }
}

impl<M: Machine> Server<M> for ProcessServer {
    fn fork<'m>(&mut self, machine: &mut M, caller: &mut Caller) -> Reply<u32> {
        let client = self.client(caller, access::SELF)?;
        self.spawn(machine, client, &SpawnPlan::FORK)
            .map_err(linux_error)
    }

    fn vfork<'m>(&mut self, machine: &mut M, caller: &mut Caller) -> Reply<u32> {
        let client = self.client(caller, access::SELF)?;
        self.spawn(machine, client, &linux::VFORK)
            .map_err(linux_error)
    }

    fn clone<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        arguments: CloneArguments,
    ) -> Reply<u32> {
        let client = self.client(caller, access::SELF)?;
        let plan = linux::clone(&arguments, self.facts(client.1));
        // By reference: a plan is too large to be moved out of its result.
        let plan = plan.as_ref().map_err(|errno| linux_error(*errno))?;
        self.spawn(machine, client, plan).map_err(linux_error)
    }

    fn clone3<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        record: Bytes<'m>,
        size: u64,
    ) -> Reply<u32> {
        let client = self.client(caller, access::SELF)?;
        let thread = self.threads[client.0].handle;
        let plan = linux::clone3(record.0, size, self.facts(client.1), |address| {
            machine.read_word(thread, address).ok()
        });
        self.spawn(machine, client, &plan.map_err(linux_error)?)
            .map_err(linux_error)
    }

    fn exec<'m>(&mut self, machine: &mut M, caller: &mut Caller, start: Start) -> Reply<()> {
        let client = self.client(caller, access::SELF)?;
        self.exec(machine, client, caller, start)
            .map_err(linux_error)
    }

    fn exit<'m>(&mut self, machine: &mut M, caller: &mut Caller, code: i32) -> Reply<()> {
        let client = self.client(caller, access::SELF)?;
        self.exit_thread(machine, client, code);
        Ok(Answer::Later)
    }

    fn exit_group<'m>(&mut self, machine: &mut M, caller: &mut Caller, code: i32) -> Reply<()> {
        let (_, process) = self.client(caller, access::SELF)?;
        self.end_process(machine, process, Ending::exited(code));
        Ok(Answer::Later)
    }

    fn wait4<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        pid: i32,
        options: u32,
    ) -> Reply<Waited> {
        let client = self.client(caller, access::SELF)?;
        ProcessServer::wait4(self, machine, client, pid, options).map_err(linux_error)
    }

    fn identity<'m>(&mut self, _: &mut M, caller: &mut Caller) -> Reply<Identity> {
        let (thread, _) = self.client(caller, access::SELF)?;
        Ok(Answer::Now(self.identity_of(thread)))
    }

    fn kill<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        pid: i32,
        signal: u32,
    ) -> Reply<()> {
        let client = self.client(caller, access::SELF)?;
        ProcessServer::kill(self, machine, client.1, pid, signal).map_err(linux_error)?;
        self.unless_gone(caller, Some(client))
    }

    fn set_tid_address<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        address: Address,
    ) -> Reply<u32> {
        let (thread, _) = self.client(caller, access::SELF)?;
        let thread = &self.threads[thread];
        // A bad address is ignored when the time comes; the call always succeeds (LX-FUTEX-01).
        let _ = machine.set_clear_address(thread.handle, address.0);
        Ok(Answer::Now(thread.tid))
    }

    fn setpgid<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        pid: i32,
        pgid: i32,
    ) -> Reply<()> {
        let (_, process) = self.client(caller, access::SELF)?;
        ProcessServer::setpgid(self, machine, process, pid, pgid).map_err(linux_error)?;
        Ok(Answer::Now(()))
    }

    fn setsid<'m>(&mut self, _: &mut M, caller: &mut Caller) -> Reply<u32> {
        let (_, process) = self.client(caller, access::SELF)?;
        let sid = ProcessServer::setsid(self, process).map_err(linux_error)?;
        Ok(Answer::Now(sid))
    }

    fn set_subreaper<'m>(&mut self, _: &mut M, caller: &mut Caller, on: bool) -> Reply<()> {
        let (_, process) = self.client(caller, access::SELF)?;
        ProcessServer::set_subreaper(self, process, on);
        Ok(Answer::Now(()))
    }

    fn ignore_signal<'m>(
        &mut self,
        _: &mut M,
        caller: &mut Caller,
        signal: u32,
        ignore: bool,
    ) -> Reply<bool> {
        let (_, process) = self.client(caller, access::SELF)?;
        let before = ProcessServer::ignore_signal(self, process, signal, ignore);
        Ok(Answer::Now(before.map_err(linux_error)?))
    }

    fn getpgid<'m>(&mut self, _: &mut M, caller: &mut Caller, pid: i32) -> Reply<u32> {
        let (_, process) = self.client(caller, access::SELF)?;
        let (group, _) = self.group_of(process, pid).map_err(linux_error)?;
        Ok(Answer::Now(group))
    }

    fn getsid<'m>(&mut self, _: &mut M, caller: &mut Caller, pid: i32) -> Reply<u32> {
        let (_, process) = self.client(caller, access::SELF)?;
        let (_, session) = self.group_of(process, pid).map_err(linux_error)?;
        Ok(Answer::Now(session))
    }

    fn create_process<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        order: CreateProcess,
    ) -> Reply<ProcessIds> {
        self.create_win32(machine, caller, &order, None)
    }

    fn create_process_in<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        order: CreateProcess,
    ) -> Reply<ProcessIds> {
        let directory = caller.received[1];
        self.create_win32(machine, caller, &order, Some(directory))
    }

    fn exit_process<'m>(&mut self, machine: &mut M, caller: &mut Caller, code: u32) -> Reply<()> {
        let (_, process) = self.client(caller, access::SELF)?;
        self.end_process(machine, process, Ending::with_code(code));
        Ok(Answer::Later)
    }

    fn terminate_process<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        code: u32,
    ) -> Reply<()> {
        // Whoever holds the handle may use it, a thread of no process too.
        let before = self.caller(caller.label);
        self.terminate(machine, (caller.badge, caller.access), code)?;
        self.unless_gone(caller, before)
    }

    fn exit_code<'m>(&mut self, _: &mut M, caller: &mut Caller) -> Reply<u32> {
        let code = self.exit_code_behind(caller.badge, caller.access)?;
        Ok(Answer::Now(code))
    }

    fn suspend_thread<'m>(&mut self, machine: &mut M, caller: &mut Caller) -> Reply<u32> {
        let count = self.suspend_behind(machine, caller.badge, caller.access)?;
        Ok(Answer::Now(count))
    }

    fn resume_thread<'m>(&mut self, machine: &mut M, caller: &mut Caller) -> Reply<u32> {
        let count = self.resume_behind(machine, caller.badge, caller.access)?;
        Ok(Answer::Now(count))
    }

    fn wait_object<'m>(&mut self, machine: &mut M, caller: &mut Caller) -> Reply<()> {
        let notification = self.notification_behind(machine, caller.badge, caller.access)?;
        caller.give(notification);
        Ok(Answer::Now(()))
    }

    fn service_create<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        name: [u8; 16],
        entry: u64,
        argument: u64,
        stack: u64,
    ) -> Reply<u32> {
        let client = self.client(caller, access::SERVICE)?;
        let plan = service::create(crate::name(&name), entry, argument, stack);
        self.spawn(machine, client, &plan).map_err(linux_error)
    }

    fn service_wake<'m>(&mut self, machine: &mut M, caller: &mut Caller, pid: u32) -> Reply<()> {
        self.client(caller, access::SERVICE)?;
        ProcessServer::service_wake(self, machine, pid).map_err(linux_error)?;
        Ok(Answer::Now(()))
    }

    fn service_stop<'m>(&mut self, machine: &mut M, caller: &mut Caller, pid: u32) -> Reply<i32> {
        let client = self.client(caller, access::SERVICE)?;
        ProcessServer::service_stop(self, machine, client, pid).map_err(linux_error)
    }

    fn service_should_stop<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        wait: bool,
    ) -> Reply<bool> {
        let client = self.client(caller, access::SELF)?;
        ProcessServer::service_should_stop(self, machine, client, wait).map_err(linux_error)
    }

    fn service_exit<'m>(&mut self, machine: &mut M, caller: &mut Caller, result: i32) -> Reply<()> {
        let (_, process) = self.client(caller, access::SELF)?;
        ProcessServer::service_exit(self, machine, process, result).map_err(linux_error)?;
        Ok(Answer::Later)
    }

    fn load_order<'m>(&mut self, _: &mut M, caller: &mut Caller) -> Reply<()> {
        let load = self.calling_loader(caller)?;
        caller.give(ProcessServer::load_order(self, load));
        Ok(Answer::Now(()))
    }

    fn loaded<'m>(&mut self, machine: &mut M, caller: &mut Caller, entry: u64) -> Reply<()> {
        let load = self.calling_loader(caller)?;
        ProcessServer::loaded(self, machine, load, entry).map_err(linux_error)?;
        Ok(Answer::Later)
    }

    fn load_failed<'m>(&mut self, machine: &mut M, caller: &mut Caller, errno: Errno) -> Reply<()> {
        let load = self.calling_loader(caller)?;
        ProcessServer::load_failed(self, machine, load, errno);
        Ok(Answer::Later)
    }

    fn process_at<'m>(
        &mut self,
        _: &mut M,
        caller: &mut Caller,
        pid: u32,
    ) -> Reply<Option<ProcessLine>> {
        self.permit(caller, access::INSPECT)?;
        Ok(Answer::Now(self.line_at(pid)))
    }

    fn capability_at<'m>(
        &mut self,
        machine: &mut M,
        caller: &mut Caller,
        pid: u32,
        table: u8,
        index: u32,
    ) -> Reply<Option<CapabilityLine>> {
        self.permit(caller, access::INSPECT)?;
        Ok(Answer::Now(self.slot_line_at(machine, pid, table, index)))
    }

    fn adopt_init<'m>(&mut self, machine: &mut M, caller: &mut Caller) -> Reply<Identity> {
        self.permit(caller, access::INIT)?;
        let thread = caller.received[0];
        let identity = ProcessServer::adopt_init(self, machine, thread).map_err(linux_error)?;
        caller.take(0);
        Ok(Answer::Now(identity))
    }

    fn spawn<'m>(&mut self, machine: &mut M, caller: &mut Caller, start: Start) -> Reply<u32> {
        let client = self.client(caller, access::SELF)?;
        let created = self
            .create(machine, client, linux::spawn(start), caller)
            .map_err(linux_error)?;
        Ok(match created {
            Answer::Now(Late::Number(number)) => Answer::Now(number),
            _ => Answer::Later,
        })
    }
}

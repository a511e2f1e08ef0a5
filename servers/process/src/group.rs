//! Process groups and sessions (`docs/spec/linux-process.md` section 13).
//!
//! A group exists while it has members; its number and its session's stay taken as long: the number
//! space counts a session's groups.

use libipc::protocol::process::Errno;

use crate::list::{Links, List};
use crate::model::*;
use crate::{Machine, ProcessServer};

impl ProcessServer {
    /// Puts a process that is in no group into one.
    #[inline]
    pub(crate) fn join_group(&mut self, process: ProcessId, group: GroupId) {
        let links = self.groups[group].members.append(process);
        let record = &mut self.processes[process];
        record.group = group;
        record.member = links;
        links.tell(&mut self.processes, process, |process| &mut process.member);
    }

    /// Takes a process out of its group, which goes with its last member.
    #[inline]
    pub(crate) fn leave_group(&mut self, process: ProcessId) {
        let record = &mut self.processes[process];
        let (group, links) = (record.group, core::mem::take(&mut record.member));
        self.part_from_group(group, links);
    }

    /// The group's part of it: what it had between these links is a member no more.
    #[inline]
    pub(crate) fn part_from_group(&mut self, id: GroupId, links: Links<Process>) {
        let group = &mut self.groups[id];
        group.members.detach(links);
        if group.members.first().is_none() {
            self.end_group(id);
        }
        links.close(&mut self.processes, |process| &mut process.member);
    }

    #[cold]
    fn end_group(&mut self, id: GroupId) {
        let Group {
            number, session, ..
        } = self.groups[id];
        self.groups.discard(id);
        self.pids.update(session, |entry| entry.session -= 1);
        self.pids.update(number, |entry| entry.group = None);
    }

    /// The group with this number. Group 0, in which PID 1 and 2 begin, has no entry among the
    /// numbers; the service root never leaves it.
    pub(crate) fn group_with(&self, number: u32) -> Option<GroupId> {
        match number {
            0 => self.service_root.map(|root| self.processes[root].group),
            _ => self.pids.get(number).group,
        }
    }

    fn new_group(&mut self, number: u32, session: u32) -> Result<GroupId, Errno> {
        let group = self
            .groups
            .insert(Group {
                number,
                session,
                members: List::default(),
            })
            .map_err(|_| Errno::ENOMEM)?;
        self.pids.update(number, |entry| entry.group = Some(group));
        self.pids.update(session, |entry| entry.session += 1);
        Ok(group)
    }

    /// The process with this PID or TID; 0 or less than 0: `caller`, nobody.
    fn named(&self, caller: ProcessId, pid: i32) -> Result<ProcessId, Errno> {
        if pid == 0 {
            return Ok(caller);
        }
        let number = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
        self.process_of_number(number).ok_or(Errno::ESRCH)
    }

    /// The process that a PID or a TID stands for.
    pub(crate) fn process_of_number(&self, number: u32) -> Option<ProcessId> {
        let entry = self.pids.get(number);
        entry
            .process
            .or_else(|| match self.threads.get(entry.thread?)?.role {
                Role::Member(process) => Some(process),
                _ => None,
            })
    }

    /// setpgid, with the checks of LX-PGRP-02 and 03 in their order.
    pub fn setpgid<M: Machine>(
        &mut self,
        machine: &mut M,
        caller: ProcessId,
        pid: i32,
        pgid: i32,
    ) -> Result<(), Errno> {
        let wanted = u32::try_from(pgid).map_err(|_| Errno::EINVAL)?;
        let target = self.named(caller, pid)?;
        let own = &self.processes[caller];
        let record = &self.processes[target];
        if pid != 0 && record.pid != pid as u32 {
            return Err(Errno::EINVAL); // a thread that is no leader
        }
        let session = self.groups[record.group].session;
        if target != caller {
            if record.parent != Some(caller) || !record.is_waitable() {
                return Err(Errno::ESRCH);
            }
            if session != self.groups[own.group].session {
                return Err(Errno::EPERM);
            }
            if !record.fresh {
                return Err(Errno::EACCES);
            }
        }
        if session == record.pid {
            return Err(Errno::EPERM);
        }
        let number = if wanted == 0 { record.pid } else { wanted };
        let existing = self
            .pids
            .get(number)
            .group
            .filter(|group| self.groups[*group].session == session);
        let group = match existing {
            Some(group) => group,
            None if number == record.pid => self.new_group(number, session)?,
            None => return Err(Errno::EPERM),
        };
        if group != self.processes[target].group {
            self.leave_group(target);
            self.join_group(target, group);
            if let Some(parent) = self.processes[target].parent {
                self.wake_waiters(machine, parent);
            }
        }
        Ok(())
    }

    /// setsid (LX-PGRP-06).
    pub fn setsid(&mut self, caller: ProcessId) -> Result<u32, Errno> {
        let pid = self.processes[caller].pid;
        if self.pids.get(pid).group.is_some() {
            return Err(Errno::EPERM);
        }
        let group = self.new_group(pid, pid)?;
        self.leave_group(caller);
        self.join_group(caller, group);
        Ok(pid)
    }

    /// getpgid and getsid: group and session of a process (LX-PGRP-05).
    pub fn group_of(&self, caller: ProcessId, pid: i32) -> Result<(u32, u32), Errno> {
        let process = self.named(caller, pid)?;
        let group = &self.groups[self.processes[process].group];
        Ok((group.number, group.session))
    }
}

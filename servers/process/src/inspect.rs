//! What `ps` and `caps` show.

use libipc::abi::TableSelector;
use libipc::protocol::process::{CapabilityLine, ProcessLine};
use libipc::wire::Blob;

use crate::model::*;
use crate::{Machine, ProcessServer};

/// How many records of each kind there are, for tests and leak checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // named after the records
pub struct Figures {
    pub processes: usize,
    pub threads: usize,
    pub dispositions: usize,
    pub groups: usize,
    pub loads: usize,
    /// Numbers that are taken.
    pub numbers: usize,
}

impl ProcessServer {
    /// How many records there are.
    pub fn figures(&self) -> Figures {
        Figures {
            processes: self.processes.len(),
            threads: self.threads.len(),
            dispositions: self.dispositions.len(),
            groups: self.groups.len(),
            loads: self.loads.len(),
            numbers: self.pids.taken(),
        }
    }

    /// The first process with a PID not below `pid`.
    pub(crate) fn line_at(&self, pid: u32) -> Option<ProcessLine> {
        let process = &self.processes[self.pids.next_process(pid)?];
        let group = &self.groups[process.group];
        let length = process
            .name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(process.name.len());
        Some(ProcessLine {
            pid: process.pid,
            ppid: process
                .parent
                .map_or(0, |parent| self.processes[parent].pid),
            pgid: group.number,
            sid: group.session,
            state: self.state_letter(process),
            threads: process.thread_count,
            name: Blob::from_slice(&process.name[..length]).unwrap_or_default(),
        })
    }

    /// R, S, D, T or Z as ps has them. The server does not know who runs: a process is asleep if
    /// it owes all its threads an answer, or a service thread that was never woken.
    fn state_letter(&self, process: &Process) -> u8 {
        match process.life {
            Life::Ended => return b'Z',
            Life::Stopped => return b'T',
            Life::Running | Life::Reserved => {}
        }
        let mut threads = process
            .threads
            .iter(&self.threads, |thread| &thread.sibling)
            .map(|id| &self.threads[id]);
        if process.kind == Kind::Service && !process.service.woken {
            return b'S';
        }
        match threads.next().map(|thread| &thread.owed) {
            Some(Some((Owed::Release { .. }, _))) => b'D',
            Some(Some(_)) | None => b'S',
            Some(None) => b'R',
        }
    }

    /// The first used slot of a process's tables not below (`table`, `index`).
    pub(crate) fn slot_line_at<M: Machine>(
        &self,
        machine: &mut M,
        pid: u32,
        table: u8,
        index: u32,
    ) -> Option<CapabilityLine> {
        let process = &self.processes[self.pids.get(pid).process?];
        let thread = self.threads[process.threads.first()?].handle;
        let mut index = index;
        for selector in (u64::from(table)..).map_while(TableSelector::from_code) {
            if let Some((slot, info)) = machine.slot_at(thread, selector, index) {
                return Some(CapabilityLine {
                    table: selector as u8,
                    index: slot,
                    kind: info as u8,
                    flags: (info >> 8) as u8,
                    access: (info >> 32) as u32,
                });
            }
            index = 0;
        }
        None
    }
}

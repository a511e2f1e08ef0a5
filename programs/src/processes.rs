//! The process tree as `ps` shows it.
//!
//! The processes are linked into a tree in the slice that holds them (children in the order of
//! their PIDs), so the memory needed is the caller's, whatever their number. A process whose parent
//! is not in the list stands at the left margin.

use core::fmt::{self, Write};

use crate::table::{Table, number, text};

/// No entry, in a link.
const NONE: u32 = u32::MAX;

/// What is known of one process.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// PID.
    pub pid: u32,
    /// The parent's PID.
    pub ppid: u32,
    /// R, S, D, T or Z, as Linux's ps has them.
    pub state: u8,
    /// Number of threads.
    pub threads: u32,
    name: [u8; 16],
    parent: u32,
    first_child: u32,
    next_sibling: u32,
}

impl Process {
    /// A process by its figures; `name` is cut to 16 bytes.
    pub fn new(pid: u32, ppid: u32, state: u8, threads: u32, name: &[u8]) -> Process {
        let mut kept = [0; 16];
        let length = name.len().min(kept.len());
        kept[..length].copy_from_slice(&name[..length]);
        Process {
            pid,
            ppid,
            state,
            threads,
            name: kept,
            parent: NONE,
            first_child: NONE,
            next_sibling: NONE,
        }
    }
}

/// What a state letter means.
pub fn state_name(state: u8) -> &'static str {
    match state {
        b'R' => "running",
        b'S' => "waiting",
        b'D' => "in a call",
        b'T' => "stopped",
        b'Z' => "zombie",
        _ => "?",
    }
}

const TABLE: Table<5> = Table([
    number("PID", 5),
    number("PPID", 5),
    text("STATE", 9),
    number("THREADS", 7),
    text("NAME", 0),
]);

/// Writes the tree of `processes`, which are in the order of their PIDs.
pub fn write_tree(processes: &mut [Process], out: &mut impl Write) -> fmt::Result {
    let first_root = link(processes);
    TABLE.head(out)?;
    let mut at = first_root;
    while at != NONE {
        let process = &processes[at as usize];
        let (pid, ppid) = (process.pid, process.ppid);
        let shown = Shown { processes, at };
        TABLE.row(
            out,
            [
                &pid,
                &ppid,
                &state_name(process.state),
                &process.threads,
                &shown,
            ],
        )?;
        at = following(processes, at);
    }
    Ok(())
}

/// Sets the links; returns the first process without a parent.
fn link(processes: &mut [Process]) -> u32 {
    for process in processes.iter_mut() {
        (process.parent, process.first_child, process.next_sibling) = (NONE, NONE, NONE);
    }
    let mut first_root = NONE;
    // From the last to the first, each put before its siblings: the siblings end up in order.
    for at in (0..processes.len()).rev() {
        let Process { pid, ppid, .. } = processes[at];
        let parent = match processes.binary_search_by_key(&ppid, |process| process.pid) {
            Ok(parent) if ppid != pid => parent,
            _ => {
                processes[at].next_sibling = first_root;
                first_root = at as u32;
                continue;
            }
        };
        processes[at].parent = parent as u32;
        processes[at].next_sibling = processes[parent].first_child;
        processes[parent].first_child = at as u32;
    }
    first_root
}

/// The process after `at`, children before siblings.
fn following(processes: &[Process], at: u32) -> u32 {
    let mut process = &processes[at as usize];
    if process.first_child != NONE {
        return process.first_child;
    }
    while process.next_sibling == NONE && process.parent != NONE {
        process = &processes[process.parent as usize];
    }
    process.next_sibling
}

/// A process's name behind the branches that lead to it.
struct Shown<'p> {
    processes: &'p [Process],
    at: u32,
}

impl Shown<'_> {
    /// Draws the lines of the ancestors that have more children to come, outermost first.
    fn branches(&self, at: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = &self.processes[at as usize];
        if process.parent == NONE {
            return Ok(());
        }
        self.branches(process.parent, f)?;
        f.write_str(match (at == self.at, process.next_sibling != NONE) {
            (true, true) => "|- ",
            (true, false) => "`- ",
            (false, true) => "|  ",
            (false, false) => "   ",
        })
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.branches(self.at, f)?;
        for chunk in self.processes[self.at as usize].name.utf8_chunks() {
            f.write_str(chunk.valid().trim_end_matches('\0'))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(list: &[(u32, u32, u8, &str)]) -> String {
        let mut processes: std::vec::Vec<_> = list
            .iter()
            .map(|(pid, ppid, state, name)| Process::new(*pid, *ppid, *state, 1, name.as_bytes()))
            .collect();
        let mut out = String::new();
        write_tree(&mut processes, &mut out).unwrap();
        out
    }

    #[test]
    fn the_tree_shows_children_under_their_parents() {
        assert_eq!(
            tree(&[
                (1, 0, b'S', "init"),
                (2, 0, b'S', "services"),
                (3, 1, b'D', "sh"),
                (4, 2, b'S', "console"),
                (5, 3, b'R', "ps"),
                (6, 3, b'Z', "true"),
                (7, 5, b'T', "deep"),
                (9, 1, b'S', "last"),
            ]),
            "  PID   PPID  STATE      THREADS  NAME\n\
             \x20   1      0  waiting          1  init\n\
             \x20   3      1  in a call        1  |- sh\n\
             \x20   5      3  running          1  |  |- ps\n\
             \x20   7      5  stopped          1  |  |  `- deep\n\
             \x20   6      3  zombie           1  |  `- true\n\
             \x20   9      1  waiting          1  `- last\n\
             \x20   2      0  waiting          1  services\n\
             \x20   4      2  waiting          1  `- console\n"
        );
    }

    #[test]
    fn a_process_without_a_listed_parent_stands_at_the_margin() {
        assert_eq!(
            tree(&[(5, 99, b'R', "lost"), (6, 6, b'R', "own parent")]),
            "  PID   PPID  STATE      THREADS  NAME\n\
             \x20   5     99  running          1  lost\n\
             \x20   6      6  running          1  own parent\n"
        );
    }

    #[test]
    fn a_thousand_processes_are_each_shown_once() {
        let mut processes: std::vec::Vec<_> = (1..=1000)
            .map(|pid| Process::new(pid, pid / 2, b'S', 1, b"p"))
            .collect();
        let mut out = String::new();
        write_tree(&mut processes, &mut out).unwrap();
        let mut pids: std::vec::Vec<u32> = out
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        pids.sort();
        assert!(pids.into_iter().eq(1..=1000));
    }
}

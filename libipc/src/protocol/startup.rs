//! What init gives each server: the slots of its first private table, and its first argument.
//!
//! Init makes a server's space, tables and thread, puts these capabilities into the private table
//! in the order of the slot numbers (a slot's first generation is 1), and starts the thread with
//! `rdi` = [the server's argument](self) and `rsp` = [`layout::STACK_END`](crate::abi::layout).
//! Slots that a server has no use for are skipped by filling them with the server's own pool, so
//! that the numbers below hold for all.
//!
//! | server  | first argument (`rdi`)                      |
//! |---------|---------------------------------------------|
//! | memory  | 0                                           |
//! | process | entry point of the loader                   |
//! | files   | size of the boot archive in bytes           |
//! | console | 0: `console=serial`, 1: `console=exec`      |

use crate::abi::{Handle, TableSelector};

const fn slot(index: u32) -> Handle {
    Handle::new(TableSelector::Private, index, 1)
}

/// Every server: the receive side of its own endpoint.
pub const RECEIVER: Handle = slot(0);
/// Every server: its own space, rights MAP, READ_MEMORY, WRITE_MEMORY and MAKE_WINDOW.
pub const SPACE: Handle = slot(1);
/// Every server: the pool that pays for its own memory and objects, right CHARGE and STATUS. The
/// memory server's is the root pool, with all rights.
pub const POOL: Handle = slot(2);
/// Every server: the kernel's log, right LOG only.
pub const LOG: Handle = slot(3);

/// What only the process server gets.
pub mod process {
    use super::*;

    /// The pool of the first job: every process is charged to it. Rights CHARGE, STATUS and LABEL.
    pub const JOB_POOL: Handle = slot(4);
    /// What the template of every image starts from, right SNAPSHOT: a space with the loader
    /// mapped at its link address, the first stack mapped, and nothing else. Its pager is a sender
    /// to the process server with badge [`FAULT_BADGE`] (a snapshot keeps its source's pager).
    pub const LOADER_SPACE: Handle = slot(5);
    /// The memory server.
    pub const MEMORY_SERVER: Handle = slot(6);
    /// What stands for the space of whoever uses it, for the private tables of programs. Rights
    /// MAP, READ_MEMORY, WRITE_MEMORY, MAKE_WINDOW and MAKE_THREAD: snapshots are the process
    /// server's. A thread that a program makes by itself is none of the process's: it goes with
    /// the capabilities to it.
    pub const OWN_SPACE: Handle = slot(7);

    /// Badge of the senders that faults of processes arrive by.
    pub const FAULT_BADGE: u64 = u64::MAX;
    /// Badge of the senders that are not handles of one process or thread: init's and every
    /// process's own.
    pub const CLIENT_BADGE: u64 = 0;
}

/// What only the file server gets.
pub mod files {
    use super::*;

    /// The boot archive, a window with READ and EXECUTE.
    pub const ARCHIVE: Handle = slot(4);
}

/// What only the console server gets.
pub mod console {
    use super::*;

    /// A notification, rights SIGNAL and WAIT, already bound to the receiver.
    pub const NOTIFICATION: Handle = slot(4);
    /// I/O ports 0x3f8 to 0x3ff.
    pub const COM1_PORTS: Handle = slot(5);
    /// I/O ports 0x2f8 to 0x2ff.
    pub const COM2_PORTS: Handle = slot(6);
    /// I/O ports 0x60 to 0x64.
    pub const KEYBOARD_PORTS: Handle = slot(7);
    /// Interrupt line 4.
    pub const COM1_IRQ: Handle = slot(8);
    /// Interrupt line 3.
    pub const COM2_IRQ: Handle = slot(9);
    /// Interrupt line 1.
    pub const KEYBOARD_IRQ: Handle = slot(10);
}

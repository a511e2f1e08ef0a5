//! Service threads: the kthread idea for servers (`docs/spec/linux-process.md` section 20).
//!
//! A service thread is a process of its own, child of PID 2, in its creator's memory. It ignores
//! all signals, has no files, and does not run before it is woken. It has no more authority than
//! its creator's memory gives it.

use crate::model::{Kind, Name, Service};
use crate::plan::*;

/// kthread_create.
pub fn create(name: Name, entry: u64, argument: u64, stack: u64) -> SpawnPlan {
    SpawnPlan {
        memory: MemoryChoice::Share,
        files: FilesChoice::Fresh,
        directory: DirectoryChoice::Fresh,
        dispositions: DispositionChoice::IgnoreAll,
        group: GroupChoice::New(Kind::Service),
        parent: ParentChoice::ServiceRoot,
        first: FirstInstruction::Function(Service {
            entry,
            argument,
            stack,
            ..Service::default()
        }),
        start: StartChoice::UntilWoken,
        end: EndChoice::Stopper,
        words: Words::default(),
        name: Some(name),
    }
}

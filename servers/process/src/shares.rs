//! Shares in memory, tables and dispositions: made with one user, gone with the last.

use libipc::abi::Handle;

use crate::arena::Full;
use crate::model::*;
use crate::{Machine, ProcessServer};

impl ProcessServer {
    /// A table with one user, or the handle back.
    pub(crate) fn new_table(&mut self, handle: Handle) -> Result<TableId, Full> {
        self.tables.insert(Table { handle, users: 1 })
    }

    /// A set of dispositions with one user.
    pub(crate) fn new_dispositions(&mut self, ignored: u64) -> Result<DispositionsId, Full> {
        self.dispositions.insert(Dispositions { ignored, users: 1 })
    }

    /// Another user of a table.
    pub(crate) fn hold_table(&mut self, id: TableId) -> TableId {
        self.tables[id].users += 1;
        id
    }

    /// Another user of a memory.
    pub(crate) fn hold_memory(&mut self, id: MemoryId) -> MemoryId {
        self.memories[id].users += 1;
        id
    }

    /// Another user of a set of dispositions.
    pub(crate) fn hold_dispositions(&mut self, id: DispositionsId) -> DispositionsId {
        self.dispositions[id].users += 1;
        id
    }

    /// One user less.
    pub(crate) fn drop_table<M: Machine>(&mut self, machine: &mut M, id: TableId) {
        let table = &mut self.tables[id];
        table.users -= 1;
        if table.users == 0 {
            machine.close(table.handle);
            self.tables.remove(id);
        }
    }

    /// One user less.
    pub(crate) fn drop_memory<M: Machine>(&mut self, machine: &mut M, id: MemoryId) {
        let memory = &mut self.memories[id];
        memory.users -= 1;
        if memory.users == 0 {
            if memory.private.is_some() {
                machine.close(memory.private);
            }
            machine.close(memory.space);
            self.memories.remove(id);
        }
    }

    /// One user less.
    pub(crate) fn drop_dispositions(&mut self, id: DispositionsId) {
        let dispositions = &mut self.dispositions[id];
        dispositions.users -= 1;
        if dispositions.users == 0 {
            self.dispositions.remove(id);
        }
    }
}

//! Shares in signal dispositions: made with one user, gone with the last.

use crate::ProcessServer;
use crate::arena::Full;
use crate::model::*;

impl ProcessServer {
    /// A set of dispositions with one user.
    #[inline]
    pub(crate) fn new_dispositions(&mut self, ignored: u64) -> Result<DispositionsId, Full> {
        self.dispositions.insert(Dispositions { ignored, users: 1 })
    }

    /// Another user of a set of dispositions.
    pub(crate) fn hold_dispositions(&mut self, id: DispositionsId) -> DispositionsId {
        self.dispositions[id].users += 1;
        id
    }

    /// One user less.
    pub(crate) fn drop_dispositions(&mut self, id: DispositionsId) {
        let dispositions = &mut self.dispositions[id];
        dispositions.users -= 1;
        if dispositions.users == 0 {
            self.dispositions.discard(id);
        }
    }
}

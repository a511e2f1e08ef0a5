//! The memory server: who may use how much.

use serde::{Deserialize, Serialize};

/// Why a memory request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryError {
    /// The quota that would have to pay is used up.
    OverQuota,
    /// The capability does not permit this.
    Denied,
    /// An argument makes no sense.
    Invalid,
}

/// A quota's figures, in page frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// What may be used.
    pub limit: u64,
    /// What is in use.
    pub used: u64,
}

/// Access mask bits of a memory server capability.
pub mod access {
    /// Make pools under the quota that the badge names.
    pub const MAKE_POOL: u32 = 1 << 0;
    /// Look at all quotas.
    pub const INSPECT: u32 = 1 << 1;
}

crate::protocol! {
    /// Holds the root pool and gives out what others may use.
    memory refuses MemoryError;

    /// Makes a pool of at most `limit` page frames under the caller's quota. The name (at most 32
    /// bytes are kept) shows up in listings.
    1 => make_pool(name: [u8; 16], limit: u64) -> () [long] gives(pool);
    /// The caller's own quota.
    2 => quota() -> Quota [short];
    /// Quota number `index` by its name; `None` past the last.
    3 => quota_at(index: u64) -> Option<([u8; 16], Quota)> [short];
}

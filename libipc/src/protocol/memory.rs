//! The memory server: who may use how much.

use serde::{Deserialize, Serialize};

/// Why a memory request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryError {
    /// The quota that would have to pay is used up, or has too many pools.
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

/// A quota in the list of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaLine {
    /// Its number; never used again for another.
    pub number: u64,
    /// The number of the quota that it is part of; for the root its own.
    pub parent: u64,
    /// Its name, filled with NULs.
    pub name: [u8; 16],
    /// Its figures.
    pub quota: Quota,
}

/// The number of the quota that has all memory. A capability's badge is the number of the quota that
/// it speaks for.
pub const ROOT: u64 = 0;

/// Access mask bits of a memory server capability.
pub mod access {
    /// Make pools under the quota that the badge names, and take them back.
    pub const MAKE_POOL: u32 = 1 << 0;
    /// Look at all quotas.
    pub const INSPECT: u32 = 1 << 1;
}

crate::protocol! {
    /// Holds the root pool and gives out what others may use.
    memory refuses MemoryError;

    /// Makes a pool of at most `limit` page frames under the caller's quota, with the rights CHARGE
    /// and STATUS. The answer is the new quota's number. The name, cut to 15 bytes, shows up in
    /// listings.
    1 => make_pool(name: [u8; 16], limit: u64) -> u64 [short] gives(pool);
    /// The caller's own quota.
    2 => quota() -> Quota [short];
    /// The first quota with a number not below `number`; `None` past the last.
    3 => quota_at(number: u64) -> Option<QuotaLine> [short];
    /// Takes back a pool that was made under the caller's quota: everything charged to it ends.
    4 => drop_pool(number: u64) -> () [short];
}

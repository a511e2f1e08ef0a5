//! An endpoint where forked children find their parent: how the cases wait for each other.
//!
//! The private table is not copied by a fork, the files table is: so the receiver stays with the parent,
//! and the children find the sender as one of their open files.

use core::ptr::null_mut;

use libipc::abi::{Access, Error, Handle, IpcCall, IpcFlags, OpWord, SlotFlags, TableSelector};
use runtime::memory::own_pool;
use runtime::syscall::{self, Incoming};

/// The lowest slot for senders, past the standard streams.
const LOWEST_SLOT: u64 = 10;

/// An endpoint of this process.
pub struct Meeting {
    receiver: Handle,
    sender: Handle,
}

impl Meeting {
    pub fn new() -> Result<Meeting, Error> {
        let receiver = syscall::endpoint_create(own_pool(), 0)?;
        let sender = syscall::cap_derive(receiver, own_pool(), 1, Access::all())?;
        let slot = syscall::cap_copy(
            sender,
            Handle::OWN_FILES,
            LOWEST_SLOT,
            Access::all(),
            SlotFlags::empty(),
        )?;
        syscall::cap_close(sender)?;
        Ok(Meeting {
            receiver,
            sender: Handle::new(TableSelector::Files, slot as u32, 0),
        })
    }

    /// Where children call.
    pub fn sender(&self) -> Handle {
        self.sender
    }

    /// Where the parent receives.
    pub fn receiver(&self) -> Handle {
        self.receiver
    }
}

impl Drop for Meeting {
    /// Whoever waits for the parent goes on: with an empty answer if it was received, otherwise with
    /// `ServerGone`.
    fn drop(&mut self) {
        // Nobody may wait for an answer.
        let _ = message(IpcCall::Reply, Handle::NONE, [0; 8], 0);
        for handle in [self.receiver, self.sender] {
            // They are there, so closing them cannot fail.
            let _ = syscall::cap_close(handle);
        }
    }
}

/// A message call whose body of `bytes` (at most 64) travels in registers, without capabilities.
#[inline(always)]
pub fn message(
    call: IpcCall,
    handle: Handle,
    words: [u64; 8],
    bytes: usize,
) -> Result<Incoming, Error> {
    let op = OpWord::new(call, IpcFlags::empty(), bytes, 0);
    // SAFETY: there is no memory part, and 64 bytes fit the registers.
    let incoming = unsafe { syscall::message(op, handle, null_mut(), words) };
    match incoming.delivery.error() {
        None => Ok(incoming),
        Some(error) => Err(error),
    }
}

/// Waits until the parent closes the meeting.
pub fn wait_for_the_end(sender: Handle) {
    while message(IpcCall::Call, sender, [0; 8], 0).is_ok() {}
}

//! Children of a test: processes that check something themselves and report by their exit status.

use libipc::abi::{Access, PAGE_BYTES};
use libipc::{Error, Handle};
use runtime::memory::Mapping;
use runtime::process::{self, Fork, exit_status, fork, wait};
use runtime::{eprintln, start, syscall};

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::space::READ_WRITE;
use crate::{Failure, Outcome, check_eq};

/// Forks a child that runs `body`, says on standard error what failed, and ends with 0 or 1.
pub fn child(body: impl FnOnce() -> Outcome) -> Result<u32, Failure> {
    match fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => process::exit(status(body())),
    }
}

/// The exit status of a child's outcome; what failed goes to standard error.
pub fn status(outcome: Outcome) -> i32 {
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("in a child: {failure}");
            1
        }
    }
}

/// Waits for a child that must end with 0.
pub fn check_child(pid: u32) -> Outcome {
    let waited = wait(pid as i32, 0)?;
    check_eq!(waited.pid, pid);
    check_eq!(exit_status(waited.status), Some(0));
    Ok(())
}

/// Forks a child that runs `body`, and waits for it.
pub fn in_child(body: impl FnOnce() -> Outcome) -> Outcome {
    check_child(child(body)?)
}

/// The path of the running program's image.
pub fn own_path() -> &'static [u8] {
    start::arguments().next().unwrap_or_default()
}

/// A page that stays shared with forked children: a window on an own page, mapped shared.
pub struct SharedPage {
    page: Mapping,
    _source: Mapping,
}

impl SharedPage {
    /// A page of zeros.
    pub fn new() -> Result<SharedPage, Error> {
        let source = Mapping::anonymous(1)?;
        let window: Handle = source.make_window(Access::READ | Access::WRITE)?;
        let page = Mapping::window(window, READ_WRITE);
        syscall::cap_close(window)?;
        Ok(SharedPage {
            page: page?,
            _source: source,
        })
    }

    /// Word `index` of the page.
    pub fn word(&self, index: u64) -> &AtomicU64 {
        let address = self.page.address() + index * 8 % PAGE_BYTES;
        // SAFETY: mapped as long as `self`, aligned, used as an atomic only.
        unsafe { &*(address as *const AtomicU64) }
    }

    /// Waits until a word is `value`, for [`PATIENCE`](crate::PATIENCE).
    pub fn wait_for(&self, index: u64, value: u64) -> Outcome {
        let deadline = crate::after(crate::PATIENCE)?;
        while self.word(index).load(SeqCst) != value {
            crate::check!(
                syscall::clock()? < deadline,
                "shared word {index} is {}, not {value}",
                self.word(index).load(SeqCst)
            );
            syscall::thread_yield()?;
        }
        Ok(())
    }
}

//! clone: what is shared and what is not, seen from the parent.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use libipc::protocol::process::{CloneArguments, Errno};
use programs::errors::errno_text;
use runtime::file::{self, Fd};
use runtime::io::STDOUT;
use runtime::memory::Mapping;
use runtime::process::{clone, clone_flags as flags, exit_status, getpid, gettid, wait};
use runtime::{eprintln, println, sync};

runtime::entry!(run);

/// What the children write and the parent reads.
static SHARED: AtomicU32 = AtomicU32::new(0);
/// The thread's TID, and 0 once it has ended.
static THREAD: AtomicU32 = AtomicU32::new(0);

/// The descriptor that the children open.
const OPENED: Fd = Fd(20);

fn run() -> i32 {
    println!("parent pid is {}", getpid());
    match memory().and_then(|()| files()).and_then(|()| thread()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("clone-example: {}", errno_text(error));
            1
        }
    }
}

/// Makes a child process that runs `child` and waits for its end.
fn with_child(what: u64, child: fn() -> i32) -> Result<(), Errno> {
    let mut stack = Mapping::anonymous(16).map_err(|_| Errno::ENOMEM)?;
    let arguments = CloneArguments {
        flags: what | flags::SIGCHLD,
        ..CloneArguments::default()
    };
    let pid = clone(arguments, Some(&mut stack), child)?;
    let waited = wait(pid as i32, 0)?;
    match exit_status(waited.status) {
        Some(0) => Ok(()),
        _ => Err(Errno::EIO),
    }
}

fn write_shared() -> i32 {
    SHARED.fetch_add(1, SeqCst);
    0
}

fn memory() -> Result<(), Errno> {
    with_child(flags::VM, write_shared)?;
    println!(
        "VM: the parent sees {} after the child wrote 1",
        SHARED.load(SeqCst)
    );
    with_child(0, write_shared)?;
    println!("no VM: the parent still sees {}", SHARED.load(SeqCst));
    Ok(())
}

fn open_one() -> i32 {
    match file::duplicate(STDOUT, OPENED.0) {
        Ok(OPENED) => 0,
        _ => 1,
    }
}

fn files() -> Result<(), Errno> {
    with_child(0, open_one)?;
    println!(
        "no FILES: the child's descriptor is {} in the parent",
        openness()
    );
    with_child(flags::FILES, open_one)?;
    println!(
        "FILES: the child's descriptor is {} in the parent",
        openness()
    );
    file::close(OPENED).map_err(|_| Errno::EBADF)
}

fn openness() -> &'static str {
    match file::info(OPENED) {
        Ok(_) => "open",
        Err(_) => "not open",
    }
}

fn thread() -> Result<(), Errno> {
    let mut stack = Mapping::anonymous(16).map_err(|_| Errno::ENOMEM)?;
    let word = THREAD.as_ptr() as u64;
    let arguments = CloneArguments {
        flags: flags::VM
            | flags::FS
            | flags::FILES
            | flags::SIGHAND
            | flags::THREAD
            | flags::PARENT_SETTID
            | flags::CHILD_CLEARTID,
        parent_tid: word,
        child_tid: word,
        ..CloneArguments::default()
    };
    let tid = clone(arguments, Some(&mut stack), || {
        println!(
            "thread: pid is {}, tid is the one that clone returned: {}",
            getpid(),
            { gettid() == THREAD.load(SeqCst) }
        );
        0
    })?;
    sync::wait_while(&THREAD, tid);
    println!(
        "CHILD_CLEARTID: the joiner was woken, the word is {}",
        THREAD.load(SeqCst)
    );
    Ok(())
}

//! Making processes and threads, and waiting for their end.

use core::sync::atomic::{AtomicU32, Ordering};

use libipc::abi::{Access, PAGE_BYTES, Protection};
use libipc::protocol::process::{CloneArguments, CreateProcess, Errno};
use runtime::initial_stack::Strings;
use runtime::memory::Mapping;
use runtime::process::{
    self, Fork, Order, clone_flags as flags, create_process, exit_status, fork, vfork, wait,
};
use runtime::{file, service, start, sync, thread};

use crate::measure::{Failure, Sum};

/// Waits for a child that should end with status 0.
pub fn reap(child: u32) -> Result<(), Failure> {
    let waited = wait(child as i32, 0)?;
    if exit_status(waited.status) == Some(0) {
        Ok(())
    } else {
        Err(Failure::Child)
    }
}

/// The path of this program and the arguments with which it exits at once.
fn itself() -> [&'static [u8]; 2] {
    [start::arguments().next().unwrap_or_default(), b"x"]
}

/// Replaces the caller by this program, which exits at once; a status if that fails.
fn exec_itself() -> i32 {
    let words = itself();
    process::exec(words[0], words.into_iter(), start::environment());
    127
}

/// This program, told to exit at once.
pub fn order() -> Result<Order<impl Strings<'static>, impl Strings<'static>>, Errno> {
    let words = itself();
    Order::new(words[0], words.into_iter(), start::environment())
}

/// Runs `make` some times unmeasured, then measured; it returns a child to wait for.
fn repeated(
    sum: &mut Sum,
    warm_up: u64,
    usually: u64,
    make: impl Fn() -> Result<u32, Errno>,
) -> Result<(), Failure> {
    let count = sum.count(usually);
    for _ in 0..warm_up {
        reap(make()?)?;
    }
    sum.measure(count, || {
        for _ in 0..count {
            reap(make()?)?;
        }
        Ok(())
    })
}

/// Operation: getppid, which is a question to the process server.
pub fn null_getppid(sum: &mut Sum) -> Result<(), Failure> {
    let count = sum.count(20_000);
    sum.measure(count, || {
        for _ in 0..count {
            process::identity()?;
        }
        Ok(())
    })
}

/// Makes a child that ends at once.
pub fn fork_once() -> Result<u32, Errno> {
    match fork()? {
        Fork::Child => process::exit(0),
        Fork::Parent(child) => Ok(child),
    }
}

/// Operation: fork, the child's exit, wait.
pub fn fork_exit(sum: &mut Sum) -> Result<(), Failure> {
    repeated(sum, 10, 1000, fork_once)
}

/// Operation: vfork, the child's exit, wait.
pub fn vfork_exit(sum: &mut Sum) -> Result<(), Failure> {
    repeated(sum, 10, 1000, || vfork(|_| 0))
}

/// Operation: vfork, exec of this program (which exits at once), wait.
pub fn vfork_exec(sum: &mut Sum) -> Result<(), Failure> {
    repeated(sum, 3, 300, || {
        vfork(|child| {
            let words = itself();
            child.exec(words[0], words.into_iter(), start::environment());
            127
        })
    })
}

/// Operation: posix_spawn of this program, wait.
pub fn posix_spawn(sum: &mut Sum) -> Result<(), Failure> {
    repeated(sum, 3, 300, || process::spawn(order()?))
}

/// Operation: the same with an image that never ran before: a window on a copy of this program that
/// nobody has presented yet, so that the loader has to map it.
pub fn posix_spawn_new(sum: &mut Sum) -> Result<(), Failure> {
    let [path, argument] = itself();
    let file = Mapping::window(
        file::image(path).map_err(|_| Errno::ENOENT)?,
        Protection::READ,
    )?;
    let mut copy = Mapping::anonymous(file.bytes() as u64 / PAGE_BYTES)?;
    // SAFETY: just mapped, and nobody else knows of it.
    unsafe { copy.as_mut_slice() }.copy_from_slice(file.as_slice());
    repeated(sum, 3, 300, || {
        let image = copy
            .make_window(Access::READ | Access::EXECUTE)
            .map_err(|_| Errno::ENOMEM)?;
        let words = [path, argument].into_iter();
        process::spawn(Order::of_image(image, path, words, start::environment()))
    })
}

/// Operation: fork, exec of this program, wait.
pub fn fork_exec(sum: &mut Sum) -> Result<(), Failure> {
    repeated(sum, 3, 300, || match fork()? {
        Fork::Child => process::exit(exec_itself()),
        Fork::Parent(child) => Ok(child),
    })
}

/// Operation: CreateProcess of this program, wait for its handle, its exit code, both handles closed.
pub fn create(sum: &mut Sum) -> Result<(), Failure> {
    let once = || -> Result<(), Failure> {
        let (_, process, thread) = create_process(order()?, None, CreateProcess::default())?;
        process.wait(None)?;
        if process.exit_code()? != 0 {
            return Err(Failure::Child);
        }
        process.close()?;
        thread.close()?;
        Ok(())
    };
    let count = sum.count(300);
    for _ in 0..3 {
        once()?;
    }
    sum.measure(count, || {
        for _ in 0..count {
            once()?;
        }
        Ok(())
    })
}

/// The TID of the thread that runs, and 0 once it has ended.
static THREAD: AtomicU32 = AtomicU32::new(0);

/// Operation: clone with VM, FS, FILES, SIGHAND and THREAD, the thread's exit, waiting for it.
pub fn thread_clone(sum: &mut Sum) -> Result<(), Failure> {
    let mut stack = Mapping::anonymous(4)?;
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
    let mut once = || -> Result<(), Errno> {
        let tid = process::clone(arguments, Some(&mut stack), || 0)?;
        sync::wait_while(&THREAD, tid);
        Ok(())
    };
    let count = sum.count(2000);
    for _ in 0..10 {
        once()?;
    }
    sum.measure(count, || {
        for _ in 0..count {
            THREAD.store(u32::MAX, Ordering::Relaxed);
            once()?;
        }
        Ok(())
    })
}

/// Operation: a thread with a stack of its own (mapped and unmapped), and joining it.
pub fn thread_with_stack(sum: &mut Sum) -> Result<(), Failure> {
    let count = sum.count(2000);
    for _ in 0..10 {
        thread::spawn(33, || 0)?.join();
    }
    sum.measure(count, || {
        for _ in 0..count {
            thread::spawn(33, || 0)?.join();
        }
        Ok(())
    })
}

/// Operation: a service thread is made, runs, is stopped, and its result collected.
pub fn service_thread(sum: &mut Sum) -> Result<(), Failure> {
    fn until_stopped(argument: u64) -> i32 {
        service::wait_for_stop();
        argument as i32
    }
    let once = || -> Result<(), Failure> {
        let thread = service::create("bench", until_stopped, 7, 4)?;
        thread.wake()?;
        match thread.stop()? {
            7 => Ok(()),
            _ => Err(Failure::Child),
        }
    };
    let count = sum.count(500);
    for _ in 0..3 {
        once()?;
    }
    sum.measure(count, || {
        for _ in 0..count {
            once()?;
        }
        Ok(())
    })
}

//! vfork: the parent stands still until the child has ended.
#![cfg_attr(target_os = "none", no_std, no_main)]

use programs::errors::errno_text;
use runtime::process::{getpid, vfork, wait};
use runtime::{eprintln, println, syscall};

runtime::entry!(run);

fn run() -> i32 {
    println!("before vfork pid is {}", getpid());
    let child = vfork(|_| {
        for _ in 0..3 {
            println!("child pid is {}", getpid());
            // Whoever else may run, runs now: the parent may not.
            let _ = syscall::thread_yield();
        }
        0
    });
    for _ in 0..3 {
        println!("father pid is {}", getpid());
    }
    match child.and_then(|pid| wait(pid as i32, 0)) {
        Ok(_) => 0,
        Err(error) => {
            eprintln!("vfork-example: {}", errno_text(error));
            1
        }
    }
}

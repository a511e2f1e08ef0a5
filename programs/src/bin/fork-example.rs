//! fork: one process calls, two return.
#![cfg_attr(target_os = "none", no_std, no_main)]

use programs::errors::errno_text;
use runtime::process::{Fork, fork, getpid, wait};
use runtime::{eprintln, println};

runtime::entry!(run);

fn run() -> i32 {
    println!("before fork pid is {}", getpid());
    match fork() {
        Ok(Fork::Child) => {
            println!("child pid is {}", getpid());
            0
        }
        Ok(Fork::Parent(child)) => {
            println!("father pid is {}", getpid());
            match wait(child as i32, 0) {
                Ok(_) => 0,
                Err(error) => {
                    eprintln!("fork-example: wait: {}", errno_text(error));
                    1
                }
            }
        }
        Err(error) => {
            eprintln!("fork-example: fork: {}", errno_text(error));
            1
        }
    }
}

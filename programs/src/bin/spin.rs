//! spin: computes for ever, for tests of preemption and of being ended.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::spin_loop;

runtime::entry!(run);

fn run() -> i32 {
    loop {
        spin_loop();
    }
}

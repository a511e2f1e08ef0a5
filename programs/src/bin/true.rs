//! true: ends with success.
#![cfg_attr(target_os = "none", no_std, no_main)]

runtime::entry!(run);

fn run() -> i32 {
    0
}

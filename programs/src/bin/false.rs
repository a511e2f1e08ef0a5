//! false: ends with failure.
#![cfg_attr(target_os = "none", no_std, no_main)]

runtime::entry!(run);

fn run() -> i32 {
    1
}

//! exit-status N: ends with status N.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::{eprintln, start};

runtime::entry!(run);

fn run() -> i32 {
    match start::argument(1).and_then(|number| number.parse().ok()) {
        Some(status) => status,
        None => {
            eprintln!("usage: exit-status N");
            2
        }
    }
}

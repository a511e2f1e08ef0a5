//! echo: writes its arguments, with blanks between them.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::file::write_all;
use runtime::io::STDOUT;
use runtime::start;

runtime::entry!(run);

fn run() -> i32 {
    // One message, so that lines of several processes do not mix; what is longer goes in pieces.
    let mut line = heapless::Vec::<u8, 1024>::new();
    let mut failed = false;
    let mut put = |bytes: &[u8]| {
        if line.extend_from_slice(bytes).is_err() {
            failed |= write_all(STDOUT, &line)
                .and(write_all(STDOUT, bytes))
                .is_err();
            line.clear();
        }
    };
    for (place, argument) in start::arguments().skip(1).enumerate() {
        if place > 0 {
            put(b" ");
        }
        put(argument);
    }
    put(b"\n");
    failed |= write_all(STDOUT, &line).is_err();
    i32::from(failed)
}

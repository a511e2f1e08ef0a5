//! cat: writes standard input, or the files named, to standard output.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::protocol::files::{FileError, access};
use programs::errors::file_text;
use runtime::file::{self, CHUNK, Fd};
use runtime::io::{STDIN, STDOUT};
use runtime::{eprintln, start};

runtime::entry!(run);

fn run() -> i32 {
    let mut status = 0;
    if start::arguments().nth(1).is_none() {
        return report("standard input", copy(STDIN));
    }
    for argument in start::arguments().skip(1) {
        let name = core::str::from_utf8(argument).unwrap_or("?");
        let result = match argument {
            b"-" => copy(STDIN),
            path => file::open(path, access::READ).and_then(|opened| {
                let result = copy(opened);
                file::close(opened).and(result)
            }),
        };
        status |= report(name, result);
    }
    status
}

fn report(name: &str, result: Result<(), FileError>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("cat: {name}: {}", file_text(error));
            1
        }
    }
}

/// Copies until the end of the file.
fn copy(from: Fd) -> Result<(), FileError> {
    let mut buffer = [0; CHUNK];
    loop {
        match file::read(from, &mut buffer)? {
            0 => return Ok(()),
            count => file::write_all(STDOUT, &buffer[..count])?,
        }
    }
}

//! ls: lists the directories named, or the working directory.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::protocol::files::{FileError, FileKind, access};
use programs::errors::file_text;
use programs::table::{Table, number, text};
use runtime::file;
use runtime::io::{STDOUT, Stream};
use runtime::{eprintln, start};

runtime::entry!(run);

const ENTRIES: Table<3> = Table([text("", 4), number("", 9), text("", 0)]);

fn run() -> i32 {
    let mut status = 0;
    if start::arguments().nth(1).is_none() {
        return report(b".", list(b"."));
    }
    for path in start::arguments().skip(1) {
        status |= report(path, list(path));
    }
    status
}

fn report(path: &[u8], result: Result<(), FileError>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            let path = core::str::from_utf8(path).unwrap_or("?");
            eprintln!("ls: {path}: {}", file_text(error));
            1
        }
    }
}

/// Lists one directory; a file is listed by itself.
fn list(path: &[u8]) -> Result<(), FileError> {
    let opened = file::open(path, access::READ)?;
    let result = list_open(path, opened);
    file::close(opened).and(result)
}

fn list_open(path: &[u8], opened: file::Fd) -> Result<(), FileError> {
    let info = file::info(opened)?;
    if info.kind != FileKind::Directory {
        return line(path, info.kind, info.executable, info.size);
    }
    let mut index = 0;
    while let Some(entry) = file::entry(opened, index)? {
        let info = entry.info;
        line(&entry.name.0, info.kind, info.executable, info.size)?;
        index += 1;
    }
    Ok(())
}

fn line(name: &[u8], kind: FileKind, executable: bool, size: u64) -> Result<(), FileError> {
    let kind = match kind {
        FileKind::Directory => "dir",
        FileKind::Stream => "dev",
        FileKind::Regular if executable => "prog",
        FileKind::Regular => "file",
    };
    let name = core::str::from_utf8(name).unwrap_or("?");
    ENTRIES
        .row(&mut Stream::new(STDOUT), [&kind, &size, &name])
        .map_err(|_| FileError::Io)
}

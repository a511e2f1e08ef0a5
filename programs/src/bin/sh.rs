//! sh: the shell.
//!
//! On a terminal it edits lines itself, in raw mode; otherwise it reads its input byte by byte, so
//! that a program it starts finds the rest of the input. `sh -c COMMAND` carries out one line.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::vec::Vec;
use core::fmt::Write;

use libipc::protocol::memory;
use libipc::protocol::process::{Errno, slots};
use libipc::wire::{CallError, Connection};
use programs::editor::{Editor, Event, LINE_BYTES};
use programs::errors::{errno_text, signal_text};
use programs::listing;
use programs::processes::{Process, write_tree};
use programs::words::{Then, Words, parse};
use runtime::file;
use runtime::io::{STDIN, STDOUT};
use runtime::process::{self, Order, client, ending_signal, exit_status, wait};
use runtime::{eprintln, println, start};

runtime::entry!(run);

const PROMPT: &str = "$ ";

/// What a command means for the shell.
enum Done {
    /// It ended with this status.
    Status(u8),
    /// `exit`: the shell ends with this status.
    Exit(u8),
}

fn run() -> i32 {
    let status = match (start::argument(1), start::arguments().nth(2)) {
        (Some("-c"), Some(command)) => match carry_out(command, 0) {
            Done::Status(status) | Done::Exit(status) => status,
        },
        (Some(_), _) => {
            eprintln!("usage: sh [-c COMMAND]");
            2
        }
        (None, _) if file::info(STDIN).is_ok_and(|info| info.terminal) => on_terminal(),
        (None, _) => on_stream(),
    };
    status.into()
}

/// Reads lines with the editor until the end of input or `exit`.
fn on_terminal() -> u8 {
    println!("Mitosis. Type help for a list of commands.");
    let mut editor = Editor::new(PROMPT);
    let mut status = 0;
    loop {
        match edit(&mut editor) {
            Some(Event::Line) => match carry_out(editor.line(), status) {
                Done::Status(new) => status = new,
                Done::Exit(status) => return status,
            },
            Some(_) => status = 130,
            None => return status,
        }
    }
}

/// Lets a person edit one line; `None` at the end of input.
fn edit(editor: &mut Editor) -> Option<Event> {
    // A terminal that has no raw mode still brings lines.
    let _ = file::set_raw(STDIN, true);
    let event = keys(editor);
    let _ = file::set_raw(STDIN, false);
    event
}

fn keys(editor: &mut Editor) -> Option<Event> {
    let mut screen = heapless::Vec::<u8, 1024>::new();
    editor.begin(&mut |bytes| show(&mut screen, bytes));
    loop {
        flush(&mut screen);
        let mut key = [0];
        if !matches!(file::read(STDIN, &mut key), Ok(1)) {
            return None;
        }
        let event = editor.feed(key[0], &mut |bytes| show(&mut screen, bytes));
        if event != Event::Editing {
            flush(&mut screen);
            return (event != Event::EndOfInput).then_some(event);
        }
    }
}

/// Collects what a key does to the screen, so that it is written in one message.
fn show(screen: &mut heapless::Vec<u8, 1024>, bytes: &[u8]) {
    if screen.extend_from_slice(bytes).is_err() {
        flush(screen);
        let _ = file::write_all(STDOUT, bytes);
    }
}

fn flush(screen: &mut heapless::Vec<u8, 1024>) {
    let _ = file::write_all(STDOUT, screen);
    screen.clear();
}

/// Reads lines from something that is no terminal.
fn on_stream() -> u8 {
    let mut status = 0;
    let mut line = heapless::Vec::<u8, LINE_BYTES>::new();
    let mut too_long = false;
    loop {
        let mut byte = [0];
        let ended = !matches!(file::read(STDIN, &mut byte), Ok(1));
        if !ended && byte[0] != b'\n' {
            too_long |= line.push(byte[0]).is_err();
            continue;
        }
        if core::mem::take(&mut too_long) {
            eprintln!("sh: line too long");
            status = 2;
        } else {
            match carry_out(&line, status) {
                Done::Status(new) => status = new,
                Done::Exit(status) => return status,
            }
        }
        line.clear();
        if ended {
            return status;
        }
    }
}

/// Carries out the commands of one line.
fn carry_out(line: &[u8], mut status: u8) -> Done {
    let mut rest = line;
    let mut wanted = true;
    loop {
        let command = match parse(rest, status) {
            Ok(command) => command,
            Err(error) => {
                eprintln!("sh: {error}");
                return Done::Status(2);
            }
        };
        if wanted && command.words.count() > 0 {
            match command_by_name(&command.words) {
                Done::Status(new) => status = new,
                exit => return exit,
            }
        }
        wanted = match command.then {
            Then::End => return Done::Status(status),
            Then::Always => true,
            Then::OnSuccess => status == 0,
            Then::OnFailure => status != 0,
        };
        rest = command.rest;
    }
}

fn command_by_name(words: &Words) -> Done {
    let mut arguments = words.iter();
    let name = arguments.next().unwrap_or_default();
    let first = arguments.next();
    let more = arguments.next().is_some();
    match (name, first, more) {
        (b"exit", _, false) => match first.map(number) {
            None => Done::Exit(0),
            Some(Some(status)) => Done::Exit(status as u8),
            Some(None) => usage("exit [STATUS]"),
        },
        (b"ps", None, _) => status_of("ps", ps()),
        (b"caps", Some(pid), false) => match number(pid) {
            Some(pid) => status_of("caps", caps(pid)),
            None => usage("caps PID"),
        },
        (b"mem", None, _) => mem(),
        (b"help", None, _) => {
            let mut text = Output::default();
            let _ = listing::help(&mut text);
            text.done()
        }
        (b"exit", ..) => usage("exit [STATUS]"),
        (b"ps", ..) => usage("ps"),
        (b"caps", ..) => usage("caps PID"),
        (b"mem", ..) => usage("mem"),
        (b"help", ..) => usage("help"),
        _ => Done::Status(program(name, words)),
    }
}

fn usage(text: &str) -> Done {
    eprintln!("sh: usage: {text}");
    Done::Status(2)
}

fn number(word: &[u8]) -> Option<u32> {
    core::str::from_utf8(word).ok()?.parse().ok()
}

fn status_of(command: &str, result: Result<Done, Errno>) -> Done {
    result.unwrap_or_else(|error| {
        eprintln!("sh: {command}: {}", errno_text(error));
        Done::Status(1)
    })
}

/// Starts a program and waits for it; its exit status.
fn program(name: &[u8], words: &Words) -> u8 {
    let shown = core::str::from_utf8(name).unwrap_or("?");
    let mut path = Vec::new();
    if !name.contains(&b'/') {
        path.extend_from_slice(b"/bin/");
    }
    path.extend_from_slice(name);
    // The environment lives for ever and is lent for as long as the words are.
    let environment = start::environment().map(|string| -> &[u8] { string });
    let started = Order::new(&path, words.iter(), environment).and_then(process::spawn);
    let result = started.and_then(|pid| wait(pid as i32, 0));
    match result {
        Ok(waited) => match (exit_status(waited.status), ending_signal(waited.status)) {
            (Some(status), _) => status,
            (None, signal) => {
                let signal = signal.unwrap_or_default();
                eprintln!("sh: {shown}: {} ({signal})", signal_text(signal));
                128 + signal as u8
            }
        },
        Err(Errno::ENOENT) => {
            eprintln!("sh: {shown}: not found");
            127
        }
        Err(error) => {
            eprintln!("sh: {shown}: {}", errno_text(error));
            126
        }
    }
}

/// Text that is collected and then written in one go.
#[derive(Default)]
struct Output(Vec<u8>);

impl Output {
    fn done(self) -> Done {
        Done::Status(u8::from(file::write_all(STDOUT, &self.0).is_err()))
    }
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn ps() -> Result<Done, Errno> {
    let mut processes = Vec::new();
    let mut pid = 1;
    while let Some(line) = client().process_at(pid).map_err(process::errno)? {
        processes.push(Process::new(
            line.pid,
            line.ppid,
            line.state,
            line.threads,
            &line.name.0,
        ));
        pid = line.pid + 1;
    }
    let mut text = Output::default();
    let _ = write_tree(&mut processes, &mut text);
    Ok(text.done())
}

fn caps(pid: u32) -> Result<Done, Errno> {
    let mut text = Output::default();
    let _ = listing::CAPABILITIES.head(&mut text);
    for table in 0..3 {
        let mut index = 0;
        while let Some(line) = client()
            .capability_at(pid, table, index)
            .map_err(process::errno)?
        {
            if line.table != table {
                break;
            }
            let _ = listing::capability_row(
                &mut text,
                line.table,
                line.index,
                line.kind,
                line.flags,
                line.access,
            );
            index = line.index + 1;
        }
    }
    Ok(text.done())
}

fn mem() -> Done {
    let mut client = memory::Client::new(Connection::new(slots::MEMORY_SERVER));
    let mut pools = Vec::new();
    let mut number = 0;
    loop {
        match client.quota_at(number) {
            Ok(Some(line)) => {
                pools.push(line);
                number = line.number + 1;
            }
            Ok(None) => break,
            Err(error) => {
                eprintln!("sh: mem: {}", memory_text(error));
                return Done::Status(1);
            }
        }
    }
    let mut text = Output::default();
    let _ = listing::write_pools(&pools, &mut text);
    text.done()
}

fn memory_text(error: CallError<memory::MemoryError>) -> &'static str {
    match error {
        CallError::Refused(memory::MemoryError::Denied) => "not permitted",
        CallError::Refused(memory::MemoryError::OverQuota) => "quota used up",
        CallError::Refused(memory::MemoryError::Invalid) => "invalid argument",
        CallError::Kernel(_) => "the shell was not given the memory server",
        CallError::Protocol => "the memory server does not understand",
    }
}

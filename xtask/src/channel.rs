//! The host's end of the exec channel: one program in one emulator, its three
//! streams and its exit status.
//!
//! The frames are those of `libipc/src/exec_channel.rs`. COM2 is a socket on
//! which we listen; COM1, the kernel's log, goes to a file that is read only
//! when something went wrong.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libipc::exec_channel::{FromGuest, HostDecoder, end_of_input, header, to_guest};

use crate::qemu::{self, Boot, Ending, MachineOptions};

/// What a program in the emulator reads and writes.
pub struct Streams<'a> {
    /// Its standard input.
    pub input: Box<dyn Read + Send>,
    /// Where its standard output goes.
    pub output: &'a mut dyn Write,
    /// Where its standard error goes.
    pub error: &'a mut dyn Write,
}

/// One run of the emulator.
pub struct Job<'a> {
    /// The machine.
    pub machine: &'a MachineOptions,
    /// What it boots.
    pub boot: &'a Boot,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// How long the program may say nothing.
    pub quiet: Option<Duration>,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program ended with this status.
    Exit(u8),
    /// Time was up.
    Timeout,
    /// The kernel panicked.
    Panic,
    /// The machine powered off before the program's status was known.
    NoStatus,
    /// The guest wrote something that is not the exec channel's.
    BadFrame(String),
    /// Nobody reads the program's output any more.
    OutputClosed,
    /// The emulator itself failed.
    Emulator(ExitStatus),
}

/// An outcome, and what the machine said.
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// The kernel's log.
    pub log: Vec<u8>,
    /// What the emulator said about itself.
    pub emulator: String,
}

/// Runs a job to its end.
pub fn run(job: &Job, streams: Streams) -> Result<Finished> {
    let folder = Folder::make()?;
    let socket = folder.path.join("com2");
    let log = folder.path.join("com1.log");
    let listener = UnixListener::bind(&socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    listener.set_nonblocking(true)?;

    let mut command = qemu::command(job.machine, job.boot)?;
    command
        .arg("-chardev")
        .arg(format!("file,id=log,path={}", log.display()))
        .arg("-chardev")
        .arg(format!("socket,id=exec,path={}", socket.display()))
        .args(["-serial", "chardev:log", "-serial", "chardev:exec"]);
    let patience = Patience::from_now(job);
    let mut emulator = Emulator::start(command, &folder.path.join("emulator.log"))?;
    let outcome = converse(&listener, &mut emulator, patience, streams)?;
    drop(emulator);
    Ok(Finished {
        outcome,
        log: std::fs::read(&log).unwrap_or_default(),
        emulator: std::fs::read_to_string(folder.path.join("emulator.log")).unwrap_or_default(),
    })
}

/// Talks to the guest until something ends it.
fn converse(
    listener: &UnixListener,
    emulator: &mut Emulator,
    mut patience: Patience,
    streams: Streams,
) -> Result<Outcome> {
    let mut line = loop {
        match listener.accept() {
            Ok((line, _)) => break line,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("waiting for the emulator"),
        }
        if let Some(status) = emulator.child.try_wait()? {
            return Ok(Outcome::Emulator(status));
        }
        if patience.left().is_some_and(|left| left.is_zero()) {
            return Ok(Outcome::Timeout);
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    line.set_nonblocking(false)?;

    let (wanted, requests) = channel();
    let mut pending = Some((streams.input, requests, line.try_clone()?));
    let mut decoder = HostDecoder::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let left = patience.left();
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Outcome::Timeout);
        }
        line.set_read_timeout(left)?;
        let count = match line.read(&mut buffer) {
            Ok(0) => return Ok(after_the_line(emulator.wait()?)),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Ok(after_the_line(emulator.wait()?));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error).context("reading the exec channel"),
        };
        patience.heard();
        let mut bytes = &buffer[..count];
        loop {
            let event = match decoder.next(&mut bytes) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(bad) => {
                    let what = format!("kind {} with {} bytes", bad.kind, bad.length);
                    return Ok(Outcome::BadFrame(what));
                }
            };
            let written = match event {
                FromGuest::Ready => {
                    if let Some((input, requests, line)) = pending.take() {
                        std::thread::spawn(move || answer_requests(input, requests, line));
                    }
                    Ok(())
                }
                FromGuest::Output(bytes) => write_now(streams.output, bytes),
                FromGuest::Error(bytes) => write_now(streams.error, bytes),
                FromGuest::Wanted(most) => {
                    // The other end is gone when the line is; then this loop ends too.
                    let _ = wanted.send(most);
                    Ok(())
                }
                FromGuest::Exit(status) => return Ok(Outcome::Exit(status)),
            };
            match written {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    return Ok(Outcome::OutputClosed);
                }
                other => other.context("passing on the program's output")?,
            }
        }
    }
}

/// Answers each of the guest's requests for input with one frame.
fn answer_requests(mut input: Box<dyn Read + Send>, requests: Receiver<u16>, mut line: UnixStream) {
    let mut buffer = vec![0; 64 * 1024];
    for most in requests {
        let count = read_some(&mut *input, &mut buffer[..usize::from(most)]);
        let sent = if count == 0 {
            line.write_all(&end_of_input())
        } else {
            line.write_all(&header(to_guest::INPUT, count as u16))
                .and_then(|()| line.write_all(&buffer[..count]))
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Reads what there is; 0 at the end. An input that cannot be read (a closed one,
/// a folder) has ended.
fn read_some(input: &mut dyn Read, buffer: &mut [u8]) -> usize {
    loop {
        match input.read(buffer) {
            Ok(count) => return count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return 0,
        }
    }
}

fn write_now(target: &mut dyn Write, bytes: &[u8]) -> std::io::Result<()> {
    target.write_all(bytes)?;
    target.flush()
}

/// When to give up.
struct Patience {
    end: Option<Instant>,
    quiet: Option<Duration>,
    heard: Instant,
}

impl Patience {
    fn from_now(job: &Job) -> Self {
        let now = Instant::now();
        Self {
            end: job.timeout.map(|timeout| now + timeout),
            quiet: job.quiet,
            heard: now,
        }
    }

    /// The guest said something.
    fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// How long to wait for the next word; `None` is for ever.
    fn left(&self) -> Option<Duration> {
        let quiet = self.quiet.map(|quiet| self.heard + quiet);
        let end = match (self.end, quiet) {
            (Some(end), Some(quiet)) => end.min(quiet),
            (end, quiet) => end.or(quiet)?,
        };
        Some(end.saturating_duration_since(Instant::now()))
    }
}

/// The line closed: the emulator ended without a word from the program.
fn after_the_line(status: ExitStatus) -> Outcome {
    match Ending::of(status) {
        Ending::Success => Outcome::NoStatus,
        Ending::Panic => Outcome::Panic,
        Ending::Other(status) => Outcome::Emulator(status),
    }
}

/// A running emulator, which ends with this value.
struct Emulator {
    child: Child,
}

impl Emulator {
    fn start(mut command: Command, complaints: &Path) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(complaints)?)
            .spawn()
            .context("cannot start QEMU")?;
        Ok(Self { child })
    }

    /// Its exit status; it is known to end by itself.
    fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder for one run, gone with this value.
pub struct Folder {
    /// Where it is. Short: a socket's path may have 107 bytes only.
    pub path: PathBuf,
}

impl Folder {
    /// Makes one that nobody else has.
    pub fn make() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mitosis-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // What a process with our number left behind is of no use to anybody.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder in the system's place for temporary files does no harm.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// What the last panic in a log said.
pub fn panic_text(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log);
    let start = text.rfind("kernel panic")?;
    Some(text[start..].trim_end().to_owned())
}

/// The last lines of a log.
pub fn tail(log: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(log);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

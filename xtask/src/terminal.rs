//! A terminal that a test types on: an emulator whose COM1 is a socket.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::channel::{self, Folder};
use crate::qemu::{self, Boot, Ending, MachineOptions};

/// How many lines of the screen a failure shows.
const LINES: usize = 30;

/// A running emulator with a terminal; killed when dropped.
pub struct Terminal {
    child: Child,
    line: UnixStream,
    /// All that the guest wrote.
    screen: Vec<u8>,
    /// What the test has not looked at yet begins here.
    seen: usize,
    _folder: Folder,
}

impl Terminal {
    /// Starts the emulator.
    pub fn start(machine: &MachineOptions, boot: &Boot) -> Result<Self> {
        let folder = Folder::make()?;
        let socket = folder.path.join("com1");
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        let mut child = qemu::command(machine, boot)?
            .arg("-chardev")
            .arg(format!("socket,id=terminal,path={}", socket.display()))
            .args(["-serial", "chardev:terminal"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start QEMU")?;
        let line = loop {
            match listener.accept() {
                Ok((line, _)) => break line,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("waiting for the emulator"),
            }
            if let Some(status) = child.try_wait()? {
                bail!("the emulator failed ({status})");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        line.set_nonblocking(false)?;
        Ok(Self {
            child,
            line,
            screen: Vec::new(),
            seen: 0,
            _folder: folder,
        })
    }

    /// Waits until the guest has written `text`, after what was expected before;
    /// gives what it wrote up to there.
    pub fn expect(&mut self, text: &str, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        loop {
            let fresh = &self.screen[self.seen..];
            if let Some(at) = find(fresh, text.as_bytes()) {
                let upto = at + text.len();
                let shown = String::from_utf8_lossy(&fresh[..upto]).into_owned();
                self.seen += upto;
                return Ok(shown);
            }
            if !self.read_more(end)? {
                return Err(anyhow::anyhow!(channel::tail(&self.screen, LINES))).with_context(
                    || format!("{text:?} was not written within {} s", patience.as_secs()),
                );
            }
        }
    }

    /// Types something.
    pub fn send(&mut self, keys: &str) -> Result<()> {
        self.line
            .write_all(keys.as_bytes())
            .context("typing on the guest's terminal")
    }

    /// Waits until the emulator ends, and gives how it did and what was written
    /// after what was expected.
    pub fn end(&mut self, patience: Duration) -> Result<(Ending, String)> {
        let end = Instant::now() + patience;
        while self.read_more(end)? {}
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= end {
                return Err(anyhow::anyhow!(channel::tail(&self.screen, LINES))).with_context(
                    || format!("the machine still runs after {} s", patience.as_secs()),
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let rest = String::from_utf8_lossy(&self.screen[self.seen..]).into_owned();
        Ok((Ending::of(status), rest))
    }

    /// Reads what there is; false when nothing came until `end` or nothing will.
    fn read_more(&mut self, end: Instant) -> Result<bool> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        self.line.set_read_timeout(Some(left))?;
        let mut buffer = [0; 4096];
        match self.line.read(&mut buffer) {
            Ok(count) => {
                self.screen.extend_from_slice(&buffer[..count]);
                Ok(count > 0)
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => Ok(true),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset => {
                    Ok(false)
                }
                _ => Err(error).context("reading the guest's terminal"),
            },
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

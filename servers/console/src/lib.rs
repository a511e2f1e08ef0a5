//! The console server: the three standard streams of the first program, over one serial line.
//!
//! The line is a terminal with a person at the other end ([`terminal`]), or carries the framed streams
//! of `cargo xtask exec` ([`channel`]). A stream's capability speaks the files protocol; its badge says
//! which stream it is. Init's capability (badge [`CONTROL`]) speaks the console protocol.
//!
//! Invariant: a reader waits (its call is kept) only while there is no input for it; each kept call is
//! answered exactly once, in the order in which the reads came.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod channel;
pub mod terminal;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;

use libipc::abi::{Error, Handle, SendCap, TAIL_BYTES};
use libipc::exec_channel::{exit, header, ready, to_host};
use libipc::protocol::console::{self, ConsoleError};
use libipc::protocol::files::{self, DirectoryEntry, FileError, FileInfo, FileKind, From};
use libipc::wire::{Answer, Blob, Bytes, Caller, Kept};

use channel::{Channel, Found};
use terminal::Terminal;

/// Badge of init's capability.
pub const CONTROL: u64 = 0;
/// Badge of standard input.
pub const INPUT: u64 = 1;
/// Badge of standard output.
pub const OUTPUT: u64 = 2;
/// Badge of standard error.
pub const ERROR: u64 = 3;

/// What the server does to the world.
pub trait World {
    /// Sends bytes over the line, all of them.
    fn send(&mut self, bytes: &[u8]);
    /// Waits until what was sent has left the machine.
    fn drain(&mut self);
    /// Keeps the request that is being handled.
    fn keep_reply(&mut self) -> Result<Kept, Error>;
    /// Answers a read that was kept; false if the reader is gone.
    fn answer(&mut self, kept: Kept, result: Result<Blob, FileError>) -> bool;
    /// A sender with this badge and access mask, to be handed over.
    fn sender(&mut self, badge: u64, access: u32) -> Result<Handle, Error>;
}

/// What is at the other end of the line.
#[derive(Debug)]
enum Line {
    Terminal(Terminal),
    Channel(Channel),
}

/// A read that waits for input.
#[derive(Debug)]
struct Reader {
    kept: Kept,
    label: u64,
    count: usize,
}

/// The state.
#[derive(Debug)]
pub struct Console {
    line: Line,
    readers: VecDeque<Reader>,
    /// Input that was taken for a reader who had gone by then. It comes before what the line has.
    returned: VecDeque<u8>,
    /// The first program's end was reported: nothing follows.
    closed: bool,
}

impl Console {
    /// A console with a person at the other end.
    pub fn terminal() -> Console {
        Console::over(Line::Terminal(Terminal::default()))
    }

    /// A console with `cargo xtask exec` at the other end; says that it is ready.
    pub fn channel(world: &mut impl World) -> Console {
        world.send(&ready());
        Console::over(Line::Channel(Channel::new()))
    }

    fn over(line: Line) -> Console {
        Console {
            line,
            readers: VecDeque::new(),
            returned: VecDeque::new(),
            closed: false,
        }
    }

    /// Whether so many bytes of what came over the line can be taken now. If not, they can once
    /// somebody has read; until then the line keeps them.
    pub fn has_room(&self, count: usize) -> bool {
        match &self.line {
            Line::Terminal(terminal) => terminal.has_room(count),
            Line::Channel(_) => true,
        }
    }

    /// Bytes came over the line.
    pub fn arrived(&mut self, world: &mut impl World, bytes: &[u8]) {
        match &mut self.line {
            Line::Terminal(terminal) => {
                for byte in bytes {
                    terminal.typed(*byte, |echo| world.send(echo));
                }
            }
            Line::Channel(channel) => channel.arrived(bytes),
        }
        self.serve_readers(world);
    }

    /// The thread with this label wants its call back.
    pub fn cancel(&mut self, world: &mut impl World, label: u64) {
        self.forget_reader(world, label);
    }

    /// Answers as many waiting reads as there is input for.
    fn serve_readers(&mut self, world: &mut impl World) {
        while let Some(Reader { count, .. }) = self.readers.front() {
            let Some(result) = self.take_input(*count, world) else {
                return;
            };
            let Some(reader) = self.readers.pop_front() else {
                return;
            };
            if !world.answer(reader.kept, result.clone())
                && let Ok(Blob(bytes)) = result
            {
                // Whoever reads next gets it.
                for byte in bytes.iter().rev() {
                    self.returned.push_front(*byte);
                }
            }
        }
    }

    /// Input of at most `count` bytes, if there is any, or the end of it.
    fn take_input(
        &mut self,
        count: usize,
        world: &mut impl World,
    ) -> Option<Result<Blob, FileError>> {
        if self.returned.is_empty() {
            return self.line.read(count, world);
        }
        let count = count.min(self.returned.len());
        Some(Ok(Blob(
            self.returned.drain(..count).take(TAIL_BYTES).collect(),
        )))
    }

    /// Forgets a read that a thread gave up: its deadline passed, or it would not ask again.
    fn forget_reader(&mut self, world: &mut impl World, label: u64) {
        if let Some(place) = self.readers.iter().position(|reader| reader.label == label)
            && let Some(reader) = self.readers.remove(place)
        {
            world.answer(reader.kept, Err(FileError::Interrupted));
        }
    }

    /// Checks that the caller's capability is for a stream and permits this.
    fn stream(&self, caller: &Caller, right: u32) -> Result<(), FileError> {
        if matches!(caller.badge, INPUT | OUTPUT | ERROR) && caller.access & right == right {
            Ok(())
        } else {
            Err(FileError::BadAccess)
        }
    }
}

impl Line {
    /// Input for a read of `count` bytes; `None` if there is nothing yet.
    fn read(&mut self, count: usize, world: &mut impl World) -> Option<Result<Blob, FileError>> {
        let bytes = match self {
            Line::Terminal(terminal) => terminal.read(count)?,
            Line::Channel(channel) => match channel.read(count, |bytes| world.send(bytes)) {
                Found::Bytes(bytes) => bytes,
                Found::Nothing => return None,
                Found::Broken => return Some(Err(FileError::Io)),
            },
        };
        Some(Blob::from_slice(&bytes).ok_or(FileError::Io))
    }
}

impl<W: World> console::Server<W> for Console {
    fn standard_streams<'m>(
        &mut self,
        world: &mut W,
        caller: &mut Caller,
    ) -> Result<Answer<()>, ConsoleError> {
        if caller.access & console::access::OPEN == 0 {
            return Err(ConsoleError::Denied);
        }
        for (badge, access) in [
            (INPUT, files::access::READ),
            (OUTPUT, files::access::WRITE),
            (ERROR, files::access::WRITE),
        ] {
            match world.sender(badge, access) {
                Ok(sender) => caller.give(SendCap::moved(sender)),
                Err(_) => return Err(ConsoleError::NoMemory),
            }
        }
        Ok(Answer::Now(()))
    }

    fn report_exit<'m>(
        &mut self,
        world: &mut W,
        caller: &mut Caller,
        status: u8,
    ) -> Result<Answer<()>, ConsoleError> {
        if caller.access & console::access::REPORT == 0 {
            return Err(ConsoleError::Denied);
        }
        if let Line::Channel(_) = self.line
            && !self.closed
        {
            world.send(&exit(status));
            self.closed = true;
        }
        world.drain();
        Ok(Answer::Now(()))
    }
}

impl<W: World> files::Server<W> for Console {
    fn open<'m>(
        &mut self,
        _: &mut W,
        caller: &mut Caller,
        _: Bytes<'m>,
        _: u32,
    ) -> Result<Answer<FileInfo>, FileError> {
        self.stream(caller, 0)?;
        Err(FileError::NotADirectory)
    }

    fn read<'m>(
        &mut self,
        world: &mut W,
        caller: &mut Caller,
        count: u64,
    ) -> Result<Answer<Blob>, FileError> {
        self.stream(caller, files::access::READ)?;
        let count = usize::try_from(count).map_or(TAIL_BYTES, |count| count.min(TAIL_BYTES));
        if count == 0 {
            return Ok(Answer::Now(Blob::default()));
        }
        self.forget_reader(world, caller.label);
        // Those who came earlier are served first.
        if self.readers.is_empty()
            && let Some(result) = self.take_input(count, world)
        {
            return result.map(Answer::Now);
        }
        let kept = world.keep_reply().map_err(|_| FileError::NoMemory)?;
        self.readers.push_back(Reader {
            kept,
            label: caller.label,
            count,
        });
        Ok(Answer::Later)
    }

    fn read_at<'m>(
        &mut self,
        _: &mut W,
        caller: &mut Caller,
        _: u64,
        _: u64,
    ) -> Result<Answer<Blob>, FileError> {
        self.stream(caller, files::access::READ)?;
        Err(FileError::NotSeekable)
    }

    fn write<'m>(
        &mut self,
        world: &mut W,
        caller: &mut Caller,
        bytes: Bytes<'m>,
    ) -> Result<Answer<u64>, FileError> {
        self.stream(caller, files::access::WRITE)?;
        if self.closed {
            return Err(FileError::Io);
        }
        match self.line {
            Line::Terminal(_) => {
                // A terminal wants a carriage return before each line feed; who sends it has it.
                for line in bytes.0.split_inclusive(|byte| *byte == b'\n') {
                    match line {
                        [.., b'\r', b'\n'] => world.send(line),
                        [line @ .., b'\n'] => {
                            world.send(line);
                            world.send(b"\r\n");
                        }
                        _ => world.send(line),
                    }
                }
            }
            Line::Channel(_) if bytes.0.is_empty() => {}
            Line::Channel(_) => {
                let kind = match caller.badge {
                    ERROR => to_host::ERROR,
                    _ => to_host::OUTPUT,
                };
                // A message is far below what a frame carries.
                world.send(&header(kind, bytes.0.len() as u16));
                world.send(bytes.0);
            }
        }
        Ok(Answer::Now(bytes.0.len() as u64))
    }

    fn seek<'m>(
        &mut self,
        _: &mut W,
        caller: &mut Caller,
        _: i64,
        _: From,
    ) -> Result<Answer<u64>, FileError> {
        self.stream(caller, 0)?;
        Err(FileError::NotSeekable)
    }

    fn info<'m>(&mut self, _: &mut W, caller: &mut Caller) -> Result<Answer<FileInfo>, FileError> {
        self.stream(caller, 0)?;
        Ok(Answer::Now(FileInfo {
            kind: FileKind::Stream,
            size: 0,
            executable: false,
            terminal: matches!(self.line, Line::Terminal(_)),
        }))
    }

    fn entry<'m>(
        &mut self,
        _: &mut W,
        caller: &mut Caller,
        _: u64,
    ) -> Result<Answer<Option<DirectoryEntry>>, FileError> {
        self.stream(caller, 0)?;
        Err(FileError::NotADirectory)
    }

    fn image<'m>(
        &mut self,
        _: &mut W,
        caller: &mut Caller,
        _: Bytes<'m>,
    ) -> Result<Answer<u64>, FileError> {
        self.stream(caller, 0)?;
        Err(FileError::NotADirectory)
    }

    fn window<'m>(&mut self, _: &mut W, caller: &mut Caller) -> Result<Answer<u64>, FileError> {
        self.stream(caller, 0)?;
        Err(FileError::Invalid)
    }

    fn set_raw<'m>(
        &mut self,
        world: &mut W,
        caller: &mut Caller,
        raw: bool,
    ) -> Result<Answer<()>, FileError> {
        self.stream(caller, files::access::READ)?;
        let Line::Terminal(terminal) = &mut self.line else {
            return Err(FileError::Invalid);
        };
        terminal.set_raw(raw);
        self.serve_readers(world);
        Ok(Answer::Now(()))
    }
}

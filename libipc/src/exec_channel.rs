//! The exec channel: how a program's three standard streams and its exit status
//! cross a serial line to `cargo xtask exec`.
//!
//! Everything is a frame: one byte of kind, a length (u16, little-endian), and
//! so many bytes. Both ends use the encoder and the decoders of this module.
//!
//! ```text
//! guest to host                              host to guest
//!  1  bytes for standard output               1  bytes of standard input
//!  2  bytes for standard error                2  end of input, no bytes
//!  3  exit status, 1 byte; the last frame
//!  4  ready, bytes "MITOSIS1"; the first frame
//!  5  more input wanted: at most so many
//!     bytes (u16, not 0)
//! ```
//!
//! Flow control: the guest asks for input (5) and the host answers each request
//! with exactly one frame, as soon as it has a byte: between 1 and so many bytes,
//! or the end of input. What nobody asked for is never sent, so the guest needs no
//! more room than it named, and the host reads no input that the program did not
//! want. A request after the end is answered with the end again. In the other
//! direction the serial line itself stops the guest when the host is slow.
//!
//! Firmware may write to the line before the kernel runs: the host drops all
//! bytes before the whole ready frame ([`HostDecoder`] does).
//!
//! Invariant: a decoder copies no stream data and keeps at most a few bytes, so
//! frames may be cut anywhere by the line; what it makes of a byte sequence does
//! not depend on how the sequence was cut, except that stream data arrives in
//! such pieces.

/// Bytes before a frame's contents.
pub const HEADER_BYTES: usize = 3;

/// The most bytes one frame carries.
pub const MOST: usize = u16::MAX as usize;

/// What the ready frame contains: the name and version of this protocol.
pub const READY: [u8; 8] = *b"MITOSIS1";

/// Kinds of frames from the guest to the host.
pub mod to_host {
    /// Bytes for standard output.
    pub const OUTPUT: u8 = 1;
    /// Bytes for standard error.
    pub const ERROR: u8 = 2;
    /// The exit status, one byte. Nothing follows.
    pub const EXIT: u8 = 3;
    /// The first frame; see [`READY`](super::READY).
    pub const READY: u8 = 4;
    /// Input is wanted, at most so many bytes (u16).
    pub const WANTED: u8 = 5;
}

/// Kinds of frames from the host to the guest.
pub mod to_guest {
    /// Bytes of standard input.
    pub const INPUT: u8 = 1;
    /// There is no more input.
    pub const END: u8 = 2;
}

/// The header of a frame with `length` bytes of contents, which follow it.
pub fn header(kind: u8, length: u16) -> [u8; HEADER_BYTES] {
    let [low, high] = length.to_le_bytes();
    [kind, low, high]
}

/// The whole ready frame.
pub fn ready() -> [u8; HEADER_BYTES + READY.len()] {
    let mut frame = [0; HEADER_BYTES + READY.len()];
    frame[..HEADER_BYTES].copy_from_slice(&header(to_host::READY, READY.len() as u16));
    frame[HEADER_BYTES..].copy_from_slice(&READY);
    frame
}

/// The whole frame that asks for at most `most` bytes of input.
pub fn wanted(most: u16) -> [u8; HEADER_BYTES + 2] {
    let [kind, low, high] = header(to_host::WANTED, 2);
    let [first, second] = most.to_le_bytes();
    [kind, low, high, first, second]
}

/// The whole frame that tells the exit status.
pub fn exit(status: u8) -> [u8; HEADER_BYTES + 1] {
    let [kind, low, high] = header(to_host::EXIT, 1);
    [kind, low, high, status]
}

/// The whole frame that ends the input.
pub fn end_of_input() -> [u8; HEADER_BYTES] {
    header(to_guest::END, 0)
}

/// A frame that the protocol does not know; the line is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFrame {
    /// Its kind.
    pub kind: u8,
    /// How many bytes it said would follow.
    pub length: u16,
}

/// What the host learns from the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromGuest<'a> {
    /// The guest's end of the channel is there.
    Ready,
    /// A piece of standard output.
    Output(&'a [u8]),
    /// A piece of standard error.
    Error(&'a [u8]),
    /// So many bytes of input are wanted, at most.
    Wanted(u16),
    /// The program ended.
    Exit(u8),
}

/// What the guest learns from the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromHost<'a> {
    /// A piece of the input that was asked for; `answered` when it is the last
    /// piece of the answer, so that more may be asked for.
    Input {
        /// The bytes, at least one.
        bytes: &'a [u8],
        /// Is the answer complete with them?
        answered: bool,
    },
    /// There is no more input; answers a request too.
    End,
}

/// Cuts a byte sequence into frames, whatever their kinds.
#[derive(Clone, Debug, Default)]
struct Framing {
    header: [u8; HEADER_BYTES],
    /// How many bytes of the header are known.
    known: usize,
    /// How many bytes of the contents are still to come.
    left: u16,
}

/// A step in reading a frame.
enum Step<'a> {
    /// A header is complete; contents follow if its length is not 0.
    Begin { kind: u8, length: u16 },
    /// A piece of the contents; `last` completes the frame.
    Piece {
        kind: u8,
        bytes: &'a [u8],
        last: bool,
    },
}

impl Framing {
    /// Takes the next step from `input`; `None` when it needs more bytes.
    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Option<Step<'a>> {
        if self.known == HEADER_BYTES && self.left == 0 {
            self.known = 0;
        }
        if self.known < HEADER_BYTES {
            while self.known < HEADER_BYTES {
                let (&byte, rest) = input.split_first()?;
                *input = rest;
                self.header[self.known] = byte;
                self.known += 1;
            }
            let [kind, low, high] = self.header;
            self.left = u16::from_le_bytes([low, high]);
            return Some(Step::Begin {
                kind,
                length: self.left,
            });
        }
        if input.is_empty() {
            return None;
        }
        let (bytes, rest) = input.split_at(input.len().min(usize::from(self.left)));
        *input = rest;
        self.left -= bytes.len() as u16;
        Some(Step::Piece {
            kind: self.header[0],
            bytes,
            last: self.left == 0,
        })
    }
}

/// The host's end: understands what the guest sends.
#[derive(Clone, Debug, Default)]
pub struct HostDecoder {
    /// How many bytes of the ready frame were seen in a row; then all is ready.
    greeting: usize,
    framing: Framing,
    /// The contents of a short frame, and how many of them are known.
    short: [u8; 2],
    known: usize,
}

impl HostDecoder {
    /// At the start of the line.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next event in `input`, which loses the bytes that were understood;
    /// `None` when all of them were.
    ///
    /// # Errors
    /// The guest sent something else than this protocol.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<FromGuest<'a>>, BadFrame> {
        let greeting = ready();
        while self.greeting < greeting.len() {
            let Some((&byte, rest)) = input.split_first() else {
                return Ok(None);
            };
            *input = rest;
            // The first byte occurs nowhere else in the frame, so after a
            // mismatch the frame can only start at this very byte.
            if byte == greeting[self.greeting] {
                self.greeting += 1;
            } else {
                self.greeting = usize::from(byte == greeting[0]);
            }
            if self.greeting == greeting.len() {
                return Ok(Some(FromGuest::Ready));
            }
        }
        while let Some(step) = self.framing.step(input) {
            match step {
                Step::Begin { kind, length } => {
                    self.known = 0;
                    let fits = match kind {
                        to_host::OUTPUT | to_host::ERROR => true,
                        to_host::EXIT => length == 1,
                        to_host::WANTED => length == 2,
                        _ => false,
                    };
                    if !fits {
                        return Err(BadFrame { kind, length });
                    }
                }
                Step::Piece {
                    kind: to_host::OUTPUT,
                    bytes,
                    ..
                } => {
                    return Ok(Some(FromGuest::Output(bytes)));
                }
                Step::Piece {
                    kind: to_host::ERROR,
                    bytes,
                    ..
                } => {
                    return Ok(Some(FromGuest::Error(bytes)));
                }
                Step::Piece { kind, bytes, last } => {
                    self.short[self.known..][..bytes.len()].copy_from_slice(bytes);
                    self.known += bytes.len();
                    if last {
                        return Ok(Some(match kind {
                            to_host::EXIT => FromGuest::Exit(self.short[0]),
                            _ => FromGuest::Wanted(u16::from_le_bytes(self.short)),
                        }));
                    }
                }
            }
        }
        Ok(None)
    }
}

/// The guest's end: understands what the host sends.
#[derive(Clone, Debug, Default)]
pub struct GuestDecoder {
    framing: Framing,
}

impl GuestDecoder {
    /// At the start of the line.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next event in `input`, which loses the bytes that were understood;
    /// `None` when all of them were.
    ///
    /// # Errors
    /// The host sent something else than this protocol.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<FromHost<'a>>, BadFrame> {
        while let Some(step) = self.framing.step(input) {
            match step {
                Step::Begin {
                    kind: to_guest::INPUT,
                    length,
                } if length > 0 => {}
                Step::Begin {
                    kind: to_guest::END,
                    length: 0,
                } => return Ok(Some(FromHost::End)),
                Step::Begin { kind, length } => return Err(BadFrame { kind, length }),
                Step::Piece { bytes, last, .. } => {
                    return Ok(Some(FromHost::Input {
                        bytes,
                        answered: last,
                    }));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn frame(kind: u8, contents: &[u8]) -> Vec<u8> {
        let mut bytes = header(kind, contents.len() as u16).to_vec();
        bytes.extend(contents);
        bytes
    }

    /// What the host makes of a line that arrives in pieces of `piece` bytes.
    #[derive(Debug, Default, PartialEq)]
    struct Seen {
        ready: bool,
        output: Vec<u8>,
        error: Vec<u8>,
        wanted: Vec<u16>,
        exit: Option<u8>,
    }

    fn host(line: &[u8], piece: usize) -> Result<Seen, BadFrame> {
        let mut decoder = HostDecoder::new();
        let mut seen = Seen::default();
        for mut part in line.chunks(piece) {
            while let Some(event) = decoder.next(&mut part)? {
                match event {
                    FromGuest::Ready => seen.ready = true,
                    FromGuest::Output(bytes) => seen.output.extend(bytes),
                    FromGuest::Error(bytes) => seen.error.extend(bytes),
                    FromGuest::Wanted(most) => seen.wanted.push(most),
                    FromGuest::Exit(status) => seen.exit = Some(status),
                }
            }
        }
        Ok(seen)
    }

    #[test]
    fn the_host_hears_every_kind_of_frame_however_the_line_cuts_it() {
        let all: Vec<u8> = (0..=255).collect();
        let mut line = ready().to_vec();
        line.extend(frame(to_host::OUTPUT, &all));
        line.extend(wanted(4096));
        line.extend(frame(to_host::ERROR, b"no"));
        line.extend(frame(to_host::OUTPUT, b""));
        line.extend(wanted(1));
        line.extend(exit(255));
        for piece in 1..line.len() + 1 {
            let seen = host(&line, piece).unwrap();
            let expected = Seen {
                ready: true,
                output: all.clone(),
                error: b"no".to_vec(),
                wanted: [4096, 1].to_vec(),
                exit: Some(255),
            };
            assert_eq!(seen, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_firmware_says_before_the_ready_frame_is_dropped() {
        let mut line = b"SeaBIOS\x04\x04\x08\x00MITO\x04\x08".to_vec();
        line.extend(ready());
        line.extend(exit(0));
        let seen = host(&line, 5).unwrap();
        assert!(seen.ready && seen.exit == Some(0) && seen.output.is_empty());
    }

    #[test]
    fn the_host_refuses_frames_it_does_not_know() {
        for (kind, contents) in [
            (0, &b""[..]),
            (6, b"x"),
            (to_host::EXIT, b""),
            (to_host::EXIT, b"12"),
            (to_host::WANTED, b"1"),
            (to_host::READY, &READY),
        ] {
            let mut line = ready().to_vec();
            line.extend(frame(kind, contents));
            let length = contents.len() as u16;
            assert_eq!(host(&line, 99), Err(BadFrame { kind, length }));
        }
    }

    #[test]
    fn the_guest_hears_input_and_its_end() {
        let mut line = frame(to_guest::INPUT, b"hello");
        line.extend(end_of_input());
        line.extend(end_of_input());
        for piece in 1..line.len() + 1 {
            let mut decoder = GuestDecoder::new();
            let (mut input, mut answers, mut ends) = (Vec::new(), 0, 0);
            for mut part in line.chunks(piece) {
                while let Some(event) = decoder.next(&mut part).unwrap() {
                    match event {
                        FromHost::Input { bytes, answered } => {
                            input.extend(bytes);
                            answers += usize::from(answered);
                        }
                        FromHost::End => ends += 1,
                    }
                }
            }
            assert_eq!(
                (&input[..], answers, ends),
                (&b"hello"[..], 1, 2),
                "in pieces of {piece}"
            );
        }
    }

    #[test]
    fn the_guest_refuses_an_empty_answer() {
        let line = frame(to_guest::INPUT, b"");
        let refused = Err(BadFrame {
            kind: to_guest::INPUT,
            length: 0,
        });
        assert_eq!(GuestDecoder::new().next(&mut &line[..]), refused);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(
            bytes in prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..200),
            piece in 1usize..20,
        ) {
            let mut line = ready().to_vec();
            line.extend(&bytes);
            let _ = host(&line, piece);
            let mut decoder = GuestDecoder::new();
            for mut part in bytes.chunks(piece) {
                while let Ok(Some(_)) = decoder.next(&mut part) {}
            }
        }
    }
}

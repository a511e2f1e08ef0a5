//! The guest's end of the exec channel: streams as frames on a serial line
//! ([`libipc::exec_channel`]).
//!
//! Invariant: a request for input is on its way only while the buffer is empty, so the buffer holds at
//! most one answer, [`MOST`] bytes.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use libipc::exec_channel::{FromHost, GuestDecoder, wanted};

/// The most input that is asked for at once, in bytes.
pub const MOST: usize = 4096;

/// Whether the other end still speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The host has said that there is no more input.
    Ended,
    /// The host broke the protocol.
    Broken,
}

/// The channel's input side.
#[derive(Debug)]
pub struct Channel {
    decoder: GuestDecoder,
    buffer: VecDeque<u8>,
    asked: bool,
    state: State,
}

/// What a read finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// These bytes; empty at the end of input.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// Nothing ever again: the line is of no use.
    Broken,
}

impl Channel {
    /// At the start of the line.
    pub fn new() -> Channel {
        Channel {
            decoder: GuestDecoder::new(),
            buffer: VecDeque::new(),
            asked: false,
            state: State::Open,
        }
    }

    /// Takes what came over the line.
    pub fn arrived(&mut self, mut bytes: &[u8]) {
        while self.state == State::Open {
            match self.decoder.next(&mut bytes) {
                Ok(Some(FromHost::Input { bytes, answered })) => {
                    // More than was asked for is no answer to our request.
                    if !self.asked || self.buffer.len() + bytes.len() > MOST {
                        self.state = State::Broken;
                        return;
                    }
                    self.buffer.extend(bytes);
                    self.asked = !answered;
                }
                Ok(Some(FromHost::End)) => self.state = State::Ended,
                Ok(None) => return,
                Err(_) => self.state = State::Broken,
            }
        }
    }

    /// The next bytes for a reader, at most `count`. If there are none, `send` may ask the host for
    /// some.
    pub fn read(&mut self, count: usize, mut send: impl FnMut(&[u8])) -> Found {
        if !self.buffer.is_empty() {
            let count = count.min(self.buffer.len());
            return Found::Bytes(self.buffer.drain(..count).collect());
        }
        match self.state {
            State::Ended => Found::Bytes(Vec::new()),
            State::Broken => Found::Broken,
            State::Open => {
                if !self.asked {
                    self.asked = true;
                    send(&wanted(count.clamp(1, MOST) as u16));
                }
                Found::Nothing
            }
        }
    }
}

impl Default for Channel {
    fn default() -> Self {
        Channel::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libipc::exec_channel::{end_of_input, header, to_guest};

    fn input(bytes: &[u8]) -> Vec<u8> {
        let mut frame = header(to_guest::INPUT, bytes.len() as u16).to_vec();
        frame.extend_from_slice(bytes);
        frame
    }

    fn read(channel: &mut Channel, count: usize) -> (Found, Vec<u8>) {
        let mut sent = Vec::new();
        let found = channel.read(count, |bytes| sent.extend_from_slice(bytes));
        (found, sent)
    }

    #[test]
    fn a_reader_asks_once_and_gets_what_comes() {
        let mut channel = Channel::new();
        assert_eq!(
            read(&mut channel, 10),
            (Found::Nothing, wanted(10).to_vec())
        );
        assert_eq!(read(&mut channel, 10), (Found::Nothing, Vec::new()));
        channel.arrived(&input(b"hello"));
        assert_eq!(read(&mut channel, 3).0, Found::Bytes(b"hel".to_vec()));
        assert_eq!(
            read(&mut channel, 3),
            (Found::Bytes(b"lo".to_vec()), Vec::new())
        );
        assert_eq!(read(&mut channel, usize::MAX).1, wanted(MOST as u16));
    }

    #[test]
    fn the_end_is_told_to_every_reader() {
        let mut channel = Channel::new();
        read(&mut channel, 1);
        channel.arrived(&end_of_input());
        for _ in 0..2 {
            assert_eq!(
                read(&mut channel, 1),
                (Found::Bytes(Vec::new()), Vec::new())
            );
        }
    }

    #[test]
    fn a_host_that_breaks_the_protocol_is_not_listened_to() {
        let mut unasked = Channel::new();
        unasked.arrived(&input(b"x"));
        assert_eq!(read(&mut unasked, 1).0, Found::Broken);
        let mut garbage = Channel::new();
        garbage.arrived(&[9, 9, 9]);
        assert_eq!(read(&mut garbage, 1).0, Found::Broken);
        let mut long = Channel::new();
        read(&mut long, 1);
        long.arrived(&input(&[0; MOST + 1]));
        assert_eq!(read(&mut long, 1).0, Found::Broken);
    }
}

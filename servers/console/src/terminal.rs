//! The line discipline: from what a person types to what a program reads.
//!
//! Cooked, the person edits a line and the program gets it when it ends; raw, each byte goes to the
//! program as it comes, without echo. Input is kept as pieces: a read takes from the first piece only,
//! so it never returns more than a line. An empty piece is the end of input, told once.
//!
//! Invariant: pieces and the line being edited hold at most [`CAPACITY`] bytes together. What does not
//! fit stays where it comes from until something is read ([`Terminal::has_room`]); of a line that is
//! longer by itself, the rest is refused with a bell.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// How many bytes wait for a reader at most.
pub const CAPACITY: usize = 4096;

const END_OF_TRANSMISSION: u8 = 0x04; // Ctrl-D
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;
const KILL_LINE: u8 = 0x15; // Ctrl-U
const CANCEL: u8 = 0x03; // Ctrl-C
const BELL: &[u8] = b"\x07";
const ERASE: &[u8] = b"\x08 \x08";

/// A terminal's input side.
#[derive(Debug, Default)]
pub struct Terminal {
    pieces: VecDeque<Vec<u8>>,
    line: Vec<u8>,
    raw: bool,
}

impl Terminal {
    /// Takes a byte from the person; what is to be shown goes to `echo`.
    pub fn typed(&mut self, byte: u8, mut echo: impl FnMut(&[u8])) {
        if self.raw {
            let full = self.held() >= CAPACITY;
            match self.pieces.back_mut() {
                _ if full => echo(BELL),
                Some(piece) if !piece.is_empty() => piece.push(byte),
                _ => self.pieces.push_back(Vec::from([byte])),
            }
            return;
        }
        match byte {
            b'\r' | b'\n' if self.held() >= CAPACITY => echo(BELL),
            b'\r' | b'\n' => {
                echo(b"\r\n");
                self.line.push(b'\n');
                self.finish_line();
            }
            END_OF_TRANSMISSION => self.finish_line(),
            BACKSPACE | DELETE => echo(if self.erase() { ERASE } else { BELL }),
            KILL_LINE => {
                while self.erase() {
                    echo(ERASE);
                }
            }
            // There are no signals yet; the line is dropped, as with signals.
            CANCEL => {
                echo(b"^C\r\n");
                self.line.clear();
            }
            b'\t' | b' '.. => {
                // The place of the line's end is kept free.
                if self.held() + 1 < CAPACITY {
                    self.line.push(byte);
                    echo(&[byte]);
                } else {
                    echo(BELL);
                }
            }
            _ => {}
        }
    }

    /// Whether `count` bytes more can be taken, or have to be because nobody could read before.
    pub fn has_room(&self, count: usize) -> bool {
        // The place of a line's end is kept free, so that one byte less fits.
        self.pieces.is_empty() || self.held() + count < CAPACITY
    }

    /// The next bytes for a reader, at most `count`; empty at the end of input. `None` if there is
    /// nothing yet.
    pub fn read(&mut self, count: usize) -> Option<Vec<u8>> {
        let piece = self.pieces.front_mut()?;
        if count < piece.len() {
            return Some(piece.drain(..count).collect());
        }
        self.pieces.pop_front()
    }

    /// Changes the mode. What was typed of a line goes to the reader of raw input.
    pub fn set_raw(&mut self, raw: bool) {
        if raw && !self.raw && !self.line.is_empty() {
            self.finish_line();
        }
        self.raw = raw;
    }

    fn held(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum::<usize>() + self.line.len()
    }

    fn finish_line(&mut self) {
        // The end of input takes no room, so it is counted apart: one of them waits at most.
        if self.line.is_empty() && self.pieces.back().is_some_and(Vec::is_empty) {
            return;
        }
        self.pieces.push_back(core::mem::take(&mut self.line));
    }

    /// Removes the last character of the line; false if there is none.
    fn erase(&mut self) -> bool {
        while let Some(byte) = self.line.pop() {
            // A character in UTF-8 ends where its first byte is gone.
            if byte & 0xc0 != 0x80 {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn typed(terminal: &mut Terminal, text: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        for byte in text {
            terminal.typed(*byte, |echo| shown.extend_from_slice(echo));
        }
        shown
    }

    #[test]
    fn a_line_is_read_when_it_ends() {
        let mut terminal = Terminal::default();
        assert_eq!(typed(&mut terminal, b"ls"), b"ls");
        assert_eq!(terminal.read(100), None);
        assert_eq!(typed(&mut terminal, b"\rpwd\r"), b"\r\npwd\r\n");
        assert_eq!(terminal.read(2).unwrap(), b"ls");
        assert_eq!(terminal.read(100).unwrap(), b"\n");
        assert_eq!(terminal.read(100).unwrap(), b"pwd\n");
        assert_eq!(terminal.read(100), None);
    }

    #[test]
    fn a_line_can_be_edited_until_it_ends() {
        let mut terminal = Terminal::default();
        assert_eq!(typed(&mut terminal, b"lx\x7fs\r"), b"lx\x08 \x08s\r\n");
        assert_eq!(terminal.read(100).unwrap(), b"ls\n");
        typed(&mut terminal, "a\u{fc}\x7fb\x15\x7fc\r".as_bytes());
        assert_eq!(terminal.read(100).unwrap(), b"c\n");
        typed(&mut terminal, b"dropped\x03kept\r");
        assert_eq!(terminal.read(100).unwrap(), b"kept\n");
    }

    #[test]
    fn ctrl_d_ends_the_input_on_an_empty_line_and_the_line_on_another() {
        let mut terminal = Terminal::default();
        typed(&mut terminal, b"ab\x04");
        assert_eq!(terminal.read(100).unwrap(), b"ab");
        assert_eq!(terminal.read(100), None);
        typed(&mut terminal, b"\x04\x04x\r");
        assert_eq!(terminal.read(100).unwrap(), b"");
        assert_eq!(terminal.read(100).unwrap(), b"x\n");
    }

    #[test]
    fn raw_input_comes_byte_by_byte_without_echo() {
        let mut terminal = Terminal::default();
        typed(&mut terminal, b"half");
        terminal.set_raw(true);
        assert_eq!(typed(&mut terminal, b"\x1b[A\r\x04"), b"");
        assert_eq!(terminal.read(1).unwrap(), b"h");
        assert_eq!(terminal.read(100).unwrap(), b"alf\x1b[A\r\x04");
        terminal.set_raw(false);
        assert_eq!(typed(&mut terminal, b"x"), b"x");
    }

    #[test]
    fn what_nobody_reads_does_not_grow_without_end() {
        let mut terminal = Terminal::default();
        let shown = typed(&mut terminal, &[b'x'; CAPACITY + 10]);
        assert_eq!(shown.iter().filter(|byte| **byte == 7).count(), 11);
        typed(&mut terminal, b"\r");
        assert_eq!(terminal.read(usize::MAX).unwrap().len(), CAPACITY);
    }

    #[test]
    fn lines_are_taken_while_there_is_room_and_there_is_some_once_one_is_read() {
        const LINE: &[u8] = b"a line\r";
        let mut terminal = Terminal::default();
        while terminal.has_room(LINE.len()) {
            assert!(!typed(&mut terminal, LINE).contains(&7));
        }
        assert!(terminal.held() > CAPACITY - LINE.len());
        assert_eq!(terminal.read(100).unwrap(), b"a line\n");
        assert!(terminal.has_room(LINE.len()));
    }

    #[test]
    fn what_there_is_room_for_is_taken_whole_in_either_mode() {
        for raw in [false, true] {
            for rest in 0..70 {
                let mut terminal = Terminal::default();
                typed(&mut terminal, &[b'x'; CAPACITY / 2]);
                typed(&mut terminal, b"\r");
                typed(&mut terminal, &[b'x'; CAPACITY / 2 - 71]);
                terminal.set_raw(raw);
                typed(&mut terminal, &[b'x'; 70][..rest]);
                let before = terminal.held();
                if terminal.has_room(64) {
                    assert!(!typed(&mut terminal, &[b'y'; 64]).contains(&7));
                    assert_eq!(terminal.held(), before + 64, "raw {raw}, {rest}");
                }
            }
        }
    }

    #[test]
    fn a_line_that_nobody_can_read_yet_keeps_nothing_back() {
        let mut terminal = Terminal::default();
        typed(&mut terminal, &[b'x'; CAPACITY + 10]);
        assert!(terminal.has_room(1));
        typed(&mut terminal, b"\r");
        assert!(!terminal.has_room(1));
    }

    proptest! {
        #[test]
        fn any_keys_keep_the_bound(keys in prop::collection::vec(any::<u8>(), 0..9000), raw in any::<bool>()) {
            let mut terminal = Terminal::default();
            terminal.set_raw(raw);
            typed(&mut terminal, &keys);
            prop_assert!(terminal.held() <= CAPACITY);
        }
    }
}

//! Standard streams and formatted output.
//!
//! Output is collected only within one `print!`: what a call formats is sent in pieces of up to
//! [`CHUNK`] bytes, normally as one message, and nothing is held back when it returns. So a fork never
//! writes the same text twice, and lines of two processes mix only where a line is longer than a piece.

use core::fmt::{self, Write};

use crate::file::{self, Fd};

/// Standard input.
pub const STDIN: Fd = Fd(0);
/// Standard output.
pub const STDOUT: Fd = Fd(1);
/// Standard error.
pub const STDERR: Fd = Fd(2);

/// The size of a piece of formatted output, in bytes.
pub const CHUNK: usize = 1024;

/// Collects formatted text and hands it on in pieces of up to `SIZE` bytes, the last one when dropped.
pub(crate) struct Lines<const SIZE: usize, F: FnMut(&[u8])> {
    buffer: heapless::Vec<u8, SIZE>,
    send: F,
}

impl<const SIZE: usize, F: FnMut(&[u8])> Lines<SIZE, F> {
    pub(crate) fn new(send: F) -> Self {
        Lines {
            buffer: heapless::Vec::new(),
            send,
        }
    }

    fn flush(&mut self) {
        if !self.buffer.is_empty() {
            (self.send)(&self.buffer);
            self.buffer.clear();
        }
    }
}

impl<const SIZE: usize, F: FnMut(&[u8])> Write for Lines<SIZE, F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if self.buffer.is_full() {
                self.flush();
            }
            let (now, later) = rest.split_at(rest.len().min(SIZE - self.buffer.len()));
            // It fits: `now` is at most what is free.
            let _ = self.buffer.extend_from_slice(now);
            rest = later;
        }
        Ok(())
    }
}

impl<const SIZE: usize, F: FnMut(&[u8])> Drop for Lines<SIZE, F> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// An open file as a target of `write!`. Every piece of text becomes a message of its own; `print!`
/// and its siblings collect first.
#[derive(Clone, Copy, Debug)]
pub struct Stream(Fd);

impl Stream {
    /// Writes to this file.
    pub const fn new(fd: Fd) -> Stream {
        Stream(fd)
    }
}

impl Write for Stream {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        file::write_all(self.0, text.as_bytes()).map_err(|_| fmt::Error)
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> fmt::Result {
        let mut result = Ok(());
        let mut lines = Lines::<CHUNK, _>::new(|bytes: &[u8]| {
            result = result.and(file::write_all(self.0, bytes).map_err(|_| fmt::Error));
        });
        let formatted = lines.write_fmt(text);
        drop(lines);
        formatted.and(result)
    }
}

/// Writes formatted text; there is nobody to tell if it fails.
#[doc(hidden)]
pub fn print_to(fd: Fd, text: fmt::Arguments<'_>) {
    let _ = Stream(fd).write_fmt(text);
}

/// Prints to standard output.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::io::print_to($crate::io::STDOUT, ::core::format_args!($($text)*)) };
}

/// Prints a line to standard output.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($text:tt)*) => { $crate::print!("{}\n", ::core::format_args!($($text)*)) };
}

/// Prints to standard error.
#[macro_export]
macro_rules! eprint {
    ($($text:tt)*) => { $crate::io::print_to($crate::io::STDERR, ::core::format_args!($($text)*)) };
}

/// Prints a line to standard error.
#[macro_export]
macro_rules! eprintln {
    () => { $crate::eprint!("\n") };
    ($($text:tt)*) => { $crate::eprint!("{}\n", ::core::format_args!($($text)*)) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn pieces(text: fmt::Arguments<'_>) -> Vec<String> {
        let mut pieces = Vec::new();
        let mut lines = Lines::<8, _>::new(|bytes: &[u8]| {
            pieces.push(String::from_utf8(bytes.to_vec()).unwrap());
        });
        lines.write_fmt(text).unwrap();
        drop(lines);
        pieces
    }

    #[test]
    fn short_text_is_sent_in_one_piece() {
        assert_eq!(pieces(format_args!("{}-{}\n", 12, 34)), ["12-34\n"]);
        assert!(pieces(format_args!("")).is_empty());
    }

    #[test]
    fn long_text_is_cut_into_pieces_and_nothing_is_lost() {
        assert_eq!(
            pieces(format_args!("{}{}", "0123456789", "abcdefghij")),
            ["01234567", "89abcdef", "ghij"]
        );
    }
}

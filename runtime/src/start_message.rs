//! Writing start messages: what a new image is started with.
//!
//! The message is the postcard encoding of [`StartMessage`], written piece by piece, because arguments
//! and environment need not lie in one piece beforehand.

use libipc::protocol::process::StartMessage;
use libipc::wire::Bytes;

/// The most that arguments and environment may take, pointers included, in bytes (LX-EXEC-12).
pub const LIMIT: usize = 128 * 1024;

/// Room for the counts and lengths of a message.
const OVERHEAD: usize = 64;

/// The room that a message needs, in bytes; `None` if it is longer than [`LIMIT`].
pub fn size<'s>(
    name: &[u8],
    arguments: impl Iterator<Item = &'s [u8]>,
    environment: impl Iterator<Item = &'s [u8]>,
) -> Option<usize> {
    let mut total = name.len();
    let mut pointers = 0usize;
    for string in arguments.chain(environment) {
        total = total.checked_add(string.len() + 1)?;
        pointers += 8;
        if total + pointers > LIMIT {
            return None;
        }
    }
    Some(total + OVERHEAD)
}

/// Appends to a slice.
struct Writer<'b> {
    into: &'b mut [u8],
    used: usize,
}

impl Writer<'_> {
    fn raw(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.used.checked_add(bytes.len())?;
        self.into.get_mut(self.used..end)?.copy_from_slice(bytes);
        self.used = end;
        Some(())
    }

    fn encoded(&mut self, value: impl serde::Serialize) -> Option<()> {
        let free = self.into.get_mut(self.used..)?;
        self.used += postcard::to_slice(&value, free).ok()?.len();
        Some(())
    }

    /// A count of strings, and the strings as one run of bytes, each ended by a NUL.
    fn strings<'s>(&mut self, strings: impl Iterator<Item = &'s [u8]> + Clone) -> Option<()> {
        let count = u32::try_from(strings.clone().count()).ok()?;
        let bytes: usize = strings.clone().map(|string| string.len() + 1).sum();
        self.encoded(count)?;
        self.encoded(bytes)?;
        for string in strings {
            // A NUL inside would make two strings of one.
            if string.contains(&0) {
                return None;
            }
            self.raw(string)?;
            self.raw(&[0])?;
        }
        Some(())
    }
}

/// Writes a message; returns its length in bytes. `None` if it does not fit or a string holds a NUL.
pub fn write<'s>(
    into: &mut [u8],
    name: &[u8],
    arguments: impl Iterator<Item = &'s [u8]> + Clone,
    environment: impl Iterator<Item = &'s [u8]> + Clone,
) -> Option<usize> {
    let mut writer = Writer { into, used: 0 };
    writer.encoded(Bytes(name))?;
    writer.strings(arguments)?;
    writer.strings(environment)?;
    Some(writer.used)
}

/// The message in `bytes`; `None` if they hold none.
pub fn read(bytes: &[u8]) -> Option<StartMessage<'_>> {
    postcard::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn what_is_written_piece_by_piece_reads_as_one_message() {
        let arguments: [&[u8]; 3] = [b"cat", b"", b"a b"];
        let environment: [&[u8]; 1] = [b"HOME=/"];
        let room = size(b"cat", arguments.into_iter(), environment.into_iter()).unwrap();
        let mut buffer = std::vec![0; room];
        let used = write(
            &mut buffer,
            b"cat",
            arguments.into_iter(),
            environment.into_iter(),
        )
        .unwrap();
        let message = read(&buffer[..used]).unwrap();
        assert_eq!(message.name, Bytes(b"cat"));
        assert_eq!((message.argument_count, message.environment_count), (3, 1));
        assert_eq!(message.arguments, Bytes(b"cat\0\0a b\0"));
        assert_eq!(message.environment, Bytes(b"HOME=/\0"));
    }

    #[test]
    fn a_message_at_the_limit_fits_the_size_that_was_said() {
        let long = std::vec![b'x'; LIMIT / 2 - 32];
        let arguments: Vec<&[u8]> = std::vec![&long, &long];
        let room = size(b"n", arguments.iter().copied(), [].into_iter()).unwrap();
        let mut buffer = std::vec![0; room];
        assert!(write(&mut buffer, b"n", arguments.iter().copied(), [].into_iter()).is_some());
        let arguments: Vec<&[u8]> = std::vec![
            &long,
            &long,
            b"more than fits in what is left, which is little indeed"
        ];
        assert_eq!(size(b"n", arguments.iter().copied(), [].into_iter()), None);
    }

    #[test]
    fn a_buffer_that_is_too_small_is_refused() {
        let arguments: [&[u8]; 1] = [b"abc"];
        assert_eq!(
            write(&mut [0; 5], b"n", arguments.into_iter(), [].into_iter()),
            None
        );
    }

    #[test]
    fn a_string_with_a_nul_inside_is_refused() {
        let arguments: [&[u8]; 1] = [b"a\0b"];
        assert_eq!(
            write(&mut [0; 64], b"n", arguments.into_iter(), [].into_iter()),
            None
        );
    }
}

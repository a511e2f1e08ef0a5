//! Building the System V initial stack: arguments, environment, auxiliary vector.
//!
//! The creator of a process builds it, in memory of its own, as it will lie at the end of the new
//! program's first stack; whoever starts the program only copies it there. From the top down: a word
//! that says where the initial stack begins, the strings, then, on a 16-byte border, the words that the
//! psABI (3.4.1) puts at and above the initial stack pointer.
//!
//! The auxiliary vector says nothing of the image, which the creator does not know. A native program
//! knows its own by its linker's symbols.

use core::mem::{self, MaybeUninit};

use libipc::abi::{PAGE_BYTES, layout};

/// Keys of the auxiliary vector (psABI table 3.11).
mod auxiliary {
    pub const NULL: u64 = 0;
    pub const PAGE_BYTES: u64 = 6;
    pub const SECURE: u64 = 23;
    pub const EXECUTED_NAME: u64 = 31;
}

/// Bytes in a word.
const WORD: usize = size_of::<u64>();
/// Words of the auxiliary vector.
const VECTOR_WORDS: usize = 8;

/// The most that arguments and environment may take, pointers included, in bytes (LX-EXEC-12).
pub const LIMIT: usize = 128 * 1024;

/// The most that a stack takes beside that: count, two nulls, auxiliary vector, padding, last word.
const OVERHEAD: usize = (3 + VECTOR_WORDS + 1) * WORD + 16;

/// Room for any stack, in bytes.
pub const ROOM: usize = LIMIT + OVERHEAD;

const _: () = assert!(ROOM <= layout::INITIAL_STACK_BYTES as usize);

/// Why no stack could be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackError {
    /// Strings and pointers are more than [`LIMIT`] or than there is room for.
    TooBig,
    /// A string holds a NUL, which would make two of it.
    Malformed,
}

/// Arguments or environment, which are gone through again if there was too little room.
pub trait Strings<'s>: Iterator<Item = &'s [u8]> + Clone {}

impl<'s, I: Iterator<Item = &'s [u8]> + Clone> Strings<'s> for I {}

/// Builds a stack at the end of `room`, for a place that ends at address `end`, a multiple of 16.
/// Returns the part that it takes, a multiple of 16 bytes: the initial stack pointer is that far below
/// `end`.
///
/// Where the words begin is known when all strings were seen. Until then the strings grow down from the
/// end of the room, and the words up from its beginning.
pub fn build<'s, 'm>(
    room: &'m mut [MaybeUninit<u8>],
    end: u64,
    mut arguments: impl Iterator<Item = &'s [u8]>,
    environment: impl Iterator<Item = &'s [u8]>,
) -> Result<&'m mut [u8], StackError> {
    let size = room.len();
    let strings_end = size.checked_sub(WORD).ok_or(StackError::TooBig)?;
    let mut writer = Writer {
        free: &mut room[..strings_end],
        end: end - WORD as u64,
    };
    // In the place of the argument count.
    writer.word(0)?;
    // An empty argument list becomes one empty string (LX-EXEC-11).
    let executed_name = writer.string(arguments.next().unwrap_or_default())?;
    let count = 1 + writer.strings(arguments)?;
    let pointers = count + writer.strings(environment)?;
    for word in [
        auxiliary::PAGE_BYTES,
        PAGE_BYTES,
        auxiliary::SECURE,
        0,
        auxiliary::EXECUTED_NAME,
        executed_name,
        auxiliary::NULL,
        0,
    ] {
        writer.word(word)?;
    }
    let words_end = (1 + pointers + 2 + VECTOR_WORDS) * WORD;
    let strings_at = words_end + writer.free.len();
    if strings_end - strings_at + pointers * WORD > LIMIT {
        return Err(StackError::TooBig);
    }
    let bytes = (words_end + size - strings_at).next_multiple_of(16);
    let begin = size.checked_sub(bytes).ok_or(StackError::TooBig)?;
    room[..WORD].write_copy_of_slice(&(count as u64).to_le_bytes());
    room[strings_end..].write_copy_of_slice(&(end - bytes as u64).to_le_bytes());
    room.copy_within(..words_end, begin);
    room[begin + words_end..strings_at].fill(MaybeUninit::new(0));
    // SAFETY: from `begin` on there are the words, which were written without a gap; zeros; the
    // strings, without a gap likewise; and the last word.
    Ok(unsafe { room[begin..].assume_init_mut() })
}

/// Words at the beginning of a room, strings at its end.
struct Writer<'m> {
    /// What is left between them.
    free: &'m mut [MaybeUninit<u8>],
    /// The address that its end will have.
    end: u64,
}

impl Writer<'_> {
    fn word(&mut self, word: u64) -> Result<(), StackError> {
        let free = mem::take(&mut self.free);
        let (place, free) = free
            .split_first_chunk_mut::<WORD>()
            .ok_or(StackError::TooBig)?;
        place.write_copy_of_slice(&word.to_le_bytes());
        self.free = free;
        Ok(())
    }

    /// A string and a pointer to it; its address.
    fn string(&mut self, string: &[u8]) -> Result<u64, StackError> {
        let free = mem::take(&mut self.free);
        let left = free.len().checked_sub(string.len() + 1);
        let (free, place) = free.split_at_mut(left.ok_or(StackError::TooBig)?);
        self.free = free;
        self.end -= place.len() as u64;
        let (place, nul) = place.split_at_mut(string.len());
        nul.fill(MaybeUninit::new(0));
        if !copy_without_nul(string, place) {
            return Err(StackError::Malformed);
        }
        self.word(self.end)?;
        Ok(self.end)
    }

    /// Strings, a pointer to each of them, and a null; how many strings.
    fn strings<'s>(
        &mut self,
        strings: impl Iterator<Item = &'s [u8]>,
    ) -> Result<usize, StackError> {
        let mut count = 0;
        for string in strings {
            self.string(string)?;
            count += 1;
        }
        self.word(0)?;
        Ok(count)
    }
}

/// Copies a string to where there is room for it; false if there is a NUL in it.
fn copy_without_nul(from: &[u8], to: &mut [MaybeUninit<u8>]) -> bool {
    const LOW_BITS: u64 = u64::from_ne_bytes([0x01; WORD]);
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; WORD]);
    let ((words, rest), (to, to_rest)) = (from.as_chunks::<WORD>(), to.as_chunks_mut::<WORD>());
    for (bytes, to) in words.iter().zip(to) {
        // A zero byte, and no word without one, borrows into its high bit.
        let word = u64::from_ne_bytes(*bytes);
        if word.wrapping_sub(LOW_BITS) & !word & HIGH_BITS != 0 {
            return false;
        }
        to.write_copy_of_slice(bytes);
    }
    for (byte, to) in rest.iter().zip(to_rest) {
        if *byte == 0 {
            return false;
        }
        to.write(*byte);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    type Words<'a> = &'a [&'a [u8]];

    fn build_in<'m>(
        room: &'m mut [MaybeUninit<u8>],
        end: u64,
        arguments: Words,
        environment: Words,
    ) -> Result<&'m mut [u8], StackError> {
        let environment = environment.iter().copied();
        build(room, end, arguments.iter().copied(), environment)
    }

    /// Builds in real memory, so that the pointers can be followed.
    fn built(arguments: Words, environment: Words) -> (Vec<u128>, *mut u64) {
        let mut memory = std::vec![0u128; 32];
        let bytes = memory.len() * 16;
        let end = memory.as_ptr() as u64 + bytes as u64;
        // SAFETY: the same memory as bytes, borrowed for this call only.
        let room = unsafe { core::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), bytes) };
        let stack = build_in(room, end, arguments, environment).unwrap();
        assert_eq!(stack.len() % 16, 0);
        let stack = stack.as_mut_ptr().cast();
        (memory, stack)
    }

    #[test]
    fn the_program_finds_its_arguments_environment_and_vector() {
        let (memory, stack) = built(&[b"cat", b"-n"], &[b"A=1", b"B="]);
        let word = |index: usize| {
            // SAFETY: within the built stack.
            unsafe { *stack.add(index) }
        };
        let string = |index: usize| {
            // SAFETY: a pointer that `build` put there.
            unsafe { core::ffi::CStr::from_ptr(word(index) as *const _) }.to_bytes()
        };
        assert_eq!(word(0), 2);
        assert_eq!(
            (string(1), string(2), word(3)),
            (&b"cat"[..], &b"-n"[..], 0)
        );
        assert_eq!(
            (string(4), string(5), word(6)),
            (&b"A=1"[..], &b"B="[..], 0)
        );
        let vector: Vec<(u64, u64)> = (0..4).map(|i| (word(7 + 2 * i), word(8 + 2 * i))).collect();
        assert!(vector.contains(&(6, 4096)));
        assert!(vector.contains(&(31, word(1))));
        assert_eq!(vector.last(), Some(&(0, 0)));
        assert_eq!(
            *memory.last().unwrap() >> 64,
            stack as u128,
            "the last word"
        );
    }

    #[test]
    fn an_empty_argument_list_becomes_one_empty_string() {
        let (_memory, stack) = built(&[], &[]);
        // SAFETY: within the built stack.
        let (count, first) = unsafe { (*stack, *stack.add(1)) };
        assert_eq!(count, 1);
        // SAFETY: a pointer that `build` put there.
        assert!(unsafe { core::ffi::CStr::from_ptr(first as *const _) }.is_empty());
    }

    #[test]
    fn every_byte_is_written_whatever_was_there() {
        for length in 0..40 {
            let argument = std::vec![b'x'; length];
            let mut twice = [0xa5, 0x5a].map(|byte| [MaybeUninit::new(byte); 256]);
            let stacks = twice.each_mut().map(|room| {
                let stack = build_in(room, 0x10000, &[&argument], &[]).unwrap();
                stack.to_vec()
            });
            assert_eq!(stacks[0], stacks[1]);
        }
    }

    #[test]
    fn a_string_with_a_nul_inside_is_refused() {
        let mut room = [MaybeUninit::uninit(); 256];
        for bad in [&b"\0"[..], b"a\0b", b"0123456789abcde\0", b"\x800123\0"] {
            for arguments in [&[bad][..], &[b"a", bad]] {
                let built = build_in(&mut room, 0x10000, arguments, &[]);
                assert_eq!(built, Err(StackError::Malformed));
            }
            let built = build_in(&mut room, 0x10000, &[b"a"], &[bad]);
            assert_eq!(built, Err(StackError::Malformed));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_just_fits_is_not() {
        for length in 0..40 {
            let string = std::vec![b'x'; length];
            let words: [&[u8]; 2] = [&string, b"y"];
            let mut room = [MaybeUninit::uninit(); 256];
            let bytes = build_in(&mut room, 0x10000, &words, &words).unwrap().len();
            let whole = build_in(&mut room[..bytes], 0x10000, &words, &words);
            assert_eq!(whole.map(|stack| stack.len()), Ok(bytes));
            for less in 0..bytes {
                let built = build_in(&mut room[..less], 0x10000, &words, &words);
                assert_eq!(built, Err(StackError::TooBig), "{less} of {bytes}");
            }
        }
    }

    #[test]
    fn strings_and_pointers_have_a_limit() {
        let mut room = std::vec![MaybeUninit::uninit(); 2 * ROOM];
        let mut bytes = |arguments: Words, environment: Words| {
            let end = 8 * ROOM as u64 / 16 * 16;
            let built = build_in(&mut room, end, arguments, environment);
            built.map(|stack| stack.len())
        };
        let half = std::vec![b'x'; LIMIT / 2 - 9];
        let both = [&half[..]; 2];
        let most = bytes(&both, &[]).unwrap();
        assert!(most <= ROOM);
        assert_eq!(bytes(&both[..1], &both[1..]), Ok(most));
        assert_eq!(bytes(&both, &[b""]), Err(StackError::TooBig));
        let pointers: Vec<&[u8]> = std::vec![b""; LIMIT / 9 + 1];
        assert_eq!(bytes(&[], &pointers), Err(StackError::TooBig));
    }
}

//! Building the System V initial stack: arguments, environment, auxiliary vector.
//!
//! The creator of a process builds it, in memory of its own, as it will lie at the end of the new
//! program's first stack; whoever starts the program only copies it there. From the top down: a word
//! that says where the initial stack begins, the strings, then, on a 16-byte border, the words that the
//! psABI (3.4.1) puts at and above the initial stack pointer.
//!
//! The auxiliary vector says nothing of the image, which the creator does not know. A native program
//! knows its own by its linker's symbols.

use core::mem::MaybeUninit;

use libipc::abi::{PAGE_BYTES, layout};

/// Keys of the auxiliary vector (psABI table 3.11).
mod auxiliary {
    pub const NULL: u64 = 0;
    pub const PAGE_BYTES: u64 = 6;
    pub const SECURE: u64 = 23;
    pub const EXECUTED_NAME: u64 = 31;
}

/// Words of the auxiliary vector.
const VECTOR_WORDS: usize = 8;

/// The most that arguments and environment may take, pointers included, in bytes (LX-EXEC-12).
pub const LIMIT: usize = 128 * 1024;

/// The most that a stack takes beside that: count, two nulls, auxiliary vector, padding, last word.
const OVERHEAD: usize = (3 + VECTOR_WORDS + 1) * 8 + 16;

const _: () = assert!(LIMIT + OVERHEAD <= layout::INITIAL_STACK_BYTES as usize);

/// Size of the word behind the strings ([`layout::INITIAL_STACK_AT`]).
const LAST_WORD: usize = 8;

/// Why no stack could be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackError {
    /// Strings and pointers are more than [`LIMIT`] or than there is room for.
    TooBig,
    /// A string holds a NUL, which would make two of it, or the strings are not those that were
    /// counted.
    Malformed,
}

/// Arguments or environment, which are gone through twice.
pub trait Strings<'s>: Iterator<Item = &'s [u8]> + Clone {}

impl<'s, I: Iterator<Item = &'s [u8]> + Clone> Strings<'s> for I {}

/// An empty argument list becomes one empty string (LX-EXEC-11).
fn never_empty<'s>(arguments: impl Strings<'s>) -> impl Iterator<Item = &'s [u8]> {
    let instead = match arguments.clone().next() {
        None => Some(b"".as_slice()),
        Some(_) => None,
    };
    arguments.chain(instead)
}

/// What a stack is to hold, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    arguments: usize,
    environment: usize,
    string_bytes: usize,
}

impl Contents {
    /// Counts a program's strings.
    pub fn count<'s>(
        arguments: impl Strings<'s>,
        environment: impl Strings<'s>,
    ) -> Result<Contents, StackError> {
        let mut contents = Contents {
            arguments: 0,
            environment: 0,
            string_bytes: 0,
        };
        for string in never_empty(arguments) {
            contents.arguments += 1;
            contents.add(string)?;
        }
        for string in environment {
            contents.environment += 1;
            contents.add(string)?;
        }
        Ok(contents)
    }

    fn add(&mut self, string: &[u8]) -> Result<(), StackError> {
        let bytes = self.string_bytes.checked_add(string.len() + 1);
        self.string_bytes = bytes.ok_or(StackError::TooBig)?;
        let pointers = 8 * (self.arguments + self.environment);
        match self.string_bytes <= LIMIT.saturating_sub(pointers) {
            true => Ok(()),
            false => Err(StackError::TooBig),
        }
    }

    fn words(&self) -> usize {
        1 + self.arguments + 1 + self.environment + 1 + VECTOR_WORDS
    }

    /// How large the stack is, a multiple of 16. The initial stack pointer is that far below its end.
    pub fn bytes(&self) -> usize {
        (self.words() * 8 + self.string_bytes + LAST_WORD).next_multiple_of(16)
    }

    /// Builds the stack in the first [`bytes`](Self::bytes) bytes of `into`, for a place that ends at
    /// address `end`, a multiple of 16. The strings are those that were counted.
    pub fn build<'s, 'm>(
        &self,
        into: &'m mut [MaybeUninit<u8>],
        end: u64,
        arguments: impl Strings<'s>,
        environment: impl Strings<'s>,
    ) -> Result<&'m mut [u8], StackError> {
        let bytes = self.bytes();
        let memory = into.get_mut(..bytes).ok_or(StackError::TooBig)?;
        let strings_end = bytes - LAST_WORD;
        let strings_at = strings_end - self.string_bytes;
        let mut writer = Writer {
            memory,
            end,
            words: 0,
            strings: strings_at,
        };
        writer.word(self.arguments as u64)?;
        writer.strings(never_empty(arguments))?;
        writer.strings(environment)?;
        for (key, value) in [
            (auxiliary::PAGE_BYTES, PAGE_BYTES),
            (auxiliary::SECURE, 0),
            (auxiliary::EXECUTED_NAME, writer.address_of(strings_at)),
            (auxiliary::NULL, 0),
        ] {
            writer.word(key)?;
            writer.word(value)?;
        }
        if writer.words != self.words() * 8 || writer.strings != strings_end {
            return Err(StackError::Malformed);
        }
        writer.put(strings_end, &writer.address_of(0).to_le_bytes())?;
        memory[self.words() * 8..strings_at].fill(MaybeUninit::new(0));
        // SAFETY: the words were written without a gap from the beginning to their end, the strings
        // from theirs to the last word (both ends were just checked), the last word, and zeros between
        // words and strings.
        Ok(unsafe { memory.assume_init_mut() })
    }
}

/// Words from the bottom up, strings behind them.
struct Writer<'m> {
    memory: &'m mut [MaybeUninit<u8>],
    /// Address of the memory's end.
    end: u64,
    /// Where the next word goes.
    words: usize,
    /// Where the next string goes.
    strings: usize,
}

impl Writer<'_> {
    /// The address that a place in the memory will have.
    fn address_of(&self, at: usize) -> u64 {
        self.end - (self.memory.len() - at) as u64
    }

    /// Writes `bytes` at `at`; the place behind them.
    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<usize, StackError> {
        let behind = at + bytes.len();
        let place = self.memory.get_mut(at..behind);
        place
            .ok_or(StackError::Malformed)?
            .write_copy_of_slice(bytes);
        Ok(behind)
    }

    fn word(&mut self, word: u64) -> Result<(), StackError> {
        self.words = self.put(self.words, &word.to_le_bytes())?;
        Ok(())
    }

    /// Strings, a pointer to each of them, and a null.
    fn strings<'s>(&mut self, strings: impl Iterator<Item = &'s [u8]>) -> Result<(), StackError> {
        for string in strings {
            if string.contains(&0) {
                return Err(StackError::Malformed);
            }
            self.word(self.address_of(self.strings))?;
            self.strings = self.put(self.strings, string)?;
            self.strings = self.put(self.strings, &[0])?;
        }
        self.word(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Builds in real memory, so that the pointers can be followed.
    fn built(arguments: &[&[u8]], environment: &[&[u8]]) -> (Vec<u128>, *mut u64) {
        let (arguments, environment) = (arguments.iter().copied(), environment.iter().copied());
        let contents = Contents::count(arguments.clone(), environment.clone()).unwrap();
        assert_eq!(contents.bytes() % 16, 0);
        let mut memory = std::vec![0u128; contents.bytes() / 16];
        let end = memory.as_ptr() as u64 + contents.bytes() as u64;
        // SAFETY: the same memory as bytes, borrowed for this call only.
        let slice = unsafe {
            core::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), contents.bytes())
        };
        contents.build(slice, end, arguments, environment).unwrap();
        let stack = memory.as_mut_ptr().cast();
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
    fn every_byte_is_written_and_none_beyond() {
        for length in 0..20 {
            let argument = std::vec![b'x'; length];
            let arguments = [&argument[..]].into_iter();
            let nothing = core::iter::empty();
            let contents = Contents::count(arguments.clone(), nothing.clone()).unwrap();
            let mut twice = [0xa5, 0x5a].map(|byte| [MaybeUninit::new(byte); 256]);
            let stacks = twice.each_mut().map(|memory| {
                let built = contents.build(memory, 0x10000, arguments.clone(), nothing.clone());
                built.unwrap().to_vec()
            });
            assert_eq!(stacks[0], stacks[1]);
            // SAFETY: all of it was filled.
            let rest = twice.map(|memory| unsafe { memory[contents.bytes()].assume_init() });
            assert_eq!(rest, [0xa5, 0x5a]);
        }
    }

    #[test]
    fn strings_that_are_not_those_that_were_counted_are_refused() {
        let mut memory = [MaybeUninit::uninit(); 256];
        let one: [&[u8]; 1] = [b"ab"];
        let contents = Contents::count(one.into_iter(), core::iter::empty()).unwrap();
        let others: [&[&[u8]]; 5] = [&[], &[b"a"], &[b"abc"], &[b"a", b""], &[b"ab", b"c"]];
        for other in others {
            let built = contents.build(
                &mut memory,
                0x10000,
                other.iter().copied(),
                core::iter::empty(),
            );
            assert_eq!(built, Err(StackError::Malformed), "{other:?}");
        }
    }

    #[test]
    fn a_string_with_a_nul_inside_is_refused() {
        let mut memory = [MaybeUninit::uninit(); 256];
        let bad: [&[u8]; 1] = [b"a\0b"];
        let contents = Contents::count(bad.into_iter(), core::iter::empty()).unwrap();
        assert_eq!(
            contents.build(&mut memory, 0x10000, bad.into_iter(), core::iter::empty()),
            Err(StackError::Malformed)
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let one: [&[u8]; 1] = [b"a"];
        let contents = Contents::count(one.into_iter(), core::iter::empty()).unwrap();
        let mut memory = [MaybeUninit::uninit(); 256];
        let room = &mut memory[..contents.bytes() - 1];
        assert_eq!(
            contents.build(room, 0x10000, one.into_iter(), core::iter::empty()),
            Err(StackError::TooBig)
        );
    }

    #[test]
    fn strings_and_pointers_have_a_limit() {
        let half = std::vec![b'x'; LIMIT / 2 - 9];
        let both = [&half[..]; 2];
        let count = |arguments: &[&[u8]], environment: &[&[u8]]| {
            Contents::count(arguments.iter().copied(), environment.iter().copied())
        };
        let most = count(&both, &[]).unwrap();
        assert!(most.bytes() <= LIMIT + OVERHEAD);
        assert_eq!(count(&both[..1], &both[1..]).unwrap().bytes(), most.bytes());
        assert_eq!(count(&both, &[b""]), Err(StackError::TooBig));
        let pointers: Vec<&[u8]> = std::vec![b""; LIMIT / 9 + 1];
        assert_eq!(count(&[], &pointers), Err(StackError::TooBig));
    }
}

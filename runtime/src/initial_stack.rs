//! Building the System V initial stack: arguments, environment, auxiliary vector.
//!
//! From the top down: the strings, then, on a 16-byte border, the words that the psABI (3.4.1) puts at
//! and above the initial stack pointer. Only pages that hold something are touched.

use libipc::protocol::process::StartMessage;

/// Keys of the auxiliary vector (psABI table 3.11).
mod auxiliary {
    pub const NULL: u64 = 0;
    pub const PROGRAM_HEADERS: u64 = 3;
    pub const PROGRAM_HEADER_BYTES: u64 = 4;
    pub const PROGRAM_HEADER_COUNT: u64 = 5;
    pub const PAGE_BYTES: u64 = 6;
    pub const ENTRY: u64 = 9;
    pub const SECURE: u64 = 23;
    pub const EXECUTED_NAME: u64 = 31;
}

/// What the auxiliary vector says of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// Where the program headers lie in memory; 0 if they do not.
    pub program_headers: u64,
    /// How many there are.
    pub program_header_count: u64,
    /// The entry point.
    pub entry: u64,
}

/// Why no stack could be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackError {
    /// Strings and pointers do not fit.
    TooBig,
    /// A string count does not agree with the strings.
    Malformed,
}

/// Words from the bottom up, in the memory that ends at `top`.
struct Words<'m> {
    memory: &'m mut [u8],
    at: usize,
}

impl Words<'_> {
    /// Every word was counted beforehand, so there is room.
    fn push(&mut self, word: u64) {
        if let Some(place) = self.memory.get_mut(self.at..self.at + 8) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.at += 8;
    }

    /// A pointer to each of the strings that begin at `address`, and a null.
    fn pointers(&mut self, strings: &[u8], address: u64) {
        let mut next = 0;
        for string in strings.split_inclusive(|byte| *byte == 0) {
            self.push(address + next);
            next += string.len() as u64;
        }
        self.push(0);
    }
}

fn check(strings: &[u8], count: u32) -> Result<u64, StackError> {
    let nuls = strings.iter().filter(|byte| **byte == 0).count() as u64;
    let ended = strings.last().is_none_or(|byte| *byte == 0);
    if ended && nuls == u64::from(count) {
        Ok(nuls)
    } else {
        Err(StackError::Malformed)
    }
}

/// Builds the stack at the end of `memory`, which the program will see end at address `top` (a multiple
/// of 16); returns the initial stack pointer. At least `reserve` bytes stay free below it.
pub fn build(
    memory: &mut [u8],
    top: u64,
    reserve: usize,
    start: &StartMessage<'_>,
    image: ImageFacts,
) -> Result<u64, StackError> {
    let (arguments, environment) = (start.arguments.0, start.environment.0);
    // An empty argument list becomes one empty string (LX-EXEC-11).
    let empty_list = arguments.is_empty() && start.argument_count == 0;
    let arguments: &[u8] = if empty_list { &[0] } else { arguments };
    let argument_count = check(arguments, if empty_list { 1 } else { start.argument_count })?;
    let environment_count = check(environment, start.environment_count)?;

    let strings = arguments.len() + environment.len();
    let vector = [
        (auxiliary::PROGRAM_HEADERS, image.program_headers),
        (auxiliary::PROGRAM_HEADER_BYTES, 56),
        (auxiliary::PROGRAM_HEADER_COUNT, image.program_header_count),
        (auxiliary::PAGE_BYTES, libipc::abi::PAGE_BYTES),
        (auxiliary::ENTRY, image.entry),
        (auxiliary::SECURE, 0),
        (auxiliary::EXECUTED_NAME, 0),
        (auxiliary::NULL, 0),
    ];
    let words = 1 + argument_count + 1 + environment_count + 1 + 2 * vector.len() as u64;
    let bytes = (words as usize)
        .checked_mul(8)
        .and_then(|bytes| bytes.checked_add(strings + 32))
        .ok_or(StackError::TooBig)?;
    if bytes
        .checked_add(reserve)
        .is_none_or(|all| all > memory.len())
    {
        return Err(StackError::TooBig);
    }

    let end = memory.len();
    let environment_at = end - environment.len();
    let arguments_at = environment_at - arguments.len();
    memory[environment_at..].copy_from_slice(environment);
    memory[arguments_at..environment_at].copy_from_slice(arguments);
    // Addresses and offsets differ by a constant; `top` and the distance to it decide the border.
    let strings_bytes = (end - arguments_at).next_multiple_of(16);
    let words_bytes = (words as usize * 8).next_multiple_of(16);
    let stack_at = end - strings_bytes - words_bytes;
    let address_of = |at: usize| top - (end - at) as u64;

    let mut words = Words {
        memory,
        at: stack_at,
    };
    words.push(argument_count);
    words.pointers(arguments, address_of(arguments_at));
    words.pointers(environment, address_of(environment_at));
    for (key, value) in vector {
        words.push(key);
        words.push(match key {
            auxiliary::EXECUTED_NAME => address_of(arguments_at),
            _ => value,
        });
    }
    Ok(address_of(stack_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use libipc::wire::Bytes;
    use std::vec::Vec;

    const FACTS: ImageFacts = ImageFacts {
        program_headers: 0x7f00_0000_0040,
        program_header_count: 4,
        entry: 0x7f00_0000_1000,
    };

    fn message<'m>(
        arguments: &'m [u8],
        argc: u32,
        environment: &'m [u8],
        envc: u32,
    ) -> StartMessage<'m> {
        StartMessage {
            name: Bytes(b"n"),
            argument_count: argc,
            arguments: Bytes(arguments),
            environment_count: envc,
            environment: Bytes(environment),
        }
    }

    /// Builds in real memory, so that the pointers can be followed.
    fn built(message: &StartMessage<'_>) -> (Vec<u128>, *mut u64) {
        let mut memory = std::vec![0u128; 64];
        let bytes = memory.len() * 16;
        let top = memory.as_ptr() as u64 + bytes as u64;
        // SAFETY: the same memory as bytes, borrowed for this call only.
        let slice = unsafe { core::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), bytes) };
        let sp = build(slice, top, 0, message, FACTS).unwrap();
        assert_eq!(sp % 16, 0);
        (memory, sp as *mut u64)
    }

    #[test]
    fn the_program_finds_its_arguments_environment_and_vector() {
        let (_memory, stack) = built(&message(b"cat\0-n\0", 2, b"A=1\0B=\0", 2));
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
        let vector: Vec<(u64, u64)> = (0..8).map(|i| (word(7 + 2 * i), word(8 + 2 * i))).collect();
        assert!(vector.contains(&(3, FACTS.program_headers)));
        assert!(vector.contains(&(6, 4096)));
        assert!(vector.contains(&(9, FACTS.entry)));
        assert_eq!(vector.last(), Some(&(0, 0)));
    }

    #[test]
    fn an_empty_argument_list_becomes_one_empty_string() {
        let (_memory, stack) = built(&message(b"", 0, b"", 0));
        // SAFETY: within the built stack.
        let (count, first) = unsafe { (*stack, *stack.add(1)) };
        assert_eq!(count, 1);
        // SAFETY: a pointer that `build` put there.
        assert!(unsafe { core::ffi::CStr::from_ptr(first as *const _) }.is_empty());
    }

    #[test]
    fn counts_that_do_not_agree_are_refused() {
        let mut memory = [0; 1024];
        for bad in [
            message(b"a\0", 2, b"", 0),
            message(b"a", 1, b"", 0),
            message(b"a\0", 1, b"x", 0),
        ] {
            assert_eq!(
                build(&mut memory, 0x10000, 0, &bad, FACTS),
                Err(StackError::Malformed)
            );
        }
    }

    #[test]
    fn what_does_not_fit_beside_the_reserve_is_refused() {
        let mut memory = [0; 1024];
        let long = [b'x'; 600];
        let mut arguments = long.to_vec();
        arguments.push(0);
        let message = message(&arguments, 1, b"", 0);
        assert_eq!(
            build(&mut memory, 0x10000, 512, &message, FACTS),
            Err(StackError::TooBig)
        );
        assert!(build(&mut memory, 0x10000, 0, &message, FACTS).is_ok());
    }
}

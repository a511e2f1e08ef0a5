//! The system calls as functions, for programs that run on Mitosis.
//!
//! They compile for the host too, so that whole programs are checked there; nothing on the host calls
//! them.
//!
//! Plain calls come from the table in [`crate::syscall`]. The message calls are [`message`] and what
//! is built on it in [`crate::wire`].

use core::arch::asm;

use crate::abi::{
    Access, Copies, Delivery, Error, Extended, ForkFlags, Handle, OpWord, Protection, SlotFlags,
};
use crate::syscall::{ARGUMENTS, Argument, Values};

/// Functions that make a plain call with the argument registers that they name beyond the first four.
/// A register without an argument is not loaded, and not lost to the caller.
macro_rules! plain {
    ($( $name:ident($( $register:tt: $index:tt ),*) )*) => { $(
        #[inline(always)]
        fn $name(number: u8, words: [u64; ARGUMENTS]) -> (u64, [u64; 2]) {
            let status: u64;
            let (first, second): (u64, u64);
            // SAFETY: the kernel reads the argument registers that the call has, writes rax, rdx and r8,
            // and destroys rcx and r11 (crate::abi). What the call does to memory is behind addresses
            // that the caller passed; the asm counts as reading and writing all memory.
            unsafe {
                asm!(
                    "syscall",
                    inout("rax") u64::from(number) => status,
                    in("rdi") words[0],
                    in("rsi") words[1],
                    inout("rdx") words[2] => first,
                    inout("r8") words[3] => second,
                    $( in($register) words[$index], )*
                    lateout("rcx") _,
                    lateout("r11") _,
                    options(nostack),
                );
            }
            (status, [first, second])
        }
    )* };
}
plain! {
    plain_of_4()
    plain_of_6("r9": 4, "r10": 5)
    plain_of_10("r9": 4, "r10": 5, "r12": 6, "r13": 7, "r14": 8, "r15": 9)
}

macro_rules! stubs {
    ($( $(#[doc = $doc:literal])* $number:literal => $name:ident($($arg:ident : $ty:ty),*) -> $ret:ty; )*) => {
        $(
            $(#[doc = $doc])*
            #[inline]
            #[allow(clippy::too_many_arguments)] // as many as the table says
            pub fn $name($($arg: $ty),*) -> Result<$ret, Error> {
                #[allow(unused_mut)]
                let mut words = [0; ARGUMENTS];
                #[allow(unused_mut, unused_variables)]
                let mut next = words.iter_mut();
                $( if let Some(word) = next.next() { *word = Argument::encode($arg); } )*
                const COUNT: usize = <[&str]>::len(&[$(stringify!($arg)),*]);
                let (status, values) = match COUNT {
                    0..=4 => plain_of_4($number, words),
                    5..=6 => plain_of_6($number, words),
                    _ => plain_of_10($number, words),
                };
                match Delivery(status).error() {
                    None => Ok(Values::decode(values)),
                    Some(error) => Err(error),
                }
            }
        )*
    };
}
crate::syscalls!(stubs);

/// What a message call brought back.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Status, lengths, access mask.
    pub delivery: Delivery,
    /// Badge of the capability that the sender used.
    pub badge: u64,
    /// Label of the sending thread.
    pub label: u64,
    /// The first 64 bytes of the body.
    pub body: [u64; 8],
}

/// A message call. `extended` may be null, see [`Extended`].
///
/// # Safety
/// `extended` is null or points to an [`Extended`] whose `send` and `receive` ranges are valid for
/// the lengths that it and `op` give, for as long as the call lasts.
#[inline(always)]
pub unsafe fn message(
    op: OpWord,
    handle: Handle,
    extended: *mut Extended,
    mut body: [u64; 8],
) -> Incoming {
    let status: u64;
    let (badge, label): (u64, u64);
    // SAFETY: register use as in crate::abi; the memory is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inout("rax") op.0 => status,
            inout("rdi") handle.0 => badge,
            inout("rsi") extended => label,
            inout("rdx") body[0],
            inout("r8") body[1],
            inout("r9") body[2],
            inout("r10") body[3],
            inout("r12") body[4],
            inout("r13") body[5],
            inout("r14") body[6],
            inout("r15") body[7],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    Incoming {
        delivery: Delivery(status),
        badge,
        label,
        body,
    }
}

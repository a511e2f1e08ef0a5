//! The first instruction, arguments and environment.
//!
//! A program begins with `rsp` at a System V initial stack, which its creator built
//! ([`initial_stack`](crate::initial_stack)): the argument count, the arguments, a null, the
//! environment, a null, the auxiliary vector. It stays there for as long as the program runs, so
//! arguments are borrowed from it for ever.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU8, Ordering};

use libipc::abi::layout;

/// The [`Role`] as a number.
static ROLE: AtomicU8 = AtomicU8::new(Role::Program as u8);

/// What kind of program this is: it decides in which slots the capabilities are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Started by the process server (`libipc::protocol::process::slots`).
    Program = 0,
    /// Started by init (`libipc::protocol::startup`).
    Server = 1,
    /// Started by the kernel (`libipc::abi::initial`).
    Init = 2,
}

/// What a program's first function may return.
pub trait ExitStatus {
    /// The program's exit status.
    fn code(self) -> i32;
}

impl ExitStatus for () {
    fn code(self) -> i32 {
        0
    }
}

impl ExitStatus for i32 {
    fn code(self) -> i32 {
        self
    }
}

impl ExitStatus for core::convert::Infallible {
    fn code(self) -> i32 {
        match self {}
    }
}

/// Names a program's first function: `fn() -> T` with `T:` [`ExitStatus`].
///
/// ```ignore
/// #![cfg_attr(target_os = "none", no_std, no_main)]
/// runtime::entry!(run);
/// fn run() -> i32 { 0 }
/// ```
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        // Items, not a block: rustc takes global_asm! nowhere else.
        #[cfg(target_os = "none")]
        ::core::arch::global_asm!(
            ".globl _start",
            "_start:",
            "xor ebp, ebp",
            "and rsp, -16",
            "call {begin}",
            "ud2",
            begin = sym __begin,
        );

        #[cfg(target_os = "none")]
        extern "C" fn __begin() -> ! {
            let status = $run();
            $crate::process::exit($crate::start::ExitStatus::code(status))
        }

        $crate::host_main!($run);
    };
}

/// Names a server's first function: `fn(u64) -> !`, called with the argument that init gave
/// (`libipc::protocol::startup`).
#[macro_export]
macro_rules! server_entry {
    ($run:path) => {
        // Items, not a block: rustc takes global_asm! nowhere else.
        #[cfg(target_os = "none")]
        ::core::arch::global_asm!(
            ".globl _start",
            "_start:",
            "xor ebp, ebp",
            "and rsp, -16",
            "call {begin}",
            "ud2",
            begin = sym __begin,
        );

        #[cfg(target_os = "none")]
        extern "C" fn __begin(argument: u64) -> ! {
            $crate::start::set_role($crate::start::Role::Server);
            $run(argument)
        }

        $crate::host_main!($run);
    };
}

/// The host's `main` of a program that runs on Mitosis only.
#[doc(hidden)]
#[macro_export]
macro_rules! host_main {
    ($run:path) => {
        #[cfg(not(target_os = "none"))]
        fn main() {
            // Named, so that the program counts as used when it is checked on the host.
            let _ = $run;
            ::std::eprintln!("this program runs on Mitosis only");
            ::std::process::exit(1);
        }
    };
}

/// Says what kind of program this is; [`entry!`](crate::entry) and its sibling do.
pub fn set_role(role: Role) {
    ROLE.store(role as u8, Ordering::Relaxed);
}

/// What kind of program this is.
pub fn role() -> Role {
    match ROLE.load(Ordering::Relaxed) {
        1 => Role::Server,
        2 => Role::Init,
        _ => Role::Program,
    }
}

/// Strings behind a list of pointers that a null ends.
#[derive(Clone, Debug)]
pub struct Strings {
    next: *const *const core::ffi::c_char,
}

impl Iterator for Strings {
    type Item = &'static [u8];

    fn next(&mut self) -> Option<&'static [u8]> {
        if self.next.is_null() {
            return None;
        }
        // SAFETY: the list is part of the initial stack, ends with a null
        // pointer, and the iterator does not move past it.
        let string = unsafe { *self.next };
        if string.is_null() {
            return None;
        }
        // SAFETY: not past the end, since this entry is not null; each entry points to a string
        // ended by a NUL that lives for ever.
        unsafe {
            self.next = self.next.add(1);
            Some(CStr::from_ptr(string).to_bytes())
        }
    }
}

/// A System V initial stack; null in a server, which has none.
#[derive(Clone, Copy)]
struct InitialStack(*const u64);

impl InitialStack {
    /// The program's own.
    fn own() -> InitialStack {
        if cfg!(not(target_os = "none")) || role() != Role::Program {
            return InitialStack(core::ptr::null());
        }
        // SAFETY: the last word of the first stack, which stays mapped; the creator put the address
        // there, and nothing of the program's lies above its arguments.
        InitialStack(unsafe { *(layout::INITIAL_STACK_AT as *const *const u64) })
    }

    fn arguments(self) -> Strings {
        self.strings(|_| 1)
    }

    fn environment(self) -> Strings {
        self.strings(|count| 1 + count + 1)
    }

    /// The list at a word that depends on the argument count.
    fn strings(self, word: impl Fn(usize) -> usize) -> Strings {
        let next = if self.0.is_null() {
            core::ptr::null()
        } else {
            // SAFETY: behind the count come the arguments and a null, then the environment.
            unsafe { self.0.add(word(*self.0 as usize)).cast() }
        };
        Strings { next }
    }
}

/// The argument list, `argv[0]` first.
pub fn arguments() -> Strings {
    InitialStack::own().arguments()
}

/// Argument `index`, if there is one and it is UTF-8.
pub fn argument(index: usize) -> Option<&'static str> {
    text_at(arguments(), index)
}

fn text_at(mut strings: Strings, index: usize) -> Option<&'static str> {
    core::str::from_utf8(strings.nth(index)?).ok()
}

/// The environment, strings of the form `NAME=value`.
pub fn environment() -> Strings {
    InitialStack::own().environment()
}

/// The value of an environment variable.
pub fn variable(name: &str) -> Option<&'static [u8]> {
    value_in(environment(), name)
}

fn value_in(mut strings: Strings, name: &str) -> Option<&'static [u8]> {
    strings.find_map(|string| string.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_environment_come_from_the_initial_stack() {
        let stack = std::vec![
            2u64,
            c"sh".as_ptr() as u64,
            c"-c".as_ptr() as u64,
            0,
            c"HOME=/".as_ptr() as u64,
            c"HOMER=x".as_ptr() as u64,
            0,
        ];
        let stack = InitialStack(stack.leak().as_ptr());
        let argument = |index| text_at(stack.arguments(), index);
        let variable = |name| value_in(stack.environment(), name);
        assert_eq!(stack.arguments().count(), 2);
        assert_eq!(argument(1), Some("-c"));
        assert_eq!(argument(2), None);
        assert_eq!(variable("HOME"), Some(&b"/"[..]));
        assert_eq!(variable("HOMER"), Some(&b"x"[..]));
        assert_eq!(variable("HO"), None);
    }
}

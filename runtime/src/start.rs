//! The first instruction, arguments and environment.
//!
//! `rsp` is at a System V initial stack, which the creator built (`crate::initial_stack`): the argument count, the arguments, a null, the
//! environment, a null, the auxiliary vector. It stays there for as long as the program runs, so
//! arguments are borrowed from it for ever.

use core::ffi::CStr;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

/// The initial stack; null in a server.
static INITIAL_STACK: AtomicPtr<u64> = AtomicPtr::new(core::ptr::null_mut());

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
            "mov rdi, rsp",
            "and rsp, -16",
            "call {begin}",
            "ud2",
            begin = sym __begin,
        );

        #[cfg(target_os = "none")]
        unsafe extern "C" fn __begin(initial_stack: *mut u64) -> ! {
            // SAFETY: this is the first function, and the loader left the initial stack at rsp.
            unsafe { $crate::start::set_initial_stack(initial_stack) };
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

/// Records where the initial stack is.
///
/// # Safety
/// `stack` points to a System V initial stack that stays as it is for ever.
pub unsafe fn set_initial_stack(stack: *mut u64) {
    INITIAL_STACK.store(stack, Ordering::Relaxed);
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
        // SAFETY: the list is part of the initial stack (`set_initial_stack`), ends with a null
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

/// The argument list, `argv[0]` first.
pub fn arguments() -> Strings {
    let stack = INITIAL_STACK.load(Ordering::Relaxed);
    Strings {
        next: if stack.is_null() {
            core::ptr::null()
        } else {
            // SAFETY: behind the count comes the list (`set_initial_stack`).
            unsafe { stack.add(1).cast() }
        },
    }
}

/// Argument `index`, if there is one and it is UTF-8.
pub fn argument(index: usize) -> Option<&'static str> {
    core::str::from_utf8(arguments().nth(index)?).ok()
}

/// The environment, strings of the form `NAME=value`.
pub fn environment() -> Strings {
    let stack = INITIAL_STACK.load(Ordering::Relaxed);
    Strings {
        next: if stack.is_null() {
            core::ptr::null()
        } else {
            // SAFETY: the environment comes behind the arguments and their null.
            unsafe { stack.add(1 + *stack as usize + 1).cast() }
        },
    }
}

/// The value of an environment variable.
pub fn variable(name: &str) -> Option<&'static [u8]> {
    environment().find_map(|string| string.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
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
        // SAFETY: built as the System V ABI says, and leaked.
        unsafe { set_initial_stack(stack.leak().as_mut_ptr()) };
        assert_eq!(arguments().count(), 2);
        assert_eq!(argument(1), Some("-c"));
        assert_eq!(argument(2), None);
        assert_eq!(variable("HOME"), Some(&b"/"[..]));
        assert_eq!(variable("HOMER"), Some(&b"x"[..]));
        assert_eq!(variable("HO"), None);
    }
}

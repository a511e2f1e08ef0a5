//! Runs the tests of one program and reports on standard output.
//!
//! Every test prints `start NAME` and then `ok NAME` or `FAIL NAME: why`; the exit status is 0 if all
//! passed and 1 otherwise. Arguments select tests by a part of their name. A test reports failure by
//! returning it, so that the ones behind it still run.

use alloc::string::String;
use core::fmt::{self, Write};
use core::panic::Location;

use libipc::Error;
use libipc::protocol::files::FileError;
use libipc::protocol::process::{Errno, ProcessError};
use libipc::wire::CallError;
use runtime::{println, start};

/// Why a test failed.
pub struct Failure(String);

impl Failure {
    /// A failure at `location`.
    pub fn new(location: &Location<'_>, why: fmt::Arguments<'_>) -> Failure {
        let mut text = String::new();
        let file = location.file().rsplit('/').next().unwrap_or("?");
        // Writing to a string does not fail.
        let _ = write!(text, "{file}:{}: ", location.line());
        let _ = text.write_fmt(why);
        Failure(text)
    }
}

impl From<Error> for Failure {
    #[track_caller]
    fn from(error: Error) -> Failure {
        Failure::new(Location::caller(), format_args!("refused with {error:?}"))
    }
}

impl<E: fmt::Debug> From<CallError<E>> for Failure {
    #[track_caller]
    fn from(error: CallError<E>) -> Failure {
        Failure::new(Location::caller(), format_args!("call failed: {error:?}"))
    }
}

impl From<Errno> for Failure {
    #[track_caller]
    fn from(error: Errno) -> Failure {
        Failure::new(Location::caller(), format_args!("refused with {error:?}"))
    }
}

impl From<ProcessError> for Failure {
    #[track_caller]
    fn from(error: ProcessError) -> Failure {
        Failure::new(Location::caller(), format_args!("refused with {error:?}"))
    }
}

impl From<FileError> for Failure {
    #[track_caller]
    fn from(error: FileError) -> Failure {
        Failure::new(Location::caller(), format_args!("refused with {error:?}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a test returns.
pub type Outcome = Result<(), Failure>;

/// A test by its name.
pub type Test = (&'static str, fn() -> Outcome);

/// Runs the tests that the arguments select; returns the exit status.
pub fn run(tests: &[Test]) -> i32 {
    let mut failed = 0;
    for (name, test) in tests {
        if !selected(name) {
            continue;
        }
        println!("start {name}");
        match test() {
            Ok(()) => println!("ok {name}"),
            Err(failure) => {
                println!("FAIL {name}: {failure}");
                failed += 1;
            }
        }
    }
    i32::from(failed > 0)
}

/// True if no argument names a test, or one is part of `name`. Arguments of the form `KEY=VALUE`
/// are for the tests themselves.
fn selected(name: &str) -> bool {
    let mut names = start::arguments()
        .skip(1)
        .filter_map(|argument| core::str::from_utf8(argument).ok())
        .filter(|argument| !argument.contains('='))
        .peekable();
    names.peek().is_none() || names.any(|part| name.contains(part))
}

/// The number given by an argument `KEY=NUMBER`.
pub fn parameter(key: &str) -> Option<u64> {
    start::arguments()
        .filter_map(|argument| core::str::from_utf8(argument).ok())
        .find_map(|argument| argument.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// Makes a program of the named test functions, run in this order.
///
/// With `child NAME;` before them, the program does what the function `NAME` says when its first
/// argument is `child`: a test that needs another image starts its own again.
#[macro_export]
macro_rules! suite {
    (child $child:ident; $($test:ident),* $(,)?) => {
        $crate::suite! { @run
            if runtime::start::argument(1) == Some("child") {
                return $child();
            };
            $($test),*
        }
    };
    (@run $first:stmt; $($test:ident),*) => {
        runtime::entry!(run_suite);

        fn run_suite() -> i32 {
            $first
            $crate::harness::run(&[$((stringify!($test), $test)),*])
        }
    };
    ($($test:ident),* $(,)?) => {
        $crate::suite! { @run {}; $($test),* }
    };
}

/// Fails the test unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr $(,)?) => {
        $crate::check!($condition, "not so: {}", stringify!($condition))
    };
    ($condition:expr, $($why:tt)+) => {
        // Not `!`: a negated comparison of expressions reads wrongly in clippy's eyes.
        if $condition {
        } else {
            return Err($crate::Failure::new(
                core::panic::Location::caller(),
                format_args!($($why)+),
            ));
        }
    };
}

/// Fails the test unless both sides are equal.
#[macro_export]
macro_rules! check_eq {
    ($left:expr, $right:expr $(,)?) => {
        match (&$left, &$right) {
            (left, right) => $crate::check!(
                *left == *right,
                "{} is {:?}, expected {:?}",
                stringify!($left),
                left,
                right
            ),
        }
    };
}

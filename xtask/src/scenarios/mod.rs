//! Scenarios: what is seen of a whole machine from the outside.
//!
//! Each is a function that boots what it needs and compares; the functions are
//! grouped by subject, one file each. A scenario's name begins with its file's.

mod boot;
mod command;
mod exec;
mod machines;
mod panic;
mod performance;
mod programs;
mod shell;

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::channel::{self, Job, Outcome, Streams};
use crate::exec::command_line;
use crate::qemu::{Boot, MachineOptions};
use crate::test::Guest;
use crate::test::report::Verdict;

/// How long a machine may take that does next to nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// A test of a whole machine.
pub struct Scenario {
    /// `subject::behaviour`.
    pub name: &'static str,
    /// Boots and compares; an error is a failure, told by its first line.
    pub run: fn(&Guest) -> Result<Verdict>,
}

/// All scenarios, the long ones first, so that no emulator is idle in the end.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        performance::SCENARIOS,
        boot::SCENARIOS,
        machines::SCENARIOS,
        exec::SCENARIOS,
        command::SCENARIOS,
        shell::SCENARIOS,
        programs::SCENARIOS,
        panic::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// Names the functions of a file as its scenarios.
macro_rules! scenarios {
    ($subject:literal: $($name:ident),* $(,)?) => {
        /// What this file tests.
        pub const SCENARIOS: &[$crate::scenarios::Scenario] = &[
            $($crate::scenarios::Scenario {
                name: concat!($subject, "::", stringify!($name)),
                run: $name,
            }),*
        ];
    };
}
use scenarios;

/// A program to run through the exec channel.
struct Program<'a> {
    guest: &'a Guest,
    name: &'a str,
    arguments: &'a [&'a str],
    input: Vec<u8>,
    machine: MachineOptions,
    words: &'a str,
    patience: Duration,
}

impl<'a> Program<'a> {
    /// The program `bin/name` without arguments and input, on the usual machine.
    fn new(guest: &'a Guest, name: &'a str) -> Self {
        Self {
            guest,
            name,
            arguments: &[],
            input: Vec::new(),
            machine: MachineOptions::default(),
            words: "",
            patience: PATIENCE,
        }
    }

    fn arguments(self, arguments: &'a [&'a str]) -> Self {
        Self { arguments, ..self }
    }

    fn input(self, input: impl Into<Vec<u8>>) -> Self {
        Self {
            input: input.into(),
            ..self
        }
    }

    fn machine(self, machine: MachineOptions) -> Self {
        Self { machine, ..self }
    }

    /// Runs it, however it ends.
    fn run(self) -> Result<Seen> {
        let boot = Boot::Kernel {
            kernel: self.guest.kernel.clone(),
            archive: self.guest.archive.clone(),
            words: command_line(&format!("bin/{}", self.name), self.words, self.arguments)?,
        };
        let job = Job {
            machine: &self.machine,
            boot: &boot,
            timeout: Some(self.patience),
            quiet: None,
        };
        let (mut output, mut error) = (Vec::new(), Vec::new());
        let finished = channel::run(
            &job,
            Streams {
                input: Box::new(std::io::Cursor::new(self.input)),
                output: &mut output,
                error: &mut error,
            },
        )?;
        Ok(Seen {
            outcome: finished.outcome,
            output,
            error: String::from_utf8_lossy(&error).into_owned(),
            log: finished.log,
        })
    }

    /// Runs it; it must end with status 0 and say nothing on standard error.
    fn succeed(self) -> Result<Vec<u8>> {
        let name = self.name.to_owned();
        let seen = self.run()?;
        seen.expect(Outcome::Exit(0))
            .with_context(|| format!("{name} does not succeed"))?;
        if !seen.error.is_empty() {
            return Err(seen.details())
                .with_context(|| format!("{name} complains: {}", seen.error));
        }
        Ok(seen.output)
    }

    /// The lines of its output, if it succeeds.
    fn lines(self) -> Result<Vec<String>> {
        let output = String::from_utf8(self.succeed()?).context("the output is not text")?;
        Ok(output.lines().map(str::to_owned).collect())
    }
}

/// What was seen of a program.
struct Seen {
    outcome: Outcome,
    output: Vec<u8>,
    error: String,
    log: Vec<u8>,
}

impl Seen {
    fn expect(&self, outcome: Outcome) -> Result<()> {
        if self.outcome == outcome {
            return Ok(());
        }
        Err(self.details())
            .with_context(|| format!("ended with {:?}, expected {outcome:?}", self.outcome))
    }

    /// All that helps to see what happened.
    fn details(&self) -> anyhow::Error {
        anyhow::anyhow!(
            "output:\n{}\nerror output:\n{}\nlog:\n{}",
            channel::tail(&self.output, 20),
            channel::tail(self.error.as_bytes(), 20),
            channel::tail(&self.log, 30)
        )
    }
}

/// Fails unless both are equal.
fn expect_eq<T: PartialEq + std::fmt::Debug>(what: &str, is: T, expected: T) -> Result<()> {
    if is != expected {
        bail!("{what} is {is:?}, expected {expected:?}");
    }
    Ok(())
}

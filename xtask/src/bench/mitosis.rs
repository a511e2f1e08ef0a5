//! Our side: boots Mitosis with the native procbench as its first program.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};

use super::counter::{self, Section};
use super::machine::{self, Measure};
use super::output::Run;
use crate::bare::System;
use crate::channel::{self, Job, Streams};
use crate::qemu::Boot;
use crate::{exec, run, workspace};

/// The program's name in the boot archive.
const PROGRAM: &str = "bin/procbench";
/// How long a boot may take.
const LIMIT: Duration = Duration::from_secs(600);
/// How many lines of the log tell where a boot stopped.
const LOG_LINES: usize = 30;

/// What a boot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The figures.
    Figures(Measure),
    /// Where the instructions are.
    Profile,
}

/// What a boot brought.
pub struct Outcome {
    /// The results.
    pub run: Run,
    /// What the instruction counter wrote, in the order of the cases that ran.
    pub sections: Vec<Section>,
}

/// Boots and runs `cases` (all if there are none).
pub fn measure(system: &System, purpose: Purpose, cases: &[String]) -> Result<Outcome> {
    let folder = workspace::root().join("target/bench/mitosis");
    std::fs::create_dir_all(&folder)?;
    let counts = folder.join("counts");
    let measure = match purpose {
        Purpose::Figures(measure) => measure,
        Purpose::Profile => Measure::Instructions,
    };
    let mut machine = machine::options(measure);
    if measure == Measure::Instructions {
        let plugin = counter::build()?;
        let blocks = purpose == Purpose::Profile;
        machine.more.push("-plugin".into());
        machine
            .more
            .push(counter::argument(&plugin, &counts, blocks));
    }
    let boot = Boot::Kernel {
        archive: run::write_archive(system)?,
        kernel: system.kernel.clone(),
        words: exec::command_line(PROGRAM, "", cases)?,
    };
    let job = Job {
        machine: &machine,
        boot: &boot,
        timeout: Some(LIMIT),
        quiet: None,
    };
    let (mut output, mut error) = (Shown::default(), std::io::stderr());
    let finished = channel::run(
        &job,
        Streams {
            input: Box::new(std::io::empty()),
            output: &mut output,
            error: &mut error,
        },
    )?;
    let sections = match measure {
        Measure::Instructions => counter::read(&counts)?,
        Measure::WallTime => Vec::new(),
    };
    let mut run = Run::new(&String::from_utf8_lossy(&output.0), &sections);
    if measure == Measure::WallTime {
        run = run.in_nanoseconds();
    }
    if !run.complete {
        eprintln!("{}", channel::tail(&finished.log, LOG_LINES));
        eprintln!(
            "xtask: procbench did not come to its end: {}",
            exec::explain(&finished.outcome)
        );
        if run.measurements.is_empty() {
            bail!("nothing was measured");
        }
    }
    Ok(Outcome { run, sections })
}

/// Output that is kept, and shown on standard error as it comes: a run takes minutes.
#[derive(Default)]
struct Shown(Vec<u8>);

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = std::io::stderr().write(bytes)?;
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

//! `cargo xtask test`: everything, or what is named.
//!
//! Host tests first, since they say more about a mistake; then what needs an
//! emulator, two at a time.

mod guest;
mod host;
pub mod report;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Result, bail};
use clap::Args;

use crate::scenarios::{self, Scenario};
use crate::{bare, packages, run};
use report::{Report, Verdict};

/// How many emulators run at a time.
const EMULATORS: usize = 2;

/// What `cargo xtask test` can be told.
#[derive(Args)]
pub struct Options {
    /// Only the tests that run on the host
    #[arg(long, conflicts_with = "qemu")]
    host: bool,
    /// Only the tests that run in an emulator
    #[arg(long)]
    qemu: bool,
    /// Only tests whose name (program::test) contains this
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// What is booted for a test.
pub struct Guest {
    /// The kernel.
    pub kernel: PathBuf,
    /// The boot archive.
    pub archive: PathBuf,
}

/// Something that needs an emulator.
enum Work {
    Program {
        name: String,
        filter: Option<String>,
    },
    Scenario(&'static Scenario),
}

/// Runs the tests that the options name.
pub fn test(options: &Options) -> Result<ExitCode> {
    let filter = options.name.as_deref().unwrap_or_default();
    let report = Report::default();
    if !options.qemu {
        host::run(filter, &report)?;
    }
    if !options.host {
        // A name of a host test needs no emulator.
        let found_on_host = !filter.is_empty() && report.count() > 0;
        in_emulators(filter, found_on_host, &report)?;
    }
    if report.count() == 0 {
        bail!("no test's name contains {filter:?}");
    }
    Ok(if report.finish() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn in_emulators(filter: &str, found_on_host: bool, report: &Report) -> Result<()> {
    let scenarios: Vec<&Scenario> = scenarios::all()
        .filter(|scenario| scenario.name.contains(filter))
        .collect();
    let system = bare::build()?;
    let programs = system.programs.iter().map(|program| &*program.name);
    let mut work = programs_for(filter, programs, found_on_host || !scenarios.is_empty());
    work.extend(scenarios.into_iter().map(Work::Scenario));
    if work.is_empty() {
        return Ok(());
    }
    packages::require(&[packages::QEMU])?;
    let guest = Guest {
        archive: run::write_archive(&system)?,
        kernel: system.kernel,
    };
    let work = Mutex::new(work.into_iter());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..EMULATORS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let next = work.lock().expect("taking work never panics").next();
                        let Some(next) = next else { return Ok(()) };
                        run_one(&next, &guest, report)?;
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a worker never panics"))
    })
}

/// The guest test programs that a filter asks for. A filter that is no
/// program's name may be a test's: then each program looks for it, unless it
/// was found elsewhere.
fn programs_for<'a>(
    filter: &str,
    programs: impl Iterator<Item = &'a str>,
    found: bool,
) -> Vec<Work> {
    let tests: Vec<&str> = programs.filter(|name| name.starts_with("tests/")).collect();
    if let Some((program, test)) = filter.split_once("::") {
        let filter = Some(test)
            .filter(|test| !test.is_empty())
            .map(str::to_owned);
        return tests
            .iter()
            .filter(|name| name.strip_prefix("tests/") == Some(program))
            .map(|name| Work::Program {
                name: name.to_string(),
                filter: filter.clone(),
            })
            .collect();
    }
    let named: Vec<Work> = tests
        .iter()
        .filter(|name| name.contains(filter))
        .map(|name| Work::Program {
            name: name.to_string(),
            filter: None,
        })
        .collect();
    if !named.is_empty() || found {
        return named;
    }
    tests
        .iter()
        .map(|name| Work::Program {
            name: name.to_string(),
            filter: Some(filter.to_owned()),
        })
        .collect()
}

fn run_one(work: &Work, guest: &Guest, report: &Report) -> Result<()> {
    match work {
        Work::Program { name, filter } => guest::run(guest, name, filter.as_deref(), report),
        Work::Scenario(scenario) => {
            // A mistake in a scenario is a failure like any other.
            let run = AssertUnwindSafe(|| (scenario.run)(guest));
            let result = std::panic::catch_unwind(run)
                .unwrap_or_else(|_| Err(anyhow::anyhow!("the scenario itself panicked")));
            let (verdict, details) = match result {
                Ok(verdict) => (verdict, String::new()),
                Err(error) => {
                    let mut causes = error.chain().map(ToString::to_string);
                    let why = causes.next().unwrap_or_default();
                    (Verdict::Failed(why), causes.collect::<Vec<_>>().join("\n"))
                }
            };
            report.add(scenario.name, &verdict, &details);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(filter: &str, found: bool) -> Vec<(String, Option<String>)> {
        let programs = ["init", "bin/ipc", "tests/ipc", "tests/traps"];
        programs_for(filter, programs.into_iter(), found)
            .into_iter()
            .map(|work| match work {
                Work::Program { name, filter } => (name, filter),
                Work::Scenario(_) => unreachable!("only programs are asked for"),
            })
            .collect()
    }

    #[test]
    fn a_name_selects_a_program_a_test_of_one_or_a_test_of_any() {
        let plain = |name: &str| (name.to_owned(), None);
        let with = |name: &str, test: &str| (name.to_owned(), Some(test.to_owned()));
        assert_eq!(
            selected("", false),
            [plain("tests/ipc"), plain("tests/traps")]
        );
        assert_eq!(selected("traps", false), [plain("tests/traps")]);
        assert_eq!(selected("traps::div", false), [with("tests/traps", "div")]);
        assert_eq!(
            selected("div", false),
            [with("tests/ipc", "div"), with("tests/traps", "div")]
        );
        assert!(
            selected("div", true).is_empty(),
            "it was a host test's name"
        );
    }
}

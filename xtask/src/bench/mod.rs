//! `cargo xtask bench`: what operations cost, in guest instructions, beside Linux.
//!
//! Both systems run the same cases (`bench/procbench.c` and `programs/src/bin/procbench`) on the same
//! emulated machine ([`machine`]), in which an instruction takes a nanosecond of every clock. A QEMU plugin
//! ([`counter`]) counts apart what the number of instructions hides.

pub mod cases;
pub mod counter;
pub mod figures;
mod linux;
pub mod machine;
pub mod mitosis;
pub mod output;
pub mod page;
mod plot;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::bare;
use crate::toolchain::Toolchain;
use figures::{Figures, Row};
use machine::Measure;
use mitosis::Purpose;
use table::Table;

/// What Mitosis can be measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Other {
    /// Debian's stock kernel in the same emulator
    Linux,
}

/// What `cargo xtask bench` can be told.
#[derive(Args)]
pub struct Options {
    /// Measure this beside Mitosis
    #[arg(long, value_enum)]
    vs: Option<Other>,
    /// Only this case, or those whose names begin so; -NAME leaves them out (may be repeated)
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    case: Vec<String>,
    /// Write the figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure nothing: show the figures of this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vs", "case", "json", "wall"])]
    from: Option<PathBuf>,
    /// Write docs/performance.md, its figures and its plot
    #[arg(long, conflicts_with_all = ["case", "wall"])]
    page: bool,
    /// Measure time of the host (ns) instead of instructions: good for ratios within one run only
    #[arg(long)]
    wall: bool,
}

/// Measures, and prints the table.
pub fn run(options: &Options) -> Result<ExitCode> {
    for name in &options.case {
        cases::check_prefix(name.strip_prefix('-').unwrap_or(name))?;
    }
    let (figures, complete) = match &options.from {
        Some(path) => (read(path)?, true),
        None => measured(options)?,
    };
    let rows: Vec<&Row> = figures.cases.iter().collect();
    if options.wall {
        println!("nanoseconds of the host for each operation: only ratios mean something");
    } else {
        println!("guest instructions for each operation");
    }
    let costs = Table::costs(&figures, &rows);
    if options.wall {
        print!("{}", costs.without_budgets().plain());
    } else {
        print!("{}", costs.plain());
        println!("\nfor each operation, Mitosis / Linux");
        print!("{}", Table::hidden(&rows).plain());
    }
    for row in &rows {
        if let Some(note) = &row.note {
            println!("{}: {note}", row.name);
        }
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&figures.to_json())? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if options.page {
        page::write(&figures)?;
    }
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Measures what the options ask for; whether procbench came to its end.
fn measured(options: &Options) -> Result<(Figures, bool)> {
    let measure = if options.wall {
        Measure::WallTime
    } else {
        Measure::Instructions
    };
    let (mut figures, mut complete) = measured_in(measure, options)?;
    if options.page {
        let (wall, all) = measured_in(Measure::WallTime, options)?;
        figures.wall = Some(Box::new(wall));
        complete &= all;
    }
    Ok((figures, complete))
}

fn measured_in(measure: Measure, options: &Options) -> Result<(Figures, bool)> {
    let linux = match options.vs {
        Some(Other::Linux) => Some(linux::measure(measure)?),
        None => None,
    };
    let system = bare::build()?;
    let outcome = mitosis::measure(&system, Purpose::Figures(measure), &options.case)?;
    let figures = Figures {
        flags: machine::description(measure).into(),
        compiler: Toolchain::find()?.version()?,
        linux: linux
            .as_ref()
            .map_or_else(String::new, |linux| linux.version.clone()),
        ..Figures::new(&outcome.run, linux.as_ref().map(|linux| &linux.run))
    };
    Ok((figures, outcome.run.complete))
}

/// Figures that were written with `--json` or `--page`.
fn read(path: &Path) -> Result<Figures> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Figures::from_json(&serde_json::from_str(&text)?)
        .with_context(|| format!("{} holds no figures", path.display()))
}

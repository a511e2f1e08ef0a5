//! What operations cost: the budgets that were held when `docs/performance.json` was written stay held.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Program, scenarios};
use crate::bench::cases::{self, Budget};
use crate::bench::figures::Figures;
use crate::bench::machine::{self, Measure};
use crate::bench::output::Run;
use crate::bench::page;
use crate::bench::table::number;
use crate::test::Guest;
use crate::test::report::Verdict;
use crate::toolchain::Toolchain;

scenarios! { "performance":
    budgets_that_held_still_hold,
}

/// A gibibyte is touched and ten thousand processes are made.
const PATIENCE: Duration = Duration::from_secs(600);

/// How much more than its budget a case may cost.
const SLACK: f64 = 1.1;

fn budgets_that_held_still_hold(guest: &Guest) -> Result<Verdict> {
    let Some(before) = page::figures()? else {
        return Ok(Verdict::Skipped("nothing was measured yet".into()));
    };
    let compiler = Toolchain::find()?.version()?;
    if compiler != before.compiler {
        return Ok(Verdict::Skipped(format!(
            "the figures are of {}, this is {compiler}",
            before.compiler
        )));
    }
    let held: Vec<&str> = before
        .cases
        .iter()
        .filter(|row| matches!((row.mitosis, before.budget(&row.name)), (Some(cost), Some(budget)) if cost <= budget))
        .map(|row| row.name.as_str())
        .collect();
    if held.is_empty() {
        return Ok(Verdict::Skipped("no budget holds yet".into()));
    }
    let mut arguments = vec!["-d", "10"];
    arguments.extend(&held);
    // What a relative budget is relative to.
    arguments.extend(
        held.iter()
            .filter_map(|name| match cases::find(name)?.budget? {
                Budget::PercentOf(_, other) => Some(other),
                Budget::Instructions(_) => None,
            }),
    );
    let procbench = Program::new(guest, "procbench")
        .arguments(&arguments)
        .machine(machine::options(Measure::Instructions));
    let output = Program {
        patience: PATIENCE,
        ..procbench
    }
    .succeed()?;
    let run = Run::new(&String::from_utf8_lossy(&output), &[]);
    let now = Figures::new(&run, None);
    let broken: Vec<String> = held
        .iter()
        .filter_map(|name| {
            let (cost, budget) = (now.find(name)?.mitosis?, now.budget(name)?);
            let over = cost > budget * SLACK;
            over.then(|| format!("{name} takes {} of {}", number(cost), number(budget)))
        })
        .collect();
    if !broken.is_empty() {
        bail!("{}", broken.join(", "));
    }
    if !run.complete || held.iter().any(|name| run.find(name).is_none()) {
        bail!("not every case has a result");
    }
    Ok(Verdict::Passed)
}

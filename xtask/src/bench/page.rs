//! `docs/performance.md` and its plot, made of the figures in `docs/performance.json`.

use anyhow::{Context, Result};

use super::figures::{Figures, Row};
use super::plot::{self, Series};
use super::table::Table;
use crate::workspace;

const JSON: &str = "docs/performance.json";
const PAGE: &str = "docs/performance.md";
const PLOT: &str = "docs/performance.svg";

/// The cases of the plot, with the MiB that each has touched.
const FORKS: [(&str, f64); 5] = [
    ("fork_mem_1m", 1.0),
    ("fork_mem_16m", 16.0),
    ("fork_mem_64m", 64.0),
    ("fork_mem_256m", 256.0),
    ("fork_mem_1024m", 1024.0),
];

/// Headings, with the first case of each part.
const PARTS: [(&str, &str); 5] = [
    ("The kernel", "calibrate_2000"),
    ("Memory", "zero_fill_page"),
    ("Processes", "fork_exit"),
    ("Growth", "fork_beside_1"),
    ("Signals", "signal_self"),
];

/// Writes the figures, the page and the plot.
pub fn write(figures: &Figures) -> Result<()> {
    let json = serde_json::to_string_pretty(&figures.to_json())? + "\n";
    for (path, text) in [
        (JSON, json),
        (PAGE, page(figures)),
        (PLOT, fork_plot(figures)),
    ] {
        std::fs::write(workspace::root().join(path), text)
            .with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

/// The figures that were written last, if there are any.
pub fn figures() -> Result<Option<Figures>> {
    match std::fs::read_to_string(workspace::root().join(JSON)) {
        Ok(text) => Figures::from_json(&serde_json::from_str(&text)?).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {JSON}")),
    }
}

fn fork_plot(figures: &Figures) -> String {
    let points = |figure: fn(&Row) -> Option<f64>| {
        FORKS
            .iter()
            .filter_map(|(name, mib)| Some((*mib, figure(figures.find(name)?)?)))
            .collect()
    };
    let series: Vec<Series> = [
        Series {
            name: "Linux",
            colour: "#b33",
            points: points(|row| row.linux),
        },
        Series {
            name: "Mitosis",
            colour: "#26a",
            points: points(|row| row.mitosis),
        },
    ]
    .into_iter()
    .filter(|series| !series.points.is_empty())
    .collect();
    plot::draw(
        "fork + exit + wait against touched memory",
        "MiB touched before the fork",
        "guest instructions",
        &series,
    )
}

fn page(figures: &Figures) -> String {
    let mut text = format!(
        "# What operations cost\n\n\
         Made by `cargo xtask bench --vs linux --page` from the figures that it also writes to\n\
         `{JSON}`. Do not edit: measure again.\n\n\
         The unit is **guest instructions for each operation**: of the program, the servers, the kernel and\n\
         interrupts together. It is the same on every host and in every run. Both systems run in the same\n\
         emulator with the same flags:\n\n```text\nqemu-system-x86_64 {}\n```\n\n\
         - Mitosis: built with {}, `programs/src/bin/procbench`.\n\
         - Linux: Debian's `{}` with everything switched off that a boot parameter can\n  \
         switch off in its favour, `bench/procbench.c` as its first process.\n\
         - Minimal Linux (6.1, one processor, nothing but what the cases need) and seL4 were measured once in the\n  \
         same emulator; this command does not repeat them.\n\n",
        figures.flags, figures.compiler, figures.linux
    );
    text += "![fork latency against touched memory](performance.svg)\n";
    let parts = PARTS.iter().map(|(heading, first)| {
        (
            *heading,
            figures.cases.iter().position(|row| row.name == *first),
        )
    });
    let starts: Vec<(&str, usize)> = parts
        .filter_map(|(heading, start)| Some((heading, start?)))
        .collect();
    for (index, (heading, start)) in starts.iter().enumerate() {
        let end = starts
            .get(index + 1)
            .map_or(figures.cases.len(), |next| next.1);
        let rows: Vec<&Row> = figures.cases[*start..end].iter().collect();
        text += &format!("\n## {heading}\n\n");
        text += &Table::costs(figures, &rows)
            .explained()
            .with_others()
            .markdown();
        for row in rows {
            if let Some(note) = &row.note {
                text += &format!("\n`{}`: {note}.\n", row.name);
            }
        }
    }
    text += "\n## What the unit hides\n\n\
             An instruction counts as one whatever it costs. These cost most on real processors; each figure is for\n\
             one operation, Mitosis / Linux. A kernel entry is a system call, a fault or an interrupt. FPU states are\n\
             saves and loads of one.\n\n";
    let rows: Vec<&Row> = figures.cases.iter().collect();
    text += &Table::hidden(&rows).markdown();
    if let Some(wall) = &figures.wall {
        text += &format!(
            "\n## Time of the host\n\n\
             Nanoseconds for each operation, without counting instructions: the time that an *emulator* took\n\
             on the machine where this page was made, with whatever else ran there. Compare the two columns of\n\
             a line and nothing else. A load of CR3 costs the emulator as much as several hundred instructions.\n\n\
             ```text\nqemu-system-x86_64 {}\n```\n\n",
            wall.flags
        );
        let rows: Vec<&Row> = wall
            .cases
            .iter()
            .filter(|row| row.mitosis.is_some())
            .collect();
        text += &Table::costs(wall, &rows).without_budgets().markdown();
    }
    text += "\n## How to repeat it\n\n```text\n\
             cargo xtask bench --vs linux            # the table\n\
             cargo xtask bench --case fork_exit      # one case, Mitosis alone\n\
             cargo xtask bench --vs linux --wall     # time of the host instead: good for ratios only\n\
             cargo xtask profile fork_exit           # where the instructions of a case are\n```\n\n\
             The first run downloads Debian's kernel package and unpacks it below `target`; it is not installed. A\n\
             `rep` string instruction counts once for each repetition: Mitosis clears and copies pages with\n\
             `rep stosq` and `rep movsq` (512 for a page), and the emulated processor does not offer ERMS, so that\n\
             Linux does the same.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::output::Run;

    #[test]
    fn the_page_has_a_table_for_each_part_that_was_measured() {
        let mitosis = Run::new(
            "null_syscall 1 90 90\nfork_exit 1 9000 9000\nfork_mem_1m 1 9000 9000\n\
             # signal_self n/a: handlers come later\n",
            &[],
        );
        let linux = Run::new("fork_mem_1m 1 200000 200000\n", &[]);
        let figures = Figures::new(&mitosis, Some(&linux));
        let text = page(&figures);
        assert!(text.contains("## Processes") && !text.contains("## Memory"));
        assert!(text.contains("`signal_self`: handlers come later."));
        assert!(fork_plot(&figures).contains("Linux"));
    }

    #[test]
    fn the_page_in_the_repository_is_made_of_the_figures_beside_it() {
        let read = |path: &str| std::fs::read_to_string(workspace::root().join(path));
        // Before the first measurement there is neither.
        let Some(figures) = super::figures().unwrap() else {
            return;
        };
        assert_eq!(read(PAGE).unwrap(), page(&figures));
        assert_eq!(read(PLOT).unwrap(), fork_plot(&figures));
    }
}

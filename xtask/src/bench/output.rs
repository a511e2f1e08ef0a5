//! What procbench prints, on either system.
//!
//! A line `name iterations ns_per_op tsc_per_op` is a result; a line `# name failed: why` is a case that
//! went wrong; `# name n/a: why` one that the system has no feature for. Other lines that begin with `#`
//! are notes, and anything else is not procbench's.

use std::collections::BTreeMap;

use super::counter::Section;

/// The result of one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The case.
    pub name: String,
    /// How many operations were measured.
    pub operations: u64,
    /// Nanoseconds of the system's own clock for each.
    pub nanoseconds: f64,
    /// Time stamp counter ticks for each; with counted instructions, the instructions.
    pub ticks: f64,
    /// Instructions of the kinds that are counted apart, for each operation; empty if unknown.
    pub kinds: BTreeMap<String, f64>,
}

/// All that one boot brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Results in the order of the cases.
    pub measurements: Vec<Measurement>,
    /// Cases without a result, and why.
    pub missing: Vec<(String, String)>,
    /// Whether procbench came to its end.
    pub complete: bool,
}

impl Run {
    /// Understands procbench's output; `sections` are what the instruction counter wrote, one for each
    /// case that ran.
    pub fn new(text: &str, sections: &[Section]) -> Run {
        let mut run = Run::default();
        let mut sections = sections.iter();
        for line in text.lines().map(str::trim) {
            if line == "# procbench: end" {
                run.complete = true;
            } else if let Some(note) = line.strip_prefix("# ") {
                let Some((head, why)) = note.split_once(": ") else {
                    continue;
                };
                if let Some(name) = head.strip_suffix(" failed") {
                    sections.next();
                    run.missing
                        .push((name.to_owned(), format!("failed: {why}")));
                } else if let Some(name) = head.strip_suffix(" n/a") {
                    run.missing.push((name.to_owned(), why.to_owned()));
                }
            } else if let Some(mut measurement) = Measurement::parse(line) {
                if let Some(section) = sections.next() {
                    let operations = measurement.operations as f64;
                    measurement.kinds = section
                        .kinds
                        .iter()
                        .map(|(name, count)| (name.clone(), *count as f64 / operations))
                        .collect();
                }
                run.measurements.push(measurement);
            }
        }
        run
    }

    /// The same with time of the system's clock in place of ticks.
    pub fn in_nanoseconds(mut self) -> Run {
        for measurement in &mut self.measurements {
            measurement.ticks = measurement.nanoseconds;
        }
        self
    }

    /// The result of a case.
    pub fn find(&self, name: &str) -> Option<&Measurement> {
        self.measurements
            .iter()
            .find(|measurement| measurement.name == name)
    }
}

impl Measurement {
    fn parse(line: &str) -> Option<Measurement> {
        let mut words = line.split_whitespace();
        let measurement = Measurement {
            name: words.next()?.to_owned(),
            operations: words.next()?.parse().ok()?,
            nanoseconds: words.next()?.parse().ok()?,
            ticks: words.next()?.parse().ok()?,
            kinds: BTreeMap::new(),
        };
        words.next().is_none().then_some(measurement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_told_from_notes_and_paired_with_counts() {
        let section = |loads| Section {
            kinds: BTreeMap::from([("cr3_loads".to_owned(), loads)]),
            ..Section::default()
        };
        let run = Run::new(
            "[    0.1] booting\n# procbench: name iterations ns_per_op tsc_per_op\n\
             null 4 90.00 91.50\r\n# pipe_rtt failed: no memory\n# signal_self n/a: no signals\n\
             fork_exit 10 9000 9001\n# procbench: end\n",
            &[section(0), section(7), section(60)],
        );
        assert!(run.complete);
        assert_eq!(run.measurements.len(), 2);
        assert_eq!(run.find("null").unwrap().ticks, 91.5);
        assert_eq!(run.find("fork_exit").unwrap().kinds["cr3_loads"], 6.0);
        assert_eq!(
            run.missing,
            [
                ("pipe_rtt".to_owned(), "failed: no memory".to_owned()),
                ("signal_self".to_owned(), "no signals".to_owned()),
            ]
        );
    }
}

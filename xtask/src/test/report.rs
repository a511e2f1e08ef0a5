//! What the tests came to: one line for each, and the sum.

use std::sync::Mutex;

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Passed,
    /// Not as it should, and why.
    Failed(String),
    /// Not at all, and why.
    Skipped(String),
}

#[derive(Default)]
struct Sum {
    passed: usize,
    failed: Vec<String>,
    skipped: usize,
}

/// Collects verdicts, from several threads at once.
#[derive(Default)]
pub struct Report {
    sum: Mutex<Sum>,
}

impl Report {
    /// Says and counts how a test ended. `details` explain a failure on standard
    /// error: they may have many lines, the verdict has one.
    pub fn add(&self, name: &str, verdict: &Verdict, details: &str) {
        let mut sum = self.sum.lock().expect("nobody panics while reporting");
        match verdict {
            Verdict::Passed => {
                sum.passed += 1;
                println!("ok {name}");
            }
            Verdict::Failed(why) => {
                println!("FAIL {name}: {}", one_line(why));
                for line in details.trim_end().lines() {
                    eprintln!("    {line}");
                }
                sum.failed.push(name.to_owned());
            }
            Verdict::Skipped(why) => {
                sum.skipped += 1;
                println!("skipped {name}: {}", one_line(why));
            }
        }
    }

    /// How many tests there were.
    pub fn count(&self) -> usize {
        let sum = self.sum.lock().expect("nobody panics while reporting");
        sum.passed + sum.failed.len() + sum.skipped
    }

    /// The last line, and whether all is well.
    pub fn finish(self) -> bool {
        let sum = self
            .sum
            .into_inner()
            .expect("nobody panics while reporting");
        if !sum.failed.is_empty() {
            eprintln!("failed:");
            for name in &sum.failed {
                eprintln!("    {name}");
            }
        }
        println!(
            "{}",
            closing_line(sum.passed, sum.failed.len(), sum.skipped)
        );
        sum.failed.is_empty()
    }
}

fn closing_line(passed: usize, failed: usize, skipped: usize) -> String {
    let mut line = format!("{passed} passed, {failed} failed");
    if skipped > 0 {
        line += &format!(", {skipped} skipped");
    }
    line
}

fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_names_skipped_tests_only_if_there_are_any() {
        assert_eq!(closing_line(3, 0, 0), "3 passed, 0 failed");
        assert_eq!(closing_line(3, 1, 2), "3 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn a_verdict_has_one_line() {
        assert_eq!(one_line("a\n\n  b\n"), "a; b");
    }

    #[test]
    fn one_failure_makes_the_whole_run_fail() {
        let report = Report::default();
        report.add("one", &Verdict::Passed, "");
        report.add("two", &Verdict::Skipped("no such device".into()), "");
        assert_eq!(report.count(), 2);
        assert!(report.finish());
        let report = Report::default();
        report.add("three", &Verdict::Failed("for show".into()), "");
        assert!(!report.finish());
    }
}

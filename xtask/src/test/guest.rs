//! The guest tests: programs of the crate `tests`, each run in an emulator of its
//! own through the exec channel.
//!
//! A program prints, for each of its tests, `start NAME` and then `ok NAME`,
//! `FAIL NAME: why` or `skipped NAME: why`, and ends with status 0 or 1. Whatever
//! else happens (a hang, a panic, another status) is a failure of the test that
//! was started last.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;

use super::report::{Report, Verdict};
use crate::channel::{self, Finished, Job, Outcome, Streams};
use crate::exec;
use crate::qemu::{Boot, MachineOptions};
use crate::test::Guest;

/// How long a whole program may take.
const TIMEOUT: Duration = Duration::from_secs(900);
/// How long it may say nothing: then it hangs.
const QUIET: Duration = Duration::from_secs(180);

/// Subjects that compare how much work something is. They run where the clock counts instructions:
/// elsewhere it tells how busy the host is.
const COUNTED: &[&str] = &["growth"];

/// How many lines of the log tell where a program hangs.
const LOG_LINES: usize = 30;

/// Runs the test program `name` of the archive (`tests/…`); `filter` selects some
/// of its tests by a part of their name.
pub fn run(guest: &Guest, name: &str, filter: Option<&str>, report: &Report) -> Result<()> {
    let subject = name.trim_start_matches("tests/");
    let machine = MachineOptions {
        icount: COUNTED.contains(&subject),
        ..MachineOptions::default()
    };
    let arguments: Vec<&str> = filter.into_iter().collect();
    let boot = Boot::Kernel {
        kernel: guest.kernel.clone(),
        archive: guest.archive.clone(),
        words: exec::command_line(name, "", &arguments)?,
    };
    let job = Job {
        machine: &machine,
        boot: &boot,
        timeout: Some(TIMEOUT),
        quiet: Some(QUIET),
    };
    let mut lines = Lines::new(subject, report);
    let mut error = Vec::new();
    let finished = channel::run(
        &job,
        Streams {
            input: Box::new(std::io::empty()),
            output: &mut lines,
            error: &mut error,
        },
    )?;
    lines.end(&finished, &error, filter.is_some());
    Ok(())
}

/// Understands what a test program prints, line by line.
struct Lines<'a> {
    subject: &'a str,
    report: &'a Report,
    /// A line that is not complete yet.
    part: Vec<u8>,
    /// The test that was started and has no result yet.
    started: Option<String>,
    seen: usize,
    failed: usize,
    /// What is not for us, since the last result.
    chatter: String,
}

impl<'a> Lines<'a> {
    fn new(subject: &'a str, report: &'a Report) -> Self {
        Self {
            subject,
            report,
            part: Vec::new(),
            started: None,
            seen: 0,
            failed: 0,
            chatter: String::new(),
        }
    }

    fn line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
        let verdict = match word {
            "start" => {
                self.started = Some(rest.to_owned());
                return;
            }
            "ok" => Verdict::Passed,
            "FAIL" => Verdict::Failed(why.to_owned()),
            "skipped" => Verdict::Skipped(why.to_owned()),
            _ => {
                self.chatter += line;
                self.chatter.push('\n');
                return;
            }
        };
        self.verdict(name, &verdict, "");
    }

    fn verdict(&mut self, name: &str, verdict: &Verdict, details: &str) {
        self.started = None;
        self.seen += 1;
        self.failed += usize::from(matches!(verdict, Verdict::Failed(_)));
        let details = std::mem::take(&mut self.chatter) + details;
        self.report
            .add(&format!("{}::{name}", self.subject), verdict, &details);
    }

    /// The program is over: is that as it should be?
    fn end(mut self, finished: &Finished, error: &[u8], filtered: bool) {
        if !self.part.is_empty() {
            let part = std::mem::take(&mut self.part);
            self.line(&String::from_utf8_lossy(&part));
        }
        let why = match &finished.outcome {
            Outcome::Exit(0) if self.started.is_none() && self.failed == 0 => {
                if self.seen > 0 || filtered {
                    return;
                }
                "the program has no tests".to_owned()
            }
            Outcome::Exit(1) if self.started.is_none() && self.failed > 0 => return,
            Outcome::Exit(status) => format!("the test program ended with status {status}"),
            Outcome::Timeout => "hangs".to_owned(),
            outcome => exec::explain(outcome),
        };
        let name = self
            .started
            .take()
            .unwrap_or_else(|| "the whole program".into());
        let log = channel::panic_text(&finished.log)
            .unwrap_or_else(|| channel::tail(&finished.log, LOG_LINES));
        let details = format!(
            "{}{}\n{log}",
            String::from_utf8_lossy(error),
            finished.emulator
        );
        self.verdict(&name, &Verdict::Failed(why), &details);
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.part);
                self.line(String::from_utf8_lossy(&line).trim_end());
            } else {
                self.part.push(byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str, outcome: Outcome) -> (usize, bool) {
        let report = Report::default();
        let mut lines = Lines::new("subject", &report);
        lines.write_all(text.as_bytes()).unwrap();
        let finished = Finished {
            outcome,
            log: b"last words".to_vec(),
            emulator: String::new(),
        };
        lines.end(&finished, b"", false);
        (report.count(), report.finish())
    }

    #[test]
    fn results_are_counted_line_by_line() {
        let text = "start a\nok a\nhello\nstart b\nskipped b: no such device\n";
        assert_eq!(after(text, Outcome::Exit(0)), (2, true));
        let text = "start a\nFAIL a: for show\nstart b\nok b\n";
        assert_eq!(after(text, Outcome::Exit(1)), (2, false));
    }

    #[test]
    fn whatever_ends_a_started_test_makes_it_fail() {
        for outcome in [
            Outcome::Timeout,
            Outcome::Panic,
            Outcome::Exit(0),
            Outcome::NoStatus,
        ] {
            assert_eq!(after("start a\nok a\nstart b\n", outcome), (2, false));
        }
    }

    #[test]
    fn a_status_that_contradicts_the_results_is_a_failure() {
        assert_eq!(after("start a\nok a\n", Outcome::Exit(1)), (2, false));
        assert_eq!(after("start a\nFAIL a: x\n", Outcome::Exit(0)), (2, false));
        assert_eq!(after("", Outcome::Exit(0)), (1, false));
    }
}

//! The tests that run on the host: `cargo test` of the whole workspace, with one
//! line for each test.
//!
//! Cargo builds the test programs and says where they are; we run them
//! ourselves, because only so do we know which package a test belongs to and
//! which tests a program that died never came to.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::report::{Report, Verdict};
use crate::workspace;

/// How long one test program may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Where proptest takes its seed from. Set by the user, it repeats a run.
const SEED: &str = "PROPTEST_RNG_SEED";

/// A program full of tests.
struct TestProgram {
    /// The crate's name, with which its tests' names begin.
    name: String,
    path: PathBuf,
    /// Where its package is: tests may open files relative to it.
    folder: PathBuf,
}

/// Runs the host tests whose names contain `filter`.
pub fn run(filter: &str, report: &Report) -> Result<()> {
    let programs = build()?;
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed,
        Err(_) => RandomState::new().hash_one(()).to_string(),
    };
    eprintln!("xtask: the random host tests are those of {SEED}={seed}");
    let work = Mutex::new(programs.into_iter());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let next = work.lock().expect("taking work never panics").next();
                        let Some(program) = next else { return Ok(()) };
                        run_program(&program, filter, &seed, report)?;
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a worker never panics"))
    })
}

/// Builds all test programs of the workspace.
fn build() -> Result<Vec<TestProgram>> {
    eprintln!("xtask: building the host tests");
    let output = cargo()
        .args([
            "test",
            "--workspace",
            "--no-run",
            "--quiet",
            "--message-format=json-render-diagnostics",
        ])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo test")?;
    if !output.status.success() {
        bail!("the host tests do not build");
    }
    let mut programs = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        let is_test = message["profile"]["test"] == Value::Bool(true);
        if let (true, Some(path)) = (is_test, message["executable"].as_str()) {
            let manifest = PathBuf::from(message["manifest_path"].as_str().unwrap_or("."));
            programs.push(TestProgram {
                name: message["target"]["name"]
                    .as_str()
                    .unwrap_or("?")
                    .replace('-', "_"),
                path: path.into(),
                folder: manifest.parent().map(PathBuf::from).unwrap_or_default(),
            });
        }
    }
    Ok(programs)
}

/// Cargo, as the caller's cargo would run it.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(workspace::root());
    command
}

fn run_program(program: &TestProgram, filter: &str, seed: &str, report: &Report) -> Result<()> {
    let mut waiting = list(program, filter)?;
    if waiting.is_empty() {
        return Ok(());
    }
    let mut child = Command::new(&program.path)
        .args(["--color", "never", "--exact"])
        .args(&waiting)
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder)
        .env(SEED, seed)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.path.display()))?;

    let output = BufReader::new(child.stdout.take().expect("piped"));
    let complaints = BufReader::new(child.stderr.take().expect("piped"));
    let errors = std::thread::spawn(move || std::io::read_to_string(complaints));
    let child = Arc::new(Mutex::new(child));
    let watched = child.clone();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let start = Instant::now();
        let late = ended
            .recv_timeout(PATIENCE)
            .is_err_and(|_| start.elapsed() >= PATIENCE);
        if late {
            // It may have ended at this very moment; then nothing is to be killed.
            let _ = watched.lock().expect("killing never panics").kill();
        }
        late
    });

    let mut failed = Vec::new();
    let mut rest = String::new();
    for line in output.lines() {
        let line = line.unwrap_or_else(|_| "(a line that is not UTF-8)".into());
        match result_of(&line) {
            Some((test, verdict)) if waiting.remove(test) => match verdict {
                Verdict::Failed(_) => failed.push(test.to_owned()),
                verdict => report.add(&format!("{}::{test}", program.name), &verdict, ""),
            },
            _ => rest += &format!("{line}\n"),
        }
    }
    drop(done);
    let late = watch.join().expect("watching never panics");
    let status = child.lock().expect("killing never panics").wait()?;
    let errors = errors
        .join()
        .expect("reading never panics")
        .unwrap_or_default();

    for test in failed {
        let details = details_of(&rest, &test);
        let why = panic_line(&details).unwrap_or("see below").to_owned();
        report.add(
            &format!("{}::{test}", program.name),
            &Verdict::Failed(why),
            &details,
        );
    }
    for test in waiting {
        let why = if late {
            format!("not finished after {} s", PATIENCE.as_secs())
        } else {
            format!("the test program ended before ({status})")
        };
        report.add(
            &format!("{}::{test}", program.name),
            &Verdict::Failed(why),
            &errors,
        );
    }
    Ok(())
}

/// The names of a program's tests, as far as they are asked for.
fn list(program: &TestProgram, filter: &str) -> Result<BTreeSet<String>> {
    let output = Command::new(&program.path)
        .args(["--list", "--format", "terse"])
        .current_dir(&program.folder)
        .output()
        .with_context(|| format!("cannot start {}", program.path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|test| format!("{}::{test}", program.name).contains(filter))
        .map(str::to_owned)
        .collect())
}

/// The test that a line of output is about, and how it ended.
fn result_of(line: &str) -> Option<(&str, Verdict)> {
    let (test, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let test = test.strip_suffix(" - should panic").unwrap_or(test);
    let verdict = match result {
        "ok" => Verdict::Passed,
        "FAILED" => Verdict::Failed(String::new()),
        ignored => {
            let why = ignored.strip_prefix("ignored")?;
            Verdict::Skipped(why.trim_start_matches(", ").to_owned())
        }
    };
    Some((test, verdict))
}

/// What a test that failed printed.
fn details_of(output: &str, test: &str) -> String {
    let head = format!("---- {test} stdout ----\n");
    let Some(start) = output.find(&head) else {
        return String::new();
    };
    let text = &output[start + head.len()..];
    let end = text
        .find("\n---- ")
        .or(text.find("\nfailures:\n"))
        .unwrap_or(text.len());
    text[..end].trim().to_owned()
}

/// The message of a panic: the line after the one that says where.
fn panic_line(details: &str) -> Option<&str> {
    let mut lines = details.lines();
    lines.find(|line| line.contains("' panicked at ") || line.contains(") panicked at "))?;
    lines.find(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_test_harness_names_test_and_result() {
        assert_eq!(
            result_of("test a::b ... ok"),
            Some(("a::b", Verdict::Passed))
        );
        let (test, verdict) = result_of("test c - should panic ... FAILED").unwrap();
        assert_eq!((test, verdict), ("c", Verdict::Failed(String::new())));
        let (_, verdict) = result_of("test d ... ignored, takes an hour").unwrap();
        assert_eq!(verdict, Verdict::Skipped("takes an hour".into()));
        assert_eq!(result_of("test result: ok. 3 passed"), None);
        assert_eq!(result_of("running 3 tests"), None);
    }

    #[test]
    fn the_details_of_a_failure_are_found_among_others() {
        let output = "\nfailures:\n\n---- one stdout ----\nthread 'one' (7) panicked at a.rs:1:\n\
                      why one\nmore\n\n---- two stdout ----\nwhy two\n\nfailures:\n    one\n    two\n";
        assert!(details_of(output, "one").ends_with("why one\nmore"));
        assert_eq!(panic_line(&details_of(output, "one")), Some("why one"));
        assert_eq!(details_of(output, "two"), "why two");
        assert_eq!(details_of(output, "three"), "");
    }
}

//! The command line of `cargo xtask exec`, as a user types it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use super::{expect_eq, scenarios};
use crate::bare;
use crate::channel::Folder;
use crate::test::Guest;
use crate::test::report::Verdict;
use crate::workspace;

scenarios! { "command":
    exec_runs_a_native_file_by_its_path,
    exec_says_what_a_file_is_that_it_cannot_run,
    exec_does_not_know_every_name,
    exec_ends_with_124_and_the_log_when_time_is_up,
    exec_keeps_its_streams_apart,
    run_types_what_is_piped_into_it_and_ends_with_it,
    run_tells_everybody_who_reads_that_its_input_has_ended,
    run_loses_nothing_of_a_long_input,
}

/// `cargo xtask exec` with these words and this input.
fn exec(words: &[&str], input: &[u8]) -> Result<Output> {
    xtask("exec", words, input)
}

/// An xtask command with these words and this input; 124 if it hangs.
fn xtask(command: &str, words: &[&str], input: &[u8]) -> Result<Output> {
    let folder = Folder::make()?;
    let file = folder.path.join("input");
    std::fs::write(&file, input)?;
    // With the emulator, which is of the same process group then.
    Command::new("timeout")
        .arg("120")
        .arg(std::env::current_exe()?)
        .arg(command)
        .args(words)
        .current_dir(workspace::root())
        .stdin(Stdio::from(std::fs::File::open(file)?))
        .output()
        .context("cannot start xtask itself")
}

fn expect_status(output: &Output, status: i32) -> Result<()> {
    if output.status.code() == Some(status) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(anyhow::anyhow!(said))
        .with_context(|| format!("ended with {}, expected {status}", output.status))
}

/// The file of a program that was built.
fn built(name: &str) -> Result<PathBuf> {
    let system = bare::build()?;
    let program = system.programs.into_iter().find(|built| built.name == name);
    Ok(program.with_context(|| format!("no {name}"))?.path)
}

fn exec_runs_a_native_file_by_its_path(_: &Guest) -> Result<Verdict> {
    let folder = Folder::make()?;
    // A name that no program of ours has, and that no archive can hold as it is.
    let copy = folder.path.join("my cat's copy");
    std::fs::copy(built("bin/cat")?, &copy)?;
    let output = exec(
        &["--timeout", "60", &copy.to_string_lossy()],
        b"through a copy",
    )?;
    expect_status(&output, 0)?;
    expect_eq("the output", &output.stdout[..], b"through a copy")?;
    Ok(Verdict::Passed)
}

fn exec_says_what_a_file_is_that_it_cannot_run(_: &Guest) -> Result<Verdict> {
    let folder = Folder::make()?;
    let script = folder.path.join("script");
    std::fs::write(&script, "#!/bin/sh\necho no\n")?;
    let own = std::env::current_exe()?;
    for (path, kind) in [
        (script, "script"),
        (own, "dynamically linked"),
        (folder.path.clone(), "folder"),
        // A bare name, which is looked for among the programs first.
        ("README.md".into(), "text file"),
    ] {
        let output = exec(&[&path.to_string_lossy()], b"")?;
        expect_status(&output, 126)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !said.contains(kind) || said.trim().lines().count() != 1 {
            bail!(
                "{} should be called {kind:?} on one line, not {said:?}",
                path.display()
            );
        }
    }
    Ok(Verdict::Passed)
}

fn exec_does_not_know_every_name(_: &Guest) -> Result<Verdict> {
    expect_status(&exec(&["no-such-program"], b"")?, 127)?;
    expect_status(&exec(&["./no-such-file"], b"")?, 127)?;
    Ok(Verdict::Passed)
}

fn exec_ends_with_124_and_the_log_when_time_is_up(_: &Guest) -> Result<Verdict> {
    let output = exec(&["--timeout", "8", "spin"], b"")?;
    expect_status(&output, 124)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !said.contains("/bin/spin") {
        bail!("the log does not tell what ran: {said:?}");
    }
    Ok(Verdict::Passed)
}

fn exec_keeps_its_streams_apart(_: &Guest) -> Result<Verdict> {
    // Without a number the program explains its use, on standard error only.
    let output = exec(&["--timeout", "60", "exit-status"], b"")?;
    expect_status(&output, 2)?;
    expect_eq("standard output", &output.stdout[..], b"")?;
    let said = String::from_utf8_lossy(&output.stderr);
    expect_eq("standard error", &*said, "usage: exit-status N\n")?;
    Ok(Verdict::Passed)
}

fn run_types_what_is_piped_into_it_and_ends_with_it(_: &Guest) -> Result<Verdict> {
    let output = xtask("run", &[], b"echo the first line\necho the last one\n")?;
    expect_status(&output, 0)?;
    let screen = String::from_utf8_lossy(&output.stdout);
    for line in ["the first line", "the last one"] {
        if !screen.lines().any(|shown| shown == line) {
            bail!("{line:?} is missing from {screen}");
        }
    }
    Ok(Verdict::Passed)
}

fn run_tells_everybody_who_reads_that_its_input_has_ended(_: &Guest) -> Result<Verdict> {
    for (input, shown) in [
        (
            &b"echo a line without its end"[..],
            "a line without its end",
        ),
        (b"sh\ncat\nwhat cat reads\nand", "what cat reads"),
    ] {
        let output = xtask("run", &[], input)?;
        expect_status(&output, 0)?;
        let screen = String::from_utf8_lossy(&output.stdout);
        // What is typed is shown as well.
        if screen.matches(shown).count() < 2 {
            bail!("{shown:?} is missing from {screen}");
        }
    }
    Ok(Verdict::Passed)
}

fn run_loses_nothing_of_a_long_input(_: &Guest) -> Result<Verdict> {
    let names = (0..500).map(|number| format!("no-such-program-{number}"));
    let input: String = names.clone().map(|name| name + "\n").collect();
    let output = xtask("run", &[], input.as_bytes())?;
    expect_status(&output, 0)?;
    let screen = String::from_utf8_lossy(&output.stdout);
    let answers = names.map(|name| format!("sh: {name}: not found"));
    let missing: Vec<String> = answers.filter(|answer| !screen.contains(answer)).collect();
    expect_eq("what the shell did not say", missing, Vec::new())?;
    Ok(Verdict::Passed)
}

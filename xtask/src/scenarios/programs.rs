//! The example programs: what they print shows how processes are made.

use anyhow::{Context, Result, bail};

use super::{Program, expect_eq, scenarios};
use crate::test::Guest;
use crate::test::report::Verdict;

scenarios! { "programs":
    fork_example_shows_parent_and_child,
    vfork_example_lets_the_child_end_first,
    clone_example_shows_what_is_shared,
    createprocess_example_resumes_waits_and_terminates,
    kthread_example_runs_below_the_service_root,
}

/// The number at the end of a line that begins with `start`.
fn number(line: &str, start: &str) -> Result<u32> {
    line.strip_prefix(start)
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{line:?} is not {start:?} and a number"))
}

fn fork_example_shows_parent_and_child(guest: &Guest) -> Result<Verdict> {
    let lines = Program::new(guest, "fork-example").lines()?;
    let [before, rest @ ..] = &lines[..] else {
        bail!("no output");
    };
    let parent = number(before, "before fork pid is ")?;
    let mut rest = rest.to_vec();
    rest.sort();
    let expected = [
        format!("child pid is {}", parent + 1),
        format!("father pid is {parent}"),
    ];
    expect_eq("what parent and child print", &rest[..], &expected[..])?;
    Ok(Verdict::Passed)
}

fn vfork_example_lets_the_child_end_first(guest: &Guest) -> Result<Verdict> {
    let lines = Program::new(guest, "vfork-example").lines()?;
    let [before, rest @ ..] = &lines[..] else {
        bail!("no output");
    };
    let parent = number(before, "before vfork pid is ")?;
    let child = format!("child pid is {}", parent + 1);
    let father = format!("father pid is {parent}");
    let expected = [&child, &child, &child, &father, &father, &father];
    expect_eq(
        "the order",
        rest.iter().collect::<Vec<_>>(),
        expected.to_vec(),
    )?;
    Ok(Verdict::Passed)
}

fn clone_example_shows_what_is_shared(guest: &Guest) -> Result<Verdict> {
    let lines = Program::new(guest, "clone-example").lines()?;
    let parent = number(lines.first().map_or("", |line| line), "parent pid is ")?;
    let expected = [
        "VM: the parent sees 1 after the child wrote 1".to_owned(),
        "no VM: the parent still sees 1".to_owned(),
        "no FILES: the child's descriptor is not open in the parent".to_owned(),
        "FILES: the child's descriptor is open in the parent".to_owned(),
        format!("thread: pid is {parent}, tid is the one that clone returned: true"),
        "CHILD_CLEARTID: the joiner was woken, the word is 0".to_owned(),
    ];
    expect_eq("what it prints", &lines[1..], &expected[..])?;
    Ok(Verdict::Passed)
}

fn createprocess_example_resumes_waits_and_terminates(guest: &Guest) -> Result<Verdict> {
    let lines = Program::new(guest, "createprocess-example").lines()?;
    let expected = [
        "created suspended: exit code is 259",
        "it does not run yet: the wait timed out",
        "resumed: the suspend count was 1",
        "second child: exit code is 259",
        "terminated: exit code is 42",
    ];
    let mut rest = lines.iter();
    for line in expected {
        if !rest.any(|printed| printed == line) {
            bail!("{line:?} is missing, or out of order, in {lines:?}");
        }
    }
    if !lines.iter().any(|line| line.contains("good morning")) {
        bail!("the child's greeting from its environment is missing in {lines:?}");
    }
    Ok(Verdict::Passed)
}

fn kthread_example_runs_below_the_service_root(guest: &Guest) -> Result<Verdict> {
    let lines = Program::new(guest, "kthread-example").lines()?;
    for line in [
        "service thread: its parent is 2",
        "it runs: at least 3 rounds",
        "asked to stop: its result is 42",
    ] {
        if !lines.iter().any(|printed| printed == line) {
            bail!("{line:?} is missing in {lines:?}");
        }
    }
    Ok(Verdict::Passed)
}

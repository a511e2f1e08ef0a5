//! The exec channel: streams byte for byte, statuses, timeouts.

use std::time::Duration;

use anyhow::Result;

use super::{Program, expect_eq, scenarios};
use crate::channel::Outcome;
use crate::test::Guest;
use crate::test::report::Verdict;

scenarios! { "exec":
    all_byte_values_pass_through_cat,
    long_input_passes_through_cat,
    empty_input_ends_at_once,
    exit_statuses_from_0_to_255_arrive,
    arguments_arrive_whatever_they_contain,
    a_program_that_hangs_ends_with_a_timeout,
    a_program_that_faults_ends_with_an_error_status,
}

fn all_byte_values_pass_through_cat(guest: &Guest) -> Result<Verdict> {
    let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    let output = Program::new(guest, "cat").input(bytes.clone()).succeed()?;
    expect_eq("the output", output, bytes)?;
    Ok(Verdict::Passed)
}

fn long_input_passes_through_cat(guest: &Guest) -> Result<Verdict> {
    // No period that a buffer's size could divide.
    let bytes: Vec<u8> = (0..100_000u32)
        .map(|index| (index.wrapping_mul(index) % 251) as u8)
        .collect();
    let output = Program::new(guest, "cat").input(bytes.clone()).succeed()?;
    expect_eq("the output's length", output.len(), bytes.len())?;
    let differing = output
        .iter()
        .zip(&bytes)
        .position(|(is, expected)| is != expected);
    expect_eq("the first differing byte", differing, None)?;
    Ok(Verdict::Passed)
}

fn empty_input_ends_at_once(guest: &Guest) -> Result<Verdict> {
    let output = Program::new(guest, "cat").succeed()?;
    expect_eq("the output", output, Vec::new())?;
    Ok(Verdict::Passed)
}

fn exit_statuses_from_0_to_255_arrive(guest: &Guest) -> Result<Verdict> {
    for status in [0, 1, 127, 128, 255] {
        Program::new(guest, "exit-status")
            .arguments(&[&status.to_string()])
            .run()?
            .expect(Outcome::Exit(status))?;
    }
    Ok(Verdict::Passed)
}

fn arguments_arrive_whatever_they_contain(guest: &Guest) -> Result<Verdict> {
    let output = Program::new(guest, "echo")
        .arguments(&["two words", "", "%41", "--", "-x", "ünïcode\t!", "last"])
        .succeed()?;
    let expected = "two words  %41 -- -x ünïcode\t! last\n".as_bytes().to_vec();
    expect_eq("the output", output, expected)?;
    Ok(Verdict::Passed)
}

fn a_program_that_hangs_ends_with_a_timeout(guest: &Guest) -> Result<Verdict> {
    let mut program = Program::new(guest, "spin");
    program.patience = Duration::from_secs(10);
    program.run()?.expect(Outcome::Timeout)?;
    Ok(Verdict::Passed)
}

fn a_program_that_faults_ends_with_an_error_status(guest: &Guest) -> Result<Verdict> {
    let seen = Program::new(guest, "fault").arguments(&["write"]).run()?;
    // 128 + SIGSEGV, as a shell reports it.
    seen.expect(Outcome::Exit(128 + 11))?;
    Ok(Verdict::Passed)
}

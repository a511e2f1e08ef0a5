//! A kernel panic: what it says, and how the emulator ends.

use anyhow::{Result, bail};

use super::{Program, scenarios};
use crate::channel::{self, Outcome};
use crate::test::Guest;
use crate::test::report::Verdict;

scenarios! { "panic":
    a_kernel_panic_names_its_place_and_its_callers,
}

fn a_kernel_panic_names_its_place_and_its_callers(guest: &Guest) -> Result<Verdict> {
    let mut program = Program::new(guest, "cat");
    program.words = "test=panic";
    let seen = program.run()?;
    seen.expect(Outcome::Panic)?;
    let Some(text) = channel::panic_text(&seen.log) else {
        return Err(seen.details());
    };
    if !text.contains("asked for by test=panic") || !text.contains("microkernel/src/main.rs:") {
        bail!("the message or the place is missing in: {text}");
    }
    if !text.contains("mitosis::") {
        bail!("no function is named in: {text}");
    }
    Ok(Verdict::Passed)
}

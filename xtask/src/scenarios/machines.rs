//! Other machines than the usual one: memory sizes, processors, boards.

use anyhow::{Context, Result};

use super::{Program, expect_eq, scenarios};
use crate::qemu::MachineOptions;
use crate::test::Guest;
use crate::test::report::Verdict;

scenarios! { "machines":
    any_memory_size_will_do,
    processors_with_fewer_features_will_do,
    a_machine_with_more_processors_boots,
    instruction_counts_of_two_runs_agree,
}

/// The machine must at least pass a line through a program.
fn try_machine(guest: &Guest, machine: MachineOptions) -> Result<()> {
    let shown = format!(
        "-m {} -cpu {} -smp {}",
        machine.mem, machine.cpu, machine.smp
    );
    let output = Program::new(guest, "cat")
        .input("hello\n")
        .machine(machine)
        .succeed()
        .with_context(|| format!("with {shown}"))?;
    expect_eq(&shown, output, b"hello\n".to_vec())
}

fn any_memory_size_will_do(guest: &Guest) -> Result<Verdict> {
    // The last two have memory above 4 GiB, one of them most of it.
    for mem in ["64M", "128M", "1G", "3G", "4G", "6G"] {
        let mem = mem.to_owned();
        try_machine(
            guest,
            MachineOptions {
                mem,
                ..MachineOptions::default()
            },
        )?;
    }
    Ok(Verdict::Passed)
}

fn processors_with_fewer_features_will_do(guest: &Guest) -> Result<Verdict> {
    for cpu in [
        "qemu64",
        "Nehalem",
        "Haswell-noTSX",
        "EPYC",
        "max,-smep,-smap",
        "max,-fsgsbase",
        "max,-xsave",
    ] {
        let cpu = cpu.to_owned();
        try_machine(
            guest,
            MachineOptions {
                cpu,
                ..MachineOptions::default()
            },
        )?;
    }
    Ok(Verdict::Passed)
}

fn a_machine_with_more_processors_boots(guest: &Guest) -> Result<Verdict> {
    try_machine(
        guest,
        MachineOptions {
            smp: 4,
            ..MachineOptions::default()
        },
    )?;
    Ok(Verdict::Passed)
}

fn instruction_counts_of_two_runs_agree(guest: &Guest) -> Result<Verdict> {
    let log = || -> Result<Vec<u8>> {
        let machine = MachineOptions {
            icount: true,
            ..MachineOptions::default()
        };
        let seen = Program::new(guest, "fork-example").machine(machine).run()?;
        seen.expect(crate::channel::Outcome::Exit(0))?;
        Ok(seen.output)
    };
    expect_eq("the second run", log()?, log()?)?;
    Ok(Verdict::Passed)
}

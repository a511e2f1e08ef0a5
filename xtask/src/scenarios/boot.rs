//! Both doors into the kernel, on all boards and under both firmwares, up to the
//! prompt of the shell; and what init does without a program.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{PATIENCE, scenarios};
use crate::channel::Folder;
use crate::limine::{Limine, NOT_AVAILABLE};
use crate::qemu::{Boot, Ending, MachineOptions};
use crate::terminal::Terminal;
use crate::test::Guest;
use crate::test::report::Verdict;
use crate::{bare, iso};

scenarios! { "boot":
    the_iso_boots_to_the_shell_under_uefi,
    the_iso_boots_to_the_shell_under_a_bios,
    the_kernel_boots_to_the_shell_by_pvh_on_pc,
    the_kernel_boots_to_the_shell_by_pvh_on_q35,
    the_kernel_boots_to_the_shell_by_pvh_on_microvm,
    init_tells_who_holds_what,
    without_a_program_init_stops_with_no_working_init_found,
}

/// What the shell shows when it waits for a command.
pub const PROMPT: &str = "$ ";

/// Firmware and a boot loader take their time in an emulator.
const LONG_PATIENCE: Duration = Duration::from_secs(300);

fn by_pvh(guest: &Guest, words: &str) -> Boot {
    Boot::Kernel {
        kernel: guest.kernel.clone(),
        archive: guest.archive.clone(),
        words: words.to_owned(),
    }
}

/// Boots to the prompt, runs a program, powers off.
fn to_the_shell(machine: &MachineOptions, boot: &Boot, patience: Duration) -> Result<Verdict> {
    let mut terminal = Terminal::start(machine, boot)?;
    terminal.expect("Mitosis", patience)?;
    terminal.expect(PROMPT, patience)?;
    // The answer must not be the echo of what was typed.
    terminal.send("echo one  two\r")?;
    terminal.expect("one two", PATIENCE)?;
    terminal.expect(PROMPT, PATIENCE)?;
    terminal.send("exit\r")?;
    match terminal.end(PATIENCE)? {
        (Ending::Success, _) => Ok(Verdict::Passed),
        (ending, rest) => bail!("the machine ended with {ending:?}: {rest}"),
    }
}

fn the_kernel_boots_to_the_shell_by_pvh_on_pc(guest: &Guest) -> Result<Verdict> {
    to_the_shell(&MachineOptions::default(), &by_pvh(guest, ""), PATIENCE)
}

fn the_kernel_boots_to_the_shell_by_pvh_on_q35(guest: &Guest) -> Result<Verdict> {
    let machine = MachineOptions {
        machine: "q35".into(),
        ..MachineOptions::default()
    };
    to_the_shell(&machine, &by_pvh(guest, ""), PATIENCE)
}

fn the_kernel_boots_to_the_shell_by_pvh_on_microvm(guest: &Guest) -> Result<Verdict> {
    let machine = MachineOptions {
        machine: "microvm".into(),
        ..MachineOptions::default()
    };
    to_the_shell(&machine, &by_pvh(guest, ""), PATIENCE)
}

fn the_iso_boots_to_the_shell_under_a_bios(guest: &Guest) -> Result<Verdict> {
    iso_to_the_shell(guest, false)
}

fn the_iso_boots_to_the_shell_under_uefi(guest: &Guest) -> Result<Verdict> {
    iso_to_the_shell(guest, true)
}

fn iso_to_the_shell(_: &Guest, uefi: bool) -> Result<Verdict> {
    let Some(image) = image()? else {
        return Ok(Verdict::Skipped(NOT_AVAILABLE.into()));
    };
    to_the_shell(
        &MachineOptions::default(),
        &Boot::Iso { image, uefi },
        LONG_PATIENCE,
    )
}

/// The image, made once for all who boot it; `None` without a boot loader.
fn image() -> Result<Option<PathBuf>> {
    static IMAGE: OnceLock<Result<Option<(Folder, PathBuf)>, String>> = OnceLock::new();
    let made = IMAGE.get_or_init(|| make_image().map_err(|error| format!("{error:#}")));
    match made {
        Ok(made) => Ok(made.as_ref().map(|(_, path)| path.clone())),
        Err(error) => bail!("{error}"),
    }
}

fn make_image() -> Result<Option<(Folder, PathBuf)>> {
    let Some(limine) = Limine::find()? else {
        return Ok(None);
    };
    let folder = Folder::make()?;
    let path = folder.path.join("mitosis.iso");
    iso::make(&bare::build()?, &limine, "", &path)?;
    Ok(Some((folder, path)))
}

fn init_tells_who_holds_what(guest: &Guest) -> Result<Verdict> {
    let mut terminal = Terminal::start(&MachineOptions::default(), &by_pvh(guest, ""))?;
    let text = terminal.expect(PROMPT, PATIENCE)?;
    for server in ["memory", "process", "files", "console"] {
        if !text.contains(server) {
            bail!("the capability tree does not name the server {server}: {text}");
        }
    }
    Ok(Verdict::Passed)
}

fn without_a_program_init_stops_with_no_working_init_found(guest: &Guest) -> Result<Verdict> {
    // The archive holds bin/sh, which init tries last: an archive of its own
    // without it would be needed to get here, so one is made.
    let folder = Folder::make()?;
    let archive = folder.path.join("boot.cpio");
    std::fs::write(
        &archive,
        crate::run::archive_without(&bare::build()?, "bin/")?,
    )?;
    let boot = Boot::Kernel {
        kernel: guest.kernel.clone(),
        archive,
        words: "init=/bin/nothing".into(),
    };
    let mut terminal = Terminal::start(&MachineOptions::default(), &boot)?;
    terminal.expect("No working init found", PATIENCE)?;
    Ok(Verdict::Passed)
}

//! `cargo xtask run` and `build`: the system on this terminal.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::archive::Archive;
use crate::bare::{self, System};
use crate::limine::{self, Limine};
use crate::qemu::{self, Boot, Ending, MachineOptions};
use crate::{iso, symbols, workspace};

/// What `cargo xtask run` can be told.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    machine: MachineOptions,
    /// Boot an ISO image through its boot loader, not the kernel directly
    #[arg(long)]
    iso: bool,
    /// Boot the ISO image under UEFI
    #[arg(long, requires = "iso")]
    uefi: bool,
    /// More words for the kernel's command line, for example init=/bin/fork-example
    #[arg(last = true, value_name = "WORDS")]
    words: Vec<String>,
}

/// Builds all that runs on the machine, and the boot archive; says where it is.
pub fn build() -> Result<ExitCode> {
    let system = bare::build()?;
    let archive = write_archive(&system)?;
    eprint!("{}", bare::warnings()?);
    println!("kernel:       {}", system.kernel.display());
    println!("boot archive: {}", archive.display());
    Ok(ExitCode::SUCCESS)
}

/// Boots on this terminal until the guest powers off.
pub fn run(options: &Options) -> Result<ExitCode> {
    let system = bare::build()?;
    let words = options.words.join(" ");
    let image = match options.iso {
        true => image(&system, &words)?,
        false => None,
    };
    let boot = match image {
        Some(image) => Boot::Iso {
            image,
            uefi: options.uefi,
        },
        None => Boot::Kernel {
            archive: write_archive(&system)?,
            kernel: system.kernel,
            words,
        },
    };
    on_terminal(&options.machine, &boot)
}

/// An ISO image for this run, if there is a boot loader for it.
fn image(system: &System, words: &str) -> Result<Option<PathBuf>> {
    let Some(limine) = Limine::find()? else {
        eprintln!(
            "xtask: {}: booting the kernel directly",
            limine::NOT_AVAILABLE
        );
        return Ok(None);
    };
    let image = workspace::output().join("run.iso");
    iso::make(system, &limine, words, &image)?;
    Ok(Some(image))
}

/// Runs a machine whose COM1 is this terminal.
///
/// QEMU switches the terminal to raw mode and back. All keys reach the guest,
/// Ctrl-C too; only Ctrl-A is the emulator's (Ctrl-A X ends it).
pub fn on_terminal(machine: &MachineOptions, boot: &Boot) -> Result<ExitCode> {
    let mut command = qemu::command(machine, boot)?;
    command
        .args(["-chardev", "stdio,id=terminal,mux=on,signal=off"])
        .args(["-serial", "chardev:terminal"]);
    let status = match std::io::stdin().is_terminal() {
        true => command.status().context("cannot start QEMU")?,
        false => feed(command)?,
    };
    match Ending::of(status) {
        Ending::Success => Ok(ExitCode::SUCCESS),
        Ending::Panic => bail!("the kernel panicked (its last words are above)"),
        Ending::Other(status) => bail!("the emulator ended with {status}"),
    }
}

/// What the log says once the console server has the serial port.
const CONSOLE_IS_UP: &[u8] = b" as init process";
/// Ctrl-D: what a terminal sends for the end of its input.
const END_OF_INPUT: u8 = 4;

/// How often it is sent: who reads after that is told again, as at the end of a file.
const END_INTERVAL: Duration = Duration::from_millis(50);

/// Runs an emulator whose terminal gets what this command reads, and then the end of input. Who opens a
/// serial port throws away what came before, so the first byte waits until the console has done that.
fn feed(mut command: Command) -> Result<ExitStatus> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start QEMU")?;
    let mut keyboard = child.stdin.take().expect("piped");
    let mut screen = child.stdout.take().expect("piped");
    let (up, is_up) = std::sync::mpsc::channel();
    let mut up = Some(up);
    // It may still wait for input when all is over.
    std::thread::spawn(move || {
        if is_up.recv().is_ok() {
            // The machine may end before its input does.
            let _ = type_in(&mut keyboard);
        }
    });
    let mut shown = std::io::stdout();
    let mut recent = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let count = screen.read(&mut bytes)?;
        if count == 0 {
            return Ok(child.wait()?);
        }
        shown.write_all(&bytes[..count])?;
        shown.flush()?;
        if up.is_none() {
            continue;
        }
        recent.extend_from_slice(&bytes[..count]);
        let mut parts = recent.windows(CONSOLE_IS_UP.len());
        if parts.any(|part| part == CONSOLE_IS_UP)
            && let Some(up) = up.take()
        {
            let _ = up.send(());
        }
        let old = recent.len().saturating_sub(CONSOLE_IS_UP.len());
        recent.drain(..old);
    }
}

/// Types what this command reads, and then the end of input until the machine has ended. A last line
/// without an end gets one: on such a line, editors take the end of input for another key.
fn type_in(keyboard: &mut impl Write) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    let mut last = b'\n';
    while let Ok(count @ 1..) = std::io::stdin().read(&mut bytes) {
        keyboard.write_all(&bytes[..count])?;
        last = bytes[count - 1];
    }
    if last != b'\n' {
        keyboard.write_all(b"\n")?;
    }
    loop {
        keyboard.write_all(&[END_OF_INPUT])?;
        std::thread::sleep(END_INTERVAL);
    }
}

/// Writes the boot archive of a system and gives its path.
pub fn write_archive(system: &System) -> Result<PathBuf> {
    let path = workspace::output().join("boot.cpio");
    let mut archive = Archive::default();
    add_system(&mut archive, system, "")?;
    let bytes = archive.finish();
    // Another emulator may be starting from the file right now: it is replaced
    // as a whole, and only if it changed.
    if std::fs::read(&path).is_ok_and(|old| old == bytes) {
        return Ok(path);
    }
    let new = path.with_extension(format!("cpio.{}", std::process::id()));
    std::fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
    std::fs::rename(&new, &path)?;
    Ok(path)
}

/// Adds all that a system consists of, except for what already is there under
/// the name `instead_of`.
pub fn add_system(archive: &mut Archive, system: &System, instead_of: &str) -> Result<()> {
    for program in system
        .programs
        .iter()
        .filter(|program| program.name != instead_of)
    {
        archive.add(&program.name, &bare::stripped(&program.path)?);
    }
    archive.add("kernel.symbols", &symbols::of_kernel(&system.kernel)?);
    Ok(())
}

/// The bytes of an archive that lacks the files whose names begin with `start`.
pub fn archive_without(system: &System, start: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for program in system
        .programs
        .iter()
        .filter(|program| !program.name.starts_with(start))
    {
        archive.add(&program.name, &bare::stripped(&program.path)?);
    }
    Ok(archive.finish())
}

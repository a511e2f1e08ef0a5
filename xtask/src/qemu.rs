//! The emulator: what machine it is told to be, and how it ends.
//!
//! All machines have the debug-exit device at port 0xf4, by which the kernel
//! ends the emulator with a status; without it (a real machine) that port does
//! nothing. No machine has a network.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::packages::{self, OVMF, QEMU};

/// What the kernel writes to the debug-exit port when all went well.
const EXIT_SUCCESS: i32 = 0x10;
/// What it writes there after a panic.
const EXIT_PANIC: i32 = 0x11;

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accelerator {
    /// The emulator itself.
    Tcg,
    /// This machine's processor; needs /dev/kvm.
    Kvm,
}

/// The parts of the machine that a command line can choose.
#[derive(Args, Clone, Debug)]
pub struct MachineOptions {
    /// How many processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub smp: u32,
    /// How much memory (MiB, or with a unit: 2G)
    #[arg(long, value_name = "M", default_value = "512M")]
    pub mem: String,
    /// Who executes the guest's instructions
    #[arg(long, value_enum, default_value_t = Accelerator::Tcg)]
    pub accel: Accelerator,
    /// QEMU's machine type
    #[arg(long, value_name = "NAME", default_value = "pc")]
    pub machine: String,
    /// QEMU's processor model
    #[arg(long, value_name = "NAME", default_value = "max")]
    pub cpu: String,
    /// Measure: let virtual time follow the executed instructions, so that two
    /// runs agree to the byte
    #[arg(long)]
    pub icount: bool,
    /// Arguments for QEMU that only some commands need.
    #[arg(skip)]
    pub more: Vec<String>,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            smp: 1,
            mem: "512M".into(),
            accel: Accelerator::Tcg,
            machine: "pc".into(),
            cpu: "max".into(),
            icount: false,
            more: Vec::new(),
        }
    }
}

impl MachineOptions {
    fn cpu_model(&self) -> String {
        // With erms, clearing a page counts as one instruction or as 4,096,
        // depending on how it is written.
        let without = if self.icount { ",-erms" } else { "" };
        format!("{}{without}", self.cpu)
    }
}

/// What the machine starts from.
pub enum Boot {
    /// The kernel file itself, through its PVH entry.
    Kernel {
        /// The kernel's ELF file.
        kernel: PathBuf,
        /// The boot archive.
        archive: PathBuf,
        /// The kernel's command line.
        words: String,
    },
    /// An ISO image, through its boot loader.
    Iso {
        /// The image.
        image: PathBuf,
        /// Under UEFI instead of a BIOS.
        uefi: bool,
    },
}

/// How a run of the emulator ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Powered off, or ended by the kernel with success.
    Success,
    /// The kernel panicked.
    Panic,
    /// Something else: the emulator's own failure, or a signal.
    Other(ExitStatus),
}

impl Ending {
    /// Understands the emulator's exit status.
    pub fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Ending::Success,
            Some(code) if code == (EXIT_SUCCESS << 1 | 1) => Ending::Success,
            Some(code) if code == (EXIT_PANIC << 1 | 1) => Ending::Panic,
            _ => Ending::Other(status),
        }
    }
}

/// An emulator with this machine, not started; serial ports are the caller's.
pub fn command(machine: &MachineOptions, boot: &Boot) -> Result<Command> {
    packages::require(&[QEMU])?;
    let mut command = with_our_life(QEMU.file);
    command
        .args(["-machine", &machine.machine])
        .args(["-cpu", &machine.cpu_model()])
        .args(["-smp", &machine.smp.to_string()])
        .args(["-m", &machine.mem])
        .args([
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-nic",
            "none",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .args(&machine.more);
    match machine.accel {
        Accelerator::Tcg => command.args(["-accel", "tcg"]),
        Accelerator::Kvm if Path::new("/dev/kvm").exists() => command.args(["-accel", "kvm"]),
        Accelerator::Kvm => bail!("--accel kvm: /dev/kvm is not there; use --accel tcg"),
    };
    if machine.icount {
        command
            .args(["-icount", "shift=0,sleep=off", "-seed", "1"])
            .args(["-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
    }
    match boot {
        Boot::Kernel {
            kernel,
            archive,
            words,
        } => {
            command.arg("-kernel").arg(kernel);
            command.arg("-initrd").arg(archive);
            command.arg("-append").arg(words);
        }
        Boot::Iso { image, uefi } => {
            // The framebuffer is part of what is tried.
            command.args(["-vga", "std"]);
            command.arg("-cdrom").arg(image);
            if *uefi {
                packages::require(&[OVMF])?;
                command.args(["-bios", OVMF.file]);
            }
        }
    }
    Ok(command)
}

/// A command that is killed when we are, however that happens; otherwise an
/// emulator whose xtask was killed would run on unseen.
fn with_our_life(program: &str) -> Command {
    match packages::find("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", program]);
            command
        }
        None => Command::new(program),
    }
}

//! Programs that come from the system's distribution, installed when missing.
//!
//! Only Debian's package manager is known; elsewhere the error names what to
//! install. Nothing is installed without saying so first.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// Something that a command needs, and the package that has it.
pub struct Need {
    /// A program's name, or an absolute path.
    pub file: &'static str,
    /// The Debian package.
    pub package: &'static str,
}

/// The emulator.
pub const QEMU: Need = Need {
    file: "qemu-system-x86_64",
    package: "qemu-system-x86",
};

/// Makes ISO images.
pub const XORRISO: Need = Need {
    file: "xorriso",
    package: "xorriso",
};

/// UEFI firmware for the emulator.
pub const OVMF: Need = Need {
    file: "/usr/share/ovmf/OVMF.fd",
    package: "ovmf",
};

/// The debugger.
pub const GDB: Need = Need {
    file: "gdb",
    package: "gdb",
};

/// The GNU linker, which links everything that runs on Mitosis.
pub const BINUTILS: Need = Need {
    file: "ld",
    package: "binutils",
};

/// Sees to it that all of `needs` are there.
pub fn require(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| find(need.file).is_none())
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)?;
    match needs.iter().find(|need| find(need.file).is_none()) {
        Some(need) => bail!(
            "{} is still missing after installing {}",
            need.file,
            need.package
        ),
        None => Ok(()),
    }
}

/// Installs Debian packages, after saying so.
pub fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if find("apt-get").is_none() {
        bail!("please install: {names} (the names of Debian's packages; apt-get is not here)");
    }
    eprintln!("xtask: installing with apt-get: {names}");
    if apt_get(&["install"], packages) {
        return Ok(());
    }
    // The lists of packages may be missing (a fresh container) or out of date.
    if apt_get(&["update"], &[]) && apt_get(&["install"], packages) {
        return Ok(());
    }
    bail!("apt-get could not install {names}: install them by hand and run this again")
}

fn apt_get(action: &[&str], packages: &[&str]) -> bool {
    // Whoever is not root asks sudo, which asks the user where it must.
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    let mut command = if is_root {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("apt-get");
        sudo
    };
    command
        .args(["-qq", "-y", "--no-install-recommends"])
        .args(action)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        // A command's own output must stay clean.
        .stdout(std::io::stderr());
    command.status().is_ok_and(|status| status.success())
}

/// The path of a program, looked up as the shell does it, or of a file.
pub fn find(file: &str) -> Option<PathBuf> {
    if file.starts_with('/') {
        return Path::new(file).exists().then(|| file.into());
    }
    // Where the tools of administrators are is not on every user's path.
    std::env::split_paths(&std::env::var_os("PATH")?)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(file))
        .find(|path| path.is_file())
}

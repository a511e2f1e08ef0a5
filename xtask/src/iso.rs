//! `cargo xtask iso`: one image for CDs and USB sticks, for BIOS and UEFI.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bare::{self, System};
use crate::channel::Folder;
use crate::limine::{Limine, NOT_AVAILABLE};
use crate::packages::{self, XORRISO};
use crate::qemu::{Boot, MachineOptions};
use crate::{run, workspace};

/// The configuration in the tree, and the name under which Limine 8 reads it.
const CONFIGURATION: &str = "limine.cfg";
const INSTALLED_CONFIGURATION: &str = "boot/limine/limine.conf";

/// What `cargo xtask iso` can be told.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    machine: MachineOptions,
    /// Boot the image, with the serial console on this terminal
    #[arg(long)]
    run: bool,
    /// Boot it under UEFI
    #[arg(long, requires = "run")]
    uefi: bool,
}

/// Makes the image, and boots it if asked to.
pub fn iso(options: &Options) -> Result<ExitCode> {
    let Some(limine) = Limine::find()? else {
        bail!(
            "{NOT_AVAILABLE}: set LIMINE_DIR to a copy of its binary release 8.2.0; \
             without it, `cargo xtask run` boots the kernel directly"
        );
    };
    let image = workspace::root().join("target/mitosis.iso");
    make(&bare::build()?, &limine, "", &image)?;
    if !options.run {
        println!("{}", image.display());
        return Ok(ExitCode::SUCCESS);
    }
    let boot = Boot::Iso {
        image,
        uefi: options.uefi,
    };
    run::on_terminal(&options.machine, &boot)
}

/// Makes an image of a system whose kernel gets `words`; without any it gets
/// those of the configuration.
pub fn make(system: &System, limine: &Limine, words: &str, image: &Path) -> Result<()> {
    packages::require(&[XORRISO])?;
    let folder = Folder::make()?;
    let tree = folder.path.join("tree");
    let put = |from: PathBuf, to: &str| -> Result<()> {
        let to = tree.join(to);
        std::fs::create_dir_all(to.parent().expect("a file of the image is in a folder"))?;
        std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    };
    put(system.kernel.clone(), "boot/mitosis")?;
    put(run::write_archive(system)?, "boot/boot.cpio")?;
    for name in [
        "limine-bios.sys",
        "limine-bios-cd.bin",
        "limine-uefi-cd.bin",
    ] {
        put(limine.file(name), &format!("boot/limine/{name}"))?;
    }
    put(limine.file("BOOTX64.EFI"), "EFI/BOOT/BOOTX64.EFI")?;
    let configuration = workspace::root().join(CONFIGURATION);
    let text = std::fs::read_to_string(&configuration)
        .with_context(|| format!("cannot read {}", configuration.display()))?;
    std::fs::write(tree.join(INSTALLED_CONFIGURATION), with_words(&text, words))?;

    let mut xorriso = Command::new(XORRISO.file);
    xorriso
        .args([
            "-report_about",
            "WARNING",
            "-as",
            "mkisofs",
            "-quiet",
            "-r",
            "-J",
        ])
        .args(["-b", "boot/limine/limine-bios-cd.bin"])
        .args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
        .args(["--efi-boot", "boot/limine/limine-uefi-cd.bin"])
        .args([
            "-efi-boot-part",
            "--efi-boot-image",
            "--protective-msdos-label",
        ])
        .arg("-o")
        .arg(image)
        .arg(&tree);
    // It greets even when it is told to be quiet.
    let output = xorriso.output().context("cannot start xorriso")?;
    if !output.status.success() {
        bail!(
            "xorriso: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    limine.install_for_bios(image)
}

/// The configuration with other words for the kernel.
fn with_words(configuration: &str, words: &str) -> String {
    if words.is_empty() {
        return configuration.to_owned();
    }
    let mut text = String::new();
    for line in configuration.lines() {
        match line.split_once("cmdline:") {
            Some((indent, _)) if indent.trim().is_empty() => {
                text += &format!("{indent}cmdline: {words}\n");
            }
            _ => text += &format!("{line}\n"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_replace_those_of_the_configuration() {
        let path = workspace::root().join(CONFIGURATION);
        let configuration = std::fs::read_to_string(path).unwrap();
        assert_eq!(with_words(&configuration, ""), configuration);
        let changed = with_words(&configuration, "test=panic");
        assert!(changed.contains("\n    cmdline: test=panic\n"));
        assert_eq!(changed.matches("cmdline:").count(), 1);
    }
}

//! The boot loader: Limine, a certain binary release of it.
//!
//! It comes from `$LIMINE_DIR`, else from the cache, else from its repository.
//! Wherever it comes from, its files must have the sums below; they are what
//! was tried. It is never part of this repository.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{packages, workspace};

const RELEASE: &str = "v8.2.0-binary";
const REPOSITORY: &str = "https://github.com/limine-bootloader/limine.git";

/// The files that an image is made of, and their SHA-256 sums.
const FILES: [(&str, &str); 4] = [
    (
        "BOOTX64.EFI",
        "7bf99f9ffdbce1443bd7f148f01bee47d4a587f58fb170e42dab29790e6d831a",
    ),
    (
        "limine-bios.sys",
        "8382e36ff9d51e52e9160842f834a346028edf9e0319b1c728d290e3044a44a7",
    ),
    (
        "limine-bios-cd.bin",
        "3b889bf946b1f248c93efa90fd1718aad79f867e8184f9167a0b9875a0c41191",
    ),
    (
        "limine-uefi-cd.bin",
        "1801a9034420fb1b17bdcdedee11f29c946169abac103b161e7bfd01d98caf29",
    ),
];

/// The source of the tool that makes an image bootable from a disk under a BIOS.
const INSTALLER: [(&str, &str); 2] = [
    (
        "limine.c",
        "201ac3e7f47b34305f2208066ebb204118a7debf90d6fd7d28f4799905ca7f70",
    ),
    (
        "limine-bios-hdd.h",
        "95929ac04f603483f72781508f35f07854e1933188bc7558d89c0e7710c5749b",
    ),
];

/// Why there is no Limine; everything else is an error.
pub const NOT_AVAILABLE: &str = "Limine not available";

/// A folder with the checked files.
#[derive(Clone)]
pub struct Limine {
    folder: PathBuf,
}

impl Limine {
    /// Finds the boot loader; `None` when there is none to be had.
    ///
    /// # Errors
    /// There is one, but it is not the one that was tried.
    pub fn find() -> Result<Option<Self>> {
        if let Some(folder) = std::env::var_os("LIMINE_DIR") {
            let folder = PathBuf::from(folder);
            check(&folder, &FILES)
                .context("LIMINE_DIR is not a copy of Limine's release v8.2.0-binary")?;
            return Ok(Some(Self { folder }));
        }
        let cache = cache();
        if !cache.is_dir() && !clone(&cache) {
            return Ok(None);
        }
        check(&cache, &FILES)
            .with_context(|| format!("remove {} and try again", cache.display()))?;
        Ok(Some(Self { folder: cache }))
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes an image bootable from a disk (a USB stick) under a BIOS too. Says so
    /// and leaves the image as it is where the tool for it cannot be built.
    pub fn install_for_bios(&self, image: &Path) -> Result<()> {
        if check(&self.folder, &INSTALLER).is_err() || packages::find("cc").is_none() {
            eprintln!(
                "xtask: no C compiler or no limine.c: the image boots from a CD, and from a disk \
                 under UEFI only"
            );
            return Ok(());
        }
        let tool = workspace::output().join("limine");
        if !tool.exists() {
            let mut compile = Command::new("cc");
            compile
                .arg("-O")
                .arg("-o")
                .arg(&tool)
                .arg(self.file("limine.c"));
            crate::toolchain::succeed(&mut compile, "compiling limine.c")?;
        }
        let output = Command::new(&tool)
            .arg("bios-install")
            .arg(image)
            .output()?;
        if !output.status.success() {
            bail!(
                "limine bios-install: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }
}

/// Where a fetched copy is kept, for all checkouts of this repository.
fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(workspace::output);
    base.join("mitosis").join(RELEASE)
}

/// Fetches the release; false when it cannot be reached.
fn clone(target: &Path) -> bool {
    if packages::find("git").is_none() {
        return false;
    }
    eprintln!("xtask: fetching Limine {RELEASE}");
    let part = target.with_extension("part");
    // A copy that was cut off is not a copy.
    let _ = std::fs::remove_dir_all(&part);
    let mut command = match packages::find("timeout") {
        Some(timeout) => {
            let mut command = Command::new(timeout);
            command.args(["120", "git"]);
            command
        }
        None => Command::new("git"),
    };
    let fetched = command
        .args([
            "clone", "--quiet", "--depth", "1", "--branch", RELEASE, REPOSITORY,
        ])
        .arg(&part)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    fetched && std::fs::rename(&part, target).is_ok()
}

fn check(folder: &Path, files: &[(&str, &str)]) -> Result<()> {
    for (name, expected) in files {
        let path = folder.join(name);
        let bytes =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut sum = String::new();
        for byte in Sha256::digest(&bytes) {
            write!(sum, "{byte:02x}")?;
        }
        if sum != *expected {
            bail!(
                "{} has the SHA-256 sum {sum}, not {expected}",
                path.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Folder;

    #[test]
    fn a_changed_boot_loader_is_refused() {
        let folder = Folder::make().unwrap();
        std::fs::write(folder.path.join("file"), "abc").unwrap();
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(&folder.path, &[("file", sum)]).unwrap();
        std::fs::write(folder.path.join("file"), "abd").unwrap();
        assert!(check(&folder.path, &[("file", sum)]).is_err());
        assert!(check(&folder.path, &[("missing", sum)]).is_err());
    }
}

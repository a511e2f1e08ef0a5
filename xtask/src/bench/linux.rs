//! The other side of the comparison: Debian's stock kernel, with procbench as its first process.
//!
//! The kernel is downloaded as a package and unpacked below `target`, never installed. It runs with
//! everything switched off that a kernel of this purpose would not have, in its favour. Since the figures
//! do not change from boot to boot, they are kept, under the versions of the kernel and of procbench.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::counter;
use super::machine::{self, Measure};
use super::output::Run;
use crate::archive::Archive;
use crate::packages::{self, Need};
use crate::qemu::{self, Boot};
use crate::workspace;

/// Makes static programs for Linux.
const MUSL: Need = Need {
    file: "musl-gcc",
    package: "musl-tools",
};
const META_PACKAGE: &str = "linux-image-amd64";
const SOURCE: &str = "bench/procbench.c";

/// Everything in Linux's favour that a boot parameter can switch.
const PARAMETERS: &str = "console=ttyS0 quiet mitigations=off init_on_alloc=0 apparmor=0 security=none \
     audit=0 cgroup_disable=memory randomize_kstack_offset=off";

/// Linux's figures, and which Linux it was.
pub struct Linux {
    /// The package's file name without its ending, for example `linux-image-6.1.0-56-amd64_6.1.192-2_amd64`.
    pub version: String,
    /// The results.
    pub run: Run,
}

/// Measures Linux, or says what was measured before.
pub fn measure(measure: Measure) -> Result<Linux> {
    let folder = workspace::root().join("target/bench/linux");
    std::fs::create_dir_all(&folder)?;
    let package = package(&folder)?;
    let version = package
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let source = std::fs::read(workspace::root().join(SOURCE))
        .with_context(|| format!("cannot read {SOURCE}"))?;
    let mut hasher = DefaultHasher::new();
    (&version, &source, PARAMETERS, machine::description(measure)).hash(&mut hasher);
    let results = folder.join(format!("results-{:016x}", hasher.finish()));
    if !results.join("complete").exists() {
        boot(measure, &kernel(&folder, &package)?, &folder, &results)?;
    }
    let sections = match measure {
        Measure::Instructions => counter::read(&results.join("counts"))?,
        Measure::WallTime => Vec::new(),
    };
    let mut run = Run::new(&machine::read_text(&results.join("output"))?, &sections);
    if measure == Measure::WallTime {
        run = run.in_nanoseconds();
    }
    Ok(Linux { version, run })
}

fn boot(measure: Measure, kernel: &Path, folder: &Path, results: &Path) -> Result<()> {
    eprintln!("xtask: measuring Linux; this takes some minutes, once");
    std::fs::create_dir_all(results)?;
    let mut archive = Archive::default();
    archive.add("init", &std::fs::read(program(folder)?)?);
    let initramfs = folder.join("initramfs.cpio");
    std::fs::write(&initramfs, archive.finish())?;
    let boot = Boot::Kernel {
        kernel: kernel.to_owned(),
        archive: initramfs,
        words: PARAMETERS.into(),
    };
    let (output, counts) = (results.join("output"), results.join("counts"));
    let mut command = qemu::command(&machine::options(measure), &boot)?;
    command
        .arg("-serial")
        .arg(format!("file:{}", output.display()));
    if measure == Measure::Instructions {
        let plugin = counter::build()?;
        command
            .arg("-plugin")
            .arg(counter::argument(&plugin, &counts, false));
    }
    machine::run_limited(&mut command, Duration::from_secs(1800)).context("Linux")?;
    if !Run::new(&machine::read_text(&output)?, &[]).complete {
        bail!("procbench did not end on Linux: see {}", output.display());
    }
    std::fs::write(results.join("complete"), "")?;
    Ok(())
}

/// procbench as a static program.
fn program(folder: &Path) -> Result<PathBuf> {
    packages::require(&[MUSL])?;
    let program = folder.join("procbench");
    let status = Command::new(MUSL.file)
        .args(["-static", "-O2", "-s", "-o"])
        .arg(&program)
        .arg(workspace::root().join(SOURCE))
        .status()?;
    if !status.success() {
        bail!("cannot compile {SOURCE}");
    }
    Ok(program)
}

/// The kernel's package, downloaded if it is not there.
fn package(folder: &Path) -> Result<PathBuf> {
    if let Some(package) = find(folder, ".deb") {
        return Ok(package);
    }
    let name = dependency()?;
    eprintln!("xtask: downloading Debian's {name} to measure Linux; it is not installed");
    let status = Command::new("apt-get")
        .args(["-q", "download", &name])
        .current_dir(folder)
        .stdout(std::io::stderr())
        .status()
        .context("cannot run apt-get")?;
    if !status.success() {
        bail!("apt-get cannot download {name}");
    }
    find(folder, ".deb").with_context(|| format!("apt-get downloaded no {name}"))
}

/// The package of the newest stock kernel.
fn dependency() -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["depends", META_PACKAGE])
        .output()
        .context("Linux's kernel comes from Debian, and apt-cache is not here")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| Some(line.trim().strip_prefix("Depends: ")?.to_owned()))
        .with_context(|| format!("apt-cache knows no {META_PACKAGE}; try apt-get update"))
}

/// The kernel's image, unpacked from its package.
fn kernel(folder: &Path, package: &Path) -> Result<PathBuf> {
    let image = folder.join(format!(
        "{}.vmlinuz",
        package.file_stem().unwrap_or_default().to_string_lossy()
    ));
    if image.exists() {
        return Ok(image);
    }
    let unpacked = folder.join("unpacked");
    let status = Command::new("dpkg-deb")
        .arg("-x")
        .args([package, &unpacked])
        .status()
        .context("cannot run dpkg-deb")?;
    if !status.success() {
        bail!("cannot unpack {}", package.display());
    }
    let boot = unpacked.join("boot");
    let kernel = std::fs::read_dir(&boot)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("vmlinuz")
        })
        .with_context(|| format!("no kernel in {}", boot.display()))?;
    std::fs::copy(kernel, &image)?;
    std::fs::remove_dir_all(unpacked)?;
    Ok(image)
}

fn find(folder: &Path, ending: &str) -> Option<PathBuf> {
    std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().ends_with(ending))
}

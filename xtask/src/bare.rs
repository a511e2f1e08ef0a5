//! Builds everything that runs on the bare machine: the kernel, and the native
//! programs (init, servers, loader, programs, guest tests).
//!
//! Two builds with a target folder each, because the kernel and the programs
//! are compiled with different flags. Which programs there are is asked of
//! cargo, never listed here.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::packages::{self, BINUTILS};
use crate::toolchain::{TARGET, Toolchain, succeed};
use crate::workspace;

/// Flags of both builds. The linker is named so that all toolchains use the
/// same one; frame pointers are for backtraces.
const COMMON_FLAGS: &str = "-C linker=ld -C linker-flavor=ld -C force-frame-pointers=yes \
     -C link-arg=-no-pie -C link-arg=--gc-sections -C link-arg=-zmax-page-size=0x1000 \
     -C link-arg=--no-dynamic-linker -C link-arg=--build-id=none";

/// The kernel lives in the topmost 2 GiB.
const KERNEL_FLAGS: &str = "-C relocation-model=static -C code-model=kernel";
/// The kernel's binary.
const KERNEL: &str = "mitosis";
const KERNEL_SCRIPT: &str = "microkernel/kernel.ld";

/// Native code runs anywhere: it may share a space with others' low addresses. The code model stays
/// the target's own, which the precompiled core and alloc have: link-time optimisation refuses to mix.
const NATIVE_FLAGS: &str = "-C relocation-model=pic";
const NATIVE_SCRIPT: &str = "runtime/native.ld";

/// The package with the programs that `bin/` of the boot archive shows.
const PROGRAMS: &str = "programs";
/// The package with the guest test programs.
const TESTS: &str = "tests";

/// An ELF file that was built.
pub struct Built {
    /// Its name in the boot archive, for example `bin/sh`.
    pub name: String,
    /// Where it is, with debug information.
    pub path: PathBuf,
}

/// What one build made.
pub struct System {
    /// The kernel.
    pub kernel: PathBuf,
    /// The programs, in the order of the archive.
    pub programs: Vec<Built>,
}

/// A binary of a package of the workspace.
struct Binary {
    package: String,
    name: String,
}

/// How much a debugger will know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debug {
    /// Which line an instruction belongs to, as the workspace's profile says.
    Lines,
    /// Types and variables too.
    Full,
}

/// Builds all of it; takes about a second when nothing changed. Says nothing but
/// errors, because the caller's standard error may belong to a program.
pub fn build() -> Result<System> {
    build_with(Debug::Lines)
}

/// Builds all of it, the kernel with this much debug information. Each kind of
/// kernel has its own folder, so that changing between them builds nothing anew.
pub fn build_with(debug: Debug) -> Result<System> {
    packages::require(&[BINUTILS])?;
    let toolchain = Toolchain::find()?;
    let binaries = native_binaries()?;
    let mut kernel = kernel_build(&toolchain, debug)?;
    let mut programs = program_build(&toolchain, &binaries)?;
    kernel.run()?;
    programs.run()?;
    let release = programs.release();
    let built = binaries.into_iter().map(|binary| Built {
        name: archive_name(&binary.package, &binary.name),
        path: release.join(&binary.name),
    });
    Ok(System {
        kernel: kernel.release().join(KERNEL),
        programs: built.collect(),
    })
}

/// The compiler's warnings of that build, which cargo repeats even when nothing
/// changed.
pub fn warnings() -> Result<String> {
    let toolchain = Toolchain::find()?;
    let mut warnings = String::new();
    for mut build in [
        kernel_build(&toolchain, Debug::Lines)?,
        program_build(&toolchain, &native_binaries()?)?,
    ] {
        warnings += &build.run()?;
    }
    Ok(warnings)
}

/// A call of cargo that is about to be made.
struct Build {
    command: Command,
    folder: PathBuf,
    what: &'static str,
}

impl Build {
    fn new(toolchain: &Toolchain, name: &str, debug: Debug, what: &'static str) -> Self {
        let mut command = toolchain.cargo_build();
        let mut folder = workspace::output().join(name);
        if debug == Debug::Full {
            folder.as_mut_os_string().push("-debug");
            command.env("CARGO_PROFILE_RELEASE_DEBUG", "full");
        }
        command.env("CARGO_TARGET_DIR", &folder).arg("--quiet");
        Self {
            command,
            folder,
            what,
        }
    }

    /// Sets the flags for the compiler and the linker script.
    fn flags(&mut self, flags: &str, script: &str, binaries: &[&str]) -> Result<()> {
        let script = workspace::root().join(script);
        forget_outputs_older_than(&script, &self.release(), binaries)?;
        // A space could be part of the path; cargo's own separator cannot.
        let flags: Vec<String> = format!("{COMMON_FLAGS} {flags}")
            .split_whitespace()
            .map(str::to_owned)
            .chain(["-C".to_owned(), format!("link-arg=-T{}", script.display())])
            .collect();
        self.command
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        Ok(())
    }

    /// Builds, and gives the compiler's warnings.
    fn run(&mut self) -> Result<String> {
        if !self.folder.exists() {
            eprintln!(
                "xtask: {} for the first time, which takes a minute",
                self.what
            );
        }
        let output = self.command.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("{}: cannot start cargo", self.what))?;
        if !output.status.success() {
            std::io::stderr().write_all(&output.stderr)?;
            bail!("{} failed ({})", self.what, output.status);
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Where the finished files are.
    fn release(&self) -> PathBuf {
        self.folder.join(TARGET).join("release")
    }
}

fn kernel_build(toolchain: &Toolchain, debug: Debug) -> Result<Build> {
    let mut build = Build::new(toolchain, "kernel", debug, "building the kernel");
    build.flags(KERNEL_FLAGS, KERNEL_SCRIPT, &[KERNEL])?;
    build
        .command
        .args(["--package", "microkernel", "--bin", KERNEL]);
    Ok(build)
}

fn program_build(toolchain: &Toolchain, binaries: &[Binary]) -> Result<Build> {
    let mut build = Build::new(toolchain, "native", Debug::Lines, "building the programs");
    let names: Vec<&str> = binaries.iter().map(|binary| &*binary.name).collect();
    build.flags(NATIVE_FLAGS, NATIVE_SCRIPT, &names)?;
    build.command.arg("--bins");
    let mut packages: Vec<&str> = binaries.iter().map(|binary| &*binary.package).collect();
    packages.dedup();
    for package in packages {
        build.command.args(["--package", package]);
    }
    Ok(build)
}

/// All binaries of the workspace that are native programs: those of init, the
/// servers, the programs and the tests.
fn native_binaries() -> Result<Vec<Binary>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(workspace::root())
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let mut binaries = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let is_native = name == "init" || name == PROGRAMS || name == TESTS || is_server(name);
        for target in package["targets"].as_array().into_iter().flatten() {
            let is_binary = target["kind"]
                .as_array()
                .is_some_and(|kinds| kinds.contains(&"bin".into()));
            if is_native && is_binary {
                binaries.push(Binary {
                    package: name.to_owned(),
                    name: target["name"].as_str().unwrap_or_default().to_owned(),
                });
            }
        }
    }
    binaries.sort_by_key(|binary| {
        (
            order(&binary.package),
            binary.package.clone(),
            binary.name.clone(),
        )
    });
    Ok(binaries)
}

/// Where a binary is found in the boot archive.
fn archive_name(package: &str, binary: &str) -> String {
    match package {
        TESTS => format!("tests/{binary}"),
        PROGRAMS if binary == "loader" => binary.to_owned(),
        PROGRAMS => format!("bin/{binary}"),
        _ => match package.strip_suffix("-server") {
            Some(server) => format!("servers/{server}"),
            None => binary.to_owned(),
        },
    }
}

fn is_server(package: &str) -> bool {
    package.ends_with("-server")
}

/// What boots first stands first.
fn order(package: &str) -> u8 {
    match package {
        "init" => 0,
        PROGRAMS => 2,
        TESTS => 3,
        _ => 1,
    }
}

/// Cargo knows nothing of linker scripts: after a change of one, what was linked
/// with it is removed, so that cargo links again.
fn forget_outputs_older_than(script: &Path, release: &Path, names: &[&str]) -> Result<()> {
    let changed = modified(script).with_context(|| format!("{} is missing", script.display()))?;
    let Ok(entries) = std::fs::read_dir(release.join("deps")) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Linked files are called `name-hash`, with underscores in the name.
        let is_output = path.extension().is_none()
            && name.rsplit_once('-').is_some_and(|(stem, _)| {
                names
                    .iter()
                    .any(|name| name.replace('-', "_") == stem.replace('-', "_"))
            });
        if is_output && modified(&path).is_some_and(|built| built < changed) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The bytes of an ELF file without its debug information, which only the host
/// has a use for.
pub fn stripped(path: &Path) -> Result<Vec<u8>> {
    let mut copy = path.as_os_str().to_owned();
    copy.push(".stripped");
    let copy = PathBuf::from(copy);
    if modified(&copy) <= modified(path) {
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&copy).arg(path);
        succeed(&mut strip, "strip")?;
    }
    std::fs::read(&copy).with_context(|| format!("cannot read {}", copy.display()))
}

/// When a file was last written, if it is there.
fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|data| data.modified())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_has_its_place_in_the_archive() {
        assert_eq!(archive_name("init", "init"), "init");
        assert_eq!(
            archive_name("process-server", "process-server"),
            "servers/process"
        );
        assert_eq!(archive_name("programs", "sh"), "bin/sh");
        assert_eq!(archive_name("programs", "loader"), "loader");
        assert_eq!(archive_name("tests", "traps"), "tests/traps");
    }

    #[test]
    fn cargo_names_init_and_the_four_servers() {
        let binaries = native_binaries().unwrap();
        let names: Vec<String> = binaries
            .iter()
            .map(|binary| archive_name(&binary.package, &binary.name))
            .collect();
        for name in [
            "init",
            "servers/memory",
            "servers/process",
            "servers/files",
            "servers/console",
        ] {
            assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
        }
        assert!(
            !names
                .iter()
                .any(|name| name.contains("xtask") || name.contains("mitosis"))
        );
    }
}

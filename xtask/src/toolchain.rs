//! Which Rust compiles for the bare machine.
//!
//! Three ways, tried in this order: the rustup target, if it is there; else
//! rustup may fetch it; else Debian's own compiler builds the core library from
//! Debian's copy of its source. All three use the same linker and the same flags
//! (see `bare.rs`), so the programs differ by nothing but the compiler version.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{packages, workspace};

/// The target of the kernel and of native programs.
pub const TARGET: &str = "x86_64-unknown-none";

/// How long `rustup target add` may take. A machine that cannot reach rustup's
/// server usually learns it at once, sometimes never.
const RUSTUP_PATIENCE: Duration = Duration::from_secs(60);

/// Debian's matching compiler, cargo and library source.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/core/Cargo.toml";

/// A compiler that can build for [`TARGET`].
pub enum Toolchain {
    /// The caller's own, with the target's libraries installed.
    Installed,
    /// Debian's, with the libraries built from source.
    Debian,
}

impl Toolchain {
    /// Finds one, installing it where needed.
    pub fn find() -> Result<Self> {
        if has_target() {
            return Ok(Toolchain::Installed);
        }
        // Once rustup failed here, each further command would wait for it again.
        let remembered = workspace::output().join("toolchain");
        let debian = std::fs::read_to_string(&remembered).is_ok_and(|text| text == "debian");
        if debian && debian_missing().is_none() {
            return Ok(Toolchain::Debian);
        }
        if add_target() && has_target() {
            return Ok(Toolchain::Installed);
        }
        if let Some(missing) = debian_missing() {
            if packages::find("apt-get").is_none() {
                bail!(
                    "no Rust for {TARGET}: run `rustup target add {TARGET}` (it failed here), \
                     or use a Debian system with the packages {}",
                    DEBIAN_PACKAGES.join(", ")
                );
            }
            eprintln!(
                "xtask: no Rust for {TARGET} from rustup ({missing} not there either): \
                 using Debian's compiler"
            );
            packages::install(&DEBIAN_PACKAGES)?;
        }
        if let Some(missing) = debian_missing() {
            bail!(
                "{missing} is missing although {} are installed",
                DEBIAN_PACKAGES.join(", ")
            );
        }
        std::fs::create_dir_all(workspace::output())?;
        std::fs::write(&remembered, "debian")?;
        eprintln!("xtask: building for {TARGET} with {DEBIAN_RUSTC} and its library source");
        Ok(Toolchain::Debian)
    }

    /// `cargo build` for the target, as far as it depends on the toolchain.
    pub fn cargo_build(&self) -> Command {
        let mut command = match self {
            Toolchain::Installed => clean(Command::new(
                std::env::var_os("CARGO").unwrap_or("cargo".into()),
            )),
            Toolchain::Debian => {
                let mut command = clean(Command::new(DEBIAN_CARGO));
                // The library source is built with what it was released for, and
                // that is what the variable permits; our own code needs nothing of it.
                command
                    .env("RUSTC", DEBIAN_RUSTC)
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env_remove("RUSTUP_TOOLCHAIN")
                    .env_remove("LD_LIBRARY_PATH");
                command
            }
        };
        command.args(["build", "--release", "--target", TARGET]);
        if let Toolchain::Debian = self {
            command.args([
                "-Zbuild-std=core,alloc,compiler_builtins",
                "-Zbuild-std-features=compiler-builtins-mem",
            ]);
        }
        command
    }

    /// The compiler's version, one line.
    pub fn version(&self) -> Result<String> {
        let rustc: &OsStr = match self {
            Toolchain::Installed => OsStr::new("rustc"),
            Toolchain::Debian => OsStr::new(DEBIAN_RUSTC),
        };
        let output = Command::new(rustc).arg("--version").output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// Removes what the calling cargo and its user set for *their* build.
///
/// The inner build has its own flags and its own compiler; only how to reach
/// the crates (home, network, registries) is passed on.
fn clean(mut command: Command) -> Command {
    const KEPT: [&str; 5] = [
        "CARGO_HOME",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
    ];
    for (name, _) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let builds =
            text.starts_with("CARGO") || (text.starts_with("RUST") && !text.starts_with("RUSTUP_"));
        if builds && !KEPT.iter().any(|kept| text.starts_with(kept)) {
            command.env_remove(&name);
        }
    }
    command.current_dir(workspace::root());
    command
}

fn has_target() -> bool {
    let Ok(output) = clean(Command::new("rustc"))
        .args(["--print", "sysroot"])
        .output()
    else {
        return false;
    };
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    sysroot
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib")
        .is_dir()
}

/// Asks rustup for the target; false when there is no rustup or it fails.
fn add_target() -> bool {
    if packages::find("rustup").is_none() {
        return false;
    }
    eprintln!("xtask: rustup target add {TARGET}");
    let child = clean(Command::new("rustup"))
        .args(["target", "add", TARGET])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let end = Instant::now() + RUSTUP_PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return true,
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(50)),
            _ => break,
        }
    }
    // It may have ended meanwhile, which is as good.
    let _ = child.kill();
    let _ = child.wait();
    eprintln!("xtask: rustup could not fetch {TARGET}");
    false
}

fn debian_missing() -> Option<&'static str> {
    [DEBIAN_RUSTC, DEBIAN_CARGO, DEBIAN_SOURCE]
        .into_iter()
        .find(|path| !Path::new(path).exists())
}

/// Runs a command that must succeed; its output goes to standard error.
pub fn succeed(command: &mut Command, what: &str) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("{what}: cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{what} failed ({status})");
    }
    Ok(())
}

//! `cargo xtask tidy`: is everything formatted, free of warnings, and does every
//! path and link in the documentation lead somewhere?

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::{bare, docs, references, toolchain, workspace};

/// One thing that is looked at.
type Check = (&'static str, fn() -> Result<()>);

const CHECKS: [Check; 6] = [
    ("formatting", formatting),
    ("documented paths", documented_paths),
    ("generated pages", generated_pages),
    ("clippy", clippy),
    ("documentation links", documentation_links),
    ("warnings of the bare build", bare_warnings),
];

/// Makes all checks and says how each went.
pub fn tidy() -> Result<ExitCode> {
    let mut untidy = 0;
    for (name, check) in CHECKS {
        match check() {
            Ok(()) => println!("ok {name}"),
            Err(error) => {
                println!("FAIL {name}: {error:#}");
                untidy += 1;
            }
        }
    }
    if untidy > 0 {
        bail!("{untidy} of {} checks failed", CHECKS.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(arguments).current_dir(workspace::root());
    command
}

fn formatting() -> Result<()> {
    toolchain::succeed(
        &mut cargo(&["fmt", "--all", "--check"]),
        "run `cargo fmt --all`: cargo fmt",
    )
}

fn clippy() -> Result<()> {
    let mut command = cargo(&["clippy", "--quiet", "--workspace", "--all-targets"]);
    command.args(["--", "-D", "warnings"]);
    toolchain::succeed(&mut command, "cargo clippy")
}

fn documentation_links() -> Result<()> {
    let mut command = cargo(&[
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    command.env(
        "RUSTDOCFLAGS",
        "-D warnings -A rustdoc::private_intra_doc_links",
    );
    toolchain::succeed(&mut command, "cargo doc")
}

/// Clippy sees only what the host compiles; the compiler's own warnings cover the rest.
fn bare_warnings() -> Result<()> {
    let warnings = bare::warnings()?;
    match warnings
        .lines()
        .filter(|line| line.starts_with("warning: "))
        .count()
    {
        0 => Ok(()),
        count => {
            eprint!("{warnings}");
            bail!("{count} warnings")
        }
    }
}

fn generated_pages() -> Result<()> {
    for page in docs::pages() {
        let is = std::fs::read_to_string(workspace::root().join(page.path)).unwrap_or_default();
        if is != page.text {
            bail!("{} is out of date: run `cargo xtask docs`", page.path);
        }
    }
    Ok(())
}

/// Looks up every path that a document or a comment names.
fn documented_paths() -> Result<()> {
    let mut broken = Vec::new();
    for file in tracked_files()? {
        let is_document = file.extension().is_some_and(|kind| kind == "md");
        let is_source = file
            .extension()
            .is_some_and(|kind| kind == "rs" || kind == "ld");
        if !is_document && !is_source {
            continue;
        }
        // A file that was removed and not committed yet names nothing.
        let Ok(text) = std::fs::read_to_string(workspace::root().join(&file)) else {
            continue;
        };
        for (line, reference) in references::in_file(&text, is_document) {
            if !references::leads_somewhere(workspace::root(), &file, &reference) {
                broken.push(format!("{}:{line}: {}", file.display(), reference.text()));
            }
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    for line in &broken {
        eprintln!("{line}");
    }
    bail!(
        "{} paths lead nowhere, the first is {}",
        broken.len(),
        broken[0]
    )
}

/// The files of the repository, as git knows them.
fn tracked_files() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(workspace::root())
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!(
            "git ls-files: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(|name| Path::new(name).to_owned())
        .collect())
}

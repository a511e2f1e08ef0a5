//! `cargo xtask gdb`: the kernel under the debugger, stopped at its first
//! instruction.
//!
//! The kernel is built with full debug information in a folder of its own, so
//! that the debugger knows types and variables and the usual build is not
//! disturbed; of programs it knows the lines. `xtask/gdb/mitosis.gdb` has commands of our own.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use clap::Args;

use crate::bare::{self, Debug};
use crate::channel::Folder;
use crate::packages::{self, GDB};
use crate::qemu::{self, Boot, MachineOptions};
use crate::{exec, run, workspace};

/// What `cargo xtask gdb` can be told.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    machine: MachineOptions,
    /// Load the symbols of this program too
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// Words for the kernel's command line
    #[arg(last = true, value_name = "WORDS")]
    words: Vec<String>,
}

/// Starts the emulator and the debugger, and ends both with the debugger.
pub fn gdb(options: &Options) -> Result<ExitCode> {
    packages::require(&[GDB])?;
    let system = bare::build_with(Debug::Full)?;
    let folder = Folder::make()?;
    let socket = folder.path.join("gdb");
    let log = workspace::output().join("gdb.log");
    let program = match &options.program {
        Some(name) => {
            let known = exec::find_program(&system, name);
            let built = system
                .programs
                .iter()
                .find(|built| known.as_deref() == Some(&built.name) || built.name == *name)
                .with_context(|| format!("no program is called {name:?}"))?;
            Some(built.path.clone())
        }
        None => None,
    };
    let boot = Boot::Kernel {
        archive: run::write_archive(&system)?,
        kernel: system.kernel.clone(),
        words: options.words.join(" "),
    };
    let mut emulator = qemu::command(&options.machine, &boot)?
        .arg("-S")
        .arg("-gdb")
        .arg(format!("unix:{},server=on,wait=off", socket.display()))
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .stdin(Stdio::null())
        // Ctrl-C is for the debugger.
        .process_group(0)
        .spawn()
        .context("cannot start QEMU")?;
    while !socket.exists() && emulator.try_wait()?.is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    eprintln!("xtask: the kernel's log is {}", log.display());
    let mut debugger = Command::new(GDB.file);
    debugger.arg("--quiet").arg(&system.kernel);
    if let Some(path) = &program {
        debugger
            .arg("-ex")
            .arg(format!("add-symbol-file {}", path.display()));
    }
    let status = debugger
        .arg("-ex")
        .arg(format!("target remote {}", socket.display()))
        .arg("-x")
        .arg(workspace::root().join("xtask/gdb/mitosis.gdb"))
        .current_dir(workspace::root())
        .status();
    // The debugger may have ended it already.
    let _ = emulator.kill();
    let _ = emulator.wait();
    let ended = status.context("cannot start gdb")?.success();
    Ok(if ended {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

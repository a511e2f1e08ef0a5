//! The machine on which instructions are counted: the same for both systems.
//!
//! Under `-icount shift=0` every clock of the guest advances by one nanosecond for each instruction, so
//! the guest reads its own instruction count. A fixed seed and date make two boots agree to the
//! instruction.

use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::qemu::MachineOptions;

/// What is counted: instructions, or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Guest instructions.
    Instructions,
    /// Time of the host; comparable only within one run.
    WallTime,
}

/// The machine. Both kinds of run leave out ERMS (counted instructions do so by themselves): `rep stosb`
/// counts an instruction for each byte, which would flatter whoever does not use it.
pub fn options(measure: Measure) -> MachineOptions {
    let counted = measure == Measure::Instructions;
    MachineOptions {
        cpu: if counted { "max" } else { "max,-erms" }.into(),
        mem: "2G".into(),
        icount: counted,
        ..MachineOptions::default()
    }
}

/// The flags as they are written down beside figures.
pub fn description(measure: Measure) -> &'static str {
    match measure {
        Measure::Instructions => {
            "-machine pc -accel tcg -cpu max,-erms -smp 1 -m 2G -icount shift=0,sleep=off -seed 1 \
             -rtc base=2026-01-01T00:00:00,clock=vm"
        }
        Measure::WallTime => "-machine pc -accel tcg -cpu max,-erms -smp 1 -m 2G",
    }
}

/// Runs a command to its end, or ends it after `limit`.
pub fn run_limited(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let mut child = command.spawn().context("cannot start QEMU")?;
    let status = wait_limited(&mut child, limit);
    if status.is_err() {
        // It may have ended by itself in between.
        let _ = child.kill();
        let _ = child.wait();
    }
    status
}

fn wait_limited(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begin.elapsed() > limit {
            bail!("no end after {} seconds", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Reads a text that a guest wrote; bytes that are no text are replaced.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

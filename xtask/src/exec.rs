//! `cargo xtask exec`: one program, with the streams and the status of this
//! command.
//!
//! Exit status: the program's own; 124 when time was up; 125 when the machine
//! failed (a kernel panic, no status); 126 for a file that is not a native
//! program, 127 for a name that nobody knows.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use libipc::command_line;

use crate::archive::Archive;
use crate::bare::{self, System};
use crate::channel::{self, Finished, Folder, Job, Outcome, Streams};
use crate::identify;
use crate::qemu::{Boot, MachineOptions};
use crate::{run, workspace};

const TIMED_OUT: u8 = 124;
const MACHINE_FAILED: u8 = 125;
const NOT_A_PROGRAM: u8 = 126;
const NOT_FOUND: u8 = 127;
/// What a program has that writes into a closed pipe (128 + SIGPIPE).
const OUTPUT_CLOSED: u8 = 141;

/// How many lines of the log tell where a program hangs.
const LOG_LINES: usize = 20;

/// What `cargo xtask exec` can be told.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    machine: MachineOptions,
    /// End the machine after so many seconds, with status 124
    #[arg(long, value_name = "S", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Keep the kernel's log and say where it is
    #[arg(long)]
    keep_log: bool,
    /// The name of a program of Mitosis, or the path of a native ELF file
    #[arg(value_name = "PROGRAM")]
    program: String,
    /// The program's arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    arguments: Vec<std::ffi::OsString>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("a number of seconds above 0 is wanted".into()),
    }
}

/// Runs the program that the options name.
pub fn exec(options: &Options) -> Result<ExitCode> {
    // A file that cannot be run is refused before anything is built for it.
    let file = match given_file(&options.program) {
        Some(path) => match identify::read_native_program(&path) {
            Ok(bytes) => Some((path, bytes)),
            Err(error) => {
                eprintln!("xtask: {error:#}");
                let status = if path.exists() {
                    NOT_A_PROGRAM
                } else {
                    NOT_FOUND
                };
                return Ok(ExitCode::from(status));
            }
        },
        None => None,
    };
    let system = bare::build()?;
    let folder = Folder::make()?;
    let (archive, name) = match file {
        Some((path, bytes)) => {
            let name = format!("bin/{}", plain_name(&path));
            let mut archive = Archive::default();
            archive.add(&name, &bytes);
            run::add_system(&mut archive, &system, &name)?;
            let file = folder.path.join("boot.cpio");
            std::fs::write(&file, archive.finish())?;
            (file, name)
        }
        None => match find_program(&system, &options.program) {
            Some(name) => (run::write_archive(&system)?, name),
            None => {
                // A file of that name here that could not run either says what it is.
                let here = Path::new(&options.program);
                if here.exists()
                    && let Err(error) = identify::read_native_program(here)
                {
                    eprintln!("xtask: {error:#}");
                    return Ok(ExitCode::from(NOT_A_PROGRAM));
                }
                eprintln!(
                    "xtask: no program is called {:?}; there are: {}",
                    options.program,
                    known_programs(&system)
                );
                return Ok(ExitCode::from(NOT_FOUND));
            }
        },
    };
    let boot = Boot::Kernel {
        kernel: system.kernel,
        archive,
        words: command_line(&name, "", &options.arguments)?,
    };
    let job = Job {
        machine: &options.machine,
        boot: &boot,
        timeout: options.timeout,
        quiet: None,
    };
    let mut output = std::io::stdout().lock();
    let mut error = std::io::stderr().lock();
    let finished = channel::run(
        &job,
        Streams {
            input: Box::new(std::io::stdin()),
            output: &mut output,
            error: &mut error,
        },
    )?;
    drop(error);
    if options.keep_log {
        eprintln!(
            "xtask: the kernel's log is {}",
            keep(&finished.log)?.display()
        );
    }
    drop(folder);
    let status = report(&finished);
    // Another thread may still wait for input, so we cannot just return.
    output.flush()?;
    std::process::exit(status.into())
}

/// The path that a program's name is, if it is one.
fn given_file(program: &str) -> Option<PathBuf> {
    let is_archive_name = ["bin/", "tests/"]
        .iter()
        .any(|folder| program.starts_with(folder));
    let is_path = program.contains('/') && (!is_archive_name || Path::new(program).exists());
    is_path.then(|| PathBuf::from(program))
}

/// The archive's name of a program: `sh`, `bin/sh` and `tests/traps` name one.
pub fn find_program(system: &System, program: &str) -> Option<String> {
    ["bin/", "tests/", ""].iter().find_map(|folder| {
        let name = format!("{folder}{program}");
        let is_runnable = name.starts_with("bin/") || name.starts_with("tests/");
        let exists = system.programs.iter().any(|built| built.name == name);
        (is_runnable && exists).then_some(name)
    })
}

fn known_programs(system: &System) -> String {
    let names: Vec<&str> = system
        .programs
        .iter()
        .filter_map(|built| match built.name.strip_prefix("bin/") {
            Some(name) => Some(name),
            None => built.name.starts_with("tests/").then_some(&*built.name),
        })
        .collect();
    names.join(", ")
}

/// A file's name in a form that the command line and the archive can hold.
fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain: String = name
        .chars()
        .map(|character| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => character,
            _ => '_',
        })
        .take(100)
        .collect();
    if plain.starts_with('.') {
        format!("_{plain}")
    } else {
        plain
    }
}

/// The kernel's command line for a program of the archive.
pub fn command_line<A: AsRef<std::ffi::OsStr>>(
    name: &str,
    words: &str,
    arguments: &[A],
) -> Result<String> {
    use std::os::unix::ffi::OsStrExt;
    let mut line = format!("console=exec init=/{name}");
    if !words.is_empty() {
        line.push(' ');
        line.push_str(words);
    }
    line.push_str(" --");
    for argument in arguments {
        line.push(' ');
        let bytes = argument.as_ref().as_bytes();
        command_line::encode(bytes, |character| line.push(char::from(character)));
    }
    if line.len() > command_line::MOST_BYTES {
        bail!(
            "the arguments are too long: {} bytes, and the kernel takes {}",
            line.len(),
            command_line::MOST_BYTES
        );
    }
    Ok(line)
}

/// Says on standard error what went wrong, if anything did; gives the status.
fn report(finished: &Finished) -> u8 {
    let log = &finished.log;
    let (status, message) = match &finished.outcome {
        Outcome::Exit(status) => return *status,
        Outcome::OutputClosed => return OUTPUT_CLOSED,
        Outcome::Timeout => (TIMED_OUT, "time is up; the log ends with:".to_owned()),
        outcome => (MACHINE_FAILED, explain(outcome)),
    };
    eprintln!("xtask: {message}");
    match channel::panic_text(log) {
        Some(text) => eprintln!("{text}"),
        None => eprintln!("{}", channel::tail(log, LOG_LINES)),
    }
    if !finished.emulator.is_empty() && status != TIMED_OUT {
        eprint!("{}", finished.emulator);
    }
    status
}

/// What an outcome without an exit status means, in words.
pub fn explain(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exit(status) => format!("exit status {status}"),
        Outcome::Timeout => "time is up".into(),
        Outcome::Panic => "the kernel panicked:".into(),
        Outcome::NoStatus => {
            "the machine powered off before the program's status was known; the log ends with:"
                .into()
        }
        Outcome::BadFrame(what) => {
            format!("the guest wrote a frame that the exec channel does not know ({what}):")
        }
        Outcome::OutputClosed => "nobody reads the program's output".into(),
        Outcome::Emulator(status) => format!("the emulator failed ({status}):"),
    }
}

fn keep(log: &[u8]) -> Result<PathBuf> {
    let path = workspace::output().join(format!("exec-{}.log", std::process::id()));
    std::fs::write(&path, log).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_any_bytes_fit_on_the_command_line() {
        let line = command_line("bin/cat", "", &["a b", "", "--x=1"]).unwrap();
        assert_eq!(line, "console=exec init=/bin/cat -- a%20b % --x=1");
    }

    #[test]
    fn arguments_that_are_too_long_are_refused() {
        let error = command_line("bin/cat", "", &["x".repeat(5000)]).unwrap_err();
        assert!(error.to_string().contains("too long"));
    }

    #[test]
    fn a_files_name_becomes_one_word() {
        assert_eq!(plain_name(Path::new("/tmp/my program\n")), "my_program_");
        assert_eq!(plain_name(Path::new("/tmp/.pad")), "_.pad");
    }

    #[test]
    fn a_slash_makes_a_path_except_for_names_of_the_archive() {
        assert_eq!(given_file("cat"), None);
        assert_eq!(given_file("tests/no-such-file"), None);
        assert_eq!(given_file("./cat"), Some("./cat".into()));
        assert_eq!(given_file("/bin/sh"), Some("/bin/sh".into()));
    }

    #[test]
    fn a_timeout_is_a_positive_number() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "x", "0", "-1", "nan", "1e99"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}

//! `cargo xtask`: builds Mitosis, boots it, tests it.
//!
//! Each command is a module; this file is only the command line. What a command
//! needs and the machine lacks (a bare-metal Rust, QEMU, xorriso) is installed
//! after saying so.

mod archive;
mod bare;
mod bench;
mod channel;
mod conformance;
mod docs;
mod exec;
mod gdb;
mod identify;
mod iso;
mod limine;
mod packages;
mod profile;
mod qemu;
mod references;
mod run;
mod scenarios;
mod symbols;
mod terminal;
mod test;
mod tidy;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds Mitosis, boots it, tests it.",
    disable_help_subcommand = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the kernel, the servers, the programs and the boot archive
    Build,
    /// Boot to the shell on this terminal (Ctrl-A X ends the emulator)
    Run(run::Options),
    /// Run one program in an emulator, with this command's input, output and status
    Exec(exec::Options),
    /// Measure operations in guest instructions, beside Linux
    Bench(bench::Options),
    /// Show where the instructions of a bench case are
    Profile(profile::Options),
    /// Run the tests, all or those whose names contain NAME
    Test(test::Options),
    /// Make an ISO image that boots under BIOS and UEFI
    Iso(iso::Options),
    /// Boot under the debugger, stopped at the first instruction
    Gdb(gdb::Options),
    /// Look for what is not formatted, warned about, or leads nowhere
    Tidy,
    /// Make the pages of docs/ that come from libipc's tables
    Docs,
    /// Make docs/conformance.md from the rules, the tests that name them, and a list
    Conformance(conformance::Options),
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Build => run::build(),
        Command::Run(options) => run::run(&options),
        Command::Exec(options) => exec::exec(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Profile(options) => profile::run(&options),
        Command::Test(options) => test::test(&options),
        Command::Iso(options) => iso::iso(&options),
        Command::Gdb(options) => gdb::gdb(&options),
        Command::Tidy => tidy::tidy(),
        Command::Docs => docs::write(),
        Command::Conformance(options) => conformance::conformance(&options),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

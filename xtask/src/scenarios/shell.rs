//! The shell on a terminal: what somebody sees who types.

use anyhow::{Result, bail};

use super::boot::PROMPT;
use super::{PATIENCE, scenarios};
use crate::qemu::{Boot, Ending, MachineOptions};
use crate::terminal::Terminal;
use crate::test::Guest;
use crate::test::report::Verdict;

scenarios! { "shell":
    its_commands_answer,
    a_line_can_be_edited_and_called_back,
    an_unknown_program_is_an_error_and_the_shell_goes_on,
    exit_powers_off,
}

fn shell(guest: &Guest) -> Result<Terminal> {
    let boot = Boot::Kernel {
        kernel: guest.kernel.clone(),
        archive: guest.archive.clone(),
        words: String::new(),
    };
    let mut terminal = Terminal::start(&MachineOptions::default(), &boot)?;
    terminal.expect(PROMPT, PATIENCE)?;
    Ok(terminal)
}

fn its_commands_answer(guest: &Guest) -> Result<Verdict> {
    let mut terminal = shell(guest)?;
    for (command, answers) in [
        ("help", &["ps", "caps", "mem"][..]),
        ("ps", &["init", "sh"]),
        ("caps 1", &["1"]),
        ("mem", &["all memory", "process"]),
        ("fork-example", &["before fork pid is", "father pid is"]),
        ("createprocess-example", &["terminated: exit code is 42"]),
    ] {
        terminal.send(&format!("{command}\r"))?;
        // First comes the echo, which is no answer.
        terminal.expect("\n", PATIENCE)?;
        let text = terminal.expect(PROMPT, PATIENCE)?;
        for answer in answers {
            if !text.contains(answer) {
                bail!("{command:?} does not answer {answer:?} but {text:?}");
            }
        }
    }
    Ok(Verdict::Passed)
}

fn a_line_can_be_edited_and_called_back(guest: &Guest) -> Result<Verdict> {
    let mut terminal = shell(guest)?;
    // Backspace takes the x away; the cursor goes left and puts an i in.
    terminal.send("echo hx\x7f \x1b[D\x1b[Di\x1b[C there\r")?;
    terminal.expect("\n", PATIENCE)?;
    let text = terminal.expect(PROMPT, PATIENCE)?;
    if !text.contains("ih there") {
        bail!("the edited line gave {text:?}");
    }
    terminal.send("\x1b[A\r")?;
    terminal.expect("\n", PATIENCE)?;
    let text = terminal.expect(PROMPT, PATIENCE)?;
    if !text.contains("ih there") {
        bail!("the line called back gave {text:?}");
    }
    Ok(Verdict::Passed)
}

fn an_unknown_program_is_an_error_and_the_shell_goes_on(guest: &Guest) -> Result<Verdict> {
    let mut terminal = shell(guest)?;
    terminal.send("no-such-program\r")?;
    terminal.expect("\n", PATIENCE)?;
    let text = terminal.expect(PROMPT, PATIENCE)?;
    if !text.contains("no-such-program") {
        bail!("the error does not name the program: {text:?}");
    }
    terminal.send("echo still  here\r")?;
    terminal.expect("still here", PATIENCE)?;
    Ok(Verdict::Passed)
}

fn exit_powers_off(guest: &Guest) -> Result<Verdict> {
    let mut terminal = shell(guest)?;
    terminal.send("exit\r")?;
    match terminal.end(PATIENCE)? {
        (Ending::Success, _) => Ok(Verdict::Passed),
        (ending, rest) => bail!("the machine ended with {ending:?}: {rest}"),
    }
}

//! The kernel's command line as init reads it (LX-INIT-05, LX-INIT-06).
//!
//! `init=PATH` and `console=serial|exec` are for us. Of the other words those with a `=` go into the first
//! program's environment and those without become its arguments, followed by everything after `--`.
//! Words may be percent-encoded ([`libipc::command_line`]).

use alloc::vec::Vec;

use libipc::command_line::decode;

/// Tried in this order when the command line names no program that starts.
pub const DEFAULT_PROGRAMS: [&[u8]; 4] = [b"/sbin/init", b"/etc/init", b"/bin/init", b"/bin/sh"];

/// What the console is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleKind {
    /// A terminal on the first serial line.
    Serial,
    /// The exec channel on the second.
    Exec,
}

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootWords {
    /// The program that was asked for.
    pub program: Option<Vec<u8>>,
    /// What the console is.
    pub console: ConsoleKind,
    /// The program's arguments, without its own path.
    pub arguments: Vec<Vec<u8>>,
    /// The program's environment.
    pub environment: Vec<Vec<u8>>,
}

impl BootWords {
    /// Reads a command line. Of repeated settings the last one counts.
    pub fn read(line: &[u8]) -> BootWords {
        let mut words = BootWords {
            program: None,
            console: ConsoleKind::Serial,
            arguments: Vec::new(),
            environment: Vec::from([b"HOME=/".to_vec(), b"TERM=linux".to_vec()]),
        };
        let mut ours = true;
        for word in line.split(u8::is_ascii_whitespace) {
            if word.is_empty() {
                continue;
            }
            if ours && word == b"--" {
                ours = false;
            } else if !ours {
                words.arguments.push(decode(word).collect());
            } else if let Some(path) = word.strip_prefix(b"init=") {
                words.program = Some(decode(path).collect());
            } else if let Some(kind) = word.strip_prefix(b"console=") {
                words.console = match kind {
                    b"exec" => ConsoleKind::Exec,
                    _ => ConsoleKind::Serial,
                };
            } else if word.contains(&b'=') {
                words.set(decode(word).collect());
            } else {
                words.arguments.push(decode(word).collect());
            }
        }
        words
    }

    /// Puts `NAME=value` into the environment, in the place of an older value.
    fn set(&mut self, variable: Vec<u8>) {
        let name = |variable: &[u8]| {
            let end = variable.iter().position(|byte| *byte == b'=');
            variable[..end.map_or(0, |end| end + 1)].to_vec()
        };
        let new = name(&variable);
        match self.environment.iter_mut().find(|old| name(old) == new) {
            Some(old) => *old = variable,
            None => self.environment.push(variable),
        }
    }

    /// The programs to try, in this order. The program that was asked for comes first; over the exec
    /// channel it is the only one, since nobody there could tell another one from it.
    pub fn programs(&self) -> impl Iterator<Item = &[u8]> {
        let only_asked_for = self.console == ConsoleKind::Exec && self.program.is_some();
        let defaults: &[&[u8]] = if only_asked_for {
            &[]
        } else {
            &DEFAULT_PROGRAMS
        };
        self.program
            .as_deref()
            .into_iter()
            .chain(defaults.iter().copied())
    }

    /// True for the program that was asked for.
    pub fn is_asked_for(&self, path: &[u8]) -> bool {
        self.program.as_deref() == Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strings(list: &[Vec<u8>]) -> Vec<&str> {
        list.iter()
            .map(|bytes| core::str::from_utf8(bytes).unwrap())
            .collect()
    }

    #[test]
    fn an_empty_line_tries_the_usual_programs_on_the_terminal() {
        let words = BootWords::read(b"");
        assert_eq!(words.console, ConsoleKind::Serial);
        assert!(words.programs().eq(DEFAULT_PROGRAMS));
        assert!(words.arguments.is_empty());
        assert_eq!(strings(&words.environment), ["HOME=/", "TERM=linux"]);
    }

    #[test]
    fn the_program_that_was_asked_for_comes_first() {
        let words = BootWords::read(b"init=/bin/cat");
        assert_eq!(words.programs().count(), 5);
        assert_eq!(words.programs().next(), Some(&b"/bin/cat"[..]));
        assert!(words.is_asked_for(b"/bin/cat") && !words.is_asked_for(b"/bin/sh"));
    }

    #[test]
    fn over_the_exec_channel_nothing_runs_in_its_place() {
        let words = BootWords::read(b"console=exec init=/bin/cat -- a%20b % --x=1 --");
        assert_eq!(words.console, ConsoleKind::Exec);
        assert!(words.programs().eq([b"/bin/cat"]));
        assert_eq!(strings(&words.arguments), ["a b", "", "--x=1", "--"]);
    }

    #[test]
    fn unknown_words_go_to_the_program() {
        let words = BootWords::read(b" quiet color=red  TERM=vt100 init=/a init=/b -- x=1 y");
        assert_eq!(words.program.as_deref(), Some(&b"/b"[..]));
        assert_eq!(strings(&words.arguments), ["quiet", "x=1", "y"]);
        assert_eq!(
            strings(&words.environment),
            ["HOME=/", "TERM=vt100", "color=red"]
        );
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let words = BootWords::read(&line);
            prop_assert!(words.programs().count() <= 5);
        }
    }
}

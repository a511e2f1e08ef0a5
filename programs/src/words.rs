//! The shell's command language: a line becomes words, and says what comes after them.
//!
//! Words are separated by blanks. `'...'` keeps everything, `"..."` keeps all but `\` and `$?`, `\`
//! keeps the next character, `#` at the beginning of a word begins a comment, `$?` stands for the
//! last exit status. `;`, `&&` and `||` put commands in a row. Pipes, redirection and background
//! jobs are refused by name rather than passed on as words.

use core::fmt::{self, Write};

use heapless::Vec;

use crate::editor::LINE_BYTES;

/// Room for the words of a line, each ended by a NUL: at worst every second byte is a one-byte word,
/// and `$?` may take one byte more than it replaces.
const WORD_BYTES: usize = 2 * LINE_BYTES;

/// The words of one command, each ended by a NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    bytes: Vec<u8, WORD_BYTES>,
    count: u32,
}

impl Words {
    /// How many words there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The words one by one, without their NULs.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.bytes
            .split_inclusive(|byte| *byte == 0)
            .map(|word| &word[..word.len() - 1])
    }

    fn push(&mut self, byte: u8) -> Result<(), SyntaxError> {
        self.bytes.push(byte).map_err(|_| SyntaxError::TooLong)
    }

    fn end_word(&mut self) -> Result<(), SyntaxError> {
        self.count += 1;
        self.push(0)
    }
}

/// When the rest of a line is to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// There is nothing more.
    End,
    /// `;`: in any case.
    Always,
    /// `&&`: if this command ended with 0.
    OnSuccess,
    /// `||`: if it did not.
    OnFailure,
}

/// One command and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command<'l> {
    /// Name and arguments; empty if there is nothing but blanks.
    pub words: Words,
    /// What joins it to the rest.
    pub then: Then,
    /// The line behind that.
    pub rest: &'l [u8],
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntaxError {
    /// This quote is not closed.
    OpenQuote(u8),
    /// The line ends with a backslash.
    OpenEscape,
    /// A character that means something in other shells and nothing here.
    Unsupported(u8),
    /// A NUL, which no argument can hold.
    Nul,
    /// The words do not fit.
    TooLong,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyntaxError::OpenQuote(quote) => write!(f, "missing closing {}", *quote as char),
            SyntaxError::OpenEscape => f.write_str("nothing follows the last \\"),
            SyntaxError::Unsupported(byte) => {
                write!(
                    f,
                    "{0} is not supported; write '{0}' to mean the character",
                    *byte as char
                )
            }
            SyntaxError::Nul => f.write_str("a NUL byte in the line"),
            SyntaxError::TooLong => f.write_str("line too long"),
        }
    }
}

/// Reads the first command of `line`. `status` is what `$?` stands for.
pub fn parse(line: &[u8], status: u8) -> Result<Command<'_>, SyntaxError> {
    let mut words = Words::default();
    let mut in_word = false;
    let mut quote = None;
    let mut at = 0;
    let next = |at: usize| line.get(at + 1).copied();
    while let Some(&byte) = line.get(at) {
        match (quote, byte) {
            (_, 0) => return Err(SyntaxError::Nul),
            (Some(open), _) if byte == open => quote = None,
            (Some(b'\''), _) => words.push(byte)?,
            (None | Some(b'"'), b'\\') => {
                let kept = next(at).ok_or(match quote {
                    Some(open) => SyntaxError::OpenQuote(open),
                    None => SyntaxError::OpenEscape,
                })?;
                if quote.is_some() && !matches!(kept, b'"' | b'\\' | b'$') {
                    words.push(byte)?;
                }
                if kept == 0 {
                    return Err(SyntaxError::Nul);
                }
                words.push(kept)?;
                in_word = true;
                at += 1;
            }
            (None | Some(b'"'), b'$') if next(at) == Some(b'?') => {
                let mut digits = heapless::String::<3>::new();
                // Three digits hold every u8.
                let _ = write!(digits, "{status}");
                for digit in digits.bytes() {
                    words.push(digit)?;
                }
                in_word = true;
                at += 1;
            }
            (Some(_), _) => words.push(byte)?,
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                in_word = true;
            }
            (None, b' ' | b'\t' | b'\r' | b'\n') => {
                if core::mem::take(&mut in_word) {
                    words.end_word()?;
                }
            }
            (None, b'#') if !in_word => break,
            (None, b';' | b'&' | b'|') => {
                let (then, length) = match (byte, next(at)) {
                    (b';', _) => (Then::Always, 1),
                    (b'&', Some(b'&')) => (Then::OnSuccess, 2),
                    (b'|', Some(b'|')) => (Then::OnFailure, 2),
                    _ => return Err(SyntaxError::Unsupported(byte)),
                };
                if in_word {
                    words.end_word()?;
                }
                return Ok(Command {
                    words,
                    then,
                    rest: &line[at + length..],
                });
            }
            (None, b'<' | b'>' | b'`') => return Err(SyntaxError::Unsupported(byte)),
            (None, _) => {
                words.push(byte)?;
                in_word = true;
            }
        }
        at += 1;
    }
    if let Some(open) = quote {
        return Err(SyntaxError::OpenQuote(open));
    }
    if in_word {
        words.end_word()?;
    }
    Ok(Command {
        words,
        then: Then::End,
        rest: &[],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> std::vec::Vec<String> {
        let command = parse(line.as_bytes(), 7).unwrap();
        assert_eq!(command.words.count() as usize, command.words.iter().count());
        command
            .words
            .iter()
            .map(|word| String::from_utf8(word.to_vec()).unwrap())
            .collect()
    }

    fn refused(line: &[u8]) -> SyntaxError {
        parse(line, 0).unwrap_err()
    }

    #[test]
    fn blanks_separate_words_and_count_for_nothing_else() {
        assert_eq!(words("  echo\tone  two \r\n"), ["echo", "one", "two"]);
        assert!(words("   ").is_empty());
        assert!(words("").is_empty());
    }

    #[test]
    fn quotes_keep_blanks_and_join_with_their_neighbours() {
        assert_eq!(words("a'b c'd \"e  f\""), ["ab cd", "e  f"]);
        assert_eq!(words("'' \"\" x"), ["", "", "x"]);
        assert_eq!(words(r#"'a"b' "c'd""#), ["a\"b", "c'd"]);
    }

    #[test]
    fn a_backslash_keeps_the_next_character() {
        assert_eq!(words(r"a\ b \' \\ \;"), ["a b", "'", "\\", ";"]);
        assert_eq!(words(r#""\" \\ \$? \n""#), [r#"" \ $? \n"#]);
        assert_eq!(words(r"'\'"), ["\\"]);
    }

    #[test]
    fn the_last_status_is_put_in_outside_single_quotes() {
        assert_eq!(
            words("echo $? \"<$?>\" '$?' $x a$?b"),
            ["echo", "7", "<7>", "$?", "$x", "a7b"]
        );
    }

    #[test]
    fn a_comment_begins_only_at_the_start_of_a_word() {
        assert_eq!(words("echo a#b # rest ' of it"), ["echo", "a#b"]);
    }

    #[test]
    fn commands_in_a_row_say_what_joins_them() {
        let first = parse(b"a b;c&&d || e", 0).unwrap();
        assert_eq!((first.words.count(), first.then), (2, Then::Always));
        let second = parse(first.rest, 0).unwrap();
        assert_eq!(second.then, Then::OnSuccess);
        let third = parse(second.rest, 0).unwrap();
        assert_eq!(
            (third.then, third.rest),
            (Then::OnFailure, b" e".as_slice())
        );
        assert_eq!(parse(third.rest, 0).unwrap().then, Then::End);
        assert_eq!(parse(b"'a;b'", 0).unwrap().then, Then::End);
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(refused(b"echo 'a"), SyntaxError::OpenQuote(b'\''));
        assert_eq!(refused(b"echo \"a\\"), SyntaxError::OpenQuote(b'"'));
        assert_eq!(refused(b"echo a\\"), SyntaxError::OpenEscape);
        assert_eq!(refused(b"ls | cat"), SyntaxError::Unsupported(b'|'));
        assert_eq!(refused(b"spin &"), SyntaxError::Unsupported(b'&'));
        assert_eq!(refused(b"a > b"), SyntaxError::Unsupported(b'>'));
        assert_eq!(refused(b"a\0b"), SyntaxError::Nul);
        assert_eq!(refused(b"a\\\0b"), SyntaxError::Nul);
        assert_eq!(refused(&[b'x'; 2000]), SyntaxError::TooLong);
        assert_eq!(
            SyntaxError::OpenQuote(b'"').to_string(),
            "missing closing \""
        );
    }

    #[test]
    fn any_line_the_editor_can_hold_fits() {
        let dense: std::vec::Vec<u8> = (0..LINE_BYTES).map(|place| b"a "[place % 2]).collect();
        assert_eq!(
            parse(&dense, 0).unwrap().words.count() as usize,
            LINE_BYTES / 2
        );
        let statuses = b"$?".repeat(LINE_BYTES / 2);
        assert!(parse(&statuses, 255).is_ok());
    }
}

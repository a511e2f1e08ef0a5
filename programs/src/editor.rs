//! The shell's line editor: a terminal's bytes go in, bytes for the terminal come out.
//!
//! It keeps the line, the cursor and the history, and knows of the terminal only what it wrote to it
//! itself: one screen line that begins with the prompt. A line too long for the screen scrolls
//! sideways, so nothing depends on how the terminal wraps.
//!
//! Invariant: the line is valid UTF-8 and the cursor lies between two characters.

use core::fmt::Write;

use heapless::{Deque, Vec};

/// The longest line, in bytes. A key that would make it longer rings the bell.
pub const LINE_BYTES: usize = 512;
/// How many lines are remembered.
const HISTORY_LINES: usize = 32;
/// Screen columns that are used. Narrower than most terminals: their width is not known over a
/// serial line.
const COLUMNS: usize = 80;

type Line = Vec<u8, LINE_BYTES>;

/// What a key has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The line is still being edited.
    Editing,
    /// Return: the line is complete, see [`Editor::line`].
    Line,
    /// Ctrl-C: the line was given up.
    Interrupted,
    /// Ctrl-D on an empty line.
    EndOfInput,
}

/// What the bytes so far are the beginning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decoding {
    Ground,
    /// A carriage return was seen; a line feed right behind it belongs to it.
    Return,
    Escape,
    /// Escape and `[` or `O`, with the last number read; `modified` once a `;` was seen.
    Control {
        number: u16,
        modified: bool,
    },
    /// A UTF-8 character of `need` bytes, of which `have` are here.
    Character {
        bytes: [u8; 4],
        have: u8,
        need: u8,
    },
}

/// Which way, and how far.
#[derive(Clone, Copy)]
enum To {
    CharacterBefore,
    CharacterAfter,
    WordBefore,
    WordAfter,
    Start,
    End,
}

/// A line being edited, and the lines before it.
pub struct Editor {
    prompt: &'static str,
    line: Line,
    cursor: usize,
    decoding: Decoding,
    /// Newest at the back.
    history: Deque<Line, HISTORY_LINES>,
    /// How far back in the history the shown line is; 0: it is the new one.
    back: usize,
    /// The new line while an old one is shown.
    draft: Line,
}

impl Editor {
    /// An editor with an empty history. `prompt` is ASCII and much shorter than the screen is wide.
    pub fn new(prompt: &'static str) -> Editor {
        Editor {
            prompt,
            line: Line::new(),
            cursor: 0,
            decoding: Decoding::Ground,
            history: Deque::new(),
            back: 0,
            draft: Line::new(),
        }
    }

    /// Begins a new line: shows the prompt.
    pub fn begin(&mut self, screen: &mut impl FnMut(&[u8])) {
        self.line.clear();
        self.draft.clear();
        self.cursor = 0;
        self.back = 0;
        screen(self.prompt.as_bytes());
    }

    /// The line as it stands.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Takes one byte from the terminal and writes to `screen` what changes there.
    pub fn feed(&mut self, byte: u8, screen: &mut impl FnMut(&[u8])) -> Event {
        match self.decoding {
            Decoding::Return if byte == b'\n' => {
                self.decoding = Decoding::Ground;
                Event::Editing
            }
            Decoding::Ground | Decoding::Return => {
                self.decoding = Decoding::Ground;
                self.key(byte, screen)
            }
            Decoding::Escape => {
                self.decoding = Decoding::Ground;
                match byte {
                    b'[' | b'O' => {
                        self.decoding = Decoding::Control {
                            number: 0,
                            modified: false,
                        }
                    }
                    b'b' => self.go(To::WordBefore, screen),
                    b'f' => self.go(To::WordAfter, screen),
                    _ => {}
                }
                Event::Editing
            }
            Decoding::Control { number, modified } => {
                self.control(byte, number, modified, screen);
                Event::Editing
            }
            Decoding::Character {
                mut bytes,
                have,
                need,
            } => {
                if byte & 0xc0 != 0x80 {
                    // Cut off: drop what there is and look at the byte by itself.
                    self.decoding = Decoding::Ground;
                    return self.key(byte, screen);
                }
                bytes[have as usize] = byte;
                let have = have + 1;
                if have == need {
                    self.decoding = Decoding::Ground;
                    let character = &bytes[..need as usize];
                    if core::str::from_utf8(character).is_ok() {
                        self.insert(character, screen);
                    }
                } else {
                    self.decoding = Decoding::Character { bytes, have, need };
                }
                Event::Editing
            }
        }
    }

    /// A key that is one byte, or the first byte of a longer one.
    fn key(&mut self, byte: u8, screen: &mut impl FnMut(&[u8])) -> Event {
        const fn ctrl(letter: u8) -> u8 {
            letter & 0x1f
        }
        const CTRL_A: u8 = ctrl(b'A');
        const CTRL_B: u8 = ctrl(b'B');
        const CTRL_C: u8 = ctrl(b'C');
        const CTRL_D: u8 = ctrl(b'D');
        const CTRL_E: u8 = ctrl(b'E');
        const CTRL_F: u8 = ctrl(b'F');
        const CTRL_K: u8 = ctrl(b'K');
        const CTRL_L: u8 = ctrl(b'L');
        const CTRL_N: u8 = ctrl(b'N');
        const CTRL_P: u8 = ctrl(b'P');
        const CTRL_U: u8 = ctrl(b'U');
        const CTRL_W: u8 = ctrl(b'W');
        match byte {
            b'\r' | b'\n' => {
                if byte == b'\r' {
                    self.decoding = Decoding::Return;
                }
                // The cursor may stand in the middle of what is shown.
                screen(b"\r\n");
                self.remember();
                return Event::Line;
            }
            CTRL_C => {
                screen(b"^C\r\n");
                return Event::Interrupted;
            }
            CTRL_D if self.line.is_empty() => {
                screen(b"\r\n");
                return Event::EndOfInput;
            }
            CTRL_A => self.go(To::Start, screen),
            CTRL_E => self.go(To::End, screen),
            CTRL_B => self.go(To::CharacterBefore, screen),
            CTRL_F => self.go(To::CharacterAfter, screen),
            CTRL_D => self.delete(To::CharacterAfter, screen),
            CTRL_K => self.delete(To::End, screen),
            CTRL_U => self.delete(To::Start, screen),
            CTRL_W => self.delete(To::WordBefore, screen),
            0x08 | 0x7f => self.delete(To::CharacterBefore, screen),
            CTRL_P => self.recall(self.back + 1, screen),
            CTRL_N => self.recall(self.back.wrapping_sub(1), screen),
            CTRL_L => {
                screen(b"\x1b[H\x1b[2J");
                self.redraw(screen);
            }
            0x1b => self.decoding = Decoding::Escape,
            0xc2..=0xf4 => {
                let need = match byte {
                    0xc2..=0xdf => 2,
                    0xe0..=0xef => 3,
                    _ => 4,
                };
                self.decoding = Decoding::Character {
                    bytes: [byte, 0, 0, 0],
                    have: 1,
                    need,
                };
            }
            b' '..=b'~' => self.insert(&[byte], screen),
            _ => {}
        }
        Event::Editing
    }

    /// The next byte of a control sequence (ECMA-48, section 5.4).
    fn control(&mut self, byte: u8, number: u16, modified: bool, screen: &mut impl FnMut(&[u8])) {
        self.decoding = Decoding::Ground;
        match (byte, number) {
            (b'0'..=b'9', _) => {
                self.decoding = Decoding::Control {
                    number: number
                        .saturating_mul(10)
                        .saturating_add((byte - b'0') as u16),
                    modified,
                }
            }
            (b';', _) => {
                self.decoding = Decoding::Control {
                    number: 0,
                    modified: true,
                }
            }
            (b'A', _) => self.recall(self.back + 1, screen),
            (b'B', _) => self.recall(self.back.wrapping_sub(1), screen),
            (b'C', _) if modified => self.go(To::WordAfter, screen),
            (b'D', _) if modified => self.go(To::WordBefore, screen),
            (b'C', _) => self.go(To::CharacterAfter, screen),
            (b'D', _) => self.go(To::CharacterBefore, screen),
            (b'H', _) | (b'~', 1 | 7) => self.go(To::Start, screen),
            (b'F', _) | (b'~', 4 | 8) => self.go(To::End, screen),
            (b'~', 3) => self.delete(To::CharacterAfter, screen),
            _ => {}
        }
    }

    /// Puts one character in at the cursor.
    fn insert(&mut self, character: &[u8], screen: &mut impl FnMut(&[u8])) {
        if self.line.len() + character.len() > LINE_BYTES {
            screen(b"\x07");
            return;
        }
        let appended = self.cursor == self.line.len();
        for (place, byte) in character.iter().enumerate() {
            // Checked above that it fits.
            let _ = self.line.insert(self.cursor + place, *byte);
        }
        self.cursor += character.len();
        if appended && self.prompt.len() + columns(&self.line) < COLUMNS {
            screen(character);
        } else {
            self.redraw(screen);
        }
    }

    fn go(&mut self, to: To, screen: &mut impl FnMut(&[u8])) {
        let target = self.target(to);
        if target == self.cursor {
            return;
        }
        self.cursor = target;
        self.redraw(screen);
    }

    /// Removes what lies between the cursor and the target.
    fn delete(&mut self, to: To, screen: &mut impl FnMut(&[u8])) {
        let target = self.target(to);
        let (start, end) = (target.min(self.cursor), target.max(self.cursor));
        if start == end {
            return;
        }
        self.line.copy_within(end.., start);
        self.line.truncate(self.line.len() - (end - start));
        self.cursor = start;
        self.redraw(screen);
    }

    fn target(&self, to: To) -> usize {
        let at = self.cursor;
        let before = |from: usize| {
            self.line[..from]
                .iter()
                .rposition(|byte| starts_character(*byte))
                .unwrap_or(0)
        };
        let after = |from: usize| {
            self.line
                .iter()
                .skip(from + 1)
                .position(|byte| starts_character(*byte))
                .map_or(self.line.len(), |distance| from + 1 + distance)
        };
        match to {
            To::Start => 0,
            To::End => self.line.len(),
            To::CharacterBefore => before(at),
            To::CharacterAfter => after(at).min(self.line.len()),
            To::WordBefore => {
                let text = &self.line[..at];
                let end = text
                    .iter()
                    .rposition(|byte| *byte != b' ')
                    .map_or(0, |last| last + 1);
                text[..end]
                    .iter()
                    .rposition(|byte| *byte == b' ')
                    .map_or(0, |space| space + 1)
            }
            To::WordAfter => {
                let text = &self.line[at..];
                let start = text
                    .iter()
                    .position(|byte| *byte != b' ')
                    .unwrap_or(text.len());
                let word = text[start..].iter().position(|byte| *byte == b' ');
                at + start + word.unwrap_or(text.len() - start)
            }
        }
    }

    /// Shows the line that is `back` steps old; 0 is the new one.
    fn recall(&mut self, back: usize, screen: &mut impl FnMut(&[u8])) {
        if back > self.history.len() {
            return;
        }
        if self.back == 0 {
            self.draft = self.line.clone();
        }
        self.back = back;
        self.line = if back == 0 {
            self.draft.clone()
        } else {
            self.history
                .iter()
                .rev()
                .nth(back - 1)
                .cloned()
                .unwrap_or_default()
        };
        self.cursor = self.line.len();
        self.redraw(screen);
    }

    /// Adds the line to the history, unless it is blank or the same as the one before.
    fn remember(&mut self) {
        if self.line.iter().all(|byte| *byte == b' ') || self.history.back() == Some(&self.line) {
            return;
        }
        if self.history.is_full() {
            self.history.pop_front();
        }
        let _ = self.history.push_back(self.line.clone());
    }

    /// Writes prompt and line anew, scrolled so that the cursor can be seen, and places the cursor.
    fn redraw(&self, screen: &mut impl FnMut(&[u8])) {
        let width = COLUMNS - 1 - self.prompt.len();
        let before = columns(&self.line[..self.cursor]);
        let skipped = before.saturating_sub(width);
        let start = skip_columns(&self.line, skipped);
        let end = start + skip_columns(&self.line[start..], width);
        screen(b"\r");
        screen(self.prompt.as_bytes());
        screen(&self.line[start..end]);
        screen(b"\x1b[K");
        if self.cursor < end {
            let mut place = heapless::String::<16>::new();
            // Three digits at most.
            let _ = write!(place, "\r\x1b[{}C", self.prompt.len() + before - skipped);
            screen(place.as_bytes());
        }
    }
}

/// True unless the byte continues a UTF-8 character.
fn starts_character(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// How many columns a text takes, every character counting as one.
fn columns(text: &[u8]) -> usize {
    text.iter().filter(|byte| starts_character(**byte)).count()
}

/// Length in bytes of the first `count` characters.
fn skip_columns(text: &[u8], count: usize) -> usize {
    text.iter()
        .enumerate()
        .filter(|(_, byte)| starts_character(**byte))
        .nth(count)
        .map_or(text.len(), |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types `keys`; returns the events other than `Editing` with the line at that time, and what
    /// went to the screen.
    fn type_into(
        editor: &mut Editor,
        keys: &[u8],
    ) -> (std::vec::Vec<(Event, String)>, std::vec::Vec<u8>) {
        let mut screen = std::vec::Vec::new();
        let mut events = std::vec::Vec::new();
        let mut write = |bytes: &[u8]| screen.extend_from_slice(bytes);
        editor.begin(&mut write);
        for key in keys {
            let event = editor.feed(*key, &mut write);
            if event != Event::Editing {
                events.push((event, String::from_utf8(editor.line().to_vec()).unwrap()));
                editor.begin(&mut write);
            }
        }
        (events, screen)
    }

    fn line_of(keys: &[u8]) -> String {
        let mut editor = Editor::new("$ ");
        let (events, _) = type_into(&mut editor, keys);
        assert_eq!(events.last().unwrap().0, Event::Line);
        events.last().unwrap().1.clone()
    }

    /// A terminal of one line: what a person sees, and the cursor's column.
    fn seen(bytes: &[u8]) -> (String, usize) {
        let text = std::str::from_utf8(bytes).unwrap();
        let (mut cells, mut at) = (std::vec::Vec::<char>::new(), 0);
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '\r' => at = 0,
                '\n' => cells.clear(),
                '\x07' => {}
                '\x1b' => {
                    assert_eq!(characters.next(), Some('['));
                    let mut number = String::new();
                    let last = loop {
                        match characters.next().unwrap() {
                            digit @ '0'..='9' => number.push(digit),
                            other => break other,
                        }
                    };
                    match last {
                        'K' => cells.truncate(at),
                        'C' => at += number.parse::<usize>().unwrap(),
                        'H' => at = 0,
                        'J' => cells.clear(),
                        other => panic!("unknown control sequence {other}"),
                    }
                }
                shown => {
                    if cells.len() <= at {
                        cells.resize(at + 1, ' ');
                    }
                    cells[at] = shown;
                    at += 1;
                }
            }
        }
        (cells.into_iter().collect(), at)
    }

    #[test]
    fn plain_typing_is_echoed_byte_for_byte() {
        let (events, screen) = type_into(&mut Editor::new("$ "), b"echo hi\r");
        assert_eq!(events, [(Event::Line, "echo hi".into())]);
        assert_eq!(screen, b"$ echo hi\r\n$ ");
    }

    #[test]
    fn a_line_feed_after_a_return_is_not_a_second_line() {
        let (events, _) = type_into(&mut Editor::new("$ "), b"a\r\nb\n\n");
        let lines: std::vec::Vec<_> = events.into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["a", "b", ""]);
    }

    #[test]
    fn a_character_is_inserted_where_the_cursor_stands() {
        assert_eq!(line_of(b"eco\x1b[Dh\r"), "echo");
        let (_, screen) = type_into(&mut Editor::new("$ "), b"ad\x1b[Dbc");
        assert_eq!(seen(&screen), ("$ abcd".into(), 5));
    }

    #[test]
    fn backspace_and_delete_take_one_character_each_way() {
        assert_eq!(line_of(b"abcd\x1b[D\x7f\x1b[3~\r"), "ab");
        assert_eq!(line_of(b"abc\x01\x04\r"), "bc");
        assert_eq!(line_of(b"\x7f\x7fa\r"), "a");
    }

    #[test]
    fn home_end_and_their_control_keys_go_to_the_ends() {
        assert_eq!(line_of(b"bc\x01a\x05d\r"), "abcd");
        assert_eq!(line_of(b"bc\x1b[Ha\x1b[Fd\r"), "abcd");
        assert_eq!(line_of(b"bc\x1b[1~a\x1b[4~d\r"), "abcd");
        assert_eq!(line_of(b"bc\x1bOHa\x1bOFd\r"), "abcd");
    }

    #[test]
    fn words_are_crossed_and_removed_whole() {
        assert_eq!(line_of(b"one two  three\x17\r"), "one two  ");
        assert_eq!(line_of(b"one two  \x17\r"), "one ");
        assert_eq!(
            line_of(b"one two\x1b[1;5D\x1b[1;5DX\x1b[1;5CY\r"),
            "XoneY two"
        );
        assert_eq!(line_of(b"one two\x1bb\x15\r"), "two");
        assert_eq!(line_of(b"one two\x1bb\x0b\r"), "one ");
    }

    #[test]
    fn the_history_goes_back_and_forth_and_keeps_the_draft() {
        let up = b"\x1b[A";
        let keys = [
            b"first\rsecond\rdra".as_slice(),
            up,
            up,
            up,
            b"\x1b[B\x1b[Bft\r",
        ]
        .concat();
        assert_eq!(line_of(&keys), "draft");
        let keys = [b"first\rsecond\r".as_slice(), up, up, b"!\r"].concat();
        assert_eq!(line_of(&keys), "first!");
        assert_eq!(line_of(b"one\r\x10\r"), "one");
    }

    #[test]
    fn blank_and_repeated_lines_are_not_remembered() {
        assert_eq!(line_of(b"one\rtwo\rtwo\r  \r\r\x10\x10\r"), "one");
    }

    #[test]
    fn old_history_is_forgotten_first() {
        let mut keys = std::vec::Vec::new();
        for number in 0..HISTORY_LINES + 5 {
            keys.extend_from_slice(format!("line {number}\r").as_bytes());
        }
        keys.extend(std::iter::repeat_n(0x10, HISTORY_LINES + 9));
        keys.push(b'\r');
        assert_eq!(line_of(&keys), "line 5");
    }

    #[test]
    fn control_c_gives_the_line_up_and_control_d_ends_only_an_empty_one() {
        let (events, screen) = type_into(&mut Editor::new("$ "), b"abc\x03\x04");
        let kinds: std::vec::Vec<_> = events.iter().map(|(event, _)| *event).collect();
        assert_eq!(kinds, [Event::Interrupted, Event::EndOfInput]);
        assert_eq!(screen, b"$ abc^C\r\n$ \r\n$ ");
        assert_eq!(line_of(b"abc\x04\r"), "abc");
    }

    #[test]
    fn control_l_clears_the_screen_and_keeps_the_line() {
        let (_, screen) = type_into(&mut Editor::new("$ "), b"abc\x0c");
        assert_eq!(seen(&screen), ("$ abc".into(), 5));
        assert!(screen.windows(4).any(|bytes| bytes == b"\x1b[2J"));
    }

    #[test]
    fn a_character_of_several_bytes_moves_and_goes_as_one() {
        assert_eq!(line_of("aäb\x1b[D\x7fc\r".as_bytes()), "acb");
        assert_eq!(line_of("ä€😀\x02\x02X\r".as_bytes()), "äX€😀");
        let (_, screen) = type_into(&mut Editor::new("$ "), "äöü\x02\x02".as_bytes());
        assert_eq!(seen(&screen), ("$ äöü".into(), 3));
    }

    #[test]
    fn a_cut_off_character_and_unknown_keys_leave_no_trace() {
        assert_eq!(line_of(b"a\xe2\x82b\r"), "ab");
        assert_eq!(line_of(b"a\x1b[15~\x1b[Z\x1bq\x00\x80\xffb\r"), "ab");
        assert_eq!(line_of(b"a\x1b[99999999999999Cb\r"), "ab");
    }

    #[test]
    fn a_line_wider_than_the_screen_scrolls_and_stays_whole() {
        let mut editor = Editor::new("$ ");
        let text: String = (0..200)
            .map(|number| char::from(b'a' + number % 26))
            .collect();
        let (_, screen) = type_into(&mut editor, text.as_bytes());
        let (shown, at) = seen(&screen);
        assert!(shown.len() < COLUMNS && shown.starts_with("$ "));
        assert!(text.ends_with(&shown[2..]));
        assert_eq!(at, shown.len());
        assert_eq!(editor.line(), text.as_bytes());
        let (_, screen) = type_into(&mut editor, [text.as_bytes(), b"\x01"].concat().as_slice());
        let (shown, at) = seen(&screen);
        assert!(text.starts_with(&shown[2..]) && shown.len() == COLUMNS - 1);
        assert_eq!(at, 2);
    }

    #[test]
    fn a_full_line_rings_the_bell() {
        let mut editor = Editor::new("$ ");
        let (_, screen) = type_into(&mut editor, &[b'x'; LINE_BYTES + 1]);
        assert_eq!(editor.line(), [b'x'; LINE_BYTES]);
        assert_eq!(screen.last(), Some(&7));
    }

    #[test]
    fn random_keys_never_break_the_line() {
        let mut editor = Editor::new("$ ");
        let mut state = 1u64;
        let keys: std::vec::Vec<u8> = (0..100_000)
            .map(|_| {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let byte = (state >> 33) as u8;
                // Mostly keys with a meaning.
                if byte < 90 {
                    b"\x1b[ABCD;5~\x01\x05\x17\x7f a\xc3\xa4"[byte as usize % 17]
                } else {
                    byte
                }
            })
            .collect();
        let mut write = |_: &[u8]| {};
        editor.begin(&mut write);
        for key in keys {
            if editor.feed(key, &mut write) != Event::Editing {
                editor.begin(&mut write);
            }
            assert!(editor.cursor <= editor.line.len());
            assert!(std::str::from_utf8(editor.line()).is_ok());
            assert!(std::str::from_utf8(&editor.line()[..editor.cursor]).is_ok());
        }
    }
}

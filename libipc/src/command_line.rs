//! Words of the kernel's command line that may hold any bytes.
//!
//! The command line is text with spaces between the words. A program's arguments
//! (the words after `--`) may contain spaces and any other byte, so they are
//! written percent-encoded: letters, digits and `._/:=,+@-` stand for themselves,
//! every other byte is `%` and two hexadecimal digits. A lone `%` is the empty
//! word. A `%` that is followed by something else stands for itself, so that words
//! typed by hand mostly mean what they say.

/// The longest command line that the kernel keeps and hands to init, in bytes.
pub const MOST_BYTES: usize = 2048;

/// Writes `word` with `put`, one character at a time.
pub fn encode(word: &[u8], mut put: impl FnMut(u8)) {
    if word.is_empty() {
        put(b'%');
    }
    for &byte in word {
        if byte.is_ascii_alphanumeric() || b"._/:=,+@-".contains(&byte) {
            put(byte);
        } else {
            put(b'%');
            put(hexadecimal(byte >> 4));
            put(hexadecimal(byte & 15));
        }
    }
}

/// The bytes that an encoded word stands for.
pub fn decode(word: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = if word == b"%" { &[][..] } else { word };
    core::iter::from_fn(move || {
        if let [b'%', high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            rest = after;
            return Some(high << 4 | low);
        }
        let (&byte, after) = rest.split_first()?;
        rest = after;
        Some(byte)
    })
}

fn hexadecimal(digit: u8) -> u8 {
    b"0123456789abcdef"[usize::from(digit)]
}

fn digit(character: u8) -> Option<u8> {
    let value = char::from(character).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn encoded(word: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        encode(word, |character| text.push(character));
        text
    }

    #[test]
    fn any_bytes_survive_the_command_line() {
        let all: Vec<u8> = (0..=255).collect();
        for word in [&b""[..], b"%", b"%%41", b"a b", b"--", b"\n", &all] {
            let text = encoded(word);
            assert!(text.iter().all(|byte| byte.is_ascii_graphic()) && !text.is_empty());
            assert_eq!(decode(&text).collect::<Vec<u8>>(), word);
        }
    }

    #[test]
    fn plain_words_stand_for_themselves() {
        assert_eq!(encoded(b"/bin/cat"), b"/bin/cat");
        assert_eq!(decode(b"100%").collect::<Vec<u8>>(), b"100%");
        assert_eq!(decode(b"%zz").collect::<Vec<u8>>(), b"%zz");
    }
}

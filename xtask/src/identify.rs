//! Is this file a program for Mitosis, and what is it otherwise?
//!
//! A native program is an ELF file for x86-64 with fixed addresses and the note
//! `Mitosis` (type 1, the ABI version), which `runtime/native.ld` puts into every
//! program. The note makes the difference: a static Linux program looks the same
//! otherwise.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::abi::{
    EI_CLASS, ELFCLASS32, EM_X86_64, ET_CORE, ET_DYN, ET_EXEC, ET_REL, PT_INTERP, PT_NOTE,
};
use elf::endian::AnyEndian;
use elf::note::Note;

/// The owner of our note.
const NOTE_NAME: &str = "Mitosis";
/// The type of the note that holds the ABI version.
const NOTE_ABI: u64 = 1;
/// The ABI version that this kernel speaks.
const ABI_VERSION: u32 = 1;

/// The bytes of the native program at `path`; otherwise the error says what the
/// file is.
pub fn read_native_program(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let data = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::anyhow!("{shown}: no such file"),
        _ => anyhow::anyhow!("{shown}: {error}"),
    })?;
    if data.is_dir() {
        bail!("{shown} is a folder, not a program");
    }
    if !data.is_file() {
        bail!("{shown} is not a regular file, so not a program");
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    match what_else(&bytes) {
        None => Ok(bytes),
        Some(kind) => bail!("{shown} is {kind}, not a native Mitosis program"),
    }
}

/// What a file is; `None` for a native program.
fn what_else(bytes: &[u8]) -> Option<String> {
    let known = match bytes {
        [] => "an empty file",
        [b'#', b'!', ..] => return Some(script(bytes)),
        [b'M', b'Z', ..] => "a Windows or DOS program",
        [0xca, 0xfe, 0xba, 0xbe, ..] | [0xcf, 0xfa, 0xed, 0xfe, ..] => "a macOS program",
        [0, b'a', b's', b'm', ..] => "a WebAssembly module",
        [0x7f, b'E', b'L', b'F', ..] => return elf_but_not_ours(bytes),
        _ if std::str::from_utf8(bytes).is_ok() => "a text file",
        _ => "a file of no known program format",
    };
    Some(known.to_owned())
}

fn script(bytes: &[u8]) -> String {
    let line = bytes[2..]
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let mut text = String::from("a script for ");
    for character in String::from_utf8_lossy(line).trim().chars().take(60) {
        // A name is shown on one line, whatever it contains.
        let _ = write!(text, "{}", character.escape_debug());
    }
    text
}

fn elf_but_not_ours(bytes: &[u8]) -> Option<String> {
    let known = match describe_elf(bytes) {
        Ok(None) => return None,
        Ok(Some(kind)) => kind,
        Err(_) => "a damaged ELF file".to_owned(),
    };
    Some(known)
}

fn describe_elf(bytes: &[u8]) -> Result<Option<String>> {
    if bytes.get(EI_CLASS) == Some(&ELFCLASS32) {
        return Ok(Some("a 32-bit ELF file".into()));
    }
    let file = ElfBytes::<AnyEndian>::minimal_parse(bytes)?;
    let header = file.ehdr;
    if header.e_machine != EM_X86_64 {
        let machine =
            elf::to_str::e_machine_to_human_str(header.e_machine).unwrap_or("another processor");
        return Ok(Some(format!("an ELF file for {machine}")));
    }
    let kind = match header.e_type {
        ET_REL => "an object file that was not linked",
        ET_CORE => "a core dump",
        ET_EXEC | ET_DYN => {
            let segments = file.segments().context("an ELF file without segments")?;
            let mut versions = Vec::new();
            for segment in segments.iter().filter(|segment| segment.p_type == PT_NOTE) {
                for note in file.segment_data_as_notes(&segment)? {
                    versions.extend(abi_version(&note));
                }
            }
            match versions.first() {
                Some(&ABI_VERSION) if header.e_type == ET_EXEC => return Ok(None),
                Some(&ABI_VERSION) => {
                    "an ELF file with our note that is not linked at a fixed address"
                }
                Some(version) => {
                    return Ok(Some(format!(
                        "a program for version {version} of the Mitosis ABI (this is {ABI_VERSION})"
                    )));
                }
                None if segments.iter().any(|segment| segment.p_type == PT_INTERP) => {
                    "a dynamically linked ELF program (Linux or the like)"
                }
                None if header.e_entry == 0 => "a shared library",
                None => "a static ELF program for another system (Linux or the like)",
            }
        }
        _ => "an ELF file of no known type",
    };
    Ok(Some(kind.to_owned()))
}

fn abi_version(note: &Note) -> Option<u32> {
    match note {
        Note::Unknown(note) if note.n_type == NOTE_ABI && note.name_str().ok()? == NOTE_NAME => {
            Some(u32::from_le_bytes(note.desc.try_into().ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(bytes: &[u8], expected: &str) {
        let kind = what_else(bytes).expect("not a native program");
        assert!(kind.contains(expected), "{kind:?} should say {expected:?}");
        assert!(!kind.contains('\n'), "one line: {kind:?}");
    }

    /// An ELF header with one note segment right after it.
    fn elf_with_note(e_type: u16, name: &[u8; 8], version: u32) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend(e_type.to_le_bytes());
        file.extend(EM_X86_64.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(0x7f00_0000_0000u64.to_le_bytes());
        file.extend(64u64.to_le_bytes()); // program headers
        file.extend(0u64.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for field in [64u16, 56, 1, 0, 0, 0] {
            file.extend(field.to_le_bytes());
        }
        file.extend(PT_NOTE.to_le_bytes());
        file.extend(4u32.to_le_bytes());
        for field in [120u64, 0, 0, 24, 24, 4] {
            file.extend(field.to_le_bytes());
        }
        for field in [8u32, 4, 1] {
            file.extend(field.to_le_bytes());
        }
        file.extend(name);
        file.extend(version.to_le_bytes());
        file
    }

    #[test]
    fn the_note_makes_a_native_program() {
        assert_eq!(what_else(&elf_with_note(ET_EXEC, b"Mitosis\0", 1)), None);
        is(&elf_with_note(ET_EXEC, b"Mitosis\0", 9), "version 9");
        is(
            &elf_with_note(ET_EXEC, b"FreeBSD\0", 1),
            "static ELF program",
        );
        is(&elf_with_note(ET_DYN, b"Mitosis\0", 1), "fixed address");
    }

    #[test]
    fn other_files_are_called_by_their_name() {
        is(b"", "empty");
        is(b"#!/bin/sh -e\necho", "a script for /bin/sh -e");
        is(b"#!/bin/\x1b[31m\x01", "a script for");
        is(b"MZ\x90\0", "Windows");
        is(b"hello\n", "text");
        is(b"\x93\xff\x00", "no known");
        is(b"\x7fELF", "damaged");
        let mut narrow = elf_with_note(ET_EXEC, b"Mitosis\0", 1);
        narrow[4] = 1;
        is(&narrow, "32-bit");
        let mut other = elf_with_note(ET_EXEC, b"Mitosis\0", 1);
        other[18] = 183;
        is(&other, "ARM 64-bit");
        is(&elf_with_note(ET_REL, b"Mitosis\0", 1), "not linked");
    }

    #[test]
    fn a_linux_program_is_told_apart() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        is(&own, "dynamically linked");
    }

    #[test]
    fn a_cut_file_never_panics() {
        let whole = elf_with_note(ET_EXEC, b"Mitosis\0", 1);
        for length in 0..whole.len() {
            assert!(what_else(&whole[..length]).is_some(), "cut at {length}");
        }
    }

    #[test]
    fn a_folder_or_a_missing_file_is_no_program() {
        let error = read_native_program(Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("folder"));
        let error = read_native_program(Path::new("/no/such/thing")).unwrap_err();
        assert!(error.to_string().contains("no such file"));
    }
}

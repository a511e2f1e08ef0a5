//! Reading an ELF file into a plan: which pages go where, with which rights.
//!
//! Invariant of [`Image`]: its segments are sorted by address, lie inside the range that the caller
//! permitted, share no page, none is writable and executable, and the file holds every byte that they
//! take from it. Whatever the bytes of the file are, the answer is a plan or an [`ElfError`].

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, ET_REL, PF_R, PF_W, PF_X, PT_INTERP, PT_LOAD};
use elf::endian::AnyEndian;
use elf::file::Class;
use libipc::abi::{PAGE_BYTES, Protection};

/// How many PT_LOAD segments an image may have.
pub const SEGMENTS: usize = 16;

/// Why a file is no image that can be loaded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfError {
    /// It does not begin like an ELF file.
    NotElf,
    /// It is an ELF file for other machines.
    OtherMachine,
    /// It is an object file, a shared library, or needs relocation.
    NotFixed,
    /// It names an interpreter, so it is linked dynamically.
    Dynamic,
    /// A header points past the end of the file.
    Truncated,
    /// Headers contradict each other or the alignment of pages.
    Malformed,
    /// It is linked for addresses outside the native range: a program of another system.
    OtherAddresses,
    /// A segment is both writable and executable.
    WriteAndExecute,
    /// It has no or too many segments.
    SegmentCount,
}

impl ElfError {
    /// What is wrong, in words.
    pub const fn describe(self) -> &'static str {
        match self {
            ElfError::NotElf => "not an ELF file",
            ElfError::OtherMachine => "an ELF file for another machine than x86-64",
            ElfError::NotFixed => "an ELF file that is not linked to fixed addresses",
            ElfError::Dynamic => "an ELF file that needs a dynamic linker",
            ElfError::Truncated => "an ELF file whose end is missing",
            ElfError::Malformed => "an ELF file with contradictory headers",
            ElfError::OtherAddresses => {
                "an ELF file of another system (its addresses are not native)"
            }
            ElfError::WriteAndExecute => "an ELF file with a segment both writable and executable",
            ElfError::SegmentCount => "an ELF file without segments, or with too many",
        }
    }
}

/// A run of pages with one protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address of the first page.
    pub address: u64,
    /// The page of the file that the first page comes from.
    pub file_page: u64,
    /// How many pages come from the file.
    pub file_pages: u64,
    /// How many pages there are; those past `file_pages` are zero.
    pub pages: u64,
    /// Where, in bytes from `address`, the file's bytes end and zeros begin.
    pub file_end: u64,
    /// Whether zeros must be written behind `file_end` in the last page from the file.
    pub zero_tail: bool,
    /// What the program may do with it.
    pub protection: Protection,
}

/// A loadable image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The first instruction.
    pub entry: u64,
    /// What to map.
    pub segments: heapless::Vec<Segment, SEGMENTS>,
    /// Where the program headers are in memory, 0 if in no segment.
    pub program_headers: u64,
    /// How many program headers there are.
    pub program_header_count: u64,
}

/// Reads the file. Segments must lie in `start..end`.
pub fn read(file: &[u8], start: u64, end: u64) -> Result<Image, ElfError> {
    if !file.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    let elf = ElfBytes::<AnyEndian>::minimal_parse(file).map_err(|error| match error {
        elf::ParseError::SliceReadError(_) => ElfError::Truncated,
        _ => ElfError::Malformed,
    })?;
    let header = &elf.ehdr;
    if header.class != Class::ELF64
        || header.endianness != AnyEndian::Little
        || header.e_machine != EM_X86_64
    {
        return Err(ElfError::OtherMachine);
    }
    match header.e_type {
        ET_EXEC => {}
        ET_DYN | ET_REL => return Err(ElfError::NotFixed),
        _ => return Err(ElfError::Malformed),
    }
    let headers = elf.segments().ok_or(ElfError::SegmentCount)?;
    let mut image = Image {
        entry: header.e_entry,
        segments: heapless::Vec::new(),
        program_headers: 0,
        program_header_count: headers.len() as u64,
    };
    for program_header in headers.iter() {
        match program_header.p_type {
            PT_INTERP => return Err(ElfError::Dynamic),
            PT_LOAD if program_header.p_memsz > 0 => {
                let segment = segment(&program_header, file.len() as u64, start, end)?;
                // The headers are read by the program at the address where their page is mapped.
                let offset = header.e_phoff.wrapping_sub(program_header.p_offset);
                let bytes = headers.len() as u64 * 56;
                if offset < program_header.p_filesz && program_header.p_filesz - offset >= bytes {
                    image.program_headers = program_header.p_vaddr + offset;
                }
                image
                    .segments
                    .push(segment)
                    .map_err(|_| ElfError::SegmentCount)?;
            }
            _ => {}
        }
    }
    if image.segments.is_empty() {
        return Err(ElfError::SegmentCount);
    }
    image
        .segments
        .sort_unstable_by_key(|segment| segment.address);
    let overlap = image
        .segments
        .windows(2)
        .any(|pair| pair[0].address + pair[0].pages * PAGE_BYTES > pair[1].address);
    let entry_is_code = image.segments.iter().any(|segment| {
        segment.protection.contains(Protection::EXECUTE)
            && (segment.address..segment.address + segment.pages * PAGE_BYTES)
                .contains(&image.entry)
    });
    if overlap || !entry_is_code {
        return Err(ElfError::Malformed);
    }
    Ok(image)
}

fn segment(
    header: &elf::segment::ProgramHeader,
    file_bytes: u64,
    start: u64,
    end: u64,
) -> Result<Segment, ElfError> {
    let file_end = header
        .p_offset
        .checked_add(header.p_filesz)
        .ok_or(ElfError::Malformed)?;
    if file_end > file_bytes {
        return Err(ElfError::Truncated);
    }
    let memory_end = header
        .p_vaddr
        .checked_add(header.p_memsz)
        .ok_or(ElfError::Malformed)?;
    if header.p_vaddr < start || memory_end > end {
        return Err(ElfError::OtherAddresses);
    }
    let in_page = header.p_vaddr % PAGE_BYTES;
    if header.p_filesz > header.p_memsz
        || (header.p_filesz > 0 && header.p_offset % PAGE_BYTES != in_page)
    {
        return Err(ElfError::Malformed);
    }
    let mut protection = Protection::READ;
    if header.p_flags & PF_R == 0 {
        return Err(ElfError::Malformed);
    }
    if header.p_flags & PF_W != 0 {
        protection |= Protection::WRITE;
    }
    if header.p_flags & PF_X != 0 {
        protection |= Protection::EXECUTE;
    }
    if protection.contains(Protection::WRITE | Protection::EXECUTE) {
        return Err(ElfError::WriteAndExecute);
    }
    let address = header.p_vaddr - in_page;
    let file_pages = if header.p_filesz > 0 {
        (in_page + header.p_filesz).div_ceil(PAGE_BYTES)
    } else {
        0
    };
    Ok(Segment {
        address,
        file_page: header.p_offset / PAGE_BYTES,
        file_pages,
        pages: (memory_end - address).div_ceil(PAGE_BYTES),
        file_end: in_page + header.p_filesz,
        zero_tail: header.p_filesz > 0
            && header.p_memsz > header.p_filesz
            && !(in_page + header.p_filesz).is_multiple_of(PAGE_BYTES),
        protection,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const BASE: u64 = 0x7f00_0000_0000;
    const END: u64 = BASE + 0x18_0000;

    #[derive(Clone, Copy)]
    struct Load {
        flags: u32,
        offset: u64,
        address: u64,
        file: u64,
        memory: u64,
    }

    const TEXT: Load = Load {
        flags: PF_R | PF_X,
        offset: 0x1000,
        address: BASE + 0x1000,
        file: 0x800,
        memory: 0x800,
    };
    const DATA: Load = Load {
        flags: PF_R | PF_W,
        offset: 0x2000,
        address: BASE + 0x2000,
        file: 0x123,
        memory: 0x2123,
    };
    const HEADERS: Load = Load {
        flags: PF_R,
        offset: 0,
        address: BASE,
        file: 0x1000,
        memory: 0x1000,
    };

    /// An ELF file with these segments and a body of 0x3000 bytes.
    fn file(machine: u16, kind: u16, loads: &[Load]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend(kind.to_le_bytes());
        file.extend(machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        for word in [BASE + 0x1000, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 56, loads.len() as u16, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        for load in loads {
            file.extend(1u32.to_le_bytes());
            file.extend(load.flags.to_le_bytes());
            for word in [
                load.offset,
                load.address,
                load.address,
                load.file,
                load.memory,
                0x1000,
            ] {
                file.extend(word.to_le_bytes());
            }
        }
        file.resize(0x3000, 0xcc);
        file
    }

    fn with(loads: &[Load]) -> Result<Image, ElfError> {
        read(&file(EM_X86_64, ET_EXEC, loads), BASE, END)
    }

    #[test]
    fn a_good_image_becomes_a_plan() {
        let image = with(&[DATA, HEADERS, TEXT]).unwrap();
        assert_eq!(image.entry, BASE + 0x1000);
        assert_eq!(image.program_headers, BASE + 64);
        assert_eq!(image.program_header_count, 3);
        let addresses: Vec<u64> = image.segments.iter().map(|s| s.address - BASE).collect();
        assert_eq!(addresses, [0, 0x1000, 0x2000]);
        let data = image.segments[2];
        assert_eq!((data.file_page, data.file_pages, data.pages), (2, 1, 3));
        assert!(data.zero_tail);
        assert_eq!(data.file_end, 0x123);
        assert_eq!(data.protection, Protection::READ | Protection::WRITE);
        assert!(!image.segments[1].zero_tail);
    }

    #[test]
    fn each_kind_of_bad_file_has_its_own_error() {
        assert_eq!(read(b"#!/bin/sh", BASE, END), Err(ElfError::NotElf));
        assert_eq!(read(b"", BASE, END), Err(ElfError::NotElf));
        assert_eq!(
            read(b"\x7fELF\x02\x01", BASE, END),
            Err(ElfError::Truncated)
        );
        let read_as = |machine, kind| read(&file(machine, kind, &[TEXT]), BASE, END);
        assert_eq!(read_as(183, ET_EXEC), Err(ElfError::OtherMachine));
        assert_eq!(read_as(EM_X86_64, ET_DYN), Err(ElfError::NotFixed));
        assert_eq!(with(&[]), Err(ElfError::SegmentCount));
        assert_eq!(with(&[TEXT; SEGMENTS + 1]), Err(ElfError::SegmentCount));
        let cases = [
            (
                Load {
                    flags: PF_R | PF_W | PF_X,
                    ..TEXT
                },
                ElfError::WriteAndExecute,
            ),
            (
                Load {
                    address: 0x40_1000,
                    ..TEXT
                },
                ElfError::OtherAddresses,
            ),
            (
                Load {
                    memory: 0x1000_0000,
                    ..TEXT
                },
                ElfError::OtherAddresses,
            ),
            (
                Load {
                    file: 0x9000,
                    memory: 0x9000,
                    ..TEXT
                },
                ElfError::Truncated,
            ),
            (
                Load {
                    offset: u64::MAX,
                    ..TEXT
                },
                ElfError::Malformed,
            ),
            (
                Load {
                    memory: u64::MAX,
                    ..TEXT
                },
                ElfError::Malformed,
            ),
            (
                Load {
                    offset: 0x1001,
                    ..TEXT
                },
                ElfError::Malformed,
            ),
            (
                Load {
                    memory: 0x100,
                    ..TEXT
                },
                ElfError::Malformed,
            ),
            (
                Load {
                    flags: PF_R,
                    ..TEXT
                },
                ElfError::Malformed,
            ),
        ];
        for (number, (load, error)) in cases.into_iter().enumerate() {
            assert_eq!(with(&[load]), Err(error), "case {number}");
        }
    }

    #[test]
    fn segments_that_share_a_page_are_refused() {
        let close = Load {
            address: BASE + 0x1800,
            offset: 0x1800,
            ..DATA
        };
        assert_eq!(with(&[TEXT, close]), Err(ElfError::Malformed));
    }

    #[test]
    fn every_truncation_of_a_good_file_gives_an_answer() {
        let good = file(EM_X86_64, ET_EXEC, &[HEADERS, TEXT, DATA]);
        for length in 0..good.len() {
            let _ = read(&good[..length], BASE, END);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_a_plan_keeps_its_promises(
            damage in prop::collection::vec((0usize..300, any::<u8>()), 0..24),
            length in 0usize..0x3000,
        ) {
            let mut bytes = file(EM_X86_64, ET_EXEC, &[HEADERS, TEXT, DATA]);
            for (at, value) in damage {
                bytes[at] = value;
            }
            if length % 2 == 0 {
                bytes.truncate(length);
            }
            if let Ok(image) = read(&bytes, BASE, END) {
                let mut last = BASE;
                for segment in &image.segments {
                    prop_assert!(segment.address >= last);
                    last = segment.address + segment.pages * PAGE_BYTES;
                    prop_assert!(last <= END && segment.pages > 0);
                    prop_assert!(segment.file_pages <= segment.pages);
                    let file_end = segment.file_page * PAGE_BYTES + segment.file_end;
                    prop_assert!(segment.file_pages == 0 || file_end <= bytes.len() as u64);
                    prop_assert!(!segment.protection.contains(Protection::WRITE | Protection::EXECUTE));
                }
            }
        }
    }
}

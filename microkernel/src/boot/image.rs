//! Loading the first program: an ELF file of the boot archive into a fresh space.
//!
//! All others are loaded by programs. This one is part of what the kernel was
//! started with, so a broken one is a broken system: the caller panics.

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;
use libipc::abi::{Protection, layout};

use crate::machine::Machine;
use crate::memory::{Fault, Intent, Memory, PAGE_SIZE, Progress, Ref, Space};

/// Why a program cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadImage {
    /// It is not an ELF executable for this CPU.
    NotElf,
    /// A segment lies outside of its place, on another's page, or asks to be
    /// written and executed.
    BadSegment,
    /// There is no memory for it.
    NoMemory,
}

/// Loads `file` into `space` and returns the address of its first instruction.
pub fn load<M: Machine>(
    memory: &mut Memory<M>,
    space: Ref<Space>,
    file: &[u8],
) -> Result<u64, BadImage> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| BadImage::NotElf)?;
    if elf.ehdr.e_machine != EM_X86_64 || elf.ehdr.e_type != ET_EXEC {
        return Err(BadImage::NotElf);
    }
    for segment in elf.segments().ok_or(BadImage::NotElf)?.iter() {
        if segment.p_type == PT_LOAD && segment.p_memsz > 0 {
            let content = elf.segment_data(&segment).map_err(|_| BadImage::NotElf)?;
            load_segment(memory, space, &segment, content)?;
        }
    }
    Ok(elf.ehdr.e_entry)
}

fn load_segment<M: Machine>(
    memory: &mut Memory<M>,
    space: Ref<Space>,
    segment: &ProgramHeader,
    content: &[u8],
) -> Result<(), BadImage> {
    let end = segment
        .p_vaddr
        .checked_add(segment.p_memsz)
        .ok_or(BadImage::BadSegment)?;
    if segment.p_vaddr < layout::IMAGE || end > layout::LOADER {
        return Err(BadImage::BadSegment);
    }
    let start = segment.p_vaddr & !(PAGE_SIZE - 1);
    let pages = (end - start).div_ceil(PAGE_SIZE);
    let writable = Protection::READ | Protection::WRITE;
    memory
        .map_anonymous(space, start, pages, writable)
        .map_err(|_| BadImage::BadSegment)?;
    write(memory, space, segment.p_vaddr, content).map_err(|_| BadImage::NoMemory)?;

    let mut protection = Protection::empty();
    for (flag, right) in [
        (PF_R, Protection::READ),
        (PF_W, Protection::WRITE),
        (PF_X, Protection::EXECUTE),
    ] {
        protection.set(right, segment.p_flags & flag != 0);
    }
    let mut from = start;
    loop {
        let left = (start + pages * PAGE_SIZE - from) / PAGE_SIZE;
        match memory.protect(space, from, left, protection) {
            Ok(Progress::Done) => return Ok(()),
            Ok(Progress::More(next)) => from = next,
            Err(_) => return Err(BadImage::BadSegment),
        }
    }
}

/// Writes bytes into pages of a space that may be written.
pub fn write<M: Machine>(
    memory: &mut Memory<M>,
    space: Ref<Space>,
    address: u64,
    content: &[u8],
) -> Result<(), Fault> {
    let mut done = 0;
    while done < content.len() {
        let at = address + done as u64;
        let frame = memory.resolve(space, at, Intent::Write)?;
        let offset = at % PAGE_SIZE;
        let count = (content.len() - done).min((PAGE_SIZE - offset) as usize);
        let part = &content[done..done + count];
        let to = memory.machine().direct(frame.address() + offset);
        // SAFETY: the frame was just resolved to be written, the part ends
        // within it, and the content is not part of it: pages are fresh.
        unsafe { to.copy_from_nonoverlapping(part.as_ptr(), count) };
        done += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;
    use std::vec::Vec;

    /// An ELF file with one segment of these flags at the image's address.
    fn file(flags: u32, address: u64, content: &[u8], memory_bytes: u64) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(16, 0);
        let (header, entry) = (64u64, 56u16);
        let offset = header + u64::from(entry);
        for half in [ET_EXEC, EM_X86_64] {
            bytes.extend(half.to_le_bytes());
        }
        bytes.extend(1u32.to_le_bytes());
        for word in [address, header, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(0u32.to_le_bytes());
        for half in [64, entry, 1, 0, 0, 0] {
            bytes.extend(half.to_le_bytes());
        }
        for word in [PT_LOAD, flags] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [
            offset,
            address,
            address,
            content.len() as u64,
            memory_bytes,
            PAGE_SIZE,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(content);
        bytes
    }

    fn load_file(file: &[u8]) -> Result<(Memory<fake::FakeMachine>, Ref<Space>, u64), BadImage> {
        let mut memory = fake::memory(64);
        let pool = memory.root_pool();
        let space = memory.space_create(pool, None).unwrap();
        load(&mut memory, space, file).map(|entry| (memory, space, entry))
    }

    #[test]
    fn a_segment_has_its_content_then_zeros_and_its_protection() {
        let content: Vec<u8> = (0..5000).map(|byte| byte as u8).collect();
        let at = layout::IMAGE + 0x10;
        let (mut memory, space, entry) = load_file(&file(PF_R | PF_X, at, &content, 9000)).unwrap();
        assert_eq!(entry, at);
        let mut byte = |address: u64| {
            let frame = memory.resolve(space, address, Intent::Execute).unwrap();
            // SAFETY: a byte of a frame of the fake machine's RAM.
            unsafe {
                *memory
                    .machine()
                    .direct(frame.address() + address % PAGE_SIZE)
            }
        };
        assert_eq!((byte(at), byte(at + 4999)), (0, 4999u16 as u8));
        assert_eq!(byte(at + 8999), 0);
        assert!(memory.resolve(space, at, Intent::Write).is_err());
    }

    #[test]
    fn files_that_are_no_program_are_refused() {
        assert_eq!(load_file(b"#!/bin/sh").err(), Some(BadImage::NotElf));
        let good = file(PF_R, layout::IMAGE, b"x", 1);
        assert_eq!(load_file(&good[..100]).err(), Some(BadImage::NotElf));
    }

    #[test]
    fn segments_that_go_too_far_are_refused() {
        for (flags, address, bytes) in [
            (PF_R, 0x40_0000, 1),
            (PF_R, layout::LOADER - 1, 2),
            (PF_R, layout::IMAGE, u64::MAX),
            (PF_R | PF_W | PF_X, layout::IMAGE, 1),
        ] {
            let file = file(flags, address, b"x", bytes);
            assert_eq!(
                load_file(&file).err(),
                Some(BadImage::BadSegment),
                "{address:#x}"
            );
        }
    }
}

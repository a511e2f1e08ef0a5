//! Handing the machine's RAM to the kernel's memory.

use core::ops::Range;

use heapless::Vec;

use super::info::{BootInfo, REGIONS, RegionKind};
use crate::machine::Machine;
use crate::memory::{Frame, FrameRecord, Memory, PAGE_SIZE};

/// Frame numbers have 32 bits: RAM above 16 TiB is not used.
const HIGHEST: u64 = 1 << 44;

/// Makes the kernel's memory out of all free RAM, with a record for every frame
/// up to the last of RAM; the records themselves come out of that RAM too. The
/// pages of the boot archive are known as foreign RAM, so that they can be mapped;
/// what the kernel took is known as its own, so that it cannot.
///
/// # Panics
///
/// If there is no RAM for the records.
pub fn memory<M: Machine>(machine: M, info: &mut BootInfo) -> Memory<M> {
    let frames = info.memory.ram_end().min(HIGHEST) / PAGE_SIZE;
    let bytes = frames * size_of::<FrameRecord>() as u64;
    let start = info
        .memory
        .take(bytes, HIGHEST)
        .expect("RAM for the frame records");
    let records = machine.direct(start).cast::<FrameRecord>();
    // SAFETY: this RAM was free a moment ago, the direct map holds it for ever,
    // and from now on it is nobody's but this slice's; it is filled before the
    // slice is made.
    let records = unsafe {
        for index in 0..frames as usize {
            records.add(index).write(FrameRecord::UNKNOWN);
        }
        core::slice::from_raw_parts_mut(records, frames as usize)
    };

    let ram: Vec<Range<u32>, REGIONS> = info
        .memory
        .regions()
        .iter()
        .filter(|region| region.kind == RegionKind::Usable && region.start < HIGHEST)
        .map(|region| frame(region.start)..frame(region.end.min(HIGHEST - PAGE_SIZE)))
        .collect();
    let mut memory = Memory::new(machine, records, &ram);
    for region in info.memory.regions() {
        for number in frame(region.start)..frame(region.end.min(HIGHEST - PAGE_SIZE)) {
            let frame = Frame::from_number(number);
            match region.kind {
                RegionKind::Archive => memory.mark_foreign(frame),
                RegionKind::Kernel => memory.mark_boot(frame),
                _ => break,
            }
            .expect("what is not free RAM has no other use yet");
        }
    }
    memory
}

fn frame(address: u64) -> u32 {
    (address / PAGE_SIZE) as u32
}

#[cfg(test)]
mod tests {
    use super::super::info::{Door, MemoryMap, PhysicalSpan};
    use super::*;
    use crate::memory::fake::FakeMachine;

    #[test]
    fn all_free_ram_but_the_records_is_the_root_pools() {
        let mut map = MemoryMap::new();
        map.add(0, 64 * PAGE_SIZE, RegionKind::Usable).unwrap();
        map.add(8 * PAGE_SIZE, 4 * PAGE_SIZE, RegionKind::Archive)
            .unwrap();
        let mut info = BootInfo {
            door: Door::Pvh,
            memory: map,
            kernel: PhysicalSpan { start: 0, bytes: 0 },
            archive: None,
            command_line: Vec::new(),
            rsdp: None,
            framebuffer: None,
        };
        let memory = memory(FakeMachine::new(64), &mut info);
        // Without frame zero, the archive and one page of records.
        assert_eq!(memory.statistics().frames_total, 64 - 1 - 4 - 1);
    }
}

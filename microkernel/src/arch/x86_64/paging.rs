//! The kernel's half of every address space, built once at boot.
//!
//! No page is both writable and executable, and none of the kernel's code or
//! constants can be written: the image is mapped part by part with its own
//! protection, and the direct map leaves the image out altogether. The root's
//! upper 256 entries are final before the first user space exists; every user
//! root starts as a copy of them.

use microkernel::boot::{BootInfo, MemoryMap, RegionKind};
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags as Flags,
    PhysFrame, Size1GiB, Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::cpu::{Cpu, Features};
use super::{image, layout, pvh};

/// What a mapping in the direct map holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// RAM and ROM: cached.
    Normal,
    /// Registers: every access reaches the device.
    Device,
}

/// Takes frames for page tables out of the memory map.
struct Frames<'a> {
    memory: &'a mut MemoryMap,
    limit: u64,
    offset: u64,
}

// SAFETY: `MemoryMap::take` hands out each piece of free memory once.
unsafe impl FrameAllocator<Size4KiB> for Frames<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let start = self.memory.take(Size4KiB::SIZE, self.limit)?;
        // SAFETY: the frame was free RAM and lies within the current map of
        // memory; the crate expects tables to be zero.
        unsafe {
            core::ptr::write_bytes((self.offset + start) as *mut u8, 0, Size4KiB::SIZE as usize)
        };
        Some(PhysFrame::containing_address(PhysAddr::new(start)))
    }
}

/// The kernel's page tables while they are being built.
pub struct Kernel<'a> {
    table: OffsetPageTable<'static>,
    frames: Frames<'a>,
    giant_pages: bool,
}

/// Builds the kernel's page tables and switches to them; `offset` is where the
/// current ones map physical memory. Returns the root's physical address.
pub fn take_over(info: &mut BootInfo, offset: u64, cpu: &Cpu) -> u64 {
    let kernel = info.kernel.start;
    let regions = info.memory.clone();
    // Frames taken while mapping were usable before, so the copy maps them too.
    let mut frames = Frames {
        memory: &mut info.memory,
        limit: pvh::MAPPED_BYTES,
        offset,
    };
    let root = frames
        .allocate_frame()
        .expect("memory for the kernel's root table")
        .start_address();
    // SAFETY: the fresh frame is ours alone and zero, and all tables below it
    // come from `frames`, within the map at `offset`.
    let table = unsafe {
        let root = &mut *((offset + root.as_u64()) as *mut PageTable);
        OffsetPageTable::new(root, VirtAddr::new(offset))
    };
    let mut builder = Kernel {
        table,
        frames,
        giant_pages: cpu.has(Features::GIANT_PAGES),
    };

    for (part, flags) in [
        (image::text(), Flags::PRESENT),
        (image::rodata(), Flags::PRESENT | Flags::NO_EXECUTE),
        (
            image::data(),
            Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE,
        ),
    ] {
        let physical = part.start - image::start() + kernel;
        builder.map(
            part.start,
            physical,
            part.end - part.start,
            flags | Flags::GLOBAL,
        );
    }
    let image = kernel..kernel + info.kernel.bytes;
    for region in regions
        .regions()
        .iter()
        .filter(|region| region.kind != RegionKind::Reserved)
    {
        // The image is a region of its own; memory the kernel took is not.
        if !image.contains(&region.start) {
            builder.map_direct(region.start, region.bytes(), Memory::Normal);
        }
    }
    // SAFETY: the new tables map the running code, its stack (part of the
    // image) and all memory at the kernel's own addresses.
    unsafe { Cr3::write(PhysFrame::containing_address(root), Cr3Flags::empty()) };
    root.as_u64()
}

/// Opens the tables made by [`take_over`] again, to add to them.
///
/// # Safety
/// `root` came from [`take_over`], no other `Kernel` exists, and no user space
/// has copied the root yet.
pub unsafe fn open<'a>(root: u64, memory: &'a mut MemoryMap, cpu: &Cpu) -> Kernel<'a> {
    // SAFETY: the direct map holds all tables; exclusive by the caller's word.
    let table = unsafe {
        let root = &mut *(layout::direct(root) as *mut PageTable);
        OffsetPageTable::new(root, VirtAddr::new(layout::DIRECT_MAP))
    };
    let frames = Frames {
        memory,
        limit: u64::MAX,
        offset: layout::DIRECT_MAP,
    };
    Kernel {
        table,
        frames,
        giant_pages: cpu.has(Features::GIANT_PAGES),
    }
}

impl Kernel<'_> {
    /// Maps `bytes` at `physical` into the direct map, as far as it is not
    /// there yet, and returns its address.
    pub fn map_direct(&mut self, physical: u64, bytes: u64, memory: Memory) -> u64 {
        let mut flags = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE | Flags::GLOBAL;
        if memory == Memory::Device {
            flags |= Flags::NO_CACHE | Flags::WRITE_THROUGH;
        }
        let start = physical & !(Size4KiB::SIZE - 1);
        let end = (physical + bytes).next_multiple_of(Size4KiB::SIZE);
        self.map(layout::direct(start), start, end - start, flags);
        layout::direct(physical)
    }

    /// Maps fresh zeroed pages at `address`, for a stack.
    pub fn map_fresh(&mut self, address: u64, bytes: u64) {
        let flags = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE | Flags::GLOBAL;
        for at in (address..address + bytes).step_by(Size4KiB::SIZE as usize) {
            let frame = self
                .frames
                .allocate_frame()
                .expect("memory for kernel stacks");
            self.map(at, frame.start_address().as_u64(), Size4KiB::SIZE, flags);
        }
    }

    /// Maps whole pages with the largest page size that fits each place.
    /// Pages that are mapped already stay as they are.
    fn map(&mut self, address: u64, physical: u64, bytes: u64, flags: Flags) {
        let mut done = 0;
        while done < bytes {
            let (address, physical, left) = (address + done, physical + done, bytes - done);
            let fits = |size: u64| (address | physical) & (size - 1) == 0 && left >= size;
            done += if self.giant_pages && fits(Size1GiB::SIZE) {
                self.map_page::<Size1GiB>(address, physical, flags)
            } else if fits(Size2MiB::SIZE) {
                self.map_page::<Size2MiB>(address, physical, flags)
            } else {
                self.map_page::<Size4KiB>(address, physical, flags)
            };
        }
    }

    fn map_page<S: PageSize>(&mut self, address: u64, physical: u64, flags: Flags) -> u64
    where
        for<'a> OffsetPageTable<'a>: Mapper<S>,
    {
        let page = Page::<S>::containing_address(VirtAddr::new(address));
        let frame = PhysFrame::<S>::containing_address(PhysAddr::new(physical));
        let above = Flags::PRESENT | Flags::WRITABLE;
        // SAFETY: the kernel's half is laid out so that nothing has two
        // mappings with different duties: the direct map leaves the image out,
        // and stacks are reached only at their own addresses.
        let result = unsafe {
            self.table
                .map_to_with_table_flags(page, frame, flags, above, &mut self.frames)
        };
        match result {
            // The page is new, so no TLB can know it.
            Ok(flush) => flush.ignore(),
            Err(MapToError::PageAlreadyMapped(_) | MapToError::ParentEntryHugePage) => {}
            Err(MapToError::FrameAllocationFailed) => {
                panic!("no memory for the kernel's page tables")
            }
        }
        S::SIZE
    }
}

//! Door 1: started by a boot loader that speaks the Limine protocol.
//!
//! The loader finds the requests below in the kernel's image, writes a pointer
//! to its answer into each and enters [`limine_entry`] in long mode on its own
//! page tables. Limine 8.2.0 speaks base revisions 0 to 2. All pointers it
//! hands out are addresses in its own map of physical memory.

use core::arch::naked_asm;

use limine::BaseRevision;
use limine::memory_map::EntryType;
use limine::request::{
    ExecutableAddressRequest, ExecutableFileRequest, FramebufferRequest, HhdmRequest,
    MemoryMapRequest, ModuleRequest, RsdpRequest,
};
use microkernel::boot::{BootInfo, Door, Framebuffer, MemoryMap, PhysicalSpan, RegionKind};

use super::{image, serial};

/// Puts a request where the loader looks for it.
macro_rules! request {
    ($name:ident: $type:ty = $value:expr) => {
        // SAFETY: the linker script keeps this section among the variables,
        // where the loader may write its answer.
        #[used]
        #[unsafe(link_section = ".limine_requests")]
        static $name: $type = $value;
    };
}

request!(REVISION: BaseRevision = BaseRevision::with_revision(2));
request!(ADDRESS: ExecutableAddressRequest = ExecutableAddressRequest::new());
request!(FILE: ExecutableFileRequest = ExecutableFileRequest::new());
request!(FRAMEBUFFER: FramebufferRequest = FramebufferRequest::new());
request!(DIRECT_MAP: HhdmRequest = HhdmRequest::new());
request!(MEMORY_MAP: MemoryMapRequest = MemoryMapRequest::new());
// Revision 0: we add no modules of our own to those of the configuration file.
request!(MODULES: ModuleRequest = ModuleRequest::with_revision(0));
request!(RSDP: RsdpRequest = RsdpRequest::new());

/// The ELF entry. The loader's stack lies in memory that we free; leave it at once.
///
/// # Safety
/// Only the boot loader enters here, once.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn limine_entry() -> ! {
    naked_asm!(
        "cli",
        "cld",
        "lea rsp, [rip + boot_stack_top]",
        "xor ebp, ebp",
        "call {main}",
        "ud2",
        main = sym limine_main,
    )
}

extern "C" fn limine_main() -> ! {
    serial::init();
    assert!(
        REVISION.is_supported(),
        "this boot loader does not speak base revision 2"
    );
    let offset = DIRECT_MAP
        .get_response()
        .expect("the loader maps memory")
        .offset();
    let physical = |address: u64| address - offset;

    let address = ADDRESS
        .get_response()
        .expect("the loader knows where it put the kernel");
    let mut info = BootInfo {
        door: Door::Limine,
        memory: MemoryMap::new(),
        kernel: image::span(address.physical_base()),
        archive: None,
        command_line: Default::default(),
        // A physical address only from base revision 3 on.
        rsdp: RSDP
            .get_response()
            .map(|answer| physical(answer.address() as u64)),
        framebuffer: FRAMEBUFFER
            .get_response()
            .and_then(|answer| answer.framebuffers().next())
            .map(|screen| Framebuffer {
                start: physical(screen.addr().addr() as u64),
                width: screen.width() as u32,
                height: screen.height() as u32,
                pitch_bytes: screen.pitch() as u32,
                bits_per_pixel: screen.bpp(),
                shifts: [
                    screen.red_mask_shift(),
                    screen.green_mask_shift(),
                    screen.blue_mask_shift(),
                ],
                sizes: [
                    screen.red_mask_size(),
                    screen.green_mask_size(),
                    screen.blue_mask_size(),
                ],
            }),
    };
    for entry in MEMORY_MAP
        .get_response()
        .expect("the loader knows the memory")
        .entries()
    {
        let kind = match entry.entry_type {
            EntryType::USABLE => RegionKind::Usable,
            EntryType::ACPI_RECLAIMABLE | EntryType::ACPI_NVS => RegionKind::Acpi,
            // Image and archive are marked as what they are afterwards; what
            // remains of that kind are copies of files that nobody reads again.
            EntryType::BOOTLOADER_RECLAIMABLE | EntryType::EXECUTABLE_AND_MODULES => {
                RegionKind::Loader
            }
            _ => RegionKind::Reserved,
        };
        info.memory
            .add(entry.base, entry.length, kind)
            .expect("few memory regions");
    }
    if let Some(file) = MODULES
        .get_response()
        .and_then(|answer| answer.modules().first())
    {
        info.archive = Some(PhysicalSpan {
            start: physical(file.addr().addr() as u64),
            bytes: file.size(),
        });
    }
    if let Some(answer) = FILE.get_response() {
        info.set_command_line(answer.file().string().to_bytes());
    }
    super::start(info, offset)
}

//! Door 2: started by a machine monitor through the PVH entry (QEMU `-kernel`).
//!
//! The monitor loads the segments to their load addresses, reads the entry from
//! an ELF note and starts it in 32-bit mode without paging, with the physical
//! address of `hvm_start_info` in ebx. The trampoline turns on long mode with
//! tables laid out by the assembler: 4 GiB of memory at zero, in the direct map
//! and (the first of them) under the kernel's link address.
//!
//! The code is linked high, so in 32-bit mode every address is written as
//! `symbol - base`. That needs AT&T syntax: the assembler refuses it in Intel's.

use core::arch::global_asm;
use core::ffi::CStr;

use microkernel::boot::{BootInfo, Door, MemoryMap, PhysicalSpan, RegionKind};

use super::{image, layout, serial};

global_asm!(
    r#"
    .set BASE, 0xffffffff80000000

    .pushsection .note.pvh, "a", @note
    .align 4
    .long 4                     # size of the name
    .long 8                     # size of the entry address
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry - BASE
    .popsection

    .pushsection .text.pvh, "ax", @progbits
    .code32
    .global pvh_entry
pvh_entry:
    cli
    cld
    movl $(boot_stack_top - BASE), %esp
    movl %ebx, %edi             # hvm_start_info, the argument of pvh_main

    movl $0x80000000, %eax      # is there a long mode at all?
    cpuid
    cmpl $0x80000001, %eax
    jb 1f
    movl $0x80000001, %eax
    cpuid
    testl $(1 << 29), %edx
    jz 1f

    movl %cr4, %eax
    orl $(1 << 5), %eax         # PAE
    movl %eax, %cr4
    movl $(pvh_root - BASE), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      # EFER
    rdmsr
    orl $(1 << 8), %eax         # LME
    wrmsr
    movl $0x80000001, %eax      # PG and PE; no FPU or alignment flags yet
    movl %eax, %cr0
    lgdt (pvh_gdt_pointer - BASE)
    ljmp $8, $(pvh_long_mode - BASE)

1:  movl $(pvh_too_old - BASE), %esi
    movw $0x3f8, %dx
2:  lodsb
    testb %al, %al
    jz 3f
    outb %al, %dx
    jmp 2b
3:  movb $0x11, %al
    outb %al, $0xf4             # isa-debug-exit, where there is one
4:  hlt
    jmp 4b

    .code64
pvh_long_mode:
    movl $16, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    movabsq $1f, %rax           # leave the low addresses for the linked ones
    jmpq *%rax
1:  movabsq $boot_stack_top, %rsp
    xorl %ebp, %ebp             # a backtrace ends here
    movl %edi, %edi
    call pvh_main
    ud2

pvh_too_old:
    .asciz "Mitosis needs a 64-bit CPU\r\n"

    .balign 8
pvh_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 64-bit code
    .quad 0x00cf93000000ffff    # data
pvh_gdt_pointer:
    .word 23
    .quad pvh_gdt - BASE
    .popsection

    .pushsection .data.pvh, "aw", @progbits
    .balign 4096
pvh_root:                       # entries 0 and 256: memory; 511: the kernel
    .quad pvh_low - BASE + 3
    .fill 255, 8, 0
    .quad pvh_low - BASE + 3
    .fill 254, 8, 0
    .quad pvh_high - BASE + 3
pvh_low:
    .quad pvh_pages - BASE + 0x0003
    .quad pvh_pages - BASE + 0x1003
    .quad pvh_pages - BASE + 0x2003
    .quad pvh_pages - BASE + 0x3003
    .fill 508, 8, 0
pvh_high:
    .fill 510, 8, 0
    .quad pvh_pages - BASE + 3
    .quad 0
pvh_pages:                      # 2048 pages of 2 MiB
    .set page, 0x83
    .rept 2048
    .quad page
    .set page, page + 0x200000
    .endr
    .popsection

    .pushsection .bss.boot_stack, "aw", @nobits
    .balign 4096
    .global boot_stack_bottom
boot_stack_bottom:
    .skip 65536
    .global boot_stack_top
boot_stack_top:
    .popsection
    "#,
    options(att_syntax)
);

/// One past the end of what the trampoline mapped, in bytes.
pub const MAPPED_BYTES: u64 = 4 << 30;

const START_MAGIC: u32 = 0x336e_c578;

/// `struct hvm_start_info` of the PVH interface, version 1.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

/// `struct hvm_modlist_entry`.
#[repr(C)]
struct Module {
    start: u64,
    bytes: u64,
    command_line: u64,
    reserved: u64,
}

/// `struct hvm_memmap_table_entry`; the kinds are those of E820.
#[repr(C)]
struct MemoryEntry {
    start: u64,
    bytes: u64,
    kind: u32,
    reserved: u32,
}

/// Reads what the monitor left in memory and starts the kernel.
#[unsafe(no_mangle)]
extern "C" fn pvh_main(start_info: u64) -> ! {
    serial::init();
    // SAFETY: the trampoline passes on what the monitor promises in ebx: the
    // address of a start info below 4 GiB, where the trampoline maps memory.
    let start: &StartInfo = unsafe { &*at(start_info) };
    assert!(
        start.magic == START_MAGIC && start.version >= 1,
        "the PVH start info is not one"
    );

    let mut info = BootInfo {
        door: Door::Pvh,
        memory: MemoryMap::new(),
        kernel: image::span(image::LOAD_ADDRESS),
        archive: None,
        command_line: Default::default(),
        rsdp: (start.rsdp != 0).then_some(start.rsdp),
        framebuffer: None,
    };
    // SAFETY: the start info names that many entries there.
    let entries: &[MemoryEntry] = unsafe { list(start.memory_map, start.memory_map_entries) };
    for entry in entries {
        let kind = match entry.kind {
            1 => RegionKind::Usable,
            3 => RegionKind::Acpi,
            _ => RegionKind::Reserved,
        };
        info.memory
            .add(entry.start, entry.bytes, kind)
            .expect("few memory regions");
    }
    // SAFETY: as above, for the modules; the first is QEMU's `-initrd`.
    let modules: &[Module] = unsafe { list(start.module_list, start.module_count) };
    info.archive = modules.first().map(|module| PhysicalSpan {
        start: module.start,
        bytes: module.bytes,
    });
    if start.command_line != 0 {
        // SAFETY: the start info gives the address of a terminated string.
        info.set_command_line(unsafe { CStr::from_ptr(at(start.command_line)) }.to_bytes());
    }
    super::start(info, layout::DIRECT_MAP)
}

/// Where the trampoline maps a physical address below [`MAPPED_BYTES`].
fn at<T>(physical: u64) -> *const T {
    assert!(
        physical < MAPPED_BYTES,
        "the monitor left boot data above 4 GiB"
    );
    (layout::DIRECT_MAP + physical) as *const T
}

/// # Safety
/// There are `count` values of `T` at this physical address.
unsafe fn list<T>(physical: u64, count: u32) -> &'static [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: promised by the caller; nothing writes there until the memory
    // map has been read and handed on.
    unsafe { core::slice::from_raw_parts(at(physical), count as usize) }
}

//! What the machine refuses, and how the kernel tells of it: each fault message's kind, address,
//! access and thread.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::{
    Access, Extended, FaultKind, FaultMessage, IpcCall, IpcFlags, NEVER, OpWord, PAGE_BYTES,
    Protection, Registers, USER_END,
};
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::memory::Mapping;
use runtime::syscall;
use tests::twin::{CODE, EXCEPTION_BADGE, PAGER_BADGE, STACK};
use tests::{Outcome, Twin, check, check_eq, own_label};

tests::suite! {
    a_write_to_a_read_only_page_is_told_with_its_address,
    a_write_to_a_missing_page_is_told_with_its_address,
    a_read_of_a_missing_page_is_told_with_its_address,
    kernel_memory_cannot_be_read_written_or_executed,
    data_cannot_be_executed,
    a_page_that_may_be_executed_cannot_be_written,
    an_address_outside_the_canonical_range_is_a_protection_fault,
    privileged_instructions_are_refused,
    arithmetic_and_debug_exceptions_have_their_own_kinds,
    an_unmasked_floating_point_error_has_its_own_kind,
    the_answer_to_a_page_fault_lets_the_thread_go_on,
    the_handler_can_move_a_faulted_thread_past_the_instruction,
    faults_in_several_spaces_arrive_at_their_own_handlers,
    an_unknown_system_call_is_refused,
    a_system_call_with_a_pointer_to_a_missing_page_is_told_as_its_fault,
    a_system_call_with_an_impossible_pointer_is_refused,
    a_system_call_writes_no_read_only_memory,
    a_message_call_with_an_impossible_pointer_is_refused,
    the_stack_pointer_may_be_anything_while_in_the_kernel,
}

/// `mov byte ptr [rdi], 1`
const WRITE: &[u8] = &[0xc6, 0x07, 0x01];
/// `mov al, [rdi]`
const READ: &[u8] = &[0x8a, 0x07];
/// `jmp rdi`
const JUMP: &[u8] = &[0xff, 0xe7];
/// `ud2`
const STOP: &[u8] = &[0x0f, 0x0b];

const DATA: u64 = 0x40_0000;
const KERNEL: u64 = 0xffff_ffff_8020_0000;

const PRESENT: u64 = FaultMessage::PRESENT;

/// Runs `code` in a fresh twin prepared by `prepare` and compares the page fault it takes.
fn check_page_fault(
    prepare: impl FnOnce(Handle) -> Result<(), Error>,
    code: &[u8],
    address: u64,
    access: u64,
) -> Outcome {
    let mut twin = Twin::new()?;
    prepare(twin.space())?;
    let fault = twin.fault_of(code, address)?;
    check_eq!(fault.message.kind, FaultKind::Page);
    check_eq!(fault.message.address, address);
    check_eq!(fault.message.access, access);
    let executed = access & FaultMessage::EXECUTE != 0;
    check_eq!(
        fault.message.instruction_pointer,
        if executed { address } else { CODE }
    );
    check_eq!(fault.message.stack_pointer, STACK + PAGE_BYTES);
    check_eq!(fault.label, own_label()?);
    // A pager can bring what is missing; what is forbidden is an exception.
    let present = access & PRESENT != 0;
    check_eq!(
        fault.badge,
        if present {
            EXCEPTION_BADGE
        } else {
            PAGER_BADGE
        }
    );
    Ok(())
}

fn a_write_to_a_read_only_page_is_told_with_its_address() -> Outcome {
    let untouched = |space| syscall::space_map(space, DATA, 1, Protection::READ);
    check_page_fault(
        untouched,
        WRITE,
        DATA + 0x123,
        FaultMessage::WRITE | PRESENT,
    )?;
    let touched_and_protected = |space| {
        syscall::space_map(space, DATA, 1, Protection::READ | Protection::WRITE)?;
        syscall::space_write(space, DATA, READ_ONLY.as_ptr() as u64, 8, 0)?;
        syscall::space_protect(space, DATA, 1, Protection::READ)
    };
    let access = FaultMessage::WRITE | PRESENT;
    check_page_fault(touched_and_protected, WRITE, DATA + 0xfff, access)
}

fn a_write_to_a_missing_page_is_told_with_its_address() -> Outcome {
    check_page_fault(|_| Ok(()), WRITE, DATA + 8, FaultMessage::WRITE)?;
    check_page_fault(|_| Ok(()), WRITE, 0, FaultMessage::WRITE)?;
    let unmapped = |space| {
        syscall::space_map(space, DATA, 2, Protection::READ | Protection::WRITE)?;
        syscall::space_write(space, DATA, READ_ONLY.as_ptr() as u64, 8, 0)?;
        syscall::space_unmap(space, DATA, 1)
    };
    check_page_fault(unmapped, WRITE, DATA, FaultMessage::WRITE)
}

fn a_read_of_a_missing_page_is_told_with_its_address() -> Outcome {
    check_page_fault(|_| Ok(()), READ, DATA, 0)?;
    check_page_fault(|_| Ok(()), READ, USER_END - 1, 0)
}

fn kernel_memory_cannot_be_read_written_or_executed() -> Outcome {
    let accesses = [
        (READ, 0),
        (WRITE, FaultMessage::WRITE),
        (JUMP, FaultMessage::EXECUTE),
    ];
    // The page below the border is nobody's.
    let places = [KERNEL, 0xffff_8000_0000_0000, u64::MAX, USER_END];
    for ((code, access), place) in accesses
        .iter()
        .flat_map(|access| places.iter().map(move |place| (*access, *place)))
    {
        let mut twin = Twin::new()?;
        let fault = twin.fault_of(code, place)?;
        check_eq!(fault.message.kind, FaultKind::Page);
        check_eq!(fault.message.address, place);
        // Whether a page is there is the kernel's business.
        check_eq!(fault.message.access & !PRESENT, access);
        check_eq!(fault.label, own_label()?);
    }
    Ok(())
}

fn data_cannot_be_executed() -> Outcome {
    let executed = FaultMessage::EXECUTE | PRESENT;
    check_page_fault(|_| Ok(()), JUMP, STACK + 0x10, executed)?;
    let read_only = |space| syscall::space_map(space, DATA, 1, Protection::READ);
    check_page_fault(read_only, JUMP, DATA, executed)?;
    check_page_fault(|_| Ok(()), JUMP, DATA, FaultMessage::EXECUTE)
}

fn a_page_that_may_be_executed_cannot_be_written() -> Outcome {
    check_page_fault(
        |_| Ok(()),
        WRITE,
        CODE + 0x800,
        FaultMessage::WRITE | PRESENT,
    )?;
    let twin = Twin::new()?;
    let all = Protection::all();
    check_eq!(
        syscall::space_map(twin.space(), DATA, 1, all),
        Err(Error::InvalidArgument)
    );
    check_eq!(
        syscall::space_protect(twin.space(), STACK, 1, all),
        Err(Error::InvalidArgument)
    );
    Ok(())
}

/// Runs `code` in a fresh twin and compares the exception it takes.
fn check_exception(code: &[u8], argument: u64, kind: FaultKind, offset: u64) -> Outcome {
    let mut twin = Twin::new()?;
    let fault = twin.fault_of(code, argument)?;
    check!(
        fault.message.kind == kind && fault.message.instruction_pointer == CODE + offset,
        "{code:x?} with {argument:#x}: {fault:x?}, expected {kind:?} at {offset:#x}"
    );
    check_eq!(fault.message.address, 0);
    check_eq!(fault.message.access, 0);
    check_eq!(fault.label, own_label()?);
    check_eq!(fault.badge, EXCEPTION_BADGE);
    Ok(())
}

fn an_address_outside_the_canonical_range_is_a_protection_fault() -> Outcome {
    for address in [0x8000_0000_0000, 0xffff_7fff_ffff_ffff, 1 << 63] {
        check_exception(READ, address, FaultKind::Protection, 0)?;
        check_exception(WRITE, address, FaultKind::Protection, 0)?;
        // The machine may fault at the jump or at its target.
        let mut twin = Twin::new()?;
        let fault = twin.fault_of(JUMP, address)?;
        check_eq!(fault.message.kind, FaultKind::Protection);
    }
    Ok(())
}

fn privileged_instructions_are_refused() -> Outcome {
    let instructions: [&[u8]; 24] = [
        &[0xfa],             // cli
        &[0xfb],             // sti
        &[0xf4],             // hlt
        &[0x0f, 0x20, 0xc0], // mov rax, cr0
        &[0x0f, 0x22, 0xc0], // mov cr0, rax
        &[0x0f, 0x22, 0xd8], // mov cr3, rax
        &[0x0f, 0x22, 0xe0], // mov cr4, rax
        &[0x0f, 0x23, 0xf8], // mov dr7, rax
        &[0x0f, 0x30],       // wrmsr
        &[0x0f, 0x32],       // rdmsr
        &[0x0f, 0x01, 0x17], // lgdt [rdi]
        &[0x0f, 0x01, 0x1f], // lidt [rdi]
        &[0x0f, 0x01, 0x3f], // invlpg [rdi]
        &[0x0f, 0x01, 0xf8], // swapgs
        &[0x0f, 0x01, 0xd1], // xsetbv
        &[0x0f, 0x06],       // clts
        &[0x0f, 0x08],       // invd
        &[0x0f, 0x09],       // wbinvd
        &[0x0f, 0x00, 0xdf], // ltr di
        &[0x48, 0x0f, 0x07], // sysretq
        &[0xec],             // in al, dx
        &[0xee],             // out dx, al
        &[0xcd, 0x20],       // int 0x20
        &[0xcd, 0x80],       // int 0x80
    ];
    for instruction in instructions {
        check_exception(instruction, STACK, FaultKind::Protection, 0)?;
    }
    Ok(())
}

fn arithmetic_and_debug_exceptions_have_their_own_kinds() -> Outcome {
    check_exception(STOP, 0, FaultKind::InvalidInstruction, 0)?;
    // xor ecx, ecx; div ecx
    check_exception(&[0x31, 0xc9, 0xf7, 0xf1], 0, FaultKind::Divide, 2)?;
    // int3: the instruction pointer is behind it, as the machine has it.
    check_exception(&[0xcc], 0, FaultKind::Breakpoint, 1)?;
    // pushf; or dword ptr [rsp], 0x100; popf; nop: the trap comes behind the nop.
    let single_step = [0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0x90];
    check_exception(&single_step, 0, FaultKind::Debug, 10)
}

fn an_unmasked_floating_point_error_has_its_own_kind() -> Outcome {
    // On the x87 unit: the emulator does not raise errors of the vector unit.
    let divide_by_zero = [
        0x68, 0x7b, 0x03, 0, 0, // push 0x37b: divide-by-zero unmasked
        0xd9, 0x2c, 0x24, // fldcw [rsp]
        0xd9, 0xe8, // fld1
        0xd9, 0xee, // fldz
        0xde, 0xf9, // fdivp
        0x9b, // fwait: takes the error
    ];
    check_exception(&divide_by_zero, 0, FaultKind::FloatingPoint, 14)
}

fn the_answer_to_a_page_fault_lets_the_thread_go_on() -> Outcome {
    let mut twin = Twin::new()?;
    let write_and_stop = [0xc6, 0x07, 0x01, 0x0f, 0x0b];
    let first = twin.fault_of(&write_and_stop, DATA)?;
    check_eq!(first.message.kind, FaultKind::Page);
    syscall::space_map(twin.space(), DATA, 1, Protection::READ | Protection::WRITE)?;
    let second = twin.resume()?;
    check_eq!(second.message.kind, FaultKind::InvalidInstruction);
    check_eq!(
        second.message.instruction_pointer,
        CODE + WRITE.len() as u64
    );
    let mut byte = 0u8;
    syscall::space_read(twin.space(), DATA, (&raw mut byte) as u64, 1)?;
    check_eq!(byte, 1);
    Ok(())
}

fn the_handler_can_move_a_faulted_thread_past_the_instruction() -> Outcome {
    let mut twin = Twin::new()?;
    let stop_and_halt = [0x0f, 0x0b, 0xf4];
    let first = twin.fault_of(&stop_and_halt, 0)?;
    check_eq!(first.message.kind, FaultKind::InvalidInstruction);
    let mut registers = twin.registers()?;
    check_eq!(registers.rip, CODE);
    registers.rip += STOP.len() as u64;
    registers.rbx = 0x1234_5678_9abc_def0;
    syscall::thread_set_registers(twin.thread(), (&raw const registers) as u64)?;
    let second = twin.resume()?;
    check_eq!(second.message.kind, FaultKind::Protection);
    check_eq!(second.message.instruction_pointer, CODE + 2);
    check_eq!(twin.registers()?.rbx, 0x1234_5678_9abc_def0);
    Ok(())
}

fn faults_in_several_spaces_arrive_at_their_own_handlers() -> Outcome {
    let mut twins = [Twin::new()?, Twin::new()?, Twin::new()?];
    for (number, twin) in twins.iter_mut().enumerate() {
        twin.start(READ, DATA + number as u64)?;
    }
    for (number, twin) in twins.iter_mut().enumerate() {
        let fault = twin.next_fault()?;
        check_eq!(fault.message.address, DATA + number as u64);
    }
    Ok(())
}

fn an_unknown_system_call_is_refused() -> Outcome {
    for number in [0u64, 6, 7, 15, 200, 255] {
        let status: u64;
        // SAFETY: an unknown call changes nothing but rax, rdx, r8, rcx and r11.
        unsafe {
            core::arch::asm!(
                "syscall",
                inout("rax") number => status,
                inout("rdx") 0u64 => _,
                inout("r8") 0u64 => _,
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        check_eq!(status, Error::UnknownCall as u64);
    }
    Ok(())
}

static READ_ONLY: [u64; 4] = [1, 2, 3, 4];

/// `syscall; ud2`
const CALL: &[u8] = &[0x0f, 0x05, 0x0f, 0x0b];

/// A `wait_many` with its items at `items`, made by a twin's thread.
fn waits_at(items: u64) -> Registers {
    Registers {
        rax: 94,
        rdi: items,
        rsi: 1,
        ..Registers::default()
    }
}

fn a_system_call_with_a_pointer_to_a_missing_page_is_told_as_its_fault() -> Outcome {
    let mut twin = Twin::new()?;
    // In the middle of the item lies the border to the missing page.
    twin.map(DATA, 1)?;
    for (items, missing) in [(DATA + 2 * PAGE_BYTES, 0), (DATA + PAGE_BYTES - 16, 16)] {
        twin.start_with(CALL, waits_at(items))?;
        let fault = twin.next_fault()?;
        check_eq!(fault.message.kind, FaultKind::Page);
        check_eq!(fault.message.address, items + missing);
        check_eq!(fault.message.access, 0);
        check_eq!(fault.message.instruction_pointer, CODE);
        check_eq!(fault.badge, PAGER_BADGE);
        check_eq!(fault.label, own_label()?);
    }
    // With the page, the call is made again, and refuses what it finds there.
    syscall::space_map(twin.space(), DATA + PAGE_BYTES, 1, Protection::READ)?;
    let fault = twin.resume()?;
    check_eq!(fault.message.kind, FaultKind::InvalidInstruction);
    check!(twin.registers()?.rax != 0);
    Ok(())
}

fn a_system_call_with_an_impossible_pointer_is_refused() -> Outcome {
    let mut twin = Twin::new()?;
    for items in [KERNEL, 0x8000_0000_0000, USER_END, u64::MAX - 7] {
        twin.start_with(CALL, waits_at(items))?;
        let fault = twin.next_fault()?;
        check_eq!(fault.message.kind, FaultKind::InvalidInstruction);
        check_eq!(fault.message.instruction_pointer, CODE + 2);
        check_eq!(twin.registers()?.rax, Error::BadAddress as u64);
    }
    let page = Mapping::anonymous(1)?;
    for impossible in [KERNEL, 0x8000_0000_0000, USER_END, u64::MAX - 7] {
        let refused = Err(Error::BadAddress);
        let here = page.address();
        check_eq!(
            syscall::space_read(slots::SPACE, here, impossible, 8),
            refused
        );
        check_eq!(
            syscall::space_read(slots::SPACE, impossible, here, 8),
            refused
        );
        check_eq!(
            syscall::space_write(slots::SPACE, impossible, here, 8, 0),
            refused
        );
        check_eq!(syscall::futex_wait(impossible & !3, 0, 0), refused);
    }
    Ok(())
}

fn a_system_call_writes_no_read_only_memory() -> Outcome {
    let page = Mapping::anonymous(1)?;
    let ours = READ_ONLY.as_ptr() as u64;
    check_eq!(
        syscall::space_read(slots::SPACE, page.address(), ours, 8),
        Err(Error::BadAddress)
    );
    // SAFETY: a live static, read past the compiler's knowledge that it is constant.
    check_eq!(unsafe { READ_ONLY.as_ptr().read_volatile() }, 1);
    let space = syscall::space_create(slots::POOL, Handle::NONE)?;
    let missing = syscall::space_read(space, DATA, page.address(), 8);
    check_eq!(missing, Err(Error::BadAddress));
    syscall::cap_close(space)?;
    Ok(())
}

fn a_message_call_with_an_impossible_pointer_is_refused() -> Outcome {
    let receiver = syscall::endpoint_create(slots::POOL, 0)?;
    let sender = syscall::cap_derive(receiver, slots::POOL, 1, Access::all())?;
    let op = OpWord::new(IpcCall::Call, IpcFlags::DEADLINE, 0, 0);
    for bad in [KERNEL, 0x8000_0000_0000, USER_END, u64::MAX - 7] {
        // SAFETY: the kernel must refuse the address; that is what is tested.
        let incoming = unsafe { syscall::message(op, sender, bad as *mut Extended, [0; 8]) };
        check_eq!(incoming.delivery.error(), Some(Error::BadAddress));
    }
    syscall::cap_close(sender)?;
    syscall::cap_close(receiver)?;
    Ok(())
}

fn the_stack_pointer_may_be_anything_while_in_the_kernel() -> Outcome {
    for pointer in [0u64, KERNEL, 0x8000_0000_0000, u64::MAX, USER_END] {
        let status: u64;
        // SAFETY: rsp is put back before anything uses it; there are no signals or interrupts that
        // would use a user stack.
        unsafe {
            core::arch::asm!(
                "mov r12, rsp",
                "mov rsp, {pointer}",
                "mov eax, 8",
                "syscall",
                "mov rsp, r12",
                pointer = in(reg) pointer,
                out("rax") status,
                out("rdx") _, out("r8") _, out("rcx") _, out("r11") _, out("r12") _,
            );
        }
        check_eq!(status, 0);
    }
    check!(syscall::clock()? < NEVER);
    Ok(())
}

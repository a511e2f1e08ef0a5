//! Segments, task state and interrupt gates of a CPU.
//!
//! In 64-bit mode they matter for three things: privilege, the stack that the
//! CPU takes when it enters the kernel, and where it enters.
//!
//! From user mode it takes the *context of the running thread* as its stack, so
//! that it stores the interrupted program's registers where they belong. NMI,
//! machine check, debug and double fault may come at any instruction, even
//! before the kernel has set its own stack and GS; each has a stack of its own.

use x86_64::VirtAddr;
use x86_64::registers::model_specific::{LStar, Msr, SFMask};
use x86_64::registers::rflags::RFlags;
use x86_64::registers::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::structures::gdt::{
    Descriptor, DescriptorFlags, GlobalDescriptorTable, SegmentSelector,
};
use x86_64::structures::idt::{Entry, HandlerFunc, InterruptDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PrivilegeLevel, instructions::tables};

use microkernel::object::context::{USER_CODE, USER_DATA};

use super::entry;

/// Selector of kernel code.
pub const KERNEL_CODE: u16 = 0x08;
/// Selector of kernel data. SYSCALL wants it right behind the code, SYSRET
/// wants user data and user code behind this.
pub const KERNEL_DATA: u16 = 0x10;

/// The interrupt stacks, by their number in the task state segment.
#[derive(Clone, Copy)]
#[repr(u16)]
pub enum OwnStack {
    /// For NMI.
    Nmi,
    /// For #MC.
    MachineCheck,
    /// For #DB.
    Debug,
    /// For #DF.
    DoubleFault,
}

/// How many interrupt stacks there are.
pub const OWN_STACKS: usize = 4;

/// The tables of one CPU. They stay where they are: the CPU knows their address.
pub struct Descriptors {
    segments: GlobalDescriptorTable,
    /// Its first stack is the running thread's context.
    pub task: TaskStateSegment,
    gates: Option<InterruptDescriptorTable>,
}

impl Descriptors {
    /// Tables with nothing in them.
    pub const fn new() -> Self {
        Self {
            segments: GlobalDescriptorTable::new(),
            task: TaskStateSegment::new(),
            gates: None,
        }
    }

    /// Fills the tables and makes this CPU use them. `own_stacks` are the tops
    /// of the interrupt stacks, in the order of [`OwnStack`].
    pub fn load(&'static mut self, own_stacks: [u64; OWN_STACKS]) {
        for (index, top) in own_stacks.into_iter().enumerate() {
            self.task.interrupt_stack_table[index] = VirtAddr::new(top);
        }
        let code = self.segments.append(Descriptor::kernel_code_segment());
        let data = self
            .segments
            .append(Descriptor::UserSegment(DescriptorFlags::KERNEL_DATA.bits()));
        let user_data = self.segments.append(Descriptor::user_data_segment());
        let user_code = self.segments.append(Descriptor::user_code_segment());
        assert_eq!((code.0, data.0), (KERNEL_CODE, KERNEL_DATA));
        assert_eq!(
            (user_data.0 as u64, user_code.0 as u64),
            (USER_DATA, USER_CODE)
        );
        // SAFETY: the tables are never moved or dropped: they are 'static. The
        // first stack in the task state changes while the CPU uses it, which
        // is how the architecture means it.
        unsafe {
            let task = Descriptor::tss_segment_unchecked(&self.task);
            let task = self.segments.append(task);
            self.segments.load_unsafe();
            CS::set_reg(SegmentSelector(KERNEL_CODE));
            SS::set_reg(SegmentSelector(KERNEL_DATA));
            DS::set_reg(SegmentSelector(0));
            ES::set_reg(SegmentSelector(0));
            tables::load_tss(task);
        }
        // The crate makes gates for the code segment that is loaded, so they come
        // after it: a boot loader has its own.
        let gates = self.gates.insert(InterruptDescriptorTable::new());
        fill(gates);
        // SAFETY: as for the segments.
        unsafe {
            gates.load_unsafe();
        }

        // SYSCALL loads CS and SS from bits 32.., SYSRET from bits 48...
        let star = (KERNEL_CODE as u64) << 32 | (KERNEL_DATA as u64 | 3) << 48;
        // SAFETY: the selectors are those of the table just loaded, in the
        // order that both instructions want.
        unsafe { Msr::new(0xc000_0081).write(star) };
        // SAFETY: a null code segment makes SYSENTER, which we do not serve, a
        // protection fault whatever firmware left there.
        unsafe { Msr::new(0x174).write(0) };
        LStar::write(VirtAddr::new((entry::syscall as *const ()).addr() as u64));
        SFMask::write(
            RFlags::TRAP_FLAG
                | RFlags::INTERRUPT_FLAG
                | RFlags::DIRECTION_FLAG
                | RFlags::NESTED_TASK
                | RFlags::ALIGNMENT_CHECK,
        );
    }
}

/// Puts the entry points into their gates. All of them keep interrupts off.
fn fill(gates: &mut InterruptDescriptorTable) {
    let ring_three = PrivilegeLevel::Ring3;
    set(&mut gates.divide_error, 0);
    set_on(&mut gates.debug, entry::debug as *const (), OwnStack::Debug);
    set_on(
        &mut gates.non_maskable_interrupt,
        entry::nmi as *const (),
        OwnStack::Nmi,
    );
    set(&mut gates.breakpoint, 3).set_privilege_level(ring_three);
    set(&mut gates.overflow, 4).set_privilege_level(ring_three);
    set(&mut gates.bound_range_exceeded, 5);
    set(&mut gates.invalid_opcode, 6);
    set(&mut gates.device_not_available, 7);
    set_on(
        &mut gates.double_fault,
        entry::double_fault as *const (),
        OwnStack::DoubleFault,
    );
    set(&mut gates.invalid_tss, 10);
    set(&mut gates.segment_not_present, 11);
    set(&mut gates.stack_segment_fault, 12);
    set(&mut gates.general_protection_fault, 13);
    set(&mut gates.page_fault, 14);
    set(&mut gates.x87_floating_point, 16);
    set(&mut gates.alignment_check, 17);
    set_on(
        &mut gates.machine_check,
        entry::machine_check as *const (),
        OwnStack::MachineCheck,
    );
    set(&mut gates.simd_floating_point, 19);
    set(&mut gates.virtualization, 20);
    set(&mut gates.cp_protection_exception, 21);
    for vector in entry::FIRST_INTERRUPT..=u8::MAX {
        set::<HandlerFunc>(&mut gates[vector], vector);
    }
}

fn set<F>(gate: &mut Entry<F>, vector: u8) -> &mut x86_64::structures::idt::EntryOptions {
    let address = VirtAddr::new(entry::vector(vector));
    // SAFETY: the stub is an entry point for just this vector.
    unsafe { gate.set_handler_addr(address) }
}

fn set_on<F>(gate: &mut Entry<F>, handler: *const (), stack: OwnStack) {
    // SAFETY: the handler is an entry point for this exception, and the stack's
    // slot is filled before the gates are loaded.
    unsafe {
        gate.set_handler_addr(VirtAddr::new(handler.addr() as u64))
            .set_stack_index(stack as u16);
    }
}

//! What each CPU has for itself.
//!
//! GS points here while the kernel runs; the interrupt stacks, which may be
//! entered when GS is still the program's, hold the same pointer at their top.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use microkernel::object::context::{Context, offsets};
use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, KernelGsBase};

use super::descriptors::{Descriptors, OWN_STACKS};
use super::paging::Kernel as PageTables;
use super::{image, layout};

/// Bytes of the stack that the kernel runs on.
const STACK_BYTES: u64 = 32 << 10;
/// Bytes of each interrupt stack.
const OWN_STACK_BYTES: u64 = 16 << 10;
/// Distance of stacks: what is not a stack there is a guard.
const STACK_DISTANCE: u64 = 64 << 10;
/// Bytes at the top of every stack before anything is pushed. On an interrupt
/// stack they hold the pointer to the CPU's data. On all of them they make what
/// the CPU pushes, completed by the entry code, as long as a context.
const STACK_HEAD: u64 = (size_of::<Context>() - offsets::FRAME_END) as u64;

/// The data of one CPU.
#[repr(C)]
pub struct PerCpu {
    // Read and written by the entry code, at the offsets below.
    context: UnsafeCell<*mut Context>,
    scratch: UnsafeCell<u64>,
    stack: UnsafeCell<u64>,
    // From here on by Rust code only.
    /// How many NMIs came that nobody asked for.
    pub nmis: AtomicU64,
    descriptors: UnsafeCell<Descriptors>,
}

// SAFETY: only its own CPU touches the cells of a `PerCpu`: the entry code with
// interrupts off, and `load` and `set_context`, which say so.
unsafe impl Sync for PerCpu {}

/// Offset of the pointer to the running thread's context.
pub const CONTEXT: usize = offset_of!(PerCpu, context);
/// Offset of a word for the entry code.
pub const SCRATCH: usize = offset_of!(PerCpu, scratch);
/// Offset of the top of the kernel's stack.
pub const STACK: usize = offset_of!(PerCpu, stack);

static BOOT_CPU: PerCpu = PerCpu::new();

impl PerCpu {
    const fn new() -> Self {
        Self {
            context: UnsafeCell::new(core::ptr::null_mut()),
            scratch: UnsafeCell::new(0),
            stack: UnsafeCell::new(0),
            nmis: AtomicU64::new(0),
            descriptors: UnsafeCell::new(Descriptors::new()),
        }
    }

    /// The context of the thread that runs on this CPU, or ran last.
    pub fn context(&self) -> *mut Context {
        // SAFETY: a word that only this CPU writes, and not now.
        unsafe { *self.context.get() }
    }

    /// Makes `context` what the next exit loads and the next entry stores to.
    ///
    /// # Safety
    /// Called on the CPU that this belongs to; `context` stays valid and in its
    /// place until another takes its turn or no thread runs here any more.
    #[inline]
    pub unsafe fn set_context(&self, context: *mut Context) {
        // SAFETY: only this CPU touches these cells, and it is here.
        unsafe {
            *self.context.get() = context;
            (*self.descriptors.get()).task.privilege_stack_table[0] =
                VirtAddr::new_unsafe((context as u64) + offsets::FRAME_END as u64);
        }
    }
}

/// The data of the CPU that booted.
#[inline]
pub fn boot_cpu() -> &'static PerCpu {
    &BOOT_CPU
}

/// Gives the boot CPU its stacks and descriptor tables and points GS at its data.
///
/// # Safety
/// Called once, on the boot CPU.
pub unsafe fn init_boot_cpu(tables: &mut PageTables) {
    let cpu = boot_cpu();
    let this = (&raw const BOOT_CPU).addr() as u64;
    let stack = stack(tables, 0, STACK_BYTES) - STACK_HEAD;
    let own_stacks: [u64; OWN_STACKS] = core::array::from_fn(|index| {
        let top = self::stack(tables, index as u64 + 1, OWN_STACK_BYTES) - STACK_HEAD;
        // SAFETY: a word in the head of a stack that was just mapped.
        unsafe { *(top as *mut u64) = this };
        top
    });
    // SAFETY: nothing else knows these cells yet, and the caller promises that
    // this happens once, so the tables are borrowed once and for ever.
    unsafe {
        *cpu.stack.get() = stack;
        (*cpu.descriptors.get()).load(own_stacks);
    }
    // Loading a null selector may clear the bases; so the bases come last.
    GsBase::write(VirtAddr::new(this));
    KernelGsBase::write(VirtAddr::zero());
}

/// Maps the stack with this number and returns its top. A guard lies below.
fn stack(tables: &mut PageTables, number: u64, bytes: u64) -> u64 {
    let top = layout::STACKS + (number + 1) * STACK_DISTANCE;
    tables.map_fresh(top - bytes, bytes);
    top
}

/// The addresses of stacks and the guards between them.
fn stacks() -> Range<u64> {
    layout::STACKS..layout::STACKS + (1 + OWN_STACKS as u64) * STACK_DISTANCE
}

/// Is there a kernel stack at this address that a backtrace may read?
pub fn is_stack(address: u64) -> bool {
    let bytes = match address.checked_sub(layout::STACKS) {
        Some(0..STACK_DISTANCE) => STACK_BYTES,
        _ => OWN_STACK_BYTES,
    };
    image::boot_stack().contains(&address)
        || stacks().contains(&address) && STACK_DISTANCE - address % STACK_DISTANCE <= bytes
}

/// Is the address in a guard below a stack?
pub fn is_stack_guard(address: u64) -> bool {
    stacks().contains(&address) && !is_stack(address)
}

/// Counts an NMI and returns how many there were.
pub fn count_nmi(cpu: &PerCpu) -> u64 {
    cpu.nmis.fetch_add(1, Ordering::Relaxed) + 1
}

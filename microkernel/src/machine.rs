//! What the portable kernel needs of the machine.
//!
//! Everything above this trait is plain Rust that runs under `cargo test` with
//! the fake machine of `memory/fake.rs`; everything below it is `arch/`.
//! The kernel holds one machine value and reaches all CPUs through it; calls
//! are made under the kernel lock, on the CPU that [`Machine::cpu`] names.

use crate::memory::Frame;
use crate::object::context::Context;

/// The largest number of CPUs; a set of CPUs is one word.
pub const MAX_CPUS: usize = 64;

/// A set of CPUs, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuSet(pub u64);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: CpuSet = CpuSet(0);

    /// The set that holds only `cpu`.
    pub const fn only(cpu: usize) -> CpuSet {
        CpuSet(1 << cpu)
    }

    /// Whether no CPU is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `cpu` is in the set.
    pub const fn contains(self, cpu: usize) -> bool {
        self.0 >> cpu & 1 != 0
    }

    /// Puts `cpu` into the set.
    pub fn insert(&mut self, cpu: usize) {
        self.0 |= 1 << cpu;
    }

    /// Takes `cpu` out of the set.
    pub fn remove(&mut self, cpu: usize) {
        self.0 &= !(1 << cpu);
    }

    /// The CPUs of the set in rising order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_CPUS).filter(move |&cpu| self.contains(cpu))
    }
}

/// How many bytes an I/O port access moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortWidth {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Double,
}

/// The machine as the portable kernel sees it.
///
/// # Safety
///
/// For every frame of RAM that the kernel was given at boot, `direct` must
/// return a pointer through which its 4096 bytes can be read and written for
/// as long as the machine value lives, and nothing else in the kernel may keep
/// a Rust reference into such a frame.
pub unsafe trait Machine {
    /// Where physical address `physical` appears in the direct map.
    fn direct(&self, physical: u64) -> *mut u8;

    /// The number of the CPU that runs this.
    fn cpu(&self) -> usize;

    /// The kernel's own root, whose upper half is fixed by now. It is a frame
    /// that `direct` reaches; its entries are copied into every new root.
    fn kernel_root(&self) -> Frame;

    /// Makes `root` the translation root of this CPU. All translations that the
    /// CPU remembers of its former user space are forgotten.
    fn load_root(&mut self, root: Frame);

    /// Makes `root` the translation root of every CPU in `cpus`, this one
    /// included if it is a member, and returns once all have done so.
    fn load_root_on(&mut self, cpus: CpuSet, root: Frame);

    /// Every CPU in `cpus` forgets the translation of `address` and all that it
    /// remembers of upper levels (Intel SDM 3A 4.10.4.1, INVLPG). Returns once
    /// all have done so.
    fn flush_page(&mut self, cpus: CpuSet, address: u64);

    /// Every CPU in `cpus` forgets all user translations. Returns once all have
    /// done so.
    fn flush_all(&mut self, cpus: CpuSet);

    /// Fills `frame` with zeros.
    fn zero_frame(&mut self, frame: Frame);

    /// Copies all 4096 bytes of `from` to `to`, which is another frame.
    fn copy_frame(&mut self, from: Frame, to: Frame);

    /// Nanoseconds since boot; never goes back.
    fn now_ns(&self) -> u64;

    /// Asks for one timer interrupt on this CPU at `deadline_ns` after boot, at
    /// once if that has passed; `None` asks for none. Replaces what was asked
    /// before.
    fn set_timer(&mut self, deadline_ns: Option<u64>);

    /// Reads an I/O port.
    fn port_read(&mut self, port: u16, width: PortWidth) -> u32;

    /// Writes an I/O port; bits above `width` are ignored.
    fn port_write(&mut self, port: u16, width: PortWidth, value: u32);

    /// Lets interrupt `line` reach the kernel.
    fn interrupt_unmask(&mut self, line: u32);

    /// Keeps interrupt `line` from the kernel.
    fn interrupt_mask(&mut self, line: u32);

    /// Makes the thread with this context the one that runs on this CPU: its FS
    /// and GS bases are loaded, the next return to user mode loads the other
    /// registers, and the next entry stores to it. The context must stay where
    /// it is until another is entered; when its thread ends before that, the
    /// kernel enters another or lets the CPU idle.
    ///
    /// Returns the FS and GS bases that the CPU had, if programs set them without
    /// asking: those of the thread that was entered before, if it was not taken
    /// out by [`Machine::save_bases`].
    fn enter(&mut self, context: &mut Context) -> Option<[u64; 2]>;

    /// Records the FS and GS bases of the thread that runs on this CPU in its
    /// context. Programs set them without asking, so this is due before the
    /// context is looked at or copied, and before the CPU idles.
    fn save_bases(&mut self, context: &mut Context);

    /// Lets the program that runs on this CPU use the FPU, or makes its next FPU
    /// instruction raise [`Exception::NO_FPU`].
    fn fpu_allow(&mut self, allowed: bool);

    /// Fills `area` with the FPU state of a fresh thread.
    fn fpu_reset(&mut self, area: Frame);

    /// Stores the FPU state of this CPU in `area`.
    fn fpu_save(&mut self, area: Frame);

    /// Loads the FPU state of this CPU from `area`, which holds what `fpu_reset`
    /// or `fpu_save` left there and nothing else.
    fn fpu_load(&mut self, area: Frame);

    /// Writes text to the kernel's log.
    fn log(&mut self, text: &[u8]);

    /// Ends it. Returns only on the fake machine.
    fn power(&mut self, action: PowerAction);
}

/// How the machine is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerAction {
    /// Start again from the firmware.
    Reset,
    /// Stop; tell the emulator that all went well.
    StopWithSuccess,
    /// Stop; tell the emulator that something failed.
    StopWithFailure,
}

/// Why the kernel was entered, if neither by a system call nor by an exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupt {
    /// The time given to `set_timer` has come.
    Timer,
    /// A device asks. The line is masked until `interrupt_unmask`.
    Line(u32),
}

/// An instruction that the running program could not complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// The CPU's number for it (Intel SDM 3A 6.3.1).
    pub vector: u8,
    /// Its error code, or 0.
    pub error_code: u64,
    /// Of a page fault: the address that was accessed.
    pub address: u64,
}

impl Exception {
    /// The vector of an FPU instruction that `fpu_allow` forbade.
    pub const NO_FPU: u8 = 7;
    /// The vector of a page fault.
    pub const PAGE_FAULT: u8 = 14;
}

/// What a CPU does when it leaves the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Next {
    /// Runs the thread that was entered last.
    Resume,
    /// Waits for an interrupt.
    Idle,
}

//! What the portable kernel needs of the machine.
//!
//! Everything above this trait is plain Rust that runs under `cargo test` with
//! the fake machine of `memory/fake.rs`; everything below it is `arch/`.
//! The kernel holds one machine value and reaches all CPUs through it; calls
//! are made under the kernel lock, on the CPU that [`Machine::cpu`] names.

use crate::memory::Frame;

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
}

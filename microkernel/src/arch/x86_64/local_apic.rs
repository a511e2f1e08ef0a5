//! The interrupt controller inside each CPU, and its timer.
//!
//! Reached through memory (xAPIC) or through MSRs (x2APIC), which say the same
//! with other words.

use x86_64::registers::model_specific::{ApicBase, ApicBaseFlags, Msr};

use super::cpu::{Cpu, Features};
use super::paging::{Kernel, Memory};

/// The vector of the timer.
pub const TIMER_VECTOR: u8 = 0xf0;
/// The vector of interrupts that went away before they were taken. The lower
/// four bits are ones, as old CPUs have it.
pub const SPURIOUS_VECTOR: u8 = 0xff;

/// Registers by their offset in the memory page (Intel SDM 3A table 11-1).
#[derive(Clone, Copy)]
#[repr(u32)]
enum Register {
    Id = 0x20,
    TaskPriority = 0x80,
    EndOfInterrupt = 0xb0,
    Spurious = 0xf0,
    CommandLow = 0x300,
    CommandHigh = 0x310,
    Timer = 0x320,
    Line0 = 0x350,
    Line1 = 0x360,
    Error = 0x370,
    InitialCount = 0x380,
    CurrentCount = 0x390,
    DivideBy = 0x3e0,
}

const MASKED: u32 = 1 << 16;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const DELIVER_EXTERNAL: u32 = 7 << 8;
const DELIVER_NMI: u32 = 4 << 8;
const TIMER_DEADLINE: u32 = 2 << 17;
/// The timer counts the bus clock undivided.
const DIVIDE_BY_ONE: u32 = 0b1011;
const TSC_DEADLINE: u32 = 0x6e0;
const X2APIC_COMMAND: u32 = 0x830;

/// Who tells the CPU of device interrupts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// I/O APICs send messages.
    IoApics,
    /// The old controllers are wired to the first line of the CPU that boots.
    OldControllers,
}

/// The local APIC of the CPU that runs this.
#[derive(Clone, Copy)]
pub struct LocalApic {
    /// Address of its page, or `None` for MSRs.
    page: Option<u64>,
    deadline: bool,
}

impl LocalApic {
    /// Switches on the local APIC whose physical address is `address`.
    pub fn new(address: u64, cpu: &Cpu, devices: Devices, tables: &mut Kernel) -> Self {
        let (frame, flags) = ApicBase::read();
        let x2apic = cpu.has(Features::X2APIC);
        let mut flags = flags | ApicBaseFlags::LAPIC_ENABLE;
        // Firmware may have switched to x2APIC already; there is no direct way back.
        flags.set(ApicBaseFlags::X2APIC_ENABLE, x2apic);
        // SAFETY: enables what the CPU has, and leaves its page where it is.
        unsafe { ApicBase::write(frame, flags) };
        let page = (!x2apic).then(|| tables.map_direct(address, 4096, Memory::Device));

        let mut apic = Self {
            page,
            deadline: cpu.has(Features::TSC_DEADLINE),
        };
        apic.write(Register::TaskPriority, 0);
        apic.write(Register::Spurious, SOFTWARE_ENABLE | SPURIOUS_VECTOR as u32);
        apic.write(
            Register::Line0,
            match devices {
                Devices::IoApics => MASKED,
                Devices::OldControllers => DELIVER_EXTERNAL,
            },
        );
        apic.write(Register::Line1, DELIVER_NMI);
        apic.write(Register::Error, MASKED);
        apic.write(Register::DivideBy, DIVIDE_BY_ONE);
        let mode = if apic.deadline { TIMER_DEADLINE } else { 0 };
        apic.write(Register::Timer, mode | TIMER_VECTOR as u32);
        if apic.deadline {
            // The mode must be in force before the first deadline is written
            // (Intel SDM 3A 11.5.4.1).
            // SAFETY: a fence does nothing but wait.
            unsafe { core::arch::x86_64::_mm_mfence() };
        }
        apic
    }

    /// Its name as others see it.
    pub fn id(&self) -> u32 {
        match self.page {
            Some(_) => self.read(Register::Id) >> 24,
            None => self.read(Register::Id),
        }
    }

    /// Is it reached through MSRs?
    pub fn is_x2apic(&self) -> bool {
        self.page.is_none()
    }

    /// Does its timer compare with the time stamp counter?
    pub fn has_deadline(&self) -> bool {
        self.deadline
    }

    /// The interrupt that was taken last is done.
    #[inline]
    pub fn end_of_interrupt(&mut self) {
        self.write(Register::EndOfInterrupt, 0);
    }

    /// Sends this CPU an interrupt.
    pub fn interrupt_self(&mut self, vector: u8) {
        const TO_SELF: u32 = 1 << 18;
        const ASSERT: u32 = 1 << 14;
        let command = TO_SELF | ASSERT | vector as u32;
        match self.page {
            Some(_) => {
                self.write(Register::CommandHigh, 0);
                self.write(Register::CommandLow, command);
            }
            // SAFETY: sends an interrupt with a vector that has a gate.
            None => unsafe { Msr::new(X2APIC_COMMAND).write(command as u64) },
        }
    }

    /// Lets the timer run from `count` to zero once; zero stops it.
    #[inline]
    pub fn count_down(&mut self, count: u32) {
        self.write(Register::InitialCount, count);
    }

    /// What is left of the count.
    pub fn count(&self) -> u32 {
        self.read(Register::CurrentCount)
    }

    /// Asks for an interrupt when the time stamp counter reaches `deadline`;
    /// zero asks for none.
    #[inline]
    pub fn set_deadline(&mut self, deadline: u64) {
        // SAFETY: the register exists where `has_deadline` says so, and asking
        // for a timer interrupt is what this type is for.
        unsafe { Msr::new(TSC_DEADLINE).write(deadline) };
    }

    #[inline]
    fn read(&self, register: Register) -> u32 {
        match self.page {
            // SAFETY: a register within the page, which is mapped uncached.
            Some(page) => unsafe { ((page + register as u64) as *const u32).read_volatile() },
            // SAFETY: in x2APIC mode this register has this number.
            None => unsafe { Msr::new(0x800 + register as u32 / 16).read() as u32 },
        }
    }

    #[inline]
    fn write(&mut self, register: Register, value: u32) {
        match self.page {
            // SAFETY: a register within the page, which is mapped uncached; the
            // values written here only affect interrupts.
            Some(page) => unsafe { ((page + register as u64) as *mut u32).write_volatile(value) },
            // SAFETY: in x2APIC mode this register has this number.
            None => unsafe { Msr::new(0x800 + register as u32 / 16).write(value as u64) },
        }
    }
}

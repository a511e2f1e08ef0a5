//! The state of the FPU and vector units, kept for threads that use them.
//!
//! The kernel and native programs are compiled without FPU instructions. The
//! task-switched flag makes the first one of a thread raise #NM; the portable
//! kernel then gives the thread an area and decides whose state is loaded.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;

use microkernel::memory::PAGE_SIZE;
use x86_64::registers::control::{Cr0, Cr0Flags};

use super::cpu::{Cpu, Features};

/// What XSAVE may keep: x87, SSE, AVX and the three parts of AVX-512. Others
/// (AMX tiles, protection keys) are never switched on, so programs have none.
const KEPT: u64 = 0b1110_0111;

/// Where the control words lie in an area (Intel SDM 1, table 10-2).
const X87_CONTROL: usize = 0;
const MXCSR: usize = 24;

/// How this CPU keeps FPU state.
pub struct Fpu {
    /// The parts that XSAVE keeps, or `None` for FXSAVE.
    parts: Option<u64>,
    allowed: bool,
}

impl Fpu {
    /// Chooses the parts. FPU instructions are forbidden at first.
    pub fn new(cpu: &Cpu) -> Self {
        let mut this = Self {
            parts: None,
            allowed: false,
        };
        if cpu.has(Features::XSAVE) {
            let leaf = __cpuid_count(0xd, 0);
            let supported = u64::from(leaf.eax) | u64::from(leaf.edx) << 32;
            let mut parts = supported & KEPT;
            // AVX-512 goes with all its parts and AVX, or not at all.
            if parts & 0b1110_0100 != 0b1110_0100 {
                parts &= 0b111;
            }
            // SAFETY: CR4.OSXSAVE is on where the CPU has XSAVE, and `parts`
            // are supported and complete.
            unsafe {
                asm!("xsetbv", in("ecx") 0, in("eax") parts as u32, in("edx") (parts >> 32) as u32);
            }
            let bytes = u64::from(__cpuid_count(0xd, 0).ebx);
            assert!(bytes <= PAGE_SIZE, "the FPU state fits a page");
            this.parts = Some(parts);
            log::info!("FPU: XSAVE, {bytes} bytes, parts {parts:#x}");
        } else {
            log::info!("FPU: FXSAVE");
        }
        this
    }

    /// Lets FPU instructions work, or raise #NM.
    #[inline]
    pub fn allow(&mut self, allowed: bool) {
        if self.allowed != allowed {
            self.set_allowed(allowed);
        }
    }

    #[inline(never)]
    fn set_allowed(&mut self, allowed: bool) {
        self.allowed = allowed;
        // SAFETY: the flag has no other effect.
        unsafe {
            match allowed {
                true => asm!("clts", options(nomem, nostack, preserves_flags)),
                false => Cr0::write(Cr0::read() | Cr0Flags::TASK_SWITCHED),
            }
        }
    }

    /// Fills an area with the state of a fresh thread. A header of zeros says
    /// that every part is in its initial state; only the control words are not.
    ///
    /// # Safety
    /// `area` is a page that can be written.
    pub unsafe fn reset(&self, area: *mut u8) {
        // SAFETY: by the caller's word; the fields are aligned in a page.
        unsafe {
            area.write_bytes(0, PAGE_SIZE as usize);
            area.add(X87_CONTROL).cast::<u16>().write(0x37f);
            area.add(MXCSR).cast::<u32>().write(0x1f80);
        }
    }

    /// Stores the state in an area, whether FPU instructions are allowed or not.
    ///
    /// # Safety
    /// `area` is a page that can be written.
    pub unsafe fn save(&mut self, area: *mut u8) {
        let before = self.allowed;
        self.allow(true);
        // SAFETY: by the caller's word, and the state is at most a page.
        unsafe {
            match self.parts {
                Some(parts) => asm!(
                    "xsave64 [{}]", in(reg) area,
                    in("eax") parts as u32, in("edx") (parts >> 32) as u32,
                    options(nostack, preserves_flags),
                ),
                None => asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)),
            }
        }
        self.allow(before);
    }

    /// Loads the state from an area, whether FPU instructions are allowed or not.
    ///
    /// # Safety
    /// `area` is a page that holds what [`Fpu::reset`] or [`Fpu::save`] left there.
    pub unsafe fn load(&mut self, area: *const u8) {
        let before = self.allowed;
        self.allow(true);
        // SAFETY: by the caller's word nothing in it can raise an exception.
        unsafe {
            match self.parts {
                Some(parts) => asm!(
                    "xrstor64 [{}]", in(reg) area,
                    in("eax") parts as u32, in("edx") (parts >> 32) as u32,
                    options(nostack, preserves_flags, readonly),
                ),
                None => {
                    asm!("fxrstor64 [{}]", in(reg) area, options(nostack, preserves_flags, readonly))
                }
            }
        }
        self.allow(before);
    }
}

//! What this CPU can do, and switching on what we use of it.
//!
//! Required: long mode, no-execute pages, SYSCALL, a time stamp counter, FXSAVE
//! and a local APIC; every 64-bit PC has them. Used where present: SMEP, SMAP,
//! UMIP, FSGSBASE, XSAVE, 1 GiB pages, global pages, x2APIC, TSC deadline.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::fmt;

use bitflags::bitflags;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::model_specific::Msr;

bitflags! {
    /// CPU features that change what the kernel does.
    #[derive(Clone, Copy, Debug)]
    pub struct Features: u32 {
        /// Pages without execute permission.
        const NX = 1 << 0;
        /// The kernel cannot execute user pages.
        const SMEP = 1 << 1;
        /// The kernel cannot read or write user pages by mistake.
        const SMAP = 1 << 2;
        /// Programs cannot read descriptor table addresses.
        const UMIP = 1 << 3;
        /// Programs read and write their FS and GS bases themselves.
        const FSGSBASE = 1 << 4;
        /// Extensible FPU state.
        const XSAVE = 1 << 5;
        /// Pages of 1 GiB.
        const GIANT_PAGES = 1 << 6;
        /// Pages that survive a change of address space.
        const GLOBAL_PAGES = 1 << 7;
        /// The local APIC is reached by MSRs.
        const X2APIC = 1 << 8;
        /// The local APIC timer compares with the time stamp counter.
        const TSC_DEADLINE = 1 << 9;
        /// The time stamp counter never changes its pace or stops.
        const INVARIANT_TSC = 1 << 10;
        /// SYSCALL in long mode.
        const SYSCALL = 1 << 11;
        /// FXSAVE and SSE2.
        const SSE2 = 1 << 12;
        /// A local APIC.
        const APIC = 1 << 13;
    }
}

/// What the boot CPU is and can do.
#[derive(Clone, Copy)]
pub struct Cpu {
    /// What it can do.
    pub features: Features,
    /// Its speculative execution may read kernel memory from user mode.
    pub unprotected: bool,
    name: [u8; 48],
}

impl Cpu {
    /// Asks the CPU that runs this.
    pub fn detect() -> Self {
        let leaves = __cpuid(0).eax;
        let extended_leaves = __cpuid(0x8000_0000).eax;
        let one = __cpuid(1);
        let (seven_ebx, seven_ecx) = match leaves {
            7.. => (__cpuid_count(7, 0).ebx, __cpuid_count(7, 0).ecx),
            _ => (0, 0),
        };
        let extended = __cpuid(0x8000_0001);
        let power = if extended_leaves >= 0x8000_0007 {
            __cpuid(0x8000_0007).edx
        } else {
            0
        };

        let mut features = Features::empty();
        for (feature, register, bit) in [
            (Features::NX, extended.edx, 20),
            (Features::SMEP, seven_ebx, 7),
            (Features::SMAP, seven_ebx, 20),
            (Features::UMIP, seven_ecx, 2),
            (Features::FSGSBASE, seven_ebx, 0),
            (Features::XSAVE, one.ecx, 26),
            (Features::GIANT_PAGES, extended.edx, 26),
            (Features::GLOBAL_PAGES, one.edx, 13),
            (Features::X2APIC, one.ecx, 21),
            (Features::TSC_DEADLINE, one.ecx, 24),
            (Features::INVARIANT_TSC, power, 8),
            (Features::SYSCALL, extended.edx, 11),
            (Features::SSE2, one.edx, 26),
            (Features::APIC, one.edx, 9),
        ] {
            features.set(feature, register >> bit & 1 != 0);
        }
        Self {
            features,
            unprotected: leaks_kernel_memory(leaves),
            name: name(extended_leaves),
        }
    }

    /// Its name as the maker wrote it.
    pub fn name(&self) -> &str {
        let text = core::str::from_utf8(&self.name).unwrap_or("");
        match text.trim_matches(|c: char| c == '\0' || c == ' ') {
            "" => "unnamed CPU",
            name => name,
        }
    }

    /// Does it have all of these?
    pub fn has(&self, features: Features) -> bool {
        self.features.contains(features)
    }

    /// Switches on what we use of this CPU.
    ///
    /// # Panics
    /// When something is missing that the kernel cannot do without.
    pub fn enable(&self) {
        let required = Features::NX | Features::SYSCALL | Features::SSE2 | Features::APIC;
        let missing = required - self.features;
        assert!(
            missing.is_empty(),
            "this CPU lacks what Mitosis requires: {missing:?}"
        );

        let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
            | Cr4Flags::MACHINE_CHECK_EXCEPTION
            | Cr4Flags::OSFXSR
            | Cr4Flags::OSXMMEXCPT_ENABLE;
        for (feature, flag) in [
            (
                Features::SMEP,
                Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION,
            ),
            (Features::SMAP, Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION),
            (Features::UMIP, Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION),
            (Features::FSGSBASE, Cr4Flags::FSGSBASE),
            (Features::XSAVE, Cr4Flags::OSXSAVE),
            (Features::GLOBAL_PAGES, Cr4Flags::PAGE_GLOBAL),
        ] {
            cr4.set(flag, self.has(feature));
        }
        // SAFETY: only features that the CPU has are set; the kernel maps no
        // user pages and keeps its writes to writable pages, so SMEP, SMAP and
        // write protection take nothing away from it. TS and EM describe that
        // no thread owns the FPU yet; the kernel itself is compiled without it.
        unsafe {
            Efer::write(
                EferFlags::LONG_MODE_ENABLE
                    | EferFlags::LONG_MODE_ACTIVE
                    | EferFlags::NO_EXECUTE_ENABLE
                    | EferFlags::SYSTEM_CALL_EXTENSIONS,
            );
            Cr4::write_raw(cr4.bits());
            Cr0::write_raw(
                (Cr0Flags::PROTECTED_MODE_ENABLE
                    | Cr0Flags::MONITOR_COPROCESSOR
                    | Cr0Flags::EXTENSION_TYPE
                    | Cr0Flags::NUMERIC_ERROR
                    | Cr0Flags::TASK_SWITCHED
                    | Cr0Flags::WRITE_PROTECT
                    | Cr0Flags::ALIGNMENT_MASK
                    | Cr0Flags::PAGING)
                    .bits(),
            );
        }
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:", self.name())?;
        for (name, _) in self.features.iter_names() {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}

/// The brand string, or zeros.
fn name(extended_leaves: u32) -> [u8; 48] {
    let mut name = [0; 48];
    if extended_leaves >= 0x8000_0004 {
        for (leaf, part) in (0x8000_0002..=0x8000_0004).zip(name.chunks_exact_mut(16)) {
            let words = __cpuid(leaf);
            for (word, bytes) in [words.eax, words.ebx, words.ecx, words.edx]
                .into_iter()
                .zip(part.chunks_exact_mut(4))
            {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
    name
}

/// Would this CPU need separate page tables for kernel and programs (Meltdown)?
/// Makers other than Intel never built such CPUs for the PC, and Intel's newer
/// ones say so in IA32_ARCH_CAPABILITIES (RDCL_NO).
fn leaks_kernel_memory(leaves: u32) -> bool {
    let vendor = __cpuid(0);
    if (vendor.ebx, vendor.edx, vendor.ecx) != (0x756e_6547, 0x4965_6e69, 0x6c65_746e) {
        return false;
    }
    if leaves < 7 || __cpuid_count(7, 0).edx >> 29 & 1 == 0 {
        return true;
    }
    // SAFETY: CPUID just said that this register exists.
    let capabilities = unsafe { Msr::new(0x10a).read() };
    capabilities & 1 == 0
}

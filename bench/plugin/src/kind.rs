//! Which instructions are counted apart, because the plain count hides what they cost.

/// An instruction kind that is counted apart. The names are those of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `syscall`.
    Syscall,
    /// `sysret` and `iret`: ways out of the kernel.
    KernelExit,
    /// A load of CR3: another address space, or a flush of this one.
    Cr3Load,
    /// `invlpg`, or a load of CR4 (which flushes global entries).
    Flush,
    /// A locked instruction.
    Locked,
    /// Saving or restoring the FPU state.
    FpuState,
    /// Reading or writing an I/O port.
    Port,
    /// `hlt`: the machine was idle, and the clock jumped.
    Halt,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [(Kind, &'static str); 8] = [
        (Kind::Syscall, "syscalls"),
        (Kind::KernelExit, "kernel_exits"),
        (Kind::Cr3Load, "cr3_loads"),
        (Kind::Flush, "flushes"),
        (Kind::Locked, "locked"),
        (Kind::FpuState, "fpu_states"),
        (Kind::Port, "port_accesses"),
        (Kind::Halt, "halts"),
    ];

    /// The kind of the instruction with these bytes (64-bit mode; Intel SDM volume 2, appendix A).
    pub fn of(bytes: &[u8]) -> Option<Kind> {
        let mut rest = bytes;
        let (mut locked, mut rex) = (false, 0);
        loop {
            match rest {
                [0xf0, tail @ ..] => {
                    locked = true;
                    rest = tail;
                }
                [
                    0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf2 | 0xf3,
                    tail @ ..,
                ] => rest = tail,
                [prefix @ 0x40..=0x4f, tail @ ..] => {
                    rex = *prefix;
                    rest = tail;
                    break;
                }
                _ => break,
            }
        }
        // The register field of the byte behind the opcode, and whether it addresses memory.
        let field = |modrm: u8| (modrm >> 3 & 7, modrm < 0xc0);
        match *rest {
            [0x0f, 0x05, ..] => Some(Kind::Syscall),
            [0x0f, 0x07, ..] | [0xcf, ..] => Some(Kind::KernelExit),
            [0x0f, 0x22, modrm, ..] if rex & 4 == 0 => match field(modrm).0 {
                3 => Some(Kind::Cr3Load),
                4 => Some(Kind::Flush),
                _ => None,
            },
            [0x0f, 0x01, modrm, ..] if field(modrm) == (7, true) => Some(Kind::Flush),
            // fxsave, fxrstor, xsave, xrstor; xsaveopt is 6 (clflush is 7).
            [0x0f, 0xae, modrm, ..] if matches!(field(modrm), (0 | 1 | 4 | 5 | 6, true)) => {
                Some(Kind::FpuState)
            }
            // xrstors, xsavec, xsaves.
            [0x0f, 0xc7, modrm, ..] if matches!(field(modrm), (3..=5, true)) => {
                Some(Kind::FpuState)
            }
            [0xe4..=0xe7 | 0xec..=0xef | 0x6c..=0x6f, ..] => Some(Kind::Port),
            [0xf4, ..] => Some(Kind::Halt),
            // xchg with memory locks by itself.
            [0x86 | 0x87, modrm, ..] if field(modrm).1 => Some(Kind::Locked),
            _ if locked => Some(Kind::Locked),
            _ => None,
        }
    }
}

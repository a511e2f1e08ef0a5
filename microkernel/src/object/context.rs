//! The user registers of a thread.
//!
//! Plain data, so that portable code and its host tests can use it; the entry
//! code stores into it and loads from it directly, at the offsets in
//! [`offsets`], and nothing is copied in between. Arguments lie in the order of
//! the system call ABI, so that they are one array here.
//!
//! Invariant: loading it never lets a program out of user mode or makes the
//! kernel fault. The selectors are constant, `flags` holds only bits a program
//! may set plus the interrupt flag, and `rip` is an address of the user half.

use libipc::abi::{Registers, USER_END};

/// Selector of user code, with privilege level 3.
pub const USER_CODE: u64 = 0x23;
/// Selector of user data, with privilege level 3.
pub const USER_DATA: u64 = 0x1b;

/// Flags a program may set itself: carry, parity, adjust, zero, sign, trap,
/// direction, overflow, resume, alignment check, identification.
pub const USER_FLAGS: u64 = 0x25_0dd5;
/// Flags that are always set in user mode: the reserved bit 1 and interrupts.
const FIXED_FLAGS: u64 = 0x202;
/// The trap flag.
pub const TRAP_FLAG: u64 = 1 << 8;
/// The direction flag.
pub const DIRECTION_FLAG: u64 = 1 << 10;

/// The thread is in a `syscall` and may leave by `sysret`, because nobody has
/// set its rip or flags since. A thread that runs has this too, so that the way
/// in need not store it.
pub const ENTRY_SYSCALL: u64 = 256;
/// The thread must leave by `iretq`. Values below 256 mean the same and name
/// the vector by which it entered.
pub const ENTRY_CHANGED: u64 = 257;

/// The address lies outside of what a program may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideUser;

/// The user registers of a thread.
#[repr(C, align(16))]
#[derive(Clone, Debug)]
pub struct Context {
    rax: u64,
    /// rdi, rsi, rdx, r8, r9, r10, r12, r13, r14, r15
    arguments: [u64; 10],
    rbx: u64,
    rbp: u64,
    rcx: u64,
    r11: u64,
    entry: u64,
    error_code: u64,
    // From here on as the CPU pushes it; the stack it pushes to ends behind `ss`.
    rip: u64,
    cs: u64,
    flags: u64,
    rsp: u64,
    ss: u64,
    fs_base: u64,
    gs_base: u64,
}

/// Where the entry code finds the fields, in bytes.
pub mod offsets {
    use super::Context;
    use core::mem::offset_of;

    /// rax
    pub const RAX: usize = offset_of!(Context, rax);
    /// The ten argument registers.
    pub const ARGUMENTS: usize = offset_of!(Context, arguments);
    /// rbx
    pub const RBX: usize = offset_of!(Context, rbx);
    /// rbp
    pub const RBP: usize = offset_of!(Context, rbp);
    /// rcx
    pub const RCX: usize = offset_of!(Context, rcx);
    /// r11
    pub const R11: usize = offset_of!(Context, r11);
    /// How the thread entered the kernel.
    pub const ENTRY: usize = offset_of!(Context, entry);
    /// The exception's error code.
    pub const ERROR_CODE: usize = offset_of!(Context, error_code);
    /// rip
    pub const RIP: usize = offset_of!(Context, rip);
    /// The code selector.
    pub const CS: usize = offset_of!(Context, cs);
    /// rflags
    pub const FLAGS: usize = offset_of!(Context, flags);
    /// rsp
    pub const RSP: usize = offset_of!(Context, rsp);
    /// The stack selector.
    pub const SS: usize = offset_of!(Context, ss);
    /// One past what the CPU pushes.
    pub const FRAME_END: usize = offset_of!(Context, fs_base);
}

const _: () = {
    assert!(size_of::<Context>() == 192);
    // The CPU aligns the stack to 16 bytes before it pushes.
    assert!(offsets::FRAME_END.is_multiple_of(16));
    assert!(offsets::ENTRY + 56 == offsets::FRAME_END);
};

impl Context {
    /// A thread that starts at `rip` with stack pointer `rsp` and all other
    /// registers zero.
    pub fn new(rip: u64, rsp: u64) -> Result<Self, OutsideUser> {
        if rip >= USER_END {
            return Err(OutsideUser);
        }
        Ok(Self {
            rip,
            rsp,
            ..Self::ZERO
        })
    }

    /// A thread that starts at 0 with all registers zero.
    pub const ZERO: Self = Self {
        rax: 0,
        arguments: [0; 10],
        rbx: 0,
        rbp: 0,
        rcx: 0,
        r11: 0,
        entry: ENTRY_CHANGED,
        error_code: 0,
        rip: 0,
        cs: USER_CODE,
        flags: FIXED_FLAGS,
        rsp: 0,
        ss: USER_DATA,
        fs_base: 0,
        gs_base: 0,
    };

    /// The operation word of a system call (rax).
    #[inline]
    pub fn operation(&self) -> u64 {
        self.rax
    }

    /// The ten arguments of a plain call: rdi, rsi, rdx, r8, r9, r10, r12, r13, r14, r15.
    #[inline]
    pub fn arguments(&self) -> &[u64; 10] {
        &self.arguments
    }

    /// Sets the argument registers, for a thread's first instruction.
    pub fn set_arguments(&mut self, arguments: [u64; 10]) {
        self.arguments = arguments;
    }

    /// Sets the status word that the thread sees in rax.
    #[inline]
    pub fn set_status(&mut self, status: u64) {
        self.rax = status;
    }

    /// Sets the results of a plain call: status in rax, values in rdx and r8.
    #[inline]
    pub fn set_results(&mut self, status: u64, values: [u64; 2]) {
        self.rax = status;
        [self.arguments[2], self.arguments[3]] = values;
    }

    /// The first 64 bytes of a message body.
    #[inline]
    pub fn body(&self) -> &[u64; 8] {
        self.arguments
            .last_chunk()
            .expect("ten arguments hold eight words")
    }

    /// Sets the first 64 bytes of a received message body.
    #[inline]
    pub fn body_mut(&mut self) -> &mut [u64; 8] {
        self.arguments
            .last_chunk_mut()
            .expect("ten arguments hold eight words")
    }

    /// Sets what a receiver learns beside the body: status word, badge and label.
    #[inline]
    pub fn set_received(&mut self, status: u64, badge: u64, label: u64) {
        self.rax = status;
        self.arguments[0] = badge;
        self.arguments[1] = label;
    }

    /// The next instruction.
    #[inline]
    pub fn rip(&self) -> u64 {
        self.rip
    }

    /// Continues the thread elsewhere.
    pub fn set_rip(&mut self, rip: u64) -> Result<(), OutsideUser> {
        if rip >= USER_END {
            return Err(OutsideUser);
        }
        self.rip = rip;
        self.entry = ENTRY_CHANGED;
        Ok(())
    }

    /// Puts the thread's `syscall` back, so that it is made again when it runs.
    /// For calls that could not finish, such as one whose memory needs a pager.
    pub fn restart_syscall(&mut self) {
        // The instruction is two bytes long (0f 05). rip was behind it, so the
        // result is still an address of the user half.
        self.rip -= 2;
        self.entry = ENTRY_CHANGED;
    }

    /// The stack pointer.
    pub fn rsp(&self) -> u64 {
        self.rsp
    }

    /// Sets the stack pointer. Any value is harmless: only the program uses it.
    pub fn set_rsp(&mut self, rsp: u64) {
        self.rsp = rsp;
    }

    /// The flags.
    pub fn flags(&self) -> u64 {
        self.flags
    }

    /// Sets those flags that a program may set itself; the others stay as they must be.
    pub fn set_flags(&mut self, flags: u64) {
        self.flags = flags & USER_FLAGS | FIXED_FLAGS;
        self.entry = ENTRY_CHANGED;
    }

    /// The FS base as of the last time the thread left the CPU.
    #[inline]
    pub fn fs_base(&self) -> u64 {
        self.fs_base
    }

    /// The GS base as of the last time the thread left the CPU.
    #[inline]
    pub fn gs_base(&self) -> u64 {
        self.gs_base
    }

    /// Sets the FS base of a thread that is off its CPU.
    pub fn set_fs_base(&mut self, address: u64) -> Result<(), OutsideUser> {
        if address >= USER_END {
            return Err(OutsideUser);
        }
        self.fs_base = address;
        Ok(())
    }

    /// Sets the GS base of a thread that is off its CPU.
    pub fn set_gs_base(&mut self, address: u64) -> Result<(), OutsideUser> {
        if address >= USER_END {
            return Err(OutsideUser);
        }
        self.gs_base = address;
        Ok(())
    }

    /// Records the bases that the machine read. A program that sets its bases
    /// itself may choose any canonical address; the CPU has checked that.
    #[inline]
    pub fn record_bases(&mut self, fs_base: u64, gs_base: u64) {
        self.fs_base = fs_base;
        self.gs_base = gs_base;
    }

    /// How the thread entered the kernel: a vector, or [`ENTRY_SYSCALL`].
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// The error code of the exception by which the thread entered.
    pub fn error_code(&self) -> u64 {
        self.error_code
    }

    /// All registers. `syscall` itself puts rip into rcx and the flags into
    /// r11; the entry code does not store them twice.
    pub fn registers(&self) -> Registers {
        let (rcx, r11) = match self.entry {
            ENTRY_SYSCALL => (self.rip, self.flags),
            _ => (self.rcx, self.r11),
        };
        let [rdi, rsi, rdx, r8, r9, r10, r12, r13, r14, r15] = self.arguments;
        let &Context {
            rax,
            rbx,
            rbp,
            rip,
            rsp,
            flags: rflags,
            fs_base,
            gs_base,
            ..
        } = self;
        Registers {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip,
            rflags,
            fs_base,
            gs_base,
        }
    }

    /// Sets all registers. Nothing is changed when the instruction pointer or a
    /// base lies outside of the user half.
    pub fn set_registers(&mut self, all: &Registers) -> Result<(), OutsideUser> {
        if [all.rip, all.fs_base, all.gs_base]
            .iter()
            .any(|&address| address >= USER_END)
        {
            return Err(OutsideUser);
        }
        self.rax = all.rax;
        self.arguments = [
            all.rdi, all.rsi, all.rdx, all.r8, all.r9, all.r10, all.r12, all.r13, all.r14, all.r15,
        ];
        (self.rbx, self.rbp, self.rcx, self.r11) = (all.rbx, all.rbp, all.rcx, all.r11);
        (self.rip, self.rsp) = (all.rip, all.rsp);
        (self.fs_base, self.gs_base) = (all.fs_base, all.gs_base);
        self.set_flags(all.rflags);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_thread_leaves_the_kernel_by_iretq_with_interrupts_on() {
        let context = Context::new(0x1000, 0x2000).unwrap();
        assert_eq!(context.entry(), ENTRY_CHANGED);
        assert_eq!(context.flags(), 0x202);
        assert!(Context::new(USER_END, 0).is_err());
    }

    #[test]
    fn setting_rip_or_flags_forbids_sysret() {
        let mut context = Context::new(0x1000, 0).unwrap();
        context.entry = ENTRY_SYSCALL;
        context.set_results(0, [1, 2]);
        assert_eq!(context.entry(), ENTRY_SYSCALL);
        context.set_rip(0x1234).unwrap();
        assert_eq!(context.entry(), ENTRY_CHANGED);
        context.entry = ENTRY_SYSCALL;
        context.set_flags(0);
        assert_eq!(context.entry(), ENTRY_CHANGED);
    }

    #[test]
    fn flags_that_are_not_the_programs_cannot_be_set() {
        let mut context = Context::new(0x1000, 0).unwrap();
        context.set_flags(u64::MAX);
        assert_eq!(context.flags(), USER_FLAGS | 0x202);
        assert_eq!(
            context.flags() >> 12 & 7,
            0,
            "neither I/O privilege nor nested task"
        );
    }

    #[test]
    fn registers_outside_of_the_user_half_change_nothing() {
        let mut context = Context::new(0x1000, 0x2000).unwrap();
        let before = context.registers();
        let outside = 0xffff_8000_0000_0000;
        for change in [
            |all: &mut Registers, to| all.rip = to,
            |all: &mut Registers, to| all.fs_base = to,
            |all: &mut Registers, to| all.gs_base = to,
        ] {
            let mut all = Registers { rax: 7, ..before };
            change(&mut all, outside);
            assert_eq!(context.set_registers(&all), Err(OutsideUser));
            assert_eq!(context.registers(), before);
        }
    }

    #[test]
    fn registers_come_back_as_they_were_set() {
        let mut context = Context::new(0x1000, 0x2000).unwrap();
        let all = Registers {
            rax: 1,
            rbx: 2,
            rcx: 3,
            rdx: 4,
            rsi: 5,
            rdi: 6,
            rbp: 7,
            rsp: 8,
            r8: 9,
            r9: 10,
            r10: 11,
            r11: 12,
            r12: 13,
            r13: 14,
            r14: 15,
            r15: 16,
            rip: 17,
            rflags: 0x246,
            fs_base: 18,
            gs_base: 19,
        };
        context.set_registers(&all).unwrap();
        assert_eq!(context.registers(), all);
    }

    #[test]
    fn the_body_is_the_last_eight_arguments() {
        let mut context = Context::new(0x1000, 0x2000).unwrap();
        context.set_arguments(core::array::from_fn(|index| index as u64));
        assert_eq!(context.body(), &[2, 3, 4, 5, 6, 7, 8, 9]);
        context.set_received(1, 2, 3);
        assert_eq!(context.arguments()[..3], [2, 3, 2]);
    }
}

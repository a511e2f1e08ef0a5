//! The doors between programs and the kernel.
//!
//! ```text
//! syscall ─────────────┐                      ┌── sysretq   entered by syscall, rip and flags as they were
//! exception, interrupt ┼─ Context ─ Rust ─ Context
//!   from a program     │                      └── iretq     all else
//! interrupt while idle ┘ (nothing to save)
//! exception in the kernel, machine check, double fault: a panic
//! ```
//!
//! A program's registers are stored straight into the context of the running
//! thread: by the CPU itself, whose entry stack *is* that context, and by the
//! code here. The kernel keeps nothing on its own stack between two entries, so
//! each starts at its top, an idle CPU has nothing to come back to, and the
//! Rust part does not return: it ends in [`resume`] or [`idle`].
//!
//! Invariant: GS is the kernel's whenever the code segment is the kernel's,
//! except in the first and last instructions here, where only NMI, #MC, #DB and
//! #DF can come. Those have their own stacks and do not look at GS.

use core::arch::{asm, naked_asm};

use microkernel::object::context::{Context, ENTRY_SYSCALL, offsets};

use super::percpu::{self, PerCpu};
use super::{door, panic};

/// The first vector that is not an exception.
pub const FIRST_INTERRUPT: u8 = 32;

/// Bytes from one vector's stub to the next.
const STUB_BYTES: u64 = 16;

/// The address of a vector's entry point.
pub fn vector(vector: u8) -> u64 {
    let first = (vectors as *const ()).addr() as u64;
    assert!(first.is_multiple_of(STUB_BYTES), "the stubs are aligned");
    first + vector as u64 * STUB_BYTES
}

/// The registers after the frame, stored at `rsp`, which is the start of a
/// context or of something laid out like it.
macro_rules! store_registers {
    () => {
        "mov [rsp], rax
         mov [rsp + 8], rdi
         mov [rsp + 16], rsi
         mov [rsp + 24], rdx
         mov [rsp + 32], r8
         mov [rsp + 40], r9
         mov [rsp + 48], r10
         mov [rsp + 56], r12
         mov [rsp + 64], r13
         mov [rsp + 72], r14
         mov [rsp + 80], r15
         mov [rsp + 88], rbx
         mov [rsp + 96], rbp"
    };
}

/// The counterpart of [`store_registers`], from the context in rax; all but rax.
macro_rules! load_registers {
    () => {
        "mov rdi, [rax + 8]
         mov rsi, [rax + 16]
         mov rdx, [rax + 24]
         mov r8, [rax + 32]
         mov r9, [rax + 40]
         mov r10, [rax + 48]
         mov r12, [rax + 56]
         mov r13, [rax + 64]
         mov r14, [rax + 72]
         mov r15, [rax + 80]
         mov rbx, [rax + 88]
         mov rbp, [rax + 96]"
    };
}

const _: () = {
    assert!(offsets::RAX == 0 && offsets::ARGUMENTS == 8);
    assert!(offsets::RBX == 88 && offsets::RBP == 96);
};

/// Where SYSCALL enters: rcx is the program's rip, r11 its flags, and nothing
/// else has changed, not even the stack. The way back of all entries is its end.
///
/// # Safety
/// Only the CPU enters here.
#[unsafe(naked)]
pub unsafe extern "C" fn syscall() {
    naked_asm!(
        "swapgs",
        "mov gs:[{scratch}], rsp",
        "mov rsp, gs:[{context}]",
        store_registers!(),
        "mov [rsp + {rip}], rcx",
        "mov [rsp + {flags}], r11",
        "mov rax, gs:[{scratch}]",
        "mov [rsp + {rsp}], rax",
        "mov rsp, gs:[{stack}]",
        "call {handler}",
        // Back to the program whose context is in rax: where every handler ends,
        // on any kernel stack, with interrupts off.
        ".global leave_kernel",
        "leave_kernel:",
        load_registers!(),
        "cmp dword ptr [rax + {entry}], {by_syscall}",
        "jne 2f",
        // rip is canonical: syscall left it behind itself, and the last page of
        // the user half has no instructions. So SYSRET cannot fault here, where
        // it would do so with the program's stack.
        "mov rcx, [rax + {rip}]",
        "mov r11, [rax + {flags}]",
        "mov rsp, [rax + {rsp}]",
        "mov rax, [rax]",
        "swapgs",
        "sysretq",
        "2:",
        "mov rcx, [rax + {rip}]",
        "shr rcx, 47",
        "jnz 3f",
        // What the next entry will be, if no vector says another.
        "mov qword ptr [rax + {entry}], {by_syscall}",
        "mov rcx, [rax + {rcx}]",
        "mov r11, [rax + {r11}]",
        "lea rsp, [rax + {rip}]",
        "mov rax, [rax]",
        "swapgs",
        "iretq",
        // A jump outside of the canonical addresses faults with rip already
        // there (on AMD's CPUs and in QEMU). IRETQ would fault in the kernel;
        // the program has its fault once more instead.
        "3:",
        "mov qword ptr [rax + {entry}], 13",
        "mov qword ptr [rax + {error_code}], 0",
        "mov rdi, rax",
        "mov rsp, gs:[{stack}]",
        "call {on_vector}",
        scratch = const percpu::SCRATCH,
        context = const percpu::CONTEXT,
        stack = const percpu::STACK,
        rip = const offsets::RIP,
        flags = const offsets::FLAGS,
        entry = const offsets::ENTRY,
        rsp = const offsets::RSP,
        rcx = const offsets::RCX,
        r11 = const offsets::R11,
        error_code = const offsets::ERROR_CODE,
        by_syscall = const ENTRY_SYSCALL,
        handler = sym door::on_syscall,
        on_vector = sym door::on_vector,
    )
}

/// The stubs of all vectors, [`STUB_BYTES`] apart. Each completes what the CPU
/// pushed to `entry, error code, rip, cs, flags, rsp, ss`.
///
/// # Safety
/// Only the CPU enters here.
#[unsafe(naked)]
unsafe extern "C" fn vectors() {
    // AT&T syntax because only there a symbol after `$` is surely a number.
    naked_asm!(
        ".set vector, 0",
        ".rept 256",
        ".balign 16, 0xcc",
        // The exceptions that come with an error code.
        ".if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)",
        ".else",
        "pushq $0",
        ".endif",
        ".byte 0x68",
        ".long vector",
        "jmp {common}",
        ".set vector, vector + 1",
        ".endr",
        common = sym common,
        options(att_syntax),
    )
}

/// What all vectors without their own stack do.
///
/// # Safety
/// Entered from [`vectors`] only.
#[unsafe(naked)]
unsafe extern "C" fn common() {
    naked_asm!(
        "test byte ptr [rsp + {cs}], 3",
        "jz 2f",
        // From a program: rsp points into its thread's context.
        "swapgs",
        "sub rsp, {entry}",
        "jmp {store}",
        // From the kernel: an interrupt of the idle loop, or a bug.
        "2:",
        "cmp dword ptr [rsp], {first_interrupt}",
        "jb {fatal}",
        "mov edi, [rsp]",
        "mov rsp, gs:[{stack}]",
        "cld",
        "call {handler}",
        cs = const offsets::CS - offsets::ENTRY,
        entry = const offsets::ENTRY,
        first_interrupt = const FIRST_INTERRUPT,
        stack = const percpu::STACK,
        store = sym store,
        fatal = sym fatal,
        handler = sym door::on_wake,
    )
}

/// The rest of an entry from a program by a vector; rsp is the start of the
/// context, whose frame is complete, and GS is the kernel's.
///
/// # Safety
/// Entered by jumps only.
#[unsafe(naked)]
unsafe extern "C" fn store() {
    naked_asm!(
        store_registers!(),
        "mov [rsp + {rcx}], rcx",
        "mov [rsp + {r11}], r11",
        "mov rdi, rsp",
        "mov rsp, gs:[{stack}]",
        // The program's direction and alignment check flags must not be ours.
        "push 2",
        "popfq",
        "call {handler}",
        rcx = const offsets::RCX,
        r11 = const offsets::R11,
        stack = const percpu::STACK,
        handler = sym door::on_vector,
    )
}

/// #DB, on its own stack.
///
/// # Safety
/// Only the CPU enters here.
#[unsafe(naked)]
pub unsafe extern "C" fn debug() {
    naked_asm!(
        "test byte ptr [rsp + 8], 3",
        "jz 2f",
        // From a program: move the frame to where the others put theirs.
        "swapgs",
        "mov gs:[{scratch}], rax",
        "mov rax, gs:[{context}]",
        "pop qword ptr [rax + {rip}]",
        "pop qword ptr [rax + {cs}]",
        "pop qword ptr [rax + {flags}]",
        "pop qword ptr [rax + {rsp}]",
        "pop qword ptr [rax + {ss}]",
        "mov qword ptr [rax + {entry}], 1",
        "mov rsp, rax",
        // What happened serves as the error code; the CPU never clears it.
        "mov rax, dr6",
        "mov [rsp + {error_code}], rax",
        "mov eax, 0xffff0ff0",
        "mov dr6, rax",
        "mov rax, gs:[{scratch}]",
        "jmp {store}",
        // From the kernel: a program's breakpoint that came too late, behind an
        // instruction that holds it up (mov ss) and a syscall. It is void here.
        "2:",
        "push rax",
        "mov eax, 0xffff0ff0",
        "mov dr6, rax",
        "pop rax",
        "iretq",
        scratch = const percpu::SCRATCH,
        context = const percpu::CONTEXT,
        rip = const offsets::RIP,
        cs = const offsets::CS,
        flags = const offsets::FLAGS,
        rsp = const offsets::RSP,
        ss = const offsets::SS,
        entry = const offsets::ENTRY,
        error_code = const offsets::ERROR_CODE,
        store = sym store,
    )
}

/// NMI, on its own stack; returns to wherever it came from.
///
/// # Safety
/// Only the CPU enters here.
#[unsafe(naked)]
pub unsafe extern "C" fn nmi() {
    naked_asm!(
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "cld",
        // Behind nine registers and the frame of five words: the CPU's data.
        "mov rdi, [rsp + 112]",
        "call {handler}",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "iretq",
        handler = sym on_nmi,
    )
}

extern "C" fn on_nmi(cpu: &PerCpu) {
    percpu::count_nmi(cpu);
}

/// #DF, on its own stack.
///
/// # Safety
/// Only the CPU enters here.
#[unsafe(naked)]
pub unsafe extern "C" fn double_fault() {
    naked_asm!("push 8", "jmp {fatal}", fatal = sym fatal)
}

/// #MC, on its own stack.
///
/// # Safety
/// Only the CPU enters here.
#[unsafe(naked)]
pub unsafe extern "C" fn machine_check() {
    naked_asm!("push 0", "push 18", "jmp {fatal}", fatal = sym fatal)
}

/// An exception that the kernel does not survive. Stores all registers the way
/// a context has them, for the panic message.
///
/// # Safety
/// Entered by jumps only, with a complete frame at rsp.
#[unsafe(naked)]
unsafe extern "C" fn fatal() {
    naked_asm!(
        "sub rsp, {entry}",
        store_registers!(),
        "mov [rsp + {rcx}], rcx",
        "mov [rsp + {r11}], r11",
        "cld",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {handler}",
        "ud2",
        entry = const offsets::ENTRY,
        rcx = const offsets::RCX,
        r11 = const offsets::R11,
        handler = sym panic::on_fatal,
    )
}

/// Goes on with the program whose context was set last on this CPU.
///
/// # Safety
/// GS is the kernel's, interrupts are off, and `context` keeps the invariant of
/// [`Context`]. Everything on the current stack is given up.
#[inline(always)]
pub unsafe fn resume(context: *mut Context) -> ! {
    // SAFETY: `leave_kernel` wants just this, by the caller's word.
    unsafe { asm!("jmp leave_kernel", in("rax") context, options(noreturn)) }
}

/// Sleeps until an interrupt, which starts at the top of the kernel's stack.
///
/// # Safety
/// As for [`resume`], and no lock is held.
#[inline(always)]
pub unsafe fn idle() -> ! {
    // SAFETY: an interrupt here throws the stack away, which the caller allows;
    // only an NMI comes back.
    unsafe {
        asm!(
            "mov rsp, gs:[{stack}]",
            "2:",
            "sti",
            "hlt",
            "jmp 2b",
            stack = const percpu::STACK,
            options(noreturn),
        )
    }
}

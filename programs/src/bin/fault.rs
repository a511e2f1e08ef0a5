//! fault KIND: does something that the machine refuses, for tests of how a process ends by it.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::arch::asm;

use runtime::{eprintln, start};

runtime::entry!(run);

fn run() -> i32 {
    // SAFETY: each of these faults, and a fault ends the process; nothing is carried out.
    unsafe {
        match start::argument(1) {
            Some("read") => asm!("mov al, [{}]", in(reg) 8u64, out("al") _),
            Some("write") => asm!("mov byte ptr [{}], 1", in(reg) 8u64),
            Some("text") => asm!("mov byte ptr [{}], 1", in(reg) run as *const () as u64),
            Some("kernel") => asm!("mov al, [{}]", in(reg) 0xffff_ffff_8020_0000u64, out("al") _),
            Some("execute") => {
                let data = [0x90u8, 0xc3];
                asm!("call {}", in(reg) data.as_ptr(), clobber_abi("C"));
            }
            Some("privileged") => asm!("hlt"),
            Some("invalid") => asm!("ud2"),
            Some("divide") => {
                asm!("xor ecx, ecx", "div ecx", out("ecx") _, out("eax") _, out("edx") _)
            }
            Some("breakpoint") => asm!("int3"),
            Some("stack") => asm!("2: push rax", "jmp 2b"),
            Some("panic") => panic!("asked to"),
            _ => {
                eprintln!(
                    "usage: fault read|write|text|kernel|execute|privileged|invalid|divide|breakpoint|stack|panic"
                );
                return 2;
            }
        }
    }
    eprintln!("fault: nothing happened");
    1
}

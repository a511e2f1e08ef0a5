# Commands for debugging Mitosis, loaded by `cargo xtask gdb`.

set disassembly-flavor intel
set print asm-demangle on
set pagination off
set confirm off

define klog
    shell tail -n 40 target/bare/gdb.log
end
document klog
Shows the last lines that the machine wrote to its serial port.
end

define program
    add-symbol-file target/bare/native/x86_64-unknown-none/release/$arg0
end
document program
program NAME: loads the symbols of a native program, for example `program sh`.
All programs are linked at one address: break on what the loaded one is known to run.
end

define machine
    monitor info registers
end
document machine
Shows all registers, those of the system too (CR0 to CR4, EFER, descriptor tables).
end

define mappings
    monitor info mem
end
document mappings
Shows what the current address space maps, with rights.
end

define interrupts
    monitor info pic
    monitor info lapic
end
document interrupts
Shows the interrupt controllers.
end

define on-panic
    break rust_begin_unwind
    continue
end
document on-panic
Runs until the kernel panics, and stops there with its stack intact.
end

echo The machine stands at its first instruction. Own commands: klog, program, machine, mappings, interrupts, on-panic.\n

//! The kernel's binary: the machine in `arch`, and the order in which it boots.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod arch;

#[cfg(target_os = "none")]
fn run(info: microkernel::boot::BootInfo) -> ! {
    log::info!("memory: {} MiB free", info.memory.usable_bytes() >> 20);
    if info.option("test") == Some("panic") {
        panic!("asked for by test=panic");
    }
    panic!("nothing to do");
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program runs on Mitosis only");
}

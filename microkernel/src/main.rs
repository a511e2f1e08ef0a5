//! The kernel's binary: the machine in `arch`, and the order in which it boots.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod arch;

/// The rest of the boot, once the machine is up: memory, init, and never back.
#[cfg(target_os = "none")]
fn boot(
    hardware: arch::x86_64::Hardware,
    mut info: microkernel::boot::BootInfo,
    platform: microkernel::boot::Platform,
    archive: &'static [u8],
) -> ! {
    use microkernel::boot;
    use microkernel::kernel::Kernel;

    let memory = boot::ram::memory(hardware, &mut info);
    log::info!(
        "memory: {} MiB for programs",
        memory.statistics().frames_total >> 8
    );
    if info.option("test") == Some("panic") {
        panic!("asked for by test=panic");
    }
    let mut kernel = Kernel::new(memory);
    boot::first::start_init(&mut kernel, &info, &platform, archive);
    let next = kernel.start();
    arch::x86_64::run(kernel, next)
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program runs on Mitosis only");
}

//! The kernel's binary: the machine in `arch`, and the order in which it boots.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod arch;

/// The rest of the boot, once the machine is up.
#[cfg(target_os = "none")]
fn boot(
    hardware: arch::x86_64::Hardware,
    mut info: microkernel::boot::BootInfo,
    _platform: microkernel::boot::Platform,
    _archive: &'static [u8],
) -> ! {
    use microkernel::boot;

    let memory = boot::ram::memory(hardware, &mut info);
    log::info!(
        "memory: {} MiB for programs",
        memory.statistics().frames_total >> 8
    );
    if info.option("test") == Some("panic") {
        panic!("asked for by test=panic");
    }
    panic!("there is no first program yet");
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program runs on Mitosis only");
}

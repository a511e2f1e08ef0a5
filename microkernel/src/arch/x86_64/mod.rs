//! The PC: everything that knows registers, descriptor tables, ports and chips.

mod acpi;
mod cpu;
mod descriptors;
mod door;
mod entry;
mod fpu;
mod hardware;
mod image;
mod layout;
mod limine;
mod lines;
mod local_apic;
mod paging;
mod panic;
mod percpu;
mod power;
mod pvh;
mod serial;
mod time;

use microkernel::boot::{self, BootInfo, Door, PhysicalSpan, RegionKind};

use cpu::Cpu;
pub use door::run;
pub use hardware::Hardware;

/// Where both doors meet: on the boot stack, with page tables that map physical
/// memory at `offset`, interrupts off. Brings up the machine and goes on with
/// the boot in `main.rs`.
fn start(mut info: BootInfo, offset: u64) -> ! {
    log::info!(
        "Mitosis {}, started by {}",
        env!("CARGO_PKG_VERSION"),
        door_name(info.door)
    );

    let cpu = Cpu::detect();
    log::info!("CPU: {cpu}");
    if cpu.unprotected {
        log::warn!(
            "CPU: unprotected: it would need page-table isolation (Meltdown), which Mitosis does not have"
        );
    }
    cpu.enable();

    claim(&mut info);
    let root = paging::take_over(&mut info, offset, &cpu);
    info.memory.reclaim_loader();
    // SAFETY: this is the boot CPU, it comes here once, and only it knows the root.
    let (hardware, platform) = unsafe { Hardware::new(root, &mut info, &cpu) };
    let archive = archive(&info);
    if let Some(symbols) = boot::archive::find(archive, "kernel.symbols") {
        panic::set_symbols(symbols);
    }
    crate::boot(hardware, info, platform, archive)
}

/// The boot archive in the direct map; empty if there is none. It is never
/// changed: programs get it to read only.
fn archive(info: &BootInfo) -> &'static [u8] {
    let Some(PhysicalSpan { start, bytes }) = info.archive else {
        return &[];
    };
    // SAFETY: the direct map holds it for ever, and nobody writes there.
    unsafe { core::slice::from_raw_parts(layout::direct(start) as *const u8, bytes as usize) }
}

/// Marks what of the memory is in use before anything is taken from it.
fn claim(info: &mut BootInfo) {
    let kernel = info.kernel;
    info.memory
        .add(kernel.start, kernel.bytes, RegionKind::Kernel)
        .expect("few memory regions");
    if let Some(archive) = info.archive {
        info.memory
            .add(archive.start, archive.bytes, RegionKind::Archive)
            .expect("few memory regions");
    }
}

fn door_name(door: Door) -> &'static str {
    match door {
        Door::Pvh => "PVH",
        Door::Limine => "Limine",
    }
}

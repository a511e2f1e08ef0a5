//! The PC: everything that knows registers, descriptor tables, ports and chips.

pub mod cpu;
mod descriptors;
mod door;
mod entry;
mod image;
mod layout;
mod limine;
mod paging;
mod panic;
mod percpu;
mod power;
mod pvh;
mod serial;

use microkernel::boot::{BootInfo, Door, RegionKind};

use cpu::Cpu;

/// Where both doors meet: on the boot stack, with page tables that map physical
/// memory at `offset`, interrupts off. Brings up the machine.
fn start(mut info: BootInfo, offset: u64) -> ! {
    log::info!(
        "Mitosis {}, started by {}",
        env!("CARGO_PKG_VERSION"),
        door_name(info.door)
    );

    let cpu = Cpu::detect();
    log::info!("CPU: {cpu}");
    cpu.enable();
    if cpu.unprotected {
        log::warn!(
            "CPU: unprotected: this CPU would need page-table isolation (Meltdown), which Mitosis does not have"
        );
    }

    claim(&mut info);
    let root = paging::take_over(&mut info, offset, &cpu);
    info.memory.reclaim_loader();
    // SAFETY: these are the tables just made, and only we know them.
    let mut tables = unsafe { paging::open(root, &mut info.memory, &cpu) };
    // SAFETY: this is the boot CPU, and it comes here once.
    unsafe { percpu::init_boot_cpu(&mut tables) };
    crate::run(info)
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

//! What the ACPI tables say of the machine: interrupt controllers, timers,
//! reset. Read once at boot; nothing here interprets AML.

use core::cell::RefCell;
use core::ptr::NonNull;

use acpi::address::{AddressSpace, GenericAddress};
use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiHandler, AcpiTables, HpetInfo, PhysicalMapping};
use heapless::Vec;

use microkernel::boot::Platform;

use super::layout;
use super::paging::{Kernel, Memory};

/// I/O interrupt controllers that are kept.
const IO_APICS: usize = 8;
/// Interrupt lines that ISA devices have.
pub const ISA_LINES: usize = 16;

/// An I/O interrupt controller.
#[derive(Clone, Copy, Debug)]
pub struct IoApic {
    /// Physical address of its registers.
    pub address: u64,
    /// The global number of its first input.
    pub first: u32,
}

/// How an interrupt line reaches an I/O interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The global number of the input.
    pub input: u32,
    /// Asserted by a low voltage.
    pub active_low: bool,
    /// Asserted as long as the device wants something, not only when it begins to.
    pub level: bool,
}

/// Writes that reset the machine.
#[derive(Clone, Copy, Debug)]
pub struct ResetRegister {
    /// Where.
    pub register: GenericAddress,
    /// What.
    pub value: u8,
}

/// What the tables say.
pub struct Machine {
    /// Physical address of the local APICs.
    pub local_apic: u64,
    /// The I/O interrupt controllers.
    pub io_apics: Vec<IoApic, IO_APICS>,
    /// How the lines of ISA devices are wired.
    pub isa: [Wire; ISA_LINES],
    /// Physical address of the event timer.
    pub hpet: Option<u64>,
    /// I/O port of the power management timer, and whether it counts 32 bits.
    pub pm_timer: Option<(u16, bool)>,
    /// How to reset the machine.
    pub reset: Option<ResetRegister>,
    /// What a server that drives the machine wants to know.
    pub platform: Platform,
}

impl Machine {
    /// A machine without tables: what every PC has had since there were local APICs.
    fn unknown() -> Self {
        Self {
            local_apic: 0xfee0_0000,
            io_apics: Vec::new(),
            isa: core::array::from_fn(|line| Wire {
                input: line as u32,
                active_low: false,
                level: false,
            }),
            hpet: None,
            pm_timer: None,
            reset: None,
            platform: Platform {
                cpus: 1,
                ..Platform::default()
            },
        }
    }

    /// Reads the tables below the root pointer at `rsdp`.
    pub fn read(rsdp: Option<u64>, tables: &RefCell<Kernel>) -> Self {
        let mut machine = Self::unknown();
        let Some(rsdp) = rsdp else {
            log::warn!("ACPI: no tables");
            return machine;
        };
        // SAFETY: whoever started us says that the root pointer is there; the
        // crate checks its sum before it follows it.
        let acpi = match unsafe { AcpiTables::from_rsdp(Mapper(tables), rsdp as usize) } {
            Ok(acpi) => acpi,
            Err(error) => {
                log::warn!("ACPI: unusable tables: {error:?}");
                return machine;
            }
        };
        if let Ok(madt) = acpi.find_table::<Madt>() {
            machine.read_madt(&madt);
        }
        machine.hpet = HpetInfo::new(&acpi)
            .ok()
            .map(|hpet| hpet.base_address as u64);
        if let Ok(fadt) = acpi.find_table::<Fadt>() {
            machine.read_fadt(&fadt);
        }
        log::info!(
            "ACPI: {} CPU(s), {} I/O APIC(s){}{}",
            machine.platform.cpus,
            machine.io_apics.len(),
            if machine.hpet.is_some() { ", HPET" } else { "" },
            if machine.pm_timer.is_some() {
                ", PM timer"
            } else {
                ""
            },
        );
        machine
    }

    fn read_madt(&mut self, madt: &PhysicalMapping<Mapper, Madt>) {
        const ENABLED_OR_CAPABLE: u32 = 3;
        let mut cpus = 0;
        self.local_apic = madt.get().local_apic_address as u64;
        for entry in madt.get().entries() {
            match entry {
                MadtEntry::LocalApic(entry) => {
                    cpus += (entry.flags & ENABLED_OR_CAPABLE != 0) as u32;
                }
                MadtEntry::LocalX2Apic(entry) => {
                    cpus += (entry.flags & ENABLED_OR_CAPABLE != 0) as u32;
                }
                MadtEntry::LocalApicAddressOverride(entry) => {
                    self.local_apic = entry.local_apic_address;
                }
                MadtEntry::IoApic(entry) => {
                    // More than we keep have lines that we do not use.
                    let _ = self.io_apics.push(IoApic {
                        address: entry.io_apic_address as u64,
                        first: entry.global_system_interrupt_base,
                    });
                }
                MadtEntry::InterruptSourceOverride(entry) if (entry.irq as usize) < ISA_LINES => {
                    // ACPI 6.5, table 5.26: 1 and 3 mean high and low, edge and level;
                    // 0 means what the bus does: high and edge.
                    self.isa[entry.irq as usize] = Wire {
                        input: entry.global_system_interrupt,
                        active_low: entry.flags & 3 == 3,
                        level: entry.flags >> 2 & 3 == 3,
                    };
                }
                _ => {}
            }
        }
        self.platform.cpus = cpus.max(1);
    }

    fn read_fadt(&mut self, fadt: &Fadt) {
        let port = |register: &GenericAddress| {
            let is_port = register.address_space == AddressSpace::SystemIo;
            is_port
                .then_some(register.address as u16)
                .filter(|&port| port != 0)
        };
        let flags = fadt.flags;
        if let Ok(Some(register)) = fadt.pm_timer_block() {
            self.pm_timer = port(&register).map(|port| (port, flags.pm_timer_is_32_bit()));
        }
        if flags.supports_system_reset_via_fadt() {
            self.reset = fadt.reset_register().ok().map(|register| ResetRegister {
                register,
                value: fadt.reset_value,
            });
        }
        self.platform.dsdt = fadt.dsdt_address().unwrap_or(0) as u64;
        self.platform.pm1_control = [
            fadt.pm1a_control_block()
                .ok()
                .as_ref()
                .and_then(port)
                .unwrap_or(0),
            fadt.pm1b_control_block()
                .ok()
                .flatten()
                .as_ref()
                .and_then(port)
                .unwrap_or(0),
        ];
    }
}

/// Shows the crate physical memory, through the direct map.
#[derive(Clone, Copy)]
struct Mapper<'a, 'k>(&'a RefCell<Kernel<'k>>);

impl AcpiHandler for Mapper<'_, '_> {
    unsafe fn map_physical_region<T>(
        &self,
        physical_address: usize,
        size: usize,
    ) -> PhysicalMapping<Self, T> {
        let (start, bytes) = (physical_address as u64, size as u64);
        let address = self.0.borrow_mut().map_direct(start, bytes, Memory::Normal);
        debug_assert_eq!(address, layout::direct(start));
        let address = NonNull::new(address as *mut T).expect("the direct map is not at zero");
        // SAFETY: all of the range is mapped, for ever.
        unsafe { PhysicalMapping::new(physical_address, address, size, size, *self) }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {
        // The direct map is permanent.
    }
}

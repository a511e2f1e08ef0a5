//! Device interrupts: from a line's number to a vector of this CPU.
//!
//! Line n below 16 is what ISA devices call IRQ n; from 16 on it is input n of
//! the I/O APICs. A line is masked when its interrupt is taken and stays so
//! until the kernel unmasks it. A level line is masked at the controller. An
//! edge would be lost there, so an edge line is masked here: what comes in the
//! meantime is remembered and sent again when the line is unmasked.

use heapless::Vec;
use x86_64::instructions::port::Port;

use super::acpi::{ISA_LINES, IoApic, Machine, Wire};
use super::entry::FIRST_INTERRUPT;
use super::local_apic::{Devices, LocalApic};
use super::paging::{Kernel, Memory};

/// How many lines there are.
pub const LINES: u32 = 24;

const SELECT: u64 = 0;
const WINDOW: u64 = 0x10;
const VERSION: u32 = 1;
const FIRST_ENTRY: u32 = 0x10;
const MASKED: u64 = 1 << 16;
const LEVEL: u64 = 1 << 15;
const ACTIVE_LOW: u64 = 1 << 13;

/// The lines and the controllers behind them.
pub struct Lines {
    controllers: Controllers,
    state: [State; LINES as usize],
}

/// What a line's interrupts meet here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Masked at the controller since boot.
    Unused,
    /// Goes through.
    Open,
    /// Masked; nothing came since.
    Masked,
    /// Masked; something came since.
    Pending,
}

enum Controllers {
    IoApics {
        apics: Vec<(u64, IoApic), 8>,
        isa: [Wire; ISA_LINES],
        target: u32,
    },
    Old(OldControllers),
}

/// Who delivers device interrupts on this machine?
pub fn devices(machine: &Machine) -> Devices {
    match machine.io_apics.is_empty() {
        false => Devices::IoApics,
        true => Devices::OldControllers,
    }
}

/// The line whose interrupts have this vector.
pub fn line(vector: u8) -> Option<u32> {
    let line = u32::from(vector).checked_sub(u32::from(FIRST_INTERRUPT))?;
    (line < LINES).then_some(line)
}

impl Lines {
    /// Masks all lines, and routes them to the CPU with this local APIC.
    pub fn new(
        old: OldControllers,
        machine: &Machine,
        apic: &LocalApic,
        tables: &mut Kernel,
    ) -> Self {
        let controllers = match devices(machine) {
            Devices::OldControllers => Controllers::Old(old),
            Devices::IoApics => {
                let apics = machine
                    .io_apics
                    .iter()
                    .map(|apic| (tables.map_direct(apic.address, 4096, Memory::Device), *apic))
                    .collect();
                Controllers::IoApics {
                    apics,
                    isa: machine.isa,
                    target: apic.id(),
                }
            }
        };
        let mut lines = Self {
            controllers,
            state: [State::Unused; LINES as usize],
        };
        for line in 0..LINES {
            lines.mask_controller(line, true);
        }
        lines
    }

    /// A line's interrupt was taken. Returns whether the kernel is to know.
    pub fn taken(&mut self, line: u32, apic: &mut LocalApic) -> bool {
        match &mut self.controllers {
            Controllers::Old(old) => {
                if !old.taken(line) {
                    return false;
                }
            }
            Controllers::IoApics { .. } => {
                if self.wire(line).level {
                    self.mask_controller(line, true);
                }
                apic.end_of_interrupt();
            }
        }
        let state = &mut self.state[line as usize];
        let known = *state == State::Open;
        *state = if known { State::Masked } else { State::Pending };
        known
    }

    /// Keeps a line from the kernel.
    pub fn mask(&mut self, line: u32) {
        if self.state[line as usize] == State::Open {
            self.state[line as usize] = State::Masked;
            if self.is_masked_at_controller(line) {
                self.mask_controller(line, true);
            }
        }
    }

    /// Lets a line through, and what came since it was masked.
    pub fn unmask(&mut self, line: u32, apic: &mut LocalApic) {
        let before = core::mem::replace(&mut self.state[line as usize], State::Open);
        if before == State::Unused || before != State::Open && self.is_masked_at_controller(line) {
            self.mask_controller(line, false);
        } else if before == State::Pending {
            apic.interrupt_self(FIRST_INTERRUPT + line as u8);
        }
    }

    /// Does the controller itself keep a masked line back? The old ones always
    /// do: they remember an edge that comes meanwhile.
    fn is_masked_at_controller(&self, line: u32) -> bool {
        match self.controllers {
            Controllers::Old(_) => true,
            Controllers::IoApics { .. } => self.wire(line).level,
        }
    }

    fn wire(&self, line: u32) -> Wire {
        match &self.controllers {
            Controllers::IoApics { isa, .. } if (line as usize) < ISA_LINES => isa[line as usize],
            // Behind the ISA lines are those of PCI devices.
            _ => Wire {
                input: line,
                active_low: true,
                level: true,
            },
        }
    }

    fn mask_controller(&mut self, line: u32, masked: bool) {
        let wire = self.wire(line);
        match &mut self.controllers {
            Controllers::Old(old) => old.set_mask(line, masked),
            Controllers::IoApics { apics, target, .. } => {
                // The controller with the highest first input that is not above.
                let apic = apics
                    .iter()
                    .filter(|(_, apic)| apic.first <= wire.input)
                    .max_by_key(|(_, apic)| apic.first);
                let Some(&(page, apic)) = apic else { return };
                let entry = wire.input - apic.first;
                if entry > read(page, VERSION) >> 16 & 0xff {
                    return;
                }
                let mut value =
                    u64::from(FIRST_INTERRUPT) + u64::from(line) | u64::from(*target) << 56;
                for (condition, bit) in [
                    (masked, MASKED),
                    (wire.level, LEVEL),
                    (wire.active_low, ACTIVE_LOW),
                ] {
                    if condition {
                        value |= bit;
                    }
                }
                // The half with the mask last, and the target is in place.
                write(page, FIRST_ENTRY + 2 * entry + 1, (value >> 32) as u32);
                write(page, FIRST_ENTRY + 2 * entry, value as u32);
            }
        }
    }
}

/// Reads a register of the I/O APIC at `page`.
fn read(page: u64, register: u32) -> u32 {
    // SAFETY: the two registers of an I/O APIC, in a page mapped for it.
    unsafe {
        ((page + SELECT) as *mut u32).write_volatile(register);
        ((page + WINDOW) as *const u32).read_volatile()
    }
}

/// Writes a register of the I/O APIC at `page`.
fn write(page: u64, register: u32, value: u32) {
    // SAFETY: as for reading; only vectors that have gates are ever written.
    unsafe {
        ((page + SELECT) as *mut u32).write_volatile(register);
        ((page + WINDOW) as *mut u32).write_volatile(value);
    }
}

/// The two interrupt controllers of the first PCs (8259A).
pub struct OldControllers {
    command: [Port<u8>; 2],
    data: [Port<u8>; 2],
    masks: u16,
}

impl OldControllers {
    /// Sets them up with our vectors and masks all lines: also where I/O APICs
    /// are used, the old ones must be silent. This comes before anything is done
    /// to the local APIC. Firmware leaves a timer tick waiting there, which goes
    /// away only while the local APIC still listens; otherwise QEMU delivers an
    /// interrupt without a vector later.
    pub fn new() -> Self {
        const ALL_BUT_CASCADE: u16 = !(1 << 2);
        const INIT: u8 = 0x11;
        const CASCADE: [u8; 2] = [1 << 2, 2];
        const MODE_8086: u8 = 1;
        let mut this = Self {
            command: [Port::new(0x20), Port::new(0xa0)],
            data: [Port::new(0x21), Port::new(0xa1)],
            masks: ALL_BUT_CASCADE,
        };
        this.write_masks();
        for index in 0..2 {
            // SAFETY: the sequence that the chip wants; where there is none,
            // nobody listens.
            unsafe {
                this.command[index].write(INIT);
                this.data[index].write(FIRST_INTERRUPT + 8 * index as u8);
                this.data[index].write(CASCADE[index]);
                this.data[index].write(MODE_8086);
            }
        }
        this.write_masks();
        this
    }

    fn write_masks(&mut self) {
        for (data, mask) in self.data.iter_mut().zip(self.masks.to_le_bytes()) {
            // SAFETY: masks have no effect but on interrupts.
            unsafe { data.write(mask) };
        }
    }

    fn set_mask(&mut self, line: u32, masked: bool) {
        // Line 2 is where the second controller comes in.
        if line < 16 && line != 2 {
            self.masks = self.masks & !(1 << line) | u16::from(masked) << line;
            self.write_masks();
        }
    }

    /// Masks a line and tells its controller that the interrupt was taken.
    /// Returns whether it was real: the last line of each controller also
    /// stands for "nothing".
    fn taken(&mut self, line: u32) -> bool {
        const READ_IN_SERVICE: u8 = 0x0b;
        const END_SPECIFIC: u8 = 0x60;
        let (index, bit) = ((line / 8) as usize, (line % 8) as u8);
        // SAFETY: reads which interrupts are in service, and ends one.
        unsafe {
            self.command[index].write(READ_IN_SERVICE);
            let real = self.command[index].read() >> bit & 1 != 0;
            if real {
                self.set_mask(line, true);
                self.command[index].write(END_SPECIFIC | bit);
            }
            if index == 1 {
                self.command[0].write(END_SPECIFIC | 2);
            }
            real
        }
    }
}

//! Time: the time stamp counter as the clock, the local APIC as the alarm.
//!
//! How fast both run is told by the hypervisor or the CPU, or measured once at
//! boot against a clock of known pace: the HPET, the ACPI timer, or the old
//! interval timer, whichever the machine has.

use core::arch::x86_64::{__cpuid, _rdtsc};

use x86_64::instructions::port::Port;

use super::acpi::Machine;
use super::local_apic::LocalApic;
use super::paging::{Kernel, Memory};

const NS_PER_SECOND: u64 = 1_000_000_000;

/// How long a measurement takes.
const MEASURE_NS: u64 = 5_000_000;

/// A factor between two paces, as a fraction of 2^32.
#[derive(Clone, Copy)]
struct Factor(u64);

impl Factor {
    /// From things that happen `from` times a second to those that happen `to` times.
    fn new(from: u64, to: u64) -> Self {
        Self(((u128::from(to) << 32) / u128::from(from)) as u64)
    }

    #[inline]
    fn apply(self, value: u64) -> u64 {
        ((u128::from(value) * u128::from(self.0)) >> 32) as u64
    }
}

/// The clock and the alarm of this CPU.
pub struct Time {
    start: u64,
    tsc_to_ns: Factor,
    ns_to_tsc: Factor,
    ns_to_count: Factor,
    /// What the kernel asked for; the counter may be too short for it.
    alarm_ns: Option<u64>,
}

/// How often the two counters tick in a second.
struct Paces {
    tsc: u64,
    apic: u64,
}

impl Time {
    /// Starts the clock at zero.
    pub fn new(machine: &Machine, apic: &mut LocalApic, tables: &mut Kernel) -> Self {
        let (paces, source) =
            told().map_or_else(|| measure(machine, apic, tables), |paces| (paces, "CPUID"));
        log::info!(
            "time: TSC {} MHz, {} timer {} MHz, by {source}",
            paces.tsc / 1_000_000,
            match (apic.is_x2apic(), apic.has_deadline()) {
                (_, true) => "TSC deadline",
                (true, false) => "x2APIC",
                (false, false) => "APIC",
            },
            paces.apic / 1_000_000,
        );
        Self {
            start: tsc(),
            tsc_to_ns: Factor::new(paces.tsc, NS_PER_SECOND),
            ns_to_tsc: Factor::new(NS_PER_SECOND, paces.tsc),
            ns_to_count: Factor::new(NS_PER_SECOND, paces.apic),
            alarm_ns: None,
        }
    }

    /// Nanoseconds since the clock was started.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.tsc_to_ns.apply(tsc().saturating_sub(self.start))
    }

    /// Sets or clears the alarm.
    pub fn set_alarm(&mut self, apic: &mut LocalApic, deadline_ns: Option<u64>) {
        self.alarm_ns = deadline_ns;
        match deadline_ns {
            Some(deadline) if apic.has_deadline() => {
                // A deadline of zero would mean none.
                let tsc = self
                    .start
                    .saturating_add(self.ns_to_tsc.apply(deadline))
                    .max(1);
                apic.set_deadline(tsc);
            }
            None if apic.has_deadline() => apic.set_deadline(0),
            Some(deadline) => {
                let count = self
                    .ns_to_count
                    .apply(deadline.saturating_sub(self.now_ns()));
                // One more, because rounding down would wake us too early.
                apic.count_down(count.saturating_add(1).min(u64::from(u32::MAX)) as u32);
            }
            None => apic.count_down(0),
        }
    }

    /// The alarm went off. Is it what was asked for? If the counter was too
    /// short or a little fast, it is set again.
    pub fn is_due(&mut self, apic: &mut LocalApic) -> bool {
        match self.alarm_ns {
            Some(deadline) if self.now_ns() < deadline => {
                self.set_alarm(apic, Some(deadline));
                false
            }
            // The alarm was cleared while the interrupt was on its way.
            None => false,
            Some(_) => {
                self.alarm_ns = None;
                true
            }
        }
    }
}

#[inline]
fn tsc() -> u64 {
    // SAFETY: reads a counter that all CPUs have.
    unsafe { _rdtsc() }
}

/// The paces, where the hypervisor or the CPU knows them exactly.
fn told() -> Option<Paces> {
    const HYPERVISOR: u32 = 0x4000_0000;
    let in_hypervisor = __cpuid(1).ecx >> 31 != 0;
    if in_hypervisor && __cpuid(HYPERVISOR).eax >= HYPERVISOR + 0x10 {
        // The timing leaf that VMware began and QEMU with KVM has: kHz.
        let leaf = __cpuid(HYPERVISOR + 0x10);
        if leaf.eax != 0 && leaf.ebx != 0 {
            return Some(Paces {
                tsc: u64::from(leaf.eax) * 1000,
                apic: u64::from(leaf.ebx) * 1000,
            });
        }
    }
    if __cpuid(0).eax >= 0x15 {
        // Intel SDM 2A, CPUID leaf 15H: the crystal also drives the APIC timer.
        let leaf = __cpuid(0x15);
        if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
            let crystal = u64::from(leaf.ecx);
            return Some(Paces {
                tsc: crystal * u64::from(leaf.ebx) / u64::from(leaf.eax),
                apic: crystal,
            });
        }
    }
    None
}

/// Counts both for a while against the best clock that the machine has.
fn measure(machine: &Machine, apic: &mut LocalApic, tables: &mut Kernel) -> (Paces, &'static str) {
    if let Some(address) = machine.hpet {
        let page = tables.map_direct(address, 4096, Memory::Device);
        // SAFETY: the registers of the event timer (IA-PC HPET 1.0a, 2.3): its
        // capabilities with the pace in femtoseconds, the switch, the counter.
        let femtoseconds = unsafe {
            let enable = (page + 0x10) as *mut u64;
            enable.write_volatile(enable.read_volatile() | 1);
            (page as *const u64).read_volatile() >> 32
        };
        let pace = 1_000_000_000_000_000 / femtoseconds.max(1);
        // SAFETY: as above.
        let counter = || unsafe { ((page + 0xf0) as *const u64).read_volatile() as u32 };
        return (against(apic, pace, u32::MAX, counter), "HPET");
    }
    if let Some((port, long)) = machine.pm_timer {
        const PM_TIMER_PACE: u64 = 3_579_545;
        let mask = if long { u32::MAX } else { 0xff_ffff };
        // SAFETY: reads a counter.
        let counter = || unsafe { Port::<u32>::new(port).read() };
        return (against(apic, PM_TIMER_PACE, mask, counter), "ACPI timer");
    }
    (against(apic, PIT_PACE, 0xffff, start_pit()), "PIT")
}

/// How often the old interval timer (8254) counts in a second.
const PIT_PACE: u64 = 1_193_182;

/// Lets its first channel run through all 16 bits again and again, and returns
/// how to read it as a counter that counts up. Not the second channel, which
/// needs a gate that some machines lack; the first one's interrupt is masked.
fn start_pit() -> impl Fn() -> u32 {
    const RATE_GENERATOR: u8 = 0b0011_0100;
    const LATCH: u8 = 0;
    // SAFETY: nobody else uses this timer.
    unsafe {
        Port::<u8>::new(0x43).write(RATE_GENERATOR);
        Port::<u8>::new(0x40).write(0);
        Port::<u8>::new(0x40).write(0);
    }
    || {
        let mut data = Port::<u8>::new(0x40);
        // SAFETY: as above.
        let count = unsafe {
            Port::<u8>::new(0x43).write(LATCH);
            [data.read(), data.read()]
        };
        u32::from(!u16::from_le_bytes(count))
    }
}

/// What the three counters show at one time.
struct Sample {
    known: u32,
    tsc: u64,
    apic: u32,
}

/// Measures against a counter of known pace that counts up.
///
/// All samples are taken by the same code. An emulator translates code when it
/// first runs, which would otherwise fall into the time that is measured.
fn against(apic: &mut LocalApic, pace: u64, mask: u32, counter: impl Fn() -> u32) -> Paces {
    /// So often may the known counter be found where it was.
    const PATIENCE: u32 = 10_000_000;
    let enough = (pace * MEASURE_NS / NS_PER_SECOND) as u32;
    apic.count_down(u32::MAX);
    let mut first: Option<Sample> = None;
    let mut before = counter();
    let mut still = 0;
    let (first, last) = loop {
        let sample = Sample {
            known: counter(),
            tsc: tsc(),
            apic: apic.count(),
        };
        still = if sample.known == before { still + 1 } else { 0 };
        assert!(
            still < PATIENCE,
            "this machine has no clock: HPET, ACPI timer or PIT stand still"
        );
        if sample.known == before {
            continue;
        }
        before = sample.known;
        first = match first {
            Some(first) if sample.known.wrapping_sub(first.known) & mask >= enough => {
                break (first, sample);
            }
            None => Some(sample),
            first => first,
        };
    };
    apic.count_down(0);
    let ticks = u64::from(last.known.wrapping_sub(first.known) & mask);
    let per_second =
        |count: u64| (u128::from(count) * u128::from(pace) / u128::from(ticks)).max(1) as u64;
    Paces {
        tsc: per_second(last.tsc - first.tsc),
        apic: per_second(u64::from(first.apic - last.apic)),
    }
}

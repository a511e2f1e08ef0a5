//! The PC as the portable kernel's [`Machine`].

use core::arch::asm;
use core::cell::RefCell;

use microkernel::boot::{BootInfo, Platform};
use microkernel::machine::{CpuSet, Interrupt, Machine, PortWidth, PowerAction};
use microkernel::memory::{Frame, PAGE_SIZE};
use microkernel::object::context::Context;
use x86_64::instructions::port::Port;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::registers::model_specific::{FsBase, KernelGsBase};
use x86_64::structures::paging::PhysFrame;
use x86_64::{PhysAddr, VirtAddr};

use super::acpi::{self, ResetRegister};
use super::cpu::{Cpu, Features};
use super::fpu::Fpu;
use super::lines::{self, Lines, OldControllers};
use super::local_apic::{LocalApic, SPURIOUS_VECTOR, TIMER_VECTOR};
use super::paging;
use super::power::{self, Status};
use super::time::Time;
use super::{layout, percpu, serial};

/// The machine. There is one, and the kernel owns it.
pub struct Hardware {
    root: Frame,
    apic: LocalApic,
    time: Time,
    lines: Lines,
    fpu: Fpu,
    reset: Option<ResetRegister>,
    /// Programs set their bases with instructions of their own.
    programs_set_bases: bool,
}

impl Hardware {
    /// Brings up the chips, on the kernel's own page tables with this root.
    ///
    /// # Safety
    /// Called once, on the boot CPU, before the root is copied for a space.
    pub unsafe fn new(root: u64, info: &mut BootInfo, cpu: &Cpu) -> (Self, Platform) {
        // SAFETY: the caller says that only we know these tables now.
        let mut tables = unsafe { paging::open(root, &mut info.memory, cpu) };
        // SAFETY: this is the boot CPU, and by the caller's word the first time.
        unsafe { percpu::init_boot_cpu(&mut tables) };
        let tables = RefCell::new(tables);
        let machine = acpi::Machine::read(info.rsdp, &tables);
        let mut tables = tables.into_inner();

        let old_controllers = OldControllers::new();
        let devices = lines::devices(&machine);
        let mut apic = LocalApic::new(machine.local_apic, cpu, devices, &mut tables);
        let time = Time::new(&machine, &mut apic, &mut tables);
        let lines = Lines::new(old_controllers, &machine, &apic, &mut tables);
        if let Some(ResetRegister { register, .. }) = machine.reset {
            power::map_register(&register, &mut tables);
        }
        let hardware = Self {
            root: Frame::containing(root),
            apic,
            time,
            lines,
            fpu: Fpu::new(cpu),
            reset: machine.reset,
            programs_set_bases: cpu.has(Features::FSGSBASE),
        };
        (hardware, machine.platform)
    }

    /// What an interrupt with this vector means to the kernel; `None` if nothing.
    pub fn interrupted(&mut self, vector: u8) -> Option<Interrupt> {
        if vector == SPURIOUS_VECTOR {
            return None;
        }
        if vector == TIMER_VECTOR {
            self.apic.end_of_interrupt();
            return self.time.is_due(&mut self.apic).then_some(Interrupt::Timer);
        }
        let line = lines::line(vector).expect("only vectors that we gave out");
        self.lines
            .taken(line, &mut self.apic)
            .then_some(Interrupt::Line(line))
    }
}

fn is_here(cpus: CpuSet) -> bool {
    debug_assert!((CpuSet(cpus.0 & !1)).is_empty(), "only the boot CPU runs");
    cpus.contains(0)
}

// SAFETY: the direct map holds all RAM, at fixed addresses, for ever, and the
// kernel's own image is not part of what it is given.
unsafe impl Machine for Hardware {
    #[inline]
    fn direct(&self, physical: u64) -> *mut u8 {
        layout::direct(physical) as *mut u8
    }

    #[inline]
    fn cpu(&self) -> usize {
        0
    }

    fn kernel_root(&self) -> Frame {
        self.root
    }

    #[inline]
    fn load_root(&mut self, root: Frame) {
        let root = PhysFrame::containing_address(PhysAddr::new(root.address()));
        // SAFETY: every root's upper half is the kernel's own.
        unsafe { Cr3::write(root, Cr3Flags::empty()) };
    }

    fn load_root_on(&mut self, cpus: CpuSet, root: Frame) {
        if is_here(cpus) {
            self.load_root(root);
        }
    }

    #[inline]
    fn flush_page(&mut self, cpus: CpuSet, address: u64) {
        if is_here(cpus) {
            tlb::flush(VirtAddr::new_truncate(address));
        }
    }

    #[inline]
    fn flush_all(&mut self, cpus: CpuSet) {
        if is_here(cpus) {
            tlb::flush_all();
        }
    }

    #[inline]
    fn zero_frame(&mut self, frame: Frame) {
        let to = self.direct(frame.address());
        // SAFETY: a frame of RAM that nobody holds a reference into.
        unsafe {
            asm!(
                "rep stosq",
                inout("rcx") PAGE_SIZE / 8 => _,
                inout("rdi") to => _,
                in("rax") 0u64,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline]
    fn copy_frame(&mut self, from: Frame, to: Frame) {
        let (from, to) = (self.direct(from.address()), self.direct(to.address()));
        // SAFETY: two different frames of RAM that nobody holds references into.
        unsafe {
            asm!(
                "rep movsq",
                inout("rcx") PAGE_SIZE / 8 => _,
                inout("rdi") to => _,
                inout("rsi") from => _,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline]
    fn now_ns(&self) -> u64 {
        self.time.now_ns()
    }

    fn set_timer(&mut self, deadline_ns: Option<u64>) {
        self.time.set_alarm(&mut self.apic, deadline_ns);
    }

    fn port_read(&mut self, port: u16, width: PortWidth) -> u32 {
        // SAFETY: only holders of a port capability get here; what devices do
        // to memory then is their responsibility.
        unsafe {
            match width {
                PortWidth::Byte => Port::<u8>::new(port).read().into(),
                PortWidth::Word => Port::<u16>::new(port).read().into(),
                PortWidth::Double => Port::<u32>::new(port).read(),
            }
        }
    }

    fn port_write(&mut self, port: u16, width: PortWidth, value: u32) {
        // SAFETY: as for reading.
        unsafe {
            match width {
                PortWidth::Byte => Port::new(port).write(value as u8),
                PortWidth::Word => Port::new(port).write(value as u16),
                PortWidth::Double => Port::new(port).write(value),
            }
        }
    }

    fn interrupt_unmask(&mut self, line: u32) {
        self.lines.unmask(line, &mut self.apic);
    }

    fn interrupt_mask(&mut self, line: u32) {
        self.lines.mask(line);
    }

    #[inline(always)]
    fn enter(&mut self, context: &mut Context) -> Option<[u64; 2]> {
        let (fs, gs) = (context.fs_base(), context.gs_base());
        // SAFETY: the bases are the program's, which the kernel never uses, and
        // canonical, as the context keeps them; the kernel's own GS base is
        // swapped away and back. The context stays where it is, as the trait
        // demands, and this is its CPU.
        unsafe {
            percpu::boot_cpu().set_context(context);
            if self.programs_set_bases {
                let (old_fs, old_gs): (u64, u64);
                asm!(
                    "rdfsbase {old_fs}",
                    "wrfsbase {fs}",
                    "swapgs",
                    "rdgsbase {old_gs}",
                    "wrgsbase {gs}",
                    "swapgs",
                    old_fs = out(reg) old_fs,
                    old_gs = out(reg) old_gs,
                    fs = in(reg) fs,
                    gs = in(reg) gs,
                    options(nomem, nostack, preserves_flags),
                );
                Some([old_fs, old_gs])
            } else {
                FsBase::write(VirtAddr::new_truncate(fs));
                KernelGsBase::write(VirtAddr::new_truncate(gs));
                None
            }
        }
    }

    #[inline]
    fn save_bases(&mut self, context: &mut Context) {
        if self.programs_set_bases {
            let (fs, gs): (u64, u64);
            // SAFETY: reads the program's bases; interrupts are off while its GS
            // base is swapped in.
            unsafe {
                asm!(
                    "rdfsbase {fs}",
                    "swapgs",
                    "rdgsbase {gs}",
                    "swapgs",
                    fs = out(reg) fs,
                    gs = out(reg) gs,
                    options(nomem, nostack, preserves_flags),
                );
            }
            context.record_bases(fs, gs);
        }
    }

    #[inline]
    fn fpu_allow(&mut self, allowed: bool) {
        self.fpu.allow(allowed);
    }

    fn fpu_reset(&mut self, area: Frame) {
        // SAFETY: a frame of RAM that nobody holds a reference into.
        unsafe { self.fpu.reset(self.direct(area.address())) };
    }

    fn fpu_save(&mut self, area: Frame) {
        let area = self.direct(area.address());
        // SAFETY: as above.
        unsafe { self.fpu.save(area) };
    }

    fn fpu_load(&mut self, area: Frame) {
        let area = self.direct(area.address());
        // SAFETY: the trait demands that nothing else was stored there.
        unsafe { self.fpu.load(area) };
    }

    fn log(&mut self, text: &[u8]) {
        for part in text.utf8_chunks() {
            serial::write(format_args!("{}", part.valid()));
        }
    }

    fn power(&mut self, action: PowerAction) {
        match action {
            PowerAction::Reset => power::reset(self.reset),
            PowerAction::StopWithSuccess => power::stop(Status::Success),
            PowerAction::StopWithFailure => power::stop(Status::Failure),
        }
    }
}

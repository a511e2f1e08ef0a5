//! A machine made of host memory, for tests.
//!
//! Its CPUs translate addresses as the real ones do, and like them each has a
//! TLB and paging-structure caches which remember everything they have seen and
//! forget only when told: by a flush, by loading a root, and for one address by
//! a fault on it (Intel SDM 3A 4.10). Real caches forget at times by themselves,
//! and emulators have hardly any; here a flush that is missing always shows.

use super::entry::Entry;
use super::frame::{PAGE_SIZE, table};
use super::resolve::{Fault, Intent};
use super::store::Ref;
use super::tree::{ROOT_LEVEL, index, span};
use super::{Frame, FrameRecord, Memory, Space};
use crate::machine::{CpuSet, Machine, PortWidth, PowerAction};
use crate::object::context::Context;
use core::sync::atomic::Ordering;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;

/// CPUs of the fake machine.
pub const CPUS: usize = 4;

/// Flushes that a broken kernel would leave out; to show that tests notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// None: the machine works.
    Nothing,
    /// Flushes of one page.
    PageFlushes,
    /// Flushes of one page on other CPUs than the one that asks.
    RemotePageFlushes,
    /// Flushes of everything.
    FullFlushes,
}

/// A machine with some frames of RAM and a few CPUs.
pub struct FakeMachine {
    base: *mut u8,
    frames: u32,
    cpu: usize,
    cpus: [FakeCpu; CPUS],
    /// What is broken about it.
    pub lost: Lost,
    /// The time that `now_ns` tells; tests move it.
    pub now_ns: u64,
    /// What `set_timer` asked for last.
    pub timer: Option<u64>,
    /// What was written to I/O ports.
    pub port_writes: Vec<(u16, u32)>,
    /// What was written to the log.
    pub logged: Vec<u8>,
    /// How the machine was asked to end.
    pub power: Option<PowerAction>,
}

#[derive(Clone, Default)]
struct FakeCpu {
    root: Option<Frame>,
    /// By page address: the frame, and whether it may be written and executed.
    pages: BTreeMap<u64, Remembered>,
    /// By level and part of the address that has been translated: the table that
    /// comes next, and whether what is below may be written.
    upper: BTreeMap<(u8, u64), (Frame, bool)>,
}

#[derive(Clone, Copy)]
struct Remembered {
    frame: Frame,
    write: bool,
    execute: bool,
}

impl Remembered {
    fn permits(self, intent: Intent) -> bool {
        match intent {
            Intent::Read => true,
            Intent::Execute => self.execute,
            Intent::Write | Intent::ForcedPrivateWrite => self.write,
        }
    }
}

impl FakeCpu {
    fn forget_all(&mut self) {
        self.pages.clear();
        self.upper.clear();
    }

    /// INVLPG: one page, and upper levels of all addresses.
    fn forget_page(&mut self, address: u64) {
        self.pages.remove(&(address / PAGE_SIZE));
        self.upper.clear();
    }

    /// What a fault on the address makes the CPU forget.
    fn forget_way(&mut self, address: u64) {
        self.pages.remove(&(address / PAGE_SIZE));
        for level in 2..=ROOT_LEVEL {
            self.upper.remove(&(level, address / span(level)));
        }
    }
}

// SAFETY: the machine alone holds its memory.
unsafe impl Send for FakeMachine {}

impl FakeMachine {
    fn layout(frames: u32) -> Layout {
        Layout::from_size_align(frames as usize * PAGE_SIZE as usize, PAGE_SIZE as usize)
            .expect("a size that the host can hold")
    }

    /// A machine whose RAM is the frames with numbers below `frames`.
    pub fn new(frames: u32) -> FakeMachine {
        let layout = FakeMachine::layout(frames);
        assert!(layout.size() > 0);
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) };
        assert!(!base.is_null(), "the host has no memory");
        FakeMachine {
            base,
            frames,
            cpu: 0,
            cpus: Default::default(),
            lost: Lost::Nothing,
            now_ns: 0,
            timer: None,
            port_writes: Vec::new(),
            logged: Vec::new(),
            power: None,
        }
    }

    /// From now on the kernel runs on `cpu`.
    pub fn set_cpu(&mut self, cpu: usize) {
        self.cpu = cpu;
    }

    /// What a user access on the present CPU does: the physical address, or a
    /// page fault.
    pub fn translate(&mut self, address: u64, intent: Intent) -> Result<u64, PageFault> {
        let mut cpu = core::mem::take(&mut self.cpus[self.cpu]);
        let found = self.translate_on(&mut cpu, address, intent);
        if found.is_err() {
            cpu.forget_way(address);
        }
        self.cpus[self.cpu] = cpu;
        found.map(|frame| frame.address() + address % PAGE_SIZE)
    }

    /// The word that the present CPU reads at `address`, if it gets through with
    /// `intent` without a fault. Unlike a faulting access, a failing probe makes
    /// it forget nothing.
    pub fn probe(&mut self, address: u64, intent: Intent) -> Option<u64> {
        let mut cpu = core::mem::take(&mut self.cpus[self.cpu]);
        let found = self.translate_on(&mut cpu, address, intent);
        self.cpus[self.cpu] = cpu;
        let word = self.direct(found.ok()?.address() + address % PAGE_SIZE);
        // SAFETY: aligned, and within a frame.
        Some(unsafe { word.cast::<u64>().read() })
    }

    fn translate_on(
        &self,
        cpu: &mut FakeCpu,
        address: u64,
        intent: Intent,
    ) -> Result<Frame, PageFault> {
        let page = address / PAGE_SIZE;
        if let Some(remembered) = cpu.pages.get(&page) {
            return match remembered.permits(intent) {
                true => Ok(remembered.frame),
                false => Err(PageFault),
            };
        }
        let known = (2..=ROOT_LEVEL)
            .find_map(|level| Some((level - 1, *cpu.upper.get(&(level, address / span(level)))?)));
        let (mut level, (mut in_table, mut write)) = match known {
            Some(known) => known,
            None => (ROOT_LEVEL, (cpu.root.ok_or(PageFault)?, true)),
        };
        loop {
            let bits = table(self, in_table)[index(address, level)].load(Ordering::Acquire);
            let entry = Entry::from_bits(bits);
            if !entry.is_present() {
                return Err(PageFault);
            }
            assert!(entry.is_quiet(level == 1), "the CPU would write a table");
            write &= entry.is_writable();
            if level == 1 {
                let remembered = Remembered {
                    frame: entry.frame(),
                    write,
                    execute: entry.is_executable(),
                };
                cpu.pages.insert(page, remembered);
                return match remembered.permits(intent) {
                    true => Ok(remembered.frame),
                    false => Err(PageFault),
                };
            }
            in_table = entry.frame();
            cpu.upper
                .insert((level, address / span(level)), (in_table, write));
            level -= 1;
        }
    }

    fn each(&mut self, cpus: CpuSet, what: impl Fn(&mut FakeCpu)) {
        for cpu in cpus.iter() {
            what(&mut self.cpus[cpu]);
        }
    }
}

/// The processor refused an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault;

impl Drop for FakeMachine {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout.
        unsafe { dealloc(self.base, FakeMachine::layout(self.frames)) };
    }
}

// SAFETY: every frame below `frames` is host memory that lives as long as the
// machine and that only the kernel under test refers to.
unsafe impl Machine for FakeMachine {
    fn direct(&self, physical: u64) -> *mut u8 {
        assert!(physical / PAGE_SIZE < self.frames as u64, "not RAM");
        // SAFETY: inside the allocation, as just checked.
        unsafe { self.base.add(physical as usize) }
    }

    fn cpu(&self) -> usize {
        self.cpu
    }

    fn kernel_root(&self) -> Frame {
        Frame::from_number(0)
    }

    fn load_root(&mut self, root: Frame) {
        self.load_root_on(CpuSet::only(self.cpu), root);
    }

    fn load_root_on(&mut self, cpus: CpuSet, root: Frame) {
        self.each(cpus, |cpu| {
            cpu.root = Some(root);
            cpu.forget_all();
        });
    }

    fn flush_page(&mut self, mut cpus: CpuSet, address: u64) {
        match self.lost {
            Lost::PageFlushes => return,
            Lost::RemotePageFlushes => cpus.0 &= CpuSet::only(self.cpu).0,
            Lost::Nothing | Lost::FullFlushes => {}
        }
        self.each(cpus, |cpu| cpu.forget_page(address));
    }

    fn flush_all(&mut self, cpus: CpuSet) {
        if self.lost != Lost::FullFlushes {
            self.each(cpus, FakeCpu::forget_all);
        }
    }

    fn zero_frame(&mut self, frame: Frame) {
        let to = self.direct(frame.address());
        // SAFETY: a frame of RAM that nobody holds a reference into.
        unsafe { to.write_bytes(0, PAGE_SIZE as usize) };
    }

    fn copy_frame(&mut self, from: Frame, to: Frame) {
        assert_ne!(from, to);
        let (from, to) = (self.direct(from.address()), self.direct(to.address()));
        // SAFETY: two different frames of RAM that nobody holds references into.
        unsafe { to.copy_from_nonoverlapping(from, PAGE_SIZE as usize) };
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn set_timer(&mut self, deadline_ns: Option<u64>) {
        self.timer = deadline_ns;
    }

    fn port_read(&mut self, _port: u16, _width: PortWidth) -> u32 {
        0
    }

    fn port_write(&mut self, port: u16, _width: PortWidth, value: u32) {
        self.port_writes.push((port, value));
    }

    fn interrupt_unmask(&mut self, _line: u32) {}

    fn interrupt_mask(&mut self, _line: u32) {}

    fn enter(&mut self, _context: &mut Context) -> Option<[u64; 2]> {
        None
    }

    fn save_bases(&mut self, _context: &mut Context) {}

    fn fpu_allow(&mut self, _allowed: bool) {}

    fn fpu_reset(&mut self, _area: Frame) {}

    fn fpu_save(&mut self, _area: Frame) {}

    fn fpu_load(&mut self, _area: Frame) {}

    fn log(&mut self, text: &[u8]) {
        self.logged.extend_from_slice(text);
    }

    fn power(&mut self, action: PowerAction) {
        self.power = Some(action);
    }
}

/// Memory on a fake machine with `frames` frames of RAM, of which frame zero is
/// the kernel's root.
pub fn memory(frames: u32) -> Memory<FakeMachine> {
    memory_with_archive(frames, 0)
}

/// As [`memory`], with a boot archive in the last `pages` frames, each of which
/// begins with its frame number.
pub fn memory_with_archive(frames: u32, pages: u32) -> Memory<FakeMachine> {
    let records: &'static mut [FrameRecord] =
        Box::leak(vec![FrameRecord::UNKNOWN; frames as usize].into_boxed_slice());
    let ram = 1..frames - pages;
    let mut memory = Memory::new(
        FakeMachine::new(frames),
        records,
        core::slice::from_ref(&ram),
    );
    for frame in (frames - pages..frames).map(Frame::from_number) {
        memory.mark_foreign(frame).expect("it is not the kernel's");
        let word = memory.machine.direct(frame.address()).cast::<u64>();
        // SAFETY: the first word of a frame of RAM that nobody refers to.
        unsafe { word.write(frame.number() as u64) };
    }
    memory
}

/// What programs do, through the CPUs' caches and with faults handled.
impl Memory<FakeMachine> {
    /// From now on `cpu` is in `space`, and the kernel runs on it.
    pub fn enter(&mut self, cpu: usize, space: Ref<Space>) {
        self.machine.set_cpu(cpu);
        self.space_load(space).expect("the space lives");
    }

    /// Tries an access on `cpu` until it succeeds or its fault cannot be settled.
    fn user_access(&mut self, cpu: usize, address: u64, intent: Intent) -> Result<*mut u8, Fault> {
        self.machine.set_cpu(cpu);
        for _ in 0..2 {
            if let Ok(physical) = self.machine.translate(address, intent) {
                return Ok(self.machine.direct(physical));
            }
            let space = self.space_on(cpu).expect("the CPU is in a space");
            self.page_fault(space, address, intent)?;
        }
        match self.machine.translate(address, intent) {
            Ok(physical) => Ok(self.machine.direct(physical)),
            Err(PageFault) => panic!("{intent:?} of {address:#x} faults for ever"),
        }
    }

    /// Loads the word at `address` on `cpu`.
    pub fn user_load(&mut self, cpu: usize, address: u64) -> Result<u64, Fault> {
        let word = self.user_access(cpu, address, Intent::Read)?;
        // SAFETY: aligned, and within a frame.
        Ok(unsafe { word.cast::<u64>().read() })
    }

    /// Stores the word at `address` on `cpu`.
    pub fn user_store(&mut self, cpu: usize, address: u64, value: u64) -> Result<(), Fault> {
        let word = self.user_access(cpu, address, Intent::Write)?;
        // SAFETY: aligned, and within a frame.
        unsafe { word.cast::<u64>().write(value) };
        Ok(())
    }

    /// Fetches the instruction at `address` on `cpu`.
    pub fn user_execute(&mut self, cpu: usize, address: u64) -> Result<(), Fault> {
        self.user_access(cpu, address, Intent::Execute).map(|_| ())
    }

    /// Ends a space and gives back one hold on it.
    pub fn end_space(&mut self, space: Ref<Space>) {
        while self.space_end_step(space) != super::Progress::Done {}
        self.space_release(space);
    }
}

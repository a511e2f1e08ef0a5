//! A machine made of host memory, for tests.

use super::frame::PAGE_SIZE;
use super::{Frame, FrameRecord, Memory};
use crate::machine::{CpuSet, Machine, PortWidth, PowerAction};
use crate::object::context::Context;
use std::alloc::{Layout, alloc_zeroed, dealloc};

/// A machine with some frames of RAM and a few CPUs.
pub struct FakeMachine {
    base: *mut u8,
    frames: u32,
    cpu: usize,
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
}

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

    fn load_root(&mut self, _root: Frame) {}

    fn load_root_on(&mut self, _cpus: CpuSet, _root: Frame) {}

    fn flush_page(&mut self, _cpus: CpuSet, _address: u64) {}

    fn flush_all(&mut self, _cpus: CpuSet) {}

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

    fn enter(&mut self, _context: &mut Context) {}

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
/// not handed out.
pub fn memory(frames: u32) -> Memory<FakeMachine> {
    let records: &'static mut [FrameRecord] =
        Box::leak(vec![FrameRecord::UNKNOWN; frames as usize].into_boxed_slice());
    Memory::new(
        FakeMachine::new(frames),
        records,
        core::slice::from_ref(&(0..frames)),
    )
}

//! Counts what a guest executes between two marks: a QEMU plugin.
//!
//! The guest says where a measurement begins and ends by executing a no-operation with a number in it
//! ([`MARK`]), which any program may do and which does nothing elsewhere. So the count is of exactly the
//! measured stretch, on every guest, without asking it for anything. What is counted goes to a text file,
//! one section for each [`Mark::Report`]:
//!
//! ```text
//! section
//! instructions 123456
//! cr3_loads 12
//! block ffffffff80201000 7f12a3c000 0f05c3 2,1 3000 0
//! ```
//!
//! A `block` line (only with `blocks=on`) has the address, the host page that holds the code (it tells
//! programs at the same address apart), the code, the length of each instruction, how often it ran, and
//! how many instructions the kernel ran after it before the next of a program: so a system call's block
//! tells what the call cost.
//!
//! Use: `-plugin FILE,out=FILE[,blocks=on]`. Works for one virtual CPU. Instructions are counted by whole
//! blocks, so a fault within a block counts the block's rest as well; the kinds of instruction that are
//! counted apart ([`kind`]) are exact.

#![allow(clippy::missing_safety_doc)]

mod api;
mod kind;

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Mutex, OnceLock};

use kind::Kind;

/// `nop dword ptr [rax + rax + MARK + n]` is mark number `n`.
const MARK: u32 = 0x4d54_0000;
const MARK_CODE: [u8; 4] = [0x0f, 0x1f, 0x84, 0x00];

/// The kernel's code is here and above.
const KERNEL: u64 = 1 << 63;

/// What a mark in the guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// A measured stretch begins.
    Begin,
    /// It ends.
    End,
    /// What was counted since the last report belongs to one case: write it and begin anew.
    Report,
}

impl Mark {
    fn of(code: &[u8]) -> Option<Mark> {
        let number = code.strip_prefix(&MARK_CODE)?.first_chunk::<4>()?;
        match u32::from_le_bytes(*number).wrapping_sub(MARK) {
            1 => Some(Mark::Begin),
            2 => Some(Mark::End),
            3 => Some(Mark::Report),
            _ => None,
        }
    }
}

/// A block of code, at one address in one host page.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Code {
    address: u64,
    page: u64,
    bytes: Vec<u8>,
    lengths: Vec<u8>,
}

/// A counter that translated code adds to. It lives for ever, since the code may run until the end.
#[derive(Clone, Copy)]
struct Counter(*mut u64);

// SAFETY: with one virtual CPU the thread that runs the guest is the only one that uses counters.
unsafe impl Send for Counter {}

impl Counter {
    fn new() -> Counter {
        Counter(Box::leak(Box::new(0)))
    }

    fn value(self) -> u64 {
        // SAFETY: leaked in `new`, so it is valid; volatile, because translated code changes it.
        unsafe { self.0.read_volatile() }
    }
}

/// A counter with its value when the stretch began and the sum of all stretches.
struct Tally {
    counter: Counter,
    begin: u64,
    sum: u64,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            counter: Counter::new(),
            begin: 0,
            sum: 0,
        }
    }
}

struct State {
    out: BufWriter<File>,
    write_blocks: bool,
    measuring: bool,
    kinds: [Tally; Kind::ALL.len()],
    index: HashMap<Code, usize>,
    blocks: Vec<(Code, Tally)>,
    /// With `blocks=on`: the last block of a program, and what the kernel ran after each.
    entered: usize,
    kernel: Vec<u64>,
}

static STATE: OnceLock<Mutex<State>> = OnceLock::new();

impl State {
    fn tallies(&mut self) -> impl Iterator<Item = &mut Tally> {
        let blocks = self.blocks.iter_mut().map(|(_, tally)| tally);
        self.kinds.iter_mut().chain(blocks)
    }

    fn reached(&mut self, mark: Mark) {
        match mark {
            Mark::Begin => {
                self.measuring = true;
                self.tallies()
                    .for_each(|tally| tally.begin = tally.counter.value());
            }
            Mark::End if self.measuring => {
                self.measuring = false;
                self.tallies()
                    .for_each(|tally| tally.sum += tally.counter.value() - tally.begin);
            }
            Mark::End => {}
            Mark::Report => {
                // There is nobody to tell if the disk is full; the reader misses a section then.
                let _ = self.write_section();
                self.measuring = false;
                self.tallies().for_each(|tally| tally.sum = 0);
                self.kernel.fill(0);
            }
        }
    }

    fn write_section(&mut self) -> std::io::Result<()> {
        let instructions: u64 = self
            .blocks
            .iter()
            .map(|(code, tally)| tally.sum * code.lengths.len() as u64)
            .sum();
        writeln!(self.out, "section\ninstructions {instructions}")?;
        for ((_, name), tally) in Kind::ALL.iter().zip(&self.kinds) {
            writeln!(self.out, "{name} {}", tally.sum)?;
        }
        if self.write_blocks {
            let blocks = self.blocks.iter().zip(&self.kernel);
            for ((code, tally), kernel) in blocks.filter(|((_, tally), _)| tally.sum > 0) {
                write!(self.out, "block {:x} {:x} ", code.address, code.page)?;
                for byte in &code.bytes {
                    write!(self.out, "{byte:02x}")?;
                }
                for (place, length) in code.lengths.iter().enumerate() {
                    write!(self.out, "{}{length}", if place == 0 { ' ' } else { ',' })?;
                }
                writeln!(self.out, " {} {kernel}", tally.sum)?;
            }
        }
        self.out.flush()
    }

    /// The number of a block, a new one if it was not seen before.
    fn block_number(&mut self, code: Code) -> usize {
        let next = self.blocks.len();
        let place = *self.index.entry(code.clone()).or_insert(next);
        if place == next {
            self.blocks.push((code, Tally::new()));
            self.kernel.push(0);
        }
        place
    }

    /// A block begins: notes who entered the kernel, or counts for that.
    fn entered(&mut self, block: usize) {
        let code = &self.blocks[block].0;
        if code.address < KERNEL {
            self.entered = block;
        } else if self.measuring {
            self.kernel[self.entered] += code.lengths.len() as u64;
        }
    }
}

fn with_state(act: impl FnOnce(&mut State)) {
    if let Some(state) = STATE.get()
        && let Ok(mut state) = state.lock()
    {
        act(&mut state);
    }
}

/// The guest executed a mark. `context` is the mark's number.
unsafe extern "C" fn mark_reached(_cpu: c_uint, context: *mut c_void) {
    let mark = match context as usize {
        1 => Mark::Begin,
        2 => Mark::End,
        _ => Mark::Report,
    };
    with_state(|state| state.reached(mark));
}

/// The guest begins a block. `context` is the block's number.
unsafe extern "C" fn block_entered(_cpu: c_uint, context: *mut c_void) {
    with_state(|state| state.entered(context as usize));
}

/// QEMU translates a block: arrange that its executions are counted.
unsafe extern "C" fn block_translated(_id: api::Id, block: *mut api::Block) {
    // SAFETY: QEMU passes a block that is valid during this call, and so are its instructions, their
    // bytes and their addresses.
    let (count, address) = unsafe {
        (
            api::qemu_plugin_tb_n_insns(block),
            api::qemu_plugin_tb_vaddr(block),
        )
    };
    with_state(|state| {
        let mut code = Code {
            address,
            page: 0,
            bytes: Vec::new(),
            lengths: Vec::new(),
        };
        for index in 0..count {
            // SAFETY: as above; `index` is below the block's number of instructions.
            let (instruction, bytes) = unsafe {
                let instruction = api::qemu_plugin_tb_get_insn(block, index);
                let size = api::qemu_plugin_insn_size(instruction);
                let data = api::qemu_plugin_insn_data(instruction);
                if index == 0 {
                    code.page = api::qemu_plugin_insn_haddr(instruction) as u64 >> 12;
                }
                (instruction, core::slice::from_raw_parts(data, size))
            };
            code.bytes.extend_from_slice(bytes);
            code.lengths.push(bytes.len() as u8);
            if let Some(kind) = Kind::of(bytes) {
                let counter = state.kinds[kind as usize].counter;
                // SAFETY: the counter lives for ever.
                unsafe {
                    api::qemu_plugin_register_vcpu_insn_exec_inline(
                        instruction,
                        api::ADD_U64,
                        counter.0.cast(),
                        1,
                    );
                }
            }
            if let Some(mark) = Mark::of(bytes) {
                // SAFETY: the callback is a function of this library, which is never unloaded.
                unsafe {
                    api::qemu_plugin_register_vcpu_insn_exec_cb(
                        instruction,
                        mark_reached,
                        api::NO_REGISTERS,
                        (mark as usize + 1) as *mut c_void,
                    );
                }
            }
        }
        let number = state.block_number(code);
        let counter = state.blocks[number].1.counter;
        // SAFETY: the counter lives for ever, and the callback is a function of this library, which is
        // never unloaded.
        unsafe {
            api::qemu_plugin_register_vcpu_tb_exec_inline(block, api::ADD_U64, counter.0.cast(), 1);
            if state.write_blocks {
                api::qemu_plugin_register_vcpu_tb_exec_cb(
                    block,
                    block_entered,
                    api::NO_REGISTERS,
                    number as *mut c_void,
                );
            }
        }
    });
}

/// QEMU's first call: 0 if the plugin can work.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: api::Id,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let (mut out, mut write_blocks) = (None, false);
    for index in 0..argc as usize {
        // SAFETY: QEMU passes `argc` strings, each ended by a NUL.
        let argument = unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy();
        match argument.split_once('=') {
            Some(("out", path)) => out = File::create(path).ok(),
            Some(("blocks", value)) => write_blocks = value == "on",
            _ => {}
        }
    }
    let Some(out) = out else {
        // SAFETY: a constant string with a NUL.
        unsafe {
            api::qemu_plugin_outs(
                c"instruction counter: no out=FILE that can be written\n".as_ptr(),
            )
        };
        return 1;
    };
    let state = State {
        out: BufWriter::new(out),
        write_blocks,
        measuring: false,
        kinds: std::array::from_fn(|_| Tally::new()),
        index: HashMap::new(),
        blocks: Vec::new(),
        entered: 0,
        kernel: Vec::new(),
    };
    if STATE.set(Mutex::new(state)).is_err() {
        return 1;
    }
    // SAFETY: the callback is a function of this library, which is never unloaded.
    unsafe { api::qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated) };
    0
}

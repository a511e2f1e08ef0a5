//! The part of QEMU's plugin interface that we use, as QEMU 7.2 documents it (TCG Plugins, version 1
//! of the interface).
//!
//! Declared here because Debian's packages bring the interface but not its header. QEMU resolves these
//! names when it loads the plugin.

use core::ffi::{c_char, c_int, c_uint, c_void};

/// Version of the interface; QEMU reads it before it calls anything.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)] // the name is the interface's
pub static qemu_plugin_version: c_int = 1;

/// Names this plugin in calls.
pub type Id = u64;

/// A block of guest instructions that is translated at once.
#[repr(C)]
pub struct Block {
    opaque: [u8; 0],
}

/// A guest instruction of a [`Block`]; both live only during the translation callback.
#[repr(C)]
pub struct Instruction {
    opaque: [u8; 0],
}

/// `QEMU_PLUGIN_INLINE_ADD_U64`.
pub const ADD_U64: c_int = 0;
/// `QEMU_PLUGIN_CB_NO_REGS`.
pub const NO_REGISTERS: c_int = 0;

unsafe extern "C" {
    pub fn qemu_plugin_register_vcpu_tb_trans_cb(
        id: Id,
        callback: unsafe extern "C" fn(Id, *mut Block),
    );
    pub fn qemu_plugin_register_vcpu_tb_exec_inline(
        block: *mut Block,
        operation: c_int,
        counter: *mut c_void,
        amount: u64,
    );
    pub fn qemu_plugin_register_vcpu_tb_exec_cb(
        block: *mut Block,
        callback: unsafe extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        context: *mut c_void,
    );
    pub fn qemu_plugin_register_vcpu_insn_exec_inline(
        instruction: *mut Instruction,
        operation: c_int,
        counter: *mut c_void,
        amount: u64,
    );
    pub fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        callback: unsafe extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        context: *mut c_void,
    );
    pub fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    pub fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    pub fn qemu_plugin_tb_vaddr(block: *const Block) -> u64;
    pub fn qemu_plugin_insn_data(instruction: *const Instruction) -> *const u8;
    pub fn qemu_plugin_insn_size(instruction: *const Instruction) -> usize;
    pub fn qemu_plugin_insn_haddr(instruction: *const Instruction) -> *mut c_void;
    pub fn qemu_plugin_outs(text: *const c_char);
}

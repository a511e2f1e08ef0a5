//! Native programs for Mitosis, and the parts of them that need no machine.
//!
//! Each file in `src/bin` is one program. What only turns bytes into other bytes is here, so that it
//! is tested on the host: the shell's line editor, its command language, and what it prints about
//! processes, capabilities and memory.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod editor;
pub mod errors;
pub mod listing;
pub mod processes;
pub mod table;
pub mod words;

//! The machines Mitosis runs on. There is one.

pub mod x86_64;

//! Who runs, and when: ready queues, timers, futexes.
//!
//! * [`ready`]: fixed priorities, round robin within one;
//! * [`timers`]: deadlines in a heap that is linked through its objects;
//! * [`futex`]: threads that wait for a word of memory.

pub mod futex;
pub mod ready;
pub mod timers;

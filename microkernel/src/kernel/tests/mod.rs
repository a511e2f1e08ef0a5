//! What programs can rely on, shown by threads that make system calls on the fake machine.

mod calls;
mod ends;
mod faults;
mod fuzz;
mod grants;
mod homes;
mod interrupts;
mod labels;
mod paths;
mod replies;
mod threads;
mod waits;

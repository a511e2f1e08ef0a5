//! IPC-level tests of the process server: each request is encoded by the client stub, dispatched and
//! decoded, in one process and without an emulator. Names begin with the rule that they show.

mod fake;
mod world;

mod clone_rules;
mod failures;
mod life_rules;
mod random;
mod thrift;
mod wait_rules;
mod win32_rules;

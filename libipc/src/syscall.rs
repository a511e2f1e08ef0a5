//! The system calls, declared once.
//!
//! [`syscalls!`](crate::syscalls) hands the table to another macro: [`stub`](crate::stub) makes the
//! functions that programs call, [`handlers!`](crate::syscall_handlers) makes the trait and the
//! dispatcher of the kernel (a forgotten handler does not compile), [`TABLE`] feeds the
//! documentation and the trace names.
//!
//! "Table" arguments take a table capability, a thread (its files table), or one of
//! [`Handle::OWN_FILES`](crate::Handle) and its siblings for the caller's own. "Space" arguments
//! take a space capability or a thread (the space that it runs in). Calls that make a capability
//! put it into the lowest free slot of the caller's private table and return its handle; the pool
//! that they name pays.

use crate::abi::{Access, Copies, ForkFlags, Handle, Protection, SlotFlags};

/// Number of argument registers of a plain call.
pub const ARGUMENTS: usize = 10;

/// The message calls, which have a register layout of their own ([`crate::abi`]).
pub const IPC_CALLS: &[SyscallInfo] = &[
    SyscallInfo {
        number: 1,
        name: "call",
        signature: "(endpoint, message) -> message",
        doc: "Sends to an endpoint and waits for the answer.",
    },
    SyscallInfo {
        number: 2,
        name: "reply_receive",
        signature: "(endpoint, message) -> message",
        doc: "Answers the last received call, or with the flag REPLY a kept one, and waits at the endpoint for the next.",
    },
    SyscallInfo {
        number: 3,
        name: "receive",
        signature: "(endpoint) -> message",
        doc: "Waits at an endpoint. The last received call is given up, or kept with the flag REPLY.",
    },
    SyscallInfo {
        number: 4,
        name: "send",
        signature: "(endpoint, message) -> ()",
        doc: "Sends to an endpoint without an answer; waits until it is received.",
    },
    SyscallInfo {
        number: 5,
        name: "reply",
        signature: "(reply or none, message) -> ()",
        doc: "Answers the last received call, or the one that a reply keeps (`Gone`: it keeps none, or none any more).",
    },
];

/// Hands the table of plain system calls to the macro `$then`.
#[macro_export]
macro_rules! syscalls {
    ($then:path) => { $then! {
        /// Does nothing: what entering and leaving the kernel costs.
        8 => null() -> ();
        /// Nanoseconds since boot.
        9 => clock() -> u64;
        /// Lets another thread of the same priority run.
        10 => thread_yield() -> ();

        /// Makes a pool under `parent` that may use up to `limit_pages` page frames; the parent
        /// pays for the pool itself and for what the new pool uses.
        16 => pool_create(parent: Handle, limit_pages: u64) -> Handle;
        /// The pool's limit and what it uses now, in page frames, its children included.
        17 => pool_status(pool: Handle) -> (u64, u64);
        /// Changes the limit; `NoMemory` if more is in use already.
        18 => pool_set_limit(pool: Handle, limit_pages: u64) -> ();
        /// Ends every object charged to the pool and the pools below it. Frames that another
        /// pool's space still reaches stay and are charged to the parent.
        19 => pool_destroy(pool: Handle) -> ();

        /// Makes an empty address space. `pager` (a sender, or none) gets the page faults that the
        /// kernel does not settle and that no window's pager takes.
        24 => space_create(pool: Handle, pager: Handle) -> Handle;
        /// Makes a copy-on-write snapshot of a space at a cost that does not depend on its size.
        /// The page of the snapshot at `prefault` (0: none) is copied at once.
        25 => space_snapshot(source: Handle, pool: Handle, prefault: u64) -> Handle;
        /// Maps `pages` demand-zero pages at `address`; `Occupied` if something is mapped there.
        26 => space_map(space: Handle, address: u64, pages: u64, protection: Protection) -> ();
        /// Unmaps whatever is mapped in the range.
        27 => space_unmap(space: Handle, address: u64, pages: u64) -> ();
        /// Changes what the mapped pages of the range permit; a mapped window page never gets more
        /// than its window has.
        28 => space_protect(space: Handle, address: u64, pages: u64, protection: Protection) -> ();
        /// Makes a window on a page range of a space. Its holder may map it with at most `access`.
        29 => window_create(space: Handle, pool: Handle, address: u64, pages: u64, access: Access) -> Handle;
        /// Maps a page range of a window: `private` 0 shares the pages, 1 makes a private copy of
        /// them on write.
        30 => window_map(window: Handle, offset_pages: u64, space: Handle, address: u64, pages: u64, protection: Protection, private: u64) -> ();
        /// Copies `bytes` (at most 4096) from another space into the caller's memory.
        31 => space_read(space: Handle, address: u64, into: u64, bytes: u64) -> ();
        /// Copies `bytes` (at most 4096) of the caller's memory into another space. `force` 1
        /// writes to private read-only pages too, on a copy (breakpoints).
        32 => space_write(space: Handle, address: u64, from: u64, bytes: u64, force: u64) -> ();
        /// Replaces the 64-bit word at `address` by `new` if it is `expected`; returns what it was.
        33 => space_compare_exchange(space: Handle, address: u64, expected: u64, new: u64) -> u64;
        /// Copies `bytes` (at most 4096) from one space into another.
        37 => space_copy(from: Handle, from_address: u64, to: Handle, to_address: u64, bytes: u64) -> ();
        /// The first mapped range at or above `address`: its start and its length in pages
        /// (0: there is none).
        34 => space_next(space: Handle, address: u64) -> (u64, u64);
        /// The number of pages that a window has, and its id. The id is the same for every capability
        /// that was copied or derived from the window's first, and no other window ever has it; it
        /// says nothing of what the window shows.
        /// `AccessDenied` if the capability does not permit all of `needed`.
        35 => window_status(window: Handle, needed: Access) -> (u64, u64);
        /// Makes a capability to no particular space: whoever uses it means the space that it runs
        /// in itself. What is derived from it is a capability to that space.
        36 => space_own(system: Handle, pool: Handle, access: Access) -> Handle;

        /// Makes an empty capability table.
        40 => table_create(pool: Handle) -> Handle;
        /// Copies a table; the copy shares the slot pages until one side changes them.
        41 => table_copy(table: Handle, pool: Handle) -> Handle;
        /// Closes every slot of the table whose flags, cut to `mask`, are not `value`.
        42 => table_retain(table: Handle, mask: SlotFlags, value: SlotFlags) -> ();
        /// The first used slot at or above `index`: its index (`u64::MAX`: none) and its
        /// description as `cap_info` gives it.
        43 => table_next(table: Handle, index: u64) -> (u64, u64);
        /// Takes the capability in slot `index` of a table into the caller's private table.
        44 => table_take(table: Handle, index: u64) -> Handle;
        /// Closes slot `index` of a table.
        45 => table_close(table: Handle, index: u64) -> ();

        /// Puts a copy of a capability, with at most `access`, into a table at the lowest free slot
        /// not below `index`. Returns the new slot's index and generation (bits 32..56).
        48 => cap_copy(source: Handle, table: Handle, index: u64, access: Access, flags: SlotFlags) -> u64;
        /// Puts a copy into exactly this slot, replacing what is there in one step (dup2).
        49 => cap_replace(source: Handle, table: Handle, index: u64, access: Access, flags: SlotFlags) -> u64;
        /// Derives a capability that can be revoked apart. From a receiver: a sender with this
        /// `badge`. From anything else `badge` must be 0.
        50 => cap_derive(source: Handle, pool: Handle, badge: u64, access: Access) -> Handle;
        /// Closes a slot.
        51 => cap_close(handle: Handle) -> ();
        /// Takes back everything derived from the capability, which takes its right to REVOKE (a
        /// sender needs none). The end of a derived window is the window's end for everybody.
        52 => cap_revoke(handle: Handle) -> ();
        /// What a capability is: kind in bits 0..8, slot flags in 8..16, access in 32..64; and its
        /// badge.
        53 => cap_info(handle: Handle) -> (u64, u64);
        /// Changes a slot's flags: those in `mask` become those in `value`.
        54 => cap_set_flags(handle: Handle, mask: SlotFlags, value: SlotFlags) -> ();

        /// Makes a thread, suspended once, with all registers zero. `exceptions` (a sender, or
        /// none) gets its faults. A label that is not the caller's own needs LABEL on the pool, or
        /// it is `AccessDenied`. Where a space or a table is named, so may be a thread: what that
        /// one has. Of the parts in `copies` the new thread gets a copy of its own, charged to the
        /// pool: a snapshot of the space (which needs SNAPSHOT on it; the page at `prefault`, 0:
        /// none, is copied at once), a copy of the table (of none: an empty one).
        64 => thread_create(pool: Handle, space: Handle, private: Handle, files: Handle, fs: Handle, copies: Copies, label: u64, exceptions: Handle, prefault: u64) -> Handle;
        /// Makes a thread that continues where `like` waits in a call, as if that call had
        /// returned an empty message: same registers, FPU state, priority and exception endpoint.
        /// `stack` 0 keeps the stack pointer. It lives in what `like` lives in, or in copies of
        /// that, charged to the pool; `private` (none: like's) is the private table. `base` is its
        /// FS base, if `flags` say so, and `clear` its clear address. `word`, cut to 32 bits, is
        /// stored at `word_at` (0: nowhere) in its memory before it runs; an address that cannot be
        /// written is ignored. A label as for `thread_create`.
        65 => thread_fork(pool: Handle, like: Handle, private: Handle, flags: ForkFlags, label: u64, stack: u64, base: u64, clear: u64, word_at: u64, word: u64) -> Handle;
        /// Sets instruction pointer, stack pointer and `rdi`, clears the other registers, aborts
        /// what the thread waits for, and resumes it once.
        66 => thread_start(thread: Handle, instruction_pointer: u64, stack_pointer: u64, argument: u64) -> ();
        /// Adds one to the suspend count; returns what it was. On return the thread runs nowhere.
        67 => thread_suspend(thread: Handle) -> u64;
        /// Takes one from the suspend count, if it is not 0; returns what it was.
        68 => thread_resume(thread: Handle) -> u64;
        /// Ends a thread. What it owes is answered with Gone, its clear address is stored 0 and
        /// woken. With `close` 1 the handle is closed too.
        69 => thread_end(thread: Handle, close: u64) -> ();
        /// Ends the calling thread.
        70 => thread_exit() -> ();
        /// Interrupts what the thread waits for: a call that nobody received ends with Interrupted,
        /// a received one sends its server a cancel notice.
        71 => thread_interrupt(thread: Handle) -> ();
        /// Writes the thread's registers to the caller's memory ([`Registers`](crate::abi::Registers)).
        /// `WrongState` while it runs.
        72 => thread_get_registers(thread: Handle, into: u64) -> ();
        /// Sets the thread's registers from the caller's memory. `WrongState` while it runs.
        73 => thread_set_registers(thread: Handle, from: u64) -> ();
        /// Sets the label that receivers see. Needs LABEL on the thread.
        74 => thread_set_label(thread: Handle, label: u64) -> ();
        /// Sets the priority, 0 (lowest) to 31, not above the caller's own.
        75 => thread_set_priority(thread: Handle, priority: u64) -> ();
        /// Sets the address at which the kernel stores a 32-bit 0 and wakes one futex waiter when
        /// the thread ends; 0: none.
        76 => thread_set_clear_address(thread: Handle, address: u64) -> ();
        /// Sets the FS base (`which` 0) or the GS base (1). `InvalidArgument` outside user space.
        77 => thread_set_base(thread: Handle, which: u64, base: u64) -> ();
        /// The thread's state: 0 runs or is ready, 1 waits, 2 has ended, plus the suspend count
        /// shifted left by 8; and the instructions or nanoseconds that it ran (nanoseconds).
        78 => thread_status(thread: Handle) -> (u64, u64);
        /// Signals `bits` of a notification when the thread ends (at once if it has).
        79 => thread_watch(thread: Handle, notification: Handle, bits: u64) -> ();
        /// Replaces the thread's files table (clone without FILES after the fact, exec).
        80 => thread_set_files(thread: Handle, files: Handle) -> ();
        /// Gives the caller a capability to one of a thread's tables: 0 files, 1 private, 2 fs.
        81 => thread_table(thread: Handle, pool: Handle, which: u64) -> Handle;

        /// Makes an endpoint; returns its receiver. `keep_queued` 1: calls that are queued when the
        /// last receiver goes wait for a new one, 0: they end with ServerGone.
        88 => endpoint_create(pool: Handle, keep_queued: u64) -> Handle;
        /// Delivers the notification's bits to whoever receives at the endpoint.
        89 => endpoint_bind(receiver: Handle, notification: Handle) -> ();
        /// Makes a reply, which can keep one call at a time.
        90 => reply_create(pool: Handle) -> Handle;
        /// Keeps the last received call, to be answered later through the reply, which needs KEEP.
        /// The reply can keep another when this one was answered or given up by its caller; its own
        /// end gives it up. `WrongState` if no call is to be answered or the reply keeps one, `Gone`
        /// if the caller has given it up.
        100 => reply_keep(reply: Handle) -> ();
        /// Makes a notification. Bits in `sticky` stay set when they are taken.
        91 => notification_create(pool: Handle, sticky: u64) -> Handle;
        /// Sets bits and wakes waiters.
        92 => signal(notification: Handle, bits: u64) -> ();
        /// Clears bits, sticky ones too; returns what was set.
        93 => notification_clear(notification: Handle, bits: u64) -> u64;
        /// Waits until any (`all` 0) or all (`all` 1) of `count` notifications have a bit of their
        /// mask set. `items` is the address of [`WaitItem`](crate::abi::WaitItem)s. Returns the
        /// index of the first that has; waiting for any takes the bits of that one only.
        94 => wait_many(items: u64, count: u64, all: u64, deadline: u64) -> u64;
        /// Waits until a bit of `mask` is set, and returns those that are; `consume` 1 takes them (sticky
        /// ones stay).
        99 => notification_wait(notification: Handle, mask: u64, consume: u64, deadline: u64) -> u64;
        /// Signals `bits` at `deadline`, once; replaces the notification's earlier timer. `NEVER`
        /// takes it off.
        95 => timer_set(notification: Handle, bits: u64, deadline: u64) -> ();
        /// Waits while the 32-bit word at `address` is `expected`; `WouldBlock` if it is not.
        96 => futex_wait(address: u64, expected: u64, deadline: u64) -> ();
        /// Wakes up to `count` waiters; returns how many.
        97 => futex_wake(address: u64, count: u64) -> u64;
        /// If the word at `from` is `expected`: wakes up to `wake` waiters and moves up to `move_count`
        /// of the others to `to`. Returns how many were woken and moved.
        98 => futex_requeue(from: u64, to: u64, wake: u64, move_count: u64, expected: u64) -> (u64, u64);

        /// Makes a capability for an interrupt line.
        104 => irq_create(system: Handle, pool: Handle, line: u64) -> Handle;
        /// Signals `bits` of a notification at each interrupt of the line; the line stays masked
        /// until `irq_acknowledge`.
        105 => irq_bind(irq: Handle, notification: Handle, bits: u64) -> ();
        /// Unmasks the line.
        106 => irq_acknowledge(irq: Handle) -> ();
        /// Derives a capability for fewer I/O ports.
        107 => ports_narrow(ports: Handle, pool: Handle, first: u64, count: u64) -> Handle;
        /// Reads a port; `width` is 1, 2 or 4 bytes.
        108 => port_read(ports: Handle, port: u64, width: u64) -> u64;
        /// Writes a port.
        109 => port_write(ports: Handle, port: u64, width: u64, value: u64) -> ();
        /// Derives a capability for a smaller physical range; `address` and size in whole pages.
        110 => range_narrow(range: Handle, pool: Handle, address: u64, pages: u64) -> Handle;
        /// Maps a physical range, pinned. `uncached` 1 for device registers.
        111 => range_map(range: Handle, offset_pages: u64, space: Handle, address: u64, pages: u64, protection: Protection, uncached: u64) -> ();
        /// Writes up to 256 bytes of text to the kernel's log.
        112 => system_log(system: Handle, text: u64, bytes: u64) -> ();
        /// Ends the machine: `action` 0 resets it, 1 stops it with success, 2 with failure (an
        /// emulator's exit device where there is one).
        113 => system_power(system: Handle, action: u64) -> ();
        /// Figures of the kernel since boot, by number: 0 kernel entries, 1 address space switches,
        /// 2 TLB flushes, 3 FPU switches, 4 free page frames, 5 all page frames.
        114 => system_counter(system: Handle, which: u64) -> u64;
    }};
}

/// One line of the table, for documentation and trace.
#[derive(Clone, Copy, Debug)]
pub struct SyscallInfo {
    /// The number in bits 0..8 of `rax`.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// Arguments and result, as declared.
    pub signature: &'static str,
    /// What it does.
    pub doc: &'static str,
}

#[doc(hidden)]
#[macro_export]
macro_rules! syscall_table {
    ($( $(#[doc = $doc:literal])* $number:literal => $name:ident($($arg:ident : $ty:ty),*) -> $ret:ty; )*) => {
        /// Every plain system call, in the order of the declaration.
        pub const TABLE: &[SyscallInfo] = &[$(
            SyscallInfo {
                number: $number,
                name: stringify!($name),
                signature: concat!("(", stringify!($($arg: $ty),*), ") -> ", stringify!($ret)),
                doc: concat!($($doc),*),
            },
        )*];
    };
}
crate::syscalls!(crate::syscall_table);

/// The name of the call with this number, for traces.
pub fn name(number: u8) -> &'static str {
    IPC_CALLS
        .iter()
        .chain(TABLE)
        .find(|call| call.number == number)
        .map_or("unknown", |call| call.name)
}

/// Makes, for the kernel, the trait `Handlers` with one method a call and the function `dispatch`.
///
/// `dispatch` decodes the argument registers that the call has (a malformed one is
/// [`Error::InvalidArgument`](crate::Error) and the method is not called) and encodes the result into
/// two values.
#[macro_export]
macro_rules! syscall_handlers {
    ($( $(#[doc = $doc:literal])* $number:literal => $name:ident($($arg:ident : $ty:ty),*) -> $ret:ty; )*) => {
        /// What the kernel does for each plain system call.
        #[allow(clippy::too_many_arguments)]
        pub trait Handlers {
            /// Why a call does not return a value now: an error, or the caller waits.
            type Stop: From<$crate::Error>;
            /// Who makes a call.
            type Caller: Copy;
            /// One of the caller's argument registers.
            fn argument(&self, caller: Self::Caller, place: usize) -> u64;
            /// Sets the caller's results: no error, and these values.
            fn set_results(&mut self, caller: Self::Caller, values: [u64; 2]);
            $( $(#[doc = $doc])* fn $name(&mut self, $($arg: $ty),*) -> Result<$ret, Self::Stop>; )*
        }

        /// Carries out the call `number`. Unknown numbers are `UnknownCall`.
        #[inline(always)]
        pub fn dispatch<H: Handlers>(
            handlers: &mut H,
            caller: H::Caller,
            number: u8,
        ) -> Result<(), H::Stop> {
            match Calls::<H>::TABLE[number as usize] {
                Some(call) => call(handlers, caller),
                None => Err($crate::Error::UnknownCall.into()),
            }
        }

        /// A function for each call: it loads only the registers that the call has, and returns
        /// nothing that does not fit one.
        struct Calls<H>(core::marker::PhantomData<H>);

        impl<H: Handlers> Calls<H> {
            const TABLE: [Option<fn(&mut H, H::Caller) -> Result<(), H::Stop>>; 256] = {
                let mut table: [Option<fn(&mut H, H::Caller) -> Result<(), H::Stop>>; 256] =
                    [None; 256];
                $( table[$number] = Some(Self::$name); )*
                table
            };

            $( fn $name(handlers: &mut H, caller: H::Caller) -> Result<(), H::Stop> {
                #[allow(unused_imports)]
                use $crate::syscall::{Argument, Values};
                #[allow(unused_mut, unused_variables)]
                let mut places = 0..$crate::syscall::ARGUMENTS;
                $( let $arg = match places
                    .next()
                    .and_then(|place| <$ty as Argument>::decode(handlers.argument(caller, place)))
                {
                    Some(value) => value,
                    None => return Err($crate::Error::InvalidArgument.into()),
                }; )*
                let value = handlers.$name($($arg),*)?;
                handlers.set_results(caller, Values::encode(value));
                Ok(())
            } )*
        }
    };
}

/// A value that fits an argument register.
pub trait Argument: Sized {
    /// The register's content.
    fn encode(self) -> u64;
    /// The value; `None` if the register holds none of this type.
    fn decode(word: u64) -> Option<Self>;
}

impl Argument for u64 {
    fn encode(self) -> u64 {
        self
    }
    fn decode(word: u64) -> Option<u64> {
        Some(word)
    }
}

impl Argument for Handle {
    fn encode(self) -> u64 {
        self.0
    }
    fn decode(word: u64) -> Option<Handle> {
        Some(Handle(word))
    }
}

impl Argument for Access {
    fn encode(self) -> u64 {
        self.bits() as u64
    }
    fn decode(word: u64) -> Option<Access> {
        Some(Access::from_bits_retain(u32::try_from(word).ok()?))
    }
}

/// Flags of eight bits: an unknown one is no argument.
macro_rules! flags_of_eight_bits {
    ($( $flags:ty )*) => { $(
        impl Argument for $flags {
            fn encode(self) -> u64 {
                self.bits() as u64
            }
            fn decode(word: u64) -> Option<$flags> {
                <$flags>::from_bits(u8::try_from(word).ok()?)
            }
        }
    )* };
}
flags_of_eight_bits! { Protection SlotFlags Copies ForkFlags }

/// A result in the two value registers.
pub trait Values: Sized {
    /// As `rdx` and `r8`.
    fn encode(self) -> [u64; 2];
    /// From `rdx` and `r8`.
    fn decode(words: [u64; 2]) -> Self;
}

impl Values for () {
    fn encode(self) -> [u64; 2] {
        [0; 2]
    }
    fn decode(_: [u64; 2]) {}
}

impl Values for u64 {
    fn encode(self) -> [u64; 2] {
        [self, 0]
    }
    fn decode(words: [u64; 2]) -> u64 {
        words[0]
    }
}

impl Values for Handle {
    fn encode(self) -> [u64; 2] {
        [self.0, 0]
    }
    fn decode(words: [u64; 2]) -> Handle {
        Handle(words[0])
    }
}

impl Values for (u64, u64) {
    fn encode(self) -> [u64; 2] {
        [self.0, self.1]
    }
    fn decode(words: [u64; 2]) -> (u64, u64) {
        (words[0], words[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_stands_for_one_call() {
        let mut seen = [false; 256];
        for call in IPC_CALLS.iter().chain(TABLE) {
            assert!(
                !core::mem::replace(&mut seen[call.number as usize], true),
                "{}",
                call.name
            );
        }
        assert_eq!(name(1), "call");
        assert_eq!(name(25), "space_snapshot");
        assert_eq!(name(255), "unknown");
    }
}

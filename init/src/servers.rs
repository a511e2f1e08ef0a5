//! Making the servers: a space with the image, a table with what the server needs, a thread.
//!
//! The memory server comes first; from then on quotas are asked of it, so that it knows all of them. A
//! server's endpoint is made by init, which derives the senders that others need and then hands the
//! receiver over: only the server holds it, so calls to a dead server end with `ServerGone`.

use alloc::boxed::Box;
use alloc::vec::Vec;

use init::archive;
use init::boot_words::ConsoleKind;
use libipc::abi::{
    Access, BootPage, Copies, FaultMessage, Handle, PAGE_BYTES, Protection, SlotFlags, initial,
    layout,
};
use libipc::protocol::process::access as process_access;
use libipc::protocol::{console, files, memory, process, startup};
use libipc::wire::{Caller, Connection, LongBody, Received, Served};
use runtime::memory::Mapping;
use runtime::{elf, load, log, server, syscall};

use crate::machine::console_argument;
use crate::{Failure, For};

/// Labels of the servers' threads count down from here; the process server's count up.
const FIRST_LABEL: u64 = u64::MAX - 1;

/// What a server was given: its slots by number, with what each is for.
type Grants = Vec<(u32, &'static str)>;

/// A running server.
pub struct Server {
    /// Its name.
    pub name: &'static str,
    /// The name of the quota that pays for it.
    pub quota: &'static str,
    /// The quota's pool.
    pub pool: Handle,
    /// Its private table.
    pub table: Handle,
    /// What was put there.
    pub grants: Grants,
    thread: Handle,
}

/// All servers, and what init itself uses of them.
pub struct Servers {
    /// The servers in the order of their start.
    pub all: Vec<Server>,
    /// The process server, with the right to register PID 1.
    pub process: process::Client<Connection>,
    /// The console server.
    pub console: Handle,
    /// The root directory.
    pub root: Handle,
}

/// What init makes servers from.
struct Maker<'a> {
    archive: &'a [u8],
    /// Where faults of servers are sent; badges are indices into `Servers::all`.
    guard: Handle,
    made: Vec<Server>,
}

/// An endpoint that a server will receive at.
struct Endpoint {
    receiver: Handle,
}

impl Endpoint {
    fn new() -> Result<Endpoint, Failure> {
        let receiver = syscall::endpoint_create(initial::POOL, 0).r#for("an endpoint")?;
        Ok(Endpoint { receiver })
    }

    /// A sender for somebody else or for init itself.
    fn sender(&self, badge: u64, access: u32) -> Result<Handle, Failure> {
        let access = Access::from_bits_retain(access);
        syscall::cap_derive(self.receiver, initial::POOL, badge, access).r#for("a sender")
    }
}

/// A capability for a server's table.
struct Grant {
    slot: Handle,
    source: Handle,
    access: Access,
    what: &'static str,
}

impl Grant {
    const fn new(slot: Handle, source: Handle, access: Access, what: &'static str) -> Grant {
        Grant {
            slot,
            source,
            access,
            what,
        }
    }
}

/// A part of the memory, and its number at the memory server.
struct Quota {
    name: &'static str,
    pool: Handle,
    number: u64,
}

/// All rights of a capability.
const WHOLE: Access = Access::from_bits_retain(u32::MAX);

impl Maker<'_> {
    /// Makes a space and loads a file of the archive into it; the entry point.
    fn space(
        &self,
        file: &'static str,
        pool: Handle,
        pager: Handle,
        range: (u64, u64),
    ) -> Result<(Handle, u64), Failure> {
        let found = archive::find(self.archive, file).ok_or(Failure::NoFile(file))?;
        let image = elf::read(found.data, range.0, range.1)
            .map_err(|error| Failure::BadImage(file, error.describe()))?;
        let space = syscall::space_create(pool, pager).r#for("a space")?;
        let mut target = load::Space {
            window: initial::ARCHIVE,
            first_page: found.first_page,
            space,
        };
        load::map(&image, &mut target).r#for("mapping an image")?;
        let writable = Protection::READ | Protection::WRITE;
        syscall::space_map(
            space,
            layout::STACK_END - layout::STACK_BYTES,
            layout::STACK_BYTES / PAGE_BYTES,
            writable,
        )
        .r#for("a stack")?;
        Ok((space, image.entry))
    }

    /// Makes a server, gives it the common capabilities and `grants`, and starts it.
    fn server(
        &mut self,
        name: &'static str,
        file: &'static str,
        quota: &Quota,
        endpoint: Endpoint,
        argument: u64,
        grants: &[Grant],
    ) -> Result<(), Failure> {
        let range = (layout::IMAGE, layout::LOADER);
        let (space, entry) = self.space(file, quota.pool, Handle::NONE, range)?;
        let [table, files, fs] = [(); 3].map(|()| syscall::table_create(quota.pool));
        let (table, files, fs) = (
            table.r#for("a private table")?,
            files.r#for("a files table")?,
            fs.r#for("an fs table")?,
        );
        let own_space =
            Access::MAP | Access::READ_MEMORY | Access::WRITE_MEMORY | Access::MAKE_WINDOW;
        let own_pool = if name == "memory" {
            WHOLE
        } else {
            Access::CHARGE | Access::STATUS
        };
        let common = [
            Grant::new(startup::RECEIVER, endpoint.receiver, WHOLE, "its endpoint"),
            Grant::new(startup::SPACE, space, own_space, "its space"),
            Grant::new(startup::POOL, quota.pool, own_pool, "its memory"),
            Grant::new(startup::LOG, initial::SYSTEM, Access::LOG, "the log"),
        ];
        let mut placed = Grants::new();
        for grant in common.iter().chain(grants) {
            let (slot, none) = (grant.slot.index(), SlotFlags::empty());
            syscall::cap_replace(grant.source, table, slot.into(), grant.access, none)
                .r#for("a server's capability")?;
            placed.push((slot, grant.what));
        }
        // From now on only the server can receive.
        syscall::cap_close(endpoint.receiver).r#for("a receiver")?;

        let index = self.made.len() as u64;
        let exceptions = syscall::cap_derive(self.guard, initial::POOL, index, Access::empty())
            .r#for("a guard")?;
        let label = FIRST_LABEL - index;
        let thread = syscall::thread_create(
            quota.pool,
            space,
            table,
            files,
            fs,
            Copies::empty(),
            label,
            exceptions,
            0,
        )
        .r#for("a server's thread")?;
        for handle in [space, files, fs, exceptions] {
            syscall::cap_close(handle).r#for("closing what was handed over")?;
        }
        syscall::thread_start(thread, entry, layout::STACK_END, argument).r#for("a start")?;
        self.made.push(Server {
            name,
            quota: quota.name,
            pool: quota.pool,
            table,
            grants: placed,
            thread,
        });
        Ok(())
    }
}

/// Starts all servers.
pub fn start(boot: &BootPage, console: ConsoleKind) -> Result<Servers, Failure> {
    let archive = Mapping::window(initial::ARCHIVE, Protection::READ).r#for("the boot archive")?;
    let bytes = archive.bytes().min(boot.archive_bytes as usize);
    let guard = syscall::endpoint_create(initial::POOL, 0).r#for("the guard's endpoint")?;
    let mut maker = Maker {
        archive: &archive.as_slice()[..bytes],
        guard,
        made: Vec::new(),
    };

    let memory_endpoint = Endpoint::new()?;
    let shares = memory_endpoint.sender(
        memory::ROOT,
        memory::access::MAKE_POOL | memory::access::INSPECT,
    )?;
    let mut shares = memory::Client::new(Connection::new(shares));
    let all = Quota {
        name: "all memory",
        pool: initial::POOL,
        number: memory::ROOT,
    };
    // Senders are derived while init still holds the receiver; the jobs' quota will be the second that
    // is made, and the answer is checked against this number.
    let jobs_number = all.number + 2;
    let inspect = memory_endpoint.sender(jobs_number, memory::access::INSPECT)?;
    maker.server("memory", "servers/memory", &all, memory_endpoint, 0, &[])?;

    let (limit, used) = syscall::pool_status(initial::POOL).r#for("the root pool")?;
    let free = limit - used;
    let process_quota = share(&mut shares, "process", free / 8)?;
    let jobs = share(&mut shares, "jobs", free / 4 * 3)?;
    if jobs.number != jobs_number {
        return Err(Failure::Memory("jobs"));
    }
    let files_quota = share(&mut shares, "files", free / 16)?;
    let console_quota = share(&mut shares, "console", free / 32)?;

    let process_endpoint = Endpoint::new()?;
    let process = process_endpoint.sender(
        startup::process::CLIENT_BADGE,
        process_access::SELF
            | process_access::SERVICE
            | process_access::INSPECT
            | process_access::INIT,
    )?;
    let pager = process_endpoint.sender(startup::process::FAULT_BADGE, 0)?;
    let (loader_space, loader) = maker.space(
        "loader",
        initial::POOL,
        pager,
        (layout::LOADER, layout::LOADER_END),
    )?;
    let space_rights = Access::MAP
        | Access::READ_MEMORY
        | Access::WRITE_MEMORY
        | Access::MAKE_WINDOW
        | Access::MAKE_THREAD;
    let own_space = syscall::space_own(initial::SYSTEM, initial::POOL, space_rights)
        .r#for("what stands for a program's own space")?;
    maker.server(
        "process",
        "servers/process",
        &process_quota,
        process_endpoint,
        loader,
        &[
            Grant::new(
                startup::process::JOB_POOL,
                jobs.pool,
                Access::CHARGE | Access::STATUS | Access::LABEL,
                "the jobs' memory",
            ),
            Grant::new(
                startup::process::LOADER_SPACE,
                loader_space,
                Access::SNAPSHOT,
                "the loader, in a space to be copied",
            ),
            Grant::new(
                startup::process::MEMORY_SERVER,
                inspect,
                WHOLE,
                "the memory server, to look at quotas",
            ),
            Grant::new(
                startup::process::OWN_SPACE,
                own_space,
                WHOLE,
                "each program's own space",
            ),
        ],
    )?;
    for handle in [pager, loader_space, inspect, jobs.pool, own_space] {
        syscall::cap_close(handle).r#for("closing what was handed over")?;
    }

    let files_endpoint = Endpoint::new()?;
    let root = files_endpoint.sender(0, files::access::READ | files::access::EXECUTE)?;
    maker.server(
        "files",
        "servers/files",
        &files_quota,
        files_endpoint,
        boot.archive_bytes,
        &[Grant::new(
            startup::files::ARCHIVE,
            initial::ARCHIVE,
            Access::READ | Access::EXECUTE,
            "the boot archive",
        )],
    )?;

    let console_endpoint = Endpoint::new()?;
    let control = console_endpoint.sender(0, console::access::OPEN | console::access::REPORT)?;
    let devices = devices(&console_endpoint, &console_quota)?;
    maker.server(
        "console",
        "servers/console",
        &console_quota,
        console_endpoint,
        console_argument(console),
        &devices,
    )?;
    for grant in devices
        .iter()
        .filter(|grant| grant.source != console_quota.pool)
    {
        syscall::cap_close(grant.source).r#for("closing what was handed over")?;
    }
    let threads = maker
        .made
        .iter()
        .map(|server| (server.name, server.thread))
        .collect();
    watch(guard, threads)?;
    Ok(Servers {
        all: maker.made,
        process: process::Client::new(Connection::new(process)),
        console: control,
        root,
    })
}

/// Asks the memory server for a quota.
fn share(
    shares: &mut memory::Client<Connection>,
    name: &'static str,
    pages: u64,
) -> Result<Quota, Failure> {
    let mut padded = [0; 16];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    let mut received = Received::new();
    let number = shares
        .make_pool(padded, pages, &mut received)
        .map_err(|_| Failure::Memory(name))?;
    let pool = *received.first().ok_or(Failure::Memory(name))?;
    Ok(Quota { name, pool, number })
}

/// The console server's devices. What the machine lacks is stood for by the server's own pool, so that
/// the slot numbers hold.
fn devices(endpoint: &Endpoint, quota: &Quota) -> Result<Vec<Grant>, Failure> {
    use startup::console as slots;
    let notification =
        syscall::notification_create(initial::POOL, 0).r#for("the console's notification")?;
    syscall::endpoint_bind(endpoint.receiver, notification).r#for("a bound notification")?;
    let mut grants = Vec::from([Grant::new(
        slots::NOTIFICATION,
        notification,
        Access::SIGNAL | Access::WAIT,
        "interrupts arrive here",
    )]);
    for (slot, first, count, what) in [
        (slots::COM1_PORTS, 0x3f8, 8, "COM1"),
        (slots::COM2_PORTS, 0x2f8, 8, "COM2"),
        (slots::KEYBOARD_PORTS, 0x60, 5, "the keyboard controller"),
    ] {
        let ports = syscall::ports_narrow(initial::IO_PORTS, initial::POOL, first, count);
        let source = ports.unwrap_or(quota.pool);
        grants.push(Grant::new(slot, source, WHOLE, what));
    }
    for (slot, line, what) in [
        (slots::COM1_IRQ, 4, "interrupt line 4"),
        (slots::COM2_IRQ, 3, "interrupt line 3"),
        (slots::KEYBOARD_IRQ, 1, "interrupt line 1"),
    ] {
        let irq = syscall::irq_create(initial::SYSTEM, initial::POOL, line);
        grants.push(Grant::new(slot, irq.unwrap_or(quota.pool), WHOLE, what));
    }
    Ok(grants)
}

/// The servers' names and threads, by badge of their exceptions.
struct Guard {
    servers: Vec<(&'static str, Handle)>,
}

impl server::Handler for Guard {
    fn request(&mut self, _: &mut Caller, _: &[u8], _: &mut LongBody) -> Served {
        Served::Answered
    }

    /// A server that faults ends. Its receiver goes with it, so its clients learn of it.
    fn fault(&mut self, caller: &mut Caller, words: [u64; 8]) -> Served {
        let Some((name, thread)) = self.servers.get(caller.badge as usize) else {
            return Served::Owed;
        };
        match FaultMessage::from_words(words) {
            Some(fault) => log::print(format_args!(
                "init: the {name} server ends: {:?} at {:#x}, address {:#x}, access {:#x}\n",
                fault.kind, fault.instruction_pointer, fault.address, fault.access
            )),
            None => log::print(format_args!("init: the {name} server ends\n")),
        }
        let _ = syscall::thread_end(*thread, 0);
        Served::Owed
    }
}

/// Starts the thread that waits for faults of servers.
fn watch(guard: Handle, servers: Vec<(&'static str, Handle)>) -> Result<(), Failure> {
    const STACK_PAGES: u64 = 8;
    let stack = Mapping::anonymous(STACK_PAGES).r#for("the guard's stack")?;
    let top = stack.address() + stack.bytes() as u64 - 8;
    stack.leak();
    let state = Box::leak(Box::new((guard, Guard { servers })));
    let [files, fs] = [(); 2].map(|()| syscall::table_create(initial::POOL));
    let thread = syscall::thread_create(
        initial::POOL,
        initial::SPACE,
        initial::TABLE,
        files.r#for("the guard's tables")?,
        fs.r#for("the guard's tables")?,
        Copies::empty(),
        u64::MAX,
        Handle::NONE,
        0,
    )
    .r#for("the guard")?;
    let entry = guard_main as extern "C" fn(_) -> _;
    syscall::thread_start(thread, entry as usize as u64, top, &raw mut *state as u64)
        .r#for("the guard")
}

/// The guard's first function; `state` is what `watch` leaked to it.
extern "C" fn guard_main(state: &'static mut (Handle, Guard)) -> ! {
    server::run(state.0, &mut state.1)
}

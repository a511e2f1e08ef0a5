//! The process server's shell: receives, has the state machine decide, carries it out in the kernel.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::{Access, Error, FaultMessage, Handle, PAGE_BYTES, SendCap, SlotFlags, layout};
use libipc::protocol::process::{access, serve, slots};
use libipc::protocol::startup::{self, process as own};
use libipc::wire::{Caller, LongBody, Served};
use process_server::{Late, Machine, ProcessServer, Surroundings};
use runtime::{log, server, syscall};

runtime::server_entry!(run);

/// What a program may do with its own space. Snapshots are the process server's. A thread that a program
/// makes by itself is none of the process's: it goes with the capabilities to it.
const SPACE_RIGHTS: Access = Access::MAP
    .union(Access::READ_MEMORY)
    .union(Access::WRITE_MEMORY)
    .union(Access::MAKE_WINDOW)
    .union(Access::MAKE_THREAD);
/// What a program may do with its job's pool.
const POOL_RIGHTS: Access = Access::CHARGE.union(Access::STATUS);
/// What a program may ask of this server. A service thread has no more authority than its creator,
/// and there is one user so far, so everybody may make them and look around.
const CLIENT_RIGHTS: u32 = access::SELF | access::SERVICE | access::INSPECT;

/// The kernel as the state machine sees it.
struct Kernel {
    /// A private table with everything but the space: each process begins with a copy.
    template: Handle,
    /// Where the exceptions of all threads go.
    exceptions: Handle,
    /// Entry point of the loader.
    loader: u64,
}

impl Kernel {
    fn new(loader: u64) -> Result<Kernel, Error> {
        let template = syscall::table_create(startup::POOL)?;
        let sender = |badge, rights: u32| {
            let rights = Access::from_bits_retain(rights);
            syscall::cap_derive(startup::RECEIVER, startup::POOL, badge, rights)
        };
        let client = sender(own::CLIENT_BADGE, CLIENT_RIGHTS)?;
        let whole = Access::from_bits_retain(u32::MAX);
        for (source, slot, rights) in [
            (client, slots::PROCESS_SERVER, whole),
            (own::JOB_POOL, slots::POOL, POOL_RIGHTS),
            (own::MEMORY_SERVER, slots::MEMORY_SERVER, whole),
        ] {
            let index = slot.index().into();
            syscall::cap_replace(source, template, index, rights, SlotFlags::empty())?;
        }
        syscall::cap_close(client)?;
        Ok(Kernel {
            template,
            exceptions: sender(own::FAULT_BADGE, 0)?,
            loader,
        })
    }
}

/// A commit's system call: it only fails if its object is gone, and then there is nothing to do.
fn done<T>(result: Result<T, Error>) {
    let _ = result;
}

impl Machine for Kernel {
    fn snapshot(&mut self, space: Handle, prefault: u64) -> Result<Handle, Error> {
        syscall::space_snapshot(space, own::JOB_POOL, prefault)
    }

    fn image_space(&mut self) -> Result<Handle, Error> {
        syscall::space_snapshot(own::LOADER_SPACE, own::JOB_POOL, 0)
    }

    fn private_table(&mut self, space: Handle) -> Result<Handle, Error> {
        let table = syscall::table_copy(self.template, own::JOB_POOL)?;
        let index = slots::SPACE.index().into();
        match syscall::cap_replace(space, table, index, SPACE_RIGHTS, SlotFlags::empty()) {
            Ok(_) => Ok(table),
            Err(error) => {
                done(syscall::cap_close(table));
                Err(error)
            }
        }
    }

    fn empty_table(&mut self) -> Result<Handle, Error> {
        syscall::table_create(own::JOB_POOL)
    }

    fn copy_table(&mut self, table: Handle) -> Result<Handle, Error> {
        syscall::table_copy(table, own::JOB_POOL)
    }

    fn retain(&mut self, table: Handle, mask: SlotFlags, value: SlotFlags) -> Result<(), Error> {
        syscall::table_retain(table, mask, value)
    }

    fn place(&mut self, source: Handle, table: Handle, index: u32) -> Result<(), Error> {
        let whole = Access::from_bits_retain(u32::MAX);
        syscall::cap_replace(source, table, index.into(), whole, SlotFlags::empty()).map(drop)
    }

    fn create_thread(&mut self, within: Surroundings, label: u64) -> Result<Handle, Error> {
        syscall::thread_create(
            own::JOB_POOL,
            within.space,
            within.private,
            within.files,
            within.fs,
            label,
            self.exceptions,
        )
    }

    fn fork_thread(
        &mut self,
        like: Handle,
        within: Surroundings,
        label: u64,
        stack: u64,
    ) -> Result<Handle, Error> {
        syscall::thread_fork(
            own::JOB_POOL,
            like,
            within.space,
            within.private,
            within.files,
            within.fs,
            label,
            stack,
        )
    }

    fn set_thread_pointer(&mut self, thread: Handle, base: u64) -> Result<(), Error> {
        syscall::thread_set_base(thread, 0, base)
    }

    fn set_clear_address(&mut self, thread: Handle, address: u64) -> Result<(), Error> {
        syscall::thread_set_clear_address(thread, address)
    }

    fn set_label(&mut self, thread: Handle, label: u64) -> Result<(), Error> {
        syscall::thread_set_label(thread, label)
    }

    fn keep_reply(&mut self) -> Result<Handle, Error> {
        syscall::reply_keep()
    }

    fn derive_sender(&mut self, badge: u64, access: u32) -> Result<Handle, Error> {
        let access = Access::from_bits_retain(access);
        syscall::cap_derive(startup::RECEIVER, own::JOB_POOL, badge, access)
    }

    fn end_notification(&mut self, ended: bool) -> Result<Handle, Error> {
        let notification = syscall::notification_create(own::JOB_POOL, 1)?;
        if ended {
            done(syscall::signal(notification, 1));
        }
        Ok(notification)
    }

    fn read_word(&mut self, space: Handle, address: u64) -> Result<u32, Error> {
        let mut word = 0u32;
        syscall::space_read(
            space,
            address,
            &raw mut word as u64,
            size_of::<u32>() as u64,
        )?;
        Ok(word)
    }

    fn write_word(&mut self, space: Handle, address: u64, value: u32) -> Result<(), Error> {
        let from = &raw const value as u64;
        syscall::space_write(space, address, from, size_of::<u32>() as u64, 0)
    }

    fn slot_at(&mut self, table: Handle, index: u32) -> Option<(u32, u64)> {
        let (index, info) = syscall::table_next(table, index.into()).ok()?;
        Some((u32::try_from(index).ok()?, info))
    }

    fn answer(&mut self, reply: Handle, answer: &Late) {
        let mut body: LongBody = answer.body();
        let caps: &[SendCap] = answer.caps();
        done(server::reply(reply, &mut body, caps));
    }

    fn suspend(&mut self, thread: Handle) {
        done(syscall::thread_suspend(thread));
    }

    fn resume(&mut self, thread: Handle) {
        done(syscall::thread_resume(thread));
    }

    fn start(
        &mut self,
        thread: Handle,
        instruction_pointer: u64,
        stack_pointer: u64,
        argument: u64,
    ) {
        done(syscall::thread_start(
            thread,
            instruction_pointer,
            stack_pointer,
            argument,
        ));
    }

    fn start_loader(&mut self, thread: Handle) {
        // The loader stands on a stack of its own.
        done(syscall::thread_start(thread, self.loader, 0, 0));
    }

    fn remove_loader(&mut self, space: Handle) {
        let pages = (layout::LOADER_END - layout::LOADER) / PAGE_BYTES;
        // Without memory for the tables the loader stays: it is the program's to use as it likes.
        done(syscall::space_unmap(space, layout::LOADER, pages));
    }

    fn end_thread(&mut self, thread: Handle) {
        done(syscall::thread_end(thread));
        done(syscall::cap_close(thread));
    }

    fn close(&mut self, handle: Handle) {
        done(syscall::cap_close(handle));
    }

    fn signal_end(&mut self, notification: Handle) {
        done(syscall::signal(notification, 1));
    }

    fn init_ended(&mut self, status: u32) {
        log::print(format_args!(
            "Attempted to kill init! exitcode={status:#010x}\n"
        ));
    }
}

struct Shell {
    processes: ProcessServer,
    kernel: Kernel,
}

impl server::Handler for Shell {
    fn request(&mut self, caller: &mut Caller, request: &[u8], answer: &mut LongBody) -> Served {
        serve(
            &mut self.processes,
            &mut self.kernel,
            caller,
            request,
            answer,
        )
    }

    fn no_more_senders(&mut self, badge: u64) {
        self.processes.unreferenced(&mut self.kernel, badge);
    }

    fn cancel(&mut self, label: u64) {
        self.processes.cancel(&mut self.kernel, label);
    }

    fn fault(&mut self, caller: &mut Caller, words: [u64; 8]) {
        let Some(fault) = FaultMessage::from_words(words) else {
            return;
        };
        let ended = self.processes.fault(&mut self.kernel, caller.label, &fault);
        let FaultMessage {
            kind,
            address,
            instruction_pointer,
            ..
        } = fault;
        match ended {
            Some((pid, signal)) => log::print(format_args!(
                "process {pid}: ended by signal {signal}: {kind:?} at {instruction_pointer:#x}, address {address:#x}\n"
            )),
            None => log::print(format_args!(
                "no process: {kind:?} at {instruction_pointer:#x}, address {address:#x}\n"
            )),
        }
    }
}

fn run(loader: u64) -> ! {
    let kernel = match Kernel::new(loader) {
        Ok(kernel) => kernel,
        Err(error) => panic!("the process server cannot start: {error:?}"),
    };
    let mut shell = Shell {
        processes: ProcessServer::default(),
        kernel,
    };
    server::run(startup::RECEIVER, &mut shell)
}

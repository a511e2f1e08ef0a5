//! The process server's shell: receives, has the state machine decide, carries it out in the kernel.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::{
    Access, Copies, Error, FaultMessage, ForkFlags, Handle, PAGE_BYTES, SendCap, SlotFlags,
    TableSelector, layout,
};
use libipc::protocol::process::{Start, access, serve, slots};
use libipc::protocol::startup::{self, process as own};
use libipc::wire::{Caller, Kept, LongBody, Served, ShortBody};
use process_server::{
    Faulted, Fork, Late, Machine, MemoryShare, Place, ProcessServer, Shares, TableShare,
};
use runtime::server::Replies;
use runtime::{log, server, syscall};

runtime::server_entry!(run);

/// What a program may do with its job's pool.
const POOL_RIGHTS: Access = Access::CHARGE.union(Access::STATUS);
/// What a program may ask of this server. A service thread has no more authority than its creator,
/// and there is one user so far, so everybody may make them and look around.
const CLIENT_RIGHTS: u32 = access::SELF | access::SERVICE | access::INSPECT;

/// The kernel as the state machine sees it.
struct Kernel {
    /// The private table that every process begins with a copy of.
    private: Handle,
    /// Where the exceptions of all threads go.
    exceptions: Handle,
    /// Entry point of the loader.
    loader: u64,
    replies: Replies,
}

/// The capabilities to what a new thread is to live in.
struct Home {
    space: Handle,
    private: Handle,
    files: Handle,
    fs: Handle,
}

impl Kernel {
    fn new(loader: u64) -> Result<Kernel, Error> {
        let private = syscall::table_create(startup::POOL)?;
        let sender = |badge, rights: u32| {
            let rights = Access::from_bits_retain(rights);
            syscall::cap_derive(startup::RECEIVER, startup::POOL, badge, rights)
        };
        let client = sender(own::CLIENT_BADGE, CLIENT_RIGHTS)?;
        let whole = Access::from_bits_retain(u32::MAX);
        for (source, slot, rights) in [
            (client, slots::PROCESS_SERVER, whole),
            (own::OWN_SPACE, slots::SPACE, whole),
            (own::JOB_POOL, slots::POOL, POOL_RIGHTS),
            (own::MEMORY_SERVER, slots::MEMORY_SERVER, whole),
        ] {
            let index = slot.index().into();
            syscall::cap_replace(source, private, index, rights, SlotFlags::empty())?;
        }
        syscall::cap_close(client)?;
        Ok(Kernel {
            private,
            exceptions: sender(own::FAULT_BADGE, 0)?,
            loader,
            replies: Replies::new(startup::POOL),
        })
    }

    #[cold]
    fn answer_with(&mut self, kept: Kept, answer: &Late, caps: &[SendCap]) {
        let mut body = ShortBody::new();
        answer.encode(&mut body);
        done(self.replies.answer(kept, &mut body, caps));
    }

    /// What the kernel is to make a thread of, for a thread like `like`.
    fn home(&self, like: Handle, shares: Shares) -> (Home, Copies) {
        let (space, private, memory_copies) = match shares.memory {
            MemoryShare::Same => (like, like, Copies::empty()),
            MemoryShare::Snapshot => (like, self.private, Copies::SPACE | Copies::PRIVATE),
            MemoryShare::Within(space) => (space, self.private, Copies::PRIVATE),
            MemoryShare::Image(space) => (space, self.private, Copies::SPACE | Copies::PRIVATE),
        };
        let table = |share, copy| match share {
            TableShare::Same => (like, Copies::empty()),
            TableShare::Copy => (like, copy),
            TableShare::Empty => (Handle::NONE, copy),
        };
        let (files, files_copy) = table(shares.files, Copies::FILES);
        let (fs, fs_copy) = table(shares.fs, Copies::FS);
        let home = Home {
            space,
            private,
            files,
            fs,
        };
        (home, memory_copies | files_copy | fs_copy)
    }
}

/// A commit's system call: it only fails if its object is gone, and then there is nothing to do.
fn done<T>(result: Result<T, Error>) {
    let _ = result;
}

impl Machine for Kernel {
    fn create_thread(&mut self, like: Handle, shares: Shares, label: u64) -> Result<Handle, Error> {
        let (home, copies) = self.home(like, shares);
        let prefault = match shares.memory {
            // The initial stack will be copied there.
            MemoryShare::Image(_) => layout::INITIAL_STACK_AT,
            _ => 0,
        };
        syscall::thread_create(
            own::JOB_POOL,
            home.space,
            home.private,
            home.files,
            home.fs,
            copies,
            label,
            self.exceptions,
            prefault,
        )
    }

    fn fork_thread(&mut self, fork: &Fork) -> Result<Handle, Error> {
        let (private, memory) = match fork.copies_memory {
            true => (
                self.private,
                ForkFlags::COPY_SPACE | ForkFlags::COPY_PRIVATE | ForkFlags::PREFAULT,
            ),
            false => (Handle::NONE, ForkFlags::empty()),
        };
        let mut flags = memory;
        flags.set(ForkFlags::COPY_FILES, fork.copies_files);
        flags.set(ForkFlags::COPY_FS, fork.copies_fs);
        flags.set(ForkFlags::BASE, fork.thread_pointer.is_some());
        flags.set(ForkFlags::START, fork.runs);
        let (word_at, word) = fork.word.unwrap_or_default();
        syscall::thread_fork(
            own::JOB_POOL,
            fork.like,
            private,
            flags,
            fork.label,
            fork.stack,
            fork.thread_pointer.unwrap_or_default(),
            fork.clear.unwrap_or_default(),
            word_at,
            word.into(),
        )
    }

    fn image_id(&mut self, window: Handle) -> Result<u64, Error> {
        let (_, id) = syscall::window_status(window, Access::READ | Access::EXECUTE)?;
        Ok(id)
    }

    fn template(&mut self) -> Result<Place, Error> {
        let pool = syscall::pool_create(own::JOB_POOL, u64::MAX)?;
        match syscall::space_snapshot(own::LOADER_SPACE, pool, 0) {
            Ok(space) => Ok(Place { space, pool }),
            Err(error) => {
                self.close(pool);
                Err(error)
            }
        }
    }

    fn pages_of(&mut self, template: Place) -> u64 {
        syscall::pool_status(template.pool).map_or(u64::MAX, |(_, used)| used)
    }

    fn drop_template(&mut self, Place { space, pool }: Place) {
        done(syscall::pool_destroy(pool));
        self.close(space);
        self.close(pool);
    }

    fn copy_stack(&mut self, from: Handle, start: &Start, to: Handle) -> Result<(), Error> {
        let mut done = 0;
        while done < start.stack_bytes {
            let bytes = (start.stack_bytes - done).min(PAGE_BYTES);
            let from_address = start.stack.checked_add(done).ok_or(Error::BadAddress)?;
            let to_address = layout::STACK_END - start.stack_bytes + done;
            syscall::space_copy(from, from_address, to, to_address, bytes)?;
            done += bytes;
        }
        Ok(())
    }

    fn retain(&mut self, thread: Handle, mask: SlotFlags, value: SlotFlags) -> Result<(), Error> {
        syscall::table_retain(thread, mask, value)
    }

    fn place(&mut self, source: Handle, thread: Handle, index: u32) -> Result<(), Error> {
        let table = syscall::thread_table(thread, own::JOB_POOL, TableSelector::Fs as u64)?;
        let whole = Access::from_bits_retain(u32::MAX);
        let placed =
            syscall::cap_replace(source, table, index.into(), whole, SlotFlags::empty()).map(drop);
        self.close(table);
        placed
    }

    fn set_clear_address(&mut self, thread: Handle, address: u64) -> Result<(), Error> {
        syscall::thread_set_clear_address(thread, address)
    }

    fn set_label(&mut self, thread: Handle, label: u64) -> Result<(), Error> {
        syscall::thread_set_label(thread, label)
    }

    fn keep_reply(&mut self) -> Result<Kept, Error> {
        self.replies.keep()
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

    fn read_word(&mut self, thread: Handle, address: u64) -> Result<u32, Error> {
        let mut word = 0u32;
        syscall::space_read(
            thread,
            address,
            &raw mut word as u64,
            size_of::<u32>() as u64,
        )?;
        Ok(word)
    }

    fn write_word(&mut self, thread: Handle, address: u64, value: u32) -> Result<(), Error> {
        let from = &raw const value as u64;
        syscall::space_write(thread, address, from, size_of::<u32>() as u64, 0)
    }

    fn slot_at(&mut self, thread: Handle, table: TableSelector, index: u32) -> Option<(u32, u64)> {
        let table = syscall::thread_table(thread, own::JOB_POOL, table as u64).ok()?;
        let next = syscall::table_next(table, index.into());
        self.close(table);
        let (index, info) = next.ok()?;
        Some((u32::try_from(index).ok()?, info))
    }

    fn answer(&mut self, kept: Kept, answer: &Late) {
        match answer.caps() {
            [] => self.replies.answer_soon(kept, |body| answer.encode(body)),
            caps => self.answer_with(kept, answer, caps),
        }
    }

    fn give_up(&mut self, kept: Kept) {
        self.replies.close(kept);
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
        done(syscall::thread_end(thread, 1));
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

    fn replies(&mut self) -> Option<&mut Replies> {
        Some(&mut self.kernel.replies)
    }

    fn no_more_senders(&mut self, badge: u64) {
        self.processes.unreferenced(&mut self.kernel, badge);
    }

    fn cancel(&mut self, label: u64) {
        self.processes.cancel(&mut self.kernel, label);
    }

    fn fault(&mut self, caller: &mut Caller, words: [u64; 8]) -> Served {
        let Some(fault) = FaultMessage::from_words(words) else {
            return Served::Owed;
        };
        let faulted = self.processes.fault(&mut self.kernel, caller.label, &fault);
        let FaultMessage {
            kind,
            address,
            instruction_pointer,
            ..
        } = fault;
        match faulted {
            Faulted::GoesOn => return Served::Answered,
            Faulted::Ended { pid, signal } => log::print(format_args!(
                "process {pid}: ended by signal {signal}: {kind:?} at {instruction_pointer:#x}, address {address:#x}\n"
            )),
            Faulted::NoProcess => log::print(format_args!(
                "no process: {kind:?} at {instruction_pointer:#x}, address {address:#x}\n"
            )),
        }
        Served::Owed
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

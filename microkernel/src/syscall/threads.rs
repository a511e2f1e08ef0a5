//! Threads.

use super::truth;
use crate::cap::{Cap, CapTable};
use crate::kernel::lookup::HomeOf;
use crate::kernel::{Kernel, Side, Stop};
use crate::machine::Machine;
use crate::memory::{FrameKind, Intent, Pool, Ref, Space};
use crate::object::context::Context;
use crate::object::thread::HIGHEST_PRIORITY;
use crate::object::{Notification, State, Thread, Waiter};
use libipc::abi::{
    Access, Copies, Error, ForkFlags, Handle, Kind, Registers, TableSelector, is_clear_address,
};

/// Bytes of [`Registers`] in a program's memory.
const REGISTER_BYTES: usize = size_of::<Registers>();

/// What a new thread is to live in, as its maker names it.
struct Home {
    space: Handle,
    private: Handle,
    files: Handle,
    fs: Handle,
    copies: Copies,
    /// The page of a snapshot to copy at once; 0: none.
    prefault: u64,
}

/// The same, looked up and permitted.
struct Source {
    space: Ref<Space>,
    /// What the maker may do with the space.
    access: u32,
    /// By [`TableSelector`]; `None`: an empty one.
    tables: [Option<Ref<CapTable>>; 3],
    copies: Copies,
    prefault: u64,
}

/// Which copy each table is, by [`TableSelector`].
const TABLE_COPIES: [Copies; 3] = [Copies::FILES, Copies::PRIVATE, Copies::FS];

impl Source {
    /// What the maker may do with the new thread's space.
    fn space_rights(&self) -> u32 {
        match self.copies.contains(Copies::SPACE) {
            true => u32::MAX,
            false => self.access,
        }
    }
}

/// What the maker of a thread must be allowed to do with the space that it is made from.
fn needed_on_space(copies: Copies) -> Access {
    match copies.contains(Copies::SPACE) {
        true => Access::SNAPSHOT,
        false => Access::MAKE_THREAD,
    }
}

fn check_clear_address(address: u64) -> Result<(), Error> {
    match is_clear_address(address) {
        true => Ok(()),
        false => Err(Error::InvalidArgument),
    }
}

impl<M: Machine> Kernel<M> {
    pub(super) fn thread_yield(&mut self) -> Result<(), Stop> {
        let thread = self.caller();
        self.memory.get_mut(thread).context.set_results(0, [0; 2]);
        self.pass_on(thread);
        Err(Stop::Done)
    }

    pub(super) fn thread_create(
        &mut self,
        pool: Handle,
        space: Handle,
        private: Handle,
        files: Handle,
        fs: Handle,
        copies: Copies,
        label: u64,
        exceptions: Handle,
        prefault: u64,
    ) -> Result<Handle, Stop> {
        let (pool, rights) = self.payer_of_thread(pool, label)?;
        let home = Home {
            space,
            private,
            files,
            fs,
            copies,
            prefault,
        };
        let source = self.source(home)?;
        let exceptions = self.hold_sender(exceptions)?;
        let thread = match self.new_thread(pool, source, label) {
            Ok(thread) => thread,
            Err(error) => {
                self.release_cap(exceptions);
                return Err(error.into());
            }
        };
        self.memory.get_mut(thread).exceptions = exceptions;
        self.give_new_with(pool, Kind::Thread, thread, rights)
    }

    /// A pool that pays for a thread with this label, and the rights that the caller gets on the
    /// thread.
    fn payer_of_thread(&self, pool: Handle, label: u64) -> Result<(Ref<Pool>, Access), Error> {
        let (pool, rights) = self.payer_and_rights(pool)?;
        if label != self.memory.get(self.caller()).label && !rights.contains(Access::LABEL) {
            return Err(Error::AccessDenied);
        }
        Ok((pool, rights))
    }

    /// Looks up what a new thread is to live in. A thread may be named for many parts, so it is
    /// looked up once.
    fn source(&self, home: Home) -> Result<Source, Error> {
        let copies = home.copies;
        let needed = needed_on_space(copies);
        let mut known = None;
        let known_as = |known: Option<(Handle, Ref<Thread>)>, handle| {
            let (_, thread) = known.filter(|(name, _)| *name == handle)?;
            Some(HomeOf::Thread(thread))
        };
        let space = match known_as(known, home.space) {
            Some(thread) => thread,
            None => self.home_to_know(home.space, &mut known)?,
        };
        let (space, access) = self.home_space(space, needed)?;
        let mut table = |selector: TableSelector, handle: Handle| {
            let home = match known_as(known, handle) {
                Some(thread) => thread,
                None if handle.is_own_table() => {
                    return self.table(handle, Access::USE_TABLE).map(Some);
                }
                None if !handle.is_some() && copies.contains(TABLE_COPIES[selector as usize]) => {
                    return Ok(None);
                }
                None => self.home_to_know(handle, &mut known)?,
            };
            self.home_table(home, selector, Access::USE_TABLE).map(Some)
        };
        Ok(Source {
            space,
            access,
            tables: [
                table(TableSelector::Files, home.files)?,
                table(TableSelector::Private, home.private)?,
                table(TableSelector::Fs, home.fs)?,
            ],
            copies,
            prefault: home.prefault,
        })
    }

    /// Looks up what stands for a space or a table, and remembers it if it is a thread.
    #[inline(never)]
    fn home_to_know(
        &self,
        handle: Handle,
        known: &mut Option<(Handle, Ref<Thread>)>,
    ) -> Result<HomeOf, Error> {
        let home = self.home(handle)?;
        if let HomeOf::Thread(thread) = home {
            *known = Some((handle, thread));
        }
        Ok(home)
    }

    /// Makes a thread with one hold, the caller's of this function.
    fn new_thread(
        &mut self,
        pool: Ref<Pool>,
        source: Source,
        label: u64,
    ) -> Result<Ref<Thread>, Error> {
        let thread = self.memory.create(pool, Thread::new())?;
        self.memory.get_mut(thread).label = label;
        if let Err(error) = self.furnish(thread, pool, source) {
            self.drop_object(Kind::Thread, thread.to_bits());
            return Err(error);
        }
        Ok(thread)
    }

    /// Gives a thread what it lives in. If that fails, what it has by then goes with it.
    fn furnish(
        &mut self,
        thread: Ref<Thread>,
        pool: Ref<Pool>,
        source: Source,
    ) -> Result<(), Error> {
        let access = source.space_rights();
        let space = match source.copies.contains(Copies::SPACE) {
            true => self.snapshot(source.space, pool, source.prefault)?,
            false => {
                self.memory.space_hold(source.space)?;
                source.space
            }
        };
        let entry = self.memory.get_mut(thread);
        (entry.space, entry.space_access) = (Some(space), access);
        for (place, table) in source.tables.into_iter().enumerate() {
            let table = match table {
                None => self.memory.table_create(pool)?,
                Some(table) if source.copies.contains(TABLE_COPIES[place]) => {
                    self.memory.table_copy(table, pool)?
                }
                Some(table) => {
                    self.hold_object(Kind::Table, table.to_bits())?;
                    table
                }
            };
            self.memory.get_mut(thread).tables[place] = Some(table);
        }
        Ok(())
    }

    pub(super) fn thread_fork(
        &mut self,
        pool: Handle,
        like: Handle,
        private: Handle,
        flags: ForkFlags,
        label: u64,
        stack: u64,
        base: u64,
        clear: u64,
        word_at: u64,
        word: u64,
    ) -> Result<Handle, Stop> {
        let (pool, rights) = self.payer_of_thread(pool, label)?;
        let needed = Access::REGISTERS | Access::CONTROL;
        let like: Ref<Thread> = self.object(like, Kind::Thread, needed)?;
        let model = self.memory.get(like);
        if model.state != State::Answer || model.fault().is_some() {
            return Err(Error::WrongState.into());
        }
        let stack = match stack {
            0 => model.context.rsp(),
            stack => stack,
        };
        check_clear_address(clear)?;
        let base = flags.contains(ForkFlags::BASE).then_some(base);
        let source = self.source_like(like, private, flags, stack)?;
        if word_at != 0 && source.space_rights() & Access::WRITE_MEMORY.bits() == 0 {
            return Err(Error::AccessDenied.into());
        }
        let thread = self.new_thread(pool, source, label)?;
        if let Err(error) = self.copy_registers(like, thread, pool, (stack, base)) {
            self.drop_object(Kind::Thread, thread.to_bits());
            return Err(error.into());
        }
        let handle = self.give_new_with(pool, Kind::Thread, thread, rights)?;
        // What follows cannot fail; a thread that is not made after all clears nothing.
        self.memory.get_mut(thread).clear_address = clear;
        if word_at != 0 {
            self.store_first_word(thread, word_at, word as u32);
        }
        if flags.contains(ForkFlags::START) {
            self.memory.get_mut(thread).set_suspends(0);
            self.queue(thread);
        }
        Ok(handle)
    }

    /// What `like` lives in, as the source of a new thread that will stand on `stack`.
    fn source_like(
        &self,
        like: Ref<Thread>,
        private: Handle,
        flags: ForkFlags,
        stack: u64,
    ) -> Result<Source, Error> {
        let copies = Copies::from_bits_truncate(flags.bits());
        let home = HomeOf::Thread(like);
        let (space, access) = self.home_space(home, needed_on_space(copies))?;
        let table = |selector| self.home_table(home, selector, Access::USE_TABLE);
        let private = match private.is_some() {
            false => table(TableSelector::Private)?,
            true => {
                let named = HomeOf::Itself(self.find(private)?);
                self.home_table(named, TableSelector::Private, Access::USE_TABLE)?
            }
        };
        Ok(Source {
            space,
            access,
            tables: [
                Some(table(TableSelector::Files)?),
                Some(private),
                Some(table(TableSelector::Fs)?),
            ],
            copies,
            prefault: match flags.contains(ForkFlags::PREFAULT) {
                true => stack.wrapping_sub(size_of::<u64>() as u64),
                false => 0,
            },
        })
    }

    /// Stores a word of a new thread's memory, if it can be stored.
    fn store_first_word(&mut self, thread: Ref<Thread>, address: u64, word: u32) {
        let Some(space) = self.memory.get(thread).space else {
            return;
        };
        if address.is_multiple_of(4) {
            let _ = self.memory.store_word(space, address, word);
        } else {
            let bytes = word.to_le_bytes();
            let _ = self.memory.write(space, address, &bytes, Intent::Write);
        }
    }

    /// Makes a new thread continue where `like` waits, as if its call had brought nothing, with
    /// this stack pointer and perhaps another FS base.
    fn copy_registers(
        &mut self,
        like: Ref<Thread>,
        thread: Ref<Thread>,
        pool: Ref<Pool>,
        (stack, base): (u64, Option<u64>),
    ) -> Result<(), Error> {
        self.sync_context(like);
        let model = self.memory.get(like);
        let area = model.fpu;
        let exceptions = model.exceptions.as_ref().map(|cap| (cap.node, cap.access));
        if let Some(area) = area {
            let copy = self.memory.take_frame(pool, FrameKind::Kernel)?;
            self.memory.get_mut(thread).fpu = Some(copy);
            if self.owns_fpu(like) {
                self.save_fpu();
            }
            self.memory.machine_mut().copy_frame(area, copy);
        }
        if let Some((node, access)) = exceptions {
            self.memory.node_hold(node)?;
            self.memory.get_mut(thread).exceptions = Some(Cap { node, access });
        }
        let (model, entry) = self.memory.get_both(like, thread);
        entry.context = model.context.clone();
        entry.context.set_received(0, 0, 0);
        entry.context.set_rsp(stack);
        entry.priority = model.priority;
        match base.map(|base| entry.context.set_fs_base(base)) {
            Some(Err(_)) => Err(Error::InvalidArgument),
            _ => Ok(()),
        }
    }

    /// A thread that has not ended.
    fn living(&self, thread: Handle, needed: Access) -> Result<Ref<Thread>, Error> {
        let thread: Ref<Thread> = self.object(thread, Kind::Thread, needed)?;
        if self.memory.get(thread).state == State::Ended {
            return Err(Error::WrongState);
        }
        Ok(thread)
    }

    pub(super) fn thread_start(
        &mut self,
        thread: Handle,
        instruction_pointer: u64,
        stack_pointer: u64,
        argument: u64,
    ) -> Result<(), Stop> {
        let thread = self.living(thread, Access::CONTROL)?;
        let mut context =
            Context::new(instruction_pointer, stack_pointer).map_err(|_| Error::InvalidArgument)?;
        context.set_arguments([argument, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.stop_waiting(thread);
        let entry = self.memory.get_mut(thread);
        entry.context = context;
        entry.set_fault(None);
        entry.progress = None;
        entry.set_suspends(entry.suspends().saturating_sub(1));
        self.reload_bases(thread);
        self.let_run(thread);
        if thread == self.caller() {
            // Its registers are no longer those of the call.
            return Err(Stop::Done);
        }
        Ok(())
    }

    pub(super) fn thread_suspend(&mut self, thread: Handle) -> Result<u64, Stop> {
        let thread = self.living(thread, Access::CONTROL)?;
        let entry = self.memory.get_mut(thread);
        let was = entry.suspends();
        entry.set_suspends(was.checked_add(1).ok_or(Error::Exhausted)?);
        self.stop_running(thread);
        Ok(was as u64)
    }

    pub(super) fn thread_resume(&mut self, thread: Handle) -> Result<u64, Stop> {
        let thread = self.living(thread, Access::CONTROL)?;
        let entry = self.memory.get_mut(thread);
        let was = entry.suspends();
        entry.set_suspends(was.saturating_sub(1));
        self.let_run(thread);
        Ok(was as u64)
    }

    pub(super) fn thread_end(&mut self, handle: Handle, close: u64) -> Result<(), Stop> {
        let found = self.find_here(handle)?;
        let thread = found.object(Kind::Thread, Access::CONTROL)?;
        if !truth(close)? {
            self.end_thread(thread);
            return Ok(());
        }
        // Closed before the thread ends, with which may go the table that the handle is in; and
        // held, because with the handle may go the thread.
        self.hold_object(Kind::Thread, thread.to_bits())?;
        let closed = self.close(found.table, found.index, &found.slot());
        if closed.is_ok() {
            self.end_thread(thread);
        }
        self.release_thread(thread);
        closed
    }

    pub(super) fn thread_exit(&mut self) -> Result<(), Stop> {
        let thread = self.caller();
        self.end_thread(thread);
        Err(Stop::Done)
    }

    pub(super) fn thread_interrupt(&mut self, thread: Handle) -> Result<(), Stop> {
        let thread = self.object(thread, Kind::Thread, Access::CONTROL)?;
        self.interrupt_thread(thread);
        Ok(())
    }

    /// A thread whose registers may be looked at: it lives and does not run.
    fn stopped_thread(&self, thread: Handle) -> Result<Ref<Thread>, Error> {
        let thread = self.living(thread, Access::REGISTERS)?;
        if !self.memory.get(thread).is_stopped() {
            return Err(Error::WrongState);
        }
        Ok(thread)
    }

    pub(super) fn thread_get_registers(&mut self, thread: Handle, into: u64) -> Result<(), Stop> {
        let thread = self.stopped_thread(thread)?;
        let own = self.own_space();
        let target = self
            .memory
            .span(own, into, REGISTER_BYTES, Intent::Write)
            .map_err(|at| self.stop_to_fault(at, Side::Write))?;
        self.sync_context(thread);
        let words = to_words(&self.memory.get(thread).context.registers());
        let mut bytes = [0; REGISTER_BYTES];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        self.memory.write_span(&target, &bytes);
        Ok(())
    }

    pub(super) fn thread_set_registers(&mut self, thread: Handle, from: u64) -> Result<(), Stop> {
        let thread = self.stopped_thread(thread)?;
        let own = self.own_space();
        let source = self
            .memory
            .span(own, from, REGISTER_BYTES, Intent::Read)
            .map_err(|at| self.stop_to_fault(at, Side::Read))?;
        let mut bytes = [0; REGISTER_BYTES];
        self.memory.read_span(&source, &mut bytes);
        let mut words = [0; REGISTER_BYTES / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let entry = self.memory.get_mut(thread);
        entry
            .context
            .set_registers(&from_words(&words))
            .map_err(|_| Error::InvalidArgument)?;
        entry.progress = None;
        self.reload_bases(thread);
        Ok(())
    }

    pub(super) fn thread_set_label(&mut self, thread: Handle, label: u64) -> Result<(), Stop> {
        let thread = self.living(thread, Access::CONTROL | Access::LABEL)?;
        self.memory.get_mut(thread).label = label;
        Ok(())
    }

    pub(super) fn thread_set_priority(
        &mut self,
        thread: Handle,
        priority: u64,
    ) -> Result<(), Stop> {
        let thread = self.living(thread, Access::CONTROL)?;
        if priority > HIGHEST_PRIORITY as u64 {
            return Err(Error::InvalidArgument.into());
        }
        if priority > self.memory.get(self.caller()).priority as u64 {
            return Err(Error::AccessDenied.into());
        }
        self.change_priority(thread, priority as u8);
        Ok(())
    }

    pub(super) fn thread_set_clear_address(
        &mut self,
        thread: Handle,
        address: u64,
    ) -> Result<(), Stop> {
        let thread = self.living(thread, Access::CONTROL)?;
        check_clear_address(address)?;
        self.memory.get_mut(thread).clear_address = address;
        Ok(())
    }

    pub(super) fn thread_set_base(
        &mut self,
        thread: Handle,
        which: u64,
        base: u64,
    ) -> Result<(), Stop> {
        let thread = self.living(thread, Access::CONTROL)?;
        if thread != self.caller() && !self.memory.get(thread).is_stopped() {
            return Err(Error::WrongState.into());
        }
        self.sync_context(thread);
        let context = &mut self.memory.get_mut(thread).context;
        let set = match truth(which)? {
            false => context.set_fs_base(base),
            true => context.set_gs_base(base),
        };
        set.map_err(|_| Error::InvalidArgument)?;
        self.reload_bases(thread);
        Ok(())
    }

    pub(super) fn thread_status(&mut self, thread: Handle) -> Result<(u64, u64), Stop> {
        let thread: Ref<Thread> = self.object(thread, Kind::Thread, Access::OBSERVE)?;
        let entry = self.memory.get(thread);
        Ok((entry.status_word(), entry.ran_ns))
    }

    pub(super) fn thread_watch(
        &mut self,
        thread: Handle,
        notification: Handle,
        bits: u64,
    ) -> Result<(), Stop> {
        let thread: Ref<Thread> = self.object(thread, Kind::Thread, Access::OBSERVE)?;
        let notification: Ref<Notification> =
            self.object(notification, Kind::Notification, Access::SIGNAL)?;
        if self.memory.get(thread).state == State::Ended {
            self.signal_bits(notification, bits);
            return Ok(());
        }
        self.hold_object(Kind::Notification, notification.to_bits())?;
        let pool = self.memory.pool_of(self.caller());
        let next = self.memory.get(thread).watches;
        let mut watch = Waiter::new(thread, notification, bits);
        watch.is_watch = true;
        watch.next_of_thread = next;
        let watch = match self.memory.create(pool, watch) {
            Ok(watch) => watch,
            Err(error) => {
                self.drop_object(Kind::Notification, notification.to_bits());
                return Err(error.into());
            }
        };
        if let Some(next) = next {
            self.memory.get_mut(next).previous_of_thread = Some(watch);
        }
        self.memory.get_mut(thread).watches = Some(watch);
        Ok(())
    }

    pub(super) fn thread_set_files(&mut self, thread: Handle, files: Handle) -> Result<(), Stop> {
        let thread = self.living(thread, Access::CONTROL)?;
        let files = self.table(files, Access::USE_TABLE)?;
        self.hold_object(Kind::Table, files.to_bits())?;
        let place = &mut self.memory.get_mut(thread).tables[TableSelector::Files as usize];
        if let Some(old) = place.replace(files) {
            self.release_table(old);
        }
        Ok(())
    }

    pub(super) fn thread_table(
        &mut self,
        thread: Handle,
        pool: Handle,
        which: u64,
    ) -> Result<Handle, Stop> {
        let selector = TableSelector::from_code(which).ok_or(Error::InvalidArgument)?;
        let table = match self.home(thread)? {
            HomeOf::Itself(_) => return Err(Error::WrongKind.into()),
            thread => self.home_table(thread, selector, Access::empty())?,
        };
        let pool = self.payer(pool)?;
        self.hold_object(Kind::Table, table.to_bits())?;
        self.give_new(pool, Kind::Table, table)
    }
}

fn to_words(all: &Registers) -> [u64; REGISTER_BYTES / 8] {
    [
        all.rax,
        all.rbx,
        all.rcx,
        all.rdx,
        all.rsi,
        all.rdi,
        all.rbp,
        all.rsp,
        all.r8,
        all.r9,
        all.r10,
        all.r11,
        all.r12,
        all.r13,
        all.r14,
        all.r15,
        all.rip,
        all.rflags,
        all.fs_base,
        all.gs_base,
    ]
}

fn from_words(words: &[u64; REGISTER_BYTES / 8]) -> Registers {
    let [
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rbp,
        rsp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
        fs_base,
        gs_base,
    ] = *words;
    Registers {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rbp,
        rsp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
        fs_base,
        gs_base,
    }
}

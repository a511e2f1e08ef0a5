//! A space of its own in which a test runs single instructions and is told of their faults.
//!
//! The twin holds one page of code, which the test writes through its own mapping of it, and one page
//! of stack. The test is the pager and the exception handler of every thread in it, so each fault
//! comes as a message that can be compared word for word.

use libipc::abi::{Access, Copies, FaultMessage, NEVER, PAGE_BYTES, Protection, Registers};
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::memory::Mapping;
use runtime::syscall;

use crate::{Mail, PATIENCE};

/// Where the code page lies in the twin.
pub const CODE: u64 = 0x10_0000;
/// Where the stack page lies in the twin.
pub const STACK: u64 = 0x20_0000;
/// The badge by which page faults arrive.
pub const PAGER_BADGE: u64 = 0x9a9e;
/// The badge by which other exceptions arrive.
pub const EXCEPTION_BADGE: u64 = 0xe4ce;

/// A fault as its handler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What the kernel says happened.
    pub message: FaultMessage,
    /// The badge of the capability that it came by.
    pub badge: u64,
    /// The label of the thread that faulted.
    pub label: u64,
}

/// The space, its handler, and the thread that runs in it.
pub struct Twin {
    space: Handle,
    handler: Handle,
    exceptions: Handle,
    code: Mapping,
    thread: Option<Handle>,
    /// Keeps the fault that was told last, until the thread may go on.
    reply: Handle,
    mail: Mail,
}

impl Twin {
    /// A space with nothing but a code and a stack page.
    pub fn new() -> Result<Twin, Error> {
        Twin::in_pool(slots::POOL)
    }

    /// A twin whose space is paid for by `pool`.
    pub fn in_pool(pool: Handle) -> Result<Twin, Error> {
        let handler = syscall::endpoint_create(slots::POOL, 0)?;
        let pager = syscall::cap_derive(handler, slots::POOL, PAGER_BADGE, Access::all())?;
        let exceptions = syscall::cap_derive(handler, slots::POOL, EXCEPTION_BADGE, Access::all())?;
        let space = syscall::space_create(pool, pager)?;
        syscall::cap_close(pager)?;
        let code = Mapping::anonymous(1)?;
        let window = code.make_window(Access::READ | Access::EXECUTE)?;
        let executable = Protection::READ | Protection::EXECUTE;
        syscall::window_map(window, 0, space, CODE, 1, executable, 0)?;
        syscall::cap_close(window)?;
        syscall::space_map(space, STACK, 1, Protection::READ | Protection::WRITE)?;
        Ok(Twin {
            space,
            handler,
            exceptions,
            code,
            thread: None,
            reply: syscall::reply_create(slots::POOL)?,
            mail: Mail::new(),
        })
    }

    /// The space.
    pub fn space(&self) -> Handle {
        self.space
    }

    /// Maps demand-zero pages for reading and writing.
    pub fn map(&self, address: u64, pages: u64) -> Result<(), Error> {
        syscall::space_map(
            self.space,
            address,
            pages,
            Protection::READ | Protection::WRITE,
        )
    }

    /// The thread of the last [`start`](Twin::start).
    pub fn thread(&self) -> Handle {
        self.thread.unwrap_or(Handle::NONE)
    }

    /// Starts a new thread at the beginning of `code` with `argument` in `rdi`.
    pub fn start(&mut self, code: &[u8], argument: u64) -> Result<(), Error> {
        self.prepare(code)?;
        syscall::thread_start(self.thread(), CODE, STACK + PAGE_BYTES, argument)
    }

    /// Starts a new thread at the beginning of `code` with these registers.
    pub fn start_with(&mut self, code: &[u8], registers: Registers) -> Result<(), Error> {
        self.prepare(code)?;
        let registers = Registers {
            rip: CODE,
            rsp: STACK + PAGE_BYTES,
            ..registers
        };
        syscall::thread_set_registers(self.thread(), (&raw const registers) as u64)?;
        syscall::thread_resume(self.thread()).map(drop)
    }

    /// The registers of the thread, which has faulted.
    pub fn registers(&self) -> Result<Registers, Error> {
        let mut registers = Registers::default();
        syscall::thread_get_registers(self.thread(), (&raw mut registers) as u64)?;
        // SAFETY: a live local, written by the kernel behind the compiler's back.
        Ok(unsafe { (&raw const registers).read_volatile() })
    }

    /// Writes the code and makes a suspended thread.
    fn prepare(&mut self, code: &[u8]) -> Result<(), Error> {
        self.end()?;
        // SAFETY: the page is mapped writable, and no thread of the twin runs.
        let page = unsafe { self.code.as_mut_slice() };
        page.fill(0xcc); // int3: what runs off the end is noticed
        page.get_mut(..code.len())
            .ok_or(Error::TooLong)?
            .copy_from_slice(code);
        let thread = syscall::thread_create(
            slots::POOL,
            self.space,
            Handle::OWN_PRIVATE,
            Handle::OWN_FILES,
            Handle::OWN_FS,
            Copies::empty(),
            crate::own_label()?,
            self.exceptions,
            0,
        )?;
        self.thread = Some(thread);
        Ok(())
    }

    /// Waits for the next fault.
    pub fn next_fault(&mut self) -> Result<Fault, Error> {
        self.mail.deadline = Some(crate::after(PATIENCE)?);
        self.mail.receive(self.handler)?;
        // Kept, because the test may receive from other twins before it answers.
        syscall::reply_keep(self.reply)?;
        Ok(Fault {
            message: self.mail.fault().ok_or(Error::WrongKind)?,
            badge: self.mail.badge,
            label: self.mail.label,
        })
    }

    /// Lets the faulted thread go on and waits for its next fault.
    pub fn resume(&mut self) -> Result<Fault, Error> {
        self.mail.reply(self.reply, &[], &[])?;
        self.next_fault()
    }

    /// Runs `code` until it faults.
    pub fn fault_of(&mut self, code: &[u8], argument: u64) -> Result<Fault, Error> {
        self.start(code, argument)?;
        self.next_fault()
    }

    fn end(&mut self) -> Result<(), Error> {
        if let Some(thread) = self.thread.take() {
            syscall::thread_end(thread, 0)?;
            syscall::cap_close(thread)?;
        }
        Ok(())
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let _ = self.end();
        self.mail.deadline = Some(NEVER);
        for handle in [self.reply, self.exceptions, self.space, self.handler] {
            let _ = syscall::cap_close(handle);
        }
    }
}

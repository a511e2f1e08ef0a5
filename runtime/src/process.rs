//! Processes: fork, vfork, clone, exec, exit, wait, `CreateProcess`.
//!
//! A child made by fork or clone continues where its parent waits in the call, and knows itself by the
//! empty answer. A child that shares its parent's memory ([`vfork`], [`clone`] with VM) must not touch
//! the frames that the parent will return through: it calls its function below them, from an assembly
//! stub that keeps everything the parent needs above, and ends instead of returning.

use core::ffi::c_void;
use core::mem::{ManuallyDrop, MaybeUninit};

use libipc::abi::{
    Delivery, Error, Handle, IpcCall, IpcFlags, NEVER, OpWord, PAGE_BYTES, SendCap, TableSelector,
    layout,
};
use libipc::protocol::files::FileError;
use libipc::protocol::process::{
    self, CloneArguments, CreateProcess, Errno, Identity, ProcessError, ProcessIds, Start, Waited,
    Win32Error, slots,
};
use libipc::wire::{CallError, Connection, Received, ShortBody, decode_answer, encode};

use crate::file::{self, directory};
use crate::initial_stack::{self, StackError, Strings};
use crate::memory::Mapping;
use crate::syscall;

/// The process protocol with the process's own capability.
pub const fn client() -> process::Client<Connection> {
    process::Client::new(Connection::new(slots::PROCESS_SERVER))
}

/// A failed call as an error number.
pub fn errno(error: CallError<ProcessError>) -> Errno {
    match error {
        CallError::Refused(ProcessError::Linux(errno)) => errno,
        CallError::Refused(ProcessError::Denied) => Errno::EPERM,
        CallError::Refused(ProcessError::Win32(_)) | CallError::Protocol => Errno::EINVAL,
        CallError::Kernel(error) => kernel_errno(error),
    }
}

fn kernel_errno(error: Error) -> Errno {
    match error {
        Error::Interrupted => Errno::EINTR,
        Error::NoMemory => Errno::ENOMEM,
        Error::Exhausted => Errno::EAGAIN,
        Error::BadAddress => Errno::EFAULT,
        Error::BadHandle | Error::WrongKind => Errno::EBADF,
        Error::AccessDenied => Errno::EPERM,
        Error::InvalidArgument => Errno::EINVAL,
        Error::TooLong => Errno::E2BIG,
        _ => Errno::EIO,
    }
}

/// A file error as an error number; `FileError` has Linux's numbers.
fn file_errno(error: FileError) -> Errno {
    match error {
        FileError::NotFound => Errno::ENOENT,
        FileError::Interrupted => Errno::EINTR,
        FileError::Io => Errno::EIO,
        FileError::NotAnImage => Errno::ENOEXEC,
        FileError::BadAccess => Errno::EBADF,
        FileError::NoMemory => Errno::ENOMEM,
        FileError::Denied | FileError::ReadOnly => Errno::EACCES,
        FileError::NotADirectory => Errno::ENOTDIR,
        FileError::IsADirectory => Errno::EISDIR,
        FileError::Invalid | FileError::NotSeekable => Errno::EINVAL,
        FileError::NameTooLong => Errno::ENAMETOOLONG,
    }
}

/// On which side of a fork we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// In the new process.
    Child,
    /// In the process that called; the child's PID.
    Parent(u32),
}

const FORK: u16 = 1;
const VFORK: u16 = 2;
const CLONE: u16 = 3;

/// Makes a copy of the calling process. Both return from here.
pub fn fork() -> Result<Fork, Errno> {
    let mut request = ShortBody::new();
    encode(&FORK, &mut request).map_err(kernel_errno)?;
    // No flags: the server answers at once, and a call without any takes the kernel's short path.
    let op = OpWord::new(IpcCall::Call, IpcFlags::empty(), request.len(), 0);
    // SAFETY: no memory part, and the body fits the registers.
    let answer = unsafe {
        syscall::message(
            op,
            slots::PROCESS_SERVER,
            core::ptr::null_mut(),
            request.words(),
        )
    };
    match created(answer.delivery, answer.body)? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// What an answer to fork, vfork or clone says: the child's PID, or 0 in the child.
fn created(delivery: Delivery, words: [u64; 8]) -> Result<u32, Errno> {
    if let Some(error) = delivery.error() {
        return Err(kernel_errno(error));
    }
    if delivery.length() == 0 {
        return Ok(0);
    }
    let mut body = ShortBody::new();
    // SAFETY: a short body has no tail.
    unsafe { body.set_delivered(words, delivery.length()) };
    decode_answer(body.bytes()).map_err(errno)
}

/// What the child of [`call_with_child`] runs: it must not return.
type Child = unsafe extern "C" fn(*mut c_void) -> !;

/// A message call without a memory part whose answer may arrive twice: with a body in the caller, and
/// empty in a child that shares the caller's memory. The child calls `child(context)` and never
/// returns; the caller gets the answer's words in `body` and its status.
///
/// The child may be on the caller's own stack (vfork). It pushes only below what is saved here, and
/// reaches the caller's frames only through `context`.
///
/// # Safety
/// `body` is valid for reading and writing; `child` does not return; `context` is what it takes.
#[unsafe(naked)]
unsafe extern "C" fn call_with_child(
    op: u64,
    endpoint: u64,
    body: *mut [u64; 8],
    child: Child,
    context: *mut c_void,
) -> u64 {
    core::arch::naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdx",
        // rbx and rbp are the registers that a message call leaves alone, in the child too.
        "mov rbx, rcx",
        "mov rbp, r8",
        "mov rax, rdi",
        "mov rdi, rsi",
        "xor esi, esi",
        "mov r11, rdx",
        "mov rdx, [r11]",
        "mov r8, [r11 + 8]",
        "mov r9, [r11 + 16]",
        "mov r10, [r11 + 24]",
        "mov r12, [r11 + 32]",
        "mov r13, [r11 + 40]",
        "mov r14, [r11 + 48]",
        "mov r15, [r11 + 56]",
        "syscall",
        // Status and length both zero: the child.
        "test eax, 0xffff00ff",
        "jz 2f",
        "pop r11",
        "mov [r11], rdx",
        "mov [r11 + 8], r8",
        "mov [r11 + 16], r9",
        "mov [r11 + 24], r10",
        "mov [r11 + 32], r12",
        "mov [r11 + 40], r13",
        "mov [r11 + 48], r14",
        "mov [r11 + 56], r15",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        "2:",
        "mov rdi, rbp",
        "xor ebp, ebp",
        "and rsp, -16",
        "call rbx",
        "ud2",
    )
}

/// Runs the closure behind `context` and ends the calling thread with its result.
///
/// # Safety
/// `context` points to a `ManuallyDrop<F>` that nobody else takes.
unsafe extern "C" fn run_child<F: FnOnce() -> i32>(context: *mut c_void) -> ! {
    // SAFETY: the caller's promise.
    let run = unsafe { ManuallyDrop::take(&mut *context.cast::<ManuallyDrop<F>>()) };
    exit_thread(run())
}

/// Sends `request`; the child runs `child` with `context`, which the callers make for each other. A
/// caller who waits for the child's memory to be its own again is not interrupted in that.
fn call_child(
    request: &ShortBody,
    flags: IpcFlags,
    child: Child,
    context: *mut c_void,
) -> Result<u32, Errno> {
    let op = OpWord::new(IpcCall::Call, flags, request.len(), 0);
    let mut words = request.words();
    // SAFETY: `words` is ours; `child` ends its thread, and takes what `context` points to, which the
    // callers leave to it where memory is shared.
    let status =
        unsafe { call_with_child(op.0, slots::PROCESS_SERVER.0, &mut words, child, context) };
    created(Delivery(status), words)
}

/// What a vfork child may do besides what every process may.
#[derive(Debug)]
pub struct VforkChild<'p> {
    /// The initial stack for an exec lies in the parent's memory, so the parent frees it.
    stack: &'p mut Option<Mapping>,
}

impl VforkChild<'_> {
    /// Replaces the child's image, as [`exec`] does. Returns only if that failed.
    pub fn exec<'s>(
        &mut self,
        path: &[u8],
        arguments: impl Strings<'s>,
        environment: impl Strings<'s>,
    ) -> Errno {
        let order = match Order::new(path, arguments, environment) {
            Ok(order) => order,
            Err(error) => return error,
        };
        let result = order.give(self.stack, |start, image| client().exec(start, image));
        *self.stack = None;
        exec_errno(result)
    }
}

/// What a vfork parent and its child both see.
struct Vfork<F> {
    closure: ManuallyDrop<F>,
    stack: Option<Mapping>,
}

/// Runs the closure in `context` and ends the calling thread with its result.
///
/// # Safety
/// `context` points to a `Vfork<F>` whose closure nobody else takes, and whose owner stands still.
unsafe extern "C" fn run_vfork_child<F: FnOnce(&mut VforkChild) -> i32>(context: *mut c_void) -> ! {
    // SAFETY: the caller's promise.
    let shared = unsafe { &mut *context.cast::<Vfork<F>>() };
    // SAFETY: likewise.
    let run = unsafe { ManuallyDrop::take(&mut shared.closure) };
    let code = run(&mut VforkChild {
        stack: &mut shared.stack,
    });
    exit_thread(code)
}

/// Makes a child that runs `child` in the caller's memory, and returns its PID when the child has
/// called [`VforkChild::exec`] or ended. The value of `child` is its exit status.
///
/// The child changes the caller's variables. It should exec or end soon: its caller stands still.
pub fn vfork<F: FnOnce(&mut VforkChild) -> i32>(child: F) -> Result<u32, Errno> {
    let mut request = ShortBody::new();
    encode(&VFORK, &mut request).map_err(kernel_errno)?;
    let mut shared = Vfork {
        closure: ManuallyDrop::new(child),
        stack: None,
    };
    let context = (&raw mut shared).cast();
    let result = call_child(
        &request,
        IpcFlags::KILLABLE_ONLY,
        run_vfork_child::<F>,
        context,
    );
    if result.is_err() {
        // SAFETY: there is no child that took it.
        unsafe { ManuallyDrop::drop(&mut shared.closure) };
    }
    result
}

/// Bits of [`CloneArguments::flags`] (LX-CLONE).
pub mod clone_flags {
    /// Share the memory.
    pub const VM: u64 = 0x100;
    /// Share root, working directory and umask.
    pub const FS: u64 = 0x200;
    /// Share the files table.
    pub const FILES: u64 = 0x400;
    /// Share signal dispositions.
    pub const SIGHAND: u64 = 0x800;
    /// The caller goes on when the child execs or ends.
    pub const VFORK: u64 = 0x4000;
    /// The caller's parent is the child's.
    pub const PARENT: u64 = 0x8000;
    /// A thread of the caller's process.
    pub const THREAD: u64 = 0x1_0000;
    /// Set the FS base.
    pub const SETTLS: u64 = 0x8_0000;
    /// Store the TID at `parent_tid`.
    pub const PARENT_SETTID: u64 = 0x10_0000;
    /// Clear `child_tid` and wake a waiter when the child ends.
    pub const CHILD_CLEARTID: u64 = 0x20_0000;
    /// Store the TID at `child_tid` in the child's memory.
    pub const CHILD_SETTID: u64 = 0x100_0000;
    /// The signal that tells a parent of its child's end.
    pub const SIGCHLD: u64 = 17;
}

/// clone: makes a process or a thread that shares what `arguments.flags` say and runs `child`, whose
/// value is its exit status. Returns the child's PID or TID.
///
/// `arguments.stack` is set from `stack`, on top of which the closure waits for the child. Without a
/// stack the child is on the caller's, so memory may only be shared together with VFORK (`EINVAL`).
pub fn clone<F: FnOnce() -> i32 + 'static>(
    mut arguments: CloneArguments,
    stack: Option<&mut Mapping>,
    child: F,
) -> Result<u32, Errno> {
    let shares_memory = arguments.flags & clone_flags::VM != 0;
    let mut closure = ManuallyDrop::new(child);
    let mut place = &raw mut closure;
    match stack {
        Some(stack) => {
            let room = size_of::<ManuallyDrop<F>>().next_multiple_of(64) + 64;
            if align_of::<ManuallyDrop<F>>() > 64 || room + 4096 > stack.bytes() {
                return Err(Errno::EINVAL);
            }
            let top = stack.address() + (stack.bytes() - room) as u64;
            place = top as *mut ManuallyDrop<F>;
            // SAFETY: the top of the child's stack, aligned and large enough (checked above); the
            // closure moves there, `closure` is not used again.
            unsafe { place.write(core::ptr::read(&closure)) };
            arguments.stack = top;
        }
        None if shares_memory && arguments.flags & clone_flags::VFORK == 0 => {
            return Err(Errno::EINVAL);
        }
        None => {}
    }
    let flags = if arguments.flags & clone_flags::VFORK != 0 {
        IpcFlags::KILLABLE_ONLY
    } else {
        IpcFlags::empty()
    };
    let mut request = ShortBody::new();
    let result = encode(&CLONE, &mut request)
        .and_then(|()| encode(&(arguments,), &mut request))
        .map_err(kernel_errno)
        .and_then(|()| call_child(&request, flags, run_child::<F>, place.cast()));
    if result.is_err() || !shares_memory {
        // SAFETY: no child took this copy: there is none, or it has its own memory.
        unsafe { ManuallyDrop::drop(&mut *place) };
    }
    result
}

/// Ends the calling process.
pub fn exit(code: i32) -> ! {
    let _ = client().exit_group(code);
    end_thread()
}

/// Ends the calling thread; with the last one the process ends.
pub fn exit_thread(code: i32) -> ! {
    let _ = client().exit(code);
    end_thread()
}

/// Ends the thread without the process server, if that did not answer.
fn end_thread() -> ! {
    loop {
        let _ = syscall::thread_exit();
    }
}

/// The caller's PID, TID and parent.
pub fn identity() -> Result<Identity, Errno> {
    client().identity().map_err(errno)
}

/// The caller's PID; 0 if the process server does not know it.
pub fn getpid() -> u32 {
    identity().map_or(0, |identity| identity.pid)
}

/// The PID of the caller's parent.
pub fn getppid() -> u32 {
    identity().map_or(0, |identity| identity.ppid)
}

/// The calling thread's TID.
pub fn gettid() -> u32 {
    identity().map_or(0, |identity| identity.tid)
}

/// Do not wait (WNOHANG).
pub const NO_HANG: u32 = 1;

/// Waits for a child (LX-WAIT-02): `pid` -1 for any.
pub fn wait(pid: i32, options: u32) -> Result<Waited, Errno> {
    client().wait4(pid, options).map_err(errno)
}

/// The exit status in a wait status word; `None` if a signal ended the child (LX-WAIT-05).
pub fn exit_status(status: u32) -> Option<u8> {
    (status & 0x7f == 0).then_some((status >> 8) as u8)
}

/// The signal that ended the child, from a wait status word.
pub fn ending_signal(status: u32) -> Option<u32> {
    (status & 0x7f != 0 && status & 0x7f != 0x7f).then_some(status & 0x7f)
}

/// Sends a signal.
pub fn kill(pid: i32, signal: u32) -> Result<(), Errno> {
    client().kill(pid, signal).map_err(errno)
}

/// An image and what it is started with, ready to be given to the process server.
#[derive(Debug)]
pub struct Order<A, E> {
    /// A window on the image; none once the server has it. Closed with the order.
    image: Handle,
    name: [u8; 16],
    arguments: A,
    environment: E,
}

/// An initial stack up to this size is built on the stack of whoever gives the order, in bytes.
const SMALL_STACK: usize = 2048;

impl<'s, A: Strings<'s>, E: Strings<'s>> Order<A, E> {
    /// Opens the image at `path`. The process is named after the last component of `path`; environment
    /// strings have the form `NAME=value`.
    pub fn new(path: &[u8], arguments: A, environment: E) -> Result<Order<A, E>, Errno> {
        Order::of(directory(path), path, arguments, environment)
    }

    /// As [`Order::new`], with `path` looked up from the directory that a capability stands for.
    pub fn of(
        directory: Handle,
        path: &[u8],
        arguments: A,
        environment: E,
    ) -> Result<Order<A, E>, Errno> {
        let image = file::image_from(directory, path).map_err(file_errno)?;
        Ok(Order::of_image(image, path, arguments, environment))
    }

    /// As [`Order::new`], with a window on the image that the caller has and gives away.
    pub fn of_image(image: Handle, path: &[u8], arguments: A, environment: E) -> Order<A, E> {
        Order {
            image,
            name: name_of(path),
            arguments,
            environment,
        }
    }

    /// Builds the initial stack and gives it and the image to the server by `request`. A stack that is
    /// not small is left in `mapped`; nobody needs it after the request.
    fn give<T>(
        mut self,
        mapped: &mut Option<Mapping>,
        request: impl FnOnce(Start, SendCap) -> Result<T, CallError<ProcessError>>,
    ) -> Result<T, CallError<ProcessError>> {
        let build = |room| {
            let (arguments, environment) = (self.arguments.clone(), self.environment.clone());
            initial_stack::build(room, layout::STACK_END, arguments, environment)
        };
        let mut small = [MaybeUninit::uninit(); SMALL_STACK];
        let built = match build(&mut small[..]) {
            Err(StackError::TooBig) => {
                let pages = (initial_stack::ROOM as u64).div_ceil(PAGE_BYTES);
                let mapping = mapped.insert(Mapping::anonymous(pages)?);
                // SAFETY: just mapped, and nobody else knows of it.
                build(unsafe { mapping.as_uninit_slice() })
            }
            built => built,
        };
        let stack =
            built.map_err(|error| CallError::Refused(ProcessError::Linux(stack_errno(error))))?;
        let start = Start {
            name: self.name,
            stack: stack.as_ptr() as u64,
            stack_bytes: stack.len() as u64,
        };
        let result = request(start, SendCap::moved(self.image));
        // A request that was delivered took the image along, whatever the answer. Where the kernel
        // cannot say (the answer got lost), closing it again does nothing.
        if !matches!(result, Err(CallError::Kernel(_))) {
            self.image = Handle::NONE;
        }
        result
    }
}

impl<A, E> Drop for Order<A, E> {
    fn drop(&mut self) {
        if self.image.is_some() {
            let _ = syscall::cap_close(self.image);
        }
    }
}

/// A process's name: the last component of its image's path, cut to 15 bytes and filled with NULs.
fn name_of(path: &[u8]) -> [u8; 16] {
    let begin = path.iter().rposition(|byte| *byte == b'/');
    let last = &path[begin.map_or(0, |slash| slash + 1)..];
    let length = last.len().min(15);
    let mut name = [0; 16];
    name[..length].copy_from_slice(&last[..length]);
    name
}

fn stack_errno(error: StackError) -> Errno {
    match error {
        StackError::TooBig => Errno::E2BIG,
        StackError::Malformed => Errno::EINVAL,
    }
}

/// Replaces the calling process's image. Returns only if that failed.
pub fn exec<'s>(path: &[u8], arguments: impl Strings<'s>, environment: impl Strings<'s>) -> Errno {
    let order = match Order::new(path, arguments, environment) {
        Ok(order) => order,
        Err(error) => return error,
    };
    exec_errno(order.give(&mut None, |start, image| client().exec(start, image)))
}

/// Why an exec came back.
fn exec_errno(result: Result<(), CallError<ProcessError>>) -> Errno {
    match result {
        Ok(()) => Errno::EIO, // exec does not answer with success
        Err(error) => errno(error),
    }
}

/// Starts the image of `order` as a child of the caller, with copies of the caller's files that are not
/// close-on-exec (posix_spawn). Returns its PID once it is loaded.
pub fn spawn<'s>(order: Order<impl Strings<'s>, impl Strings<'s>>) -> Result<u32, Errno> {
    spawn_by(client(), order)
}

/// As [`spawn`], with another capability for the process server than a program's own.
pub fn spawn_by<'s>(
    mut client: process::Client<Connection>,
    order: Order<impl Strings<'s>, impl Strings<'s>>,
) -> Result<u32, Errno> {
    order
        .give(&mut None, |start, image| client.spawn(start, image))
        .map_err(errno)
}

/// Where Win32 handles go: the files table, past the standard streams.
pub const HANDLES: Handle = Handle::new(TableSelector::Files, 3, 0);

/// A handle to a process or a thread, with the rights that its slot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectHandle(pub Handle);

/// CreateProcess: starts the image of `order` in `directory`, or in the caller's working directory.
/// What `options` says of the start is filled in. Returns the ids and the handles to
/// the process and its first thread.
pub fn create_process<'s>(
    order: Order<impl Strings<'s>, impl Strings<'s>>,
    directory: Option<Handle>,
    mut options: CreateProcess,
) -> Result<(ProcessIds, ObjectHandle, ObjectHandle), ProcessError> {
    let mut received = Received::new();
    let mut client = process::Client::new(Connection {
        receive_slots: HANDLES,
        ..Connection::new(slots::PROCESS_SERVER)
    });
    let result = order.give(&mut None, |start, image| {
        options.start = start;
        match directory.map(SendCap::copy) {
            Some(directory) => client.create_process_in(options, image, directory, &mut received),
            None => client.create_process(options, image, &mut received),
        }
    });
    match (result, received.as_slice()) {
        (Ok(ids), [process, thread]) => Ok((ids, ObjectHandle(*process), ObjectHandle(*thread))),
        (Ok(_), _) => Err(ProcessError::Win32(Win32Error::NoSystemResources)),
        (Err(error), _) => Err(win32_error(error)),
    }
}

/// A failed call through a handle, in Win32's terms.
fn win32_error(error: CallError<ProcessError>) -> ProcessError {
    match error {
        CallError::Refused(error) => error,
        CallError::Kernel(Error::NoMemory) => ProcessError::Win32(Win32Error::NotEnoughMemory),
        CallError::Kernel(Error::AccessDenied) => ProcessError::Win32(Win32Error::AccessDenied),
        CallError::Kernel(Error::BadHandle | Error::WrongKind) | CallError::Protocol => {
            ProcessError::Win32(Win32Error::InvalidHandle)
        }
        CallError::Kernel(_) => ProcessError::Win32(Win32Error::NoSystemResources),
    }
}

/// What waiting for an object brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    /// The process or thread has ended (WAIT_OBJECT_0).
    Ended,
    /// The deadline passed (WAIT_TIMEOUT).
    TimedOut,
}

impl ObjectHandle {
    /// The process protocol over this handle.
    pub const fn client(self) -> process::Client<Connection> {
        process::Client::new(Connection::new(self.0))
    }

    /// TerminateProcess.
    pub fn terminate(self, code: u32) -> Result<(), ProcessError> {
        self.client().terminate_process(code).map_err(win32_error)
    }

    /// GetExitCodeProcess: 259 while it runs.
    pub fn exit_code(self) -> Result<u32, ProcessError> {
        self.client().exit_code().map_err(win32_error)
    }

    /// ResumeThread: the suspend count before.
    pub fn resume(self) -> Result<u32, ProcessError> {
        self.client().resume_thread().map_err(win32_error)
    }

    /// SuspendThread: the suspend count before.
    pub fn suspend(self) -> Result<u32, ProcessError> {
        self.client().suspend_thread().map_err(win32_error)
    }

    /// WaitForSingleObject. `timeout_ns` `None` waits for ever.
    pub fn wait(self, timeout_ns: Option<u64>) -> Result<WaitOutcome, ProcessError> {
        let no_resources = ProcessError::Win32(Win32Error::NoSystemResources);
        let mut received = Received::new();
        self.client()
            .wait_object(&mut received)
            .map_err(win32_error)?;
        let notification = *received.first().ok_or(no_resources)?;
        let deadline = match timeout_ns {
            Some(timeout) => syscall::clock()
                .map_err(|_| no_resources)?
                .saturating_add(timeout),
            None => NEVER,
        };
        let waited = syscall::notification_wait(notification, 1, 0, deadline);
        let _ = syscall::cap_close(notification);
        match waited {
            Ok(_) => Ok(WaitOutcome::Ended),
            Err(Error::TimedOut) => Ok(WaitOutcome::TimedOut),
            Err(_) => Err(no_resources),
        }
    }

    /// CloseHandle.
    pub fn close(self) -> Result<(), Error> {
        syscall::cap_close(self.0)
    }
}

/// ExitProcess: ends the calling process with a 32-bit code.
pub fn exit_process(code: u32) -> ! {
    let _ = client().exit_process(code);
    end_thread()
}

#[cfg(test)]
mod tests {
    use super::*;
    use libipc::abi::MessageKind;
    use libipc::wire::answer;

    #[test]
    fn an_empty_answer_means_being_the_child() {
        let empty = Delivery::message(MessageKind::Call, 0, 0, 0);
        assert_eq!(created(empty, [0; 8]), Ok(0));
        let mut body = ShortBody::new();
        answer::<u32, ProcessError, 0>(Ok(77), &mut body);
        let full = Delivery::message(MessageKind::Call, body.len(), 0, 0);
        assert_eq!(created(full, body.words()), Ok(77));
        assert_eq!(
            created(Delivery::failure(Error::NoMemory), [0; 8]),
            Err(Errno::ENOMEM)
        );
    }

    #[test]
    fn a_status_word_says_how_the_child_ended() {
        assert_eq!(exit_status(0x2a00), Some(42));
        assert_eq!(exit_status(9), None);
        assert_eq!(ending_signal(9), Some(9));
        assert_eq!(ending_signal(0x2a00), None);
    }

    #[test]
    fn a_process_is_named_after_the_last_component_of_its_path() {
        assert_eq!(&name_of(b"/bin/sh"), b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&name_of(b"sixteen-long-abc"), b"sixteen-long-ab\0");
    }

    #[test]
    fn clone_arguments_fit_the_registers() {
        let mut request = ShortBody::new();
        let arguments = CloneArguments {
            flags: u64::MAX,
            stack: u64::MAX,
            parent_tid: u64::MAX,
            child_tid: u64::MAX,
            tls: u64::MAX,
        };
        assert_eq!(encode(&CLONE, &mut request), Ok(()));
        assert_eq!(encode(&(arguments,), &mut request), Ok(()));
    }
}

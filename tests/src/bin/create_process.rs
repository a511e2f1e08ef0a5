//! CreateProcess and what its handles can do. Rules: `docs/spec/win32-process.md`.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::Ordering::SeqCst;

use libipc::abi::{Access, SlotFlags, TableSelector};
use libipc::protocol::files::access;
use libipc::protocol::process::{
    CreateProcess, ProcessError, ProcessIds, Win32Error, slots, win32_access,
};
use libipc::{Error, Handle};
use runtime::file::{self, Fd};
use runtime::io::STDOUT;
use runtime::process::{
    ObjectHandle, Order, WaitOutcome, client, create_process, exit_process, getpid,
};
use runtime::{start, syscall};
use tests::child::{SharedPage, check_child, child, own_path};
use tests::{Failure, MILLISECOND, Outcome, check, check_eq};

tests::suite! {
    child other_image;
    w32_cp_01_a_process_is_made_from_an_image_with_arguments_and_environment,
    w32_cp_03_both_handles_have_all_rights_and_are_not_inheritable,
    w32_cp_06_ids_are_multiples_of_four_and_differ,
    w32_cp_07_a_child_outlives_its_creator,
    w32_cp_10_the_child_begins_in_the_given_directory,
    w32_cp_32_a_suspended_process_runs_when_it_is_resumed,
    w32_cp_57_contradictory_flags_are_refused,
    w32_exit_05_terminate_gives_process_and_thread_the_code,
    w32_exit_08_an_ended_process_is_not_terminated_again,
    w32_exit_09_terminate_needs_its_right_and_a_process_handle,
    w32_exit_10_terminate_ends_exactly_the_process_of_the_handle,
    w32_exit_16_exit_codes_are_whole_and_259_while_running,
    w32_exit_17_a_fault_ends_the_process_with_its_code,
    w32_exit_18_an_ended_process_stays_while_a_handle_is_open,
    w32_exit_25_who_sees_the_end_sees_the_code,
    w32_hnd_08_a_wrong_handle_comes_before_a_missing_right,
    w32_inh_01_only_marked_handles_are_inherited_and_only_if_asked,
    w32_inh_02_an_inherited_handle_has_the_same_value_and_rights,
    w32_thr_11_suspend_and_resume_return_the_count_before,
    w32_thr_13_the_suspend_count_has_a_limit,
    w32_thr_14_an_ended_thread_cannot_be_suspended,
    w32_wait_02_waiting_needs_synchronize,
    w32_wait_04_an_ended_process_is_signalled_for_ever,
    w32_wait_08_a_wait_times_out_when_it_should,
}

const CREATE_SUSPENDED: u32 = 0x4;
const STILL_ACTIVE: u32 = 259;

/// What this program does when a test starts its image anew: `child WHAT`.
fn other_image() -> i32 {
    match start::argument(2) {
        Some("code") => {
            let code = start::variable("CODE").and_then(|value| core::str::from_utf8(value).ok());
            exit_process(code.and_then(|text| text.parse().ok()).unwrap_or(1))
        }
        Some("stay") => loop {
            let _ = syscall::thread_yield();
        },
        Some("fault") => {
            // SAFETY: it ends the process.
            unsafe { core::arch::asm!("mov byte ptr [{}], 1", in(reg) 8u64) };
            1
        }
        // A bit for each of three descriptors that is open.
        Some("handles") => {
            let open = |fd| file::info(Fd(fd)).is_ok();
            exit_process(u32::from(open(1)) | u32::from(open(50)) << 1 | u32::from(open(51)) << 2)
        }
        Some("rights") => {
            let fd = Handle::new(TableSelector::Files, 50, 0);
            exit_process(syscall::cap_info(fd).map_or(0, |(info, _)| (info >> 32) as u32))
        }
        Some("directory") => exit_process(u32::from(file::open(b"sh", access::READ).is_ok())),
        _ => 1,
    }
}

/// A child of this image, by its handles.
struct Made {
    ids: ProcessIds,
    process: ObjectHandle,
    thread: ObjectHandle,
}

fn make(what: &[u8], variable: &[u8], options: CreateProcess) -> Result<Made, ProcessError> {
    make_in(None, what, variable, options)
}

fn make_in(
    directory: Option<Handle>,
    what: &[u8],
    variable: &[u8],
    options: CreateProcess,
) -> Result<Made, ProcessError> {
    let arguments = [own_path(), b"child", what];
    let environment = [variable];
    let order = Order::new(own_path(), arguments.into_iter(), environment.into_iter())
        .map_err(ProcessError::Linux)?;
    let (ids, process, thread) = create_process(order, directory, options)?;
    Ok(Made {
        ids,
        process,
        thread,
    })
}

fn suspended() -> CreateProcess {
    CreateProcess {
        flags: CREATE_SUSPENDED,
        ..CreateProcess::default()
    }
}

impl Made {
    /// Waits for the process's end; its exit code.
    fn code(&self) -> Result<u32, Failure> {
        check_ended(self.process)?;
        Ok(self.process.exit_code()?)
    }

    fn close(self) -> Outcome {
        self.process.close()?;
        self.thread.close()?;
        Ok(())
    }
}

fn check_ended(handle: ObjectHandle) -> Outcome {
    check_eq!(handle.wait(Some(tests::PATIENCE))?, WaitOutcome::Ended);
    Ok(())
}

/// A copy of a handle with fewer rights.
fn narrowed(handle: ObjectHandle, rights: u32) -> Result<ObjectHandle, Error> {
    let access = Access::from_bits_retain(rights);
    let slot = syscall::cap_copy(handle.0, Handle::OWN_FILES, 100, access, SlotFlags::empty())?;
    Ok(ObjectHandle(Handle(slot)))
}

fn win32<T>(error: Win32Error) -> Result<T, ProcessError> {
    Err(ProcessError::Win32(error))
}

fn w32_cp_01_a_process_is_made_from_an_image_with_arguments_and_environment() -> Outcome {
    let made = make(b"code", b"CODE=4242", CreateProcess::default())?;
    check_eq!(made.code()?, 4242);
    made.close()
}

fn w32_cp_03_both_handles_have_all_rights_and_are_not_inheritable() -> Outcome {
    let made = make(b"stay", b"", CreateProcess::default())?;
    for (handle, rights) in [
        (made.process, win32_access::PROCESS_ALL_ACCESS),
        (made.thread, win32_access::THREAD_ALL_ACCESS),
    ] {
        let (info, _) = syscall::cap_info(handle.0)?;
        check_eq!((info >> 32) as u32, rights);
        check_eq!((info >> 8) as u8 & SlotFlags::INHERIT.bits(), 0);
        check_eq!(handle.0.table(), Some(TableSelector::Files));
    }
    made.process.terminate(0)?;
    made.close()?;
    let marked = CreateProcess {
        process_inherit: true,
        thread_inherit: true,
        ..CreateProcess::default()
    };
    let made = make(b"code", b"CODE=0", marked)?;
    for handle in [made.process, made.thread] {
        let (info, _) = syscall::cap_info(handle.0)?;
        check_eq!((info >> 8) as u8, SlotFlags::INHERIT.bits());
    }
    check_eq!(made.code()?, 0);
    made.close()
}

fn w32_cp_06_ids_are_multiples_of_four_and_differ() -> Outcome {
    let first = make(b"code", b"CODE=0", CreateProcess::default())?;
    let second = make(b"code", b"CODE=0", CreateProcess::default())?;
    for id in [
        first.ids.process,
        first.ids.thread,
        second.ids.process,
        second.ids.thread,
    ] {
        check!(id != 0 && id % 4 == 0, "{:?} {:?}", first.ids, second.ids);
    }
    check!(first.ids.process != second.ids.process);
    check!(first.ids.thread != second.ids.thread);
    for made in [first, second] {
        made.code()?;
        made.close()?;
    }
    Ok(())
}

fn w32_cp_07_a_child_outlives_its_creator() -> Outcome {
    let shared = SharedPage::new()?;
    let creator = child(|| {
        let made = make(b"stay", b"", CreateProcess::default())?;
        shared.word(0).store((made.ids.process / 4).into(), SeqCst);
        Ok(())
    })?;
    check_child(creator)?;
    let pid = shared.word(0).load(SeqCst) as i32;
    runtime::process::kill(pid, 0)?;
    runtime::process::kill(pid, 9)?;
    Ok(())
}

fn w32_cp_10_the_child_begins_in_the_given_directory() -> Outcome {
    file::change_directory(b"/")?;
    let here = make(b"directory", b"", CreateProcess::default())?;
    check_eq!(here.code()?, 0);
    let bin = file::open(b"/bin", access::READ | access::EXECUTE)?;
    let there = make_in(
        Some(bin.handle()),
        b"directory",
        b"",
        CreateProcess::default(),
    )?;
    check_eq!(there.code()?, 1);
    // It is the child's directory only.
    check!(file::open(b"sh", access::READ).is_err());
    file::close(bin)?;
    here.close()?;
    there.close()
}

fn w32_cp_32_a_suspended_process_runs_when_it_is_resumed() -> Outcome {
    let made = make(b"code", b"CODE=5", suspended())?;
    check_eq!(made.process.exit_code()?, STILL_ACTIVE);
    let short = Some(20 * MILLISECOND);
    check_eq!(made.process.wait(short)?, WaitOutcome::TimedOut);
    check_eq!(made.thread.resume()?, 1);
    check_eq!(made.code()?, 5);
    made.close()?;
    // One that never ran can be ended, and its waiters learn of it.
    let made = make(b"code", b"CODE=5", suspended())?;
    made.process.terminate(6)?;
    check_eq!(made.code()?, 6);
    made.close()
}

fn w32_cp_57_contradictory_flags_are_refused() -> Outcome {
    for flags in [0x18, 0x1800] {
        let options = CreateProcess {
            flags,
            ..CreateProcess::default()
        };
        let result = make(b"code", b"CODE=0", options).map(|made| made.ids);
        check_eq!(result, win32(Win32Error::InvalidParameter));
    }
    Ok(())
}

fn w32_exit_05_terminate_gives_process_and_thread_the_code() -> Outcome {
    let made = make(b"stay", b"", CreateProcess::default())?;
    made.process.terminate(0xdead_beef)?;
    check_eq!(made.code()?, 0xdead_beef);
    check_ended(made.thread)?;
    check_eq!(made.thread.exit_code()?, 0xdead_beef);
    made.close()
}

fn w32_exit_08_an_ended_process_is_not_terminated_again() -> Outcome {
    let made = make(b"code", b"CODE=9", CreateProcess::default())?;
    check_eq!(made.code()?, 9);
    check_eq!(made.process.terminate(10), win32(Win32Error::AccessDenied));
    check_eq!(made.process.exit_code()?, 9);
    made.close()
}

fn w32_exit_09_terminate_needs_its_right_and_a_process_handle() -> Outcome {
    let made = make(b"stay", b"", CreateProcess::default())?;
    let all_but = win32_access::PROCESS_ALL_ACCESS & !win32_access::PROCESS_TERMINATE;
    let weak = narrowed(made.process, all_but)?;
    check_eq!(weak.terminate(1), win32(Win32Error::AccessDenied));
    check_eq!(made.thread.terminate(1), win32(Win32Error::InvalidHandle));
    check_eq!(weak.exit_code()?, STILL_ACTIVE);
    let only = narrowed(made.process, win32_access::PROCESS_TERMINATE)?;
    only.terminate(3)?;
    check_eq!(made.code()?, 3);
    let closed = weak;
    closed.close()?;
    check_eq!(closed.terminate(1), win32(Win32Error::InvalidHandle));
    only.close()?;
    made.close()
}

fn w32_exit_10_terminate_ends_exactly_the_process_of_the_handle() -> Outcome {
    let first = make(b"stay", b"", CreateProcess::default())?;
    let second = make(b"stay", b"", CreateProcess::default())?;
    first.process.terminate(1)?;
    check_eq!(first.code()?, 1);
    check_eq!(second.process.exit_code()?, STILL_ACTIVE);
    second.process.terminate(2)?;
    check_eq!(second.code()?, 2);
    first.close()?;
    second.close()
}

fn w32_exit_16_exit_codes_are_whole_and_259_while_running() -> Outcome {
    for (text, code) in [
        (b"CODE=4294967295".as_slice(), u32::MAX),
        (b"CODE=259", 259),
        (b"CODE=256", 256),
    ] {
        let made = make(b"code", text, CreateProcess::default())?;
        check_eq!(made.code()?, code);
        made.close()?;
    }
    Ok(())
}

fn w32_exit_17_a_fault_ends_the_process_with_its_code() -> Outcome {
    let made = make(b"fault", b"", CreateProcess::default())?;
    check_eq!(made.code()?, 0xc000_0005);
    made.close()
}

fn w32_exit_18_an_ended_process_stays_while_a_handle_is_open() -> Outcome {
    let made = make(b"code", b"CODE=77", CreateProcess::default())?;
    made.code()?;
    made.thread.close()?;
    for _ in 0..20 {
        let other = make(b"code", b"CODE=0", CreateProcess::default())?;
        check!(other.ids.process != made.ids.process);
        other.code()?;
        other.close()?;
    }
    check_eq!(made.process.exit_code()?, 77);
    made.process.close()?;
    // There is nobody to wait for it, and no zombie.
    let pid = made.ids.process / 4;
    check!(client().process_at(pid)?.is_none_or(|line| line.pid != pid));
    Ok(())
}

fn w32_exit_25_who_sees_the_end_sees_the_code() -> Outcome {
    for _ in 0..20 {
        let made = make(b"code", b"CODE=12", CreateProcess::default())?;
        check_ended(made.process)?;
        check_eq!(made.process.exit_code()?, 12);
        made.close()?;
    }
    Ok(())
}

fn w32_hnd_08_a_wrong_handle_comes_before_a_missing_right() -> Outcome {
    let made = make(b"stay", b"", CreateProcess::default())?;
    let nothing = narrowed(made.thread, 0)?;
    check_eq!(nothing.terminate(1), win32(Win32Error::InvalidHandle));
    check_eq!(nothing.suspend(), win32(Win32Error::AccessDenied));
    let file = ObjectHandle(STDOUT.handle());
    check!(file.terminate(1).is_err());
    let own = ObjectHandle(slots::PROCESS_SERVER);
    check_eq!(own.terminate(1), win32(Win32Error::InvalidHandle));
    check!(getpid() > 0);
    made.process.terminate(0)?;
    nothing.close()?;
    made.close()
}

/// Puts two copies of standard output at 50 (marked inheritable) and 51 (not).
fn with_two_handles(test: impl FnOnce() -> Outcome) -> Outcome {
    for fd in [50, 51] {
        file::duplicate_to(STDOUT, Fd(fd))?;
    }
    file::set_flags(Fd(50), SlotFlags::INHERIT, SlotFlags::INHERIT)?;
    let result = test();
    file::close(Fd(50))?;
    file::close(Fd(51))?;
    result
}

fn inheriting() -> CreateProcess {
    CreateProcess {
        inherit_handles: true,
        ..CreateProcess::default()
    }
}

fn w32_inh_01_only_marked_handles_are_inherited_and_only_if_asked() -> Outcome {
    with_two_handles(|| {
        let made = make(b"handles", b"", inheriting())?;
        check_eq!(made.code()? & 0b110, 0b010);
        made.close()?;
        let made = make(b"handles", b"", CreateProcess::default())?;
        check_eq!(made.code()? & 0b110, 0);
        made.close()
    })
}

fn w32_inh_02_an_inherited_handle_has_the_same_value_and_rights() -> Outcome {
    with_two_handles(|| {
        let (info, _) = syscall::cap_info(Fd(50).handle())?;
        let made = make(b"rights", b"", inheriting())?;
        check_eq!(made.code()?, (info >> 32) as u32);
        made.close()
    })
}

fn w32_thr_11_suspend_and_resume_return_the_count_before() -> Outcome {
    let made = make(b"code", b"CODE=8", suspended())?;
    check_eq!(made.thread.suspend()?, 1);
    check_eq!(made.thread.resume()?, 2);
    check_eq!(made.process.exit_code()?, STILL_ACTIVE);
    check_eq!(made.thread.resume()?, 1);
    check_eq!(made.code()?, 8);
    made.close()
}

fn w32_thr_13_the_suspend_count_has_a_limit() -> Outcome {
    let made = make(b"stay", b"", CreateProcess::default())?;
    for count in 0..127 {
        check_eq!(made.thread.suspend()?, count);
    }
    check_eq!(made.thread.suspend(), win32(Win32Error::SignalRefused));
    check_eq!(made.thread.resume()?, 127);
    made.process.terminate(0)?;
    made.code()?;
    made.close()
}

fn w32_thr_14_an_ended_thread_cannot_be_suspended() -> Outcome {
    let made = make(b"code", b"CODE=0", CreateProcess::default())?;
    made.code()?;
    check_eq!(made.thread.suspend(), win32(Win32Error::AccessDenied));
    check_eq!(made.thread.resume()?, 0);
    made.close()
}

fn w32_wait_02_waiting_needs_synchronize() -> Outcome {
    let made = make(b"code", b"CODE=0", CreateProcess::default())?;
    let all_but = win32_access::PROCESS_ALL_ACCESS & !win32_access::SYNCHRONIZE;
    let deaf = narrowed(made.process, all_but)?;
    check_eq!(deaf.wait(Some(0)), win32(Win32Error::AccessDenied));
    made.code()?;
    deaf.close()?;
    made.close()
}

fn w32_wait_04_an_ended_process_is_signalled_for_ever() -> Outcome {
    let made = make(b"code", b"CODE=0", CreateProcess::default())?;
    made.code()?;
    for _ in 0..5 {
        check_eq!(made.process.wait(Some(0))?, WaitOutcome::Ended);
        check_eq!(made.thread.wait(Some(0))?, WaitOutcome::Ended);
    }
    made.close()
}

fn w32_wait_08_a_wait_times_out_when_it_should() -> Outcome {
    let made = make(b"stay", b"", CreateProcess::default())?;
    let before = syscall::clock()?;
    let timeout = 30 * MILLISECOND;
    check_eq!(made.process.wait(Some(timeout))?, WaitOutcome::TimedOut);
    let took = syscall::clock()? - before;
    check!(took >= timeout && took < 20 * timeout, "it took {took} ns");
    made.process.terminate(0)?;
    made.code()?;
    made.close()
}

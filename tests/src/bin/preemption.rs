//! Sharing the processor: threads that never give it up by themselves, priorities, and what a thread
//! finds unchanged when it goes on.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use libipc::Error;
use libipc::protocol::process::slots;
use runtime::syscall;
use tests::twin::{CODE, STACK};
use tests::worker::wait_for;
use tests::{MILLISECOND, Outcome, PATIENCE, Twin, Worker, after, check, check_eq};

tests::suite! {
    spinning_threads_of_one_priority_share_the_processor,
    a_higher_priority_runs_first,
    nobody_sets_a_priority_above_his_own,
    a_spinning_thread_cannot_hold_up_a_timer,
    all_general_registers_survive_preemption,
    vector_registers_belong_to_their_thread,
    a_new_thread_begins_with_clean_floating_point_state,
    flags_survive_preemption,
    segment_bases_belong_to_their_thread,
    a_suspended_thread_stands_still_until_resumed_as_often,
    a_thread_that_was_ended_runs_no_more,
    yielding_lets_the_other_thread_run,
}

/// Waits on the processor, without a system call.
fn spin_for(nanoseconds: u64) -> Outcome {
    let end = after(nanoseconds)?;
    while syscall::clock()? < end {
        core::hint::spin_loop();
    }
    Ok(())
}

fn spinning_threads_of_one_priority_share_the_processor() -> Outcome {
    let stop = AtomicBool::new(false);
    let counts = [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)];
    let bodies = [0, 1, 2].map(|number| {
        let (stop, count) = (&stop, &counts[number]);
        move || {
            while !stop.load(SeqCst) {
                count.fetch_add(1, SeqCst);
            }
            Ok(())
        }
    });
    let workers = [
        Worker::start(&bodies[0])?,
        Worker::start(&bodies[1])?,
        Worker::start(&bodies[2])?,
    ];
    // Nobody makes a system call but us.
    let patience = after(10 * PATIENCE)?;
    while counts.iter().any(|count| count.load(SeqCst) < 100_000) {
        check!(syscall::clock()? < patience, "counts: {counts:?}");
    }
    spin_for(200 * MILLISECOND)?;
    stop.store(true, SeqCst);
    for worker in workers {
        worker.join()?;
    }
    let shown = counts.map(|count| count.load(SeqCst));
    let (least, most) = (shown.iter().min(), shown.iter().max());
    check!(
        most.zip(least)
            .is_some_and(|(most, least)| *most < least * 4),
        "unfair: {shown:?}"
    );
    Ok(())
}

fn a_higher_priority_runs_first() -> Outcome {
    let order = AtomicU64::new(0);
    let bodies = [1u64, 2, 3].map(|number| {
        let order = &order;
        move || {
            order
                .fetch_update(SeqCst, SeqCst, |seen| Some(seen * 10 + number))
                .ok();
            Ok(())
        }
    });
    let workers = [
        Worker::new(&bodies[0], libipc::Handle::NONE)?,
        Worker::new(&bodies[1], libipc::Handle::NONE)?,
        Worker::new(&bodies[2], libipc::Handle::NONE)?,
    ];
    for (worker, priority) in workers.iter().zip([1, 3, 2]) {
        syscall::thread_set_priority(worker.thread(), priority)?;
        worker.run()?;
    }
    // All are below us, so none has run.
    check_eq!(order.load(SeqCst), 0);
    for worker in workers {
        worker.join()?;
    }
    check_eq!(order.load(SeqCst), 231);
    Ok(())
}

fn nobody_sets_a_priority_above_his_own() -> Outcome {
    let body = || Ok(());
    let worker = Worker::new(&body, libipc::Handle::NONE)?;
    check!(syscall::thread_set_priority(worker.thread(), 31).is_err());
    check_eq!(
        syscall::thread_set_priority(worker.thread(), 32),
        Err(Error::InvalidArgument)
    );
    syscall::thread_set_priority(worker.thread(), 0)?;
    Ok(())
}

fn a_spinning_thread_cannot_hold_up_a_timer() -> Outcome {
    let stop = AtomicBool::new(false);
    let spin = || {
        while !stop.load(SeqCst) {
            core::hint::spin_loop();
        }
        Ok(())
    };
    let worker = Worker::start(&spin)?;
    let bell = syscall::notification_create(slots::POOL, 0)?;
    for _ in 0..5 {
        let time = after(10 * MILLISECOND)?;
        syscall::timer_set(bell, 1, time)?;
        wait_for(bell, 1, after(PATIENCE)?)?;
        let late = syscall::clock()?.saturating_sub(time);
        check!(late < 100 * MILLISECOND, "{late} ns late");
    }
    stop.store(true, SeqCst);
    syscall::cap_close(bell)?;
    worker.join()
}

/// Fills every general register but `rsp` from `rdi`, spins, and checks them: `ud2` if all are
/// unchanged, `hlt` if one is not. `rdi` differs between the threads.
fn register_check() -> [u8; 128] {
    let mut code = [0x90; 128];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        code[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    // Registers by their numbers, without rcx (the counter), rsp and rdi.
    const CHECKED: [u8; 13] = [0, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    for register in CHECKED {
        // lea register, [rdi + register]
        let rex = 0x48 | u8::from(register >= 8) << 2;
        put(&[rex, 0x8d, 0x47 | (register & 7) << 3, register]);
    }
    put(&[0xb9, 0, 0, 0x80, 0]); // mov ecx, 0x800000
    put(&[0xff, 0xc9, 0x75, 0xfc]); // dec ecx; jnz back
    for register in CHECKED {
        // sub register, rdi: leaves the register's number
        let rex = 0x48 | u8::from(register >= 8);
        put(&[rex, 0x29, 0xf8 | register & 7]);
    }
    put(&[0x0f, 0x0b]); // ud2
    code
}

fn all_general_registers_survive_preemption() -> Outcome {
    let code = register_check();
    let mut twins = [Twin::new()?, Twin::new()?, Twin::new()?];
    for (number, twin) in twins.iter_mut().enumerate() {
        twin.start(&code, 0x1111_0000_0000 * (number as u64 + 1))?;
    }
    for twin in &mut twins {
        let fault = twin.next_fault()?;
        check_eq!(
            fault.message.kind,
            libipc::abi::FaultKind::InvalidInstruction
        );
        let registers = twin.registers()?;
        let left = [
            (registers.rax, 0),
            (registers.rdx, 2),
            (registers.rbx, 3),
            (registers.rbp, 5),
            (registers.rsi, 6),
            (registers.r8, 8),
            (registers.r9, 9),
            (registers.r10, 10),
            (registers.r11, 11),
            (registers.r12, 12),
            (registers.r13, 13),
            (registers.r14, 14),
            (registers.r15, 15),
            (registers.rsp, STACK + 4096),
        ];
        for (value, expected) in left {
            check_eq!(value, expected);
        }
    }
    Ok(())
}

fn vector_registers_belong_to_their_thread() -> Outcome {
    // movq xmm0, rdi; movq xmm15, rdi; spin; movq rax, xmm0; movq rbx, xmm15; ud2
    let code = [
        0x66, 0x48, 0x0f, 0x6e, 0xc7, // movq xmm0, rdi
        0x66, 0x4c, 0x0f, 0x6e, 0xff, // movq xmm15, rdi
        0xb9, 0, 0, 0x80, 0, // mov ecx, 0x800000
        0xff, 0xc9, 0x75, 0xfc, // dec ecx; jnz back
        0x66, 0x48, 0x0f, 0x7e, 0xc0, // movq rax, xmm0
        0x66, 0x4c, 0x0f, 0x7e, 0xfb, // movq rbx, xmm15
        0x0f, 0x0b, // ud2
    ];
    let mut twins = [Twin::new()?, Twin::new()?, Twin::new()?];
    for (number, twin) in twins.iter_mut().enumerate() {
        twin.start(&code, 0xabcd_0000 + number as u64)?;
    }
    for (number, twin) in twins.iter_mut().enumerate() {
        twin.next_fault()?;
        let registers = twin.registers()?;
        let expected = 0xabcd_0000 + number as u64;
        check_eq!((registers.rax, registers.rbx), (expected, expected));
    }
    Ok(())
}

fn a_new_thread_begins_with_clean_floating_point_state() -> Outcome {
    // Leave something behind in another thread first.
    let mut dirty = Twin::new()?;
    // movq xmm3, rdi; ud2
    dirty.fault_of(&[0x66, 0x48, 0x0f, 0x6e, 0xdf, 0x0f, 0x0b], u64::MAX)?;
    // movq rax, xmm3; stmxcsr [rsp-8]; mov ebx, [rsp-8]; fnstcw [rsp-8]; movzx edx, word [rsp-8]; ud2
    let code = [
        0x66, 0x48, 0x0f, 0x7e, 0xd8, 0x0f, 0xae, 0x5c, 0x24, 0xf8, 0x8b, 0x5c, 0x24, 0xf8, 0xd9,
        0x7c, 0x24, 0xf8, 0x0f, 0xb7, 0x54, 0x24, 0xf8, 0x0f, 0x0b,
    ];
    let mut twin = Twin::new()?;
    twin.fault_of(&code, 0)?;
    let registers = twin.registers()?;
    check_eq!(registers.rax, 0);
    check_eq!(registers.rbx, 0x1f80);
    check_eq!(registers.rdx, 0x37f);
    Ok(())
}

fn flags_survive_preemption() -> Outcome {
    // std; stc; mov ecx, ...; back: lea ecx, [rcx-1]; jrcxz out; jmp back; out: ud2
    // (instructions that leave the flags alone)
    let code = [
        0xfd, 0xf9, 0xb9, 0, 0, 0x40, 0, 0x8d, 0x49, 0xff, 0xe3, 0x02, 0xeb, 0xf9, 0x0f, 0x0b,
    ];
    let mut twins = [Twin::new()?, Twin::new()?];
    for twin in &mut twins {
        twin.start(&code, 0)?;
    }
    for twin in &mut twins {
        let fault = twin.next_fault()?;
        check_eq!(fault.message.instruction_pointer, CODE + 14);
        let flags = twin.registers()?.rflags;
        // Direction and carry set, interrupts on, no I/O privilege.
        check_eq!(flags & 0x3601, 0x601);
    }
    Ok(())
}

fn segment_bases_belong_to_their_thread() -> Outcome {
    // mov rax, fs:[0]; spin; mov rbx, gs:[0]; ud2
    let code = [
        0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, // mov rax, fs:[0]
        0xb9, 0, 0, 0x40, 0, // mov ecx, 0x400000
        0xff, 0xc9, 0x75, 0xfc, // dec ecx; jnz back
        0x65, 0x48, 0x8b, 0x1c, 0x25, 0, 0, 0, 0, // mov rbx, gs:[0]
        0x0f, 0x0b,
    ];
    let mut twins = [Twin::new()?, Twin::new()?];
    for (number, twin) in twins.iter_mut().enumerate() {
        // The first instruction faults while the bases are 0.
        let fault = twin.fault_of(&code, 0)?;
        check_eq!(fault.message.address, 0);
        let words = [0x100 + number as u64, 0x200 + number as u64];
        syscall::space_write(twin.space(), STACK, words.as_ptr() as u64, 16, 0)?;
        syscall::thread_set_base(twin.thread(), 0, STACK)?;
        syscall::thread_set_base(twin.thread(), 1, STACK + 8)?;
    }
    for twin in &mut twins {
        let fault = twin.resume()?;
        check_eq!(
            fault.message.kind,
            libipc::abi::FaultKind::InvalidInstruction
        );
    }
    for (number, twin) in twins.iter().enumerate() {
        let registers = twin.registers()?;
        let expected = (0x100 + number as u64, 0x200 + number as u64);
        check_eq!((registers.rax, registers.rbx), expected);
        let outside = 0x8000_0000_0000;
        check_eq!(
            syscall::thread_set_base(twin.thread(), 0, outside),
            Err(Error::InvalidArgument)
        );
    }
    Ok(())
}

fn a_suspended_thread_stands_still_until_resumed_as_often() -> Outcome {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let body = || {
        while !stop.load(SeqCst) {
            count.fetch_add(1, SeqCst);
        }
        Ok(())
    };
    let worker = Worker::start(&body)?;
    spin_for(20 * MILLISECOND)?;
    check_eq!(syscall::thread_suspend(worker.thread())?, 0);
    check_eq!(syscall::thread_suspend(worker.thread())?, 1);
    let seen = count.load(SeqCst);
    check!(seen > 0);
    for expected in [2, 1] {
        wait_a_little()?;
        check_eq!(count.load(SeqCst), seen);
        check_eq!(syscall::thread_resume(worker.thread())?, expected);
    }
    let deadline = after(PATIENCE)?;
    while count.load(SeqCst) == seen {
        check!(syscall::clock()? < deadline, "it did not go on");
        syscall::thread_yield()?;
    }
    check_eq!(syscall::thread_resume(worker.thread())?, 0);
    stop.store(true, SeqCst);
    worker.join()
}

/// Lets everybody else run for a while.
fn wait_a_little() -> Outcome {
    let bell = syscall::notification_create(slots::POOL, 0)?;
    check_eq!(
        wait_for(bell, 1, after(20 * MILLISECOND)?),
        Err(Error::TimedOut)
    );
    syscall::cap_close(bell)?;
    Ok(())
}

fn a_thread_that_was_ended_runs_no_more() -> Outcome {
    let count = AtomicU64::new(0);
    let body = || {
        loop {
            count.fetch_add(1, SeqCst);
        }
    };
    let worker = Worker::start(&body)?;
    spin_for(20 * MILLISECOND)?;
    syscall::thread_end(worker.thread(), 0)?;
    let seen = count.load(SeqCst);
    wait_a_little()?;
    check_eq!(count.load(SeqCst), seen);
    check_eq!(syscall::thread_status(worker.thread())?.0 & 0xff, 2);
    check!(worker.run().is_err());
    Ok(())
}

fn yielding_lets_the_other_thread_run() -> Outcome {
    let turn = AtomicU64::new(0);
    let body = || {
        while turn.load(SeqCst) < 200 {
            if !turn.load(SeqCst).is_multiple_of(2) {
                turn.fetch_add(1, SeqCst);
            }
            syscall::thread_yield()?;
        }
        Ok(())
    };
    let worker = Worker::start(&body)?;
    let start = syscall::clock()?;
    while turn.load(SeqCst) < 200 {
        if turn.load(SeqCst).is_multiple_of(2) {
            turn.fetch_add(1, SeqCst);
        }
        syscall::thread_yield()?;
    }
    let took = syscall::clock()? - start;
    worker.join()?;
    // A time slice each would be a hundred times as long.
    check!(took < 200 * MILLISECOND, "200 turns took {took} ns");
    Ok(())
}

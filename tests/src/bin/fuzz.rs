//! Random system calls and random messages: whatever comes, kernel and servers live on and nothing
//! is lost.
//!
//! A fuzzing process does the calls; this program supervises it and starts another when it has died
//! or stands still. Each test does a round that warms everything up, then the same again, and
//! compares what the pools use before and after the second to the frame. Arguments: `seed=N` repeats a run,
//! `calls=N` sets the number of completed calls (100,000).
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::Ordering::SeqCst;

use libipc::abi::{
    Access, Extended, IpcFlags, MESSAGE_BYTES, OpWord, PAGE_BYTES, SendCap, TableSelector, WaitItem,
};
use libipc::protocol::files::access;
use libipc::protocol::memory;
use libipc::protocol::process::{fs_slots, slots};
use libipc::wire::Connection;
use libipc::{Error, Handle};
use runtime::file;
use runtime::io::{STDERR, STDIN, STDOUT};
use runtime::memory::Mapping;
use runtime::process::{self, NO_HANG, client, kill, wait};
use runtime::{println, syscall};
use tests::child::{SharedPage, child, in_child, own_path};
use tests::harness::parameter;
use tests::worker::wait_for;
use tests::{MILLISECOND, Mail, Outcome, PATIENCE, Random, after, check, check_eq};

tests::suite! {
    random_system_calls_leave_everything_in_order,
    random_messages_to_the_process_server_leave_everything_in_order,
    random_messages_to_the_memory_server_leave_everything_in_order,
    random_messages_to_a_directory_leave_everything_in_order,
    random_messages_to_an_open_file_leave_everything_in_order,
    random_messages_to_the_standard_streams_leave_everything_in_order,
}

const CALLS: u64 = 100_000;
/// A fuzzing process that completes nothing for this long is ended.
const STANDSTILL: u64 = 200 * MILLISECOND;
/// A fuzzing process ends by itself after so many calls: by then it has often spoilt its own tables.
const CALLS_OF_ONE_PROCESS: u64 = 2_000;
/// How long a blocking call may wait.
const SHORT: u64 = MILLISECOND;

/// The word of the shared page that counts completed calls.
const COMPLETED: u64 = 0;

/// Runs `fuzz(random, completed)` in processes, one after the other, until `calls` are completed.
fn supervise(calls: u64, random: &mut Random, fuzz: &impl Fn(&mut Random, &dyn Fn())) -> Outcome {
    let shared = SharedPage::new()?;
    let bell = syscall::notification_create(slots::POOL, 0)?;
    let completed = || shared.word(COMPLETED).load(SeqCst);
    while completed() < calls {
        let seed = random.word();
        let pid = child(|| {
            let mut random = Random::new(seed);
            fuzz(&mut random, &|| {
                shared.word(COMPLETED).fetch_add(1, SeqCst);
            });
            Ok(())
        })?;
        let (mut seen, mut since) = (completed(), syscall::clock()?);
        while wait(pid as i32, NO_HANG)?.pid == 0 {
            let pause = wait_for(bell, 1, after(2 * MILLISECOND)?);
            check_eq!(pause, Err(Error::TimedOut));
            let now = completed();
            if now != seen {
                (seen, since) = (now, syscall::clock()?);
            } else if syscall::clock()? - since > STANDSTILL {
                kill(pid as i32, 9)?;
                wait(pid as i32, 0)?;
                break;
            }
        }
    }
    syscall::cap_close(bell)?;
    Ok(())
}

/// Two rounds of the same requests, with what the pools use compared: the first touches every stack
/// page and grows every table that the second needs. The servers answer afterwards.
fn rounds(fuzz: impl Fn(&mut Random, &dyn Fn())) -> Outcome {
    let seed = parameter("seed").map_or_else(syscall::clock, Ok)?;
    let calls = parameter("calls").unwrap_or(CALLS);
    println!("seed={seed} calls={calls}");
    supervise(calls, &mut Random::new(seed), &fuzz)?;
    clean_up()?;
    let before = settled()?;
    println!("warmed up");
    supervise(calls, &mut Random::new(seed), &fuzz)?;
    let deadline = after(PATIENCE)?;
    loop {
        clean_up()?;
        let now = settled()?;
        if now == before {
            break;
        }
        check!(
            syscall::clock()? < deadline,
            "pools: {before:?} before, {now:?} after"
        );
    }
    // Everybody still does his work.
    in_child(|| {
        file::close(file::open(own_path(), access::READ)?)?;
        Ok(())
    })
}

/// Ends what random requests have left behind on purpose: service threads, which outlive their
/// creators, and orphans that do not end by themselves.
fn clean_up() -> Outcome {
    let mut pid = 3;
    while let Some(line) = client().process_at(pid)? {
        pid = line.pid + 1;
        match line.ppid {
            2 => drop(client().service_stop(line.pid)),
            1 if line.pid != process::getpid() => drop(kill(line.pid as i32, 9)),
            _ => {}
        }
    }
    Ok(())
}

/// What the job's pool and all quotas use, once that has not changed for a while.
fn settled() -> Result<[u64; 16], tests::Failure> {
    let mut last = figures()?;
    let mut same = 0;
    while same < 20 {
        for _ in 0..10 {
            syscall::thread_yield()?;
        }
        let now = figures()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

fn figures() -> Result<[u64; 16], Error> {
    let mut figures = [0; 16];
    figures[0] = syscall::pool_status(slots::POOL)?.1;
    let mut client = memory::Client::new(Connection::new(slots::MEMORY_SERVER));
    let mut number = 0;
    for figure in &mut figures[1..] {
        // A program that was not given the memory server compares its own pool only.
        let Ok(Some(line)) = client.quota_at(number) else {
            break;
        };
        *figure = line.quota.used;
        number = line.number + 1;
    }
    Ok(figures)
}

fn random_system_calls_leave_everything_in_order() -> Outcome {
    rounds(|random, completed| {
        let Ok(scratch) = Mapping::anonymous(16) else {
            return;
        };
        let mut pool = Arguments::new(&scratch);
        for _ in 0..CALLS_OF_ONE_PROCESS {
            let number = match random.below(20) {
                0 => random.below(256) as u8,
                1..5 => 1 + random.below(5) as u8,
                _ => 8 + random.below(107) as u8,
            };
            // Ending the only thread is tried now and then: it is noticed only by its standstill.
            if number == THREAD_EXIT && !random.once_in(20) {
                continue;
            }
            pool.call(number, random);
            completed();
        }
    })
}

const THREAD_EXIT: u8 = 70;
const WAIT_MANY: u8 = 94;
const FUTEX_WAIT: u8 = 96;

/// Where arguments of random system calls come from.
struct Arguments {
    /// Start and end of a mapped range.
    scratch: (u64, u64),
    /// Handles that earlier calls may have returned.
    results: [u64; 16],
}

impl Arguments {
    fn new(scratch: &Mapping) -> Arguments {
        let start = scratch.address();
        Arguments {
            scratch: (start, start + scratch.bytes() as u64),
            results: [slots::POOL.0; 16],
        }
    }

    fn word(&self, random: &mut Random) -> u64 {
        const HANDLES: [Handle; 8] = [
            slots::PROCESS_SERVER,
            slots::SPACE,
            slots::POOL,
            slots::MEMORY_SERVER,
            Handle::OWN_FILES,
            Handle::OWN_PRIVATE,
            Handle::OWN_FS,
            Handle::NONE,
        ];
        match random.below(12) {
            0 => random.pick(&HANDLES).0,
            1..4 => random.pick(&self.results),
            4 => random.below(8),
            5 => 1 << random.below(64),
            6 => random.word(),
            7 => self.scratch.0 + random.below(16) * PAGE_BYTES,
            8 => self.scratch.0 + random.below(self.scratch.1 - self.scratch.0),
            9 => random.below(1 << 20) * PAGE_BYTES,
            10 => u64::MAX - random.below(5000),
            _ => Handle::new(TableSelector::Files, random.below(64) as u32, 0).0,
        }
    }

    /// Makes one call; blocking ones with a short deadline.
    fn call(&mut self, number: u8, random: &mut Random) {
        let soon = after(SHORT).unwrap_or_default();
        let mut words = [0; 10];
        for word in &mut words {
            *word = self.word(random);
        }
        match number {
            WAIT_MANY => {
                words[3] = soon;
                self.write_items(random);
            }
            FUTEX_WAIT => words[2] = soon,
            1..=5 => return self.message(number, random, soon),
            _ => {}
        }
        let (status, first) = raw(number, &words);
        if status == 0 {
            let place = random.below(self.results.len() as u64) as usize;
            self.results[place] = first;
        }
    }

    /// Puts items to wait for at the beginning of the scratch range.
    fn write_items(&self, random: &mut Random) {
        for place in 0..4 {
            let item = WaitItem {
                notification: Handle(self.word(random)),
                mask: self.word(random),
                seen: 0,
                consume: random.below(2),
            };
            let address = self.scratch.0 + place * size_of::<WaitItem>() as u64;
            let at = (&raw const item) as u64;
            // Through the kernel: the page may be gone or read-only by now.
            let _ =
                syscall::space_write(slots::SPACE, address, at, size_of::<WaitItem>() as u64, 0);
        }
    }

    fn message(&mut self, number: u8, random: &mut Random, soon: u64) {
        let mut caps = [SendCap::EMPTY; 4];
        for cap in &mut caps {
            cap.handle = Handle(self.word(random));
            cap.access = random.word() as u32;
            // Not moved: the process would soon have nothing left.
            let options = if random.once_in(8) { 256 } else { 4 };
            cap.options = random.below(options) as u32;
        }
        let mut extended = Extended {
            deadline: soon,
            send: self.word(random),
            receive: self.word(random),
            receive_bytes: self.word(random),
            receive_slots: Handle(self.word(random)),
            send_caps: caps,
            ..Extended::EMPTY
        };
        let longest = if random.once_in(8) { 1 << 16 } else { 80 };
        let length = random.below(longest);
        let count = if random.once_in(2) {
            0
        } else {
            random.below(6)
        };
        let flags = u64::from(IpcFlags::DEADLINE.bits()) | random.below(256) & 0xfe;
        let op = OpWord(u64::from(number) | flags << 8 | length << 16 | count << 32);
        let mut body = [0; 8];
        for word in &mut body {
            *word = self.word(random);
        }
        let endpoint = self.word(random);
        // Not to the streams, whose output others read, and no signals to others by chance.
        if Handle(endpoint).table() == Some(TableSelector::Files) && Handle(endpoint).index() < 3
            || body[0] as u8 == KILL
        {
            return;
        }
        // SAFETY: what the kernel writes goes to the scratch range or is refused; a wild address
        // harms this process only, and it is there to be harmed.
        let incoming = unsafe { syscall::message(op, Handle(endpoint), &mut extended, body) };
        if incoming.delivery.error().is_none() {
            for handle in &extended.received[..incoming.delivery.caps().min(4)] {
                let place = random.below(self.results.len() as u64) as usize;
                self.results[place] = handle.0;
            }
            if incoming.delivery.length() == 0 && (1..=4).contains(&(body[0] as u8)) {
                process::exit(0); // a child that a random fork made
            }
        }
    }
}

/// A plain system call by its number; status and first value.
fn raw(number: u8, words: &[u64; 10]) -> (u64, u64) {
    let (status, first): (u64, u64);
    // SAFETY: as `Arguments::message` says; registers as in libipc::abi.
    unsafe {
        core::arch::asm!(
            "syscall",
            inout("rax") u64::from(number) => status,
            in("rdi") words[0],
            in("rsi") words[1],
            inout("rdx") words[2] => first,
            inout("r8") words[3] => _,
            in("r9") words[4],
            in("r10") words[5],
            in("r12") words[6],
            in("r13") words[7],
            in("r14") words[8],
            in("r15") words[9],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    (status, first)
}

/// Method numbers that must not be hit by chance: signals to others, and output that others read.
const KILL: u8 = 10;
const WRITE: u8 = 4;

/// Sends random messages to the endpoints, each in turn. Messages that begin with `forbidden` are
/// not sent.
fn send_random(
    endpoints: &[Handle],
    forbidden: u8,
    highest_method: u64,
    random: &mut Random,
    completed: &dyn Fn(),
) {
    let Ok(bell) = syscall::notification_create(slots::POOL, 0) else {
        return;
    };
    let mut mail = Mail::new();
    let mut bytes = [0; MESSAGE_BYTES];
    for _ in 0..CALLS_OF_ONE_PROCESS {
        let length = match random.below(8) {
            0 => random.below(MESSAGE_BYTES as u64 + 1),
            _ => random.below(40),
        } as usize;
        random.fill(&mut bytes[..length]);
        if length > 0 && !random.once_in(4) {
            bytes[0] = random.below(highest_method + 3) as u8;
        }
        if length > 0 && bytes[0] == forbidden {
            continue;
        }
        // Small numbers are more often something than large ones.
        if length > 1 && random.once_in(2) {
            for byte in &mut bytes[1..length.min(16)] {
                *byte &= 0x0f;
            }
        }
        let mut caps = [SendCap::EMPTY; 4];
        for cap in &mut caps {
            *cap = SendCap::narrowed(
                random.pick(&[bell, slots::POOL, slots::SPACE, STDIN.handle()]),
                Access::from_bits_retain(random.word() as u32),
            );
        }
        let count = if random.once_in(2) {
            0
        } else {
            random.below(5)
        };
        mail.deadline = after(SHORT).ok();
        let endpoint = random.pick(endpoints);
        let result = mail.call(endpoint, &bytes[..length], &caps[..count as usize]);
        if result.is_ok() {
            // A fork among the messages makes a child, which gets an empty answer.
            if mail.bytes().is_empty() {
                process::exit(0);
            }
            let _ = mail.close_caps();
        }
        completed();
    }
}

fn random_messages_to_the_process_server_leave_everything_in_order() -> Outcome {
    rounds(|random, completed| {
        send_random(&[slots::PROCESS_SERVER], KILL, 84, random, completed);
    })
}

fn random_messages_to_the_memory_server_leave_everything_in_order() -> Outcome {
    if syscall::cap_info(slots::MEMORY_SERVER).is_err() {
        println!("an ordinary client does not hold the memory server");
        return Ok(());
    }
    rounds(|random, completed| {
        send_random(&[slots::MEMORY_SERVER], u8::MAX, 4, random, completed);
    })
}

fn random_messages_to_a_directory_leave_everything_in_order() -> Outcome {
    let directory = |slot| Handle::new(TableSelector::Fs, slot, 0);
    let endpoints = [
        directory(fs_slots::ROOT),
        directory(fs_slots::WORKING_DIRECTORY),
    ];
    rounds(|random, completed| {
        send_random(&endpoints, u8::MAX, 9, random, completed);
    })
}

fn random_messages_to_an_open_file_leave_everything_in_order() -> Outcome {
    let opened = file::open(own_path(), access::READ | access::EXECUTE)?;
    let endpoints = [opened.handle()];
    rounds(|random, completed| {
        send_random(&endpoints, u8::MAX, 9, random, completed);
    })?;
    file::close(opened)?;
    Ok(())
}

fn random_messages_to_the_standard_streams_leave_everything_in_order() -> Outcome {
    let endpoints = [STDIN, STDOUT, STDERR].map(|fd| fd.handle());
    let outcome = rounds(|random, completed| {
        send_random(&endpoints, WRITE, 9, random, completed);
    });
    println!(); // what they wrote need not end with a line
    outcome
}

//! Notifications, waiting for several of them, futexes and timers.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use libipc::abi::{Access, NEVER, Protection, WAIT_ITEMS, WaitItem};
use libipc::protocol::process::slots;
use libipc::{Error, Handle};
use runtime::memory::Mapping;
use runtime::syscall;
use tests::worker::wait_for;
use tests::{MILLISECOND, Outcome, PATIENCE, Worker, after, check, check_eq};

tests::suite! {
    bits_add_up_until_they_are_taken,
    sticky_bits_stay_when_they_are_taken,
    waiting_for_any_returns_the_first_in_the_list_and_takes_only_its_bits,
    waiting_for_all_takes_nothing_until_all_are_there,
    looking_takes_nothing,
    bits_outside_the_mask_wake_nobody,
    every_waiter_of_a_sticky_bit_is_woken,
    a_taken_bit_wakes_one_waiter,
    a_wait_without_or_with_too_many_objects_is_refused,
    a_wait_past_its_deadline_times_out_and_takes_nothing,
    signalling_and_waiting_need_their_rights,
    a_futex_wait_on_another_value_returns_at_once,
    a_futex_wake_wakes_as_many_as_asked,
    a_futex_wait_times_out,
    futex_waiters_are_moved_to_another_word,
    a_futex_in_shared_memory_is_one_futex,
    a_misaligned_futex_is_refused,
    a_timer_signals_at_its_time_once,
    setting_a_timer_replaces_the_earlier_one,
    timers_go_off_in_the_order_of_their_times,
    the_clock_never_goes_back,
}

/// Notifications that are closed when dropped.
struct Bells<const N: usize>([Handle; N]);

impl<const N: usize> Bells<N> {
    fn new(sticky: u64) -> Result<Bells<N>, Error> {
        let mut bells = Bells([Handle::NONE; N]);
        for bell in &mut bells.0 {
            *bell = syscall::notification_create(slots::POOL, sticky)?;
        }
        Ok(bells)
    }
}

impl<const N: usize> Drop for Bells<N> {
    fn drop(&mut self) {
        for bell in self.0 {
            let _ = syscall::cap_close(bell);
        }
    }
}

fn item(notification: Handle, mask: u64) -> WaitItem {
    WaitItem {
        notification,
        mask,
        seen: 0,
        consume: 1,
    }
}

const ANY: u64 = 0;
const ALL: u64 = 1;

fn wait_many(items: &mut [WaitItem], all: u64, deadline: u64) -> Result<u64, Error> {
    let count = items.len() as u64;
    syscall::wait_many(items.as_mut_ptr() as u64, count, all, deadline)
}

fn bits_add_up_until_they_are_taken() -> Outcome {
    let bells = Bells::<1>::new(0)?;
    syscall::signal(bells.0[0], 0b001)?;
    syscall::signal(bells.0[0], 0b100)?;
    syscall::signal(bells.0[0], 0b100)?;
    check_eq!(wait_for(bells.0[0], u64::MAX, 0)?, 0b101);
    check_eq!(wait_for(bells.0[0], u64::MAX, 0), Err(Error::TimedOut));
    syscall::signal(bells.0[0], 0)?;
    check_eq!(wait_for(bells.0[0], u64::MAX, 0), Err(Error::TimedOut));
    Ok(())
}

fn sticky_bits_stay_when_they_are_taken() -> Outcome {
    let bells = Bells::<1>::new(0b1000)?;
    syscall::signal(bells.0[0], 0b1001)?;
    check_eq!(wait_for(bells.0[0], u64::MAX, 0)?, 0b1001);
    check_eq!(wait_for(bells.0[0], u64::MAX, 0)?, 0b1000);
    check_eq!(syscall::notification_clear(bells.0[0], u64::MAX)?, 0b1000);
    check_eq!(wait_for(bells.0[0], u64::MAX, 0), Err(Error::TimedOut));
    Ok(())
}

fn waiting_for_any_returns_the_first_in_the_list_and_takes_only_its_bits() -> Outcome {
    let bells = Bells::<3>::new(0)?;
    syscall::signal(bells.0[2], 1)?;
    syscall::signal(bells.0[1], 2)?;
    let mut items = bells.0.map(|bell| item(bell, u64::MAX));
    check_eq!(wait_many(&mut items, ANY, 0)?, 1);
    check_eq!(items[1].seen, 2);
    check_eq!(wait_many(&mut items, ANY, 0)?, 2);
    check_eq!(items[2].seen, 1);
    check_eq!(wait_many(&mut items, ANY, 0), Err(Error::TimedOut));
    Ok(())
}

fn waiting_for_all_takes_nothing_until_all_are_there() -> Outcome {
    let bells = Bells::<3>::new(0)?;
    let woken = AtomicU64::new(0);
    let waiter = || {
        let mut items = bells.0.map(|bell| item(bell, u64::MAX));
        wait_many(&mut items, ALL, after(PATIENCE)?)?;
        woken.store(1, SeqCst);
        check_eq!(items.map(|item| item.seen), [1, 2, 4]);
        Ok(())
    };
    let worker = Worker::start(&waiter)?;
    for (place, bits) in [(2, 4), (0, 1)] {
        syscall::signal(bells.0[place], bits)?;
        let short = after(10 * MILLISECOND)?;
        check_eq!(worker.wait_until(short), Err(Error::TimedOut));
        check_eq!(woken.load(SeqCst), 0);
    }
    // What is there for the waiter is there for others too.
    check_eq!(wait_for(bells.0[0], u64::MAX, 0)?, 1);
    syscall::signal(bells.0[1], 2)?;
    check_eq!(
        worker.wait_until(after(10 * MILLISECOND)?),
        Err(Error::TimedOut)
    );
    syscall::signal(bells.0[0], 1)?;
    worker.join()
}

fn looking_takes_nothing() -> Outcome {
    let bells = Bells::<1>::new(0)?;
    syscall::signal(bells.0[0], 6)?;
    let mut items = [WaitItem {
        consume: 0,
        ..item(bells.0[0], 2)
    }];
    check_eq!(wait_many(&mut items, ANY, 0)?, 0);
    check_eq!(items[0].seen, 2);
    check_eq!(wait_many(&mut items, ALL, 0)?, 0);
    check_eq!(wait_for(bells.0[0], u64::MAX, 0)?, 6);
    Ok(())
}

fn bits_outside_the_mask_wake_nobody() -> Outcome {
    let bells = Bells::<1>::new(0)?;
    syscall::signal(bells.0[0], 0b10)?;
    check_eq!(wait_for(bells.0[0], 0b01, 0), Err(Error::TimedOut));
    check_eq!(wait_for(bells.0[0], 0b11, 0)?, 0b10);
    Ok(())
}

fn every_waiter_of_a_sticky_bit_is_woken() -> Outcome {
    let bells = Bells::<1>::new(1)?;
    let waiter = || {
        wait_for(bells.0[0], 1, after(PATIENCE)?)?;
        Ok(())
    };
    let workers = [
        Worker::start(&waiter)?,
        Worker::start(&waiter)?,
        Worker::start(&waiter)?,
    ];
    check_eq!(
        workers[2].wait_until(after(10 * MILLISECOND)?),
        Err(Error::TimedOut)
    );
    syscall::signal(bells.0[0], 1)?;
    for worker in workers {
        worker.join()?;
    }
    Ok(())
}

fn a_taken_bit_wakes_one_waiter() -> Outcome {
    let bells = Bells::<1>::new(0)?;
    let woken = AtomicU64::new(0);
    let waiter = || {
        wait_for(bells.0[0], 1, after(PATIENCE)?)?;
        woken.fetch_add(1, SeqCst);
        Ok(())
    };
    let workers = [Worker::start(&waiter)?, Worker::start(&waiter)?];
    for expected in 1..=2 {
        check_eq!(
            workers[1].wait_until(after(10 * MILLISECOND)?),
            Err(Error::TimedOut)
        );
        check_eq!(woken.load(SeqCst), expected - 1);
        syscall::signal(bells.0[0], 1)?;
        let deadline = after(PATIENCE)?;
        while woken.load(SeqCst) < expected && syscall::clock()? < deadline {
            syscall::thread_yield()?;
        }
        check_eq!(woken.load(SeqCst), expected);
    }
    for worker in workers {
        worker.join()?;
    }
    Ok(())
}

fn a_wait_without_or_with_too_many_objects_is_refused() -> Outcome {
    let bells = Bells::<1>::new(1)?;
    syscall::signal(bells.0[0], 1)?;
    let mut items = [item(bells.0[0], 1); WAIT_ITEMS + 1];
    check_eq!(
        wait_many(&mut items[..0], ANY, 0),
        Err(Error::InvalidArgument)
    );
    check_eq!(wait_many(&mut items[..WAIT_ITEMS], ANY, 0)?, 0);
    check_eq!(wait_many(&mut items[..WAIT_ITEMS], ALL, 0)?, 0);
    check!(wait_many(&mut items, ANY, 0).is_err());
    check_eq!(
        wait_many(&mut items[..1], 2, 0),
        Err(Error::InvalidArgument)
    );
    items[3].notification = slots::POOL;
    check_eq!(wait_many(&mut items[..4], ALL, 0), Err(Error::WrongKind));
    items[3].notification = Handle::NONE;
    check_eq!(wait_many(&mut items[..4], ALL, 0), Err(Error::BadHandle));
    Ok(())
}

fn a_wait_past_its_deadline_times_out_and_takes_nothing() -> Outcome {
    let bells = Bells::<2>::new(0)?;
    syscall::signal(bells.0[0], 1)?;
    let deadline = after(5 * MILLISECOND)?;
    let mut items = bells.0.map(|bell| item(bell, u64::MAX));
    check_eq!(wait_many(&mut items, ALL, deadline), Err(Error::TimedOut));
    check!(syscall::clock()? >= deadline);
    check_eq!(wait_for(bells.0[0], u64::MAX, 0)?, 1);
    Ok(())
}

fn signalling_and_waiting_need_their_rights() -> Outcome {
    let bells = Bells::<1>::new(0)?;
    let deaf = syscall::cap_derive(bells.0[0], slots::POOL, 0, Access::SIGNAL)?;
    let dumb = syscall::cap_derive(bells.0[0], slots::POOL, 0, Access::WAIT)?;
    syscall::signal(deaf, 1)?;
    check_eq!(wait_for(deaf, 1, 0), Err(Error::AccessDenied));
    check_eq!(syscall::signal(dumb, 2), Err(Error::AccessDenied));
    check_eq!(wait_for(dumb, u64::MAX, 0)?, 1);
    syscall::cap_close(deaf)?;
    syscall::cap_close(dumb)?;
    Ok(())
}

fn address_of(word: &AtomicU32) -> u64 {
    word.as_ptr() as u64
}

fn a_futex_wait_on_another_value_returns_at_once() -> Outcome {
    let word = AtomicU32::new(5);
    check_eq!(
        syscall::futex_wait(address_of(&word), 4, NEVER),
        Err(Error::WouldBlock)
    );
    check_eq!(syscall::futex_wake(address_of(&word), 9)?, 0);
    Ok(())
}

/// A closure that counts in `woken` once it is woken at `word`.
fn futex_waiter<'w>(word: &'w AtomicU32, woken: &'w AtomicU64) -> impl Fn() -> Outcome + Sync + 'w {
    move || {
        syscall::futex_wait(address_of(word), 0, after(PATIENCE)?)?;
        woken.fetch_add(1, SeqCst);
        Ok(())
    }
}

/// Waits until all the threads wait.
fn until_all_wait(workers: &[Worker<'_>]) -> Outcome {
    let deadline = after(PATIENCE)?;
    for worker in workers {
        while syscall::thread_status(worker.thread())?.0 & 0xff != 1 {
            check!(syscall::clock()? < deadline, "a thread does not wait");
            syscall::thread_yield()?;
        }
    }
    Ok(())
}

/// Waits until `count` have been woken, and a little longer for those that should not be.
fn check_woken(woken: &AtomicU64, count: u64) -> Outcome {
    let deadline = after(PATIENCE)?;
    while woken.load(SeqCst) < count && syscall::clock()? < deadline {
        syscall::thread_yield()?;
    }
    let short = after(5 * MILLISECOND)?;
    while syscall::clock()? < short {
        syscall::thread_yield()?;
    }
    check_eq!(woken.load(SeqCst), count);
    Ok(())
}

fn a_futex_wake_wakes_as_many_as_asked() -> Outcome {
    let (word, woken) = (AtomicU32::new(0), AtomicU64::new(0));
    let waiter = futex_waiter(&word, &woken);
    let workers = [
        Worker::start(&waiter)?,
        Worker::start(&waiter)?,
        Worker::start(&waiter)?,
    ];
    until_all_wait(&workers)?;
    // Another word of the same line is another futex.
    check_eq!(syscall::futex_wake(address_of(&word) ^ 4, 9)?, 0);
    check_eq!(syscall::futex_wake(address_of(&word), 0)?, 0);
    check_eq!(syscall::futex_wake(address_of(&word), 1)?, 1);
    check_woken(&woken, 1)?;
    check_eq!(syscall::futex_wake(address_of(&word), 9)?, 2);
    check_woken(&woken, 3)?;
    for worker in workers {
        worker.join()?;
    }
    Ok(())
}

fn a_futex_wait_times_out() -> Outcome {
    let word = AtomicU32::new(0);
    let deadline = after(5 * MILLISECOND)?;
    check_eq!(
        syscall::futex_wait(address_of(&word), 0, deadline),
        Err(Error::TimedOut)
    );
    check!(syscall::clock()? >= deadline);
    check_eq!(syscall::futex_wake(address_of(&word), 9)?, 0);
    Ok(())
}

fn futex_waiters_are_moved_to_another_word() -> Outcome {
    let (from, to, woken) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU64::new(0));
    let waiter = futex_waiter(&from, &woken);
    let workers = [
        Worker::start(&waiter)?,
        Worker::start(&waiter)?,
        Worker::start(&waiter)?,
    ];
    until_all_wait(&workers)?;
    let (first, second) = (address_of(&from), address_of(&to));
    check_eq!(
        syscall::futex_requeue(first, second, 1, 1, 7),
        Err(Error::WouldBlock)
    );
    check_eq!(syscall::futex_requeue(first, second, 1, 1, 0)?, (1, 1));
    check_woken(&woken, 1)?;
    check_eq!(syscall::futex_wake(second, 9)?, 1);
    check_woken(&woken, 2)?;
    check_eq!(syscall::futex_wake(first, 9)?, 1);
    for worker in workers {
        worker.join()?;
    }
    Ok(())
}

fn a_futex_in_shared_memory_is_one_futex() -> Outcome {
    let source = Mapping::anonymous(1)?;
    let window = source.make_window(Access::READ | Access::WRITE)?;
    let here = Mapping::window(window, Protection::READ | Protection::WRITE)?;
    let there = Mapping::window(window, Protection::READ | Protection::WRITE)?;
    syscall::cap_close(window)?;
    let woken = AtomicU64::new(0);
    // SAFETY: both pages are mapped, aligned and only used as atomics.
    let (first, second) = unsafe {
        (
            &*(here.address() as *const AtomicU32),
            &*(there.address() as *const AtomicU32),
        )
    };
    second.store(0, SeqCst);
    let waiter = futex_waiter(first, &woken);
    let worker = Worker::start(&waiter)?;
    until_all_wait(core::slice::from_ref(&worker))?;
    check_eq!(syscall::futex_wake(address_of(second), 9)?, 1);
    worker.join()
}

fn a_misaligned_futex_is_refused() -> Outcome {
    let words = [AtomicU32::new(0), AtomicU32::new(0)];
    for offset in 1..4 {
        let address = address_of(&words[0]) + offset;
        check_eq!(
            syscall::futex_wait(address, 0, 0),
            Err(Error::InvalidArgument)
        );
        check_eq!(syscall::futex_wake(address, 1), Err(Error::InvalidArgument));
    }
    Ok(())
}

fn a_timer_signals_at_its_time_once() -> Outcome {
    let bells = Bells::<1>::new(0)?;
    let time = after(10 * MILLISECOND)?;
    syscall::timer_set(bells.0[0], 0b110, time)?;
    check_eq!(wait_for(bells.0[0], u64::MAX, 0), Err(Error::TimedOut));
    check_eq!(wait_for(bells.0[0], u64::MAX, after(PATIENCE)?)?, 0b110);
    check!(syscall::clock()? >= time);
    let later = after(20 * MILLISECOND)?;
    check_eq!(wait_for(bells.0[0], u64::MAX, later), Err(Error::TimedOut));
    // A time that has passed is now.
    syscall::timer_set(bells.0[0], 1, time)?;
    check_eq!(wait_for(bells.0[0], 1, after(PATIENCE)?)?, 1);
    Ok(())
}

fn setting_a_timer_replaces_the_earlier_one() -> Outcome {
    let bells = Bells::<1>::new(0)?;
    syscall::timer_set(bells.0[0], 1, after(5 * MILLISECOND)?)?;
    let time = after(20 * MILLISECOND)?;
    syscall::timer_set(bells.0[0], 2, time)?;
    check_eq!(wait_for(bells.0[0], u64::MAX, after(PATIENCE)?)?, 2);
    check!(syscall::clock()? >= time);
    syscall::timer_set(bells.0[0], 4, after(5 * MILLISECOND)?)?;
    syscall::timer_set(bells.0[0], 4, NEVER)?;
    let later = after(20 * MILLISECOND)?;
    check_eq!(wait_for(bells.0[0], u64::MAX, later), Err(Error::TimedOut));
    Ok(())
}

fn timers_go_off_in_the_order_of_their_times() -> Outcome {
    let bells = Bells::<3>::new(0)?;
    let start = after(0)?;
    for (bell, delay) in bells.0.iter().zip([30, 10, 20]) {
        syscall::timer_set(*bell, 1, start + delay * MILLISECOND)?;
    }
    let mut items = bells.0.map(|bell| item(bell, 1));
    for expected in [1, 2, 0] {
        check_eq!(wait_many(&mut items, ANY, after(PATIENCE)?)?, expected);
    }
    Ok(())
}

fn the_clock_never_goes_back() -> Outcome {
    let mut last = syscall::clock()?;
    for _ in 0..10_000 {
        let now = syscall::clock()?;
        check!(now >= last, "{now} comes after {last}");
        last = now;
    }
    Ok(())
}

//! The loop that servers run, with a handler that answers some calls later.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering::SeqCst};

use libipc::abi::{Access, SendCap};
use libipc::protocol::process::slots;
use libipc::wire::{Caller, Kept, LongBody, Served};
use libipc::{Error, Handle};
use runtime::server::{self, Replies};
use runtime::syscall;
use tests::{Mail, Outcome, PATIENCE, Worker, after, check, check_eq};

tests::suite! {
    each_kept_call_gets_the_answer_that_was_given_to_it,
    a_call_is_kept_in_the_turn_that_answers_another,
    a_call_can_be_kept_and_answered_in_one_turn,
    a_call_that_is_not_to_be_kept_after_all_is_answered_at_once,
    an_answer_too_long_to_go_with_the_wait_arrives_all_the_same,
    an_answer_to_a_caller_that_died_stops_nobody,
    a_call_that_is_neither_kept_nor_answered_is_given_up,
    an_answer_that_cannot_be_given_gives_its_caller_up,
    more_calls_can_be_kept_than_replies_are_idle,
}

/// What a client asks for.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Ask {
    /// To be kept.
    Wait,
    /// That all who wait be answered, and the client.
    ReleaseAll,
    /// That the one who has waited longest be answered, and the client kept.
    TakePlace,
    /// The same with an answer that fills all registers.
    TakePlaceLong,
    /// To be kept and answered.
    WaitInVain,
    /// To be kept, given up, and answered.
    ChangeMind,
    /// That the one who has waited longest be answered with a capability that is not there.
    GiveNothing,
    /// The same for the client itself.
    TakeNothing,
    /// That the one who has waited longest be answered, and the client given up.
    LeaveUnanswered,
}

/// The handler: callers wait at a desk until another one has them answered.
struct Desk {
    waiting: VecDeque<Kept>,
    /// How many were answered since nobody waited.
    answered: u8,
    replies: Replies,
}

impl Desk {
    /// Answers the one who has waited longest with its number, this often.
    fn release(&mut self, bytes: usize) {
        let Some(kept) = self.waiting.pop_front() else {
            return;
        };
        let number = self.answered;
        self.replies.answer_soon(kept, |body| {
            body.extend(&[number; 64][..bytes]);
        });
        self.answered = match self.waiting.is_empty() {
            true => 0,
            false => number + 1,
        };
    }

    /// Answers with a capability that is not there.
    fn give_nothing(&mut self, kept: Kept) -> &'static [u8] {
        let nothing = [SendCap::copy(Handle::NONE), SendCap::copy(Handle(1 << 40))];
        match self.replies.answer(kept, &mut LongBody::new(), &nothing) {
            Err(Error::BadHandle) => b"refused",
            _ => b"given",
        }
    }
}

impl server::Handler for Desk {
    fn request(&mut self, _: &mut Caller, request: &[u8], answer: &mut LongBody) -> Served {
        match request {
            [ask] if *ask == Ask::Wait as u8 => {}
            [ask] if *ask == Ask::ReleaseAll as u8 => {
                while !self.waiting.is_empty() {
                    self.release(1);
                }
                answer.extend(b"released");
                return Served::Answered;
            }
            [ask] if *ask == Ask::TakePlace as u8 => self.release(1),
            [ask] if *ask == Ask::TakePlaceLong as u8 => self.release(64),
            [ask] if *ask == Ask::WaitInVain as u8 => {
                if let Ok(kept) = self.replies.keep() {
                    self.replies.answer_soon(kept, |body| {
                        body.extend(b"at once");
                    });
                }
                return Served::Owed;
            }
            [ask] if *ask == Ask::ChangeMind as u8 => {
                if let Ok(kept) = self.replies.keep() {
                    self.replies.close(kept);
                }
                answer.extend(b"no");
                return Served::Answered;
            }
            [ask] if *ask == Ask::GiveNothing as u8 => {
                if let Some(kept) = self.waiting.pop_front() {
                    answer.extend(self.give_nothing(kept));
                }
                return Served::Answered;
            }
            [ask] if *ask == Ask::TakeNothing as u8 => {
                if let Ok(kept) = self.replies.keep() {
                    self.give_nothing(kept);
                }
                return Served::Owed;
            }
            _ => {
                self.release(1);
                return Served::Owed;
            }
        }
        // Without memory the caller is given up.
        self.waiting.extend(self.replies.keep());
        Served::Owed
    }

    fn replies(&mut self) -> Option<&mut Replies> {
        Some(&mut self.replies)
    }
}

/// A desk, and what its replies are charged to.
struct Place {
    receiver: Handle,
    sender: Handle,
    pool: Handle,
}

impl Place {
    fn new() -> Result<Place, Error> {
        let receiver = syscall::endpoint_create(slots::POOL, 0)?;
        Ok(Place {
            receiver,
            sender: syscall::cap_derive(receiver, slots::POOL, 1, Access::all())?,
            pool: syscall::pool_create(slots::POOL, 64)?,
        })
    }

    fn serve(&self) -> Outcome {
        let mut desk = Desk {
            waiting: VecDeque::new(),
            answered: 0,
            replies: Replies::new(self.pool),
        };
        server::run(self.receiver, &mut desk)
    }

    fn ask(&self, ask: Ask) -> Result<Vec<u8>, Error> {
        let mut mail = Mail::new().within(PATIENCE)?;
        mail.call(self.sender, &[ask as u8], &[])?;
        Ok(mail.bytes().to_vec())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = syscall::pool_destroy(self.pool);
        for handle in [self.pool, self.sender, self.receiver] {
            let _ = syscall::cap_close(handle);
        }
    }
}

/// Does a test at a desk that is served.
fn at_a_desk(test: impl FnOnce(&Place) -> Outcome) -> Outcome {
    let place = Place::new()?;
    let serve = || place.serve();
    let server = Worker::start(&serve)?;
    let outcome = test(&place);
    drop(server);
    outcome
}

/// Waits until the thread waits in its call.
fn until_it_waits(worker: &Worker) -> Outcome {
    let deadline = after(PATIENCE)?;
    while syscall::thread_status(worker.thread())?.0 & 0xff != 1 {
        check!(syscall::clock()? < deadline, "the thread does not wait");
        syscall::thread_yield()?;
    }
    Ok(())
}

fn each_kept_call_gets_the_answer_that_was_given_to_it() -> Outcome {
    at_a_desk(|place| {
        let came = AtomicU8::new(0);
        let client = || {
            let number = came.fetch_add(1, SeqCst);
            check_eq!(place.ask(Ask::Wait)?, [number]);
            Ok(())
        };
        let mut used = None;
        for _ in 0..3 {
            came.store(0, SeqCst);
            let mut workers = Vec::new();
            for _ in 0..3 {
                let worker = Worker::start(&client)?;
                until_it_waits(&worker)?;
                workers.push(worker);
            }
            check_eq!(place.ask(Ask::ReleaseAll)?, b"released");
            for worker in workers {
                worker.join()?;
            }
            // The replies of the first round do for the others.
            let (_, now) = syscall::pool_status(place.pool)?;
            check_eq!(now, *used.get_or_insert(now));
        }
        Ok(())
    })
}

fn a_call_is_kept_in_the_turn_that_answers_another() -> Outcome {
    at_a_desk(|place| {
        let client = || {
            check_eq!(place.ask(Ask::TakePlace)?, [0]);
            Ok(())
        };
        let mut waiting = Worker::start(&client)?;
        for _ in 0..20 {
            until_it_waits(&waiting)?;
            let next = Worker::start(&client)?;
            waiting.join()?;
            waiting = next;
        }
        until_it_waits(&waiting)?;
        check_eq!(place.ask(Ask::ReleaseAll)?, b"released");
        waiting.join()?;
        Ok(())
    })
}

fn a_call_can_be_kept_and_answered_in_one_turn() -> Outcome {
    at_a_desk(|place| {
        for _ in 0..20 {
            check_eq!(place.ask(Ask::WaitInVain)?, b"at once");
        }
        Ok(())
    })
}

fn a_call_that_is_not_to_be_kept_after_all_is_answered_at_once() -> Outcome {
    at_a_desk(|place| {
        for _ in 0..20 {
            check_eq!(place.ask(Ask::ChangeMind)?, b"no");
        }
        Ok(())
    })
}

fn an_answer_too_long_to_go_with_the_wait_arrives_all_the_same() -> Outcome {
    at_a_desk(|place| {
        let client = || {
            check_eq!(place.ask(Ask::Wait)?, [0; 64]);
            Ok(())
        };
        let last = || {
            check_eq!(place.ask(Ask::TakePlaceLong)?, [0]);
            Ok(())
        };
        let first = Worker::start(&client)?;
        until_it_waits(&first)?;
        let second = Worker::start(&last)?;
        first.join()?;
        check_eq!(place.ask(Ask::ReleaseAll)?, b"released");
        second.join()?;
        Ok(())
    })
}

fn an_answer_to_a_caller_that_died_stops_nobody() -> Outcome {
    at_a_desk(|place| {
        let client = || place.ask(Ask::Wait).map(drop).map_err(Into::into);
        for _ in 0..3 {
            let dies = Worker::start(&client)?;
            until_it_waits(&dies)?;
            drop(dies);
            let lives = Worker::start(&client)?;
            until_it_waits(&lives)?;
            check_eq!(place.ask(Ask::ReleaseAll)?, b"released");
            lives.join()?;
        }
        // With the wait, too.
        let dies = Worker::start(&client)?;
        until_it_waits(&dies)?;
        drop(dies);
        check_eq!(place.ask(Ask::LeaveUnanswered), Err(Error::Gone));
        check_eq!(place.ask(Ask::ReleaseAll)?, b"released");
        Ok(())
    })
}

fn a_call_that_is_neither_kept_nor_answered_is_given_up() -> Outcome {
    at_a_desk(|place| {
        let client = || {
            place.ask(Ask::Wait)?;
            Ok(())
        };
        check_eq!(place.ask(Ask::LeaveUnanswered), Err(Error::Gone));
        let waits = Worker::start(&client)?;
        until_it_waits(&waits)?;
        check_eq!(place.ask(Ask::LeaveUnanswered), Err(Error::Gone));
        waits.join()?;
        Ok(())
    })
}

fn an_answer_that_cannot_be_given_gives_its_caller_up() -> Outcome {
    at_a_desk(|place| {
        let client = || {
            check_eq!(place.ask(Ask::Wait), Err(Error::Gone));
            Ok(())
        };
        for _ in 0..3 {
            let waits = Worker::start(&client)?;
            until_it_waits(&waits)?;
            check_eq!(place.ask(Ask::GiveNothing)?, b"refused");
            waits.join()?;
            check_eq!(place.ask(Ask::TakeNothing), Err(Error::Gone));
            check_eq!(place.ask(Ask::WaitInVain)?, b"at once");
        }
        Ok(())
    })
}

fn more_calls_can_be_kept_than_replies_are_idle() -> Outcome {
    const MANY: usize = 150;
    at_a_desk(|place| {
        let client = || {
            place.ask(Ask::Wait)?;
            Ok(())
        };
        let mut used = None;
        for _ in 0..2 {
            let mut workers = Vec::new();
            for _ in 0..MANY {
                let worker = Worker::start(&client)?;
                until_it_waits(&worker)?;
                workers.push(worker);
            }
            check_eq!(place.ask(Ask::ReleaseAll)?, b"released");
            for worker in workers {
                worker.join()?;
            }
            let (_, now) = syscall::pool_status(place.pool)?;
            check_eq!(now, *used.get_or_insert(now));
        }
        Ok(())
    })
}

//! Calls, replies, signals: what the kernel itself costs.

use libipc::abi::{
    Error, Extended, Handle, IpcCall, IpcFlags, MESSAGE_CAPS, NEVER, OpWord, SendCap,
};
use runtime::memory::own_pool;
use runtime::process::{self, Fork};
use runtime::{syscall, thread};

use crate::measure::{Failure, Sum};
use crate::meeting::{Meeting, message};
use crate::processes::reap;

/// Operation: a system call of the kernel that does nothing.
pub fn null_syscall(sum: &mut Sum) -> Result<(), Failure> {
    let count = sum.count(200_000);
    sum.measure(count, || {
        for _ in 0..count {
            syscall::null()?;
        }
        Ok(())
    })
}

/// Messages of one size to and fro.
struct Shuttle {
    send: [u8; 4096],
    receive: [u8; 4096],
    bytes: usize,
    extended: Extended,
}

impl Shuttle {
    fn new(bytes: usize) -> Shuttle {
        Shuttle {
            send: [0x5a; 4096],
            receive: [0; 4096],
            bytes,
            extended: Extended::EMPTY,
        }
    }

    /// Sends the capabilities that came last, or those set before, and receives.
    #[inline(always)]
    fn pass(&mut self, call: IpcCall, handle: Handle, caps: usize) -> Result<usize, Error> {
        self.extended.send = self.send.as_ptr() as u64;
        self.extended.receive = self.receive.as_mut_ptr() as u64;
        self.extended.receive_bytes = self.receive.len() as u64;
        let op = OpWord::new(call, IpcFlags::empty(), self.bytes, caps);
        // SAFETY: both ranges are arrays of `self`, longer than any body that is sent here.
        let incoming = unsafe { syscall::message(op, handle, &raw mut self.extended, [1; 8]) };
        if let Some(error) = incoming.delivery.error() {
            return Err(error);
        }
        let caps = incoming.delivery.caps();
        for place in 0..caps {
            self.extended.send_caps[place] = SendCap::moved(self.extended.received[place]);
        }
        Ok(caps)
    }
}

/// Operation: call and reply between two processes, `bytes` and `caps` capabilities each way. The parent
/// serves, and its turns of the loop are the round trips.
pub fn round_trips(sum: &mut Sum, bytes: usize, caps: usize) -> Result<(), Failure> {
    let meeting = Meeting::new()?;
    match process::fork()? {
        Fork::Child => {
            let failed = client(meeting.sender(), bytes, caps).is_err();
            process::exit(failed.into())
        }
        Fork::Parent(child) => {
            let result = serve(sum, &meeting, bytes, caps);
            drop(meeting);
            reap(child)?;
            result
        }
    }
}

/// Operation: the same between two threads of one process.
pub fn round_trips_in_one_space(sum: &mut Sum, bytes: usize) -> Result<(), Failure> {
    let meeting = Meeting::new()?;
    let sender = meeting.sender();
    let thread = thread::spawn(8, move || client(sender, bytes, 0).is_err().into())?;
    let result = serve(sum, &meeting, bytes, 0);
    drop(meeting);
    thread.join();
    result
}

/// Whether a message needs a memory part.
fn is_short(bytes: usize, caps: usize) -> bool {
    bytes <= 64 && caps == 0
}

/// Calls until the server is gone.
fn client(sender: Handle, bytes: usize, caps: usize) -> Result<(), Error> {
    if is_short(bytes, caps) {
        while message(IpcCall::Call, sender, [1; 8], bytes).is_ok() {}
        return Ok(());
    }
    let mut shuttle = Shuttle::new(bytes);
    for place in 0..caps.min(MESSAGE_CAPS) {
        let notification = syscall::notification_create(own_pool(), 0)?;
        shuttle.extended.send_caps[place] = SendCap::moved(notification);
    }
    while shuttle.pass(IpcCall::Call, sender, caps).is_ok() {}
    Ok(())
}

fn serve(sum: &mut Sum, meeting: &Meeting, bytes: usize, caps: usize) -> Result<(), Failure> {
    const WARM_UP: u64 = 100;
    let count = sum.count(20_000);
    let receiver = meeting.receiver();
    if is_short(bytes, caps) {
        let turn = |call| message(call, receiver, [2; 8], bytes);
        turn(IpcCall::Receive)?;
        for _ in 0..WARM_UP {
            turn(IpcCall::ReplyReceive)?;
        }
        return sum.measure(count, || {
            for _ in 0..count {
                turn(IpcCall::ReplyReceive)?;
            }
            Ok(())
        });
    }
    let mut shuttle = Shuttle::new(bytes);
    let mut got = shuttle.pass(IpcCall::Receive, receiver, 0)?;
    for _ in 0..WARM_UP {
        got = shuttle.pass(IpcCall::ReplyReceive, receiver, got)?;
    }
    sum.measure(count, || {
        for _ in 0..count {
            got = shuttle.pass(IpcCall::ReplyReceive, receiver, got)?;
        }
        Ok(())
    })
}

fn wait_for(notification: Handle) -> Result<(), Error> {
    syscall::notification_wait(notification, 1, 1, NEVER).map(drop)
}

/// Operation: a notification is signalled, and its waiter runs, until it waits again. (Two threads signal
/// each other; a round is two operations.)
pub fn signal_wait(sum: &mut Sum) -> Result<(), Failure> {
    const WARM_UP: u64 = 10;
    let count = sum.count(10_000);
    let there = syscall::notification_create(own_pool(), 0)?;
    let back = syscall::notification_create(own_pool(), 0)?;
    let rounds = count + WARM_UP;
    let thread = thread::spawn(8, move || {
        for _ in 0..rounds {
            if wait_for(there)
                .and_then(|()| syscall::signal(back, 1))
                .is_err()
            {
                return 1;
            }
        }
        0
    })?;
    let round = || syscall::signal(there, 1).and_then(|()| wait_for(back));
    for _ in 0..WARM_UP {
        round()?;
    }
    sum.measure(count * 2, || {
        for _ in 0..count {
            round()?;
        }
        Ok::<(), Failure>(())
    })?;
    thread.join();
    syscall::cap_close(there)?;
    syscall::cap_close(back)?;
    Ok(())
}

/// Operation: a notification that nobody waits for is signalled.
pub fn signal_nobody(sum: &mut Sum) -> Result<(), Failure> {
    let count = sum.count(20_000);
    let notification = syscall::notification_create(own_pool(), 0)?;
    sum.measure(count, || {
        for _ in 0..count {
            syscall::signal(notification, 1)?;
        }
        Ok::<(), Failure>(())
    })?;
    Ok(syscall::cap_close(notification)?)
}

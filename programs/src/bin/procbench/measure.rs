//! Clocks, marks and sums.
//!
//! A *mark* is a no-operation with a number in it. It does nothing; an observer of the whole machine
//! (`bench/plugin`) counts what is executed between the marks of a beginning and an end.

use core::arch::asm;
use core::arch::x86_64::{_mm_lfence, _rdtsc};
use core::fmt;

use libipc::abi::Error;
use libipc::protocol::process::{Errno, ProcessError};
use programs::errors::{errno_text, process_text};
use runtime::syscall;

const MARK: u32 = 0x4d54_0000;

#[inline(always)]
fn mark<const NUMBER: u32>() {
    // SAFETY: a no-operation; it does not touch the memory that it seems to name.
    unsafe { asm!("nop dword ptr [rax + rax + {}]", const MARK + NUMBER, options(nostack)) };
}

/// What was counted since the last report belongs to one case.
pub fn report() {
    mark::<3>();
}

/// A moment, by both clocks.
#[derive(Clone, Copy, Default)]
pub struct Moment {
    pub ns: u64,
    pub tsc: u64,
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has both instructions, and programs may read the counter.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// A measured stretch begins. (The clock's system call comes before the counter is read.)
#[inline(always)]
pub fn begin() -> Moment {
    let ns = syscall::clock().unwrap_or(0);
    let moment = Moment { ns, tsc: ticks() };
    mark::<1>();
    moment
}

/// A measured stretch ends.
#[inline(always)]
pub fn end() -> Moment {
    mark::<2>();
    let tsc = ticks();
    let ns = syscall::clock().unwrap_or(0);
    Moment { ns, tsc }
}

/// The sum of measured stretches and of the operations in them.
pub struct Sum {
    ns: u64,
    tsc: u64,
    operations: u64,
    divisor: u64,
}

impl Sum {
    pub fn new(divisor: u64) -> Sum {
        Sum {
            ns: 0,
            tsc: 0,
            operations: 0,
            divisor,
        }
    }

    /// How often to do something that is done `usually` times.
    pub fn count(&self, usually: u64) -> u64 {
        (usually / self.divisor).max(1)
    }

    /// Adds a stretch with so many operations.
    pub fn add(&mut self, from: Moment, to: Moment, operations: u64) {
        self.ns += to.ns - from.ns;
        self.tsc += to.tsc - from.tsc;
        self.operations += operations;
    }

    /// Measures `work`, which does so many operations.
    pub fn measure<E>(
        &mut self,
        operations: u64,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let from = begin();
        let result = work();
        let to = end();
        self.add(from, to, operations);
        result
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Native code has no floating point.
        let operations = self.operations.max(1);
        let hundredths = |total: u64| {
            let each =
                (u128::from(total) * 100 + u128::from(operations) / 2) / u128::from(operations);
            ((each / 100) as u64, (each % 100) as u64)
        };
        let (ns, tsc) = (hundredths(self.ns), hundredths(self.tsc));
        write!(
            f,
            "{} {}.{:02} {}.{:02}",
            self.operations, ns.0, ns.1, tsc.0, tsc.1
        )
    }
}

/// Why a case has no result.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// The system has no such feature.
    NotHere(&'static str),
    /// The process server refused.
    Linux(Errno),
    /// The process server refused a Win32 call.
    Process(ProcessError),
    /// The kernel refused.
    Kernel(Error),
    /// A child ended with another status than it should.
    Child,
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Failure {
        Failure::Linux(error)
    }
}

impl From<ProcessError> for Failure {
    fn from(error: ProcessError) -> Failure {
        Failure::Process(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Kernel(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotHere(why) => f.write_str(why),
            Failure::Linux(error) => f.write_str(errno_text(*error)),
            Failure::Process(error) => f.write_str(process_text(*error)),
            Failure::Kernel(error) => write!(f, "{error:?}"),
            Failure::Child => f.write_str("a child ended with another status than it should"),
        }
    }
}

/// Operation: 1000 turns of a loop of two instructions. Shows what the clocks count.
pub fn calibrate(sum: &mut Sum) -> Result<(), Failure> {
    let count = sum.count(2000);
    sum.measure(count, || {
        for _ in 0..count {
            // SAFETY: counts a register down.
            unsafe {
                asm!(
                    "mov ecx, 1000",
                    "2: dec ecx",
                    "jnz 2b",
                    out("ecx") _,
                    options(nomem, nostack)
                );
            }
        }
        Ok(())
    })
}

//! Random operations on the memory tree and on a plain model, compared after
//! each step.
//!
//! Programs reach memory only through the fake CPUs' caches. After each step all
//! that the CPUs can translate without a fault is compared with the model, and
//! everything that is counted is counted anew.
//!
//! Two roles keep the model plain. *Servers* are the sources of windows as
//! servers are: never snapshotted, their pages readable and writable. Processes
//! do everything, and may make windows on themselves too; whether such a page is
//! still shared with its mapper after a snapshot depends on when tables part, so
//! the model calls its content *unknown* and compares permissions only.

use super::model::{Model, Op};
use super::*;
use crate::memory::fake::Lost;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

fn protection() -> impl Strategy<Value = Protection> {
    prop_oneof![
        4 => Just(READ_WRITE),
        2 => Just(READ),
        1 => Just(READ_EXECUTE),
        1 => Just(Protection::empty()),
    ]
}

/// What a window permits, mostly much.
fn access() -> impl Strategy<Value = Protection> {
    prop_oneof![3 => Just(READ_WRITE), 1 => protection()]
}

/// A page of the few that the operations work on, mostly of the same few.
fn spot() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 2..9usize, 1 => 0..super::model::SPOTS]
}

/// A space, mostly one of two processes: things happen where several CPUs and
/// spaces meet.
fn space() -> impl Strategy<Value = usize> {
    prop_oneof![5 => 2..4usize, 1 => 0..2usize, 2 => 4..8usize]
}

fn op() -> impl Strategy<Value = Op> {
    let cpu = || 0..3usize;
    let pool = || 0..3usize;
    let window = || 0..6usize;
    prop_oneof![
        18 => (cpu(), spot(), 1..1000u64).prop_map(|(cpu, spot, value)| Op::Store { cpu, spot, value }),
        12 => (cpu(), spot()).prop_map(|(cpu, spot)| Op::Load { cpu, spot }),
        1 => (cpu(), spot()).prop_map(|(cpu, spot)| Op::Execute { cpu, spot }),
        2 => (space(), spot()).prop_map(|(space, spot)| Op::KernelRead { space, spot }),
        1 => (space(), spot(), 1..1000u64)
            .prop_map(|(space, spot, value)| Op::ForcedWrite { space, spot, value }),
        5 => (cpu(), space()).prop_map(|(cpu, space)| Op::Enter { cpu, space }),
        6 => (space(), space(), pool(), proptest::option::of(spot()))
            .prop_map(|(source, slot, pool, apart)| Op::Snapshot { source, slot, pool, apart }),
        3 => (0..8usize, pool()).prop_map(|(slot, pool)| Op::Create { slot, pool }),
        1 => space().prop_map(|space| Op::End { space }),
        6 => (space(), spot(), 1..8u64, protection())
            .prop_map(|(space, spot, pages, protection)| Op::Map { space, spot, pages, protection }),
        2 => (space(), protection()).prop_map(|(space, protection)| Op::MapBlock { space, protection }),
        3 => (space(), spot(), 1..4u64).prop_map(|(space, spot, pages)| Op::Unmap { space, spot, pages }),
        1 => space().prop_map(|space| Op::UnmapBlock { space }),
        4 => (space(), spot(), 1..4u64, protection())
            .prop_map(|(space, spot, pages, protection)| Op::Protect { space, spot, pages, protection }),
        4 => (0..6usize, space(), pool(), 0..5usize, 6..12u64, access())
            .prop_map(|(slot, source, pool, spot, pages, access)| Op::MakeWindow { slot, source, pool, spot, pages, access }),
        9 => (window(), space(), spot(), 1..6u64, protection(), any::<bool>(), any::<bool>())
            .prop_map(|(window, space, spot, pages, protection, private, replace)| Op::MapWindow { window, space, spot, pages, protection, private, replace }),
        1 => window().prop_map(|window| Op::EndWindow { window }),
        1 => pool().prop_map(|pool| Op::EndPool { pool }),
    ]
}

/// Runs `cases` random sequences; `Err` has the shortest one that fails.
fn run(cases: u32, lost: Lost, limit: Option<u64>) -> Result<(), TestError<Vec<Op>>> {
    let seed: u64 = match std::env::var("MITOSIS_SEED") {
        Ok(seed) => seed.parse().expect("MITOSIS_SEED is a number"),
        Err(_) => 1,
    };
    println!("MITOSIS_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        cases,
        max_shrink_iters: if lost == Lost::Nothing { 4000 } else { 0 },
        failure_persistence: None,
        ..Config::default()
    };
    let sequences = proptest::collection::vec(op(), 1..100);
    TestRunner::new_with_rng(config, rng).run(&sequences, |ops| {
        let outcome = std::panic::catch_unwind(|| {
            let mut model = Model::new(lost, limit);
            for op in &ops {
                model.step(op);
            }
            model.finish();
        });
        outcome.map_err(|panic| {
            let message = panic
                .downcast_ref::<String>()
                .cloned()
                .or(panic.downcast_ref::<&str>().map(|text| text.to_string()));
            TestCaseError::fail(message.unwrap_or_default())
        })
    })
}

#[test]
fn the_tree_does_what_a_plain_map_does() {
    if let Err(error) = run(1500, Lost::Nothing, None) {
        panic!("{error}");
    }
    // Sequences in which nothing happens agree with anything.
    let reached = super::model::reached();
    println!("{reached:?}");
    let few: Vec<_> = reached.iter().filter(|(_, times)| *times < 15).collect();
    assert!(few.is_empty(), "too rare: {few:?}");
}

#[test]
fn counts_and_charges_agree_when_pools_run_dry() {
    for limit in [6, 12, 20, 30] {
        if let Err(error) = run(150, Lost::Nothing, Some(limit)) {
            panic!("with {limit} frames a pool: {error}");
        }
    }
}

/// Each flush is needed: without it the model notices.
#[test]
fn leaving_out_a_flush_is_noticed() {
    // The sequences that fail do so by panicking, which is no news here.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let noticed = [
        Lost::PageFlushes,
        Lost::RemotePageFlushes,
        Lost::FullFlushes,
    ]
    .map(|lost| (lost, run(1500, lost, None).is_err()));
    std::panic::set_hook(hook);
    for (lost, noticed) in noticed {
        assert!(noticed, "{lost:?}");
    }
}

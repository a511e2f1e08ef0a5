//! The kernel's own accesses: spans, copies, words.

use super::*;
use crate::memory::{Fault, FaultAt, Intent, SPAN_BYTES, Span};

#[test]
fn a_span_crosses_into_the_next_page() {
    let mut case = Case::with_pages(3);
    let bytes: Vec<u8> = (0..SPAN_BYTES).map(|at| at as u8).collect();
    let at = page(0) + 3000;
    let span = case
        .memory
        .span(case.space, at, SPAN_BYTES, Intent::Write)
        .unwrap();
    case.memory.write_span(&span, &bytes);
    let mut read = vec![0; SPAN_BYTES];
    case.memory.read(case.space, at, &mut read).unwrap();
    assert_eq!(read, bytes);
    assert_eq!(case.load(0, page(1)).to_le_bytes(), bytes[1096..1104]);
}

#[test]
fn a_copy_between_spaces_moves_all_bytes_at_any_offset() {
    let mut case = Case::with_pages(3);
    let other = case.other_space(1);
    case.memory
        .map_anonymous(other, BASE, 3, READ_WRITE)
        .unwrap();
    let bytes: Vec<u8> = (0..SPAN_BYTES).map(|at| (at * 7) as u8).collect();
    for (from, to) in [(0, 0), (1, 4095), (4095, 1), (100, 200), (2048, 2048)] {
        let (from, to) = (page(0) + from, page(0) + to);
        case.memory
            .write(case.space, from, &bytes, Intent::Write)
            .unwrap();
        let target = case
            .memory
            .span(other, to, SPAN_BYTES, Intent::Write)
            .unwrap();
        let source = case
            .memory
            .span(case.space, from, SPAN_BYTES, Intent::Read)
            .unwrap();
        case.memory.copy_span(&source, &target);
        let mut read = vec![0; SPAN_BYTES];
        case.memory.read(other, to, &mut read).unwrap();
        assert_eq!(read, bytes);
    }
    case.memory.audit();
}

#[test]
fn the_shorter_span_bounds_a_copy() {
    let mut case = Case::with_pages(2);
    case.store(0, page(1), u64::MAX);
    let target = case
        .memory
        .span(case.space, page(1), 8, Intent::Write)
        .unwrap();
    for length in [3, 100] {
        let source = case
            .memory
            .span(case.space, page(0), length, Intent::Read)
            .unwrap();
        case.memory.copy_span(&source, &target);
        let left = u64::MAX.checked_shl(8 * length as u32).unwrap_or(0);
        assert_eq!(case.load(0, page(1)), left);
    }
    let source = target;
    case.memory.copy_span(&source, &Span::EMPTY);
}

#[test]
fn the_page_that_cannot_be_resolved_is_named_and_nothing_moves() {
    let mut case = Case::with_pages(1);
    let at = page(0) + 4000;
    let fault = case
        .memory
        .span(case.space, at, 200, Intent::Write)
        .unwrap_err();
    assert_eq!(
        fault,
        FaultAt {
            address: page(1),
            fault: Fault::Missing
        }
    );
    assert_eq!(case.load(0, page(0) + 4000), 0);
    let wrapped = case
        .memory
        .span(case.space, u64::MAX - 5, 100, Intent::Read);
    assert_eq!(wrapped.unwrap_err().fault, Fault::Denied);
}

#[test]
fn a_kernel_write_parts_a_snapshot_as_a_program_s_does() {
    let mut case = Case::with_pages(2);
    case.store(0, page(0), 1);
    let copy = case.snapshot(1);
    case.memory
        .write(copy, page(0), &[7], Intent::Write)
        .unwrap();
    assert_eq!((case.load(0, page(0)), case.load(1, page(0))), (1, 7));
    case.memory.audit();
}

#[test]
fn words_are_exchanged_only_if_they_are_as_expected() {
    let mut case = Case::with_pages(1);
    let (memory, space) = (&mut case.memory, case.space);
    assert_eq!(memory.compare_exchange(space, page(0) + 8, 0, 5), Ok(0));
    assert_eq!(memory.compare_exchange(space, page(0) + 8, 0, 6), Ok(5));
    assert_eq!(memory.load_word(space, page(0) + 8), Ok(5));
    memory.store_word(space, page(0) + 12, 1).unwrap();
    assert_eq!(memory.user_load(0, page(0) + 8), Ok(1 << 32 | 5));
    let odd = memory.compare_exchange(space, page(0) + 4, 0, 6);
    assert_eq!(odd, Err(Fault::Denied));
    assert_eq!(memory.load_word(space, page(0) + 2), Err(Fault::Denied));
    assert_eq!(memory.store_word(space, page(1), 1), Err(Fault::Missing));
}

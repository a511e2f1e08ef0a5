//! Tables against plain maps.

use super::*;
use crate::memory::fake::{self, FakeMachine};
use libipc::abi::Kind;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec::Vec;

fn node(memory: &mut Memory<FakeMachine>) -> Ref<Node> {
    memory
        .node_create(memory.root_pool(), Kind::System, 0)
        .unwrap()
}

fn end(memory: &mut Memory<FakeMachine>, table: Ref<CapTable>, reap: &mut Nodes) {
    while memory.table_empty_step(table, reap) {
        let (_, slots) = memory.get(table).first;
        assert_eq!(slots, 0, "the first page goes first");
    }
    memory.destroy(table);
}

/// The page of a table's first slots is known exactly if it is there.
fn knows_its_first_page(memory: &Memory<FakeMachine>, table: Ref<CapTable>) -> bool {
    let (frame, slots) = memory.get(table).first;
    (slots > 0).then_some(frame) == memory.slot_page(table, 0)
}

fn put(memory: &mut Memory<FakeMachine>, table: Ref<CapTable>, from: u32, n: Ref<Node>) -> u32 {
    memory
        .table_put(table, from, n, 1, SlotFlags::empty())
        .unwrap()
        .index
}

#[test]
fn a_capability_takes_the_lowest_free_slot_not_below_a_number() {
    let mut memory = fake::memory(64);
    let table = memory.table_create(memory.root_pool()).unwrap();
    let node = node(&mut memory);
    let mut reap = Nodes::default();
    for expected in 0..300 {
        assert_eq!(put(&mut memory, table, 0, node), expected);
    }
    assert_eq!(put(&mut memory, table, 1000, node), 1000);
    memory.table_close(table, 255, &mut reap).unwrap();
    memory.table_close(table, 7, &mut reap).unwrap();
    assert_eq!(put(&mut memory, table, 8, node), 255);
    assert_eq!(put(&mut memory, table, 0, node), 7);
    assert_eq!(put(&mut memory, table, 0, node), 300);
    assert_eq!(memory.get(node).slots(), 302);
}

#[test]
fn a_table_reaches_a_million_slots_and_beyond_and_no_further() {
    let mut memory = fake::memory(64);
    let table = memory.table_create(memory.root_pool()).unwrap();
    let node = node(&mut memory);
    assert_eq!(put(&mut memory, table, 1 << 20, node), 1 << 20);
    assert_eq!(put(&mut memory, table, 0, node), 0);
    assert_eq!(put(&mut memory, table, CAPACITY - 1, node), CAPACITY - 1);
    let full = memory.table_put(table, CAPACITY - 1, node, 0, SlotFlags::empty());
    assert_eq!(full, Err(Error::Exhausted));
    let outside = memory.table_replace(table, CAPACITY, node, 0, SlotFlags::empty());
    assert!(outside.is_err());
    assert!(memory.table_get(table, CAPACITY).is_none());
    assert!(memory.table_get(table, u32::MAX).is_none());
}

#[test]
fn a_slot_used_again_has_another_generation() {
    let mut memory = fake::memory(64);
    let table = memory.table_create(memory.root_pool()).unwrap();
    let node = node(&mut memory);
    let mut reap = Nodes::default();
    put(&mut memory, table, 0, node);
    assert_eq!(memory.table_get(table, 0).unwrap().generation, 1);
    memory.table_close(table, 0, &mut reap).unwrap();
    put(&mut memory, table, 0, node);
    assert_eq!(memory.table_get(table, 0).unwrap().generation, 2);
}

#[test]
fn a_table_goes_at_once_if_it_has_nothing_or_shares_what_it_has() {
    let mut memory = fake::memory(64);
    let pool = memory.root_pool();
    let (table, empty) = (memory.table_create(pool), memory.table_create(pool));
    let (table, empty) = (table.unwrap(), empty.unwrap());
    let node = node(&mut memory);
    put(&mut memory, table, 0, node);
    let copy = memory.table_copy(table, pool).unwrap();
    assert!(memory.table_forget_at_once(copy));
    assert!(memory.table_forget_at_once(empty));
    assert_eq!(memory.get(node).slots(), 1, "the original has its page");
    assert!(
        !memory.table_forget_at_once(table),
        "it has to be emptied first"
    );
    let mut reap = Nodes::default();
    end(&mut memory, table, &mut reap);
    assert_eq!(reap.first(), Some(node));
}

#[test]
fn copying_a_table_costs_one_object_and_counts_no_slot() {
    let mut memory = fake::memory(64);
    let pool = memory.root_pool();
    let table = memory.table_create(pool).unwrap();
    let node = node(&mut memory);
    for _ in 0..1000 {
        put(&mut memory, table, 0, node);
    }
    let before = memory.pool_status(pool).used;
    let copy = memory.table_copy(table, pool).unwrap();
    assert_eq!(memory.pool_status(pool).used, before);
    assert_eq!(memory.get(node).slots(), 1000);
    let mut reap = Nodes::default();
    memory.table_close(copy, 999, &mut reap).unwrap();
    assert!(memory.table_get(table, 999).is_some());
    assert!(memory.table_get(copy, 999).is_none());
    assert_eq!(
        memory.get(node).slots(),
        1000 + 232 - 1,
        "only the touched page is counted again"
    );
    end(&mut memory, copy, &mut reap);
    assert_eq!(memory.get(node).slots(), 1000);
    assert!(reap.is_empty());
    end(&mut memory, table, &mut reap);
    assert_eq!(reap.first(), Some(node));
    reap.pop(&mut memory);
    assert_eq!(
        memory.node_settle(node, &mut reap),
        crate::cap::Fate::Gone(Kind::System, 0)
    );
    assert_eq!(memory.pool_status(pool).used, 1);
}

#[test]
fn a_pool_at_its_limit_refuses_a_slot_and_nothing_is_counted() {
    let mut memory = fake::memory(64);
    let pool = memory.pool_create(memory.root_pool(), 2).unwrap();
    let table = memory.table_create(pool).unwrap();
    let node = node(&mut memory);
    put(&mut memory, table, 0, node);
    let refused = memory.table_put(table, 300, node, 0, SlotFlags::empty());
    assert_eq!(refused, Err(Error::NoMemory));
    assert_eq!(memory.get(node).slots(), 1);
    let copy = memory.table_copy(table, pool).unwrap();
    let mut reap = Nodes::default();
    let refused = memory.table_close(copy, 0, &mut reap);
    assert_eq!(refused, Err(Error::NoMemory));
    assert_eq!(memory.get(node).slots(), 1);
}

/// What a table should hold: node number and flags by index.
type Model = BTreeMap<u32, (usize, u8)>;

fn lowest_free(model: &Model, from: u32) -> u32 {
    (from..).find(|index| !model.contains_key(index)).unwrap()
}

fn contents(memory: &Memory<FakeMachine>, table: Ref<CapTable>, nodes: &[Ref<Node>]) -> Model {
    let mut found = Model::new();
    let mut from = 0;
    loop {
        match memory.table_next(table, from) {
            Next::Used(index, slot) => {
                let node = nodes.iter().position(|&node| node == slot.node).unwrap();
                found.insert(index, (node, slot.flags.bits()));
                from = index + 1;
            }
            Next::LookOn(index) => from = index,
            Next::None => return found,
        }
    }
}

proptest! {
    #[test]
    fn tables_agree_with_a_plain_map_whatever_is_done(
        steps in prop::collection::vec(
            (0u8..7, 0usize..4, prop_oneof![0u32..20, 240u32..270, 130_000u32..132_000], 0usize..3, 0u8..8),
            1..150,
        )
    ) {
        let mut memory = fake::memory(512);
        let pool = memory.root_pool();
        let free = memory.statistics().frames_free;
        let nodes: Vec<_> = (0..3).map(|_| node(&mut memory)).collect();
        // A slot of each node that no table has.
        for &node in &nodes {
            memory.node_hold(node).unwrap();
        }
        let mut reap = Nodes::default();
        let mut tables: Vec<(Ref<CapTable>, Model)> = Vec::new();
        tables.push((memory.table_create(pool).unwrap(), Model::new()));
        for (what, which, index, number, flags) in steps {
            let which = which % tables.len();
            let (table, model) = &mut tables[which];
            let slot_flags = SlotFlags::from_bits_truncate(flags);
            match what {
                0 | 1 => {
                    let name = memory.table_put(*table, index, nodes[number], 1, slot_flags).unwrap();
                    prop_assert_eq!(name.index, lowest_free(model, index));
                    model.insert(name.index, (number, flags));
                }
                2 => {
                    let (_, replaced) = memory.table_replace(*table, index, nodes[number], 1, slot_flags).unwrap();
                    let was = model.insert(index, (number, flags));
                    prop_assert_eq!(replaced, was.map(|(number, _)| nodes[number]));
                    if let Some(node) = replaced {
                        memory.node_release(node, &mut reap);
                    }
                }
                3 => {
                    let closed = memory.table_close(*table, index, &mut reap).is_ok();
                    prop_assert_eq!(closed, model.remove(&index).is_some());
                }
                4 => {
                    let copy = memory.table_copy(*table, pool).unwrap();
                    let model = model.clone();
                    if tables.len() < 4 {
                        tables.push((copy, model));
                    } else {
                        end(&mut memory, copy, &mut reap);
                    }
                }
                5 => {
                    let mut from = 0;
                    while let Some(next) = memory
                        .table_retain(*table, from, slot_flags, SlotFlags::empty(), &mut reap)
                        .unwrap()
                    {
                        from = next;
                    }
                    model.retain(|_, &mut (_, kept)| kept & flags == 0);
                }
                _ if tables.len() > 1 => {
                    let (table, _) = tables.remove(which);
                    end(&mut memory, table, &mut reap);
                }
                _ => {}
            }
            for (table, _) in &tables {
                prop_assert!(knows_its_first_page(&memory, *table));
            }
        }
        for (table, model) in &tables {
            for index in (0..300).chain(130_000..132_100) {
                let found = memory.table_get(*table, index);
                let found = found.map(|slot| (slot.node, slot.flags.bits()));
                let expected = model.get(&index).map(|&(number, flags)| (nodes[number], flags));
                prop_assert_eq!(found, expected);
            }
            prop_assert_eq!(&contents(&memory, *table, &nodes), model);
        }
        prop_assert!(reap.is_empty());
        for (table, _) in tables {
            end(&mut memory, table, &mut reap);
        }
        for &node in &nodes {
            prop_assert_eq!(memory.get(node).slots(), 1);
            memory.node_release(node, &mut reap);
        }
        while let Some(node) = reap.pop(&mut memory) {
            let _ = memory.node_settle(node, &mut reap);
        }
        prop_assert_eq!(memory.statistics().frames_free, free);
    }
}

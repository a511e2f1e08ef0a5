//! Derivation and revocation against a plain model.

use crate::testkit::{DATA, Rig};
use libipc::abi::{
    Access, Error, Extended, Handle, IpcCall, IpcFlags, OpWord, Protection, SendCap, SlotFlags,
    TableSelector, initial,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A grant in the model: its parent, and whether it was revoked.
struct Grant {
    parent: Option<usize>,
    alive: bool,
}

struct Model {
    grants: Vec<Grant>,
    /// What each handle names, and with which access.
    handles: BTreeMap<u64, (usize, u32)>,
}

impl Model {
    fn is_below(&self, grant: usize, top: usize) -> bool {
        let mut at = self.grants[grant].parent;
        while let Some(above) = at {
            if above == top {
                return true;
            }
            at = self.grants[above].parent;
        }
        false
    }

    fn revoke(&mut self, top: usize) {
        for grant in 0..self.grants.len() {
            if self.is_below(grant, top) {
                self.grants[grant].alive = false;
            }
        }
    }
}

fn handle_of(word: u64) -> Handle {
    Handle::new(TableSelector::Private, word as u32, (word >> 32) as u32)
}

proptest! {
    #[test]
    fn revoking_takes_back_what_was_derived_and_nothing_else(
        steps in prop::collection::vec((0u8..8, any::<prop::sample::Index>(), any::<u32>()), 1..120)
    ) {
        let mut rig = Rig::new(512);
        let root = rig.root;
        let first = rig.notification_create(root, initial::POOL, 0).unwrap();
        let free = rig.pool_status(root, initial::POOL).unwrap();
        let mut model = Model {
            grants: vec![Grant { parent: None, alive: true }],
            handles: BTreeMap::from([(first.0, (0, u32::MAX))]),
        };
        for (what, index, mask) in steps {
            if model.handles.is_empty() {
                break;
            }
            let nth = index.index(model.handles.len());
            let (&word, &(grant, access)) = model.handles.iter().nth(nth).unwrap();
            let handle = Handle(word);
            let alive = model.grants[grant].alive;
            match what {
                0..=1 => {
                    let result = rig.cap_copy(
                        root, handle, Handle::OWN_PRIVATE, 10,
                        Access::from_bits_retain(mask), SlotFlags::empty(),
                    );
                    prop_assert_eq!(result.is_ok(), alive);
                    if let Ok(word) = result {
                        model.handles.insert(handle_of(word).0, (grant, access & mask));
                    }
                }
                2..=4 => {
                    let result = rig.cap_derive(
                        root, handle, initial::POOL, 0, Access::from_bits_retain(mask),
                    );
                    match result {
                        Ok(derived) => {
                            prop_assert!(alive);
                            model.grants.push(Grant { parent: Some(grant), alive: true });
                            model.handles.insert(derived.0, (model.grants.len() - 1, access & mask));
                        }
                        Err(error) => {
                            let expected = if alive { Error::Exhausted } else { Error::BadHandle };
                            prop_assert_eq!(error, expected);
                        }
                    }
                }
                5 => {
                    let result = rig.cap_revoke(root, handle);
                    let expected = match (alive, access & Access::REVOKE.bits()) {
                        (false, _) => Err(Error::BadHandle),
                        (true, 0) => Err(Error::AccessDenied),
                        (true, _) => Ok(()),
                    };
                    prop_assert_eq!(result, expected);
                    if result.is_ok() {
                        model.revoke(grant);
                    }
                }
                _ => {
                    prop_assert_eq!(rig.cap_close(root, handle), Ok(()));
                    model.handles.remove(&word);
                }
            }
            for (&word, &(grant, access)) in &model.handles {
                let info = rig.cap_info(root, Handle(word));
                prop_assert_eq!(info.is_ok(), model.grants[grant].alive);
                if let Ok((word, _)) = info {
                    prop_assert_eq!((word >> 32) as u32, access);
                }
            }
        }
        for &word in model.handles.keys() {
            prop_assert_eq!(rig.cap_close(root, Handle(word)), Ok(()));
        }
        let left = rig.pool_status(root, initial::POOL).unwrap();
        prop_assert!(left.1 <= free.1, "all nodes went with their slots");
    }
}

#[test]
fn a_chain_of_derivations_ends_somewhere_and_can_be_revoked() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let first = rig.notification_create(root, initial::POOL, 0).unwrap();
    let mut last = first;
    let mut chain = vec![];
    let error = loop {
        match rig.cap_derive(root, last, initial::POOL, 0, Access::all()) {
            Ok(next) => {
                chain.push(next);
                last = next;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::Exhausted);
    rig.cap_revoke(root, first).unwrap();
    for handle in chain {
        assert_eq!(rig.signal(root, handle, 1), Err(Error::BadHandle));
        rig.cap_close(root, handle).unwrap();
    }
    assert_eq!(rig.signal(root, first, 1), Ok(()));
    assert!(
        rig.cap_derive(root, first, initial::POOL, 0, Access::all())
            .is_ok(),
        "a new grant after the revocation"
    );
}

#[test]
fn a_handle_with_bits_that_mean_nothing_names_nothing() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let handle = rig.notification_create(root, initial::POOL, 0).unwrap();
    let in_files = Handle(handle.0 & 0xffff_ffff);
    for bit in 56..62 {
        for handle in [handle, in_files] {
            let other = Handle(handle.0 | 1 << bit);
            assert_eq!(rig.signal(root, other, 1), Err(Error::BadHandle));
        }
    }
    assert_eq!(rig.signal(root, handle, 1), Ok(()));
}

#[test]
fn thousands_of_derivations_are_revoked_in_bounded_pieces() {
    let mut rig = Rig::new(4096);
    let root = rig.root;
    let (receiver, _) = rig.endpoint(0, 0);
    let handles: Vec<Handle> = (0..3000)
        .map(|badge| {
            rig.cap_derive(root, receiver, initial::POOL, badge, Access::empty())
                .unwrap()
        })
        .collect();
    rig.cap_revoke(root, receiver).unwrap();
    for handle in handles {
        assert_eq!(rig.cap_info(root, handle), Err(Error::BadHandle));
    }
}

#[test]
fn a_badge_is_given_once_from_a_receiver_and_stays() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(5, 0b111);
    assert_eq!(
        rig.cap_derive(root, sender, initial::POOL, 6, Access::all()),
        Err(Error::InvalidArgument)
    );
    let access = Access::from_bits_retain(0b101_0000_0001);
    let derived = rig
        .cap_derive(root, sender, initial::POOL, 0, access)
        .unwrap();
    let (word, badge) = rig.cap_info(root, derived).unwrap();
    assert_eq!((word >> 32, badge), (1, 5));
    assert_eq!(rig.cap_info(root, receiver).unwrap().1, 0);
}

#[test]
fn a_stale_handle_is_an_error_and_a_file_descriptor_is_a_slot_number() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let old = rig.notification_create(root, initial::POOL, 0).unwrap();
    rig.cap_close(root, old).unwrap();
    let new = rig.notification_create(root, initial::POOL, 0).unwrap();
    assert_eq!(old.index(), new.index());
    assert_eq!(rig.signal(root, old, 1), Err(Error::BadHandle));
    assert_eq!(rig.cap_close(root, old), Err(Error::BadHandle));
    let plain = Handle::new(TableSelector::Private, new.index(), 0);
    assert_eq!(rig.signal(root, plain, 1), Err(Error::BadHandle));
    for index in [3, 4] {
        let flags = SlotFlags::empty();
        let word = rig.cap_copy(root, new, Handle::OWN_FILES, 3, Access::all(), flags);
        assert_eq!(word.unwrap() as u32, index);
        assert_eq!(rig.signal(root, Handle(index as u64), 1), Ok(()));
    }
}

#[test]
fn tables_can_be_looked_through_and_taken_from() {
    let mut rig = Rig::new(256);
    let root = rig.root;
    let (table, notification) = (
        rig.table_create(root, initial::POOL).unwrap(),
        rig.notification_create(root, initial::POOL, 0).unwrap(),
    );
    let put = |rig: &mut Rig, index, flags| {
        rig.cap_replace(root, notification, table, index, Access::SIGNAL, flags)
            .unwrap()
    };
    put(&mut rig, 7, SlotFlags::CLOSE_ON_EXEC);
    put(&mut rig, 5000, SlotFlags::empty());
    assert_eq!(put(&mut rig, 7, SlotFlags::INHERIT) >> 32, 2, "replaced");
    put(&mut rig, 9, SlotFlags::CLOSE_ON_EXEC | SlotFlags::PROTECT);
    assert_eq!(rig.table_next(root, table, 0).unwrap().0, 7);
    assert_eq!(rig.table_next(root, table, 10).unwrap().0, 5000);
    assert_eq!(rig.table_next(root, table, 5001).unwrap().0, u64::MAX);
    assert_eq!(
        rig.table_next(root, table, 1 << 40),
        Err(Error::InvalidArgument)
    );
    let taken = rig.table_take(root, table, 5000).unwrap();
    assert_eq!(rig.signal(root, taken, 1), Ok(()));
    assert_eq!(
        rig.notification_clear(root, taken, 1),
        Err(Error::AccessDenied)
    );
    assert_eq!(rig.table_take(root, table, 6), Err(Error::BadHandle));
    assert_eq!(rig.table_close(root, table, 9), Err(Error::AccessDenied));
    assert_eq!(rig.table_close(root, table, 5000), Ok(()));
    let close_on_exec = SlotFlags::CLOSE_ON_EXEC;
    rig.table_retain(root, table, close_on_exec, SlotFlags::empty())
        .unwrap();
    assert_eq!(rig.table_next(root, table, 8).unwrap().0, u64::MAX);
    assert_eq!(rig.table_next(root, table, 0).unwrap().0, 7);
}

#[test]
fn who_was_given_a_window_cannot_end_it_for_others() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (read, pool) = (Access::READ, initial::POOL);
    let window = rig.window_create(root, initial::SPACE, pool, DATA, 1, read);
    let window = window.unwrap();
    let (_, client) = rig.stranger(pool, 5);
    let own_table = Handle::OWN_PRIVATE;
    let given = rig.cap_copy(root, window, own_table, 0, read, SlotFlags::empty());
    let theirs = rig.give_to(client, handle_of(given.unwrap()));
    let pool = rig.give_to(client, pool);
    let all = Access::all();
    let derived = rig.cap_derive(client, theirs, pool, 0, all).unwrap();
    rig.cap_derive(client, derived, pool, 0, all).unwrap();
    for grant in [theirs, derived] {
        assert_eq!(rig.cap_revoke(client, grant), Err(Error::AccessDenied));
    }
    let (at, protection) = (DATA + (1 << 30), Protection::READ);
    let mapped = rig.window_map(root, window, 0, initial::SPACE, at, 1, protection, 0);
    assert_eq!(mapped, Ok(()));
    // Its maker can.
    assert_eq!(rig.cap_revoke(root, window), Ok(()));
    let mapped = rig.window_map(root, window, 0, initial::SPACE, at, 1, protection, 0);
    assert_eq!(mapped, Err(Error::Gone));
}

#[test]
fn a_capability_that_moves_with_an_answer_that_its_caller_cannot_take_is_gone() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let (_, client) = rig.stranger(initial::POOL, 5);
    let sender = rig.give_to(client, sender);
    let no_table = Extended {
        receive_slots: Handle(3 << 62),
        ..Extended::EMPTY
    };
    let no_room = Extended::EMPTY;
    let call = OpWord::new(IpcCall::Call, IpcFlags::empty(), 0, 0);
    let cases = [(no_table, b"".as_slice()), (no_room, &[0; 100])];
    let mut used = Vec::new();
    for (caller, body) in [cases, cases].concat() {
        let gift = rig.notification_create(root, initial::POOL, 0).unwrap();
        rig.message_with(client, call, sender, Some(caller), [0; 8]);
        rig.message(root, IpcCall::Receive, receiver, 0, [0; 8]);
        let moved = [SendCap::moved(gift)];
        rig.send_bytes(root, IpcCall::Reply, Handle::NONE, body, &moved);
        assert!(rig.got(root).is_ok());
        assert_eq!(rig.cap_info(root, gift), Err(Error::BadHandle));
        rig.kernel.collect();
        used.push(rig.pool_status(root, initial::POOL).unwrap());
    }
    // The first ones made slabs and pages that stay.
    assert_eq!(used[1..3], [used[3]; 2]);
}

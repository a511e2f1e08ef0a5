//! Labels: by them servers know who calls, so nobody may make up somebody else's.

use crate::testkit::Rig;
use libipc::abi::{Access, Copies, Error, Handle, initial};

const DENIED: Option<Error> = Some(Error::AccessDenied);

/// A thread with label 7 that holds `pool` and a space of its own.
fn make(rig: &mut Rig, pool: Handle, label: u64) -> Result<Handle, Error> {
    let worker = rig.thread(7);
    let space = rig.space_create(worker, initial::POOL, Handle::NONE)?;
    let [private, files, fs] = [Handle::OWN_PRIVATE, Handle::OWN_FILES, Handle::OWN_FS];
    rig.thread_create(
        worker,
        pool,
        space,
        private,
        files,
        fs,
        Copies::empty(),
        label,
        Handle::NONE,
        0,
    )
}

#[test]
fn without_the_right_to_label_a_thread_gets_its_makers_label() {
    let mut rig = Rig::new(512);
    let rights = Access::CHARGE | Access::STATUS;
    let root = rig.root;
    let pool = rig.cap_derive(root, initial::POOL, initial::POOL, 0, rights);
    let pool = pool.unwrap();
    for label in [0, 1, 6, 8, u64::MAX] {
        assert_eq!(make(&mut rig, pool, label).err(), DENIED);
    }
    let thread = make(&mut rig, pool, 7).unwrap();
    assert_eq!(rig.thread_set_label(root, thread, 8).err(), DENIED);
}

#[test]
fn a_pool_under_one_that_cannot_label_cannot_either() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let pool = rig.cap_derive(root, initial::POOL, initial::POOL, 0, Access::CHARGE);
    let inner = rig.pool_create(root, pool.unwrap(), 64).unwrap();
    assert_eq!(make(&mut rig, inner, 8).err(), DENIED);
    assert!(make(&mut rig, inner, 7).is_ok());
}

#[test]
fn with_the_right_any_label_may_be_given_and_changed() {
    let mut rig = Rig::new(512);
    let thread = make(&mut rig, initial::POOL, 42).unwrap();
    let root = rig.root;
    assert_eq!(rig.thread_set_label(root, thread, 43), Ok(()));
}

//! The server through its own protocol: encode, dispatch, decode, with pools that only count.

use super::*;
use libipc::abi::Kind;
use libipc::protocol::memory::{Client, serve};
use libipc::wire::{Body, CallError, LongBody, Received, Served, Transport};
use proptest::prelude::*;
use std::collections::HashMap;
use std::vec::Vec;

/// Pools by handle: parent and limit. Children count as used in full, which is what the tests need.
#[derive(Default)]
struct FakePools {
    pools: HashMap<Handle, (Handle, u64)>,
    next: u64,
    fail: Option<Error>,
}

const ROOT_POOL: Handle = Handle(0x1000);

impl FakePools {
    fn used(&self, pool: Handle) -> u64 {
        self.pools
            .values()
            .filter(|(parent, _)| *parent == pool)
            .map(|(_, limit)| limit)
            .sum()
    }
}

impl Pools for FakePools {
    fn create(&mut self, parent: Handle, limit_pages: u64) -> Result<Handle, Error> {
        if let Some(error) = self.fail {
            return Err(error);
        }
        assert!(self.pools.contains_key(&parent), "parent is a live pool");
        self.next += 1;
        let handle = Handle(0x2000 + self.next);
        self.pools.insert(handle, (parent, limit_pages));
        Ok(handle)
    }

    fn status(&mut self, pool: Handle) -> Result<Quota, Error> {
        let (_, limit) = self.pools.get(&pool).ok_or(Error::BadHandle)?;
        Ok(Quota {
            limit: *limit,
            used: self.used(pool),
        })
    }

    fn destroy(&mut self, pool: Handle) {
        assert_eq!(self.used(pool), 0, "children go first");
        assert!(self.pools.remove(&pool).is_some(), "destroyed once");
    }
}

struct World {
    quotas: Quotas,
    pools: FakePools,
}

impl World {
    fn new() -> World {
        let mut pools = FakePools::default();
        pools.pools.insert(ROOT_POOL, (Handle::NONE, 10_000));
        World {
            quotas: Quotas::new(ROOT_POOL),
            pools,
        }
    }

    fn client(&mut self, badge: u64, access: u32) -> Client<Link<'_>> {
        Client::new(Link {
            world: self,
            badge,
            access,
        })
    }

    fn make(&mut self, badge: u64, limit: u64) -> Result<u64, CallError<MemoryError>> {
        let mut received = Received::new();
        let result = self.client(badge, access::MAKE_POOL).make_pool(
            *b"a pool\0\0\0\0\0\0\0\0\0\0",
            limit,
            &mut received,
        );
        assert_eq!(received.len(), usize::from(result.is_ok()));
        result
    }

    fn lines(&mut self) -> Vec<QuotaLine> {
        let mut lines = Vec::new();
        let mut number = 0;
        while let Some(line) = self.client(ROOT, access::INSPECT).quota_at(number).unwrap() {
            number = line.number + 1;
            lines.push(line);
        }
        lines
    }
}

/// A client's way to the server in the same process.
struct Link<'w> {
    world: &'w mut World,
    badge: u64,
    access: u32,
}

impl Transport for Link<'_> {
    fn call<const OUT: usize, const IN: usize>(
        &mut self,
        request: &mut Body<OUT>,
        caps: &[SendCap],
        answer: &mut Body<IN>,
        received: &mut Received,
        expects: usize,
    ) -> Result<(), Error> {
        let mut caller = Caller::new(7, self.badge, self.access);
        for cap in caps {
            let _ = caller.received.push(cap.handle);
        }
        let World { quotas, pools } = self.world;
        let served = serve(quotas, pools, &mut caller, request.bytes(), answer);
        assert_eq!(served, Served::Answered);
        assert!(caller.gives.len() <= expects);
        received.extend(caller.gives.iter().map(|cap| cap.handle));
        Ok(())
    }
}

#[test]
fn a_pool_is_made_under_the_quota_of_the_capability() {
    let mut world = World::new();
    let servers = world.make(ROOT, 500).unwrap();
    let job = world.make(servers, 100).unwrap();
    let lines = world.lines();
    let tree: Vec<_> = lines
        .iter()
        .map(|line| (line.number, line.parent, line.quota.limit, line.quota.used))
        .collect();
    assert_eq!(
        tree,
        [
            (ROOT, ROOT, 10_000, 500),
            (servers, ROOT, 500, 100),
            (job, servers, 100, 0)
        ]
    );
    assert_eq!(
        world.client(servers, 0).quota(),
        Ok(Quota {
            limit: 500,
            used: 100
        })
    );
}

#[test]
fn the_pool_that_is_given_can_be_charged_but_not_managed() {
    let mut quotas = Quotas::new(ROOT_POOL);
    let mut world = World::new();
    let mut caller = Caller::new(7, ROOT, access::MAKE_POOL);
    let made = quotas.make_pool(&mut world.pools, &mut caller, [0; 16], 5);
    assert!(made.is_ok());
    assert_eq!(
        caller.gives[0].access,
        (Access::CHARGE | Access::STATUS | Access::LABEL).bits()
    );
    assert_eq!(
        caller.gives[0].options & SendCap::MOVE,
        0,
        "the server keeps its own"
    );
    assert_eq!(Kind::Pool as u8, 1);
}

#[test]
fn what_the_capability_does_not_permit_is_denied() {
    let mut world = World::new();
    let mut received = Received::new();
    let denied = CallError::Refused(MemoryError::Denied);
    let mut plain = world.client(ROOT, 0);
    assert_eq!(plain.make_pool([0; 16], 1, &mut received), Err(denied));
    assert_eq!(plain.quota_at(0), Err(denied));
    assert_eq!(plain.drop_pool(0), Err(denied));
    assert_eq!(world.make(99, 1), Err(denied), "a quota that is not there");
}

#[test]
fn a_refusal_of_the_kernel_leaves_nothing_behind() {
    let mut world = World::new();
    world.pools.fail = Some(Error::NoMemory);
    assert_eq!(
        world.make(ROOT, 1),
        Err(CallError::Refused(MemoryError::OverQuota))
    );
    assert_eq!(
        world.make(ROOT, 0),
        Err(CallError::Refused(MemoryError::Invalid))
    );
    assert_eq!(world.lines().len(), 1);
}

#[test]
fn a_pool_goes_with_all_below_it_and_its_number_is_never_used_again() {
    let mut world = World::new();
    let servers = world.make(ROOT, 500).unwrap();
    let job = world.make(servers, 100).unwrap();
    let inner = world.make(job, 10).unwrap();
    let other = world.make(ROOT, 1).unwrap();
    assert_eq!(
        world.client(other, access::MAKE_POOL).drop_pool(servers),
        Err(CallError::Refused(MemoryError::Denied))
    );
    assert_eq!(
        world.client(ROOT, access::MAKE_POOL).drop_pool(servers),
        Ok(())
    );
    assert_eq!(world.pools.pools.len(), 2);
    assert!(world.make(inner, 1).is_err());
    let new = world.make(ROOT, 1).unwrap();
    assert!(new > other);
    assert_eq!(
        world.client(ROOT, access::MAKE_POOL).drop_pool(servers),
        Err(CallError::Refused(MemoryError::Invalid))
    );
}

#[test]
fn a_quota_is_divided_only_so_often() {
    let mut world = World::new();
    for _ in 0..CHILDREN {
        world.make(ROOT, 1).unwrap();
    }
    assert_eq!(
        world.make(ROOT, 1),
        Err(CallError::Refused(MemoryError::OverQuota))
    );
    let last = world.lines().last().unwrap().number;
    assert_eq!(
        world.client(ROOT, access::MAKE_POOL).drop_pool(last),
        Ok(())
    );
    assert!(world.make(ROOT, 1).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_answered(
        requests in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), 0u64..4, any::<u32>(), 0usize..3), 1..40)
    ) {
        let mut world = World::new();
        for (bytes, badge, access, caps) in requests {
            let mut caller = Caller::new(1, badge, access);
            for cap in 0..caps {
                let _ = caller.received.push(Handle(cap as u64));
            }
            let mut answer = LongBody::new();
            let World { quotas, pools } = &mut world;
            prop_assert_eq!(serve(quotas, pools, &mut caller, &bytes, &mut answer), Served::Answered);
            prop_assert!(!answer.is_empty());
        }
        prop_assert_eq!(world.pools.pools.len(), world.quotas.entries.len());
    }
}

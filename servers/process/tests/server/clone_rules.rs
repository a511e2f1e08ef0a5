//! clone and clone3: what the flags do, and which combinations are refused (sections 2 and 3).

use libipc::protocol::process::{CloneArguments, Errno};

use crate::world::{No, World};

const VM: u64 = 0x100;
const FS: u64 = 0x200;
const FILES: u64 = 0x400;
const SIGHAND: u64 = 0x800;
const PIDFD: u64 = 0x1000;
const VFORK: u64 = 0x4000;
const PARENT: u64 = 0x8000;
const THREAD: u64 = 0x1_0000;
const NEWNS: u64 = 0x2_0000;
const SYSVSEM: u64 = 0x4_0000;
const SETTLS: u64 = 0x8_0000;
const PARENT_SETTID: u64 = 0x10_0000;
const CHILD_CLEARTID: u64 = 0x20_0000;
const DETACHED: u64 = 0x40_0000;
const UNTRACED: u64 = 0x80_0000;
const CHILD_SETTID: u64 = 0x100_0000;
const NEWIPC: u64 = 0x800_0000;
const NEWUSER: u64 = 0x1000_0000;
const NEWPID: u64 = 0x2000_0000;
const NEWNET: u64 = 0x4000_0000;
const IO: u64 = 0x8000_0000;
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;

const EINVAL: Result<u32, No> = Err(No::Errno(Errno::EINVAL));

/// A program that has exec'd, so that nothing of init is special about it.
fn program() -> (World, u64) {
    World::with_program()
}

#[test]
fn lx_clone_02_with_vm_the_memory_is_one_and_without_it_a_copy() {
    let (mut world, caller) = program();
    world.clone(caller, VM | SIGCHLD).unwrap();
    assert_eq!(world.space_of(world.newest()), world.space_of(caller));
    world.clone(caller, SIGCHLD).unwrap();
    assert_ne!(world.space_of(world.newest()), world.space_of(caller));
}

#[test]
fn lx_clone_03_with_fs_the_directories_are_one_and_without_it_a_copy() {
    let (mut world, caller) = program();
    let fs = |world: &World, label| world.fake.thread(label).unwrap().within.fs;
    world.clone(caller, FS | SIGCHLD).unwrap();
    assert_eq!(fs(&world, world.newest()), fs(&world, caller));
    world.clone(caller, SIGCHLD).unwrap();
    assert_ne!(fs(&world, world.newest()), fs(&world, caller));
}

#[test]
fn lx_clone_04_with_files_the_table_is_one_until_a_sharer_execs() {
    let (mut world, caller) = program();
    world.clone(caller, FILES | SIGCHLD).unwrap();
    let child = world.newest();
    assert_eq!(world.files_of(child), world.files_of(caller));
    let table = world.files_of(caller);
    let close_on_exec = libipc::abi::SlotFlags::CLOSE_ON_EXEC;
    world.fake.table(table).insert(5, (1, close_on_exec));
    let loader = world.exec(child);
    world.loaded(loader).unwrap_err();
    assert_ne!(world.files_of(loader), table);
    assert!(world.fake.table(table).contains_key(&5));
    let own = world.files_of(loader);
    assert!(!world.fake.table(own).contains_key(&5));
}

#[test]
fn lx_clone_05_with_sighand_dispositions_are_one_and_without_it_a_copy() {
    let (mut world, caller) = program();
    world.clone(caller, VM | SIGHAND | SIGCHLD).unwrap();
    let sharer = world.newest();
    world.clone(caller, SIGCHLD).unwrap();
    let copier = world.newest();
    assert!(!world.client(sharer).ignore_signal(12, true).unwrap());
    assert!(world.client(caller).ignore_signal(12, true).unwrap());
    assert!(!world.client(copier).ignore_signal(12, true).unwrap());
}

#[test]
fn lx_clone_08_vfork_without_vm_blocks_the_caller_too() {
    let (mut world, caller) = program();
    assert_eq!(world.clone(caller, VFORK | SIGCHLD), Err(No::Yet));
    let child = world.newest();
    assert_ne!(world.space_of(child), world.space_of(caller));
    assert!(world.late::<u32>(caller).is_none());
    let pid = world.identity(child).pid;
    world.exit(child, 0);
    assert_eq!(world.late(caller), Some(Ok(pid)));
}

#[test]
fn lx_clone_09_with_parent_the_grandparent_waits_for_the_child() {
    let (mut world, grandparent) = program();
    let (pid, caller) = world.fork(grandparent);
    let child = world.clone(caller, PARENT | 10).unwrap();
    let label = world.newest();
    assert_eq!(world.identity(label).ppid, world.identity(grandparent).pid);
    world.exit(label, 0);
    assert_eq!(
        world.wait(caller, child as i32, 0),
        Err(No::Errno(Errno::ECHILD))
    );
    // The exit signal is that of the caller, so a plain wait sees it.
    assert_eq!(world.wait(grandparent, -1, 1), Ok((child, 0)));
    assert_ne!(pid, child);
}

#[test]
fn lx_clone_10_a_thread_shares_the_pid_and_is_never_waited_for() {
    let (mut world, caller) = program();
    let tid = world.clone(caller, THREAD | SIGHAND | VM).unwrap();
    let thread = world.newest();
    let (own, other) = (world.identity(caller), world.identity(thread));
    assert_eq!((own.pid, own.ppid), (other.pid, other.ppid));
    assert_eq!((own.tid, other.tid), (own.pid, tid));
    assert_eq!(
        world.wait(caller, tid as i32, 0x4000_0000),
        Err(No::Errno(Errno::ECHILD))
    );
}

#[test]
fn lx_clone_13_settls_sets_the_childs_fs_base_and_refuses_kernel_addresses() {
    let (mut world, caller) = program();
    let arguments = |tls| CloneArguments {
        flags: SETTLS | SIGCHLD,
        tls,
        ..CloneArguments::default()
    };
    world.clone_with(caller, arguments(0x1234_5000)).unwrap();
    let child = world.newest();
    assert_eq!(
        world.fake.thread(child).unwrap().thread_pointer,
        0x1234_5000
    );
    world.clone(child, SIGCHLD).unwrap();
    let grandchild = world.fake.thread(world.newest()).unwrap();
    assert_eq!(
        grandchild.thread_pointer, 0x1234_5000,
        "inherited without it"
    );
    let refused = world.clone_with(caller, arguments(0xffff_8000_0000_0000));
    assert_eq!(refused, Err(No::Errno(Errno::EPERM)));
}

#[test]
fn lx_clone_14_parent_settid_stores_the_tid_and_ignores_a_bad_pointer() {
    let (mut world, caller) = program();
    let arguments = |parent_tid| CloneArguments {
        flags: PARENT_SETTID | SIGCHLD,
        parent_tid,
        ..CloneArguments::default()
    };
    let pid = world.clone_with(caller, arguments(0x5000)).unwrap();
    let space = world.space_of(caller);
    assert_eq!(world.fake.words(space).get(&0x5000), Some(&pid));
    assert!(world.clone_with(caller, arguments(8)).is_ok());
}

#[test]
fn lx_clone_15_child_cleartid_is_remembered_for_the_childs_end() {
    let (mut world, caller) = program();
    let arguments = CloneArguments {
        flags: CHILD_CLEARTID | SIGCHLD,
        child_tid: 0x6000,
        ..CloneArguments::default()
    };
    world.clone_with(caller, arguments).unwrap();
    assert_eq!(world.fake.thread(world.newest()).unwrap().clear, 0x6000);
    assert_eq!(world.fake.thread(caller).unwrap().clear, 0);
}

#[test]
fn lx_clone_16_detached_does_nothing_in_the_legacy_call() {
    let (mut world, caller) = program();
    assert!(world.clone(caller, DETACHED | SIGCHLD).is_ok());
}

#[test]
fn lx_clone_18_child_settid_stores_the_tid_in_the_childs_memory_only() {
    let (mut world, caller) = program();
    let arguments = |child_tid| CloneArguments {
        flags: CHILD_SETTID | SIGCHLD,
        child_tid,
        ..CloneArguments::default()
    };
    let pid = world.clone_with(caller, arguments(0x5000)).unwrap();
    let (own, childs) = (world.space_of(caller), world.space_of(world.newest()));
    assert_eq!(world.fake.words(childs).get(&0x5000), Some(&pid));
    assert_eq!(world.fake.words(own).get(&0x5000), None);
    assert!(world.clone_with(caller, arguments(8)).is_ok());
}

#[test]
fn lx_clone_21_the_io_context_can_be_shared_without_effect() {
    let (mut world, caller) = program();
    assert!(world.clone(caller, IO | SIGCHLD).is_ok());
}

#[test]
fn lx_clone_22_clear_sighand_keeps_what_is_ignored() {
    let (mut world, caller) = program();
    world.client(caller).ignore_signal(12, true).unwrap();
    world
        .clone3(caller, &Record::new(CLEAR_SIGHAND).bytes(64))
        .unwrap();
    let child = world.newest();
    assert!(world.client(child).ignore_signal(12, true).unwrap());
}

#[test]
fn lx_clone_24_bit_80_is_part_of_a_legacy_clones_exit_signal() {
    let (mut world, caller) = program();
    let pid = world.clone(caller, 0x80).unwrap();
    let child = world.newest();
    world.exit(child, 0);
    assert_eq!(world.wait(caller, -1, 1), Err(No::Errno(Errno::ECHILD)));
    assert_eq!(world.wait(caller, -1, 0x8000_0001), Ok((pid, 0)));
}

#[test]
fn lx_clone_26_unknown_high_bits_of_a_legacy_clone_are_dropped() {
    let (mut world, caller) = program();
    assert!(world.clone(caller, 0x7_0000_0000 | SIGCHLD).is_ok());
}

#[test]
fn lx_clone_27_any_exit_signal_is_taken_and_a_deadly_one_hits_the_parent() {
    for signal in [0, 1, 9, 17, 64, 65, 255] {
        let (mut world, caller) = program();
        let pid = world.identity(caller).pid;
        world.clone(caller, signal).unwrap();
        let child = world.newest();
        world.exit(child, 0);
        let killed = signal == 9 || signal == 1 || signal == 64;
        assert_eq!(world.state(pid) == Some('Z'), killed, "signal {signal}");
    }
}

#[test]
fn lx_clone_28_with_thread_the_low_byte_is_ignored() {
    let (mut world, caller) = program();
    assert!(world.clone(caller, THREAD | SIGHAND | VM | SIGCHLD).is_ok());
}

#[test]
fn lx_clone_29_a_given_stack_is_taken_and_none_keeps_the_callers() {
    let (mut world, caller) = program();
    let arguments = CloneArguments {
        flags: VM | SIGCHLD,
        stack: 0x7fff_0003,
        ..CloneArguments::default()
    };
    world.clone_with(caller, arguments).unwrap();
    assert_eq!(
        world.fake.thread(world.newest()).unwrap().stack,
        0x7fff_0003
    );
    world.clone(caller, VM | SIGCHLD).unwrap();
    assert_eq!(world.fake.thread(world.newest()).unwrap().stack, 0);
}

#[test]
fn lx_clone_40_pidfd_and_parent_settid_at_one_address_is_einval() {
    let (mut world, caller) = program();
    assert_eq!(world.clone(caller, PIDFD | PARENT_SETTID | SIGCHLD), EINVAL);
    let same = Record {
        pidfd: 0x5000,
        parent_tid: 0x5000,
        ..Record::new(PIDFD | PARENT_SETTID)
    };
    assert_eq!(world.clone3(caller, &same.bytes(88)), EINVAL);
}

#[test]
fn lx_clone_41_newns_with_fs_is_einval() {
    let (mut world, caller) = program();
    assert_eq!(world.clone(caller, NEWNS | FS | SIGCHLD), EINVAL);
}

#[test]
fn lx_clone_42_newuser_with_fs_is_einval() {
    let (mut world, caller) = program();
    assert_eq!(world.clone(caller, NEWUSER | FS | SIGCHLD), EINVAL);
}

#[test]
fn lx_clone_43_thread_without_sighand_is_einval() {
    let (mut world, caller) = program();
    assert_eq!(world.clone(caller, THREAD), EINVAL);
    assert_eq!(world.clone(caller, THREAD | VM), EINVAL);
}

#[test]
fn lx_clone_44_sighand_without_vm_is_einval() {
    let (mut world, caller) = program();
    assert_eq!(world.clone(caller, SIGHAND | SIGCHLD), EINVAL);
    assert_eq!(world.clone(caller, THREAD | SIGHAND), EINVAL);
}

#[test]
fn lx_clone_45_init_may_make_threads_but_no_siblings() {
    let mut world = World::new();
    let init = world.init;
    assert_eq!(world.clone(init, PARENT | SIGCHLD), EINVAL);
    assert!(world.clone(init, THREAD | SIGHAND | VM).is_ok());
}

#[test]
fn lx_clone_46_a_thread_with_its_own_user_or_pid_namespace_is_einval() {
    let (mut world, caller) = program();
    for kind in [NEWUSER, NEWPID] {
        assert_eq!(world.clone(caller, THREAD | SIGHAND | VM | kind), EINVAL);
    }
}

#[test]
fn lx_clone_47_pidfd_with_detached_is_einval() {
    let (mut world, caller) = program();
    assert_eq!(world.clone(caller, PIDFD | DETACHED | SIGCHLD), EINVAL);
}

#[test]
fn lx_clone_49_newipc_with_sysvsem_is_einval() {
    let (mut world, caller) = program();
    assert_eq!(world.clone(caller, NEWIPC | SYSVSEM | SIGCHLD), EINVAL);
}

#[test]
fn lx_clone_50_a_namespace_that_is_not_built_in_is_einval() {
    let (mut world, caller) = program();
    let before = world.server.figures();
    for kind in [
        0x2_0000, 0x200_0000, 0x400_0000, NEWIPC, NEWUSER, NEWPID, NEWNET,
    ] {
        assert_eq!(world.clone(caller, kind | SIGCHLD), EINVAL);
    }
    assert_eq!(world.clone3(caller, &Record::new(0x80).bytes(88)), EINVAL);
    assert_eq!(world.server.figures(), before);
}

/// The checks of section 2.1, written down a second time as a table.
fn expected(flags: u64) -> Option<Errno> {
    let has = |bits| flags & bits == bits;
    let rows = [
        has(PIDFD | PARENT_SETTID),
        has(NEWNS | FS),
        has(NEWUSER | FS),
        has(THREAD) && !has(SIGHAND),
        has(SIGHAND) && !has(VM),
        has(THREAD) && flags & (NEWUSER | NEWPID) != 0,
        has(PIDFD | DETACHED),
        has(NEWIPC | SYSVSEM),
        flags & (NEWNS | 0x200_0000 | 0x400_0000 | NEWIPC | NEWUSER | NEWPID | NEWNET) != 0,
        has(PIDFD),
    ];
    rows.contains(&true).then_some(Errno::EINVAL)
}

/// Every combination of the flags that this server knows something about, in worlds that go on from
/// one to the next: refused ones leave nothing, accepted ones leave what their end takes away.
#[test]
fn lx_copy_01_every_combination_of_flags_is_accepted_or_refused_as_the_table_says() {
    const FLAGS: [u64; 14] = [
        VM,
        FS,
        FILES,
        SIGHAND,
        PIDFD,
        VFORK,
        PARENT,
        THREAD,
        SYSVSEM,
        PARENT_SETTID,
        DETACHED,
        NEWPID,
        NEWNS,
        SETTLS | CHILD_SETTID | CHILD_CLEARTID | UNTRACED | IO,
    ];
    let (mut world, parent) = program();
    let (_, caller) = world.fork(parent);
    for combination in 0u64..1 << FLAGS.len() {
        let set = (0..FLAGS.len()).filter(|bit| combination & 1 << bit != 0);
        let flags = set.fold(SIGCHLD, |flags, bit| flags | FLAGS[bit]);
        let (figures, census) = (world.server.figures(), world.fake.census());
        let result = world.clone(caller, flags);
        match expected(flags) {
            Some(errno) => assert_eq!(result, Err(No::Errno(errno)), "{flags:#x}"),
            None => {
                let child = world.newest();
                let tid = world.identity(child).tid;
                assert_ne!(child, caller, "{flags:#x}");
                if flags & VFORK == 0 {
                    assert_eq!(result, Ok(tid), "{flags:#x}");
                } else {
                    assert_eq!(result, Err(No::Yet), "{flags:#x}");
                }
                world.exit(child, 0);
                if flags & VFORK != 0 {
                    assert_eq!(world.late(caller), Some(Ok(tid)), "{flags:#x}");
                }
                if flags & THREAD == 0 {
                    let waiter = if flags & PARENT != 0 { parent } else { caller };
                    let waited = world.wait(waiter, tid as i32, 1);
                    assert_eq!(waited, Ok((tid, 0)), "{flags:#x}");
                }
            }
        }
        assert_eq!(world.server.figures(), figures, "{flags:#x}");
        assert_eq!(world.fake.census(), census, "{flags:#x}");
    }
}

/// struct clone_args.
#[derive(Clone, Copy, Default)]
struct Record {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl Record {
    fn new(flags: u64) -> Record {
        Record {
            flags,
            exit_signal: SIGCHLD,
            ..Record::default()
        }
    }

    fn bytes(&self, size: usize) -> Vec<u8> {
        let fields = [
            self.flags,
            self.pidfd,
            self.child_tid,
            self.parent_tid,
            self.exit_signal,
            self.stack,
            self.stack_size,
            self.tls,
            self.set_tid,
            self.set_tid_size,
            self.cgroup,
        ];
        let mut bytes: Vec<u8> = fields.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(size, 0);
        bytes
    }
}

#[test]
fn lx_clone3_01_each_field_has_its_effect() {
    let (mut world, caller) = program();
    let record = Record {
        child_tid: 0x5000,
        parent_tid: 0x6000,
        stack: 0x10_0000,
        stack_size: 0x4000,
        tls: 0x7000,
        ..Record::new(SETTLS | PARENT_SETTID | CHILD_SETTID | CHILD_CLEARTID)
    };
    let pid = world.clone3(caller, &record.bytes(64)).unwrap();
    let child = world.newest();
    let thread = world.fake.thread(child).unwrap().clone();
    assert_eq!(
        (thread.stack, thread.thread_pointer, thread.clear),
        (0x10_4000, 0x7000, 0x5000)
    );
    let (own, childs) = (world.space_of(caller), world.space_of(child));
    assert_eq!(world.fake.words(own).get(&0x6000), Some(&pid));
    assert_eq!(world.fake.words(childs).get(&0x5000), Some(&pid));
}

#[test]
fn lx_clone3_02_a_size_that_is_none_is_refused_before_anything_is_read() {
    let (mut world, caller) = program();
    let empty = libipc::wire::Bytes(&[]);
    for (size, errno) in [
        (8, Errno::EINVAL),
        (8192, Errno::E2BIG),
        (88, Errno::EFAULT),
    ] {
        let result = crate::world::outcome(world.client(caller).clone3(empty, size));
        assert_eq!(result, Err(No::Errno(errno)), "{size}");
    }
}

#[test]
fn lx_clone3_03_a_short_record_is_filled_with_zeros() {
    let (mut world, caller) = program();
    for size in [64, 65, 79, 80, 87, 88] {
        let record = Record::new(0).bytes(size);
        assert!(world.clone3(caller, &record).is_ok(), "{size}");
    }
}

#[test]
fn lx_clone3_04_bytes_past_the_known_fields_must_be_zero() {
    let (mut world, caller) = program();
    let mut record = Record::new(0).bytes(4096);
    assert!(world.clone3(caller, &record).is_ok());
    record[4095] = 1;
    assert_eq!(world.clone3(caller, &record), Err(No::Errno(Errno::E2BIG)));
}

#[test]
fn lx_clone3_06_an_exit_signal_is_at_most_64() {
    let (mut world, caller) = program();
    for (exit_signal, fits) in [
        (0, true),
        (64, true),
        (65, false),
        (255, false),
        (256, false),
        (0x1_0000_0011, false),
    ] {
        let record = Record {
            exit_signal,
            ..Record::new(0)
        };
        let result = world.clone3(caller, &record.bytes(64));
        assert_eq!(result.is_ok(), fits, "{exit_signal}");
        assert!(fits || result == EINVAL);
    }
}

#[test]
fn lx_clone3_07_unknown_flags_and_a_low_byte_are_einval() {
    let (mut world, caller) = program();
    for flags in (34..63).map(|bit| 1 << bit).chain([0x11, 0x40, DETACHED]) {
        assert_eq!(world.clone3(caller, &Record::new(flags).bytes(88)), EINVAL);
    }
}

#[test]
fn lx_clone3_08_clear_sighand_with_sighand_is_einval() {
    let (mut world, caller) = program();
    let both = Record::new(CLEAR_SIGHAND | SIGHAND | VM);
    assert_eq!(world.clone3(caller, &both.bytes(64)), EINVAL);
    let clear = Record::new(CLEAR_SIGHAND);
    assert!(world.clone3(caller, &clear.bytes(64)).is_ok());
}

#[test]
fn lx_clone3_09_a_thread_or_sibling_has_no_exit_signal_of_its_own() {
    let (mut world, caller) = program();
    for flags in [THREAD | SIGHAND | VM, PARENT] {
        let with = Record::new(flags);
        assert_eq!(world.clone3(caller, &with.bytes(64)), EINVAL);
        let without = Record {
            exit_signal: 0,
            ..with
        };
        assert!(world.clone3(caller, &without.bytes(64)).is_ok());
    }
}

#[test]
fn lx_clone3_10_a_stack_has_a_size_and_lies_in_user_space() {
    let (mut world, caller) = program();
    for (stack, stack_size, fits) in [
        (0, 0, true),
        (0, 4096, false),
        (4096, 0, false),
        (0x10_0000, 4096, true),
        (0x7fff_ffff_e000, 0x1000, true),
        (0x7fff_ffff_e000, 0x1001, false),
        (u64::MAX - 10, 100, false),
    ] {
        let record = Record {
            stack,
            stack_size,
            ..Record::new(0)
        };
        let result = world.clone3(caller, &record.bytes(64));
        assert_eq!(result.is_ok(), fits, "{stack:#x} {stack_size:#x}");
        assert!(fits || result == EINVAL);
    }
}

#[test]
fn lx_clone3_11_no_descriptor_is_a_cgroup() {
    let (mut world, caller) = program();
    let record = Record::new(INTO_CGROUP);
    assert_eq!(world.clone3(caller, &record.bytes(80)), EINVAL);
    let large = Record {
        cgroup: 0x8000_0000,
        ..record
    };
    assert_eq!(world.clone3(caller, &large.bytes(88)), EINVAL);
    assert_eq!(
        world.clone3(caller, &record.bytes(88)),
        Err(No::Errno(Errno::EBADF))
    );
    let ignored = Record {
        cgroup: 77,
        ..Record::new(0)
    };
    assert!(world.clone3(caller, &ignored.bytes(88)).is_ok());
}

#[test]
fn lx_clone3_12_set_tid_has_a_pointer_and_a_size_or_neither() {
    let (mut world, caller) = program();
    for (set_tid, set_tid_size, errno) in [
        (0x5000, 0, Errno::EINVAL),
        (0, 1, Errno::EINVAL),
        (0x5000, 33, Errno::EINVAL),
        (8, 1, Errno::EFAULT),
    ] {
        let record = Record {
            set_tid,
            set_tid_size,
            ..Record::new(0)
        };
        let result = world.clone3(caller, &record.bytes(80));
        assert_eq!(result, Err(No::Errno(errno)));
    }
}

#[test]
fn lx_clone3_13_more_numbers_than_namespaces_is_einval() {
    let (mut world, caller) = program();
    let space = world.space_of(caller);
    world
        .fake
        .words(space)
        .extend([(0x5000, 500), (0x5004, 501)]);
    let record = Record {
        set_tid: 0x5000,
        set_tid_size: 2,
        ..Record::new(0)
    };
    assert_eq!(world.clone3(caller, &record.bytes(80)), EINVAL);
}

#[test]
fn lx_clone3_14_a_number_asked_for_must_be_one_and_be_free() {
    let (mut world, caller) = program();
    let space = world.space_of(caller);
    for (number, result) in [
        (500, Ok(500)),
        (500, Err(No::Errno(Errno::EEXIST))),
        (0, EINVAL),
        (32768, EINVAL),
        (32767, Ok(32767)),
    ] {
        world.fake.words(space).insert(0x5000, number);
        let record = Record {
            set_tid: 0x5000,
            set_tid_size: 1,
            ..Record::new(0)
        };
        assert_eq!(world.clone3(caller, &record.bytes(80)), result, "{number}");
    }
}

#[test]
fn lx_copy_11_a_bad_thread_pointer_wins_over_a_number_that_is_taken() {
    let (mut world, caller) = program();
    let space = world.space_of(caller);
    let taken = world.identity(caller).pid;
    world.fake.words(space).insert(0x5000, taken);
    for (tls, errno) in [(0x7000, Errno::EEXIST), (u64::MAX, Errno::EPERM)] {
        let record = Record {
            set_tid: 0x5000,
            set_tid_size: 1,
            tls,
            ..Record::new(SETTLS)
        };
        let result = world.clone3(caller, &record.bytes(80));
        assert_eq!(result, Err(No::Errno(errno)));
    }
}

#[test]
fn lx_clone3_15_the_first_check_in_order_wins() {
    let (mut world, caller) = program();
    // Exit signal before the unreadable array; the array before the flags; the flags before 2.1.
    let mut record = Record {
        set_tid: 8,
        set_tid_size: 1,
        exit_signal: 65,
        ..Record::new(THREAD | DETACHED)
    };
    assert_eq!(world.clone3(caller, &record.bytes(88)), EINVAL);
    record.exit_signal = 0;
    assert_eq!(
        world.clone3(caller, &record.bytes(88)),
        Err(No::Errno(Errno::EFAULT))
    );
    // A tail that is not zero comes before all of them.
    let mut bytes = record.bytes(89);
    bytes[88] = 1;
    assert_eq!(world.clone3(caller, &bytes), Err(No::Errno(Errno::E2BIG)));
}

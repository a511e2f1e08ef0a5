//! What is measured: the cases, what one operation of each is, and what it may cost.
//!
//! The list gives the order of the tables. A case that procbench has and the list does not is shown at the
//! end, so that nothing measured is lost.

/// A case of procbench.
pub struct Case {
    /// Its name on both systems.
    pub name: &'static str,
    /// What one operation is, where the name does not say it.
    pub what: &'static str,
    /// Linux's case that does the same, if it has another name there.
    pub linux: Option<&'static str>,
    /// The most instructions that an operation should take.
    pub budget: Option<Budget>,
    /// Instructions on Linux 6.1 built minimal for one processor (measured once, in the same emulator).
    pub minimal_linux: Option<u64>,
    /// Instructions on seL4 with its best switches (measured once, in the same emulator).
    pub sel4: Option<u64>,
}

/// The most that a case should cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Instructions.
    Instructions(u64),
    /// Percent of another case's instructions.
    PercentOf(u64, &'static str),
}

impl Case {
    const fn new(name: &'static str, what: &'static str) -> Case {
        Case {
            name,
            what,
            linux: None,
            budget: None,
            minimal_linux: None,
            sel4: None,
        }
    }

    const fn budget(mut self, instructions: u64) -> Case {
        self.budget = Some(Budget::Instructions(instructions));
        self
    }

    const fn at_most(mut self, percent: u64, of: &'static str) -> Case {
        self.budget = Some(Budget::PercentOf(percent, of));
        self
    }

    const fn like(mut self, linux: &'static str) -> Case {
        self.linux = Some(linux);
        self
    }

    const fn minimal(mut self, instructions: u64) -> Case {
        self.minimal_linux = Some(instructions);
        self
    }

    const fn sel4(mut self, instructions: u64) -> Case {
        self.sel4 = Some(instructions);
        self
    }

    /// The name of the case on Linux.
    pub fn linux_name(&self) -> &'static str {
        self.linux.unwrap_or(self.name)
    }
}

/// The case with this name.
pub fn find(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

/// Refuses a name with which no case begins.
pub fn check_prefix(name: &str) -> anyhow::Result<()> {
    if CASES.iter().any(|case| case.name.starts_with(name)) {
        return Ok(());
    }
    let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    anyhow::bail!("no case begins with {name}; there are {}", names.join(", "))
}

/// All cases, in the order in which they are shown.
pub const CASES: &[Case] = &[
    Case::new("calibrate_2000", "a loop of 2000 instructions"),
    // The kernel alone.
    Case::new(
        "null_syscall",
        "a system call of the kernel that does nothing",
    )
    .like("null_getppid")
    .budget(90)
    .minimal(222)
    .sel4(89),
    Case::new(
        "null_getppid",
        "getppid: here a round trip to the process server",
    )
    .minimal(222),
    Case::new("ipc_rtt_0", "call and reply, empty, other address space")
        .like("pipe_rtt")
        .budget(420)
        .minimal(5_369)
        .sel4(423),
    Case::new("ipc_rtt_8", "the same with 8 bytes each way").like("pipe_rtt"),
    Case::new("ipc_rtt_64", "with 64 bytes each way, in registers")
        .like("pipe_rtt")
        .budget(460)
        .minimal(5_369)
        .sel4(1_589),
    Case::new("ipc_rtt_512", "with 512 bytes each way, copied").like("pipe_rtt"),
    Case::new("ipc_rtt_4096", "with 4096 bytes each way, copied").like("pipe_rtt"),
    Case::new(
        "ipc_rtt_caps_1",
        "with a capability that goes there and back",
    ),
    Case::new(
        "ipc_rtt_caps_4",
        "with four capabilities that go there and back",
    ),
    Case::new(
        "ipc_rtt_same_0",
        "empty, between threads of one address space",
    ),
    Case::new(
        "ipc_rtt_same_64",
        "64 bytes, between threads of one address space",
    ),
    Case::new(
        "signal_wait",
        "a notification is signalled, its waiter runs and waits again",
    )
    .budget(500)
    .sel4(667),
    Case::new(
        "signal_nobody",
        "a notification that nobody waits for is signalled",
    ),
    Case::new("snapshot_1m", "a snapshot of a space with 1 MiB touched"),
    Case::new("snapshot_16m", "with 16 MiB touched"),
    Case::new("snapshot_64m", "with 64 MiB touched"),
    Case::new("snapshot_256m", "with 256 MiB touched"),
    Case::new("snapshot_1024m", "with 1024 MiB touched").at_most(120, "snapshot_1m"),
    // Memory.
    Case::new("zero_fill_page", "first write to a page of fresh memory")
        .budget(800)
        .minimal(1_678),
    Case::new("zero_read_page", "first read of a page of fresh memory"),
    Case::new(
        "cow_child_page",
        "first write after fork, by the child: the page is copied",
    )
    .budget(900)
    .minimal(1_934),
    Case::new(
        "cow_parent_page",
        "first write after fork, by the parent: the page is copied",
    )
    .budget(900)
    .minimal(1_933),
    Case::new(
        "cow_last_owner_page",
        "first write of the parent after the child is gone, for each page",
    )
    .budget(300)
    .minimal(791),
    Case::new(
        "cow_last_owner_fault",
        "the same, for each fault: one can free 512 pages",
    )
    .like("cow_last_owner_page")
    .budget(300)
    .minimal(791),
    Case::new("link_page", "first read of a page of a shared window"),
    Case::new("mmap_munmap_1m", "map and unmap 1 MiB")
        .budget(2_500)
        .minimal(7_570),
    Case::new("mmap_touch_munmap_1m", "map 1 MiB, write each page, unmap").minimal(531_816),
    // Processes.
    Case::new("fork_exit", "fork, exit, wait: a small process")
        .budget(12_000)
        .minimal(57_578),
    Case::new("vfork_exit", "vfork, exit, wait")
        .budget(6_000)
        .minimal(17_959),
    Case::new("vfork_exec", "vfork, exec, wait").minimal(166_433),
    Case::new("posix_spawn", "posix_spawn, wait: an image that ran before")
        .budget(25_000)
        .minimal(174_942),
    Case::new(
        "posix_spawn_new",
        "the same with an image that never ran: the loader maps it",
    ),
    Case::new("create_process", "CreateProcess, wait, close the handles")
        .like("posix_spawn")
        .budget(25_000)
        .minimal(174_942)
        .sel4(45_003),
    Case::new("fork_exec", "fork, exec, wait")
        .budget(35_000)
        .minimal(207_496),
    Case::new("thread_clone", "clone a thread, its exit, join")
        .budget(5_000)
        .minimal(13_226)
        .sel4(13_725),
    Case::new(
        "thread_pthread",
        "the same, with mapping and unmapping a stack",
    )
    .minimal(37_843),
    Case::new("service_thread", "a service thread: made, run, stopped"),
    Case::new(
        "pipe_rtt",
        "a byte to another process and a byte back (here: call and reply)",
    )
    .minimal(5_369),
    Case::new("fork_mem_1m", "fork, exit, wait with 1 MiB touched").minimal(118_658),
    Case::new("fork_mem_16m", "with 16 MiB touched").minimal(948_245),
    Case::new("fork_mem_64m", "with 64 MiB touched").minimal(3_592_148),
    Case::new("fork_mem_256m", "with 256 MiB touched")
        .at_most(120, "fork_mem_1m")
        .minimal(14_156_633),
    Case::new("fork_mem_1024m", "with 1024 MiB touched").at_most(120, "fork_mem_1m"),
    Case::new("fork_untouched_256m", "with 256 MiB mapped and not touched").minimal(59_798),
    Case::new(
        "alive_1000",
        "one of 1000 processes alive at once, made and reaped",
    )
    .budget(15_000)
    .minimal(71_917),
    Case::new("alive_1000_make", "the making alone").minimal(46_943),
    Case::new("alive_1000_reap", "the reaping alone").minimal(26_809),
    Case::new(
        "chain_100",
        "a link of a chain of 100 processes, each the child of the one before",
    )
    .minimal(141_342),
    // Growth.
    Case::new("fork_beside_1", "fork, exit, wait with 1 other child alive"),
    Case::new("fork_beside_100", "with 100 other children alive").at_most(120, "fork_beside_1"),
    Case::new("fork_beside_10000", "with 10,000 other children alive")
        .at_most(120, "fork_beside_1"),
    Case::new(
        "spawn_beside_1",
        "posix_spawn, wait with 1 other child alive",
    ),
    Case::new("spawn_beside_100", "with 100 other children alive").at_most(120, "spawn_beside_1"),
    Case::new("spawn_beside_10000", "with 10,000 other children alive")
        .at_most(120, "spawn_beside_1"),
    Case::new("lookup_1", "look up a capability in a table of 1"),
    Case::new("lookup_100", "in a table of 100"),
    Case::new("lookup_10000", "in a table of 10,000"),
    Case::new(
        "revoke_1",
        "revoke, for each capability taken back: 1 derived from one",
    ),
    Case::new("revoke_100", "100 derived from one"),
    Case::new("revoke_10000", "10,000 derived from one"),
    Case::new(
        "revoke_deep_50",
        "a chain of 50, each derived from the one before",
    ),
    // Signals.
    Case::new("signal_self", "kill oneself, the handler runs, return")
        .budget(2_300)
        .minimal(2_371),
    Case::new("signal_rtt", "a signal to another process and one back")
        .budget(7_000)
        .minimal(7_031),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_case_is_listed_once_and_budgets_name_cases() {
        let names: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
        for case in CASES {
            if let Some(Budget::PercentOf(_, other)) = case.budget {
                assert!(names.contains(other), "{other}");
            }
        }
    }

    #[test]
    fn a_name_with_which_no_case_begins_is_refused_with_those_that_there_are() {
        assert!(check_prefix("fork_").is_ok());
        let error = check_prefix("frok_exit").unwrap_err().to_string();
        assert!(error.contains("frok_exit") && error.contains("fork_exit"));
    }

    #[test]
    fn every_case_of_the_yardstick_is_listed() {
        let source = include_str!("../../../bench/procbench.c");
        let table = source.split("} cases[] = {").nth(1).unwrap();
        let table = table.split("};").next().unwrap();
        let mut count = 0;
        for name in table.split('"').skip(1).step_by(2) {
            assert!(find(name).is_some(), "{name}");
            count += 1;
        }
        assert!(count > 20);
    }
}

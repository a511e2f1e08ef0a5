//! What the shell prints about capabilities, memory and itself.

use core::fmt::{self, Display, Write};

use libipc::abi::{Access, Kind, PAGE_BYTES, SlotFlags};
use libipc::protocol::memory::QuotaLine;

use crate::table::{Table, number, text};

/// The head and the rows of `caps PID`.
pub const CAPABILITIES: Table<5> = Table([
    text("TABLE", 7),
    number("SLOT", 5),
    text("KIND", 14),
    text("FLAGS", 15),
    text("ACCESS", 0),
]);

/// Writes one row of `caps PID`. The numbers are those of a process server's `CapabilityLine`.
pub fn capability_row(
    out: &mut impl Write,
    table: u8,
    index: u32,
    kind: u8,
    flags: u8,
    access: u32,
) -> fmt::Result {
    let table = ["files", "private", "fs"]
        .get(table as usize)
        .copied()
        .unwrap_or("?");
    CAPABILITIES.row(
        out,
        [
            &table,
            &index,
            &kind_name(kind),
            &Flags(SlotFlags::from_bits_retain(flags)),
            &Rights { kind, access },
        ],
    )
}

/// An object kind in words.
pub fn kind_name(kind: u8) -> &'static str {
    match Kind::from_code(kind) {
        Some(Kind::Pool) => "memory pool",
        Some(Kind::Space) => "address space",
        Some(Kind::Window) => "window",
        Some(Kind::Table) => "table",
        Some(Kind::Thread) => "thread",
        Some(Kind::Receiver) => "receiver",
        Some(Kind::Sender) => "sender",
        Some(Kind::Reply) => "reply",
        Some(Kind::Notification) => "notification",
        Some(Kind::Irq) => "interrupt",
        Some(Kind::IoPorts) => "I/O ports",
        Some(Kind::PhysicalRange) => "physical range",
        Some(Kind::System) => "system",
        None => "?",
    }
}

struct Flags(SlotFlags);

impl Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (SlotFlags::CLOSE_ON_EXEC, "cloexec"),
            (SlotFlags::INHERIT, "inherit"),
            (SlotFlags::PROTECT, "protect"),
        ];
        list(
            f,
            names
                .iter()
                .filter(|(flag, _)| self.0.contains(*flag))
                .map(|(_, name)| *name),
        )
    }
}

/// The rights in an access mask, by the kind of object. A sender's mask belongs to its server and is
/// shown as a number.
struct Rights {
    kind: u8,
    access: u32,
}

impl Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: &[(Access, &str)] = match Kind::from_code(self.kind) {
            Some(Kind::Pool) => &[
                (Access::CHARGE, "charge"),
                (Access::MANAGE_POOL, "manage"),
                (Access::STATUS, "status"),
                (Access::LABEL, "label"),
            ],
            Some(Kind::Space) => &[
                (Access::MAP, "map"),
                (Access::SNAPSHOT, "snapshot"),
                (Access::READ_MEMORY, "read"),
                (Access::WRITE_MEMORY, "write"),
                (Access::MAKE_WINDOW, "window"),
                (Access::MAKE_THREAD, "thread"),
            ],
            Some(Kind::Window) => &[
                (Access::READ, "read"),
                (Access::WRITE, "write"),
                (Access::EXECUTE, "execute"),
            ],
            Some(Kind::Table) => &[
                (Access::TAKE, "take"),
                (Access::PUT, "put"),
                (Access::USE_TABLE, "use"),
            ],
            Some(Kind::Thread) => &[
                (Access::CONTROL, "control"),
                (Access::REGISTERS, "registers"),
                (Access::OBSERVE, "observe"),
                (Access::LABEL, "label"),
            ],
            Some(Kind::Reply) => &[(Access::KEEP, "keep")],
            Some(Kind::Notification) => &[(Access::SIGNAL, "signal"), (Access::WAIT, "wait")],
            Some(Kind::Receiver | Kind::Irq | Kind::IoPorts | Kind::PhysicalRange) => {
                &[(Access::USE, "use")]
            }
            Some(Kind::System) => &[
                (Access::POWER, "power"),
                (Access::LOG, "log"),
                (Access::MAKE_IRQ, "irq"),
            ],
            Some(Kind::Sender) | None => {
                return write!(f, "{:#x}", self.access);
            }
        };
        let access = Access::from_bits_retain(self.access);
        list(
            f,
            names
                .iter()
                .filter(|(right, _)| access.contains(*right))
                .map(|(_, name)| *name),
        )
    }
}

/// Words with blanks between them.
fn list<'n>(f: &mut fmt::Formatter<'_>, names: impl Iterator<Item = &'n str>) -> fmt::Result {
    for (place, name) in names.enumerate() {
        if place > 0 {
            f.write_char(' ')?;
        }
        f.write_str(name)?;
    }
    Ok(())
}

/// The columns of `mem`.
const POOLS: Table<4> = Table([
    text("POOL", 20),
    number("USED", 10),
    number("LIMIT", 10),
    text("", 27),
]);

/// Writes what `mem` says: the pools as a tree, parts under the wholes that contain them.
pub fn write_pools(pools: &[QuotaLine], out: &mut impl Write) -> fmt::Result {
    POOLS.head(out)?;
    for pool in pools {
        if pools.iter().all(|whole| !is_part(pool, whole)) {
            write_pool(pools, pool, 0, out)?;
        }
    }
    Ok(())
}

fn is_part(pool: &QuotaLine, whole: &QuotaLine) -> bool {
    pool.parent == whole.number && pool.number != whole.number
}

fn write_pool(
    pools: &[QuotaLine],
    pool: &QuotaLine,
    depth: usize,
    out: &mut impl Write,
) -> fmt::Result {
    let name = Name {
        depth,
        name: &pool.name,
    };
    let (used, limit) = (pool.quota.used, pool.quota.limit);
    POOLS.row(
        out,
        [&name, &Pages(used), &Pages(limit), &Bar { used, limit }],
    )?;
    // A part has a higher number than its whole, so this comes to an end.
    for part in pools {
        if is_part(part, pool) && part.number > pool.number {
            write_pool(pools, part, depth + 1, out)?;
        }
    }
    Ok(())
}

/// A name in a field of fixed size, moved to the right by its depth in the tree.
struct Name<'n> {
    depth: usize,
    name: &'n [u8],
}

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:1$}", "", self.depth * 2)?;
        for chunk in self.name.utf8_chunks() {
            f.write_str(chunk.valid().trim_end_matches('\0'))?;
        }
        Ok(())
    }
}

/// A number of page frames as a person reads it.
pub struct Pages(pub u64);

impl Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = self.0.saturating_mul(PAGE_BYTES / 1024);
        match kib {
            _ if self.0 >= u64::MAX / PAGE_BYTES => f.write_str("no limit"),
            0..=1023 => write!(f, "{kib} KiB"),
            1024..=1_048_575 => write!(f, "{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024),
            _ => write!(f, "{}.{} GiB", kib >> 20, ((kib & 0xf_ffff) * 10) >> 20),
        }
    }
}

/// How full something is.
struct Bar {
    used: u64,
    limit: u64,
}

impl Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CELLS: u128 = 20;
        if self.limit == 0 || self.limit >= u64::MAX / PAGE_BYTES {
            return Ok(());
        }
        let used = self.used.min(self.limit) as u128;
        // A pool that uses anything shows at least one cell.
        let full = (used * CELLS).div_ceil(self.limit as u128);
        f.write_char('[')?;
        for cell in 0..CELLS {
            f.write_char(if cell < full { '#' } else { '.' })?;
        }
        write!(f, "] {:>3}%", used * 100 / self.limit as u128)
    }
}

/// The shell's own commands and what they do.
pub const COMMANDS: &[(&str, &str)] = &[
    (
        "NAME [ARG...]",
        "run a program, from /bin unless the name has a /",
    ),
    ("ps", "the processes as a tree, with their states"),
    ("caps PID", "the capabilities in a process's tables"),
    ("mem", "the memory pools, what they use and may use"),
    ("help", "this list"),
    ("exit [STATUS]", "leave; the first shell's end powers off"),
    (
        "A ; B   A && B   A || B",
        "in a row; B if A succeeded; B if it failed",
    ),
    (
        "'..' \"..\" \\ $? #",
        "quoting, the last exit status, a comment",
    ),
];

/// The keys that the line editor knows.
const KEYS: &[(&str, &str)] = &[
    ("Up, Down", "earlier and later lines"),
    (
        "Left, Right, Ctrl-A, Ctrl-E",
        "move; to the start; to the end",
    ),
    (
        "Ctrl-W, Ctrl-U, Ctrl-K",
        "remove a word, all before, all after",
    ),
    (
        "Ctrl-L, Ctrl-C, Ctrl-D",
        "clear the screen, give the line up, end",
    ),
];

/// Writes what `help` says.
pub fn help(out: &mut impl Write) -> fmt::Result {
    let table = Table([text("", 27), text("", 0)]);
    for (what, does) in COMMANDS {
        table.row(out, [what, does])?;
    }
    out.write_char('\n')?;
    for (keys, do_what) in KEYS {
        table.row(out, [keys, do_what])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use libipc::protocol::memory::Quota;

    #[test]
    fn capabilities_are_listed_with_their_rights_by_name() {
        let mut out = String::new();
        CAPABILITIES.head(&mut out).unwrap();
        capability_row(&mut out, 0, 1, Kind::Sender as u8, 2, 0x3).unwrap();
        capability_row(&mut out, 1, 2, Kind::Pool as u8, 0, 0x5).unwrap();
        capability_row(&mut out, 2, 10, Kind::Window as u8, 5, 0x5).unwrap();
        capability_row(&mut out, 9, 0, 99, 0, 0).unwrap();
        assert_eq!(
            out,
            "TABLE     SLOT  KIND            FLAGS            ACCESS\n\
             files        1  sender          inherit          0x3\n\
             private      2  memory pool                      charge status\n\
             fs          10  window          cloexec protect  read execute\n\
             ?            0  ?                                0x0\n"
        );
    }

    #[test]
    fn memory_is_shown_in_units_that_a_person_reads() {
        let shown = |pages| Pages(pages).to_string();
        assert_eq!(shown(0), "0 KiB");
        assert_eq!(shown(255), "1020 KiB");
        assert_eq!(shown(256), "1.0 MiB");
        assert_eq!(shown(65_536 + 128), "256.5 MiB");
        assert_eq!(shown(1 << 18), "1.0 GiB");
        assert_eq!(shown(u64::MAX), "no limit");
    }

    #[test]
    fn pools_are_shown_with_how_full_they_are_under_what_they_are_part_of() {
        let pool = |number, parent, name: &[u8], used, limit| {
            let mut line = QuotaLine {
                number,
                parent,
                name: [0; 16],
                quota: Quota { used, limit },
            };
            line.name[..name.len()].copy_from_slice(name);
            line
        };
        let pools = [
            pool(0, 0, b"all", 100, 1000),
            pool(1, 0, b"jobs", 1, 100_000),
            pool(3, 0, b"files", 0, 8),
            pool(4, 1, b"first", 3, u64::MAX),
        ];
        let mut out = String::new();
        write_pools(&pools, &mut out).unwrap();
        assert_eq!(
            out,
            "POOL                        USED       LIMIT\n\
             all                      400 KiB     3.9 MiB  [##..................]  10%\n\
             \x20 jobs                     4 KiB   390.6 MiB  [#...................]   0%\n\
             \x20   first                 12 KiB    no limit\n\
             \x20 files                    0 KiB      32 KiB  [....................]   0%\n"
        );
    }

    #[test]
    fn help_lines_fit_a_terminal() {
        let mut out = String::new();
        help(&mut out).unwrap();
        for (command, _) in COMMANDS {
            assert!(out.contains(command));
        }
        assert!(out.lines().all(|line| line.len() < 80), "{out}");
    }
}

//! The capability tree that init prints at boot: which server holds what, with which rights.

use core::fmt::{self, Display, Write};

use libipc::abi::{Access, Kind};

/// A used slot, as `cap_info` and `table_next` describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What the capability stands for; `None` for a kind that we do not know.
    pub kind: Option<Kind>,
    /// Its rights.
    pub access: Access,
}

impl Held {
    /// From the word that the kernel gives.
    pub fn from_info(info: u64) -> Held {
        Held {
            kind: Kind::from_code(info as u8),
            access: Access::from_bits_retain((info >> 32) as u32),
        }
    }
}

/// The names of the rights that this kind of capability has, in the order of the bits. A sender's belong
/// to its server, which has no names for them here.
fn names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pool => &["charge", "manage", "status", "label"],
        Kind::Space => &[
            "map",
            "snapshot",
            "read",
            "write",
            "make-window",
            "make-thread",
        ],
        Kind::Window => &["read", "write", "execute"],
        Kind::Table => &["take", "put", "use"],
        Kind::Thread => &["control", "registers", "observe", "label"],
        Kind::Reply => &["keep"],
        Kind::Notification => &["signal", "wait"],
        Kind::System => &["power", "log", "make-irq"],
        Kind::Receiver | Kind::Irq | Kind::IoPorts | Kind::PhysicalRange => &["use"],
        Kind::Sender => &[],
    }
}

impl Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(kind) = self.kind else {
            return f.write_str("unknown");
        };
        let bits = self.access.bits();
        write!(f, "{kind:?}")?;
        let names = names(kind);
        if names.is_empty() {
            return write!(f, " {bits:#x}");
        }
        let mut between = ' ';
        for (bit, name) in names.iter().enumerate() {
            if bits & 1 << bit != 0 {
                f.write_char(between)?;
                f.write_str(name)?;
                between = ',';
            }
        }
        Ok(())
    }
}

/// The exit status that tells how the first program ended, from its wait status: its own, or 128 and the
/// signal's number, as shells say it.
pub fn final_status(exit_status: Option<u8>, signal: Option<u32>) -> u8 {
    exit_status
        .unwrap_or_else(|| signal.map_or(255, |signal| 128u8.saturating_add(signal.min(127) as u8)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn a_slot_is_told_with_the_names_of_its_rights() {
        let pool = Held::from_info(Kind::Pool as u64 | 5 << 32);
        assert_eq!(format!("{pool}"), "Pool charge,status");
        let sender = Held::from_info(Kind::Sender as u64 | 0x11 << 32);
        assert_eq!(format!("{sender}"), "Sender 0x11");
        let log = Held::from_info(Kind::System as u64 | 0xff00 | 2 << 32);
        assert_eq!(format!("{log}"), "System log");
        assert_eq!(format!("{}", Held::from_info(200)), "unknown");
    }

    #[test]
    fn the_final_status_is_what_a_shell_would_say() {
        assert_eq!(final_status(Some(7), None), 7);
        assert_eq!(final_status(None, Some(11)), 139);
        assert_eq!(final_status(None, None), 255);
    }
}

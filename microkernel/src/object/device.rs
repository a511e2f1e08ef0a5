//! What servers that drive devices hold: interrupt lines, I/O ports, physical ranges.
//!
//! Invariant: a line has at most one [`Irq`]; narrowing a range of ports or memory gives a part of
//! it, never more.

use super::Notification;
use crate::machine::PortWidth;
use crate::memory::{Object, ObjectKind, Ref};

/// An interrupt line.
pub struct Irq {
    /// Its number.
    pub line: u32,
    /// Who is told; a hold.
    pub notification: Option<Ref<Notification>>,
    /// The bits that are set.
    pub bits: u64,
    pub(crate) holds: u32,
    pub(crate) ended: bool,
}

impl Object for Irq {
    const KIND: ObjectKind = ObjectKind::Irq;
}

impl Irq {
    /// The line, with nobody to tell and one hold.
    pub fn new(line: u32) -> Irq {
        Irq {
            line,
            notification: None,
            bits: 0,
            holds: 1,
            ended: false,
        }
    }
}

/// A range of I/O ports.
#[derive(Clone, Copy)]
pub struct IoPorts {
    first: u16,
    /// 1 to 65536.
    count: u32,
    pub(crate) holds: u32,
    pub(crate) ended: bool,
}

impl Object for IoPorts {
    const KIND: ObjectKind = ObjectKind::IoPorts;
}

impl IoPorts {
    /// All ports, with one hold.
    pub fn all() -> IoPorts {
        IoPorts {
            first: 0,
            count: 1 << 16,
            holds: 1,
            ended: false,
        }
    }

    /// The `count` ports from `first`, if they are all in this range. With one hold.
    pub fn narrow(&self, first: u64, count: u64) -> Option<IoPorts> {
        let end = first.checked_add(count)?;
        if count == 0 || first < self.first as u64 || end > self.first as u64 + self.count as u64 {
            return None;
        }
        Some(IoPorts {
            first: first as u16,
            count: count as u32,
            holds: 1,
            ended: false,
        })
    }

    /// The port and width of an access that lies in the range.
    pub fn access(&self, port: u64, width: u64) -> Option<(u16, PortWidth)> {
        let kind = match width {
            1 => PortWidth::Byte,
            2 => PortWidth::Word,
            4 => PortWidth::Double,
            _ => return None,
        };
        self.narrow(port, width)?;
        Some((port as u16, kind))
    }
}

/// A range of physical memory that no pool owns.
#[derive(Clone, Copy)]
pub struct PhysicalRange {
    /// Number of its first frame.
    pub first: u64,
    /// Number of its frames.
    pub pages: u64,
    pub(crate) holds: u32,
    pub(crate) ended: bool,
}

impl Object for PhysicalRange {
    const KIND: ObjectKind = ObjectKind::PhysicalRange;
}

/// One past the highest frame number of a physical address (52 bits: Intel SDM 3A, 4.1.4).
const FRAMES: u64 = 1 << 40;

impl PhysicalRange {
    /// All physical addresses, with one hold. What is pool memory is refused when it is mapped.
    pub fn all() -> PhysicalRange {
        PhysicalRange {
            first: 0,
            pages: FRAMES,
            holds: 1,
            ended: false,
        }
    }

    /// The `pages` frames from number `first`, if they are all in this range. With one hold.
    pub fn narrow(&self, first: u64, pages: u64) -> Option<PhysicalRange> {
        let end = first.checked_add(pages)?;
        if pages == 0 || first < self.first || end > self.first + self.pages {
            return None;
        }
        Some(PhysicalRange {
            first,
            pages,
            holds: 1,
            ended: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_ports_gives_a_part_and_never_more() {
        let com1 = IoPorts::all().narrow(0x3f8, 8).unwrap();
        assert!(com1.narrow(0x3f8, 9).is_none());
        assert!(com1.narrow(0x3f7, 2).is_none());
        assert!(com1.narrow(u64::MAX, 2).is_none());
        assert!(com1.narrow(0x3fa, 0).is_none());
        assert_eq!(com1.access(0x3ff, 1), Some((0x3ff, PortWidth::Byte)));
        assert_eq!(com1.access(0x3ff, 2), None);
        assert_eq!(com1.access(0x3f8, 3), None);
        assert!(IoPorts::all().access(0xffff, 1).is_some());
    }

    #[test]
    fn narrowing_a_physical_range_gives_a_part_and_never_more() {
        let device = PhysicalRange::all().narrow(0xfed00, 2).unwrap();
        assert_eq!(device.narrow(0xfed01, 1).unwrap().first, 0xfed01);
        assert!(device.narrow(0xfed01, 2).is_none());
        assert!(device.narrow(u64::MAX, 2).is_none());
    }
}

//! Table entries: what an address stands for, and what the hardware makes of it.
//!
//! The kind and the *logical* permission of an entry live in software bits; the
//! hardware's present, write and no-execute bits are derived from them here and
//! nowhere else. Hardware write may be missing where logical write is granted
//! (the entry is *masked*: what it refers to may have other owners), never the
//! other way round.
//!
//! Accessed is always set, in leaves dirty too, so that the hardware never
//! writes a table and a table can be copied while other CPUs walk it. Upper
//! entries permit everything but what masking takes away: permission is decided
//! in the leaves.

use super::Frame;
use super::store::Ref;
use super::window::Mapping;
use libipc::abi::Protection;

// Intel SDM 3A 4.5, tables 4-15 to 4-20.
const PRESENT: u64 = 1 << 0;
const HARDWARE_WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const NO_EXECUTE: u64 = 1 << 63;

// Bits that the hardware leaves to software.
const PROTECTION_SHIFT: u32 = 9;
const PROTECTION: u64 = 0b111 << PROTECTION_SHIFT;
const KIND_SHIFT: u32 = 52;
const KIND: u64 = 0b111 << KIND_SHIFT;
/// The mapping may be given logical write.
const MAY_WRITE: u64 = 1 << 55;
/// The mapping may be given logical execute.
const MAY_EXECUTE: u64 = 1 << 56;
/// A private page that became shared because somebody mapped a window on it.
const EXPORTED: u64 = 1 << 57;

/// Where a link has the low bits of its mapping's address.
const LINK_OFFSET: u64 = 0x7e;

/// Set in the kinds that refer to something: all but absent and zero.
const REFERS: u64 = 0b110 << KIND_SHIFT;
/// Set in the kinds that count as a reference to what they refer to.
const COUNTS: u64 = 0b100 << KIND_SHIFT;

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    /// Nothing is mapped.
    Absent = 0,
    /// Zeros, given a frame on first touch. At any level.
    Zero = 1,
    /// A page that is not pool memory; never counted.
    Pinned = 2,
    /// A page of a window, settled on first touch. At any level.
    Link = 4,
    /// The next lower table.
    Table = 5,
    /// A page of this space alone; other owners' copies part on write.
    Private = 6,
    /// A page that others map too; a write is seen by all.
    Shared = 7,
}

/// How a device's memory is cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caching {
    /// As RAM.
    WriteBack,
    /// Every access reaches the device.
    Uncached,
}

/// One entry of a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u64);

impl Entry {
    pub(super) const ABSENT: Entry = Entry(0);

    #[inline]
    pub(super) const fn from_bits(bits: u64) -> Entry {
        Entry(bits)
    }

    #[inline]
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    const fn permissions(protection: Protection, limit: Protection) -> u64 {
        let mut bits = 0;
        if protection.contains(Protection::READ) {
            bits |= (protection.bits() as u64) << PROTECTION_SHIFT;
        }
        if limit.contains(Protection::WRITE) {
            bits |= MAY_WRITE;
        }
        if limit.contains(Protection::EXECUTE) {
            bits |= MAY_EXECUTE;
        }
        bits
    }

    const fn of_kind(kind: Kind) -> u64 {
        (kind as u64) << KIND_SHIFT
    }

    /// Zeros that may be given any permission.
    pub(super) const fn zero(protection: Protection) -> Entry {
        Entry(Entry::of_kind(Kind::Zero) | Entry::permissions(protection, Protection::all()))
    }

    /// Zeros with the permissions of `like`.
    pub(super) const fn zero_like(like: Entry) -> Entry {
        Entry(Entry::of_kind(Kind::Zero) | like.0 & (PROTECTION | MAY_WRITE | MAY_EXECUTE))
    }

    /// Pages of a window.
    pub(super) fn link(mapping: Ref<Mapping>, protection: Protection, limit: Protection) -> Entry {
        // Mappings are 64 bytes apart: bits 6 to 11 of the address move to 1 to
        // 6, which an entry that is not present leaves to us.
        let address = mapping.to_bits();
        debug_assert!(address.is_multiple_of(64) && address & !(ADDRESS | 0xfc0) == 0);
        Entry(
            Entry::of_kind(Kind::Link)
                | Entry::permissions(protection, limit)
                | address & ADDRESS
                | (address & 0xfc0) >> 5 & LINK_OFFSET,
        )
    }

    /// A lower table; `writable` if this entry is the only one that refers to it.
    #[inline]
    pub(super) const fn table(frame: Frame, writable: bool) -> Entry {
        let write = if writable { HARDWARE_WRITE } else { 0 };
        Entry(Entry::of_kind(Kind::Table) | frame.address() | PRESENT | USER | ACCESSED | write)
    }

    /// A page of the kind `kind` with the permissions of `like`, masked.
    #[inline(always)]
    pub(super) const fn page(kind: Kind, frame: Frame, like: Entry) -> Entry {
        let software = like.0 & (PROTECTION | MAY_WRITE | MAY_EXECUTE);
        let caching = if matches!(kind, Kind::Pinned) {
            like.0 & (WRITE_THROUGH | CACHE_DISABLE)
        } else {
            0
        };
        Entry(Entry::of_kind(kind) | software | caching | frame.address()).derived()
    }

    /// A page that is not pool memory.
    pub(super) const fn pinned(
        frame: Frame,
        protection: Protection,
        limit: Protection,
        caching: Caching,
    ) -> Entry {
        let caching = match caching {
            Caching::WriteBack => 0,
            Caching::Uncached => WRITE_THROUGH | CACHE_DISABLE,
        };
        Entry(
            Entry::of_kind(Kind::Pinned)
                | Entry::permissions(protection, limit)
                | caching
                | frame.address(),
        )
        .derived()
    }

    /// A page entry with the hardware bits that its software bits call for;
    /// private pages stay masked.
    #[inline(always)]
    const fn derived(self) -> Entry {
        let mut bits = self.0 & !(PRESENT | HARDWARE_WRITE | USER | ACCESSED | DIRTY | NO_EXECUTE);
        let protection = self.protection();
        if protection.contains(Protection::READ) {
            bits |= PRESENT | USER | ACCESSED | DIRTY;
            if protection.contains(Protection::WRITE) && !matches!(self.kind(), Kind::Private) {
                bits |= HARDWARE_WRITE;
            }
            if !protection.contains(Protection::EXECUTE) {
                bits |= NO_EXECUTE;
            }
        }
        Entry(bits)
    }

    #[inline]
    pub(super) const fn kind(self) -> Kind {
        match self.0 >> KIND_SHIFT & 7 {
            0 => Kind::Absent,
            1 => Kind::Zero,
            2 | 3 => Kind::Pinned,
            4 => Kind::Link,
            5 => Kind::Table,
            6 => Kind::Private,
            _ => Kind::Shared,
        }
    }

    #[inline]
    pub(super) const fn is_absent(self) -> bool {
        self.0 == 0
    }

    /// Whether it is zeros that permit this.
    #[inline]
    pub(super) const fn is_zero(self, needed: Protection) -> bool {
        self.is_kind_that_permits(Kind::Zero, needed)
    }

    /// Whether it is a private page that permits this.
    #[inline]
    pub(super) const fn is_private(self, needed: Protection) -> bool {
        self.is_kind_that_permits(Kind::Private, needed)
    }

    /// Whether it is a link that permits this.
    #[inline]
    pub(super) const fn is_permitting_link(self, needed: Protection) -> bool {
        self.is_kind_that_permits(Kind::Link, needed)
    }

    #[inline(always)]
    const fn is_kind_that_permits(self, kind: Kind, needed: Protection) -> bool {
        let needed = (needed.bits() as u64) << PROTECTION_SHIFT;
        self.0 & (KIND | needed) == Entry::of_kind(kind) | needed
    }

    #[inline]
    pub(super) const fn is_table(self) -> bool {
        self.0 & KIND == Entry::of_kind(Kind::Table)
    }

    #[inline]
    pub(super) const fn is_link(self) -> bool {
        self.0 & KIND == Entry::of_kind(Kind::Link)
    }

    /// Whether it counts as a reference: it is a link, a table, or a page that may have other
    /// owners.
    #[inline(always)]
    pub(super) const fn counts(self) -> bool {
        self.0 & COUNTS != 0
    }

    /// Whether any of several entries, or-ed together, refers to something.
    #[inline]
    pub(super) const fn refers(bits: u64) -> bool {
        bits & REFERS != 0
    }

    /// Whether the hardware may have remembered the entry.
    #[inline]
    pub(super) const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    #[inline]
    pub(super) const fn frame(self) -> Frame {
        Frame::containing(self.0 & ADDRESS)
    }

    /// The mapping that a link is of.
    pub(super) fn mapping(self) -> Ref<Mapping> {
        debug_assert!(self.kind() == Kind::Link);
        Ref::from_bits(self.0 & ADDRESS | (self.0 & LINK_OFFSET) << 5)
            .expect("a link has a mapping")
    }

    /// What the mapping permits.
    #[inline(always)]
    pub(super) const fn protection(self) -> Protection {
        Protection::from_bits_truncate((self.0 >> PROTECTION_SHIFT) as u8 & 7)
    }

    /// What the mapping may at most permit.
    pub(super) const fn limit(self) -> Protection {
        let mut limit = Protection::READ;
        if self.0 & MAY_WRITE != 0 {
            limit = limit.union(Protection::WRITE);
        }
        if self.0 & MAY_EXECUTE != 0 {
            limit = limit.union(Protection::EXECUTE);
        }
        limit
    }

    /// The same with what `limit` does not have taken away, permission included.
    pub(super) const fn limited(self, limit: Protection) -> Entry {
        if limit.contains(self.limit()) {
            return self;
        }
        let mut bits = self.0 & !(MAY_WRITE | MAY_EXECUTE | PROTECTION);
        let both = self.limit().intersection(limit);
        bits |= Entry::permissions(self.protection().intersection(both), both);
        let entry = Entry(bits);
        match entry.kind() {
            Kind::Private | Kind::Shared | Kind::Pinned => entry.derived(),
            _ => entry,
        }
    }

    /// The same with other permissions; a private page comes out masked.
    pub(super) const fn with_protection(self, protection: Protection) -> Entry {
        let permissions = Entry::permissions(protection, Protection::empty());
        let entry = Entry(self.0 & !PROTECTION | permissions);
        match entry.kind() {
            Kind::Private | Kind::Shared | Kind::Pinned => entry.derived(),
            _ => entry,
        }
    }

    #[inline]
    pub(super) const fn is_writable(self) -> bool {
        self.0 & HARDWARE_WRITE != 0
    }

    /// Whether instructions may be fetched, as far as this entry goes.
    #[cfg(any(test, feature = "fake"))]
    pub(super) const fn is_executable(self) -> bool {
        self.0 & NO_EXECUTE == 0
    }

    /// Whether the hardware has nothing to write into a present entry, and lets
    /// user code through it.
    #[cfg(any(test, feature = "fake"))]
    pub(super) const fn is_quiet(self, leaf: bool) -> bool {
        self.0 & (USER | ACCESSED) == USER | ACCESSED && (!leaf || self.0 & DIRTY != 0)
    }

    /// Whether the hardware may do through this entry what it may not through
    /// `new`.
    pub(super) const fn permits_more_than(self, new: Entry) -> bool {
        self.is_present()
            && (!new.is_present()
                || self.is_writable() && !new.is_writable()
                || self.0 & NO_EXECUTE == 0 && new.0 & NO_EXECUTE != 0)
    }

    /// Hardware write taken away.
    #[inline]
    pub(super) const fn masked(self) -> Entry {
        Entry(self.0 & !HARDWARE_WRITE)
    }

    /// Hardware write given as far as logical write goes: this entry is the
    /// only owner.
    #[inline(always)]
    pub(super) const fn unmasked(self) -> Entry {
        if self.is_table() || self.0 & (0b10 << PROTECTION_SHIFT) != 0 {
            Entry(self.0 | HARDWARE_WRITE)
        } else {
            self
        }
    }

    /// How a pinned page is cached.
    pub(super) const fn caching(self) -> Caching {
        if self.0 & CACHE_DISABLE != 0 {
            Caching::Uncached
        } else {
            Caching::WriteBack
        }
    }

    pub(super) const fn is_exported(self) -> bool {
        self.0 & EXPORTED != 0
    }

    pub(super) const fn exported(self) -> Entry {
        Entry(self.0 | EXPORTED)
    }
}

impl core::fmt::Debug for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let kind = self.kind();
        write!(f, "{kind:?}({:#x} {:?})", self.0, self.protection())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_WRITE: Protection = Protection::READ.union(Protection::WRITE);
    const FRAME: Frame = Frame::from_number(0x1234);

    #[test]
    fn a_private_page_is_masked_until_it_is_known_to_have_one_owner() {
        let entry = Entry::page(Kind::Private, FRAME, Entry::zero(READ_WRITE));
        assert!(!entry.is_writable() && entry.is_present());
        assert!(entry.unmasked().is_writable());
        assert_eq!(entry.unmasked().masked(), entry);
        let read_only = Entry::page(Kind::Private, FRAME, Entry::zero(Protection::READ));
        assert!(!read_only.unmasked().is_writable());
    }

    #[test]
    fn a_shared_or_pinned_page_is_never_masked() {
        for kind in [Kind::Shared, Kind::Pinned] {
            assert!(Entry::page(kind, FRAME, Entry::zero(READ_WRITE)).is_writable());
        }
    }

    #[test]
    fn a_page_without_access_keeps_its_frame_and_is_not_present() {
        let entry = Entry::page(Kind::Private, FRAME, Entry::zero(READ_WRITE));
        let hidden = entry.with_protection(Protection::empty());
        assert!(!hidden.is_present() && !hidden.is_writable());
        assert_eq!((hidden.kind(), hidden.frame()), (Kind::Private, FRAME));
        assert_eq!(hidden.with_protection(READ_WRITE), entry);
    }

    #[test]
    fn data_is_not_executable_and_code_is() {
        let data = Entry::page(Kind::Private, FRAME, Entry::zero(READ_WRITE));
        assert!(data.bits() & NO_EXECUTE != 0);
        let code = data.with_protection(Protection::READ.union(Protection::EXECUTE));
        assert!(code.bits() & NO_EXECUTE == 0);
    }

    #[test]
    fn permission_without_read_permits_nothing() {
        assert_eq!(
            Entry::zero(Protection::WRITE).protection(),
            Protection::empty()
        );
    }

    #[test]
    fn a_link_names_its_mapping_wherever_that_lies() {
        for bits in [0x40, 0xfc0, 0x1000, 0x000f_ffff_ffff_ffc0] {
            let mapping = Ref::from_bits(bits).unwrap();
            let link = Entry::link(mapping, Protection::READ, READ_WRITE);
            assert_eq!(link.mapping(), mapping);
            assert!(!link.is_present());
            assert_eq!((link.kind(), link.limit()), (Kind::Link, READ_WRITE));
        }
    }

    #[test]
    fn a_limit_takes_permission_away_for_good() {
        let entry = Entry::page(Kind::Shared, FRAME, Entry::zero(READ_WRITE));
        let limited = entry.limited(Protection::READ);
        assert_eq!(limited.limit(), Protection::READ);
        assert!(!limited.is_writable() && limited.is_present());
    }
}

//! What the machine looked like when the kernel was started.
//!
//! Two doors lead into the kernel (PVH and the Limine protocol) and each fills
//! the same [`BootInfo`], so nothing after it knows who started us.
//!
//! Invariant of [`MemoryMap`]: its regions are sorted, never overlap, never
//! touch a region of the same kind, and begin and end on page boundaries.

use heapless::Vec;

/// Size of a page and of a page frame in bytes.
const PAGE: u64 = 4096;

/// The longest command line that is kept, in bytes.
pub const COMMAND_LINE_BYTES: usize = libipc::command_line::MOST_BYTES;

/// How many regions a memory map may have. Firmware reports some dozens.
pub const REGIONS: usize = 256;

/// What a range of physical memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Free RAM.
    Usable,
    /// RAM with tables of the boot loader; free as soon as they are copied.
    Loader,
    /// RAM with ACPI tables.
    Acpi,
    /// The kernel's image, or memory it took before there were pools.
    Kernel,
    /// The boot archive.
    Archive,
    /// Not RAM, or RAM that belongs to the firmware.
    Reserved,
}

impl RegionKind {
    /// Is there RAM that the kernel may look at?
    pub fn is_ram(self) -> bool {
        self != RegionKind::Reserved
    }
}

/// A range of physical memory, `start <= address < end`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// What it is used for.
    pub kind: RegionKind,
}

impl Region {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// There are more regions than a [`MemoryMap`] can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRegions;

/// All physical memory that somebody described, sorted by address.
#[derive(Clone, Debug, Default)]
pub struct MemoryMap {
    regions: Vec<Region, REGIONS>,
}

impl MemoryMap {
    /// A map that describes nothing.
    pub const fn new() -> Self {
        Self {
            regions: Vec::new(),
        }
    }

    /// The regions, sorted by address, without overlap.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Adds what the firmware says. Usable memory shrinks to whole pages, all
    /// other kinds grow to whole pages. Where two entries overlap, the later
    /// one wins unless it is the more generous one: memory that anybody calls
    /// used stays used.
    pub fn add(&mut self, start: u64, bytes: u64, kind: RegionKind) -> Result<(), TooManyRegions> {
        let end = start.saturating_add(bytes);
        let (start, end) = match kind {
            RegionKind::Usable => (start.next_multiple_of(PAGE), end & !(PAGE - 1)),
            _ => (
                start & !(PAGE - 1),
                end.checked_next_multiple_of(PAGE).unwrap_or(!(PAGE - 1)),
            ),
        };
        if start >= end {
            return Ok(());
        }
        if kind != RegionKind::Usable {
            return self.paint(start, end, kind);
        }
        // Fill only the gaps between what is known already.
        let mut at = start;
        while at < end {
            let next = self.regions.iter().find(|region| region.end > at);
            let (gap_end, resume) = match next {
                Some(region) if region.start < end => (region.start.max(at), region.end),
                _ => (end, end),
            };
            if at < gap_end {
                self.paint(at, gap_end, kind)?;
            }
            at = resume;
        }
        Ok(())
    }

    /// Makes `start..end` a region of this kind, whatever was there before.
    fn paint(&mut self, start: u64, end: u64, kind: RegionKind) -> Result<(), TooManyRegions> {
        let mut merged = Region { start, end, kind };
        let mut at = 0;
        while at < self.regions.len() && self.regions[at].end < start {
            at += 1;
        }
        while at < self.regions.len() && self.regions[at].start <= end {
            let old = self.regions.remove(at);
            if old.kind == kind {
                merged.start = merged.start.min(old.start);
                merged.end = merged.end.max(old.end);
                continue;
            }
            if old.start < start {
                self.insert(
                    at,
                    Region {
                        end: old.end.min(start),
                        ..old
                    },
                )?;
                at += 1;
            }
            if old.end > end {
                self.insert(
                    at,
                    Region {
                        start: old.start.max(end),
                        ..old
                    },
                )?;
                // Only a region behind this one could still touch `end`, and
                // regions do not overlap.
                break;
            }
        }
        self.insert(at, merged)?;
        self.join_neighbours(at);
        Ok(())
    }

    /// Joins the region at `at` with neighbours of its kind that it touches.
    fn join_neighbours(&mut self, at: usize) {
        for left in [at, at.saturating_sub(1)] {
            if let (Some(first), Some(second)) =
                (self.regions.get(left), self.regions.get(left + 1))
                && first.kind == second.kind
                && first.end == second.start
            {
                self.regions[left].end = second.end;
                self.regions.remove(left + 1);
            }
        }
    }

    fn insert(&mut self, at: usize, region: Region) -> Result<(), TooManyRegions> {
        self.regions.insert(at, region).map_err(|_| TooManyRegions)
    }

    /// Takes memory for the kernel before there are pools: `bytes` of usable
    /// memory as high as possible below `limit`, page-aligned, marked
    /// [`RegionKind::Kernel`]. `None` if no region is that large.
    pub fn take(&mut self, bytes: u64, limit: u64) -> Option<u64> {
        let bytes = bytes.next_multiple_of(PAGE);
        let start = self
            .regions
            .iter()
            .rev()
            .filter(|region| region.kind == RegionKind::Usable)
            // Frame 0 stays out of it: address zero means "none" to many.
            .filter_map(|region| {
                region
                    .end
                    .min(limit)
                    .checked_sub(bytes)
                    .filter(|&start| start >= region.start.max(PAGE))
            })
            .next()?;
        self.paint(start, start + bytes, RegionKind::Kernel).ok()?;
        Some(start)
    }

    /// Frees what the boot loader needed. Everything it told us must have been copied.
    pub fn reclaim_loader(&mut self) {
        while let Some(region) = self
            .regions
            .iter()
            .find(|region| region.kind == RegionKind::Loader)
            .copied()
        {
            // Cannot fail: painting a whole region never makes more of them.
            let _ = self.paint(region.start, region.end, RegionKind::Usable);
        }
    }

    /// Free RAM in bytes.
    pub fn usable_bytes(&self) -> u64 {
        self.regions
            .iter()
            .filter(|region| region.kind == RegionKind::Usable)
            .map(Region::bytes)
            .sum()
    }

    /// One past the highest byte of RAM.
    pub fn ram_end(&self) -> u64 {
        self.regions
            .iter()
            .rev()
            .find(|region| region.kind.is_ram())
            .map_or(0, |region| region.end)
    }
}

/// Who started the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The PVH entry: QEMU `-kernel` and other machine monitors.
    Pvh,
    /// A boot loader that speaks the Limine protocol.
    Limine,
}

/// A range of physical memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysicalSpan {
    /// The first byte.
    pub start: u64,
    /// The length in bytes, not rounded to pages.
    pub bytes: u64,
}

/// A linear picture memory that the boot loader set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// Physical address of the first pixel.
    pub start: u64,
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bytes from one line to the next.
    pub pitch_bytes: u32,
    /// Bits of a pixel.
    pub bits_per_pixel: u16,
    /// Position of the lowest bit of red, green and blue in a pixel.
    pub shifts: [u8; 3],
    /// Number of bits of red, green and blue in a pixel.
    pub sizes: [u8; 3],
}

/// What a server that drives the machine wants to know of its firmware tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Number of CPUs.
    pub cpus: u32,
    /// Physical address of the DSDT, 0 if there is none.
    pub dsdt: u64,
    /// I/O ports of the two PM1 control blocks, 0 where there is none.
    pub pm1_control: [u16; 2],
}

/// What either door tells the kernel.
#[derive(Clone, Debug)]
pub struct BootInfo {
    /// Who started the kernel.
    pub door: Door,
    /// Physical memory.
    pub memory: MemoryMap,
    /// The page-aligned physical range of the kernel's image.
    pub kernel: PhysicalSpan,
    /// The boot archive (cpio), if one was loaded.
    pub archive: Option<PhysicalSpan>,
    /// The kernel's command line, cut at [`COMMAND_LINE_BYTES`].
    pub command_line: Vec<u8, COMMAND_LINE_BYTES>,
    /// Physical address of the ACPI root pointer.
    pub rsdp: Option<u64>,
    /// The screen, if the loader set one up.
    pub framebuffer: Option<Framebuffer>,
}

impl BootInfo {
    /// The words of the command line that are the kernel's and init's: all
    /// before a lone `--`. Words that are not UTF-8 are left out.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.command_line
            .split(|byte| byte.is_ascii_whitespace())
            .filter(|word| !word.is_empty())
            .take_while(|word| *word != b"--")
            .filter_map(|word| core::str::from_utf8(word).ok())
    }

    /// The value of the first word `key=value`.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.words()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Keeps as much of the command line as there is room for.
    pub fn set_command_line(&mut self, line: &[u8]) {
        self.command_line.clear();
        let kept = &line[..line.len().min(COMMAND_LINE_BYTES)];
        self.command_line
            .extend_from_slice(kept)
            .expect("cut to the capacity");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RegionKind::*;

    fn map(entries: &[(u64, u64, RegionKind)]) -> MemoryMap {
        let mut map = MemoryMap::new();
        for &(start, end, kind) in entries {
            map.add(start, end - start, kind).unwrap();
        }
        map
    }

    fn list(map: &MemoryMap) -> std::vec::Vec<(u64, u64, RegionKind)> {
        map.regions()
            .iter()
            .map(|region| (region.start, region.end, region.kind))
            .collect()
    }

    #[test]
    fn usable_memory_shrinks_to_whole_pages_and_reserved_memory_grows() {
        let map = map(&[(0x800, 0x5800, Usable), (0x3800, 0x3900, Reserved)]);
        assert_eq!(
            list(&map),
            [
                (0x1000, 0x3000, Usable),
                (0x3000, 0x4000, Reserved),
                (0x4000, 0x5000, Usable)
            ]
        );
    }

    #[test]
    fn memory_that_anybody_calls_used_stays_used_in_any_order() {
        let map = map(&[
            (0x3000, 0x4000, Reserved),
            (0x1000, 0x8000, Usable),
            (0x7000, 0xa000, Acpi),
        ]);
        let expected = [
            (0x1000, 0x3000, Usable),
            (0x3000, 0x4000, Reserved),
            (0x4000, 0x7000, Usable),
            (0x7000, 0xa000, Acpi),
        ];
        assert_eq!(list(&map), expected);
    }

    #[test]
    fn neighbours_of_one_kind_become_one_region() {
        let map = map(&[
            (0x1000, 0x2000, Usable),
            (0x3000, 0x4000, Usable),
            (0x2000, 0x3000, Usable),
        ]);
        assert_eq!(list(&map), [(0x1000, 0x4000, Usable)]);
    }

    #[test]
    fn painting_over_several_regions_keeps_the_rest_of_them() {
        let map = map(&[
            (0x1000, 0x4000, Usable),
            (0x4000, 0x6000, Acpi),
            (0x8000, 0xa000, Usable),
            (0x3000, 0x9000, Archive),
        ]);
        assert_eq!(
            list(&map),
            [
                (0x1000, 0x3000, Usable),
                (0x3000, 0x9000, Archive),
                (0x9000, 0xa000, Usable)
            ]
        );
    }

    #[test]
    fn taking_memory_uses_the_highest_that_fits_below_the_limit() {
        let mut map = map(&[(0x0, 0x4000, Usable), (0x10000, 0x20000, Usable)]);
        assert_eq!(map.take(0x1800, 0x18000), Some(0x16000));
        assert_eq!(map.take(0x3000, 0x10000), Some(0x1000));
        assert_eq!(
            map.take(0x1000, 0x10000),
            None,
            "frame 0 is never given away"
        );
        assert_eq!(map.take(0x100000, u64::MAX), None);
        assert_eq!(map.usable_bytes(), 0x1000 + 0x6000 + 0x8000);
    }

    #[test]
    fn loader_memory_is_free_after_reclaiming() {
        let mut map = map(&[
            (0x1000, 0x4000, Usable),
            (0x4000, 0x6000, Loader),
            (0x6000, 0x7000, Usable),
        ]);
        map.reclaim_loader();
        assert_eq!(list(&map), [(0x1000, 0x7000, Usable)]);
        assert_eq!(map.ram_end(), 0x7000);
    }

    #[test]
    fn options_end_at_the_lone_dashes() {
        let mut info = BootInfo {
            door: Door::Pvh,
            memory: MemoryMap::new(),
            kernel: PhysicalSpan { start: 0, bytes: 0 },
            archive: None,
            command_line: Vec::new(),
            rsdp: None,
            framebuffer: None,
        };
        info.set_command_line(b"console=exec  init=/bin/cat -- test=panic");
        assert_eq!(info.option("init"), Some("/bin/cat"));
        assert_eq!(info.option("console"), Some("exec"));
        assert_eq!(info.option("test"), None);
        assert_eq!(info.option("con"), None);
    }
}

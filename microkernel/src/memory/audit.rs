//! Counting everything anew, for tests: after any operation the counts, charges,
//! line words and hardware bits must be what the trees say.

use super::entry::Kind;
use super::frame::{FrameKind, table};
use super::store::Ref;
use super::tree::{ENTRIES, ROOT_LEVEL};
use super::{Frame, Mapping, Memory, ObjectKind, Pool, Space, Window};
use crate::machine::{MAX_CPUS, Machine};
use core::sync::atomic::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// What the trees refer to.
#[derive(Default)]
struct Seen {
    tables: BTreeSet<Frame>,
    frames: BTreeMap<Frame, u32>,
    /// Private entries with hardware write.
    writers: BTreeMap<Frame, u32>,
    mappings: BTreeMap<Ref<Mapping>, u64>,
}

impl<M: Machine> Memory<M> {
    /// Compares everything that is counted with what is there.
    ///
    /// # Panics
    ///
    /// If anything differs.
    pub fn audit(&self) {
        assert!(self.pending.is_empty(), "frames wait for a flush");
        let seen = self.audit_trees();
        self.audit_counts(&seen);
        self.audit_windows(&seen);
        self.audit_pools();
        self.audit_loaded();
        let listed = self.audit_free_list();
        assert_eq!(listed, self.statistics.frames_free, "free frames");
    }

    /// Looks at every word of the frames that are said to hold zeros.
    ///
    /// # Panics
    ///
    /// If one does not.
    pub fn audit_clean_frames(&self) {
        for frame in self.clean.iter(self.records) {
            let words = table(&self.machine, frame);
            let zero = words.iter().all(|word| word.load(Ordering::Relaxed) == 0);
            assert!(zero, "{frame:?} is on the clean list");
        }
    }

    fn frames(&self) -> impl Iterator<Item = Frame> {
        (0..self.records.len() as u32).map(Frame::from_number)
    }

    /// All objects of a kind.
    fn objects<T>(&self, kind: ObjectKind) -> Vec<Ref<T>> {
        let mut objects = Vec::new();
        for frame in self.frames() {
            let record = self.record(frame);
            if record.kind != FrameKind::Slab || record.object != kind {
                continue;
            }
            for slot in (0..64).filter(|slot| record.lines >> slot & 1 != 0) {
                let bits = frame.address() + (slot << record.slot_shift);
                objects.push(Ref::from_bits(bits).expect("not frame zero"));
            }
        }
        objects
    }

    fn audit_trees(&self) -> Seen {
        let mut seen = Seen::default();
        for space in self.objects::<Space>(ObjectKind::Space) {
            if let Some(root) = self.get(space).any_root() {
                *seen.frames.entry(root).or_default() += 1;
                assert!(seen.tables.insert(root), "a root has two spaces");
                self.audit_table(root, ROOT_LEVEL, &mut seen);
            }
        }
        seen
    }

    fn audit_table(&self, in_table: Frame, level: u8, seen: &mut Seen) {
        let entries = if level == ROOT_LEVEL {
            ENTRIES / 2
        } else {
            ENTRIES
        };
        let (mut lines, mut busy) = (0, 0);
        for index in 0..entries {
            let entry = self.entry(in_table, index);
            let kind = entry.kind();
            assert_eq!(entry.is_absent(), kind == Kind::Absent, "{entry:?}");
            if kind != Kind::Absent {
                lines |= 1 << (index / 8);
            }
            if !matches!(kind, Kind::Absent | Kind::Zero) {
                busy |= 1 << (index / 8);
            }
            match kind {
                Kind::Absent | Kind::Zero => assert!(!entry.is_present()),
                Kind::Link => {
                    assert!(!entry.is_present());
                    *seen.mappings.entry(entry.mapping()).or_default() += 1;
                }
                Kind::Table => {
                    assert!(level > 1 && entry.is_present() && entry.is_quiet(false));
                    let child = entry.frame();
                    *seen.frames.entry(child).or_default() += 1;
                    let count = self.record(child).count;
                    assert!(
                        !entry.is_writable() || count == 1,
                        "a shared table is writable"
                    );
                    assert_ne!(self.record(child).lines, 0, "an empty table stays");
                    if seen.tables.insert(child) {
                        self.audit_table(child, level - 1, seen);
                    }
                }
                Kind::Private | Kind::Shared | Kind::Pinned => {
                    assert_eq!(level, 1);
                    let (rights, frame) = (entry.protection(), entry.frame());
                    assert_eq!(entry.is_present(), !rights.is_empty(), "{entry:?}");
                    assert!(!entry.is_present() || entry.is_quiet(true), "{entry:?}");
                    assert!(entry.limit().contains(rights), "{entry:?}");
                    let logical = rights.contains(libipc::abi::Protection::WRITE);
                    if kind == Kind::Private {
                        assert!(!entry.is_writable() || logical, "{entry:?}");
                        *seen.writers.entry(frame).or_default() += entry.is_writable() as u32;
                    } else {
                        assert_eq!(entry.is_writable(), logical, "{entry:?}");
                    }
                    if kind != Kind::Pinned && self.record(frame).kind != FrameKind::Foreign {
                        *seen.frames.entry(frame).or_default() += 1;
                    }
                }
            }
        }
        // The busy word may say too much, after a page has become zeros again.
        let recorded = self.record(in_table).busy_lines();
        assert_eq!(
            busy & !recorded,
            0,
            "busy lines of a table of level {level}"
        );
        assert_eq!(
            recorded & !lines,
            0,
            "busy lines of a table of level {level}"
        );
        let recorded = self.record(in_table).lines;
        let recorded = if level == ROOT_LEVEL {
            recorded & 0xffff_ffff
        } else {
            recorded
        };
        assert_eq!(recorded, lines, "the line word of a table of level {level}");
    }

    fn audit_counts(&self, seen: &Seen) {
        for frame in self.frames() {
            let record = self.record(frame);
            match record.kind {
                FrameKind::Table | FrameKind::Data => {
                    let entries = seen.frames.get(&frame).copied().unwrap_or(0);
                    assert_eq!(record.count, entries, "entries of {frame:?}");
                    assert_ne!(entries, 0, "{frame:?} has leaked");
                    let is_table = record.kind == FrameKind::Table;
                    assert_eq!(is_table, seen.tables.contains(&frame), "{frame:?}");
                }
                _ => assert!(!seen.frames.contains_key(&frame), "{frame:?} {record:?}"),
            }
        }
        for (frame, writers) in &seen.writers {
            assert!(*writers <= 1, "{frame:?} is private to several writers");
        }
    }

    fn audit_windows(&self, seen: &Seen) {
        let mut mapped: BTreeMap<Ref<Window>, u64> = BTreeMap::new();
        for mapping in self.objects::<Mapping>(ObjectKind::Mapping) {
            let Mapping { count, window, .. } = *self.get(mapping);
            let links = seen.mappings.get(&mapping).copied().unwrap_or(0);
            assert_eq!(count, links, "links of a mapping");
            assert_ne!(links, 0, "a mapping has leaked");
            *mapped.entry(window).or_default() += 1;
        }
        let mut holds: BTreeMap<Ref<Space>, u32> = BTreeMap::new();
        for window in self.objects::<Window>(ObjectKind::Window) {
            let here = self.get(window);
            let mappings = mapped.get(&window).copied().unwrap_or(0);
            assert_eq!(here.mappings, mappings, "mappings of a window");
            assert!(!here.has_ended() || mappings > 0, "an ended window stays");
            *holds.entry(here.source()).or_default() += 1;
        }
        for space in self.objects::<Space>(ObjectKind::Space) {
            let windows = holds.get(&space).copied().unwrap_or(0);
            assert!(
                self.space_holds(space) >= windows,
                "windows hold their source"
            );
        }
    }

    fn audit_pools(&self) {
        let mut own: BTreeMap<Ref<Pool>, u64> = BTreeMap::new();
        for frame in self.frames() {
            let record = self.record(frame);
            let charged = !matches!(
                record.kind,
                FrameKind::Unknown | FrameKind::Foreign | FrameKind::Boot | FrameKind::Free
            );
            assert_eq!(charged, record.pool.is_some(), "{frame:?} {record:?}");
            if let Some(pool) = record.pool {
                *own.entry(pool).or_default() += 1;
            }
        }
        let pools = self.objects::<Pool>(ObjectKind::Pool);
        let mut used: BTreeMap<Ref<Pool>, u64> = BTreeMap::new();
        for &pool in &pools {
            let frames = own.remove(&pool).unwrap_or(0);
            assert_eq!(self.pool_status(pool).own, frames, "frames of {pool:?}");
            let mut at = Some(pool);
            while let Some(pool) = at {
                *used.entry(pool).or_default() += frames;
                at = self.get(pool).parent();
            }
        }
        assert!(own.is_empty(), "frames are charged to a pool that is gone");
        for pool in pools {
            assert_eq!(self.pool_status(pool).used, used[&pool], "use of {pool:?}");
        }
    }

    fn audit_loaded(&self) {
        for space in self.objects::<Space>(ObjectKind::Space) {
            for cpu in 0..MAX_CPUS {
                let active = self.get(space).active().contains(cpu);
                assert_eq!(active, self.loaded[cpu] == Some(space), "CPU {cpu}");
            }
        }
    }

    fn audit_free_list(&self) -> u64 {
        let mut listed = 0;
        for frame in self
            .dirty
            .iter(self.records)
            .chain(self.clean.iter(self.records))
        {
            let record = self.record(frame);
            assert!(record.kind == FrameKind::Free && record.lines == 0);
            listed += 1;
        }
        let free = self
            .frames()
            .filter(|&frame| self.record(frame).kind == FrameKind::Free);
        assert_eq!(free.count() as u64, listed, "a free frame is on no list");
        listed
    }
}

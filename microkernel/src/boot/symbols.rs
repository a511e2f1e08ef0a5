//! Names for addresses: the file `kernel.symbols` of the boot archive.
//!
//! `cargo xtask` makes it from the kernel's ELF file and puts it into the boot
//! archive; a panic looks up the places of its backtrace in it. All numbers are
//! little-endian:
//!
//! ```text
//! 0        b"MITOSYM1"
//! 8   u32  how many functions there are
//! 12  u32  length of the names in bytes
//! 16       for each function, sorted by address, 16 bytes:
//!             u64  address
//!             u32  size in bytes
//!             u32  start of its name, counted from the first name
//!          the names, demangled, UTF-8; each ends where the next begins
//! ```
//!
//! Invariant: whoever damaged the file, reading it never panics and never takes
//! memory; at worst an address has no name.

/// What the file begins with.
pub const MAGIC: [u8; 8] = *b"MITOSYM1";

/// Bytes before the first function.
pub const HEADER_BYTES: usize = 16;

/// Bytes for each function.
pub const ENTRY_BYTES: usize = 16;

/// The functions of the kernel, sorted by address.
#[derive(Clone, Copy, Debug)]
pub struct Symbols<'a> {
    entries: &'a [u8],
    names: &'a [u8],
}

impl<'a> Symbols<'a> {
    /// Understands the bytes of `kernel.symbols`; `None` when they are something else.
    pub fn parse(file: &'a [u8]) -> Option<Self> {
        let rest = file.strip_prefix(&MAGIC)?;
        let count = usize::try_from(number(rest, 0)?).ok()?;
        let names = usize::try_from(number(rest, 4)?).ok()?;
        let body = file.get(HEADER_BYTES..)?;
        let (entries, rest) = body.split_at_checked(count.checked_mul(ENTRY_BYTES)?)?;
        Some(Self {
            entries,
            names: rest.get(..names)?,
        })
    }

    /// The function at `address`: its name, and how many bytes into it.
    pub fn lookup(&self, address: u64) -> Option<(&'a str, u64)> {
        let after = self.first_after(address);
        let index = after.checked_sub(1)?;
        let (start, size) = self.function(index)?;
        let offset = address.checked_sub(start)?;
        if offset >= u64::from(size) {
            return None;
        }
        Some((self.name(index)?, offset))
    }

    fn count(&self) -> usize {
        self.entries.len() / ENTRY_BYTES
    }

    /// The index of the first function that starts after `address`.
    fn first_after(&self, address: u64) -> usize {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self
                .function(middle)
                .is_some_and(|(start, _)| start <= address)
            {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Address and size of a function.
    fn function(&self, index: usize) -> Option<(u64, u32)> {
        let entry = self.entries.get(index * ENTRY_BYTES..)?;
        let address = u64::from_le_bytes(*entry.first_chunk()?);
        Some((address, number(entry, 8)?))
    }

    fn name(&self, index: usize) -> Option<&'a str> {
        let start = self.name_start(index)?;
        let end = if index + 1 < self.count() {
            self.name_start(index + 1)?
        } else {
            self.names.len()
        };
        core::str::from_utf8(self.names.get(start..end)?).ok()
    }

    fn name_start(&self, index: usize) -> Option<usize> {
        let entry = self.entries.get(index * ENTRY_BYTES..)?;
        usize::try_from(number(entry, 12)?).ok()
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn file(functions: &[(u64, u32, &str)]) -> Vec<u8> {
        let mut entries = Vec::new();
        let mut names: Vec<u8> = Vec::new();
        for (address, size, name) in functions {
            entries.extend(address.to_le_bytes());
            entries.extend(size.to_le_bytes());
            entries.extend((names.len() as u32).to_le_bytes());
            names.extend(name.as_bytes());
        }
        let mut file = MAGIC.to_vec();
        file.extend((functions.len() as u32).to_le_bytes());
        file.extend((names.len() as u32).to_le_bytes());
        file.extend(entries);
        file.extend(names);
        file
    }

    #[test]
    fn an_address_has_the_name_of_the_function_around_it() {
        let file = file(&[
            (0xffff_ffff_8020_0000, 16, "first"),
            (0xffff_ffff_8020_0010, 8, "second::{closure}"),
            (0xffff_ffff_8020_0020, 4, "last"),
        ]);
        let symbols = Symbols::parse(&file).unwrap();
        assert_eq!(symbols.lookup(0xffff_ffff_8020_0000), Some(("first", 0)));
        assert_eq!(symbols.lookup(0xffff_ffff_8020_000f), Some(("first", 15)));
        assert_eq!(
            symbols.lookup(0xffff_ffff_8020_0017),
            Some(("second::{closure}", 7))
        );
        assert_eq!(
            symbols.lookup(0xffff_ffff_8020_0018),
            None,
            "between two functions"
        );
        assert_eq!(symbols.lookup(0xffff_ffff_8020_0023), Some(("last", 3)));
        assert_eq!(
            symbols.lookup(0xffff_ffff_8020_0024),
            None,
            "after the last"
        );
        assert_eq!(symbols.lookup(0), None, "before the first");
    }

    #[test]
    fn no_functions_means_no_names() {
        let file = file(&[]);
        assert_eq!(Symbols::parse(&file).unwrap().lookup(5), None);
    }

    #[test]
    fn a_short_or_foreign_file_is_refused() {
        let good = file(&[(1, 2, "name")]);
        for length in 0..good.len() {
            assert!(Symbols::parse(&good[..length]).is_none(), "cut at {length}");
        }
        assert!(Symbols::parse(b"something else entirely").is_none());
    }

    proptest! {
        #[test]
        fn a_damaged_file_never_panics(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            count in 0u32..12,
            address: u64,
        ) {
            let mut file = MAGIC.to_vec();
            file.extend(count.to_le_bytes());
            file.append(&mut bytes);
            if let Some(symbols) = Symbols::parse(&file) {
                symbols.lookup(address);
            }
        }
    }
}

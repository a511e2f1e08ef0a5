//! Switching the machine off: the ACPI soft-off state, S5.
//!
//! What must be written to the PM1 control registers stands in the package `\_S5` of the DSDT (ACPI 6.4,
//! 7.4.2 and 16.1.4). Instead of an interpreter we look for the name and read the package behind it: it
//! holds constants in every machine that we know of.

/// Where the sleep type stands in a PM1 control register.
const SLEEP_TYPE_SHIFT: u32 = 10;
const SLEEP_TYPE_MASK: u16 = 7 << SLEEP_TYPE_SHIFT;
/// Writing this bit begins the transition.
const SLEEP_ENABLE: u16 = 1 << 13;

/// The longest DSDT that is searched, in bytes.
pub const DSDT_BYTES: usize = 1 << 20;
/// The length of a table's header, in bytes.
pub const HEADER_BYTES: usize = 36;

const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;
const ROOT_CHARACTER: u8 = b'\\';

/// The length of the table that begins with these bytes, if it is a DSDT.
pub fn table_bytes(start: &[u8]) -> Option<usize> {
    let header = start.get(..HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    (header.starts_with(b"DSDT") && (HEADER_BYTES..=DSDT_BYTES).contains(&length)).then_some(length)
}

/// The sleep types of S5 for the PM1a and the PM1b control register.
pub fn soft_off_types(dsdt: &[u8]) -> Option<[u8; 2]> {
    (0..dsdt.len()).find_map(|at| {
        let before = dsdt.get(..at)?;
        let named = matches!(before, [.., NAME_OP] | [.., NAME_OP, ROOT_CHARACTER]);
        let body = dsdt.get(at..)?.strip_prefix(b"_S5_")?;
        named.then(|| package(body)).flatten()
    })
}

/// The first two constants of a package.
fn package(bytes: &[u8]) -> Option<[u8; 2]> {
    let rest = bytes.strip_prefix(&[PACKAGE_OP])?;
    // The length of a package takes one byte, and as many more as its top two bits say (20.2.4).
    let more = usize::from(rest.first()? >> 6);
    let (count, elements) = rest.get(1 + more..)?.split_first()?;
    if *count < 2 {
        return None;
    }
    let (first, elements) = constant(elements)?;
    let (second, _) = constant(elements)?;
    Some([first, second])
}

/// A constant of up to 64 bits, of which a sleep type's bits count; and what follows (20.2.3).
fn constant(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (&prefix, rest) = bytes.split_first()?;
    let length = match prefix {
        0x00 | 0x01 => return Some((prefix, rest)),
        0xff => return Some((7, rest)),
        0x0a => 1,
        0x0b => 2,
        0x0c => 4,
        0x0e => 8,
        _ => return None,
    };
    let value = rest.get(..length)?[0] & 7;
    Some((value, &rest[length..]))
}

/// What to write to a PM1 control register that holds `old`.
pub fn soft_off_value(old: u16, sleep_type: u8) -> u16 {
    old & !SLEEP_TYPE_MASK | u16::from(sleep_type & 7) << SLEEP_TYPE_SHIFT | SLEEP_ENABLE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn dsdt(content: &[u8]) -> Vec<u8> {
        let mut table = b"DSDT".to_vec();
        table.extend((HEADER_BYTES as u32 + content.len() as u32).to_le_bytes());
        table.resize(HEADER_BYTES, 0);
        table.extend(content);
        table
    }

    #[test]
    fn the_package_is_found_as_compilers_write_it() {
        // QEMU's: four elements, the first two ByteConst 0.
        let qemu = dsdt(b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00");
        assert_eq!(soft_off_types(&qemu), Some([0, 0]));
        // A firmware's: absolute name, byte constants, long package length.
        let firmware = dsdt(b"xx\x08\\_S5_\x12\x4a\x00\x04\x0a\x05\x0b\x07\x00\x00\x00");
        assert_eq!(soft_off_types(&firmware), Some([5, 7]));
        let ones = dsdt(b"\x08_S5_\x12\x05\x02\x01\x0a\x03");
        assert_eq!(soft_off_types(&ones), Some([1, 3]));
        assert_eq!(table_bytes(&qemu), Some(qemu.len()));
    }

    #[test]
    fn what_only_looks_like_it_is_not_taken() {
        let reference = dsdt(b"_S5_\x12\x06\x04\x00\x00\x00\x00");
        assert_eq!(soft_off_types(&reference), None);
        let no_package = dsdt(b"\x08_S5_\x0a\x05");
        assert_eq!(soft_off_types(&no_package), None);
        let then_real = dsdt(b"\x08_S5_\x0a\x05\x08_S5_\x12\x05\x02\x0a\x02\x0a\x02");
        assert_eq!(soft_off_types(&then_real), Some([2, 2]));
        assert_eq!(table_bytes(b"DSDT\xff\xff\xff\xff"), None);
        assert_eq!(table_bytes(&[0; 64]), None);
    }

    #[test]
    fn only_the_sleep_bits_of_the_register_change() {
        assert_eq!(soft_off_value(0x0001, 0), 0x2001);
        assert_eq!(soft_off_value(0x1c01, 5), 0x3401);
    }

    proptest! {
        #[test]
        fn any_bytes_are_searched(bytes in prop::collection::vec(prop::sample::select(b"\x08\\_S5_\x12\x06\x02\x0a\x0b\xff\x00\x40\xc0".to_vec()), 0..200)) {
            let _ = soft_off_types(&bytes);
            let _ = table_bytes(&bytes);
        }
    }
}

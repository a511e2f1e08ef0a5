//! Finding files in the boot archive.

/// A file of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Its bytes.
    pub data: &'a [u8],
    /// The page of the archive at which they begin.
    pub first_page: u64,
}

/// The file with this path. `None` if there is none, or if its bytes do not begin on a page: then it
/// cannot be mapped.
pub fn find<'a>(archive: &'a [u8], path: &str) -> Option<File<'a>> {
    let entry = cpio_reader::iter_files(archive).find(|entry| entry.name() == path)?;
    let data = entry.file();
    let offset = (data.as_ptr() as usize - archive.as_ptr() as usize) as u64;
    offset
        .is_multiple_of(libipc::abi::PAGE_BYTES)
        .then_some(File {
            data,
            first_page: offset / libipc::abi::PAGE_BYTES,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn entry(archive: &mut Vec<u8>, name: &str, data: &[u8]) {
        archive.extend(b"070701");
        let (size, length) = (data.len() as u32, name.len() as u32 + 1);
        for field in [1, 0o100_755, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0] {
            archive.extend(std::format!("{field:08x}").as_bytes());
        }
        archive.extend(name.as_bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }

    #[test]
    fn a_file_on_a_page_is_found_by_its_path() {
        let mut bytes = Vec::new();
        let padding = 4096 - (110 + 5 + 1) - (110 + 7 + 3);
        entry(&mut bytes, ".pad", &std::vec![0; padding]);
        entry(&mut bytes, "loader", b"code");
        entry(&mut bytes, "beside", b"a page");
        let file = find(&bytes, "loader").unwrap();
        assert_eq!((file.data, file.first_page), (&b"code"[..], 1));
        assert_eq!(find(&bytes, "beside"), None);
        assert_eq!(find(&bytes, "nothing"), None);
        assert_eq!(find(b"no archive", "loader"), None);
    }
}

//! Files of the boot archive, found by name.

/// The content of the file with this name in a cpio archive.
pub fn find<'a>(archive: &'a [u8], name: &str) -> Option<&'a [u8]> {
    cpio_reader::iter_files(archive)
        .find(|entry| entry.name() == name)
        .map(|entry| entry.file())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with these files, in the "new ASCII" format.
    fn archive(files: &[(&str, &str)]) -> std::vec::Vec<u8> {
        let mut bytes = std::vec::Vec::new();
        for (name, content) in files.iter().chain(&[("TRAILER!!!", "")]) {
            let fields = [
                1,
                0o100644,
                0,
                0,
                1,
                0,
                content.len(),
                0,
                0,
                0,
                0,
                name.len() + 1,
                0,
            ];
            bytes.extend_from_slice(b"070701");
            for field in fields {
                bytes.extend_from_slice(std::format!("{field:08x}").as_bytes());
            }
            for part in [std::format!("{name}\0"), (*content).into()] {
                bytes.extend_from_slice(part.as_bytes());
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        bytes
    }

    #[test]
    fn a_file_is_found_by_its_whole_name() {
        let archive = archive(&[("bin/init", "no"), ("init", "yes")]);
        assert_eq!(find(&archive, "init"), Some(&b"yes"[..]));
        assert_eq!(find(&archive, "in"), None);
    }

    #[test]
    fn rubbish_holds_no_files() {
        assert_eq!(find(&[0x55; 300], "init"), None);
        assert_eq!(find(&[], "init"), None);
    }
}

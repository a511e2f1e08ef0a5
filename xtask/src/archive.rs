//! The boot archive: a cpio file (format newc) whose files begin on pages.
//!
//! ELF segments are mapped straight from the archive, so each file's data lies
//! at a multiple of 4096 bytes from the archive's start (boot loaders put the
//! archive on a page boundary). The format knows no alignment; a file named
//! [`PADDING`] before each real one fills the gap. Readers skip it.

/// Where file data is aligned to, in bytes.
const PAGE: usize = 4096;

/// The name of the files that only take up room.
pub const PADDING: &str = ".pad";

/// Length of an entry's header in bytes; the name follows.
const HEADER: usize = 110;

const FILE_MODE: u32 = 0o100_755;
const NO_MODE: u32 = 0;

/// An archive that is being written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

impl Archive {
    /// Appends a file.
    pub fn add(&mut self, name: &str, data: &[u8]) {
        self.pad_for(name);
        self.entry(name, FILE_MODE, data);
        debug_assert_eq!((self.bytes.len() - round_up(data.len(), 4)) % PAGE, 0);
    }

    /// Ends the archive and gives its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", NO_MODE, &[]);
        self.bytes
    }

    /// Makes the data of a file with this name start on a page.
    fn pad_for(&mut self, name: &str) {
        let data_start = self.bytes.len() + entry_head(name);
        if data_start.is_multiple_of(PAGE) {
            return;
        }
        let padding_head = entry_head(PADDING);
        let end = round_up(data_start + padding_head, PAGE);
        self.entry(
            PADDING,
            FILE_MODE,
            &vec![0; end - data_start - padding_head],
        );
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.files += 1;
        let length = u32::try_from(data.len()).expect("a file of the archive is below 4 GiB");
        let name_length = name.len() as u32 + 1;
        // inode, mode, user, group, links, time, size, four device numbers, name, checksum
        let fields = [
            self.files,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            0,
            0,
            name_length,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(data);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(round_up(self.bytes.len(), 4), 0);
    }
}

/// Bytes between the start of an entry and its data.
fn entry_head(name: &str) -> usize {
    round_up(HEADER + name.len() + 1, 4)
}

fn round_up(value: usize, unit: usize) -> usize {
    value.next_multiple_of(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_archive_starts_on_a_page() {
        let mut archive = Archive::default();
        let sizes = [0, 1, 3, 3950, 3964, 4095, 4096, 4097, 3_000_000];
        for (index, size) in sizes.iter().enumerate() {
            archive.add(
                &format!("bin/{}{index}", "n".repeat(index * 7)),
                &vec![index as u8; *size],
            );
        }
        let bytes = archive.finish();
        let files: Vec<_> = cpio_reader::iter_files(&bytes)
            .filter(|file| file.name() != PADDING)
            .collect();
        assert_eq!(files.len(), sizes.len());
        for (index, size) in sizes.iter().enumerate() {
            let data = files[index].file();
            assert_eq!(data, vec![index as u8; *size], "contents of file {index}");
            let offset = data.as_ptr() as usize - bytes.as_ptr() as usize;
            assert!(
                offset.is_multiple_of(PAGE) || size == &0,
                "file {index} at {offset:#x}"
            );
        }
    }

    #[test]
    fn an_empty_archive_is_a_trailer() {
        let bytes = Archive::default().finish();
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
        assert_eq!(cpio_reader::iter_files(&bytes).count(), 0);
    }
}

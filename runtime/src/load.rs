//! Carrying out a plan of [`crate::elf`]: segments of a window become pages of a space.
//!
//! Text and constants are shared with the window, data is a private copy, the rest is demand-zero. What
//! differs between init (which fills other spaces) and the loader (which fills its own) is behind
//! [`Target`].

use libipc::abi::{Error, Handle, PAGE_BYTES, Protection};

use crate::elf::{Image, Segment};
use crate::syscall;

/// Where segments are mapped.
pub trait Target {
    /// Maps pages of the file, shared or as a private copy.
    fn map_file(
        &mut self,
        file_page: u64,
        address: u64,
        pages: u64,
        protection: Protection,
        private: bool,
    ) -> Result<(), Error>;
    /// Maps demand-zero pages.
    fn map_zero(&mut self, address: u64, pages: u64, protection: Protection) -> Result<(), Error>;
    /// Writes zeros, at most a page.
    fn clear(&mut self, address: u64, bytes: u64) -> Result<(), Error>;
    /// Changes what pages permit.
    fn protect(&mut self, address: u64, pages: u64, protection: Protection) -> Result<(), Error>;
}

/// Maps all segments of an image.
pub fn map(image: &Image, target: &mut impl Target) -> Result<(), Error> {
    image
        .segments
        .iter()
        .try_for_each(|segment| map_segment(segment, target))
}

fn map_segment(segment: &Segment, target: &mut impl Target) -> Result<(), Error> {
    let writable = Protection::READ | Protection::WRITE;
    let private = segment.zero_tail || segment.protection.contains(Protection::WRITE);
    if segment.file_pages > 0 {
        // A tail must be cleared, so the pages are writable at first.
        let first = if private {
            writable
        } else {
            segment.protection
        };
        target.map_file(
            segment.file_page,
            segment.address,
            segment.file_pages,
            first,
            private,
        )?;
        if segment.zero_tail {
            let rest = segment.file_pages * PAGE_BYTES - segment.file_end;
            target.clear(segment.address + segment.file_end, rest)?;
        }
        if first != segment.protection {
            target.protect(segment.address, segment.file_pages, segment.protection)?;
        }
    }
    if segment.pages > segment.file_pages {
        target.map_zero(
            segment.address + segment.file_pages * PAGE_BYTES,
            segment.pages - segment.file_pages,
            segment.protection,
        )?;
    }
    Ok(())
}

/// A space that is filled from a window with system calls.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// The window on the file.
    pub window: Handle,
    /// The page of the window at which the file begins.
    pub first_page: u64,
    /// The space.
    pub space: Handle,
}

impl Target for Space {
    fn map_file(
        &mut self,
        file_page: u64,
        address: u64,
        pages: u64,
        protection: Protection,
        private: bool,
    ) -> Result<(), Error> {
        syscall::window_map(
            self.window,
            self.first_page + file_page,
            self.space,
            address,
            pages,
            protection,
            private.into(),
        )
    }

    fn map_zero(&mut self, address: u64, pages: u64, protection: Protection) -> Result<(), Error> {
        syscall::space_map(self.space, address, pages, protection)
    }

    fn clear(&mut self, address: u64, bytes: u64) -> Result<(), Error> {
        static ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];
        syscall::space_write(self.space, address, ZEROS.as_ptr() as u64, bytes, 0)
    }

    fn protect(&mut self, address: u64, pages: u64, protection: Protection) -> Result<(), Error> {
        syscall::space_protect(self.space, address, pages, protection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    #[derive(Default)]
    struct Recorded(Vec<String>);

    impl Target for Recorded {
        fn map_file(
            &mut self,
            file_page: u64,
            address: u64,
            pages: u64,
            protection: Protection,
            private: bool,
        ) -> Result<(), Error> {
            let how = if private { "copy" } else { "share" };
            self.0.push(std::format!(
                "{how} {file_page} at {address:#x}+{pages} {}",
                protection.bits()
            ));
            Ok(())
        }
        fn map_zero(
            &mut self,
            address: u64,
            pages: u64,
            protection: Protection,
        ) -> Result<(), Error> {
            self.0.push(std::format!(
                "zero {address:#x}+{pages} {}",
                protection.bits()
            ));
            Ok(())
        }
        fn clear(&mut self, address: u64, bytes: u64) -> Result<(), Error> {
            self.0.push(std::format!("clear {address:#x}+{bytes:#x}"));
            Ok(())
        }
        fn protect(
            &mut self,
            address: u64,
            pages: u64,
            protection: Protection,
        ) -> Result<(), Error> {
            self.0.push(std::format!(
                "protect {address:#x}+{pages} {}",
                protection.bits()
            ));
            Ok(())
        }
    }

    fn steps(segment: Segment) -> Vec<String> {
        let mut recorded = Recorded::default();
        map_segment(&segment, &mut recorded).unwrap();
        recorded.0
    }

    const SEGMENT: Segment = Segment {
        address: 0x10_0000,
        file_page: 3,
        file_pages: 2,
        pages: 2,
        file_end: 0x1800,
        zero_tail: false,
        protection: Protection::READ,
    };

    #[test]
    fn text_is_shared_with_the_file() {
        let text = Segment {
            protection: Protection::READ.union(Protection::EXECUTE),
            ..SEGMENT
        };
        assert_eq!(steps(text), ["share 3 at 0x100000+2 5"]);
    }

    #[test]
    fn data_is_copied_its_tail_cleared_and_the_rest_is_zero() {
        let data = Segment {
            pages: 5,
            zero_tail: true,
            protection: Protection::READ.union(Protection::WRITE),
            ..SEGMENT
        };
        assert_eq!(
            steps(data),
            [
                "copy 3 at 0x100000+2 3",
                "clear 0x101800+0x800",
                "zero 0x102000+3 3"
            ]
        );
    }

    #[test]
    fn a_read_only_tail_is_writable_only_while_it_is_cleared() {
        let odd = Segment {
            zero_tail: true,
            ..SEGMENT
        };
        assert_eq!(
            steps(odd),
            [
                "copy 3 at 0x100000+2 3",
                "clear 0x101800+0x800",
                "protect 0x100000+2 1"
            ]
        );
    }

    #[test]
    fn a_segment_without_bytes_in_the_file_is_zero_memory() {
        let bss = Segment {
            file_pages: 0,
            protection: Protection::READ.union(Protection::WRITE),
            ..SEGMENT
        };
        assert_eq!(steps(bss), ["zero 0x100000+2 3"]);
    }
}

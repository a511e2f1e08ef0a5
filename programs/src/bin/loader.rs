//! The loader: maps an image into the space that it runs in.
//!
//! The process server has it do so once for each image, in a snapshot of a space in which the loader
//! lies at its link address and the first stack is mapped. Then it ends, the server unmaps it, and every
//! process that runs the image begins with a snapshot of what is left. It has the authority that a
//! program begins with and no more, and stands on a stack of its own, inside its image, so that it
//! leaves nothing on the program's.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::convert::Infallible;

use libipc::abi::{Error, PAGE_BYTES, Protection, layout};
use libipc::protocol::process::{Errno, slots};
use libipc::wire::Received;
use runtime::elf::{self, Image, Segment};
use runtime::load::{self, Space, Target};
use runtime::memory::Mapping;
use runtime::process::client;
use runtime::syscall;

#[cfg(target_os = "none")]
mod begin {
    /// The loader's own stack; part of its image.
    #[repr(C, align(4096))]
    struct Stack([u8; 32 * 1024]);

    static mut STACK: Stack = Stack([0; 32 * 1024]);

    // `loader_image` makes the linker script choose the loader's place.
    core::arch::global_asm!(
        ".globl loader_image",
        ".set loader_image, 1",
        ".globl _start",
        "_start:",
        "xor ebp, ebp",
        "lea rsp, [rip + {stack} + {bytes}]",
        "call {begin}",
        "ud2",
        stack = sym STACK,
        bytes = const size_of::<Stack>(),
        begin = sym super::run,
    );
}

runtime::host_main!(run);

extern "C" fn run() -> ! {
    let Err(errno) = load();
    let _ = client().load_failed(errno);
    loop {
        let _ = syscall::thread_exit();
    }
}

/// The loader's own space, filled from the window on the image.
struct OwnSpace(Space);

impl Target for OwnSpace {
    fn map_file(
        &mut self,
        file_page: u64,
        address: u64,
        pages: u64,
        protection: Protection,
        private: bool,
    ) -> Result<(), Error> {
        self.0
            .map_file(file_page, address, pages, protection, private)
    }

    fn map_zero(&mut self, address: u64, pages: u64, protection: Protection) -> Result<(), Error> {
        self.0.map_zero(address, pages, protection)
    }

    fn clear(&mut self, address: u64, bytes: u64) -> Result<(), Error> {
        // SAFETY: `load::map` clears only in pages that it has just mapped as a writable private copy
        // of the image, and they lie outside the loader (`elf::read` was told so).
        unsafe { core::ptr::write_bytes(address as *mut u8, 0, bytes as usize) };
        Ok(())
    }

    fn protect(&mut self, address: u64, pages: u64, protection: Protection) -> Result<(), Error> {
        self.0.protect(address, pages, protection)
    }
}

fn memory_errno(error: Error) -> Errno {
    match error {
        Error::NoMemory => Errno::ENOMEM,
        _ => Errno::EIO,
    }
}

/// Touches every page that the image has in its file, at most those between its link address and the
/// loader's. What they are is looked up once and for all then: the program does not fault for them, nor
/// does whatever starts as a snapshot of this space.
fn touch(image: &Image) {
    let readable = |segment: &&Segment| segment.protection.contains(Protection::READ);
    for segment in image.segments.iter().filter(readable) {
        for page in 0..segment.file_pages {
            let address = segment.address + page * PAGE_BYTES;
            // SAFETY: `load::map` has just mapped it for reading.
            unsafe { core::ptr::read_volatile(address as *const u8) };
        }
    }
}

/// Loads what the process server ordered; comes back only with an error.
fn load() -> Result<Infallible, Errno> {
    let mut received = Received::new();
    client()
        .load_order(&mut received)
        .map_err(runtime::process::errno)?;
    let &[window] = received.as_slice() else {
        return Err(Errno::EIO);
    };
    let file = Mapping::window(window, Protection::READ).map_err(memory_errno)?;
    let image =
        elf::read(file.as_slice(), layout::IMAGE, layout::LOADER).map_err(|_| Errno::ENOEXEC)?;
    drop(file);
    let mut space = OwnSpace(Space {
        window,
        first_page: 0,
        space: slots::SPACE,
    });
    load::map(&image, &mut space).map_err(memory_errno)?;
    touch(&image);
    client()
        .loaded(image.entry)
        .map_err(runtime::process::errno)?;
    Err(Errno::EIO) // the server does not answer with success
}

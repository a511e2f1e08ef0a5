//! The file server's shell: maps the boot archive and serves it.
#![cfg_attr(target_os = "none", no_std, no_main)]

use files_server::{Files, Kernel};
use libipc::abi::{Access, Error, Handle, PAGE_BYTES, Protection};
use libipc::protocol::files::serve;
use libipc::protocol::startup;
use libipc::wire::{Caller, LongBody, Served};
use runtime::memory::Mapping;
use runtime::{log, server, syscall};

runtime::server_entry!(run);

/// The archive in our space, and our end of the endpoint.
struct Own {
    archive: u64,
}

impl Kernel for Own {
    fn sender(&mut self, badge: u64, access: u32) -> Result<Handle, Error> {
        let access = Access::from_bits_retain(access);
        syscall::cap_derive(startup::RECEIVER, startup::POOL, badge, access)
    }

    fn window(&mut self, first: u64, pages: u64) -> Result<Handle, Error> {
        let access = Access::READ | Access::EXECUTE;
        let address = self.archive + first * PAGE_BYTES;
        syscall::window_create(startup::SPACE, startup::POOL, address, pages, access)
    }
}

struct Shell<'a> {
    files: Files<'a>,
    own: Own,
}

impl server::Handler for Shell<'_> {
    fn request(&mut self, caller: &mut Caller, request: &[u8], answer: &mut LongBody) -> Served {
        serve(&mut self.files, &mut self.own, caller, request, answer)
    }

    fn no_more_senders(&mut self, badge: u64) {
        self.files.closed(badge);
    }
}

fn run(archive_bytes: u64) -> ! {
    let mapped = Mapping::window(startup::files::ARCHIVE, Protection::READ);
    let bytes = match &mapped {
        Ok(mapping) => &mapping.as_slice()[..mapping.bytes().min(archive_bytes as usize)],
        Err(error) => {
            log::print(format_args!("files: no boot archive: {error:?}\n"));
            &[]
        }
    };
    let mut shell = Shell {
        files: Files::new(bytes),
        own: Own {
            archive: bytes.as_ptr() as u64,
        },
    };
    server::run(startup::RECEIVER, &mut shell)
}

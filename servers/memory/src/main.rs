//! The memory server's shell: receives requests and makes the pools in the kernel.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::{Error, Handle};
use libipc::protocol::memory::{Quota, serve};
use libipc::protocol::startup;
use libipc::wire::{Caller, LongBody, Served};
use memory_server::{Pools, Quotas};
use runtime::{server, syscall};

runtime::server_entry!(run);

/// Pools in the kernel.
struct Kernel;

impl Pools for Kernel {
    fn create(&mut self, parent: Handle, limit_pages: u64) -> Result<Handle, Error> {
        syscall::pool_create(parent, limit_pages)
    }

    fn status(&mut self, pool: Handle) -> Result<Quota, Error> {
        let (limit, used) = syscall::pool_status(pool)?;
        Ok(Quota { limit, used })
    }

    fn destroy(&mut self, pool: Handle) {
        // A pool that is gone already leaves only the handle.
        let _ = syscall::pool_destroy(pool);
        let _ = syscall::cap_close(pool);
    }
}

struct Shell {
    quotas: Quotas,
    kernel: Kernel,
}

impl server::Handler for Shell {
    fn request(&mut self, caller: &mut Caller, request: &[u8], answer: &mut LongBody) -> Served {
        serve(&mut self.quotas, &mut self.kernel, caller, request, answer)
    }
}

fn run(_: u64) -> ! {
    let mut shell = Shell {
        quotas: Quotas::new(startup::POOL),
        kernel: Kernel,
    };
    server::run(startup::RECEIVER, &mut shell)
}

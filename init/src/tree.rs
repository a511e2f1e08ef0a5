//! Printing the capability tree: what each server holds, as the kernel sees it.

use init::report::Held;
use libipc::abi::initial;
use runtime::{log, syscall};

use crate::servers::Servers;

/// Prints all servers with their quotas and slots.
pub fn print(servers: &Servers) {
    let (limit, used) = syscall::pool_status(initial::POOL).unwrap_or((0, 0));
    log::print(format_args!(
        "init: all capabilities of the machine; {used} of {limit} pages used\n"
    ));
    for server in &servers.all {
        let (limit, used) = syscall::pool_status(server.pool).unwrap_or((0, 0));
        log::print(format_args!(
            "  |- {} server; quota {}: {used} of {limit} pages\n",
            server.name, server.quota
        ));
        let mut index = 0;
        while let Ok((slot, info)) = syscall::table_next(server.table, index) {
            if slot == u64::MAX {
                break;
            }
            let what = server
                .grants
                .iter()
                .find(|(granted, _)| u64::from(*granted) == slot)
                .map_or("made by itself", |(_, what)| what);
            log::print(format_args!(
                "  |    {slot:2} {what}: {}\n",
                Held::from_info(info)
            ));
            index = slot + 1;
        }
    }
}

//! Ending the machine.

use init::boot_words::ConsoleKind;
use init::power::{DSDT_BYTES, HEADER_BYTES, soft_off_types, soft_off_value, table_bytes};
use libipc::abi::{BootPage, Error, PAGE_BYTES, initial};
use runtime::memory::Mapping;
use runtime::{log, syscall};

/// How long the machine may take to switch off, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// How the machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is switched off.
    Success,
    /// An emulator is told that it failed.
    Failure,
}

/// Ends the machine.
pub fn stop(boot: &BootPage, how: Stop) -> ! {
    if how == Stop::Success {
        soft_off(boot);
    }
    let action = match how {
        Stop::Success => 1,
        Stop::Failure => 2,
    };
    let error = syscall::system_power(initial::SYSTEM, action);
    log::print(format_args!(
        "init: the machine can be switched off now ({error:?})\n"
    ));
    loop {
        let _ = syscall::thread_exit();
    }
}

/// Asks the chipset for ACPI's S5. Returns if there is none or it does not obey.
fn soft_off(boot: &BootPage) {
    let types = match dsdt(boot) {
        Ok(Some(types)) => types,
        Ok(None) => return,
        Err(error) => {
            log::print(format_args!("init: the DSDT cannot be read: {error:?}\n"));
            return;
        }
    };
    for (port, sleep_type) in boot.pm1_control.into_iter().zip(types) {
        if port != 0 {
            let port = port.into();
            let old = syscall::port_read(initial::IO_PORTS, port, 2).unwrap_or(0);
            let value = soft_off_value(old as u16, sleep_type);
            let _ = syscall::port_write(initial::IO_PORTS, port, 2, value.into());
        }
    }
    let began = syscall::clock().unwrap_or(0);
    while syscall::clock().is_ok_and(|now| now - began < PATIENCE) {}
}

/// The sleep types in the DSDT; `None` if the machine has no such table, package, or registers.
fn dsdt(boot: &BootPage) -> Result<Option<[u8; 2]>, Error> {
    if boot.dsdt == 0 || boot.pm1_control == [0; 2] {
        return Ok(None);
    }
    let in_page = (boot.dsdt % PAGE_BYTES) as usize;
    let map = |bytes: usize| {
        let pages = ((in_page + bytes) as u64).div_ceil(PAGE_BYTES);
        let first = boot.dsdt - in_page as u64;
        let range = syscall::range_narrow(initial::PHYSICAL, initial::POOL, first, pages)?;
        let mapping = Mapping::physical(range, pages);
        let _ = syscall::cap_close(range);
        mapping
    };
    let Some(bytes) = table_bytes(&map(HEADER_BYTES)?.as_slice()[in_page..]) else {
        return Ok(None);
    };
    let table = map(bytes.min(DSDT_BYTES))?;
    Ok(soft_off_types(&table.as_slice()[in_page..in_page + bytes]))
}

/// The console server's first argument.
pub const fn console_argument(kind: ConsoleKind) -> u64 {
    match kind {
        ConsoleKind::Serial => 0,
        ConsoleKind::Exec => 1,
    }
}

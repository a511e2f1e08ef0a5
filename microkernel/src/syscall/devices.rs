//! Interrupt lines, ports, physical memory, and the system itself.

use super::truth;
use crate::kernel::{Kernel, LINES, Side, Stop};
use crate::machine::{Machine, PowerAction};
use crate::memory::{Caching, Frame, Intent, Ref};
use crate::object::Notification;
use crate::object::device::{IoPorts, Irq, PhysicalRange};
use libipc::abi::{Access, Error, Handle, Kind, PAGE_BYTES, Protection};

/// The longest text that one call writes to the log.
const LOG_BYTES: usize = 256;

impl<M: Machine> Kernel<M> {
    /// The system capability, with these rights.
    pub(super) fn check_system(&self, system: Handle, needed: Access) -> Result<(), Error> {
        let found = self.find(system)?;
        if found.kind != Kind::System {
            return Err(Error::WrongKind);
        }
        if found.access & needed.bits() != needed.bits() {
            return Err(Error::AccessDenied);
        }
        Ok(())
    }

    pub(super) fn irq_create(
        &mut self,
        system: Handle,
        pool: Handle,
        line: u64,
    ) -> Result<Handle, Stop> {
        self.check_system(system, Access::MAKE_IRQ)?;
        let pool = self.payer(pool)?;
        if line >= LINES as u64 {
            return Err(Error::InvalidArgument.into());
        }
        let place = line as usize;
        if self.lines[place].is_some() {
            return Err(Error::Occupied.into());
        }
        let irq = self.memory.create(pool, Irq::new(line as u32))?;
        self.lines[place] = Some(irq);
        self.give_new(pool, Kind::Irq, irq)
    }

    fn irq(&self, irq: Handle) -> Result<Ref<Irq>, Error> {
        let irq: Ref<Irq> = self.object(irq, Kind::Irq, Access::USE)?;
        if self.memory.get(irq).ended {
            return Err(Error::Gone);
        }
        Ok(irq)
    }

    pub(super) fn irq_bind(
        &mut self,
        irq: Handle,
        notification: Handle,
        bits: u64,
    ) -> Result<(), Stop> {
        let irq = self.irq(irq)?;
        let notification: Ref<Notification> =
            self.object(notification, Kind::Notification, Access::SIGNAL)?;
        self.hold_object(Kind::Notification, notification.to_bits())?;
        let entry = self.memory.get_mut(irq);
        entry.bits = bits;
        let (line, old) = (entry.line, entry.notification.replace(notification));
        if let Some(old) = old {
            self.drop_object(Kind::Notification, old.to_bits());
        }
        self.memory.machine_mut().interrupt_unmask(line);
        Ok(())
    }

    pub(super) fn irq_acknowledge(&mut self, irq: Handle) -> Result<(), Stop> {
        let irq = self.irq(irq)?;
        let line = self.memory.get(irq).line;
        self.memory.machine_mut().interrupt_unmask(line);
        Ok(())
    }

    /// A device asks: its line stays masked until it is acknowledged.
    pub(crate) fn line(&mut self, line: u32) {
        let irq = self.lines.get(line as usize).copied().flatten();
        let Some(irq) = irq else { return };
        let &Irq {
            notification, bits, ..
        } = self.memory.get(irq);
        if let Some(notification) = notification {
            self.signal_bits(notification, bits);
        }
    }

    fn ports(&self, ports: Handle) -> Result<Ref<IoPorts>, Error> {
        let ports: Ref<IoPorts> = self.object(ports, Kind::IoPorts, Access::USE)?;
        if self.memory.get(ports).ended {
            return Err(Error::Gone);
        }
        Ok(ports)
    }

    pub(super) fn ports_narrow(
        &mut self,
        ports: Handle,
        pool: Handle,
        first: u64,
        count: u64,
    ) -> Result<Handle, Stop> {
        let found = self.find(ports)?;
        let ports = self.ports(ports)?;
        let pool = self.payer(pool)?;
        let part = self.memory.get(ports).narrow(first, count);
        let part = self
            .memory
            .create(pool, part.ok_or(Error::InvalidArgument)?)?;
        self.give_part(found.node, pool, Kind::IoPorts, part, found.access)
    }

    pub(super) fn port_read(&mut self, ports: Handle, port: u64, width: u64) -> Result<u64, Stop> {
        let ports = self.ports(ports)?;
        let access = self.memory.get(ports).access(port, width);
        let (port, width) = access.ok_or(Error::InvalidArgument)?;
        Ok(self.memory.machine_mut().port_read(port, width) as u64)
    }

    pub(super) fn port_write(
        &mut self,
        ports: Handle,
        port: u64,
        width: u64,
        value: u64,
    ) -> Result<(), Stop> {
        let ports = self.ports(ports)?;
        let access = self.memory.get(ports).access(port, width);
        let (port, width) = access.ok_or(Error::InvalidArgument)?;
        self.memory
            .machine_mut()
            .port_write(port, width, value as u32);
        Ok(())
    }

    fn physical_range(&self, range: Handle) -> Result<Ref<PhysicalRange>, Error> {
        let range: Ref<PhysicalRange> = self.object(range, Kind::PhysicalRange, Access::USE)?;
        if self.memory.get(range).ended {
            return Err(Error::Gone);
        }
        Ok(range)
    }

    pub(super) fn range_narrow(
        &mut self,
        range: Handle,
        pool: Handle,
        address: u64,
        pages: u64,
    ) -> Result<Handle, Stop> {
        let found = self.find(range)?;
        let range = self.physical_range(range)?;
        let pool = self.payer(pool)?;
        if !address.is_multiple_of(PAGE_BYTES) {
            return Err(Error::InvalidArgument.into());
        }
        let part = self.memory.get(range).narrow(address / PAGE_BYTES, pages);
        let part = self
            .memory
            .create(pool, part.ok_or(Error::InvalidArgument)?)?;
        self.give_part(found.node, pool, Kind::PhysicalRange, part, found.access)
    }

    pub(super) fn range_map(
        &mut self,
        range: Handle,
        offset_pages: u64,
        space: Handle,
        address: u64,
        pages: u64,
        protection: Protection,
        uncached: u64,
    ) -> Result<(), Stop> {
        let range = self.physical_range(range)?;
        let space = self.space(space, Access::MAP)?;
        let caching = match truth(uncached)? {
            false => Caching::WriteBack,
            true => Caching::Uncached,
        };
        let range = self.memory.get(range);
        let first = range.first.checked_add(offset_pages);
        let part = first.and_then(|first| range.narrow(first, pages));
        let first = part.ok_or(Error::InvalidArgument)?.first;
        let (from, left) = self.rest_of_range(address, pages)?;
        let first = first + (from - address) / PAGE_BYTES;
        let first = u32::try_from(first).map_err(|_| Error::InvalidArgument)?;
        let progress = self.memory.map_physical(
            space,
            from,
            left,
            Frame::from_number(first),
            protection,
            Protection::READ | Protection::WRITE,
            caching,
        )?;
        self.go_on(progress)
    }

    pub(super) fn system_log(&mut self, system: Handle, text: u64, bytes: u64) -> Result<(), Stop> {
        self.check_system(system, Access::LOG)?;
        if bytes > LOG_BYTES as u64 {
            return Err(Error::TooLong.into());
        }
        let mut buffer = [0; LOG_BYTES];
        let buffer = &mut buffer[..bytes as usize];
        let own = self.own_space();
        let span = self
            .memory
            .span(own, text, buffer.len(), Intent::Read)
            .map_err(|at| self.stop_to_fault(at, Side::Read))?;
        self.memory.read_span(&span, buffer);
        self.memory.machine_mut().log(buffer);
        Ok(())
    }

    pub(super) fn system_power(&mut self, system: Handle, action: u64) -> Result<(), Stop> {
        self.check_system(system, Access::POWER)?;
        let action = match action {
            0 => PowerAction::Reset,
            1 => PowerAction::StopWithSuccess,
            2 => PowerAction::StopWithFailure,
            _ => return Err(Error::InvalidArgument.into()),
        };
        self.memory.machine_mut().power(action);
        Ok(())
    }

    pub(super) fn system_counter(&mut self, system: Handle, which: u64) -> Result<u64, Stop> {
        self.check_system(system, Access::empty())?;
        let statistics = self.memory.statistics();
        Ok(match which {
            0 => self.counters().entries,
            1 => statistics.root_loads,
            2 => statistics.page_flushes + statistics.full_flushes,
            3 => self.counters().fpu_switches,
            4 => statistics.frames_free,
            5 => statistics.frames_total,
            _ => return Err(Error::InvalidArgument.into()),
        })
    }
}

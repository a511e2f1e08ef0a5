//! Exceptions and page faults: settled here, or told as messages.
//!
//! What memory can settle it settles. A page that somebody else has is asked of its pager, anything
//! else of the thread's exception endpoint; the thread sends as if it had called, and goes on where
//! it was once it is answered. A fault that nobody takes ends the thread.

use super::{Kernel, Side};
use crate::cap::Node;
use crate::machine::{Exception, Machine, Next};
use crate::memory::{Fault, FaultAt, FrameKind, Intent, PagerRef, Ref};
use crate::object::Thread;
use crate::object::thread::Unusual;
use libipc::abi::{FaultKind, FaultMessage, Kind, MessageKind, NEVER, PAGE_BYTES};

/// Bits of a page fault's error code (Intel SDM 3A 4.7).
const CODE_WRITE: u64 = 1 << 1;
const CODE_FETCH: u64 = 1 << 4;

impl<M: Machine> Kernel<M> {
    /// Door: the current thread could not complete an instruction.
    #[inline]
    pub fn exception(&mut self, exception: Exception) -> Next {
        self.enter();
        let thread = self.caller();
        if exception.vector == Exception::PAGE_FAULT {
            return self.page_fault(thread, exception);
        }
        self.other_exception(thread, exception)
    }

    #[inline]
    fn page_fault(&mut self, thread: Ref<Thread>, exception: Exception) -> Next {
        let code = exception.error_code;
        let (intent, access) = if code & CODE_FETCH != 0 {
            (Intent::Execute, FaultMessage::EXECUTE)
        } else if code & CODE_WRITE != 0 {
            (Intent::Write, FaultMessage::WRITE)
        } else {
            (Intent::Read, 0)
        };
        let space = self.memory.get(thread).space;
        let space = space.expect("a thread that runs has a space");
        match self.memory.page_fault(space, exception.address, intent) {
            // Nearly always: nothing has changed about who runs, and nothing is left behind.
            Ok(()) if self.memory.unheld_space().is_none() => return Next::Resume,
            Ok(()) => {}
            Err(fault) => self.tell_page_fault(thread, exception.address, fault, access, code),
        }
        self.leave()
    }

    fn other_exception(&mut self, thread: Ref<Thread>, exception: Exception) -> Next {
        match exception.vector {
            Exception::NO_FPU => self.fpu_fault(thread),
            vector => {
                let kind = match vector {
                    0 => FaultKind::Divide,
                    1 => FaultKind::Debug,
                    3 => FaultKind::Breakpoint,
                    6 => FaultKind::InvalidInstruction,
                    13 => FaultKind::Protection,
                    16 | 19 => FaultKind::FloatingPoint,
                    _ => FaultKind::Other,
                };
                self.tell_fault(thread, kind, 0, 0, exception.error_code, None);
            }
        }
        self.leave()
    }

    /// A system call needs memory that its caller has to fault for.
    pub(crate) fn memory_fault(&mut self, thread: Ref<Thread>, at: FaultAt, side: Side) {
        let access = match side {
            Side::Read => 0,
            Side::Write => FaultMessage::WRITE,
        };
        self.tell_page_fault(thread, at.address, at.fault, access, 0);
    }

    fn tell_page_fault(
        &mut self,
        thread: Ref<Thread>,
        address: u64,
        fault: Fault,
        access: u64,
        code: u64,
    ) {
        let (kind, address, access, pager) = match fault {
            // The page as its source knows it, and where in it.
            Fault::Pager {
                pager,
                address: page,
                ..
            } => {
                let address = page + address % PAGE_BYTES;
                (FaultKind::Page, address, access, Some(pager))
            }
            Fault::Missing => (FaultKind::Page, address, access, None),
            Fault::Denied => (
                FaultKind::Page,
                address,
                access | FaultMessage::PRESENT,
                None,
            ),
            Fault::NoMemory => (FaultKind::OutOfMemory, address, access, None),
        };
        self.tell_fault(thread, kind, address, access, code, pager);
    }

    /// Sends a fault to the first who takes it.
    fn tell_fault(
        &mut self,
        thread: Ref<Thread>,
        kind: FaultKind,
        address: u64,
        access: u64,
        code: u64,
        pager: Option<PagerRef>,
    ) {
        let entry = self.memory.get_mut(thread);
        let exceptions = entry.exceptions.as_ref().map(|cap| (cap.node, cap.access));
        entry.set_fault(Some(FaultMessage {
            kind,
            address,
            access,
            instruction_pointer: entry.context.rip(),
            stack_pointer: entry.context.rsp(),
            code,
        }));
        let pager = pager.and_then(node_of_pager).map(|node| (node, 0));
        for (node, access) in [pager, exceptions].into_iter().flatten() {
            let grant = self.memory.get(node);
            if grant.kind() != Some(Kind::Sender) {
                continue;
            }
            let badge = grant.badge();
            let endpoint = Ref::from_bits(grant.object()).expect("a sender has an endpoint");
            let message = &mut self.memory.get_mut(thread).message;
            message.badge = badge;
            message.access = access;
            message.kind = MessageKind::Fault;
            message.killable_only = true;
            let unusual = &mut self.memory.get_mut(thread).unusual;
            let interrupted = *unusual & Unusual::INTERRUPTED;
            unusual.remove(interrupted);
            let sent = self.send_message(thread, endpoint, node, NEVER);
            self.memory.get_mut(thread).unusual |= interrupted;
            if sent.is_ok() {
                return;
            }
        }
        self.end_thread(thread);
    }

    /// The current thread wants the FPU: its state takes the place of whoever had it last.
    fn fpu_fault(&mut self, thread: Ref<Thread>) {
        let area = match self.memory.get(thread).fpu {
            Some(area) => area,
            None => {
                let pool = self.memory.pool_of(thread);
                let Ok(area) = self.memory.take_frame(pool, FrameKind::Kernel) else {
                    self.tell_fault(thread, FaultKind::OutOfMemory, 0, 0, 0, None);
                    return;
                };
                self.memory.machine_mut().fpu_reset(area);
                self.memory.get_mut(thread).fpu = Some(area);
                area
            }
        };
        self.save_fpu();
        self.cpu_mut().fpu = Some(thread);
        self.counters.fpu_switches += 1;
        let machine = self.memory.machine_mut();
        machine.fpu_load(area);
        machine.fpu_allow(true);
    }

    /// Stores the FPU state that is in the CPU where it belongs.
    pub(crate) fn save_fpu(&mut self) {
        let Some(owner) = self.cpu().fpu else { return };
        let area = self.memory.get(owner).fpu;
        let area = area.expect("who used the FPU has an area");
        self.memory.machine_mut().fpu_save(area);
    }
}

/// How a space refers to its pager: the address bits of a sender's node, which counts it as a slot.
pub(crate) fn pager_ref(node: Ref<Node>) -> PagerRef {
    PagerRef(node.to_bits())
}

/// The node that a space refers to as its pager.
pub(crate) fn node_of_pager(pager: PagerRef) -> Option<Ref<Node>> {
    Ref::from_bits(pager.0)
}

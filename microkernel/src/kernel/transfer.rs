//! Moving a message from one thread to another: registers, a tail in memory, capabilities.
//!
//! Everything that can fail comes first, and each failure belongs to one side: the other is as it
//! was and may try with somebody else. Both sides' memory is resolved before a byte moves.

use super::lookup::Found;
use super::{Kernel, Side, Stop};
use crate::cap::SlotName;
use crate::machine::Machine;
use crate::memory::{FaultAt, Intent, Ref, Span};
use crate::object::Thread;
use libipc::abi::{
    Delivery, Error, Extended, Handle, INLINE_BYTES, MESSAGE_BYTES, MESSAGE_CAPS, MessageKind,
    OpWord, SendCap, SlotFlags, TableSelector,
};

/// Whose fault it is that a message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The sender's.
    Sender(Stop),
    /// The receiver's.
    Receiver(Stop),
}

/// What a receiver learns beside the body.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// What kind of message it is.
    pub kind: MessageKind,
    /// The badge of the grant that the sender used.
    pub badge: u64,
    /// The access mask of its slot.
    pub access: u32,
}

impl Meta {
    /// An answer: the caller knows whom it called.
    pub const ANSWER: Meta = Meta {
        kind: MessageKind::Call,
        badge: 0,
        access: 0,
    };
}

/// Offset of [`Extended::received`].
const RECEIVED_AT: u64 = core::mem::offset_of!(Extended, received) as u64;
/// Size of [`Extended::received`].
const RECEIVED_BYTES: usize = size_of::<Handle>() * MESSAGE_CAPS;

/// A capability on its way.
#[derive(Clone, Copy)]
struct Carried {
    found: Found,
    access: u32,
    flags: SlotFlags,
    moves: bool,
}

impl<M: Machine> Kernel<M> {
    /// Delivers the message in `from`'s registers, or its fault, to `to`, and sets the results
    /// of `to`'s call. The states of both threads are the caller's affair.
    pub(super) fn transfer(
        &mut self,
        from: Ref<Thread>,
        to: Ref<Thread>,
        meta: Meta,
    ) -> Result<(), Trouble> {
        let sender = self.memory.get(from);
        let label = sender.label;
        let (body, length, caps) = match sender.fault() {
            Some(fault) => (fault.to_words(), FAULT_BYTES, 0),
            None => {
                let operation = OpWord(sender.context.operation());
                (*sender.context.body(), operation.length(), operation.caps())
            }
        };
        if length > INLINE_BYTES || caps > 0 {
            self.transfer_memory(from, to, length, caps)?;
        }
        let status = Delivery::message(meta.kind, length, caps, meta.access);
        let context = &mut self.memory.get_mut(to).context;
        *context.body_mut() = body;
        context.set_received(status.0, meta.badge, label);
        Ok(())
    }

    /// The part of a message that does not fit the registers.
    fn transfer_memory(
        &mut self,
        from: Ref<Thread>,
        to: Ref<Thread>,
        length: usize,
        caps: usize,
    ) -> Result<(), Trouble> {
        if length > MESSAGE_BYTES {
            return Err(Trouble::Sender(Error::TooLong.into()));
        }
        if caps > MESSAGE_CAPS {
            return Err(Trouble::Sender(Error::InvalidArgument.into()));
        }
        let tail = length.saturating_sub(INLINE_BYTES);
        let outgoing = self.extended(from).map_err(Trouble::Sender)?;
        let outgoing = outgoing.ok_or(Trouble::Sender(Error::BadAddress.into()))?;
        let carried = self
            .carried(from, &outgoing, caps)
            .map_err(Trouble::Sender)?;
        let incoming = self.extended(to).map_err(Trouble::Receiver)?;
        let incoming = incoming.ok_or(Trouble::Sender(Error::TooLong.into()))?;
        if tail as u64 > incoming.receive_bytes {
            return Err(Trouble::Sender(Error::TooLong.into()));
        }

        let handles_at = self.memory.get(to).context.arguments()[1].wrapping_add(RECEIVED_AT);
        if caps > 0 {
            self.user_span(to, handles_at, RECEIVED_BYTES, Intent::Write)
                .map_err(|at| self.cannot_receive(at))?;
        }
        let target = self
            .user_span(to, incoming.receive, tail, Intent::Write)
            .map_err(|at| self.cannot_receive(at))?;
        let source = self
            .user_span(from, outgoing.send, tail, Intent::Read)
            .map_err(|at| Trouble::Sender(self.stop_to_fault(at, Side::Read)))?;

        let handles = self.put_carried(to, incoming.receive_slots, &carried[..caps])?;
        self.memory.copy_span(&source, &target);
        if caps > 0 {
            self.write_handles(to, handles_at, &handles);
            for carried in carried.iter().take(caps).flatten().filter(|cap| cap.moves) {
                let Found { table, index, .. } = carried.found;
                self.note_garbage();
                // Two moves of one slot close it once. Its page is the table's own by now.
                let _ = self
                    .memory
                    .table_close(table, index, &mut self.garbage.nodes);
            }
        }
        Ok(())
    }

    fn cannot_receive(&mut self, at: FaultAt) -> Trouble {
        Trouble::Receiver(self.stop_to_fault(at, Side::Write))
    }

    /// Looks up what the sender wants to send along.
    fn carried(
        &mut self,
        from: Ref<Thread>,
        outgoing: &Extended,
        caps: usize,
    ) -> Result<[Option<Carried>; MESSAGE_CAPS], Stop> {
        let mut carried = [None; MESSAGE_CAPS];
        for (place, cap) in carried.iter_mut().zip(&outgoing.send_caps).take(caps) {
            let &SendCap {
                handle,
                access,
                options,
            } = cap;
            if !handle.is_some() {
                continue;
            }
            let flags = SlotFlags::from_bits(options as u8).ok_or(Error::InvalidArgument)?;
            // A receiver could not close what came protected and is not wanted.
            if options & !(SendCap::MOVE | 0xff) != 0 || flags.contains(SlotFlags::PROTECT) {
                return Err(Error::InvalidArgument.into());
            }
            let found = self.find_in(from, handle)?;
            let moves = options & SendCap::MOVE != 0;
            if moves {
                if found.flags.contains(SlotFlags::PROTECT) {
                    return Err(Error::AccessDenied.into());
                }
                self.memory.table_own_slot(found.table, found.index)?;
            }
            *place = Some(Carried {
                found,
                access: found.access & access,
                flags,
                moves,
            });
        }
        Ok(carried)
    }

    /// Puts capabilities into the receiver's table: all, or none.
    fn put_carried(
        &mut self,
        to: Ref<Thread>,
        slots: Handle,
        carried: &[Option<Carried>],
    ) -> Result<[Handle; MESSAGE_CAPS], Trouble> {
        let mut handles = [Handle::NONE; MESSAGE_CAPS];
        if carried.is_empty() {
            return Ok(handles);
        }
        let failed = |error: Error| Trouble::Receiver(error.into());
        let (selector, from) = match slots.is_some() {
            true => (
                slots.table().ok_or(failed(Error::InvalidArgument))?,
                slots.index(),
            ),
            false => (TableSelector::Private, 0),
        };
        let table = self.memory.get(to).table(selector);
        let table = table.ok_or(failed(Error::InvalidArgument))?;
        if self.memory.get(table).has_ended() {
            return Err(failed(Error::Gone));
        }
        let mut put = [None::<SlotName>; MESSAGE_CAPS];
        for (place, carried) in carried.iter().enumerate() {
            let Some(cap) = carried else { continue };
            let slot = self
                .memory
                .table_put(table, from, cap.found.node, cap.access, cap.flags);
            match slot {
                Ok(name) => {
                    put[place] = Some(name);
                    handles[place] = name.handle(selector);
                }
                Err(error) => {
                    self.note_garbage();
                    for name in put.iter().flatten() {
                        // The sender's slots keep the nodes; the page is the table's own.
                        let _ = self
                            .memory
                            .table_close(table, name.index, &mut self.garbage.nodes);
                    }
                    return Err(failed(error));
                }
            }
        }
        Ok(handles)
    }

    /// Tells the receiver where its capabilities are.
    fn write_handles(&mut self, to: Ref<Thread>, address: u64, handles: &[Handle; MESSAGE_CAPS]) {
        let mut bytes = [0; RECEIVED_BYTES];
        for (place, handle) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(handles) {
            *place = handle.0.to_le_bytes();
        }
        // It was resolved a moment ago, and nothing has changed since that could take it away.
        if let Ok(span) = self.user_span(to, address, RECEIVED_BYTES, Intent::Write) {
            self.memory.write_span(&span, &bytes);
        }
    }

    /// Resolves at most a page's length of a thread's memory.
    pub(super) fn user_span(
        &mut self,
        thread: Ref<Thread>,
        address: u64,
        length: usize,
        intent: Intent,
    ) -> Result<Span, FaultAt> {
        if length == 0 {
            return Ok(Span::EMPTY);
        }
        let space = self.memory.get(thread).space;
        let space = space.expect("a thread that lives has a space");
        self.memory.span(space, address, length, intent)
    }

    /// The memory part of a thread's message call, if it has one.
    pub(super) fn extended(&mut self, thread: Ref<Thread>) -> Result<Option<Extended>, Stop> {
        let address = self.memory.get(thread).context.arguments()[1];
        if address == 0 {
            return Ok(None);
        }
        let mut bytes = [0; size_of::<Extended>()];
        let span = self
            .user_span(thread, address, bytes.len(), Intent::Read)
            .map_err(|at| self.stop_to_fault(at, Side::Read))?;
        self.memory.read_span(&span, &mut bytes);
        let word = |at: usize| {
            let bytes = bytes[at..].first_chunk().expect("within the structure");
            u64::from_le_bytes(*bytes)
        };
        let send_cap = |index: usize| {
            let at = 40 + index * size_of::<SendCap>();
            SendCap {
                handle: Handle(word(at)),
                access: word(at + 8) as u32,
                options: (word(at + 8) >> 32) as u32,
            }
        };
        Ok(Some(Extended {
            deadline: word(0),
            send: word(8),
            receive: word(16),
            receive_bytes: word(24),
            receive_slots: Handle(word(32)),
            send_caps: core::array::from_fn(send_cap),
            received: [Handle::NONE; MESSAGE_CAPS],
        }))
    }
}

/// Length of a fault message's body.
const FAULT_BYTES: usize = size_of::<libipc::abi::FaultMessage>();

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Extended, send) == 8 && offset_of!(Extended, receive) == 16);
    assert!(offset_of!(Extended, receive_slots) == 32 && offset_of!(Extended, send_caps) == 40);
};

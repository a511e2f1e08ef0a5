//! Moving a message from one thread to another: registers, a tail in memory, capabilities.
//!
//! Everything that can fail comes first, and each failure belongs to one side: the other is as it
//! was and may try with somebody else. Both sides' memory is resolved before a byte moves.

use super::{Kernel, Side, Stop};
use crate::cap::{CapTable, Node};
use crate::machine::Machine;
use crate::memory::{FaultAt, Intent, Ref, SPAN_BYTES, Space, Span};
use crate::object::thread::Room;
use crate::object::{State, Thread};
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

/// What passes on the short path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    /// A call, whose sender will receive the answer.
    Call,
    /// An answer.
    Answer,
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

/// Offset of [`Extended::send_caps`].
const SEND_CAPS_AT: u64 = core::mem::offset_of!(Extended, send_caps) as u64;

/// The memory part of a message call but for the capabilities in it, see [`Extended`].
#[derive(Clone, Copy)]
pub(super) struct MemoryPart {
    /// When the call stops waiting, if it has a deadline.
    pub(super) deadline: u64,
    /// Where the rest of an outgoing body is.
    pub(super) send: u64,
    /// The room for an incoming message.
    pub(super) room: Room,
}

/// A capability on its way.
struct Carried {
    /// Which of the message's it is.
    place: usize,
    node: Ref<Node>,
    access: u32,
    flags: SlotFlags,
    /// The slot that it leaves.
    leaves: Option<(Ref<CapTable>, u32)>,
}

/// What a message carries.
type Cargo = heapless::Vec<Carried, MESSAGE_CAPS>;

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
            let outgoing = self.memory_part(from).map_err(Trouble::Sender)?;
            let outgoing = outgoing.ok_or(Trouble::Sender(Error::BadAddress.into()))?;
            self.transfer_memory(from, to, &outgoing, length, caps)?;
        }
        let status = Delivery::message(meta.kind, length, caps, meta.access);
        let context = &mut self.memory.get_mut(to).context;
        *context.body_mut() = body;
        context.set_received(status.0, meta.badge, label);
        Ok(())
    }

    /// The part of a message that does not fit the registers.
    #[inline(always)]
    fn transfer_memory(
        &mut self,
        from: Ref<Thread>,
        to: Ref<Thread>,
        outgoing: &MemoryPart,
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
        let mut cargo = Cargo::new();
        if caps > 0 {
            self.load(from, caps, &mut cargo).map_err(Trouble::Sender)?;
        }
        let room = self.room_of(to).map_err(Trouble::Receiver)?;
        let room = room.ok_or(Trouble::Sender(Error::TooLong.into()))?;
        if tail as u64 > room.bytes {
            return Err(Trouble::Sender(Error::TooLong.into()));
        }

        let handles_at = self.memory.get(to).context.arguments()[1].wrapping_add(RECEIVED_AT);
        let handles_bytes = if caps > 0 { RECEIVED_BYTES } else { 0 };
        let handles_to = self
            .user_span(to, handles_at, handles_bytes, Intent::Write)
            .map_err(|at| self.cannot_receive(at))?;
        let target = self
            .user_span(to, room.address, tail, Intent::Write)
            .map_err(|at| self.cannot_receive(at))?;
        let source = self
            .user_span(from, outgoing.send, tail, Intent::Read)
            .map_err(|at| Trouble::Sender(self.stop_to_fault(at, Side::Read)))?;

        if caps == 0 {
            self.memory.copy_span(&source, &target);
            return Ok(());
        }
        let mut handles = [Handle::NONE.0; MESSAGE_CAPS];
        self.unload(to, room.slots, &cargo, &mut handles)?;
        self.memory.copy_span(&source, &target);
        self.memory.write_span_words(&handles_to, handles);
        Ok(())
    }

    /// What a message of the short path has beside registers. Returns its length and how many
    /// capabilities it brings; `None` if the long path has to do it, and nothing has changed then.
    #[inline(never)]
    pub(super) fn transfer_at_once(
        &mut self,
        from: Ref<Thread>,
        to: Ref<Thread>,
        operation: OpWord,
        kind: Passing,
    ) -> Option<(usize, usize)> {
        let outgoing = self.memory_part(from).ok()??;
        if kind == Passing::Call {
            self.prepare_room(from, &outgoing).ok()?;
        }
        let (length, caps) = (operation.length(), operation.caps());
        if length > INLINE_BYTES || caps > 0 {
            self.transfer_memory(from, to, &outgoing, length, caps)
                .ok()?;
        }
        Some((length, caps))
    }

    /// Sees to it that an answer finds its room: a pager is asked now, not when the server answers.
    #[inline(always)]
    pub(super) fn prepare_room(
        &mut self,
        thread: Ref<Thread>,
        memory: &MemoryPart,
    ) -> Result<(), Stop> {
        let Room { address, bytes, .. } = memory.room;
        let length = bytes.min(SPAN_BYTES as u64) as usize;
        self.user_span(thread, address, length, Intent::Write)
            .map_err(|at| self.stop_to_fault(at, Side::Write))?;
        self.memory.get_mut(thread).room = memory.room;
        Ok(())
    }

    #[cold]
    fn cannot_receive(&mut self, at: FaultAt) -> Trouble {
        Trouble::Receiver(self.stop_to_fault(at, Side::Write))
    }

    /// Looks up what the sender wants to send along.
    fn load(&mut self, from: Ref<Thread>, caps: usize, cargo: &mut Cargo) -> Result<(), Stop> {
        let address = self.memory.get(from).context.arguments()[1].wrapping_add(SEND_CAPS_AT);
        let list = self
            .user_span(from, address, caps * size_of::<SendCap>(), Intent::Read)
            .map_err(|at| self.stop_to_fault(at, Side::Read))?;
        for place in 0..caps {
            let at = place * size_of::<SendCap>();
            let [handle, terms] = self.memory.read_span_words(&list, at);
            let (handle, access, options) = (Handle(handle), terms as u32, (terms >> 32) as u32);
            if !handle.is_some() {
                continue;
            }
            let flags = SlotFlags::from_bits(options as u8).ok_or(Error::InvalidArgument)?;
            // A receiver could not close what came protected and is not wanted.
            if options & !(SendCap::MOVE | 0xff) != 0 || flags.contains(SlotFlags::PROTECT) {
                return Err(Error::InvalidArgument.into());
            }
            let (table, slot) = self.look_up(from, handle).ok_or(Error::BadHandle)?;
            if !self.memory.get(slot.node).is_alive() {
                return Err(Error::BadHandle.into());
            }
            let leaves = (options & SendCap::MOVE != 0).then_some((table, handle.index()));
            if leaves.is_some() {
                if slot.flags.contains(SlotFlags::PROTECT) {
                    return Err(Error::AccessDenied.into());
                }
                self.memory.table_own_slot(table, handle.index())?;
            }
            let carried = Carried {
                place,
                node: slot.node,
                access: slot.access & access,
                flags,
                leaves,
            };
            let loaded = cargo.push(carried);
            debug_assert!(loaded.is_ok(), "no more than a message has room for");
        }
        Ok(())
    }

    /// Puts capabilities into the receiver's table, all or none, and takes those that move out of
    /// the sender's. The receiver's handles are as it will find them in its memory.
    fn unload(
        &mut self,
        to: Ref<Thread>,
        slots: Handle,
        cargo: &Cargo,
        handles: &mut [u64; MESSAGE_CAPS],
    ) -> Result<(), Trouble> {
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
        for carried in cargo {
            let &Carried {
                node,
                access,
                flags,
                ..
            } = carried;
            match self.memory.table_put(table, from, node, access, flags) {
                Ok(name) => handles[carried.place] = name.handle(selector).0,
                Err(error) => {
                    let put = handles.iter().map(|&handle| Handle(handle));
                    for handle in put.filter(|handle| handle.is_some()) {
                        self.take_out(table, handle.index());
                    }
                    return Err(failed(error));
                }
            }
        }
        for (table, index) in cargo.iter().filter_map(|carried| carried.leaves) {
            self.take_out(table, index);
        }
        Ok(())
    }

    /// What was to move with a message that its receiver cannot take is gone, as if it had got there
    /// and been closed: who answers has handed it over, whatever the caller does.
    #[cold]
    pub(super) fn lose_cargo(&mut self, from: Ref<Thread>) {
        let caps = OpWord(self.memory.get(from).context.operation()).caps();
        let mut cargo = Cargo::new();
        // What cannot be loaded was not handed over.
        if caps > MESSAGE_CAPS || self.load(from, caps, &mut cargo).is_err() {
            return;
        }
        for (table, index) in cargo.iter().filter_map(|carried| carried.leaves) {
            if let Some(node) = self.memory.table_take_out(table, index) {
                self.drop_slot(node);
            }
        }
    }

    /// Frees a slot whose page is its table's own, and whose node another slot names: it is not the
    /// last. Two moves of one slot free it once.
    fn take_out(&mut self, table: Ref<CapTable>, index: u32) {
        if let Some(node) = self.memory.table_take_out(table, index) {
            let last = self.memory.node_drop(node);
            debug_assert!(!last, "the other side's slot names it");
        }
    }

    /// Resolves at most a page's length of a thread's memory.
    #[inline(always)]
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
        self.memory
            .span(self.space_of(thread), address, length, intent)
    }

    #[inline(always)]
    fn space_of(&self, thread: Ref<Thread>) -> Ref<Space> {
        let space = self.memory.get(thread).space;
        space.expect("a thread that lives has a space")
    }

    /// The memory part of a thread's message call, if it has one.
    #[inline(always)]
    pub(super) fn memory_part(&mut self, thread: Ref<Thread>) -> Result<Option<MemoryPart>, Stop> {
        let address = self.memory.get(thread).context.arguments()[1];
        if address == 0 {
            return Ok(None);
        }
        let space = self.space_of(thread);
        let [deadline, send, address, bytes, slots] = self
            .memory
            .read_words(space, address)
            .map_err(|at| self.stop_to_fault(at, Side::Read))?;
        Ok(Some(MemoryPart {
            deadline,
            send,
            room: Room {
                address,
                bytes,
                slots: Handle(slots),
            },
        }))
    }

    /// Where a thread that waits takes what does not fit the registers.
    #[inline(always)]
    fn room_of(&mut self, thread: Ref<Thread>) -> Result<Option<Room>, Stop> {
        let entry = self.memory.get(thread);
        if entry.state != State::Answer {
            return Ok(self.memory_part(thread)?.map(|part| part.room));
        }
        Ok((entry.context.arguments()[1] != 0).then_some(entry.room))
    }
}

/// Length of a fault message's body.
const FAULT_BYTES: usize = size_of::<libipc::abi::FaultMessage>();

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Extended, deadline) == 0 && offset_of!(Extended, send) == 8);
    assert!(offset_of!(Extended, receive) == 16 && offset_of!(Extended, receive_bytes) == 24);
    assert!(offset_of!(Extended, receive_slots) == 32);
    assert!(offset_of!(SendCap, handle) == 0 && offset_of!(SendCap, access) == 8);
    assert!(offset_of!(SendCap, options) == 12 && size_of::<SendCap>() == 16);
};

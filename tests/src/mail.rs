//! Messages as the kernel moves them, without a protocol.
//!
//! [`Mail`] is a buffer with room for the longest message; its methods are the message calls. Unlike
//! `libipc::wire` it sends any bytes to anything and shows all that the kernel says about what came.

use libipc::abi::{
    Delivery, Extended, FaultMessage, INLINE_BYTES, IpcCall, IpcFlags, MESSAGE_BYTES, MESSAGE_CAPS,
    MessageKind, OpWord, REPLY_WORD, SendCap, TAIL_BYTES,
};
use libipc::{Error, Handle};
use runtime::syscall;

/// A message that came in, and how to wait for the next.
pub struct Mail {
    bytes: [u8; MESSAGE_BYTES],
    length: usize,
    caps: [Handle; MESSAGE_CAPS],
    cap_count: usize,
    /// What kind of message it was.
    pub kind: Option<MessageKind>,
    /// Badge of the capability that the sender used.
    pub badge: u64,
    /// Label of the sending thread.
    pub label: u64,
    /// Access mask of the capability that the sender used.
    pub access: u32,
    /// When to give up, nanoseconds since boot; `None` waits for ever.
    pub deadline: Option<u64>,
    /// Further flags of the next call.
    pub flags: IpcFlags,
    /// Where incoming capabilities go.
    pub slots: Handle,
    /// How many bytes behind the inline part may come.
    pub room: usize,
    /// The reply that the next call names.
    pub names: Option<Handle>,
}

impl Default for Mail {
    fn default() -> Mail {
        Mail::new()
    }
}

impl Mail {
    /// An empty buffer with room for everything.
    pub const fn new() -> Mail {
        Mail {
            bytes: [0; MESSAGE_BYTES],
            length: 0,
            caps: [Handle::NONE; MESSAGE_CAPS],
            cap_count: 0,
            kind: None,
            badge: 0,
            label: 0,
            access: 0,
            deadline: None,
            flags: IpcFlags::empty(),
            slots: Handle::NONE,
            room: TAIL_BYTES,
            names: None,
        }
    }

    /// Sets a deadline this many nanoseconds from now.
    pub fn within(mut self, nanoseconds: u64) -> Result<Mail, Error> {
        self.deadline = Some(crate::after(nanoseconds)?);
        Ok(self)
    }

    /// The bytes that came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The capabilities that came.
    pub fn caps(&self) -> &[Handle] {
        &self.caps[..self.cap_count]
    }

    /// Word `index` of the inline part.
    pub fn word(&self, index: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[index * 8..index * 8 + 8]);
        u64::from_le_bytes(word)
    }

    /// The fault that the message reports.
    pub fn fault(&self) -> Option<FaultMessage> {
        let words = core::array::from_fn(|index| self.word(index));
        (self.kind == Some(MessageKind::Fault))
            .then(|| FaultMessage::from_words(words))
            .flatten()
    }

    /// Sends a call and waits for the answer.
    pub fn call(&mut self, endpoint: Handle, bytes: &[u8], caps: &[SendCap]) -> Result<(), Error> {
        self.exchange(IpcCall::Call, endpoint, bytes, caps)
    }

    /// Sends without an answer.
    pub fn send(&mut self, endpoint: Handle, bytes: &[u8], caps: &[SendCap]) -> Result<(), Error> {
        self.exchange(IpcCall::Send, endpoint, bytes, caps)
    }

    /// Waits for a message.
    pub fn receive(&mut self, receiver: Handle) -> Result<(), Error> {
        self.exchange(IpcCall::Receive, receiver, &[], &[])
    }

    /// Waits for a message; `reply` keeps the last received call.
    pub fn keep_receive(&mut self, receiver: Handle, reply: Handle) -> Result<(), Error> {
        self.names = Some(reply);
        self.receive(receiver)
    }

    /// Answers the call that `reply` keeps and waits for the next message.
    pub fn reply_kept_receive(
        &mut self,
        receiver: Handle,
        reply: Handle,
        bytes: &[u8],
    ) -> Result<(), Error> {
        self.names = Some(reply);
        self.reply_receive(receiver, bytes, &[])
    }

    /// Answers the last received call, or a kept one.
    pub fn reply(&mut self, reply: Handle, bytes: &[u8], caps: &[SendCap]) -> Result<(), Error> {
        self.exchange(IpcCall::Reply, reply, bytes, caps)
    }

    /// Answers the last received call and waits for the next message.
    pub fn reply_receive(
        &mut self,
        receiver: Handle,
        bytes: &[u8],
        caps: &[SendCap],
    ) -> Result<(), Error> {
        self.exchange(IpcCall::ReplyReceive, receiver, bytes, caps)
    }

    /// Closes the capabilities that came.
    pub fn close_caps(&mut self) -> Result<(), Error> {
        for handle in &self.caps[..core::mem::take(&mut self.cap_count)] {
            syscall::cap_close(*handle)?;
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        call: IpcCall,
        handle: Handle,
        bytes: &[u8],
        caps: &[SendCap],
    ) -> Result<(), Error> {
        if bytes.len() > MESSAGE_BYTES || caps.len() > MESSAGE_CAPS {
            return Err(Error::TooLong);
        }
        let mut inline = [0; INLINE_BYTES];
        let (front, tail) = bytes.split_at(bytes.len().min(INLINE_BYTES));
        inline[..front.len()].copy_from_slice(front);
        let (mine, _) = inline.as_chunks::<8>();
        let mut words = core::array::from_fn(|index| u64::from_le_bytes(mine[index]));
        let mut flags = self.flags;
        if let Some(reply) = self.names.take() {
            flags |= IpcFlags::REPLY;
            words[REPLY_WORD] = reply.0;
        }
        if self.deadline.is_some() {
            flags |= IpcFlags::DEADLINE;
        }
        let mut extended = Extended {
            deadline: self.deadline.unwrap_or_default(),
            send: tail.as_ptr() as u64,
            receive: self.bytes[INLINE_BYTES..].as_mut_ptr() as u64,
            receive_bytes: self.room.min(TAIL_BYTES) as u64,
            receive_slots: self.slots,
            ..Extended::EMPTY
        };
        extended.send_caps[..caps.len()].copy_from_slice(caps);
        let op = OpWord::new(call, flags, bytes.len(), caps.len());
        // SAFETY: the send range is `tail`, the receive range lies within `self.bytes`; both are
        // borrowed until the call returns.
        let incoming = unsafe { syscall::message(op, handle, &mut extended, words) };
        self.take(incoming.delivery)?;
        for (place, word) in self.bytes.chunks_exact_mut(8).zip(incoming.body) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.badge = incoming.badge;
        self.label = incoming.label;
        self.caps = extended.received;
        Ok(())
    }

    fn take(&mut self, delivery: Delivery) -> Result<(), Error> {
        if let Some(error) = delivery.error() {
            return Err(error);
        }
        self.length = delivery.length().min(MESSAGE_BYTES);
        self.cap_count = delivery.caps().min(MESSAGE_CAPS);
        self.kind = delivery.kind();
        self.access = delivery.access();
        Ok(())
    }
}

//! How a request becomes bytes, and how a client reaches a server.
//!
//! A request is the postcard encoding of the method's number followed by its arguments; an answer
//! is that of `Result<T, Refusal<E>>`. [`Transport`] is the one thing that differs between a client
//! in its own address space ([`Connection`]: a capability and the kernel) and a host test (the
//! server's dispatcher, called directly): encoder, decoder and stubs are the same.

use core::mem::MaybeUninit;

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::abi::{Error, Handle, INLINE_BYTES, MESSAGE_BYTES, MESSAGE_CAPS, SendCap, TAIL_BYTES};

/// A message body: an inline part that travels in registers and up to `TAIL` bytes behind it.
///
/// The tail comes last, so that a short message in a long body touches no further page of the stack.
///
/// Invariant: `length <= INLINE_BYTES + TAIL`; the inline part and the first `length` bytes are
/// initialised.
#[repr(C, align(8))]
pub struct Body<const TAIL: usize> {
    length: usize,
    inline: [u8; INLINE_BYTES],
    tail: [MaybeUninit<u8>; TAIL],
}

/// A body that fits the registers: for the calls whose speed counts.
pub type ShortBody = Body<0>;
/// A body of any length that one message can have.
pub type LongBody = Body<TAIL_BYTES>;

impl<const TAIL: usize> Body<TAIL> {
    const CAPACITY: usize = INLINE_BYTES + TAIL;
    /// Where the bytes begin.
    const START: usize = core::mem::offset_of!(Body<TAIL>, inline);

    /// An empty body.
    #[inline(always)]
    pub const fn new() -> Self {
        Body {
            length: 0,
            inline: [0; INLINE_BYTES],
            tail: [const { MaybeUninit::uninit() }; TAIL],
        }
    }

    /// The bytes, inline part and tail in one piece.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: inline and tail follow each other without padding (repr(C), both of bytes), and
        // the type's invariant says that the first `length` bytes are initialised.
        unsafe {
            let start = (&raw const *self).cast::<u8>().add(Self::START);
            core::slice::from_raw_parts(start, self.length)
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Removes everything.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.inline.fill(0);
        self.length = 0;
    }

    /// The inline part as the eight registers that carry it; bytes past the end are 0.
    #[inline(always)]
    pub fn words(&self) -> [u64; 8] {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(self.inline.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }

    /// Address of the tail, for the kernel to read or fill.
    pub fn tail_address(&mut self) -> u64 {
        self.tail.as_mut_ptr() as u64
    }

    /// Takes over a message that the kernel delivered.
    ///
    /// # Safety
    /// The kernel has filled the tail with the bytes of the body behind the inline part.
    #[inline(always)]
    pub unsafe fn set_delivered(&mut self, words: [u64; 8], length: usize) {
        for (word, bytes) in words.iter().zip(self.inline.as_chunks_mut::<8>().0) {
            *bytes = word.to_le_bytes();
        }
        self.length = length.min(Self::CAPACITY);
    }

    /// Appends `bytes`; false, and no change, if they do not fit.
    #[inline(always)]
    pub fn extend(&mut self, bytes: &[u8]) -> bool {
        let Some(end) = self.length.checked_add(bytes.len()) else {
            return false;
        };
        if end > Self::CAPACITY {
            return false;
        }
        match (bytes, self.inline.get_mut(self.length..end)) {
            // Small numbers, which most bodies are made of, are one byte or two: too little for a copy.
            ([byte], Some([place])) => *place = *byte,
            ([low, high], Some([first, second])) => (*first, *second) = (*low, *high),
            // SAFETY: the destination lies within this value (checked above), and `bytes` cannot
            // overlap it because `self` is borrowed exclusively.
            _ => unsafe {
                let start = (&raw mut *self).cast::<u8>().add(Self::START + self.length);
                core::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
            },
        }
        self.length = end;
        true
    }
}

impl<const TAIL: usize> Default for Body<TAIL> {
    fn default() -> Self {
        Body::new()
    }
}

struct Sink<'b, const TAIL: usize>(&'b mut Body<TAIL>);

impl<const TAIL: usize> Flavor for Sink<'_, TAIL> {
    type Output = ();

    #[inline(always)]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    #[inline(always)]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if self.0.extend(bytes) {
            Ok(())
        } else {
            Err(postcard::Error::SerializeBufferFull)
        }
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends the encoding of `value`; `TooLong` if it does not fit.
#[inline(always)]
pub fn encode<T: Serialize, const TAIL: usize>(
    value: &T,
    body: &mut Body<TAIL>,
) -> Result<(), Error> {
    postcard::serialize_with_flavor(value, Sink(body)).map_err(|_| Error::TooLong)
}

/// Bytes that are not copied: a method's argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes<'m>(#[serde(borrow, with = "bytes_in_one_piece")] pub &'m [u8]);

mod bytes_in_one_piece {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &&[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub fn deserialize<'m, D: Deserializer<'m>>(from: D) -> Result<&'m [u8], D::Error> {
        <&[u8]>::deserialize(from)
    }
}

/// Words that are seldom small numbers, such as addresses: eight bytes each, in one piece. As numbers they
/// would be as long, and each byte of them a step on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words<const N: usize>(pub [u64; N]);

impl<const N: usize> Serialize for Words<N> {
    #[inline(always)]
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0.map(u64::to_le_bytes).as_flattened())
    }
}

impl<'de, const N: usize> Deserialize<'de> for Words<N> {
    #[inline(always)]
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Words<N>, D::Error> {
        let bytes = <&[u8]>::deserialize(from)?;
        match bytes.as_chunks() {
            (words, []) if words.len() == N => {
                let mut words = words.iter();
                let next = |_| words.next().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                Ok(Words(core::array::from_fn(next)))
            }
            _ => Err(serde::de::Error::custom("not as many words")),
        }
    }
}

/// An address as a method's argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Words<1>", into = "Words<1>")]
pub struct Address(pub u64);

impl From<Words<1>> for Address {
    fn from(Words([address]): Words<1>) -> Address {
        Address(address)
    }
}

impl From<Address> for Words<1> {
    fn from(Address(address): Address) -> Words<1> {
        Words([address])
    }
}

/// Bytes that an answer brings along, at most one page of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub heapless::Vec<u8, { TAIL_BYTES }>);

impl Blob {
    /// A copy of `bytes`; `None` if they are more than a page.
    pub fn from_slice(bytes: &[u8]) -> Option<Blob> {
        heapless::Vec::from_slice(bytes).ok().map(Blob)
    }
}

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Blob, D::Error> {
        let bytes = <&[u8]>::deserialize(from)?;
        Blob::from_slice(bytes).ok_or_else(|| serde::de::Error::custom("more than a page"))
    }
}

/// Why a server did not carry out a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal<E> {
    /// The bytes are no request of this protocol, or the capabilities are not those it takes.
    Malformed,
    /// The request was understood and refused.
    Error(E),
}

/// Why a client's call brought no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError<E> {
    /// The message did not make it there and back.
    Kernel(Error),
    /// The server refused.
    Refused(E),
    /// The two sides do not speak the same protocol.
    Protocol,
}

impl<E> From<Error> for CallError<E> {
    fn from(error: Error) -> Self {
        CallError::Kernel(error)
    }
}

/// Capabilities that came with a message.
pub type Received = heapless::Vec<Handle, MESSAGE_CAPS>;
/// Capabilities to send with a message.
pub type Sent = heapless::Vec<SendCap, MESSAGE_CAPS>;

/// The way from a client stub to a server.
pub trait Transport {
    /// Sends `request` with `caps` and waits for the answer. `expects` is how many capabilities
    /// the answer may bring.
    fn call<const OUT: usize, const IN: usize>(
        &mut self,
        request: &mut Body<OUT>,
        caps: &[SendCap],
        answer: &mut Body<IN>,
        received: &mut Received,
        expects: usize,
    ) -> Result<(), Error>;
}

impl<T: Transport> Transport for &mut T {
    fn call<const OUT: usize, const IN: usize>(
        &mut self,
        request: &mut Body<OUT>,
        caps: &[SendCap],
        answer: &mut Body<IN>,
        received: &mut Received,
        expects: usize,
    ) -> Result<(), Error> {
        (**self).call(request, caps, answer, received, expects)
    }
}

/// Encodes a request, calls, decodes the answer. What the client stubs are made of.
#[inline(always)]
pub fn request<T, E, A, const OUT: usize, const IN: usize>(
    transport: &mut impl Transport,
    method: u16,
    arguments: &A,
    caps: &[SendCap],
    received: &mut Received,
    expects: usize,
) -> Result<T, CallError<E>>
where
    T: DeserializeOwned,
    E: DeserializeOwned,
    A: Serialize,
{
    let mut out = Body::<OUT>::new();
    encode(&method, &mut out)?;
    encode(arguments, &mut out)?;
    let mut answer = Body::<IN>::new();
    transport.call(&mut out, caps, &mut answer, received, expects)?;
    decode_answer(answer.bytes())
}

/// Decodes what [`answer`] encoded.
#[inline(always)]
pub fn decode_answer<T: DeserializeOwned, E: DeserializeOwned>(
    bytes: &[u8],
) -> Result<T, CallError<E>> {
    match postcard::from_bytes::<Result<T, Refusal<E>>>(bytes) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Refusal::Error(error))) => Err(CallError::Refused(error)),
        Ok(Err(Refusal::Malformed)) | Err(_) => Err(CallError::Protocol),
    }
}

/// Encodes an answer. One that does not fit becomes `Refusal::Malformed`: a protocol table that
/// lets this happen is wrong, and its tests say so.
pub fn answer<T: Serialize, E: Serialize, const TAIL: usize>(
    result: Result<T, Refusal<E>>,
    body: &mut Body<TAIL>,
) {
    if encode(&result, body).is_err() {
        body.clear();
        let malformed: Result<(), Refusal<E>> = Err(Refusal::Malformed);
        let _ = encode(&malformed, body);
    }
}

/// Who sent a request, and the capabilities on both ways.
#[derive(Debug)]
pub struct Caller {
    /// Label of the sending thread.
    pub label: u64,
    /// Badge of the capability that it used.
    pub badge: u64,
    /// Access mask of that capability.
    pub access: u32,
    /// Capabilities that came along. What a handler does not [`take`](Caller::take) is closed.
    pub received: Received,
    /// Capabilities that go back with an answer given now.
    pub gives: Sent,
}

impl Caller {
    /// A caller that sent no capabilities.
    pub fn new(label: u64, badge: u64, access: u32) -> Caller {
        Caller {
            label,
            badge,
            access,
            received: Received::new(),
            gives: Sent::new(),
        }
    }

    /// Makes this the caller of the next message, which sent no capabilities.
    #[inline(always)]
    pub fn begin(&mut self, label: u64, badge: u64, access: u32) {
        (self.label, self.badge, self.access) = (label, badge, access);
        self.received.clear();
        self.gives.clear();
    }

    /// Takes over received capability `index`; [`Handle::NONE`] if it is not there or was taken.
    pub fn take(&mut self, index: usize) -> Handle {
        self.received.get_mut(index).map_or(Handle::NONE, |handle| {
            core::mem::replace(handle, Handle::NONE)
        })
    }

    /// Gives a capability back with the answer; a fifth one is dropped.
    pub fn give(&mut self, cap: SendCap) {
        let _ = self.gives.push(cap);
    }
}

/// A call that is kept, by the reply that keeps it: whoever has it answers the call, or gives it up,
/// once.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Kept(Handle);

impl Kept {
    /// The call that is, or is to be, kept by a reply.
    pub const fn by(reply: Handle) -> Kept {
        Kept(reply)
    }

    /// The reply, for whoever answers the call or gives it up.
    pub const fn into_reply(self) -> Handle {
        self.0
    }
}

/// What a handler says: an answer now, or an answer that it still owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The caller goes on with this.
    Now(T),
    /// The handler keeps the call and will answer it, once ([`Kept`]).
    Later,
}

/// What the dispatcher says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The answer body is ready to be sent.
    Answered,
    /// The reply is owed.
    Owed,
}

/// The arguments of a request and the bytes that are left over.
pub fn decode_arguments<'m, A: Deserialize<'m>>(
    bytes: &'m [u8],
) -> postcard::Result<(A, &'m [u8])> {
    postcard::take_from_bytes(bytes)
}

/// Encodes what a handler said.
#[inline(always)]
pub fn finish<T: Serialize, E: Serialize, const TAIL: usize>(
    result: Result<Answer<T>, E>,
    body: &mut Body<TAIL>,
) -> Served {
    match result {
        Ok(Answer::Later) => return Served::Owed,
        Ok(Answer::Now(value)) => answer::<T, E, TAIL>(Ok(value), body),
        Err(error) => answer::<T, E, TAIL>(Err(Refusal::Error(error)), body),
    }
    Served::Answered
}

/// The method number and the encoded arguments; `None` if the bytes hold no number.
pub fn split_request(bytes: &[u8]) -> Option<(u16, &[u8])> {
    postcard::take_from_bytes(bytes).ok()
}

const _: () = assert!(MESSAGE_BYTES <= u16::MAX as usize);

#[cfg(target_arch = "x86_64")]
pub use connection::Connection;

#[cfg(target_arch = "x86_64")]
mod connection {
    use super::*;
    use crate::abi::{Extended, IpcCall, IpcFlags, OpWord};
    use crate::stub;

    /// A server's endpoint as a program reaches it.
    #[derive(Clone, Copy, Debug)]
    pub struct Connection {
        /// A sender.
        pub endpoint: Handle,
        /// Where received capabilities go, see [`Extended::receive_slots`].
        pub receive_slots: Handle,
        /// Nanoseconds since boot after which a call is given up; `NEVER` waits.
        pub deadline: u64,
        /// Further flags of the call.
        pub flags: IpcFlags,
    }

    impl Connection {
        /// A connection that waits for ever and puts capabilities into the private table.
        pub const fn new(endpoint: Handle) -> Connection {
            Connection {
                endpoint,
                receive_slots: Handle::NONE,
                deadline: crate::abi::NEVER,
                flags: IpcFlags::empty(),
            }
        }
    }

    impl Transport for Connection {
        #[inline(always)]
        fn call<const OUT: usize, const IN: usize>(
            &mut self,
            request: &mut Body<OUT>,
            caps: &[SendCap],
            answer: &mut Body<IN>,
            received: &mut Received,
            expects: usize,
        ) -> Result<(), Error> {
            if caps.len() > MESSAGE_CAPS {
                return Err(Error::TooLong);
            }
            let mut flags = self.flags;
            // A request that fits the registers travels in them, however long it might have been.
            let plain = request.len() <= INLINE_BYTES
                && IN == 0
                && caps.is_empty()
                && expects == 0
                && self.deadline == crate::abi::NEVER;
            let incoming = if plain {
                let op = OpWord::new(IpcCall::Call, flags, request.len(), 0);
                // SAFETY: no memory part, and both bodies fit the registers.
                unsafe { stub::message(op, self.endpoint, core::ptr::null_mut(), request.words()) }
            } else {
                let mut extended = Extended {
                    deadline: self.deadline,
                    send: request.tail_address(),
                    receive: answer.tail_address(),
                    receive_bytes: IN as u64,
                    receive_slots: self.receive_slots,
                    ..Extended::EMPTY
                };
                if self.deadline != crate::abi::NEVER {
                    flags |= IpcFlags::DEADLINE;
                }
                extended.send_caps[..caps.len()].copy_from_slice(caps);
                let op = OpWord::new(IpcCall::Call, flags, request.len(), caps.len());
                // SAFETY: `send` and `receive` are the tails of two bodies that live until the
                // call returns, with the capacity given.
                let incoming =
                    unsafe { stub::message(op, self.endpoint, &mut extended, request.words()) };
                if incoming.delivery.error().is_none() {
                    for handle in extended.received.iter().take(incoming.delivery.caps()) {
                        let _ = received.push(*handle);
                    }
                }
                incoming
            };
            if let Some(error) = incoming.delivery.error() {
                return Err(error);
            }
            // SAFETY: the kernel filled the tail up to the delivered length.
            unsafe { answer.set_delivered(incoming.body, incoming.delivery.length()) };
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_keeps_bytes_across_the_border_of_its_inline_part() {
        let mut body = LongBody::new();
        let bytes: std::vec::Vec<u8> = (0..200).collect();
        assert!(body.extend(&bytes[..50]) && body.extend(&bytes[50..]));
        assert_eq!(body.bytes(), bytes);
        assert_eq!(
            body.words()[1],
            u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15])
        );
    }

    #[test]
    fn a_full_body_refuses_more_and_keeps_what_it_has() {
        let mut body = ShortBody::new();
        assert!(body.extend(&[7; 60]));
        assert!(!body.extend(&[8; 5]));
        assert_eq!(body.bytes(), [7; 60]);
        assert_eq!(encode(&Bytes(&[1; 10]), &mut body), Err(Error::TooLong));
    }

    #[test]
    fn a_page_of_bytes_fits_an_answer() {
        let blob = Blob::from_slice(&[0xa5; TAIL_BYTES]).unwrap();
        let mut body = LongBody::new();
        answer::<_, u8, _>(Ok(blob.clone()), &mut body);
        assert_eq!(decode_answer::<Blob, u8>(body.bytes()), Ok(blob));
    }

    #[test]
    fn words_travel_in_one_piece_and_only_as_many_as_are_meant() {
        let mut body = ShortBody::new();
        encode(&Words([u64::MAX, 7]), &mut body).unwrap();
        assert_eq!(body.len(), 17);
        assert_eq!(postcard::from_bytes(body.bytes()), Ok(Words([u64::MAX, 7])));
        assert!(postcard::from_bytes::<Words<1>>(body.bytes()).is_err());
        assert!(postcard::from_bytes::<Words<3>>(body.bytes()).is_err());
        let mut odd = ShortBody::new();
        encode(&Bytes(&[1; 9]), &mut odd).unwrap();
        assert!(postcard::from_bytes::<Address>(odd.bytes()).is_err());
    }

    #[test]
    fn an_answer_that_does_not_fit_is_a_protocol_error_not_a_panic() {
        let mut body = ShortBody::new();
        answer::<_, u8, _>(Ok(Blob::from_slice(&[1; 100]).unwrap()), &mut body);
        assert_eq!(
            decode_answer::<Blob, u8>(body.bytes()),
            Err(CallError::Protocol)
        );
    }
}

//! The servers' protocols, one table each.
//!
//! From one table come the client stub (`Client`), the server's side (`Server`, `serve`), and the
//! description that `docs/protocols.md` is made of (`PROTOCOL`). A line reads
//!
//! ```text
//! /// What it does.
//! NUMBER => method(argument: Type, ...) -> Result [size] takes(caps...) gives(caps...);
//! ```
//!
//! The size says what request and answer may need: `short` both fit the registers, `long` both may use
//! a whole message, `long, short` only the request may. What a request does need is seen when it is
//! made: one that fits the registers travels in them. `takes` and `gives` name the capabilities that
//! travel with request and answer, in this order.

pub mod console;
pub mod files;
pub mod memory;
pub mod process;
pub mod startup;

/// A protocol's description.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Its name.
    pub name: &'static str,
    /// What the server is for.
    pub doc: &'static str,
    /// Its methods, in the order of the declaration.
    pub methods: &'static [Method],
}

/// A method's description.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// First word of an encoded request.
    pub number: u16,
    /// Its name.
    pub name: &'static str,
    /// Arguments and result, as declared.
    pub signature: &'static str,
    /// Names of the capabilities that the request carries.
    pub takes: &'static [&'static str],
    /// Names of the capabilities that the answer carries.
    pub gives: &'static [&'static str],
    /// What it does.
    pub doc: &'static str,
}

/// Every protocol, for documentation and traces.
pub const ALL: &[Protocol] = &[
    process::PROTOCOL,
    memory::PROTOCOL,
    files::PROTOCOL,
    console::PROTOCOL,
];

#[doc(hidden)]
#[macro_export]
macro_rules! tail_bytes {
    (short) => {
        0
    };
    (long) => {
        $crate::abi::TAIL_BYTES
    };
    ($request:ident, $answer:ident) => {
        $crate::tail_bytes!($answer)
    };
}

/// Declares a protocol, see [the module](mod@crate::protocol).
#[macro_export]
macro_rules! protocol {
    (
        $(#[doc = $pdoc:literal])*
        $pname:ident refuses $error:ty;
        $(
            $(#[doc = $doc:literal])*
            $number:literal => $name:ident($($arg:ident : $ty:ty),* $(,)?) -> $ret:ty
                [$size:ident $(, $answer:ident)?] $(takes($($taken:ident),+))? $(gives($($given:ident),+))?;
        )*
    ) => {
        /// The protocol's description.
        pub const PROTOCOL: $crate::protocol::Protocol = $crate::protocol::Protocol {
            name: stringify!($pname),
            doc: concat!($($pdoc, "\n"),*),
            methods: &[$(
                $crate::protocol::Method {
                    number: $number,
                    name: stringify!($name),
                    signature: concat!("(", stringify!($($arg: $ty),*), ") -> ", stringify!($ret)),
                    takes: &[$($(stringify!($taken)),+)?],
                    gives: &[$($(stringify!($given)),+)?],
                    doc: concat!($($doc),*),
                },
            )*],
        };

        $(#[doc = $pdoc])*
        ///
        /// The client's side.
        #[derive(Clone, Copy, Debug)]
        pub struct Client<T> {
            /// The way to the server.
            pub transport: T,
        }

        impl<T: $crate::wire::Transport> Client<T> {
            /// A client over this transport.
            pub const fn new(transport: T) -> Self {
                Client { transport }
            }

            $(
                $(#[doc = $doc])*
                ///
                /// `received` is extended by the capabilities that the answer brings.
                #[allow(clippy::too_many_arguments, clippy::extra_unused_lifetimes)]
                #[inline]
                pub fn $name<'m>(
                    &mut self,
                    $($arg: $ty,)*
                    $($($taken: $crate::abi::SendCap,)+)?
                    $(received: $crate::protocol!(@given &mut $crate::wire::Received; $($given)+),)?
                ) -> Result<$ret, $crate::wire::CallError<$error>> {
                    const EXPECTS: usize = <[&str]>::len(&[$($(stringify!($given)),+)?]);
                    $crate::protocol!(@received received none $($($given)+)?);
                    $crate::wire::request::<$ret, $error, _, { $crate::tail_bytes!($size) }, { $crate::tail_bytes!($size $(, $answer)?) }>(
                        &mut self.transport,
                        $number,
                        &($($arg,)*),
                        &[$($($taken),+)?],
                        received,
                        EXPECTS,
                    )
                }
            )*
        }

        /// The server's side: one method a request. `Cx` is what a handler may act on.
        ///
        /// A handler that answers [`Later`](crate::wire::Answer::Later) has kept the reply.
        #[allow(clippy::too_many_arguments, clippy::extra_unused_lifetimes)]
        pub trait Server<Cx: ?Sized> {
            $(
                $(#[doc = $doc])*
                fn $name<'m>(
                    &mut self,
                    cx: &mut Cx,
                    caller: &mut $crate::wire::Caller,
                    $($arg: $ty,)*
                ) -> Result<$crate::wire::Answer<$ret>, $error>;
            )*
        }

        /// Decodes one request, has it carried out, encodes the answer. Any byte string is
        /// answered, with `Malformed` if it is no request of this protocol.
        pub fn serve<Cx: ?Sized, S: Server<Cx> + ?Sized, const TAIL: usize>(
            server: &mut S,
            cx: &mut Cx,
            caller: &mut $crate::wire::Caller,
            request: &[u8],
            answer: &mut $crate::wire::Body<TAIL>,
        ) -> $crate::wire::Served {
            let malformed: Result<(), $crate::wire::Refusal<$error>> =
                Err($crate::wire::Refusal::Malformed);
            let Some((number, rest)) = $crate::wire::split_request(request) else {
                $crate::wire::answer(malformed, answer);
                return $crate::wire::Served::Answered;
            };
            match number {
                $( $number => {
                    const TAKES: usize = <[&str]>::len(&[$($(stringify!($taken)),+)?]);
                    type Arguments<'m> = $crate::protocol!(@arguments 'm, $($ty,)*);
                    if let Ok((($($arg,)*), [])) = $crate::wire::decode_arguments::<Arguments<'_>>(rest)
                        && caller.received.len() == TAKES
                    {
                        let result = server.$name(cx, caller, $($arg,)*);
                        return $crate::wire::finish(result, answer);
                    }
                } )*
                _ => {}
            }
            $crate::wire::answer(malformed, answer);
            $crate::wire::Served::Answered
        }
    };
    (@given $ty:ty; $($given:ident)+) => { $ty };
    (@received $received:ident none) => { let $received = &mut $crate::wire::Received::new(); };
    (@received $received:ident none $($given:ident)+) => {};
    (@arguments $life:lifetime, $($ty:ty,)*) => { ($($ty,)*) };
}

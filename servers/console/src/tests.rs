//! The server through its own protocols: encode, dispatch, decode, over a line made of vectors.

use super::*;
use libipc::exec_channel::{FromGuest, HostDecoder, end_of_input, to_guest};
use libipc::wire::{Body, CallError, Kept, LongBody, Received, Served, Transport};
use proptest::prelude::*;
use std::vec::Vec;

#[derive(Default)]
struct FakeWorld {
    sent: Vec<u8>,
    drained: usize,
    kept: u64,
    answered: Vec<(Handle, Result<Blob, FileError>)>,
    senders: Vec<(u64, u32)>,
    /// Replies whose callers do not wait any more.
    gone: Vec<u64>,
}

impl World for FakeWorld {
    fn send(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
    }
    fn drain(&mut self) {
        self.drained = self.sent.len();
    }
    fn keep_reply(&mut self) -> Result<Kept, Error> {
        self.kept += 1;
        Ok(Kept::by(Handle(self.kept)))
    }
    fn answer(&mut self, kept: Kept, result: Result<Blob, FileError>) -> bool {
        let reply = kept.into_reply();
        self.answered.push((reply, result));
        !self.gone.contains(&reply.0)
    }
    fn sender(&mut self, badge: u64, access: u32) -> Result<Handle, Error> {
        self.senders.push((badge, access));
        Ok(Handle(badge))
    }
}

struct System {
    console: Console,
    world: FakeWorld,
    /// Label of the thread that calls.
    label: u64,
}

const LABEL: u64 = 71;

/// What a call came to.
#[derive(Debug, PartialEq)]
enum Outcome<T> {
    Answer(T),
    Refused(FileError),
    Waits,
}

struct Link<'s> {
    system: &'s mut System,
    badge: u64,
    access: u32,
    label: u64,
    waits: bool,
}

impl Transport for &mut Link<'_> {
    fn call<const OUT: usize, const IN: usize>(
        &mut self,
        request: &mut Body<OUT>,
        _: &[SendCap],
        answer: &mut Body<IN>,
        received: &mut Received,
        _: usize,
    ) -> Result<(), Error> {
        let mut caller = Caller::new(self.label, self.badge, self.access);
        let System { console, world, .. } = self.system;
        let served = if self.badge == CONTROL {
            console::serve(console, world, &mut caller, request.bytes(), answer)
        } else {
            files::serve(console, world, &mut caller, request.bytes(), answer)
        };
        self.waits = served == Served::Owed;
        received.extend(caller.gives.iter().map(|cap| cap.handle));
        Ok(())
    }
}

impl System {
    fn terminal() -> System {
        System {
            console: Console::terminal(),
            world: FakeWorld::default(),
            label: LABEL,
        }
    }

    fn channel() -> System {
        let mut world = FakeWorld::default();
        System {
            console: Console::channel(&mut world),
            world,
            label: LABEL,
        }
    }

    fn stream<T>(
        &mut self,
        badge: u64,
        access: u32,
        call: impl FnOnce(&mut files::Client<&mut Link>) -> Result<T, CallError<FileError>>,
    ) -> Outcome<T> {
        let label = self.label;
        let mut link = Link {
            system: self,
            badge,
            access,
            label,
            waits: false,
        };
        let result = call(&mut files::Client::new(&mut link));
        if link.waits {
            return Outcome::Waits;
        }
        match result {
            Ok(value) => Outcome::Answer(value),
            Err(CallError::Refused(error)) => Outcome::Refused(error),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn read(&mut self, count: u64) -> Outcome<Vec<u8>> {
        match self.stream(INPUT, files::access::READ, |client| client.read(count)) {
            Outcome::Answer(blob) => Outcome::Answer(blob.0.to_vec()),
            Outcome::Refused(error) => Outcome::Refused(error),
            Outcome::Waits => Outcome::Waits,
        }
    }

    fn write(&mut self, badge: u64, bytes: &[u8]) -> Outcome<u64> {
        self.stream(badge, files::access::WRITE, |client| {
            client.write(Bytes(bytes))
        })
    }

    fn arrived(&mut self, bytes: &[u8]) {
        self.console.arrived(&mut self.world, bytes);
    }

    fn control<T>(
        &mut self,
        access: u32,
        call: impl FnOnce(
            &mut console::Client<&mut Link>,
            &mut Received,
        ) -> Result<T, CallError<ConsoleError>>,
    ) -> (Result<T, CallError<ConsoleError>>, Received) {
        let mut received = Received::new();
        let mut link = Link {
            system: self,
            badge: CONTROL,
            access,
            label: 1,
            waits: false,
        };
        let result = call(&mut console::Client::new(&mut link), &mut received);
        (result, received)
    }

    fn last_answer(&self) -> (u64, Result<Vec<u8>, FileError>) {
        let (reply, result) = self.world.answered.last().unwrap();
        (reply.0, result.clone().map(|blob| blob.0.to_vec()))
    }
}

#[test]
fn init_gets_the_three_streams_with_the_rights_that_each_needs() {
    let mut system = System::terminal();
    let (result, received) = system.control(console::access::OPEN, |client, received| {
        client.standard_streams(received)
    });
    assert_eq!((result, received.len()), (Ok(()), 3));
    let (read, write) = (files::access::READ, files::access::WRITE);
    assert_eq!(
        system.world.senders,
        [(INPUT, read), (OUTPUT, write), (ERROR, write)]
    );
    let denied = Err(CallError::Refused(ConsoleError::Denied));
    assert_eq!(
        system
            .control(0, |client, received| client.standard_streams(received))
            .0,
        denied
    );
    assert_eq!(
        system.control(0, |client, _| client.report_exit(0)).0,
        denied
    );
}

#[test]
fn a_reader_waits_until_a_line_is_typed() {
    let mut system = System::terminal();
    assert_eq!(system.read(100), Outcome::Waits);
    system.arrived(b"l");
    assert!(system.world.answered.is_empty());
    system.arrived(b"s\r");
    assert_eq!(system.last_answer(), (1, Ok(b"ls\n".to_vec())));
    assert_eq!(system.world.sent, b"ls\r\n");
    system.arrived(b"again\r");
    assert_eq!(system.read(2), Outcome::Answer(b"ag".to_vec()));
    assert_eq!(system.read(100), Outcome::Answer(b"ain\n".to_vec()));
    assert_eq!(system.read(0), Outcome::Answer(Vec::new()));
}

#[test]
fn readers_are_served_in_the_order_in_which_they_came() {
    let mut system = System::terminal();
    assert_eq!(system.read(100), Outcome::Waits);
    system.label += 1;
    assert_eq!(system.read(100), Outcome::Waits);
    system.arrived(b"one\r");
    assert_eq!(system.last_answer(), (1, Ok(b"one\n".to_vec())));
    system.arrived(b"\x04");
    assert_eq!(system.last_answer(), (2, Ok(Vec::new())));
}

#[test]
fn a_cancelled_read_is_interrupted_and_takes_no_input() {
    let mut system = System::terminal();
    assert_eq!(system.read(100), Outcome::Waits);
    system.console.cancel(&mut system.world, 12345);
    assert!(system.world.answered.is_empty());
    system.console.cancel(&mut system.world, LABEL);
    assert_eq!(system.last_answer(), (1, Err(FileError::Interrupted)));
    system.arrived(b"kept\r");
    assert_eq!(system.read(100), Outcome::Answer(b"kept\n".to_vec()));
}

#[test]
fn a_thread_that_reads_again_has_given_its_earlier_read_up() {
    let mut system = System::terminal();
    assert_eq!(system.read(100), Outcome::Waits);
    system.world.gone.push(1);
    assert_eq!(system.read(100), Outcome::Waits);
    assert_eq!(system.last_answer(), (1, Err(FileError::Interrupted)));
    system.arrived(b"once\r");
    assert_eq!(system.last_answer(), (2, Ok(b"once\n".to_vec())));
}

#[test]
fn input_for_a_reader_who_has_gone_is_the_next_readers() {
    let mut system = System::terminal();
    assert_eq!(system.read(100), Outcome::Waits);
    system.label += 1;
    assert_eq!(system.read(2), Outcome::Waits);
    system.world.gone.push(1);
    system.arrived(b"line\r");
    assert_eq!(system.last_answer(), (2, Ok(b"li".to_vec())));
    assert_eq!(system.read(1), Outcome::Answer(b"n".to_vec()));
    assert_eq!(system.read(100), Outcome::Answer(b"e\n".to_vec()));
    system.world.gone.push(3);
    assert_eq!(system.read(100), Outcome::Waits);
    system.arrived(b"more\r");
    assert_eq!(system.read(100), Outcome::Answer(b"more\n".to_vec()));
}

#[test]
fn raw_mode_wakes_a_reader_at_each_byte() {
    let mut system = System::terminal();
    let raw = system.stream(INPUT, files::access::READ, |client| client.set_raw(true));
    assert_eq!(raw, Outcome::Answer(()));
    assert_eq!(system.read(100), Outcome::Waits);
    system.arrived(b"\x1b");
    assert_eq!(system.last_answer(), (1, Ok(b"\x1b".to_vec())));
    assert_eq!(system.world.sent, b"");
}

#[test]
fn a_terminal_gets_a_carriage_return_with_each_line_feed() {
    let mut system = System::terminal();
    assert_eq!(system.write(OUTPUT, b"a\n\n\r\nb"), Outcome::Answer(6));
    assert_eq!(system.write(ERROR, b""), Outcome::Answer(0));
    assert_eq!(system.world.sent, b"a\r\n\r\n\r\nb");
    let info = system.stream(OUTPUT, 0, |client| client.info());
    assert!(
        matches!(info, Outcome::Answer(info) if info.terminal && info.kind == FileKind::Stream)
    );
}

#[test]
fn a_stream_refuses_what_its_capability_does_not_permit() {
    let mut system = System::terminal();
    let bad = FileError::BadAccess;
    let read_output = system.stream(OUTPUT, files::access::WRITE, |client| client.read(1));
    assert_eq!(read_output, Outcome::Refused(bad));
    let write_input = system.stream(INPUT, files::access::READ, |client| {
        client.write(Bytes(b"x"))
    });
    assert_eq!(write_input, Outcome::Refused(bad));
    let unknown = system.stream(9, u32::MAX, |client| client.write(Bytes(b"x")));
    assert_eq!(unknown, Outcome::Refused(bad));
}

/// All frames that were sent, put together by kind.
fn heard(sent: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u16>, Option<u8>) {
    let mut decoder = HostDecoder::new();
    let (mut output, mut error, mut wanted, mut exit) = (Vec::new(), Vec::new(), Vec::new(), None);
    let mut rest = sent;
    while let Some(event) = decoder.next(&mut rest).unwrap() {
        match event {
            FromGuest::Ready => {}
            FromGuest::Output(bytes) => output.extend_from_slice(bytes),
            FromGuest::Error(bytes) => error.extend_from_slice(bytes),
            FromGuest::Wanted(count) => wanted.push(count),
            FromGuest::Exit(status) => exit = Some(status),
        }
    }
    (output, error, wanted, exit)
}

#[test]
fn the_exec_channel_carries_the_streams_byte_for_byte() {
    let mut system = System::channel();
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(system.write(OUTPUT, &all), Outcome::Answer(256));
    assert_eq!(system.write(ERROR, b"oh\n"), Outcome::Answer(3));
    assert_eq!(system.read(5), Outcome::Waits);
    let mut frame = header(to_guest::INPUT, 2).to_vec();
    frame.extend_from_slice(b"\x00\xff");
    system.arrived(&frame[..1]);
    system.arrived(&frame[1..]);
    assert_eq!(system.last_answer(), (1, Ok(b"\x00\xff".to_vec())));
    assert_eq!(system.read(5), Outcome::Waits);
    system.arrived(&end_of_input());
    assert_eq!(system.last_answer(), (2, Ok(Vec::new())));
    assert_eq!(system.read(5), Outcome::Answer(Vec::new()));
    assert_eq!(
        system
            .control(console::access::REPORT, |client, _| client.report_exit(7))
            .0,
        Ok(())
    );
    assert_eq!(system.world.drained, system.world.sent.len());
    let (output, error, wanted, exit) = heard(&system.world.sent);
    assert_eq!((output, error), (all, b"oh\n".to_vec()));
    assert_eq!((wanted, exit), (std::vec![5, 5], Some(7)));
}

#[test]
fn nothing_follows_the_exit_frame() {
    let mut system = System::channel();
    for _ in 0..2 {
        let (result, _) =
            system.control(console::access::REPORT, |client, _| client.report_exit(0));
        assert_eq!(result, Ok(()));
    }
    let length = system.world.sent.len();
    assert_eq!(
        system.write(OUTPUT, b"late"),
        Outcome::Refused(FileError::Io)
    );
    assert_eq!(system.world.sent.len(), length);
    assert_eq!(heard(&system.world.sent).3, Some(0));
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_wait_for_input(
        requests in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), 0u64..5, any::<u32>()), 1..40),
        input in prop::collection::vec(any::<u8>(), 0..200),
        exec in any::<bool>(),
    ) {
        let mut system = if exec { System::channel() } else { System::terminal() };
        let mut owed = 0;
        for (mut bytes, badge, access) in requests {
            if access % 2 == 0 && let Some(first) = bytes.first_mut() {
                *first %= 11;
            }
            let mut caller = Caller::new(badge, badge, access);
            let mut answer = LongBody::new();
            let System { console, world, .. } = &mut system;
            let served = if badge == CONTROL {
                console::serve(console, world, &mut caller, &bytes, &mut answer)
            } else {
                files::serve(console, world, &mut caller, &bytes, &mut answer)
            };
            match served {
                Served::Answered => prop_assert!(!answer.is_empty()),
                Served::Owed => owed += 1,
            }
        }
        system.arrived(&input);
        for label in 0..5 {
            system.console.cancel(&mut system.world, label);
        }
        prop_assert_eq!(system.world.answered.len(), owed);
    }
}

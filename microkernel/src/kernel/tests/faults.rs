//! Faults as messages.

use crate::machine::Exception;
use crate::object::State;
use crate::testkit::{DATA, Rig, pattern};
use libipc::abi::{
    Access, Copies, Error, FaultKind, FaultMessage, Handle, IpcCall, MessageKind, Protection,
    initial,
};

/// Error code bits of a page fault: a write by a program.
const WRITE_BY_USER: u64 = 0b110;

/// A thread in a new space whose exceptions and missing pages go to these.
fn guarded(
    rig: &mut Rig,
    pager: Handle,
    exceptions: Handle,
) -> (Handle, Handle, crate::memory::Ref<crate::object::Thread>) {
    let root = rig.root;
    let space = rig.space_create(root, initial::POOL, pager).unwrap();
    let table = rig.table_create(root, initial::POOL).unwrap();
    let thread = rig
        .thread_create(
            root,
            initial::POOL,
            space,
            table,
            table,
            table,
            Copies::empty(),
            50,
            exceptions,
            0,
        )
        .unwrap();
    rig.thread_start(root, thread, 0x1234, 0x5678, 0).unwrap();
    let started = rig.thread_of(thread);
    (space, thread, started)
}

fn fault_message(rig: &mut Rig, server: crate::memory::Ref<crate::object::Thread>) -> FaultMessage {
    let got = rig.got(server).unwrap();
    assert_eq!((got.kind, got.label), (MessageKind::Fault, 50));
    FaultMessage::from_words(got.body).unwrap()
}

#[test]
fn an_exception_is_a_call_to_the_threads_handler_and_the_answer_lets_it_go_on() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(9, 0);
    let (_, handle, thread) = guarded(&mut rig, Handle::NONE, sender);
    for (vector, kind) in [
        (6, FaultKind::InvalidInstruction),
        (13, FaultKind::Protection),
        (0, FaultKind::Divide),
        (3, FaultKind::Breakpoint),
        (1, FaultKind::Debug),
        (19, FaultKind::FloatingPoint),
        (17, FaultKind::Other),
    ] {
        rig.fault(thread, vector, 0, 5);
        rig.message(root, IpcCall::Receive, receiver, 0, [0; 8]);
        let fault = fault_message(&mut rig, root);
        assert_eq!(fault.kind, kind);
        assert_eq!(
            (fault.instruction_pointer, fault.stack_pointer),
            (0x1234, 0x5678)
        );
        assert_eq!((fault.code, rig.got(root).unwrap().badge), (5, 9));
        let before = rig.kernel.memory.get(thread).context.registers();
        rig.message(root, IpcCall::Reply, Handle::NONE, 64, [7; 8]);
        assert!(rig.kernel.memory.get(thread).is_runnable());
        assert_eq!(rig.kernel.memory.get(thread).context.registers(), before);
    }
    assert_eq!(rig.thread_status(root, handle).unwrap().0, 0);
}

#[test]
fn a_fault_that_nobody_takes_ends_the_thread() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let (_, handle, thread) = guarded(&mut rig, Handle::NONE, Handle::NONE);
    rig.fault(thread, 13, 0, 0);
    assert_eq!(rig.thread_status(root, handle).unwrap().0, 2);
    // A handler that goes away with the fault.
    let (_, handle, thread) = guarded(&mut rig, Handle::NONE, sender);
    rig.fault(thread, 13, 0, 0);
    assert_eq!(rig.thread_status(root, handle).unwrap().0, 1);
    rig.cap_close(root, receiver).unwrap();
    assert_eq!(rig.thread_status(root, handle).unwrap().0, 2);
    // One that drops it.
    let (receiver, sender) = rig.endpoint(0, 0);
    let (_, handle, thread) = guarded(&mut rig, Handle::NONE, sender);
    let server = rig.thread(1);
    rig.fault(thread, 13, 0, 0);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(rig.thread_status(root, handle).unwrap().0, 2);
    assert_eq!(rig.state(server), State::Receiving);
}

#[test]
fn a_page_fault_says_address_and_access() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let (space, _, thread) = guarded(&mut rig, Handle::NONE, sender);
    rig.space_map(root, space, DATA, 1, Protection::READ)
        .unwrap();
    for (address, code, access) in [
        (0x5000_0123, WRITE_BY_USER, FaultMessage::WRITE),
        (0x5000_0123, 0b100, 0),
        (0x5000_0123, 0b10100, FaultMessage::EXECUTE),
        (
            DATA,
            WRITE_BY_USER,
            FaultMessage::WRITE | FaultMessage::PRESENT,
        ),
        (DATA, 0b10100, FaultMessage::EXECUTE | FaultMessage::PRESENT),
        (u64::MAX, 0b100, FaultMessage::PRESENT),
    ] {
        rig.fault(thread, Exception::PAGE_FAULT, address, code);
        rig.message(root, IpcCall::Receive, receiver, 0, [0; 8]);
        let fault = fault_message(&mut rig, root);
        assert_eq!((fault.kind, fault.address), (FaultKind::Page, address));
        assert_eq!((fault.access, fault.code), (access, code));
        rig.message(root, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    }
    // What can be settled is nobody's business.
    rig.fault(thread, Exception::PAGE_FAULT, DATA, 0b100);
    assert!(rig.kernel.memory.get(thread).is_runnable());
}

#[test]
fn a_pool_at_its_limit_makes_an_out_of_memory_fault() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let pool = rig.pool_create(root, initial::POOL, 50).unwrap();
    let space = rig.space_create(root, pool, Handle::NONE).unwrap();
    rig.space_map(root, space, DATA, 8, Protection::READ | Protection::WRITE)
        .unwrap();
    let table = rig.table_create(root, initial::POOL).unwrap();
    let handle = rig
        .thread_create(
            root,
            initial::POOL,
            space,
            table,
            table,
            table,
            Copies::empty(),
            50,
            sender,
            0,
        )
        .unwrap();
    rig.thread_start(root, handle, 0x1234, 0, 0).unwrap();
    let thread = rig.thread_of(handle);
    let used = rig.pool_status(root, pool).unwrap().1;
    rig.pool_set_limit(root, pool, used).unwrap();
    rig.fault(thread, Exception::PAGE_FAULT, DATA, WRITE_BY_USER);
    rig.message(root, IpcCall::Receive, receiver, 0, [0; 8]);
    assert_eq!(fault_message(&mut rig, root).kind, FaultKind::OutOfMemory);
    rig.pool_set_limit(root, pool, 50).unwrap();
    rig.message(root, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    rig.fault(thread, Exception::PAGE_FAULT, DATA, WRITE_BY_USER);
    assert!(rig.kernel.memory.get(thread).is_runnable());
}

#[test]
fn a_missing_page_is_asked_of_the_pager_first() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (pages, to_pager) = rig.endpoint(1, 0);
    let (_others, to_handler) = rig.endpoint(2, 0);
    let (space, _, thread) = guarded(&mut rig, to_pager, to_handler);
    rig.fault(thread, Exception::PAGE_FAULT, DATA + 5, WRITE_BY_USER);
    rig.message(root, IpcCall::Receive, pages, 0, [0; 8]);
    let fault = fault_message(&mut rig, root);
    assert_eq!(fault.address & !0xfff, DATA);
    let protection = Protection::READ | Protection::WRITE;
    rig.space_map(root, space, DATA, 1, protection).unwrap();
    rig.message(root, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    rig.fault(thread, Exception::PAGE_FAULT, DATA + 5, WRITE_BY_USER);
    assert!(rig.kernel.memory.get(thread).is_runnable());
}

#[test]
fn a_call_that_needs_a_pager_is_made_again_once_the_page_is_there() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (pages, to_pager) = rig.endpoint(1, 0);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (space, _, client) = guarded(&mut rig, to_pager, Handle::NONE);
    let sender = rig.give_to(client, sender);
    let pager = rig.thread(1);
    let server = rig.thread(2);
    rig.receive_bytes(server, receiver);
    // Its memory part, its tail and its buffer are missing, one after the other.
    rig.message(pager, IpcCall::Receive, pages, 0, [0; 8]);
    let operation = libipc::abi::OpWord::new(IpcCall::Call, libipc::abi::IpcFlags::empty(), 100, 0);
    rig.enter(
        client,
        operation.0,
        [sender.0, DATA, 1, 2, 3, 4, 5, 6, 7, 8],
    );
    let mut asked = 0;
    while rig.state(server) == State::Receiving {
        let fault = fault_message(&mut rig, pager);
        let page = fault.address & !0xfff;
        let protection = Protection::READ | Protection::WRITE;
        rig.space_map(root, space, page, 1, protection).unwrap();
        if page == DATA {
            let words = [u64::MAX, 0x20_0000, 0x30_0000, 4096, Handle::NONE.0];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            rig.space_write_bytes(space, DATA, &bytes);
        }
        if page == 0x20_0000 {
            rig.space_write_bytes(space, page, &pattern(36, 3));
        }
        rig.message(pager, IpcCall::ReplyReceive, pages, 0, [0; 8]);
        rig.run(client);
        rig.resume_restarted(client);
        asked += 1;
        assert!(asked < 10);
    }
    assert_eq!(asked, 3);
    assert_eq!(rig.got(server).unwrap().length, 100);
    assert_eq!(rig.got_bytes(server)[64..], pattern(36, 3)[..]);
    rig.message(server, IpcCall::Reply, Handle::NONE, 8, [6; 8]);
    assert_eq!(rig.got(client).unwrap().body[0], 6);
}

#[test]
fn a_receiver_that_needs_a_pager_faults_and_the_sender_stays() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (pages, to_pager) = rig.endpoint(1, 0);
    let (receiver, sender) = rig.endpoint(0, 0);
    let (space, _, server) = guarded(&mut rig, to_pager, Handle::NONE);
    let own = rig.give_to(server, receiver);
    let (pager, client) = (rig.thread(1), rig.thread(2));
    let protection = Protection::READ | Protection::WRITE;
    rig.space_map(root, space, DATA, 1, protection).unwrap();
    rig.message(pager, IpcCall::Receive, pages, 0, [0; 8]);
    let extended = libipc::abi::Extended {
        receive: 0x30_0000,
        receive_bytes: 4096,
        ..libipc::abi::Extended::EMPTY
    };
    let operation =
        libipc::abi::OpWord::new(IpcCall::Receive, libipc::abi::IpcFlags::empty(), 0, 0);
    rig.message_with(server, operation, own, Some(extended), [0; 8]);
    rig.send_bytes(client, IpcCall::Call, sender, &pattern(200, 1), &[]);
    assert_eq!(rig.state(client), State::Sending);
    assert_eq!(fault_message(&mut rig, pager).address, 0x30_0000);
    rig.space_map(root, space, 0x30_0000, 1, protection)
        .unwrap();
    rig.message(pager, IpcCall::Reply, Handle::NONE, 0, [0; 8]);
    rig.run(server);
    rig.resume_restarted(server);
    assert_eq!(rig.got(server).unwrap().length, 200);
    assert_eq!(rig.peek(server, 0x30_0000, 136), pattern(200, 1)[64..]);
}

#[test]
fn a_revoked_handler_gets_no_more_faults() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(9, 0);
    let (_, handle, thread) = guarded(&mut rig, Handle::NONE, sender);
    rig.cap_revoke(root, receiver).unwrap();
    rig.fault(thread, 13, 0, 0);
    assert_eq!(rig.thread_status(root, handle).unwrap().0, 2);
    assert_eq!(
        rig.thread_start(root, handle, 0, 0, 0),
        Err(Error::WrongState)
    );
    let _ = Access::all();
}

#[test]
fn a_fault_can_be_kept_and_answered_like_a_call() {
    let mut rig = Rig::new(512);
    let root = rig.root;
    let (receiver, sender) = rig.endpoint(0, 0);
    let (reply, server) = (rig.reply(), rig.thread(1));
    let (_, _, thread) = guarded(&mut rig, Handle::NONE, sender);
    rig.message(server, IpcCall::Receive, receiver, 0, [0; 8]);
    for _ in 0..2 {
        rig.fault(thread, 6, 0, 0);
        assert_eq!(rig.got(server).unwrap().kind, MessageKind::Fault);
        rig.message_naming(server, IpcCall::Receive, receiver, reply, 0, 0);
        assert_eq!(rig.state(thread), State::Answer);
        rig.message(root, IpcCall::Send, sender, 0, [0; 8]);
        rig.message_naming(server, IpcCall::ReplyReceive, receiver, reply, 8, 1);
        assert_eq!(rig.state(server), State::Receiving);
        assert!(rig.kernel.memory.get(thread).is_runnable());
    }
}

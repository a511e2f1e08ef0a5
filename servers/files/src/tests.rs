//! The server through its own protocol: encode, dispatch, decode, over an archive made here.

use super::*;
use libipc::protocol::files::{Client, serve};
use libipc::wire::{Body, CallError, LongBody, Received, Served, Transport};
use proptest::prelude::*;
use std::string::String;
use std::vec::Vec;

/// Appends a newc entry.
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    archive.extend(b"070701");
    let fields = [
        1,
        mode,
        0,
        0,
        1,
        0,
        data.len() as u32,
        0,
        0,
        0,
        0,
        name.len() as u32 + 1,
        0,
    ];
    for field in fields {
        archive.extend(std::format!("{field:08x}").as_bytes());
    }
    archive.extend(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

fn archive() -> Vec<u8> {
    let mut bytes = Vec::new();
    // The first data lies on a page, like in a real archive: 110 bytes of header, the name, its end.
    let padding = 4096 - (110 + 5 + 1) - (110 + 7 + 3);
    entry(&mut bytes, ".pad", FILE, &std::vec![0; padding]);
    entry(&mut bytes, "bin/sh", PROGRAM, &[0x7f; 5000]);
    entry(&mut bytes, "bin/tools/cat", PROGRAM, b"cat");
    entry(&mut bytes, "bin/nothing", PROGRAM, b"");
    entry(&mut bytes, "etc/motd", FILE, b"hello, world");
    entry(&mut bytes, "etc/motd/below-a-file", FILE, b"x");
    entry(&mut bytes, "empty-directory", 0o040_755, b"");
    entry(&mut bytes, "../escape", FILE, b"x");
    entry(&mut bytes, "empty", FILE, b"");
    entry(&mut bytes, "device", 0o020_644, b"");
    entry(&mut bytes, "TRAILER!!!", 0, b"");
    bytes
}

/// Records what was made.
#[derive(Default)]
struct FakeKernel {
    senders: Vec<(u64, u32)>,
    windows: Vec<(u64, u64)>,
    fail: bool,
}

impl Kernel for FakeKernel {
    fn sender(&mut self, badge: u64, access: u32) -> Result<Handle, Error> {
        if self.fail {
            return Err(Error::NoMemory);
        }
        self.senders.push((badge, access));
        // The tests read badge and access out of the handle.
        Ok(Handle(badge << 8 | u64::from(access)))
    }

    fn window(&mut self, first: u64, pages: u64) -> Result<Handle, Error> {
        if self.fail {
            return Err(Error::NoMemory);
        }
        self.windows.push((first, pages));
        Ok(WINDOW)
    }
}

/// The handle of every window.
const WINDOW: Handle = Handle(0xffff);

struct World<'a> {
    files: Files<'a>,
    kernel: FakeKernel,
    /// The rights of the windows that were given.
    given: Vec<Access>,
}

struct Link<'w, 'a> {
    world: &'w mut World<'a>,
    badge: u64,
    access: u32,
}

impl Transport for Link<'_, '_> {
    fn call<const OUT: usize, const IN: usize>(
        &mut self,
        request: &mut Body<OUT>,
        _: &[SendCap],
        answer: &mut Body<IN>,
        received: &mut Received,
        expects: usize,
    ) -> Result<(), Error> {
        let mut caller = Caller::new(1, self.badge, self.access);
        let World {
            files,
            kernel,
            given,
        } = self.world;
        let served = serve(files, kernel, &mut caller, request.bytes(), answer);
        assert_eq!(served, Served::Answered);
        assert!(caller.gives.len() <= expects);
        for cap in &caller.gives {
            // A sender is its receiver's alone, a window everybody's.
            if cap.handle == WINDOW {
                given.push(Access::from_bits_retain(cap.access));
                assert_eq!(cap.options, 0);
            } else {
                assert_eq!(cap.options, SendCap::MOVE);
            }
        }
        received.extend(caller.gives.iter().map(|cap| cap.handle));
        Ok(())
    }
}

type Outcome<T> = Result<T, FileError>;

fn refused<T>(result: Result<T, CallError<FileError>>) -> Outcome<T> {
    result.map_err(|error| match error {
        CallError::Refused(error) => error,
        other => panic!("{other:?}"),
    })
}

impl<'a> World<'a> {
    fn new(archive: &'a [u8]) -> World<'a> {
        World {
            files: Files::new(archive),
            kernel: FakeKernel::default(),
            given: Vec::new(),
        }
    }

    fn client(&mut self, file: (u64, u32)) -> Client<Link<'_, 'a>> {
        let (badge, access) = file;
        Client::new(Link {
            world: self,
            badge,
            access,
        })
    }

    /// Opens from this directory; the new file's badge and access.
    fn open_at(&mut self, directory: (u64, u32), path: &str, wanted: u32) -> Outcome<(u64, u32)> {
        let mut received = Received::new();
        refused(
            self.client(directory)
                .open(Bytes(path.as_bytes()), wanted, &mut received),
        )?;
        Ok((received[0].0 >> 8, received[0].0 as u32 & 0xff))
    }

    fn open(&mut self, path: &str, wanted: u32) -> Outcome<(u64, u32)> {
        self.open_at(ROOT_DIRECTORY, path, wanted)
    }

    /// Asks for an image from this directory; its size.
    fn image(&mut self, directory: (u64, u32), path: &str) -> Outcome<u64> {
        let mut received = Received::new();
        let bytes = refused(
            self.client(directory)
                .image(Bytes(path.as_bytes()), &mut received),
        )?;
        assert_eq!(received, [WINDOW]);
        Ok(bytes)
    }

    fn read(&mut self, file: (u64, u32), count: u64) -> Outcome<Vec<u8>> {
        refused(self.client(file).read(count)).map(|blob| blob.0.to_vec())
    }
}

const ROOT_DIRECTORY: (u64, u32) = (0, ALL_ACCESS);

#[test]
fn a_file_is_read_piece_by_piece_to_its_end() {
    let archive = archive();
    let mut world = World::new(&archive);
    let file = world.open("/etc/motd", access::READ).unwrap();
    assert_eq!(world.read(file, 5).unwrap(), b"hello");
    assert_eq!(world.read(file, 100).unwrap(), b", world");
    assert_eq!(world.read(file, 100).unwrap(), b"");
    let shell = world.open("bin/sh", access::READ).unwrap();
    assert_eq!(world.read(shell, u64::MAX).unwrap().len(), TAIL_BYTES);
    assert_eq!(
        world.read(shell, u64::MAX).unwrap().len(),
        5000 - TAIL_BYTES
    );
}

#[test]
fn each_opening_has_an_offset_of_its_own() {
    let archive = archive();
    let mut world = World::new(&archive);
    let one = world.open("etc/motd", access::READ).unwrap();
    let two = world.open("etc/motd", access::READ).unwrap();
    world.read(one, 7).unwrap();
    assert_eq!(world.read(two, 5).unwrap(), b"hello");
    assert_eq!(world.read(one, 5).unwrap(), b"world");
    let at = refused(world.client(one).read_at(3, 2)).unwrap();
    assert_eq!(&at.0[..], b"lo");
    assert_eq!(world.read(one, 5).unwrap(), b"", "read_at moved nothing");
}

#[test]
fn paths_follow_dots_and_slashes() {
    let archive = archive();
    let mut world = World::new(&archive);
    for path in [
        "/bin/../etc/motd",
        "//etc//./motd",
        "../../etc/motd",
        "bin/tools/../../etc/motd",
    ] {
        assert!(world.open(path, access::READ).is_ok(), "{path}");
    }
    let bin = world.open("/bin", access::READ | access::EXECUTE).unwrap();
    assert!(world.open_at(bin, "sh", access::READ).is_ok());
    assert!(world.open_at(bin, "/sh", access::READ).is_ok());
    assert!(world.open_at(bin, "../etc/motd", access::READ).is_ok());
    assert_eq!(
        world.open_at(bin, "motd", access::READ),
        Err(FileError::NotFound)
    );
}

#[test]
fn bad_paths_say_what_is_wrong() {
    let archive = archive();
    let mut world = World::new(&archive);
    let long_name = "n".repeat(256);
    let long_path = "a/".repeat(2048);
    for (path, error) in [
        ("", FileError::NotFound),
        ("nowhere", FileError::NotFound),
        ("nowhere/else", FileError::NotFound),
        ("etc/motd/", FileError::NotADirectory),
        ("etc/motd/x", FileError::NotADirectory),
        ("etc/motd/..", FileError::NotADirectory),
        ("etc/motd/below-a-file", FileError::NotADirectory),
        ("escape", FileError::NotFound),
        ("device", FileError::NotFound),
        (".pad", FileError::NotFound),
        (&long_name, FileError::NameTooLong),
        (&long_path, FileError::NameTooLong),
    ] {
        assert_eq!(world.open(path, access::READ), Err(error), "{path:.20}");
    }
    assert_eq!(world.files.open_files(), 1);
}

#[test]
fn opening_gives_no_more_than_the_file_and_the_directory_permit() {
    let archive = archive();
    let mut world = World::new(&archive);
    assert_eq!(
        world.open("etc/motd", access::WRITE),
        Err(FileError::ReadOnly)
    );
    assert_eq!(
        world.open("etc", access::WRITE),
        Err(FileError::IsADirectory)
    );
    assert_eq!(
        world.open("etc/motd", access::EXECUTE),
        Err(FileError::Denied)
    );
    assert_eq!(world.open("etc/motd", 1 << 9), Err(FileError::Invalid));
    let program = world
        .open("bin/sh", access::EXECUTE | access::READ)
        .unwrap();
    assert_eq!(program.1, access::EXECUTE | access::READ);
    let names_only = world.open("bin", access::EXECUTE).unwrap();
    assert_eq!(
        world.open_at(names_only, "sh", access::READ),
        Err(FileError::Denied)
    );
    let list_only = world.open("bin", access::READ).unwrap();
    assert_eq!(
        world.open_at(list_only, "sh", access::READ),
        Err(FileError::BadAccess)
    );
    assert_eq!(world.read(names_only, 1), Err(FileError::BadAccess));
}

#[test]
fn the_offset_moves_where_it_is_told_and_nowhere_below_the_start() {
    let archive = archive();
    let mut world = World::new(&archive);
    let file = world.open("etc/motd", access::READ).unwrap();
    let mut seek = |offset, from| refused(world.client(file).seek(offset, from));
    assert_eq!(seek(-5, From::End), Ok(7));
    assert_eq!(seek(-7, From::Current), Ok(0));
    assert_eq!(seek(-1, From::Start), Err(FileError::Invalid));
    assert_eq!(seek(i64::MAX, From::Start), Ok(i64::MAX as u64));
    assert_eq!(seek(1, From::Current), Err(FileError::Invalid));
    assert_eq!(world.read(file, 1).unwrap(), b"");
    let directory = world.open("etc", access::READ).unwrap();
    assert_eq!(
        refused(world.client(directory).seek(0, From::Start)),
        Err(FileError::IsADirectory)
    );
}

#[test]
fn a_directory_lists_its_names_in_order() {
    let archive = archive();
    let mut world = World::new(&archive);
    let root = world.open("/", access::READ).unwrap();
    let mut names = Vec::new();
    while let Some(entry) = refused(world.client(root).entry(names.len() as u64)).unwrap() {
        names.push(String::from_utf8(entry.name.0.to_vec()).unwrap());
    }
    assert_eq!(names, ["bin", "empty", "empty-directory", "etc"]);
    assert_eq!(refused(world.client(root).entry(u64::MAX)), Ok(None));
    let info = refused(world.client(root).info()).unwrap();
    assert_eq!(info.kind, FileKind::Directory);
    let file = world.open("etc/motd", access::READ).unwrap();
    assert_eq!(
        refused(world.client(file).entry(0)),
        Err(FileError::NotADirectory)
    );
    assert_eq!(world.read(root, 1), Err(FileError::IsADirectory));
}

#[test]
fn a_window_covers_the_pages_of_a_file() {
    let archive = archive();
    let mut world = World::new(&archive);
    let mut received = Received::new();
    let program = world
        .open("bin/sh", access::READ | access::EXECUTE)
        .unwrap();
    assert_eq!(
        refused(world.client(program).window(&mut received)),
        Ok(5000)
    );
    let plain = world.open("bin/sh", access::READ).unwrap();
    assert_eq!(refused(world.client(plain).window(&mut received)), Ok(5000));
    assert_eq!(world.given, [Access::READ | Access::EXECUTE, Access::READ]);
    assert_eq!(world.kernel.windows, [(1, 2)], "one for both");
    for path in ["empty", "etc/motd"] {
        let file = world.open(path, access::READ).unwrap();
        assert_eq!(
            refused(world.client(file).window(&mut received)),
            Err(FileError::Invalid),
            "{path} is empty or not on a page"
        );
    }
}

#[test]
fn an_image_comes_in_one_step_and_is_the_same_window_for_all() {
    let archive = archive();
    let mut world = World::new(&archive);
    let bin = world.open("bin", access::READ | access::EXECUTE).unwrap();
    assert_eq!(world.image(ROOT_DIRECTORY, "bin/sh"), Ok(5000));
    assert_eq!(world.image(bin, "../bin/./sh"), Ok(5000));
    assert_eq!(world.given, [Access::READ | Access::EXECUTE; 2]);
    let program = world.open("bin/sh", access::READ).unwrap();
    let mut received = Received::new();
    refused(world.client(program).window(&mut received)).unwrap();
    assert_eq!(world.kernel.windows, [(1, 2)]);
}

#[test]
fn an_image_needs_what_opening_it_would_need() {
    let archive = archive();
    let mut world = World::new(&archive);
    for (path, error) in [
        ("", FileError::NotFound),
        ("bin/nowhere", FileError::NotFound),
        ("etc/motd/x", FileError::NotADirectory),
        ("etc/motd", FileError::Denied),
        ("bin", FileError::Denied),
        ("bin/nothing", FileError::NotAnImage),
        ("bin/tools/cat", FileError::Invalid), // it does not begin on a page
    ] {
        assert_eq!(world.image(ROOT_DIRECTORY, path), Err(error), "{path}");
    }
    let names_only = world.open("bin", access::EXECUTE).unwrap();
    assert_eq!(world.image(names_only, "sh"), Err(FileError::Denied));
    let list_only = world.open("bin", access::READ).unwrap();
    assert_eq!(world.image(list_only, "sh"), Err(FileError::BadAccess));
    let program = world.open("bin/sh", access::EXECUTE).unwrap();
    assert_eq!(world.image(program, "sh"), Err(FileError::NotADirectory));
    world.kernel.fail = true;
    assert_eq!(
        world.image(ROOT_DIRECTORY, "bin/sh"),
        Err(FileError::NoMemory)
    );
    world.kernel.fail = false;
    assert_eq!(world.image(ROOT_DIRECTORY, "bin/sh"), Ok(5000));
    assert_eq!(world.kernel.windows, [(1, 2)]);
}

#[test]
fn an_open_file_is_forgotten_with_its_last_holder() {
    let archive = archive();
    let mut world = World::new(&archive);
    let file = world.open("etc/motd", access::READ).unwrap();
    world.files.closed(file.0);
    world.files.closed(0);
    assert_eq!(world.files.open_files(), 1);
    assert_eq!(world.read(file, 1), Err(FileError::BadAccess));
    assert!(world.open("etc/motd", access::READ).unwrap().0 > file.0);
}

#[test]
fn a_failed_opening_leaves_nothing_open() {
    let archive = archive();
    let mut world = World::new(&archive);
    world.kernel.fail = true;
    assert_eq!(
        world.open("etc/motd", access::READ),
        Err(FileError::NoMemory)
    );
    assert_eq!(world.files.open_files(), 1);
}

#[test]
fn every_truncation_of_an_archive_is_read_as_far_as_it_goes() {
    let archive = archive();
    for length in (0..archive.len()).step_by(7) {
        let _ = Tree::read(&archive[..length]);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(
        requests in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..60), 0u64..4, any::<u32>(), 0usize..3), 1..40)
    ) {
        let archive = archive();
        let mut world = World::new(&archive);
        world.open("etc/motd", access::READ).unwrap();
        world.open("bin", access::READ | access::EXECUTE).unwrap();
        for (mut bytes, badge, access, caps) in requests {
            // Half of the requests begin like real ones.
            if access % 2 == 0 && let Some(first) = bytes.first_mut() {
                *first %= 12;
            }
            let mut caller = Caller::new(1, badge, access);
            for cap in 0..caps {
                let _ = caller.received.push(Handle(cap as u64));
            }
            let mut answer = LongBody::new();
            let World { files, kernel, .. } = &mut world;
            prop_assert_eq!(serve(files, kernel, &mut caller, &bytes, &mut answer), Served::Answered);
            prop_assert!(!answer.is_empty());
        }
        prop_assert_eq!(world.files.open_files(), 1 + world.kernel.senders.len());
    }

    #[test]
    fn any_path_is_answered(path in prop::collection::vec(prop::sample::select(b"./binshetc\xff".to_vec()), 0..40)) {
        let archive = archive();
        let tree = Tree::read(&archive);
        let _ = tree.look_up(ROOT, &path);
    }
}

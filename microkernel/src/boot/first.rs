//! The first thread: init, with all capabilities that there are at boot.
//!
//! All later programs are loaded by programs. Nothing here may fail but for a
//! system that was put together wrongly, which is a panic with a reason.

use libipc::abi::{
    Access, BootPage, Handle, Kind, Protection, SlotFlags, TableSelector, initial, layout,
};

use super::info::{BootInfo, COMMAND_LINE_BYTES};
use super::{Platform, archive, image};
use crate::cap::CapTable;
use crate::kernel::Kernel;
use crate::machine::Machine;
use crate::memory::{Caching, Frame, Memory, PAGE_SIZE, Progress, Ref, Space, Window};
use crate::object::Thread;
use crate::object::context::Context;
use crate::object::device::{IoPorts, PhysicalRange};

/// The first program's name in the boot archive.
const INIT: &str = "init";

/// Where init finds its [`BootPage`]: where the loader of other programs is.
const BOOT_PAGE: u64 = layout::LOADER;

/// Makes init's thread, ready to run.
///
/// # Panics
///
/// If the archive has no init, or one that cannot be loaded.
pub fn start_init<M: Machine>(
    kernel: &mut Kernel<M>,
    info: &BootInfo,
    platform: &Platform,
    archive: &[u8],
) {
    let memory = &mut kernel.memory;
    let file = archive::find(archive, INIT).expect("the boot archive holds init");
    let space = new_space(memory);
    let entry = image::load(memory, space, file)
        .unwrap_or_else(|error| panic!("init cannot be loaded: {error:?}"));
    map(
        memory,
        space,
        layout::STACK_END - layout::STACK_BYTES,
        layout::STACK_BYTES / PAGE_SIZE,
    );
    map(memory, space, BOOT_PAGE, 1);
    image::write(memory, space, BOOT_PAGE, &boot_page(info, platform)).expect("memory at boot");

    let pool = memory.root_pool();
    let [table, files, fs] = [(); 3].map(|()| memory.table_create(pool).expect("memory at boot"));
    let mut thread = Thread::new();
    thread.context = Context::new(entry, layout::STACK_END).expect("init lies in the user half");
    let mut arguments = [0; 10];
    arguments[0] = BOOT_PAGE;
    thread.context.set_arguments(arguments);
    thread.space = Some(space);
    thread.space_access = Access::all().bits();
    thread.tables[TableSelector::Private as usize] = Some(table);
    thread.tables[TableSelector::Files as usize] = Some(files);
    thread.tables[TableSelector::Fs as usize] = Some(fs);
    thread.set_suspends(0);
    let thread = memory.create(pool, thread).expect("memory at boot");
    let window = archive_window(memory, info);
    let ports = memory.create(pool, IoPorts::all()).expect("memory at boot");
    let range = memory
        .create(pool, PhysicalRange::all())
        .expect("memory at boot");

    // Space and table are made with one reference, which is the thread's.
    let rights = Access::all().bits();
    for (handle, kind, object, reference) in [
        (initial::POOL, Kind::Pool, pool.to_bits(), Reference::New),
        (initial::SPACE, Kind::Space, space.to_bits(), Reference::New),
        (
            initial::THREAD,
            Kind::Thread,
            thread.to_bits(),
            Reference::Given,
        ),
        (initial::TABLE, Kind::Table, table.to_bits(), Reference::New),
        (initial::SYSTEM, Kind::System, 0, Reference::Given),
        (
            initial::IO_PORTS,
            Kind::IoPorts,
            ports.to_bits(),
            Reference::Given,
        ),
        (
            initial::PHYSICAL,
            Kind::PhysicalRange,
            range.to_bits(),
            Reference::Given,
        ),
    ] {
        give(kernel, table, handle, kind, object, rights, reference);
    }
    if let Some(window) = window {
        let rights = (Access::READ | Access::EXECUTE).bits();
        let object = window.to_bits();
        give(
            kernel,
            table,
            initial::ARCHIVE,
            Kind::Window,
            object,
            rights,
            Reference::New,
        );
    }
    kernel.let_run(thread);
}

/// The reference to its object that a capability needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reference {
    /// The one that the object was made with.
    Given,
    /// One more.
    New,
}

fn give<M: Machine>(
    kernel: &mut Kernel<M>,
    table: Ref<CapTable>,
    handle: Handle,
    kind: Kind,
    object: u64,
    rights: u32,
    reference: Reference,
) {
    if reference == Reference::New {
        kernel.hold_object(kind, object).expect("few holds");
    }
    let memory = &mut kernel.memory;
    let pool = memory.root_pool();
    let node = memory
        .node_create(pool, kind, object)
        .expect("memory at boot");
    let (name, _) = memory
        .table_replace(table, handle.index(), node, rights, SlotFlags::empty())
        .expect("memory at boot");
    assert_eq!(
        name.generation,
        handle.generation(),
        "the slot was never used"
    );
}

/// A window on the boot archive: a space that holds nothing else is its source.
fn archive_window<M: Machine>(memory: &mut Memory<M>, info: &BootInfo) -> Option<Ref<Window>> {
    let archive = info.archive?;
    let pages = archive.bytes.div_ceil(PAGE_SIZE);
    let rights = Protection::READ | Protection::EXECUTE;
    let space = new_space(memory);
    let (mut done, first) = (0, Frame::containing(archive.start).number());
    loop {
        let mapped = memory.map_physical(
            space,
            layout::BULK + done * PAGE_SIZE,
            pages - done,
            Frame::from_number(first + done as u32),
            rights,
            rights,
            Caching::WriteBack,
        );
        match mapped.expect("the archive is RAM that no pool owns") {
            Progress::Done => break,
            Progress::More(address) => done = (address - layout::BULK) / PAGE_SIZE,
        }
    }
    let pool = memory.root_pool();
    let window = memory.window_create(space, pool, layout::BULK, pages, rights, None);
    Some(window.expect("memory at boot"))
}

fn new_space<M: Machine>(memory: &mut Memory<M>) -> Ref<Space> {
    let pool = memory.root_pool();
    memory.space_create(pool, None).expect("memory at boot")
}

fn map<M: Machine>(memory: &mut Memory<M>, space: Ref<Space>, address: u64, pages: u64) {
    let protection = Protection::READ | Protection::WRITE;
    memory
        .map_anonymous(space, address, pages, protection)
        .expect("init leaves its stack free");
}

/// What init is told of the machine, as bytes of its page.
fn boot_page(info: &BootInfo, platform: &Platform) -> [u8; size_of::<BootPage>()] {
    let screen = info.framebuffer;
    let mut command_line = [0; COMMAND_LINE_BYTES];
    command_line[..info.command_line.len()].copy_from_slice(&info.command_line);
    let page = BootPage {
        magic: BootPage::MAGIC,
        archive_bytes: info.archive.map_or(0, |archive| archive.bytes),
        rsdp: info.rsdp.unwrap_or(0),
        dsdt: platform.dsdt,
        pm1_control: platform.pm1_control,
        cpus: platform.cpus,
        framebuffer: screen.map_or(0, |screen| screen.start),
        framebuffer_shape: screen.map_or([0; 4], |screen| {
            [
                screen.width,
                screen.height,
                screen.pitch_bytes,
                screen.bits_per_pixel.into(),
            ]
        }),
        command_line_bytes: info.command_line.len() as u32,
        reserved: 0,
        command_line,
    };
    // SAFETY: all its bytes are fields: plain integers without gaps, see the
    // assertion on its size.
    unsafe { core::mem::transmute(page) }
}

const _: () = assert!(
    size_of::<BootPage>() == 8 * 4 + 2 * 2 + 4 + 8 + 4 * 4 + 4 + 4 + COMMAND_LINE_BYTES,
    "a boot page has no gaps",
);

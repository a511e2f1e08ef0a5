//! `cargo xtask profile CASE`: where the instructions of a bench case are.
//!
//! The instruction counter writes each executed piece of code with how often it ran. Native programs are
//! linked at the same address, so a piece is put down to the program whose file has the same bytes there;
//! where several have, the other pieces of the same page decide. Debug information then names the function,
//! and the functions that were inlined into it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::ExitCode;

use addr2line::Loader;
use anyhow::{Context, Result, bail};
use clap::Args;
use elf::ElfBytes;
use elf::abi::PT_LOAD;
use elf::endian::AnyEndian;

use crate::bare::{self, System};
use crate::bench::cases;
use crate::bench::counter::{Block, Section};
use crate::bench::mitosis::{self, Purpose};
use crate::bench::table::number;
use crate::workspace;

/// What `cargo xtask profile` can be told.
#[derive(Args)]
pub struct Options {
    /// The bench case
    case: String,
    /// How many lines each table has
    #[arg(long, value_name = "N", default_value_t = 40)]
    top: usize,
    /// Only this part: kernel, or a name of the boot archive such as servers/process
    #[arg(long, value_name = "NAME")]
    part: Option<String>,
    /// Show source lines too
    #[arg(long)]
    lines: bool,
}

/// Measures the case and prints where its instructions are.
pub fn run(options: &Options) -> Result<ExitCode> {
    cases::check_prefix(&options.case)?;
    let system = bare::build()?;
    let outcome = mitosis::measure(
        &system,
        Purpose::Profile,
        std::slice::from_ref(&options.case),
    )?;
    // A name may be the beginning of several.
    let case = outcome
        .run
        .measurements
        .iter()
        .zip(&outcome.sections)
        .find(|(measurement, _)| measurement.name == options.case)
        .or_else(|| {
            outcome
                .run
                .measurements
                .iter()
                .zip(&outcome.sections)
                .next()
        });
    let Some((measurement, section)) = case else {
        bail!("{} has no result", options.case);
    };
    let operations = measurement.operations as f64;
    println!(
        "{}: {} instructions for each of {} operations ({} by the clock)\n",
        measurement.name,
        number(section.instructions as f64 / operations),
        measurement.operations,
        number(measurement.ticks)
    );
    let images = images(&system)?;
    let mut profile = Profile::new(&images, section);
    profile.print("part", &profile.parts(), operations, usize::MAX);
    if let Some(part) = &options.part {
        profile.counts.retain(|name, _| name == part);
    }
    let places = profile.places(&images)?;
    print_entries(&places, operations, options.top);
    let places: Vec<&Place> = places.iter().collect();
    print_places(
        "function, by itself",
        &places,
        operations,
        options.top,
        |place| place.frames.first().into_iter().cloned().collect(),
    );
    print_places(
        "function, as it was compiled",
        &places,
        operations,
        options.top,
        |place| place.frames.last().into_iter().cloned().collect(),
    );
    print_places(
        "function, with what is inlined into it",
        &places,
        operations,
        options.top,
        |place| place.frames.iter().cloned().collect(),
    );
    if options.lines {
        print_places("line", &places, operations, options.top, |place| {
            BTreeSet::from([place.line.clone()])
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// An ELF file that may have run, and what it has in memory.
struct Image {
    /// `kernel`, or its name in the boot archive.
    name: String,
    path: std::path::PathBuf,
    segments: Vec<(u64, Vec<u8>)>,
}

impl Image {
    fn read(name: &str, path: &Path) -> Result<Image> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = ElfBytes::<AnyEndian>::minimal_parse(&bytes)?;
        let segments = file
            .segments()
            .into_iter()
            .flatten()
            .filter(|header| header.p_type == PT_LOAD)
            .map(|header| Ok((header.p_vaddr, file.segment_data(&header)?.to_vec())))
            .collect::<Result<_>>()?;
        Ok(Image {
            name: name.to_owned(),
            path: path.to_owned(),
            segments,
        })
    }

    /// Whether the file has this code at this address.
    fn holds(&self, block: &Block) -> bool {
        self.segments.iter().any(|(start, bytes)| {
            let offset = block.address.wrapping_sub(*start) as usize;
            bytes.get(offset..offset.saturating_add(block.code.len())) == Some(&block.code)
        })
    }
}

fn images(system: &System) -> Result<Vec<Image>> {
    let kernel = Image::read("kernel", &system.kernel);
    let programs = system
        .programs
        .iter()
        .map(|built| Image::read(&built.name, &built.path));
    std::iter::once(kernel).chain(programs).collect()
}

/// How often each instruction of each part ran.
struct Profile {
    counts: BTreeMap<String, HashMap<u64, u64>>,
    /// What the kernel ran when it was entered from there.
    kernel: HashMap<(String, u64), u64>,
    /// Where programs enter the kernel by a system call.
    syscalls: BTreeSet<(String, u64)>,
}

/// The instruction of system calls.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Code that no file has.
const UNKNOWN: &str = "?";

impl Profile {
    fn new(images: &[Image], section: &Section) -> Profile {
        let owners = owners(images, &section.blocks);
        let mut counts: BTreeMap<String, HashMap<u64, u64>> = BTreeMap::new();
        let mut syscalls = BTreeSet::new();
        let mut kernel: HashMap<(String, u64), u64> = HashMap::new();
        for block in &section.blocks {
            let part = owners
                .get(&block.page)
                .map_or(UNKNOWN, |image| &images[*image].name);
            let instructions = counts.entry(part.to_owned()).or_default();
            let (mut address, mut last) = (block.address, block.address);
            for length in &block.lengths {
                *instructions.entry(address).or_default() += block.count;
                last = address;
                address += u64::from(*length);
            }
            let last = (part.to_owned(), last);
            if block.code.ends_with(&SYSCALL) {
                syscalls.insert(last.clone());
            }
            *kernel.entry(last).or_default() += block.kernel;
        }
        Profile {
            counts,
            kernel,
            syscalls,
        }
    }

    fn parts(&self) -> Vec<(String, u64)> {
        self.counts
            .iter()
            .map(|(part, instructions)| (part.clone(), instructions.values().sum()))
            .collect()
    }

    fn print(&self, title: &str, rows: &[(String, u64)], operations: f64, top: usize) {
        print_table(title, rows.to_vec(), operations, top);
    }

    /// Names of all instructions.
    fn places(&self, images: &[Image]) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for (part, instructions) in &self.counts {
            let Some(image) = images.iter().find(|image| image.name == *part) else {
                continue;
            };
            let loader = Loader::new(&image.path)
                .map_err(|error| anyhow::anyhow!("{}: {error}", image.path.display()))?;
            for (address, count) in instructions {
                let mut place = Place::find(part, &loader, *address, *count);
                let here = (part.clone(), *address);
                place.is_syscall = self.syscalls.contains(&here);
                place.kernel = self.kernel.get(&here).copied().unwrap_or(0);
                places.push(place);
            }
        }
        Ok(places)
    }
}

/// For each page with code, the image that the code is from.
fn owners(images: &[Image], blocks: &[Block]) -> HashMap<u64, usize> {
    let mut votes: HashMap<u64, Vec<usize>> = HashMap::new();
    for block in blocks {
        let votes = votes
            .entry(block.page)
            .or_insert_with(|| vec![0; images.len()]);
        for (index, image) in images.iter().enumerate() {
            votes[index] += usize::from(image.holds(block));
        }
    }
    votes
        .into_iter()
        .filter_map(|(page, votes)| {
            let (image, most) = votes
                .into_iter()
                .enumerate()
                .max_by_key(|(_, votes)| *votes)?;
            (most > 0).then_some((page, image))
        })
        .collect()
}

/// An instruction with its names.
struct Place {
    count: u64,
    /// The function whose code it is, then those into which that was inlined.
    frames: Vec<String>,
    /// Source file and line.
    line: String,
    /// It enters the kernel.
    is_syscall: bool,
    /// How many instructions the kernel ran when it was entered here.
    kernel: u64,
}

impl Place {
    fn find(part: &str, loader: &Loader, address: u64, count: u64) -> Place {
        let mut place = Place {
            count,
            frames: Vec::new(),
            line: format!("{part} {address:#x}"),
            is_syscall: false,
            kernel: 0,
        };
        let mut frames = loader.find_frames(address).ok();
        while let Some(Ok(Some(frame))) = frames.as_mut().map(|frames| frames.next()) {
            if let (true, Some(location)) = (place.frames.is_empty(), &frame.location) {
                let file = location.file.unwrap_or("?");
                let file = file
                    .strip_prefix(&*workspace::root().to_string_lossy())
                    .map_or(file, |rest| rest.trim_start_matches('/'));
                place.line = format!("{part} {file}:{}", location.line.unwrap_or(0));
            }
            if let Some(name) = frame.function.and_then(|name| {
                let raw = name.raw_name().ok()?;
                Some(format!("{:#}", rustc_demangle::demangle(&raw)))
            }) {
                place.frames.push(format!("{part} {name}"));
            }
        }
        if place.frames.is_empty() {
            // Assembly has symbols and no debug information.
            let symbol = loader.find_symbol(address).unwrap_or(UNKNOWN);
            let name = format!("{:#}", rustc_demangle::demangle(symbol));
            place.frames.push(format!("{part} {name}"));
        }
        place
    }
}

/// A function's name without type parameters.
fn short(name: &str) -> &str {
    name.split('<').next().unwrap_or(name)
}

/// The ways into the kernel, how often each was taken, and what it cost there each time.
fn print_entries(places: &[Place], operations: f64, top: usize) {
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for place in places.iter().filter(|place| place.kernel > 0) {
        let (name, times) = if place.is_syscall {
            // The stub's own body, the stub, and what called it.
            let names = place.frames.iter().skip(1).take(2);
            let names: Vec<_> = names.map(|frame| short(frame)).collect();
            (names.join(", in "), place.count)
        } else {
            // A fault or an interrupt; the block may have gone on without one.
            let part = place.line.split(' ').next().unwrap_or(UNKNOWN);
            (format!("{part} faults and interrupts"), 0)
        };
        let sum = sums.entry(name).or_default();
        *sum = (sum.0 + times, sum.1 + place.kernel);
    }
    let mut rows: Vec<_> = sums.into_iter().collect();
    rows.sort_by_key(|(_, (_, kernel))| std::cmp::Reverse(*kernel));
    println!("for each  in the kernel each time, entered by");
    for (name, (times, kernel)) in rows.into_iter().take(top) {
        let cost = match times {
            0 => format!("{} in all", number(kernel as f64 / operations)),
            _ => number(kernel as f64 / times as f64),
        };
        println!("{:>8.1}  {cost:>12}  {name}", times as f64 / operations);
    }
    println!();
}

fn print_places(
    title: &str,
    places: &[&Place],
    operations: f64,
    top: usize,
    names: impl Fn(&Place) -> BTreeSet<String>,
) {
    let mut sums: HashMap<String, u64> = HashMap::new();
    for place in places {
        for name in names(place) {
            *sums.entry(name).or_default() += place.count;
        }
    }
    print_table(title, sums.into_iter().collect(), operations, top);
}

fn print_table(title: &str, mut rows: Vec<(String, u64)>, operations: f64, top: usize) {
    rows.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
    println!("for each  {title}");
    for (name, count) in rows.iter().take(top) {
        let each = *count as f64 / operations;
        if each < 0.05 {
            break;
        }
        println!(
            "{:>8}  {name}",
            if each < 9.95 {
                format!("{each:.1}")
            } else {
                number(each)
            }
        );
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, start: u64, bytes: &[u8]) -> Image {
        Image {
            name: name.into(),
            path: name.into(),
            segments: vec![(start, bytes.to_vec())],
        }
    }

    fn block(address: u64, page: u64, code: &[u8], count: u64) -> Block {
        Block {
            address,
            page,
            code: code.to_vec(),
            lengths: vec![1; code.len()],
            count,
            kernel: 0,
        }
    }

    #[test]
    fn programs_at_one_address_are_told_apart_by_their_code() {
        let images = [
            image("one", 0x1000, &[0x90, 0x90, 0xc3, 0xf4]),
            image("two", 0x1000, &[0x90, 0x90, 0xc3, 0xcc]),
        ];
        let section = Section {
            blocks: vec![
                // The same code in both; only the rest of the page tells.
                block(0x1000, 7, &[0x90, 0x90], 10),
                block(0x1003, 7, &[0xcc], 1),
                block(0x1000, 8, &[0x90, 0x90], 3),
                block(0x1003, 8, &[0xf4], 1),
                block(0x5000, 9, &[0x90], 2),
            ],
            ..Section::default()
        };
        let profile = Profile::new(&images, &section);
        assert_eq!(
            profile.parts(),
            [
                (UNKNOWN.to_owned(), 2),
                ("one".to_owned(), 7),
                ("two".to_owned(), 21),
            ]
        );
    }

    #[test]
    fn instructions_of_this_very_program_have_names() {
        let path = std::env::current_exe().unwrap();
        let loader = Loader::new(&path).unwrap();
        let base = loader.relative_address_base();
        let file = std::fs::read(&path).unwrap();
        let file = ElfBytes::<AnyEndian>::minimal_parse(&file).unwrap();
        let (symbols, strings) = file.symbol_table().unwrap().unwrap();
        let own = "instructions_of_this_very_program_have_names";
        let address = symbols
            .iter()
            .find(|symbol| strings.get(symbol.st_name as usize).unwrap().contains(own))
            .unwrap()
            .st_value;
        let place = Place::find("xtask", &loader, address + base, 1);
        assert!(place.frames[0].contains(own), "{:?}", place.frames);
        assert!(
            place.line.contains("xtask/src/profile.rs"),
            "{}",
            place.line
        );
    }
}

//! The instruction counter that QEMU loads (`bench/plugin`): building it, and reading what it wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Builds the plugin; gives its path.
pub fn build() -> Result<PathBuf> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "instruction-counter",
        ])
        .current_dir(workspace::root())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("cannot build bench/plugin");
    }
    Ok(workspace::root().join("target/release/libinstruction_counter.so"))
}

/// QEMU's argument that loads the plugin.
pub fn argument(plugin: &Path, out: &Path, blocks: bool) -> String {
    let blocks = if blocks { "on" } else { "off" };
    format!("{},out={},blocks={blocks}", plugin.display(), out.display())
}

/// What was executed in the measured stretches of one case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// All instructions.
    pub instructions: u64,
    /// Instructions of the kinds that are counted apart, by the plugin's names.
    pub kinds: BTreeMap<String, u64>,
    /// Where they were, if that was asked for.
    pub blocks: Vec<Block>,
}

/// A straight piece of code.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Address of the first instruction.
    pub address: u64,
    /// The host page with the code: programs at the same address differ in it.
    pub page: u64,
    /// The code.
    pub code: Vec<u8>,
    /// Length of each instruction in bytes.
    pub lengths: Vec<u8>,
    /// How often it ran.
    pub count: u64,
    /// Of a program: how many instructions the kernel ran when it was entered from here.
    pub kernel: u64,
}

/// Reads the plugin's output.
pub fn read(path: &Path) -> Result<Vec<Section>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not what the plugin writes", path.display()))
}

fn parse(text: &str) -> Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        if line == "section" {
            sections.push(Section::default());
            continue;
        }
        let section = sections.last_mut().context("no section begins")?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["block", address, page, code, lengths, count, kernel] => section.blocks.push(Block {
                address: u64::from_str_radix(address, 16)?,
                page: u64::from_str_radix(page, 16)?,
                code: bytes(code)?,
                lengths: lengths
                    .split(',')
                    .map(str::parse)
                    .collect::<Result<_, _>>()?,
                count: count.parse()?,
                kernel: kernel.parse()?,
            }),
            ["instructions", count] => section.instructions = count.parse()?,
            [kind, count] => {
                section.kinds.insert(kind.to_owned(), count.parse()?);
            }
            _ => bail!("line {line:?}"),
        }
    }
    Ok(sections)
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    (0..hex.len() / 2)
        .map(|index| {
            let digits = hex.get(index * 2..index * 2 + 2).context("odd digits")?;
            Ok(u8::from_str_radix(digits, 16)?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_the_plugin_is_understood() {
        let sections = parse(
            "section\ninstructions 12\ncr3_loads 2\nsection\ninstructions 3\n\
             block ffffffff80201000 7f12 0f05c3 2,1 4 9\n",
        )
        .unwrap();
        assert_eq!(sections.len(), 2);
        assert_eq!(sections[0].instructions, 12);
        assert_eq!(sections[0].kinds["cr3_loads"], 2);
        assert_eq!(
            sections[1].blocks,
            [Block {
                address: 0xffff_ffff_8020_1000,
                page: 0x7f12,
                code: vec![0x0f, 0x05, 0xc3],
                lengths: vec![2, 1],
                count: 4,
                kernel: 9,
            }]
        );
        assert!(parse("block").is_err());
    }
}

//! Makes `kernel.symbols`, by which a panicking kernel names places.
//!
//! The format is told in `microkernel/src/boot/symbols.rs`, which reads it.

use std::path::Path;

use anyhow::{Context, Result};
use elf::ElfBytes;
use elf::abi::{SHF_EXECINSTR, SHN_LORESERVE, SHN_UNDEF, STT_FUNC, STT_NOTYPE};
use elf::endian::AnyEndian;

struct Function {
    address: u64,
    size: u64,
    name: String,
}

/// The symbol file of the kernel at `kernel`.
pub fn of_kernel(kernel: &Path) -> Result<Vec<u8>> {
    let bytes =
        std::fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let functions =
        functions(&bytes).with_context(|| format!("symbols of {}", kernel.display()))?;
    Ok(encode(&functions))
}

/// The functions in an ELF file, sorted, one for each address.
fn functions(bytes: &[u8]) -> Result<Vec<Function>> {
    let file = ElfBytes::<AnyEndian>::minimal_parse(bytes)?;
    let Some((table, strings)) = file.symbol_table()? else {
        return Ok(Vec::new());
    };
    // Labels in assembly have no type; in code they are as good as functions.
    let is_code = |section: u16| -> Result<bool> {
        let headers = file.section_headers().context("no sections")?;
        let header = headers.get(section.into());
        Ok(header.is_ok_and(|header| header.sh_flags & u64::from(SHF_EXECINSTR) != 0))
    };
    let mut functions = Vec::new();
    for symbol in table.iter() {
        let is_function = match symbol.st_symtype() {
            STT_FUNC => symbol.st_shndx != SHN_UNDEF,
            STT_NOTYPE => symbol.st_shndx < SHN_LORESERVE && is_code(symbol.st_shndx)?,
            _ => false,
        };
        if !is_function {
            continue;
        }
        let mangled = strings.get(symbol.st_name as usize)?;
        functions.push(Function {
            address: symbol.st_value,
            size: symbol.st_size,
            // `{:#}` leaves out the hash, which tells a reader nothing.
            name: format!("{:#}", rustc_demangle::demangle(mangled)),
        });
    }
    functions.sort_by(|one, other| (one.address, other.size).cmp(&(other.address, one.size)));
    functions.dedup_by_key(|function| function.address);
    // Assembly often leaves the size out: then a function reaches to the next one.
    for index in 0..functions.len() {
        if functions[index].size == 0 {
            let next = functions.get(index + 1).map(|next| next.address);
            functions[index].size = next.map_or(16, |next| next - functions[index].address);
        }
    }
    Ok(functions)
}

fn encode(functions: &[Function]) -> Vec<u8> {
    let mut entries: Vec<u8> = Vec::new();
    let mut names: Vec<u8> = Vec::new();
    for function in functions {
        entries.extend(function.address.to_le_bytes());
        entries.extend(
            u32::try_from(function.size)
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        entries.extend((names.len() as u32).to_le_bytes());
        names.extend(function.name.as_bytes());
    }
    let mut file = b"MITOSYM1".to_vec();
    file.extend((functions.len() as u32).to_le_bytes());
    file.extend((names.len() as u32).to_le_bytes());
    file.extend(entries);
    file.extend(names);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use microkernel::boot::symbols::Symbols;

    #[test]
    fn the_kernel_reads_the_symbol_file_that_xtask_writes() {
        let function = |address, size, name: &str| Function {
            address,
            size,
            name: name.into(),
        };
        let file = encode(&[
            function(0x1000, 0x20, "alpha"),
            function(0x1020, 0x10, "beta::gamma"),
        ]);
        let symbols = Symbols::parse(&file).unwrap();
        assert_eq!(symbols.lookup(0x101f), Some(("alpha", 0x1f)));
        assert_eq!(symbols.lookup(0x1020), Some(("beta::gamma", 0)));
        assert_eq!(symbols.lookup(0x1030), None);
    }

    #[test]
    fn functions_of_this_very_program_have_readable_names() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let functions = functions(&bytes).unwrap();
        assert!(functions.is_sorted_by_key(|function| function.address));
        let own = "functions_of_this_very_program_have_readable_names";
        assert!(
            functions
                .iter()
                .any(|function| function.name.ends_with(own))
        );
    }
}

//! `cargo xtask docs`: the pages that are made from libipc's tables.
//!
//! `docs/syscalls.md` and `docs/protocols.md` are never edited by hand; `cargo
//! xtask tidy` fails when they differ from the tables.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use libipc::protocol::{self, Protocol};
use libipc::syscall::{IPC_CALLS, SyscallInfo, TABLE};

use crate::workspace;

const NOTICE: &str = "<!-- Made by `cargo xtask docs` from libipc: edit the tables there. -->";

/// A page and what it should contain.
pub struct Page {
    /// Its path from the top of the tree.
    pub path: &'static str,
    /// Its text.
    pub text: String,
}

/// Writes all pages.
pub fn write() -> Result<ExitCode> {
    for page in pages() {
        let path = workspace::root().join(page.path);
        std::fs::write(&path, page.text)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", page.path);
    }
    Ok(ExitCode::SUCCESS)
}

/// All pages that are made and not written.
pub fn pages() -> [Page; 2] {
    [
        Page {
            path: "docs/syscalls.md",
            text: syscalls(IPC_CALLS, TABLE),
        },
        Page {
            path: "docs/protocols.md",
            text: protocols(protocol::ALL),
        },
    ]
}

fn syscalls(messages: &[SyscallInfo], plain: &[SyscallInfo]) -> String {
    let mut page = format!(
        "# System calls\n\n{NOTICE}\n\n\
         All that a program can ask of the kernel. The register layout is in `libipc/src/abi.rs`, \
         the declaration in `libipc/src/syscall.rs`, and the functions to call in `libipc/src/stub.rs`.\n\n\
         ## Messages\n\n\
         These carry a body, capabilities and a deadline; they have a register layout of their own.\n\n"
    );
    table(&mut page, messages);
    page += "\n## Plain calls\n\n\
             Up to ten arguments in registers, a status and up to two values back.\n\n";
    table(&mut page, plain);
    page
}

fn table(page: &mut String, calls: &[SyscallInfo]) {
    *page += "| number | call | what it does |\n|---:|---|---|\n";
    for call in calls {
        row(page, call.number, call.name, call.signature, call.doc);
    }
}

fn protocols(all: &[Protocol]) -> String {
    let mut page = format!(
        "# Protocols\n\n{NOTICE}\n\n\
         What the servers are asked. Bodies are postcard; a request begins with the method's number. \
         *takes* and *gives* are the capabilities that travel with request and answer. The \
         declarations are in `libipc/src/protocol`, the encoding is in `libipc/src/wire.rs`.\n"
    );
    for protocol in all {
        let name = protocol.name;
        let _ = write!(page, "\n## {name}\n\n{}\n\n", paragraph(protocol.doc));
        page += "| number | request | what it does |\n|---:|---|---|\n";
        for method in protocol.methods {
            let mut doc = paragraph(method.doc);
            for (verb, caps) in [("takes", method.takes), ("gives", method.gives)] {
                if !caps.is_empty() {
                    let _ = write!(doc, " *{verb}:* {}.", caps.join(", "));
                }
            }
            row(
                &mut page,
                method.number,
                method.name,
                method.signature,
                &doc,
            );
        }
    }
    page
}

fn row(page: &mut String, number: impl Into<u64>, name: &str, signature: &str, doc: &str) {
    // The tables are stringified tokens: `pid : i32`.
    let call = format!("{name}{signature}")
        .replace(" -> ()", "")
        .replace(" : ", ": ");
    let number = number.into();
    let doc = paragraph(doc).replace('|', "\\|");
    let _ = writeln!(page, "| {number} | `{call}` | {doc} |");
}

/// A doc comment on one line, its links to Rust items as plain names.
fn paragraph(doc: &str) -> String {
    let words = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = String::new();
    let mut rest = words.as_str();
    // [`name`] and [`name`](path) become `name`.
    while let Some(start) = rest.find("[`") {
        let Some(length) = rest[start..].find("`]") else {
            break;
        };
        let (before, link) = rest.split_at(start);
        text += before;
        text += &link[1..length + 1];
        rest = &link[length + 2..];
        if let Some(target) = rest.strip_prefix('(')
            && let Some(end) = target.find(')')
        {
            rest = &target[end + 1..];
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_rust_items_become_plain_names() {
        assert_eq!(
            paragraph(" See [`this`] and\n [`that`](crate::that), (really).\n"),
            "See `this` and `that`, (really)."
        );
        assert_eq!(paragraph("no [`end"), "no [`end");
    }

    #[test]
    fn every_call_and_every_method_has_a_line() {
        let [syscalls, protocols] = pages();
        for call in IPC_CALLS.iter().chain(TABLE) {
            assert!(
                syscalls.text.contains(&format!("| `{}(", call.name)),
                "{}",
                call.name
            );
        }
        for method in protocol::ALL.iter().flat_map(|protocol| protocol.methods) {
            assert!(
                protocols.text.contains(&format!("| `{}(", method.name)),
                "{}",
                method.name
            );
        }
    }
}

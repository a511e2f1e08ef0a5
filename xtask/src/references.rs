//! Finds the paths that documents and comments name, and looks them up.
//!
//! A reference is a path in backticks (`libipc/src/abi.rs`) or the target of a
//! Markdown link. Words in backticks that only look like paths (`bin/sh`, a file
//! of the boot archive) are left alone: a path counts as one of ours when its
//! first folder is one of ours.

use std::path::Path;

/// Something in a text that should exist as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A path in backticks.
    Path(String),
    /// The target of a Markdown link, relative to the document.
    Link(String),
}

impl Reference {
    /// As it is written.
    pub fn text(&self) -> &str {
        match self {
            Reference::Path(text) | Reference::Link(text) => text,
        }
    }
}

/// All references in a file with their line numbers: those of the whole text of a
/// document, or of the comments of a source file.
pub fn in_file(text: &str, is_document: bool) -> Vec<(usize, Reference)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (index, line) in text.lines().enumerate() {
        let line = if is_document {
            line
        } else {
            match line
                .find("//")
                .or_else(|| line.starts_with(" *").then_some(0))
            {
                Some(start) => &line[start..],
                None => continue,
            }
        };
        if line.trim_start_matches(['/', '!', ' ']).starts_with("```") {
            in_block = !in_block;
            continue;
        }
        if in_block {
            continue;
        }
        // Every second piece between backticks is in backticks.
        let quoted = line.split('`').skip(1).step_by(2);
        found.extend(
            quoted
                .filter(|text| looks_like_path(text))
                .map(|text| (index + 1, Reference::Path(text.to_owned()))),
        );
        if is_document {
            found.extend(links(line).map(|target| (index + 1, Reference::Link(target.to_owned()))));
        }
    }
    found
}

/// Does the reference lead to a file or folder? `file` is where it stands,
/// relative to `root`.
pub fn leads_somewhere(root: &Path, file: &Path, reference: &Reference) -> bool {
    let folder = root.join(file.parent().unwrap_or(Path::new("")));
    match reference {
        Reference::Link(target) => folder.join(target).exists(),
        Reference::Path(path) => {
            let first = path.split('/').next().unwrap_or_default();
            // Relative to the top, to the package (`src/…`), or to the file itself.
            let mut bases = vec![root.to_owned(), folder.clone()];
            let package = folder
                .ancestors()
                .find(|folder| folder.join("Cargo.toml").exists());
            bases.extend(package.map(Path::to_owned));
            let ours = bases.iter().any(|base| base.join(first).is_dir());
            !ours
                || bases.iter().any(|base| base.join(path).exists())
                || is_archive_name(root, path)
        }
    }
}

/// The boot archive has a folder with the name of one of ours: `tests/traps` is
/// the program of `tests/src/bin/traps.rs`.
fn is_archive_name(root: &Path, path: &str) -> bool {
    path.strip_prefix("tests/").is_some_and(|name| {
        root.join("tests/src/bin")
            .join(format!("{name}.rs"))
            .exists()
    })
}

fn looks_like_path(text: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "._/-".contains(character);
    // `servers/NAME` stands for several.
    let is_placeholder =
        |part: &str| part.len() > 1 && part.chars().all(|character| character.is_ascii_uppercase());
    text.contains('/')
        && !text.starts_with('/')
        && !text.starts_with("target/")
        && text.chars().all(plain)
        && !text.split('/').any(is_placeholder)
}

/// The targets of Markdown links to files, without their fragments.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        let is_file =
            !target.is_empty() && !target.contains("://") && !target.contains(char::is_whitespace);
        is_file.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    fn texts(text: &str, is_document: bool) -> Vec<String> {
        in_file(text, is_document)
            .into_iter()
            .map(|(_, reference)| reference.text().to_owned())
            .collect()
    }

    #[test]
    fn paths_in_backticks_and_links_are_references() {
        let text = "See `libipc/src/abi.rs`, `a + b/c`, `servers/NAME` and [this](page.md#part).\n\
                    ```\n`not/this`\n```\n[that](https://example.org/x)\n";
        assert_eq!(texts(text, true), ["libipc/src/abi.rs", "page.md"]);
    }

    #[test]
    fn in_sources_only_comments_count() {
        let text = "let path = \"`no/path`\";\n//! See `src/main.rs`.\n";
        assert_eq!(texts(text, false), ["src/main.rs"]);
    }

    #[test]
    fn a_path_is_looked_up_from_the_top_and_from_its_package() {
        let root = workspace::root();
        let leads = |file: &str, path: &str| {
            leads_somewhere(root, Path::new(file), &Reference::Path(path.into()))
        };
        assert!(leads("README.md", "xtask/src/main.rs"));
        assert!(!leads("README.md", "xtask/src/no-such-file.rs"));
        assert!(leads("xtask/src/main.rs", "src/main.rs"));
        assert!(!leads("xtask/src/main.rs", "src/no-such-file.rs"));
        assert!(leads("README.md", "bin/sh"), "not one of our folders");
    }
}

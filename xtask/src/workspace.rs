//! Where things are: the source tree, and the folders for what is built.

use std::path::{Path, PathBuf};

/// The top of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// The folder for everything that the inner builds make.
pub fn output() -> PathBuf {
    root().join("target/bare")
}

//! Gives the module a digest of the sources it is built from, so that Python can refuse a stale build.
//!
//! The digest covers each crate's `Cargo.toml` and `src/**/*.rs`: path, NUL, content, NUL, in the order of paths.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use sha2::{Digest, Sha256};

const CRATES: [&str; 5] = ["binding", "core", "h1", "h2", "proxy"];

fn main() -> io::Result<()> {
    let manifest_dir = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let root = Path::new(&manifest_dir)
        .parent()
        .expect("the crate lies in a folder");
    let mut digest = Sha256::new();
    for name in CRATES {
        let mut files = vec![root.join(name).join("Cargo.toml")];
        println!("cargo:rerun-if-changed={}", files[0].display());
        let sources = root.join(name).join("src");
        println!("cargo:rerun-if-changed={}", sources.display());
        collect(&sources, &mut files)?;
        files.sort_by_key(|path| relative(root, path));
        for path in files {
            digest.update(relative(root, &path));
            digest.update([0]);
            digest.update(fs::read(&path)?);
            digest.update([0]);
        }
    }
    let mut hex = String::new();
    for byte in digest.finalize() {
        write!(hex, "{byte:02x}").expect("a String takes everything");
    }
    println!("cargo:rustc-env=GATEWAY_SOURCE_DIGEST={hex}");
    Ok(())
}

fn relative(root: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(root).expect("lies below the root");
    inside.to_string_lossy().replace('\\', "/")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

//! The shared library of `examples/guest.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns its path, in target/PROFILE/examples beside this test.
pub(crate) fn path() -> PathBuf {
    let name = format!("libguest{}", std::env::consts::DLL_SUFFIX);
    profile().join("examples").join(name)
}

/// Returns target/PROFILE; this binary is target/PROFILE/deps/TEST-HASH.
fn profile() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent().and_then(Path::parent).unwrap().to_owned()
}

/// Builds it, and returns its path.
pub(crate) fn built() -> PathBuf {
    let guest = path();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", "guest", "--manifest-path"]);
    build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    build.arg("--target-dir").arg(profile().parent().unwrap());
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let output = build.output().expect("cargo");
    assert!(output.status.success() && guest.exists(), "{}: {output:?}", guest.display());
    guest
}

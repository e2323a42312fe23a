//! Where the `sallyport` binary is: next to the tests, built when it is not there yet.

use std::path::PathBuf;
use std::process::Command;

/// The binary of the profile that the tests were built with.
pub fn sallyport() -> PathBuf {
    let tests = std::env::current_exe().expect("a running test knows its own path");
    let profile = tests.ancestors().nth(2).expect("tests lie in target/<profile>/deps").to_owned();
    let binary = profile.join(format!("sallyport{}", std::env::consts::EXE_SUFFIX));
    if !binary.exists() {
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--package", "sallyport", "--bin", "sallyport"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("cargo runs");
        assert!(status.success(), "the sallyport binary could not be built");
    }
    binary
}

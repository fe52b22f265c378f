//! Builds the agent, which is in every initrd that embody makes: a static program of its own, so that it runs where nothing else is.
//!
//! Its target directory is its own (`target/agent`), shared by all profiles of embody. It links glibc statically: libc6-dev has what that needs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let from = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("agent");
    for inputs in ["src", "protocol"] {
        println!("cargo:rerun-if-changed={}", from.join(inputs).display());
    }
    println!("cargo:rerun-if-changed={}", from.join("Cargo.toml").display());
    println!("cargo:rerun-if-changed={}", from.join("Cargo.lock").display());
    println!("cargo:rerun-if-env-changed=EMBODY_AGENT_BINARY");
    // Whoever packages embody may have built it apart.
    let agent = env::var_os("EMBODY_AGENT_BINARY").map_or_else(|| build(&from), PathBuf::from);
    println!("cargo:rustc-env=EMBODY_AGENT={}", agent.display());
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo says no {name}"))
}

/// `target/PROFILE/build/embody-HASH/out` is where cargo has this one write.
fn target_directory() -> PathBuf {
    let out = PathBuf::from(variable("OUT_DIR"));
    out.ancestors().nth(4).map_or_else(|| out.clone(), Path::to_path_buf)
}

fn build(from: &Path) -> PathBuf {
    let target = variable("TARGET");
    let directory = target_directory().join("agent");
    let mut cargo = Command::new(variable("CARGO"));
    cargo.args(["build", "--release", "--locked", "--quiet", "--target", &target, "--target-dir"]).arg(&directory).current_dir(from);
    // What holds for embody's own build (a lint's driver, a sanitizer, flags) does not for this one.
    for of_embody in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        cargo.env_remove(of_embody);
    }
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    let status = cargo.status().unwrap_or_else(|error| panic!("the agent cannot be built: cargo does not start: {error}"));
    assert!(
        status.success(),
        "the agent cannot be built: see above. It links glibc statically: install libc6-dev (Debian, Ubuntu) or glibc-static (Fedora), or name an agent \
         that was built elsewhere in EMBODY_AGENT_BINARY"
    );
    directory.join(&target).join("release").join("embody-agent")
}

//! What these tests share: commands, a place that every user may enter, and the tool (`tool`) as an ordinary user.
//!
//! Leaves out what is tested. Invariant: a command that fails ends the test with all that it printed.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use embody::testing::image::pack;
use embody::testing::image::source::Source;
use tempfile::TempDir;

/// Of the tool, one a line.
pub const ARGUMENTS: &str = "EMBODY_IMPORTING_TOOL";

/// What libtest prints goes where errors do, and what the tool writes there comes out.
const TOOL: &str = r#"#!/bin/sh
EMBODY_IMPORTING_TOOL=$(printf '%s\n' "$@") exec "${0%/*}/importing" --exact tool::the_tool --nocapture 3>&1 1>&2 2>&3 3>&-
"#;

pub struct Bench {
    dir: TempDir,
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program of another peer, or a word that it is not there.
pub fn has(program: &str) -> bool {
    let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if !there {
        assert!(env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "{program} is not installed");
        eprintln!("SKIP: {program} is not installed");
    }
    there
}

/// The text of a JSON field that is there once.
pub fn field<'j>(json: &'j serde_json::Value, path: &str) -> &'j serde_json::Value {
    json.pointer(path).unwrap_or_else(|| panic!("no {path} in {json:#}"))
}

/// A directory as it is sent, in a file, and what is not in it.
pub fn packed(directory: &Path, to: &Path) -> std::io::Result<(Source, Vec<String>)> {
    let (mut file, mut told) = (fs::File::create(to)?, Vec::new());
    pack::directory(directory, &mut file, &mut |warning| told.push(warning))?;
    Ok((Source::Tar(to.to_owned()), told))
}

impl Bench {
    /// The directory `tree` in here.
    pub fn tree(&self, name: &str) -> Source {
        packed(&self.path(name), &self.path("packed")).unwrap().0
    }

    pub fn new() -> Bench {
        let dir = tempfile::Builder::new().prefix("embody-image").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (own, program) = (env::current_exe().unwrap(), dir.path().join("importing"));
        // On another file system, or another's file.
        if fs::hard_link(&own, &program).is_err() {
            fs::copy(&own, &program).unwrap();
        }
        fs::write(dir.path().join("image"), TOOL).unwrap();
        fs::set_permissions(dir.path().join("image"), fs::Permissions::from_mode(0o755)).unwrap();
        let user = dir.path().join("user");
        fs::create_dir(&user).unwrap();
        let _ = std::os::unix::fs::chown(&user, Some(65534), Some(65534));
        Bench { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A script in the directory.
    pub fn try_sh(&self, script: &str) -> Output {
        let script = format!("set -eu; cd {}; umask 022; {script}", self.dir.path().display());
        Command::new("bash").args(["-c", &script]).env("LC_ALL", "C").output().unwrap()
    }

    pub fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script}\n{out}\n{err}");
        out.into_owned()
    }

    /// The tool, as the user whom nothing belongs to where we are root; the store is `user/store`.
    pub fn tool(&self, arguments: &str) -> String {
        format!("{}./image user/store {arguments}", as_user())
    }

    /// Imports without generalising; the digest.
    pub fn import(&self, arguments: &str) -> String {
        let out = self.sh(&self.tool(&format!("import {arguments} --as-is")));
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        field(&json, "/digest").as_str().unwrap().to_owned()
    }

    /// What an import that must fail says.
    pub fn refused(&self, arguments: &str) -> String {
        let output = self.try_sh(&self.tool(&format!("import {arguments} --as-is")));
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn index(&self, digest: &str) -> String {
        self.sh(&self.tool(&format!("show {digest}")))
    }
}

pub fn as_user() -> &'static str {
    if is_root() { "setpriv --reuid 65534 --regid 65534 --clear-groups " } else { "" }
}

/// The objects of a store, as paths.
pub fn objects(store: &Path) -> Vec<PathBuf> {
    let fans = fs::read_dir(store.join("objects")).unwrap();
    let mut all: Vec<_> = fans.flat_map(|fan| fs::read_dir(fan.unwrap().path()).unwrap()).map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

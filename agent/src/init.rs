//! Process 1 of the initrd: the file systems of the kernel, then a child that does the work, then the system of the new root.
//!
//! Leaves out: everything that may go wrong in more ways than one, which is the child's (`boot`): the kernel panics when process 1 ends, so nothing here
//! may. Invariant: after a failure the machine starts anew, `REBOOT_AFTER` later, and then asks its controller what to do. Shown by
//! `tests/guests.py`.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, mount_remount, unmount};
use rustix::system::{RebootCommand, reboot};

use crate::boot::Outcome;
use crate::command_line::CommandLine;
use crate::console::{chain, say};
use crate::root::NEW_ROOT;
use crate::settle::AGENT;

/// What this program is told to be.
pub const BOOT: &str = "boot";
pub const REPORT: &str = "report";
pub const SHELL: &str = "shell";

/// Long enough to be read on a console, and for the controller to be told.
const REBOOT_AFTER: Duration = Duration::from_secs(30);
/// More is not an outcome.
const OUTCOME_BYTES: u64 = 64 << 10;
const PANIC: &str = "/proc/sys/kernel/panic";

// linux/magic.h
const RAMFS_MAGIC: u64 = 0x8584_58f6;
const TMPFS_MAGIC: u64 = 0x0102_1994;

#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("{at} cannot be mounted")]
    Mount { at: &'static str, source: Errno },
    #[error("the first program cannot start itself again")]
    Spawn(#[source] io::Error),
    #[error("the first program ended without saying why ({0})")]
    Silent(String),
    #[error("{0}")]
    Failed(String),
    #[error("{0} cannot become that of the new root")]
    Move(&'static str, #[source] Errno),
    #[error("the new root cannot become the root")]
    Switch(#[source] Errno),
    #[error("{program} of the root cannot be run")]
    Exec { program: String, source: io::Error },
}

pub fn main(arguments: Vec<OsString>) -> ! {
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("process 1 panicked: {panic}"));
        sleep(REBOOT_AFTER);
        start_anew();
    }));
    let Err(error) = start(&arguments);
    failed(&chain(&error))
}

fn start(arguments: &[OsString]) -> Result<Infallible, InitError> {
    file_systems()?;
    // Should the kernel panic after all, here or in a driver that is loaded.
    let panic = fs::read_to_string(PANIC).unwrap_or_default();
    let _ = fs::write(PANIC, REBOOT_AFTER.as_secs().to_string());
    let outcome = work()?;
    if !panic.is_empty() {
        let _ = fs::write(PANIC, panic.trim());
    }
    switch(&outcome)?;
    if !outcome.has_systemd {
        carry_on();
    }
    say(&format!("{} is run", outcome.init));
    let source = Command::new(&outcome.init).args(arguments).exec();
    Err(InitError::Exec { program: outcome.init, source })
}

fn file_systems() -> Result<(), InitError> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    let all = [
        ("/proc", "proc", plain | MountFlags::NOEXEC, c""),
        ("/sys", "sysfs", plain | MountFlags::NOEXEC, c""),
        ("/dev", "devtmpfs", MountFlags::NOSUID, c"mode=0755"),
        ("/run", "tmpfs", plain, c"mode=0755"),
    ];
    for (at, kind, flags, options) in all {
        let _ = fs::create_dir(at);
        match mount(kind, at, kind, flags, options) {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(source) => return Err(InitError::Mount { at, source }),
        }
    }
    Ok(())
}

/// This program again. Its file may be gone by then, or on its way to the new root.
fn again(arguments: &[&str], output: fn() -> Stdio) -> io::Result<Child> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for program in ["/proc/self/exe", "/init", AGENT] {
        match Command::new(program).args(arguments).stdout(output()).spawn() {
            Ok(child) => return Ok(child),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn work() -> Result<Outcome, InitError> {
    let mut child = again(&[BOOT], Stdio::piped).map_err(InitError::Spawn)?;
    let mut said = Vec::new();
    if let Some(output) = child.stdout.take() {
        let _ = output.take(OUTCOME_BYTES).read_to_end(&mut said);
    }
    let ended = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    match serde_json::from_slice::<Result<Outcome, String>>(&said) {
        Ok(outcome) => outcome.map_err(InitError::Failed),
        Err(_) => Err(InitError::Silent(ended)),
    }
}

/// As switch_root(8).
fn switch(outcome: &Outcome) -> Result<(), InitError> {
    if outcome.is_read_only {
        mount_remount(NEW_ROOT, MountFlags::RDONLY, c"").map_err(InitError::Switch)?;
    }
    for at in ["/dev", "/sys", "/proc"] {
        mount_move(at, format!("{NEW_ROOT}{at}")).map_err(|source| InitError::Move(at, source))?;
    }
    // `settle` has it there already.
    unmount("/run", UnmountFlags::DETACH).map_err(|source| InitError::Move("/run", source))?;
    let is_initrd = rustix::fs::statfs("/").is_ok_and(|fs| matches!(u64::try_from(fs.f_type), Ok(RAMFS_MAGIC | TMPFS_MAGIC)));
    if let (true, Ok(root)) = (is_initrd, fs::symlink_metadata("/")) {
        remove_all(Path::new("/"), root.dev());
    }
    rustix::process::chdir(NEW_ROOT).map_err(InitError::Switch)?;
    mount_move(".", "/").map_err(InitError::Switch)?;
    rustix::process::chroot(".").map_err(InitError::Switch)?;
    rustix::process::chdir("/").map_err(InitError::Switch)
}

/// The memory of the initrd's files. What is mounted is of another device, and stays.
fn remove_all(directory: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(about) if about.dev() != device => {}
            Ok(about) if about.is_dir() => {
                remove_all(&path, device);
                let _ = fs::remove_dir(&path);
            }
            Ok(_) => {
                let _ = fs::remove_file(&path);
            }
            Err(_) => {}
        }
    }
}

/// Where no systemd starts the service, this process is its parent, whatever it becomes.
fn carry_on() {
    if let Err(error) = Command::new(AGENT).arg("run").stdin(Stdio::null()).process_group(0).spawn() {
        say(&format!("{AGENT} cannot be run: {error}: the controller will not hear that this system is up"));
    }
}

fn failed(words: &str) -> ! {
    let begun = Instant::now();
    say(&format!("FAILED: {words}"));
    let reporter = again(&[REPORT, words], Stdio::inherit);
    if let Err(error) = reporter {
        say(&format!("the controller is not told: {error}"));
    }
    if CommandLine::of_this_start().has_debug() {
        say("embody.debug: a shell, if there is one; the machine starts anew after it");
        let _ = again(&[SHELL], Stdio::inherit).and_then(|mut shell| shell.wait());
    }
    let left = REBOOT_AFTER.saturating_sub(begun.elapsed());
    say(&format!("this machine starts anew in {} s", left.as_secs()));
    sleep(left);
    start_anew()
}

fn start_anew() -> ! {
    loop {
        if let Err(error) = reboot(RebootCommand::Restart) {
            say(&format!("this machine cannot start anew: {error}"));
        }
        sleep(REBOOT_AFTER);
    }
}

/// The initrd's, else that of the new root.
pub fn shell() -> ExitCode {
    let shell = "/bin/sh";
    if !Path::new(shell).exists() && rustix::process::chroot(NEW_ROOT).is_ok() {
        let _ = rustix::process::chdir("/");
    }
    let error = Command::new(shell).exec();
    say(&format!("{shell}: {error}"));
    ExitCode::FAILURE
}

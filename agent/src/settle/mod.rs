//! What the system of the new root is told before it starts: its name, its links, how to leave the card of its root alone, and files of its own.
//!
//! Leaves out: what they are to be, which the command line and the exchange say. Invariant: paths are those of the new root and cannot lead out of
//! it, since this process made it its root; files of the image are replaced, never written through a link that leads elsewhere. What cannot be
//! written is an error, except where it is said that the system may live without. Shown by the tests of its parts and `tests/guests.py`.

mod cards;
mod files;
mod given;
mod ifupdown;
mod links;
mod networkd;

use std::fs::{self, File, Permissions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use embody_protocol::Identity;
use rustix::io::Errno;

use crate::boot::Outcome;
use crate::command_line::{CommandLine, Root, WrongParameter};
use crate::console::say;
use crate::dhcp::Lease;
use crate::exchange::Known;
use crate::facts::Facts;
use crate::network::{self, Interface};
use crate::root::NEW_ROOT;

/// In the new root: what is in /run may be forbidden to run.
pub const AGENT: &str = "/usr/libexec/embody-agent";
const UNIT: &str = "/run/systemd/system/embody-agent.service";
const WANTED: &str = "/run/systemd/system/multi-user.target.wants";
const SYSTEMD: [&str; 2] = ["/lib/systemd/systemd", "/usr/lib/systemd/systemd"];
/// As the kernel looks for it, with systemd's own place.
const INITS: [&str; 3] = ["/sbin/init", "/lib/systemd/systemd", "/bin/init"];
const SHELL: &str = "/bin/sh";

#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    #[error(transparent)]
    Parameter(#[from] WrongParameter),
    #[error("{path} of the root cannot be written")]
    Write { path: String, source: io::Error },
    #[error("the controller says of the link {link} the {what} `{found}`: expected {expected}")]
    Link { link: String, what: &'static str, found: String, expected: &'static str },
    #[error("the path `{0}` of a file is refused: expected one from / to a file, without `..`")]
    Path(String),
    #[error("{path} cannot have the {what} `{name}`: the root has none of this name")]
    NoSuch { path: String, what: &'static str, name: String },
    #[error("the root cannot be entered")]
    Enter(#[source] Errno),
    #[error("the first program cannot be copied into the root")]
    Itself(#[source] io::Error),
    #[error("the root has no {0} that can be run: is it the whole system?")]
    NoInit(String),
}

/// From here on this process is in the new root.
pub fn settle(line: &CommandLine, card: &Interface, lease: &Lease, known: Option<&Known>) -> Result<Outcome, SettleError> {
    let nobody = Identity::default();
    let identity = known.map_or(&nobody, |known| &known.identity);
    let links = links::ready(&identity.links, &card.mac, &network::names())?;
    let mut itself = File::open("/proc/self/exe").map_err(SettleError::Itself)?;
    enter()?;
    let has_systemd = SYSTEMD.iter().any(|path| Path::new(path).exists());
    // What the exchange says wins over the command line.
    files::name(said(&identity.hostname, line.hostname()?), lease)?;
    if let Some(id) = said(&identity.machine_id, line.machine_id()?) {
        files::replace("/etc/machine-id", &format!("{id}\n"), 0o444)?;
    }
    files::name_servers(lease, &identity.links)?;
    cards::set_up(card, lease, &links, root_server(line), has_systemd)?;
    facts(line, card, lease, known).store().map_err(files::at("/run/embody/agent.json"))?;
    copy_to(&mut itself, AGENT)?;
    if has_systemd {
        service()?;
    }
    given::write_all(Path::new("/"), &identity.files)?;
    Ok(Outcome { init: init(line)?, has_systemd, is_read_only: line.is_read_only() })
}

fn enter() -> Result<(), SettleError> {
    for directory in ["dev", "proc", "sys", "run", "tmp"] {
        let path = format!("{NEW_ROOT}/{directory}");
        if !Path::new(&path).exists() {
            fs::create_dir(&path).map_err(files::at(&path))?;
            let mode = if directory == "tmp" { 0o1777 } else { 0o755 };
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(files::at(&path))?;
        }
    }
    rustix::mount::mount_bind("/run", format!("{NEW_ROOT}/run")).map_err(SettleError::Enter)?;
    rustix::process::chroot(NEW_ROOT).map_err(SettleError::Enter)?;
    rustix::process::chdir("/").map_err(SettleError::Enter)
}

fn root_server(line: &CommandLine) -> Option<Ipv4Addr> {
    match line.root() {
        Ok(Root::Nfs { address, .. }) => Some(address),
        _ => None,
    }
}

fn said<'a>(first: &'a str, then: Option<&'a str>) -> Option<&'a str> {
    Some(first).filter(|first| !first.is_empty()).or(then)
}

fn facts(line: &CommandLine, card: &Interface, lease: &Lease, known: Option<&Known>) -> Facts {
    Facts {
        exchange: known.and(line.exchange_as_given()).map(str::to_owned),
        secret: known.map(|known| known.secret.clone()),
        ready: known.map(|known| known.identity.ready.clone()).unwrap_or_default(),
        run: line.run().map(str::to_owned),
        root: line.root_as_given().unwrap_or_default().to_owned(),
        interface: card.name.clone(),
        mac: card.mac.clone(),
        address: lease.address,
        prefix: lease.prefix,
        routers: lease.routers.clone(),
        name_servers: lease.name_servers.clone(),
        domain: lease.domain.clone(),
        time_servers: lease.time_servers.clone(),
        lease_seconds: lease.seconds,
    }
}

fn copy_to(itself: &mut File, path: &str) -> Result<(), SettleError> {
    files::directory_of(path)?;
    let _ = fs::remove_file(path);
    let mut copy = File::create_new(path).map_err(SettleError::Itself)?;
    io::copy(itself, &mut copy).map_err(SettleError::Itself)?;
    copy.set_permissions(Permissions::from_mode(0o755)).map_err(SettleError::Itself)
}

/// In /run: it is of this start, and nothing of it stays in an image that is made of this system. It reads its facts, which are root's, looks at the
/// system, asks systemd and says words over TCP, and may do nothing else.
fn unit() -> String {
    format!(
        "[Unit]\nDescription=Tells the controller that this system is up\nAfter=network.target\n\n\
         [Service]\nExecStart={AGENT} run\nRestart=on-failure\nRestartSec=10\nTimeoutStopSec=5\n\
         CapabilityBoundingSet=\nNoNewPrivileges=yes\nProtectSystem=strict\nProtectHome=yes\nProtectKernelModules=yes\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\nRestrictNamespaces=yes\nMemoryDenyWriteExecute=yes\nLockPersonality=yes\n\
         SystemCallArchitectures=native\nLimitCORE=0\n"
    )
}

fn service() -> Result<(), SettleError> {
    files::replace(UNIT, &unit(), 0o644)?;
    fs::create_dir_all(WANTED).map_err(files::at(WANTED))?;
    let link = format!("{WANTED}/embody-agent.service");
    match std::os::unix::fs::symlink(UNIT, &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(files::at(&link)(error)),
        _ => Ok(()),
    }
}

fn init(line: &CommandLine) -> Result<String, SettleError> {
    let can_run = |path: &Path| fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0);
    if let Some(path) = line.init() {
        // What was asked for and is not there is not silently something else.
        return if can_run(path) { Ok(path.display().to_string()) } else { Err(SettleError::NoInit(path.display().to_string())) };
    }
    if let Some(path) = INITS.iter().find(|path| can_run(Path::new(path))) {
        return Ok((*path).to_owned());
    }
    if line.has_debug() && can_run(Path::new(SHELL)) {
        say("embody.debug: the root has no init, and is entered with its shell");
        return Ok(SHELL.to_owned());
    }
    Err(SettleError::NoInit(INITS.join(", ")))
}

//! iPXE scripts: of a start, of a machine that is parked, and the first one, which asks who the machine is.
//!
//! Invariant: a script never ends in a prompt. What fails is tried again; after two failures address and script come anew from an offer, since
//! the port may have been moved to another network. Nothing of a manifest can add a line, a variable or a command to it (`model::script`).
//! Shown by the golden scripts in `tests/golden/boot` and `tests/machines.rs`.

use crate::model::body::Snapshot;
use crate::model::image::Blob;
use crate::model::persona::RootMode;
use crate::model::script::{JOINED_BY, NotForScripts, line, word};
use crate::model::{Mac, Name};

/// How long a parked machine waits before it asks again: bound, it runs within a minute.
const PARKED_S: u32 = 10;
/// How long one whose fetch failed waits.
const FAILED_S: u32 = 5;
/// A kernel that panics starts again after so long.
const PANIC_S: u32 = 30;

/// Where a script's URLs point, without a slash at the end, and whom it is for.
#[derive(Debug, Clone, Copy)]
pub struct For<'a> {
    pub base: &'a str,
    pub mac: Mac,
}

impl For<'_> {
    /// The address in the URLs.
    pub fn host(&self) -> &str {
        let authority = self.base.trim_start_matches("http://");
        authority.rsplit_once(':').map_or(authority, |(host, _)| host)
    }

    /// `52-54-00-77-00-01`: with colons iPXE takes it for the scheme of a URI.
    fn path(&self) -> String {
        format!("{}/boot/{}", self.base, hyphened(self.mac))
    }

    /// The next script, by what the machine says of itself.
    fn again(&self) -> String {
        format!("chain --replace --autofree {}?{ABOUT}", self.path())
    }
}

/// `${mac}` is that of the NIC that was opened last.
const ABOUT: &str = "arch=${buildarch}&platform=${platform}&uuid=${uuid}";

pub fn hyphened(mac: Mac) -> String {
    mac.to_string().replace(':', "-")
}

/// Why a snapshot cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoScript {
    #[error("it has no kernel")]
    NoKernel,
    #[error("`{0}` cannot stand in a boot script")]
    Word(String),
}

impl From<NotForScripts> for NoScript {
    fn from(word: NotForScripts) -> NoScript {
        NoScript::Word(word.found.escape_default().to_string())
    }
}

/// The same for every machine: each asks for its own.
pub fn first(base: &str) -> String {
    let again = format!("chain --replace --autofree {base}/boot/${{netX/mac:hexhyp}}?{ABOUT}");
    format!("#!ipxe\n{}", looping(&again, ""))
}

/// Nothing is to be started: it waits, and asks again.
pub fn parked(to: For<'_>, why: &str) -> String {
    format!("#!ipxe\necho embody: parked: {}\n{}", said(why), looping(&to.again(), &format!("sleep {PARKED_S}\n")))
}

/// The same to one that asks from an address that is not its own: it takes one anew first.
pub fn elsewhere(why: &str) -> String {
    format!("#!ipxe\necho embody: parked: {}\nsleep {PARKED_S}\n{}", said(why), anew())
}

/// Asks until it is answered: twice, and then by a new address.
fn looping(again: &str, before: &str) -> String {
    format!("{before}{again} ||\nsleep 1\n{again} ||\n{}", anew())
}

fn anew() -> String {
    format!(
        ":anew\necho embody: no answer, asking for an address anew\nifclose ||\nsleep 1\ndhcp && chain --replace --autofree ${{filename}} ||\nsleep {FAILED_S}\ngoto anew\n"
    )
}

/// What a start is told of itself.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// Where it says how it goes.
    pub run: &'a str,
    /// The path under which its root is mounted, where that is an image.
    pub export: &'a str,
    /// What is read into its memory, where its root is an image that is.
    pub ram: Option<&'a Blob>,
    /// Whose life it is, on whichever machine.
    pub machine_id: &'a str,
    /// Where it learns who it is, where its root is an image: `https://…,sha256=…`.
    pub exchange: &'a str,
}

/// What stands on a server.
pub fn start(to: For<'_>, server: &Name, snapshot: &Snapshot, told: Told<'_>) -> Result<String, NoScript> {
    let root = &snapshot.root;
    let lines = if root.disk.is_some() {
        vec!["iseq ${platform} efi && exit ||".to_owned(), step("boot", "sanboot --no-describe --drive 0x80")]
    } else if let Some(iscsi) = &root.iscsi {
        let (host, port) = iscsi.portal.with_port(3260); // RFC 7143: iscsi-target
        let initiator = iscsi.initiator.clone().unwrap_or_else(|| format!("iqn.2026-01.dev.embody:{server}"));
        // RFC 4173: iscsi:<server>:<protocol>:<port>:<lun>:<target>; the LUN is hexadecimal.
        let uri = format!("iscsi:{}::{port}:{:x}:{}", word(&host)?, iscsi.lun, word(&iscsi.target)?);
        vec![
            format!("set initiator-iqn {}", word(&initiator)?),
            "set keep-san 1".to_owned(),
            step("root", &format!("sanboot --drive 0x80 {uri}")),
        ]
    } else {
        kernel(to, server, snapshot, told)?
    };
    let says = format!("persona {} on {server}", snapshot.persona);
    let failed = format!(
        ":failed\necho embody: ${{what}} failed, trying again\nimgfree ||\nimgfetch --name said {}/failed/${{what}} ||\nimgfree ||\n\
         inc fails\niseq ${{fails}} 2 && goto afresh ||\nsleep {FAILED_S}\ngoto start\n\
         :afresh\nset fails:int32 1\nsleep {FAILED_S}\n{} ||\n",
        told.run,
        to.again()
    );
    Ok(format!("#!ipxe\necho embody: {says}\nset fails:int32 0\n:start\n{}\n{failed}{}", lines.join("\n"), anew()))
}

/// What is said to have failed, where it does.
fn step(what: &str, command: &str) -> String {
    format!("set what {what}\n{command} || goto failed")
}

fn kernel(to: For<'_>, server: &Name, snapshot: &Snapshot, told: Told<'_>) -> Result<Vec<String>, NoScript> {
    let (kernel, initrd) = files(to.base, snapshot)?;
    let named = initrd.as_ref().map(|_| "initrd=initrd ").unwrap_or_default();
    let arguments = arguments(to, server, snapshot, told)?;
    let mut lines = vec![step("kernel", &format!("kernel --name kernel {kernel} {named}{arguments}"))];
    lines.extend(initrd.map(|url| step("initrd", &format!("initrd --name initrd {url}"))));
    lines.push(step("boot", "boot"));
    Ok(lines)
}

/// The URLs of kernel and initrd.
fn files(base: &str, snapshot: &Snapshot) -> Result<(String, Option<String>), NoScript> {
    if let Some(digest) = &snapshot.image {
        let initrd = if snapshot.root.image.is_some() { INITRD } else { STOCK_INITRD };
        return Ok((format!("{base}{IMAGE}{digest}/{KERNEL}"), Some(format!("{base}{IMAGE}{digest}/{initrd}"))));
    }
    let kernel = snapshot.kernel.as_ref().ok_or(NoScript::NoKernel)?;
    let initrd = match (&kernel.initrd, kernel.initrds.as_slice()) {
        (Some(path), _) => Some(url(base, path)?),
        (None, []) => None,
        (None, parts) => Some(format!("{base}{JOINED}{}", word(&joined(parts))?)),
    };
    Ok((url(base, kernel.path.as_deref().ok_or(NoScript::NoKernel)?)?, initrd))
}

/// Where the files of an image are served, by its digest.
pub const IMAGE: &str = "/image/";
pub const KERNEL: &str = "kernel";
/// Ours.
pub const INITRD: &str = "initrd";
/// All of it, as a tar, for another controller.
pub const TREE: &str = "tree";
/// What is read into memory, and its SHA-256.
pub const RAM: &str = "ram-";
/// The one that the image holds for its kernel.
pub const STOCK_INITRD: &str = "stock-initrd";

/// Where several initrds are served as one.
pub const JOINED: &str = "/joined/";

/// The paths of several initrds as one.
pub fn joined(parts: &[String]) -> String {
    let parts: Vec<&str> = parts.iter().map(|part| part.trim_start_matches('/')).collect();
    parts.join(&JOINED_BY.to_string())
}

/// An URL stays as it is; a path is one of the files that embody serves.
fn url(base: &str, path: &str) -> Result<String, NotForScripts> {
    let path = word(path)?;
    Ok(if path.contains("://") { path } else { format!("{base}/files/{}", path.trim_start_matches('/')) })
}

/// The kernel's command line.
fn arguments(to: For<'_>, server: &Name, snapshot: &Snapshot, told: Told<'_>) -> Result<String, NotForScripts> {
    let mut out = Vec::new();
    if let (Some(_), Some(digest)) = (&snapshot.root.image, &snapshot.image) {
        out.push(match told.ram {
            Some(Blob { sha256, size }) => format!("embody.root=ram:{}{IMAGE}{digest}/{RAM}{sha256},sha256={sha256},size={size}", to.base),
            None => format!("embody.root=nfs:{}:{}", to.host(), word(told.export)?),
        });
        out.push(format!("embody.machine-id={} embody.exchange={}", told.machine_id, told.exchange));
        out.extend(snapshot.root.overlay.map(|overlay| format!("embody.overlay={}", overlay.size.0)));
    }
    if let Some(nfs) = &snapshot.root.nfs {
        let mode = if nfs.mode == RootMode::Writable { "rw" } else { "ro" };
        // As initramfs-tools reads it: without a version klibc's nfsmount takes the one that it knows, NFSv3.
        out.push(format!("boot=nfs root=/dev/nfs nfsroot={}:{} {mode}", word(&nfs.server.host)?, word(&nfs.path)?));
        // Two NFSv4 clients of one host name expire each other's leases: each server gets its own.
        out.push(format!("nfs.nfs4_unique_id={server}"));
    }
    if snapshot.root.image.is_none() {
        out.push("ip=dhcp".to_owned());
        // For cloud-init, if there is one in it: up to its version 22 `nocloud` alone means a disk.
        out.push(format!("ds=nocloud-net;s={}/nocloud/", told.run));
    }
    out.push(format!("BOOTIF=01-{} embody.hostname={} embody.run={}", hyphened(to.mac), word(&snapshot.hostname)?, told.run));
    let own = snapshot.kernel.as_ref().map(|kernel| kernel.cmdline.as_str()).unwrap_or_default();
    let is_said = |what: &str| own.split_ascii_whitespace().chain(snapshot.arguments.split_ascii_whitespace()).any(|w| w.starts_with(what));
    if !is_said("panic=") {
        out.push(format!("panic={PANIC_S}"));
    }
    // What the machine needs comes last: of two consoles the kernel's is the last one.
    for more in [own, &snapshot.arguments] {
        out.extend((!more.is_empty()).then(|| line(more)).transpose()?);
    }
    Ok(out.join(" "))
}

/// A sentence of ours, as iPXE can say it.
fn said(text: &str) -> String {
    text.chars().take(200).map(|c| if (c.is_ascii_graphic() && !"$|&#\"'\\`".contains(c)) || c == ' ' { c } else { '.' }).collect()
}

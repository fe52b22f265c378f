//! The boot answer: which persona a MAC address starts now, as an iPXE script. Pure: from a small view, changes nothing.
//!
//! Invariant: what is answered is the snapshot that stands on that server, never the spec of the moment; everybody else is parked. The script
//! never dead-ends: what fails is tried again, and a parked machine asks again.

use crate::model::body::Snapshot;
use crate::model::script::{NotForScripts, line, word};
use crate::model::server::Arch;
use crate::model::{Mac, Name};

/// How long a parked machine waits before it asks again.
const PARKED_S: u32 = 30;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub script: String,
    /// `persona apache on web-1`, `parked`: for logs.
    pub says: String,
    /// Nothing: parked.
    pub persona: Option<Name>,
}

/// What is known of the machine that asks: all that an answer depends on.
#[derive(Debug, Clone, Default)]
pub struct BootView<'a> {
    /// The server that has this MAC address.
    pub server: Option<&'a Name>,
    /// Why it is parked whatever stands there.
    pub parked: Option<String>,
    /// What stands there, as it was when it began to.
    pub standing: Option<&'a Snapshot>,
    /// The SMBIOS UUID that the machine showed at the first request of this start.
    pub smbios: Option<&'a str>,
}

/// The answer for a NIC's address. `arch` and `uuid` are what the firmware says of itself.
pub(crate) fn answer(mac: Mac, uuid: Option<&str>, arch: Arch, view: &BootView<'_>) -> Answer {
    let Some(server) = view.server else { return parked(mac, "no server has this MAC address") };
    if let Some(why) = &view.parked {
        return parked(mac, why);
    }
    let Some(snapshot) = view.standing else { return parked(mac, &format!("nothing is to run on {server}")) };
    if let (Some(pinned), Some(shown)) = (view.smbios, uuid)
        && !pinned.eq_ignore_ascii_case(shown)
    {
        return parked(mac, &format!("the machine says it is {}, and {pinned} was started on {server}", plain(shown)));
    }
    let name = &snapshot.persona;
    if snapshot.arch != arch {
        let (needs, has) = (snapshot.arch.as_str(), arch.as_str());
        return parked(mac, &format!("persona {name} is for {needs}, the machine says {has}"));
    }
    match start(snapshot, server, mac) {
        Ok(lines) => {
            let says = format!("persona {name} on {server}");
            Answer { script: script(&says, &lines, mac), says, persona: Some(name.clone()) }
        }
        Err(why) => parked(mac, &format!("persona {name}: {why}")),
    }
}

/// Why a snapshot cannot be started.
#[derive(Debug, thiserror::Error)]
enum NoScript {
    #[error("it has no kernel")]
    NoKernel,
    #[error(transparent)]
    Word(#[from] NotForScripts),
}

fn start(snapshot: &Snapshot, server: &Name, mac: Mac) -> Result<Vec<String>, NoScript> {
    let root = &snapshot.root;
    if root.disk.is_some() {
        return Ok(vec!["iseq ${platform} efi && exit ||".to_owned(), "sanboot --no-describe --drive 0x80 || goto retry".to_owned()]);
    }
    if let Some(iscsi) = &root.iscsi {
        let (host, port) = iscsi.portal.with_port(3260); // RFC 7143: iscsi-target
        let initiator = iscsi.initiator.clone().unwrap_or_else(|| format!("iqn.2026-01.dev.embody:{server}"));
        return Ok(vec![
            format!("set initiator-iqn {}", word(&initiator)?),
            "set keep-san 1".to_owned(),
            // RFC 4173: iscsi:<server>:<protocol>:<port>:<lun>:<target>; the LUN is hexadecimal.
            format!("sanboot --drive 0x80 iscsi:{}::{port}:{:x}:{} || goto retry", word(&host)?, iscsi.lun, word(&iscsi.target)?),
        ]);
    }
    let kernel = snapshot.kernel.as_ref().ok_or(NoScript::NoKernel)?;
    let mut arguments = Vec::new();
    if let Some(nfs) = &root.nfs {
        let mode = if nfs.mode == crate::model::persona::RootMode::Writable { "rw" } else { "ro" };
        arguments.push(format!("root=/dev/nfs nfsroot={}:{},vers=4.2 {mode}", word(&nfs.server.host)?, word(&nfs.path)?));
        if nfs.mode == crate::model::persona::RootMode::Overlay {
            arguments.push("embody.overlay=1".to_owned());
        }
    }
    // Two NFSv4 clients of one host name expire each other's leases: each server gets its own.
    arguments.push(format!(
        "ip=dhcp nfs.nfs4_unique_id={server} embody.hostname={} BOOTIF=01-{}",
        word(&snapshot.hostname)?,
        mac.to_string().replace(':', "-")
    ));
    if !kernel.cmdline.is_empty() {
        arguments.push(line(&kernel.cmdline)?);
    }
    let initrd = kernel.initrd.as_ref().map(|_| " initrd=initrd").unwrap_or_default();
    let mut lines = vec![format!("kernel --name kernel {}{initrd} {} || goto retry", word(&kernel.path)?, arguments.join(" "))];
    if let Some(path) = &kernel.initrd {
        lines.push(format!("initrd --name initrd {} || goto retry", word(path)?));
    }
    lines.push("boot || goto retry".to_owned());
    Ok(lines)
}

/// What a machine says of itself, fit for a log and for its own script: at most the 36 characters of a UUID.
fn plain(text: &str) -> String {
    text.chars().take(36).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '?' }).collect()
}

fn script(says: &str, lines: &[String], mac: Mac) -> String {
    let body = lines.join("\n");
    format!(
        "#!ipxe\necho embody: {says}\n{body}\n:retry\necho embody: this did not work, asking again in {PARKED_S} s\nsleep {PARKED_S}\nchain {mac}?arch=${{buildarch}}&uuid=${{uuid}} || goto retry\n"
    )
}

/// Nothing is to be started: it waits, and asks again.
pub(crate) fn parked(mac: Mac, why: &str) -> Answer {
    let lines = format!(
        "#!ipxe\necho embody: parked: {why}\n:again\nsleep {PARKED_S}\nchain {mac}?arch=${{buildarch}}&uuid=${{uuid}} || goto again\n"
    );
    Answer { script: lines, says: format!("parked: {why}"), persona: None }
}

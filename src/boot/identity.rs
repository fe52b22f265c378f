//! Who a system is that was started: what it is told once, over TLS, and by what it knows whoever tells it.
//!
//! Leaves out: who may ask (`control::booting`), and where (`server::boot::exchange`). Invariant: all of it follows from what was answered, the site's key and
//! the binding: the same on every server, from every controller, and nothing of it is stored. Shown by the tests below and `tests/machines/image.rs`.

use embody_protocol::{File, Identity, Link};
use sha2::{Digest as _, Sha256};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

use super::token::SiteKey;
use crate::model::body::Snapshot;
use crate::model::file::{ADDRESS, PersonaFile, fill};

/// RFC 8410, 4: SubjectPublicKeyInfo of an Ed25519 key, but for its 32 octets.
const ED25519_PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// sshd_config(5): HostKey.
const SSH_HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";

/// The SHA-256 of the public key that belongs to a private one, as RFC 7469, 2.4, has it: 64 hexadecimal digits.
pub(crate) fn pin(private: &[u8; 32]) -> String {
    let public = Ed25519Keypair::from_seed(private).public;
    Sha256::new().chain_update(ED25519_PUBLIC).chain_update(public.0).finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// What is told of a snapshot. `whose`: the binding. `now`: milliseconds since 1970.
pub(crate) fn of(snapshot: &Snapshot, key: &SiteKey, whose: &str, now: i64) -> Identity {
    Identity {
        time_ms: u64::try_from(now).unwrap_or_default(),
        hostname: snapshot.hostname.clone(),
        machine_id: key.machine_id(whose),
        links: snapshot.links.clone(),
        ready: snapshot.ready.clone(),
        files: [ssh_host_key(&key.ssh_host_key(whose), &snapshot.hostname), files(snapshot, &key.machine_id(whose))].concat(),
    }
}

/// Those of the persona, with what is so of this body; what Secrets hold is still to come.
fn files(snapshot: &Snapshot, machine_id: &str) -> Vec<File> {
    let value = |name: &str| match name {
        "hostname" => Some(snapshot.hostname.clone()),
        "persona" => Some(snapshot.persona.to_string()),
        "machineId" => Some(machine_id.to_owned()),
        other => address(snapshot, other.strip_prefix(ADDRESS)?),
    };
    let file = |file: &PersonaFile| {
        let text = file.content.clone().unwrap_or_default();
        // What is no variable was refused with the manifest.
        let content = if file.template { fill(&text, value).unwrap_or_default() } else { text };
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        File { path: file.path.clone(), content, mode: file.mode(), owner: name(&file.owner), group: name(&file.group) }
    };
    snapshot.files.iter().map(file).collect()
}

/// Of a NIC, without the prefix length. One that is given by somebody else is not known here: nothing.
fn address(snapshot: &Snapshot, nic: &str) -> Option<String> {
    let link = snapshot.links.iter().find(|link| link.name == nic);
    let given = |link: &Link| {
        let fixed = link.untagged.as_ref()?.addresses.first()?.split('/').next()?.to_owned();
        Some(fixed)
    };
    let of_card = |link: &Link| {
        let mut macs = link.macs.iter().filter_map(|mac| mac.parse().ok());
        macs.find_map(|mac| snapshot.addresses.get(&mac)).map(|address| address.addr().to_string())
    };
    Some(link.and_then(|link| given(link).or_else(|| of_card(link))).unwrap_or_default())
}

/// The files of an SSH server's host key.
pub(crate) fn ssh_host_key(private: &[u8; 32], hostname: &str) -> Vec<File> {
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(private));
    let key = PrivateKey::new(pair, format!("root@{hostname}"));
    let Ok((private, public)) = key.and_then(|key| Ok((key.to_openssh(LineEnding::LF)?, key.public_key().to_openssh()?))) else {
        return Vec::new();
    };
    let file = |path: String, content: String, mode| File { path, content, mode, ..File::default() };
    vec![file(SSH_HOST_KEY.to_owned(), private.to_string(), 0o600), file(format!("{SSH_HOST_KEY}.pub"), public + "\n", 0o644)]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// `openssl pkey -pubout` of the key of RFC 8032, 7.1, test 1, and `ssh-keygen -y` are the referees.
    #[test]
    fn keys_are_what_others_take_for_keys() {
        let private = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b,
            0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let public = [
            0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda,
            0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
        ];
        let of = |octets: &[u8]| Sha256::digest(octets).iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(pin(&private), of(&[&ED25519_PUBLIC[..], &public].concat()));
        let files = ssh_host_key(&private, "web-1");
        let [key, line] = files.as_slice() else { panic!("{}", files.len()) };
        assert!(key.mode == 0o600 && line.content.starts_with("ssh-ed25519 ") && line.content.ends_with(" root@web-1\n"));
        assert!(files == ssh_host_key(&private, "web-1"), "the same each time");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, &key.content).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        // Where there is no ssh-keygen, the lengths and the fixed parts above are all that is seen.
        if let Ok(said) = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output() {
            assert_eq!(String::from_utf8_lossy(&said.stdout), line.content, "{}", String::from_utf8_lossy(&said.stderr));
        }
    }
}

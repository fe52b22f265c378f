//! What makes a machine this one and no other: ids, keys, names and remembered state.
//!
//! Leaves out the network (`network`) and disks (`mounts`). Invariant: the empty /etc/machine-id stays, since without one systemd takes every start
//! for the first (machine-id(5), "First Boot Semantics"). Shown by `tests/importing/generalise.rs`.

use super::super::index::Node;
use super::{Fault, Work};

/// machine-id(5).
pub(super) fn machine_id(work: &mut Work<'_, '_>) -> Result<(), Fault> {
    let path = "/etc/machine-id";
    let has_systemd = work.at("/usr/lib/systemd/systemd").or_else(|| work.at("/lib/systemd/systemd")).is_some();
    match work.at(path) {
        Some(at) if matches!(work.node(&at), Some(Node::File { size: 0, .. })) => {}
        Some(at) => work.write(&at, b"", "emptied")?,
        None if has_systemd => work.write(path.as_bytes(), b"", "made, empty")?,
        None => {}
    }
    let dbus = work.at("/var/lib/dbus/machine-id");
    if let Some(at) = dbus.filter(|at| !work.is_symlink(at)) {
        work.remove(&at);
    }
    Ok(())
}

/// sshd(8), FILES.
pub(super) fn ssh_host_keys(work: &mut Work<'_, '_>) -> Result<(), Fault> {
    for dir in ["/etc/ssh", "/etc/dropbear"] {
        work.remove_named(dir, |name| {
            name.starts_with("ssh_host_") && name.contains("key") || name.starts_with("dropbear_") && name.ends_with("_key")
        });
    }
    Ok(())
}

pub(super) fn hostname(work: &mut Work<'_, '_>) -> Result<(), Fault> {
    work.remove_at("/etc/hostname");
    Ok(())
}

/// systemd-random-seed.service(8); Debian's and Red Hat's before it; systemd-boot(7).
pub(super) fn random_seed(work: &mut Work<'_, '_>) -> Result<(), Fault> {
    for path in ["/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/var/lib/random-seed", "/boot/loader/random-seed"] {
        work.remove_at(path);
    }
    Ok(())
}

/// What `cloud-init clean` removes.
pub(super) fn cloud_init(work: &mut Work<'_, '_>) -> Result<(), Fault> {
    for path in work.list("/var/lib/cloud") {
        if !path.ends_with(b"/seed") {
            work.remove(&path);
        }
    }
    Ok(())
}

/// iscsiadm(8), FILES (Debian has the databases in /etc/iscsi, others in /var/lib/iscsi); nvme-connect(1), "/etc/nvme/hostnqn".
pub(super) fn storage_ids(work: &mut Work<'_, '_>) -> Result<(), Fault> {
    for path in ["/etc/iscsi/initiatorname.iscsi", "/etc/nvme/hostnqn", "/etc/nvme/hostid"] {
        work.remove_at(path);
    }
    for dir in ["/etc/iscsi", "/var/lib/iscsi"] {
        for database in ["nodes", "send_targets"] {
            for path in work.list(&format!("{dir}/{database}")) {
                work.remove(&path);
            }
        }
    }
    Ok(())
}

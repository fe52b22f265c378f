//! A root on an NFS server of one's own, with the initrd that Debian made for its kernel (`tests/run --long`).
//!
//! The filer is nfs-ganesha on another host of the boot network, with an rpcbind beside it, since klibc's `nfsmount` asks one. Leaves out: roots that are
//! written, and NFSv4, which that program does not speak.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::debian::{Debian, lacks};
use super::initrd::COMMAND_LINE;
use super::lab::{BOOT, inside};
use super::machine::Kind;
use super::programs::{missing, until};
use super::site::{ADDRESS, RACKS};

const FILER: &str = "10.77.0.2";
/// In a mount namespace of its own: a host has one /run/rpcbind.sock.
const RUN: &str = "mount -t tmpfs none /run; mkdir -p /run/ganesha /run/rpcbind; mount -t tmpfs none /var/lib/nfs; mkdir -p /var/lib/nfs/ganesha/v4recov; \
                   rpcbind -f & sleep 1; exec ganesha.nfsd -F -f \"$1/ganesha.conf\" -L /dev/stdout -p /run/ganesha/pid";

fn conf(root: &Path) -> String {
    format!(
        "NFS_CORE_PARAM {{ NFS_Port = 2049; MNT_Port = 20048; Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false; }}\n\
         NFSV4 {{ Graceless = true; RecoveryBackend = fs; }}\n\
         EXPORT {{ Export_Id = 1; Path = {}; Pseudo = /root; Access_Type = RO; Squash = No_root_squash; SecType = sys;\n\
         Protocols = 3; Transports = TCP, UDP; FSAL {{ Name = VFS; }} }}\nLOG {{ Default_Log_Level = EVENT; }}\n",
        root.display()
    )
}

/// What the owner of such a root does to it: nothing below it can be written, so what has to be lies in memory.
fn prepare(root: &Path, key: &str) {
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    // Of what systemd itself and nginx write.
    let lines = ["/tmp", "/var/log", "/var/lib/nginx", "/var/lib/systemd"]
        .map(|path| format!("tmpfs {path} tmpfs mode={} 0 0\n", if path == "/tmp" { "1777" } else { "0755" }));
    write("etc/fstab", &lines.concat());
    write("etc/tmpfiles.d/nginx.conf", "d /var/log/nginx 0755 root adm\n");
    write("root/.ssh/authorized_keys", &format!("{key}\n"));
    write("etc/hostname", "of-a-filer\n");
    write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    fs::set_permissions(root.join("root/.ssh"), fs::Permissions::from_mode(0o700)).unwrap();
    let keys = std::process::Command::new("ssh-keygen").args(["-A", "-f"]).arg(root).output().unwrap();
    assert!(keys.status.success(), "{keys:?}");
}

#[tokio::test]
#[ignore = "minutes: tests/run --long"]
async fn a_stock_initrd_boots_from_a_filer_of_ones_own() {
    if lacks(&[Kind::Bios]) || missing(&["ganesha.nfsd", "rpcbind", "unshare"]) {
        return;
    }
    let _racks = RACKS.acquire_many(2).await;
    let mut debian = Debian::start(&[Kind::Bios]).await;
    let (dir, root) = (debian.site.lab.dir.clone(), debian.site.lab.dir.join("root"));
    debian.site.controller.run(&["image", "export", "web:1", root.to_str().unwrap()]).await;
    prepare(&root, &debian.public_key());
    let host = debian.site.lab.neighbour(BOOT.vlan, &format!("{FILER}/24")).await;
    fs::write(dir.join("ganesha.conf"), conf(&root)).unwrap();
    let mut ganesha = inside(&host, "unshare");
    ganesha.args(["--mount", "sh", "-c", RUN, "sh"]).arg(&dir);
    debian.site.lab.keep(&mut ganesha, "ganesha.log");
    until("the filer", Duration::from_secs(60), async || {
        let url = format!("nfs://{FILER}{}?version=3", root.display());
        let said = debian.site.lab.in_services("nfs-ls").arg(&url).output().await.unwrap();
        let log = || fs::read_to_string(dir.join("ganesha.log")).unwrap_or_default();
        if said.status.success() { Ok(()) } else { Err(format!("{said:?}\n{}", log())) }
    })
    .await;
    let persona = format!(
        "apiVersion: embody.dev/v1alpha1\nkind: Persona\nmetadata: {{ name: p }}\nspec:\n  os: {{ family: linux }}\n  \
         root: {{ nfs: {{ server: {FILER}, path: {}, mode: readOnly }} }}\n  kernel: {{ image: \"web:1\", cmdline: \"{COMMAND_LINE}\" }}\n  \
         exclusive: true\n  agent: none\n  nics: [ {{ name: boot, untagged: boot, boot: true, address: {ADDRESS}/24 }} ]\n",
        root.display()
    );
    debian.site.controller.apply(&persona).await;
    debian.bind("web-1", "a", "").await;
    debian.ready("web-1", 0).await;
    until("ssh", Duration::from_secs(300), async || match debian.try_ssh(ADDRESS, "systemctl is-system-running --wait").await {
        (_, said) if ["running", "degraded"].contains(&said.as_str()) => Ok(()),
        (_, said) => Err(format!("{said}\n{}", debian.site.machines[0].last_words())),
    })
    .await;
    eprintln!("{}", debian.ssh(ADDRESS, "systemd-analyze | head -n 2; findmnt -no SOURCE,FSTYPE,OPTIONS /; systemctl --failed").await);
    assert_eq!(debian.ssh(ADDRESS, "systemctl --failed --no-legend --plain").await, "");
    assert!(debian.site.page(ADDRESS).await.is_some_and(|page| page.contains("nginx")));
    assert_eq!(debian.ssh(ADDRESS, "setpriv --reuid 33 --clear-groups cat /srv/secret; ls /srv/many | wc -l").await, "of www-data\n20000");
    let script =
        "systemctl restart systemd-networkd; sleep 5; echo 3 > /proc/sys/vm/drop_caches; md5sum /usr/bin/perl > /dev/null && hostname -I";
    eprintln!("after a restart of its network service: {}", debian.ssh(ADDRESS, script).await);
    debian.bind("web-1", "a", ", state: Stopped").await;
    debian.is_off(0).await;
    debian.goes_off_softly(1);
}

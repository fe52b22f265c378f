//! The tree of an image: a busybox, the host's cloud kernel with its modules, and `tests/peers/image-init.sh` as its init.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::initrd::{busybox, version};
use super::lab::peer;

/// Of the file that the guest reads again and again.
const BIG: usize = 24 << 20;

/// A tree to import, of this version.
pub fn tree(dir: &Path, release: &str) -> PathBuf {
    let (root, kernel) = (dir.join(release), version().expect("linux-image-cloud-amd64 is installed"));
    for directory in ["bin", "sbin", "boot", "lib/modules", "proc", "sys", "dev", "run", "etc", "srv/many", "var/tmp", "tmp", "root"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let program = |name: &str, bytes: &[u8], mode: u32| {
        fs::write(root.join(name), bytes).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    program("bin/busybox", &fs::read(busybox().expect("busybox-static is installed")).unwrap(), 0o755);
    program("sbin/init", &fs::read(peer("image-init.sh")).unwrap(), 0o755);
    program("bin/su-like", b"#!/bin/sh\n", 0o4755);
    let applets = Command::new(busybox().unwrap()).arg("--list").output().unwrap();
    for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::copy(Path::new("/boot").join(format!("vmlinuz-{kernel}")), root.join("boot").join(format!("vmlinuz-{kernel}"))).unwrap();
    let copied = Command::new("cp").arg("-a").arg(Path::new("/lib/modules").join(&kernel)).arg(root.join("lib/modules")).status().unwrap();
    assert!(copied.success());
    fs::write(root.join("etc/version"), format!("{release}\n")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/srv:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nwww-data:x:33:\n").unwrap();
    fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(root.join("srv/secret"), "of www-data\n").unwrap();
    fs::set_permissions(root.join("srv/secret"), fs::Permissions::from_mode(0o640)).unwrap();
    chown(root.join("srv/secret"), Some(33), Some(33)).unwrap();
    fs::set_permissions(root.join("var/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    for n in 0..2_000 {
        fs::write(root.join(format!("srv/many/{n}")), n.to_string()).unwrap();
    }
    let big: Vec<u8> = (0..BIG).map(|n| ((n * 2_654_435_761) >> 7) as u8).collect();
    fs::write(root.join("srv/big"), big).unwrap();
    root
}

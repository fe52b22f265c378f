//! What a guest runs: the host's own cloud kernel, and an initrd of a static busybox, some modules and `tests/peers/guest-init.sh`.
//!
//! Leaves out: a root file system. Needs `linux-image-cloud-amd64`, `busybox-static`, `cpio` and `gzip`.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::lab::peer;

const MODULES: [&str; 6] = ["failover", "virtio_pci", "virtio_net", "vmxnet3", "button", "evdev"];
/// Without the second, TCG loses the timer now and then; after a panic the machine begins again.
pub const COMMAND_LINE: &str = "console=ttyS0 no_timer_check panic=30";

pub struct Guest {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

/// The newest kernel that is meant for virtual machines.
pub fn version() -> Option<String> {
    let names = fs::read_dir("/boot").ok()?.flatten().filter_map(|e| e.file_name().into_string().ok());
    let mut versions: Vec<String> = names
        .filter_map(|n| n.strip_prefix("vmlinuz-").map(str::to_owned))
        .filter(|v| v.contains("-cloud-") && Path::new("/lib/modules").join(v).exists())
        .collect();
    let numbers = |v: &String| -> Vec<u32> { v.split(['.', '-']).map_while(|n| n.parse().ok()).collect() };
    versions.sort_by_key(numbers);
    versions.pop()
}

fn sh(script: &str, arguments: &[&Path]) -> Vec<u8> {
    let output = Command::new("sh").args(["-ec", script, "sh"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A static busybox.
pub fn busybox() -> Option<PathBuf> {
    ["/usr/bin/busybox", "/bin/busybox", "/usr/local/bin/busybox"].map(PathBuf::from).into_iter().find(|p| p.exists())
}

impl Guest {
    /// What is not installed of what a guest is made of.
    pub fn lacking() -> Option<&'static str> {
        if version().is_none() { Some("linux-image-cloud-amd64") } else { busybox().is_none().then_some("busybox-static") }
    }

    /// Built once for each kernel and each version of its scripts, whoever else builds at the same time.
    pub fn build(cache: &Path) -> Guest {
        let version = version().expect("linux-image-cloud-amd64 is installed");
        let scripts = ["guest-init.sh", "guest-udhcpc.sh"].map(|name| fs::read(peer(name)).unwrap());
        let mut hasher = DefaultHasher::new();
        (&scripts, MODULES).hash(&mut hasher);
        let kernel = Path::new("/boot").join(format!("vmlinuz-{version}"));
        let initrd = cache.join(format!("guest-{version}-{:016x}", hasher.finish()));
        if !initrd.exists() {
            fs::create_dir_all(cache).unwrap();
            pack(&version, scripts, &initrd);
        }
        Guest { kernel, initrd }
    }
}

fn pack(version: &str, [init, udhcpc]: [Vec<u8>; 2], target: &Path) {
    let work = tempfile::tempdir_in(target.parent().unwrap()).unwrap();
    let root = work.path().join("root");
    for dir in ["bin", "mod", "proc", "sys", "dev", "etc"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let program = |name: &str, bytes: &[u8]| {
        fs::write(root.join(name), bytes).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("init", &init);
    program("etc/udhcpc", &udhcpc);
    program("bin/busybox", &fs::read(busybox().expect("busybox-static is installed")).unwrap());

    let mut names = Vec::new();
    for module in MODULES {
        let asked = Command::new("modprobe").args(["-S", version, "--show-depends", module]).output().unwrap();
        // A module that is built in has no `insmod` line.
        for file in String::from_utf8(asked.stdout).unwrap().lines().filter_map(|l| l.strip_prefix("insmod ")) {
            let file = Path::new(file.split(' ').next().unwrap());
            let packed = file.file_name().unwrap().to_str().unwrap();
            let name = packed.split_once(".ko").unwrap().0.to_owned();
            if names.contains(&name) {
                continue;
            }
            let bytes = match file.extension().and_then(|e| e.to_str()) {
                Some("xz") => sh(r#"xz -dc "$1""#, &[file]),
                Some("zst") => sh(r#"zstd -dcq "$1""#, &[file]),
                Some("gz") => sh(r#"gzip -dc "$1""#, &[file]),
                _ => fs::read(file).unwrap(),
            };
            fs::write(root.join("mod").join(&name), bytes).unwrap();
            names.push(name);
        }
    }
    fs::write(root.join("modlist"), names.join("\n") + "\n").unwrap();
    let packed = work.path().join("packed");
    sh(r#"cd "$1"; find . | cpio -o -H newc --quiet --owner=0:0 | gzip -9 > "$2""#, &[&root, &packed]);
    fs::rename(packed, target).unwrap();
}

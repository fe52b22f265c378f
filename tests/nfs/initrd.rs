//! An initrd with busybox and some modules of a kernel: what a guest starts with.
//!
//! Leaves out: finding qemu and what it runs on.

use std::fs;
use std::path::{Path, PathBuf};

/// A kernel of this machine, and its modules.
pub struct Kernel {
    pub release: String,
    pub image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The first one in `/boot` that has all of these.
    pub fn with(names: &[&str]) -> Option<Kernel> {
        let mut releases: Vec<_> = fs::read_dir("/lib/modules").ok()?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        releases.sort();
        releases.into_iter().find_map(|release| {
            let release = release.to_string_lossy().into_owned();
            let (image, modules) = (format!("/boot/vmlinuz-{release}").into(), format!("/lib/modules/{release}").into());
            let kernel = Kernel { release, image, modules };
            (kernel.image.exists() && names.iter().all(|name| kernel.files_of(name).is_some())).then_some(kernel)
        })
    }

    /// A module and what it needs, in the order in which they are loaded (modules.dep(5)).
    fn files_of(&self, name: &str) -> Option<Vec<PathBuf>> {
        let list = fs::read_to_string(self.modules.join("modules.dep")).ok()?;
        let (module, needs) =
            list.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| path.ends_with(&format!("/{name}.ko")))?;
        let order = needs.split_whitespace().rev().chain([module]);
        Some(order.map(|path| self.modules.join(path)).collect())
    }
}

/// `cpio -H newc` (`Documentation/driver-api/early-userspace/buffer-format.rst` of Linux).
struct Archive(Vec<u8>);

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        let inode = self.0.len() as u32;
        let fields = [inode, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.0.extend(b"070701");
        fields.iter().for_each(|field| self.0.extend(format!("{field:08x}").bytes()));
        self.0.extend(name.bytes());
        self.0.push(0);
        self.pad();
        self.0.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

const APPLETS: &str = "sh mount umount ip ifconfig insmod cat ls ln mv rm cp chmod chown mkdir stat su wc md5sum readlink cmp dmesg poweroff sleep echo \
                       touch find sync test grep head sort uniq dd mountpoint route";

/// `script` is what runs after the modules are there.
pub fn build(kernel: &Kernel, modules: &[&str], busybox: &Path, script: &str) -> Vec<u8> {
    let mut archive = Archive(Vec::new());
    for dir in ["bin", "dev", "etc", "proc", "sys", "lower", "rw", "new", "modules"] {
        archive.add(dir, 0o040_755, b"");
    }
    archive.add("bin/busybox", 0o100_755, &fs::read(busybox).unwrap());
    for applet in APPLETS.split_whitespace() {
        archive.add(&format!("bin/{applet}"), 0o120_777, b"busybox");
    }
    archive.add("etc/passwd", 0o100_644, b"root::0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\nother:x:1000:1000::/:/bin/sh\n");
    archive.add("etc/group", 0o100_644, b"root:x:0:\nwww-data:x:33:\nother:x:1000:\n");
    let mut load = String::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    for file in modules.iter().flat_map(|name| kernel.files_of(name).unwrap()) {
        if seen.contains(&file) {
            continue;
        }
        let name = format!("modules/{}", file.file_name().unwrap().to_string_lossy());
        archive.add(&name, 0o100_644, &fs::read(&file).unwrap());
        load += &format!("insmod /{name} || echo 'GUEST no {name}'\n");
        seen.push(file);
    }
    let init = format!(
        "#!/bin/sh\nexport PATH=/bin\nmount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\n{load}{script}\npoweroff -f\n"
    );
    archive.add("init", 0o100_755, init.as_bytes());
    archive.add("TRAILER!!!", 0, b"");
    archive.0
}

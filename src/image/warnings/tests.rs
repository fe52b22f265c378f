//! Each warning, from a tree that gives cause to it and from one that does not.

use std::io::Write;

use super::super::index::Attributes;
use super::super::store::Objects;
use super::super::tree::{Item, Limits, symlink};
use super::*;

struct Bench<'o> {
    tree: Tree,
    session: Session<'o>,
}

impl Bench<'_> {
    fn put(&mut self, path: &str, mode: u16, contents: &[u8]) {
        let (digest, size) = self.session.add_bytes(contents).unwrap();
        let node = Node::File { size, digest };
        self.tree.insert(path.as_bytes(), Item::new(Attributes { mode, uid: 0, gid: 0, mtime: 0, node })).unwrap();
    }

    fn link(&mut self, path: &str, target: &str) {
        let node = symlink(target.as_bytes());
        self.tree.insert(path.as_bytes(), Item::new(Attributes { mode: 0o777, uid: 0, gid: 0, mtime: 0, node })).unwrap();
    }

    fn warnings(&self) -> Vec<Warning> {
        let kernel = super::super::kernel::find(&self.tree);
        warnings(&self.tree, kernel.as_ref(), &self.session).unwrap()
    }
}

fn bench(objects: &Objects) -> Bench<'_> {
    Bench { tree: Tree::new(Limits::default()), session: objects.session().unwrap() }
}

#[test]
fn an_empty_tree_has_no_kernel_and_no_init() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::at(dir.path()).unwrap();
    let mut bench = bench(&objects);
    assert_eq!(bench.warnings(), [Warning::NoKernel, Warning::NoInit]);
    bench.put("usr/lib/systemd/systemd", 0o644, b"elf");
    bench.link("sbin/init", "/lib/systemd/systemd");
    bench.link("lib", "usr/lib");
    assert_eq!(bench.warnings(), [Warning::NoKernel, Warning::NoInit], "it is not executable");
    bench.put("usr/lib/systemd/systemd", 0o755, b"elf");
    assert_eq!(bench.warnings(), [Warning::NoKernel]);
}

#[test]
fn capabilities_and_labels_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::at(dir.path()).unwrap();
    let mut bench = bench(&objects);
    bench.put("usr/bin/ping", 0o755, b"ping");
    let item = bench.tree.get_mut(b"/usr/bin/ping").unwrap();
    (item.has_capabilities, item.has_label) = (true, true);
    let told: Vec<String> = bench.warnings().iter().map(ToString::to_string).collect();
    assert!(told[0].contains("1 files have file capabilities") && told[0].ends_with(": /usr/bin/ping"), "{told:?}");
    assert!(told[1].starts_with("1 files have SELinux labels"), "{told:?}");
}

#[test]
fn missing_firmware_is_told_by_name_whatever_the_packing() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::at(dir.path()).unwrap();
    let mut bench = bench(&objects);
    bench.link("lib", "usr/lib");
    bench.put("boot/vmlinuz-6.1.0", 0o644, b"kernel");
    bench.put("sbin/init", 0o755, b"init");
    let net = "usr/lib/modules/6.1.0/kernel/drivers/net";
    let module = |files: &[&str]| {
        let fields: Vec<String> = files.iter().map(|file| format!("firmware={file}\0")).collect();
        elf::tests::module(format!("license=GPL\0{}", fields.concat()).as_bytes())
    };
    bench.put(&format!("{net}/ethernet/plain.ko"), 0o644, &module(&["a/one.fw", "a/two.fw", "a/*.fw"]));
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&module(&["gz.fw"])).unwrap();
    bench.put(&format!("{net}/ethernet/packed.ko.gz"), 0o644, &gz.finish().unwrap());
    let zst = zstd::encode_all(&module(&["zst.fw"])[..], 1).unwrap();
    bench.put(&format!("{net}/other.ko.zst"), 0o644, &zst);
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&module(&["xz.fw"])).unwrap();
    bench.put(&format!("{net}/third.ko.xz"), 0o644, &xz.finish().unwrap());
    bench.put(&format!("{net}/wireless/wifi.ko"), 0o644, &module(&["wifi.fw"]));
    bench.put(&format!("{net}/bad.ko"), 0o644, b"no ELF");
    bench.put("usr/lib/firmware/a/two.fw.zst", 0o644, b"fw");
    bench.put("usr/lib/firmware/updates/xz.fw", 0o644, b"fw");
    let warnings = bench.warnings();
    let [Warning::MissingFirmware { kernel, modules }] = warnings.as_slice() else { panic!("{warnings:?}") };
    let told: Vec<String> = modules.iter().map(|m| format!("{} {} of {}", m.module, m.files, m.of)).collect();
    assert_eq!((kernel.as_str(), told.join("; ").as_str()), ("6.1.0", "packed gz.fw of 1; plain a/one.fw of 3; other zst.fw of 1"));
}

#[test]
fn the_only_network_manager_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::at(dir.path()).unwrap();
    let mut bench = bench(&objects);
    let only = |bench: &Bench<'_>| only_manager(&bench.tree);
    assert_eq!(only(&bench), None);
    bench.put("usr/sbin/netplan", 0o755, b"py");
    assert_eq!(only(&bench), Some("netplan"));
    bench.link("etc/systemd/system/multi-user.target.wants/NetworkManager.service", "/lib/systemd/system/NetworkManager.service");
    assert_eq!(only(&bench), Some("NetworkManager"));
    bench.link("etc/systemd/system/multi-user.target.wants/systemd-networkd.service", "/lib/systemd/system/systemd-networkd.service");
    assert_eq!(only(&bench), None);
}

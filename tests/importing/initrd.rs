//! An initrd of an image, from outside: cpio(1) unpacks it, and what is in it is what the image has.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use embody::testing::image::initrd::{Compression, InitrdError, Missing, Report, build};

use super::directory::Directory;

const KERNEL: &str = "6.1.0-1-test";
const AGENT: &[u8] = b"the first program";

/// An ELF64 file with a section `.modinfo` that says this.
fn module(said: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut file = b"\x7fELF\x02\x01".to_vec();
    file.resize(64, 0);
    file[40] = 64;
    file[58] = 64;
    file[60] = 2;
    file[62] = 1;
    let at = 64 + 2 * 64;
    for (name, offset, size) in [(1_u32, at + names.len(), said.len()), (10, at, names.len())] {
        let mut header = vec![0; 64];
        header[0..4].copy_from_slice(&name.to_le_bytes());
        header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        file.extend(header);
    }
    file.extend(names);
    file.extend(said.as_bytes());
    file
}

fn packed(program: &[&str], octets: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program[0]).args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(octets).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program:?}");
    output.stdout
}

struct Image(tempfile::TempDir);

impl Image {
    /// With `/lib` a link to `usr/lib`, as distributions have it now, and modules packed in every way.
    fn new() -> Self {
        let image = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(image.path("usr/lib/modules").join(KERNEL)).unwrap();
        symlink("usr/lib", image.path("lib")).unwrap();
        let card = module("license=GPL\0firmware=card/new.bin\0firmware=card/old.bin\0firmware=card/none.bin\0firmware=../../etc/shadow\0");
        image.module("kernel/drivers/net/ethernet/card.ko.xz", &packed(&["xz", "--check=crc32", "-c"], &card));
        image.module("kernel/lib/card-lib.ko.zst", &packed(&["zstd", "-qc"], &module("license=GPL\0")));
        image.module("kernel/crypto/soft.ko.gz", &packed(&["gzip", "-nc"], &module("license=GPL\0")));
        for plain in ["kernel/fs/nfs/nfs.ko", "kernel/fs/nfs/nfsv3.ko", "kernel/drivers/block/loop.ko"] {
            image.module(plain, &module("license=GPL\0"));
        }
        image.module("kernel/drivers/net/wireless/wifi.ko", &module("license=GPL\0firmware=wifi.bin\0"));
        image.says("modules.builtin", "kernel/fs/overlayfs/overlay.ko\nkernel/fs/squashfs/squashfs.ko\nkernel/net/packet/af_packet.ko\n");
        image.says(
            "modules.dep",
            "kernel/drivers/net/ethernet/card.ko.xz: kernel/lib/card-lib.ko.zst\nkernel/lib/card-lib.ko.zst:\nkernel/crypto/soft.ko.gz:\n\
             kernel/fs/nfs/nfs.ko:\nkernel/fs/nfs/nfsv3.ko: kernel/fs/nfs/nfs.ko\nkernel/drivers/block/loop.ko:\nkernel/drivers/net/wireless/wifi.ko:\n",
        );
        image.says("modules.softdep", "softdep card-lib pre: crypto-soft\n");
        image.says("modules.alias", "alias pci:v0000AAAAd*-* card\nalias crypto-soft soft\nalias pci:v0000BBBB* wifi\n");
        for (path, octets) in [("card/new.bin.xz", packed(&["xz", "-c"], b"firmware")), ("wifi.bin", b"no".to_vec())] {
            image.file(&format!("usr/lib/firmware/{path}"), &octets);
        }
        symlink("new.bin.xz", image.path("usr/lib/firmware/card/old.bin.xz")).unwrap();
        image.file("etc/shadow", b"secret");
        image
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn file(&self, path: &str, octets: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, octets).unwrap();
    }

    fn module(&self, path: &str, octets: &[u8]) {
        self.file(&format!("usr/lib/modules/{KERNEL}/{path}"), octets);
    }

    fn says(&self, name: &str, text: &str) {
        self.module(name, text.as_bytes());
    }

    fn build(&self) -> Result<(Report, Vec<u8>), InitrdError> {
        let mut out = Vec::new();
        build(&Directory(self.0.path().to_owned()), KERNEL, AGENT, &mut out).map(|report| (report, out))
    }
}

/// What programs that are not ours make of it: a directory, and what cpio(1) lists.
fn unpacked(octets: &[u8], program: &str) -> (tempfile::TempDir, String) {
    let plain = packed(&[program, "-dc"], octets);
    let to = tempfile::tempdir().unwrap();
    let cpio = |arguments: &[&str]| {
        let mut child =
            Command::new("cpio").args(arguments).current_dir(to.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let plain = plain.clone();
        let writer = std::thread::spawn(move || input.write_all(&plain));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (listed, list) = cpio(&["-itv", "--numeric-uid-gid", "--quiet"]);
    assert!(listed);
    // Device nodes are for root alone to make; the rest is there either way.
    cpio(&["-id", "--quiet", "--no-absolute-filenames", "init", "lib/*", "embody/*", "sbin/*"]);
    (to, list)
}

fn read(at: &Path, path: &str) -> Vec<u8> {
    fs::read(at.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn an_initrd_has_the_first_program_the_modules_and_the_firmware_unpacked() {
    let image = Image::new();
    let (report, octets) = image.build().unwrap();
    assert_eq!(report.compression, Compression::Gzip, "without a configuration");
    assert_eq!(report.packed_bytes, octets.len() as u64);
    let (at, list) = unpacked(&octets, "gzip");
    assert_eq!(read(at.path(), "init"), AGENT);
    let card = read(at.path(), &format!("lib/modules/{KERNEL}/kernel/drivers/net/ethernet/card.ko"));
    assert!(card.starts_with(b"\x7fELF"));
    assert_eq!(read(at.path(), "lib/firmware/card/new.bin"), b"firmware");
    assert_eq!(fs::read_link(at.path().join("lib/firmware/card/old.bin")).unwrap(), Path::new("/lib/firmware/card/new.bin"));
    assert_eq!(fs::read_link(at.path().join("sbin/modprobe")).unwrap(), Path::new("/init"));
    assert!(list.lines().any(|line| line.starts_with("crw-------") && line.contains("5,   1") && line.ends_with("dev/console")), "{list}");
    assert!(list.lines().any(|line| line.starts_with("-rwxr-xr-x") && line.ends_with(" init")), "{list}");
    assert!(list.lines().all(|line| line.contains("Jan  1  1970")) && !list.contains("shadow") && !list.contains("wifi"), "{list}");

    let names: Vec<_> = report.modules.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["card", "card_lib", "loop", "nfs", "nfsv3", "soft"]);
    assert_eq!(report.built_in, ["af_packet", "overlay", "squashfs"]);
    let missing = |firmware: &str, module: &str| Missing { firmware: firmware.to_owned(), module: module.to_owned() };
    assert_eq!(report.missing_firmware, [missing("../../etc/shadow", "card"), missing("card/none.bin", "card")]);
}

#[test]
fn the_list_says_what_the_first_program_needs() {
    let (_, octets) = Image::new().build().unwrap();
    let (at, _) = unpacked(&octets, "gzip");
    let list = String::from_utf8(read(at.path(), "embody/modules")).unwrap();
    let base = format!("/lib/modules/{KERNEL}/kernel");
    let expected = format!(
        "m card {base}/drivers/net/ethernet/card.ko card_lib - -\nm card_lib {base}/lib/card-lib.ko - soft -\nm loop {base}/drivers/block/loop.ko - - -\n\
         m nfs {base}/fs/nfs/nfs.ko - - -\nm nfsv3 {base}/fs/nfs/nfsv3.ko nfs - -\nm soft {base}/crypto/soft.ko - - -\n\
         a pci:v0000AAAAd*_* card\na crypto_soft soft\nb af_packet\nb overlay\nb squashfs\n"
    );
    assert_eq!(list, expected);
}

#[test]
fn the_same_image_gives_the_same_octets_wherever_and_whenever() {
    let (one, other) = (Image::new(), Image::new());
    let made = one.build().unwrap();
    fs::File::open(other.path("etc/shadow")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(made == other.build().unwrap() && made == one.build().unwrap());
}

#[test]
fn a_kernel_that_takes_zstd_is_given_it() {
    let image = Image::new();
    image.file(&format!("boot/config-{KERNEL}"), b"CONFIG_RD_GZIP=y\n# CONFIG_RD_XZ is not set\nCONFIG_RD_ZSTD=y\n");
    let (report, octets) = image.build().unwrap();
    assert_eq!(report.compression, Compression::Zstd);
    let (at, _) = unpacked(&octets, "zstd");
    assert_eq!(read(at.path(), "init"), AGENT);
}

#[test]
fn what_is_wrong_with_an_image_is_said() {
    let image = Image::new();
    let other = build(&Directory(image.0.path().to_owned()), "6.2", AGENT, Vec::new()).unwrap_err().to_string();
    assert!(other.contains("expected lib/modules/6.2/modules.dep"), "{other}");

    image.module("kernel/drivers/net/ethernet/card.ko.xz", b"no xz");
    let broken = image.build().unwrap_err().to_string();
    assert!(
        broken.contains(&format!("usr/lib/modules/{KERNEL}/kernel/drivers/net/ethernet/card.ko.xz of the image cannot be unpacked")),
        "{broken}"
    );
    fs::remove_file(image.path(&format!("usr/lib/modules/{KERNEL}/kernel/drivers/net/ethernet/card.ko.xz"))).unwrap();
    assert!(image.build().unwrap_err().to_string().contains("card.ko.xz of the image cannot be read"));

    image.says("modules.builtin", "kernel/fs/squashfs/squashfs.ko\n");
    let without = image.build().unwrap_err();
    assert!(matches!(without, InitrdError::Needed { module: "overlay", .. }), "{without}");
    assert!(without.to_string().contains("6.1.0-1-test has `overlay` neither as a module nor built in"), "{without}");
}

/// Kernels of this machine, where it has any: every module that depmod knows of a selected one is there, with all that it needs.
#[test]
fn initrds_of_real_kernels_are_closed() {
    let root = Directory("/".into());
    let kernels = fs::read_dir("/lib/modules").into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for kernel in kernels.filter(|kernel| Path::new("/lib/modules").join(kernel).join("modules.dep").exists()) {
        let mut out = Vec::new();
        let report = build(&root, &kernel, AGENT, &mut out).unwrap();
        let has: BTreeSet<String> = report.modules.iter().map(|part| part.name.clone()).chain(report.built_in).collect();
        for needed in ["virtio_net", "nfsv3", "overlay", "squashfs", "loop"] {
            assert!(has.contains(needed), "{kernel}: {needed}");
        }
        let name = |path: &str| path.rsplit('/').next().unwrap().split(".ko").next().unwrap().replace('-', "_");
        let text = fs::read_to_string(format!("/lib/modules/{kernel}/modules.dep")).unwrap();
        for (path, needs) in text.lines().filter_map(|line| line.split_once(':')).filter(|(path, _)| has.contains(&name(path))) {
            assert!(needs.split_whitespace().all(|need| has.contains(&name(need))), "{kernel}: {path}: {needs}");
        }
    }
}

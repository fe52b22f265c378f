//! Tars of GNU tar, made by root, imported by an ordinary user, exported and compared by GNU tar; and tars that are made to do harm.

use embody::testing::image::export::export_tar;
use embody::testing::image::source::{Source, SourceError};
use embody::testing::image::store::Objects;
use embody::testing::image::{ImportError, Options, import};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::bench::{Bench, field, has, is_root, objects};

/// A tree with all that an index holds. As root also owners and devices.
const TREE: &str = r#"
mkdir -p tree/usr/bin tree/usr/lib tree/dev tree/tmp tree/deep; cd tree
printf su > usr/bin/su; chmod 4755 usr/bin/su; ln usr/bin/su usr/bin/sudo; ln usr/bin/su a-first-name
ln -s usr/lib lib; ln -s "$(printf 'x%.0s' {1..200})" long-target; ln -s nowhere dangling
chmod 1777 tmp; chmod 2775 deep
mkfifo pipe; : > empty; head -c 3000000 /dev/urandom > large
printf odd > $'not\xffutf8 \\ \n'; printf umlaut > ä
long=$(printf 'd%.0s' {1..120}); mkdir -p deep/$long/$long; printf deep > deep/$long/$long/$(printf 'f%.0s' {1..255})
mkdir -p i/j i-x; echo i > i-x/f; ln i-x/f i/j/l; touch -d @1000 i i/j i-x
touch -d @-1000 tmp; touch -d @5000000000 pipe
if [ $(id -u) = 0 ]; then
  mknod dev/null c 1 3; mknod dev/sda b 8 0; mknod dev/big c 250 1048575
  chown 1000:1001 large; chown 3000000000:3000000001 ä; chown -h 5:6 lib; chown root:tty pipe; chmod 4755 usr/bin/su; chmod 000 empty
fi
cd ..
"#;

/// Every time in the tree in whole seconds, as an index has them.
const WHOLE_SECONDS: &str = "find tree -depth -exec sh -c 'for f; do touch -h -d @$(stat -c %Y \"$f\") \"$f\"; done' sh {} +;";

#[test]
fn what_root_packed_comes_back_whole_through_an_ordinary_user() {
    let bench = Bench::new();
    bench.sh(&format!("{TREE} {WHOLE_SECONDS}"));
    let mut digests = Vec::new();
    for (name, make) in [
        ("gnu.tar", "tar --format=gnu -C tree -cf gnu.tar ."),
        ("pax.tar", "tar --format=pax -C tree -cf pax.tar ."),
        ("sorted.tar", "tar --format=pax --sort=name -C tree -cf sorted.tar ."),
        ("gnu.tar.gz", "gzip -k gnu.tar"),
        ("gnu.tar.zst", "zstd -q -k gnu.tar"),
        ("pax.tar.xz", "xz -0 -T2 -k pax.tar"),
    ] {
        bench.sh(make);
        digests.push(bench.import(&format!("tar:{name}")));
    }
    bench.sh(&format!("cat gnu.tar | {} > stdin.json", bench.tool("import tar:- --as-is")));
    digests.push(bench.sh("grep -o '\"digest\": \"[0-9a-f]*' stdin.json | head -1 | tail -c 65").trim().to_owned());
    if is_root() {
        assert!(bench.refused("dir:tree").contains("/empty (Permission denied"));
        let out = bench.sh("./image root-store import dir:tree --as-is");
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        digests.push(field(&json, "/digest").as_str().unwrap().to_owned());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "one tree, one digest, however it came: {digests:?}");
    let digest = &digests[0];
    let index = bench.index(digest);
    for line in [
        "h /a-first-name /usr/bin/su\n",
        "h /a-first-name /usr/bin/sudo\n",
        " -1000 /tmp\n",
        "/not\\377utf8\\040\\134\\040\\012\n",
        "d 1777 ",
    ] {
        assert!(index.contains(line), "{line:?} in {index}");
    }
    if is_root() {
        for line in [" 1,3 /dev/null\n", " 8,0 /dev/sda\n", " 250,1048575 /dev/big\n", " 3000000000 3000000001 "] {
            assert!(index.contains(line), "{line:?} in {index}");
        }
    }
    // The tar of it, compared with the tree by GNU tar, and the same each time.
    bench.sh(&format!(
        "{} > out.tar; {} > again.tar; cmp out.tar again.tar",
        bench.tool(&format!("export-tar {digest}")),
        bench.tool(&format!("export-tar {digest}"))
    ));
    bench.sh("tar -C tree --numeric-owner -df out.tar");
    if is_root() {
        let facts = "find . -printf '%P %y %m %U %G %n %T@ %l\\n' | sort";
        bench.sh(&format!("mkdir unpacked; tar -C unpacked -xpf out.tar; diff <(cd tree; {facts}) <(cd unpacked; {facts})"));
    }
    assert_eq!(bench.sh("tar -tf out.tar | wc -l"), bench.sh("find tree -printf 'x\n' | wc -l"));
    assert_eq!(&bench.import("tar:out.tar"), digest);
    assert_eq!(bench.sh(&bench.tool("list")).lines().count(), 1);
    // The tree of it, by an ordinary user: what could not be set is named.
    let out = bench.sh(&bench.tool(&format!("export-dir {digest} user/tree")));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    bench.sh("diff -r --no-dereference --exclude=dev --exclude=pipe --exclude=empty tree user/tree");
    if is_root() {
        assert_eq!(field(&json, "/devices_not_made/first"), &serde_json::json!(["/dev/big", "/dev/null", "/dev/sda"]));
        assert!(
            field(&json, "/owners_not_set/first").as_array().unwrap().iter().any(|path| path == "/usr/bin/su" || path == "/a-first-name")
        );
        assert_eq!(bench.sh("stat -c %a user/tree/usr/bin/su").trim(), "755", "no set-id bits for another owner");
    }
}

#[test]
fn root_exports_what_root_packed() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.sh(&format!("{TREE} {WHOLE_SECONDS} tar --numeric-owner -C tree -cf tree.tar ."));
    let digest = bench.import("tar:tree.tar");
    bench.sh(&format!("./image user/store export-dir {digest} out/"));
    assert_eq!(bench.sh("cat out.digest").trim(), digest);
    bench.sh("tar --numeric-owner -C out -df tree.tar");
    let facts = "find . -printf '%P %y %m %U %G %n %T@ %l\\n' | sort";
    bench.sh(&format!("diff <(cd tree; {facts}) <(cd out; {facts})"));
    if has("rsync") {
        assert_eq!(bench.sh("rsync -naHDc --delete --out-format='%i %n' tree/ out/"), "");
    }
    let again = bench.try_sh(&format!("./image user/store export-dir {digest} out"));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"));
}

#[test]
fn sparse_files_of_all_formats_are_whole() {
    let bench = Bench::new();
    bench.sh("mkdir tree; cd tree; truncate -s 3M holes; printf mid | dd of=holes bs=1 seek=1500000 conv=notrunc status=none; truncate -s 1M all-hole; \
              for i in {0..60}; do printf data | dd of=many bs=1 seek=$((i*70000)) conv=notrunc status=none; done; touch -d @7 holes all-hole many .; cd ..");
    let plain = {
        bench.sh("tar -C tree -cf plain.tar .");
        bench.import("tar:plain.tar")
    };
    for format in
        ["--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1", "--format=pax --sparse-version=1.0"]
    {
        bench.sh(&format!("tar --sparse {format} -C tree -cf sparse.tar .; [ $(stat -c %s sparse.tar) -lt 1500000 ]"));
        assert_eq!(bench.import("tar:sparse.tar"), plain, "{format}");
    }
}

#[test]
fn file_capabilities_and_labels_are_told_by_name() {
    let bench = Bench::new();
    let pax = r#"
import sys, tarfile
with tarfile.open("caps.tar", "w", format=tarfile.PAX_FORMAT) as tar:
    for name, headers in (("bin/ping", {"SCHILY.xattr.security.capability": "\x01\x00\x02"}), ("bin/su", {"RHT.security.selinux": "system_u:object_r:su_exec_t:s0"})):
        member = tarfile.TarInfo(name)
        member.pax_headers = headers
        tar.addfile(member)
"#;
    std::fs::write(bench.path("caps.py"), pax).unwrap();
    bench.sh("python3 caps.py");
    let told = bench.sh(&format!("{} 2>&1 >/dev/null", bench.tool("import tar:caps.tar")));
    assert!(told.contains("1 files have file capabilities, which a network root does not keep: /bin/ping"), "{told}");
    assert!(told.contains("1 files have SELinux labels"), "{told}");
    if is_root() && has("setcap") {
        bench.sh("mkdir t; cp /bin/true t/ping; setcap cap_net_raw+ep t/ping; tar --xattrs --xattrs-include='*' -C t -cf real.tar .");
        for source in ["tar:real.tar", "dir:t"] {
            let told = bench.sh(&format!("{} 2>&1 >/dev/null", bench.tool(&format!("import {source}"))));
            assert!(told.contains("1 files have file capabilities, which a network root does not keep: /ping"), "{told}");
        }
    }
}

/// Archives that are made to do harm, or that are none.
const HARM: &str = r#"
import io, tarfile
def tar(name, *members):
    with tarfile.open(name, "w", format=tarfile.GNU_FORMAT) as out:
        for path, kind, more in members:
            member = tarfile.TarInfo(path)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(more)
                out.addfile(member, io.BytesIO(more))
            else:
                member.linkname = more
                out.addfile(member)
F, S, L, D = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
tar("up.tar", ("a/../../etc/passwd", F, b"x"))
tar("link-up.tar", ("a", L, "../../etc/shadow"))
tar("no-target.tar", ("a", L, "b"), ("b", F, b"x"))
tar("parent.tar", ("a", F, b"x"), ("a/b", F, b"x"))
tar("loop.tar", ("a", S, "b"), ("b", S, "a"), ("a/c", F, b"x"))
tar("long.tar", ("n" * 256, F, b"x"))
tar("symlink-parent.tar", ("escape", S, "../../../../tmp"), ("escape/harm", F, b"x"))
tar("twice.tar", ("a", F, b"first"), ("d/x", F, b"x"), ("a", F, b"second"), ("d", S, "a"))
tar("empty.tar")
tar("oci-layout.tar", ("oci-layout", F, b"{}"), ("index.json", F, b"{}"))
whole = open("twice.tar", "rb").read()
open("cut.tar", "wb").write(whole[:600])
open("cut-at-block.tar", "wb").write(whole[:1024])
open("cut-in-header.tar", "wb").write(whole[:1400])
open("no.tar", "wb").write(b"\x7fELF" + bytes(range(256)) * 8)
header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
def patched(at, field, kind=b"0"):
    block = bytearray(header)
    block[156:157] = kind
    block[at:at + len(field)] = field
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)
open("huge-name.tar", "wb").write(patched(124, b"77777777777\0", b"L"))
open("type.tar", "wb").write(patched(0, b"x", b"M") + bytes(1024))
open("holes.tar", "wb").write(patched(483, b"77777777777\0", b"S") + bytes(1024))
"#;

#[test]
fn harm_is_refused_by_name() {
    let bench = Bench::new();
    std::fs::write(bench.path("harm.py"), HARM).unwrap();
    bench.sh("python3 harm.py; head -c 64M /dev/zero > zeros; tar -cf - zeros | gzip -9 > bomb.tar.gz; bzip2 -c twice.tar > twice.tar.bz2 || printf 'BZh9' > twice.tar.bz2; tar --format=pax -C / -cf - bench/none 2>/dev/null || true");
    for (source, says) in [
        ("tar:up.tar", "leads out of the image"),
        ("tar:link-up.tar", "leads out of the image"),
        ("tar:no-target.tar", "a file that comes before it"),
        ("tar:parent.tar", "\"/a\" is no directory"),
        ("tar:loop.tar", "loop of symlinks"),
        ("tar:long.tar", "at most 255"),
        ("tar:empty.tar", "no entry"),
        ("tar:oci-layout.tar", "imported as oci:PATH"),
        ("tar:cut.tar", "cut short"),
        ("tar:cut-at-block.tar", "cut short"),
        ("tar:cut-in-header.tar", "cut short"),
        ("tar:no.tar", "a tar header"),
        ("tar:huge-name.tar", "at most 1048576"),
        ("tar:type.tar", "of type 'M'"),
        ("tar:twice.tar.bz2", "bzip2"),
        ("tar:nowhere.tar", "could not open \"nowhere.tar\""),
        ("tar:user", "a directory"),
    ] {
        let error = bench.refused(source);
        assert!(error.contains(says), "{source}: {error}");
    }
    assert_eq!(bench.sh(&bench.tool("list")), "", "what was refused left no index");
    assert!(objects(&bench.path("user/store")).is_empty(), "and no object");
    assert_eq!(bench.sh("ls user/store/tmp"), "");
    assert!(!std::path::Path::new("/tmp/harm").exists());
    let index = bench.index(&bench.import("tar:symlink-parent.tar"));
    assert!(index.contains(" /tmp/harm\n"), "within the image: {index}");
    let index = bench.index(&bench.import("tar:twice.tar"));
    assert!(index.contains(" 6 ") && index.contains(" a /d\n") && !index.contains("/d/x"), "the last one wins: {index}");
}

#[test]
fn a_bomb_meets_its_limit() {
    let bench = Bench::new();
    bench.sh("head -c 64M /dev/zero > zeros; tar -cf - zeros | gzip -9 > bomb.tar.gz; truncate -s 8T hole; tar --sparse -cf hole.tar hole; mkdir many; touch many/{1..300}; tar -cf many.tar many");
    let store = Objects::at(bench.path("store")).unwrap();
    let mut options = Options::default();
    (options.limits.bytes, options.limits.entries) = (16 << 20, 200);
    for (name, says) in
        [("bomb.tar.gz", "more than 16777216 bytes"), ("hole.tar", "more than 16777216 bytes"), ("many.tar", "more than 200 entries")]
    {
        let Err(ImportError::Source { source, .. }) = import(&Source::Tar(bench.path(name)), &options, &store) else { panic!("{name}") };
        let error = match *source {
            SourceError::Tree { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        assert!(error.contains(says), "{name}: {error}");
    }
    assert!(objects(&bench.path("store")).is_empty());
}

/// Bytes of an archive are changed and the checksum of the header they are in is made right again, so that more than the checksum is tried.
fn changed(tar: &[u8], changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    for (at, byte) in changes {
        let at = at.index(tar.len());
        tar[at] = *byte;
        let block = at / 512 * 512;
        let Some(block) = tar.get_mut(block..block + 512).filter(|block| block[257..262] == *b"ustar") else { continue };
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

#[test]
fn a_tar_that_was_changed_is_an_image_or_an_error() {
    let bench = Bench::new();
    bench.sh("mkdir tree; cd tree; truncate -s 100K hole; printf x | dd of=hole bs=1 seek=50000 conv=notrunc status=none; echo a > a; ln a b; ln -s a c; \
              echo l > $(printf 'n%.0s' {1..200}); mkfifo p; mkdir d; echo e > d/e; cd ..; tar --sparse --format=gnu -b1 -C tree -cf gnu.tar .; \
              tar --sparse --format=pax -b1 -C tree -cf pax.tar .; tar --sparse --format=pax --sparse-version=0.1 -b1 -C tree -cf pax1.tar .");
    let tars: Vec<Vec<u8>> = ["gnu.tar", "pax.tar", "pax1.tar"].map(|name| std::fs::read(bench.path(name)).unwrap()).to_vec();
    let store = tempfile::tempdir_in("/dev/shm").unwrap();
    let objects = Objects::at(store.path()).unwrap();
    let mut options = Options::default();
    options.limits.bytes = 1 << 20;
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 400, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() });
    let byte = prop_oneof![Just(b'0'), Just(b'7'), Just(b' '), Just(0), Just(b'x'), Just(b'S'), Just(0x80), Just(0xff), any::<u8>()];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), byte), 1..6);
    runner
        .run(&(0..tars.len(), changes), |(which, changes)| {
            let path = bench.path("changed.tar");
            std::fs::write(&path, changed(&tars[which], &changes)).unwrap();
            if let Ok(imported) = import(&Source::Tar(path), &options, &objects) {
                prop_assert!(objects.verify(&imported.digest).unwrap().damaged.is_empty());
                let mut tar = Vec::new();
                export_tar(&objects.index(&imported.digest).unwrap(), &objects, &mut tar).unwrap();
            }
            Ok(())
        })
        .unwrap();
    let images = objects.indexes().unwrap().len();
    assert!(images > 10, "only {images} were images: the changes are too coarse to try anything");
}

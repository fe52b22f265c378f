//! Directories: what is left out and what cannot be read is told; hard links, devices and mounts.

use super::bench::{Bench, field, is_root, packed};

#[test]
fn all_that_could_not_be_read_is_told_at_once() {
    let bench = Bench::new();
    bench.sh("mkdir -p tree/closed; echo x > tree/open; echo x > tree/secret; echo x > tree/closed/in; chmod 000 tree/secret tree/closed");
    let error = bench.refused("dir:tree");
    assert!(error.contains("/closed (Permission denied") && error.contains("/secret (Permission denied"), "{error}");
    assert!(error.contains("import as a user who can read all of it"), "{error}");
    assert_eq!(bench.sh(&bench.tool("list")), "");
    bench.sh("chmod 755 tree/closed");
}

#[test]
fn links_and_nodes_are_kept_and_symlinks_not_followed() {
    let bench = Bench::new();
    bench.sh("mkdir -p tree/d; cd tree; echo x > d/b; ln d/b a; ln -s /etc/passwd p; mkfifo pipe; \
              python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'");
    let digest = bench.import("dir:tree");
    let index = bench.index(&digest);
    for line in ["\nh /a /d/b\n", " /etc/passwd /p\n", " /pipe\n"] {
        assert!(index.contains(line), "{line:?} in {index}");
    }
    assert!(!index.contains("sock"), "whoever listens there makes it anew: {index}");
}

#[test]
fn other_mounts_are_left_out_and_told() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.sh("mkdir -p tree/m tree/bind other; echo x > tree/m/hidden; echo y > other/y; echo f > tree/f; echo g > g");
    let out = bench
        .sh("unshare -m sh -c 'mount -t tmpfs none tree/m; echo z > tree/m/z; mount --bind other tree/bind; mount --bind g tree/f; \
         ./image store import dir:tree --as-is 2> told' && cat told >&2");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(field(&json, "/entries"), 3, "the root and two empty directories: {json:#}");
    let told = bench.sh("cat told");
    assert!(told.contains("mounted on /bind, /f, /m"), "{told}");
}

#[test]
fn a_file_that_is_written_to_meanwhile_is_told() {
    let bench = Bench::new();
    bench.sh("mkdir tree; head -c 64M /dev/zero > tree/log");
    let writer = std::thread::spawn({
        let path = bench.path("tree/log");
        move || {
            for n in 0..400u32 {
                use std::os::unix::fs::FileExt;
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&n.to_le_bytes(), 0).unwrap();
                std::thread::park_timeout(std::time::Duration::from_millis(2));
            }
        }
    });
    let (_, told) = packed(&bench.path("tree"), &bench.path("packed")).unwrap();
    writer.join().unwrap();
    assert_eq!(told, ["1 files were changed while they were read: /log"]);
}

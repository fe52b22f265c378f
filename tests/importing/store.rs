//! The store: crashes leave garbage and nothing else, a flipped byte is told by name, and garbage is collected only when nothing runs.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use embody::testing::image::digest::Digest;
use embody::testing::image::export::{ExportError, export_tar};
use embody::testing::image::generalise::Steps;
use embody::testing::image::source::Source;
use embody::testing::image::store::{Damage, Objects, StoreError};
use embody::testing::image::{Imported, Options, import};

use super::bench::{Bench, objects};

fn stored(bench: &Bench, objects: &Objects, make: &str) -> Imported {
    bench.sh(&format!("rm -rf tree; mkdir tree; cd tree; {make}"));
    let options = Options { steps: Steps::none(), ..Options::default() };
    import(&bench.tree("tree"), &options, objects).unwrap()
}

fn object(store: &Path, contents: &[u8]) -> std::path::PathBuf {
    let hex = Digest::of(contents).to_string();
    store.join("objects").join(&hex[..2]).join(&hex[2..])
}

fn flip(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 1).unwrap();
}

#[test]
fn equal_contents_are_one_object_and_are_written_once() {
    let bench = Bench::new();
    let store = Objects::at(bench.path("store")).unwrap();
    let make = "echo same > a; echo same > b; echo other > c; head -c 3M /dev/zero > d; cp d e; : > f";
    let first = stored(&bench, &store, make);
    assert_eq!((first.written.objects, first.written.present), (4, 2));
    assert_eq!((first.entries, first.bytes), (7, 5 + 5 + 6 + 2 * 3 * 1024 * 1024));
    let before: Vec<_> =
        objects(store.root()).iter().map(|path| fs::metadata(path).unwrap()).map(|meta| (meta.ino(), meta.mode() & 0o7777)).collect();
    assert!(before.len() == 4 && before.iter().all(|(_, mode)| *mode == 0o444), "{before:?}");
    let second = stored(&bench, &store, make);
    assert_eq!((second.written.objects, second.written.present), (0, 6));
    let after: Vec<_> =
        objects(store.root()).iter().map(|path| fs::metadata(path).unwrap()).map(|meta| (meta.ino(), meta.mode() & 0o7777)).collect();
    assert_eq!(before, after);
    let index = store.index(&first.digest).unwrap();
    assert_eq!(store.missing(index.contents()), []);
    let absent = (Digest::of(b"absent"), 6);
    assert_eq!(store.missing(index.contents().chain([absent, absent])), [absent]);
    assert_eq!(fs::metadata(store.root()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_flipped_byte_is_told_by_name_and_heals() {
    let bench = Bench::new();
    let store = Objects::at(bench.path("store")).unwrap();
    let make = "mkdir d; echo contents > d/one; ln d/one two; echo contents > three; echo fine > four";
    let imported = stored(&bench, &store, make);
    let (digest, size) = (Digest::of(b"contents\n"), 9);
    let path = object(store.root(), b"contents\n");
    let mut read = String::new();
    store.open_verified(&digest, size).unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read, "contents\n");
    flip(&path);
    // It had been verified: its stamp is another one now.
    let Err(StoreError::Flipped { digest: named, found }) = store.open_verified(&digest, size) else { panic!() };
    assert!(named == digest && found != digest);
    let index = store.index(&imported.digest).unwrap();
    let Err(ExportError::Contents { path: told, .. }) = export_tar(&index, &store, &mut std::io::sink()) else { panic!() };
    assert_eq!(told, "/d/one");
    let report = store.verify(&imported.digest).unwrap();
    assert_eq!((report.objects, report.damaged.len()), (2, 1));
    assert_eq!((&report.damaged[0].digest, &report.damaged[0].paths), (&digest, &vec!["/d/one".to_owned(), "/three".to_owned()]));
    assert_eq!(report.damaged[0].damage, Damage::Flipped { found });
    store.set_aside(&digest).unwrap();
    assert!(matches!(store.open_verified(&digest, size), Err(StoreError::Missing { .. })));
    assert_eq!(store.verify(&imported.digest).unwrap().damaged[0].damage, Damage::Missing);
    assert_eq!(stored(&bench, &store, make).written.objects, 1);
    assert_eq!(store.verify(&imported.digest).unwrap().damaged, []);
    assert!(store.open_verified(&digest, size).is_ok());
    // One that was cut is written anew by the next import, without a word.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(3).unwrap();
    assert!(matches!(store.open(&digest, size), Err(StoreError::Size { found: 3, expected: 9, .. })));
    stored(&bench, &store, make);
    assert_eq!(store.verify(&imported.digest).unwrap().damaged, []);
}

#[test]
fn an_index_that_was_changed_is_refused() {
    let bench = Bench::new();
    let store = Objects::at(bench.path("store")).unwrap();
    let imported = stored(&bench, &store, "echo x > a");
    flip(&store.root().join("index").join(imported.digest.to_string()));
    assert!(matches!(store.index(&imported.digest), Err(StoreError::IndexFlipped { .. })));
    assert!(matches!(store.index(&Digest::of(b"")), Err(StoreError::NoIndex { .. })));
    // What it names is not known, so nothing is removed.
    let keep = BTreeSet::from([imported.digest]);
    assert!(matches!(store.remove_unreferenced(&keep, Duration::ZERO), Err(StoreError::IndexFlipped { .. })));
    assert_eq!(objects(store.root()).len(), 1);
}

#[test]
fn a_crash_between_objects_and_index_leaves_only_garbage() {
    let bench = Bench::new();
    let store = Objects::at(bench.path("store")).unwrap();
    let kept = stored(&bench, &store, "echo kept > a; echo shared > b");
    let mut session = store.session().unwrap();
    session.add_bytes(b"lost\n").unwrap();
    session.add_bytes(b"shared\n").unwrap();
    session.commit_objects().unwrap();
    // As a crash does it: what is in tmp stays, and the lock goes with the process.
    fs::create_dir(store.root().join("tmp/9999-0")).unwrap();
    fs::write(store.root().join("tmp/9999-0/part"), "half").unwrap();
    drop(session);
    assert_eq!(store.indexes().unwrap(), [kept.digest]);
    assert_eq!(objects(store.root()).len(), 3);
    let swept = store.remove_unreferenced(&BTreeSet::from([kept.digest]), Duration::ZERO).unwrap();
    assert_eq!((swept.indexes, swept.objects, swept.bytes, swept.leftovers), (0, 1, 5, 1));
    assert_eq!(store.verify(&kept.digest).unwrap().damaged, []);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_process_that_is_killed_leaves_only_garbage() {
    let bench = Bench::new();
    bench.sh("mkdir tree; for i in {1..50}; do echo $i > tree/$i; done; head -c 8M /dev/urandom > tree/zz; tar --sort=name -C tree -cf tree.tar .");
    let mut child = Command::new(bench.path("image"))
        .args([bench.path("store").as_os_str(), "import".as_ref(), "tar:-".as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let tar = fs::read(bench.path("tree.tar")).unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&tar[..tar.len() - 1_000_000]).unwrap();
    let store = Objects::at(bench.path("store")).unwrap();
    let staged = |at: &str| {
        fs::read_dir(store.root().join("tmp"))
            .unwrap()
            .flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap())
            .any(|e| e.unwrap().file_name() == at)
    };
    for _ in 0..500 {
        if staged("part") {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert!(matches!(store.remove_unreferenced(&BTreeSet::new(), Duration::ZERO), Err(StoreError::Busy { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
    drop(pipe);
    assert_eq!(store.indexes().unwrap(), []);
    assert!(objects(store.root()).is_empty());
    let swept = store.remove_unreferenced(&BTreeSet::new(), Duration::ZERO).unwrap();
    assert_eq!((swept.objects, swept.leftovers), (0, 1));
    let imported = import(&Source::Tar(bench.path("tree.tar")), &Options::default(), &store).unwrap();
    assert_eq!((imported.entries, store.verify(&imported.digest).unwrap().damaged.len()), (52, 0));
}

#[test]
fn garbage_is_what_no_kept_index_names() {
    let bench = Bench::new();
    let store = Objects::at(bench.path("store")).unwrap();
    let one = stored(&bench, &store, "echo one > a; echo shared > b");
    let two = stored(&bench, &store, "echo two > a; echo shared > b");
    // Young ones are kept: whoever collects may not know of them yet.
    let swept = store.remove_unreferenced(&BTreeSet::from([one.digest]), Duration::from_secs(3600)).unwrap();
    assert_eq!((swept.indexes, swept.objects), (0, 0));
    let session = store.session().unwrap();
    let keep = BTreeSet::from([one.digest]);
    assert!(matches!(store.remove_unreferenced(&keep, Duration::ZERO), Err(StoreError::Busy { .. })));
    drop(session);
    let absent = BTreeSet::from([one.digest, Digest::of(b"absent")]);
    assert!(matches!(store.remove_unreferenced(&absent, Duration::ZERO), Err(StoreError::NoIndex { .. })));
    // A file that is open stays readable.
    let mut open = store.open_verified(&Digest::of(b"two\n"), 4).unwrap();
    let swept = store.remove_unreferenced(&keep, Duration::ZERO).unwrap();
    assert_eq!((swept.indexes, swept.objects, swept.bytes), (1, 1, 4));
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "two\n");
    assert_eq!(store.indexes().unwrap(), [one.digest]);
    assert!(matches!(store.index(&two.digest), Err(StoreError::NoIndex { .. })));
    assert_eq!(store.verify(&one.digest).unwrap().damaged, []);
}

#[test]
fn imports_that_run_at_once_do_not_disturb_each_other() {
    let bench = Bench::new();
    bench.sh("mkdir tree; for i in {1..300}; do echo $((i % 100)) > tree/$i; done");
    let store = Objects::at(bench.path("store")).unwrap();
    let source = bench.tree("tree");
    let digests: Vec<Digest> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| import(&source, &Options::default(), &store).unwrap().digest)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    assert_eq!(objects(store.root()).len(), 100);
    assert_eq!(store.verify(&digests[0]).unwrap().damaged, []);
}

//! Images at the command line of the real program: what goes in comes out, whoever keeps it, and what is damaged is named.
//!
//! And a persona at a site with nothing else. Leaves out: machines that run them (`tests/machines.rs`), and each corner of tars and containers
//! (`tests/importing.rs`).

#[path = "rack/controller.rs"]
#[allow(dead_code, reason = "the rack uses the rest")]
mod controller;
#[path = "rack/programs.rs"]
#[allow(dead_code, reason = "the rack uses the rest")]
mod programs;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use controller::Controller;
use programs::until;
use tempfile::TempDir;

struct Bench {
    dir: TempDir,
    controller: Controller,
}

impl Bench {
    async fn start() -> Bench {
        let dir = TempDir::new().unwrap();
        let mut controller = Controller::new(dir.path(), "controller", &["--boot-address", "127.0.0.1:0"]);
        controller.start().await;
        // It may not act yet.
        until("it acts", Duration::from_secs(20), async || {
            let said = controller.say(&["image", "ls"]).await;
            if said.code == 0 { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
        Bench { dir, controller }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A tree with everything that an ordinary user can make.
    fn tree(&self, name: &str, content: &str) -> PathBuf {
        let root = self.path(name);
        for directory in ["etc", "usr/bin", "var/tmp", "srv/empty"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("etc/hostname"), "made-here\n").unwrap();
        fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::write(root.join("usr/bin/content"), content).unwrap();
        fs::write(root.join("usr/bin/su"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("usr/bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::set_permissions(root.join("var/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::hard_link(root.join("usr/bin/su"), root.join("usr/bin/su-too")).unwrap();
        symlink("../nowhere", root.join("srv/link")).unwrap();
        root
    }

    async fn import(&self, name: &str, source: &Path) -> controller::Outcome {
        self.controller.say(&["image", "import", name, source.to_str().unwrap()]).await
    }

    /// An object of the store, by what is in it.
    fn object(&self, content: &str) -> PathBuf {
        let digest = Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", content]).output().unwrap().stdout;
        let digest = String::from_utf8(digest).unwrap()[..64].to_owned();
        self.controller.dir().join("data/images/objects").join(&digest[..2]).join(&digest[2..])
    }
}

#[tokio::test]
async fn what_goes_in_comes_out() {
    let bench = Bench::start().await;
    let root = bench.tree("web", "one");
    let said = bench.import("web:1", &root).await;
    assert_eq!(said.code, 0, "{said:?}");
    for expected in ["image web:1 is ", "machine-id: /etc/machine-id emptied", "hostname: ", "warning: no kernel", "warning: no /sbin/init"]
    {
        assert!(said.out.contains(expected), "{expected}: {said:?}");
    }
    let rows = bench.controller.run(&["image", "ls"]).await;
    let row: Vec<&str> = rows.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[5]), ("web:1", "True"), "{rows}");
    // As a plain tree, for a filer: all but what was taken out, and its digest beside it.
    bench.controller.run(&["image", "export", "web:1", bench.path("out").to_str().unwrap()]).await;
    let out = bench.path("out");
    assert!(!out.join("etc/hostname").exists() && fs::read(out.join("etc/machine-id")).unwrap().is_empty());
    assert_eq!(fs::read_to_string(out.join("usr/bin/content")).unwrap(), "one");
    let about = |name: &str| fs::symlink_metadata(out.join(name)).unwrap();
    assert_eq!((about("usr/bin/su").mode() & 0o7777, about("var/tmp").mode() & 0o7777), (0o4755, 0o1777));
    assert_eq!(about("usr/bin/su").ino(), about("usr/bin/su-too").ino());
    assert_eq!(fs::read_link(out.join("srv/link")).unwrap(), Path::new("../nowhere"));
    assert!(out.join("srv/empty").is_dir());
    let digest = fs::read_to_string(bench.path("out.digest")).unwrap();
    assert!(bench.controller.run(&["image", "inspect", "web:1"]).await.contains(digest.trim()));
    // The same from a tar of another hand, packed: the same content.
    let tar = bench.path("web.tar.gz");
    assert!(Command::new("tar").arg("-czf").arg(&tar).arg("-C").arg(&root).arg(".").status().unwrap().success());
    bench.controller.run(&["image", "import", "web:2", tar.to_str().unwrap()]).await;
    let inspected = bench.controller.run(&["image", "inspect", "web:2"]).await;
    assert!(inspected.contains(digest.trim()), "{inspected}");
    // And with what is taken out otherwise.
    let said = bench.controller.say(&["image", "import", "web:3", tar.to_str().unwrap(), "--keep", "hostname,machine-id"]).await;
    assert!(said.code == 0 && !said.out.contains("hostname:") && !said.out.contains("machine-id:"), "{said:?}");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_nothing_is_left_of_it() {
    let bench = Bench::start().await;
    let root = bench.tree("web", "one");
    bench.import("web:1", &root).await;
    for (words, expected) in [
        (vec!["image", "import", "Web", root.to_str().unwrap()], "expected NAME:VERSION"),
        (vec!["image", "import", "web:1", root.to_str().unwrap()], "a name keeps its content"),
        (vec!["image", "import", "web:9", root.to_str().unwrap(), "--keep", "hostnames"], "there is no step \"hostnames\""),
        (vec!["image", "import", "web:9", "/nowhere"], "/nowhere could not be read"),
        (vec!["image", "import", "web:9", "/etc/hostname"], "expected"),
        (vec!["image", "inspect", "web:9"], "there is no image web:9"),
        (vec!["image", "verify", "web:9"], "there is no image web:9"),
        (vec!["image", "rm", "web:9"], "web:9"),
        (vec!["image", "rm", "web:1"], "one of the last 3 of web"),
        (vec!["image", "export", "web:1", root.to_str().unwrap()], "web"),
    ] {
        let said = bench.controller.say(&words).await;
        assert!(said.code != 0 && said.err.contains(expected), "{words:?}: {said:?}");
    }
    assert_eq!(bench.controller.run(&["image", "ls", "-o", "name"]).await, "web:1\n");
    bench.controller.run(&["image", "rm", "web:1", "--force"]).await;
    let object = bench.object("one");
    until("its files are gone", Duration::from_secs(30), async || if object.exists() { Err(bench.controller.log()) } else { Ok(()) }).await;
}

#[tokio::test]
async fn a_flipped_byte_is_named_and_the_same_content_heals_it() {
    let bench = Bench::start().await;
    let root = bench.tree("web", "one");
    bench.import("web:1", &root).await;
    assert!(bench.controller.run(&["image", "verify", "web:1"]).await.contains("is as it was imported"));
    let object = bench.object("one");
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&object, "onf").unwrap();
    let said = bench.controller.say(&["image", "verify", "web:1"]).await;
    assert!(said.code != 0 && said.err.contains("/usr/bin/content has other content"), "{said:?}");
    until("it is not here whole", Duration::from_secs(30), async || {
        let shown = bench.controller.run(&["image", "inspect", "web:1"]).await;
        if shown.contains("files are damaged") { Ok(()) } else { Err(shown) }
    })
    .await;
    // Under its own name, and under another one.
    let healed = bench.import("web:1", &root).await;
    assert!(healed.code == 0 && healed.out.contains("as it was imported first"), "{healed:?}");
    until("it is here again", Duration::from_secs(30), async || {
        let shown = bench.controller.run(&["image", "inspect", "web:1"]).await;
        if shown.contains("lacks") { Err(shown) } else { Ok(()) }
    })
    .await;
    assert!(bench.controller.run(&["image", "verify", "web:1"]).await.contains("is as it was imported"));
    // An import that finds a damaged file where it would write one does not believe it.
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&object, "onf").unwrap();
    fs::write(root.join("etc/issue"), "another").unwrap();
    bench.import("web:2", &root).await;
    for name in ["web:1", "web:2"] {
        assert!(bench.controller.run(&["image", "verify", name]).await.contains("is as it was imported"));
    }
    // What is damaged is not exported.
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&object, "onf").unwrap();
    let said = bench.controller.say(&["image", "export", "web:1", bench.path("out").to_str().unwrap()]).await;
    assert!(said.code == 1 && said.err.contains("/usr/bin/content has other content") && !bench.path("out").exists(), "{said:?}");
}

#[tokio::test]
async fn an_import_that_is_cut_off_leaves_nothing_and_a_restart_forgets_nothing() {
    let mut bench = Bench::start().await;
    let root = bench.tree("web", "one");
    bench.import("web:1", &root).await;
    // A tar that never ends, and whoever sends it is killed.
    let mut sends = bench.controller.watch(&["image", "import", "web:2", "-"]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    sends.kill().await;
    // A file in it that cannot be read ends an import by name.
    let said = bench.controller.say(&["image", "ls", "-o", "name"]).await;
    assert_eq!(said.out, "web:1\n", "{said:?}");
    // While one is on its way, another one is removed with its files: that is not taken for a leftover.
    let mut sends = bench.controller.watch(&["image", "import", "web:3", "-"]);
    let uploads = bench.controller.dir().join("data/images/incoming");
    until(
        "an upload",
        Duration::from_secs(30),
        async || if fs::read_dir(&uploads).unwrap().count() == 1 { Ok(()) } else { Err(String::new()) },
    )
    .await;
    let other = bench.tree("other", "two");
    bench.controller.run(&["image", "rm", "web:1", "--force"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fs::read_dir(&uploads).unwrap().count(), 1, "{}", bench.controller.log());
    sends.kill().await;
    bench.import("web:1", &other).await;
    let spooled = bench.controller.dir().join("data/images/incoming");
    until("nothing is left", Duration::from_secs(30), async || {
        let left = fs::read_dir(&spooled).unwrap().count();
        if left == 0 { Ok(()) } else { Err(format!("{left} files")) }
    })
    .await;
    bench.controller.kill().await;
    bench.controller.start().await;
    until("it is here", Duration::from_secs(30), async || {
        // It may not act yet.
        let shown = bench.controller.say(&["image", "ls"]).await;
        if shown.out.contains("True") { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    bench.import("web:2", &root).await;
}

/// Nothing else happens at a site without a server.
#[tokio::test]
async fn a_persona_that_nothing_is_to_run_says_so() {
    let bench = Bench::start().await;
    let spec = "{ os: { family: linux }, kernel: { path: vmlinuz }, root: { ram: {} } }";
    bench.controller.apply(&format!("apiVersion: embody.dev/v1alpha1\nkind: Persona\nmetadata: {{ name: lone }}\nspec: {spec}\n")).await;
    bench.controller.run(&["wait", "persona", "lone", "--timeout", "240s"]).await;
}

//! A directory as the source of desired state: what it may delete unasked, and what a person approves.
//!
//! The API serves the same store, as a person would approve there; the controller is a stand-in: the body of the binding `alive` is alive, and server
//! `held` may not be deleted. And which files of it are read, and when. Leaves out: the process around it (`tests/rack/process.rs`).

mod site;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use embody::testing::gitops::{Directory, Lookout, Not};
use embody::testing::model::Object;
use serde_json::{Value, json};
use site::{Site, binding, network, object, persona, secret, server};
use tokio::time::Instant;

struct Source {
    site: Site,
    directory: Directory,
}

impl Source {
    async fn start(objects: &[Value]) -> Source {
        let site = Site::start().await;
        let directory = Directory::new("/rack".into(), true, site.backend.clone());
        let mut source = Source { site, directory };
        source.holds(objects).await.unwrap();
        source
    }

    /// It holds exactly these, which is seen and applied.
    async fn holds(&mut self, objects: &[Value]) -> Result<String, Not> {
        let objects: Vec<Object> = objects.iter().map(|o| Object::from_json(o.clone()).unwrap()).collect();
        let content = self.directory.saw(objects, 1).await;
        self.directory.apply(content).await
    }

    async fn waits(&mut self, objects: &[Value]) -> String {
        match self.holds(objects).await {
            Err(Not::Waits(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn is_refused(&mut self, objects: &[Value]) -> String {
        match self.holds(objects).await {
            Err(Not::Broken(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn names(&self, plural: &str) -> Vec<String> {
        let (_, list) = self.site.call("GET", &format!("/{plural}"), Value::Null).await;
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// What is shown to whoever would approve it.
    async fn shown(&self) -> (Vec<String>, String) {
        let (status, pending) = self.site.call("GET", "/sources/directory", Value::Null).await;
        assert_eq!(status, 200, "{pending}");
        let lines = pending["writes"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect();
        (lines, pending["digest"].as_str().unwrap().to_owned())
    }

    async fn approve(&self, digest: &str) -> u16 {
        self.site.call("POST", "/sources/directory/approve", json!({ "digest": digest })).await.0
    }
}

fn labs(names: impl IntoIterator<Item = u16>) -> Vec<Value> {
    names.into_iter().map(|n| network(&format!("lab-{n}"), n)).collect()
}

fn rack() -> Vec<Value> {
    vec![secret("bmc", "x"), network("web", 120), server("s1"), persona("p"), binding("alive", "p", "s1")]
}

#[tokio::test]
async fn a_few_deletions_are_made_and_told() {
    let mut source = Source::start(&labs(1..=8)).await;
    let said = source.holds(&labs(3..=8)).await.unwrap();
    assert_eq!(said, "6 objects of 1 files; 2 deleted");
    assert_eq!(source.names("networks").await.len(), 6);
    let (_, events) = source.site.call("GET", "/events", Value::Null).await;
    let events: Vec<(&str, &str, &str)> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["regarding"].as_str().unwrap(), e["reason"].as_str().unwrap(), e["message"].as_str().unwrap()))
        .collect();
    let because = "it is no longer in directory:/rack";
    assert_eq!(events, [("Network/lab-1", "Deleted", because), ("Network/lab-2", "Deleted", because)]);
}

/// A mistake that removes its files one after the other is one mistake.
#[tokio::test(start_paused = true)]
async fn more_deletions_than_the_policy_allows_wait_at_once_or_one_by_one() {
    let mut source = Source::start(&labs(1..=20)).await;
    let why = source.waits(&labs(7..=20)).await;
    assert!(why.contains("6 objects would be deleted, and limits.maxDeletes lets 5") && why.contains("Network/lab-1 deleted"), "{why}");
    source.holds(&labs(1..=20)).await.unwrap();
    for first in 2..=6 {
        source.holds(&labs(first..=20)).await.unwrap();
    }
    let why = source.waits(&labs(7..=20)).await;
    assert!(why.contains("1 objects would be deleted (5 were in the last ten minutes)"), "{why}");
    assert_eq!(source.names("networks").await.len(), 15);
    tokio::time::advance(Duration::from_secs(601)).await;
    source.holds(&labs(7..=20)).await.unwrap();
    // The limit that stands counts, not the one that comes with the deletions.
    let wide = object("Policy", "default", json!({ "limits": { "maxDeletes": 100 } }));
    let why = source.waits(&[labs(17..=20), vec![wide.clone()]].concat()).await;
    assert!(why.contains("maxDeletes") && why.contains("Policy/default created"), "{why}");
    source.holds(&[labs(7..=20), vec![wide.clone()]].concat()).await.unwrap();
    source.holds(&[labs(17..=20), vec![wide]].concat()).await.unwrap();
}

#[tokio::test]
async fn a_whole_kind_and_a_body_that_is_alive_wait_for_the_word_that_covers_what_was_shown() {
    let mut source = Source::start(&[rack(), vec![binding("off", "p", "s1")]].concat()).await;
    let without_bindings = &rack()[..4];
    let why = source.waits(without_bindings).await;
    for word in ["no Binding is left in the directory, of 2", "Binding/alive is not there any more, and server s1 is on"] {
        assert!(why.contains(word), "{word}: {why}");
    }
    assert_eq!(source.names("bindings").await, ["alive", "off"]);

    // Only the one that is off: nobody is asked. The other one, with another edit: both are shown, and wait.
    source.holds(&rack()).await.unwrap();
    let edited = [without_bindings.to_vec(), vec![network("more", 7), binding("late", "p", "s1")]].concat();
    source.waits(&edited).await;
    let (lines, digest) = source.shown().await;
    assert_eq!(lines, ["Network/more created", "Binding/late created", "Binding/alive deleted"]);
    // Whoever changes it meanwhile, there or here, has not shown that.
    let mut renewed = binding("alive", "p", "s1");
    renewed["spec"]["hostname"] = json!("other");
    assert_eq!(source.site.call("PUT", "/bindings/alive", renewed).await.0, 200);
    assert_eq!(source.approve(&digest).await, 200);
    source.waits(&edited).await;
    let (_, digest) = source.shown().await;
    assert_eq!(source.approve(&digest).await, 200);
    source.waits(&[edited.clone(), vec![network("later", 8)]].concat()).await;
    assert_eq!(source.names("bindings").await, ["alive"]);
    source.waits(&edited).await;
    assert_eq!(source.approve(&digest).await, 200);
    assert_eq!(source.holds(&edited).await.unwrap(), "6 objects of 1 files; 1 deleted");
    assert_eq!(source.names("bindings").await, ["late"]);
    // Used up.
    source.waits(without_bindings).await;
}

/// Before the first write: nothing of a set is done of which a part cannot be.
#[tokio::test]
async fn a_deletion_that_must_not_be_leaves_all_as_it_was() {
    let mut source = Source::start(&[rack(), vec![server("held"), server("s3")]].concat()).await;
    let edited = |edit: &Value| [rack(), vec![server("s3"), edit.clone()]].concat();
    let before = source.site.store.revision();
    let why = source.is_refused(&edited(&network("new", 9))).await;
    assert!(why.contains("Server/held is not deleted: held may still run web"), "{why}");
    source.site.create(binding("by-hand", "p", "s3")).await;
    let why = source.is_refused(&[rack(), vec![server("held"), network("new", 9)]].concat()).await;
    assert!(why.contains("Server/s3 is not deleted: Binding/by-hand refers to it"), "{why}");
    assert_eq!(source.site.store.revision(), before + 1);
}

/// What is replaced and what replaces it are never there at the same time.
#[tokio::test]
async fn a_rename_is_one_write() {
    let mut source = Source::start(&[labs(1..=3), vec![network("web", 120)]].concat()).await;
    let mut watch = source.site.backend.store.watch("objects/", source.site.store.revision()).await.unwrap();
    source.holds(&[labs(1..=3), vec![network("front", 120)]].concat()).await.unwrap();
    assert_eq!(source.names("networks").await, ["front", "lab-1", "lab-2", "lab-3"]);
    let told = [format!("{:?}", watch.recv().await), format!("{:?}", watch.recv().await)];
    assert!(told[0].contains("Put") && told[1].contains("Deleted"), "{told:?}");
    // The one and only of its kind, too.
    let mut source = Source::start(&[network("web", 120)]).await;
    source.holds(&[network("front", 120)]).await.unwrap();
}

// ---- which files are read, and when ----------------------------------------------------------------------------------------

/// A directory with a file of the network `web`, and a source that prunes.
struct Files {
    site: Site,
    root: tempfile::TempDir,
}

fn text(name: &str, vlan: u16) -> String {
    format!("apiVersion: embody.dev/v1alpha1\nkind: Network\nmetadata: {{ name: {name} }}\nspec: {{ vlan: {vlan} }}\n")
}

impl Files {
    async fn start() -> Files {
        let files = Files { site: Site::start().await, root: tempfile::tempdir().unwrap() };
        fs::create_dir(files.path("")).unwrap();
        files.write("web.yaml", &text("web", 120));
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("rack").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn source(&self) -> Directory {
        Directory::new(self.path(""), true, self.site.backend.clone())
    }

    /// Reads it as it is, and applies that; the networks that there are then.
    async fn applied(&self) -> (String, Vec<String>) {
        self.applied_by(&mut self.source()).await
    }

    async fn applied_by(&self, source: &mut Directory) -> (String, Vec<String>) {
        let content = source.look().await.unwrap_or_else(|why| panic!("{why}"));
        let said = source.apply(content).await.unwrap();
        let (_, list) = self.site.call("GET", "/networks", Value::Null).await;
        (said, list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect())
    }

    async fn refused(&self) -> String {
        self.source().look().await.err().expect("refused")
    }
}

#[tokio::test]
async fn files_of_other_tools_are_left_out_and_said_and_mistakes_are_not() {
    let files = Files::start().await;
    for (name, text) in [
        ("kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [ web.yaml ]\n"),
        ("compose.yml", "services: { web: { image: nginx } }\n"),
        ("chart/templates/x.yaml", "{{- if .Values.x }}\nkind: Deployment\n{{- end }}\n"),
        ("secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: { name: x }\nstringData: { password: y }\n"),
        (".git/HEAD.yaml", "not: [yaml"),
        ("web.yaml~", "not: [yaml"),
        (".web.yaml.swp", "not: [yaml"),
        ("#web.yaml#", "not: [yaml"),
    ] {
        files.write(name, text);
    }
    let (said, names) = files.applied().await;
    assert_eq!(names, ["web"]);
    assert!(said.starts_with("1 objects of 1 files; without ") && said.contains(" and 3 other files"), "{said}");
    // What may be meant as an object of ours is an error.
    for wrong in [
        "kind: Network\nmetadata: { name: x }\nspec: { vlan: 7 }\n",
        "apiVersion: v1alpha1\nkind: Network\nmetadata: { name: x }\nspec: { vlan: 7 }\n",
        "apiVersion: embody.dev/v2\nkind: Netwrk\n",
        "metadata: { name: x }\nspec: { vlan: 7 }\n",
        "kind: Network\nmetadata: [\n",
        "services: {}\n---\nkind: Binding\n",
    ] {
        files.write("wrong.yaml", wrong);
        assert!(files.refused().await.contains("wrong.yaml"), "{wrong}");
    }
    files.write(".embodyignore", "wrong.yaml\nkustom*\n/chart/**\nsecret.yaml\ncompose.yml\n");
    assert_eq!(files.applied().await.0, "1 objects of 1 files");
    // The nearest one decides.
    files.write("sub/wrong.yaml", &text("late", 9));
    files.write("sub/.embodyignore", "!wrong.yaml\n");
    assert_eq!(files.applied().await.1, ["late", "web"]);
}

#[tokio::test]
async fn links_are_followed_inside_and_refused_outside_and_nothing_but_a_file_is_opened() {
    let files = Files::start().await;
    let outside = files.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("out.yaml"), text("out", 7)).unwrap();
    // As a ConfigMap is mounted: a link to a hidden directory; and links in a circle, and twice to one file.
    files.write("..2026/map.yaml", &text("map", 8));
    symlink("..2026", files.path("..data")).unwrap();
    symlink("..data/map.yaml", files.path("map.yaml")).unwrap();
    symlink("map.yaml", files.path("zap.yaml")).unwrap();
    symlink(".", files.path("circle")).unwrap();
    assert_eq!(files.applied().await.1, ["map", "web"]);

    let link = |to: &str, at: &Path| symlink(to, at).unwrap();
    for (name, to, word) in [
        ("dir", "../outside", "leads out of the directory"),
        ("out.yaml", "../outside/out.yaml", "leads out of the directory"),
        ("null.yaml", "/dev/null", "leads out of the directory"),
        ("none.yaml", "nothing", "leads nowhere"),
        ("fifo.yaml", "", "a FIFO, and is not opened"),
    ] {
        let path = files.path(name);
        if to.is_empty() {
            fifo(&path)
        } else {
            link(to, &path)
        }
        let why = files.refused().await;
        assert!(why.contains(word) && why.contains(name), "{word}: {why}");
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(files.applied().await.1, ["map", "web"]);
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
}

/// A file that is written in two steps, each of them within a line: VLAN 12 is not what anybody wrote.
#[tokio::test]
async fn a_file_that_is_being_written_is_waited_for() {
    let files = Files::start().await;
    let whole = text("slow", 1234);
    let half = whole.find("34 }").unwrap();
    let mut file = fs::File::create(files.path("slow.yaml")).unwrap();
    file.write_all(&whole.as_bytes()[..half]).unwrap();
    let rest = whole.as_bytes()[half..].to_vec();
    let writer = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        file.write_all(&rest).unwrap();
    });
    let mut source = files.source();
    let content = source.look().await.unwrap_or_else(|why| panic!("{why}"));
    source.apply(content).await.unwrap();
    writer.await.unwrap();
    let (_, slow) = files.site.call("GET", "/networks/slow", Value::Null).await;
    assert_eq!(slow["spec"]["vlan"], 1234);
    // One whose last line merely has no end is taken, if it is left so.
    files.write("bare.yaml", text("bare", 77).trim_end());
    let begun = Instant::now();
    assert_eq!(files.applied().await.1, ["bare", "slow", "web"]);
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_directory_that_never_rests_is_not_applied() {
    let files = Files::start().await;
    let path = files.path("busy.yaml");
    let writer = tokio::spawn(async move {
        for n in 1_u64.. {
            fs::write(&path, format!("# {n}\n{}", text("busy", 5))).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let why = files.refused().await;
    writer.abort();
    assert!(why.contains("busy.yaml") && why.contains("keeps changing"), "{why}");
}

// ---- what is a hint --------------------------------------------------------------------------------------------------------

/// Looks at a path as the controller does, but never without a hint.
struct Watched {
    lookout: Lookout,
    path: PathBuf,
    source: Directory,
    has_looked: bool,
}

impl Watched {
    fn new(path: PathBuf, files: &Files) -> Watched {
        let source = Directory::new(path.clone(), true, files.site.backend.clone());
        Watched { lookout: Lookout::new(path.clone()), path, source, has_looked: false }
    }

    /// Looks again at each hint until that is applied and holds these networks.
    async fn holds(&mut self, files: &Files, names: &[&str]) {
        let holds = async {
            loop {
                if self.has_looked {
                    self.lookout.hint().await;
                }
                self.has_looked = true;
                self.lookout.begin().await;
                let is_there = self.path.exists();
                let found = if is_there { files.applied_by(&mut self.source).await.1 } else { Vec::new() };
                if found == names {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), holds).await.unwrap_or_else(|_| panic!("no hint leads to {names:?}"));
    }
}

fn set(root: &Path, name: &str, vlan: u16) -> PathBuf {
    let directory = root.join(name).join("rack");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("one.yaml"), text(name, vlan)).unwrap();
    directory
}

#[tokio::test]
async fn a_link_that_is_swapped_is_followed_at_its_end_and_further_up() {
    for above in [false, true] {
        let files = Files::start().await;
        let root = files.root.path();
        let (blue, green) = (set(root, "blue", 11), set(root, "green", 12));
        let at = root.join("current");
        // As `ln -sfn` and git-sync's `mv -T` do it: another link is made, and takes the place.
        let swap = |to: &Path| {
            symlink(if above { to.parent().unwrap() } else { to }, root.join("next")).unwrap();
            fs::rename(root.join("next"), &at).unwrap();
        };
        swap(&blue);
        let mut watched = Watched::new(if above { at.join("rack") } else { at.clone() }, &files);
        watched.holds(&files, &["blue"]).await;
        swap(&green);
        watched.holds(&files, &["green"]).await;
        // What is there now is watched.
        fs::write(green.join("more.yaml"), text("more", 13)).unwrap();
        watched.holds(&files, &["green", "more"]).await;
    }
}

#[tokio::test]
async fn a_directory_that_is_moved_away_and_made_anew_is_the_one_that_counts() {
    let files = Files::start().await;
    let mut watched = Watched::new(files.path(""), &files);
    watched.holds(&files, &["web"]).await;
    for (away, name) in [("old", "first"), ("older", "second")] {
        fs::rename(files.path(""), files.root.path().join(away)).unwrap();
        files.write("web.yaml", &text(name, 120));
        watched.holds(&files, &[name]).await;
    }
    // Gone for a while, which is no reason to wait longer when it is there again.
    fs::remove_dir_all(files.path("")).unwrap();
    watched.holds(&files, &[]).await;
    files.write("web.yaml", &text("third", 120));
    watched.holds(&files, &["third"]).await;
    files.write("web.yaml", &text("fourth", 120));
    watched.holds(&files, &["fourth"]).await;
}

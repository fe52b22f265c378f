//! The process itself: a directory as source of desired state, SIGTERM, a socket that was left behind.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::controller::Controller;
use super::programs::{PEERS, missing, until};
use super::site::{FRESH, LIVES, Manifests, Site, web};

/// How long the controller may take to see a change of a file: notify is a hint, and may be missed.
const SEEN_WITHIN: u64 = 40;

async fn is_gone(controller: &Controller, kind: &str, name: &str) {
    until(&format!("{kind}/{name} gone"), Duration::from_secs(SEEN_WITHIN), async || {
        let said = controller.say(&["get", kind, name]).await;
        if said.code == 4 { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
}

async fn says(controller: &Controller, parts: &[&str]) {
    controller.reads("policy", "default", "ManifestsApplied", parts, SEEN_WITHIN).await;
}

async fn watching(site: &mut Site, name: &str, directory: &Path, prune: &[&str]) {
    let path = directory.display().to_string();
    let arguments = [&["--manifests", path.as_str()], prune].concat();
    site.controller.kill().await;
    site.controller = Controller::new(site.dir.path(), name, &arguments);
    site.controller.start().await;
}

/// Side by side: they mostly wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_process_is_a_good_citizen() {
    if missing(&PEERS) {
        return;
    }
    tokio::join!(
        a_directory_is_applied_and_what_is_broken_in_it_changes_nothing(),
        sigterm_ends_it_in_seconds_and_a_socket_left_behind_is_replaced(),
    );
}

async fn a_directory_is_applied_and_what_is_broken_in_it_changes_nothing() {
    let mut site = Site::prepare(&[]).await;
    let directory = site.dir.path().join("manifests");
    fs::create_dir_all(&directory).unwrap();
    let file = |name: &str| directory.join(name);
    let network = |name: &str, vlan: u32| {
        format!("apiVersion: embody.dev/v1alpha1\nkind: Network\nmetadata: {{ name: {name} }}\nspec: {{ vlan: {vlan} }}\n")
    };
    fs::write(file("site.yaml"), site.manifests(&Manifests::default())).unwrap();
    fs::write(file("web.yaml"), web("a")).unwrap();
    fs::write(file("lab.yaml"), network("lab", 200)).unwrap();
    watching(&mut site, "controller", &directory, &[]).await;
    says(&site.controller, &["True Applied"]).await;
    site.controller.ready("web", 40).await;
    site.ports_are(LIVES, FRESH).await;

    // Nothing of a directory with one broken file is applied, not even what is right in it.
    fs::write(file("broken.yaml"), network("broken", 5000)).unwrap();
    fs::write(file("web.yaml"), web("b")).unwrap();
    says(&site.controller, &["False Broken", "broken.yaml:4", "5000"]).await;
    site.stays_silent(3).await;
    let bound = site.controller.object("binding", "web").await;
    assert_eq!(bound.pointer("/spec/target/server").and_then(|s| s.as_str()), Some("a"));
    fs::write(file("web.yaml"), web("a")).unwrap();
    fs::remove_file(file("broken.yaml")).unwrap();
    says(&site.controller, &["True Applied"]).await;

    an_older_checkout_waits(&mut site, &directory, &network).await;

    // Without --prune what is gone stays, and that is told.
    fs::remove_file(file("lab.yaml")).unwrap();
    says(&site.controller, &["True Applied", "1 objects that it created before are no longer in it"]).await;
    site.controller.run(&["get", "network", "lab"]).await;

    // With it: only what the directory created, and no machine hears of it.
    site.controller.apply(&network("by-hand", 300)).await;
    let (changes, sets) = (site.changes(), site.switch.sets());
    fs::remove_file(file("web.yaml")).unwrap();
    // The same store, another start of the controller. The body of `web` is alive, so that a person is asked.
    watching(&mut site, "controller", &directory, &["--prune"]).await;
    says(&site.controller, &["False ApprovalNeeded", "Binding/web is not there any more", "Network/lab deleted"]).await;
    let said = site.controller.run(&["approve", "source/directory"]).await;
    assert!(said.contains("Binding/web deleted") && said.contains("Network/lab deleted"), "{said}");
    is_gone(&site.controller, "network", "lab").await;
    is_gone(&site.controller, "binding", "web").await;
    site.controller.run(&["get", "network", "by-hand"]).await;
    // An empty directory is a mistake rather than a desired state.
    for entry in fs::read_dir(&directory).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    says(&site.controller, &["False Broken", "holds no *.yaml"]).await;
    fs::write(file("nothing.yaml"), "# nothing\n").unwrap();
    says(&site.controller, &["True Applied", "0 objects of 1 files"]).await;
    site.controller.run(&["get", "server", "a"]).await;
    assert_eq!((site.changes(), site.switch.sets()), (changes, sets));
    assert!(site.a.is_on().await);
}

/// What was applied and replaced since is applied again by whoever saw the directory change back, and by nobody else unasked.
async fn an_older_checkout_waits(site: &mut Site, directory: &Path, network: &impl Fn(&str, u32) -> String) {
    let write = |vlan: u32| fs::write(directory.join("lab.yaml"), network("lab", vlan)).unwrap();
    let becomes = async |site: &Site, vlan: u64| {
        until("the lab's VLAN", Duration::from_secs(SEEN_WITHIN), async || {
            let lab = site.controller.object("network", "lab").await;
            if lab.pointer("/spec/vlan").and_then(|v| v.as_u64()) == Some(vlan) { Ok(()) } else { Err(lab.to_string()) }
        })
        .await;
    };
    write(201);
    becomes(site, 201).await;
    write(200);
    becomes(site, 200).await;
    write(202);
    becomes(site, 202).await;
    site.controller.kill().await;
    write(201);
    site.controller.start().await;
    says(&site.controller, &["False ApprovalNeeded", "Network/lab configured", "`embody approve source/directory`"]).await;
    becomes(site, 202).await;
    let said = site.controller.run(&["approve", "source/directory"]).await;
    assert!(said.contains("Network/lab configured"), "{said}");
    becomes(site, 201).await;
    says(&site.controller, &["True Applied"]).await;
    let refused = site.controller.say(&["approve", "source/directory"]).await;
    assert!(refused.code == 5 && refused.err.contains("nothing of a directory waits"), "{refused:?}");
    write(200);
    becomes(site, 200).await;
}

async fn sigterm_ends_it_in_seconds_and_a_socket_left_behind_is_replaced() {
    let mut site = Site::start(&[]).await;
    site.describe().await;
    site.controller.apply(&web("a")).await;
    site.controller.ready("web", 40).await;
    // While somebody watches, as somebody always does.
    let mut watcher = site.controller.watch(&["get", "bindings", "-w"]);
    site.a.process().signal("-STOP").await;
    site.controller.process().signal("-TERM").await;
    let ended = timeout(Duration::from_secs(10), site.controller.process().wait()).await;
    site.a.process().signal("-CONT").await;
    assert!(ended.as_ref().is_ok_and(|status| status.success()), "{ended:?}\n{}", site.controller.log());
    assert!(!site.controller.socket().exists());
    let told = timeout(Duration::from_secs(10), watcher.wait()).await;
    assert!(told.is_ok_and(|status| !status.success()), "who watched is told");

    // The second one of a site is refused, and does no harm to the first.
    site.controller.start().await;
    let mut second = Controller::new(site.dir.path(), "controller", &[]);
    second.spawn();
    let ended = timeout(Duration::from_secs(10), second.process().wait()).await;
    assert!(ended.is_ok_and(|status| status.code() == Some(1)), "{}", second.log());
    site.controller.ready("web", 20).await;

    let before = site.power_of("a");
    site.controller.kill().await;
    assert!(fs::metadata(site.controller.socket()).unwrap().file_type().is_socket(), "kill -9 leaves it");
    site.controller.start().await;
    site.controller.ready("web", 20).await;
    site.stays_silent(3).await;
    assert_eq!(site.power_of("a"), before);
}

//! Machines that run an image: its root over NFS, its identity with it, whichever machine it is on.
//!
//! Leaves out: a whole distribution (`--long`). The image is made here: a busybox, the host's cloud kernel with its modules, and
//! `tests/peers/image-init.sh` as its init.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::lab::{BOOT, QUARANTINE, SERVICE, peer};
use super::machine::Kind;
use super::programs::{missing, until};
use super::site::{ADDRESS, AUTO, RACKS, STORE, Site, is_missing};
use super::story::last_start;
use super::tree::tree;

fn persona(image: &str) -> String {
    persona_as(image, "nfs")
}

fn persona_as(image: &str, delivery: &str) -> String {
    format!(
        "apiVersion: embody.dev/v1alpha1\nkind: Persona\nmetadata: {{ name: p }}\nspec:\n  os: {{ family: linux }}\n  root: {{ image: {{ name: \"{image}\", as: {delivery} }} }}\n  \
         exclusive: true\n  agent: required\n  kernel: {{ cmdline: \"{}\" }}\n  nics: [ {{ name: boot, untagged: boot, boot: true, address: {ADDRESS}/24 }} ]\n  \
         files: [ {{ path: /etc/motd, template: true, content: \"${{hostname}}/${{persona}}/${{address.boot}}\" }} ]\n",
        super::initrd::COMMAND_LINE
    )
}

/// What the page of the guest says of it.
async fn page(site: &Site) -> String {
    let words = || site.machines.iter().map(|m| m.last_words()).collect::<String>();
    until("its page", Duration::from_secs(60), async || match site.page(ADDRESS).await {
        Some(_) => Ok(()),
        None => Err(format!("{}\n{}", site.controller.log(), words())),
    })
    .await;
    site.page(ADDRESS).await.unwrap_or_else(|| panic!("{}", words()))
}

fn word<'a>(page: &'a str, what: &str) -> &'a str {
    page.split_whitespace().find_map(|word| word.strip_prefix(what)).unwrap_or_else(|| panic!("no {what} in {page}"))
}

/// The lines that a guest wrote of its rounds over the whole of its root: begun, ended, the sum.
async fn rounds(site: &Site) -> Vec<(f64, f64, String)> {
    let page = site.file(ADDRESS, "rounds.txt").await.unwrap_or_default();
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [begun, ended, sum] = words.as_slice() else { return None };
        Some((begun.parse().ok()?, ended.parse().ok()?, (*sum).to_owned()))
    };
    page.lines().filter_map(line).collect()
}

#[tokio::test]
async fn an_image_is_one_identity_on_whichever_machine_and_outlives_its_controller() {
    let kinds = [Kind::Bios, Kind::UefiRom];
    if is_missing(&kinds) {
        return;
    }
    let _rack = RACKS.acquire().await;
    let mut site = Site::start(&kinds, AUTO).await;
    let dir = tempfile::TempDir::new().unwrap();
    for release in ["1", "2"] {
        let root = tree(dir.path(), release);
        eprintln!("{}", site.controller.run(&["image", "import", &format!("web:{release}"), root.to_str().unwrap()]).await);
    }
    site.controller.apply(&persona("web:1")).await;
    site.bind("a", "").await;
    let took = site.ready(300).await;
    eprintln!("BIOS: as desired after {:.1} s. {}", took.as_secs_f64(), last_start(&site.why().await));
    let on_a = page(&site).await;
    eprintln!("{on_a}");
    assert_eq!((word(&on_a, "name="), word(&on_a, "version=")), ("web-1", "1"));
    assert_eq!(word(&on_a, "motd="), format!("web-1/p/{ADDRESS}"));
    site.controller.reads("binding", "web", "AgentHeard", &["True"], 60).await;
    site.controller.reads("binding", "web", "RootHasRoom", &["True"], 60).await;
    let files = site.file(ADDRESS, "files.txt").await.unwrap();
    for expected in ["secret-read", "appended", "4755 0 /bin/su-like", "1777 0 /var/tmp", "640 33 /srv/secret", "2000"] {
        assert!(files.contains(expected), "{expected}: {files}");
    }
    let sum = outlives_its_controller(&mut site, &dir.path().join("1")).await;
    // To the other one, and to the next revision and back.
    site.bind("b", "").await;
    let took = site.ready(300).await;
    eprintln!("UEFI: as desired after {:.1} s. {}", took.as_secs_f64(), last_start(&site.why().await));
    let on_b = page(&site).await;
    assert_eq!((word(&on_b, "machine="), word(&on_b, "version=")), (word(&on_a, "machine="), "1"), "{on_b}");
    assert_eq!(word(&on_b, "host-key="), word(&on_a, "host-key="));
    for (restart, release) in [(1, "2"), (2, "1")] {
        site.controller.apply(&persona(&format!("web:{release}"))).await;
        site.bind("b", &format!(", restart: {restart}")).await;
        site.ready(300).await;
        let now = page(&site).await;
        assert_eq!((word(&now, "machine="), word(&now, "version=")), (word(&on_a, "machine="), release), "{now}");
        assert_eq!(word(&now, "host-key="), word(&on_a, "host-key="));
    }
    only_its_own_start_mounts(&site).await;
    only_its_own_start_is_told_who_it_is(&site).await;
    // The same from its memory: with the same identity, and nobody there to serve it.
    site.controller.apply(&persona_as("web:1", "ram")).await;
    site.bind("b", ", restart: 3").await;
    let took = site.ready(300).await;
    eprintln!("in memory: as desired after {:.1} s. {}", took.as_secs_f64(), last_start(&site.why().await));
    site.controller.kill().await;
    let now = page(&site).await;
    assert_eq!((word(&now, "machine="), word(&now, "version=")), (word(&on_a, "machine="), "1"), "{now}");
    let before = rounds(&site).await.len();
    until(
        "rounds",
        Duration::from_secs(60),
        async || if rounds(&site).await.len() >= before + 2 { Ok(()) } else { Err(page(&site).await) },
    )
    .await;
    assert!(rounds(&site).await.iter().all(|(_, _, found)| *found == sum), "{:?}", rounds(&site).await);
}

/// The store stands still for a minute: nobody acts, and what runs reads its root as if nothing was.
#[tokio::test]
async fn a_root_is_served_without_a_store() {
    if is_missing(&[Kind::Bios]) || missing(&["etcd"]) {
        return;
    }
    let _rack = RACKS.acquire().await;
    let site = Site::with(&[Kind::Bios], AUTO, &[BOOT, SERVICE, QUARANTINE], &["--store", STORE]).await;
    let dir = tempfile::TempDir::new().unwrap();
    let root = tree(dir.path(), "1");
    site.controller.run(&["image", "import", "web:1", root.to_str().unwrap()]).await;
    site.controller.apply(&persona("web:1")).await;
    site.bind("a", "").await;
    site.ready(300).await;
    until("rounds", Duration::from_secs(120), async || if rounds(&site).await.len() >= 2 { Ok(()) } else { Err("none yet".to_owned()) })
        .await;
    let before = rounds(&site).await.len();
    let etcd = site.store.unwrap().to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &etcd]).status().unwrap().success());
    signal("-STOP");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let meanwhile = rounds(&site).await;
    signal("-CONT");
    let longest = meanwhile.iter().skip(before).map(|(begun, ended, _)| ended - begun).fold(0.0, f64::max);
    eprintln!("with the store away for a minute: {} rounds over its root, the longest {longest:.1} s", meanwhile.len() - before);
    assert!(meanwhile.len() > before + 3 && meanwhile.iter().all(|(_, _, sum)| *sum == meanwhile[0].2), "{meanwhile:?}");
    // It acts again, and has nothing to do.
    site.controller.ready("web", 120).await;
    until("heard", Duration::from_secs(200), async || match site.controller.condition("binding", "web", "AgentHeard").await {
        heard if heard.contains("True") => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(site.machines[0].serial().matches("init of").count(), 1, "it was not started anew");
}

/// SIGKILL, and started again at once, as systemd does it, while the guest reads all of its root; then five seconds with nobody there.
async fn outlives_its_controller(site: &mut Site, root: &Path) -> String {
    let sum = Command::new("md5sum").arg(root.join("srv/big")).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap().split(' ').next().unwrap().to_owned();
    until("rounds", Duration::from_secs(120), async || if rounds(site).await.len() >= 2 { Ok(()) } else { Err("none yet".to_owned()) })
        .await;
    let mut longest = Vec::new();
    for nobody_for in [0, 5] {
        let before = rounds(site).await.len();
        site.controller.kill().await;
        tokio::time::sleep(Duration::from_secs(nobody_for)).await;
        site.controller.start().await;
        until("more rounds", Duration::from_secs(120), async || match rounds(site).await.len() {
            n if n >= before + 3 => Ok(()),
            n => Err(format!("{n} of {}\n{}", before + 3, site.machines[0].last_words())),
        })
        .await;
        let took = |(begun, ended, _): &(f64, f64, String)| ended - begun;
        longest.push(rounds(site).await.iter().skip(before).map(took).fold(0.0, f64::max));
    }
    let all = rounds(site).await;
    assert!(all.iter().all(|(_, _, found)| *found == sum), "{all:?}");
    let usual = all.first().map_or(0.0, |(begun, ended, _)| ended - begun);
    eprintln!(
        "a round over its root takes {usual:.1} s; with the controller killed {:.1} s, and with nobody for 5 s {:.1} s",
        longest[0], longest[1]
    );
    assert_eq!(site.machines[0].serial().matches("init of").count(), 1, "it was not started anew");
    sum
}

/// The path of an earlier start, and that of the last one from another address, are nobody's.
async fn only_its_own_start_mounts(site: &Site) {
    let serial = site.machines[1].serial();
    let paths: Vec<&str> = serial.split("embody.root=nfs:10.77.0.1:").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
    let (first, last) = (paths.first().unwrap(), paths.last().unwrap());
    assert_ne!(first, last);
    let before = site.why().await;
    for path in [first, last] {
        let url = format!("nfs://10.77.0.1{path}?version=3");
        let said = site.lab.in_services("nfs-ls").arg(&url).output().await.unwrap();
        assert!(!said.status.success(), "{url}: {said:?}");
    }
    until("it is told", Duration::from_secs(30), async || {
        let events = site.controller.run(&["events"]).await;
        let is_told = events.contains("RootRefused") && events.contains("of another start than the last one");
        if is_told { Ok(()) } else { Err(format!("{paths:?}\n{events}")) }
    })
    .await;
    assert_eq!(last_start(&site.why().await).split(", ").count(), last_start(&before).split(", ").count(), "nothing is said of the start");
}

/// With the token of the last start, from another machine; nor with that of an earlier one.
async fn only_its_own_start_is_told_who_it_is(site: &Site) {
    let serial = site.machines[1].serial();
    let targets: Vec<&str> = serial.split("embody.exchange=").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
    for target in [targets.first().unwrap(), targets.last().unwrap()] {
        let mut asks = site.lab.in_services("/usr/bin/python3");
        asks.arg(peer("exchange.py")).args(["10.77.0.1", target, "identity", "{\"secret\": \"00000000000000000000000000000000\"}"]);
        let said = asks.output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout).lines().next(), Some("403"), "{target}: {said:?}");
    }
    until("it is told", Duration::from_secs(30), async || {
        let events = site.controller.run(&["events"]).await;
        let is_told = events.contains("IdentityRefused") && events.contains("not the address that it was given");
        if is_told { Ok(()) } else { Err(format!("{targets:?}\n{events}")) }
    })
    .await;
}

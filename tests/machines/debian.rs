//! A whole Debian 12 with systemd and nginx, made with the command of the README, on machines that `embody` starts (`tests/run --long`).
//!
//! What is seen of it is seen by ssh, with one key that a file of the persona brings, and a host key that has to stay the same whatever machine it is on.
//! Machines have a clock that stands in 2010. Leaves out: other distributions, and hardware that is slow in other ways than emulation is.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::initrd::COMMAND_LINE;
use super::machine::{Kind, changes};
use super::programs::{missing, until};
use super::site::{ADDRESS, RACKS, Site, cache, is_missing};
use super::story::last_start;

/// The README's, with what these tests look through, and a network service that is enabled.
const PACKAGES: &str = "--include=systemd-sysv,dbus,linux-image-cloud-amd64,nginx-light,iproute2,openssh-server";
const HOOKS: [&str; 4] = [
    "chroot \"$1\" systemctl enable systemd-networkd",
    "mkdir \"$1/srv/many\"; cd \"$1/srv/many\"; seq -f entry-%05.0f 0 19999 | xargs touch",
    "echo of www-data > \"$1/srv/secret\"",
    "chown 33:33 \"$1/srv/secret\"; chmod 640 \"$1/srv/secret\"",
];
const DEBIAN: &str = "bookworm";
/// Half of it is for what the system writes; or the image is in it.
const MEMORY_MIB: u32 = 1024;
/// Under TCG, beside others, and on an idle machine still a minute.
const BOOTS_WITHIN: u64 = 300;
/// From the soft-off to its end, as the issue asks.
const OFF_WITHIN_S: f64 = 60.0;
const BOOT: &str = "range: 10.77.0.100-10.77.0.199, dns: [10.77.0.53], domain: rack.example";
/// One sum of the names and contents of all files below `usr`, but for the agent, which no image holds.
const ALL_OF_USR: &str =
    "set -o pipefail; find usr -xdev -type f ! -name embody-agent -print0 | LC_ALL=C sort -z | xargs -0 md5sum | md5sum";

pub fn lacks(kinds: &[Kind]) -> bool {
    is_missing(kinds) || missing(&["mmdebstrap", "ssh", "ssh-keygen"])
}

/// Made once for each version of the command.
fn tar() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (PACKAGES, HOOKS, DEBIAN).hash(&mut hasher);
    let target = cache().join(format!("debian-{:016x}.tar", hasher.finish()));
    if !target.exists() {
        fs::create_dir_all(cache()).unwrap();
        let work = tempfile::tempdir_in(cache()).unwrap();
        let (made, begun) = (work.path().join("made.tar"), Instant::now());
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=minbase", PACKAGES]).args(HOOKS.map(|hook| format!("--customize-hook={hook}")));
        let output = command.arg(DEBIAN).arg(&made).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        let size = fs::metadata(&made).unwrap().len() >> 20;
        eprintln!("mmdebstrap made {size} MiB in {:.0} s", begun.elapsed().as_secs_f64());
        fs::rename(made, &target).unwrap();
    }
    target
}

/// A rack of machines with memory enough and a clock that is wrong, and the image `web:1`.
pub struct Debian {
    pub site: Site,
    dir: TempDir,
}

impl Debian {
    pub async fn start(kinds: &[Kind]) -> Debian {
        let tar = tokio::task::spawn_blocking(tar).await.unwrap();
        let (site, dir) = (Site::start(kinds, BOOT).await, TempDir::new().unwrap());
        for machine in &site.machines {
            machine.refit(MEMORY_MIB, "-rtc base=2010-01-01T00:00:00");
        }
        let key = dir.path().join("key");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
        assert!(made.success());
        let begun = Instant::now();
        let said = site.controller.run(&["image", "import", "web:1", tar.to_str().unwrap()]).await;
        eprintln!("imported after {:.1} s: {said}", begun.elapsed().as_secs_f64());
        let secret = "apiVersion: embody.dev/v1alpha1\nkind: Secret\nmetadata: { name: web }\nstringData: { token: word-of-www-data }\n";
        site.controller.apply(secret).await;
        Debian { site, dir }
    }

    pub fn public_key(&self) -> String {
        fs::read_to_string(self.dir.path().join("key.pub")).unwrap().trim().to_owned()
    }

    /// `more`: of its spec, beside the root.
    fn persona(&self, delivery: &str, more: &str) -> String {
        format!(
            "apiVersion: embody.dev/v1alpha1\nkind: Persona\nmetadata: {{ name: p }}\nspec:\n  os: {{ family: linux }}\n  \
             root: {{ image: {{ name: \"web:1\", as: {delivery} }} }}\n  agent: required\n  kernel: {{ cmdline: \"{COMMAND_LINE}\" }}\n  {more}\n  files:\n    \
             - {{ path: /etc/motd, template: true, content: \"${{hostname}}/${{persona}}/${{address.boot}}\" }}\n    \
             - {{ path: /root/.ssh/authorized_keys, content: \"{}\", mode: \"0600\" }}\n    \
             - {{ path: /etc/web/token, secretRef: {{ name: web, key: token }}, owner: www-data }}\n",
            self.public_key()
        )
    }

    async fn apply_as(&self, delivery: &str) {
        let nic = format!("nics: [ {{ name: boot, untagged: boot, boot: true, address: {ADDRESS}/24 }} ]\n  exclusive: true");
        self.site.controller.apply(&self.persona(delivery, &nic)).await;
    }

    pub async fn bind(&self, name: &str, machine: &str, more: &str) {
        let spec = format!(
            "persona: p, target: {{ server: {machine} }}, correct: enforce, shutdown: {{ grace: 5m }}, boot: {{ deadline: 15m }}, hostname: {name}{more}"
        );
        let text = format!("apiVersion: embody.dev/v1alpha1\nkind: Binding\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n");
        self.site.controller.apply(&text).await;
    }

    /// Until a binding is as desired, with its restarts done.
    pub async fn ready(&self, name: &str, restarted: u64) {
        let begun = Instant::now();
        until(&format!("{name} is Ready"), Duration::from_secs(BOOTS_WITHIN), async || {
            // It waits for what was said last; a condition alone may be of what was said before.
            let said = self.site.controller.say(&["wait", "binding", name, "--timeout", "1s"]).await;
            let done = self.site.controller.object("binding", name).await.pointer("/status/restarted").and_then(serde_json::Value::as_u64);
            if said.code == 0 && done.unwrap_or_default() == restarted {
                return Ok(());
            }
            let words: Vec<String> = self.site.machines.iter().map(|machine| machine.last_words()).collect();
            let why = self.site.controller.run(&["why", name]).await;
            Err(format!("{why}\n{}\n{}", self.site.controller.log(), words.join("\n---\n")))
        })
        .await;
        let why = self.site.controller.run(&["why", name]).await;
        eprintln!("{name}: as desired after {:.1} s. {}", begun.elapsed().as_secs_f64(), last_start(&why));
    }

    /// A command of root there: whether it ended well, and everything it said.
    pub async fn try_ssh(&self, address: &str, script: &str) -> (bool, String) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let mut ssh = self.site.lab.in_services("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15"]);
        // Whoever is at this address first is whom it has to be from then on.
        ssh.args(["-o", "StrictHostKeyChecking=accept-new", "-o", &format!("UserKnownHostsFile={}", at("known"))]);
        ssh.args(["-o", "LogLevel=ERROR", "-i", &at("key"), &format!("root@{address}"), "bash", "-s"]);
        let input = self.dir.path().join(format!("script-{address}"));
        fs::write(&input, script).unwrap();
        let output = ssh.stdin(fs::File::open(&input).unwrap()).kill_on_drop(true).output().await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
    }

    pub async fn ssh(&self, address: &str, script: &str) -> String {
        let (is_well, said) = self.try_ssh(address, script).await;
        assert!(is_well, "{address}: {script}\n{said}\n{}", self.site.machines[0].last_words());
        said
    }

    async fn reads(&self, condition: &str, status: &str) {
        self.site.controller.reads("binding", "web-1", condition, &[status], 90).await;
    }

    /// What makes it what it is, wherever it is.
    async fn identity(&self) -> String {
        self.ssh(ADDRESS, "cat /etc/machine-id; hostname; cat /etc/ssh/ssh_host_ed25519_key.pub; cat /etc/motd; hostname -I").await
    }

    /// Everything that has to be so after each start.
    async fn is_well(&self) {
        assert_eq!(self.ssh(ADDRESS, "systemctl --failed --no-legend --plain").await, "", "units that failed");
        let page = self.site.page(ADDRESS).await;
        assert!(page.as_deref().is_some_and(|page| page.contains("nginx")), "{page:?}");
        for condition in ["UnitsRunning", "AgentHeard", "RootHasRoom"] {
            self.reads(condition, "True").await;
        }
    }

    pub async fn is_off(&self, machine: usize) {
        until("it is off", Duration::from_secs(120), async || match self.site.machines[machine].is_on().await {
            false => Ok(()),
            true => Err(self.site.machines[machine].last_words()),
        })
        .await;
    }

    /// So often at least, each as soon as systems have to.
    pub fn goes_off_softly(&self, times: usize) {
        let offs = self.offs();
        eprintln!("from soft-off to off: {offs:.1?} s");
        assert!(offs.len() >= times && offs.iter().all(|took| *took < OFF_WITHIN_S), "{offs:?}");
    }

    /// Seconds from each soft-off to its end; none was hard.
    fn offs(&self) -> Vec<f64> {
        let (mut asked, mut took) = (BTreeMap::new(), Vec::new());
        for change in changes(&self.site.lab.dir) {
            match change.what.as_str() {
                "shutdown 1" => drop(asked.entry(change.machine).or_insert(change.at)),
                "went off" => took.extend(asked.remove(&change.machine).map(|at| change.at - at)),
                what => assert!(!["power 0", "reset 1"].contains(&what), "a hard off: {change:?}"),
            }
        }
        took
    }

    /// MiB that the controller took at most since it was started.
    fn memory_mib(&mut self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.site.controller.process().id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    }
}

/// The first word that a command says on this host.
fn here(script: &str) -> String {
    let output = Command::new("bash").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// What users and programs do there that a root over the network has failed at before.
async fn can_be_used(debian: &Debian) {
    let says = async |script: &str, expected: &str| {
        let said = debian.ssh(ADDRESS, script).await;
        assert_eq!(said, expected, "{script}");
    };
    says("setpriv --reuid 33 --clear-groups cat /srv/secret /etc/web/token", "of www-data\nword-of-www-data").await;
    says("su www-data -s /bin/sh -c 'id -un; cat /srv/secret'", "www-data\nof www-data").await;
    says("echo more >> /srv/secret && stat -c '%U %a %s' /srv/secret /etc/web/token", "www-data 640 17\nwww-data 600 16").await;
    says("setpriv --reuid 65534 --clear-groups cat /etc/web/token 2>&1; true", "cat: /etc/web/token: Permission denied").await;
    says("ls /srv/many | wc -l", "20000").await;
    let names = here("seq -f entry-%05.0f 0 19999 | md5sum");
    says("LC_ALL=C ls /srv/many | md5sum | cut -d' ' -f1", &names).await;
    says("find /srv/many -type f | wc -l", "20000").await;
    says("cat /etc/motd", &format!("web-1/p/{ADDRESS}")).await;
    says("hostname; hostname -f; getent hosts web-1 | tr -s ' '", "web-1\nweb-1.rack.example\n127.0.1.1 web-1.rack.example web-1").await;
    says("cat /etc/resolv.conf", "search rack.example\nnameserver 10.77.0.53").await;
    says("getent hosts localhost > /dev/null && tail -c 33 /etc/machine-id | wc -c; cat /var/lib/dbus/machine-id /etc/machine-id | uniq | wc -l", "33\n1").await;
    let there: u64 = debian.ssh(ADDRESS, "date +%s").await.parse().unwrap();
    let ours: u64 = here("date +%s").parse().unwrap();
    assert!(ours.abs_diff(there) < 60, "its clock says {there}, ours {ours}");
    // Whatever the network service does, the root is there: read anew, not remembered.
    for deed in ["networkctl reload", "networkctl reconfigure $(ls /sys/class/net | grep -v lo)", "systemctl restart systemd-networkd"] {
        let script = format!(
            "before=$(hostname -I); {deed}; sleep 5; echo 3 > /proc/sys/vm/drop_caches; md5sum /usr/bin/perl > /dev/null || exit 1; \
                              [ \"$before\" = \"$(hostname -I)\" ] && ls /srv/many | wc -l"
        );
        says(&script, "20000").await;
    }
}

/// What it writes is in memory, and it is told before that is full.
async fn tells_when_it_fills(debian: &Debian) {
    let script = "free=$(df --output=size -m / | tail -n 1); dd if=/dev/zero of=/var/fill bs=1M count=$((free * 85 / 100)) status=none; df -m / | tail -n 1";
    eprintln!("filled: {}", debian.ssh(ADDRESS, script).await);
    debian.reads("RootHasRoom", "False").await;
    debian.ssh(ADDRESS, "rm /var/fill").await;
    debian.reads("RootHasRoom", "True").await;
}

/// `count` times off, seen off, and on.
async fn restarts(debian: &Debian, machine: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        debian.bind("web-1", machine, &format!(", restart: {number}")).await;
        debian.ready("web-1", number).await;
    }
}

#[tokio::test]
#[ignore = "half an hour: tests/run --long"]
async fn a_debian_lives_over_nfs_and_in_memory_on_either_machine() {
    let kinds = [Kind::Bios, Kind::UefiRom];
    if lacks(&kinds) {
        return;
    }
    let _racks = RACKS.acquire_many(2).await;
    let mut debian = Debian::start(&kinds).await;
    debian.apply_as("nfs").await;
    debian.bind("web-1", "a", "").await;
    debian.ready("web-1", 0).await;
    let identity = debian.identity().await;
    eprintln!("{identity}\n{}", debian.ssh(ADDRESS, "systemd-analyze | head -n 2; free -m | head -n 2; df -m / | tail -n 1").await);
    debian.is_well().await;
    can_be_used(&debian).await;
    tells_when_it_fills(&debian).await;
    debian.is_well().await;
    restarts(&debian, "a", 1..=4).await;
    assert_eq!(debian.identity().await, identity);
    // To the other one: other firmware, another card.
    debian.bind("web-1", "b", ", restart: 4").await;
    debian.ready("web-1", 4).await;
    assert_eq!(debian.identity().await, identity);
    debian.is_well().await;
    restarts(&debian, "b", 5..=7).await;
    assert_eq!(debian.identity().await, identity);
    eprintln!("the controller took {} MiB at most", debian.memory_mib());
    debian.apply_as("ram").await;
    restarts(&debian, "b", 8..=8).await;
    assert_eq!(debian.identity().await, identity);
    debian.is_well().await;
    lives_alone(&mut debian).await;
    debian.bind("web-1", "b", ", restart: 8, state: Stopped").await;
    debian.is_off(1).await;
    debian.goes_off_softly(10);
}

/// Its root is in its memory: all of it can be read while no controller is there.
async fn lives_alone(debian: &mut Debian) {
    debian.site.controller.kill().await;
    let script = format!(
        "echo 3 > /proc/sys/vm/drop_caches; cd /; {ALL_OF_USR}; systemctl restart nginx; systemctl is-active nginx; findmnt -no FSTYPE /"
    );
    let said = debian.ssh(ADDRESS, &script).await;
    assert!(said.ends_with("active\noverlay"), "{said}");
    assert!(debian.site.page(ADDRESS).await.is_some_and(|page| page.contains("nginx")));
    debian.site.controller.start().await;
    debian.ready("web-1", 8).await;
}

const THREE: [(&str, &str, &str); 3] = [("web-1", "a", "10.77.0.31"), ("web-2", "b", "10.77.0.32"), ("web-3", "c", "10.77.0.33")];

/// Each reads all of its root twice, and nothing of it from its memory.
async fn begins_to_read(debian: &Debian, address: &str) {
    let round = format!(
        "cd /; echo 3 > /proc/sys/vm/drop_caches; begun=$(cut -d. -f1 /proc/uptime); sum=$({ALL_OF_USR}) || sum=failed; \
         echo \"$sum $(($(cut -d. -f1 /proc/uptime) - begun))\""
    );
    let script = format!(
        "cat > /run/round << 'END'\n{round}\nEND\nsystemd-run -q --unit=rounds bash -c '(bash /run/round; bash /run/round) > /run/rounds 2>&1'"
    );
    debian.ssh(address, &script).await;
}

/// The sums, and the seconds that each took.
async fn has_read(debian: &Debian, address: &str) -> Vec<(String, u64)> {
    let mut rounds = Vec::new();
    until("two rounds", Duration::from_secs(300), async || {
        let (_, said) = debian.try_ssh(address, "cat /run/rounds").await;
        let words = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Some((words.first()?.to_string(), words.last()?.parse().ok()?))
        };
        rounds = said.lines().filter_map(words).collect();
        if rounds.len() == 2 { Ok(()) } else { Err(said) }
    })
    .await;
    rounds
}

#[tokio::test]
#[ignore = "ten minutes: tests/run --long"]
async fn three_debians_read_all_of_their_root_while_their_controller_is_killed() {
    let kinds = [Kind::Bios; 3];
    if lacks(&kinds) {
        return;
    }
    let _racks = RACKS.acquire_many(2).await;
    let mut debian = Debian::start(&kinds).await;
    let tree = debian.dir.path().join("tree");
    debian.site.controller.run(&["image", "export", "web:1", tree.to_str().unwrap()]).await;
    let size: u64 = here(&format!("du -sm {}/usr", tree.display())).parse().unwrap();
    let expected = here(&format!("cd {}; {ALL_OF_USR}", tree.display()));
    let nics = "nics: [ { name: boot, untagged: boot, boot: true } ]";
    debian.site.controller.apply(&debian.persona("nfs", nics)).await;
    for (name, machine, address) in THREE {
        debian.bind(name, machine, &format!(", nics: [ {{ name: boot, address: {address}/24 }} ]")).await;
    }
    for (name, ..) in THREE {
        debian.ready(name, 0).await;
    }
    for (.., address) in THREE {
        begins_to_read(&debian, address).await;
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        debian.site.controller.kill().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        debian.site.controller.start().await;
    }
    let (_, so_far) = debian.try_ssh(THREE[0].2, "cat /run/rounds").await;
    assert!(so_far.lines().count() < 2, "they were done before the controller was: {so_far}");
    for (name, _, address) in THREE {
        let rounds = has_read(&debian, address).await;
        let speed: Vec<u64> = rounds.iter().map(|(_, took)| size / took.max(&1)).collect();
        eprintln!("{name}: {size} MiB of files read and summed in {rounds:?} s, {speed:?} MiB/s");
        assert!(rounds.iter().all(|(sum, _)| *sum == expected), "{name}: {rounds:?}, and {expected} was imported");
        let errors = debian.ssh(address, "dmesg | grep -iE 'i/o error|stale|blocked for' ; systemctl --failed --no-legend --plain").await;
        assert_eq!(errors, "", "{name}");
        assert_eq!(debian.ssh(address, "cat /proc/sys/kernel/hostname").await, name);
    }
    for (name, ..) in THREE {
        debian.ready(name, 0).await;
    }
    assert!(debian.offs().is_empty(), "nobody was switched off");
    eprintln!("the controller took {} MiB at most", debian.memory_mib());
}

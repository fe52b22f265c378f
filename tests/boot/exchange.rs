//! Who a system is: told to it over TLS, once, at its own address. The client is Python's.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

use super::programs::until;
use super::site::{AUTO, MACS, Site, is_missing, of};

const ONE: &str = "8f14e45f-ceea-467f-a0e6-000000000001";
const AT: &str = "10.7.0.21";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// An image whose kernel nobody runs, with all that an initrd needs built into it.
pub fn image(dir: &Path) -> PathBuf {
    let root = dir.join("tree");
    for directory in ["boot", "sbin", "etc", "lib/modules/6.1-x"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("boot/vmlinuz-6.1-x"), [b"MZ".as_slice(), &[0; 512], b"HdrS", &[0; 512]].concat()).unwrap();
    fs::write(root.join("sbin/init"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("sbin/init"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let built_in =
        ["fs/overlayfs/overlay", "fs/squashfs/squashfs", "fs/nfs/nfs", "fs/nfs/nfsv3", "drivers/block/loop", "net/packet/af_packet"];
    let built_in: String = built_in.iter().map(|module| format!("kernel/{module}.ko\n")).collect();
    fs::write(root.join("lib/modules/6.1-x/modules.builtin"), built_in).unwrap();
    fs::write(root.join("lib/modules/6.1-x/modules.dep"), "").unwrap();
    root
}

/// The persona of the site, but for its root, with more of its specification.
pub fn persona(more: &str) -> String {
    format!(
        "apiVersion: embody.dev/v1alpha1\nkind: Persona\nmetadata: {{ name: p }}\nspec:\n  os: {{ family: linux }}\n  root: {{ image: {{ name: \"web:1\" }} }}\n  \
         exclusive: true\n  agent: required\n  nics: [ {{ name: boot, untagged: boot, boot: true, address: {AT}/24 }} ]\n{more}"
    )
}

impl Site {
    /// Persona p is one of an image, and stands on s1.
    pub async fn has_image(&self, more: &str) {
        let root = image(self.dir.path());
        self.controller.run(&["image", "import", "web:1", root.to_str().unwrap()]).await;
        self.controller.apply(&persona(more)).await;
        self.has_address(ONE).await;
        self.lan.hosts[1].ip(&format!("addr replace {AT}/32 dev eth0"));
    }

    /// Fetches a script as the machine does, and finds where that start learns who it is.
    pub async fn starts(&self) -> String {
        // Two starts are a second apart.
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        let script = self.script_from(AT, MACS[0], ONE).await;
        script.split("embody.exchange=").nth(1).unwrap_or_else(|| panic!("{script}")).split(' ').next().unwrap().to_owned()
    }

    pub async fn says(&self, from: &str, target: &str, what: &str, body: &Value) -> (u16, String) {
        if !from.contains(':') {
            self.lan.hosts[1].ip(&format!("addr replace {from}/32 dev eth0"));
        }
        let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/exchange.py");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.lan.hosts[1].0, "/usr/bin/python3"]).arg(peer).args([from, target, what, &body.to_string()]);
        let output = command.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (status, body) = text.split_once('\n').unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (status.parse().unwrap(), body.trim().to_owned())
    }

    pub async fn has_event(&self, reason: &str, words: &str) {
        until(reason, std::time::Duration::from_secs(20), async || {
            let events = self.controller.run(&["events"]).await;
            if events.lines().any(|line| line.contains(reason) && line.contains(words)) { Ok(()) } else { Err(events) }
        })
        .await;
    }
}

fn question(secret: &str) -> Value {
    json!({ "secret": secret, "mac": MACS[0], "of": "a newer agent" })
}

#[tokio::test]
async fn a_system_learns_once_who_it_is_and_is_known_from_then_on() {
    if is_missing() {
        return;
    }
    let mut site = Site::start(AUTO).await;
    site.has_image("").await;
    let target = site.starts().await;
    assert!(target.starts_with("https://10.7.0.1:443/run/s1/"), "{target}");
    let ask = async |site: &Site, target: &str, secret: &str| site.says(AT, target, "identity", &question(secret)).await;
    let (status, told) = ask(&site, &target, SECRET).await;
    assert_eq!(status, 200, "{told}");
    let identity: Value = serde_json::from_str(&told).unwrap();
    let script = site.script_from("10.7.0.99", MACS[0], ONE).await;
    assert!(!script.contains("embody.exchange"), "from elsewhere: {script}");
    assert_eq!(identity["hostname"], "web-1");
    let machine_id = identity["machine_id"].as_str().unwrap().to_owned();
    assert_eq!(machine_id.len(), 32);
    let key = |identity: &Value| {
        let files = identity["files"].as_array().unwrap();
        files.iter().find(|file| file["path"] == "/etc/ssh/ssh_host_ed25519_key").unwrap_or_else(|| panic!("{files:?}"))["content"].clone()
    };
    assert!(key(&identity).as_str().unwrap().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
    let now = std::process::Command::new("date").arg("+%s").output().unwrap().stdout;
    let now: u64 = String::from_utf8(now).unwrap().trim().parse().unwrap();
    let age = (identity["time_ms"].as_u64().unwrap() / 1000).abs_diff(now);
    assert!(age < 60, "{age}");

    // Once more, as of an answer that was lost; after a restart of the controller too. Nobody else.
    assert_eq!(ask(&site, &target, SECRET).await.0, 200);
    site.controller.kill().await;
    site.controller.start().await;
    // It is not known yet whose addresses are to give: those that were given are known.
    for _ in 0..5 {
        let path = format!("/boot/{}?arch=x86_64&uuid={ONE}", MACS[0].replace(':', "-"));
        let (_, script) = site.fetch_from("10.7.0.99", "iPXE/1.21.1+", "GET", &path, "").await;
        assert!(!script.contains("embody.exchange"), "from elsewhere, just after a start: {script}");
    }
    site.gives_now().await;
    until("told again", std::time::Duration::from_secs(60), async || match ask(&site, &target, SECRET).await {
        (200, _) => Ok(()),
        (status, why) => Err(format!("{status} {why}")),
    })
    .await;
    let (status, why) = ask(&site, &target, &SECRET.replace('0', "1")).await;
    assert!(status == 403 && why.contains("another system has asked with this token before"), "{status} {why}");
    site.has_event("IdentityRefused", "another system has asked").await;
    let (status, why) = site.says("10.7.0.22", &target, "identity", &question(SECRET)).await;
    assert!(status == 403 && why.contains("not the address that it was given"), "{status} {why}");
    assert_eq!(site.says(AT, &target.replace("/s1/", "/s2/"), "identity", &question(SECRET)).await.0, 410);
    assert_eq!(site.says(AT, &target, "identity", &json!("no")).await.0, 400);

    // Its hello is its own alone, whichever way it comes.
    for (secret, status) in [("", 403), ("11111111111111111111111111111111", 403)] {
        let (said, why) = site.says(AT, &target, "hello", &json!({ "secret": secret })).await;
        assert_eq!(said, status, "{secret}: {why}\n{}\n{}", site.controller.run(&["why", "web"]).await, site.controller.log());
    }
    let run = target.split(",sha256=").next().unwrap().split(":443").nth(1).unwrap();
    assert_eq!(site.fetch_from(AT, "curl", "POST", &format!("{run}/hello"), "{}").await.0, 403);
    site.has_event("HelloRefused", "not of the system that was told").await;
    assert_eq!(site.says(AT, &target, "hello", &json!({ "secret": SECRET, "failed_units": ["a.service"] })).await.0, 204);
    site.controller.ready("web", 20).await;
    still_up(&site, &target).await;

    // The next start is another one with the same identity: once what ran before is not heard any more.
    let next = site.starts().await;
    assert_ne!(next, target);
    until("silence", std::time::Duration::from_secs(100), async || match ask(&site, &next, "ffffffffffffffffffffffffffffffff").await {
        (200, _) => Ok(()),
        (status, why) => Err(format!("{status} {why}")),
    })
    .await;
    assert_eq!(next.split(",sha256=").nth(1), target.split(",sha256=").nth(1));
    assert_eq!(ask(&site, &target, SECRET).await.0, 410);
    let (_, told) = ask(&site, &next, "ffffffffffffffffffffffffffffffff").await;
    let again: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((again["machine_id"].as_str(), key(&again)), (Some(machine_id.as_str()), key(&identity)));
    let other = next.replace(",sha256=", ",sha256=0");
    assert_eq!(site.says(AT, &other, "identity", &question(SECRET)).await.1, "another key");
}

/// It says so again and again; how much it has written is told where that is much.
async fn still_up(site: &Site, target: &str) {
    let (gib, condition) = (1_u64 << 30, async |of: &str| site.controller.condition("binding", "web", of).await);
    let alive = async |secret: &str, written: u64| {
        let said = json!({ "secret": secret, "boot_id": null, "written": written, "written_most": gib });
        site.says(AT, target, "alive", &said).await.0
    };
    assert_eq!(alive("", 0).await, 403);
    assert_eq!(alive(SECRET, gib / 100 * 79).await, 204);
    until("heard", std::time::Duration::from_secs(20), async || match (condition("AgentHeard").await, condition("RootHasRoom").await) {
        (heard, room) if heard.contains("True") && room.contains("True") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(alive(SECRET, gib / 100 * 85).await, 204);
    site.controller.reads("binding", "web", "RootHasRoom", &["False", "80% and more of the 1024 MiB"], 20).await;
    let why = site.controller.run(&["why", "web"]).await;
    assert!(why.contains("Its agent said") && why.contains("of 1024 MiB of memory are taken"), "{why}");
    assert_eq!(alive(SECRET, 0).await, 204);
    site.controller.reads("binding", "web", "RootHasRoom", &["True"], 20).await;
}

/// The token alone is readable by all of the boot network: it says neither hello, nor keeps the machine from being told.
#[tokio::test]
async fn nobody_says_hello_before_the_machine_has_asked() {
    if is_missing() {
        return;
    }
    let site = Site::start(AUTO).await;
    site.has_image("").await;
    let target = site.starts().await;
    let run = target.split(",sha256=").next().unwrap().split(":443").nth(1).unwrap();
    assert_eq!(site.fetch_from(AT, "curl", "POST", &format!("{run}/hello"), "{}").await.0, 403);
    assert_eq!(site.says(AT, &target, "hello", &json!({ "secret": SECRET })).await.0, 403);
    assert_eq!(site.says(AT, &target, "alive", &json!({ "secret": SECRET })).await.0, 403);
    assert_eq!(site.says(AT, &target, "identity", &json!({ "secret": "short", "mac": MACS[0] })).await.0, 403);
    assert_eq!(site.says(AT, &target, "identity", &json!({ "secret": SECRET, "mac": MACS[2] })).await.0, 403);
    let (status, why) = site.says(AT, &target, "identity", &question(SECRET)).await;
    assert_eq!(status, 200, "{why}");
    assert_eq!(site.says(AT, &target, "hello", &json!({ "secret": SECRET })).await.0, 204);
    site.controller.ready("web", 20).await;
}

/// Any program on a machine can ask for the script in its name: as long as the agent there is heard, nobody is told anything by it, and nothing is made of it.
#[tokio::test]
async fn a_script_that_somebody_else_asks_for_is_no_start() {
    if is_missing() {
        return;
    }
    let site = Site::start(AUTO).await;
    site.has_image("").await;
    let target = site.starts().await;
    let alive = json!({ "secret": SECRET, "written": 1, "written_most": 2 });
    assert_eq!(site.says(AT, &target, "identity", &question(SECRET)).await.0, 200);
    assert_eq!(site.says(AT, &target, "hello", &json!({ "secret": SECRET })).await.0, 204);
    site.controller.ready("web", 20).await;
    let forged = site.starts().await;
    let other = "0".repeat(32);
    let (status, why) = site.says(AT, &forged, "identity", &question(&other)).await;
    assert!(status == 503 && why.contains("it may be so still"), "{status} {why}");
    assert_eq!(site.says(AT, &forged, "hello", &json!({ "secret": other })).await.0, 403);
    // The machine says that it is up, with what it alone knows.
    assert_eq!(site.says(AT, &target, "alive", &json!({ "secret": other })).await.0, 410);
    assert_eq!(site.says(AT, &target, "alive", &alive).await.0, 204);
    site.has_event("StartRefuted", "was not started anew").await;
    assert_eq!(site.says(AT, &forged, "identity", &question(&other)).await.0, 410);
    assert_eq!(site.says(AT, &target, "alive", &alive).await.0, 204);
    site.controller.ready("web", 20).await;
    let sent = site.controller.run(&["events"]).await;
    assert!(!sent.contains("soft-off"), "{sent}");
}

/// Machines boot over IPv4: whoever comes by IPv6 is none, although the port is open to both; and whoever sends slowly does not stay.
#[tokio::test]
async fn who_comes_by_ipv6_or_says_nothing_gets_nothing() {
    if is_missing() {
        return;
    }
    let site = Site::with(super::site::Plan { address: "[::]", ..super::site::Plan::default() }).await;
    for (host, address) in [(0, "fd00::1/64"), (1, "fd00::66/64")] {
        site.lan.hosts[host].ip(&format!("-6 addr add {address} dev eth0 nodad"));
    }
    site.has_image("").await;
    let target = site.starts().await;
    let path = format!("/boot/{}?arch=x86_64&uuid={ONE}", MACS[0].replace(':', "-"));
    let (status, script) = site.fetch_from("", "iPXE/1.21.1+", "GET", &format!("http://[fd00::1]:8080{path}"), "").await;
    assert!(status == 200 && !script.contains("embody.exchange") && script.contains("This only shows it"), "{status} {script}");
    let six = target.replace("https://10.7.0.1:443", "https://[fd00::1]:443");
    let (status, why) = site.says("fd00::66", &six, "identity", &question(SECRET)).await;
    assert!(status == 403 && why.contains("machines boot over IPv4"), "{status} {why}");
    let code = "import socket, ssl, sys\n\
                c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE\n\
                s = c.wrap_socket(socket.create_connection(('10.7.0.1', 443), 200))\n\
                s.sendall(b'POST /run/s1/x/identity HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 100\\r\\n\\r\\n{')\n\
                s.settimeout(200)\n\
                try: print('ended', s.recv(1))\n\
                except (ssl.SSLError, ConnectionError) as e: print('ended', e)\n";
    let mut slow = Command::new("ip");
    slow.args(["netns", "exec", &site.lan.hosts[1].0, "/usr/bin/python3", "-c", code]);
    let said = slow.output().await.unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("ended"), "{said:?}");
    assert_eq!(site.says(AT, &target, "identity", &question(SECRET)).await.0, 200);
}

/// Whoever has a machine's address at another port of the switches is not told: the switch is asked at that moment.
#[tokio::test]
async fn who_is_at_another_port_is_told_nothing() {
    if is_missing() {
        return;
    }
    let site = Site::start(AUTO).await;
    site.has_image("").await;
    let target = site.starts().await;
    let all = super::site::manifests(AUTO);
    let s1 = all.split("---\n").find(|object| object.contains("metadata: { name: s1 }")).unwrap();
    // To the controller it is as if the machine was plugged in elsewhere: what is declared is another port than where it is.
    site.controller.apply(&s1.replace("port: Gi1/0/1,", "port: Gi1/0/7,")).await;
    let (status, why) = site.says(AT, &target, "identity", &question(SECRET)).await;
    assert!(status == 403 && why.contains("was learned on port Gi1/0/1 of switch sw0, and not on port Gi1/0/7"), "{status} {why}");
    site.has_event("IdentityRefused", "and not on port Gi1/0/7").await;
    site.controller.apply(s1).await;
    let (status, why) = site.says(AT, &target, "identity", &question(SECRET)).await;
    assert_eq!(status, 200, "{why}");
}

#[tokio::test]
async fn nothing_starts_that_could_not_be_told_who_it_is() {
    if is_missing() {
        return;
    }
    let site = Site::prepared(super::site::Plan::default()).await;
    let _other = site.program(
        0,
        &["/usr/bin/python3", "-c", "import socket,time\ns=socket.create_server(('0.0.0.0',443))\nprint(1,flush=True)\ntime.sleep(600)"],
        "other",
    );
    until("the port in use", std::time::Duration::from_secs(10), async || {
        let said = fs::read_to_string(site.dir.path().join("other")).unwrap_or_default();
        if said.is_empty() { Err(said) } else { Ok(()) }
    })
    .await;
    let mut site = site;
    site.go().await;
    site.has_image("").await;
    site.controller.reads("policy", "default", "IdentitiesServed", &["False", "Address already in use", "--exchange-port"], 20).await;
    let script = site.script_from(AT, MACS[0], ONE).await;
    assert!(script.contains("it could not be told who it is") && !script.contains("kernel --name"), "{script}");
    let steps = site.client(&format!("discover eth0 --mac {} --wait 0.2 --retry 1,1,2", MACS[0])).await;
    assert!(!of(&steps, "offer").is_empty());
}

#[tokio::test]
async fn a_system_is_told_of_its_networks_and_its_files() {
    if is_missing() {
        return;
    }
    let head = "apiVersion: embody.dev/v1alpha1\n";
    let dir = tempfile::TempDir::new().unwrap();
    let keys = dir.path().join("keys.env");
    let more = format!(
        "---\n{head}kind: Network\nmetadata: {{ name: web }}\nspec: {{ vlan: 20, subnet: 10.8.0.0/24, gateway: 10.8.0.1 }}\n\
         ---\n{head}kind: Network\nmetadata: {{ name: backup }}\nspec: {{ vlan: 30, role: storage, subnet: 10.9.0.0/24, gateway: 10.9.0.1, boot: {{ range: 10.9.0.10-10.9.0.20, mtu: 9000 }} }}\n\
         ---\n{head}kind: Secret\nmetadata: {{ name: here }}\nstringData: {{ token: \"of-nobody-else\" }}\n\
         ---\n{head}kind: Secret\nmetadata: {{ name: elsewhere }}\nfrom: {{ file: {} }}\n",
        keys.display()
    );
    let site = Site::with(super::site::Plan { more: &more, ..super::site::Plan::default() }).await;
    let files = "  files:\n    - { path: /etc/issue, template: true, content: \"${hostname} ${persona} ${address.boot} ${address.front} ${machineId} $$\" }\n    \
                 - { path: /etc/token, secretRef: { name: here, key: token }, owner: www-data }\n    \
                 - { path: /root/.ssh/authorized_keys, secretRef: { name: elsewhere, key: ops }, mode: \"0640\" }\n";
    let nics = format!(
        "nics: [ {{ name: boot, untagged: boot, boot: true, address: {AT}/24 }}, {{ name: front, untagged: web, tagged: [backup], address: 10.8.0.5/24 }} ]\n"
    );
    let of = persona(files).replace(&format!("nics: [ {{ name: boot, untagged: boot, boot: true, address: {AT}/24 }} ]\n"), &nics);
    let root = image(site.dir.path());
    site.controller.run(&["image", "import", "web:1", root.to_str().unwrap()]).await;
    site.controller.apply(&of).await;
    site.has_address(ONE).await;
    site.lan.hosts[1].ip(&format!("addr replace {AT}/32 dev eth0"));
    let target = site.starts().await;

    // A file that is not there yet keeps it waiting, and people are told.
    let (status, why) = site.says(AT, &target, "identity", &question(SECRET)).await;
    assert!(status == 503 && why.contains("secret elsewhere") && why.contains("/root/.ssh/authorized_keys"), "{status} {why}");
    let shown = site.controller.run(&["why", "web"]).await;
    assert!(shown.contains("it cannot be told who it is") && shown.contains("No such file"), "{shown}");
    fs::write(&keys, "ops='ssh-ed25519 AAAA ops'\n").unwrap();
    let (status, told) = site.says(AT, &target, "identity", &question(SECRET)).await;
    assert_eq!(status, 200, "{told}");
    let identity: Value = serde_json::from_str(&told).unwrap();
    let machine_id = identity["machine_id"].as_str().unwrap();
    let file = |path: &str| {
        let files = identity["files"].as_array().unwrap();
        files.iter().find(|file| file["path"] == path).unwrap_or_else(|| panic!("{path}: {files:?}")).clone()
    };
    let issue = format!("web-1 p {AT} 10.8.0.5 {machine_id} $");
    assert_eq!((file("/etc/issue")["content"].as_str(), file("/etc/issue")["mode"].as_u64()), (Some(issue.as_str()), Some(0o644)));
    let token = file("/etc/token");
    assert_eq!(
        (token["content"].as_str(), token["mode"].as_u64(), token["owner"].as_str()),
        (Some("of-nobody-else"), Some(0o600), Some("www-data"))
    );
    let keys = file("/root/.ssh/authorized_keys");
    assert_eq!((keys["content"].as_str(), keys["mode"].as_u64()), (Some("ssh-ed25519 AAAA ops"), Some(0o640)));
    let none = json!({ "addresses": [], "dhcp": true, "gateway": null, "metric": 0, "mtu": null, "dns": [], "domain": null });
    let front = json!({ "addresses": ["10.8.0.5/24"], "dhcp": false, "gateway": "10.8.0.1", "metric": 200, "mtu": null, "dns": [], "domain": null });
    let backup = json!({ "addresses": [], "dhcp": true, "gateway": null, "metric": 0, "mtu": 9000, "dns": [], "domain": null });
    let expected = json!([
        { "name": "boot", "macs": [MACS[0]], "bond": false, "boot": true, "untagged": none, "vlans": [] },
        { "name": "front", "macs": [MACS[1]], "bond": false, "boot": false, "untagged": front,
          "vlans": [{ "vlan": 30, "network": "backup", "addressing": backup }] },
    ]);
    assert_eq!(identity["links"], expected, "{:#}", identity["links"]);
    // What a Secret holds is nowhere in the store's record of the body, nor in what people are shown.
    let record = site.controller.run(&["get", "server", "s1", "-o", "yaml"]).await + &site.controller.run(&["events"]).await;
    assert!(!record.contains("of-nobody-else") && !record.contains("AAAA"), "{record}");
    let why = site.controller.run(&["why", "web"]).await;
    assert!(why.contains("nothing in it has said hello yet") && !why.contains("it cannot be told who it is"), "{why}");
    assert_eq!(site.says(AT, &target, "hello", &json!({ "secret": SECRET })).await.0, 204);
    site.controller.apply(&of.replace("$$", "edited")).await;
    until("told of", std::time::Duration::from_secs(20), async || {
        let why = site.controller.run(&["why", "web"]).await;
        if why.contains("raise `restart`") { Ok(()) } else { Err(why) }
    })
    .await;
}

//! Other hosts in the boot network: a DHCP server that was there first, or comes late, and a second controller.

use std::time::Duration;

use super::controller::Controller;
use super::lab::{BOOT, QUARANTINE, SERVICE, inside, peer};
use super::machine::{Kind, changes};
use super::programs::{Process, is_skipped_without, missing, until};
use super::site::{ADDRESS, AUTO, HTTP, RACKS, STORE, Site, is_missing};

/// dnsmasq comes when a machine runs already: from then on it gives the addresses, and `embody` none.
#[tokio::test]
async fn a_dhcp_server_that_comes_late_gives_the_addresses_from_then_on() {
    if is_missing(&[Kind::Bios]) || missing(&["dnsmasq", "tcpdump"]) {
        return;
    }
    let _rack = RACKS.acquire().await;
    let mut site = Site::start(&[Kind::Bios], AUTO).await;
    site.bind("a", "").await;
    site.ready(300).await;
    assert!(site.page(ADDRESS).await.unwrap().contains("web-1"));
    let other = site.lab.neighbour(BOOT.vlan, "10.77.0.2/24").await;
    let leases = site.lab.dir.join("leases");
    let mut dnsmasq = inside(&other, "dnsmasq");
    dnsmasq.args(["--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--interface=boot", "--dhcp-authoritative", "--log-dhcp"]);
    dnsmasq.args(["--dhcp-range=10.77.0.50,10.77.0.60", "--log-facility=-", "--pid-file="]);
    dnsmasq.arg(format!("--dhcp-leasefile={}", leases.display()));
    site.lab.keep(&mut dnsmasq, "dnsmasq");
    let told = ["boot files without addresses, since the DHCP server 10.77.0.2 answers there"];
    site.controller.reads("policy", "default", "DhcpServed", &told, 60).await;
    let capture = site.lab.dir.join("dhcp.pcap");
    let mut tcpdump = site.lab.in_services("tcpdump");
    tcpdump.args(["-i", "boot", "-n", "-U", "-Z", "root", "-w"]).arg(&capture).arg("udp and src port 67 and src host 10.77.0.1");
    let _captures = Process::start(&mut tcpdump, &site.lab.dir.join("tcpdump"));
    site.controller.run(&["restart", "web"]).await;
    until("a lease of dnsmasq", Duration::from_secs(120), async || {
        let text = std::fs::read_to_string(&leases).unwrap_or_default();
        if text.contains("52:54:00:77:00:01") { Ok(()) } else { Err(text) }
    })
    .await;
    let took = site.ready(300).await;
    let text = std::fs::read_to_string(&leases).unwrap();
    let address = text.lines().find(|line| line.contains("52:54:00:77:00:01")).unwrap().split(' ').nth(2).unwrap().to_owned();
    assert!(site.page(&address).await.unwrap().contains("web-1"), "{text}");
    eprintln!("beside dnsmasq, as desired again after {:.1} s, at {address}", took.as_secs_f64());
    let read = site.lab.in_services("tcpdump").args(["-n", "-vv", "-r"]).arg(&capture).output().await.unwrap();
    let packets = String::from_utf8_lossy(&read.stdout).into_owned();
    assert!(packets.contains("10.77.0.1.67 > "), "it told the boot files: {packets}");
    assert!(!packets.contains("Your-IP"), "no address of ours: {packets}");
}

/// The controller that acts is killed while a machine fetches: the other one has the address and the files, and the machine goes on.
#[tokio::test]
async fn another_controller_goes_on_where_a_machine_was_fetching() {
    if is_missing(&[Kind::Bios]) || missing(&["etcd"]) {
        return;
    }
    if std::fs::metadata("/proc/self/ns/net").is_err() {
        is_skipped_without("network namespaces");
        return;
    }
    let _rack = RACKS.acquire().await;
    let arguments = ["--store", STORE, "--boot-vip", "10.77.0.9/24@boot"];
    let mut site = Site::with(&[Kind::Bios], AUTO, &[BOOT, SERVICE, QUARANTINE], &arguments).await;
    let host = site.lab.neighbour(BOOT.vlan, "10.77.0.2/24").await;
    let mut relay = inside(&host, "python3");
    relay.arg(peer("udp_relay.py")).arg(&site.lab.services).args(["1161", "6231"]);
    site.lab.keep(&mut relay, "relay");
    let files = site.lab.dir.join("files").display().to_string();
    let address = format!("0.0.0.0:{HTTP}");
    let all = [&["--boot-address", &address, "--boot-files", &files][..], &arguments].concat();
    let mut second = Controller::new(&site.lab.dir, "second", &all).within(&host);
    second.start().await;
    copies(&site, &second).await;
    // What is behind the archive is nothing: it takes seconds to fetch.
    std::fs::File::create(site.lab.dir.join("files/behind")).unwrap().set_len(48 << 20).unwrap();
    let persona = super::site::persona("p", "vmlinuz").replace("initrd: initrd", "initrds: [ initrd, behind ]");
    site.controller.apply(&format!("apiVersion: embody.dev/v1alpha1\n{persona}")).await;
    site.bind("a", "").await;
    until("a fetch", Duration::from_secs(180), async || {
        let why = site.controller.run(&["why", "web"]).await;
        if why.contains("kernel +") { Ok(()) } else { Err(why) }
    })
    .await;
    site.controller.kill().await;
    let begun = tokio::time::Instant::now();
    second.ready("web", 300).await;
    let why = second.run(&["why", "web"]).await;
    eprintln!("as desired by the other controller after {:.1} s. {}", begun.elapsed().as_secs_f64(), super::story::last_start(&why));
    assert!(site.page(ADDRESS).await.unwrap().contains("web-1"), "{why}");
    // It was switched on once, and nothing else.
    let switched: Vec<_> = changes(&site.lab.dir).into_iter().filter(|change| !change.what.starts_with("boot")).collect();
    assert!(switched.len() == 1 && switched[0].on, "{switched:?}");
    gives_back(&mut site, &mut second).await;
}

/// What was imported where another one acted comes to the one that acts now, as soon as that is there again.
async fn gives_back(site: &mut Site, second: &mut Controller) {
    let root = site.lab.dir.join("image");
    std::fs::write(root.join("etc/motd"), "from the second").unwrap();
    second.run(&["image", "import", "motd:2", root.to_str().unwrap()]).await;
    second.kill().await;
    site.controller.start().await;
    let listed = async |here: &str| {
        let said = site.controller.say(&["image", "ls"]).await;
        let is = said.out.lines().any(|line| line.starts_with("motd:2") && line.contains(here));
        if is { Ok(()) } else { Err(format!("{}{}{}", said.out, said.err, site.controller.log())) }
    };
    until("an image that is elsewhere", Duration::from_secs(60), async || listed("False").await).await;
    second.start().await;
    until("the image", Duration::from_secs(60), async || listed("True").await).await;
    site.controller.run(&["image", "verify", "motd:2"]).await;
}

/// What is imported at the controller that acts is at the other one as well; nobody else is told it.
async fn copies(site: &Site, second: &Controller) {
    let root = site.lab.dir.join("image");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/motd"), "from the first").unwrap();
    site.controller.run(&["image", "import", "motd:1", root.to_str().unwrap()]).await;
    let index = second.dir().join("data/images/index");
    until("the copy", Duration::from_secs(60), async || match std::fs::read_dir(&index).is_ok_and(|all| all.count() == 1) {
        true => Ok(()),
        false => Err(second.log()),
    })
    .await;
    let digest = std::fs::read_dir(&index).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    let url = format!("http://10.77.0.9:{HTTP}/image/{digest}/tree");
    let asked = site.lab.in_services("busybox").args(["wget", "-S", "-O", "/dev/null", &url]).output().await.unwrap();
    assert!(String::from_utf8_lossy(&asked.stderr).contains("403"), "{asked:?}");
    // Nor does anybody else say whether it is there, or give it.
    for method in ["HEAD", "PUT"] {
        let request = format!("{method} /image/{digest}/tree HTTP/1.0\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n");
        let words = format!("printf '{request}' | busybox nc 10.77.0.9 {HTTP}");
        let asked = site.lab.in_services("sh").args(["-c", &words]).output().await.unwrap();
        assert!(String::from_utf8_lossy(&asked.stdout).contains(" 403 "), "{method}: {asked:?}");
    }
}

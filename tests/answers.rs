//! What requests of real firmware are answered, and the scripts that follow: goldens, in octets and in words. `EMBODY_BLESS=1` writes them anew.
//!
//! `tests/golden/boot/*.hex` are payloads of packets that QEMU's firmware and iPXE sent (`README.md` there); beside each is what it is answered.
//! Leaves out: sockets (`tests/boot.rs`).

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;

use dhcproto::v4::Message;
use dhcproto::{Decodable, Decoder};
use embody::testing::boot::answer::{Ask, Verdict, judge};
use embody::testing::boot::dhcp::{Decision, Place, Serves, Why, boot_server, decide};
use embody::testing::boot::script::{self, For, Told};
use embody::testing::boot::view::{BootNetwork, Halt, Lease, Machine, View};
use embody::testing::boot::wire::Packet;
use embody::testing::model::body::Snapshot;
use embody::testing::model::image::Blob;
use embody::testing::model::server::{Arch, Loader};
use embody::testing::model::{Mac, Name};
use serde_json::{Value, json};

const GOLDEN: &str = "tests/golden/boot";
const BASE: &str = "http://10.77.0.1:8080";
const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn golden(file: &str, found: &str) {
    let path = format!("{GOLDEN}/{file}");
    if std::env::var_os("EMBODY_BLESS").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(expected, found, "{path}");
}

fn snapshot(mac: Mac, more: Value) -> Snapshot {
    let mut value = json!({ "persona": "web", "hostname": "web-1", "arch": "x86_64", "boot": "Pxe", "root": { "ram": {} }, "claims": [], "macs": [],
        "kernel": { "path": "boot/vmlinuz", "initrd": "boot/initrd", "cmdline": "quiet" },
        "addresses": { mac.to_string(): "10.77.0.21/24" }, "digest": "0123456789ab" });
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(value).unwrap()
}

fn machine(mac: Mac, more: Value) -> Machine {
    Machine {
        server: name("s1"),
        boots_over: None,
        parked: None,
        standing: Some(Arc::new(snapshot(mac, more))),
        smbios: None,
        run: None,
        loader: Loader::Auto,
    }
}

fn network(boot: Value) -> BootNetwork {
    let boot = serde_json::from_value(boot).unwrap();
    BootNetwork {
        name: name("boot"),
        subnet: "10.77.0.0/24".parse().unwrap(),
        router: Some(Ipv4Addr::new(10, 77, 0, 254)),
        quarantine: false,
        boot,
    }
}

fn view(machines: Vec<(Mac, Machine)>) -> View {
    let boot =
        json!({ "range": "10.77.0.100-10.77.0.199", "dns": ["10.77.0.2"], "ntp": ["10.77.0.3"], "mtu": 9000, "domain": "example.org" });
    let mut view = View::default();
    view.networks = Arc::new(vec![network(boot)]);
    machines.into_iter().for_each(|(mac, machine)| view.insert(mac, machine));
    view
}

fn place(view: &View, serves: Serves) -> Place<'_> {
    Place { network: &view.networks[0], serves, own: OWN, base: BASE, chained: false }
}

fn requests() -> Vec<(String, Vec<u8>)> {
    let mut out: Vec<(String, Vec<u8>)> = fs::read_dir(GOLDEN)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "hex"))
        .map(|path| {
            let text: String = fs::read_to_string(&path).unwrap().split_whitespace().collect();
            let bytes = (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    out.sort();
    out
}

/// An answer, in words that another codec reads out of its octets, and those.
fn shown(packet: &Packet, decision: &Decision) -> String {
    let (word, reply) = match decision {
        Decision::Nothing(why) => return format!("nothing: {why:?}\n"),
        Decision::Declined(address) => return format!("declined {address}\n"),
        Decision::Answer(reply) => ("answer".to_owned(), reply),
        Decision::Lease { address, reply } => (format!("answer, once {address} is stored"), reply),
    };
    let bytes = packet.answer(reply).unwrap();
    let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
    let mut out = format!("{word}\n");
    writeln!(out, "  yiaddr {} siaddr {} giaddr {}", message.yiaddr(), message.siaddr(), message.giaddr()).unwrap();
    writeln!(out, "  file {}", message.fname_str().map_or("-", |file| file.unwrap().trim_end_matches('\0'))).unwrap();
    let mut options: Vec<_> = message.opts().iter().collect();
    options.sort_by_key(|(code, _)| u8::from(**code));
    for (_, option) in options {
        writeln!(out, "  {option:?}").unwrap();
    }
    for line in bytes.chunks(32) {
        writeln!(out, "  {}", line.iter().map(|b| format!("{b:02x}")).collect::<String>()).unwrap();
    }
    out
}

#[test]
fn what_real_firmware_asks_is_answered_so() {
    let all = requests();
    assert!(all.len() >= 19, "{}", all.len());
    for (file, bytes) in all {
        let packet = Packet::parse(&bytes).unwrap();
        // What it asks for is what it was offered by whoever was there when it was captured: here by us.
        let mut out = String::new();
        let known = view(vec![(packet.mac, machine(packet.mac, json!({})))]);
        let strange = view(Vec::new());
        if file.contains("4011") {
            let reply = boot_server(&packet, &place(&known, Serves::Proxy), &known);
            out.push_str(&reply.map_or("nothing\n".to_owned(), |reply| shown(&packet, &Decision::Answer(reply))));
            golden(&format!("{file}.txt"), &out);
            continue;
        }
        for (what, view, serves) in [
            ("known, everything is served", &known, Serves::Full),
            ("known, beside another server", &known, Serves::Proxy),
            ("a stranger", &strange, Serves::Full),
            ("a stranger, where known machines alone are served", &strange, Serves::Reservations),
        ] {
            let packet = Packet {
                server: packet.server.map(|_| OWN),
                requested: packet.requested.map(|_| Ipv4Addr::new(10, 77, 0, 21)),
                ..packet.clone()
            };
            let decision = decide(&packet, &place(view, serves), view, &|_, lease| lease.is_none());
            write!(out, "{what}: {}", shown(&packet, &decision)).unwrap();
        }
        golden(&format!("{file}.txt"), &out);
    }
}

fn request(file: &str) -> Packet {
    let (_, bytes) = requests().into_iter().find(|(name, _)| name == file).unwrap();
    Packet::parse(&bytes).unwrap()
}

#[test]
fn a_boot_file_goes_to_the_boot_nic_alone_and_as_the_server_says() {
    let packet = request("ovmf-pxe-discover");
    let file = |machine: Machine, packet: &Packet, chained: bool| {
        let view = view(vec![(packet.mac, machine)]);
        match decide(packet, &Place { chained, ..place(&view, Serves::Full) }, &view, &|_, _| true) {
            Decision::Answer(reply) => (reply.yiaddr.to_string(), reply.file.unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    };
    let of = |loader: Loader| Machine { loader, ..machine(packet.mac, json!({})) };
    let address = || "10.77.0.21".to_owned();
    let http = request("ovmf-http-discover");
    let rom = request("bios-ipxe-rom-discover");
    let of_http = |loader: Loader| Machine { loader, ..machine(http.mac, json!({})) };
    let of_rom = |loader: Loader| Machine { loader, ..machine(rom.mac, json!({})) };
    assert_eq!(file(of(Loader::Auto), &packet, false), (address(), "snponly.efi".into()));
    assert_eq!(file(of(Loader::Http), &packet, false), (address(), String::new()));
    assert_eq!(file(Machine { boots_over: Some(name("nic2")), ..of(Loader::Auto) }, &packet, false), (address(), String::new()));
    assert_eq!(file(of_http(Loader::Auto), &http, false), (address(), format!("{BASE}/loader/snponly.efi")));
    assert_eq!(file(of_http(Loader::Pxe), &http, false), (address(), String::new()));
    assert_eq!(file(of_rom(Loader::Auto), &rom, false), (address(), format!("{BASE}/boot.ipxe")));
    assert_eq!(file(of_rom(Loader::Chain), &rom, false), (address(), "undionly.kpxe".into()));
    assert_eq!(file(of_rom(Loader::Chain), &rom, true), (address(), format!("{BASE}/boot.ipxe")));
    let arm = Packet { arch: Some(11), ..packet.clone() };
    assert_eq!(file(of(Loader::Auto), &arm, false).1, "snponly-arm64.efi");
    let sparc = Packet { arch: Some(0x99), ..packet.clone() };
    assert_eq!(file(of(Loader::Auto), &sparc, false), (address(), String::new()));
}

#[test]
fn a_fixed_address_is_offered_while_its_answer_stands_and_nobody_gets_anothers() {
    let packet = request("ovmf-pxe-discover");
    let offered = |machine: Option<Machine>, more: &dyn Fn(&mut View)| {
        let mut view = view(machine.into_iter().map(|m| (packet.mac, m)).collect());
        more(&mut view);
        match decide(&packet, &place(&view, Serves::Full), &view, &|_, lease| lease.is_none()) {
            Decision::Answer(reply) => reply.yiaddr,
            other => panic!("{other:?}"),
        }
    };
    let own = Ipv4Addr::new(10, 77, 0, 21);
    let stands = || machine(packet.mac, json!({}));
    assert_eq!(offered(Some(stands()), &|_| ()), own);
    for machine in [
        Machine { standing: None, ..stands() },
        Machine { parked: Some(Halt { why: "declared off".into(), waits: false, told: false }), ..stands() },
    ] {
        assert_ne!(offered(Some(machine), &|_| ()), own);
    }
    assert_ne!(offered(Some(stands()), &|view| view.stop = Some("the store".into())), own);
    assert_ne!(
        offered(Some(stands()), &|view| view.networks = Arc::new(vec![BootNetwork { quarantine: true, ..view.networks[0].clone() }])),
        own
    );
    // Each gets one, and no two the same; the last quarter is for those that manifests name.
    let mut seen = std::collections::BTreeSet::new();
    let mut all = view(Vec::new());
    for n in 0..100_u8 {
        let mac: Mac = format!("52:54:00:00:01:{n:02x}").parse().unwrap();
        if n >= 75 {
            let asks = Packet { mac, ..packet.clone() };
            let refused = decide(&asks, &place(&all, Serves::Full), &all, &|_, lease| lease.is_none());
            assert_eq!(refused, Decision::Nothing(Why::RangeIsFull));
            all.insert(mac, machine(mac, json!({ "addresses": {} })));
        }
        let asks = Packet { mac, ..packet.clone() };
        let Decision::Answer(reply) = decide(&asks, &place(&all, Serves::Full), &all, &|_, lease| lease.is_none()) else { panic!("{n}") };
        assert!(seen.insert(reply.yiaddr) && (100..=199).contains(&reply.yiaddr.octets()[3]), "{}", reply.yiaddr);
        all.insert_lease(reply.yiaddr, Arc::new(Lease { mac, network: name("boot"), since: String::new() }));
    }
    let late = Packet { mac: "52:54:00:00:02:00".parse().unwrap(), ..packet.clone() };
    assert!(matches!(decide(&late, &place(&all, Serves::Full), &all, &|_, lease| lease.is_none()), Decision::Nothing(_)));
}

#[test]
fn scripts_are_these() {
    let mac: Mac = "52:54:00:77:00:01".parse().unwrap();
    let to = For { base: BASE, mac };
    golden("first.ipxe", &script::first(BASE));
    golden("elsewhere.ipxe", &script::elsewhere("52:54:00:77:00:01 asks from elsewhere"));
    golden("parked.ipxe", &script::parked(to, "nothing is to run on ${s1} && `x`\n#"));
    let run = Told {
        run: "http://10.77.0.1:8080/run/s1/TOKEN",
        export: "/DIGEST/s1/EXPORT",
        machine_id: "0123456789abcdef0123456789abcdef",
        exchange: "https://10.77.0.1:443/run/s1/TOKEN,sha256=PIN",
        ram: None,
    };
    let image = json!({ "name": "web:2026.11" });
    let nfs = json!({ "root": { "nfs": { "server": "10.0.20.5", "path": "/personas/web", "mode": "writable" } } });
    let iscsi = json!({ "root": { "iscsi": { "portal": "10.0.20.6", "target": "iqn.2026-01.org.example:web", "lun": 10 } } });
    for (file, more) in [
        ("ram", json!({ "arguments": "console=ttyS1,115200 nomodeset" })),
        ("joined", json!({ "kernel": { "path": "vmlinuz", "initrds": ["/boot/microcode.img", "initrd"] } })),
        ("nfs", nfs),
        ("iscsi", iscsi),
        ("disk", json!({ "root": { "disk": {} } })),
        ("image", json!({ "root": { "image": image, "overlay": { "size": "1Gi" } }, "kernel": { "cmdline": "quiet" }, "image": "DIGEST" })),
        ("image-alone", json!({ "root": { "image": image }, "kernel": null, "image": "DIGEST" })),
        (
            "kernel-of-image",
            json!({ "root": { "nfs": { "server": "10.0.20.5", "path": "/web" } }, "kernel": { "image": "web:1" }, "image": "DIGEST" }),
        ),
        ("url", json!({ "kernel": { "path": "http://10.0.20.5/vmlinuz", "cmdline": "panic=5" } })),
    ] {
        golden(&format!("{file}.ipxe"), &script::start(to, &name("s1"), &snapshot(mac, more), run).unwrap());
    }
    let blob = Blob { sha256: "RAMDIGEST".to_owned(), size: 82_000_000 };
    let in_memory = json!({ "root": { "image": { "name": "web:2026.11", "as": "ram" } }, "kernel": null, "image": "DIGEST" });
    golden("image-ram.ipxe", &script::start(to, &name("s1"), &snapshot(mac, in_memory), Told { ram: Some(&blob), ..run }).unwrap());
    let evil = snapshot(mac, json!({ "hostname": "x\nshell" }));
    assert!(script::start(to, &name("s1"), &evil, run).is_err());
    assert!(script::start(to, &name("s1"), &snapshot(mac, json!({ "kernel": null })), run).is_err());
}

#[test]
fn who_is_not_the_machine_or_not_there_is_parked() {
    let mac: Mac = "52:54:00:77:00:01".parse().unwrap();
    let one = "8f14e45f-ceea-467f-a0e6-000000000001";
    let asks = |uuid: Option<&str>, from: Option<&str>| Ask {
        mac,
        uuid: uuid.map(str::to_owned),
        arch: Arch::X86_64,
        from: from.map(|f| f.parse().unwrap()),
        ours: true,
    };
    let of = |machine: Machine, more: &dyn Fn(&mut View), ask: &Ask| {
        let mut view = view(vec![(mac, machine)]);
        more(&mut view);
        match judge(ask, &view) {
            Verdict::Starts { .. } => "starts".to_owned(),
            Verdict::Parked(parked) => {
                assert!(!parked.by_itself || !parked.waits);
                format!("{} {}", if parked.waits { "waits:" } else { "parked:" }, parked.why)
            }
        }
    };
    let stands = || machine(mac, json!({}));
    let plain = |_: &mut View| ();
    assert_eq!(of(stands(), &plain, &asks(None, None)), "starts");
    assert_eq!(of(Machine { smbios: Some(one.to_uppercase()), ..stands() }, &plain, &asks(Some(one), None)), "starts");
    let other = "8f14e45f-ceea-467f-a0e6-000000000002";
    assert!(
        of(Machine { smbios: Some(one.into()), ..stands() }, &plain, &asks(Some(other), None))
            .starts_with("parked: the machine says it is")
    );
    // A board that was given none shows zeros: that is nobody.
    assert_eq!(
        of(Machine { smbios: Some(one.into()), ..stands() }, &plain, &asks(Some("00000000-0000-0000-0000-000000000000"), None)),
        "starts"
    );
    assert!(of(stands(), &|view| view.uuids.insert_mut(one.into(), name("s2")), &asks(Some(one), None)).contains("was started on s2"));
    let quarantine = |view: &mut View| view.networks = Arc::new(vec![BootNetwork { quarantine: true, ..view.networks[0].clone() }]);
    let of_quarantine = of(stands(), &quarantine, &asks(None, Some("10.77.0.150")));
    assert!(of_quarantine.starts_with("parked:") && of_quarantine.contains("role quarantine"), "{of_quarantine}");
    // What cannot start it says nothing of what the server runs.
    let over_another = of(Machine { boots_over: Some(name("nic2")), ..stands() }, &plain, &asks(None, None));
    assert!(over_another.starts_with("parked:") && over_another.contains("boots over its NIC nic2"), "{over_another}");
    let nothing = || Machine { standing: None, ..stands() };
    // Anybody can say so much: it waits where it asks from the address that it was given.
    assert_eq!(of(nothing(), &plain, &asks(None, None)), "parked: nothing is to run on s1");
    assert_eq!(of(nothing(), &plain, &asks(None, Some("10.77.0.150"))), "parked: nothing is to run on s1");
    let has = |whose: &'static str| {
        move |view: &mut View| {
            let of = Lease {
                mac: if whose == "s1" { mac } else { "52:54:00:77:00:02".parse().unwrap() },
                network: name("boot"),
                since: String::new(),
            };
            view.insert("52:54:00:77:00:02".parse().unwrap(), Machine { server: name("s2"), ..nothing() });
            view.insert_lease("10.77.0.150".parse().unwrap(), Arc::new(of));
        }
    };
    let from = asks(None, Some("10.77.0.150"));
    assert_eq!(of(nothing(), &has("s1"), &from), "waits: nothing is to run on s1");
    assert_eq!(of(nothing(), &has("s2"), &from), "parked: nothing is to run on s1");
    let in_quarantine = |view: &mut View| {
        has("s1")(view);
        quarantine(view);
    };
    assert!(of(stands(), &in_quarantine, &from).starts_with("waits: boot is the network of role quarantine"));
    // And what starts it is asked for from there: from another address of the network, or from outside of all of them, anybody may ask.
    assert_eq!(of(stands(), &has("s1"), &from), "starts");
    for elsewhere in ["10.77.0.151", "192.0.2.7"] {
        let told = of(stands(), &has("s1"), &asks(None, Some(elsewhere)));
        assert_eq!(told, format!("parked: 52:54:00:77:00:01 asks from {elsewhere}, which is not the address that it was given"));
    }
    // Its own address is of a network over which nothing boots: where it asks from says nothing.
    let other_network = machine(mac, json!({ "addresses": { "52:54:00:77:00:01": "10.88.0.21/24" } }));
    assert_eq!(of(other_network, &plain, &asks(None, Some("192.0.2.7"))), "starts");
    // Where somebody else gives addresses, none is known, whatever was given before.
    assert_eq!(of(stands(), &has("s1"), &Ask { ours: false, ..asks(None, Some("10.77.0.151")) }), "starts");
    assert_eq!(of(nothing(), &has("s1"), &Ask { ours: false, ..from.clone() }), "parked: nothing is to run on s1");
    let unfixed = machine(mac, json!({ "addresses": {} }));
    assert_eq!(of(unfixed, &has("s2"), &asks(None, Some("10.77.0.151"))), "starts");
    // What stands has an address of its own; until it asks for that it has the one that it waited with.
    let fixed = || machine(mac, json!({ "addresses": { "52:54:00:77:00:01": "10.77.0.21/24" } }));
    assert_eq!(of(fixed(), &has("s1"), &from), "starts");
    assert_eq!(of(fixed(), &plain, &asks(None, Some("10.77.0.21"))), "starts");
    assert!(of(fixed(), &plain, &asks(None, Some("10.77.0.22"))).starts_with("parked:"));
    let arm = Ask { arch: Arch::Aarch64, ..asks(None, None) };
    assert!(of(stands(), &plain, &arm).contains("is for x86_64, the machine says aarch64"));
}

//! Generalising: each step does what it says to what it means, and nothing else; switched off, nothing.

use embody::testing::image::digest::Digest;
use embody::testing::image::export::export_dir;
use embody::testing::image::generalise::{STEPS, Steps};
use embody::testing::image::index::Node;
use embody::testing::image::store::Objects;
use embody::testing::image::{Imported, Options, import};

use super::bench::Bench;

const TREE: &str = r#"
mkdir -p tree; cd tree
put() { mkdir -p "$(dirname "$1")"; printf "${2:-x\n}" > "$1"; }
put usr/lib/systemd/systemd; put etc/machine-id 'abc\n'; put var/lib/dbus/machine-id 'abc\n'
put etc/ssh/ssh_host_ed25519_key secret; put etc/ssh/ssh_host_ed25519_key.pub; put etc/ssh/sshd_config; put etc/hostname host
put etc/fstab '# a comment /\nUUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n/dev/sda1\t/boot/efi/ vfat\ttype 0 0\nUUID=3 /srv ext4 nofail 0 2\nlast / x'
put etc/udev/rules.d/70-persistent-net.rules; put etc/udev/rules.d/60-other.rules
put etc/systemd/network/10-mac.link '[Match]\n PermanentMACAddress = 52:54:00:00:00:01\n'; put etc/systemd/network/10-path.link '[Match]\nPath=pci-*\n#MACAddress=\n'
put etc/netplan/50-cloud-init.yaml 'network:\n  ethernets:\n    e:\n      match:\n        macaddress: "52:54:00:00:00:01"\n'; put etc/netplan/10-all.yaml 'network:\n  ethernets:\n    all:\n      match: {name: "en*"}\n'
put etc/NetworkManager/system-connections/a.nmconnection '[ethernet]\nmac-address=52:54:00:00:00:01\n'; put etc/NetworkManager/system-connections/b.nmconnection '[ethernet]\nmac-address-blacklist=x\n'
put etc/sysconfig/network-scripts/ifcfg-eth0 'HWADDR="52:54:00:00:00:01"\n'; put etc/sysconfig/network-scripts/ifcfg-lo 'DEVICE=lo\n'
put var/lib/systemd/random-seed; put etc/resolv.conf 'nameserver 10.0.0.1\n'
put var/lib/dhcp/dhclient.eth0.leases; put var/lib/NetworkManager/internal-x.lease; put var/lib/NetworkManager/secret_key; put var/lib/NetworkManager/NetworkManager.state
put var/lib/cloud/instances/i-1/obj.pkl; put var/lib/cloud/seed/nocloud/meta-data; ln -s instances/i-1 var/lib/cloud/instance
put etc/iscsi/initiatorname.iscsi; put etc/iscsi/iscsid.conf; put etc/iscsi/nodes/iqn.x/default; put etc/nvme/hostid; put etc/nvme/hostnqn
put etc/initramfs-tools/conf.d/resume 'RESUME=UUID=2\n'; put etc/crypttab 'root UUID=9 none luks\n# kept\n'
cd ..
"#;

fn generalised(bench: &Bench, steps: Steps) -> (Imported, String, Objects) {
    let objects = Objects::at(bench.path("store")).unwrap();
    let imported = import(&bench.tree("tree"), &Options { steps, ..Options::default() }, &objects).unwrap();
    let text = String::from_utf8(objects.index(&imported.digest).unwrap().format()).unwrap();
    (imported, text, objects)
}

fn changes(imported: &Imported, step: &str) -> Vec<String> {
    imported.generalised.iter().find(|report| report.name == step).unwrap().changes.clone()
}

#[test]
fn each_step_does_what_it_says_and_tells_it() {
    let bench = Bench::new();
    bench.sh(TREE);
    let (imported, index, objects) = generalised(&bench, Steps::default());
    let removed = |paths: &[&str]| paths.iter().map(|path| format!("{path} removed")).collect::<Vec<_>>();
    assert_eq!(changes(&imported, "machine-id"), ["/etc/machine-id emptied", "/var/lib/dbus/machine-id removed"]);
    assert_eq!(changes(&imported, "ssh-host-keys"), removed(&["/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub"]));
    assert_eq!(changes(&imported, "hostname"), removed(&["/etc/hostname"]));
    assert_eq!(changes(&imported, "fstab"), ["/etc/fstab without UUID=1 /, UUID=2 none, /dev/sda1 /boot/efi/, last /"]);
    let nics = [
        "/etc/udev/rules.d/70-persistent-net.rules",
        "/etc/systemd/network/10-mac.link",
        "/etc/netplan/50-cloud-init.yaml",
        "/etc/NetworkManager/system-connections/a.nmconnection",
        "/etc/sysconfig/network-scripts/ifcfg-eth0",
    ];
    assert_eq!(changes(&imported, "nic-names"), removed(&nics));
    assert_eq!(changes(&imported, "random-seed"), removed(&["/var/lib/systemd/random-seed"]));
    assert_eq!(changes(&imported, "resolv"), removed(&["/etc/resolv.conf"]));
    let leases = ["/var/lib/dhcp/dhclient.eth0.leases", "/var/lib/NetworkManager/internal-x.lease", "/var/lib/NetworkManager/secret_key"];
    assert_eq!(changes(&imported, "dhcp-leases"), removed(&leases));
    assert_eq!(changes(&imported, "cloud-init"), removed(&["/var/lib/cloud/instance", "/var/lib/cloud/instances"]));
    let ids = ["/etc/iscsi/initiatorname.iscsi", "/etc/nvme/hostnqn", "/etc/nvme/hostid", "/etc/iscsi/nodes/iqn.x"];
    assert_eq!(changes(&imported, "storage-ids"), removed(&ids));
    assert_eq!(changes(&imported, "disks"), ["/etc/initramfs-tools/conf.d/resume removed", "/etc/crypttab without root UUID=9"]);
    for kept in [
        "sshd_config",
        "60-other.rules",
        "10-path.link",
        "10-all.yaml",
        "b.nmconnection",
        "ifcfg-lo",
        "NetworkManager.state",
        "meta-data",
        "iscsid.conf",
    ] {
        assert!(index.contains(kept), "{kept}");
    }
    // The new contents are there, and the secret ones are not in the store.
    let read = |path: &[u8]| {
        let index = objects.index(&imported.digest).unwrap();
        let Node::File { size, digest } = index.attributes(index.find(path).unwrap()).unwrap().node else { panic!() };
        String::from_utf8(objects.read(&digest, size, 1 << 20).unwrap()).unwrap()
    };
    let fstab = "# a comment /\n# taken out for network boot: UUID=1 / ext4 defaults 0 1\n# taken out for network boot: UUID=2 none swap sw 0 0\n\
                 # taken out for network boot: /dev/sda1\t/boot/efi/ vfat\ttype 0 0\nUUID=3 /srv ext4 nofail 0 2\n# taken out for network boot: last / x";
    assert_eq!(read(b"/etc/fstab"), fstab);
    assert_eq!(read(b"/etc/crypttab"), "# taken out for network boot: root UUID=9 none luks\n# kept\n");
    assert!(!objects.has(&Digest::of(b"secret"), 6));
    assert_eq!(objects.verify(&imported.digest).unwrap().damaged, []);
}

#[test]
fn a_generalised_image_is_not_changed_again() {
    let bench = Bench::new();
    bench.sh(TREE);
    let (first, _, objects) = generalised(&bench, Steps::default());
    export_dir(&objects.index(&first.digest).unwrap(), &first.digest, &objects, &bench.path("out")).unwrap();
    let again = import(&bench.tree("out"), &Options::default(), &objects).unwrap();
    assert!(again.generalised.iter().all(|report| report.changes.is_empty()), "{:#?}", again.generalised);
    assert_eq!(again.digest, first.digest);
}

#[test]
fn steps_are_switched_off_by_name() {
    let bench = Bench::new();
    bench.sh(TREE);
    let (imported, index, _) = generalised(&bench, Steps::without(["hostname", "fstab"]).unwrap());
    assert!(index.contains("/etc/hostname\n") && !index.contains("ssh_host_"));
    let off: Vec<_> = imported.generalised.iter().filter(|report| !report.ran).map(|report| report.name).collect();
    assert_eq!(off, ["hostname", "fstab"]);
    let (_, index, _) = generalised(&bench, Steps::none());
    assert_eq!(index.lines().count(), bench.sh("find tree").lines().count() + 1);
    let error = Steps::without(["hostnam"]).unwrap_err().to_string();
    assert!(error.contains("\"hostnam\"") && STEPS.iter().all(|step| error.contains(step.name)), "{error}");
}

#[test]
fn symlinks_are_not_written_through() {
    let bench = Bench::new();
    bench.sh("mkdir -p tree/etc tree/usr/lib/systemd tree/var/lib/dbus tree/data; cd tree; echo x > usr/lib/systemd/systemd; echo id > data/id; \
              ln -s ../data/id etc/machine-id; ln -s /etc/machine-id var/lib/dbus/machine-id; ln -s ../run/resolv.conf etc/resolv.conf; ln data/id etc/hostname");
    let (imported, index, _) = generalised(&bench, Steps::default());
    assert_eq!(changes(&imported, "machine-id"), ["/etc/machine-id emptied"]);
    assert!(changes(&imported, "resolv").is_empty());
    assert!(
        index.contains("/data/id\n") && index.contains("/var/lib/dbus/machine-id\n") && index.contains("f 444 0 0 0 0 e3b0"),
        "{index}"
    );
    bench.sh("rm tree/etc/machine-id");
    let (imported, _, _) = generalised(&bench, Steps::default());
    assert_eq!(
        changes(&imported, "machine-id"),
        ["/etc/machine-id made, empty"],
        "without one systemd would take each start for the first"
    );
}

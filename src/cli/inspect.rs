//! `embody inspect`: what a driver sees of one device, with no manifest and no controller. Leaves out: writing anything.
//!
//! Invariant: secrets come from files (a community from the command line, where SNMPv2c shows it to the network anyway), and none is
//! printed. The JSON shapes are part of the interface. Shown by the tests below and `tests/cli.rs`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::failure::Failure;
use super::output::{self, clean, print, table};
use crate::drivers::bmc::ipmi::{BmcSocket, IpmiDriver, IpmiSettings};
use crate::drivers::switch::snmp::{SnmpSocket, Timing, UdpAgent};
use crate::drivers::switch::{SwitchDriver, SwitchSettings, to_json};
use crate::drivers::{Depth, Driver, Fault, Observation};
use crate::model::fact::{BmcSeen, Lag, PortSeen, Quality, SwitchSeen};
use crate::model::secret::{AuthProtocol, BmcLogin, Hidden, PrivProtocol, SnmpLogin};
use crate::model::{HostPort, Kind};
use crate::server::api::columns::NOTHING;
use crate::server::api::fault::chain;

#[derive(Subcommand)]
pub(crate) enum InspectVerb {
    /// A switch, by SNMP
    Switch(SwitchArgs),
    /// A server's BMC, by IPMI
    Bmc(BmcArgs),
    /// The lines that a DHCP server of your own needs for machines to boot by embody
    Dhcp(super::inspect_dhcp::DhcpArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    /// Objects to start from
    Manifest,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("login").required(true).args(["community", "user"])))]
pub(crate) struct SwitchArgs {
    /// Its address; UDP port 161 if none is named
    #[arg(value_name = "HOST[:PORT]")]
    address: HostPort,
    /// The SNMPv2c community
    #[arg(long)]
    community: Option<String>,
    /// The SNMPv3 user
    #[arg(long, requires_all = ["auth", "auth_password_file"])]
    user: Option<String>,
    /// MD5, SHA, SHA-224, SHA-256, SHA-384 or SHA-512
    #[arg(long, value_name = "PROTO", requires = "user")]
    auth: Option<AuthProtocol>,
    /// A file with the authentication password
    #[arg(long, value_name = "FILE", requires = "user")]
    auth_password_file: Option<PathBuf>,
    /// DES, AES or AES-256
    #[arg(long = "priv", value_name = "PROTO", requires = "user")]
    privacy: Option<PrivProtocol>,
    /// A file with the privacy password
    #[arg(long, value_name = "FILE", requires = "user")]
    priv_password_file: Option<PathBuf>,
    /// Without --priv: all that is asked and told can be read on the way
    #[arg(long, requires = "user", conflicts_with_all = ["privacy", "priv_password_file"])]
    insecure: bool,
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Args)]
pub(crate) struct BmcArgs {
    /// Its address; UDP port 623 if none is named
    #[arg(value_name = "HOST[:PORT]")]
    address: HostPort,
    /// The user
    #[arg(long)]
    user: String,
    /// A file with the password
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

pub(crate) async fn run(verb: InspectVerb) -> Result<(), Failure> {
    let text = match verb {
        InspectVerb::Switch(args) => {
            let login = args.login()?;
            let v3 = matches!(login, SnmpLogin::V3 { .. });
            let encrypted = v3 && !args.insecure;
            let seen = look_at_switch(&args.address, login).await.map_err(|f| fault(&f))?;
            match args.output {
                Format::Table => switch_table(&seen),
                Format::Json => output::json(&to_json(&seen)),
                Format::Manifest => switch_manifest(&args.address, &seen, v3, encrypted),
            }
        }
        InspectVerb::Bmc(args) => {
            let login = BmcLogin { username: args.user.clone(), password: password(&args.password_file)?, kg: None };
            let seen = look_at_bmc(&args.address, login).await.map_err(|f| fault(&f))?;
            match args.output {
                Format::Table => bmc_table(&seen),
                Format::Json => output::json(&bmc_json(&seen)),
                Format::Manifest => bmc_manifest(&args.address),
            }
        }
        InspectVerb::Dhcp(args) => super::inspect_dhcp::lines(&args)?,
    };
    Ok(print(&text)?)
}

fn fault(fault: &Fault) -> Failure {
    Failure::failed(clean(&chain(fault)))
}

/// How long a look at a switch may take: a large forwarding table, over a slow agent.
const SWITCH_PATIENCE: Duration = Duration::from_secs(120);

async fn look_at_switch(address: &HostPort, login: SnmpLogin) -> Result<SwitchSeen, Fault> {
    let device = address.to_string();
    let socket = SnmpSocket::bind().map_err(|source| Fault::Network { device: device.clone(), source })?;
    let agent = UdpAgent::new(device.clone(), socket, address.clone(), login, Timing::default());
    let mut driver = SwitchDriver::new(device.clone(), Box::new(agent), SwitchSettings { read_only: true, ..SwitchSettings::default() });
    match driver.observe(Depth::Everything, Instant::now() + SWITCH_PATIENCE).await? {
        Observation::Switch(seen) => Ok(SwitchSeen::clone(&seen)),
        Observation::Bmc(_) => Err(Fault::Garbled { device, why: "it is not a switch".to_owned() }),
    }
}

/// How long a person waits for a look at a BMC.
const BMC_PATIENCE: Duration = Duration::from_secs(15);

async fn look_at_bmc(address: &HostPort, login: BmcLogin) -> Result<BmcSeen, Fault> {
    let device = address.to_string();
    let socket = BmcSocket::bind().await.map_err(|source| Fault::Network { device: device.clone(), source })?;
    let mut driver = IpmiDriver::new(device.clone(), socket, address.clone(), login, IpmiSettings::default(), None);
    let seen = driver.observe(Depth::Everything, Instant::now() + BMC_PATIENCE).await;
    driver.close().await;
    match seen? {
        Observation::Bmc(seen) => Ok(seen),
        Observation::Switch(_) => Err(Fault::Garbled { device, why: "it is not a BMC".to_owned() }),
    }
}

impl SwitchArgs {
    fn login(&self) -> Result<SnmpLogin, Failure> {
        if let Some(community) = &self.community {
            return Ok(SnmpLogin::V2c { community: Hidden::new(community.clone()) });
        }
        let needs =
            "SNMPv3 needs --user, --auth, --auth-password-file, --priv and --priv-password-file (or --insecure in place of the last two)";
        let (Some(username), Some(auth), Some(auth_file)) = (&self.user, self.auth, &self.auth_password_file) else {
            return Err(Failure::usage(needs));
        };
        let (privacy, priv_password) = match (self.privacy, &self.priv_password_file) {
            (Some(privacy), Some(file)) => (privacy, password(file)?),
            (None, None) if self.insecure => (PrivProtocol::None, Hidden::new(String::new())),
            (_, _) => return Err(Failure::usage(needs)),
        };
        let auth_password = password(auth_file)?;
        Ok(SnmpLogin::V3 { username: username.clone(), auth, auth_password, privacy, priv_password })
    }
}

/// The first line of a file. No password of IPMI (20 bytes) or USM is longer than a kilobyte.
fn password(file: &Path) -> Result<Hidden, Failure> {
    const MOST: u64 = 1024;
    let name = file.display();
    let open = std::fs::File::open(file).map_err(|e| Failure::failed(format!("cannot open the password file {name}: {e}")))?;
    let mut text = String::new();
    open.take(MOST).read_to_string(&mut text).map_err(|e| Failure::failed(format!("cannot read the password file {name}: {e}")))?;
    let first = text.lines().next().unwrap_or("").to_owned();
    zeroize::Zeroize::zeroize(&mut text);
    if first.is_empty() { Err(Failure::failed(format!("the password file {name} is empty"))) } else { Ok(Hidden::new(first)) }
}

fn quality(quality: &Quality) -> String {
    match quality {
        Quality::Exact => "Exact".to_owned(),
        Quality::Inconsistent(how) => format!("Inconsistent: {how}"),
        Quality::Unknown(what) => format!("Unknown: {what}"),
    }
}

/// In the order of ifIndex.
fn ordered(seen: &SwitchSeen) -> Vec<(&String, &PortSeen)> {
    let mut ports: Vec<_> = seen.ports.iter().collect();
    ports.sort_by_key(|(_, p)| p.if_index);
    ports
}

pub(crate) fn switch_table(seen: &SwitchSeen) -> String {
    let w = seen.writable;
    let can = [("admin", w.admin), ("access", w.access), ("trunk", w.trunk), ("create VLANs", w.vlan_create), ("save", w.save)];
    let can: Vec<&str> = can.into_iter().filter(|(_, yes)| *yes).map(|(name, _)| name).collect();
    let can = if can.is_empty() { "nothing".to_owned() } else { can.join(", ") };
    let mut out = String::new();
    let vlans = seen.vlans.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    for (head, value) in [
        ("System", &seen.identity.sys_name),
        ("Description", &seen.identity.sys_descr),
        ("sysObjectID", &seen.identity.sys_object_id),
        ("Profile", &seen.profile.to_owned()),
        ("Writable", &can),
        ("VLANs", &vlans),
    ] {
        out.push_str(&format!("{:<14}{}\n", format!("{head}:"), clean(value)));
    }
    for note in &seen.notes {
        out.push_str(&format!("{:<14}{}\n", "Note:", clean(note)));
    }
    let row = |(name, p): (&String, &PortSeen)| {
        let neighbour = p.neighbour.as_ref().map(|n| format!("{} {}", n.system.as_deref().unwrap_or(&n.chassis), n.port));
        let lag = match &p.lag {
            Lag::None => None,
            Lag::Member(of) => Some(format!("member of {}", of.as_deref().unwrap_or("an aggregation"))),
            Lag::Aggregate => Some("aggregation".to_owned()),
            Lag::NotTold(_) => Some("perhaps member of an aggregation".to_owned()),
        };
        let note = [lag, Some(quality(&p.quality)).filter(|q| q != "Exact")].into_iter().flatten().collect::<Vec<_>>().join("; ");
        let or_nothing = |s: Option<String>| s.filter(|s| !s.is_empty()).unwrap_or_else(|| NOTHING.to_owned());
        let mut vlan = p.config.clone();
        vlan.admin = crate::model::fact::Admin::Up;
        let macs = if p.macs.is_empty() { NOTHING.to_owned() } else { p.macs.len().to_string() };
        vec![
            name.clone(),
            format!("{:?}", p.config.admin),
            format!("{:?}", p.oper),
            format!("{:?}", p.mode),
            vlan.to_string(),
            macs,
            or_nothing(neighbour),
            or_nothing(Some(note)),
        ]
    };
    let rows: Vec<Vec<String>> = ordered(seen).into_iter().map(row).collect();
    out.push('\n');
    out.push_str(&table(&["PORT", "ADMIN", "LINK", "MODE", "VLAN", "MACS", "NEIGHBOUR", "NOTE"], &rows));
    out
}

pub(crate) fn bmc_json(seen: &BmcSeen) -> Value {
    let boot = seen.boot.map(|b| json!({ "valid": b.valid, "persistent": b.persistent, "efi": b.efi, "device": b.device.to_string() }));
    json!({
        "manufacturerId": seen.identity.manufacturer_id, "productId": seen.identity.product_id, "firmware": seen.identity.firmware,
        "ipmiVersion": seen.identity.ipmi_version, "guid": guid(seen), "suite": seen.suite, "power": seen.power.to_string(),
        "bootOverride": boot,
    })
}

/// As the handshake told it, which every BMC does: it is known by that.
fn guid(seen: &BmcSeen) -> Option<String> {
    seen.shown.guid.clone().or_else(|| seen.identity.guid.clone())
}

pub(crate) fn bmc_table(seen: &BmcSeen) -> String {
    let boot = seen.boot.map_or_else(
        || "not told".to_owned(),
        |b| {
            let flags = [(b.persistent, "persistent"), (b.efi, "EFI"), (!b.valid, "not valid")];
            let flags: Vec<&str> = flags.into_iter().filter(|(yes, _)| *yes).map(|(_, word)| word).collect();
            if flags.is_empty() { b.device.to_string() } else { format!("{} ({})", b.device, flags.join(", ")) }
        },
    );
    let lines = [
        ("Power", seen.power.to_string()),
        ("Boot override", boot),
        ("Manufacturer", format!("IANA {}", seen.identity.manufacturer_id)),
        ("Product", seen.identity.product_id.to_string()),
        ("Firmware", seen.identity.firmware.clone()),
        ("IPMI", seen.identity.ipmi_version.clone()),
        ("GUID", guid(seen).unwrap_or_else(|| NOTHING.to_owned())),
        ("Cipher suite", seen.suite.to_string()),
    ];
    lines.iter().map(|(head, value)| format!("{:<16}{}\n", format!("{head}:"), clean(value))).collect()
}

/// A name of ours out of what a device or a person calls it.
fn name_from(text: &str, or: &str) -> String {
    let good: String = text.to_ascii_lowercase().chars().take(63).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let parts: Vec<&str> = good.split('-').filter(|p| !p.is_empty()).collect();
    if parts.is_empty() { or.to_owned() } else { parts.join("-") }
}

fn manifest(kind: Kind, name: &str, body: Value) -> String {
    let mut object = json!({ "apiVersion": crate::model::kind::API_VERSION, "kind": kind.singular(), "metadata": { "name": name } });
    if let (Some(object), Value::Object(body)) = (object.as_object_mut(), body) {
        object.extend(body);
    }
    output::yaml(&object)
}

fn secret_manifest(name: &str, keys: &str) -> String {
    let object = json!({ "from": { "file": format!("/etc/embody/{name}.env") } });
    format!("# Lines of the file: {keys}\n{}---\n", manifest(Kind::Secret, name, object))
}

pub(crate) fn switch_manifest(address: &HostPort, seen: &SwitchSeen, v3: bool, encrypted: bool) -> String {
    let called = seen.identity.sys_name.split('.').next().unwrap_or("");
    let name = name_from(if called.is_empty() { &address.host } else { called }, "switch");
    let secret = format!("{name}-snmp");
    let keys = match (v3, encrypted) {
        (true, true) => "username=… authProtocol=… authPassword=… privProtocol=… privPassword=…, each on its own",
        (true, false) => "username=… authProtocol=… authPassword=…, each on its own",
        (false, _) => "community=…",
    };
    let mut snmp = json!({ "version": if v3 { "v3" } else { "v2c" }, "secretRef": { "name": secret } });
    if !encrypted {
        snmp["insecure"] = true.into();
    }
    let spec = json!({ "spec": { "address": address.to_string(), "snmp": snmp, "profile": "auto" } });
    let ports: Vec<&str> =
        ordered(seen).into_iter().filter(|(_, p)| matches!(p.lag, Lag::None | Lag::NotTold(_))).map(|(n, _)| n.as_str()).collect();
    let ports = clean(&serde_json::to_string(&ports).unwrap_or_default());
    let note = format!("  # Without this the switch is only observed. Leave uplinks out.\n  # manage: {{ ports: {ports} }}\n");
    secret_manifest(&secret, keys) + &manifest(Kind::Switch, &name, spec) + &note
}

pub(crate) fn bmc_manifest(address: &HostPort) -> String {
    let label = address.host.parse::<std::net::IpAddr>().map_or_else(|_| address.host.clone(), |ip| format!("server-{ip}"));
    let name = name_from(&label, "server");
    let secret = format!("{name}-bmc");
    let spec = json!({ "spec": { "arch": "x86_64", "bmc": { "address": address.to_string(), "protocol": "ipmi", "secretRef": { "name": secret } } } });
    let note = "  # nics:\n  #   - { name: nic1, mac: \"00:00:5e:00:53:01\", switch: SWITCH, port: PORT, boot: true }\n";
    secret_manifest(&secret, "username=… password=…, each on its own") + &manifest(Kind::Server, &name, spec) + note
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fact::*;
    use crate::model::identity::Identity;
    use crate::model::{Object, Vlan};
    use serde::Deserialize;

    fn vlan(id: i64) -> Vlan {
        Vlan::try_from(id).unwrap()
    }

    fn switch() -> SwitchSeen {
        let port = |if_index, admin, untagged: Option<i64>, tagged: &[i64], quality| PortSeen {
            if_index,
            also: Vec::new(),
            config: PortConfig { admin, untagged: untagged.map(vlan), tagged: tagged.iter().map(|v| vlan(*v)).collect() },
            oper: Oper::Unknown,
            mode: PortMode::Access,
            neighbour: None,
            macs: Default::default(),
            lag: Lag::None,
            quality,
        };
        let identity = SwitchIdentity {
            sys_object_id: "1.3.6.1.4.1.11.2.3.7.11.1".into(),
            sys_descr: "ProCurve\u{1b}[2J".into(),
            sys_name: "TOR_1.example.org".into(),
        };
        SwitchSeen {
            shown: Identity::default(),
            identity,
            profile: "q-bridge",
            writable: Writable { admin: true, access: true, ..Writable::default() },
            ports: [
                ("A10".to_owned(), port(10, Admin::Down, None, &[], Quality::Unknown("no PVID".into()))),
                ("A2".to_owned(), port(2, Admin::Up, Some(120), &[130, 140], Quality::Exact)),
            ]
            .into(),
            vlans: [vlan(1), vlan(120)].into(),
            unsaved: None,
            neighbours_told: true,
            notes: Default::default(),
            refused: Default::default(),
        }
    }

    #[test]
    fn the_json_of_a_switch() {
        let expected = json!({
            "sysObjectID": "1.3.6.1.4.1.11.2.3.7.11.1", "sysDescr": "ProCurve\u{1b}[2J", "profile": "q-bridge",
            "writable": { "admin": true, "access": true, "trunk": false, "vlanCreate": false, "save": false },
            "ports": [
                { "name": "A2", "ifIndex": 2, "admin": "Up", "oper": "Unknown", "mode": "Access", "untagged": 120, "tagged": [130, 140],
                  "neighbour": null, "quality": "Exact" },
                { "name": "A10", "ifIndex": 10, "admin": "Down", "oper": "Unknown", "mode": "Access", "untagged": null, "tagged": [],
                  "neighbour": null, "quality": "Unknown: no PVID" },
            ],
        });
        assert_eq!(to_json(&switch()), expected);
    }

    #[test]
    fn the_json_of_a_bmc() {
        let seen = BmcSeen {
            shown: Identity::default(),
            identity: BmcIdentity {
                guid: None,
                manufacturer_id: 11,
                product_id: 8192,
                firmware: "2.30".into(),
                ipmi_version: "2.0".into(),
            },
            power: Power::On,
            boot: Some(BootOverride { valid: true, persistent: true, efi: false, device: BootDevice::Other(13) }),
            suite: 17,
        };
        let expected = json!({
            "manufacturerId": 11, "productId": 8192, "firmware": "2.30", "ipmiVersion": "2.0", "guid": null, "suite": 17, "power": "On",
            "bootOverride": { "valid": true, "persistent": true, "efi": false, "device": "Other(0xd)" },
        });
        assert_eq!(bmc_json(&seen), expected);
        assert!(bmc_table(&seen).contains("Boot override:  Other(0xd) (persistent)\n"));
    }

    #[test]
    fn a_table_shows_every_port_and_moves_no_cursor() {
        let text = switch_table(&switch());
        assert!(!text.contains('\u{1b}'));
        assert!(text.contains("A2     Up      Unknown   Access   120+t(130,140)   -"), "{text}");
    }

    #[test]
    fn manifests_to_start_from_are_valid_objects() {
        let address: HostPort = "192.0.2.7:1161".parse().unwrap();
        for (text, kinds) in [
            (switch_manifest(&address, &switch(), false, false), [Kind::Secret, Kind::Switch]),
            (switch_manifest(&address, &switch(), true, true), [Kind::Secret, Kind::Switch]),
            (bmc_manifest(&address), [Kind::Secret, Kind::Server]),
        ] {
            let read = serde_yaml::Deserializer::from_str(&text).map(|d| Object::from_json(Value::deserialize(d).unwrap()).unwrap().kind());
            assert_eq!(read.collect::<Vec<_>>(), kinds, "{text}");
        }
        assert!(switch_manifest(&address, &switch(), true, true).contains("name: tor-1\n"));
    }
}

//! What the kernel's command line says for a start.
//!
//! Leaves out: parameters of the kernel and of the system, which are theirs. Invariant: what is wrong is said with what was found and what was
//! expected, and only when it is used: a start with a wrong root can still tell the controller so. Shown by the tests below.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// RFC 1813, section 2.2: the port of an NFS server where none is named.
pub const NFS_PORT: u16 = 2049;
/// How long a server of the root is waited for, unless `embody.wait` says otherwise.
const PATIENCE: Duration = Duration::from_secs(600);
/// Linux, MAX_ADDR_LEN 32; Ethernet has 6.
pub type Mac = [u8; 6];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the parameter {name} of the command line is {found}: expected {expected}")]
pub struct WrongParameter {
    name: &'static str,
    found: String,
    expected: &'static str,
}

/// The parameters in order; quotes are the kernel's (parse_args): they hold words together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    words: Vec<(String, Option<String>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    Nfs {
        address: Ipv4Addr,
        /// None: the server's portmapper is asked for the port of its mount protocol.
        port: Option<u16>,
        path: String,
    },
    Ram {
        url: String,
        sha256: [u8; 32],
        size: u64,
    },
}

/// Where a start asks who it is, and by which key it knows whom it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    pub at: SocketAddr,
    /// `/run/SERVER/TOKEN`
    pub path: String,
    /// Of the public key (SubjectPublicKeyInfo) of its certificate: RFC 7469, section 2.4.
    pub sha256: [u8; 32],
}

/// How large the layer over the root may get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Size {
    Bytes(u64),
    /// Of the memory.
    Percent(u8),
}

impl CommandLine {
    pub fn of_this_start() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }

    pub fn parse(line: &str) -> Self {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut quoted = false;
        for c in line.trim().chars().chain([' ']) {
            match c {
                '"' => quoted = !quoted,
                c if c.is_whitespace() && !quoted => {
                    let whole = std::mem::take(&mut word);
                    // What follows is for init, which the kernel gives it as arguments.
                    if whole == "--" {
                        break;
                    }
                    if !whole.is_empty() {
                        words.push(match whole.split_once('=') {
                            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                            None => (whole, None),
                        });
                    }
                }
                c => word.push(c),
            }
        }
        Self { words }
    }

    /// The last one holds, as with the kernel.
    fn value(&self, name: &str) -> Option<&str> {
        self.words.iter().rev().find(|(n, _)| n == name)?.1.as_deref().filter(|value| !value.is_empty())
    }

    fn has(&self, name: &str) -> bool {
        self.words.iter().any(|(n, _)| n == name)
    }

    /// Where the controller hears how this start goes.
    pub fn run(&self) -> Option<&str> {
        self.value("embody.run").map(|url| url.trim_end_matches('/'))
    }

    pub fn exchange_as_given(&self) -> Option<&str> {
        self.value("embody.exchange")
    }

    pub fn exchange(&self) -> Result<Option<Exchange>, WrongParameter> {
        self.exchange_as_given().map(str::parse).transpose()
    }

    pub fn root_as_given(&self) -> Option<&str> {
        self.value("embody.root")
    }

    pub fn root(&self) -> Result<Root, WrongParameter> {
        const EXPECTED: &str = "nfs:ADDRESS[:PORT]:/PATH or ram:http://ADDRESS[:PORT]/PATH,sha256=HEX,size=BYTES";
        let found = self.value("embody.root");
        let wrong = || WrongParameter { name: "embody.root", found: shown(found), expected: EXPECTED };
        let (kind, rest) = found.and_then(|root| root.split_once(':')).ok_or_else(wrong)?;
        match kind {
            "nfs" => nfs(rest),
            "ram" => ram(rest),
            _ => None,
        }
        .ok_or_else(wrong)
    }

    pub fn overlay(&self) -> Result<Size, WrongParameter> {
        let Some(found) = self.value("embody.overlay") else { return Ok(Size::Percent(50)) };
        size(found).ok_or_else(|| WrongParameter {
            name: "embody.overlay",
            found: shown(Some(found)),
            expected: "bytes (with K, M or G) or a part of the memory such as 50%",
        })
    }

    /// RFC 1123, section 2.1; hostname(7): at most 64.
    pub fn hostname(&self) -> Result<Option<&str>, WrongParameter> {
        let Some(name) = self.value("embody.hostname") else { return Ok(None) };
        if is_hostname(name) {
            return Ok(Some(name));
        }
        Err(WrongParameter { name: "embody.hostname", found: shown(Some(name)), expected: "at most 64 letters, digits, hyphens and dots" })
    }

    /// machine-id(5).
    pub fn machine_id(&self) -> Result<Option<&str>, WrongParameter> {
        let Some(id) = self.value("embody.machine-id") else { return Ok(None) };
        let wrong =
            || WrongParameter { name: "embody.machine-id", found: shown(Some(id)), expected: "32 small hexadecimal digits, not all 0" };
        is_machine_id(id).then_some(Some(id)).ok_or_else(wrong)
    }

    /// The MAC that the firmware booted from, as PXELINUX writes it: the hardware type (01: Ethernet) first.
    pub fn boot_mac(&self) -> Result<Option<Mac>, WrongParameter> {
        let Some(found) = self.value("BOOTIF") else { return Ok(None) };
        let digits = found.to_ascii_lowercase().replace(':', "-");
        let mac = digits.strip_prefix("01-").and_then(mac);
        let wrong =
            || WrongParameter { name: "BOOTIF", found: shown(Some(found)), expected: "01-xx-xx-xx-xx-xx-xx, the MAC of an Ethernet card" };
        mac.map(Some).ok_or_else(wrong)
    }

    /// The address that the firmware had: `ip=ADDRESS:…`, as PXELINUX and the kernel write it.
    pub fn former_address(&self) -> Option<Ipv4Addr> {
        self.value("ip")?.split(':').next()?.parse().ok()
    }

    pub fn patience(&self) -> Duration {
        self.value("embody.wait").and_then(|seconds| seconds.parse().ok()).map_or(PATIENCE, Duration::from_secs)
    }

    pub fn has_debug(&self) -> bool {
        self.has("embody.debug")
    }

    pub fn init(&self) -> Option<&Path> {
        self.value("init").map(Path::new).filter(|path| path.is_absolute())
    }

    /// As `ro` and `rw` of the kernel: whether the system finds its root read-only at first. Without a word it does not.
    pub fn is_read_only(&self) -> bool {
        self.words
            .iter()
            .rev()
            .find(|(name, value)| value.is_none() && (name == "ro" || name == "rw"))
            .is_some_and(|(name, _)| name == "ro")
    }

    /// `NAME.PARAMETER=VALUE`, for a module: what modprobe(8) would give it.
    pub fn module_parameters(&self, module: &str) -> String {
        let mut parameters = Vec::new();
        for (name, value) in &self.words {
            let Some((of, parameter)) = name.split_once('.') else { continue };
            if of.replace('-', "_") == module {
                parameters.push(match value {
                    Some(value) if value.contains(' ') => format!("{parameter}=\"{value}\""),
                    Some(value) => format!("{parameter}={value}"),
                    None => parameter.to_owned(),
                });
            }
        }
        parameters.join(" ")
    }

    /// `modprobe.blacklist=` or `module_blacklist=`: never loaded because a device is there.
    pub fn is_blacklisted(&self, module: &str) -> bool {
        let named = |name: &str| name == "modprobe.blacklist" || name == "module_blacklist";
        let lists = self.words.iter().filter(|(name, _)| named(name)).filter_map(|(_, value)| value.as_deref());
        lists.flat_map(|list| list.split(',')).any(|name| name.replace('-', "_") == module)
    }
}

impl Root {
    /// Modules that this root needs, in order.
    pub fn modules(&self) -> &'static [&'static str] {
        match self {
            // nfsv3 is asked for when something is mounted: by then it is there.
            Self::Nfs { .. } => &["nfs", "nfsv3", "overlay"],
            Self::Ram { .. } => &["loop", "squashfs", "overlay"],
        }
    }
}

impl FromStr for Exchange {
    type Err = WrongParameter;

    fn from_str(text: &str) -> Result<Self, WrongParameter> {
        const EXPECTED: &str = "https://ADDRESS:PORT/run/SERVER/TOKEN,sha256=HEX";
        exchange(text).ok_or_else(|| WrongParameter { name: "embody.exchange", found: shown(Some(text)), expected: EXPECTED })
    }
}

impl std::fmt::Display for Size {
    /// As tmpfs(5) takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(part) => write!(f, "{part}%"),
        }
    }
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "missing".to_owned(), |value| format!("`{}`", value.escape_debug().take(80).collect::<String>()))
}

pub fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 64 && name.split('.').all(is_label)
}

pub fn is_machine_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) && id.bytes().any(|b| b != b'0')
}

fn exchange(text: &str) -> Option<Exchange> {
    let (url, digest) = text.rsplit_once(",sha256=")?;
    let (at, path) = url.strip_prefix("https://")?.split_once('/')?;
    let path = path.trim_end_matches('/');
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
    let (run, rest) = path.split_once('/')?;
    if run != "run" || rest.split('/').count() != 2 || !rest.split('/').all(is_part) {
        return None;
    }
    Some(Exchange { at: at.parse().ok()?, path: format!("/{path}"), sha256: digest_of(digest)? })
}

fn nfs(rest: &str) -> Option<Root> {
    let (server, path) = rest.split_once(":/")?;
    // A comma would end the option of mount(2) that it stands in; the source is a word of its own.
    let path = format!("/{path}");
    if path.len() > 1_024 || path.contains(char::is_control) {
        return None;
    }
    let (address, port) = match server.split_once(':') {
        Some(_) => server.parse::<SocketAddrV4>().ok().map(|at| (*at.ip(), Some(at.port())))?,
        None => (server.parse().ok()?, None),
    };
    Some(Root::Nfs { address, port, path })
}

fn ram(rest: &str) -> Option<Root> {
    // From the end: an address may have commas.
    let (rest, size) = rest.rsplit_once(",size=")?;
    let (url, digest) = rest.rsplit_once(",sha256=")?;
    url.starts_with("http://").then_some(())?;
    Some(Root::Ram { url: url.to_owned(), sha256: digest_of(digest)?, size: size.parse().ok().filter(|size| *size > 0)? })
}

fn digest_of(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    // from_str_radix takes a sign.
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(digest)
}

fn size(text: &str) -> Option<Size> {
    if let Some(part) = text.strip_suffix('%') {
        return part.parse().ok().filter(|part| (1..=100).contains(part)).map(Size::Percent);
    }
    let (digits, unit) = match text.to_ascii_uppercase() {
        text if text.ends_with('K') => (text, 10),
        text if text.ends_with('M') => (text, 20),
        text if text.ends_with('G') => (text, 30),
        text => (text, 0),
    };
    let number: u64 = digits.trim_end_matches(['K', 'M', 'G']).parse().ok()?;
    number.checked_mul(1 << unit).filter(|bytes| *bytes > 0).map(Size::Bytes)
}

fn mac(text: &str) -> Option<Mac> {
    let mut mac = Mac::default();
    let mut parts = text.split('-');
    for byte in &mut mac {
        *byte = parts.next().filter(|part| part.len() == 2).and_then(|part| u8::from_str_radix(part, 16).ok())?;
    }
    parts.next().is_none().then_some(mac)
}

/// As Linux writes it in /sys/class/net/*/address.
pub fn written(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_whole_line_is_understood_and_what_is_foreign_is_left_alone() {
        let line = CommandLine::parse(&format!(
            "BOOT_IMAGE=k console=ttyS0 ro embody.run=http://10.0.2.2:8080/run/web-1/T/ embody.overlay=2G embody.hostname=web-1 rw \
             embody.root=ram:http://10.0.2.2/a,b/root.squashfs,sha256={DIGEST},size=4096 BOOTIF=01-52-54-00-AB-cd-01 ip=10.0.2.15:::: \
             mlx5-core.x=1 mlx5_core.y=\"a b\" modprobe.blacklist=e1000e,igb systemd.unit=\"a b\" -- embody.debug"
        ));
        assert_eq!(line.run(), Some("http://10.0.2.2:8080/run/web-1/T"));
        assert_eq!(line.overlay(), Ok(Size::Bytes(2 << 30)));
        assert_eq!(line.hostname(), Ok(Some("web-1")));
        assert_eq!(line.boot_mac(), Ok(Some([0x52, 0x54, 0, 0xab, 0xcd, 1])));
        assert_eq!(line.former_address(), Some(Ipv4Addr::new(10, 0, 2, 15)));
        let Ok(Root::Ram { url, sha256, size: 4096 }) = line.root() else { panic!("{:?}", line.root()) };
        assert_eq!((url.as_str(), sha256[0], sha256[31]), ("http://10.0.2.2/a,b/root.squashfs", 0xe3, 0x55));
        assert_eq!(line.module_parameters("mlx5_core"), "x=1 y=\"a b\"");
        assert!(line.is_blacklisted("igb") && !line.is_blacklisted("ixgbe"));
        assert!(!line.is_read_only(), "the last of ro and rw holds");
        assert!(!line.has_debug(), "what follows -- is for init");
    }

    #[test]
    fn roots_over_nfs() {
        let root = |text: &str| CommandLine::parse(&format!("embody.root={text}")).root();
        let nfs = |port| Root::Nfs { address: Ipv4Addr::new(10, 0, 0, 1), port, path: "/p/a:b".to_owned() };
        assert_eq!(root("nfs:10.0.0.1:/p/a:b"), Ok(nfs(None)));
        assert_eq!(root("nfs:10.0.0.1:2050:/p/a:b"), Ok(nfs(Some(2050))));
        for wrong in ["nfs:10.0.0.1", "nfs:host:/p", "nfs:10.0.0.1:99999:/p", "iscsi:10.0.0.1:/p", "ram:http://a/b", "", "ram:https://a/b"]
        {
            let said = root(wrong).unwrap_err().to_string();
            assert!(said.contains("expected nfs:ADDRESS") && (wrong.is_empty() || said.contains(wrong)), "{said}");
        }
    }

    #[test]
    fn whom_a_start_asks_who_it_is() {
        let asked = |text: &str| CommandLine::parse(&format!("embody.exchange={text}")).exchange();
        let Ok(Some(exchange)) = asked(&format!("https://10.0.0.1:8443/run/web-1/T,sha256={DIGEST}")) else { panic!() };
        assert_eq!((exchange.at.to_string().as_str(), exchange.path.as_str()), ("10.0.0.1:8443", "/run/web-1/T"));
        assert_eq!((exchange.sha256[0], exchange.sha256[31]), (0xe3, 0x55));
        assert!(asked(&format!("https://[fd00::1]:8443/run/web-1/T/,sha256={DIGEST}")).is_ok());
        assert_eq!(asked(""), Ok(None));
        for wrong in ["http://10.0.0.1:1/run/a/T", "https://10.0.0.1/run/a/T", "https://name:1/run/a/T", "https://10.0.0.1:1/run/a"] {
            let said = asked(&format!("{wrong},sha256={DIGEST}")).unwrap_err().to_string();
            assert!(said.contains(wrong) && said.contains("expected https://ADDRESS:PORT/run/SERVER/TOKEN,sha256=HEX"), "{said}");
        }
        for wrong in ["https://10.0.0.1:1/run/a/T", "https://10.0.0.1:1/run/a/T,sha256=ab", "https://10.0.0.1:1/run/a/T,sha256=+"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
        assert!(asked(&format!("https://10.0.0.1:1/run/a/T,sha256={}", DIGEST.replace("e3", "+3"))).is_err(), "a sign is no digit");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let line = CommandLine::parse("embody.overlay=0 embody.hostname=-a embody.machine-id=XYZ BOOTIF=20-00-00 embody.overlay=120%");
        assert_eq!(
            line.overlay().unwrap_err().to_string(),
            "the parameter embody.overlay of the command line is `120%`: expected bytes (with K, M or G) or a part of the memory such as 50%"
        );
        assert!(line.hostname().is_err() && line.machine_id().is_err() && line.boot_mac().is_err());
        assert_eq!(line.root().unwrap_err().found, "missing");
        assert_eq!(CommandLine::parse("").overlay(), Ok(Size::Percent(50)));
    }
}

//! Files of the system that are written before it starts.
//!
//! Leaves out: which card they speak of (`cards`). Invariant: a file that is replaced is a file of its own afterwards, with the mode that is meant,
//! whatever it was; what the image says and needs no change stays. Shown by the tests below.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use embody_protocol::Link;

use super::SettleError;
use crate::console::say;
use crate::dhcp::Lease;

/// resolv.conf(5): MAXNS
const NAME_SERVERS: usize = 3;

pub(super) fn at(path: &str) -> impl Fn(io::Error) -> SettleError {
    let path = path.to_owned();
    move |source| SettleError::Write { path: path.clone(), source }
}

pub(super) fn directory_of(path: &str) -> Result<(), SettleError> {
    Path::new(path).parent().map_or(Ok(()), |parent| fs::create_dir_all(parent).map_err(at(&parent.display().to_string())))
}

pub(super) fn replace(path: &str, text: &str, mode: u32) -> Result<(), SettleError> {
    directory_of(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(path)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(at(path))?;
    file.write_all(text.as_bytes()).map_err(at(path))
}

/// That of the command line, else that of DHCP where the image has none.
pub(super) fn name(given: Option<&str>, lease: &Lease) -> Result<(), SettleError> {
    let own = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let has_own = !matches!(own.trim(), "" | "localhost" | "localhost.localdomain");
    let Some(name) = given.or(lease.hostname.as_deref().filter(|_| !has_own)) else { return Ok(()) };
    replace("/etc/hostname", &format!("{name}\n"), 0o644)?;
    if let Err(error) = rustix::system::sethostname(name.as_bytes()) {
        say(&format!("the kernel does not take the name {name}: {error}"));
    }
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    match hosts_with(&hosts, name, lease.domain.as_deref()) {
        Some(hosts) => replace("/etc/hosts", &hosts, 0o644),
        None => Ok(()),
    }
}

/// hosts(5), with Debian's line for a machine without a fixed address; none: it has one.
fn hosts_with(hosts: &str, name: &str, domain: Option<&str>) -> Option<String> {
    if hosts.lines().any(|line| line.split_whitespace().next() == Some("127.0.1.1")) {
        return None;
    }
    let mut hosts = if hosts.trim().is_empty() {
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned()
    } else {
        hosts.to_owned()
    };
    if !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    let names = match (name.split_once('.'), domain) {
        (Some((short, _)), _) => format!("{name} {short}"),
        (None, Some(domain)) => format!("{name}.{domain} {name}"),
        (None, None) => name.to_owned(),
    };
    Some(hosts + &format!("127.0.1.1 {names}\n"))
}

/// Where the image names none: those of the networks, in their order, then those of DHCP. A link into /run is that of a service, which replaces what is
/// there once it runs.
pub(super) fn name_servers(lease: &Lease, links: &[Link]) -> Result<(), SettleError> {
    const PATH: &str = "/etc/resolv.conf";
    let (servers, domain) = names(lease, links);
    let Some(text) = resolv_conf(&servers, domain) else { return Ok(()) };
    if fs::read_to_string(PATH).is_ok_and(|found| found.lines().any(|line| !line.trim().is_empty() && !line.starts_with(['#', ';']))) {
        return Ok(());
    }
    match fs::read_link(PATH).ok().map(|to| absolute(Path::new("/etc"), &to)) {
        Some(to) if to.starts_with("/run") => replace(&to.display().to_string(), &text, 0o644),
        _ => replace(PATH, &text, 0o644),
    }
}

fn names<'a>(lease: &'a Lease, links: &'a [Link]) -> (Vec<IpAddr>, Option<&'a str>) {
    let networks = || links.iter().flat_map(|link| link.untagged.iter().chain(link.vlans.iter().map(|tagged| &tagged.addressing)));
    let mut servers = Vec::new();
    for server in networks().flat_map(|network| network.dns.iter().copied()).chain(lease.name_servers.iter().map(|server| (*server).into()))
    {
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    let domain = networks().find_map(|network| network.domain.as_deref()).filter(|domain| !domain.is_empty());
    (servers, domain.or(lease.domain.as_deref()))
}

fn resolv_conf(servers: &[IpAddr], domain: Option<&str>) -> Option<String> {
    let mut text = String::new();
    if servers.is_empty() {
        return None;
    }
    if let Some(domain) = domain {
        text += &format!("search {domain}\n");
    }
    for server in servers.iter().take(NAME_SERVERS) {
        text += &format!("nameserver {server}\n");
    }
    Some(text)
}

/// Without `..`, as far as words tell.
fn absolute(directory: &Path, to: &Path) -> PathBuf {
    let mut path = PathBuf::from("/");
    for part in directory.join(to).components() {
        match part {
            std::path::Component::ParentDir => {
                path.pop();
            }
            std::path::Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use embody_protocol::Addressing;

    use super::*;

    #[test]
    fn a_name_is_added_to_hosts_once() {
        let hosts = hosts_with("127.0.0.1 localhost", "web-1", Some("rack.example")).unwrap();
        assert_eq!(hosts, "127.0.0.1 localhost\n127.0.1.1 web-1.rack.example web-1\n");
        assert_eq!(hosts_with(&hosts, "web-2", None), None);
        assert!(hosts_with("", "a.b.c", Some("d")).unwrap().ends_with("127.0.1.1 a.b.c a\n"));
    }

    #[test]
    fn name_servers_of_the_networks_come_before_those_of_dhcp() {
        let [own, both, dhcp] = [1, 2, 3].map(|n| Ipv4Addr::new(10, 0, 0, n));
        let said = Addressing { dns: vec![own.into(), both.into()], domain: Some("own".to_owned()), ..Addressing::default() };
        let links = [Link::default(), Link { untagged: Some(said), ..Link::default() }];
        let lease = Lease { name_servers: vec![both, dhcp], domain: Some("dhcp".to_owned()), ..Lease::at(own, 24) };
        assert_eq!(names(&lease, &links), (vec![own.into(), both.into(), dhcp.into()], Some("own")));
        assert_eq!(names(&lease, &[]), (vec![both.into(), dhcp.into()], Some("dhcp")));
    }

    #[test]
    fn resolv_conf_has_what_it_can_hold() {
        let servers: Vec<IpAddr> = (1..=4).map(|n| Ipv4Addr::new(10, 0, 0, n).into()).collect();
        let text = resolv_conf(&servers, Some("x")).unwrap();
        assert_eq!(text, "search x\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n");
        assert_eq!(resolv_conf(&[], Some("x")), None);
        assert_eq!(
            absolute(Path::new("/etc"), Path::new("../run/systemd/resolve/stub-resolv.conf")),
            Path::new("/run/systemd/resolve/stub-resolv.conf")
        );
        assert_eq!(absolute(Path::new("/etc"), Path::new("/../../x")), Path::new("/x"));
    }

    #[test]
    fn what_is_replaced_was_perhaps_a_link_and_is_a_file() {
        let root = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (root.path().join("etc/machine-id"), root.path().join("elsewhere"));
        fs::write(&elsewhere, "as it was").unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        replace(path.to_str().unwrap(), "new\n", 0o444).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "as it was");
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::symlink_metadata(&path).unwrap()), 0o100_444);
    }
}

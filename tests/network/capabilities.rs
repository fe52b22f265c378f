//! What is said where a capability is missing: the tests run themselves again, in a namespace, with less.

// The kernel's clock is the real one.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::process::Command;

use super::common::Lan;
use embody::testing::server::boot::network::advertise::serve;
use embody::testing::server::boot::network::interfaces::{Changes, look, source_towards};
use embody::testing::server::boot::network::sockets::{SERVER_PORT, dhcp};
use embody::testing::server::boot::network::vip::{Vip, claim};
use tokio::sync::watch;

const AGAIN: &str = "RUN_AGAIN_WITH_LESS";

/// Whether this is the run with these capabilities; otherwise that run was made, and went well.
fn is_run_with(capabilities: &str, test: &str) -> bool {
    if std::env::var_os(AGAIN).is_some() {
        return true;
    }
    let lan = Lan::new(1);
    let out = Command::new("ip")
        .args(["netns", "exec", &lan.hosts[0].0, "setpriv", &format!("--bounding-set={capabilities}"), "--inh-caps=-all"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(AGAIN, "1")
        .output()
        .unwrap();
    let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
    false
}

fn block_on(what: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what);
}

fn said(error: impl Error) -> [String; 2] {
    [error.to_string(), error.source().unwrap().to_string()]
}

#[test]
fn without_any() {
    if super::common::is_unable() {
        return;
    }
    if !is_run_with("-all", "capabilities::without_any") {
        return;
    }
    block_on(async {
        let port = dhcp("eth0", SERVER_PORT).unwrap_err().to_string();
        assert_eq!(port, "UDP port 67 of eth0 may not be used: ports below 1024 need CAP_NET_BIND_SERVICE");
        let address = "10.7.0.100/24".parse().unwrap();
        let no_arp = ["10.7.0.100/32 cannot be announced on eth0", "a packet socket may not be opened: it needs CAP_NET_RAW"];
        assert_eq!(said(Vip::put(address, None).unwrap_err()), no_arp);
        assert_eq!(said(claim(address, None).await.unwrap_err()), no_arp);
        let (_stop, stopped) = watch::channel(false);
        let eth0 = look().unwrap().into_iter().find(|i| i.name == "eth0").unwrap();
        let advertise = serve(&eth0, stopped).await.unwrap_err().to_string();
        assert_eq!(advertise, "router advertisements on eth0 need CAP_NET_RAW");
        // Looking needs none, nor does the bare binding to an interface.
        assert!(dhcp("eth0", 0).is_ok() && Changes::open().is_ok());
        assert_eq!(source_towards([10, 7, 0, 9].into(), Some("eth0")).unwrap().to_string(), "10.7.0.1");
    });
}

#[test]
fn with_raw_sockets_alone() {
    if super::common::is_unable() {
        return;
    }
    if !is_run_with("-all,+net_raw", "capabilities::with_raw_sockets_alone") {
        return;
    }
    block_on(async {
        let error = Vip::put("10.7.0.100/24".parse().unwrap(), None).unwrap_err();
        assert_eq!(error.to_string(), "10.7.0.100/32 may not be put on eth0, or taken off: this needs CAP_NET_ADMIN");
    });
}

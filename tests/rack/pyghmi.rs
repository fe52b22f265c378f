//! virtualbmc, and the BMC of pyghmi that it is made of: suite 3 whatever is proposed, no command for its GUID, boot flags for one start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::programs::{PEERS, Process, missing, until};
use super::site::{FRESH, LIVES, Manifests, Site, binding};
use crate::free_port::free_port;

fn web(state: &str) -> String {
    binding("web", "apache", "a", &format!("correct: enforce, state: {state}, shutdown: {{ grace: 5s }}"))
}

/// Debian's python3 has the modules, whatever python3 comes first in PATH.
fn start(program: &str, port: u16, packages: &Path, log: &Path) -> Process {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(program);
    Process::start(Command::new("/usr/bin/python3").arg("-u").arg(program).arg(port.to_string()).arg(packages), log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_persona_lives_on_a_bmc_of_pyghmi() {
    if missing(&PEERS) || missing(&["fakebmc"]) {
        return;
    }
    lives_on("pyghmi_bmc.py", Path::new("")).await;
}

/// Its machine is that of libvirt's test driver.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_persona_lives_on_virtualbmc() {
    if missing(&PEERS) {
        return;
    }
    let named = std::env::var_os("EMBODY_VIRTUALBMC").map(PathBuf::from);
    let packages = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/virtualbmc"));
    if !packages.join("virtualbmc").is_dir() {
        assert!(std::env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "virtualbmc is not installed in {}", packages.display());
        eprintln!("SKIP: virtualbmc is not installed in {}", packages.display());
        return;
    }
    lives_on("virtualbmc_bmc.py", &packages).await;
}

async fn lives_on(program: &str, packages: &Path) {
    let mut site = Site::prepare(&[]).await;
    let (port, log) = (free_port(), site.dir.path().join("bmc.log"));
    let _bmc = start(program, port, packages, &log);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();

    // What a person sees of it has the same names as what is seen of any other.
    let password = site.dir.path().join("password");
    let fields = async |port: u16, secret: &str| {
        std::fs::write(&password, secret).unwrap();
        let address = format!("127.0.0.1:{port}");
        let words = ["inspect", "bmc", &address, "--user", "admin", "--password-file", password.to_str().unwrap()];
        let text = site.controller.run(&words).await;
        let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_owned());
        assert!(text.lines().any(|line| line.starts_with("GUID:") && line.len() > 40), "{text}");
        names.collect::<Vec<String>>()
    };
    until(program, Duration::from_secs(20), async || match std::net::UdpSocket::bind(("127.0.0.1", port)) {
        Err(_) => Ok(()),
        Ok(_) => Err(said()),
    })
    .await;
    assert_eq!(fields(port, "password").await, fields(site.a.port, super::bmc::PASSWORD).await);

    site.controller.start().await;
    let manifests = Manifests { bmc: Some(port), password: "password", ..Manifests::default() };
    site.controller.apply(&format!("{}---\n{}", site.manifests(&manifests), web("Running"))).await;
    site.controller.ready("web", 60).await;
    site.controller.run(&["wait", "persona", "apache"]).await;
    site.ports_are(LIVES, FRESH).await;
    site.controller.apply(&web("Stopped")).await;
    site.controller.ready("web", 60).await;
    assert_eq!(said().lines().collect::<Vec<_>>(), ["powered on", "politely shut down the system"], "{}", site.controller.log());
}

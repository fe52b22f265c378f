//! pyghmi's BMC, which virtualbmc is made of as well: suite 3 whatever is proposed, no command for its GUID, boot flags for one start.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::programs::{PEERS, Process, free_udp_port, missing, until};
use super::site::{FRESH, LIVES, Manifests, Site, binding};

fn web(state: &str) -> String {
    binding("web", "apache", "a", &format!("correct: enforce, state: {state}, shutdown: {{ grace: 5s }}"))
}

/// Debian's python3 has the module, whatever python3 comes first in PATH.
fn start(port: u16, log: &Path) -> Process {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pyghmi_bmc.py");
    Process::start(Command::new("/usr/bin/python3").arg("-u").arg(program).arg(port.to_string()), log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_persona_lives_on_a_bmc_of_pyghmi() {
    if missing(&PEERS) || missing(&["fakebmc"]) {
        return;
    }
    let mut site = Site::prepare(&[]).await;
    let (port, log) = (free_udp_port(), site.dir.path().join("pyghmi.log"));
    let _bmc = start(port, &log);
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
    until("pyghmi's BMC", Duration::from_secs(20), async || match std::net::UdpSocket::bind(("127.0.0.1", port)) {
        Err(_) => Ok(()),
        Ok(_) => Err(said()),
    })
    .await;
    assert_eq!(fields(port, "password").await, fields(site.a.port, super::bmc::PASSWORD).await);

    site.controller.start().await;
    let manifests = Manifests { bmc: Some(port), password: "password", ..Manifests::default() };
    site.controller.apply(&format!("{}---\n{}", site.manifests(&manifests), web("Running"))).await;
    site.controller.ready("web", 60).await;
    site.ports_are(LIVES, FRESH).await;
    site.controller.apply(&web("Stopped")).await;
    site.controller.ready("web", 60).await;
    assert_eq!(said().lines().collect::<Vec<_>>(), ["powered on", "politely shut down the system"], "{}", site.controller.log());
}

//! `embody sim` from outside: independent programs find the devices of a fleet by number, a controller brings them to the desired state, what the
//! file of faults says happens, and nothing stands in for a real device. Peers: ipmitool, net-snmp's programs.

mod free_port;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use free_port::free_port;
use tokio::time::{Instant, sleep};

const PROGRAM: &str = env!("CARGO_BIN_EXE_embody");

/// Ended by its id.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop((self.0.kill(), self.0.wait()));
    }
}

fn sim(arguments: &[&str]) -> (Running, String) {
    let mut child = Command::new(PROGRAM).arg("sim").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    (Running(child), said)
}

/// What a program says; nothing where it is not installed.
fn peer(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(Output { stdout, stderr, .. }) => Some(format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))),
        Err(_) => {
            assert!(std::env::var_os("EMBODY_REQUIRE_PEERS").is_none(), "{program} is not installed");
            eprintln!("SKIP: {program} is not installed");
            None
        }
    }
}

async fn until(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !done() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

fn refused(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = Command::new(PROGRAM).arg("sim").args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(!status.success(), "{arguments:?}");
    String::from_utf8_lossy(&stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn a_fleet_answers_independent_programs_and_becomes_as_desired() {
    let place = tempfile::tempdir().unwrap();
    let (dir, faults, port) = (place.path().join("fleet"), place.path().join("faults.yaml"), free_port().to_string());
    std::fs::write(&faults, "- { at: 0s, button: { server: server-00003 } }\n").unwrap();
    let fleet = ["--servers", "4", "--switches", "2", "--port", &port, "--write", text(&dir), "--faults", text(&faults)];
    let (_rack, said) = sim(&fleet);
    assert_eq!(said, "ready: 4 BMCs, 2 switches\n");
    let power = |n: u8| {
        let at = format!("127.96.0.{n}");
        peer("ipmitool", &["-I", "lanplus", "-C", "17", "-H", &at, "-p", &port, "-U", "ADMIN", "-P", "fleet", "power", "status"])
    };
    assert!(power(1).is_none_or(|said| said.contains("Chassis Power is off")), "{:?}", power(1));
    until("somebody's button", Duration::from_secs(60), || power(4).is_none_or(|said| said.contains("Chassis Power is on"))).await;
    let name = peer("snmpget", &["-v2c", "-c", "fleet", &format!("127.64.0.2:{port}"), "1.3.6.1.2.1.1.5.0"]);
    assert!(name.is_none_or(|said| said.contains("switch-0001")));

    let socket = format!("unix://{}", place.path().join("embody.sock").display());
    let data = place.path().join("data");
    let serve = Command::new(PROGRAM).args(["serve", "--data", text(&data), "--server", &socket]).stderr(Stdio::null()).spawn().unwrap();
    let _controller = Running(serve);
    let embody = |arguments: &[&str]| Command::new(PROGRAM).args(arguments).args(["--server", &socket]).output().unwrap();
    until("the controller answers", Duration::from_secs(60), || embody(&["get", "policies"]).status.success()).await;
    let applied = embody(&["apply", "-f", text(&dir)]);
    assert!(applied.status.success(), "{applied:?}");
    // The one that somebody switched on was found running.
    for binding in ["run-00000", "run-00001", "run-00002"] {
        let ready = embody(&["wait", "binding", binding, "--timeout", "180s"]);
        assert!(ready.status.success(), "{ready:?}");
    }
    let asks = embody(&["wait", "binding", "run-00003", "--for", "condition=Ready=False", "--timeout", "60s"]);
    assert!(asks.status.success(), "{asks:?}");
    assert!(power(1).is_none_or(|said| said.contains("Chassis Power is on")));
}

fn signal(process: &Running, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), process.0.id().to_string()]).status().unwrap().success());
}

/// All devices are silent at once, and answer again: the outage was not theirs, and is a person's to look at.
#[tokio::test]
async fn an_outage_opens_the_breaker_and_only_its_own_word_closes_it() {
    let place = tempfile::tempdir().unwrap();
    let (dir, data, port) = (place.path().join("fleet"), place.path().join("data"), free_port().to_string());
    let (rack, _) = sim(&["--servers", "8", "--port", &port, "--write", text(&dir)]);
    let policy = std::fs::read_to_string(dir.join("policy.yaml")).unwrap();
    let often = "  correct: enforce\n  bmc: { pollInterval: 10s }\n  switch: { pollInterval: 10s }\n";
    std::fs::write(dir.join("policy.yaml"), policy.replacen("  correct: enforce\n", often, 1)).unwrap();
    let socket = format!("unix://{}", place.path().join("embody.sock").display());
    let serve = || {
        Running(Command::new(PROGRAM).args(["serve", "--data", text(&data), "--server", &socket]).stderr(Stdio::null()).spawn().unwrap())
    };
    let embody = |arguments: &[&str]| {
        let Output { stdout, stderr, .. } = Command::new(PROGRAM).args(arguments).args(["--server", &socket]).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
    };
    let is_open = || embody(&["get", "policies", "default", "-o", "json"]).contains("\"BreakerOpen\"");
    let controller = serve();
    until("the controller answers", Duration::from_secs(60), || embody(&["get", "policies"]).contains("default")).await;
    embody(&["apply", "-f", text(&dir)]);
    let ready = || embody(&["get", "bindings"]).lines().filter(|line| line.split_whitespace().nth(3) == Some("True")).count() == 8;
    until("all are ready", Duration::from_secs(180), ready).await;
    signal(&rack, "STOP");
    until("the breaker opens", Duration::from_secs(180), is_open).await;
    signal(&rack, "CONT");
    let answers = || embody(&["get", "servers"]).lines().filter(|line| line.contains(" On ")).count() == 8;
    until("all answer again", Duration::from_secs(180), answers).await;
    assert!(is_open(), "nobody has looked at it");
    drop(controller);
    let _controller = serve();
    until("the controller answers", Duration::from_secs(60), || embody(&["get", "policies"]).contains("default")).await;
    until("the next one finds it open", Duration::from_secs(60), is_open).await;
    let said = embody(&["resume", "--all"]);
    assert!(said.contains("the breaker is open: `embody resume breaker`") && is_open(), "{said}");
    let said = embody(&["resume", "breaker"]);
    assert!(said.contains("correction goes on"), "{said}");
    until("it is closed", Duration::from_secs(60), || !is_open()).await;
}

#[test]
fn what_is_asked_for_wrongly_is_refused_in_words() {
    let place = tempfile::tempdir().unwrap();
    let (full, file) = (place.path().join("full"), place.path().join("s.yaml"));
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("kept"), "").unwrap();
    assert!(refused(&["--servers", "1", "--write", text(&full)]).contains("is not empty"));
    assert!(refused(&["--servers", "0", "--write", text(&place.path().join("new"))]).contains("expected 1 to 100000"));
    assert!(refused(&["--servers", "1"]).contains("--write"));
    let switch = "apiVersion: embody.dev/v1alpha1\nkind: Switch\nmetadata: { name: tor }\nspec:\n  address: \"192.0.2.7:161\"\n  \
                  snmp: { version: v2c, insecure: true, secretRef: { name: s } }\n---\napiVersion: embody.dev/v1alpha1\nkind: Secret\n\
                  metadata: { name: s }\nstringData: { community: x }\n";
    std::fs::write(&file, switch).unwrap();
    let why = refused(&["-f", text(&file)]);
    assert!(why.contains("Switch/tor is at 192.0.2.7:161") && why.contains("loopback"), "{why}");
    std::fs::write(place.path().join("f.yaml"), "- { at: 1s }\n").unwrap();
    let new = place.path().join("again");
    let why = refused(&["--servers", "1", "--write", text(&new), "--faults", text(&place.path().join("f.yaml"))]);
    assert!(why.contains("f.yaml: entry 1"), "{why}");
}

//! The command line from outside: the real program against a real socket, with a store in memory and a stand-in for the controller.
//!
//! Leaves out: the wire (`tests/api.rs`), and the verbs that need devices.

mod site;

use std::process::{Output, Stdio};
use std::time::Duration;

use embody::testing::control::operator::PortRow;
use embody::testing::control::status_writer::SiteCondition;
use embody::testing::model::Kind;
use embody::testing::store::Store;
use serde_json::{Value, json};
use site::{Site, binding, network, persona, secret, server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

fn command(site: &Site, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embody"));
    command.args(line.split_whitespace()).current_dir(site.dir.path()).kill_on_drop(true);
    command.env("EMBODY_SERVER", format!("unix://{}", site.socket.display())).env_remove("EMBODY_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Done {
    code: i32,
    out: String,
    err: String,
}

fn done(output: Output) -> Done {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
}

async fn run(site: &Site, line: &str) -> Done {
    done(timeout(LONG, command(site, line).output()).await.expect("ends in time").unwrap())
}

/// Output of a command that must succeed, without the ages, which move.
async fn ok(site: &Site, line: &str) -> String {
    let done = run(site, line).await;
    assert_eq!(done.code, 0, "{line}: {}{}", done.out, done.err);
    done.out
}

async fn fails(site: &Site, line: &str, code: i32, word: &str) {
    let done = run(site, line).await;
    assert_eq!(done.code, code, "{line}: {}{}", done.out, done.err);
    assert!(done.err.contains(word), "{line}: expected `{word}` in: {}", done.err);
}

fn condition(status: &str, reason: &str, generation: u64) -> Value {
    json!({ "type": "Ready", "status": status, "reason": reason, "message": format!("because {reason}"),
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation })
}

fn plane(have: &str, want: &str) -> Value {
    json!({ "want": want, "have": have, "since": "2026-01-01T00:00:00Z", "source": "bmc/s", "inSync": have == want })
}

async fn rack() -> Site {
    let site = Site::start().await;
    for object in [secret("bmc", "hunter2"), network("web", 120), server("s"), server("t"), persona("p"), binding("web-1", "p", "s")] {
        site.create(object).await;
    }
    let planes = json!({ "power": plane("Off", "On"), "boot": plane("Pxe", "Pxe"), "network": plane("1\u{1b}[2J", "120") });
    let wait = json!({ "reason": "Fence", "message": "p may still run on t", "since": "2026-01-01T00:00:00Z", "decidedAt": "src/plan/fence.rs:88" });
    let status = json!({ "observedGeneration": 1, "conditions": [condition("False", "Moving", 1)], "server": "t", "planes": planes,
        "waits": [wait], "pending": ["IPMI s power on"] });
    site.store.set_status(Kind::Binding, "web-1", status).await;
    site.store.set_status(Kind::Server, "s", json!({ "power": "Off", "boot": "Pxe", "boundTo": "web-1", "conditions": [] })).await;
    let port = |port: &str, want: Option<&str>, have: Option<&str>| PortRow {
        switch: "tor-1".parse().unwrap(),
        port: port.into(),
        link: "Up".into(),
        want: want.map(Into::into),
        have: have.map(Into::into),
        wired_to: want.map(|_| "s/nic1".into()),
        note: None,
    };
    *site.control.ports.lock().unwrap() =
        vec![port("Gi1/0/1", Some("120"), Some("1")), port("Gi1/0/2", None, Some("7")), port("Gi1/0/3", Some("9"), None)];
    site
}

/// Rows of a table as their cells.
fn cells(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|l| l.split("   ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect()
}

#[tokio::test]
async fn get_shows_have_and_want() {
    let site = rack().await;
    let out = ok(&site, "get bindings").await;
    let rows = cells(&out);
    assert_eq!(rows[0], ["NAME", "PERSONA", "TARGET", "READY", "POWER", "BOOT", "NETWORK", "AGE"]);
    assert_eq!(rows[1][..7], ["web-1", "p", "t→s", "False", "Off→On", "Pxe", "1\\u{1b}[2J→120"]);
    assert!(!out.contains('\u{1b}'), "neither colours nor a device's control characters: {out:?}");
    let out = ok(&site, "get Server s -o wide").await;
    assert_eq!(cells(&out)[0][..6], ["NAME", "POWER", "BOOT", "BOUND-TO", "BMC", "AGE"]);
    assert_eq!(cells(&out)[1][..5], ["s", "Off", "Pxe", "web-1", "192.0.2.1"]);
    assert_eq!(cells(&out)[0][6], "READY");
    let out = ok(&site, "get ports").await;
    assert_eq!(cells(&out)[0], ["SWITCH", "PORT", "LINK", "VLAN", "WIRED-TO", "NOTE"]);
    assert_eq!(
        cells(&out)[1..],
        [
            vec!["tor-1", "Gi1/0/1", "Up", "1→120", "s/nic1", "-"],
            vec!["tor-1", "Gi1/0/2", "Up", "7", "-", "-"],
            vec!["tor-1", "Gi1/0/3", "Up", "Unknown→9", "s/nic1", "-"],
        ]
    );
    assert_eq!(ok(&site, "get server,NETWORKS -o name").await, "server/s\nserver/t\nnetwork/web\n");
    assert_eq!(ok(&site, "get binding/web-1 servers/t -o name").await, "binding/web-1\nserver/t\n");
    assert_eq!(ok(&site, "get all -o name").await.lines().count(), 6);
    let one: Value = serde_json::from_str(&ok(&site, "get network web -o json").await).unwrap();
    assert_eq!((&one["kind"], &one["spec"]["vlan"]), (&json!("Network"), &json!(120)));
    let list: Value = serde_json::from_str(&ok(&site, "get networks -o json").await).unwrap();
    assert_eq!((&list["kind"], &list["items"][0]), (&json!("List"), &one));
    let yaml = ok(&site, "get secret bmc -o yaml").await;
    assert!(yaml.contains("password: \"(hidden)\"") && !yaml.contains("hunter2"), "{yaml}");
    let empty = run(&site, "get servers -l rack=r7").await;
    assert_eq!((empty.code, empty.out.as_str(), empty.err.as_str()), (0, "", "Nothing found.\n"));
    fails(&site, "get pods", 2, "found `pods`, expected one of Policy").await;
    fails(&site, "get server nobody", 4, "servers.embody.dev \"nobody\" not found").await;
    fails(&site, "get servers -l a==b=c", 1, "label selector").await;
}

/// Habits that people have from kubectl.
#[tokio::test]
async fn habits_are_met() {
    let site = rack().await;
    site.call("PATCH", "/networks/web", json!({ "metadata": { "labels": { "tier": "front", "a.example/rack": "r7" } } })).await;
    site.create(network("db", 140)).await;
    assert_eq!(ok(&site, "get net --no-headers --field-selector spec.vlan=140").await.lines().count(), 1);
    let labels = ok(&site, "get net web -L tier,a.example/rack --show-labels").await;
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (head, row) = (cells(labels.lines().next().unwrap()), cells(labels.lines().nth(1).unwrap()));
    assert_eq!(
        (&head[5..], &row[5..]),
        (&["TIER", "RACK", "LABELS"].map(str::to_owned)[..], &["front", "r7", "a.example/rack=r7,tier=front"].map(str::to_owned)[..])
    );
    assert!(ok(&site, "get net db --show-labels").await.contains("<none>"));
    fails(&site, "get net web --field-selector spec.vlan=1", 2, "exclude each other").await;
    fails(&site, "get net --field-selector spec.vlann=1", 1, "expected FIELD=VALUE").await;
    for line in ["get sw,bd -A", "get net -n default"] {
        let done = run(&site, line).await;
        assert!(done.code == 0 && done.err.contains("there are no namespaces"), "{}", done.err);
    }
    assert!(ok(&site, "api-resources").await.contains("bd"));
    assert!(ok(&site, "describe web-1").await.contains("Kind:         Binding"));
    fails(&site, "describe nobody", 2, "expected one of Policy").await;
    assert!(ok(&site, "version").await.contains(concat!("controller ", env!("CARGO_PKG_VERSION"))));

    assert_eq!(ok(&site, "label net web db rack=r7").await, "Network/web labelled\nNetwork/db labelled\n");
    assert_eq!(ok(&site, "label net/web rack=r7").await, "Network/web unchanged\n");
    fails(&site, "label net web rack=r8", 1, "has `rack=r7` already").await;
    assert_eq!(ok(&site, "label net web rack=r8 --overwrite").await, "Network/web labelled\n");
    assert_eq!(ok(&site, "label net web db rack-").await, "Network/web labelled\nNetwork/db labelled\n");
    assert_eq!(ok(&site, "get net -l rack -o name").await, "");
    assert_eq!(ok(&site, "annotate net web note=a=b").await, "Network/web annotated\n");
    fails(&site, "annotate net web embody.dev/source=me", 2, "embody's own").await;
    fails(&site, "label net web", 2, "KEY=VALUE").await;
    fails(&site, "label net web rack=r1 db", 2, "KEY=VALUE").await;
    let vlan = async || site.call("GET", "/networks/web", Value::Null).await.1["spec"]["vlan"].clone();
    assert!(ok(&site, "patch net web -p {\"spec\":{\"vlan\":121}} --dry-run=server").await.contains("server dry run"));
    assert_eq!(vlan().await, 120);
    ok(&site, "patch net web -p {\"spec\":{\"vlan\":121}}").await;
    assert_eq!(vlan().await, 121);
    ok(&site, "patch net/web --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/vlan\",\"value\":122}]").await;
    assert_eq!(vlan().await, 122);
    fails(&site, "patch net web -p {\"spec\":{\"vlann\":1}}", 1, "unknown field \"spec.vlann\"").await;

    // Of a selector that is empty, or of names beside it, nobody knows what is meant.
    fails(&site, "delete net -l", 2, "a value is required").await;
    fails(&site, "delete net web -l tier=front", 2, "-l goes with one kind").await;
    assert_eq!(ok(&site, "delete net -l tier=back").await, "");
    assert_eq!(ok(&site, "delete net -l tier!=front").await, "Network/db deleted\n");
    assert!(ok(&site, "get net -o name").await.contains("network/web"));
}

#[tokio::test]
async fn apply_diff_and_delete() {
    let site = rack().await;
    let write = |name: &str, text: &str| std::fs::write(site.dir.path().join(name), text).unwrap();
    std::fs::create_dir_all(site.dir.path().join("m/deep")).unwrap();
    write("m/a.yaml", &format!("{}\n---\n{}\n---\n# nothing\n", network("web", 120), network("new", 7)));
    write("m/deep/b.yml", &network("deep", 8).to_string());
    write("m/README", "not a manifest: [");
    assert_eq!(
        ok(&site, "apply -f m --dry-run=server").await,
        "Network/web unchanged (server dry run)\nNetwork/new created (server dry run)\n"
    );
    let diff = run(&site, "diff -f m").await;
    assert_eq!(diff.code, 1, "{}", diff.err);
    assert!(
        diff.out.contains("+++ Network/new (wanted)") && diff.out.contains("+  vlan: 7") && !diff.out.contains("Network/web"),
        "{}",
        diff.out
    );
    assert_eq!(ok(&site, "apply -f m -R").await, "Network/web unchanged\nNetwork/new created\nNetwork/deep created\n");
    assert_eq!(ok(&site, "diff -f m -R").await, "");
    write("secret.yaml", &secret("bmc", "hunter3").to_string());
    let diff = run(&site, "diff -f secret.yaml").await;
    assert!(diff.code == 1 && diff.out.contains("hidden values differ") && !diff.out.contains("hunter"), "{}", diff.out);

    write("bad.yaml", &format!("{}\n---\n{}\n", network("bad-1", 1), network("bad-2", 1)));
    fails(&site, "apply -f bad.yaml", 1, "Network/bad-2 is bad").await;
    fails(&site, "diff -f bad.yaml", 2, "Network/bad-1 is bad").await;
    fails(&site, "apply -f nowhere.yaml", 1, "nowhere.yaml").await;
    fails(&site, "diff -f nowhere.yaml", 2, "nowhere.yaml").await;
    write("typo.yaml", &site::object("Network", "x", json!({ "vlann": 1 })).to_string());
    fails(&site, "apply -f typo.yaml", 1, "vlann").await;
    assert_eq!(ok(&site, "get networks -o name").await, "network/deep\nnetwork/new\nnetwork/web\n");

    // The second refers to what is at the controller alone, and standard input is read once.
    for (object, said) in [(network("piped", 9), "Network/piped created\n"), (persona("refers"), "Persona/refers created\n")] {
        let mut child = command(&site, "apply -f -").stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).await.unwrap();
        assert_eq!(done(child.wait_with_output().await.unwrap()).out, said);
    }
    assert_eq!(ok(&site, "delete persona refers").await, "Persona/refers deleted\n");

    fails(&site, "delete network web", 5, "Persona/p refers to it").await;
    fails(&site, "delete network nobody", 4, "not found").await;
    fails(&site, "delete networks", 2, "say which").await;
    assert_eq!(ok(&site, "delete network nobody --ignore-not-found").await, "");
    assert_eq!(ok(&site, "delete network piped deep").await, "Network/piped deleted\nNetwork/deep deleted\n");
    write("gone.yaml", &format!("{}\n---\n{}\n", persona("p"), binding("web-1", "p", "s")));
    assert_eq!(ok(&site, "delete -f gone.yaml").await, "Binding/web-1 deleted\nPersona/p deleted\n");
    let nothing = run(&site, "apply").await;
    assert_eq!(nothing.code, 2);
}

#[tokio::test]
async fn a_client_dry_run_needs_no_controller() {
    let mut site = Site::start().await;
    site.stop().await.unwrap();
    std::fs::write(site.dir.path().join("n.yaml"), network("web", 1).to_string()).unwrap();
    assert_eq!(ok(&site, "apply -f n.yaml --dry-run=client").await, "Network/web valid (client dry run)\n");
    for line in ["get bindings", "apply -f n.yaml", "diff -f n.yaml", "wait binding x", "why x"] {
        fails(&site, line, 3, "embody serve").await;
    }
    fails(&site, "get bindings --server http://x", 2, "expected unix:///PATH").await;
}

#[tokio::test]
async fn people_speak() {
    let site = rack().await;
    let adopted = ok(&site, "approve web-1 --adopt").await;
    assert_eq!(adopted.matches("What would follow").count(), 2, "it became something else meanwhile, and is shown again: {adopted}");
    assert!(adopted.contains("IPMI s soft-off") && adopted.contains("\napprove web-1 Adopt by "), "{adopted}");
    assert!(ok(&site, "approve binding/web-1 --yes").await.contains("\napprove web-1 ThePlan"));
    assert!(ok(&site, "accept s").await.starts_with("accept Server/s"));
    assert!(ok(&site, "retry web-1").await.starts_with("retry Binding/web-1"));
    assert!(ok(&site, "retry server s").await.starts_with("retry Server/s"));
    assert!(ok(&site, "pause --all --reason move --for 2h").await.contains("pause Everything because move for Some(7200)"));
    assert!(ok(&site, "pause -l rack=r7 --reason move").await.contains("\"rack\": \"r7\""));
    fails(&site, "pause server/s --reason x --for 0s", 2, "found a pause of no time").await;
    let pauses = ok(&site, "get pauses").await;
    assert!(
        pauses.starts_with("PAUSED ") && pauses.contains("new cables\\u{7}") && pauses.contains("embody resume server web-1"),
        "{pauses}"
    );
    assert!(ok(&site, "resume server/s").await.contains("resume Object { kind: Server, name: \"s\" }"));
    assert_eq!(ok(&site, "restart web-1").await, "Binding/web-1 restart 1 desired\n");
    assert_eq!(ok(&site, "restart bindings web-1").await, "Binding/web-1 restart 2 desired\n");
    assert_eq!(ok(&site, "why web-1").await, "Binding/web-1 waits for its ports.\n");
    assert_eq!(ok(&site, "why t").await, "Server/t waits for its ports.\n");
    fails(&site, "why nobody", 4, "no object of any kind is named `nobody`").await;
    site.create(binding("idle", "p", "t")).await;
    fails(&site, "approve idle", 5, "nothing of idle waits").await;
    fails(&site, "approve server/s", 2, "expected a Binding").await;
    let told = site.control.told.lock().unwrap().len();
    for words in ["approve web-1 nosuch idle", "approve bindings web-1 nosuch --yes", "restart web-1 nosuch"] {
        fails(&site, words, 4, "no binding is named `nosuch`: nothing was done").await;
    }
    assert_eq!(site.control.told.lock().unwrap().len(), told);
    assert_eq!(ok(&site, "restart web-1").await, "Binding/web-1 restart 3 desired\n");
    fails(&site, "declare s t off --reason cable", 2, "one server at a time").await;
    for line in ["pause --reason x", "pause --all s --reason x", "pause --all", "resume", "pause s --reason x --for 1y"] {
        assert_eq!(run(&site, line).await.code, 2, "{line}");
    }
}

#[tokio::test]
async fn what_a_device_says_stays_within_its_line() {
    let site = rack().await;
    site.create(network("odd", 7)).await;
    let odd = "\nBinding web is Ready\u{202e}\u{2028}x";
    site.store.set_status(Kind::Network, "odd", json!({ "observedGeneration": 1, "conditions": [], "said": odd })).await;
    let event = json!({ "time": "2026-01-01T00:00:00Z", "type": "Normal", "regarding": "Network/odd", "reason": "Seen", "message": odd });
    site.store.record_event(event.to_string().into_bytes()).await.unwrap();
    for line in
        ["why network odd", "describe network odd", "events", "get network odd -o yaml", "get network odd -o json", "get networks -o wide"]
    {
        let out = ok(&site, line).await;
        assert!(
            !out.contains(['\u{202e}', '\u{2028}']) && !out.lines().any(|l| l.trim_start().starts_with("Binding web")),
            "{line}: {out}"
        );
    }
    let read: Value = serde_json::from_str(&ok(&site, "get network odd -o json").await).unwrap();
    assert_eq!(read["status"]["said"], odd);
}

#[tokio::test]
async fn describe_events_and_plan() {
    let site = rack().await;
    let event = |regarding: &str| json!({ "time": "2026-01-01T00:00:00Z", "type": "Warning", "regarding": regarding, "reason": "Drift", "message": "a\u{1b}b" });
    for regarding in ["Binding/web-1", "Server/s"] {
        site.store.record_event(event(regarding).to_string().into_bytes()).await.unwrap();
    }
    let out = ok(&site, "describe binding web-1").await;
    for part in [
        "Name:         web-1\n",
        "Off→On",
        "Moving",
        "p may still run on t",
        "src/plan/fence.rs:88",
        "IPMI s power on",
        "a\\u{1b}b",
        "persona: p",
    ] {
        assert!(out.contains(part), "expected `{part}` in: {out}");
    }
    assert!(!out.contains('\u{1b}'));
    assert_eq!(cells(&ok(&site, "events").await).len(), 3);
    assert_eq!(cells(&ok(&site, "events server/s").await)[1][3], "Server/s");
    std::fs::write(site.dir.path().join("n.yaml"), network("web", 1).to_string()).unwrap();
    let out = ok(&site, "plan -f n.yaml").await;
    assert!(out.starts_with("1 server affected, 2 link flaps, 0 power-offs, 1 held\n"), "{out}");
    assert!(out.contains("SNMP tor-1 Gi1/0/1 1 → web") && out.contains("Waits:\n  s1: power\\u{7}\n"), "{out}");
    let writes = "network wanted\n       SET ifAdminStatus.101 = down(2)\n       SET dot1qPvid.1 = 7\\u{7}\n";
    assert!(out.contains(writes), "{out}");
    let json: Value = serde_json::from_str(&ok(&site, "plan -f n.yaml -o json").await).unwrap();
    assert_eq!(json["steps"][0]["writes"][0], "SET ifAdminStatus.101 = down(2)");
    let json: Value = serde_json::from_str(&ok(&site, "plan -o json").await).unwrap();
    assert_eq!(json["steps"], json!([]));
}

async fn line(reader: &mut (impl AsyncBufReadExt + Unpin)) -> String {
    let mut text = String::new();
    timeout(LONG, reader.read_line(&mut text)).await.expect("a line in time").unwrap();
    text
}

fn spawned(site: &Site, words: &str) -> (Child, BufReader<tokio::process::ChildStdout>, BufReader<tokio::process::ChildStderr>) {
    let mut child = command(site, words).spawn().unwrap();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    (child, BufReader::new(out), BufReader::new(err))
}

#[tokio::test]
async fn wait_shows_progress_and_ends() {
    let site = rack().await;
    let (mut child, mut out, mut err) = spawned(&site, "wait binding web-1 --for=condition=Ready --timeout=60s");
    assert_eq!(line(&mut err).await, "Binding/web-1: Ready=False Moving: because Moving\n");
    // A spec that nobody has observed yet is not ready, whatever was said before.
    site.call("PATCH", "/bindings/web-1", json!({ "spec": { "restart": 1 } })).await;
    assert!(line(&mut err).await.contains("not said of the present spec"));
    site.store.set_status(Kind::Binding, "web-1", json!({ "conditions": [condition("True", "Converged", 1)] })).await;
    site.store.set_status(Kind::Binding, "web-1", json!({ "conditions": [condition("True", "Converged", 2)] })).await;
    assert!(line(&mut err).await.contains("True before: Converged"));
    assert_eq!(line(&mut out).await, "Binding/web-1 condition met\n");
    assert_eq!(timeout(LONG, child.wait()).await.unwrap().unwrap().code(), Some(0));

    assert_eq!(ok(&site, "wait binding/web-1 --for condition=ready").await.lines().count().min(1), 1);
    assert_eq!(ok(&site, "wait server/s --for=jsonpath={.status.power}=Off").await, "Server/s condition met\n");
    fails(&site, "wait binding web-1 --for=condition=Ready=False --timeout=1s", 1, "Ready=True Converged: because Converged").await;
    fails(&site, "wait binding nobody", 4, "is not there").await;
    assert_eq!(ok(&site, "wait bindings").await, "Binding/web-1 condition met\n");
    fails(&site, "wait switches", 4, "nothing of that kind").await;
    assert_eq!(ok(&site, "wait switches --for=delete").await, "");
    fails(&site, "wait binding web-1 --for=Ready", 2, "expected condition=TYPE").await;
    assert_eq!(ok(&site, "wait binding nobody --for=delete").await, "Binding/nobody deleted\n");

    let (mut child, _out, mut err) = spawned(&site, "wait binding web-1 --for=delete");
    assert!(line(&mut err).await.contains("still there"));
    assert_eq!(ok(&site, "delete binding web-1").await, "Binding/web-1 deleted\n");
    assert_eq!(timeout(LONG, child.wait()).await.unwrap().unwrap().code(), Some(0));
}

/// Reads lines until one of them says this; each has to come in time.
async fn until(from: &mut (impl AsyncBufReadExt + Unpin), what: &str) {
    while !line(from).await.contains(what) {}
}

#[tokio::test]
async fn wait_outlives_a_restart_of_the_controller() {
    let mut site = rack().await;
    let (mut child, mut out, mut err) = spawned(&site, "wait binding web-1 --timeout=60s");
    assert!(line(&mut err).await.contains("Ready=False Moving"));
    site.stop().await.unwrap();
    // The connection of the moment may be cut first; that is said in its own words.
    until(&mut err, "no controller answers").await;
    site.serve();
    until(&mut err, "Ready=False Moving").await;
    site.store.set_status(Kind::Binding, "web-1", json!({ "conditions": [condition("True", "Converged", 1)] })).await;
    assert_eq!(line(&mut out).await, "Binding/web-1 condition met\n");
    assert_eq!(timeout(LONG, child.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn get_watches() {
    let mut site = rack().await;
    let (mut child, mut out, _err) = spawned(&site, "get networks -w");
    assert!(line(&mut out).await.starts_with("NAME   VLAN   ROLE"));
    assert!(line(&mut out).await.starts_with("web    120 "));
    site.call("PATCH", "/networks/web", json!({ "spec": { "vlan": 121 } })).await;
    assert!(line(&mut out).await.starts_with("web    121 "));
    site.create(network("other", 5)).await;
    assert!(line(&mut out).await.starts_with("other   5 "));
    // The end of the controller is the end of the watch.
    site.stop().await.unwrap();
    assert_eq!(timeout(LONG, child.wait()).await.unwrap().unwrap().code(), Some(3));
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let site = rack().await;
    let (mut child, mut out, mut err) = spawned(&site, "get networks -w");
    line(&mut out).await;
    drop(out);
    // More than one change: a child that another test is just starting may hold the pipe for a moment.
    let mut vlan = 121;
    let code = loop {
        site.call("PATCH", "/networks/web", json!({ "spec": { "vlan": vlan } })).await;
        match timeout(Duration::from_millis(100), child.wait()).await {
            Ok(status) => break status.unwrap().code(),
            Err(_) => vlan += 1,
        }
        assert!(vlan < 400, "it does not end");
    };
    assert_eq!((code, line(&mut err).await.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn explain_schema_completion_and_help() {
    let site = Site::start().await;
    let out = ok(&site, "explain server.spec.nics.port").await;
    assert!(out.contains("port <string>") && out.contains("ifAlias"), "{out}");
    let out = ok(&site, "explain Binding.spec").await;
    assert!(out.contains("persona <name> -required-") && out.contains("shutdown <Object>"), "{out}");
    let out = ok(&site, "explain persona.spec.root.nfs.mode").await;
    assert!(out.contains("overlay") && out.contains("writable"), "{out}");
    assert!(ok(&site, "explain secret.stringData").await.contains("username"));
    assert!(ok(&site, "explain network.metadata.labels").await.contains("selectors"));
    fails(&site, "explain server.spec.nicks", 4, "did you mean `nics`?").await;
    let schema: Value = serde_json::from_str(&ok(&site, "schema").await).unwrap();
    assert!(schema["$defs"]["Vlan"].is_object());
    assert!(ok(&site, "completion bash").await.contains("_embody"));
    let help = ok(&site, "--help").await;
    assert!(help.contains("Exit codes:") && help.contains("3  no controller answers"), "{help}");
    for (line, word) in [
        ("inspect switch 192.0.2.1", "--community"),
        ("inspect switch 192.0.2.1 --user u", "--auth"),
        ("inspect bmc h:0 --user u --password-file f", "expected host"),
        ("serve --prune", "--manifests"),
        ("serve --store http://x", "etcd://HOST:PORT"),
        ("frobnicate", "frobnicate"),
    ] {
        fails(&site, line, 2, word).await;
    }
    fails(&site, "inspect bmc 192.0.2.1 --user u --password-file nowhere", 1, "cannot open the password file nowhere").await;
}

#[tokio::test]
async fn what_is_wrong_with_all_answers_is_said_once() {
    let site = Site::start().await;
    let word = SiteCondition { ok: false, reason: "StatusesNotStored", message: "statuses cannot be stored since 05:00".to_owned() };
    site.conditions.send_modify(|all| drop(all.insert("StatusesStored", word)));
    let done = run(&site, "get all").await;
    assert_eq!(done.err.matches("warning: statuses cannot be stored since 05:00\n").count(), 1, "{}", done.err);
    assert_eq!(done.code, 0);
}

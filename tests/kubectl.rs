//! kubectl, unmodified, of several versions: people send our files with it, one object after the other, read, edit, wait and watch.
//!
//! Each test is one story, with each version. Leaves out the door that a network would come through: a forwarder stands before the socket.
//! `EMBODY_KUBECTL` names the folder of the programs (`tests/run` makes it).

#[path = "rack/controller.rs"]
#[allow(dead_code, reason = "the rack uses the rest")]
mod controller;
mod free_port;
#[path = "rack/programs.rs"]
#[allow(dead_code, reason = "the rack uses the rest")]
mod programs;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use controller::{Controller, Outcome};
use free_port::free_port;
use programs::{is_skipped_without, until};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const VERSIONS: [&str; 2] = ["1.30", "1.37"];
const LONG: Duration = Duration::from_secs(240);
/// Their devices have one place each.
static EXAMPLES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A controller of its own, and a kubectl that speaks to it.
struct Bench {
    dir: TempDir,
    controller: Controller,
    kubectl: PathBuf,
    port: u16,
    forwards: tokio::task::JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.forwards.abort();
    }
}

impl Bench {
    async fn start(kubectl: PathBuf) -> Bench {
        let dir = TempDir::new().unwrap();
        let mut controller = Controller::new(dir.path(), "controller", &["--boot-address", "127.0.0.1:0"]);
        controller.start().await;
        let (port, socket) = (free_port(), controller.socket());
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let forwards = tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let socket = socket.clone();
                tokio::spawn(async move {
                    let Ok(mut to) = UnixStream::connect(socket).await else { return };
                    let _ended = copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        let bench = Bench { dir, controller, kubectl, port, forwards };
        until("it acts", Duration::from_secs(20), async || match bench.say("get policies").await {
            Outcome { code: 0, out, .. } if out.contains("default") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        bench
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        // Its own configuration is that of nobody.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.dir.path()).env("KUBECONFIG", "/dev/null");
        command.args(["--server", &format!("http://127.0.0.1:{}", self.port)]).args(words);
        command.stdin(Stdio::null()).kill_on_drop(true).current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }

    async fn outcome(&self, mut command: Command) -> Outcome {
        let output = timeout(LONG, command.output()).await.expect("it ends").unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Words between spaces.
    async fn say(&self, words: &str) -> Outcome {
        self.outcome(self.command(&words.split_whitespace().collect::<Vec<_>>())).await
    }

    /// What must go well; what was printed, without warnings.
    async fn ok(&self, words: &str) -> String {
        let said = self.say(words).await;
        assert_eq!(said.code, 0, "{words}: {}{}\n{}", said.out, said.err, self.controller.log());
        said.out
    }

    async fn fails(&self, words: &str, with: &str) {
        let said = self.say(words).await;
        assert!(said.code != 0 && said.err.contains(with), "{words}: {} {}{}", said.code, said.out, said.err);
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// One that goes on.
    fn begin(&self, words: &str) -> (Child, tokio::io::Lines<BufReader<tokio::process::ChildStdout>>) {
        let mut child = self.command(&words.split_whitespace().collect::<Vec<_>>()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    }
}

fn programs() -> Vec<PathBuf> {
    let named = std::env::var_os("EMBODY_KUBECTL").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/kubectl"));
    let all = VERSIONS.iter().map(|version| folder.join(format!("kubectl-{version}")));
    all.filter(|path| path.is_file() || !is_skipped_without(&path.display().to_string())).collect()
}

async fn benches() -> Vec<Bench> {
    let mut out = Vec::new();
    for program in programs() {
        out.push(Bench::start(program).await);
    }
    out
}

fn network(name: &str, spec: &str) -> String {
    format!("apiVersion: embody.dev/v1alpha1\nkind: Network\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n")
}

#[tokio::test]
async fn it_finds_and_explains_the_kinds() {
    for bench in benches().await {
        let kinds = bench.ok("api-resources --api-group=embody.dev --no-headers -o wide").await;
        for (short, plural) in [
            ("bd", "bindings"),
            ("net", "networks"),
            ("pe", "personas"),
            ("pol", "policies"),
            ("sec", "secrets"),
            ("srv", "servers"),
            ("sw", "switches"),
        ] {
            let line = kinds.lines().find(|line| line.starts_with(plural)).unwrap_or_else(|| panic!("{kinds}"));
            assert!(line.split_whitespace().nth(1) == Some(short) && line.contains("all,embody"), "{line}");
            assert!(bench.ok(&format!("explain {short} --recursive")).await.contains("FIELDS:"));
        }
        let nics = bench.ok("explain bd.spec.nics").await;
        assert!(nics.contains("interface\t<string>") && nics.contains("The server's NIC or bond."), "{nics}");
        assert!(bench.ok("explain server.status").await.contains("Personas that this body may run, by evidence."));
        assert!(bench.ok("get all").await.contains("policy.embody.dev/default"));
        assert_eq!(bench.ok("get sw,bd").await, "");
        assert!(bench.ok("version").await.contains("embody"));
        assert_eq!((bench.ok("get --raw /livez").await, bench.ok("get --raw /readyz").await), ("ok".to_owned(), "ok".to_owned()));
    }
}

/// The files as they are, and the rack that they name, simulated: its bindings come to life.
#[tokio::test]
async fn the_rack_of_the_examples_comes_to_life() {
    let _alone = EXAMPLES.lock().await;
    for bench in benches().await {
        let mut sim = Command::new(env!("CARGO_BIN_EXE_embody"));
        sim.args(["sim", "-f", "examples"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut sim = sim.spawn().unwrap();
        let mut said = BufReader::new(sim.stdout.take().unwrap()).lines();
        assert!(timeout(LONG, said.next_line()).await.unwrap().unwrap().unwrap().contains("12 BMCs"));
        bench.ok("apply -f examples").await;
        until("eight bindings", Duration::from_secs(60), async || {
            let all = bench.ok("get bd --no-headers").await;
            let ready = all.lines().filter(|line| line.split_whitespace().nth(3) == Some("True")).count();
            if ready == 8 { Ok(()) } else { Err(all) }
        })
        .await;
        sim.kill().await.unwrap();
    }
}

/// In the order in which it sends them: what refers comes before what it refers to.
#[tokio::test]
async fn it_sends_our_examples_and_takes_them_away() {
    let _alone = EXAMPLES.lock().await;
    for bench in benches().await {
        let said = bench.say("apply -f examples").await;
        let objects = said.out.lines().filter(|line| line.ends_with(" created") || line.ends_with(" configured")).count();
        assert_eq!((said.code, objects), (0, 39), "{}{}", said.out, said.err);
        assert!(said.err.contains("Warning: Binding `apache` names the Persona `apache`, which does not exist"), "{}", said.err);
        // Secrets keep no copy of what was applied: it would hold their values.
        let again = bench.ok("apply -f examples").await;
        let changed: Vec<&str> = again.lines().filter(|line| !line.ends_with(" unchanged") && !line.starts_with("secret.")).collect();
        assert_eq!((changed, again.lines().count()), (vec![], 39), "{again}");
        for file in ["bindings", "networks", "personas", "policy", "servers", "switches"] {
            assert_eq!(bench.ok(&format!("diff -f examples/{file}.yaml")).await, "");
        }
        // The controller sees all of it, and none of the devices.
        bench.controller.reads("binding", "apache", "Stalled", &["False Free"], 60).await;

        // It does not sort them, and does not go back: what is still referred to is said, and goes the next time.
        let first = bench.say("delete -f examples").await;
        assert!(first.code == 1 && first.err.contains("Network/storage is not deleted: Persona/apache"), "{}", first.err);
        let second = bench.ok("delete -f examples --ignore-not-found").await;
        assert!(second.contains("\"storage\" deleted"), "{second}");
        assert_eq!(bench.ok("get bd,net,pe,srv,sw,sec -o name").await, "");
    }
}

#[tokio::test]
async fn a_typo_is_said_by_every_verb() {
    for bench in benches().await {
        let (good, bad) = (bench.file("good.yaml", &network("web", "vlan: 120")), bench.file("bad.yaml", &network("web", "vlann: 120")));
        let strict = "strict decoding error: unknown field \"spec.vlann\"";
        for verb in ["apply", "create", "apply --dry-run=server", "create --dry-run=server"] {
            bench.fails(&format!("{verb} -f {bad}"), strict).await;
        }
        bench.fails("get net web", "not found").await;
        bench.ok(&format!("create -f {good}")).await;
        for verb in ["apply", "replace", "diff"] {
            bench.fails(&format!("{verb} -f {bad}"), strict).await;
        }
        bench.fails("patch net web --type=merge -p {\"spec\":{\"vlann\":1}}", strict).await;
        bench.fails(&format!("create -f {good}"), "already exists").await;
        let wrong = bench.file("wrong.yaml", &network("web", "vlan: 5000"));
        bench.fails(&format!("apply -f {wrong}"), "5000").await;
        assert_eq!(bench.ok("get net web -o jsonpath={.spec.vlan}").await, "120");
        assert!(
            bench
                .ok(&format!("apply --dry-run=server -f {}", bench.file("other.yaml", &network("other", "vlan: 7"))))
                .await
                .contains("server dry run")
        );
        bench.fails("get net other", "not found").await;
    }
}

#[tokio::test]
async fn objects_are_changed_in_each_way() {
    for bench in benches().await {
        let file = bench.file("web.yaml", &network("web", "vlan: 120"));
        bench.ok(&format!("apply -f {file}")).await;
        bench.ok("label net web tier=front").await;
        bench.ok("annotate net web who=me").await;
        bench.ok("patch net web --type=merge -p {\"spec\":{\"vlan\":121}}").await;
        bench.ok("patch net web --type=json -p [{\"op\":\"test\",\"path\":\"/spec/vlan\",\"value\":121},{\"op\":\"replace\",\"path\":\"/spec/vlan\",\"value\":122}]").await;
        let mut edit = bench.command(&["edit", "net", "web"]);
        edit.env("KUBE_EDITOR", "sed -i s/122/123/");
        let edited = bench.outcome(edit).await;
        assert_eq!((edited.code, edited.out.trim()), (0, "network.embody.dev/web edited"), "{}", edited.err);
        assert_eq!(
            bench.ok("get net -l tier=front -o custom-columns=N:.metadata.name,V:.spec.vlan --no-headers").await.trim(),
            "web   123"
        );
        // What was applied last is what an apply compares with: a label of somebody else stays, the VLAN goes back.
        let difference = bench.say(&format!("diff -f {file}")).await;
        assert!(difference.code == 1 && difference.out.contains("+  vlan: 120"), "{}{}", difference.out, difference.err);
        bench.ok(&format!("apply -f {file}")).await;
        assert_eq!(bench.ok("get net web -o jsonpath={.spec.vlan}{.metadata.labels.tier}{.metadata.annotations.who}").await, "120frontme");
        bench.ok(&format!("replace -f {file}")).await;
        assert_eq!(bench.ok("get net web -o jsonpath={.metadata.labels.tier}").await, "");
        for n in 1..=4 {
            bench
                .ok(&format!("create -f {}", bench.file("more.yaml", &network(&format!("n{n}"), &format!("vlan: {n}, role: storage")))))
                .await;
        }
        let all = "n1 n2 n3 n4 web";
        assert_eq!(bench.ok("get net --chunk-size=2 -o jsonpath={.items[*].metadata.name}").await, all);
        assert_eq!(bench.ok("get net --field-selector spec.role!=storage -o jsonpath={.items[*].metadata.name}").await, "web");
        bench.fails("get net --field-selector spec.nothing=1", "expected FIELD=VALUE").await;
        let wide = bench.ok("get net -o wide --sort-by=.spec.vlan --show-labels").await;
        assert!(wide.starts_with("NAME") && wide.contains("SEGMENTS") && wide.contains("LABELS"), "{wide}");
    }
}

#[tokio::test]
async fn it_waits_and_watches() {
    for bench in benches().await {
        let file = bench.file("web.yaml", &network("web", "vlan: 120"));
        bench.ok(&format!("apply -f {file}")).await;
        let (mut watching, mut rows) = bench.begin("get net -w");
        let mut row = async || timeout(LONG, rows.next_line()).await.expect("a row").unwrap().expect("it goes on");
        assert!(row().await.starts_with("NAME"));
        let columns = async |row: String| row.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(columns(row().await).await, ["web", "120", "service"]);
        let (waiting, patched) = tokio::join!(bench.ok("wait --for=jsonpath={.spec.vlan}=121 net/web --timeout=200s"), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            bench.ok("patch net web --type=merge -p {\"spec\":{\"vlan\":121}}").await
        });
        assert!(waiting.contains("condition met"), "{waiting} {patched}");
        // A whole row, without heads.
        assert_eq!(columns(row().await).await, ["web", "121", "service"]);
        bench.ok("wait --for=condition=Ready policy/default --timeout=200s").await;
        let (gone, _) = tokio::join!(bench.ok("wait --for=delete net/web --timeout=200s"), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            bench.ok("delete net web").await
        });
        assert!(gone.contains("condition met"), "{gone}");
        assert_eq!(columns(row().await).await, ["web", "121", "service"]);
        watching.kill().await.unwrap();
    }
}

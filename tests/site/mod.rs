//! What the tests of the API and of the command line share: a store in memory, a stand-in for the controller, a server on a real socket.
//!
//! Leaves out: the store's own conformance (`tests/store.rs`). Invariant: nothing here knows the API.
#![allow(dead_code, reason = "each of the two test programs uses its part")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use embody::testing::byte_channel;
use embody::testing::control::operator::{
    ApprovalShown, Approving, Control, Declaring, DiscoveredRow, Forecast, ForecastStep, ImageRow, LeaseRow, PauseRow, PortRow, Refusal,
    Scope, StartRow,
};
use embody::testing::control::status_writer::Site as Conditions;
use embody::testing::model::body::BootsOnce;
use embody::testing::model::image::{Image, ImageName};
use embody::testing::model::{Kind, Name, Object};
use embody::testing::server::api;
use embody::testing::store::{Change, Changes, Entry, Expect, Lease, Revision, Store, StoreError, Write};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::oneshot;

type Watcher = (String, byte_channel::Sender<Result<Change, StoreError>>);

#[derive(Default)]
struct Inner {
    revision: Revision,
    oldest: Revision,
    entries: BTreeMap<String, Entry>,
    history: Vec<Change>,
    watchers: Vec<Watcher>,
    events: Vec<Vec<u8>>,
}

#[derive(Default)]
pub struct MemoryStore(Mutex<Inner>);

fn place(change: &Change) -> (&str, Revision) {
    match change {
        Change::Put(entry) => (&entry.key, entry.revision),
        Change::Deleted { key, revision } => (key, *revision),
    }
}

impl Inner {
    fn record(&mut self, change: Change) -> Revision {
        self.history.push(change.clone());
        let theirs = self.watchers.iter().filter(|(prefix, _)| place(&change).0.starts_with(prefix.as_str()));
        theirs.for_each(|(_, to)| to.send_last(Ok(change.clone())));
        self.revision
    }
}

impl MemoryStore {
    pub fn revision(&self) -> Revision {
        self.0.lock().unwrap().revision
    }

    /// As a controller does it: read, change, compare-and-set.
    pub async fn set_status(&self, kind: Kind, name: &str, status: Value) {
        let key = api::objects::key(kind, name);
        loop {
            let entry = self.get(&key).await.unwrap().expect("the object is there");
            let mut object: Value = serde_json::from_slice(&entry.value).unwrap();
            object["status"] = status.clone();
            if self.put_if(&key, object.to_string().into_bytes(), Expect::At(entry.revision)).await.is_ok() {
                return;
            }
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.0.lock().unwrap().entries.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError> {
        let inner = self.0.lock().unwrap();
        Ok((inner.entries.values().filter(|e| e.key.starts_with(prefix)).cloned().collect(), inner.revision))
    }

    async fn write_all(&self, writes: &[Write]) -> Result<Vec<Revision>, StoreError> {
        let mut inner = self.0.lock().unwrap();
        for write in writes {
            let found = inner.entries.get(&write.key).cloned();
            let as_expected = match (&found, write.expect) {
                (None, Expect::Absent) => true,
                (Some(entry), Expect::At(revision)) => entry.revision == revision,
                (Some(_), Expect::Absent) | (None, Expect::At(_)) => false,
            };
            if !as_expected {
                return Err(StoreError::Conflict { key: write.key.clone(), found });
            }
        }
        let mut one = |write: &Write| {
            inner.revision += 1;
            let (key, revision) = (write.key.clone(), inner.revision);
            let Some(value) = write.value.clone() else {
                inner.entries.remove(&key);
                return inner.record(Change::Deleted { key, revision });
            };
            let entry = Entry { key: key.clone(), value, revision, damaged: false };
            inner.entries.insert(key, entry.clone());
            inner.record(Change::Put(entry))
        };
        Ok(writes.iter().map(&mut one).collect())
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
        let mut inner = self.0.lock().unwrap();
        if after < inner.oldest {
            return Err(StoreError::Compacted { asked: after, oldest: inner.oldest });
        }
        let (to, changes) = byte_channel::channel(8 << 20, |_| 0);
        for change in inner.history.iter().filter(|c| place(c).1 > after && place(c).0.starts_with(prefix)) {
            to.send_last(Ok(change.clone()));
        }
        inner.watchers.push((prefix.to_owned(), to));
        Ok(changes)
    }

    async fn acquire(&self, name: &str, _holder: &str, _ttl: Duration) -> Result<Box<dyn Lease>, StoreError> {
        Err(StoreError::Fenced { lease: name.to_owned() })
    }

    async fn holder(&self, _name: &str) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        let inner = self.0.lock().unwrap();
        Ok(keys.iter().map(|key| inner.entries.get(key).cloned()).collect())
    }

    async fn heads(&self, prefix: &str) -> Result<Vec<(String, Revision)>, StoreError> {
        let (entries, _) = self.list(prefix).await?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.revision)).collect())
    }

    async fn record_events(&self, values: Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.0.lock().unwrap().events.extend(values);
        Ok(())
    }

    async fn events(&self, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let inner = self.0.lock().unwrap();
        Ok(inner.events[inner.events.len().saturating_sub(most)..].to_vec())
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        let mut inner = self.0.lock().unwrap();
        inner.oldest = through;
        inner.history.retain(|c| place(c).1 > through);
        Ok(())
    }
}

/// Notes what it is told; refuses to let `held` go.
#[derive(Default)]
pub struct StandIn {
    pub told: Mutex<Vec<String>>,
    pub ports: Mutex<Vec<PortRow>>,
    pub shown: std::sync::atomic::AtomicU32,
}

impl StandIn {
    fn note(&self, what: String) -> Result<String, Refusal> {
        self.told.lock().unwrap().push(what.clone());
        Ok(what)
    }
}

#[async_trait]
impl Control for StandIn {
    async fn images(&self) -> Result<Vec<ImageRow>, Refusal> {
        Ok(Vec::new())
    }
    async fn add_image(&self, name: &ImageName, _image: Image) -> Result<String, Refusal> {
        self.note(format!("image {name}"))
    }
    async fn remove_image(&self, name: &ImageName, force: bool, _: &str) -> Result<String, Refusal> {
        self.note(format!("remove {name} {force}"))
    }
    async fn forecast(&self, changes: Vec<Object>) -> Forecast {
        let step = |o: &Object| ForecastStep {
            wave: 1,
            server: "s1".parse().unwrap(),
            op: format!("SNMP tor-1 Gi1/0/1 1 → {}", o.name()),
            disruption: "link flap".to_owned(),
            because: "network wanted".to_owned(),
            writes: vec!["SET ifAdminStatus.101 = down(2)".to_owned(), "SET dot1qPvid.1 = 7\u{7}".to_owned()],
        };
        Forecast {
            servers: 1,
            link_flaps: 2,
            held: 1,
            steps: changes.iter().map(step).collect(),
            waits: vec!["s1: power\u{7}".into()],
            ..Forecast::default()
        }
    }

    async fn why(&self, kind: Kind, name: &Name) -> Result<String, Refusal> {
        // One that calls itself by a name that is to look like more.
        let neighbour = if name.as_str() == "odd" { "\nBinding web is Ready\u{202e}\u{2028}x" } else { "" };
        Ok(format!("{kind}/{name} waits for its ports.{neighbour}"))
    }

    async fn ports(&self) -> Vec<PortRow> {
        self.ports.lock().unwrap().clone()
    }

    async fn pauses(&self) -> Vec<PauseRow> {
        let row = |what: &str, until: Option<&str>| PauseRow {
            what: what.to_owned(),
            by: "ann".to_owned(),
            reason: "new cables\u{7}".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            until: until.map(str::to_owned),
            resume: format!("embody resume {what}"),
        };
        vec![row("server web-1", None), row("everything", Some("2026-01-01T02:00:00Z"))]
    }

    async fn leases(&self) -> Vec<LeaseRow> {
        let row = |address: &str, server: Option<&str>| LeaseRow {
            address: address.to_owned(),
            mac: "52:54:00:00:00:01".to_owned(),
            network: "boot".to_owned(),
            server: server.map(str::to_owned),
            since: "2026-01-01T00:00:00Z".to_owned(),
        };
        vec![row("10.0.0.10", Some("web-1")), row("10.0.0.11", None)]
    }

    async fn boot_once(&self, _: &Name, _: Option<BootsOnce>, _: &str) -> Result<String, Refusal> {
        Ok(String::new())
    }
    async fn starts(&self, _: Option<Name>) -> Vec<StartRow> {
        Vec::new()
    }
    async fn discovered(&self) -> Vec<DiscoveredRow> {
        vec![DiscoveredRow {
            mac: "52:54:00:00:00:02".to_owned(),
            uuid: Some("8f14e45f-ceea-467f-a0e6-000000000001".to_owned()),
            arch: Some("7".to_owned()),
            network: "boot".to_owned(),
            relay: None,
            at: "2026-01-01T00:00:00Z".to_owned(),
            what: "PXE, architecture 7".to_owned(),
        }]
    }

    async fn rotate_key(&self, who: &str) -> Result<String, Refusal> {
        self.note(format!("rotate by {who}"))
    }

    async fn show_approval(&self, binding: &Name, word: Approving) -> Result<ApprovalShown, Refusal> {
        if binding.as_str() == "idle" {
            return Err(Refusal::Refused { why: "nothing of idle waits for an approval".to_owned() });
        }
        // Once, something else is shown than is planned a moment later.
        let times = self.shown.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let digest = if times == 0 { "earlier".to_owned() } else { format!("{word:?}") };
        Ok(ApprovalShown { digest, forecast: self.forecast(Vec::new()).await, earlier: vec!["IPMI s soft-off".to_owned()] })
    }

    async fn approve(&self, binding: &Name, word: Approving, digest: &str, who: &str) -> Result<String, Refusal> {
        if digest != format!("{word:?}") {
            return Err(Refusal::Refused { why: format!("what {binding} would do is not what was shown any more: look at it again") });
        }
        self.note(format!("approve {binding} {word:?} by {who}"))
    }

    async fn declare(&self, server: &Name, what: Declaring, reason: &str, who: &str) -> Result<String, Refusal> {
        self.note(format!("declare {server} {what:?} because {reason} by {who}"))
    }

    async fn close_breaker(&self, who: &str) -> Result<String, Refusal> {
        Ok(format!("breaker by {who}"))
    }
    async fn accept_store(&self, who: &str) -> Result<String, Refusal> {
        self.note(format!("accept store by {who}"))
    }

    async fn accept(&self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal> {
        self.note(format!("accept {kind}/{name} by {who}"))
    }

    async fn retry(&self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal> {
        self.note(format!("retry {kind}/{name} by {who}"))
    }

    async fn pause(&self, scope: Scope, reason: &str, seconds: Option<u64>, who: &str) -> Result<String, Refusal> {
        self.note(format!("pause {scope:?} because {reason} for {seconds:?} by {who}"))
    }

    async fn resume(&self, scope: Scope, who: &str) -> Result<String, Refusal> {
        self.note(format!("resume {scope:?} by {who}"))
    }

    async fn may_delete(&self, _kind: Kind, name: &Name) -> Result<(), Refusal> {
        if name.as_str() == "held" { Err(Refusal::Refused { why: "held may still run web".to_owned() }) } else { Ok(()) }
    }

    async fn alive(&self, binding: &Name) -> Result<Option<String>, Refusal> {
        Ok((binding.as_str() == "alive").then(|| "server s1 is on".to_owned()))
    }
}

/// A server on a socket of its own.
pub struct Site {
    pub store: Arc<MemoryStore>,
    pub control: Arc<StandIn>,
    pub socket: PathBuf,
    pub dir: tempfile::TempDir,
    /// What is said of the site as a whole.
    pub conditions: Conditions,
    pub backend: Arc<api::Backend>,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<Result<(), api::BindError>>>,
}

/// Network names that begin with `bad` are wrong, and a binding needs its persona.
pub fn check() -> api::Check {
    Arc::new(|changed, existing| {
        let mut wrong = Vec::new();
        let objection = |text: String, dangles: bool| api::Objection { text, dangles };
        for object in changed {
            if object.name().as_str().starts_with("bad") {
                wrong.push(objection(format!("{}/{} is bad", object.kind(), object.name()), false));
            }
            if let embody::testing::model::Spec::Binding(spec) = &object.spec {
                let there = changed
                    .iter()
                    .chain(existing.iter().map(AsRef::as_ref))
                    .any(|o| o.kind() == Kind::Persona && *o.name() == spec.persona);
                if !there {
                    wrong.push(objection(format!("Binding/{}: no persona `{}`", object.name(), spec.persona), true));
                }
            }
        }
        wrong
    })
}

impl Site {
    pub async fn start() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/embody.sock");
        let (store, control) = (Arc::new(MemoryStore::default()), Arc::new(StandIn::default()));
        let conditions = Conditions::default();
        let backend = Arc::new(api::Backend::new(store.clone(), control.clone(), check(), conditions.clone()));
        let mut site = Site { store, control, socket, dir, conditions, backend, stop: None, served: None };
        site.serve();
        site
    }

    /// Serves what is in the store, at first or again.
    pub fn serve(&mut self) {
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = self.listener();
        self.backend = Arc::new(api::Backend::new(self.store.clone(), self.control.clone(), check(), self.conditions.clone()));
        self.served = Some(tokio::spawn(listener.serve(Arc::clone(&self.backend), async move { drop(stopped.await) })));
        self.stop = Some(stop);
    }

    /// The lock of a listener that has just ended may live on for a moment, in a child that another test of this process is starting: it has
    /// the descriptor until its exec.
    fn listener(&self) -> api::Listener {
        for _ in 0..200 {
            match api::Listener::bind(&self.socket) {
                Err(api::BindError::InUse { .. }) => drop(std::process::Command::new("true").status()),
                bound => return bound.unwrap(),
            }
        }
        api::Listener::bind(&self.socket).unwrap()
    }

    pub async fn stop(&mut self) -> Result<(), api::BindError> {
        self.stop.take().unwrap().send(()).unwrap();
        self.served.take().unwrap().await.unwrap()
    }

    pub async fn send(&self, method: &str, path: &str, content_type: &str, body: Vec<u8>) -> hyper::Response<Incoming> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::builder().method(method).uri(path).header("host", "x").header("content-type", content_type);
        sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
    }

    pub async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let path = if path.starts_with("/api") || path.starts_with("/version") || path.starts_with("/nope") {
            path.to_owned()
        } else {
            format!("/apis/embody.dev/v1alpha1{path}")
        };
        let response = self.send(method, &path, content_type, body).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{path}: {e}: {bytes:?}")))
    }

    /// Creates an object that must be taken.
    pub async fn create(&self, object: Value) -> Value {
        let kind: Kind = object["kind"].as_str().unwrap().parse().unwrap();
        let (status, answer) = self.call("POST", &format!("/{}", kind.plural()), object).await;
        assert_eq!(status, 201, "{answer}");
        answer
    }
}

pub fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "embody.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

pub fn network(name: &str, vlan: u16) -> Value {
    object("Network", name, json!({ "vlan": vlan }))
}

pub fn secret(name: &str, password: &str) -> Value {
    json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Secret", "metadata": { "name": name },
        "stringData": { "username": "ADMIN", "password": password } })
}

pub fn server(name: &str) -> Value {
    object("Server", name, json!({ "bmc": { "address": "192.0.2.1", "secretRef": { "name": "bmc" } } }))
}

pub fn persona(name: &str) -> Value {
    object(
        "Persona",
        name,
        json!({ "os": { "family": "linux" }, "root": { "disk": {} }, "nics": [{ "name": "front", "untagged": "web" }] }),
    )
}

pub fn binding(name: &str, persona: &str, server: &str) -> Value {
    object("Binding", name, json!({ "persona": persona, "target": { "server": server } }))
}

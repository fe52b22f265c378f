//! The client of the API: one request per connection over the unix socket. Leaves out: retries (a person can decide better).
//!
//! Invariant: where nobody answers, the message says how to start a controller. Shown by `tests/cli.rs`.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::failure::{Exit, Failure};
use crate::model::{Kind, Name};
use crate::server::api::socket;

pub(crate) const API: &str = "/apis/embody.dev/v1alpha1";

/// Where a controller is.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    path: PathBuf,
    warned: Arc<Once>,
}

/// `unix:///PATH`, or an absolute path.
pub(crate) fn socket_path(server: Option<&str>) -> Result<PathBuf, Failure> {
    let Some(text) = server.filter(|s| !s.is_empty()) else { return Ok(socket::default_path()) };
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    Err(Failure::usage(format!("found server `{text}`, expected unix:///PATH")))
}

/// A label or name as part of a query string.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().fold(String::new(), |mut out, b| {
        if plain(b) {
            out.push(char::from(b))
        } else {
            out.push_str(&format!("%{b:02X}"))
        }
        out
    })
}

/// `?a=b&c=d`, without the empty ones.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let list: Vec<String> = pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}={}", quoted(v))).collect();
    if list.is_empty() { String::new() } else { format!("?{}", list.join("&")) }
}

/// `/apis/…/bindings/web-1`.
pub(crate) fn path_of(kind: Kind, name: &Name) -> String {
    format!("{API}/{}/{name}", kind.plural())
}

impl Client {
    pub(crate) fn new(server: Option<&str>) -> Result<Client, Failure> {
        Ok(Client { path: socket_path(server)?, warned: Arc::new(Once::new()) })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None, "application/json").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::POST, path, Some(body), "application/json").await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::PATCH, path, Some(body), "application/merge-patch+json").await
    }

    pub(crate) async fn patch_json(&self, path: &str, operations: &Value) -> Result<Value, Failure> {
        self.call(Method::PATCH, path, Some(operations), "application/json-patch+json").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::DELETE, path, None, "application/json").await
    }

    /// A body of any length.
    pub(crate) async fn put(&self, path: &str, content_type: &str, body: BoxBody<Bytes, io::Error>) -> Result<Value, Failure> {
        let response = self.send_body(Method::PUT, path, content_type, body).await?;
        self.json(response).await
    }

    /// An answer of any length.
    pub(crate) async fn download(&self, path: &str) -> Result<Download, Failure> {
        let response = self.send(Method::GET, path, None, "application/json").await?;
        if response.status().is_success() { Ok(Download { response, from: self.path.clone() }) } else { Err(refused(response).await) }
    }

    /// One object, or nothing where there is none.
    pub(crate) async fn find(&self, kind: Kind, name: &Name) -> Result<Option<Value>, Failure> {
        match self.get(&path_of(kind, name)).await {
            Ok(object) => Ok(Some(object)),
            Err(failure) if failure.exit == Exit::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Changes, one at a time, as JSON lines.
    pub(crate) async fn watch(&self, path: &str) -> Result<Lines, Failure> {
        let response = self.send(Method::GET, path, None, "application/json").await?;
        if response.status().is_success() {
            return Ok(Lines { body: response.into_body(), rest: Vec::new() });
        }
        Err(refused(response).await)
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>, content_type: &str) -> Result<Value, Failure> {
        let response = self.send(method, path, body, content_type).await?;
        self.json(response).await
    }

    async fn json(&self, response: Response<Incoming>) -> Result<Value, Failure> {
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        let bytes = response.into_body().collect().await.map_err(|e| lost(&self.path, &e))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|e| Failure::failed(format!("the controller's answer does not read: {e}")))
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>, content_type: &str) -> Result<Response<Incoming>, Failure> {
        let bytes = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
        self.send_body(method, path, content_type, Full::new(bytes).map_err(|never| match never {}).boxed()).await
    }

    async fn send_body(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: BoxBody<Bytes, io::Error>,
    ) -> Result<Response<Incoming>, Failure> {
        self.trusted()?;
        let stream = UnixStream::connect(&self.path).await.map_err(|e| self.nobody(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| lost(&self.path, &e))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "embody")
            .header("content-type", content_type)
            .header("accept", "application/json")
            .body(body)
            .map_err(|e| Failure::failed(format!("the request `{path}` cannot be made: {e}")))?;
        let response = sender.send_request(request).await.map_err(|e| lost(&self.path, &e))?;
        if let Some(text) = response.headers().get("warning").and_then(|w| w.to_str().ok()).and_then(|w| w.split('"').nth(1)) {
            // Once: a verb that lists everything asks many times.
            self.warned.call_once(|| super::say(&format!("warning: {text}")));
        }
        Ok(response)
    }

    /// The default place under /tmp is open to all: what stands there must be ours, or root's.
    fn trusted(&self) -> Result<(), Failure> {
        let shared = self.path.starts_with("/tmp");
        let owner = std::fs::metadata(&self.path).map(|m| m.uid());
        match (owner, socket::own_uid()) {
            (Ok(owner), Some(me)) if shared && owner != 0 && owner != me => {
                let path = self.path.display();
                Err(Failure::new(Exit::NoController, format!("the socket {path} belongs to user {owner}: it is not used")))
            }
            _ => Ok(()),
        }
    }

    fn nobody(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Failure::new(Exit::NoController, format!("no controller answers at unix://{path}"))
                    .hint("start one with `embody serve`, try `embody demo`, or name another place with --server or EMBODY_SERVER")
            }
            io::ErrorKind::PermissionDenied => {
                Failure::new(Exit::NoController, format!("this user may not speak to the controller at unix://{path}"))
                    .hint("run it as the user of the controller (or as root)")
            }
            _ => Failure::new(Exit::NoController, format!("cannot reach a controller at unix://{path}: {error}")),
        }
    }
}

fn lost(path: &Path, error: &dyn std::error::Error) -> Failure {
    let text = crate::server::api::fault::chain(error);
    Failure::new(Exit::NoController, format!("the controller at unix://{} went away: {text}", path.display()))
}

/// What an answer that is not 2xx means for the one who asked.
async fn refused(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let exit = match status {
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::CONFLICT => Exit::Refused,
        _ => Exit::Failed,
    };
    let bytes = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or("").to_owned();
    let mut message = super::output::clean(&text(json.get("message")));
    if message.is_empty() {
        message = format!("the controller answered {status}");
    }
    let causes = json.pointer("/details/causes").and_then(Value::as_array).cloned().unwrap_or_default();
    if causes.len() > 1 {
        let list = causes.iter().map(|c| format!("\n  {}", super::output::clean(&text(c.get("message")))));
        message = format!("{} faults; nothing was done:{}", causes.len(), list.collect::<String>());
    }
    Failure::new(exit, message)
}

/// An answer that comes in parts.
pub(crate) struct Download {
    response: Response<Incoming>,
    from: PathBuf,
}

impl Download {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    /// The next part; nothing at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.response.body_mut().frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => return Err(lost(&self.from, &error)),
                None => return Ok(None),
            }
        }
    }
}

/// Lines of a watch.
pub(crate) struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next change; nothing when the controller ended the watch.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|e| Failure::failed(format!("a change from the controller does not read: {e}")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.rest.extend(frame.into_data().unwrap_or_default()),
                // A controller that is killed cuts the line: the same to a watcher as an end.
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

//! Images between the controllers of a site: the one that acts is at the address that moves with the lease, and the others ask there. What they lack
//! they fetch, and what that one lacks they offer.
//!
//! Leaves out: when (`Keeper::run`), and the answers (`server::boot::peers`). Invariant: what comes is kept only if it is what the digest says.
//! Shown by `tests/machines.rs` (two hosts).

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Keeper;
use crate::boot::script::{IMAGE, TREE};
use crate::boot::token::SiteKey;
use crate::image::digest::Digest;
use crate::image::generalise::Steps;
use crate::image::source::Source;
use crate::server::api::fault::chain;
use crate::{image, limits};

/// The header that shows that a controller of the site asks.
pub(crate) const PEER: &str = "embody-peer";

/// Where the controller that acts is, and the site's key.
struct Leader<'a> {
    at: SocketAddr,
    key: &'a SiteKey,
}

/// Ends with its request.
struct Connection(JoinHandle<hyper::Result<()>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Leader<'_> {
    /// An image's tree, as a tar, written to a file.
    async fn fetch(&self, digest: &str, to: std::fs::File) -> io::Result<()> {
        let (response, _connection) = self.ask(Method::GET, digest, Body::empty(), limits::IMPORT_SILENT_FOR).await?;
        if response.status() != StatusCode::OK {
            return Err(self.answered(&response));
        }
        let mut body = response.into_body();
        let mut to = tokio::io::BufWriter::with_capacity(1 << 20, tokio::fs::File::from_std(to));
        while let Some(frame) = within(limits::IMPORT_SILENT_FOR, body.frame()).await? {
            if let Ok(bytes) = frame.map_err(io::Error::other)?.into_data() {
                to.write_all(&bytes).await?;
            }
        }
        to.flush().await
    }

    /// Whether an image lacks files there.
    async fn lacks(&self, digest: &str) -> io::Result<bool> {
        let (response, _connection) = self.ask(Method::HEAD, digest, Body::empty(), limits::IMPORT_SILENT_FOR).await?;
        match response.status() {
            StatusCode::OK => Ok(false),
            StatusCode::NOT_FOUND => Ok(true),
            _ => Err(self.answered(&response)),
        }
    }

    /// Gives it an image's tree, as a tar.
    async fn give(&self, digest: &str, tree: Body) -> io::Result<()> {
        let (response, _connection) = self.ask(Method::PUT, digest, tree, limits::BOOT_CONNECTION_FOR).await?;
        if response.status().is_success() { Ok(()) } else { Err(self.answered(&response)) }
    }

    async fn ask(&self, method: Method, digest: &str, body: Body, answers: Duration) -> io::Result<(Response<Incoming>, Connection)> {
        let stream = within(limits::COPY_CONNECTS_WITHIN, TcpStream::connect(self.at)).await??;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let connection = Connection(tokio::spawn(connection));
        let request = Request::builder()
            .method(method)
            .uri(format!("{IMAGE}{digest}/{TREE}"))
            .header("host", self.at.to_string())
            .header(PEER, self.key.peer(digest))
            .body(body)
            .map_err(io::Error::other)?;
        let response = within(answers, sender.send_request(request)).await?.map_err(io::Error::other)?;
        Ok((response, connection))
    }

    fn answered(&self, response: &Response<Incoming>) -> io::Error {
        io::Error::other(format!("the controller at {} answered {}", self.at, response.status()))
    }
}

impl Keeper {
    /// From the controller that acts, so that this one can go on where that one ends.
    pub(super) async fn copy(self: &Arc<Keeper>, digest: Digest) {
        let (Some(at), Some(key)) = (self.leader, self.key()) else { return };
        let copied = async {
            let (file, path) = self.scratch()?.into_parts();
            Leader { at, key: &key }.fetch(&digest.to_string(), file).await?;
            self.take_copy(path, digest).await.map_err(io::Error::other)
        };
        match copied.await {
            Ok(()) => tracing::info!(image = %digest, from = %at, "an image was copied"),
            Err(error) => tracing::debug!(image = %digest, from = %at, error = %error, "an image could not be copied; it is tried again"),
        }
    }

    /// To the controller that acts, where that lacks it: it was imported where this one acted, or what that one had is damaged.
    pub(super) async fn offer(self: &Arc<Keeper>, digest: Digest) {
        let (Some(at), Some(key)) = (self.leader, self.key()) else { return };
        let leader = Leader { at, key: &key };
        let given = async {
            let named = digest.to_string();
            if leader.lacks(&named).await? {
                let tree = self.tar(digest).await.map_err(io::Error::other)?;
                leader.give(&named, Body::from_stream(tree)).await?;
                tracing::info!(image = %digest, to = %at, "an image was given to the controller that acts, which lacked it");
            }
            io::Result::Ok(())
        };
        if let Err(error) = given.await {
            tracing::debug!(image = %digest, to = %at, error = %error, "an image could not be offered; it is tried again");
        }
    }

    /// Where its name has a content that is not all on this controller's disk, which acts: how many bytes of it may come.
    pub(crate) async fn awaits(self: &Arc<Keeper>, digest: Digest) -> Option<u64> {
        let named = digest.to_string();
        let known = self.shared.images.known.borrow().clone()?;
        let image = known.images.values().find(|image| image.digest == named)?;
        // What is here and cannot be booted lacks nothing that anybody has.
        let lacks =
            move |keeper: &Keeper| keeper.objects.index(&digest).map_or(true, |index| !keeper.objects.missing(index.contents()).is_empty());
        let is_awaited = self.shared.images.here(&named).lacks.is_some() && self.blocking(lacks).await.unwrap_or(false);
        is_awaited.then(|| limits::COPY_BYTES_MORE + image.bytes + image.entries.saturating_mul(limits::COPY_BYTES_PER_ENTRY))
    }

    /// What another controller of the site has.
    pub(crate) async fn take_copy(self: &Arc<Keeper>, from: TempPath, digest: Digest) -> Result<(), String> {
        let _one = self.one_import().await;
        self.blocking(move |keeper| keeper.take_copy_now(&from, digest)).await??;
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        self.look_again();
        Ok(())
    }

    fn take_copy_now(&self, from: &Path, digest: Digest) -> Result<(), String> {
        let options = image::Options { steps: Steps::none(), ..image::Options::default() };
        let imported = image::import(&Source::Tar(from.to_owned()), &options, &self.objects).map_err(|error| chain(&error))?;
        // What came instead is nobody's, and goes with the next removal.
        if imported.digest == digest { Ok(()) } else { Err(format!("what came is {}, and it is {digest}", imported.digest)) }
    }
}

async fn within<T>(time: Duration, what: impl Future<Output = T>) -> io::Result<T> {
    timeout(time, what).await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("nothing came for {} s", time.as_secs())))
}

//! An image from the other controller of the site: the one that acts has it, at the address that moves with the lease.
//!
//! Leaves out: what is asked for (`Keeper`). Invariant: what comes is kept only if it is what the digest says. Shown by `tests/machines.rs`
//! (two hosts).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::boot::script::{IMAGE, TREE};
use crate::boot::token::SiteKey;
use crate::limits;

/// The header that shows that a controller of the site asks.
pub(crate) const PEER: &str = "embody-peer";

/// An image's tree, as a tar, written to a file.
pub(super) async fn tree(from: SocketAddr, digest: &str, key: &SiteKey, to: std::fs::File) -> io::Result<()> {
    let stream = within(limits::COPY_CONNECTS_WITHIN, TcpStream::connect(from)).await??;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!("{IMAGE}{digest}/{TREE}"))
        .header("host", from.to_string())
        .header(PEER, key.peer(digest))
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let response = within(limits::IMPORT_SILENT_FOR, sender.send_request(request)).await?.map_err(io::Error::other)?;
    if response.status() != StatusCode::OK {
        return Err(io::Error::other(format!("the controller at {from} answered {}", response.status())));
    }
    let mut body = response.into_body();
    let mut to = tokio::io::BufWriter::with_capacity(1 << 20, tokio::fs::File::from_std(to));
    while let Some(frame) = within(limits::IMPORT_SILENT_FOR, body.frame()).await? {
        if let Ok(bytes) = frame.map_err(io::Error::other)?.into_data() {
            to.write_all(&bytes).await?;
        }
    }
    to.flush().await?;
    connection.abort();
    Ok(())
}

async fn within<T>(time: Duration, what: impl Future<Output = T>) -> io::Result<T> {
    timeout(time, what).await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("nothing came for {} s", time.as_secs())))
}

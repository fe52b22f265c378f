//! Several initrds as one file, in the order of the manifest: firmware and loaders differ in how they take several.
//!
//! Leaves out: compressing and unpacking, which is the kernel's. Nothing is kept or copied: the parts are read as they are sent. Shown by
//! `tests/boot/joined.rs`.

use std::io::Cursor;
use std::path::{Component, Path, PathBuf};

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::ReaderStream;

use crate::boot::script::{JOINED, joined};
use crate::model::script::JOINED_BY;

/// Each archive of an initramfs begins at a multiple of four octets (Linux, driver-api/early-userspace/buffer-format).
const ALIGNED: u64 = 4;
const AT_A_TIME: usize = 64 << 10;

/// `boot/microcode.img,boot/initrd.img`, below the directory of the files.
pub(super) async fn answer(files: &Path, parts: &str) -> Response {
    let mut whole: Box<dyn AsyncRead + Send + Unpin> = Box::new(tokio::io::empty());
    let mut length = 0;
    for part in parts.split(JOINED_BY) {
        let Some((file, size)) = open(files, part).await else {
            return (StatusCode::NOT_FOUND, format!("there is no file {}\n", crate::manifest::escaped(part))).into_response();
        };
        // A part that grows meanwhile does not move the next one.
        let padding = size.next_multiple_of(ALIGNED) - size;
        let zeros = Cursor::new(vec![0; usize::try_from(padding).unwrap_or_default()]);
        whole = Box::new(whole.chain(file.take(size)).chain(zeros));
        length += size + padding;
    }
    let heads = [(header::CONTENT_LENGTH, length.to_string()), (header::CONTENT_TYPE, "application/octet-stream".to_owned())];
    (heads, Body::from_stream(ReaderStream::with_capacity(whole, AT_A_TIME))).into_response()
}

async fn open(files: &Path, part: &str) -> Option<(File, u64)> {
    let path = PathBuf::from(part.trim_start_matches('/'));
    let stays_inside = !part.is_empty() && path.components().all(|component| matches!(component, Component::Normal(_)));
    let file = File::open(stays_inside.then(|| files.join(path))?).await.ok()?;
    let about = file.metadata().await.ok()?;
    about.is_file().then_some((file, about.len()))
}

/// Whether a path is that of these parts.
pub(super) fn is_of(path: &str, parts: &[String]) -> bool {
    path.strip_prefix(JOINED).is_some_and(|asked| asked == joined(parts))
}

//! `embody image`: what personas boot, as content that has a name and never changes.
//!
//! Leaves out: everything that is done with it (`server::images`): what is imported is sent to the controller as it is, a directory as a tar.
//! Invariant: an import that fails, or is ended, leaves nothing under its name. Shown by `tests/images.rs`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::client::{API, Client, query};
use super::failure::Failure;
use super::output::{self, Format, print};
use super::say;
use crate::control::operator::ImageRow;
use crate::image::digest::Digest;
use crate::image::export::export_dir;
use crate::image::generalise::{self, Steps};
use crate::image::source::Source;
use crate::image::store::Objects;
use crate::image::{self, pack};
use crate::model::image::ImageName;
use crate::model::server::Bytes as Memory;
use crate::server::api::columns::{NOTHING, age};
use crate::server::api::fault::chain;

#[derive(Subcommand)]
pub(super) enum ImageVerb {
    /// Make an image of a directory, a tar (plain, gz, xz or zst; - for stdin), or a container image (OCI or docker archive, OCI layout)
    Import(ImportArgs),
    /// Show images
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all about an image
    Inspect(NameArgs),
    /// Read every file of an image again, and compare it with its digest
    Verify(NameArgs),
    /// Write an image as a plain tree, for an NFS server of one's own, with its digest beside it
    Export(ExportArgs),
    /// Remove an image that nothing needs
    Rm(RmArgs),
}

#[derive(Args)]
pub(super) struct ImportArgs {
    /// NAME:VERSION; a name keeps its content
    name: ImageName,
    /// What to import; - is a tar from stdin
    source: PathBuf,
    /// Leave something in that is taken out otherwise, so that several machines can run it (`--help` names all)
    #[arg(long, value_name = "STEP", value_delimiter = ',', long_help = kept())]
    keep: Vec<String>,
}

fn kept() -> String {
    format!("Leave something in that is taken out otherwise, so that several machines can run it:{}", generalise::sentences())
}

#[derive(Args)]
pub(super) struct LsArgs {
    /// Instead of a table; `wide` is a table with more columns
    #[arg(short = 'o', long, value_enum)]
    output: Option<Format>,
}

#[derive(Args)]
pub(super) struct NameArgs {
    /// NAME:VERSION
    name: ImageName,
}

#[derive(Args)]
pub(super) struct ExportArgs {
    /// NAME:VERSION
    name: ImageName,
    /// A directory that is made; its owners need root
    directory: PathBuf,
}

#[derive(Args)]
pub(super) struct RmArgs {
    /// NAME:VERSION
    name: ImageName,
    /// Although it is one of the last of its name, to which one can go back
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(verb: ImageVerb, client: &Client) -> Result<(), Failure> {
    match verb {
        ImageVerb::Import(args) => import(args, client).await,
        ImageVerb::Ls(args) => ls(&args, client).await,
        ImageVerb::Inspect(args) => inspect(&args.name, client).await,
        ImageVerb::Verify(args) => {
            let answer = client.post(&format!("{API}/images/{}/verify", args.name), &json!({})).await?;
            told(&answer)
        }
        ImageVerb::Export(args) => export(args, client).await,
        ImageVerb::Rm(args) => {
            let force = if args.force { "true" } else { "" };
            let answer = client.delete(&format!("{API}/images/{}{}", args.name, query(&[("force", force)]))).await?;
            told(&answer)
        }
    }
}

fn told(answer: &Value) -> Result<(), Failure> {
    let text = answer.get("message").and_then(Value::as_str).unwrap_or_default();
    Ok(print(&format!("{}\n", output::clean_lines(text)))?)
}

// ---- import ----------------------------------------------------------------------------------------------------------------

/// Chunks on their way to the controller.
const CHUNKS: usize = 8;
const CHUNK: usize = 256 << 10;

async fn import(args: ImportArgs, client: &Client) -> Result<(), Failure> {
    let (to, chunks) = mpsc::channel(CHUNKS);
    let source = args.source.clone();
    // What cannot be read ends the body before its end, so that the controller drops all of it; here it is said why.
    let reads = tokio::task::spawn_blocking(move || send(&source, &mut Chunks { to, chunk: Vec::new() }));
    let body = StreamBody::new(ReceiverStream::new(chunks)).boxed();
    let path = format!("{API}/images/{}{}", args.name, query(&[("keep", &args.keep.join(","))]));
    let answer = client.put(&path, "application/octet-stream", body).await;
    match reads.await {
        Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("{} could not be read: {error}", args.source.display())).hint("nothing was imported"))
        }
        _ => told(&answer?),
    }
}

fn send(source: &Path, to: &mut Chunks) -> io::Result<()> {
    let sent = match source {
        stdin if stdin.as_os_str() == "-" => io::copy(&mut io::stdin().lock(), to).map(drop),
        directory if std::fs::metadata(directory)?.is_dir() => {
            pack::directory(directory, to, &mut |warning| say(&format!("warning: {warning}")))
        }
        file => copy(File::open(file)?, to),
    };
    match sent.and_then(|()| to.flush()) {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ended = to.to.blocking_send(Err(io::Error::other("cut off")));
            Err(error)
        }
    }
}

fn copy(mut from: impl Read, to: &mut Chunks) -> io::Result<()> {
    io::copy(&mut from, to).map(drop)
}

/// Writes what is written to it into the body of a request.
struct Chunks {
    to: mpsc::Sender<io::Result<Frame<Bytes>>>,
    chunk: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.chunk));
        self.to.blocking_send(Ok(Frame::data(chunk))).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

// ---- what is shown ---------------------------------------------------------------------------------------------------------

async fn rows(client: &Client) -> Result<Vec<ImageRow>, Failure> {
    let mut answer = client.get(&format!("{API}/images")).await?;
    serde_json::from_value(answer.get_mut("items").map(Value::take).unwrap_or_default())
        .map_err(|e| Failure::failed(format!("the controller's answer does not read: {e}")))
}

async fn ls(args: &LsArgs, client: &Client) -> Result<(), Failure> {
    let rows = rows(client).await?;
    let text = match args.output {
        Some(Format::Json) => output::json(&json!(rows)),
        Some(Format::Yaml) => output::yaml(&json!(rows)),
        Some(Format::Name) => rows.iter().map(|row| format!("{}\n", row.name)).collect(),
        Some(Format::Manifest) => return Err(Failure::usage("`-o manifest` is for `get discovered`")),
        Some(Format::Wide) | None => {
            if rows.is_empty() {
                say("Nothing found.");
                return Ok(());
            }
            let wide = args.output == Some(Format::Wide);
            let heads = ["NAME", "DIGEST", "SIZE", "ENTRIES", "KERNEL", "HERE", "AGE", "PERSONAS", "SERVERS"];
            let shown = if wide { heads.len() } else { heads.len() - 2 };
            let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(row).into_iter().take(shown).collect()).collect();
            output::table(&heads[..shown], &cells)
        }
    };
    Ok(print(&text)?)
}

fn cells(row: &ImageRow) -> Vec<String> {
    let names = |names: &[crate::model::Name]| match names {
        [] => NOTHING.to_owned(),
        names => names.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    };
    vec![
        row.name.to_string(),
        row.image.digest.chars().take(12).collect(),
        size(row.image.bytes),
        row.image.entries.to_string(),
        row.image.kernel.as_ref().map_or(NOTHING, |kernel| &kernel.version).to_owned(),
        if row.lacks.is_none() { "True" } else { "False" }.to_owned(),
        age(&row.image.imported),
        names(&row.personas),
        names(&row.servers),
    ]
}

async fn inspect(name: &ImageName, client: &Client) -> Result<(), Failure> {
    let all = rows(client).await?;
    let Some(row) = all.into_iter().find(|row| row.name == *name) else {
        return Err(Failure::new(super::failure::Exit::NotFound, format!("there is no image {name}")));
    };
    Ok(print(&output::yaml(&json!(row)))?)
}

/// What comes is taken into a store of its own first: it is written only if it is what the image's digest says.
async fn export(args: ExportArgs, client: &Client) -> Result<(), Failure> {
    let beside = args.directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure::failed(format!("{what}: {error}"));
    let work = tempfile::Builder::new().prefix(".embody-export").tempdir_in(beside);
    let work = work.map_err(|error| failed(&beside.display().to_string(), &error))?;
    let tar = work.path().join("tar");
    let mut body = client.download(&format!("{API}/images/{}/tree", args.name)).await?;
    let digest = body.header("embody-digest").unwrap_or_default();
    let mut to = File::create(&tar).map_err(|error| failed("what comes cannot be kept", &error))?;
    while let Some(chunk) = body.next().await? {
        to.write_all(&chunk).map_err(|error| failed("what comes cannot be kept", &error))?;
    }
    drop(to);
    let (directory, store) = (args.directory.clone(), work.path().join("store"));
    let writes = tokio::task::spawn_blocking(move || write(&tar, &store, &digest, &directory));
    let warnings = writes.await.map_err(|error| Failure::failed(error.to_string()))?.map_err(Failure::failed)?;
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    Ok(print(&format!("image {} is in {}\n", args.name, args.directory.display()))?)
}

fn write(tar: &Path, store: &Path, digest: &str, directory: &Path) -> Result<Vec<String>, String> {
    let objects = Objects::at(store).map_err(|error| chain(&error))?;
    let options = image::Options { steps: Steps::none(), ..image::Options::default() };
    let imported = image::import(&Source::Tar(tar.to_owned()), &options, &objects).map_err(|error| chain(&error))?;
    let expected: Digest = digest.parse().map_err(|_| "the controller says no digest".to_owned())?;
    if imported.digest != expected {
        return Err(format!("what came is {}, and the image is {expected}: nothing was written", imported.digest));
    }
    let index = objects.index(&expected).map_err(|error| chain(&error))?;
    let done = export_dir(&index, &expected, &objects, directory).map_err(|error| chain(&error))?;
    let lists = [("the owner or the set-id bits", &done.owners_not_set), ("these device nodes", &done.devices_not_made)];
    let told = |(what, names): (&str, &image::source::Names)| format!("{what} could not be set or made without root: {names}");
    Ok(lists.into_iter().filter(|(_, names)| !names.is_empty()).map(told).collect())
}

/// `126Mi`.
fn size(bytes: u64) -> String {
    let unit = [1 << 30, 1 << 20, 1 << 10].into_iter().find(|unit| bytes >= 10 * *unit).unwrap_or(1);
    Memory(bytes / unit * unit).to_string()
}

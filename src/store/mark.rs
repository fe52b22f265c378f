//! The mark: the highest number of a record that this machine saw acknowledged, in a file of its own, so that a store which went backwards is noticed.
//!
//! Leaves out: what is made of it (`records`). It is one line of fixed length with a checksum, written over in place after each acknowledgement,
//! and brought to the disk once a second: it outlives a killed process, and a power cut costs it a second, which makes it blind for that
//! second and never wrong. Invariant: what it holds was acknowledged. Tests: below and `tests/store/backwards.rs`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{task::spawn_blocking, time::Instant};
use uuid::Uuid;

use super::{
    StoreError,
    checksum::crc32c,
    file_id::{self, FileId, RESTART},
};

const FILE: &str = "mark";
/// What the line begins with; the number is its format.
const MAGIC: &str = "embody mark 1";
/// An fsync costs as much as a write of the store; a mark that is a second old still tells.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A moment in the life of one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) id: Uuid,
    pub(crate) seq: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// There is no mark: this machine never had a store.
    Nothing,
    At(Point),
    /// There is one, and this is why it does not read.
    Unreadable(String),
}

/// The file, and what it holds.
pub(super) struct Mark {
    /// Nothing: in memory, for simulations.
    dir: Option<PathBuf>,
    file: Option<Arc<File>>,
    pub(super) known: Known,
    synced: Option<Instant>,
    /// The last writing failed: said once, not at every record.
    failing: bool,
}

impl Mark {
    pub(super) fn memory() -> Mark {
        Mark { dir: None, file: None, known: Known::Nothing, synced: None, failing: false }
    }

    /// Makes the directory where it is missing; reads the file where there is one.
    pub(super) fn open(dir: &Path) -> Result<Mark, StoreError> {
        if !dir.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| unusable(dir, source))?;
        }
        let path = dir.join(FILE);
        let mut mark = Mark { dir: Some(dir.to_owned()), ..Mark::memory() };
        mark.known = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(mark),
            // A pipe in its place would be waited for without end.
            Ok(meta) if !meta.is_file() => Known::Unreadable("it is not a file".to_owned()),
            Ok(meta) if meta.len() != line(Point { id: Uuid::nil(), seq: 0 }).len() as u64 => {
                Known::Unreadable(format!("it has {} bytes", meta.len()))
            }
            Ok(_) => fs::read(&path).map_or_else(|error| Known::Unreadable(error.to_string()), |bytes| parse(&bytes)),
            Err(error) => Known::Unreadable(error.to_string()),
        };
        if let Known::At(_) = mark.known {
            mark.file = Some(Arc::new(OpenOptions::new().write(true).open(&path).map_err(|source| unusable(dir, source))?));
        }
        Ok(mark)
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        self.dir.as_ref().map_or_else(|| "memory".to_owned(), |dir| dir.join(FILE).display().to_string())
    }

    /// Refuses where the file that is written has lost its name: a store that went backwards would not be noticed after the next start.
    pub(super) async fn is_there(&self) -> Result<(), StoreError> {
        let (Some(dir), Some(file)) = (self.dir.clone(), self.file.clone()) else { return Ok(()) };
        let look = off_the_loop(move || Ok(file_id::lost(&dir.join(FILE), FileId::of(&file.metadata()?)))).await;
        let name = self.name();
        match look {
            Ok(None) => Ok(()),
            Ok(Some(what)) => {
                let why = format!("the mark of the store is kept there, and {what} {RESTART}");
                Err(StoreError::Unusable { place: name, why, source: None })
            }
            Err(source) => Err(unusable(Path::new(&name), source)),
        }
    }

    /// Moves on after an acknowledgement. A failure is logged and nothing more: the record is safe, only the mark is behind.
    pub(super) async fn advance(&mut self, to: Point) {
        if self.known == Known::At(to) {
            return;
        }
        self.known = Known::At(to);
        let written = match self.file.clone() {
            None => self.create().await,
            Some(file) => self.write_over(file, to).await,
        };
        if let (Err(error), false) = (&written, self.failing) {
            tracing::warn!(file = self.name(), error = %error, "the mark cannot be written: a store that goes backwards may not be noticed");
        }
        self.failing = written.is_err();
    }

    /// Whatever it was before, this is what holds now.
    pub(super) async fn replace(&mut self, by: Point) -> Result<(), StoreError> {
        self.known = Known::At(by);
        let name = self.name();
        self.create().await.map_err(|source| unusable(Path::new(&name), source))
    }

    async fn write_over(&mut self, file: Arc<File>, to: Point) -> io::Result<()> {
        let due = self.synced.is_none_or(|at| at.elapsed() >= SYNC_EVERY);
        if due {
            self.synced = Some(Instant::now());
        }
        off_the_loop(move || {
            file.write_all_at(&line(to), 0)?;
            if due { file.sync_data() } else { Ok(()) }
        })
        .await
    }

    /// A new file, whole on the disk before it has its name: a power cut must not leave an empty one, which would stop everything.
    async fn create(&mut self) -> io::Result<()> {
        let (Some(dir), Known::At(point)) = (self.dir.clone(), &self.known) else { return Ok(()) };
        let line = line(*point);
        let file = off_the_loop(move || {
            let (fresh, path) = (dir.join(format!("{FILE}.new")), dir.join(FILE));
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&line)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&dir)?.sync_all()?;
            Ok(file)
        })
        .await?;
        self.file = Some(Arc::new(file));
        self.synced = Some(Instant::now());
        Ok(())
    }
}

async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|gone| Err(io::Error::other(gone)))
}

fn unusable(place: &Path, source: io::Error) -> StoreError {
    let why = format!("the mark of the store cannot be kept there ({source})");
    StoreError::Unusable { place: place.display().to_string(), why, source: Some(Box::new(source)) }
}

pub(crate) fn line(point: Point) -> Vec<u8> {
    let text = format!("{MAGIC} {} {:020}", point.id, point.seq);
    format!("{text} {:08x}\n", crc32c(&[text.as_bytes()])).into_bytes()
}

/// A line is read only if it is, byte for byte, what would be written.
pub(crate) fn parse(bytes: &[u8]) -> Known {
    let point = || {
        let mut words = std::str::from_utf8(bytes).ok()?.strip_prefix(MAGIC)?.split_ascii_whitespace();
        let point = Point { id: words.next()?.parse().ok()?, seq: words.next()?.parse().ok()? };
        (line(point) == bytes).then_some(point)
    };
    point().map_or_else(|| Known::Unreadable("it is damaged".to_owned()), Known::At)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written_or_not_at_all() {
        let points = [0, 7, u64::MAX].map(|seq| Point { id: Uuid::new_v4(), seq });
        for point in points {
            let line = line(point);
            assert_eq!(parse(&line), Known::At(point));
            for at in 0..line.len() {
                assert!(matches!(parse(&line[..at]), Known::Unreadable(_)), "cut at {at}");
                for bit in 0..8 {
                    let mut damaged = line.clone();
                    damaged[at] ^= 1 << bit;
                    assert!(matches!(parse(&damaged), Known::Unreadable(_)), "bit {bit} of byte {at}");
                }
            }
        }
    }
}

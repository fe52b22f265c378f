//! The unix socket: who may open it, what is done about one that is there already, and who calls.
//!
//! Leaves out: TCP and TLS. Invariants: the socket is never reachable by others, not for a moment (it is bound inside a directory of mode
//! 0700 and moved into place); of two controllers on one path the second is refused, whenever they start (a lock beside the socket
//! decides; the kernel frees it with the process). A socket that somebody removes while it is served is bound anew, under the same rules: a
//! controller that acts and cannot be spoken to is worse than none. Shown by `tests/api.rs`.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch as signal;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::fault::chain;
use super::objects::Backend;
use super::routes::{Stop, router};
use crate::limits::{API_DRAIN, SOCKET_LOOKED_AT};
use crate::server::listen::{self, Bounds, Door};

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another controller already serves on {path}")]
    InUse { path: PathBuf },
    #[error("{path} exists and is not a socket")]
    NotASocket { path: PathBuf },
    #[error("{path} belongs to user {owner}, not to this one: it is not safe to serve there")]
    Foreign { path: PathBuf, owner: u32 },
    #[error("cannot serve on {path}: {doing} failed")]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
}

/// The user of this process (the owner of its entry in procfs).
pub(crate) fn own_uid() -> Option<u32> {
    fs::metadata("/proc/self").map(|m| m.uid()).ok()
}

/// Where the controller is, when nobody says: `$XDG_RUNTIME_DIR/embody/embody.sock`; else `/run/embody/embody.sock` for root; else
/// `/tmp/embody-UID/embody.sock`.
pub(crate) fn default_path() -> PathBuf {
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute()) {
        return runtime.join("embody/embody.sock");
    }
    match own_uid() {
        Some(0) => PathBuf::from("/run/embody/embody.sock"),
        uid => PathBuf::from(format!("/tmp/embody-{}/embody.sock", uid.unwrap_or(u32::MAX))),
    }
}

/// A bound socket. Dropping it removes the socket.
#[derive(Debug)]
pub struct Listener {
    socket: Option<UnixListener>,
    place: Arc<Place>,
}

impl Listener {
    /// Binds now, so that two controllers are told apart before either does anything. Needs a tokio runtime.
    pub fn bind(path: &Path) -> Result<Listener, BindError> {
        let (socket, held) = bind(path, None)?;
        let place = Place { path: path.to_owned(), held: Mutex::new(held) };
        Ok(Listener { socket: Some(socket), place: Arc::new(place) })
    }

    /// Answers until `shutdown` resolves. Requests that run are finished (within a bound), watches are ended.
    pub async fn serve(mut self, backend: Arc<Backend>, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), BindError> {
        let Some(socket) = self.socket.take() else { return Ok(()) };
        let (stopped, stop) = signal::channel(false);
        let about = |connection: &UnixStream| {
            let mut about = Extensions::new();
            about.insert(ConnectInfo(Caller::of(connection)));
            about
        };
        let door = Doorway::new(socket, Arc::clone(&self.place));
        let server = listen::serve(door, Bounds::of_api(), router(backend, Stop(stop.clone())), about, stop.clone());
        let mut ended = Stop(stop);
        let drained = async move {
            shutdown.await;
            let _nobody = stopped.send(true);
            ended.wait().await;
            tokio::time::sleep(API_DRAIN).await;
        };
        tokio::select! {
            biased;
            () = server => {}
            () = drained => {}
        }
        Ok(())
    }
}

/// Where the socket stands.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    held: Mutex<Held>,
}

/// What makes it ours. The kernel gives the inode of a socket that is served to nobody else, though its name is gone.
#[derive(Debug)]
struct Held {
    socket: Inode,
    lock: fs::File,
}

type Inode = (u64, u64);

fn inode(of: &fs::Metadata) -> Inode {
    (of.dev(), of.ino())
}

impl Place {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ours(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| inode(&found) == self.held().socket)
    }

    fn bind_anew(&self) -> Result<UnixListener, BindError> {
        let mut held = self.held();
        let (socket, now) = bind(&self.path, Some(&held.lock))?;
        *held = now;
        Ok(socket)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Only what this process made: by now another may stand there.
        if self.is_ours() {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// A socket of which it is looked now and then whether it still stands in its place. Connections that there are do not notice.
struct Doorway {
    place: Arc<Place>,
    open: Mutex<Open>,
}

struct Open {
    socket: UnixListener,
    looks: Interval,
    /// Why it could not be bound anew, as it was said.
    told: Option<String>,
}

impl Doorway {
    fn new(socket: UnixListener, place: Arc<Place>) -> Doorway {
        let mut looks = interval(SOCKET_LOOKED_AT);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Doorway { place, open: Mutex::new(Open { socket, looks, told: None }) }
    }
}

impl Open {
    fn look_after(&mut self, place: &Place) {
        if place.is_ours() {
            return;
        }
        let path = place.path.display();
        match place.bind_anew() {
            Ok(socket) => {
                (self.socket, self.told) = (socket, None);
                tracing::warn!(socket = %path, "the API's socket was removed by somebody, and is bound anew");
            }
            Err(error) => {
                let why = chain(&error);
                if self.told.as_ref() != Some(&why) {
                    tracing::error!(socket = %path, error = why, "the API's socket was removed by somebody: nobody reaches this controller; it is tried again");
                    self.told = Some(why);
                }
            }
        }
    }
}

impl Door for Doorway {
    type Connection = UnixStream;

    fn next(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while open.looks.poll_tick(cx).is_ready() {
            open.look_after(&self.place);
        }
        open.socket.next(cx)
    }

    fn from(_: &UnixStream) -> Option<std::net::IpAddr> {
        None
    }

    fn turn_away(connection: UnixStream) {
        UnixListener::turn_away(connection);
    }
}

// ---- binding ---------------------------------------------------------------------------------------------------------------

/// `before`: the lock by which this process held the path until now, which may have been removed as well.
fn bind(path: &Path, before: Option<&fs::File>) -> Result<(UnixListener, Held), BindError> {
    let io = |doing| move |source| BindError::Io { path: path.to_owned(), doing, source };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    own_directory(parent, path)?;
    let lock = lock(path, before)?;
    remove_stale(path)?;
    let nest = parent.join(format!(".embody-{}", std::process::id()));
    let _absent = fs::remove_dir_all(&nest);
    fs::DirBuilder::new().mode(0o700).create(&nest).map_err(io("making a directory to bind in"))?;
    let bound = bind_inside(&nest, path);
    let _left = fs::remove_dir_all(&nest);
    let socket = bound.map_err(io("binding"))?;
    let found = fs::symlink_metadata(path).map_err(io("looking at the socket"))?;
    Ok((socket, Held { socket: inode(&found), lock }))
}

fn lock(path: &Path, before: Option<&fs::File>) -> Result<fs::File, BindError> {
    let io = |doing| move |source| BindError::Io { path: path.to_owned(), doing, source };
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock =
        fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path).map_err(io("opening its lock"))?;
    let opened = lock.metadata().map_err(io("opening its lock"))?;
    if let Some(before) = before.filter(|before| before.metadata().is_ok_and(|held| inode(&held) == inode(&opened))) {
        // It is held, by this very process: a second time it would not be given.
        return before.try_clone().map_err(io("taking its lock"));
    }
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(BindError::InUse { path: path.to_owned() }),
        Err(fs::TryLockError::Error(e)) => Err(io("taking its lock")(e)),
    }
}

/// Makes the directory (mode 0700) where there is none. One that belongs to somebody else (neither this user nor root) is refused.
fn own_directory(parent: &Path, path: &Path) -> Result<(), BindError> {
    let io = |source| BindError::Io { path: path.to_owned(), doing: "making its directory", source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(io)?;
    let owner = fs::metadata(parent).map_err(io)?.uid();
    if owner != 0 && own_uid().is_some_and(|me| me != owner) {
        return Err(BindError::Foreign { path: parent.to_owned(), owner });
    }
    Ok(())
}

/// Removes a socket that nobody accepts on. The lock is held: no controller of ours stands behind it.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    use std::os::unix::fs::FileTypeExt;
    let io = |doing| move |source| BindError::Io { path: path.to_owned(), doing, source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io("looking at what is there")(e)),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path.to_owned() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io("removing a stale socket")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(BindError::InUse { path: path.to_owned() }),
        Err(e) => Err(io("asking who is there")(e)),
    }
}

fn bind_inside(nest: &Path, path: &Path) -> io::Result<UnixListener> {
    let inner = nest.join("s");
    let socket = UnixListener::bind(&inner)?;
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o600))?;
    fs::rename(&inner, path)?;
    Ok(socket)
}

/// Who is at the other end: the kernel says so.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// A user's name, else `uid N`.
    pub who: String,
}

impl Caller {
    fn of(connection: &UnixStream) -> Caller {
        let uid = connection.peer_cred().ok().map(|c| c.uid());
        let who = uid.map_or_else(|| "unknown".to_owned(), |uid| user_name(uid).unwrap_or_else(|| format!("uid {uid}")));
        Caller { who }
    }
}

/// passwd(5): name:password:uid:…
fn user_name(uid: u32) -> Option<String> {
    let file = fs::read_to_string("/etc/passwd").ok()?;
    let mut lines = file.lines().map(|l| l.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

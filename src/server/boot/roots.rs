//! Root file systems of images over NFS: which one a path stands for, and who may mount it.
//!
//! Leaves out: the protocol (`server::nfs`). Invariants: a path is given to one start, and made by this site's key, so that every controller tells it
//! from any other without asking anybody; what is mounted goes on while no controller acts. Shown by `tests/machines.rs`.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Desk;
use crate::control::timeline::Stage;
use crate::image::digest::Digest;
use crate::image::index::{Inode, Node};
use crate::model::Name;
use crate::server::images::{Keeper, Whole};
use crate::server::nfs::{self, Attributes, Event, Exports, Found, Kind, Limits, Refused, Stats, Tree};

/// RFC 1813, 2.
const NFS_PORT: u16 = 2049;
/// RFC 1833, 3: what a stock initrd asks first. Ours does not.
const PORTMAP_PORT: u16 = 111;
/// The condition that tells whether roots are served.
const CONDITION: &str = "RootsServed";
/// How often a port that somebody else has is tried again.
const AGAIN: Duration = Duration::from_secs(10);

struct Roots {
    desk: Desk,
    keeper: Arc<Keeper>,
}

/// An image as a tree.
struct ImageTree {
    whole: Arc<Whole>,
    keeper: Arc<Keeper>,
}

/// Serves until the process ends, as soon as there is an image.
pub(super) async fn serve(desk: Desk, keeper: Arc<Keeper>) {
    keeper.has_any().await;
    let ip = desk.options.address.ip();
    let listener = bind(&desk, ip).await;
    let mut listeners = vec![listener];
    // Whoever may not have it has no need of it.
    match tokio::net::TcpListener::bind(SocketAddr::new(ip, PORTMAP_PORT)).await {
        Ok(portmap) => listeners.push(portmap),
        Err(error) => tracing::info!(error = %error, "port 111 is not served: a stock initrd cannot mount what is served here"),
    }
    let (_never, stop) = watch::channel(false);
    let roots = Arc::new(Roots { desk, keeper });
    nfs::serve(listeners, roots, Limits::default(), Arc::new(Stats::default()), stop).await;
}

async fn bind(desk: &Desk, ip: IpAddr) -> tokio::net::TcpListener {
    loop {
        let address = SocketAddr::new(ip, NFS_PORT);
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(address = %address, "roots are served over NFS");
                desk.condition(CONDITION, true, "Listening", format!("over NFS at {address}"));
                return listener;
            }
            Err(error) => {
                let (reason, hint) = super::of_ports(&error);
                let message = format!("root file systems cannot be served at {address}: {error}{hint}; it is tried again every 10 s");
                desk.condition(CONDITION, false, reason, message);
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

impl Roots {
    /// Where somebody acts here, a path is good for the last start of its server alone, and from its own address; whether it is of that start. Elsewhere
    /// nobody knows, and it says nothing of the server.
    fn may_mount(&self, server: &Name, nonce: &str, from: IpAddr) -> Result<bool, Refused> {
        let Some((view, _)) = self.desk.view() else { return Ok(false) };
        let denied = |why: String| {
            let message = format!("its root was asked for from {from}, and refused: {why}");
            self.desk.note(server, "RootRefused", message.clone());
            Err(Refused::Denied(format!("{server}: {message}")))
        };
        if view.machine_of(server).is_none_or(|machine| machine.run.as_deref() != Some(nonce)) {
            return denied("the path is of another start than the last one".to_owned());
        }
        self.desk.is_its_address(server, from).map_or_else(denied, |()| Ok(true))
    }
}

impl Exports for Roots {
    fn mount(&self, path: &[u8], peer: SocketAddr) -> Result<Arc<dyn Tree>, Refused> {
        let path = std::str::from_utf8(path).map_err(|_| Refused::Unknown("the path is no text".to_owned()))?;
        let key = self.keeper.key().ok_or_else(|| Refused::Later("the site's key is not known yet".to_owned()))?;
        let Some((image, server, nonce)) = key.exported(path) else {
            return Err(Refused::Unknown("this site has made no such path".to_owned()));
        };
        let is_last = self.may_mount(&server, nonce, peer.ip())?;
        let digest: Digest = image.parse().map_err(|_| Refused::Unknown("the path names no image".to_owned()))?;
        let Some(whole) = self.keeper.whole(&digest) else {
            return Err(Refused::Later(format!("image {image} is not here whole")));
        };
        if is_last {
            self.desk.saw(&server, Stage::Root, "");
            self.desk.is_alive(&server);
        }
        Ok(Arc::new(ImageTree { whole, keeper: Arc::clone(&self.keeper) }))
    }

    fn tree(&self, id: &[u8; 16]) -> Found {
        match self.keeper.whole_by(id) {
            Some(whole) => Found::Here(Arc::new(ImageTree { whole, keeper: Arc::clone(&self.keeper) })),
            // It may come: by an import of the same content, or by a copy.
            None => Found::Later,
        }
    }

    fn key(&self) -> Option<[u8; 32]> {
        self.keeper.key().map(|key| key.of_handles())
    }

    fn event(&self, event: Event) {
        match event {
            Event::Mounted { .. } => {}
            Event::Refused { peer, because, left_out } => tracing::warn!(peer = %peer, left_out, "a root was not mounted: {because}"),
            // Whether that is damage the keeper knows, who opens files.
            Event::Unreadable { path, error, .. } => {
                let path = path.map(|path| crate::manifest::escaped(&String::from_utf8_lossy(&path))).unwrap_or_default();
                tracing::error!(path, error, "a file of an image cannot be served");
            }
        }
    }
}

impl Tree for ImageTree {
    fn root(&self) -> u32 {
        Inode::ROOT.number()
    }

    fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id.iter_mut().zip(self.whole.digest.as_bytes()).for_each(|(to, from)| *to = *from);
        id
    }

    fn attributes(&self, inode: u32) -> Option<Attributes> {
        let of = self.whole.index.attributes(Inode::new(inode))?;
        let (kind, size, device) = match of.node {
            Node::Directory => (Kind::Directory, 4096, (0, 0)),
            Node::File { size, .. } => (Kind::File, size, (0, 0)),
            Node::Symlink { target } => (Kind::Symlink, target.len() as u64, (0, 0)),
            Node::Char { major, minor } => (Kind::Character, 0, (major, minor)),
            Node::Block { major, minor } => (Kind::Block, 0, (major, minor)),
            Node::Fifo => (Kind::Fifo, 0, (0, 0)),
            Node::Socket => (Kind::Socket, 0, (0, 0)),
        };
        let links = self.whole.index.nlink(Inode::new(inode)).unwrap_or(1);
        Some(Attributes { kind, mode: of.mode, links, uid: of.uid, gid: of.gid, size, device, mtime: (of.mtime, 0) })
    }

    fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32> {
        self.whole.index.lookup(Inode::new(dir), name).map(Inode::number)
    }

    fn parent(&self, dir: u32) -> u32 {
        self.whole.index.parent(Inode::new(dir)).map_or(Inode::ROOT.number(), Inode::number)
    }

    fn list(&self, dir: u32, after: u64, each: &mut dyn FnMut(u64, &[u8], u32) -> bool) {
        let Some(children) = self.whole.index.children(Inode::new(dir), after) else { return };
        for child in children {
            if !each(child.cookie, child.name, child.inode.number()) {
                return;
            }
        }
    }

    fn link(&self, inode: u32) -> Option<Vec<u8>> {
        match self.whole.index.attributes(Inode::new(inode))?.node {
            Node::Symlink { target } => Some(target.into_owned()),
            _ => None,
        }
    }

    fn open(&self, inode: u32) -> io::Result<Arc<File>> {
        self.keeper.content(&self.whole, Inode::new(inode)).map(Arc::new).map_err(io::Error::other)
    }

    fn totals(&self) -> (u64, u64) {
        (self.whole.index.total_bytes(), self.whole.index.entries_len() as u64)
    }

    fn path(&self, inode: u32) -> Option<Vec<u8>> {
        Some(self.whole.index.path(Inode::new(inode)))
    }
}

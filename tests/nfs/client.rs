//! An NFSv3 client that sends what it is told to, and shows every word of what comes back.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::forest::TOKEN;

pub const PORTMAP: u32 = 100_000;
pub const NFS: u32 = 100_003;
pub const MOUNT: u32 = 100_005;
pub const ACL: u32 = 100_227;

// nfsstat3, RFC 1813, section 2.6.
pub const OK: u32 = 0;
pub const NOENT: u32 = 2;
pub const IO: u32 = 5;
pub const ACCES: u32 = 13;
pub const NOTDIR: u32 = 20;
pub const ISDIR: u32 = 21;
pub const INVAL: u32 = 22;
pub const ROFS: u32 = 30;
pub const NAMETOOLONG: u32 = 63;
pub const BADHANDLE: u32 = 10_001;
pub const TOOSMALL: u32 = 10_005;
pub const JUKEBOX: u32 = 10_008;

/// Words and octets to send.
#[derive(Default, Clone)]
pub struct Put(pub Vec<u8>);

impl Put {
    pub fn u32(mut self, value: u32) -> Put {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Put {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn opaque(self, bytes: &[u8]) -> Put {
        let mut put = self.u32(bytes.len() as u32);
        put.0.extend(bytes);
        put.0.resize(put.0.len().next_multiple_of(4), 0);
        put
    }
}

pub fn put() -> Put {
    Put::default()
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Got(pub Vec<u8>, pub usize);

impl Got {
    pub fn u32(&mut self) -> u32 {
        let word = self.0[self.1..self.1 + 4].try_into().unwrap();
        self.1 += 4;
        u32::from_be_bytes(word)
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    pub fn opaque(&mut self) -> Vec<u8> {
        let length = self.u32() as usize;
        let bytes = self.0[self.1..self.1 + length].to_vec();
        let padded = length.next_multiple_of(4);
        assert!(self.0[self.1 + length..self.1 + padded].iter().all(|octet| *octet == 0), "padding is zero");
        self.1 += padded;
        bytes
    }

    pub fn words<const N: usize>(&mut self) -> [u32; N] {
        std::array::from_fn(|_| self.u32())
    }

    pub fn attributes(&mut self) -> Its {
        let [kind, mode, links, uid, gid] = self.words();
        let (size, _used, device) = (self.u64(), self.u64(), (self.u32(), self.u32()));
        let (fsid, fileid) = (self.u64(), self.u64());
        let [_, _, seconds, nanoseconds, _, _] = self.words();
        Its { kind, mode, links, uid, gid, size, device, fsid, fileid, mtime: (seconds, nanoseconds) }
    }

    pub fn post_op(&mut self) -> Option<Its> {
        (self.u32() == 1).then(|| self.attributes())
    }

    /// `wcc_data` with both halves.
    pub fn wcc(&mut self) -> Its {
        assert_eq!(self.u32(), 1);
        let (size, seconds) = (self.u64(), self.words::<4>()[0]);
        let after = self.post_op().unwrap();
        assert_eq!((size, seconds), (after.size, after.mtime.0));
        after
    }

    /// All was read.
    pub fn end(&self) {
        assert_eq!(self.1, self.0.len(), "{} octets were not expected", self.0.len() - self.1);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Its {
    pub kind: u32,
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub device: (u32, u32),
    pub fsid: u64,
    pub fileid: u64,
    pub mtime: (u32, u32),
}

pub struct Client {
    pub stream: TcpStream,
    /// User and groups; none for AUTH_NONE.
    pub who: Option<(u32, Vec<u32>)>,
    xid: u32,
}

pub fn call(xid: u32, who: Option<&(u32, Vec<u32>)>, target: [u32; 3], args: &[u8]) -> Vec<u8> {
    let mut head = put().u32(xid).u32(0).u32(2).u32(target[0]).u32(target[1]).u32(target[2]);
    head = match who {
        None => head.u32(0).u32(0),
        Some((uid, groups)) => {
            let mut body = put().u32(1).opaque(b"guest").u32(*uid).u32(groups[0]).u32(groups.len() as u32 - 1);
            for group in &groups[1..] {
                body = body.u32(*group);
            }
            head.u32(1).opaque(&body.0)
        }
    };
    let mut record = head.u32(0).u32(0).0;
    record.extend(args);
    [&(record.len() as u32 | 1 << 31).to_be_bytes()[..], &record].concat()
}

impl Client {
    pub async fn to(at: SocketAddr) -> Client {
        Client { stream: TcpStream::connect(at).await.unwrap(), who: Some((0, vec![0])), xid: 1 }
    }

    /// From another address of the loopback network.
    pub async fn from(own: [u8; 4], at: SocketAddr) -> std::io::Result<Client> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((own, 0).into())?;
        Ok(Client { stream: socket.connect(at).await?, who: Some((0, vec![0])), xid: 1 })
    }

    pub async fn send(&mut self, target: [u32; 3], args: &Put) -> u32 {
        self.xid += 1;
        let record = call(self.xid, self.who.as_ref(), target, &args.0);
        self.stream.write_all(&record).await.unwrap();
        self.xid
    }

    /// Any reply, after the xid.
    pub async fn receive(&mut self) -> std::io::Result<(u32, Got)> {
        let mark = self.stream.read_u32().await?;
        assert!(mark >> 31 == 1, "one fragment");
        let mut bytes = vec![0; (mark & !(1 << 31)) as usize];
        self.stream.read_exact(&mut bytes).await?;
        let mut got = Got(bytes, 0);
        Ok((got.u32(), got))
    }

    /// The reply from after the xid.
    pub async fn raw(&mut self, target: [u32; 3], args: &Put) -> Got {
        let xid = self.send(target, args).await;
        let (of, got) = self.receive().await.unwrap();
        assert_eq!(of, xid);
        got
    }

    /// The results of a call that was accepted.
    pub async fn call(&mut self, target: [u32; 3], args: &Put) -> Got {
        let mut got = self.raw(target, args).await;
        assert_eq!(got.words(), [1, 0, 0, 0, 0], "REPLY, MSG_ACCEPTED, AUTH_NONE, SUCCESS");
        got
    }

    pub async fn nfs(&mut self, procedure: u32, args: &Put) -> Got {
        self.call([NFS, 3, procedure], args).await
    }

    pub async fn mount(&mut self, path: &str) -> Result<Vec<u8>, u32> {
        let mut got = self.call([MOUNT, 3, 1], &put().opaque(path.as_bytes())).await;
        match got.u32() {
            0 => Ok(got.opaque()),
            status => Err(status),
        }
    }

    pub async fn root(&mut self) -> Vec<u8> {
        self.mount(TOKEN).await.unwrap()
    }

    pub async fn lookup(&mut self, dir: &[u8], name: &[u8]) -> Result<(Vec<u8>, Its), u32> {
        let mut got = self.nfs(3, &put().opaque(dir).opaque(name)).await;
        let found = match got.u32() {
            OK => Ok((got.opaque(), got.post_op().unwrap())),
            status => Err(status),
        };
        got.post_op();
        got.end();
        found
    }

    pub async fn walk(&mut self, path: &str) -> Vec<u8> {
        let mut at = self.root().await;
        for name in path.split('/') {
            at = self.lookup(&at, name.as_bytes()).await.unwrap().0;
        }
        at
    }

    pub async fn read(&mut self, file: &[u8], offset: u64, count: u32) -> Result<(Vec<u8>, bool), u32> {
        let got = self.nfs(6, &reading(file, offset, count)).await;
        bytes_of(got)
    }
}

pub fn reading(file: &[u8], offset: u64, count: u32) -> Put {
    put().opaque(file).u64(offset).u32(count)
}

/// The results of READ: octets, and whether that was the end.
pub fn bytes_of(mut got: Got) -> Result<(Vec<u8>, bool), u32> {
    let status = got.u32();
    got.post_op();
    if status != OK {
        got.end();
        return Err(status);
    }
    let [count, end] = got.words();
    let bytes = got.opaque();
    got.end();
    assert_eq!(bytes.len(), count as usize);
    Ok((bytes, end == 1))
}

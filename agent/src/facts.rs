//! What a start found out and hands on to the system: `/run/embody/agent.json`, for root alone, since it has the token and the secret of this start.
//!
//! Leaves out: addresses that the system may change afterwards; these are those of the start. Invariant: what one version writes the same version
//! reads; both are one program. Shown by `tests/guests.py`.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use embody_protocol::Ready;
use serde::{Deserialize, Serialize};

const DIRECTORY: &str = "/run/embody";
const FILE: &str = "/run/embody/agent.json";

/// It cannot be shown: whoever has the secret is this start.
#[derive(Clone, Serialize, Deserialize)]
pub struct Facts {
    pub run: Option<String>,
    /// `embody.exchange`, as it was given, and the secret that this start made up.
    pub exchange: Option<String>,
    pub secret: Option<String>,
    /// `embody.root`, as it was given.
    pub root: String,
    pub interface: String,
    pub mac: String,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub routers: Vec<Ipv4Addr>,
    pub name_servers: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    pub time_servers: Vec<Ipv4Addr>,
    /// What is waited for before the hello.
    #[serde(default)]
    pub ready: Ready,
    /// Of DHCP; none: for ever.
    pub lease_seconds: Option<u32>,
}

impl Facts {
    pub fn store(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(DIRECTORY)?;
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(FILE)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)
    }

    pub fn load() -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(FILE)?)?)
    }
}

//! The SNMPv3 side of a simulated agent: users, the engine's clock, Reports (RFC 3414 section 3.2, RFC 3412 section 7.2).
//!
//! Leaves out: access by view (a user reads or writes everything). A message at a lower level than authPriv gets authorizationError, as
//! from net-snmp. Invariant: nothing but a Report answers a message whose digest, clock or key is wrong. Shown by `tests/snmp/`.

use tokio::time::Instant;

use super::{Access, SimAgent};
use crate::drivers::switch::snmp::codec::{Kind, Pdu};
use crate::drivers::switch::snmp::keys::{self, Extension, Key, Keys};
use crate::drivers::switch::snmp::privacy::Clock;
use crate::drivers::switch::snmp::usm::{self, Incoming, Level, Outgoing, Protection};
use crate::drivers::switch::snmp::{Oid, Value};
use crate::model::secret::{AuthProtocol, PrivProtocol};

/// RFC 3414 section 2.2.3: seconds.
const TIME_WINDOW: u32 = 150;
/// RFC 3416 section 3.
const AUTHORIZATION_ERROR: u32 = 16;
/// Room for the message around the PDU.
const ENVELOPE_BYTES: usize = 256;

/// usmStats (RFC 3414 section 5), the last arc.
#[derive(Debug, Clone, Copy)]
enum Complaint {
    NotInTimeWindows = 2,
    UnknownUserNames = 3,
    UnknownEngineIds = 4,
    WrongDigests = 5,
    DecryptionErrors = 6,
}

/// A user, as the agent's administrator would write it down.
#[derive(Clone)]
pub struct SimUser {
    pub name: String,
    pub auth: AuthProtocol,
    pub auth_password: String,
    pub privacy: PrivProtocol,
    pub priv_password: String,
    pub extension: Extension,
    pub access: Access,
}

struct Known {
    user: SimUser,
    masters: (Key, Key),
    protection: Protection,
}

/// The engine: its identity, its clock, its users.
pub(super) struct Engine {
    id: Vec<u8>,
    boots: u32,
    since: Instant,
    users: Vec<Known>,
    reports: u32,
    salt: u64,
}

impl Engine {
    pub(super) fn new(id: Vec<u8>, salt: u64) -> Engine {
        Engine { id, boots: 1, since: Instant::now(), users: Vec::new(), reports: 0, salt }
    }

    pub(super) fn add(&mut self, user: SimUser) {
        let masters = (keys::master(user.auth, user.auth_password.as_bytes()), keys::master(user.auth, user.priv_password.as_bytes()));
        let protection = localized(&user, &masters, &self.id);
        self.users.push(Known { user, masters, protection });
    }

    pub(super) fn reboot(&mut self) {
        self.boots += 1;
        self.since = Instant::now();
    }

    pub(super) fn replace(&mut self, id: Vec<u8>, boots: u32) {
        self.id = id;
        self.boots = boots;
        self.since = Instant::now();
        for known in &mut self.users {
            known.protection = localized(&known.user, &known.masters, &self.id);
        }
    }

    pub(super) fn reports(&self) -> u32 {
        self.reports
    }

    fn clock(&self) -> Clock {
        Clock { boots: self.boots, time: u32::try_from(self.since.elapsed().as_secs()).unwrap_or(u32::MAX) }
    }

    fn user(&self, name: &[u8]) -> Option<&Known> {
        self.users.iter().find(|known| known.user.name.as_bytes() == name)
    }
}

fn localized(user: &SimUser, masters: &(Key, Key), engine: &[u8]) -> Protection {
    let short = keys::localize(user.auth, &masters.1, engine);
    let privacy = keys::extend(user.auth, &short, engine, keys::privacy_bytes(user.privacy), user.extension);
    let keys = Keys { auth: keys::localize(user.auth, &masters.0, engine), privacy };
    Protection { auth: user.auth, privacy: user.privacy, keys }
}

impl SimAgent {
    /// The reply to a v3 message.
    pub(super) fn answer_secured(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let incoming = usm::read(datagram).ok()?;
        let engine = &self.engine;
        if incoming.engine != engine.id {
            return self.report(&incoming, Complaint::UnknownEngineIds);
        }
        let Some(known) = engine.user(incoming.user) else { return self.report(&incoming, Complaint::UnknownUserNames) };
        let (protection, access) = (known.protection.clone(), known.user.access);
        if incoming.level > Level::NoAuthNoPriv {
            if !incoming.verify(protection.auth, &protection.keys.auth) {
                return self.report(&incoming, Complaint::WrongDigests);
            }
            let now = engine.clock();
            if incoming.clock.boots != now.boots || incoming.clock.time.abs_diff(now.time) > TIME_WINDOW {
                return self.report(&incoming, Complaint::NotInTimeWindows);
            }
        }
        let Ok(scoped) = incoming.open(Some(&protection)) else {
            // As net-snmp does: noise does not parse, and what does not parse is dropped.
            return if self.faults.mute_on_wrong_key { None } else { self.report(&incoming, Complaint::DecryptionErrors) };
        };
        let room = (incoming.bytes_max as usize).saturating_sub(ENVELOPE_BYTES);
        let reply = match incoming.level {
            level if level == protection.privacy.level() => self.respond(&scoped.pdu, access, room)?,
            Level::NoAuthNoPriv | Level::AuthNoPriv | Level::AuthPriv => {
                Pdu { kind: Kind::Response, status: AUTHORIZATION_ERROR, index: 0, ..scoped.pdu.clone() }
            }
        };
        self.seal(&incoming, incoming.level, Some(&protection), &reply)
    }

    /// A Report, if the sender takes one. Only notInTimeWindow can be authenticated: the others know no key.
    fn report(&mut self, incoming: &Incoming<'_>, complaint: Complaint) -> Option<Vec<u8>> {
        if !incoming.reportable {
            return None;
        }
        self.engine.reports += 1;
        // The request-id, where it can be read (RFC 3412 section 7.1, 3c).
        let request = match incoming.level {
            Level::NoAuthNoPriv => incoming.open(None).map_or(0, |scoped| scoped.pdu.request),
            Level::AuthNoPriv | Level::AuthPriv => 0,
        };
        let oid = Oid(vec![1, 3, 6, 1, 6, 3, 15, 1, 1, complaint as u32, 0]);
        let bindings = vec![(oid, Value::Counter32(self.engine.reports))];
        let pdu = Pdu { kind: Kind::Report, request, status: 0, index: 0, bindings };
        let (level, protection) = match complaint {
            Complaint::NotInTimeWindows => (Level::AuthNoPriv, self.engine.user(incoming.user).map(|known| known.protection.clone())),
            Complaint::UnknownUserNames | Complaint::UnknownEngineIds | Complaint::WrongDigests | Complaint::DecryptionErrors => {
                (Level::NoAuthNoPriv, None)
            }
        };
        self.seal(incoming, level, protection.as_ref(), &pdu)
    }

    fn seal(&mut self, incoming: &Incoming<'_>, level: Level, protection: Option<&Protection>, pdu: &Pdu) -> Option<Vec<u8>> {
        self.engine.salt = self.engine.salt.wrapping_add(1);
        let mut clock = self.engine.clock();
        if let (Level::NoAuthNoPriv, Some(boots)) = (level, self.faults.false_boots) {
            clock.boots = boots;
        }
        let engine = self.engine.id.as_slice();
        let (id, user, salt) = (incoming.id, incoming.user, self.engine.salt);
        Outgoing { id, level, reportable: false, engine, clock, user, protection, salt, context: b"", pdu }.bytes().ok()
    }
}

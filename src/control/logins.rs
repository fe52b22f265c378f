//! Which login a device's worker gets, and where it worked before. Files of Secrets are read beside the loop, and their answers are messages
//! to it.
//!
//! Leaves out: how a Secret is read (`secrets`). Invariants: the loop waits for no file; one attempt for each Secret is under way or due, and
//! a Secret that gives nothing is tried again at a growing distance. Shown by the tests below.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::cache::{Cache, Stored};
use super::controller::Controller;
use super::fleet::secret_of;
use super::secrets::{self, BadSecret, Values};
use super::status;
use crate::clock::Clock;
use crate::drivers::credentials::Turns;
use crate::limits;
use crate::model::fact::Tick;
use crate::model::op::Device;
use crate::model::secret::{BmcLogin, SecretSpec, SnmpLogin};
use crate::model::{Kind, Name, Reason, ServerSpec, SwitchSpec};
use crate::plan::observed::Trouble;
use crate::store::{Expect, Revision, Write, keys};

/// Which Secret: its uid and its generation.
type Version = (String, u64);

/// Where credentials worked: this version of this Secret, at this address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Login {
    secret: String,
    uid: String,
    generation: u64,
    address: String,
}

/// Why a device has no worker.
pub(super) struct NoLogin {
    pub(super) trouble: Trouble,
    /// When its Secret is read again.
    pub(super) again_at: Option<Tick>,
}

impl From<BadSecret> for NoLogin {
    fn from(error: BadSecret) -> NoLogin {
        NoLogin { trouble: Trouble { reason: Reason::NoCredentials, message: error.to_string() }, again_at: None }
    }
}

/// An attempt that came back.
pub(super) struct Attempt {
    secret: Name,
    number: u64,
    result: Result<Values, BadSecret>,
}

struct FileSecret {
    version: Version,
    file: String,
    /// The attempt that is under way or due: of all others the answer is dropped.
    number: u64,
    failures: u32,
    state: State,
}

enum State {
    BeingRead,
    /// It is read again now and then: `changed` is what it held the last time, where that is something else; `unreadable`, why that did not
    /// read.
    Read {
        values: Values,
        changed: Option<Values>,
        unreadable: Option<BadSecret>,
    },
    Failed {
        why: BadSecret,
        again_at: Tick,
    },
}

/// How reading the file of a Secret went the last time.
pub(super) enum Reading<'a> {
    UnderWay,
    Reads {
        file: &'a str,
    },
    /// What it held before is still used.
    NoMore(&'a BadSecret),
    Never(&'a BadSecret),
}

/// What was read of Secrets that name a file. Each is read again now and then; what it holds then counts once two readings agree, so that a file
/// that is being written is no new password. One that cannot be read any more stays what it was.
pub(super) struct FileSecrets {
    by: BTreeMap<Name, FileSecret>,
    attempts: u64,
    done: mpsc::Sender<Attempt>,
    inbox: mpsc::Receiver<Attempt>,
}

impl Default for FileSecrets {
    fn default() -> Self {
        // They wait in their own tasks, one for each Secret, where it is full.
        let (done, inbox) = mpsc::channel(limits::SECRETS_READ);
        FileSecrets { by: BTreeMap::new(), attempts: 0, done, inbox }
    }
}

impl FileSecrets {
    pub(super) async fn next(&mut self) -> Attempt {
        match self.inbox.recv().await {
            Some(attempt) => attempt,
            // The other end is our own.
            None => std::future::pending().await,
        }
    }

    /// What the file holds, if it is known; else it is being read.
    fn values(&mut self, secret: &Name, version: Version, file: &str) -> Result<Values, NoLogin> {
        if self.by.get(secret).is_none_or(|known| known.version != version) {
            let number = self.read(secret, file, std::time::Duration::ZERO);
            let new = FileSecret { version, file: file.to_owned(), number, failures: 0, state: State::BeingRead };
            self.by.insert(secret.clone(), new);
        }
        match self.by.get(secret).map(|known| &known.state) {
            Some(State::Read { values, .. }) => Ok(values.clone()),
            Some(State::Failed { why, again_at }) => Err(NoLogin { again_at: Some(*again_at), ..NoLogin::from(why.clone()) }),
            Some(State::BeingRead) | None => {
                let message = format!("secret {secret} is being read from {file}");
                Err(NoLogin { trouble: Trouble { reason: Reason::CredentialsPending, message }, again_at: None })
            }
        }
    }

    fn read(&mut self, secret: &Name, file: &str, after: std::time::Duration) -> u64 {
        self.attempts += 1;
        let (number, secret, file, done) = (self.attempts, secret.clone(), file.to_owned(), self.done.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                // The controller is gone.
                () = done.closed() => return,
                () = tokio::time::sleep(after) => {}
            }
            let result = secrets::file_values(secret.as_str(), &file).await;
            let _gone = done.send(Attempt { secret, number, result }).await;
        });
        number
    }

    /// Nothing: it is not read, since it names no file, or nobody needs it.
    pub(super) fn reading(&self, secret: &Name) -> Option<Reading<'_>> {
        self.by.get(secret).map(|known| match &known.state {
            State::BeingRead => Reading::UnderWay,
            State::Read { unreadable: None, .. } => Reading::Reads { file: &known.file },
            State::Read { unreadable: Some(why), .. } => Reading::NoMore(why),
            State::Failed { why, .. } => Reading::Never(why),
        })
    }

    /// Takes in an attempt; the Secret that it concerns, if it still does and is another one by it, and whether that gave something before.
    fn came_back(&mut self, attempt: Attempt, clock: Clock) -> Option<(Name, bool)> {
        let Attempt { secret, number, result } = attempt;
        let known = self.by.get_mut(&secret).filter(|known| known.number == number)?;
        let (mut distance, mut news) = (limits::SECRET_READ_EVERY, None);
        match (result, &mut known.state) {
            (Ok(now), State::Read { values, changed, unreadable }) => {
                if unreadable.take().is_some() {
                    tracing::info!(secret = %secret, "the file of a secret reads again");
                }
                if now == *values {
                    *changed = None;
                } else if changed.as_ref() == Some(&now) {
                    (*values, *changed, news) = (now, None, Some(true));
                } else {
                    (*changed, distance) = (Some(now), limits::RETRY_FIRST);
                }
            }
            (Err(why), State::Read { unreadable, .. }) => {
                if unreadable.is_none() {
                    tracing::warn!(secret = %secret, error = %why, "the file of a secret cannot be read any more; what it held is still used");
                }
                *unreadable = Some(why);
            }
            (Ok(values), State::BeingRead | State::Failed { .. }) => {
                (known.state, news) = (State::Read { values, changed: None, unreadable: None }, Some(false));
                known.failures = 0;
            }
            (Err(why), State::BeingRead | State::Failed { .. }) => {
                distance = limits::RETRY_FIRST.saturating_mul(1 << known.failures.min(16)).min(limits::RETRY_MAX);
                known.failures = known.failures.saturating_add(1);
                (known.state, news) = (State::Failed { why, again_at: clock.now().plus(distance) }, Some(false));
            }
        }
        let file = known.file.clone();
        let number = self.read(&secret, &file, distance);
        self.by.get_mut(&secret)?.number = number;
        news.map(|was_another| (secret, was_another))
    }

    /// The next question reads the file again.
    pub(super) fn forget(&mut self, secret: &Name) {
        self.by.remove(secret);
    }
}

/// Logins of devices, and where they worked.
#[derive(Default)]
pub(super) struct Logins {
    pub(super) files: FileSecrets,
    /// Who may try a version of a Secret.
    turns: BTreeMap<(Name, u64), Arc<Turns>>,
    /// Where credentials worked, as it is stored.
    worked: BTreeMap<(Kind, Name), Stored<Login>>,
}

impl Logins {
    /// All workers of one version of a Secret share them.
    pub(super) fn turns_of(&mut self, secret: &Name, cache: &Cache) -> Arc<Turns> {
        let generation = cache.objects.secrets.get(secret).map_or(0, |s| s.meta.generation);
        let key = (secret.clone(), generation);
        if let Some(turns) = self.turns.get(&key) {
            return Arc::clone(turns);
        }
        let turns = Arc::new(Turns::with_proven(self.worked_at(secret, cache)));
        self.turns.insert(key, Arc::clone(&turns));
        turns
    }

    /// The Secret is another one now.
    pub(super) fn changed(&mut self, secret: &Name) {
        self.turns.retain(|(of, _), _| of != secret);
    }

    /// A person says that it is to be tried again.
    pub(super) fn forget(&mut self, secret: &Name) {
        self.changed(secret);
        self.files.forget(secret);
    }

    pub(super) fn bmc(&mut self, spec: &ServerSpec, cache: &Cache) -> Result<BmcLogin, NoLogin> {
        let name = &spec.bmc.secret_ref.name;
        Ok(secrets::bmc_login(name.as_str(), &self.values(name, cache)?)?)
    }

    pub(super) fn snmp(&mut self, spec: &SwitchSpec, cache: &Cache) -> Result<SnmpLogin, NoLogin> {
        let name = &spec.snmp.secret_ref.name;
        Ok(secrets::snmp_login(name.as_str(), spec.snmp.version, spec.snmp.insecure, &self.values(name, cache)?)?)
    }

    fn values(&mut self, secret: &Name, cache: &Cache) -> Result<Values, NoLogin> {
        let missing =
            || BadSecret::Source { secret: secret.to_string(), place: "the store".to_owned(), why: "there is no such Secret".to_owned() };
        let held = cache.objects.secrets.get(secret).ok_or_else(missing)?;
        match file_of(&held.spec) {
            Some(file) => self.files.values(secret, (held.meta.uid.clone(), held.meta.generation), file),
            None => Ok(secrets::values(secret.as_str(), &held.spec)?),
        }
    }

    /// The devices where the present version of a Secret has worked.
    fn worked_at(&self, secret: &Name, cache: &Cache) -> BTreeSet<Device> {
        let of_secret = self.worked.iter().filter(|(_, stored)| stored.value.secret == secret.as_str());
        let devices = of_secret.map(|((kind, name), stored)| (device(*kind, name), &stored.value));
        devices.filter(|(device, login)| login_of(device, cache).is_some_and(|(_, now)| now == **login)).map(|(device, _)| device).collect()
    }

    pub(super) fn write(&self, kind: Kind, name: &Name, value: &Login) -> Write {
        let expect = self.worked.get(&(kind, name.clone())).map_or(Expect::Absent, |known| Expect::At(known.revision));
        Write::put(keys::login(kind, name), serde_json::to_vec(value).unwrap_or_default(), expect)
    }

    pub(super) fn stored(&mut self, kind: Kind, name: Name, value: Login, revision: Revision) {
        self.worked.insert((kind, name), Stored { value, revision });
    }
}

fn device(kind: Kind, name: &Name) -> Device {
    match kind {
        Kind::Switch => Device::Switch(name.clone()),
        Kind::Server | Kind::Policy | Kind::Secret | Kind::Network | Kind::Persona | Kind::Binding => Device::Bmc(name.clone()),
    }
}

/// What would be remembered of a device's login now. Nothing where the Secret names a file: that may hold something else tomorrow.
fn login_of(device: &Device, cache: &Cache) -> Option<((Kind, Name), Login)> {
    let secret = secret_of(device, cache)?;
    let held = cache.objects.secrets.get(secret).filter(|held| file_of(&held.spec).is_none())?;
    let (key, address) = match device {
        Device::Bmc(name) => ((Kind::Server, name.clone()), cache.objects.servers.get(name)?.spec.bmc.address.to_string()),
        Device::Switch(name) => ((Kind::Switch, name.clone()), cache.objects.switches.get(name)?.spec.address.to_string()),
    };
    Some((key, Login { secret: secret.to_string(), uid: held.meta.uid.clone(), generation: held.meta.generation, address }))
}

impl Controller {
    pub(super) fn secret_was_read(&mut self, attempt: Attempt) {
        // Nobody asks for it any more.
        if !self.cache.objects.secrets.contains_key(&attempt.secret) {
            return self.fleet.logins.files.forget(&attempt.secret);
        }
        let of = attempt.secret.clone();
        let news = self.fleet.logins.files.came_back(attempt, self.clock);
        self.tell_secret(&of);
        let Some((secret, was_another)) = news else { return };
        if was_another {
            tracing::info!(secret = %secret, "the file of a secret holds something else: its devices are asked anew");
            self.fleet.logins.changed(&secret);
        }
        let servers = self.cache.objects.servers.iter().filter(|(_, s)| s.spec.bmc.secret_ref.name == secret);
        let switches = self.cache.objects.switches.iter().filter(|(_, s)| s.spec.snmp.secret_ref.name == secret);
        let devices: Vec<Device> =
            servers.map(|(name, _)| Device::Bmc(name.clone())).chain(switches.map(|(name, _)| Device::Switch(name.clone()))).collect();
        for device in devices {
            if was_another {
                self.fleet.make_anew(&device);
            }
            self.worker_of(&device);
        }
    }

    /// Says of a Secret whether its file reads; of one that is not read any more, nothing.
    pub(super) fn tell_secret(&mut self, secret: &Name) {
        let Some(held) = self.cache.objects.secrets.get(secret) else { return };
        if file_of(&held.spec).is_none() {
            self.fleet.logins.files.forget(secret);
        }
        let reading = self.fleet.logins.files.reading(secret);
        let is_news = match reading {
            Some(Reading::UnderWay) => false,
            Some(Reading::Reads { .. } | Reading::NoMore(_) | Reading::Never(_)) => true,
            None => self.status.has_told(Kind::Secret, secret),
        };
        if is_news {
            let status = status::secret(held.meta.generation, reading.as_ref());
            self.status.say(Kind::Secret, secret, true, &status, &self.cache);
        }
    }

    pub(super) fn tell_secrets(&mut self) {
        let all: Vec<Name> = self.cache.objects.secrets.keys().cloned().collect();
        all.iter().for_each(|secret| self.tell_secret(secret));
    }

    /// What is to be remembered of a device where the credentials have worked, if it is not.
    pub(super) fn login_to_remember(&self, device: &Device) -> Option<(Kind, Name, Login)> {
        let ((kind, name), value) = login_of(device, &self.cache)?;
        let known = self.fleet.logins.worked.get(&(kind, name.clone()));
        known.is_none_or(|known| known.value != value).then_some((kind, name, value))
    }
}

fn file_of(secret: &SecretSpec) -> Option<&str> {
    secret.from.as_ref().and_then(|from| from.file.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Hidden;

    fn name() -> Name {
        "bmc".parse().unwrap()
    }

    #[tokio::test]
    async fn a_file_is_read_beside_the_loop_and_again_when_the_secret_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s").to_str().unwrap().to_owned();
        std::fs::write(&file, "password=one\n").unwrap();
        let (mut files, clock) = (FileSecrets::default(), Clock::start());
        let value = |files: &mut FileSecrets, generation| match files.values(&name(), ("uid".to_owned(), generation), &file) {
            Ok(values) => Ok(values.get("password").unwrap().reveal().to_owned()),
            Err(no) => Err(no.trouble.reason),
        };
        assert_eq!(value(&mut files, 1), Err(Reason::CredentialsPending));
        let read = files.next().await;
        assert_eq!(files.came_back(read, clock), Some((name(), false)));
        std::fs::write(&file, "password=two\n").unwrap();
        assert_eq!(value(&mut files, 1), Ok("one".to_owned()));
        assert_eq!(value(&mut files, 2), Err(Reason::CredentialsPending));
        let old = Attempt { secret: name(), number: 1, result: Ok(Values::new()) };
        assert_eq!(files.came_back(old, clock), None, "the answer of an earlier attempt");
        let read = files.next().await;
        files.came_back(read, clock);
        assert_eq!(value(&mut files, 2), Ok("two".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_gives_nothing_is_tried_again_at_a_growing_distance() {
        let (mut files, clock) = (FileSecrets::default(), Clock::start());
        let version = ("uid".to_owned(), 1);
        let mut gaps = Vec::new();
        assert!(files.values(&name(), version.clone(), "/none").is_err());
        for _ in 0..10 {
            let attempt =
                Attempt { secret: name(), number: files.attempts, result: Err(BadSecret::Missing { secret: "s".into(), key: "k" }) };
            assert_eq!(files.came_back(attempt, clock), Some((name(), false)));
            let no = files.values(&name(), version.clone(), "/none").map(|_| ()).unwrap_err();
            gaps.push(no.again_at.unwrap().since(clock.now()).as_secs());
        }
        assert_eq!(gaps, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    /// A file that is being written is no new password, and one that is gone for a moment takes none away.
    #[tokio::test(start_paused = true)]
    async fn what_a_file_holds_instead_counts_once_two_readings_agree() {
        let (mut files, clock) = (FileSecrets::default(), Clock::start());
        let version = ("uid".to_owned(), 1);
        assert!(files.values(&name(), version.clone(), "/none").is_err());
        let one = |password: &str| Values::from([("password".to_owned(), Hidden::new(password.to_owned()))]);
        let mut reads = |result: Result<Values, BadSecret>| {
            let attempt = Attempt { secret: name(), number: files.attempts, result };
            let news = files.came_back(attempt, clock).map(|(_, was_another)| was_another);
            let now = files.values(&name(), version.clone(), "/none").ok().and_then(|v| v.get("password").map(|p| p.reveal().to_owned()));
            (news, now.unwrap())
        };
        let missing = || Err(BadSecret::Missing { secret: "s".into(), key: "k" });
        for (result, news, now) in [
            (Ok(one("old")), Some(false), "old"),
            (Ok(one("old")), None, "old"),
            (Ok(one("n")), None, "old"),
            (Ok(one("new")), None, "old"),
            (missing(), None, "old"),
            (Ok(one("new")), Some(true), "new"),
            (Ok(one("new")), None, "new"),
            (Ok(one("other")), None, "new"),
            (Ok(one("new")), None, "new"),
            (Ok(one("other")), None, "new"),
        ] {
            assert_eq!(reads(result), (news, now.to_owned()));
        }
    }
}

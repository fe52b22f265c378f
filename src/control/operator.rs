//! What the API needs of a running controller, beside the store: the questions that only it can answer, and the words of people that are
//! not desired state (approve, pause, retry). `control` implements it; the tests of the API stand in for it.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::model::body::BootsOnce;
use crate::model::image::{Image, ImageName};
use crate::model::{Kind, Name, Object};

/// The whole future of a set of desired state, as far as can be seen today.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Forecast {
    /// Servers of which something would be changed.
    pub servers: usize,
    pub link_flaps: usize,
    pub power_offs: usize,
    /// Servers that wait for an approval.
    pub held: usize,
    /// Operations in the order in which they would be sent.
    pub steps: Vec<ForecastStep>,
    /// What would not go on, and why, in words.
    pub waits: Vec<String>,
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForecastStep {
    /// Steps of one wave go side by side; each wave waits until the one before is seen done. From 1.
    pub wave: usize,
    pub server: Name,
    /// `SNMP tor-1 Gi1/0/1 1 → 120`.
    pub op: String,
    /// `none`, `link flap`, `power off`.
    pub disruption: String,
    pub because: String,
    /// What would be sent to the device, in this order, or why that is not known.
    #[serde(default)]
    pub writes: Vec<String>,
}

/// An image: what is stored of it, and who needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRow {
    pub name: ImageName,
    pub image: Image,
    /// Why it cannot be served by the controller that acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
    /// How large it is as machines read it into their memory, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ram: Option<u64>,
    /// The personas that name it.
    pub personas: Vec<Name>,
    /// The servers that may run it.
    pub servers: Vec<Name>,
}

/// One row of `get ports`: a switch port that is managed, or named by a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRow {
    pub switch: Name,
    pub port: String,
    /// `Up`, `Down`, `Unknown`.
    pub link: String,
    /// `120+t(130)`; nothing where nothing is wanted of it.
    pub want: Option<String>,
    /// Nothing where it was not seen.
    pub have: Option<String>,
    /// `web-1/nic1`.
    pub wired_to: Option<String>,
    /// Why it is not written, where it is not.
    pub note: Option<String>,
}

/// Why a request of a person is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{what} is not known")]
    NotFound { what: String },
    #[error("{why}")]
    Refused { why: String },
    /// Another controller acts; it says who.
    #[error("this controller does not act at present: `{leader}` does")]
    NotLeader { leader: String },
    #[error("the store did not take it: {why}")]
    Store { why: String },
}

/// What an approval says beside the plan that was shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Approving {
    #[default]
    ThePlan,
    /// The server already runs the persona.
    Adopt,
    /// A hard off may follow where no soft-off was accepted.
    Hard,
    /// This server, which no binding names and which may run the persona, is switched off for it as a move would.
    Release(Name),
}

/// What an approval would cover, for the person who gives it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalShown {
    /// Of exactly this: it is given back with the approval. 12 hexadecimal digits.
    pub digest: String,
    /// What the binding would do.
    pub forecast: Forecast,
    /// What was approved before and is still to be done or on its way: it stays approved.
    pub earlier: Vec<String>,
}

/// What a person declares of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Declaring {
    /// Its power is cut.
    Off,
    /// It runs nothing of embody's.
    Foreign,
}

/// What a pause covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    Everything,
    Object {
        kind: Kind,
        name: Name,
    },
    /// Bindings and servers with these labels.
    Labels {
        match_labels: std::collections::BTreeMap<String, String>,
    },
    /// Corrections, while the breaker is open: embody says so itself, and only its own word ends it.
    Breaker,
}

impl Scope {
    pub fn in_words(&self) -> String {
        match self {
            Scope::Everything => "everything".to_owned(),
            Scope::Breaker => "the breaker".to_owned(),
            Scope::Object { kind, name } => format!("{kind} {name}").to_lowercase(),
            Scope::Labels { match_labels } => {
                let labels: Vec<String> = match_labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("what has the labels {}", labels.join(","))
            }
        }
    }

    /// The command that ends a pause of this.
    pub fn resume(&self) -> String {
        match self {
            Scope::Everything => "embody resume --all".to_owned(),
            Scope::Breaker => "embody resume breaker".to_owned(),
            Scope::Object { kind, name } => format!("embody resume {}/{name}", kind.singular().to_lowercase()),
            Scope::Labels { match_labels } => {
                let labels: Vec<String> = match_labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("embody resume -l {}", labels.join(","))
            }
        }
    }
}

/// One row of `get pauses`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PauseRow {
    /// `everything`, `server web-1`, `what has the labels rack=r1`, `the breaker`.
    pub what: String,
    pub by: String,
    pub reason: String,
    /// RFC 3339.
    pub since: String,
    /// RFC 3339; nothing: until resumed.
    pub until: Option<String>,
    /// The command that ends it.
    pub resume: String,
}

/// One row of `get leases`: an address that a machine was given out of a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRow {
    pub address: String,
    pub mac: String,
    pub network: String,
    /// Nothing: no manifest names the machine.
    pub server: Option<String>,
    /// RFC 3339.
    pub since: String,
}

/// One row of `get discovered`: a machine that asked for an address or for something to boot, and that no manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveredRow {
    pub mac: String,
    /// What its firmware says: SMBIOS UUID.
    pub uuid: Option<String>,
    /// `x86_64, BIOS`.
    pub arch: Option<String>,
    pub network: String,
    /// The relay agent's address.
    pub relay: Option<String>,
    /// RFC 3339: when it last asked.
    pub at: String,
    /// `PXE, architecture 7`.
    pub what: String,
}

/// The last start of a server, stage by stage, as far as this controller saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartRow {
    pub server: Name,
    pub stages: Vec<StageRow>,
    /// What went wrong since the last script: `its kernel could not be fetched, 12s ago`.
    pub failed: Option<String>,
}

/// Times as `0.4s`, `12s`, `3m`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageRow {
    /// `power on`, `DHCP`, `loader`, `script`, `kernel`, `initrd`, `initrd runs`, `root`, `hello`.
    pub stage: String,
    pub what: String,
    /// After the stage before it.
    pub took: Option<String>,
    /// The median of what it took in earlier starts of this server.
    pub usually: Option<String>,
    pub ago: String,
}

#[async_trait]
pub trait Control: Send + Sync {
    /// The forecast for the desired state as they are, with `changes` laid over them (nothing is applied).
    async fn forecast(&self, changes: Vec<Object>) -> Forecast;
    /// One paragraph about an object.
    async fn why(&self, kind: Kind, name: &Name) -> Result<String, Refusal>;
    async fn ports(&self) -> Vec<PortRow>;
    /// What is paused, and the breaker where it is open.
    async fn pauses(&self) -> Vec<PauseRow>;
    async fn leases(&self) -> Vec<LeaseRow>;
    async fn discovered(&self) -> Vec<DiscoveredRow>;
    /// The last starts of all servers, or of one.
    async fn starts(&self, server: Option<Name>) -> Vec<StartRow>;
    /// Another key signs the tokens of starts from now on.
    async fn rotate_key(&self, who: &str) -> Result<String, Refusal>;
    /// What approving a binding with this word would cover, or lead to.
    async fn show_approval(&self, binding: &Name, word: Approving) -> Result<ApprovalShown, Refusal>;
    /// Approves exactly what was shown with this digest, or declares that the binding's server already runs the persona. A sentence to show.
    async fn approve(&self, binding: &Name, word: Approving, digest: &str, who: &str) -> Result<String, Refusal>;
    /// A person's word about a server that embody cannot ask: kept with who said it and why.
    async fn declare(&self, server: &Name, what: Declaring, reason: &str, who: &str) -> Result<String, Refusal>;
    /// What the next start of a server boots instead of what is bound; nothing: no more of that.
    async fn boot_once(&self, server: &Name, boots: Option<BootsOnce>, who: &str) -> Result<String, Refusal>;
    async fn images(&self) -> Result<Vec<ImageRow>, Refusal>;
    /// Gives a name its content, for ever.
    async fn add_image(&self, name: &ImageName, image: Image) -> Result<String, Refusal>;
    /// Removes one that nothing needs; with `force` also one of the last of its name.
    async fn remove_image(&self, name: &ImageName, force: bool, who: &str) -> Result<String, Refusal>;
    /// Takes the store as it is, although it holds less than it once acknowledged.
    async fn accept_store(&self, who: &str) -> Result<String, Refusal>;
    /// What drifts now may be corrected: the breaker closes.
    async fn close_breaker(&self, who: &str) -> Result<String, Refusal>;
    /// Accepts the identity that a Server's BMC or a Switch shows now.
    async fn accept(&self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal>;
    /// Forgets refused credentials, contention, failures and back-off of an object, and looks now.
    async fn retry(&self, kind: Kind, name: &Name, who: &str) -> Result<String, Refusal>;
    async fn pause(&self, scope: Scope, reason: &str, seconds: Option<u64>, who: &str) -> Result<String, Refusal>;
    async fn resume(&self, scope: Scope, who: &str) -> Result<String, Refusal>;
    /// Whether an object may be deleted; why not, and by whom it is held.
    async fn may_delete(&self, kind: Kind, name: &Name) -> Result<(), Refusal>;
    /// Why a binding's body may be alive, in words; nothing where it is off and nothing may run there.
    async fn alive(&self, binding: &Name) -> Result<Option<String>, Refusal>;
}

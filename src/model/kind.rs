//! The kinds of objects and the words people use for them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub(crate) const GROUP: &str = "embody.dev";
pub(crate) const VERSION: &str = "v1alpha1";
pub(crate) const API_VERSION: &str = "embody.dev/v1alpha1";

/// In the order in which one apply creates them: what others refer to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Kind {
    Policy,
    Secret,
    Network,
    Switch,
    Server,
    Persona,
    Binding,
}

pub const KINDS: [Kind; 7] = [Kind::Policy, Kind::Secret, Kind::Network, Kind::Switch, Kind::Server, Kind::Persona, Kind::Binding];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected one of Policy, Secret, Network, Switch, Server, Persona, Binding")]
pub struct BadKind {
    pub found: String,
}

impl Kind {
    pub fn singular(self) -> &'static str {
        match self {
            Kind::Policy => "Policy",
            Kind::Secret => "Secret",
            Kind::Network => "Network",
            Kind::Switch => "Switch",
            Kind::Server => "Server",
            Kind::Persona => "Persona",
            Kind::Binding => "Binding",
        }
    }

    /// What people type instead.
    pub fn short(self) -> &'static str {
        match self {
            Kind::Policy => "pol",
            Kind::Secret => "sec",
            Kind::Network => "net",
            Kind::Switch => "sw",
            Kind::Server => "srv",
            Kind::Persona => "pe",
            Kind::Binding => "bd",
        }
    }

    /// The resource name in URLs and store keys.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Policy => "policies",
            Kind::Secret => "secrets",
            Kind::Network => "networks",
            Kind::Switch => "switches",
            Kind::Server => "servers",
            Kind::Persona => "personas",
            Kind::Binding => "bindings",
        }
    }
}

impl FromStr for Kind {
    type Err = BadKind;
    /// Singular, plural or short, in any case.
    fn from_str(text: &str) -> Result<Self, BadKind> {
        let is = |k: &Kind| [k.singular(), k.plural(), k.short()].iter().any(|word| word.eq_ignore_ascii_case(text));
        KINDS.into_iter().find(is).ok_or_else(|| BadKind { found: text.to_owned() })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.singular())
    }
}

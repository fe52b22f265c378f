//! Object metadata, as in Kubernetes (meta/v1 ObjectMeta); what users may write of it is `name`, `labels`, `annotations`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Name;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Meta {
    /// Unique among the objects of one kind.
    pub name: Name,
    /// For selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For people and tools; embody only keeps them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Set by the store: one for each life of a name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Set by the store: the revision that last changed this object, opaque to users.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Set by the store: counts changes of `spec`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// Set by the store: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Set by the store: deletion was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// What must happen before the object goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Meta {
    pub fn named(name: Name) -> Meta {
        Meta {
            name,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            uid: String::new(),
            resource_version: String::new(),
            generation: 0,
            creation_timestamp: None,
            deletion_timestamp: None,
            finalizers: Vec::new(),
        }
    }
}

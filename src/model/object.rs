//! One object as it is stored and sent: metadata, spec, status.

use serde::{Deserialize, Serialize};

use super::{BindingSpec, Kind, Meta, Name, NetworkSpec, PersonaSpec, PolicySpec, SecretSpec, ServerSpec, SwitchSpec};
use crate::model::kind::API_VERSION;

#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub meta: Meta,
    pub spec: Spec,
    /// What embody says of it: `status::BindingStatus` and so on, as JSON. Null where nothing was said yet.
    pub status: serde_json::Value,
}

#[allow(clippy::large_enum_variant, reason = "most objects are Servers and Bindings; a Persona is half as large again")]
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    Policy(PolicySpec),
    Secret(SecretSpec),
    Network(NetworkSpec),
    Switch(SwitchSpec),
    Server(ServerSpec),
    Persona(PersonaSpec),
    Binding(BindingSpec),
}

impl Spec {
    pub fn kind(&self) -> Kind {
        match self {
            Spec::Policy(_) => Kind::Policy,
            Spec::Secret(_) => Kind::Secret,
            Spec::Network(_) => Kind::Network,
            Spec::Switch(_) => Kind::Switch,
            Spec::Server(_) => Kind::Server,
            Spec::Persona(_) => Kind::Persona,
            Spec::Binding(_) => Kind::Binding,
        }
    }
}

/// The envelope on the wire. A Secret carries `stringData` and `from` beside `metadata`, not in a `spec`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    api_version: String,
    kind: Kind,
    metadata: Meta,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    spec: serde_json::Value,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    string_data: serde_json::Value,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    from: serde_json::Value,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    status: serde_json::Value,
}

#[derive(Debug, thiserror::Error)]
pub enum BadObject {
    #[error("found apiVersion `{found}`, expected `{API_VERSION}`")]
    Version { found: String },
    #[error("the object does not read as a {kind}")]
    Spec {
        kind: Kind,
        #[source]
        source: serde_json::Error,
    },
    #[error("the object has no readable envelope")]
    Envelope {
        #[source]
        source: serde_json::Error,
    },
}

impl Object {
    pub fn kind(&self) -> Kind {
        self.spec.kind()
    }

    pub fn name(&self) -> &Name {
        &self.meta.name
    }

    /// The whole object with everything in it, secrets too: for the store, and for a controller's socket from a client.
    pub fn to_json(&self) -> serde_json::Value {
        let spec = |v: &dyn erased::ToJson| v.to_json();
        let mut envelope = Envelope {
            api_version: API_VERSION.to_owned(),
            kind: self.kind(),
            metadata: self.meta.clone(),
            spec: serde_json::Value::Null,
            string_data: serde_json::Value::Null,
            from: serde_json::Value::Null,
            status: self.status.clone(),
        };
        match &self.spec {
            Spec::Policy(s) => envelope.spec = spec(s),
            Spec::Network(s) => envelope.spec = spec(s),
            Spec::Switch(s) => envelope.spec = spec(s),
            Spec::Server(s) => envelope.spec = spec(s),
            Spec::Persona(s) => envelope.spec = spec(s),
            Spec::Binding(s) => envelope.spec = spec(s),
            Spec::Secret(s) => {
                if !s.string_data.is_empty() {
                    envelope.string_data = spec(&s.string_data);
                }
                if let Some(from) = &s.from {
                    envelope.from = spec(from);
                }
            }
        }
        serde_json::to_value(envelope).unwrap_or_default()
    }

    /// The object as people may see it: the values of a Secret are replaced.
    pub fn to_public_json(&self) -> serde_json::Value {
        let mut json = self.to_json();
        if let Some(data) = json.get_mut("stringData").and_then(|d| d.as_object_mut()) {
            data.values_mut().for_each(|v| *v = "(hidden)".into());
        }
        json
    }

    pub fn from_json(json: serde_json::Value) -> Result<Object, BadObject> {
        let envelope: Envelope = serde_json::from_value(json).map_err(|source| BadObject::Envelope { source })?;
        if envelope.api_version != API_VERSION {
            return Err(BadObject::Version { found: envelope.api_version });
        }
        let kind = envelope.kind;
        let bad = |source| BadObject::Spec { kind, source };
        let spec = match kind {
            Kind::Policy => Spec::Policy(serde_json::from_value(envelope.spec).map_err(bad)?),
            Kind::Network => Spec::Network(serde_json::from_value(envelope.spec).map_err(bad)?),
            Kind::Switch => Spec::Switch(serde_json::from_value(envelope.spec).map_err(bad)?),
            Kind::Server => Spec::Server(serde_json::from_value(envelope.spec).map_err(bad)?),
            Kind::Persona => Spec::Persona(serde_json::from_value(envelope.spec).map_err(bad)?),
            Kind::Binding => Spec::Binding(serde_json::from_value(envelope.spec).map_err(bad)?),
            Kind::Secret => {
                let mut secret = serde_json::Map::new();
                for (key, value) in [("stringData", envelope.string_data), ("from", envelope.from)] {
                    if !value.is_null() {
                        secret.insert(key.to_owned(), value);
                    }
                }
                Spec::Secret(serde_json::from_value(secret.into()).map_err(bad)?)
            }
        };
        Ok(Object { meta: envelope.metadata, spec, status: envelope.status })
    }
}

mod erased {
    pub(super) trait ToJson {
        fn to_json(&self) -> serde_json::Value;
    }
    impl<T: serde::Serialize> ToJson for T {
        /// Our own types have string keys and no failing `Serialize`.
        fn to_json(&self) -> serde_json::Value {
            serde_json::to_value(self).unwrap_or_default()
        }
    }
}

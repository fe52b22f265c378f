//! The nouns: what users write, what devices show, what is stored about bodies. Types and their text forms only.
//!
//! Leaves out: files and positions (`manifest`), decisions (`plan`), I/O of any kind. Nothing here reads a clock.
//! Invariant: a value of one of these types is valid by itself; what can be wrong *between* two objects is `manifest::lint`.

pub(crate) mod binding;
pub(crate) mod body;
pub(crate) mod claim;
pub(crate) mod fact;
pub(crate) mod file;
pub(crate) mod identity;
pub(crate) mod image;
pub(crate) mod kind;
pub(crate) mod meta;
pub(crate) mod name;
pub(crate) mod net;
pub(crate) mod network;
pub(crate) mod object;
pub(crate) mod objects;
pub(crate) mod op;
pub(crate) mod period;
pub(crate) mod persona;
pub(crate) mod policy;
pub(crate) mod reason;
pub(crate) mod references;
pub(crate) mod script;
pub(crate) mod secret;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod switch;

pub use binding::BindingSpec;
pub use kind::Kind;
pub use meta::Meta;
pub use name::Name;
pub(crate) use net::HostPort;
pub use net::{Mac, Vlan};
pub(crate) use network::NetworkSpec;
pub use object::{Object, Spec};
pub use objects::Objects;
pub(crate) use period::Period;
pub use persona::PersonaSpec;
pub(crate) use policy::PolicySpec;
pub use reason::Reason;
pub(crate) use secret::SecretSpec;
pub use server::ServerSpec;
pub use switch::SwitchSpec;

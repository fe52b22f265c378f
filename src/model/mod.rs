//! The nouns: what users write, what devices show, what is stored about bodies. Types and their text forms only.
//!
//! Leaves out: files and positions (`manifest`), decisions (`plan`), I/O of any kind. Nothing here reads a clock.
//! Invariant: a value of one of these types is valid by itself; what can be wrong *between* two objects is `manifest::lint`.

pub mod binding;
pub mod body;
pub mod claim;
pub mod fact;
pub mod identity;
pub mod kind;
pub mod meta;
pub mod name;
pub mod net;
pub mod network;
pub mod object;
pub mod objects;
pub mod op;
pub mod period;
pub mod persona;
pub mod policy;
pub mod reason;
pub mod secret;
pub mod server;
pub mod status;
pub mod switch;

pub use binding::BindingSpec;
pub use kind::Kind;
pub use meta::Meta;
pub use name::Name;
pub use net::{HostPort, Mac, Vlan};
pub use network::NetworkSpec;
pub use object::{Object, Spec};
pub use objects::Objects;
pub use period::Period;
pub use persona::PersonaSpec;
pub use policy::PolicySpec;
pub use reason::Reason;
pub use secret::SecretSpec;
pub use server::ServerSpec;
pub use switch::SwitchSpec;

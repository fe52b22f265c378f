//! embody gives server personas a body.
pub mod api;
pub mod boot;
pub mod cli;
pub mod control;
pub mod drivers;
pub mod gitops;
pub mod limits;
pub mod manifest;
pub mod model;
pub mod plan;
pub mod sim;
pub mod store;
pub mod telemetry;

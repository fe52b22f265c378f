//! The loop: the world in memory, a queue of server names, one reconcile at a time, one worker per device.
//!
//! `serve::run` puts it together. `controller` is the only task that owns the `Cache`; everything else talks to it by messages, so that what a
//! boot request is answered and what is withdrawn have one order. Only `reconcile` fills workers with operations (and `outcome`, with saves), only
//! a worker calls a driver, only `status` writes status.

pub mod absorb;
pub mod actions;
mod cables;
pub mod cache;
pub mod controller;
mod desired;
mod fleet;
mod identity;
mod logins;
pub mod operator;
pub mod outcome;
pub mod preview;
pub mod queue;
pub mod reconcile;
mod records;
pub mod secrets;
pub mod status;
mod upgrade;
mod why;
pub mod worker;

//! The loop: the world in memory, a queue of server names, one reconcile at a time, one lane per device.
//!
//! `serve::run` puts it together. `brain` is the only task that owns the `World`; everything else talks to it by messages, so that what a
//! boot request is answered and what is withdrawn have one order. Only `reconcile` fills lanes with operations (and `outcome`, with saves), only
//! a lane calls a driver, only `status` writes status.

pub mod absorb;
pub mod brain;
pub mod clock;
pub mod lane;
mod lanes;
pub mod outcome;
pub mod people;
pub mod preview;
pub mod queue;
pub mod reconcile;
pub mod secrets;
pub mod serve;
pub mod status;
mod wishes;
pub mod world;

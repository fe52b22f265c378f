//! The loop: the world in memory, a queue of server names, one pass over all that are due, one worker per device.
//!
//! `serve::run` puts it together. `controller` is the only task that owns the `Cache`; everything else talks to it by messages. What boot
//! services answer from it publishes (`booting`), before a withdrawal is recorded. Its parts are
//! structs of their own: `Cache` (desired and observed), `Queue` (who is due), `InFlight` (what was sent), `Fleet` (workers and their logins),
//! `Ledger` (its own records), `StatusWriter` (what people read), `plan::guardrails` and `plan::rollouts`; `stops` is what holds them all back. Only `reconcile` fills workers with operations (and
//! `outcome`, with saves), only a worker calls a driver, only `outbox` writes statuses and events, beside the loop.

pub(crate) mod absorb;
pub(crate) mod actions;
pub(crate) mod approve;
mod backwards;
pub(crate) mod booting;
mod cables;
pub(crate) mod cache;
pub(crate) mod controller;
mod desired;
mod fleet;
mod identity;
pub(crate) mod images;
mod in_flight;
mod logins;
mod machines;
mod once;
pub(crate) mod operator;
pub(crate) mod outbox;
pub(crate) mod outcome;
pub(crate) mod preview;
pub(crate) mod queue;
pub(crate) mod reconcile;
pub(crate) mod records;
mod rollouts;
pub(crate) mod secrets;
pub(crate) mod status;
pub(crate) mod status_writer;
mod stops;
pub(crate) mod systems;
pub(crate) mod timeline;
mod twins;
pub(crate) mod upgrade;
mod why;
pub(crate) mod worker;

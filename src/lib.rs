//! `embody` gives server personas a body. This page is the map.
//!
//! ```text
//!  YAML ──parse──▶ objects ──validate/lint──▶ STORE (etcd | embedded) ──list+watch──▶ WORLD (in memory: want + seen)
//!   ▲ apply, directory                         ▲ status, events                          │ a key only: the server's name
//!   │                                          │                                         ▼
//!  people ◀── get, why, watch ── STATUS ◀──────┤                               QUEUE (dedupe, delay, back-off)
//!                                              │                                         ▼
//!                                              │            reconcile(server): plan(want, seen, now)      pure, sync
//!                                              └─────────────── └▶ Plan { records, steps, waits, problems }
//!               FACTS (value, asked_at)                                  ▼ Op → Device
//!                    └── observe ◀── LANE ◀── poll timer / "look now"   LANES: one task per device, owns its driver (&mut)
//!                                       ▼
//!                      switches (SNMP)    BMCs (IPMI)          boot answers (HTTP) only read the world
//! ```
//!
//! The path of one manifest, by function: `manifest::load` → `api::apply` → `store::Store::put_if` → `control::controller` absorbs the watch →
//! `control::queue` → `control::reconcile` → `plan::plan` → `control::worker` → `drivers::Driver::execute` → `observe` → `control::absorb` →
//! plan again → `control::status`.
//!
//! # Invariants
//!
//! 1. `model`, `manifest` (but for `source`), `plan` and `boot::answer` do no I/O, read no clock, log nothing and cannot panic. `plan` cannot
//!    fail. (`tests/tidy.rs`)
//! 2. Only a worker calls a driver (and `inspect`, which has no controller). Only `reconcile` fills workers. Only `status` makes status. Only
//!    `store` knows etcd. (`tests/tidy.rs`)
//! 3. A reconcile gets a name and nothing else. Losing every event but the timer costs latency, never correctness.
//! 4. No list of steps is stored. What is stored: desired state, and of bodies who holds them, evidence, the intent to switch off, what is still to be released
//!    (`model::body`); approvals, pauses, identities, events.
//! 5. At most one live body per exclusive persona, ever. Evidence that a persona may run begins with its boot answer and ends only when the
//!    body is seen off by a question asked after the answer was withdrawn. Unknown means wait. (`plan::fence`, `plan::evidence`; `tests/plan.rs`)
//! 6. A managed port that is up carries only VLANs of the old desired state or the new one. No bit of a port that no manifest names is ever written.
//!    Never written at all: a port whose cable is contradicted, a member of an aggregation, a port outside `manage.ports`. (`tests/switch_writes.rs`)
//! 7. An off is one stored intent, soft first. It is sent again only after power was read On by a question asked after the attempt's deadline.
//!    (`plan::power`; `tests/rack.rs` counts them across kill -9)
//! 8. First do no harm: a body found running when it is first bound is not disturbed before a person approves. (`plan::consent`)
//! 9. A converged data centre is silent: no operation, no INFO line, no write to the store.
//! 10. Deleting an object never touches hardware. An empty or unreadable source never means "delete all". What others refer to, and a server
//!     with standing evidence, is not deleted.
//! 11. Every bound is in `limits`, with its reason.
//!
//! # Where to start
//!
//! - a fault in what is decided: `plan`, smallest world in `tests/plan.rs` first;
//! - a new switch vendor: one table in `drivers::switch::profiles`, one recording, its expected ports;
//! - a BMC's quirk: one row in `drivers::bmc::ipmi::quirks`, with the firmware that taught it;
//! - a new rule about manifests: a code in `manifest::codes`, a function in `validate` or `lint`, a golden;
//! - a new verb: one file in `cli`, its request in `api::routes`, its word in `control::operator`;
//! - a strange night: `sim`, which is the data centre that all of this is tried on.

pub mod boot;
pub mod cli;
pub mod clock;
pub mod control;
pub mod drivers;
pub mod gitops;
pub mod limits;
pub mod manifest;
pub mod model;
pub mod plan;
pub mod server;
pub mod sim;
pub mod store;
pub mod telemetry;
pub mod testing;

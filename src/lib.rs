//! `embody` gives server personas a body. This page is the map.
//!
//! ```text
//!  YAML ──parse──▶ objects ──validate/lint──▶ STORE (etcd | embedded) ──list+watch──▶ CACHE (in memory: desired + observed)
//!   ▲ apply, directory                         ▲ status, events, records                 │ a key only: the server's name
//!   │                                          │                                         ▼
//!  people ◀── get, why, watch ── STATUS ◀──────┤                               QUEUE (dedupe, delay, back-off)
//!                                              │                                         ▼
//!                                              │       reconcile: plan(desired, observed, now) of all that are due
//!                                              └─────────────── └▶ Plan { records, steps, waits, problems }
//!               FACTS (value, asked_at)                                  ▼ Op + Permit → Device
//!                    └── observe ◀── WORKER ◀── poll timer               WORKERS: one task per device, owns its driver (&mut)
//!                                       ▼ questions      ▼ changes: through the GATE alone
//!                      switches (SNMP)    BMCs (IPMI)          boot services (DHCP, TFTP, HTTP) read a view of it
//! ```
//!
//! The path of one manifest, by function: `manifest::load` → `server::api::apply` → `store::Store::write_all` → `control::controller` absorbs
//! the watch → `control::queue` → `control::reconcile` → `plan::plan` → `control::worker` → `drivers::Driver::execute` → `drivers::gate` →
//! `observe` → `control::absorb` → plan again → `control::status`.
//!
//! # A power-off, in three files
//!
//! Decided in `plan::off`: a pure state machine of one stored intent, what was sent for it and what became of that. Delivered in
//! `drivers::gate`: a permit is checked and the datagram sent in one function. Proven in `tests/plan/offs.rs`, which enumerates every
//! delivery; `tests/ipmi/deeds.rs` counts what leaves for a BMC.
//!
//! # Words
//!
//! - **body**: a server, as something that a persona can live on; its *record* (`model::body`) is what is stored about it.
//! - **persona**: a server built for a task, independent of hardware. A **binding** says which body it is to have.
//! - **desired**, **observed**: what manifests ask of one server, and what is known of it (`plan::desired`, `plan::observed`).
//! - **evidence**: that a persona may be alive on a body, as a snapshot of what was answered, or of what a binding names where a
//!   body was found running. It **ends** when the body is *seen off*.
//! - **claim**: what must not have two owners: a written root, an initiator's name, an address, an exclusive persona (`model::claim`).
//! - **fence**: evidence that keeps a claim from others.
//! - **boot answer**: what the boot services tell a machine. It *stands* until it is withdrawn; **parked** is the answer that starts nothing.
//! - **view**: all that boot services answer from, as one immutable value that the controller publishes (`boot::view`).
//! - **once**: a person's word that the next start of a body boots something else than what is bound (`control::once`, `plan::resolve`).
//! - **run**: one start: its boot script was fetched. Its **token** is signed, not stored; a **hello** comes with it.
//! - **identity**: who a system is (`boot::identity`), told to it once over TLS: the **exchange** (`server::boot::exchange`). From then on it is known by a
//!   **secret** that it made up (`control::systems`); what both sides say is `agent/protocol`.
//! - **rollout**: bodies of one persona that run another *revision* are restarted, in turn (`plan::rollout` of one, `plan::rollouts` of all).
//! - **image**: what a persona's root is made of: an *index* of all its files and their contents by digest (`image`). A name keeps its content
//!   (`control::images`); who keeps the files is `server::images`.
//! - **export**: the path under which one start mounts its root (`boot::token`, `server::boot::roots`). The **agent** (`agent/`) does that.
//! - **debt**: a port that was written for a server and must still be brought back.
//! - **permit**, **gate**: the right to carry one operation out once, and the one place where datagrams that change something leave.
//! - **pin**: what identifies a device, remembered at first sight (`model::identity`).
//! - **approval**: a list of operations that a person was shown and said yes to (`plan::approval`).
//! - **hold**: what guardrails keep back until a person approves (`plan::guardrails`); also who holds a body (`Body::held_by`).
//! - **term**: from a controller's taking the lease to its losing it. **Mark**: the highest record number known on this machine's disk.
//!
//! # Invariants
//!
//! 1. `model`, `manifest` (but for `source`), `plan` and `boot::answer` do no I/O, read no clock, log nothing and cannot panic. `plan` cannot
//!    fail. (lints below; `tests/tidy.rs`)
//! 2. Only a worker calls a driver (and `inspect`, which has no controller). Only the controller fills workers. Only `control::outbox` writes
//!    status. Only `store` knows etcd. (`tests/tidy.rs`)
//! 3. A reconcile gets a name and nothing else. Losing every event but the timer costs latency, never correctness. (`tests/simulate.rs`)
//! 4. No list of steps is stored. What is stored: desired objects; of bodies who holds them, evidence, intents with what was delivered, debts,
//!    declarations (`model::body`); approvals, pauses, identities, events.
//! 5. Authority reaches the wire: every datagram that changes a device leaves through `drivers::gate`, where the lease's end, the time limit
//!    and the permit are checked in the function that sends it. (`drivers::gate`, `tests/ipmi/deeds.rs`, `tests/switch_gate.rs`, `tests/tidy.rs`)
//! 6. At most one live body per claim, ever. Evidence begins with a boot answer and ends only when the body is seen off; what does not read
//!    may be anything. Unknown means wait. (`plan::fence`, `plan::evidence`; `tests/plan.rs`, `tests/simulate.rs`)
//! 7. Identity before the deed: a driver changes only the device that shows what is pinned. (`tests/ipmi/deeds.rs`, `tests/switch_gate.rs`)
//! 8. A managed port that is up carries only VLANs of the old desired state or the new one. No bit of a port that no manifest names is ever
//!    written. Never written at all: a port whose cable is contradicted, a member of an aggregation, a port outside `manage.ports`.
//!    (`tests/switch_writes.rs`, `tests/switch_gate.rs`)
//! 9. An off is one stored intent that knows what was delivered: hard only after an accepted soft-off and its grace. (`plan::off`; `tests/plan/offs.rs`)
//! 10. First do no harm: a body found running when it is first bound is not disturbed before a person approves; a move begins only when it can
//!     be ended. (`plan::consent`, `plan::fence`; `tests/plan/guards.rs`, `tests/plan/moves.rs`)
//! 11. An approval covers the operations that were shown, each once and from where it was shown, of one binding, generation and boot answer, and
//!     ends with whatever it was given for. A stop (a pause, a hold, the breaker) is lifted by its own word or its own end alone.
//!     (`plan::approval`, `plan::consent`, `plan::guardrails`; `tests/plan/approvals.rs`, `tests/approvals.rs`, `tests/simulate.rs`)
//! 12. A converged data centre is silent: no operation, no INFO line, no write to the store. A failing device is asked at a growing distance.
//!     (`tests/simulate.rs`; `control::worker`)
//! 13. Deleting an object never touches hardware. An empty or unreadable source never means "delete all", and what a directory no longer holds
//!     is deleted within the Policy's limits, or by a person's word. What others refer to, and a server with standing evidence, is not deleted.
//!     (`tests/api.rs`, `tests/directory.rs`, `tests/rack.rs`)
//! 14. A store that went backwards, or whose objects do not read, stops every write to devices until a person says what is so.
//!     (`store::records`, `control::{records, backwards}`; `tests/store/backwards.rs`, `tests/records.rs`)
//! 15. The work for one event does not grow with the fleet: whoever waits is woken by what it waits for. What is bounded has its bound in `limits`,
//!     with its reason, or beside the protocol that sets it. (`benches/fleet.rs`)
//! 16. What came up is known by what it did: a start is recorded before its script is told, a hello counts for the body and the start whose token it
//!     has and for no other, and no address is on two machines that are on. (`control::booting`, `boot::dhcp`; `tests/simulate.rs`)
//!     Who a system is, is told to the start that asked first, at its server's own address and port, and to nobody else; no hello comes before that.
//!     (`control::systems`; `tests/boot/exchange.rs`, `tests/revisions.rs`)
//! 17. Nothing starts, and nothing that runs is ended, for an image that is not here whole; what is served of one was compared with its digest. Content
//!     goes only when its name is removed, never because a name is not known. (`plan::resolve`, `server::images`; `tests/revisions.rs`, `tests/images.rs`)
//! 18. A rollout takes down no more of a persona's bodies than that says, counting everybody who is not known to be up, and none once one has not come up
//!     with the new revision. (`plan::rollouts`; its tests, `tests/revisions.rs`, `tests/simulate.rs`)
//! 19. Whoever is part of what names something that is not there is neither corrected nor let go, on any plane, until it is there.
//!     (`model::references`, `plan::resolve`; `tests/plan/unresolved.rs`, `tests/dangling.rs`)
//!
//! # Where to start
//!
//! - a fault in what is decided: `plan`, smallest world in `tests/plan.rs` first;
//! - a new switch vendor: one table in `drivers::switch::profiles`, one recording, its expected ports;
//! - a BMC's quirk: one row in `drivers::bmc::ipmi::quirks`, with the firmware that taught it;
//! - what a machine that boots is told: `boot`, pure, and its goldens in `tests/answers.rs`; who asks, `server::boot`; what follows, `control::booting`;
//!   how far it comes, `control::timeline` and `plan::starting`;
//! - what is in an image, or in its initrd: `image`; how a root is served: `server::nfs`, which knows nothing of images; what happens in a machine between
//!   its kernel and its init: `agent/`, and `agent/tests/guests.py`;
//! - a new rule about manifests: a code in `manifest::codes`, a function in `validate` or `lint`, a golden;
//! - a new verb: one file in `cli`, its request in `api::routes`, its message in `control::operator`;
//! - what kubectl and other clients of Kubernetes see: `server::api`, from `routes` on; what they explain, `server::api::openapi`; `tests/kubectl.rs`;
//! - bytes from outside that break something: `testing::fuzz`, and they belong into `fuzz/corpus`;
//! - a strange night: `sim`, which is the data centre that all of this is tried on.

#![deny(unreachable_pub)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo, clippy::unimplemented)]

#[deny(clippy::indexing_slicing)]
mod boot;
mod byte_channel;
mod cli;
mod clock;
mod control;
mod drivers;
mod gitops;
mod image;
mod limits;
mod manifest;
#[deny(clippy::indexing_slicing)]
mod model;
#[deny(clippy::indexing_slicing)]
mod plan;
mod server;
mod sim;
mod store;
mod telemetry;
pub mod testing;

pub use cli::main;

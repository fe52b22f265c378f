//! What the tests and benches need of the inside, in one place: the only way into the crate but `embody::main`.
//!
//! Here are drivers that carry out without a controller, and below, at their own paths, the names that tests use. What is not named here is
//! `pub(crate)`, and rustc finds it when nothing uses it any more.
//!
//! Leaves out: anything that the product uses. It is no promise to anybody.

pub mod fuzz;

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::BootClock;
use crate::drivers::gate::{Freshness, Gate, Key, Permit};
use crate::drivers::switch::snmp::Leave;
use crate::drivers::{Depth, Driver, Fault, Observation};
use crate::model::identity::Identity;
use crate::model::op::Op;
use crate::store::LeaseEnd;

/// Does these operations in this order, as a controller that holds its lease would, on the device that answers now.
pub async fn carry_out(driver: &mut dyn Driver, ops: &[Op], deadline: Instant) -> Result<(), Fault> {
    let pinned = match driver.observe(Depth::State, deadline).await? {
        Observation::Bmc(seen) => Identity::default().extended(&seen.shown),
        Observation::Switch(seen) => Identity::default().extended(&seen.shown),
    };
    carry_out_on(driver, &pinned, ops, deadline).await
}

/// The same, on this device alone.
pub async fn carry_out_on(driver: &mut dyn Driver, pinned: &Identity, ops: &[Op], deadline: Instant) -> Result<(), Fault> {
    let gate = Gate::new(LeaseEnd::never(BootClock::Kernel), BootClock::Kernel);
    for op in ops {
        let mut permit = gate.permit(Key::of(op), pinned.clone());
        permit.begin(deadline.saturating_duration_since(Instant::now()));
        driver.execute(op, &permit, deadline).await?;
    }
    Ok(())
}

/// Looks at a device.
pub async fn observe(driver: &mut dyn Driver, depth: Depth, deadline: Instant) -> Result<Observation, Fault> {
    driver.observe(depth, deadline).await
}

/// A permit of a controller that holds its lease, for a minute and for whatever device.
pub fn permit() -> Permit {
    let mut permit = Gate::new(LeaseEnd::never(BootClock::Kernel), BootClock::Kernel).permit(Key::Saved, Identity::default());
    permit.begin(Duration::from_secs(60));
    permit
}

/// By this permit, one SET that rests on an answer of this moment.
pub fn leave(permit: &Permit) -> Leave<'_> {
    Leave { permit, fresh: Freshness::within(permit.now(), Duration::ZERO), half_way: false }
}

pub mod boot {
    pub mod answer {
        pub use crate::boot::answer::{Ask, Verdict, judge};
    }
    pub mod dhcp {
        pub use crate::boot::dhcp::*;
    }
    pub mod script {
        pub use crate::boot::script::*;
    }
    pub mod token {
        pub use crate::boot::token::*;
    }
    pub mod view {
        pub use crate::boot::view::*;
    }
    pub mod wire {
        pub use crate::boot::wire::*;
    }
}
pub mod cli {
    pub mod output {
        pub use crate::cli::output::yaml;
    }
    pub mod serve {
        pub use crate::cli::serve::run;
    }
}
pub mod byte_channel {
    pub use crate::byte_channel::{Sender, channel};
}
pub mod clock {
    pub use crate::clock::{BootClock, Clock};
}
pub mod control {
    pub mod actions {
        pub use crate::control::actions::Operators;
    }
    pub mod booting {
        pub use crate::control::booting::{Answer, Shared};
        pub use crate::control::systems::{Hello, Identified};
    }
    pub mod cache {
        pub use crate::control::cache::{BmcFacts, Cache, Known};
    }
    pub mod controller {
        pub use crate::control::controller::{Controller, Message, Parts, Remembered};
    }
    pub mod images {
        pub use crate::control::images::Here;
    }
    pub mod operator {
        pub use crate::control::operator::{
            ApprovalShown, Approving, Control, Declaring, DiscoveredRow, Forecast, ForecastStep, ImageRow, LeaseRow, PauseRow, PortRow,
            Refusal, Scope, StartRow,
        };
    }
    pub mod status_writer {
        pub use crate::control::status_writer::{Site, SiteCondition};
    }
    pub mod worker {
        pub use crate::control::worker::Report;
    }
}
pub mod drivers {
    pub use crate::drivers::{Delivery, Depth, Devices, Driver, Fault, Notes, Observation};
    pub mod bmc {
        pub mod ipmi {
            pub use crate::drivers::bmc::ipmi::{BmcSocket, IpmiDriver, IpmiSettings, preview};
            pub mod commands {
                pub use crate::drivers::bmc::ipmi::commands::ChassisControl;
            }
            pub mod crypto {
                pub use crate::drivers::bmc::ipmi::crypto::Suite;
            }
            pub mod session {
                pub use crate::drivers::bmc::ipmi::session::{Credentials, Heard, Session};
            }
        }
    }
    pub mod credentials {
        pub use crate::drivers::credentials::Turns;
    }
    pub mod gate {
        pub use crate::drivers::gate::{Freshness, Gate, Key, Permit};
    }
    pub mod switch {
        pub use crate::drivers::switch::{SwitchDriver, SwitchSettings, Unresolved, resolve, to_json};
        pub mod objects {
            pub use crate::drivers::switch::objects::{
                Arcs, BASE_PORT_IF_INDEX, ENT_PHYSICAL_SERIAL, FOUNDRY_MEMBER_STATUS, IF_ADMIN_STATUS, PVID, STATIC_EGRESS,
                STATIC_ROW_STATUS, STATIC_UNTAGGED, VM_VLAN, at,
            };
        }
        pub mod portlist {
            pub use crate::drivers::switch::portlist::Form;
        }
        pub mod snmp {
            pub use crate::drivers::switch::snmp::{
                Agent, Binding, Cut, Leave, Oid, SetAnswer, SnmpSocket, Timing, UdpAgent, Value, Walked, not_let_out,
            };
            pub mod codec {
                pub use crate::drivers::switch::snmp::codec::{Kind, Pdu, message, read_message};
            }
            pub mod keys {
                pub use crate::drivers::switch::snmp::keys::Extension;
            }
            pub mod usm {
                pub use crate::drivers::switch::snmp::usm::{Level, Outgoing, read};
            }
        }
    }
}
pub mod gitops {
    pub use crate::gitops::directory::{Content, Directory, Not};
    pub use crate::gitops::lookout::Lookout;
}
pub mod image {
    pub use crate::image::{ImportError, Imported, Options, import};
    pub mod digest {
        pub use crate::image::digest::Digest;
    }
    pub mod export {
        pub use crate::image::export::{ExportError, export_dir, export_tar};
    }
    pub mod generalise {
        pub use crate::image::generalise::{STEPS, Steps};
    }
    pub mod index {
        pub use crate::image::index::{Attributes, Builder, Child, Index, Inode, Node};
    }
    pub mod initrd {
        pub use crate::image::initrd::{Compression, Files, InitrdError, Kind, Missing, Report, build};
    }
    pub mod pack {
        pub use crate::image::pack::directory;
    }
    pub mod source {
        pub use crate::image::source::{Source, SourceError};
    }
    pub mod store {
        pub use crate::image::store::{Damage, Objects, StoreError};
    }
    pub mod tree {
        pub use crate::image::tree::{Item, Limits, Tree};
    }
}
pub mod limits {
    pub use crate::limits::{
        API_CONNECTIONS, BOOT_CONNECTIONS, BOOT_HEAD_BYTES, EVENTS, FAST_POLL_FOR, HARD_OFF_TRIES, HARD_OFF_WAIT, HEAD_WITHIN, LEASE_TTL,
        MACS_PER_PORT, MANIFEST_BYTES, MANIFEST_OBJECTS, PREVIEW_WAIT, RECORD_ROUNDS, REPORTS, RETRY_FIRST, REVISIONS, SEEN_OFF_APART,
        SOFT_OFF_TRIES, SOFT_OFF_UNKNOWN, STANDBY_LOOKS, VALUE_BYTES, WATCH_BYTES, WRITES_AT_ONCE, WRITES_BYTES,
    };
}
pub mod manifest {
    pub use crate::manifest::{Content, Diagnostic, Loaded, Severity, Source, check, load, object, read};
    pub mod codes {
        pub use crate::manifest::codes::CODES;
    }
    pub mod schema {
        pub use crate::manifest::schema::{explain, json_schema};
    }
    pub mod yaml {
        pub use crate::manifest::yaml::documents;
    }
}
pub mod model {
    pub use crate::model::{BindingSpec, Kind, Mac, Meta, Name, Object, Objects, PersonaSpec, Reason, ServerSpec, Spec, SwitchSpec, Vlan};
    pub mod binding {
        pub use crate::model::binding::{Correct, Mode, Plane, PlaneModes, RunState};
    }
    pub mod image {
        pub use crate::model::image::{Blob, Image, ImageName};
    }
    pub mod body {
        pub use crate::model::body::{
            Body, BootsOnce, Declaration, Declared, Evidence, Found, Hold, OffIntent, Once, Phase, PortDebt, Sending, Sent, Snapshot,
            port_id,
        };
    }
    pub mod claim {
        pub use crate::model::claim::{Claim, claims, directory};
    }
    pub mod fact {
        pub use crate::model::fact::{
            Admin, BmcIdentity, BmcSeen, BootDevice, BootOverride, Lag, Oper, PortConfig, PortMode, PortSeen, Power, Quality, Seen,
            SwitchIdentity, SwitchSeen, Tick, Writable,
        };
    }
    pub mod identity {
        pub use crate::model::identity::Identity;
    }
    pub mod kind {
        pub use crate::model::kind::KINDS;
    }
    pub mod objects {
        pub use crate::model::objects::Held;
    }
    pub mod op {
        pub use crate::model::op::{Device, Disruption, Off, Op};
    }
    pub mod persona {
        pub use crate::model::persona::{Agent, Kernel, NfsRoot, Rollout};
    }
    pub mod reason {
        pub use crate::model::reason::Reason;
    }
    pub mod secret {
        pub use crate::model::secret::{AuthProtocol, BmcLogin, Hidden, PrivProtocol, SnmpLogin};
    }
    pub mod server {
        pub use crate::model::server::{Arch, Loader, Privilege};
    }
}
pub mod plan {
    pub use crate::plan::{Plan, Step, plan};
    pub mod approval {
        pub use crate::plan::approval::{Approval, Listed};
    }
    pub mod desired {
        pub use crate::plan::desired::{Desired, DesiredPort, Holder, Past};
    }
    pub mod fence {
        pub use crate::plan::fence::{Bodies, adopt, leaves, takeover};
    }
    pub mod forecast {
        pub use crate::plan::forecast::{Foreseen, Future, forecast};
    }
    pub mod observed {
        pub use crate::plan::observed::{Elsewhere, Memory, Observed, PortKey, PortObserved, SeenOff, SwitchObserved, There, Trouble};
    }
    pub mod off {
        pub use crate::plan::off::{Grace, HardWithoutSoft, Next, Terms, next, sending};
    }
    pub mod record {
        pub use crate::plan::record::Record;
    }
    pub mod rollout {
        pub use crate::plan::rollout::Turn;
    }
    pub mod resolve {
        pub use crate::plan::resolve::{PortNames, authority_of, want};
    }
}
pub mod server {
    pub mod nfs {
        pub use crate::server::nfs::{Attributes, Counter, Event, Exports, Found, Kind, Limits, READ_BYTES, Refused, Stats, Tree, serve};
    }
    pub mod api {
        pub use crate::server::api::{Backend, BindError, Check, DryRun, Listener, Objection};
        pub mod apply {
            pub use crate::server::api::apply::apply;
        }
        pub mod objects {
            pub use crate::server::api::objects::{Intent, Preconditions, key};
        }
    }
    pub mod boot {
        pub use crate::server::boot::{Options, serve};
        pub mod network {
            pub use crate::server::boot::network::Mac;
            pub mod advertise {
                pub use crate::server::boot::network::advertise::*;
            }
            pub mod interfaces {
                pub use crate::server::boot::network::interfaces::*;
            }
            pub mod sockets {
                pub use crate::server::boot::network::sockets::*;
            }
            pub mod vip {
                pub use crate::server::boot::network::vip::*;
            }
        }
    }
    pub mod listen {
        pub use crate::server::listen::raise_files;
    }
}
pub mod sim {
    pub mod agent {
        pub use crate::sim::agent::{Access, Faults, Lie, NoBulk, SimAgent, SimUser, Table, serve};
    }
    pub mod bmc {
        pub use crate::sim::bmc::{ADMINISTRATOR, Bmc, BmcConfig, BmcEvent, BmcFault, BootLie, Control, OPERATOR, SoftOff, User};
    }
    pub mod booting {
        pub use crate::sim::booting::BootFault;
    }
    pub mod centre {
        pub use crate::sim::centre::{Answers, Centre, Runs, VirtualDevices};
    }
    pub mod checkers {
        pub use crate::sim::checkers::{By, Host, Write};
    }
    pub mod direct {
        pub use crate::sim::direct::Direct;
    }
    pub mod leases {
        pub use crate::sim::leases::Leases;
    }
    pub mod line {
        pub use crate::sim::line::{Line, Weather};
    }
    pub mod mib {
        pub use crate::sim::mib::Mib;
    }
    pub mod network {
        pub use crate::sim::network::{WiredDevices, Wires};
    }
    pub mod recording {
        pub use crate::sim::recording::Tree;
    }
    pub mod rmcp {
        pub use crate::sim::rmcp::{Endpoint, Line, Oddities, Received, SharedEndpoint, serve, serve_many};
    }
    pub mod switch {
        pub use crate::sim::switch::{Announced, Change, Faults, FrameTypes, Kind, SimSwitch, Who};
    }
    pub mod trial_store {
        pub use crate::sim::trial_store::{Full, StoreLuck, TrialStore};
    }
}
pub mod store {
    pub use crate::store::{
        Change, Changes, EmbeddedStore, Entry, EtcdLogin, EtcdStore, EtcdTls, Expect, Lease, LeaseEnd, Records, Revision, Store,
        StoreError, StoreSpec, Write, open,
    };
    pub mod keys {
        pub use crate::store::keys::{CURRENT, SEQ, approval, body, pause, pin};
    }
}
pub mod telemetry {
    pub use crate::telemetry::{jump, virtual_from_now};
}

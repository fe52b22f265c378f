//! The whole future of the wishes, op by op: plan, let everything happen as `Op::apply` says, look, plan again, until nothing is left.
//!
//! Pure, like `plan`. It shows what would be done if nothing fails and everything that needs a person were approved.

use std::collections::BTreeMap;

use super::op::Disruption;
use super::seen::ServerSeen;
use super::want::Want;
use super::{Problem, Step, Wait};
use crate::model::Name;
use crate::model::body::Body;
use crate::model::fact::Tick;

/// One operation of the future.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreseen {
    /// From 1: a wave begins when the one before was seen done.
    pub wave: usize,
    pub server: Name,
    pub step: Step,
    pub disruption: Disruption,
    /// It waits for a person today.
    pub held: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Future {
    pub steps: Vec<Foreseen>,
    /// What is waited for at the end, by server: what the forecast cannot see beyond.
    pub waits: Vec<(Name, Wait)>,
    pub problems: Vec<(Name, Problem)>,
}

/// `want_of` gives the wishes for a server, whose record changes as the forecast goes on.
pub fn forecast(servers: BTreeMap<Name, ServerSeen>, want_of: &dyn Fn(&Name, &Body) -> Want, now: Tick) -> Future {
    let _ = (servers, want_of, now);
    Future::default()
}

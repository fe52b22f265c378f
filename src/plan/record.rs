//! Every change that a body's record can take, as values. Bookkeeping only: no device is touched by any of them.

use crate::model::Name;
use crate::model::body::{Body, Found, Hold, OffIntent, Phase};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Record {
    /// A binding takes the body.
    Take { hold: Hold, found: Found },
    /// How the body was found, now that its power was seen.
    FoundAs(Found),
    /// The holder moved away: it is to release of the body, unless an earlier holder still must still release it.
    Release(Hold),
    /// The holder is deleted: the body is left as it is, with all evidence.
    Leave,
    /// What was still to be released is done, or the binding that still to be released it is deleted.
    Released,
    /// The boot answer for the persona stands from now on.
    Answer(Name),
    /// Seen off while the answer stood.
    Arm(Name),
    /// Seen on after that.
    Start(Name),
    /// The boot answer stands no longer.
    Withdraw(Name),
    /// Seen off by a question asked after the withdrawal: it no longer runs here.
    End(Name),
    /// A person declares that the body already runs the persona.
    Adopt(Name),
    /// Write-ahead of every switching-off.
    Off(OffIntent),
    /// Seen off, or no longer wanted.
    OffDone,
    /// Seen off while this value of `restart` was desired; or it was taken with this value, or it was lowered to it.
    Restarted(u64),
}

impl Record {
    pub fn apply(&self, body: &mut Body) {
        match self {
            Record::Take { hold, found } => {
                body.held_by = Some(hold.clone());
                body.found = *found;
            }
            Record::FoundAs(found) => body.found = *found,
            Record::Release(hold) => {
                body.release.get_or_insert_with(|| hold.clone());
                body.held_by = None;
            }
            Record::Leave => {
                body.held_by = None;
                if body.release.is_none() {
                    body.found = Found::Unknown;
                }
            }
            Record::Released => body.release = None,
            Record::Answer(persona) => {
                body.may_run.insert(persona.clone(), Phase::Answered);
            }
            Record::Arm(persona) => {
                body.may_run.insert(persona.clone(), Phase::Armed);
            }
            Record::Start(persona) => {
                body.may_run.insert(persona.clone(), Phase::Started);
            }
            Record::Withdraw(persona) => {
                body.may_run.insert(persona.clone(), Phase::Withdrawn);
            }
            Record::End(persona) => {
                body.may_run.remove(persona);
            }
            Record::Adopt(persona) => {
                body.may_run.insert(persona.clone(), Phase::Started);
                body.found = Found::Managed;
            }
            Record::Off(intent) => body.off = Some(intent.clone()),
            Record::OffDone => body.off = None,
            Record::Restarted(n) => body.restart_done = *n,
        }
    }
}

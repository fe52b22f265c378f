//! Every change that a body's record can take, as values. Bookkeeping only: no device is touched by any of them.

use crate::model::Name;
use crate::model::body::{
    Body, Declaration, Declared, Disrupted, Evidence, Found, Hold, LOCAL, OffIntent, Once, Phase, PortDebt, Run, Sending, Sent, Snapshot,
};
use crate::model::fact::PortConfig;
use crate::model::op::Off;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Record {
    /// A binding takes the body.
    Take {
        hold: Hold,
        found: Found,
    },
    /// How the body was found, now that its power was seen.
    FoundAs(Found),
    /// The holder moved away: it is to release the body, unless an earlier holder still is.
    Release(Hold),
    /// The holder is deleted: the body is left as it is, with all evidence.
    Leave,
    /// What was to be released is, or the binding that was to do it is deleted.
    Released,
    /// The boot answer stands from now on.
    Answer(Box<Snapshot>),
    /// Answered Off while the answer stood; once more, where that was a start which ran: seen off.
    Arm(Name),
    /// Seen on after that.
    Start(Name),
    /// The boot answer stands no longer.
    Withdraw(Name),
    /// The reason to withdraw it is gone, and nothing has come of it: it stands again.
    StandAgain(Name),
    /// Seen off after the withdrawal: it no longer runs here.
    End(Name),
    /// A machine fetched the boot script of what stands here: a start.
    Run {
        persona: Name,
        run: Run,
    },
    /// What runs here said hello with the token of that start.
    Hello {
        persona: Name,
        nonce: String,
        at: String,
        /// Units that had failed.
        failed: Vec<String>,
    },
    /// What was started there asked who it is, and is known by this from then on.
    Identified {
        persona: Name,
        nonce: String,
        secret: String,
    },
    /// What was up before somebody asked for the script again says that it is up still: it was not that machine which asked.
    RunsStill {
        persona: Name,
        nonce: String,
    },
    /// What was started has come up, as far as is waited for.
    CameUp,
    /// A person declares that the body already runs this.
    Adopt(Box<Snapshot>),
    /// Write-ahead of every switching-off: the intent as it is once this command may have left.
    Off(OffIntent),
    /// What became of the last command of the intent.
    OffSent {
        how: Off,
        sent: Sent,
    },
    /// Seen off, or no longer wanted.
    OffDone,
    /// Write-ahead of every power-on.
    OnSent,
    /// It was refused, did not leave, or was followed by an answer On.
    OnDone,
    /// What the next start boots, by a person's word.
    BootOnce(Box<Once>),
    /// That start is over, or nobody wants it any more.
    BootedOnce,
    /// Seen off while this value of `restart` was desired; or it was taken with this value.
    Restarted(u64),
    /// Write-ahead of every port write.
    PortBegun {
        id: String,
        from: PortConfig,
        to: PortConfig,
    },
    /// The port was seen at one end of that write.
    PortEnded(String),
    /// Nothing is owed to this port any more.
    PortForgotten(String),
    /// A person's word about the body, and what it turned out to be.
    Declare(Declared),
    DeclaredAs(Declaration),
    /// The declaration is over: the body is in embody's care again.
    DeclarationOver,
    /// It was found running, and this is what its binding says that it runs.
    MayRun(Box<Snapshot>),
    /// The record did not read, and the body was seen off since: it begins anew.
    Renew,
    /// Nothing is known of what it runs.
    Anything,
    /// A person approved that what stands here starts, although the store went backwards.
    Confirm,
    /// The SMBIOS UUID of the machine, as of the first request of a start; nothing: whoever asks next is it.
    Smbios(Option<String>),
    /// For which desired state it is held, if it is.
    Held(Option<String>),
    /// Write-ahead of what disrupts it unasked.
    Disrupted(Disrupted),
}

/// Where its root is the disk, the disk of this body holds the persona from now on. What is there already is called by no name of a persona.
fn is_on_disk(persona: &Name, body: &mut Body) {
    if persona.as_str() != LOCAL && body.evidence.get(persona).is_some_and(|e| e.snapshot.root.disk.is_some()) {
        body.on_disk.insert(persona.clone());
    }
}

impl Record {
    pub fn apply(&self, body: &mut Body) {
        match self {
            Record::Take { hold, found } => {
                body.held_by = Some(hold.clone());
                (body.found, body.once) = (*found, None);
            }
            Record::FoundAs(found) => body.found = *found,
            Record::Release(hold) => {
                body.release.get_or_insert_with(|| hold.clone());
                (body.held_by, body.once) = (None, None);
            }
            Record::Leave => {
                (body.held_by, body.once) = (None, None);
                if body.release.is_none() {
                    body.found = Found::Unknown;
                }
            }
            Record::Released => body.release = None,
            Record::Renew => {
                let (held_by, release) = (body.held_by.take(), body.release.take());
                *body = Body { held_by, release, confirm_start: body.confirm_start, ..Body::default() };
            }
            Record::Anything => body.anything = true,
            Record::CameUp => body.starts = 0,
            Record::Confirm => body.confirm_start = false,
            Record::BootOnce(once) => body.once = Some((**once).clone()),
            Record::BootedOnce => body.once = None,
            Record::Restarted(n) => body.restart_done = *n,
            Record::Smbios(uuid) => body.smbios.clone_from(uuid),
            Record::Held(desired) => body.held.clone_from(desired),
            Record::Disrupted(disrupted) => body.disrupted = Some(disrupted.clone()),
            Record::Answer(_)
            | Record::Adopt(_)
            | Record::MayRun(_)
            | Record::Arm(_)
            | Record::Start(_)
            | Record::Withdraw(_)
            | Record::StandAgain(_)
            | Record::Run { .. }
            | Record::Hello { .. }
            | Record::Identified { .. }
            | Record::RunsStill { .. }
            | Record::End(_) => self.apply_to_evidence(body),
            Record::Off(_) | Record::OffSent { .. } | Record::OffDone | Record::OnSent | Record::OnDone => self.apply_to_power(body),
            Record::PortBegun { .. } | Record::PortEnded(_) | Record::PortForgotten(_) => self.apply_to_ports(body),
            Record::Declare(declared) => {
                body.declared = Some(declared.clone());
                body.evidence.values_mut().for_each(|evidence| evidence.withdrawn = true);
            }
            Record::DeclaredAs(what) => body.declared.iter_mut().for_each(|declared| declared.what = *what),
            Record::DeclarationOver => body.declared = None,
        }
    }

    fn apply_to_evidence(&self, body: &mut Body) {
        let begin = |snapshot: &Snapshot, phase| {
            (snapshot.persona.clone(), Evidence { phase, withdrawn: false, snapshot: snapshot.clone(), run: None })
        };
        match self {
            Record::Answer(snapshot) => {
                body.starts = 0;
                body.evidence.extend([begin(snapshot, Phase::Answered)]);
                body.smbios = None;
            }
            Record::MayRun(snapshot) => {
                body.evidence.extend([begin(snapshot, Phase::Found)]);
                body.evidence.values_mut().for_each(|evidence| evidence.withdrawn = true);
            }
            Record::Adopt(snapshot) => {
                // Whoever says what it runs says what it does not run.
                body.evidence.retain(|_, evidence| evidence.phase != Phase::Found);
                body.evidence.extend([begin(snapshot, Phase::Started)]);
                is_on_disk(&snapshot.persona, body);
                (body.found, body.anything, body.confirm_start) = (Found::Adopted, false, false);
            }
            Record::Arm(persona) => {
                let Some(evidence) = body.evidence.get_mut(persona) else { return };
                // One answer may be a BMC's that restarts: the start is over once it is recorded again, by a body that is seen off.
                evidence.run = evidence.run.take().filter(|_| evidence.phase != Phase::Armed);
                evidence.phase = Phase::Armed;
                // It may go on and off again before that is seen.
                is_on_disk(persona, body);
            }
            Record::Start(persona) => {
                let Some(evidence) = body.evidence.get_mut(persona) else { return };
                evidence.phase = Phase::Started;
                // A start that was approved; not somebody's at its button.
                body.confirm_start &= !body.on_sent;
                is_on_disk(persona, body);
            }
            Record::Withdraw(persona) => body.evidence.get_mut(persona).into_iter().for_each(|e| e.withdrawn = true),
            Record::StandAgain(persona) => body.evidence.get_mut(persona).into_iter().for_each(|e| e.withdrawn = false),
            Record::Run { persona, run } => {
                let Some(evidence) = body.evidence.get_mut(persona) else { return };
                let before = evidence.run.take().and_then(Run::or_before);
                evidence.run = Some(Run { before, ..run.clone() });
                // One that nobody ordered counts like those that are.
                body.starts = body.starts.max(1);
            }
            Record::Hello { persona, nonce, at, failed } => {
                let run = body.evidence.get_mut(persona).and_then(|e| e.run.as_mut());
                if let Some(run) = run.filter(|run| run.nonce == *nonce && run.hello.is_none()) {
                    (run.hello, run.failed) = (Some(at.clone()), failed.clone());
                }
            }
            Record::Identified { persona, nonce, secret } => {
                let run = body.evidence.get_mut(persona).and_then(|e| e.run.as_mut());
                if let Some(run) = run.filter(|run| run.nonce == *nonce && run.secret.is_none()) {
                    (run.secret, run.before) = (Some(secret.clone()), None);
                }
            }
            Record::RunsStill { persona, nonce } => {
                let Some(evidence) = body.evidence.get_mut(persona) else { return };
                let before = evidence.run.as_mut().and_then(|run| run.before.take_if(|before| before.nonce == *nonce));
                if let Some(before) = before {
                    evidence.run = Some(*before);
                }
            }
            Record::End(persona) => drop(body.evidence.remove(persona)),
            _ => {}
        }
    }

    fn apply_to_power(&self, body: &mut Body) {
        match self {
            Record::Off(intent) => body.off = Some(intent.clone()),
            Record::OffSent { how, sent } => {
                let Some(intent) = &mut body.off else { return };
                let sending = match how {
                    Off::Soft => &mut intent.soft,
                    Off::Hard => &mut intent.hard,
                };
                *sending = after(sending, sent);
            }
            Record::OffDone => body.off = None,
            // Whoever asks first after it is the machine that was started.
            Record::OnSent => {
                (body.on_sent, body.smbios, body.starts) = (true, None, body.starts.saturating_add(1));
                body.evidence.values_mut().for_each(|e| e.run = None);
            }
            Record::OnDone => body.on_sent = false,
            _ => {}
        }
    }

    fn apply_to_ports(&self, body: &mut Body) {
        match self {
            Record::PortBegun { id, from, to } => {
                let by = body.held_by.as_ref().or(body.release.as_ref()).map(|hold| hold.binding.clone());
                body.ports.insert(id.clone(), PortDebt { begun: Some((from.clone(), to.clone())), by });
            }
            Record::PortEnded(id) => body.ports.get_mut(id).into_iter().for_each(|debt| *debt = PortDebt::default()),
            Record::PortForgotten(id) => drop(body.ports.remove(id)),
            _ => {}
        }
    }
}

/// What is known of the sendings once it is known what became of the last one. What did not leave is taken back; the tries before it stay
/// as unknown as they were.
fn after(sending: &Sending, sent: &Sent) -> Sending {
    match sent {
        Sent::Nothing => {
            let tries = sending.tries.saturating_sub(1);
            Sending { tries, last: if tries == 0 { Sent::Nothing } else { Sent::Unknown } }
        }
        Sent::Unknown | Sent::Accepted | Sent::Refused(_) => Sending { tries: sending.tries, last: sent.clone() },
    }
}

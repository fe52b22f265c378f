//! Why something is as it is, in one CamelCase word: the `reason` of conditions, waits, problems and faults.
//!
//! One enum, so that no list of texts has to be kept in step with another. Leaves out: the sentence beside it.
// tidy: table

use std::fmt;

/// What a reason says about who can end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// It is being worked on, and ends by itself when that is done.
    Progress,
    /// By itself, when something else has happened or answers again.
    ByItself,
    /// Not before a person says or changes something.
    Person,
}

macro_rules! reasons {
    ($($name:ident $ends:ident $doc:literal)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $(#[doc = $doc] $name,)* }

        impl Reason {
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)* }
            }

            const fn ends(self) -> Ends {
                match self { $(Reason::$name => Ends::$ends,)* }
            }
        }
    };
}

reasons! {
    // What is well.
    AsDesired Progress "Power, boot and ports are read back as desired."
    Answers Progress "The device answers."
    NotAskedYet ByItself "The device was not asked yet."
    BreakerClosed Progress "Correction goes on."
    // What is under way.
    Working Progress "An operation is on its way."
    Waiting Progress "For the next observation."
    SwitchingOff Progress "A switching-off was sent, and has its time."
    SwitchingOn Progress "A power-on was sent, and has its time."
    Starting Progress "It was switched on, and has not come up yet."
    AskingAgain Progress "What is known is older than what it is to show."
    PortsFirst Progress "It is switched on once its ports are read back as desired."
    Limit Progress "A limit of the Policy is reached."
    LeaseOver ByItself "Another controller acts."
    // What is waited for.
    PersonaElsewhere ByItself "What the persona claims may still be in use on another body."
    RolloutWaits ByItself "It runs another revision, and is restarted in its turn."
    ClaimReserved ByItself "Another binding has reserved what the persona claims."
    EvidenceUnreadable Person "A record of a body does not read: it may run anything."
    TakeoverNotPossible ByItself "The new body cannot take over yet; the old one is not touched."
    PowerUnknown ByItself "The power is not known."
    PortUnknown ByItself "The port was not seen yet."
    SwitchUnknown ByItself "The switch was not seen yet."
    NotToldYet ByItself "The device has not told who it is."
    // What a person ends.
    ApprovalNeeded Person "A person must approve it."
    Observing Person "The mode only observes."
    Paused Person "A person has paused it."
    Held Person "One change would disrupt too many bodies."
    Contended Person "Something else changes the same thing again and again."
    BreakerOpen Person "Too many bodies drift at once."
    StatusesNotStored Person "Statuses cannot be stored: what is shown is old."
    ObjectUnreadable Person "A stored object does not read."
    StoreWentBackwards Person "The store holds less than it once acknowledged."
    BootsOnce Person "A person had it boot something else once: what is bound follows when that is over."
    RolloutPaused Person "As many bodies as the manifest says run the new revision."
    RolloutHalted Person "A body that was started with the new revision does not come up: no other one is restarted."
    Maintenance Person "The manifest says so."
    SoftOffRefused Person "The soft-off was refused, and a hard one needs a person's word."
    DoesNotSwitchOff Person "It stays on."
    DoesNotSwitchOn Person "It stays off."
    BootDeviceRefused Person "The BMC refuses to set the boot device that the persona needs."
    DeclaredOffButRuns Person "A body that was declared off is on."
    MayRunFromDisk Person "A body that is not bound may run the persona from its disk."
    // What is wrong with the manifests.
    PersonaMissing Person "There is no such persona."
    ImageMissing Person "The image is not imported, or not here whole yet."
    FileMissing Person "What is in a file of the persona is not known."
    NetworkMissing Person "There is no such network."
    SecretMissing Person "There is no such Secret."
    ServerMissing Person "There is no such server."
    NicsDoNotMatch Person "The persona's NICs do not match the server's."
    PortNotFound Person "The switch has no such port, or several."
    PortNotManaged Person "The port is outside manage.ports."
    SwitchMissing Person "There is no such switch."
    VlanMissing Person "The switch has no such VLAN."
    VlanProtected Person "The VLAN is protected there."
    NoCredentials Person "The Secret gives no login."
    CredentialsPending ByItself "The Secret is being read."
    // What is wrong with devices.
    CableContradicted Person "What is at the port is not what the manifest says."
    LinkAggregation Person "A member of an aggregation is not written by itself."
    PortUnreadable Person "The switch does not show what is needed."
    SwitchNotWritable Person "The profile cannot write this switch."
    WriteRefused Person "The switch refuses to have its VLANs written."
    CarriesBmc Person "The port carries the BMC."
    StillPluggedIn Person "The server is seen at a port that its manifest does not name any more."
    NoBootRequest Person "It was switched on, and has not asked what to boot."
    NoHello Person "It has fetched its boot script, and what was to run has not said hello."
    StartFails Person "What it boots says that a step of it failed."
    EndsAgain Person "What it boots ends again and again."
    Parked Person "A machine with its MAC address asked what to boot, and was parked."
    PortHalfWay ByItself "A port was left between two states, and is finished first."
    NeighboursNotTold ByItself "The switch does not tell who is at its ports."
    IdentityChanged Person "Another device answers than the one that is remembered."
    CredentialsRefused Person "The device refuses the credentials."
    ActionForbidden Person "The user may not do this one thing."
    NoAnswer ByItself "The device does not answer."
    OutcomeUnknown ByItself "It may or may not have happened."
    Refused ByItself "The device answered no."
    Busy ByItself "The device is busy."
    Disagrees ByItself "The device is not as expected."
    NotSent ByItself "Nothing was sent."
    Unsupported Person "The device cannot do it."
    Garbled ByItself "The reply does not read."
    TableEndless ByItself "A table of the device does not come to its end."
    Unreachable ByItself "There is no way to it."
    // Answers to operators.
    NothingToAdopt Person "There is nothing to adopt."
    PersonaUnclear Person "It may run another persona."
    ForecastTooLong Person "The forecast does not end."
}

impl Reason {
    /// Only a person's word, or a change of a manifest, ends it.
    pub fn needs_a_person(self) -> bool {
        self.ends() == Ends::Person
    }

    /// Things are going on: nothing to tell anybody.
    pub fn is_progress(self) -> bool {
        self.ends() == Ends::Progress
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_word() {
        for reason in Reason::ALL {
            assert!(reason.as_str().bytes().all(|b| b.is_ascii_alphabetic()), "{reason}");
        }
    }
}

//! What `embody plan` would print: the waves of a move, a swap, an adoption, and of a BMC that does not answer.

use embody::testing::model::Reason;
use embody::testing::model::binding::{Mode, RunState};
use embody::testing::model::body::{Found, Sent};
use embody::testing::model::fact::Power;
use embody::testing::model::op::Disruption;
use embody::testing::plan::record::Record;

use crate::rack::{Luck, Rack, name};

/// One line for each operation.
fn printed(rack: &Rack) -> Vec<String> {
    let line = |f: &embody::testing::plan::forecast::Foreseen| {
        let disruption = if f.disruption == Disruption::None { String::new() } else { format!(" ({})", f.disruption) };
        format!("{} {}{disruption}{}", f.wave, f.step.op, if f.held { " held" } else { "" })
    };
    rack.forecast().steps.iter().map(line).collect()
}

fn settled(personas: &[(&str, &str, &str)]) -> Rack {
    let mut rack = Rack::new(&["a", "b"], &["p", "q"], 2);
    for (binding, persona, server) in personas {
        rack.bind(binding, persona, server, RunState::Running, Mode::Enforce);
    }
    let (_, plans) = rack.calm(20);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    rack
}

#[test]
fn a_move_is_foreseen_wave_by_wave() {
    let mut rack = settled(&[("x", "p", "a")]);
    assert_eq!(printed(&rack), Vec::<String>::new());
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    let expected = [
        "1 IPMI a soft-off (power off)",
        "2 SNMP sw port-a 110 → 999",
        "3 SNMP sw port-b 1 → 110",
        "3 IPMI b boot device Pxe, persistent, EFI",
        "4 IPMI b power on",
    ];
    assert_eq!(printed(&rack), expected);
    rack.edit("x", |spec| spec.correct = Some(embody::testing::model::binding::Correct::All(Mode::Approve)));
    assert!(rack.forecast().steps.iter().all(|f| f.held));
    rack.approve("x");
    assert_eq!(printed(&rack), expected);
    let (_, plans) = rack.calm(20);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!(rack.runs("b"), Some("p"));
}

#[test]
fn a_swap_is_foreseen_with_both_bodies_off_first() {
    let mut rack = settled(&[("x", "p", "a"), ("y", "q", "b")]);
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    rack.bind("y", "q", "a", RunState::Running, Mode::Enforce);
    let expected = [
        "1 IPMI a soft-off (power off)",
        "1 IPMI b soft-off (power off)",
        "2 SNMP sw port-a 110 → 120",
        "2 IPMI a boot device Pxe, persistent, EFI",
        "2 SNMP sw port-b 120 → 110",
        "2 IPMI b boot device Pxe, persistent, EFI",
        "3 IPMI a power on",
        "3 IPMI b power on",
    ];
    let mut found = printed(&rack);
    // Within a wave the order says nothing.
    found.sort();
    let mut sorted = expected;
    sorted.sort();
    assert_eq!(found, sorted);
    let (_, plans) = rack.calm(20);
    assert!(plans.values().all(|p| p.is_converged()), "{plans:?}");
    assert_eq!((rack.runs("a"), rack.runs("b")), (Some("q"), Some("p")));
}

#[test]
fn an_adoption_foresees_that_nothing_is_disturbed() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    rack.press(&name("a"), Power::On);
    rack.ports.insert(crate::rack::port_of("a"), crate::rack::access(110));
    rack.observe(&name("a"));
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.observe(&name("a"));
    assert_eq!(printed(&rack)[0], "1 IPMI a soft-off (power off) held");
    let plan = rack.reconcile(&name("a"), &mut || Luck::Good);
    assert_eq!((plan.steps.len(), plan.held.len(), rack.body("a").found), (0, 1, Found::Running));
    let snapshot = rack.want(&name("a")).holder.clone().unwrap().snapshot;
    rack.store(&name("a"), &Record::Adopt(Box::new(snapshot)));
    assert_eq!(printed(&rack), Vec::<String>::new());
    rack.reconcile(&name("a"), &mut || Luck::Good);
    assert!(rack.plan(&name("a")).is_converged());
    assert_eq!(rack.body("a").found, Found::Managed, "all is as desired: nothing is left to approve");
}

#[test]
fn a_silent_bmc_ends_the_forecast_with_a_wait() {
    let mut rack = settled(&[("x", "p", "a")]);
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    rack.truth.get_mut(&name("a")).unwrap().silent = true;
    assert_eq!(printed(&rack), Vec::<String>::new());
    let waits: Vec<(String, Reason)> = rack.forecast().waits.iter().map(|(s, w)| (s.to_string(), w.reason)).collect();
    assert_eq!(waits, [("a".to_owned(), Reason::NoAnswer), ("b".to_owned(), Reason::PersonaElsewhere)]);
}

#[test]
fn what_was_sent_before_is_taken_to_work() {
    let mut rack = settled(&[("x", "p", "a")]);
    rack.bind("x", "p", "b", RunState::Running, Mode::Enforce);
    rack.asks_the_new_body("a", "b");
    rack.reconcile(&name("a"), &mut || Luck::Lost);
    assert!(rack.body("a").off.is_some());
    assert_eq!(printed(&rack).first().map(String::as_str), Some("1 SNMP sw port-a 110 → 999"));
}

/// The word for the soft-off is void, since something was edited after it: the hard one that may follow is shown, or nobody could allow it.
#[test]
fn a_hard_off_whose_word_is_void_is_foreseen_and_can_be_approved() {
    let mut rack = Rack::new(&["a"], &["p"], 1);
    rack.press(&name("a"), Power::On);
    rack.truth.get_mut("a").unwrap().deaf = true;
    rack.bind("x", "p", "a", RunState::Running, Mode::Enforce);
    rack.calm(5);
    rack.approve("x");
    while rack.body("a").off.as_ref().is_none_or(|off| off.soft.last != Sent::Accepted) {
        rack.observe(&name("a"));
        rack.reconcile(&name("a"), &mut || Luck::Good);
    }
    rack.edit("x", |spec| spec.restart += 1);
    let (_, plans) = rack.calm(20);
    assert_eq!(rack.truth["a"].power, Power::On, "{plans:?}");
    assert_eq!(printed(&rack)[0], "1 IPMI a power off (power off) held");
    rack.approve("x");
    assert_eq!(printed(&rack)[0], "1 IPMI a power off (power off)");
    rack.calm(30);
    assert_eq!(rack.runs("a"), Some("p"));
}

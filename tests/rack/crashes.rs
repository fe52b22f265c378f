//! kill -9 of the controller in the middle of a move, at several moments and on both stores: the move ends, the old body is switched off
//! once, and no machine runs beside the other.
//!
//! How many times something was sent is the machines' own log; a soft-off that a deaf machine ignores is followed by one hard one.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::boot::ask;
use super::controller::Controller;
use super::etcd::etcd_or_skip;
use super::moves::{comes_to_life, moves};
use super::programs::{PEERS, missing, until};
use super::site::{LIVES, MACS, Manifests, RELEASED, Site, binding};
use crate::free_port::free_port;

/// When the controller is killed, counted from the apply.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// At once: the desired state is stored, what was done about it is anybody's guess.
    Applied,
    /// The machine has heard the soft-off.
    Told,
    /// The next body's boot device is set.
    Prepared,
    /// The next body was switched on.
    Started,
}

fn web(server: &str) -> String {
    binding("web", "apache", server, "correct: enforce, shutdown: { grace: 5s }")
}

async fn reached(site: &Site, moment: Moment, old: &str, new: &str, before: usize) {
    let (machine, what) = match moment {
        Moment::Applied => return,
        Moment::Told => (old, "shutdown 1"),
        Moment::Prepared => (new, "boot pxe"),
        Moment::Started => (new, "power 1"),
    };
    // No pause between polls: what is killed shall be in the middle of it.
    let deadline = Instant::now() + Duration::from_secs(240);
    while !site.changes()[before..].iter().any(|c| c.machine == machine && c.what == what) {
        assert!(Instant::now() < deadline, "{what} at {machine} did not come: {:#?}", site.changes());
        sleep(Duration::from_millis(2)).await;
    }
}

/// What was done to the power of the old body since.
///
/// A soft-off of which the controller died before it knew that it was accepted is sent again, three times in all at most: those are one here.
fn offs(site: &Site, old: &str, before: usize) -> Vec<String> {
    let all = site.changes();
    let mut told: Vec<String> =
        all[before..].iter().filter(|c| c.machine == old && !c.what.starts_with("boot")).map(|c| c.what.clone()).collect();
    assert!(told.iter().filter(|what| *what == "shutdown 1").count() <= 3, "{told:?}");
    told.dedup_by(|next, last| next == last && next == "shutdown 1");
    told
}

async fn killed_and_started_again(site: &mut Site, to: &str, moment: Moment) {
    let old = if to == "b" { "a" } else { "b" };
    let before = site.changes().len();
    site.controller.apply(&web(to)).await;
    reached(site, moment, old, to, before).await;
    site.controller.kill().await;
    site.controller.start().await;
    site.controller.ready("web", 90).await;
    let (a, b) = if to == "b" { (RELEASED, LIVES) } else { (LIVES, RELEASED) };
    site.ports_become(a, b, 60).await;
    site.never_both_on();
    let offs = offs(site, old, before);
    assert_eq!(offs, ["shutdown 1"], "{moment:?}: {:#?}", site.changes());
    let starts = site.changes()[before..].iter().filter(|c| c.machine == to && c.what == "power 1").count();
    assert_eq!(starts, 1, "{moment:?}: {:#?}", site.changes());
}

/// Side by side: they mostly wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_interrupted_is_done_once() {
    if missing(&PEERS) {
        return;
    }
    tokio::join!(
        a_controller_killed_in_the_middle_of_a_move_switches_off_once(),
        a_controller_killed_during_the_grace_sends_no_second_soft_off(),
        an_approval_and_a_pause_outlive_a_killed_controller(),
        a_controller_killed_in_a_restart_and_in_a_swap_does_neither_twice(),
        over_etcd_the_second_controller_takes_over_in_the_middle_of_a_move(),
        over_etcd_an_outage_is_survived(),
    );
}

async fn a_controller_killed_in_the_middle_of_a_move_switches_off_once() {
    let mut site = Site::start(&[]).await;
    comes_to_life(&site, &Manifests::default()).await;
    for (to, moment) in [("b", Moment::Applied), ("a", Moment::Told), ("b", Moment::Prepared), ("a", Moment::Started)] {
        killed_and_started_again(&mut site, to, moment).await;
    }
}

/// Killed while the machine takes its time, and while it does not listen at all.
async fn a_controller_killed_during_the_grace_sends_no_second_soft_off() {
    let mut site = Site::start(&[]).await;
    comes_to_life(&site, &Manifests::default()).await;
    site.a.mark("slow", true);
    let before = site.changes().len();
    site.controller.apply(&web("b")).await;
    reached(&site, Moment::Told, "a", "b", before).await;
    site.controller.kill().await;
    assert!(site.a.is_on().await, "it takes its time");
    site.controller.start().await;
    site.controller.ready("web", 60).await;
    site.ports_become(RELEASED, LIVES, 30).await;
    assert_eq!(offs(&site, "a", before), ["shutdown 1", "went off"], "{:#?}", site.changes());

    site.b.mark("deaf", true);
    let before = site.changes().len();
    site.controller.apply(&web("a")).await;
    reached(&site, Moment::Told, "b", "a", before).await;
    sleep(Duration::from_secs(1)).await;
    site.controller.kill().await;
    site.controller.start().await;
    site.controller.ready("web", 60).await;
    site.ports_become(LIVES, RELEASED, 30).await;
    assert_eq!(offs(&site, "b", before), ["shutdown 1", "power 0"], "{:#?}", site.changes());
    site.never_both_on();
    site.stays_silent(3).await;
}

/// What a person said outlives the controller that heard it.
async fn an_approval_and_a_pause_outlive_a_killed_controller() {
    let mut site = Site::start(&[]).await;
    comes_to_life(&site, &Manifests::default()).await;
    let careful = |server: &str| binding("web", "apache", server, "correct: approve, shutdown: { grace: 5s }");
    let before = site.changes().len();
    site.controller.apply(&careful("b")).await;
    site.controller.reads("binding", "web", "Ready", &["False ApprovalNeeded"], 20).await;
    assert_eq!(site.changes().len(), before);
    site.controller.run(&["approve", "web"]).await;
    reached(&site, Moment::Told, "a", "b", before).await;
    site.controller.kill().await;
    site.controller.start().await;
    site.controller.ready("web", 60).await;
    site.ports_become(RELEASED, LIVES, 30).await;
    assert_eq!(offs(&site, "a", before), ["shutdown 1"], "{:#?}", site.changes());

    site.controller.apply(&web("b")).await;
    site.controller.run(&["pause", "binding", "web", "--reason", "the cables are being changed"]).await;
    site.controller.kill().await;
    site.controller.start().await;
    let before = site.changes().len();
    site.controller.apply(&web("a")).await;
    site.controller.reads("binding", "web", "Ready", &["False Paused", "the cables are being changed"], 20).await;
    site.stays_silent(3).await;
    assert_eq!(site.changes().len(), before);
    site.controller.run(&["resume", "binding/web"]).await;
    site.controller.ready("web", 60).await;
    assert_eq!(offs(&site, "b", before), ["shutdown 1"], "{:#?}", site.changes());
}

/// A restart is one restart, and a swap one swap.
async fn a_controller_killed_in_a_restart_and_in_a_swap_does_neither_twice() {
    let mut site = Site::start(&[]).await;
    comes_to_life(&site, &Manifests::default()).await;
    let before = site.changes().len();
    site.controller.run(&["restart", "web"]).await;
    reached(&site, Moment::Told, "a", "a", before).await;
    site.controller.kill().await;
    site.controller.start().await;
    site.controller.ready("web", 60).await;
    assert_eq!(offs(&site, "a", before), ["shutdown 1", "power 1"], "{:#?}", site.changes());

    let db = |server: &str| binding("db", "mysql", server, "correct: enforce, shutdown: { grace: 5s }");
    site.controller.apply(&db("b")).await;
    site.controller.ready("db", 30).await;
    let before = site.changes().len();
    site.controller.apply(&format!("{}---\n{}", web("b"), db("a"))).await;
    reached(&site, Moment::Started, "a", "a", before).await;
    site.controller.kill().await;
    site.controller.start().await;
    site.controller.ready("web", 60).await;
    site.controller.ready("db", 60).await;
    assert_eq!(offs(&site, "a", before), ["shutdown 1", "power 1"], "{:#?}", site.changes());
    assert_eq!(offs(&site, "b", before), ["shutdown 1", "power 1"], "{:#?}", site.changes());
    site.ports_are(LIVES, LIVES).await;
    site.stays_silent(3).await;
}

/// Two controllers on one etcd: one acts. When it is killed in the middle of a move, the other ends the move after the lease.
async fn over_etcd_the_second_controller_takes_over_in_the_middle_of_a_move() {
    let Some(etcd) = etcd_or_skip() else { return };
    let _up = etcd.connect("/rack-is-up/").await;
    let store = format!("etcd://{}", etcd.endpoint());
    let boots = [free_port(), free_port()];
    let address = |n: usize| format!("127.0.0.1:{}", boots[n]);
    let mut site = Site::start(&["--store", &store, "--boot-address", &address(0)]).await;
    until("the first controller acts", Duration::from_secs(20), async || acts(&site.controller)).await;
    let mut second = Controller::new(site.dir.path(), "second", &["--store", &store, "--boot-address", &address(1)]);
    second.start().await;
    comes_to_life(&site, &Manifests::default()).await;
    assert!(acts(&second).is_err(), "{}", second.log());
    moves(&site, "b", &["shutdown 1"]).await;

    assert_eq!(ask(boots[0], MACS[2]).await.0, 200);
    assert_eq!(ask(boots[1], MACS[2]).await.0, 503, "only the one that acts may answer");
    let asked = second.say(&["why", "web"]).await;
    assert!(asked.code != 0 && asked.err.contains("act"), "{asked:?}");

    site.b.mark("slow", true);
    let before = site.changes().len();
    // Desired state may be told to any of them.
    second.apply(&web("a")).await;
    reached(&site, Moment::Told, "b", "a", before).await;
    site.controller.kill().await;
    second.reads("binding", "web", "Ready", &["True AsDesired"], 60).await;
    second.ready("web", 60).await;
    assert_eq!(offs(&site, "b", before), ["shutdown 1", "went off"], "{:#?}", site.changes());
    assert!(site.a.is_on().await);
    assert_eq!(ask(boots[1], MACS[0]).await.0, 200);
    site.never_both_on();

    // The one that was killed comes back as the one that waits.
    site.controller.start().await;
    assert_eq!(ask(boots[0], MACS[0]).await.0, 503);
    site.ports_become(LIVES, RELEASED, 30).await;
    freezes_and_wakes_too_late(&mut site, &mut second, boots[1]).await;
}

/// The acting controller stands still in the middle of a move, longer than its lease, and goes on when another one has done the work.
async fn freezes_and_wakes_too_late(site: &mut Site, acting: &mut Controller, its_boot: u16) {
    site.a.mark("deaf", true);
    let before = site.changes().len();
    site.controller.apply(&web("b")).await;
    reached(site, Moment::Told, "a", "b", before).await;
    acting.process().signal("-STOP").await;
    site.controller.reads("binding", "web", "Ready", &["True AsDesired"], 60).await;
    site.ports_become(RELEASED, LIVES, 30).await;
    acting.process().signal("-CONT").await;
    until("it knows that it acts no longer", Duration::from_secs(20), async || match ask(its_boot, MACS[2]).await {
        (503, _) => Ok(()),
        other => Err(format!("{other:?}\n{}", acting.log())),
    })
    .await;
    site.stays_silent(4).await;
    assert_eq!(offs(site, "a", before), ["shutdown 1", "power 0"], "{:#?}", site.changes());
    assert_eq!(offs(site, "b", before), ["power 1"], "{:#?}", site.changes());
    site.never_both_on();
}

/// etcd does not answer for longer than the lease lasts. Nothing is lost, and nothing is done twice.
async fn over_etcd_an_outage_is_survived() {
    let Some(mut etcd) = etcd_or_skip() else { return };
    let _up = etcd.connect("/rack-is-up/").await;
    let mut site = Site::start(&["--store", &format!("etcd://{}", etcd.endpoint())]).await;
    until("the controller acts", Duration::from_secs(20), async || acts(&site.controller)).await;
    comes_to_life(&site, &Manifests::default()).await;
    site.a.mark("deaf", true);
    let before = site.changes().len();
    site.controller.apply(&web("b")).await;
    reached(&site, Moment::Told, "a", "b", before).await;
    etcd.signal("-STOP");
    sleep(Duration::from_secs(20)).await;
    etcd.signal("-CONT");
    etcd.kill();
    let sent = site.changes()[before..].iter().filter(|c| c.what == "power 0").count();
    assert!(sent <= 1, "{:#?}", site.changes());
    etcd.restart();
    site.controller.ready("web", 90).await;
    site.ports_become(RELEASED, LIVES, 30).await;
    assert_eq!(offs(&site, "a", before), ["shutdown 1", "power 0"], "{:#?}", site.changes());
    site.never_both_on();
    site.stays_silent(3).await;
    // It can be stopped while etcd does not answer.
    etcd.signal("-STOP");
    site.controller.process().signal("-TERM").await;
    let ended = timeout(Duration::from_secs(20), site.controller.process().wait()).await;
    etcd.signal("-CONT");
    assert!(ended.as_ref().is_ok_and(|status| status.success()), "{ended:?}\n{}", site.controller.log());
}

fn acts(controller: &Controller) -> Result<(), String> {
    let log = controller.log();
    if log.contains("this controller acts") { Ok(()) } else { Err(log) }
}

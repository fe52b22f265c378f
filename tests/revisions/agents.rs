//! What the agent of a system says again and again, and what is made of its silence.

use std::time::Duration;

use embody::testing::control::booting::Identified;
use embody::testing::control::controller::Message;
use embody::testing::control::operator::Control;
use embody::testing::model::binding::RunState;
use embody::testing::model::persona::Agent;
use embody::testing::model::{Kind as ObjectKind, Spec};
use embody::testing::sim::switch::Kind;
use embody::testing::store::Store;
use embody_protocol::{Question, Secret};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::persona;
use crate::small::{Small, binding, name};

impl Small {
    /// The status of a condition of the binding.
    async fn agent(&self, kind: &str) -> Option<String> {
        let status = self.status(ObjectKind::Binding, "b").await;
        let of = |c: &&Value| c["type"] == kind;
        Some(status["conditions"].as_array()?.iter().find(of)?["status"].as_str()?.to_owned())
    }
}

impl Small {
    /// Somebody asks who s is with the token of this script.
    async fn asks(&self, script: &str, secret: &str) -> Option<Identified> {
        let token = script.split("/run/s/").nth(1)?.split([' ', '/', ',']).next()?;
        let token = self.boot.view.borrow().as_ref()?.key.as_ref()?.check(&name("s"), token)?;
        let question = Question { secret: Secret(secret.to_owned()), mac: "02:00:00:00:00:01".to_owned() };
        let (reply, answer) = oneshot::channel();
        let to_controller = self.to_controller.borrow().clone()?;
        to_controller.send(Message::Identify { server: name("s"), token, question, reply }).await.ok()?;
        answer.await.ok()
    }
}

/// A persona that says hello, up on s; `boot`: what its binding says of starts.
async fn up(boot: Value) -> Small {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    let mut says_hello = persona("web:1");
    if let Spec::Persona(spec) = &mut says_hello.spec {
        spec.agent = Agent::Required;
    }
    let mut binding = binding("enforce");
    if let Spec::Binding(spec) = &mut binding.spec {
        spec.boot = serde_json::from_value(boot).unwrap();
    }
    site.apply(vec![says_hello, binding]).await;
    sleep(Duration::from_secs(5)).await;
    site.import("web:1", 'a').await.unwrap();
    site.image_is('a', None).await;
    site.ready().await;
    sleep(Duration::from_secs(60)).await;
    site
}

/// Whoever asks for the script in its name, and goes on asking: what runs says that it is up, before its time is over and after.
#[tokio::test(start_paused = true)]
async fn a_script_that_somebody_else_asks_for_switches_nothing_off() {
    for deadline in ["20s", "10m"] {
        let site = up(json!({ "deadline": deadline, "retries": 2 })).await;
        for _ in 0..5 {
            assert!(site.boot().await.persona.is_some());
            sleep(Duration::from_secs(40)).await;
        }
        sleep(Duration::from_secs(900)).await;
        let events = site.events().await;
        assert!(events.iter().any(|event| event.contains("StartRefuted")), "{events:#?}");
        assert!(!events.iter().any(|event| event.contains("soft-off")), "{events:#?}");
        assert!(site.is_ready().await && site.agent("AgentHeard").await.as_deref() == Some("True"), "{events:#?}");
    }
}

/// Whoever has the token of its last start, and nothing else of it, keeps nobody from being seen off.
#[tokio::test(start_paused = true)]
async fn a_question_that_is_refused_is_no_sign_of_life() {
    let site = up(json!({})).await;
    let script = site.boot().await.script;
    let mut stopped = binding("enforce");
    if let Spec::Binding(spec) = &mut stopped.spec {
        spec.state = RunState::Stopped;
    }
    site.apply(vec![stopped]).await;
    let mut refused = 0;
    for _ in 0..400 {
        refused += usize::from(matches!(site.asks(&script, "x").await, Some(Identified::NotIt(_))));
        sleep(Duration::from_millis(700)).await;
    }
    let why = site.words.why(ObjectKind::Persona, &name("p")).await.unwrap();
    assert!(refused > 20 && why.contains("by evidence it may run on nothing"), "{refused}: {why} {}", site.says().await);
}

/// It did start anew: it is told who it is once what ran before is not heard any more.
#[tokio::test(start_paused = true)]
async fn a_machine_that_begins_anew_by_itself_comes_up_again() {
    let site = up(json!({})).await;
    site.centre.reboots(&name("s"));
    sleep(Duration::from_secs(20)).await;
    assert!(!site.is_ready().await);
    site.ready().await;
    assert!(!site.events().await.iter().any(|event| event.contains("StartRefuted")), "{:#?}", site.events().await);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_heard_costs_no_write_and_one_that_is_silent_is_told_of_once() {
    let mut site = up(json!({})).await;
    assert_eq!((site.agent("AgentHeard").await.as_deref(), site.agent("RootHasRoom").await.as_deref()), (Some("True"), Some("True")));
    let revision = async |site: &Small| site.store.list("").await.unwrap().1;
    let quiet = revision(&site).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(revision(&site).await, quiet, "nothing is written for an hour: {:?}", site.events().await);
    // A controller that begins anew knows that it was heard, and hears it again.
    site.restart();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(site.agent("AgentHeard").await.as_deref(), Some("True"));
    let events = site.events().await.len();
    site.centre.never_says_hello(&name("s"));
    sleep(Duration::from_secs(180)).await;
    assert_eq!(site.agent("AgentHeard").await.as_deref(), Some("Unknown"));
    assert!(site.is_ready().await, "it is no evidence of anything");
    let quiet = revision(&site).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!((revision(&site).await, site.events().await.len()), (quiet, events), "{:?}", site.events().await);
}

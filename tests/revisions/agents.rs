//! What the agent of a system says again and again, and what is made of its silence.

use std::time::Duration;

use embody::testing::model::Kind as ObjectKind;
use embody::testing::sim::switch::Kind;
use embody::testing::store::Store;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::persona;
use crate::small::{Small, name};

impl Small {
    /// The status of a condition of the binding.
    async fn agent(&self, kind: &str) -> Option<String> {
        let status = self.status(ObjectKind::Binding, "b").await;
        let of = |c: &&Value| c["type"] == kind;
        Some(status["conditions"].as_array()?.iter().find(of)?["status"].as_str()?.to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_heard_costs_no_write_and_one_that_is_silent_is_told_of_once() {
    let mut site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    let mut says_hello = persona("web:1");
    if let embody::testing::model::Spec::Persona(spec) = &mut says_hello.spec {
        spec.agent = embody::testing::model::persona::Agent::Required;
    }
    site.apply(vec![says_hello]).await;
    sleep(Duration::from_secs(5)).await;
    site.import("web:1", 'a').await.unwrap();
    site.image_is('a', None).await;
    site.ready().await;
    sleep(Duration::from_secs(60)).await;
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

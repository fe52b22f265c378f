//! Records of which nobody knows whether they were written, and records that were not: what the controller does with them until it knows. The
//! whole controller in virtual time.

mod small;

use std::time::Duration;

use embody::testing::model::fact::Power;
use embody::testing::model::{Kind, Object};
use embody::testing::sim::switch::Kind as SwitchKind;
use embody::testing::store::Store;
use serde_json::{Value, json};
use small::doubtful::Ends;
use small::{Small, binding, name};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

impl Small {
    /// Persona p lives once: it is to run on server s, or on server other, which is on the same switch.
    async fn of_two(mode: &str) -> Small {
        let mut site = Small::start(SwitchKind::QBridge, json!({}), mode).await;
        site.add_server("other", [7; 16]).await;
        site.wire("other", json!({ "switch": "tor-1", "port": "port2" })).await;
        let mut persona: Value = serde_json::from_slice(&site.store.get("objects/personas/p").await.unwrap().unwrap().value).unwrap();
        persona["spec"]["exclusive"] = json!(true);
        site.apply(vec![Object::from_json(persona).unwrap()]).await;
        site.restart_in_doubt().await;
        sleep(5 * MINUTE).await;
        site
    }

    async fn evidence(&self, server: &str) -> Value {
        let entry = self.store.get(&format!("records/2/bodies/{server}")).await.unwrap();
        entry.map_or(Value::Null, |e| serde_json::from_slice::<Value>(&e.value).unwrap()["evidence"]["p"]["phase"].clone())
    }
}

/// What was written is that s is answered with p; another binding then wants p elsewhere, before that can be read.
#[tokio::test(start_paused = true)]
async fn a_body_of_which_a_write_is_in_doubt_keeps_its_claims_from_others_until_it_is_read() {
    let site = Small::of_two("observe").await;
    site.doubtful.ends(Ends::StoredUnsaid);
    site.apply(vec![binding("enforce")]).await;
    for _ in 0..6000 {
        if site.doubtful.how() == Ends::CannotBeRead {
            break;
        }
        sleep(SECOND / 100).await;
    }
    assert_eq!((site.doubtful.how(), site.evidence("s").await), (Ends::CannotBeRead, json!("Answered")));
    // Nothing that is known binds p to s any more.
    site.remove(Kind::Binding, "b").await;
    site.bind("other").await;
    sleep(5 * MINUTE).await;
    assert_eq!(site.centre.power(&name("other")), Some(Power::Off), "s may run it, for all that is known");
    assert_eq!(site.evidence("other").await, Value::Null, "nor would it be answered there");
    site.doubtful.ends(Ends::Well);
    sleep(10 * MINUTE).await;
    assert_eq!(site.centre.power(&name("other")), Some(Power::On), "s was read, and seen off");
}

/// A machine asks in between: it is not answered by what could not be stored.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_stored_answers_nobody() {
    let site = Small::of_two("observe").await;
    site.doubtful.ends(Ends::Refused);
    site.apply(vec![binding("enforce")]).await;
    for _ in 0..120 {
        sleep(SECOND / 2).await;
        let answer = site.boot().await;
        assert_eq!(answer.persona, None, "nothing is stored of it: {}", answer.says);
    }
    assert_eq!(site.evidence("s").await, Value::Null);
    site.doubtful.ends(Ends::Well);
    site.ready().await;
    assert_eq!(site.boot().await.persona, Some(name("p")));
}

//! Images of personas in virtual time: nothing starts, and nothing that runs is disturbed, for an image that is not here whole.

#[path = "revisions/agents.rs"]
mod agents;
#[path = "revisions/rollouts.rs"]
mod rollouts;
mod small;

use std::time::Duration;

use embody::testing::control::images::Here;
use embody::testing::control::operator::{Control, Refusal};
use embody::testing::model::fact::Power;
use embody::testing::model::image::Blob;
use embody::testing::model::{Kind as ObjectKind, Object};
use embody::testing::sim::switch::Kind;
use embody::testing::store::{Expect, Store, Write};
use serde_json::json;
use small::{Small, name};
use tokio::time::sleep;

const A_WHILE: Duration = Duration::from_secs(300);

/// Persona p, whose root is this image.
fn persona(image: &str) -> Object {
    let nic = json!({ "name": "front", "untagged": "web", "boot": true });
    let spec = json!({ "os": { "family": "linux" }, "root": { "image": { "name": image } }, "nics": [nic] });
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Persona", "metadata": { "name": "p" }, "spec": spec })).unwrap()
}

async fn site() -> Small {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.apply(vec![persona("web:1")]).await;
    // Until somebody acts.
    sleep(Duration::from_secs(5)).await;
    site
}

impl Small {
    fn is_on(&self) -> bool {
        self.centre.power(&name("s")) == Some(Power::On)
    }

    async fn says(&self) -> String {
        self.words.why(ObjectKind::Binding, &name("b")).await.unwrap()
    }

    async fn removes(&self, image: &str, force: bool) -> Result<String, String> {
        self.words.remove_image(&image.parse().unwrap(), force, "ann").await.map_err(|refusal| match refusal {
            Refusal::Refused { why } => why,
            other => panic!("{other:?}"),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_persona_waits_for_its_image_and_starts_once_it_is_here() {
    let site = site().await;
    sleep(A_WHILE).await;
    let why = site.says().await;
    assert!(why.contains("there is no image web:1") && why.contains("embody image import web:1"), "{why}");
    assert!(!site.is_on());
    site.import("web:1", 'a').await.unwrap();
    sleep(A_WHILE).await;
    assert!(site.says().await.contains("image web:1 is not here whole yet") && !site.is_on());
    site.image_is('a', Some("7 of its files are not here")).await;
    sleep(A_WHILE).await;
    assert!(site.says().await.contains("7 of its files are not here") && !site.is_on());
    site.image_is('a', None).await;
    site.ready().await;
    let told = site.boot().await;
    let digest = "a".repeat(64);
    assert!(
        told.script.contains(&format!("/image/{digest}/kernel initrd=initrd embody.root=nfs:192.0.2.1:/{digest}/s/")),
        "{}",
        told.script
    );
    // What its record says is said of the server that it runs on.
    let rows = site.words.images().await.unwrap();
    assert_eq!((rows[0].personas.as_slice(), rows[0].servers.as_slice()), (&[name("p")][..], &[name("s")][..]));
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_left_alone_while_the_next_image_is_not_here() {
    let mut site = site().await;
    site.import("web:1", 'a').await.unwrap();
    site.image_is('a', None).await;
    site.ready().await;
    site.apply(vec![persona("web:2")]).await;
    sleep(A_WHILE).await;
    assert!(site.says().await.contains("there is no image web:2"), "{}", site.says().await);
    assert!(site.is_on());
    // A machine that begins anew by itself gets what stands, as long as that is here.
    assert!(site.boot().await.script.contains(&"a".repeat(64)));
    site.image_is('a', Some("1 of its files are not here")).await;
    sleep(Duration::from_secs(5)).await;
    let told = site.boot().await;
    assert!(told.persona.is_none() && told.says.contains("1 of its files are not here"), "{told:?}");
    site.image_is('a', None).await;
    sleep(Duration::from_secs(5)).await;
    assert!(site.boot().await.persona.is_some());
    // The records are in the store.
    site.restart();
    sleep(A_WHILE).await;
    let rows = site.words.images().await.unwrap();
    assert_eq!((rows.len(), rows[0].image.digest.as_str()), (1, "a".repeat(64).as_str()));
    assert!(site.is_on() && site.boot().await.persona.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_read_into_memory_is_packed_first() {
    let site = site().await;
    site.import("web:1", 'a').await.unwrap();
    let nic = json!({ "name": "front", "untagged": "web", "boot": true });
    let spec = json!({ "os": { "family": "linux" }, "root": { "image": { "name": "web:1", "as": "ram" } }, "nics": [nic] });
    let ram = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Persona", "metadata": { "name": "p" }, "spec": spec });
    site.apply(vec![Object::from_json(ram).unwrap()]).await;
    site.image_is('a', None).await;
    sleep(A_WHILE).await;
    assert!(site.says().await.contains("it is packed first") && !site.is_on(), "{}", site.says().await);
    let blob = Blob { sha256: "c".repeat(64), size: 4096 };
    site.image_is_here('a', Here { lacks: None, ram: Ok(blob) }).await;
    site.ready().await;
    let told = site.boot().await;
    let expected = format!("embody.root=ram:http://192.0.2.1/image/{}/ram-{1},sha256={1},size=4096", "a".repeat(64), "c".repeat(64));
    assert!(told.script.contains(&expected), "{}", told.script);
}

/// Binding b, with more in its spec.
fn bound(more: serde_json::Value) -> Object {
    let mut spec = json!({ "persona": "p", "target": { "server": "s" }, "correct": "enforce" });
    more.as_object().unwrap().iter().for_each(|(key, value)| spec[key] = value.clone());
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Binding", "metadata": { "name": "b" }, "spec": spec })).unwrap()
}

/// To be switched off it needs no image, and nothing else than that is done without one.
#[tokio::test(start_paused = true)]
async fn without_its_image_a_persona_is_neither_moved_nor_kept_from_being_stopped() {
    let site = site().await;
    site.add_server("t", [7; 16]).await;
    site.import("web:1", 'a').await.unwrap();
    site.image_is('a', None).await;
    site.ready().await;
    site.image_is('a', Some("1 of its files are damaged")).await;
    site.apply(vec![bound(json!({ "target": { "server": "t" } }))]).await;
    sleep(A_WHILE * 2).await;
    assert!(site.is_on() && site.centre.power(&name("t")) == Some(Power::Off), "{}", site.says().await);
    assert!(site.says().await.contains("1 of its files are damaged"));
    site.apply(vec![bound(json!({ "restart": 1 }))]).await;
    sleep(A_WHILE).await;
    assert!(site.is_on());
    site.apply(vec![bound(json!({ "restart": 1, "state": "Stopped", "shutdown": { "grace": "30s" } }))]).await;
    sleep(A_WHILE).await;
    assert!(!site.is_on(), "{}", site.says().await);
}

/// `why` names both, and what to do.
#[tokio::test(start_paused = true)]
async fn a_body_that_runs_another_revision_than_the_manifests_say_is_told_of() {
    let site = site().await;
    for (version, digit) in [("web:1", 'a'), ("web:2", 'b')] {
        site.import(version, digit).await.unwrap();
        site.image_is(digit, None).await;
    }
    site.ready().await;
    assert!(site.says().await.contains("Everything is as desired"));
    site.apply(vec![persona("web:2")]).await;
    sleep(A_WHILE).await;
    let why = site.says().await;
    let expected = ["All else is as desired: it was started with web:1, content ", "the manifests say web:2, content ", "raise `restart`"];
    assert!(expected.iter().all(|said| why.contains(said)), "{why}");
}

/// What would come up to nothing ends nothing.
#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_start_is_waited_for_like_one_that_is_not_there() {
    let site = site().await;
    site.import("web:1", 'a').await.unwrap();
    site.image_is('a', None).await;
    site.ready().await;
    for (name, digit, without, says) in [("web:2", 'b', "kernel", "has no kernel"), ("web:3", 'c', "init", "has no /sbin/init")] {
        site.import_without(name, digit, without).await;
        site.image_is(digit, None).await;
        site.apply(vec![persona(name)]).await;
        let restart = if digit == 'b' { 1 } else { 2 };
        site.apply(vec![bound(json!({ "restart": restart }))]).await;
        sleep(A_WHILE).await;
        assert!(site.is_on() && site.says().await.contains(says), "{}", site.says().await);
        assert!(site.boot().await.script.contains(&"a".repeat(64)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_keeps_its_content() {
    let site = site().await;
    site.import("web:1", 'a').await.unwrap();
    for (digit, says) in [('a', "with the same content"), ('b', "give this one another version")] {
        match site.import("web:1", digit).await {
            Err(Refusal::Refused { why }) => assert!(why.contains("is there already") && why.contains(says), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_named_runs_or_can_be_gone_back_to_is_not_removed() {
    let site = site().await;
    for (version, digit) in [("web:1", 'a'), ("web:2", 'b'), ("web:3", 'c'), ("web:4", 'd'), ("web:5", 'e')] {
        site.import(version, digit).await.unwrap();
        site.image_is(digit, None).await;
    }
    site.ready().await;
    assert!(site.removes("web:1", true).await.unwrap_err().contains("persona p names it"));
    site.apply(vec![persona("web:5")]).await;
    sleep(Duration::from_secs(5)).await;
    let why = site.removes("web:1", true).await.unwrap_err();
    assert!(why.contains("server s may run it (persona p)"), "{why}");
    assert!(site.removes("web:4", false).await.unwrap_err().contains("one of the last 3 of web"));
    site.removes("web:2", false).await.unwrap();
    site.removes("web:4", true).await.unwrap();
    assert!(matches!(site.words.remove_image(&"web:4".parse().unwrap(), true, "ann").await, Err(Refusal::NotFound { .. })));
    // What runs under another name as well goes on under that.
    site.import("same:1", 'a').await.unwrap();
    site.removes("same:1", true).await.unwrap();
    let why = site.removes("web:1", true).await.unwrap_err();
    assert!(why.contains("server s may run it (persona p)"), "{why}");
    // A name that was removed can be given anew, to another content: what names it is outdated then.
    site.import("web:2", 'f').await.unwrap();
}

/// A body whose record does not read may run any of them.
#[tokio::test(start_paused = true)]
async fn while_a_server_may_run_anything_no_content_is_removed() {
    let mut site = site().await;
    site.import("web:1", 'a').await.unwrap();
    site.import("db:1", 'b').await.unwrap();
    let key = "records/2/bodies/t";
    site.store.write_all(&[Write::put(key, b"nobody reads this".to_vec(), Expect::Absent)]).await.unwrap();
    site.restart();
    sleep(Duration::from_secs(5)).await;
    let why = site.removes("db:1", true).await.unwrap_err();
    assert!(why.contains("server t may run anything"), "{why}");
}

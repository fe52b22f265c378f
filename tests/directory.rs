//! A directory as the source of desired state: what it may delete unasked, and what a person approves.
//!
//! The API serves the same store, as a person would approve there; the controller is a stand-in: the body of the binding `alive` is alive, and server
//! `held` may not be deleted. Leaves out: the process around it (`tests/rack/process.rs`).

mod site;

use embody::testing::gitops::{Directory, Not};
use embody::testing::model::Object;
use serde_json::{Value, json};
use site::{Site, binding, network, object, persona, secret, server};

struct Source {
    site: Site,
    directory: Directory,
}

impl Source {
    async fn start(objects: &[Value]) -> Source {
        let site = Site::start().await;
        let directory = Directory::new("/rack".into(), true, site.backend.clone());
        let mut source = Source { site, directory };
        source.holds(objects).await.unwrap();
        source
    }

    /// It holds exactly these, which is seen and applied.
    async fn holds(&mut self, objects: &[Value]) -> Result<String, Not> {
        let objects: Vec<Object> = objects.iter().map(|o| Object::from_json(o.clone()).unwrap()).collect();
        let content = self.directory.saw(objects, 1).await;
        self.directory.apply(content).await
    }

    async fn waits(&mut self, objects: &[Value]) -> String {
        match self.holds(objects).await {
            Err(Not::Waits(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn is_refused(&mut self, objects: &[Value]) -> String {
        match self.holds(objects).await {
            Err(Not::Broken(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn names(&self, plural: &str) -> Vec<String> {
        let (_, list) = self.site.call("GET", &format!("/{plural}"), Value::Null).await;
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// What is shown to whoever would approve it.
    async fn shown(&self) -> (Vec<String>, String) {
        let (status, pending) = self.site.call("GET", "/sources/directory", Value::Null).await;
        assert_eq!(status, 200, "{pending}");
        let lines = pending["writes"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect();
        (lines, pending["digest"].as_str().unwrap().to_owned())
    }

    async fn approve(&self, digest: &str) -> u16 {
        self.site.call("POST", "/sources/directory/approve", json!({ "digest": digest })).await.0
    }
}

fn labs(names: impl IntoIterator<Item = u16>) -> Vec<Value> {
    names.into_iter().map(|n| network(&format!("lab-{n}"), n)).collect()
}

fn rack() -> Vec<Value> {
    vec![secret("bmc", "x"), network("web", 120), server("s1"), persona("p"), binding("alive", "p", "s1")]
}

#[tokio::test]
async fn a_few_deletions_are_made_and_told() {
    let mut source = Source::start(&labs(1..=8)).await;
    let said = source.holds(&labs(3..=8)).await.unwrap();
    assert_eq!(said, "6 objects of 1 files; 2 deleted");
    assert_eq!(source.names("networks").await.len(), 6);
    let (_, events) = source.site.call("GET", "/events", Value::Null).await;
    let events: Vec<(&str, &str, &str)> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["regarding"].as_str().unwrap(), e["reason"].as_str().unwrap(), e["message"].as_str().unwrap()))
        .collect();
    let because = "it is no longer in directory:/rack";
    assert_eq!(events, [("Network/lab-1", "Deleted", because), ("Network/lab-2", "Deleted", because)]);
}

/// A mistake that removes its files one after the other is one mistake.
#[tokio::test(start_paused = true)]
async fn more_deletions_than_the_policy_allows_wait_at_once_or_one_by_one() {
    let mut source = Source::start(&labs(1..=20)).await;
    let why = source.waits(&labs(7..=20)).await;
    assert!(why.contains("6 objects would be deleted, and limits.maxDeletes lets 5") && why.contains("Network/lab-1 deleted"), "{why}");
    source.holds(&labs(1..=20)).await.unwrap();
    for first in 2..=6 {
        source.holds(&labs(first..=20)).await.unwrap();
    }
    let why = source.waits(&labs(7..=20)).await;
    assert!(why.contains("1 objects would be deleted (5 were in the last ten minutes)"), "{why}");
    assert_eq!(source.names("networks").await.len(), 15);
    tokio::time::advance(std::time::Duration::from_secs(601)).await;
    source.holds(&labs(7..=20)).await.unwrap();
    // The limit that stands counts, not the one that comes with the deletions.
    let wide = object("Policy", "default", json!({ "limits": { "maxDeletes": 100 } }));
    let why = source.waits(&[labs(17..=20), vec![wide.clone()]].concat()).await;
    assert!(why.contains("maxDeletes") && why.contains("Policy/default created"), "{why}");
    source.holds(&[labs(7..=20), vec![wide.clone()]].concat()).await.unwrap();
    source.holds(&[labs(17..=20), vec![wide]].concat()).await.unwrap();
}

#[tokio::test]
async fn a_whole_kind_and_a_body_that_is_alive_wait_for_the_word_that_covers_what_was_shown() {
    let mut source = Source::start(&[rack(), vec![binding("off", "p", "s1")]].concat()).await;
    let without_bindings = &rack()[..4];
    let why = source.waits(without_bindings).await;
    for word in ["no Binding is left in the directory, of 2", "Binding/alive is not there any more, and server s1 is on"] {
        assert!(why.contains(word), "{word}: {why}");
    }
    assert_eq!(source.names("bindings").await, ["alive", "off"]);

    // Only the one that is off: nobody is asked. The other one, with another edit: both are shown, and wait.
    source.holds(&rack()).await.unwrap();
    let edited = [without_bindings.to_vec(), vec![network("more", 7), binding("late", "p", "s1")]].concat();
    source.waits(&edited).await;
    let (lines, digest) = source.shown().await;
    assert_eq!(lines, ["Network/more created", "Binding/late created", "Binding/alive deleted"]);
    // Whoever changes it meanwhile, there or here, has not shown that.
    let mut renewed = binding("alive", "p", "s1");
    renewed["spec"]["hostname"] = json!("other");
    assert_eq!(source.site.call("PUT", "/bindings/alive", renewed).await.0, 200);
    assert_eq!(source.approve(&digest).await, 200);
    source.waits(&edited).await;
    let (_, digest) = source.shown().await;
    assert_eq!(source.approve(&digest).await, 200);
    source.waits(&[edited.clone(), vec![network("later", 8)]].concat()).await;
    assert_eq!(source.names("bindings").await, ["alive"]);
    source.waits(&edited).await;
    assert_eq!(source.approve(&digest).await, 200);
    assert_eq!(source.holds(&edited).await.unwrap(), "6 objects of 1 files; 1 deleted");
    assert_eq!(source.names("bindings").await, ["late"]);
    // Used up.
    source.waits(without_bindings).await;
}

/// Before the first write: nothing of a set is done of which a part cannot be.
#[tokio::test]
async fn a_deletion_that_must_not_be_leaves_all_as_it_was() {
    let mut source = Source::start(&[rack(), vec![server("held"), server("s3")]].concat()).await;
    let edited = |edit: &Value| [rack(), vec![server("s3"), edit.clone()]].concat();
    let before = source.site.store.revision();
    let why = source.is_refused(&edited(&network("new", 9))).await;
    assert!(why.contains("Server/held is not deleted: held may still run web"), "{why}");
    source.site.create(binding("by-hand", "p", "s3")).await;
    let why = source.is_refused(&[rack(), vec![server("held"), network("new", 9)]].concat()).await;
    assert!(why.contains("Server/s3 is not deleted: Binding/by-hand refers to it"), "{why}");
    assert_eq!(source.site.store.revision(), before + 1);
}

/// What is replaced and what replaces it are never there at the same time.
#[tokio::test]
async fn a_rename_is_one_write() {
    let mut source = Source::start(&[labs(1..=3), vec![network("web", 120)]].concat()).await;
    let mut watch = source.site.backend.store.watch("objects/", source.site.store.revision()).await.unwrap();
    source.holds(&[labs(1..=3), vec![network("front", 120)]].concat()).await.unwrap();
    assert_eq!(source.names("networks").await, ["front", "lab-1", "lab-2", "lab-3"]);
    let told = [format!("{:?}", watch.recv().await), format!("{:?}", watch.recv().await)];
    assert!(told[0].contains("Put") && told[1].contains("Deleted"), "{told:?}");
    // The one and only of its kind, too.
    let mut source = Source::start(&[network("web", 120)]).await;
    source.holds(&[network("front", 120)]).await.unwrap();
}

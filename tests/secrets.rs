//! The file of a Secret that is gone, or does not read any more: said on the Secret, once, and until it reads again. The whole controller. How lines
//! are read: `control::secrets`; when they count: `control::logins`.

mod small;

use std::fs;
use std::path::Path;
use std::time::Duration;

use embody::testing::model::{Kind, Object};
use embody::testing::sim::switch::Kind as SwitchKind;
use serde_json::{Value, json};
use small::Small;

fn from_file(file: &Path) -> Object {
    Object::from_json(json!({
        "apiVersion": "embody.dev/v1alpha1", "kind": "Secret", "metadata": { "name": "bmc" }, "from": { "file": file.to_str().unwrap() },
    }))
    .unwrap()
}

impl Small {
    async fn condition(&self, kind: &str) -> (String, String) {
        let status = self.status(Kind::Secret, "bmc").await;
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|c| c["type"] == kind).unwrap_or(Value::Null);
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("message"))
    }

    /// Until that is said, whether the file was to be read soon or in half a minute: a file is read in time of the real kind, on a thread of its own.
    async fn says(&self, status: &str, word: &str) -> String {
        for _ in 0..1_200 {
            let (is, message) = self.condition("Readable").await;
            if is == status && message.contains(word) {
                return message;
            }
            tokio::time::pause();
            tokio::time::advance(Duration::from_millis(100)).await;
            tokio::time::resume();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it is not {status} with `{word}`: {:?}", self.condition("Readable").await);
    }

    /// Until these events are there, and no others.
    async fn told(&self, lines: &[String]) {
        let mut told = Vec::new();
        for _ in 0..600 {
            told = self.events().await.into_iter().filter(|event| event.starts_with("Secret/")).collect();
            if told == lines {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{told:#?} instead of {lines:#?}");
    }
}

#[tokio::test]
async fn a_file_that_does_not_read_any_more_is_a_condition_and_an_event_until_it_does() {
    let mut site = Small::start(SwitchKind::QBridge, json!({}), "enforce").await;
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("bmc.env");
    let good = "username=admin\npassword=admin\n";
    fs::write(&file, good).unwrap();
    assert_eq!(site.condition("Readable").await, Default::default(), "there is no file to speak of");
    site.apply(vec![from_file(&file)]).await;
    site.says("True", "bmc.env reads").await;

    fs::remove_file(&file).unwrap();
    let gone = site.says("False", "No such file").await;
    assert!(gone.contains("still used") && site.condition("Ready").await == ("False".to_owned(), gone.clone()), "{gone}");
    fs::write(&file, "username=admin\npassword='hunter2\n").unwrap();
    let bad = site.says("False", "line 2, password").await;
    let event = |message: &str| format!("Secret/bmc NoCredentials {message}");
    let mut lines = vec![event(&gone), event(&bad)];
    // That it read at first was no news.
    site.told(&lines).await;
    // Another controller has nothing that it could use, which is told once as well.
    site.restart();
    let never = site.says("False", "are not asked").await;
    lines.push(event(&never));
    site.told(&lines).await;
    site.restart();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(lines.iter().all(|message| !message.contains("hunter2")), "{lines:?}");

    fs::write(&file, good).unwrap();
    site.says("True", "bmc.env reads").await;
    lines.push(format!("Secret/bmc Reads {} reads again", file.display()));
    site.told(&lines).await;

    // One that names no file has none that could be unreadable.
    let data = json!({ "username": "admin", "password": "admin" });
    let plain = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Secret", "metadata": { "name": "bmc" }, "stringData": data });
    site.apply(vec![Object::from_json(plain).unwrap()]).await;
    site.says("", "").await;
}

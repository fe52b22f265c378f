//! What a system that was booted says to its controller, what it is told, and the templates of its files.
//!
//! The input is one message of the protocol as JSON, or any text as a template. What reads is written and read back equal, no secret shows in a log, and
//! what is put in for a variable is not read again.

use std::fmt::Debug;

use embody_protocol::{Alive, Hello, Identity, Question};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::hold;
use crate::model::file::fill;

pub fn exchange(bytes: &[u8]) -> Result<(), String> {
    twice::<Question>(bytes)?;
    twice::<Hello>(bytes)?;
    twice::<Alive>(bytes)?;
    twice::<Identity>(bytes)?;
    hides_its_secret::<Question>(bytes)?;
    hides_its_secret::<Hello>(bytes)?;
    hides_its_secret::<Alive>(bytes)?;
    template(&String::from_utf8_lossy(bytes))
}

/// Whatever it is, the message looks the same.
fn hides_its_secret<T: Debug + DeserializeOwned>(bytes: &[u8]) -> Result<(), String> {
    let Ok(mut message) = serde_json::from_slice::<Value>(bytes) else { return Ok(()) };
    let mut shown = |secret: Option<&str>| {
        if let (Some(secret), Some(said)) = (secret, message.get_mut("secret")) {
            *said = secret.into();
        }
        serde_json::from_value::<T>(message.clone()).ok().map(|message| format!("{message:?}"))
    };
    match (shown(None), shown(Some("another")), shown(Some("one more"))) {
        (Some(one), Some(other), Some(more)) => hold(one == other && other == more, || "a secret is shown".to_owned()),
        _ => Ok(()),
    }
}

fn twice<T: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) -> Result<Option<T>, String> {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return Ok(None) };
    let written = serde_json::to_vec(&read).map_err(|error| error.to_string())?;
    let again: T = serde_json::from_slice(&written).map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&written)))?;
    hold(again == read, || format!("another one is read back: {}", String::from_utf8_lossy(&written)))?;
    Ok(Some(read))
}

fn template(text: &str) -> Result<(), String> {
    let odd = "${hostname}$$";
    let value = |name: &str| matches!(name, "hostname" | "address.front").then(|| odd.to_owned());
    match fill(text, value) {
        Ok(filled) if !text.contains('$') => hold(filled == text, || "a text without variables is another one".to_owned()),
        // Two octets are one, and each variable is as long as what stands for it.
        Ok(filled) => hold(filled.len() <= text.len() + text.matches("${").count() * odd.len(), || format!("{} octets", filled.len())),
        Err(wrong) => hold(text.contains(wrong) && text.contains('$'), || format!("`{wrong}` is not in it")),
    }
}

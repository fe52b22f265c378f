//! What a system that was booted says to its controller, what it is told, and the templates of its files.
//!
//! The input is one message of the protocol as JSON, or any text as a template. What reads is written and read back equal, no secret shows in a log, and
//! what is put in for a variable is not read again.

use std::fmt::Debug;

use embody_protocol::{Alive, Hello, Identity, Question};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::hold;
use crate::model::file::fill;

pub fn exchange(bytes: &[u8]) -> Result<(), String> {
    let question: Option<Question> = twice(bytes)?;
    let hello: Option<Hello> = twice(bytes)?;
    let alive: Option<Alive> = twice(bytes)?;
    twice::<Identity>(bytes)?;
    let secrets = [question.as_ref().map(shown), hello.as_ref().map(shown), alive.as_ref().map(shown)];
    let said = question.map(|q| q.secret.0).filter(|secret| secret.len() > 8);
    if let Some(secret) = said {
        hold(!secrets.iter().flatten().any(|text| text.contains(&secret)), || "a secret is shown".to_owned())?;
    }
    template(&String::from_utf8_lossy(bytes))
}

fn shown(message: &impl Debug) -> String {
    // Of all else that it says nothing is secret.
    format!("{message:?}").split("mac:").next().unwrap_or_default().to_owned()
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

//! Files that a persona brings beside its image: what differs from body to body, and what belongs into no image.
//!
//! Invariant: what is put in for a variable is no variable. Shown by the tests below.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Name;

/// Exactly one of content and secretRef (checked by `validate`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PersonaFile {
    /// Where it lies, from `/`. A file of the image is replaced.
    pub path: String,
    /// What is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What is in it, where nobody else may read that: a value of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKey>,
    /// In `content`, ${hostname}, ${persona}, ${machineId} and ${address.NIC} stand for what is so of this body; `$$` is `$`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template: bool,
    /// Permissions as octal digits: "0644", of a Secret "0600", if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// The name of its user in the image. Default: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The name of its group in the image. Default: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// One value of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKey {
    /// The Secret.
    pub name: Name,
    /// The key of the value in it.
    pub key: String,
}

/// Permission bits of chmod(2), 0..=0o7777.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileMode(pub u32);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{0}`, expected three or four octal digits in quotes, such as \"0644\"")]
pub struct BadMode(String);

impl std::str::FromStr for FileMode {
    type Err = BadMode;
    fn from_str(text: &str) -> Result<Self, BadMode> {
        let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| (b'0'..b'8').contains(&b));
        let mode = u32::from_str_radix(text, 8).ok().filter(|_| octal);
        mode.map(FileMode).ok_or_else(|| BadMode(text.to_owned()))
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:04o}", self.0))
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for FileMode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FileMode".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "file-mode", "examples": ["0644"] })
    }
}

impl PersonaFile {
    pub fn mode(&self) -> u32 {
        self.mode.map_or(if self.secret_ref.is_some() { 0o600 } else { 0o644 }, |mode| mode.0)
    }
}

/// Before the name of a NIC whose address is meant.
pub(crate) const ADDRESS: &str = "address.";
/// The other variables.
pub(crate) const VARIABLES: [&str; 3] = ["hostname", "persona", "machineId"];

/// A template with its variables replaced. `Err`: the first one that stands for nothing, or what begins with `$` and is none.
pub(crate) fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, &str> {
    let (mut out, mut rest) = (String::with_capacity(template.len()), template);
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let first = || after.split(char::is_whitespace).next().unwrap_or_default();
        let (name, after) = after.strip_prefix('{').and_then(|named| named.split_once('}')).ok_or_else(first)?;
        out.push_str(&value(name).ok_or(name)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_once_and_all_else_is_as_it_was() {
        let value = |name: &str| match name {
            "hostname" => Some("web-1".to_owned()),
            "odd" => Some("${hostname}$".to_owned()),
            _ => None,
        };
        assert_eq!(fill("a ${hostname}: ${odd} $$5 {x}\n", value), Ok("a web-1: ${hostname}$ $5 {x}\n".to_owned()));
        assert_eq!(fill("x", value), Ok("x".to_owned()));
        for (wrong, what) in [("${nobody}", "nobody"), ("$HOME/x y", "HOME/x"), ("${hostname", "{hostname"), ("a$", "")] {
            assert_eq!(fill(wrong, value), Err(what), "{wrong}");
        }
    }

    #[test]
    fn modes_are_octal_digits() {
        for (text, mode) in [("0644", 0o644), ("755", 0o755), ("4755", 0o4755)] {
            assert_eq!(text.parse(), Ok(FileMode(mode)));
        }
        assert_eq!(serde_json::to_string(&FileMode(0o644)).unwrap(), "\"0644\"");
        for wrong in ["", "64", "0888", "00644", "u+x", "+644", "-644"] {
            assert!(wrong.parse::<FileMode>().is_err(), "{wrong}");
        }
    }
}

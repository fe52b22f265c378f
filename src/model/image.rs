//! Images of personas: their names, where a persona has one, and what is stored of each.
//!
//! Leaves out: the files (`image`). Invariant: a name stands for one content as long as it exists; what decides is the digest of its index.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Name;
use super::server::Bytes;

/// `NAME:VERSION`: a name as objects have one, and letters, digits, `.`, `_` and `-`, at most 64, beginning with a letter or digit. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "found `{found}`, expected NAME:VERSION such as web:2026.11, where NAME has lower-case letters, digits, `-` and `.`, and VERSION letters, digits, `.`, `_` and `-`, at most 64"
)]
pub struct BadImageName {
    pub found: String,
}

impl ImageName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What all its versions share.
    pub fn family(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(name, _)| name)
    }
}

impl FromStr for ImageName {
    type Err = BadImageName;
    fn from_str(text: &str) -> Result<Self, BadImageName> {
        let is_version = |version: &str| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            (1..=64).contains(&version.len())
                && version.bytes().all(inner)
                && version.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        };
        match text.split_once(':') {
            Some((name, version)) if name.parse::<Name>().is_ok() && is_version(version) => Ok(ImageName(text.into())),
            Some(_) | None => Err(BadImageName { found: text.to_owned() }),
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for ImageName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ImageName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for ImageName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ImageName".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "image-name" })
    }
}

/// An image that was imported.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageRoot {
    /// NAME:VERSION, as it was imported.
    pub name: ImageName,
    /// How a machine gets it.
    #[serde(default, rename = "as")]
    pub delivery: Delivery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Delivery {
    /// Over NFS from the controller, read as it is used.
    #[default]
    Nfs,
    /// Read into the machine's memory, packed, before it starts: it outlives its controller.
    Ram,
}

/// A file, by its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// In octets.
    pub size: u64,
}

/// Where what the system writes is kept: in memory, above the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Overlay {
    /// How much memory it may take: by default half of the machine's.
    pub size: Bytes,
}

/// What is stored of an image under `records/2/images/NAME:VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// SHA-256 of its index: 64 hexadecimal digits.
    pub digest: String,
    /// Files, directories and all else.
    pub entries: u64,
    /// Of all files, each counted once by name.
    pub bytes: u64,
    /// The kernel that it boots. Nothing: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<ImageKernel>,
    /// It has a program to start.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub init: bool,
    /// What may go wrong with it, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What was taken out of it so that several machines can run it, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generalised: Vec<String>,
    /// RFC 3339.
    pub imported: String,
    pub by: String,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageKernel {
    /// As `uname -r` says it.
    pub version: String,
    /// Where it is in the image.
    pub path: String,
}

/// An image, as far as the controller that acts has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownImage {
    pub image: Image,
    /// Why it cannot be served from here yet. Nothing: it is here whole.
    pub lacks: Option<String>,
    /// The same for those that read it into their memory.
    pub ram_lacks: Option<String>,
}

impl KnownImage {
    /// Why it cannot be served in this way.
    pub fn lacks(&self, delivery: Delivery) -> Option<&String> {
        self.lacks.as_ref().or(self.ram_lacks.as_ref().filter(|_| delivery == Delivery::Ram))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_name_and_a_version() {
        for good in ["web:1", "web.prod-2:2026.11_a-b", "a:A"] {
            assert_eq!(good.parse::<ImageName>().unwrap().to_string(), good);
        }
        let long = format!("web:{}", "1".repeat(65));
        for bad in ["web", "web:", ":1", "Web:1", "web:1/2", "web:1:2", "web:.1", "web:-", "web: 1", "../x:1", &long] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
        assert_eq!("web:1".parse::<ImageName>().unwrap().family(), "web");
    }
}

//! `kind: Secret`: credentials. Write-only: no `Debug`, and what leaves the program shows key names only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A text that is not to be seen: no `Debug`, no `Display`, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    pub fn new(text: String) -> Hidden {
        Hidden(text)
    }
    /// The text itself. Every caller is a place to look at in a review.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Exactly one of `stringData` and `from`. Unlike the other kinds, a Secret has no `spec` in its manifest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSpec {
    /// The values themselves. A BMC's: username, password, kg. A switch's: community; or username, authProtocol,
    /// authPassword, privProtocol, privPassword.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub string_data: BTreeMap<String, Hidden>,
    /// Where the controller reads them, so that Git holds none of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SecretSource>,
}

/// Exactly one of file and env. Either holds lines KEY=value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSource {
    /// A file on the controller's machine with lines `key=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// An environment variable of the controller with lines `key=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
}

impl std::fmt::Debug for SecretSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretSpec").field("keys", &self.string_data.keys().collect::<Vec<_>>()).field("from", &self.from).finish()
    }
}

/// Credentials of a BMC.
#[derive(Clone, PartialEq, Eq)]
pub struct BmcLogin {
    /// At most 16 bytes (IPMI 2.0, 22.28).
    pub username: String,
    /// At most 20 bytes (IPMI 2.0, 22.30).
    pub password: Hidden,
    /// The BMC key, at most 20 bytes: text, or hex after `0x`.
    pub kg: Option<Hidden>,
}

/// Credentials of a switch.
#[derive(Clone, PartialEq, Eq)]
pub enum SnmpLogin {
    V2c { community: Hidden },
    V3 { username: String, auth: AuthProtocol, auth_password: Hidden, privacy: PrivProtocol, priv_password: Hidden },
}

/// USM authentication protocols: RFC 3414 (MD5, SHA), RFC 7860 (SHA-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthProtocol {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// USM privacy protocols: DES (RFC 3414), AES-128 (RFC 3826), AES-256 (draft-reeder, draft-blumenthal: both are tried).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrivProtocol {
    /// authNoPriv: nothing is encrypted.
    None,
    Des,
    Aes128,
    Aes256,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected {expected}")]
pub struct BadProtocol {
    pub found: String,
    pub expected: &'static str,
}

impl std::str::FromStr for AuthProtocol {
    type Err = BadProtocol;
    /// In any case, with or without the hyphen.
    fn from_str(text: &str) -> Result<Self, BadProtocol> {
        match text.to_ascii_uppercase().replace('-', "").as_str() {
            "MD5" => Ok(AuthProtocol::Md5),
            "SHA" | "SHA1" => Ok(AuthProtocol::Sha1),
            "SHA224" => Ok(AuthProtocol::Sha224),
            "SHA256" => Ok(AuthProtocol::Sha256),
            "SHA384" => Ok(AuthProtocol::Sha384),
            "SHA512" => Ok(AuthProtocol::Sha512),
            _ => Err(BadProtocol { found: text.to_owned(), expected: "MD5, SHA, SHA-224, SHA-256, SHA-384 or SHA-512" }),
        }
    }
}

impl std::str::FromStr for PrivProtocol {
    type Err = BadProtocol;
    /// In any case, with or without the hyphen.
    fn from_str(text: &str) -> Result<Self, BadProtocol> {
        match text.to_ascii_uppercase().replace('-', "").as_str() {
            "DES" => Ok(PrivProtocol::Des),
            "AES" | "AES128" => Ok(PrivProtocol::Aes128),
            "AES256" => Ok(PrivProtocol::Aes256),
            _ => Err(BadProtocol { found: text.to_owned(), expected: "DES, AES or AES-256" }),
        }
    }
}

//! What a start is recognised by: a token on its kernel command line, signed with the site's key, so that no controller has to remember it.
//!
//! `DIGEST-ISSUED-NONCE-MAC`: the 12 hexadecimal digits of what was answered, the seconds since 1970 in 8, 32 random ones, and 32 of an
//! HMAC-SHA-256 (RFC 2104) over the server's name and the three. Leaves out: which start is the last one (the body's record). Invariant: a
//! token is good for the server and the answer that it was made for, and for nothing else.

use std::fmt;

use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::model::Name;

/// The site's key, made once; never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteKey {
    /// 64 hexadecimal digits.
    pub key: String,
    /// The one before, which is still taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Signs the handles of files that systems have mounted: it stays, since a system whose handles are void is lost. Nothing: `key` of an earlier
    /// version, which had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handles: Option<String>,
    /// RFC 3339.
    pub since: String,
}

impl fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteKey").field("since", &self.since).finish_non_exhaustive()
    }
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Of what was answered.
    pub digest: String,
    /// Seconds since 1970.
    pub issued: u32,
    pub nonce: String,
}

impl SiteKey {
    pub fn sign(&self, server: &Name, token: &Token) -> String {
        let text = token.text();
        format!("{text}-{}", mac(&self.key, server, &text))
    }

    /// What a token of this server says, if this site has made it.
    pub fn check(&self, server: &Name, token: &str) -> Option<Token> {
        let (text, signature) = token.rsplit_once('-')?;
        let is_of = |key: &String| bool::from(mac(key, server, text).as_bytes().ct_eq(signature.as_bytes()));
        if !std::iter::once(&self.key).chain(&self.before).any(is_of) {
            return None;
        }
        let mut parts = text.split('-');
        let (digest, issued, nonce) = (parts.next()?.to_owned(), u32::from_str_radix(parts.next()?, 16).ok()?, parts.next()?.to_owned());
        Some(Token { digest, issued, nonce })
    }
}

impl SiteKey {
    /// `/IMAGE/SERVER/NONCE-MAC`: where a start mounts the image that was answered; every controller of the site can tell that it is one of ours.
    pub fn export(&self, image: &str, server: &Name, nonce: &str) -> String {
        format!("/{image}/{server}/{nonce}-{}", mac_of_export(&self.key, image, server, nonce))
    }

    /// What signs the handles of mounted files.
    pub fn of_handles(&self) -> [u8; 32] {
        let key = self.handles.as_ref().unwrap_or(&self.key);
        Sha256::new().chain_update(b"embody handles\n").chain_update(key.as_bytes()).finalize().into()
    }

    /// By which one controller of a site knows another one that asks for an image.
    pub fn peer(&self, image: &str) -> String {
        keyed(&self.key, &format!("embody peer\n{image}"))
    }

    /// Whether that is one of ours.
    pub fn is_peer(&self, image: &str, said: &str) -> bool {
        let is_of = |key: &String| bool::from(keyed(key, &format!("embody peer\n{image}")).as_bytes().ct_eq(said.as_bytes()));
        std::iter::once(&self.key).chain(&self.before).any(is_of)
    }

    /// The machine-id (machine-id(5): 32 hexadecimal digits) of whatever a binding runs, on whichever server: it outlives every rotation.
    pub fn machine_id(&self, binding: &str) -> String {
        keyed(self.handles.as_ref().unwrap_or(&self.key), &format!("embody machine-id\n{binding}"))
    }

    /// The private key (RFC 8032: Ed25519) of whoever tells systems who they are: it stands on their command lines, and outlives every rotation.
    pub fn of_exchange(&self) -> Zeroizing<[u8; 32]> {
        self.seed("embody exchange")
    }

    /// The private key (RFC 8032: Ed25519) of the SSH server in whatever a binding runs, on whichever server.
    pub fn ssh_host_key(&self, binding: &str) -> Zeroizing<[u8; 32]> {
        self.seed(&format!("embody ssh host key\n{binding}"))
    }

    fn seed(&self, of: &str) -> Zeroizing<[u8; 32]> {
        let key = self.handles.as_ref().unwrap_or(&self.key);
        // A key of any length is a key.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return Zeroizing::default() };
        mac.update(of.as_bytes());
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    /// The next one: what this one has signed is still taken.
    pub fn next(&self, key: String, since: String) -> SiteKey {
        let handles = self.handles.clone().unwrap_or_else(|| self.key.clone());
        SiteKey { key, before: Some(self.key.clone()), handles: Some(handles), since }
    }

    /// The image, the server and the nonce of the start of such a path, if this site has made it.
    pub fn exported<'a>(&self, path: &'a str) -> Option<(&'a str, Name, &'a str)> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let (image, server, last) = (parts.next()?, parts.next()?.parse::<Name>().ok()?, parts.next()?);
        let (nonce, signature) = last.split_once('-')?;
        let is_of = |key: &String| bool::from(mac_of_export(key, image, &server, nonce).as_bytes().ct_eq(signature.as_bytes()));
        let ours = parts.next().is_none() && std::iter::once(&self.key).chain(&self.before).any(is_of);
        ours.then_some((image, server, nonce))
    }
}

impl Token {
    fn text(&self) -> String {
        format!("{}-{:08x}-{}", self.digest, self.issued, self.nonce)
    }
}

fn mac(key: &str, server: &Name, text: &str) -> String {
    keyed(key, &format!("embody run\n{server}\n{text}"))
}

fn mac_of_export(key: &str, image: &str, server: &Name, nonce: &str) -> String {
    keyed(key, &format!("embody export\n{image}\n{server}\n{nonce}"))
}

fn keyed(key: &str, text: &str) -> String {
    // A key of any length is a key.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_one_server_and_one_answer_and_under_both_keys() {
        let key = |key: &str, before: Option<&str>| SiteKey {
            key: key.into(),
            before: before.map(str::to_owned),
            handles: None,
            since: String::new(),
        };
        let (a, b): (Name, Name) = ("a".parse().unwrap(), "b".parse().unwrap());
        let token = Token { digest: "0123456789ab".into(), issued: 0x6543_2100, nonce: "f".repeat(32) };
        let text = key("one", None).sign(&a, &token);
        assert_eq!(key("one", None).check(&a, &text), Some(token.clone()));
        assert_eq!(key("two", Some("one")).check(&a, &text), Some(token));
        assert_eq!(key("one", None).check(&b, &text), None);
        assert_eq!(key("two", None).check(&a, &text), None);
        for wrong in [text.replacen('0', "1", 1), text.replace("-6543", "-7543"), text[..text.len() - 1].to_owned(), String::new()] {
            assert_eq!(key("one", None).check(&a, &wrong), None, "{wrong}");
        }
        assert!(!format!("{:?}", key("one", None)).contains("one"));
    }

    #[test]
    fn an_export_is_of_one_image_and_one_server() {
        let key = SiteKey { key: "one".into(), before: None, handles: None, since: String::new() };
        let next = key.next("two".into(), String::new());
        let path = key.export("abcd", &"a".parse().unwrap(), "ff");
        for key in [&key, &next] {
            assert_eq!(key.exported(&path), Some(("abcd", "a".parse().unwrap(), "ff")));
        }
        for wrong in
            [path.replace("abcd", "abce"), path.replace("/a/", "/b/"), path.replace("ff-", "fe-"), format!("{path}/etc"), "/".into()]
        {
            assert_eq!(key.exported(&wrong), None, "{wrong}");
        }
        // Handles outlive every rotation.
        let later = next.next("three".into(), String::new());
        assert_eq!((later.of_handles(), later.machine_id("u")), (key.of_handles(), key.machine_id("u")));
        assert_eq!((later.of_exchange(), later.ssh_host_key("u")), (key.of_exchange(), key.ssh_host_key("u")));
        assert!(key.of_exchange() != key.ssh_host_key("u") && key.ssh_host_key("u") != key.ssh_host_key("v"));
        assert!(next.is_peer("abcd", &key.peer("abcd")) && !next.is_peer("abce", &key.peer("abcd")) && !next.is_peer("abcd", ""));
        assert!(key.machine_id("u").len() == 32 && key.machine_id("u") != key.machine_id("v"));
    }
}

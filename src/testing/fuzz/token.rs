//! What a start is recognised by: the token on its command line, and the path that it mounts.
//!
//! The input is the name of a server, a line break, and the token or the path. What is taken is what this site makes, to the octet; what it makes of the
//! parts of the input is taken, by the next key as well, for that server alone, and not with one character changed.

use super::hold;
use crate::boot::token::{SiteKey, Token};
use crate::model::Name;

fn key() -> SiteKey {
    let first = SiteKey { key: "zero".to_owned(), before: None, handles: None, since: String::new() };
    first.next("one".to_owned(), String::new())
}

pub fn token(bytes: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let (server, said) = text.split_once('\n').unwrap_or(("server", text));
    let Ok(server) = server.parse::<Name>() else { return Ok(()) };
    taken(&server, said)?;
    let mut parts = said.split(['-', '/']).filter(|part| !part.is_empty());
    let (Some(one), Some(other)) = (parts.next(), parts.next()) else { return Ok(()) };
    made(&server, one, other)
}

/// What came from outside.
fn taken(server: &Name, said: &str) -> Result<(), String> {
    let (key, before) = (key(), SiteKey { key: "zero".to_owned(), before: None, handles: None, since: String::new() });
    if let Some(token) = key.check(server, said) {
        let again = [key.sign(server, &token), before.sign(server, &token)];
        hold(again.iter().any(|made| made == said), || format!("`{said}` is taken as {token:?}, which is made as {again:?}"))?;
    }
    let Some((image, of, nonce)) = key.exported(said) else { return Ok(()) };
    let again = [key.export(image, &of, nonce), before.export(image, &of, nonce)];
    hold(again.iter().any(|made| made == said), || format!("`{said}` is taken as {image} for {of}, which is made as {again:?}"))
}

/// What the site makes.
fn made(server: &Name, one: &str, other: &str) -> Result<(), String> {
    let (key, now) = (key(), Token { digest: one.to_owned(), issued: one.len() as u32, nonce: other.to_owned() });
    let (next, stranger) =
        (key.next("two".to_owned(), String::new()), SiteKey { before: None, ..key.next("two".to_owned(), String::new()) });
    let signed = key.sign(server, &now);
    for key in [&key, &next] {
        hold(key.check(server, &signed).as_ref() == Some(&now), || format!("{now:?} is made as `{signed}`, and not taken"))?;
    }
    hold(stranger.check(server, &signed).is_none(), || format!("`{signed}` is taken under another key"))?;
    let path = key.export(one, server, other);
    for key in [&key, &next] {
        hold(key.exported(&path) == Some((one, server.clone(), other)), || format!("{one} is at `{path}`, which is not taken"))?;
    }
    hold(stranger.exported(&path).is_none(), || format!("`{path}` is taken under another key"))?;
    for (at, letter) in path.char_indices() {
        let changed = format!("{}{}{}", &path[..at], if letter == '0' { '1' } else { '0' }, &path[at + letter.len_utf8()..]);
        hold(key.exported(&changed).is_none(), || format!("`{changed}` is taken, and only `{path}` was made"))?;
    }
    let Ok(another) = format!("{server}0").parse::<Name>() else { return Ok(()) };
    hold(key.check(&another, &signed).is_none(), || format!("`{signed}` of {server} is taken of {another}"))
}

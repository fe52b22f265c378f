//! What can stand in an iPXE script: a manifest must not be able to write another line, variable or command into it.
//!
//! Used where a persona is judged, and where its script is made, so that none is taken whose machine would be parked for ever.

/// What stands between the paths of several initrds that are served as one.
pub(crate) const JOINED_BY: char = ',';

/// The text cannot be part of a boot script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot stand in a boot script", .found.escape_default())]
pub(crate) struct NotForScripts {
    pub found: String,
}

/// One word: printable ASCII without what iPXE or a shell gives a meaning.
pub(crate) fn word(text: &str) -> Result<String, NotForScripts> {
    let good = |c: char| c.is_ascii_graphic() && !matches!(c, '$' | '|' | '&' | '#' | '"' | '\'' | '\\' | '`');
    if !text.is_empty() && text.chars().all(good) { Ok(text.to_owned()) } else { Err(NotForScripts { found: text.to_owned() }) }
}

/// Words, with one space between.
pub(crate) fn line(text: &str) -> Result<String, NotForScripts> {
    text.split_ascii_whitespace().map(word).collect::<Result<Vec<_>, _>>().map(|words| words.join(" "))
}

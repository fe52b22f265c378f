//! What a command is about: kinds in singular or plural and any case, names, and `KIND/NAME`.
//!
//! Leaves out: whether such an object exists. Invariant: words that do not read are wrong usage, with what was expected.
//! Shown by the tests below.

use super::client::Client;
use super::failure::{Exit, Failure};
use crate::model::kind::KINDS;
use crate::model::{Kind, Name};

/// What is listed: objects of kinds, one of them, the switch ports, or what is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Kind(Kind),
    One(Kind, Name),
    Ports,
    Pauses,
    Leases,
    Discovered,
}

pub(super) fn kind(text: &str) -> Result<Kind, Failure> {
    text.parse::<Kind>().map_err(|e| Failure::usage(e.to_string()))
}

pub(super) fn name(text: &str) -> Result<Name, Failure> {
    text.parse::<Name>().map_err(|e| Failure::usage(e.to_string()))
}

fn pair(text: &str) -> Option<Result<(Kind, Name), Failure>> {
    let (k, n) = text.split_once('/')?;
    Some(kind(k).and_then(|k| Ok((k, name(n)?))))
}

/// `bindings`, `bindings,servers`, `binding web-1 web-2`, `binding/web-1 server/x`, `ports`, `pauses`, `leases`, `discovered`, `all`.
pub(super) fn subjects(words: &[String]) -> Result<Vec<Subject>, Failure> {
    let Some(first) = words.first() else {
        return Err(Failure::usage(
            "say what: a kind (bindings, servers, …), KIND NAME, KIND/NAME, ports, pauses, leases, discovered, or all",
        ));
    };
    if words.iter().any(|w| w.contains('/')) {
        return words
            .iter()
            .map(|w| pair(w).unwrap_or_else(|| Err(Failure::usage(format!("found `{w}` beside KIND/NAME, expected KIND/NAME")))))
            .map(|p| p.map(|(k, n)| Subject::One(k, n)))
            .collect();
    }
    let mut kinds = Vec::new();
    for word in first.split(',') {
        match word.to_ascii_lowercase().as_str() {
            "port" | "ports" => kinds.push(Subject::Ports),
            "pause" | "pauses" => kinds.push(Subject::Pauses),
            "lease" | "leases" => kinds.push(Subject::Leases),
            "discovered" => kinds.push(Subject::Discovered),
            "all" => kinds.extend(KINDS.into_iter().rev().map(Subject::Kind)),
            _ => kinds.push(Subject::Kind(kind(word).map_err(|failure| match failure.hint {
                Some(_) => failure,
                None => failure.hint("beside kinds there are ports, pauses, leases and discovered; a kind comes before its names"),
            })?)),
        }
    }
    match (kinds.as_slice(), &words[1..]) {
        (_, []) => Ok(kinds),
        ([Subject::Kind(kind)], names) => names.iter().map(|n| Ok(Subject::One(*kind, name(n)?))).collect(),
        _ => Err(Failure::usage("names can follow one kind only; use KIND/NAME for several")),
    }
}

/// Objects by name: `KIND NAME…` or `KIND/NAME…`.
pub(super) fn objects(words: &[String]) -> Result<Vec<(Kind, Name)>, Failure> {
    let one = |s| match s {
        Subject::One(kind, name) => Ok((kind, name)),
        Subject::Kind(_) | Subject::Ports | Subject::Pauses | Subject::Leases | Subject::Discovered => {
            Err(Failure::usage("say which: KIND NAME, or KIND/NAME"))
        }
    };
    subjects(words)?.into_iter().map(one).collect()
}

/// Objects of one kind, where the kind need not be said: `web-1`, `binding/web-1`, `binding web-1`.
pub(super) fn of_kind(words: &[String], expected: Kind) -> Result<Vec<Name>, Failure> {
    let said = words.len() > 1 && words.first().is_some_and(|w| w.parse::<Kind>().is_ok());
    if !said && !words.iter().any(|w| w.contains('/')) {
        return words.iter().map(|w| name(w)).collect();
    }
    let same = |(kind, name): (Kind, Name)| {
        if kind == expected { Ok(name) } else { Err(Failure::usage(format!("found {kind}/{name}, expected a {expected}"))) }
    };
    objects(words)?.into_iter().map(same).collect()
}

/// `[KIND/]NAME`: a bare name is looked for among bindings first, then among the other kinds.
pub(super) async fn look_up(client: &Client, words: &[String]) -> Result<(Kind, Name), Failure> {
    let [bare] = words else {
        return match objects(words)?.as_slice() {
            [one] => Ok(one.clone()),
            _ => Err(Failure::usage("say one object: NAME, KIND/NAME, or KIND NAME")),
        };
    };
    if let Some(pair) = pair(bare) {
        return pair;
    }
    let name = name(bare)?;
    for kind in KINDS.into_iter().rev() {
        if client.find(kind, &name).await?.is_some() {
            return Ok((kind, name));
        }
    }
    Err(Failure::new(Exit::NotFound, format!("no object of any kind is named `{name}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_in_every_form() {
        let read = |text: &str| subjects(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let web: Name = "web-1".parse().unwrap();
        for text in ["binding web-1", "Bindings web-1", "BINDING/web-1", "bindings/web-1"] {
            assert_eq!(read(text), Ok(vec![Subject::One(Kind::Binding, web.clone())]), "{text}");
        }
        assert_eq!(read("servers,ports"), Ok(vec![Subject::Kind(Kind::Server), Subject::Ports]));
        assert_eq!(read("all").map(|a| a.len()), Ok(7));
        for bad in ["pods", "binding/Web", "servers,bindings x", "ports x", "binding/a b", "binding/"] {
            assert_eq!(read(bad).map_err(|f| f.exit), Err(Exit::Usage), "{bad}");
        }
    }
}

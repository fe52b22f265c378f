//! `.embodyignore`: which files of a directory are none of ours, in the syntax of gitignore(5).
//!
//! Leaves out: reading the file (`source`). Invariant: the time is the product of pattern and path at most. Shown by the tests below.

/// The lines of one such file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    /// Between slashes; `**` stands for any number of them.
    segments: Vec<Vec<char>>,
    /// `!`: what it matches is read after all.
    keeps: bool,
    /// It ends with a slash.
    directories_only: bool,
}

impl Ignore {
    pub(super) fn parse(text: &str) -> Ignore {
        Ignore { patterns: text.strip_prefix('\u{feff}').unwrap_or(text).lines().filter_map(pattern).collect() }
    }

    /// What the last pattern that matches says of a path, which is relative to where the file is; nothing where none does.
    pub(super) fn says(&self, path: &str, is_directory: bool) -> Option<bool> {
        let path: Vec<Vec<char>> = path.split('/').map(|segment| segment.chars().collect()).collect();
        let is_any = |segment: &Vec<char>| *segment == ['*', '*'];
        let matches = |p: &&Pattern| (is_directory || !p.directories_only) && sequence(&p.segments, &path, &is_any, &segment);
        self.patterns.iter().rev().find(matches).map(|pattern| !pattern.keeps)
    }
}

fn pattern(line: &str) -> Option<Pattern> {
    // A space at the end counts only behind a backslash.
    let mut line = line;
    while let Some(shorter) = line.strip_suffix([' ', '\t']).filter(|shorter| !shorter.ends_with('\\')) {
        line = shorter;
    }
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (keeps, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
    let (directories_only, line) = line.strip_suffix('/').map_or((false, line), |rest| (true, rest));
    let mut segments: Vec<Vec<char>> = line.split('/').map(|segment| segment.chars().collect()).collect();
    match segments.as_slice() {
        [only] if only.is_empty() => return None,
        // Without a slash before its end it is a name, at any depth.
        [_] => segments.insert(0, vec!['*', '*']),
        [first, ..] if first.is_empty() => drop(segments.remove(0)),
        _ => {}
    }
    // `dir/**` is what is inside, not the directory.
    if segments.len() > 2 || segments.first().is_some_and(|first| *first != ['*', '*']) {
        segments.extend((segments.last().is_some_and(|last| *last == ['*', '*'])).then(|| vec!['*']));
    }
    Some(Pattern { segments, keeps, directories_only })
}

/// One path segment against a glob: `*`, `?`, `[a-z]`, `[!a-z]`, and a backslash before what is meant as it is.
#[allow(clippy::ptr_arg, reason = "as `sequence` hands them over")]
fn segment(glob: &Vec<char>, name: &Vec<char>) -> bool {
    sequence(&tokens(glob), name, &|token| *token == Token::Any, &|token, c| token.matches(*c))
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Is(char),
    /// Ranges, and whether it is none of them.
    Class(Vec<(char, char)>, bool),
}

impl Token {
    fn matches(&self, c: char) -> bool {
        match self {
            Token::Any | Token::One => true,
            Token::Is(wanted) => *wanted == c,
            Token::Class(ranges, not) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *not,
        }
    }
}

fn tokens(glob: &[char]) -> Vec<Token> {
    let (mut tokens, mut rest) = (Vec::new(), glob);
    while let [first, after @ ..] = rest {
        rest = after;
        tokens.push(match first {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => match after {
                [escaped, after @ ..] => {
                    rest = after;
                    Token::Is(*escaped)
                }
                [] => Token::Is('\\'),
            },
            '[' => match class(after) {
                Some((token, after)) => {
                    rest = after;
                    token
                }
                None => Token::Is('['),
            },
            c => Token::Is(*c),
        });
    }
    tokens
}

/// What stands behind `[`, and what follows its `]`.
fn class(rest: &[char]) -> Option<(Token, &[char])> {
    let (not, body) = match rest {
        ['!' | '^', after @ ..] => (true, after),
        _ => (false, rest),
    };
    // A `]` at the beginning is one of the characters.
    let end = 1 + body.iter().skip(1).position(|c| *c == ']')?;
    let (mut ranges, mut inside) = (Vec::new(), body.get(..end)?);
    while let [from, after @ ..] = inside {
        let (to, after) = if let ['-', to, after @ ..] = after { (to, after) } else { (from, after) };
        ranges.push((*from, *to));
        inside = after;
    }
    Some((Token::Class(ranges, not), body.get(end + 1..)?))
}

/// Whether the items match one by one, where one that `is_any` stands for any number of them. It goes back to the last of those alone.
fn sequence<P, T>(pattern: &[P], items: &[T], is_any: &dyn Fn(&P) -> bool, one: &dyn Fn(&P, &T) -> bool) -> bool {
    let (mut p, mut i, mut back) = (0, 0, None);
    while let Some(item) = items.get(i) {
        match pattern.get(p) {
            Some(any) if is_any(any) => {
                back = Some((p, i));
                p += 1;
            }
            Some(wanted) if one(wanted, item) => (p, i) = (p + 1, i + 1),
            _ => match back {
                Some((any, from)) => {
                    (p, i) = (any + 1, from + 1);
                    back = Some((any, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(is_any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        // The examples of gitignore(5), and what its sentences say beside them.
        for (text, path, is_directory, says) in [
            ("hello.*", "a/hello.yaml", false, Some(true)),
            ("/hello.*", "hello.yaml", false, Some(true)),
            ("/hello.*", "a/hello.yaml", false, None),
            ("foo/", "foo", true, Some(true)),
            ("foo/", "a/foo", true, Some(true)),
            ("foo/", "foo", false, None),
            ("doc/frotz", "doc/frotz", false, Some(true)),
            ("doc/frotz", "a/doc/frotz", false, None),
            ("foo/*", "foo/test.yaml", false, Some(true)),
            ("foo/*", "foo/bar/hello.yaml", false, None),
            ("**/foo/bar", "a/b/foo/bar", false, Some(true)),
            ("abc/**", "abc/x/y", false, Some(true)),
            ("abc/**", "abc", true, None),
            ("a/**/b", "a/b", false, Some(true)),
            ("a/**/b", "a/x/y/b", false, Some(true)),
            ("a/**/b", "ab", false, None),
            ("*.yaml\n!keep.yaml", "keep.yaml", false, Some(false)),
            ("!keep.yaml\n*.yaml", "keep.yaml", false, Some(true)),
            ("# a comment\n\n\\#x.yaml", "#x.yaml", false, Some(true)),
            ("\\!x.yaml", "!x.yaml", false, Some(true)),
            ("x.yaml  ", "x.yaml", false, Some(true)),
            ("x\\ ", "x ", false, Some(true)),
            ("v[0-9a].y?ml", "v7.yaml", false, Some(true)),
            ("v[!0-9].yaml", "v7.yaml", false, None),
            ("v[^0-9].yaml", "vx.yaml", false, Some(true)),
            ("v[]x].yaml", "v].yaml", false, Some(true)),
            ("v[.yaml", "v[.yaml", false, Some(true)),
            ("*", "a/b", false, Some(true)),
            ("a*b*c", "aXbXbXc", false, Some(true)),
            ("a*b*c", "aXbXbX", false, None),
            ("/", "a", true, None),
        ] {
            assert_eq!(Ignore::parse(text).says(path, is_directory), says, "{text:?} of {path:?}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let text = format!("{}b", "*a".repeat(500));
        assert_eq!(Ignore::parse(&text).says(&"a".repeat(4_000), false), None);
        let text = format!("{}b", "**/a/".repeat(500));
        assert_eq!(Ignore::parse(&text).says(&"a/".repeat(2_000), false), None);
    }
}

//! One cheap look at a manifest's text before the YAML parser sees it: how deep it nests, whether it uses aliases, and which plain words
//! other tools read differently.
//!
//! It is no parser: it knows quotes, comments, block scalars, brackets and indentation, and nothing else; a text that deceives it still
//! meets the parser's own limits, only later. Linear in the text. `tests/manifest.rs` holds it to bombs and to mutated files.

use crate::limits;

/// A position: line and column from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub line: usize,
    pub column: usize,
}

#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Where nesting first exceeds the limit.
    pub too_deep: Option<Mark>,
    pub alias: Option<Mark>,
    /// Plain values that YAML 1.1 tools do not read as text.
    pub words: Vec<Word>,
}

#[derive(Debug)]
pub(super) struct Word {
    pub at: Mark,
    pub text: String,
    pub reads_as: &'static str,
}

/// What a YAML 1.1 reader (PyYAML, many linters) makes of a plain word that YAML 1.2 reads as text.
pub(super) fn reads_as(word: &str) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    if matches!(lower.as_str(), "on" | "off" | "yes" | "no") {
        return Some("a boolean");
    }
    // YAML 1.1, tag:yaml.org,2002:int: base 60 with colons.
    let parts: Vec<&str> = word.split(':').collect();
    let digits = |p: &&str| !p.is_empty() && p.len() <= 2 && p.bytes().all(|b| b.is_ascii_digit());
    let sixty = parts.len() == 6 && parts.iter().all(digits) && parts[1..].iter().all(|p| p.as_bytes()[0] < b'6' || p.len() == 1);
    sixty.then_some("a number in base 60")
}

#[derive(Default)]
struct State {
    scan: Scan,
    flow: usize,
    quote: Option<char>,
    /// Inside a block scalar: lines indented more than this belong to it (one less than the column, so that -1 is the document).
    block: Option<isize>,
    indents: Vec<usize>,
}

pub(super) fn scan(text: &str) -> Scan {
    let mut state = State::default();
    for (number, line) in text.lines().enumerate() {
        let chars: Vec<char> = line.chars().collect();
        state.line(number + 1, &chars);
    }
    state.scan
}

impl State {
    fn line(&mut self, number: usize, line: &[char]) {
        let marker = line.len() >= 3 && (line[..3] == ['-'; 3] || line[..3] == ['.'; 3]) && line.get(3).is_none_or(|c| c.is_whitespace());
        if marker {
            (self.flow, self.quote, self.block) = (0, None, None);
            self.indents.clear();
            return self.tokens(number, line, 3, -1);
        }
        let indent = line.iter().take_while(|c| **c == ' ').count();
        let blank = line[indent..].iter().all(|c| c.is_whitespace());
        if let Some(parent) = self.block {
            if blank || indent as isize > parent {
                return;
            }
            self.block = None;
        }
        if self.quote.is_some() {
            let from = self.close_quote(line, 0);
            return self.tokens_after(number, line, from);
        }
        if blank || line[indent] == '#' {
            return;
        }
        if self.flow > 0 { self.tokens(number, line, indent, 0) } else { self.block_line(number, line, indent) }
    }

    /// A line of block context: its indentation and its leading `- ` and `? ` say how deep it is.
    fn block_line(&mut self, number: usize, line: &[char], indent: usize) {
        while self.indents.last().is_some_and(|top| *top > indent) {
            self.indents.pop();
        }
        let (mut at, mut parent) = (indent, indent as isize - 1);
        loop {
            if self.indents.last().is_none_or(|top| *top < at) {
                self.indents.push(at);
                self.depth(number, at);
            }
            let indicator = matches!(line.get(at), Some('-' | '?')) && line.get(at + 1).is_none_or(|c| c.is_whitespace());
            if !indicator {
                break;
            }
            parent = at as isize;
            at += 1 + line[at + 1..].iter().take_while(|c| c.is_whitespace()).count();
            if at >= line.len() {
                return;
            }
        }
        self.tokens(number, line, at, parent);
    }

    fn depth(&mut self, number: usize, at: usize) {
        if self.indents.len() + self.flow > limits::MANIFEST_DEPTH && self.scan.too_deep.is_none() {
            self.scan.too_deep = Some(Mark { line: number, column: at + 1 });
        }
    }

    /// From a place where a value may begin. `parent`: the column that a block scalar's text must exceed, if it begins here.
    fn tokens(&mut self, number: usize, line: &[char], from: usize, parent: isize) {
        let (mut i, mut parent) = (from, parent);
        while i < line.len() {
            let c = line[i];
            match c {
                _ if c.is_whitespace() => i += 1,
                '#' if i == 0 || line[i - 1].is_whitespace() => return,
                '"' | '\'' => {
                    self.quote = Some(c);
                    i = self.close_quote(line, i + 1);
                    i = self.separator(line, i);
                    parent = self.indents.last().map_or(-1, |c| *c as isize);
                }
                '[' | '{' => {
                    self.flow += 1;
                    self.depth(number, i);
                    i += 1;
                }
                ']' | '}' if self.flow > 0 => {
                    self.flow -= 1;
                    i = self.separator(line, i + 1);
                }
                ',' if self.flow > 0 => i += 1,
                '|' | '>' if self.flow == 0 => {
                    self.block = Some(parent);
                    return;
                }
                '&' | '!' => i += line[i..].iter().take_while(|c| !c.is_whitespace()).count(),
                '*' if line.get(i + 1).is_some_and(|c| c.is_alphanumeric() || *c == '_' || *c == '-') => {
                    self.scan.alias.get_or_insert(Mark { line: number, column: i + 1 });
                    i += line[i..].iter().take_while(|c| !c.is_whitespace() && !matches!(c, ',' | ']' | '}')).count();
                }
                _ => {
                    i = self.plain(number, line, i);
                    parent = self.indents.last().map_or(-1, |c| *c as isize);
                }
            }
        }
    }

    /// The rest of a line after a quoted text that began on an earlier one.
    fn tokens_after(&mut self, number: usize, line: &[char], from: usize) {
        let from = self.separator(line, from);
        let parent = self.indents.last().map_or(-1, |c| *c as isize);
        self.tokens(number, line, from, parent);
    }

    /// Past the closing quote, or past the end of the line.
    fn close_quote(&mut self, line: &[char], mut i: usize) -> usize {
        while i < line.len() {
            match (self.quote, line[i]) {
                (Some('"'), '\\') => i += 1,
                (Some('\''), '\'') if line.get(i + 1) == Some(&'\'') => i += 1,
                (Some(q), c) if c == q => {
                    self.quote = None;
                    return i + 1;
                }
                _ => {}
            }
            i += 1;
        }
        line.len()
    }

    /// Past a `:` or `,` that follows a token, if there is one.
    fn separator(&self, line: &[char], i: usize) -> usize {
        let spaces = line.get(i..).map_or(0, |rest| rest.iter().take_while(|c| c.is_whitespace()).count());
        match line.get(i + spaces) {
            Some(':') => i + spaces + 1,
            Some(',') if self.flow > 0 => i + spaces + 1,
            _ => i + spaces,
        }
    }

    fn plain(&mut self, number: usize, line: &[char], from: usize) -> usize {
        let mut i = from;
        while i < line.len() {
            let next_ends = line.get(i + 1).is_none_or(|c| c.is_whitespace() || (self.flow > 0 && matches!(c, ',' | ']' | '}')));
            match line[i] {
                ':' if next_ends => return i + 1,
                '#' if i > from && line[i - 1].is_whitespace() => break,
                ',' | '[' | ']' | '{' | '}' if self.flow > 0 => break,
                _ => i += 1,
            }
        }
        let text: String = line[from..i].iter().collect::<String>().trim_end().to_owned();
        if self.scan.words.len() < limits::DIAGNOSTICS
            && let Some(reads_as) = reads_as(&text)
        {
            self.scan.words.push(Word { at: Mark { line: number, column: from + 1 }, text, reads_as });
        }
        i.max(from + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_comments_and_block_scalars_are_not_structure() {
        let deep = "[".repeat(70);
        for text in [
            format!("a: \"{deep}\""),
            format!("a: '{deep}'"),
            format!("a: b # {deep}"),
            format!("a: |\n  {deep}\n  *x\nb: 1"),
            format!("- |\n  {deep}\n- \"x\n  {deep}\n  \"\n"),
            format!("a: x{deep}"),
        ] {
            let scan = scan(&text);
            assert!(scan.too_deep.is_none() && scan.alias.is_none(), "{text}");
        }
        assert_eq!(scan(&format!("a: {deep}")).too_deep, Some(Mark { line: 1, column: 67 }));
        assert!(scan(&"- ".repeat(70)).too_deep.is_some());
        assert_eq!(scan("a: &x 1\nb: [ *x ]").alias, Some(Mark { line: 2, column: 6 }));
    }

    #[test]
    fn plain_words_that_other_tools_misread() {
        let found: Vec<(usize, usize)> = scan("a: on\nb: \"on\"\nc: { d: No, e: onto }\n- off # x\nf: 12:34:56:12:34:56\n'g': yes")
            .words
            .iter()
            .map(|w| (w.at.line, w.at.column))
            .collect();
        assert_eq!(found, [(1, 4), (3, 9), (4, 3), (5, 4), (6, 6)]);
    }
}

//! Hiding secrets in text for people: labels of endpoints, errors of connectors, log lines, names.
//!
//! Rather too much than too little: text that looks like a secret by where it stands is hidden,
//! whatever it is. Any text takes time in proportion to its length, as servers choose some of them.
//!
//! Found are:
//! - the user information of URLs (`scheme://user:pw@`, also without a scheme, or in a path);
//! - values of keys that are named like secrets: in query strings, key-value strings, JSON, YAML,
//!   headers, XML, pairs of a list, and what `Debug` makes of any of them;
//! - what follows `--password` and the like on command lines, and the command `AUTH`.
//!
//! Not found are:
//! - a token in the place of a user name, without a colon (`https://token@h`);
//! - a password that begins like a port and goes on as behind one (`a://u:12/pw@h`, `a://u:1#pw@h`,
//!   `a://u:1?pw@h`), which no URL may hold as it stands;
//! - a number that looks like the port of a host (`password:1234`);
//! - all that stands in a sentence (`the password pw is wrong`).

mod keys;
mod quotes;
#[cfg(test)]
mod tests;
mod urls;
mod values;

use std::borrow::Cow;
use std::fmt::{self, Write};

/// What stands in a secret's place.
const HIDDEN: &str = "***";

/// So much of a text is looked at, in bytes, to show the half of it: a secret that begins in what
/// is shown is seen to be one.
const MOST_READ: usize = 8 << 10;
const MOST_SHOWN: usize = MOST_READ / 2;

/// The text with `***` in the place of every secret; as it stands if there is none.
fn redact(text: &str) -> Cow<'_, str> {
    let mut secrets = Vec::new();
    urls::find(text, &mut secrets);
    values::find(text, &mut secrets);
    secrets.retain(|secret| !matches!(text.get(secret.clone()), None | Some("" | HIDDEN)));
    if secrets.is_empty() {
        return Cow::Borrowed(text);
    }
    secrets.sort_by_key(|secret| secret.start);
    let mut shown = String::with_capacity(text.len());
    let mut end = None;
    for secret in secrets {
        if end.is_none_or(|end| secret.start > end) {
            shown += text.get(end.unwrap_or(0)..secret.start).unwrap_or_default();
            shown += HIDDEN;
        }
        end = end.max(Some(secret.end));
    }
    shown += text.get(end.unwrap_or(0)..).unwrap_or_default();
    Cow::Owned(shown)
}

/// Displays itself as what is in it does, without its secrets, on one line, and cut if it is long.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Redacted<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Line { text: String::new(), is_apart: true, is_cut: false };
        write!(line, "{}", self.0)?;
        f.write_str(&line.shown())
    }
}

impl<T: fmt::Display> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        write!(text, "{self}")?;
        fmt::Debug::fmt(&text, f)
    }
}

/// The beginning of what is written to it, with its lines joined.
struct Line {
    text: String,
    /// A line has ended, and nothing of the next one is here.
    is_apart: bool,
    is_cut: bool,
}

impl Write for Line {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for char in part.chars() {
            if self.is_cut {
                break;
            }
            if matches!(char, '\n' | '\r') {
                self.text.truncate(self.text.trim_end().len());
                self.is_apart = true;
            } else if !(self.is_apart && char.is_whitespace()) {
                if std::mem::take(&mut self.is_apart) && !self.text.is_empty() {
                    self.text.push(' ');
                }
                self.is_cut = self.text.len() + char.len_utf8() > MOST_READ;
                if !self.is_cut {
                    self.text.push(char);
                }
            }
        }
        Ok(())
    }
}

impl Line {
    fn shown(mut self) -> String {
        if self.is_cut {
            // A password of a URL may be cut off from its end.
            self.text.push('@');
        } else {
            self.text.truncate(self.text.trim_end().len());
        }
        let shown = redact(&self.text);
        let shown = if self.is_cut { shown.strip_suffix('@').unwrap_or(&shown) } else { &shown };
        let is_whole = !self.is_cut && shown.len() <= MOST_SHOWN;
        let shown = if is_whole { shown } else { cut(shown, MOST_SHOWN) };
        // Only now: within a secret they do not end it.
        let plain = |char| if is_command(char) { ' ' } else { char };
        let mut line: String = shown.chars().map(plain).collect();
        if !is_whole {
            line.push('…');
        }
        line
    }
}

/// As much of a text as fits into so many bytes, without half a character.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let most = most.min(text.len());
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// What a terminal or an editor does not show, but obeys: ends lines, colours, turns them around.
fn is_command(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

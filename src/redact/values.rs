//! Values of keys that are named like secrets.

use std::ops::Range;

use super::keys::Key;
use super::quotes::{QUOTES, bracket, bracket_end, is_quote, opening, quoted_length};
use super::{HIDDEN, is_name};

/// What shows nothing: no value, and whether there was one.
const OPEN: [&str; 4] = ["None", "null", "YES", "NO"];

/// Finds the values of keys that are named like secrets. No text is looked at more than a few
/// times: what a key's value is looked for in, the next key's begins behind.
pub(super) fn find(text: &str, secrets: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut before = 0..0;
    while let Some(skipped) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| is_name(*b)))
    {
        let begin = at + skipped;
        let rest = bytes.get(begin..).unwrap_or(&[]);
        at = begin + rest.iter().take_while(|byte| is_name(**byte)).count();
        let key = Key::at(text, &before, &(begin..at));
        before = begin..at;
        let value = key.and_then(|key| Place::new(text, begin..at)?.value(&key));
        if let Some(value) = value {
            at = value.end.max(at);
            secrets.push(value);
        }
    }
}

/// A key in a text.
struct Place<'text> {
    text: &'text str,
    before: &'text str,
    name: &'text str,
    after: &'text str,
}

impl<'text> Place<'text> {
    fn new(text: &'text str, name: Range<usize>) -> Option<Self> {
        let (before, after) = (text.get(..name.start)?, text.get(name.end..)?);
        Some(Self { text, before, name: text.get(name)?, after })
    }

    /// The secret that belongs to the key, if one does.
    fn value(&self, key: &Key) -> Option<Range<usize>> {
        let (value, secret) = self
            .of_command()
            .or_else(|| self.in_tag())
            .or_else(|| self.in_pair())
            .or_else(|| self.after_sign(key))?;
        let begin = self.text.len() - value.len();
        let shown = value.get(secret.clone())?;
        (!OPEN.contains(&shown)).then_some(begin + secret.start..begin + secret.end)
    }

    fn is_option(&self) -> bool {
        self.name.starts_with("--")
    }

    /// `--password pw`, `AUTH user pw`.
    fn of_command(&self) -> Option<(&'text str, Range<usize>)> {
        let value = self.after.trim_ascii_start();
        let is_apart = value.len() < self.after.len() && !value.starts_with(['=', ':', '-', '<']);
        if !is_apart {
            return None;
        }
        if self.is_option() {
            return Some((value, secret_in(value, true, false)));
        }
        let is_first = self.before.bytes().last().is_none_or(|b| !b.is_ascii() || !is_word(b));
        if self.name != "AUTH" || !is_first || value.starts_with(HIDDEN) {
            return None;
        }
        let first = word_end(value, 0, false);
        let end = match value.as_bytes().get(first.wrapping_sub(1))? {
            b':' => return None, // it says that it failed
            last if is_word(*last) || !last.is_ascii() => next_word(value, first).end,
            _ => first,
        };
        Some((value, 0..without_closers(value, end)))
    }

    /// `<password>pw</password>`
    fn in_tag(&self) -> Option<(&'text str, Range<usize>)> {
        let content = self.after.strip_prefix('>').filter(|_| self.before.ends_with('<'))?;
        let end = if content.trim_ascii_start().starts_with("<![") {
            content.find("</")
        } else {
            content.find('<')
        };
        let end = end.unwrap_or(content.len());
        let is_closed = content.get(end..)?.starts_with("</");
        if !is_closed && content.starts_with(|c: char| c.is_ascii_whitespace()) {
            return None; // "<password>" stands for one
        }
        let value = content.trim_ascii_start();
        let len = end.saturating_sub(content.len() - value.len());
        Some((value, 0..value.get(..len)?.trim_ascii_end().len()))
    }

    /// `("password", "pw")`, `["--password", "pw"]`
    fn in_pair(&self) -> Option<(&'text str, Range<usize>)> {
        let quote = self.before.chars().next_back().filter(|c| ['"', '\''].contains(c))?;
        let after = self.after.trim_start_matches('\\').strip_prefix(quote)?.trim_ascii_start();
        let outside = self.before.strip_suffix(quote)?.trim_end_matches('\\');
        let outside = outside.strip_suffix('b').unwrap_or(outside).trim_ascii_end();
        let value = match after.strip_prefix(',') {
            Some(value) if self.is_option() || outside.ends_with(['(', '[']) => value,
            None if self.is_option() => after,
            _ => return None,
        };
        let value = value.trim_ascii_start();
        let is_value = opening(value).is_some()
            || bracket(value).is_some()
            || value.starts_with(|c: char| c.is_ascii_digit());
        is_value.then(|| (value, secret_in(value, false, false)))
    }

    /// `password=pw`, `"password": "pw"`
    fn after_sign(&self, key: &Key) -> Option<(&'text str, Range<usize>)> {
        let rest = self.after.trim_start_matches('\\').trim_start_matches(QUOTES);
        let is_quoted = rest.len() < self.after.len();
        let rest =
            ["]", "%5D", "%5d"].iter().find_map(|end| rest.strip_prefix(end)).unwrap_or(rest);
        let rest = rest.trim_ascii_start();
        let is_equal = rest.starts_with('=');
        let rest = rest.strip_prefix(['=', ':'])?;
        let value = rest.trim_start_matches(['=', '>']).trim_ascii_start();
        let first = value.bytes().next()?;
        if !is_equal {
            let is_path = rest.starts_with("//") || rest.starts_with(':');
            // What is quoted in a sentence is no key.
            let is_plain = opening(value).is_none() && bracket(value).is_none();
            let is_prose = is_quoted && first.is_ascii_alphabetic() && is_plain;
            let is_port = !is_quoted && begins_with_port(rest, key.is_certain);
            if is_path || is_port || (is_prose && !key.is_certain) {
                return None;
            }
        }
        Some((value, secret_in(value, is_equal, key.is_header && !is_equal)))
    }
}

const fn is_word(byte: u8) -> bool {
    is_name(byte) || byte == b'.'
}

/// True if a port stands there, as after a host. Where a password is the more likely, only if
/// nothing follows that a host's port is not followed by.
fn begins_with_port(rest: &str, is_strict: bool) -> bool {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let next = rest.as_bytes().get(digits);
    let ends = |next: u8| match next {
        b':' => rest.get(digits + 1..).is_some_and(|rest| rest.starts_with(' ')),
        next => next.is_ascii_whitespace() || b"/,)]".contains(&next),
    };
    let is_end = next.is_none_or(|next| if is_strict { ends(*next) } else { !is_name(*next) });
    (1..=5).contains(&digits) && is_end
}

/// Where in `value`, which is the rest of the text, the secret lies.
fn secret_in(value: &str, is_equal: bool, is_header: bool) -> Range<usize> {
    if let Some((begin, slashes)) = opening(value) {
        let (opened, rest) = value.as_bytes().split_at(begin);
        let quote = opened.last().copied().unwrap_or_default();
        return begin..begin + quoted_length(rest, quote, slashes);
    }
    match bracket(value) {
        // Else it is a password with a bracket in it.
        Some(open) if !is_equal || holds_quotes(value, open) => {
            let end = bracket_end(value, open);
            let rest = value.get(end..).unwrap_or_default();
            let is_end = |byte: u8| byte.is_ascii_whitespace() || is_closer(byte) || byte == b'&';
            match rest.bytes().next() {
                Some(next) if !is_end(next) => 0..end + unquoted_length(rest, false),
                _ => 0..end,
            }
        }
        _ => 0..unquoted_length(value, is_header),
    }
}

/// True if what is in the bracket at `open` begins with quotes, in brackets of its own or not.
fn holds_quotes(value: &str, open: usize) -> bool {
    let is_between =
        |c: char| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || "_-:([{\\".contains(c);
    let rest = value.get(open..).unwrap_or_default().trim_start_matches(is_between);
    rest.bytes().next().is_some_and(is_quote)
}

/// How long a value is that is not in quotes: up to white space, or to what looks like another key.
fn unquoted_length(text: &str, is_header: bool) -> usize {
    let mut end = word_end(text, 0, !is_header);
    // "Bearer", say, is none yet; nor is the sign for a text of many lines.
    let first = text.get(..end).unwrap_or_default().to_ascii_lowercase();
    let is_scheme = ["bearer", "basic", "digest", "token", "negotiate"].contains(&&*first)
        || ["|", ">", "|-", ">-"].contains(&&*first)
        || (is_header && first.bytes().all(is_name));
    let is_followed = text.as_bytes().get(end).is_some_and(u8::is_ascii_whitespace);
    if is_scheme && is_followed {
        let next = next_word(text, end);
        end = if is_header { next.end } else { word_end(text, next.start, true) };
    }
    while is_header && text.get(..end).is_some_and(|text| text.ends_with([',', ';'])) {
        let next = next_word(text, end);
        if !text.get(next.clone()).is_some_and(|word| word.contains('=')) {
            break;
        }
        end = next.end;
    }
    without_closers(text, end)
}

/// The word that follows in `text` behind `at`.
fn next_word(text: &str, at: usize) -> Range<usize> {
    let rest = text.get(at..).unwrap_or_default();
    let begin = at + (rest.len() - rest.trim_ascii_start().len());
    begin..word_end(text, begin, false)
}

/// Where the word ends that begins at `from`: at white space that has no backslash before it, or,
/// if there may be other keys, where one begins.
fn word_end(text: &str, from: usize, has_keys: bool) -> usize {
    let bytes = text.as_bytes();
    let mut at = from;
    let mut last = b' ';
    while let Some(byte) = bytes.get(at) {
        let ends = byte.is_ascii_whitespace() && last != b'\\';
        if ends || (has_keys && b"&;,".contains(byte) && begins_key(text, at + 1)) {
            break;
        }
        last = *byte;
        at += 1;
    }
    at
}

/// True if what stands there looks like a key. Ends where the next one could begin: a comma.
fn begins_key(text: &str, at: usize) -> bool {
    let rest = text.get(at..).unwrap_or_default().trim_start_matches(['\\', '"', '\'']);
    let name = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-. ".contains(c));
    let after = name.trim_start_matches(['\\', '"', '\'']);
    name.len() < rest.len() && after.starts_with(['=', ':'])
}

const fn is_closer(byte: u8) -> bool {
    matches!(byte, b')' | b'}' | b']' | b'>' | b'\\' | b',' | b';' | b':') || is_quote(byte)
}

/// The end of what `text` has up to `end`, without what closes quotes and brackets around it.
fn without_closers(text: &str, end: usize) -> usize {
    let kept = text.as_bytes().get(..end).unwrap_or(&[]);
    end - kept.iter().rev().take_while(|byte| is_closer(**byte)).count()
}

//! Hiding passwords in text for people: labels of endpoints, errors of connectors, log lines.
//!
//! Rather too much than too little: text that looks like a secret by where it stands is hidden,
//! whatever it is. What cannot be told apart from a port and a path stays: a password that begins
//! with digits and a slash, which no URL may hold as it stands. Found are the user information of
//! URLs (`scheme://user:pw@`, also without a scheme), and values of keys that are named like secrets: in query strings, key-value strings,
//! JSON, headers, and what `Debug` makes of any of them.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::ops::Range;

/// What stands in a secret's place.
const HIDDEN: &str = "***";

/// The text with `***` in the place of every secret; as it stands if there is none.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    let mut secrets = Vec::new();
    find_userinfo(text, &mut secrets);
    find_values(text, &mut secrets);
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

/// Displays itself as what is in it does, without its secrets and on one line.
pub(crate) struct Redacted<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        write!(text, "{}", self.0)?;
        let shown = redact(&text);
        let lines = shown.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
        for (at, line) in lines.enumerate() {
            f.write_str(if at > 0 { " " } else { "" })?;
            f.write_str(line)?;
        }
        Ok(())
    }
}

impl<T: fmt::Display> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        write!(text, "{self}")?;
        fmt::Debug::fmt(&text, f)
    }
}

/// Finds `user:pw@`, in each word with an `@`.
fn find_userinfo(text: &str, secrets: &mut Vec<Range<usize>>) {
    let mut at = 0;
    for word in text.split(|c: char| c.is_ascii_whitespace()) {
        if word.contains('@') {
            find_in_word(word, at, secrets);
        }
        at += word.len() + 1;
    }
}

/// In a word there may be several URLs, with something between them.
fn find_in_word(word: &str, at: usize, secrets: &mut Vec<Range<usize>>) {
    let urls = word.match_indices("://").filter_map(|(mark, _)| Some((scheme(word, mark)?, mark)));
    let mut urls = urls.peekable();
    let mut begin = 0; // of what has not been looked at
    while let Some((scheme, mark)) = urls.next() {
        if scheme < begin {
            continue; // within the last one's password
        }
        find_bare(word, begin..scheme, at, secrets);
        let authority = mark + 3;
        let cut = |end: usize| word.get(authority..end).unwrap_or_default();
        let mut end = urls.peek().map_or(word.len(), |(scheme, _)| *scheme);
        if !cut(end).contains('@') && !is_hosts(cut(end)) {
            end = word.len(); // a password with what looks like a URL in it
        }
        if let Some(secret) = password_in(cut(end)) {
            secrets.push(at + authority + secret.start..at + authority + secret.end);
        }
        begin = end;
    }
    find_bare(word, begin..word.len(), at, secrets);
}

/// Where the URL begins that has its "://" at `mark`, if one can begin there.
fn scheme(word: &str, mark: usize) -> Option<usize> {
    let before = word.get(..mark)?;
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let ahead = before.trim_end_matches(is_scheme);
    let is_apart = ahead.is_empty()
        || ahead.ends_with([',', ';', '|', '"', '\'', '`', '(', '<', '[', '{', '=']);
    (is_apart && ahead.len() < mark).then_some(ahead.len())
}

/// The password in what comes after a URL's scheme. It ends at the last `@`: people forget to
/// encode those in it, and slashes, too.
fn password_in(rest: &str) -> Option<Range<usize>> {
    let end = rest.rfind('@')?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user_info = match authority.rfind('@') {
        Some(at) => authority.get(..at)?,
        None if is_hosts(authority) => return None, // that `@` is in its path
        None => rest.get(..end)?,
    };
    let colon = user_info.find(':')?;
    Some(colon + 1..end)
}

/// True of hosts with or without ports, separated by commas.
fn is_hosts(authority: &str) -> bool {
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    authority.split(',').all(|host| {
        let port = match host.rsplit_once(']') {
            Some((_, port)) => port.strip_prefix(':'),
            None => host.split_once(':').map(|(_, port)| port),
        };
        let is_number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        port.is_none_or(|port| !port.is_empty() && is_number(port))
    })
}

/// Finds `user:pw@` without a scheme before it.
fn find_bare(word: &str, part: Range<usize>, at: usize, secrets: &mut Vec<Range<usize>>) {
    let mut begin = part.start;
    for piece in word.get(part).unwrap_or_default().split(['"', '\'', '`', '<', '>']) {
        let is_user = |byte: u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte);
        let end = piece.rfind('@').unwrap_or(0);
        let colon = piece.bytes().enumerate().take(end).find(|(index, byte)| {
            let before = index.checked_sub(1).and_then(|before| piece.as_bytes().get(before));
            *byte == b':' && before.is_none_or(|before| is_user(*before))
        });
        if let Some((colon, _)) = colon {
            secrets.push(at + begin + colon + 1..at + begin + end);
        }
        begin += piece.len() + 1;
    }
}

const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Finds the values of keys that are named like secrets.
fn find_values(text: &str, secrets: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'=' | b':')) {
        return;
    }
    let mut at = 0;
    while let Some(skipped) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| is_name(*b)))
    {
        let begin = at + skipped;
        let rest = text.get(begin..).unwrap_or_default();
        let len = rest.bytes().take_while(|byte| is_name(*byte)).count();
        at = begin + len;
        let name = rest.get(..len).unwrap_or_default();
        if let Some(value) = Key::of(name).and_then(|key| value_of(&key, text, at)) {
            at = value.end.max(at);
            secrets.push(value);
        }
    }
}

/// A key that is named like a secret.
struct Key {
    /// No host is called that.
    is_certain: bool,
}

impl Key {
    fn of(name: &str) -> Option<Self> {
        let plain: String = name.chars().filter(char::is_ascii_alphabetic).collect();
        let plain = plain.to_ascii_lowercase();
        let plain = plain.strip_suffix('s').unwrap_or(&plain);
        let holds = |words: &[&str]| words.iter().any(|word| plain.contains(word));
        let ends = |words: &[&str]| words.iter().any(|word| plain.ends_with(word));
        // "pas" is "pass" without its last letter.
        let is = |words: &[&str]| words.contains(&plain);
        let is_certain = holds(&["password", "passwd", "passphrase", "apikey", "accesskey"])
            || ends(&["pwd", "privatekey", "authorization"])
            || is(&["pas", "pw"]);
        let is_secret = holds(&["secret"])
            || ends(&["token", "auth", "credential", "signature"])
            || is(&["sig"]);
        (is_certain || is_secret).then_some(Self { is_certain })
    }
}

/// The value of the key that ends at `at`, if one follows.
fn value_of(key: &Key, text: &str, at: usize) -> Option<Range<usize>> {
    let rest = text.get(at..)?;
    let unquoted = rest.trim_start_matches('\\').trim_start_matches(['"', '\'', '`']);
    let is_quoted = unquoted.len() < rest.len();
    let rest = unquoted.trim_start_matches([' ', '\t']);
    let is_equal = rest.starts_with('=');
    let rest = rest.strip_prefix(['=', ':'])?;
    let value = rest.trim_start_matches(['=', '>']).trim_start_matches([' ', '\t']);
    let first = value.bytes().next()?;
    if !is_equal {
        let is_path = rest.starts_with("//") || rest.starts_with(':');
        // What is quoted in a sentence is no key.
        let is_prose = is_quoted && first.is_ascii_alphabetic() && !value.starts_with("Some(");
        let is_port = !is_quoted && begins_with_port(rest);
        if is_path || (!key.is_certain && (is_prose || is_port)) {
            return None;
        }
    }
    let value = value.strip_prefix("Some(").unwrap_or(value);
    let len = length_of(value);
    let shown = value.get(..len.end)?;
    if ["None", "null"].contains(&shown) {
        return None;
    }
    let begin = text.len() - value.len();
    Some(begin + len.start..begin + len.end)
}

/// True if a port stands there, as after a host.
fn begins_with_port(rest: &str) -> bool {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let next = rest.as_bytes().get(digits);
    (1..=5).contains(&digits) && !next.is_some_and(|next| is_name(*next))
}

/// Where in `text`, which begins with a value, the secret in it lies.
fn length_of(text: &str) -> Range<usize> {
    let slashes = text.bytes().take_while(|byte| *byte == b'\\').count();
    match text.as_bytes().get(slashes) {
        Some(quote @ (b'"' | b'\'' | b'`')) => {
            let begin = slashes + 1;
            begin
                ..begin
                    + quoted_length(text.as_bytes().get(begin..).unwrap_or(&[]), *quote, slashes)
        }
        _ => 0..unquoted_length(text),
    }
}

/// How long a value is in quotes that have so many backslashes before them. As long as the text,
/// if they are never closed.
fn quoted_length(text: &[u8], quote: u8, slashes: usize) -> usize {
    let mut run = 0;
    let mut after_pair = false;
    for (at, byte) in text.iter().enumerate() {
        if *byte == b'\\' {
            run += 1;
            continue;
        }
        let is_escaped = run % (2 * (slashes + 1)) != slashes;
        let is_quote = *byte == quote && !is_escaped && !std::mem::take(&mut after_pair);
        let own_slashes = slashes.min(run);
        run = 0;
        if !is_quote {
            continue;
        }
        match text.get(at + 1) {
            // Doubled, as some have it: unless nothing is in them.
            Some(next) if *next == quote => after_pair = true,
            Some(next) if is_name(*next) || *next >= 0x80 => {}
            _ => return at - own_slashes,
        }
    }
    text.len()
}

/// How long a value is that is not in quotes: up to white space, or to what looks like another key.
fn unquoted_length(text: &str) -> usize {
    let word = |text: &str| text.bytes().take_while(|byte| !byte.is_ascii_whitespace()).count();
    let closers = |at: usize| {
        let rest = text.get(at..).unwrap_or_default();
        rest.trim_start_matches(['"', '\'', '`', ')', '}', ']', '>', '\\'])
    };
    let first = word(text);
    // "Bearer", say, is none yet.
    let scheme = text.get(..first).unwrap_or_default().to_ascii_lowercase();
    let mut end = first;
    if ["bearer", "basic", "digest", "token", "negotiate"].contains(&&*scheme) {
        let rest = text.get(first..).unwrap_or_default();
        let next = rest.trim_start_matches([' ', '\t']);
        end = first + (rest.len() - next.len()) + word(next);
    }
    let begins_key = |rest: &str| {
        let Some(rest) = rest.strip_prefix(['&', ';', ',']) else { return false };
        let rest = rest.trim_start_matches(['\\', '"', '\'']);
        let name =
            rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-. ".contains(c));
        let after = name.trim_start_matches(['\\', '"', '\'']);
        name.len() < rest.len() && after.starts_with(['=', ':'])
    };
    let cut = text.char_indices().map(|(at, _)| at).take_while(|at| *at < end);
    let cut = cut.into_iter().find(|at| begins_key(closers(*at)));
    let end = cut.unwrap_or(end);
    let kept = text.get(..end).unwrap_or_default();
    let kept = kept.trim_end_matches(['"', '\'', '`', ')', '}', ']', '>', '\\', ',', ';', ':']);
    kept.len()
}

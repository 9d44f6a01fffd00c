//! User information of URLs, and of what looks like one.

use std::ops::Range;

/// Finds `user:pw@`, in each word with an `@`, and across words where a URL goes on.
pub(super) fn find(text: &str, secrets: &mut Vec<Range<usize>>) {
    let mut at = 0;
    for word in text.split(|c: char| c.is_ascii_whitespace()) {
        if word.contains('@') {
            find_in_word(word, at, secrets);
        } else if let Some(mark) = word.rfind("://") {
            find_across(text, at + mark + 3, at + word.len(), secrets);
        }
        at += word.len() + 1;
    }
}

/// A password with white space in it: the word ends with what is no port, and there is an `@` in
/// what follows.
fn find_across(text: &str, authority: usize, end: usize, secrets: &mut Vec<Range<usize>>) {
    let begun = text.get(authority..end).unwrap_or_default();
    let Some(colon) = begun.find(':').filter(|_| !is_hosts(begun)) else { return };
    let rest = text.get(end..).unwrap_or_default();
    // Up to the next URL: no text is looked at twice.
    let rest = rest.split("://").next().unwrap_or_default();
    let Some(sign) = rest.find('@') else { return };
    let after = rest.get(sign..).unwrap_or_default();
    let word = after.split(|c: char| c.is_ascii_whitespace()).next().unwrap_or_default();
    let last = word.rfind('@').unwrap_or(0);
    secrets.push(authority + colon + 1..end + sign + last);
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
        let has_sign = cut(end).contains('@');
        if (!has_sign && !is_hosts(cut(end))) || (has_sign && cut(end).ends_with('/')) {
            end = word.len(); // a password with what looks like a URL in it
        }
        if let Some(secret) = password_in(cut(end)) {
            secrets.push(at + authority + secret.start..at + authority + secret.end);
        } else if let Some(path) = cut(end).find(['/', '?', '#']) {
            find_bare(word, authority + path..end, at, secrets);
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
        || ahead.ends_with([',', ';', '|', '"', '\'', '`', '(', '<', '[', '{', '=', '/']);
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
        let is_user = |byte: u8| !b":[](){},;/".contains(&byte);
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

//! How far quotes and brackets reach.

use super::is_name;

pub(super) const QUOTES: [char; 3] = ['"', '\'', '`'];

pub(super) const fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// How many bytes open the quotes at a text's beginning, if it is quoted: with the backslashes
/// before them, and the mark of a string of bytes. And how many of them are backslashes.
pub(super) fn opening(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let slashes_at = |at: usize| {
        let rest = bytes.get(at..).unwrap_or(&[]);
        rest.iter().take_while(|byte| **byte == b'\\').count()
    };
    let opens = |prefix: usize| {
        let slashes = slashes_at(prefix);
        let quote = bytes.get(prefix + slashes).is_some_and(|byte| is_quote(*byte));
        quote.then_some((prefix + slashes + 1, slashes))
    };
    opens(0).or_else(|| if text.starts_with('b') { opens(1) } else { None })
}

/// How long a value is in quotes that have so many backslashes before them. As long as the text,
/// if they are never closed.
pub(super) fn quoted_length(text: &[u8], quote: u8, slashes: usize) -> usize {
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

/// Where the bracket is that a value begins with, perhaps after the name of a type or variant.
pub(super) fn bracket(value: &str) -> Option<usize> {
    let name = value.bytes().take_while(|byte| is_name(*byte) || *byte == b':').count();
    let rest = value.get(name..)?;
    let gap = rest.len() - rest.trim_ascii_start().len();
    match rest.as_bytes().get(gap)? {
        b'(' | b'[' if gap == 0 => Some(name),
        b'{' => Some(name + gap),
        _ => None,
    }
}

/// Where the bracket is closed that stands at `open`, and behind it. The text's end, if never.
pub(super) fn bracket_end(text: &str, open: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut slashes) = (open, 0_usize, 0);
    let mut last = b' ';
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' if depth <= 1 => return at,
            b')' | b']' | b'}' => depth -= 1,
            // Between letters it is an apostrophe.
            b'"' | b'\'' | b'`' if *byte == b'"' || !is_name(last) => {
                let rest = bytes.get(at..).unwrap_or(&[]);
                at += quoted_length(rest, *byte, slashes) + slashes + 1;
            }
            _ => {}
        }
        slashes = if *byte == b'\\' { slashes + 1 } else { 0 };
        last = *byte;
    }
    text.len()
}

//! Which names are those of secrets.

use std::ops::Range;

/// A key that is named like a secret.
pub(super) struct Key {
    /// No sentence has that word in quotes before a colon.
    pub(super) is_certain: bool,
    /// A header whose value has several parts.
    pub(super) is_header: bool,
}

impl Key {
    /// The key that is at `name` in the text; `before` is the name before it.
    pub(super) fn at(text: &str, before: &Range<usize>, name: &Range<usize>) -> Option<Self> {
        let own = text.get(name.clone())?;
        let is_dotted = matches!(own, "key" | "Key" | "KEY" | "keys")
            && text.get(before.end..name.start) == Some(".");
        Self::of(text.get(if is_dotted { before.start } else { name.start }..name.end)?)
    }

    fn of(name: &str) -> Option<Self> {
        let plain: String = name.chars().filter(char::is_ascii_alphabetic).collect();
        let plain = plain.to_ascii_lowercase();
        let plain = plain.strip_suffix('s').unwrap_or(&plain);
        let holds = |words: &[&str]| words.iter().any(|word| plain.contains(word));
        let ends = |words: &[&str]| words.iter().any(|word| plain.ends_with(word));
        // "pas" is "pass" without its last letter.
        let is = |words: &[&str]| words.contains(&plain);
        let is_key = plain.strip_suffix("key").is_some_and(|of| {
            let kinds =
                ["account", "auth", "encryption", "master", "private", "session", "signing"];
            kinds.iter().any(|kind| of.ends_with(kind))
        });
        let is_certain = is_key
            || holds(&["password", "passwd", "passphrase", "passcode", "apikey", "accesskey"])
            || ends(&["pwd", "authorization"])
            || is(&["pas", "pw"]);
        let is_secret = holds(&["secret"])
            || ends(&["token", "auth", "credential", "signature", "cookie", "jwt"])
            || is(&["sig", "bearer"]);
        let is_header = ends(&["authorization", "cookie"]);
        (is_certain || is_secret).then_some(Self { is_certain, is_header })
    }
}

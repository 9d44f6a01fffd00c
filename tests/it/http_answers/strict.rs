//! A second reading of answers, as strict as RFC 9112 allows and written without a look at the
//! client's: what it calls in doubt, no client may take for an answer with an end.

/// Where an answer ends, and whether its connection can be used again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// After so many bytes; this is what it says.
    Ends { at: usize, content: Vec<u8> },
    /// Not for sure, or with the connection; or the answer is no answer.
    InDoubt,
}

/// Reads the answer to a request that was a HEAD, or was none.
pub(crate) fn read(bytes: &[u8], is_head: bool) -> Reading {
    match read_all(bytes, is_head) {
        Some((at, content)) => Reading::Ends { at, content },
        None => Reading::InDoubt,
    }
}

struct Head<'b> {
    version: u8,
    status: u16,
    fields: Vec<(String, &'b [u8])>,
}

fn read_all(bytes: &[u8], is_head: bool) -> Option<(usize, Vec<u8>)> {
    let mut at = 0;
    let head = loop {
        let head = head(bytes, &mut at)?;
        match head.status {
            101 => return None,
            100..200 => {}
            _ => break head,
        }
    };
    if head.has("connection", "close")
        || (head.version == 0 && !head.has("connection", "keep-alive"))
    {
        return None;
    }
    if is_head || head.status == 204 || head.status == 304 {
        return Some((at, Vec::new()));
    }
    let codings: Vec<_> = head.values("transfer-encoding").collect();
    let lengths: Vec<_> = head.values("content-length").collect();
    match (&codings[..], &lengths[..]) {
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && head.version == 1 => {
            let content = chunks(bytes, &mut at)?;
            Some((at, content))
        }
        ([], [first, more @ ..]) if more.iter().all(|length| length == first) => {
            let length = usize::try_from(decimal(first)?).ok()?;
            let content = bytes.get(at..at.checked_add(length)?)?;
            Some((at + length, content.to_vec()))
        }
        _ => None,
    }
}

impl<'b> Head<'b> {
    fn values(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.fields.iter().filter(move |(its, _)| its == name).map(|(_, value)| *value)
    }

    fn has(&self, name: &str, token: &str) -> bool {
        let mut tokens = self.values(name).flat_map(|value| value.split(|&byte| byte == b','));
        tokens.any(|it| it.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// A head, with the empty line behind it.
fn head<'b>(bytes: &'b [u8], at: &mut usize) -> Option<Head<'b>> {
    let first = line(bytes, at)?;
    let rest = first.strip_prefix(b"HTTP/1.")?;
    let (&[version @ b'0'..=b'1', b' ', a, b, c], text) = rest.split_first_chunk::<5>()? else {
        return None;
    };
    let status = decimal(&[a, b, c]).filter(|status| *status >= 100)?;
    if !(text.is_empty() || text.starts_with(b" ")) {
        return None;
    }
    let mut fields = Vec::new();
    loop {
        let line = line(bytes, at)?;
        if line.is_empty() {
            break;
        }
        fields.push(field(line)?);
    }
    Some(Head { version: version - b'0', status: u16::try_from(status).ok()?, fields })
}

fn field(line: &[u8]) -> Option<(String, &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = line.split_at(colon);
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_value = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    let value = value.strip_prefix(b":")?;
    let is_field = !name.is_empty() && name.iter().all(is_tchar) && value.iter().all(is_value);
    let name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
    is_field.then(|| (name, value.trim_ascii()))
}

/// One line without its end. A line feed alone may end one, in heads (RFC 9112, 2.2).
fn line<'b>(bytes: &'b [u8], at: &mut usize) -> Option<&'b [u8]> {
    let rest = bytes.get(*at..)?;
    let end = rest.iter().position(|&byte| byte == b'\n')?;
    *at += end + 1;
    let line = rest.get(..end)?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

fn chunks(bytes: &[u8], at: &mut usize) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let rest = bytes.get(*at..)?;
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, digits) = (rest.get(..end)?, rest.iter().take_while(|b| b.is_ascii_hexdigit()));
        let digits: Vec<u8> = digits.copied().collect();
        let behind = line.get(digits.len()..)?.trim_ascii_start();
        // No control character may hide a line end in an extension.
        let is_line = behind.is_empty() || behind.starts_with(b";");
        if !is_line || behind.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
            return None;
        }
        *at += end + 2;
        let size = usize::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        content.extend_from_slice(bytes.get(*at..at.checked_add(size)?)?);
        *at += size;
        if bytes.get(*at..*at + 2)? != b"\r\n" {
            return None;
        }
        *at += 2;
    }
    loop {
        let line = line(bytes, at)?;
        if line.is_empty() {
            return Some(content);
        }
        field(line)?;
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

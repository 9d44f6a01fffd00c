//! Where a server sends a request, and as what it goes there.

use ::http::uri::{Parts, PathAndQuery};
use ::http::{HeaderMap, Method, StatusCode, Uri, header};

/// What becomes of a request that is redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// It is sent as it was.
    Same,
    /// It becomes a GET (a HEAD stays one), without its body.
    Get,
}

/// `None`: that is no redirect that a client follows.
pub(crate) fn course(status: StatusCode, method: &Method) -> Option<Course> {
    if *method == Method::CONNECT {
        return None;
    }
    match status.as_u16() {
        // What browsers made of 301 and 302, and RFC 9110 allows.
        301 | 302 if *method == Method::POST => Some(Course::Get),
        301 | 302 | 307 | 308 => Some(Course::Same),
        303 => Some(Course::Get),
        _ => None,
    }
}

/// The URL that a `Location` means, seen from `base` (RFC 3986, 5.2).
pub(crate) fn target(base: &Uri, location: &[u8]) -> Option<Uri> {
    let location = encoded(location);
    let location = location.split('#').next().unwrap_or_default();
    let has_scheme = location.split(['/', '?']).next().is_some_and(|first| first.contains(':'));
    if has_scheme {
        return location.parse().ok().filter(|uri: &Uri| uri.scheme().is_some());
    }
    let mut parts = base.clone().into_parts();
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{}://{rest}", base.scheme_str()?).parse().ok();
    }
    let path = if location.is_empty() {
        base.path_and_query()?.as_str().to_owned()
    } else if location.starts_with('/') {
        without_dots(location)
    } else if location.starts_with('?') {
        format!("{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        without_dots(&format!("{folder}/{location}"))
    };
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    uri(parts)
}

/// A location as servers write it: what a URL cannot hold is encoded as browsers do.
fn encoded(location: &[u8]) -> String {
    let mut encoded = String::with_capacity(location.len());
    for &byte in location.trim_ascii() {
        let is_odd = !byte.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&byte);
        if is_odd {
            encoded.push_str(&format!("%{byte:02X}"));
        } else {
            encoded.push(char::from(byte));
        }
    }
    encoded
}

fn uri(parts: Parts) -> Option<Uri> {
    Uri::from_parts(parts).ok()
}

/// Takes `.` and `..` out of a path, which begins with a slash.
fn without_dots(path: &str) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("/{}{query}", kept.join("/"))
}

/// Takes away what is not for the place it goes to.
pub(crate) fn strip(headers: &mut HeaderMap, from: &Uri, to: &Uri, course: Course) {
    // These are made anew.
    for name in [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    if course == Course::Get {
        for name in [
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::CONTENT_LANGUAGE,
            header::EXPECT,
        ] {
            headers.remove(name);
        }
    }
    if !is_same_place(from, to) {
        for name in [
            header::AUTHORIZATION,
            header::COOKIE,
            header::PROXY_AUTHORIZATION,
            header::WWW_AUTHENTICATE,
        ] {
            headers.remove(name);
        }
    }
}

/// Credentials for the one are for the other.
fn is_same_place(a: &Uri, b: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().map(|host| host.trim_end_matches('.').to_ascii_lowercase());
    let port = |uri: &Uri| {
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        uri.port_u16().unwrap_or(default)
    };
    host(a) == host(b) && port(a) == port(b) && a.scheme_str() == b.scheme_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_seen_from_where_it_was_found() {
        let base: Uri = "http://a.example:81/b/c/d?q".parse().unwrap();
        for (location, means) in [
            ("http://other/x", "http://other/x"),
            ("//other/x", "http://other/x"),
            ("/x", "http://a.example:81/x"),
            ("x", "http://a.example:81/b/c/x"),
            ("./x", "http://a.example:81/b/c/x"),
            ("../x?y=/../z", "http://a.example:81/b/x?y=/../z"),
            ("../../../../x", "http://a.example:81/x"),
            ("..", "http://a.example:81/b/"),
            ("?y", "http://a.example:81/b/c/d?y"),
            ("", "http://a.example:81/b/c/d?q"),
            ("x#part", "http://a.example:81/b/c/x"),
            ("x:y/z", ""),
            ("mailto:a@b", ""),
            ("/a b", "http://a.example:81/a%20b"),
            ("/\u{fc}?\"x\"", "http://a.example:81/%C3%BC?%22x%22"),
        ] {
            let found =
                target(&base, location.as_bytes()).map(|uri| uri.to_string()).unwrap_or_default();
            assert_eq!(found, means, "{location}");
        }
    }

    #[test]
    fn methods_change_as_browsers_have_taught_servers() {
        let of = |status, method: &Method| course(StatusCode::from_u16(status).unwrap(), method);
        assert_eq!(of(302, &Method::POST), Some(Course::Get));
        assert_eq!(of(302, &Method::PUT), Some(Course::Same));
        assert_eq!(of(303, &Method::DELETE), Some(Course::Get));
        assert_eq!(of(308, &Method::POST), Some(Course::Same));
        assert_eq!(of(304, &Method::GET), None);
        assert_eq!(of(300, &Method::GET), None);
        assert_eq!(of(302, &Method::CONNECT), None, "what the proxy says is for the caller");
    }

    #[test]
    fn credentials_stay_with_the_server_that_they_are_for() {
        let go = |from: &str, to: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, "Basic x".parse().unwrap());
            headers.insert(header::COOKIE, "x=y".parse().unwrap());
            strip(&mut headers, &from.parse().unwrap(), &to.parse().unwrap(), Course::Same);
            headers.len() == 2
        };
        assert!(go("http://a/x", "http://A.:80/y"));
        assert!(!go("http://a/", "http://b/"));
        assert!(!go("http://a/", "http://a:81/"));
        assert!(!go("http://a/", "https://a/"), "of another scheme");
        assert!(!go("http://a.example/", "http://b.a.example/"));
    }
}

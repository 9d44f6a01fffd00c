//! Where requests go: what makes two connections interchangeable.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use ::http::Uri;
use ::http::uri::Authority;

use crate::connector::Plan;
use crate::error::Error;
#[cfg(unix)]
use crate::key::SocketPath;
use crate::key::{Address, Name};

const HTTP_PORT: u16 = 80;

/// The server behind a URL: scheme, host and port, or a Unix socket.
///
/// Normalised when made, so that requests to one server share its connections: hosts in lower case
/// without a trailing dot, the scheme's own port where there is none.
///
/// ```
/// use warmline::http::Origin;
///
/// let origin: Origin = "http://Example.COM.".parse()?;
/// assert_eq!(origin, "http://example.com:80".parse()?);
/// assert_eq!(origin.to_string(), "http://example.com:80");
/// # Ok::<(), warmline::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(Place);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Tcp(Address),
    #[cfg(unix)]
    Unix(SocketPath),
}

impl Origin {
    /// The server that speaks HTTP at this address.
    #[must_use]
    pub const fn http(address: Address) -> Self {
        Self(Place::Tcp(address))
    }

    /// The server that speaks HTTP on this Unix socket. On Unix only.
    #[cfg(unix)]
    #[must_use]
    pub const fn unix(path: SocketPath) -> Self {
        Self(Place::Unix(path))
    }

    pub(crate) fn plan(&self) -> Plan {
        match &self.0 {
            Place::Tcp(address) => match (address.ip(), address.host()) {
                (Some(ip), _) => Plan::addrs([ip]),
                (None, host) => Plan::host(host.unwrap_or_default(), address.port()),
            },
            #[cfg(unix)]
            Place::Unix(path) => Plan::path(path.as_path()),
        }
    }
}

impl FromStr for Origin {
    type Err = Error;

    /// Parses `http://host` and `http://host:port`; what follows the host is not looked at.
    fn from_str(text: &str) -> Result<Self, Error> {
        let uri = text.parse().map_err(|_| refused("that is no URL"))?;
        Site::of(&uri)?.to_key().map(Cow::into_owned)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Tcp(address) => write!(f, "http://{address}"),
            #[cfg(unix)]
            Place::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl Name<Origin> for str {
    fn as_text(&self) -> Option<&str> {
        Some(self)
    }

    fn to_key(&self) -> Result<Cow<'_, Origin>, Error> {
        self.parse().map(Cow::Owned)
    }
}

/// An origin as a URL names it, which is looked up by its text.
pub(crate) struct Site<'u>(&'u Authority);

impl<'u> Site<'u> {
    /// Of a CONNECT, which names host and port alone.
    pub(crate) fn of_tunnel(uri: &'u Uri) -> Result<Self, Error> {
        uri.authority().map(Self).ok_or_else(|| refused("CONNECT needs a host and a port"))
    }

    pub(crate) fn of(uri: &'u Uri) -> Result<Self, Error> {
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(refused("https needs TLS, which is not built in")),
            Some(_) => return Err(refused("only http:// is spoken here")),
            None => return Err(refused("the URL must begin with http://")),
        }
        uri.authority().map(Self).ok_or_else(|| refused("the URL names no host"))
    }

    /// Host and port, as they stand.
    fn text(&self) -> &'u str {
        let text = self.0.as_str();
        text.rsplit_once('@').map_or(text, |(_, after)| after)
    }
}

impl Name<Origin> for Site<'_> {
    // Of http alone: with another scheme the same text would mean another origin.
    fn as_text(&self) -> Option<&str> {
        Some(self.text())
    }

    fn to_key(&self) -> Result<Cow<'_, Origin>, Error> {
        let port = match self.0.port() {
            Some(port) => port.as_u16(),
            // "host:" and "host:99999" have none either.
            None if self.text().rsplit(']').next().is_some_and(|rest| rest.contains(':')) => {
                return Err(refused("the port is not a number from 1 to 65535"));
            }
            None => HTTP_PORT,
        };
        Ok(Cow::Owned(Origin::http(Address::new(self.0.host(), port)?)))
    }
}

fn refused(why: &'static str) -> Error {
    Error::config(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_that_mean_the_same_are_equal() {
        let same = |a: &str, b: &str| {
            assert_eq!(a.parse::<Origin>().unwrap(), b.parse::<Origin>().unwrap());
        };
        same("http://Example.COM", "http://example.com.:80/path?q");
        same("http://user:secret@a/", "http://a");
        same("http://[::1]", "http://[0:0::1]:80");
    }

    #[test]
    fn what_is_no_origin_is_refused_with_the_reason() {
        for (text, why) in [
            ("https://a/", "TLS"),
            ("ftp://a/", "only http://"),
            ("/path", "must begin with http://"),
            ("http://a:0/", "port 0"),
            ("http://a:99999/", "port"),
            ("http://a:/", "port"),
            ("http:///path", "URL"),
            ("http://a b/", "URL"),
            ("", "URL"),
        ] {
            let error = text.parse::<Origin>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

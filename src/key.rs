//! Names of endpoints: what makes two connections interchangeable.

#[cfg(unix)]
mod path;

#[cfg(unix)]
pub use self::path::SocketPath;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::error::Error;

/// Names an endpoint: its key, or text for it that is looked up as it stands.
///
/// Implemented for every key itself, and for `str`, [`String`] and [`SocketAddr`] where the key is
/// an [`Address`]. Text is parsed once, at first sight; after that it costs one hash.
///
/// ```
/// use warmline::{Address, Name};
///
/// let key: Address = "Example.com:80".parse()?;
/// assert_eq!(Name::<Address>::to_key("example.com.:80")?.into_owned(), key);
/// # Ok::<(), warmline::Error>(())
/// ```
pub trait Name<K: Clone> {
    /// Text to try among the names already seen.
    fn as_text(&self) -> Option<&str> {
        None
    }

    /// The key itself. Asked once per new text, then remembered until the endpoint is forgotten.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if this is no name of an endpoint.
    fn to_key(&self) -> Result<Cow<'_, K>, Error>;
}

impl<K: Clone> Name<K> for K {
    fn to_key(&self) -> Result<Cow<'_, K>, Error> {
        Ok(Cow::Borrowed(self))
    }
}

/// The key of TCP endpoints: a host and a port, or an IP address and a port.
///
/// Normalised when made: host names in lower case without a trailing dot, IP addresses parsed, so
/// that equal addresses share their connections.
///
/// ```
/// use warmline::Address;
///
/// let address: Address = "LOCALHOST.:6379".parse()?;
/// assert_eq!(address.to_string(), "localhost:6379");
/// assert!("[::1]:6379".parse::<Address>()?.ip().is_some());
/// assert!("localhost".parse::<Address>().is_err());
/// # Ok::<(), warmline::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Place);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Host(Box<str>, u16),
    Ip(SocketAddr),
}

impl Address {
    /// The address of `port` on `host`, a name or an IP address.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if the host is empty, is no name, or the port is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, Error> {
        let refuse = |why: &str| Err(Error::config(format!("address \"{host}:{port}\": {why}")));
        if port == 0 {
            return refuse("port 0 cannot be connected to");
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse() {
            return Ok(Self(Place::Ip(SocketAddr::new(ip, port))));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        if name.is_empty() {
            return refuse("the host is empty");
        }
        if name.len() > 253 {
            return refuse("the host is longer than 253 bytes");
        }
        let is_odd = |byte: u8| {
            byte.is_ascii_whitespace() || byte.is_ascii_control() || b"/:@[]?#\\".contains(&byte)
        };
        if name.bytes().any(is_odd) {
            return refuse("that is no host name");
        }
        Ok(Self(Place::Host(name.to_ascii_lowercase().into(), port)))
    }

    /// The host name; `None` if the address holds an IP address.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.0 {
            Place::Host(name, _) => Some(name),
            Place::Ip(_) => None,
        }
    }

    /// The IP address and port; `None` if the address holds a host name.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self.0 {
            Place::Host(..) => None,
            Place::Ip(ip) => Some(ip),
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match &self.0 {
            Place::Host(_, port) => *port,
            Place::Ip(ip) => ip.port(),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    /// Parses `host:port`, `1.2.3.4:port` or `[::1]:port`.
    fn from_str(text: &str) -> Result<Self, Error> {
        // Also takes IPv6 addresses with a scope, as in [fe80::1%3]:80.
        if let Ok(ip) = text.parse::<SocketAddr>() {
            return Self::try_from(ip);
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(Error::config(format!("address \"{text}\": the port is missing")));
        };
        if host.parse::<std::net::Ipv6Addr>().is_ok() {
            let why = "an IPv6 address before a port needs brackets, as in [::1]:80";
            return Err(Error::config(format!("address \"{text}\": {why}")));
        }
        let Ok(port) = port.parse() else {
            let why = "the port is not a number from 1 to 65535";
            return Err(Error::config(format!("address \"{text}\": {why}")));
        };
        Self::new(host, port)
    }
}

impl TryFrom<SocketAddr> for Address {
    type Error = Error;

    /// Refuses port 0.
    fn try_from(ip: SocketAddr) -> Result<Self, Error> {
        if ip.port() == 0 {
            return Err(Error::config(format!("address \"{ip}\": port 0 cannot be connected to")));
        }
        Ok(Self(Place::Ip(ip)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Host(name, port) => write!(f, "{name}:{port}"),
            Place::Ip(ip) => ip.fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl Name<Address> for str {
    fn as_text(&self) -> Option<&str> {
        Some(self)
    }

    fn to_key(&self) -> Result<Cow<'_, Address>, Error> {
        self.parse().map(Cow::Owned)
    }
}

impl Name<Address> for String {
    fn as_text(&self) -> Option<&str> {
        Some(self)
    }

    fn to_key(&self) -> Result<Cow<'_, Address>, Error> {
        self.parse().map(Cow::Owned)
    }
}

impl Name<Address> for SocketAddr {
    fn to_key(&self) -> Result<Cow<'_, Address>, Error> {
        Address::try_from(*self).map(Cow::Owned)
    }
}

impl Name<String> for str {
    fn as_text(&self) -> Option<&str> {
        Some(self)
    }

    fn to_key(&self) -> Result<Cow<'_, String>, Error> {
        Ok(Cow::Owned(self.to_owned()))
    }
}

/// The key of a connector that has one endpoint: a database driver, an `r2d2` manager.
///
/// ```
/// use warmline::One;
///
/// assert_eq!(One.to_string(), "-");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to add to one")]
pub struct One;

impl fmt::Display for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mean_the_same_are_equal() {
        let same = |a: &str, b: &str| {
            assert_eq!(a.parse::<Address>().unwrap(), b.parse::<Address>().unwrap());
        };
        same("Example.COM:80", "example.com.:80");
        same("[::1]:80", "[0:0::1]:80");
        assert_eq!(
            Address::new("::1", 80).unwrap(),
            "[::1]:80".parse::<Address>().unwrap(),
            "brackets belong to the text, not to the address"
        );
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_text_and_the_reason() {
        for (text, why) in [
            ("", "port is missing"),
            ("localhost", "port is missing"),
            ("localhost:", "not a number"),
            ("localhost:http", "not a number"),
            ("localhost:65536", "not a number"),
            ("localhost:0", "port 0"),
            ("127.0.0.1:0", "port 0"),
            (":80", "host is empty"),
            (".:80", "host is empty"),
            ("::1:80", "needs brackets"),
            ("a b:80", "no host name"),
            ("http://a:80", "no host name"),
            ("a/b:80", "no host name"),
            ("user@a:80", "no host name"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!("{}:80", "a".repeat(254));
        assert!(long.parse::<Address>().is_err());
    }
}

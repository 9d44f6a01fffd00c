//! Paths of Unix sockets.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::key::Name;

/// The key of Unix-domain endpoints: the path of the socket. On Unix only.
///
/// ```
/// use warmline::SocketPath;
///
/// let path = SocketPath::new("/run/redis.sock")?;
/// assert_eq!(path.to_string(), "/run/redis.sock");
/// assert!(SocketPath::new("").is_err());
/// # Ok::<(), warmline::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketPath(PathBuf);

impl SocketPath {
    /// The endpoint at `path`.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if the path is empty or longer than the 107 bytes that
    /// a socket address holds.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let len = path.as_os_str().len();
        if len == 0 {
            return Err(Error::config("the path of a Unix socket is empty"));
        }
        if len > 107 {
            let path = path.display();
            return Err(Error::config(format!("socket path \"{path}\" is longer than 107 bytes")));
        }
        Ok(Self(path))
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Name<SocketPath> for str {
    fn as_text(&self) -> Option<&str> {
        Some(self)
    }

    fn to_key(&self) -> Result<Cow<'_, SocketPath>, Error> {
        SocketPath::new(self).map(Cow::Owned)
    }
}

impl Name<SocketPath> for Path {
    fn as_text(&self) -> Option<&str> {
        self.to_str()
    }

    fn to_key(&self) -> Result<Cow<'_, SocketPath>, Error> {
        SocketPath::new(self).map(Cow::Owned)
    }
}

impl Name<SocketPath> for PathBuf {
    fn as_text(&self) -> Option<&str> {
        self.to_str()
    }

    fn to_key(&self) -> Result<Cow<'_, SocketPath>, Error> {
        SocketPath::new(self).map(Cow::Owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_socket_address_holds_is_refused() {
        assert!(SocketPath::new("/".repeat(107)).is_ok());
        assert!(SocketPath::new("/".repeat(108)).is_err());
    }
}

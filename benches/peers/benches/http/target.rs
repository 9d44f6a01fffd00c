//! What is asked for.

use std::net::SocketAddr;

/// How much an answer brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Tiny,
    Page,
    Large,
}

impl Size {
    pub(crate) const ALL: [Self; 3] = [Self::Tiny, Self::Page, Self::Large];

    pub(crate) const fn bytes(self) -> u64 {
        match self {
            Self::Tiny => 5,
            Self::Page => 10 << 10,
            Self::Large => 1 << 20,
        }
    }

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Tiny => "/tiny",
            Self::Page => "/page",
            Self::Large => "/large",
        }
    }

    /// In the names of figures.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tiny => "5b",
            Self::Page => "10kib",
            Self::Large => "1mib",
        }
    }

    /// Requests before a round, so that all connections are open.
    pub(crate) const fn warm_up(self) -> usize {
        match self {
            Self::Tiny | Self::Page => 20,
            Self::Large => 2,
        }
    }
}

/// A request, and how long the body of its answer is.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) url: String,
    pub(crate) bytes: u64,
}

impl Target {
    pub(crate) fn new(
        address: SocketAddr,
        method: &'static str,
        path: &'static str,
        bytes: u64,
    ) -> Self {
        Self { address, method, path, url: format!("http://{address}{path}"), bytes }
    }

    pub(crate) fn get(address: SocketAddr, path: &'static str, bytes: u64) -> Self {
        Self::new(address, "GET", path, bytes)
    }
}

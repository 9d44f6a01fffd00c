//! Why attempts fail.

use std::fmt;

use super::world::{assert_droppable, millis};
use crate::error::{ConnectFailure, Failure, Phase};
use crate::sync::Arc;

/// Why an attempt failed: somebody else's type, which must not be dropped under the lock either.
#[derive(Debug)]
struct Cause(u32);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cause {}", self.0)
    }
}

impl std::error::Error for Cause {}

impl Drop for Cause {
    fn drop(&mut self) {
        assert_droppable(&*self.to_string());
    }
}

/// Why an attempt failed, as whoever ran it says.
pub(super) fn failure(cause: u32) -> Arc<ConnectFailure> {
    let cause = Box::new(Cause(cause));
    Arc::new(ConnectFailure::new(Failure::Other, Phase::Open, millis(1), cause))
}

/// Why an attempt failed that found this process short of descriptors, say.
pub(super) fn shortage(cause: u32) -> Arc<ConnectFailure> {
    let cause = Box::new(std::io::Error::new(std::io::ErrorKind::OutOfMemory, Cause(cause)));
    let (failure, phase) = (Failure::Local, Phase::Connect);
    Arc::new(ConnectFailure::new(failure, phase, millis(1), cause))
}

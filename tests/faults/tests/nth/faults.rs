//! Which call is to fail, and how.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use warmline::{Error, ErrorKind, Failure};

/// What can be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Connect,
    /// A connect that the system was busy with for a while.
    ConnectLater,
    Open,
    OpenPanics,
    Check,
    CheckPanics,
    Resolve,
    ResolvePanics,
    Write,
    Read,
    Socket,
    Duplicate,
    Epoll,
    EventFd,
    Register,
    SetOption,
    Thread,
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Once,
    /// Until the work is done; then the pool is used again.
    EverAfter,
    /// Until the pool is gone.
    ToTheEnd,
}

/// Why a connector of these tests failed.
pub(crate) const TOLD_TO: &str = "was told to fail";

/// What a connector panics with that was told to.
pub(crate) struct Told;

impl Call {
    /// Those that are made most often come first.
    pub(crate) const ALL: [Self; 17] = [
        Self::SetOption,
        Self::Read,
        Self::Write,
        Self::Register,
        Self::Duplicate,
        Self::Connect,
        Self::ConnectLater,
        Self::Open,
        Self::OpenPanics,
        Self::Check,
        Self::CheckPanics,
        Self::Resolve,
        Self::ResolvePanics,
        Self::Socket,
        Self::Thread,
        Self::Epoll,
        Self::EventFd,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectLater => "connect_later",
            Self::Open => "open",
            Self::OpenPanics => "open_panics",
            Self::Check => "check",
            Self::CheckPanics => "check_panics",
            Self::Resolve => "resolve",
            Self::ResolvePanics => "resolve_panics",
            Self::Write => "write",
            Self::Read => "read",
            Self::Socket => "socket",
            Self::Duplicate => "duplicate",
            Self::Epoll => "epoll",
            Self::EventFd => "eventfd",
            Self::Register => "register",
            Self::SetOption => "set_option",
            Self::Thread => "thread",
        }
    }

    /// What it may fail with. They take turns.
    fn codes(self) -> &'static [c_int] {
        match self {
            Self::Connect => &[libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EADDRNOTAVAIL],
            Self::ConnectLater => &[libc::ECONNREFUSED, libc::ETIMEDOUT, libc::ECONNRESET],
            Self::Write => &[libc::EPIPE, libc::ECONNRESET],
            Self::Read => &[libc::ECONNRESET],
            Self::Socket | Self::Duplicate | Self::Epoll | Self::EventFd => &[libc::EMFILE],
            Self::Register => &[libc::ENOSPC, libc::ENOMEM],
            Self::SetOption => &[libc::ENOBUFS],
            Self::Thread => &[libc::EAGAIN],
            // No calls of the system: any will do.
            _ => &[0],
        }
    }

    pub(crate) fn panics(self) -> bool {
        matches!(self, Self::OpenPanics | Self::CheckPanics | Self::ResolvePanics)
    }

    /// A user of a connection may meet this of it.
    pub(crate) fn is_met_in(self, error: &std::io::Error) -> bool {
        let code = CODE.load(Ordering::SeqCst) as c_int;
        matches!(self, Self::Read | Self::Write) && error.raw_os_error() == Some(code)
    }

    /// What an attempt that fails for it says of itself.
    fn is_named_in(self, error: &Error) -> bool {
        let text = error.to_string();
        match self {
            Self::Open | Self::Resolve => text.contains(TOLD_TO),
            Self::OpenPanics => error.failure() == Some(Failure::Panic),
            Self::ResolvePanics => text.contains("panicked"),
            // A connection that fails its check makes way for another, which needs none; and only
            // checks and exchanges write.
            Self::Check | Self::CheckPanics | Self::Write => false,
            Self::Thread => {
                let says_so = text.contains("no thread of the pool came free");
                says_so || text.contains("no thread came free") || names(&text, libc::EAGAIN)
            }
            _ => names(&text, CODE.load(Ordering::SeqCst) as c_int),
        }
    }

    /// Asserts that the pool may say this of it.
    #[track_caller]
    pub(crate) fn explains(self, error: &Error) {
        let may_be = matches!(error.kind(), ErrorKind::Connect | ErrorKind::Timeout);
        assert!(may_be, "of an unexpected kind: {error:?}");
        let says_why = match error.failure() {
            None => error.kind() == ErrorKind::Timeout,
            Some(_) => self.is_named_in(error),
        };
        assert!(says_why, "it does not name the cause: {error:?}");
    }
}

fn names(text: &str, code: c_int) -> bool {
    text.contains(&std::io::Error::from_raw_os_error(code).to_string())
}

impl Extent {
    pub(crate) const ALL: [Self; 3] = [Self::EverAfter, Self::ToTheEnd, Self::Once];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::EverAfter => "ever_after",
            Self::ToTheEnd => "to_the_end",
        }
    }
}

static ARE_ARMED: AtomicBool = AtomicBool::new(false);
static CALL: AtomicUsize = AtomicUsize::new(0);
static NTH: AtomicUsize = AtomicUsize::new(0);
static IS_ONCE: AtomicBool = AtomicBool::new(false);
static CODE: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static IS_EXEMPT: Cell<bool> = const { Cell::new(false) };
}

/// From now on the `nth` such call fails, from 1.
pub(crate) fn arm(call: Call, nth: usize, extent: Extent) {
    let codes = call.codes();
    let code = codes[(nth + extent as usize) % codes.len()];
    CALL.store(call as usize, Ordering::SeqCst);
    NTH.store(nth, Ordering::SeqCst);
    IS_ONCE.store(extent == Extent::Once, Ordering::SeqCst);
    CODE.store(code as usize, Ordering::SeqCst);
    CALLS.store(0, Ordering::SeqCst);
    FAILED.store(0, Ordering::SeqCst);
    ARE_ARMED.store(true, Ordering::SeqCst);
}

/// From now on nothing fails.
pub(crate) fn disarm() {
    ARE_ARMED.store(false, Ordering::SeqCst);
}

pub(crate) fn are_armed() -> bool {
    ARE_ARMED.load(Ordering::SeqCst)
}

/// How many calls have failed since [`arm`].
pub(crate) fn failed() -> usize {
    FAILED.load(Ordering::SeqCst)
}

/// Asked by each call: is it to fail, and what with?
pub(crate) fn meets(call: Call) -> Option<c_int> {
    if !are_armed() || CALL.load(Ordering::SeqCst) != call as usize || is_exempt() {
        return None;
    }
    let (number, nth) = (CALLS.fetch_add(1, Ordering::SeqCst) + 1, NTH.load(Ordering::SeqCst));
    if number < nth || (number > nth && IS_ONCE.load(Ordering::SeqCst)) {
        return None;
    }
    FAILED.fetch_add(1, Ordering::SeqCst);
    Some(CODE.load(Ordering::SeqCst) as c_int)
}

/// The same for what is no call of the system, in both its forms.
pub(crate) fn meets_or_panics(fails: Call, panics: Call) -> Result<(), &'static str> {
    if meets(panics).is_some() {
        std::panic::panic_any(Told);
    }
    meets(fails).map_or(Ok(()), |_| Err(TOLD_TO))
}

/// What this thread does meanwhile does not count, nor what the threads do that it starts: those of
/// servers, and of the test itself.
pub(crate) fn exempt<T>(act: impl FnOnce() -> T) -> T {
    set_exempt(true, act)
}

/// Ends that for a thread that was started so.
pub(crate) fn exposed<T>(act: impl FnOnce() -> T) -> T {
    set_exempt(false, act)
}

fn set_exempt<T>(to: bool, act: impl FnOnce() -> T) -> T {
    let before = IS_EXEMPT.replace(to);
    let result = act();
    IS_EXEMPT.set(before);
    result
}

pub(crate) fn is_exempt() -> bool {
    IS_EXEMPT.get()
}

pub(crate) fn exempt_for_good() {
    IS_EXEMPT.set(true);
}

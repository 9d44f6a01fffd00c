//! Errors of r2d2 managers: callers are told what they said, with their causes and what kind of
//! failure it was, also where they misbehave.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use warmline::r2d2::{self, HandleError, ManageConnection, Pool};
use warmline::{ErrorKind, Failure};

use super::managers::{Call, Script, Told};
use crate::support::lab::Act;
use crate::support::{assert_balanced, eventually, watchdog};

const BRIEF: Duration = Duration::from_millis(50);

#[test]
fn everybody_who_waits_in_vain_is_told_why() {
    let _watchdog = watchdog();
    let script = Script::always(Call::Connect, Act::Fail);
    let builder = script.builder().max_size(2).connection_timeout(4 * BRIEF);
    let pool = builder.build_unchecked(script.clone());
    eventually("an attempt has failed", || pool.stats().connects_failed() > 0);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| pool.get().unwrap_err())).collect();
        for error in callers.into_iter().map(|caller| caller.join().unwrap()) {
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(error.to_string().contains("Connect was told to fail"), "{error}");
            let attempt = error.source().expect("the attempt");
            let cause = attempt.source().expect("what the manager said");
            assert_eq!(cause.to_string(), "Connect was told to fail");
        }
    });
    assert_eq!(script.told().iter().filter(|told| matches!(told, Told::InVain(_))).count(), 8);
    assert_eq!((script.alive(), pool.stats().waiting()), (0, 0));
}

#[test]
fn who_finds_all_in_use_is_told_how_many_there_are_and_who_has_them() {
    let _watchdog = watchdog();
    let pool = Pool::builder().max_size(2).build(Script::sound()).unwrap();
    let line = line!() + 1;
    let _held: Vec<_> = (0..2).map(|_| pool.get().unwrap()).collect();
    let error = pool.get_timeout(BRIEF).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("2/2: 2 in use"), "{text}");
    let site = format!("{}:{line}:", file!());
    for page in [format!("{error:#}"), pool.report().to_string()] {
        assert!(page.contains(&site), "{site} is not in: {page}");
    }
}

/// A client's own error around another. It stays on its thread.
#[derive(Debug)]
struct Around<E>(E, PhantomData<Rc<()>>);

impl<E> fmt::Display for Around<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client could not log in")
    }
}

impl<E: StdError + 'static> StdError for Around<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

/// Fails to connect, always, with what is made.
struct Failing<F>(F);

impl<E: StdError + 'static, F: Fn() -> E + Send + Sync + 'static> ManageConnection for Failing<F> {
    type Connection = ();
    type Error = E;
    fn connect(&self) -> Result<(), E> {
        Err((self.0)())
    }
    fn is_valid(&self, (): &mut ()) -> Result<(), E> {
        Ok(())
    }
    fn has_broken(&self, (): &mut ()) -> bool {
        false
    }
}

/// What a caller is told once an attempt has failed.
fn after_a_failure<M: ManageConnection>(pool: &Pool<M>) -> r2d2::Error {
    eventually("an attempt has failed", || pool.stats().connects_failed() > 0);
    pool.get_timeout(BRIEF).err().expect("it fails")
}

/// What a caller is told of a manager that fails so.
fn told_of<E: StdError + 'static>(fail: impl Fn() -> E + Send + Sync + 'static) -> r2d2::Error {
    after_a_failure(&Pool::builder().max_size(1).build_unchecked(Failing(fail)))
}

#[test]
fn what_kind_of_failure_it_was_is_seen_through_the_clients_own_errors() {
    let _watchdog = watchdog();
    let around = |error: io::Error| Around(Around(error, PhantomData), PhantomData);
    let kinds = [
        (io::ErrorKind::ConnectionRefused, Failure::Refused),
        (io::ErrorKind::TimedOut, Failure::Timeout),
        (io::ErrorKind::HostUnreachable, Failure::Unreachable),
        (io::ErrorKind::PermissionDenied, Failure::Other),
    ];
    for (kind, failure) in kinds {
        for error in [
            told_of(move || io::Error::from(kind)),
            told_of(move || io::Error::new(kind, "in words of its own")),
            told_of(move || io::Error::other(io::Error::from(kind))),
            told_of(move || around(kind.into())),
            told_of(move || around(io::Error::new(kind, "deep down"))),
        ] {
            assert_eq!(error.failure(), Some(failure), "{error}");
        }
    }
    for (errno, failure) in [
        (Errno::CONNREFUSED, Failure::Refused),
        (Errno::NETUNREACH, Failure::Unreachable),
        (Errno::MFILE, Failure::Local),
    ] {
        let error = told_of(move || around(errno.into()));
        assert_eq!(error.failure(), Some(failure), "{error}");
        let last = std::iter::successors(error.source(), |&error| error.source()).last().unwrap();
        let last = last.downcast_ref::<io::Error>().expect("the system's error itself");
        assert_eq!(last.raw_os_error(), Some(errno.raw_os_error()));
    }
}

#[test]
fn the_causes_of_an_error_are_all_there_and_none_twice() {
    let _watchdog = watchdog();
    let error = told_of(|| Around(io::Error::other("deep down"), PhantomData));
    let chain: Vec<_> =
        std::iter::successors(error.source(), |&error| error.source()).skip(1).collect();
    let words: Vec<_> = chain.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["the client could not log in", "deep down"]);
}

/// An error that misbehaves.
#[derive(Clone, Copy, Debug)]
enum Odd {
    PanicsWhenShown,
    CannotBeShown,
    PanicsWhenAsked,
    IsItsOwnCause,
    IsLong,
    IsEmpty,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PanicsWhenShown => std::panic::panic_any("shown"),
            Self::CannotBeShown => Err(fmt::Error),
            Self::IsLong => (0..100_000).try_for_each(|_| f.write_str("so long ")),
            Self::IsEmpty => Ok(()),
            Self::PanicsWhenAsked | Self::IsItsOwnCause => f.write_str("odd"),
        }
    }
}

impl StdError for Odd {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::PanicsWhenAsked => std::panic::panic_any("asked"),
            Self::IsItsOwnCause => Some(self),
            _ => None,
        }
    }
}

/// Connects once, then fails with what it has; tests fail with it as well.
struct Fickle(Odd, AtomicUsize);

impl ManageConnection for Fickle {
    type Connection = ();
    type Error = Odd;
    fn connect(&self) -> Result<(), Odd> {
        if self.1.fetch_add(1, Ordering::SeqCst) == 0 { Ok(()) } else { Err(self.0) }
    }
    fn is_valid(&self, (): &mut ()) -> Result<(), Odd> {
        Err(self.0)
    }
    fn has_broken(&self, (): &mut ()) -> bool {
        false
    }
}

#[test]
fn errors_that_misbehave_are_told_as_far_as_they_can_be() {
    /// Hears errors out, and shows none.
    #[derive(Clone, Debug, Default)]
    struct Hears(Arc<AtomicUsize>);

    impl HandleError<Odd> for Hears {
        fn handle_error(&self, _: Odd) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    let _watchdog = watchdog();
    for odd in [
        Odd::PanicsWhenShown,
        Odd::CannotBeShown,
        Odd::PanicsWhenAsked,
        Odd::IsItsOwnCause,
        Odd::IsLong,
        Odd::IsEmpty,
    ] {
        let builder = Pool::builder().max_size(1).connection_timeout(10 * BRIEF);
        let builder = builder.configure(|config| config.check_after(Duration::ZERO));
        let heard = Hears::default();
        let builder = builder.error_handler(Box::new(heard.clone()));
        let pool = builder.build(Fickle(odd, AtomicUsize::new(0))).unwrap();
        let error = pool.get().expect_err("the test fails, and so does whatever follows");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{odd:?}");
        assert!(error.failure().is_some(), "{odd:?}");
        assert!(heard.0.load(Ordering::SeqCst) >= 2, "{odd:?}: of the test, and what followed");
        let causes = || std::iter::successors(error.source(), |&error| error.source());
        assert!(causes().take(100).count() < 30, "{odd:?}: there is an end to it");
        assert!(causes().all(|cause| cause.to_string().len() < 10_000), "{odd:?}");
        assert!(error.to_string().contains("within"), "{odd:?}");
        assert!(error.to_string().len() < 10_000, "{odd:?}: {}", error.to_string().len());
        assert!(!pool.report().to_string().is_empty(), "{odd:?}");
        assert_balanced(&pool.stats());
        assert_eq!(pool.stats().waiting(), 0);
    }
}

/// An error with as many causes as it says.
#[derive(Debug)]
struct Deep(usize, Option<Box<Self>>);

impl Deep {
    fn new(depth: usize) -> Self {
        (0..depth).fold(Self(0, None), |inner, depth| Self(depth + 1, Some(Box::new(inner))))
    }
}

impl fmt::Display for Deep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cause {}", self.0)
    }
}

impl StdError for Deep {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.1.as_deref().map(|cause| cause as _)
    }
}

#[test]
fn an_error_with_very_many_causes_tells_the_first_of_them() {
    struct Diver;

    impl ManageConnection for Diver {
        type Connection = ();
        type Error = Deep;
        fn connect(&self) -> Result<(), Deep> {
            Err(Deep::new(1000))
        }
        fn is_valid(&self, (): &mut ()) -> Result<(), Deep> {
            Ok(())
        }
        fn has_broken(&self, (): &mut ()) -> bool {
            false
        }
    }

    let _watchdog = watchdog();
    let error = after_a_failure(&Pool::builder().max_size(1).build_unchecked(Diver));
    let causes = std::iter::successors(error.source(), |&error| error.source()).skip(1);
    let words: Vec<_> = causes.map(ToString::to_string).collect();
    assert_eq!(&words[..3], ["cause 1000", "cause 999", "cause 998"]);
    assert!(words.len() < 30, "{}", words.len());
}

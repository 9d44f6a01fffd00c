//! What is shown to people has no secrets in it, though keys and errors have.

use std::time::Duration;

use warmline::{Address, Driver, ErrorKind, Pool, SocketPath};

use crate::support::lab::{Act, Method};
use crate::support::quoting::{Quoting, SECRET, go_through_everything, keys};
use crate::support::{Diary, assert_balanced, watchdog};

#[track_caller]
fn assert_discreet(texts: &[String]) {
    for text in texts {
        assert!(!text.contains(SECRET) && !text.contains("ub4dor"), "{text}");
    }
}

#[test]
fn no_error_debug_text_or_event_shows_the_password_of_a_key() {
    let _watchdog = watchdog();
    for key in keys() {
        let (quoting, diary) = (Quoting::default(), Diary::default());
        let builder = Pool::builder(quoting.clone()).observer(diary.clone());
        let pool = builder.check_after(Duration::ZERO).build().unwrap();
        let seen = go_through_everything(&key, &pool, &quoting);
        assert_discreet(&seen);
        assert!(seen.iter().any(|text| text.contains("Open of ") && text.contains("***")), "{key}");
        assert!(seen.iter().any(|text| text.contains("cannot talk to ")), "{key}");
        assert_discreet(&diary.threads());
        let events = diary.connected();
        assert_discreet(&events.iter().map(|event| format!("{event:?}")).collect::<Vec<_>>());
        let events = diary.closed();
        assert_discreet(&events.iter().map(|event| format!("{event:?}")).collect::<Vec<_>>());
        assert!(events.iter().all(|event| event.endpoint().contains("***")), "{key}");
    }
}

#[test]
fn what_a_connector_says_reaches_programs_as_it_is() {
    let _watchdog = watchdog();
    let key = &keys()[0];
    let quoting = Quoting::default();
    let endpoint = Pool::builder(quoting.clone()).build().unwrap().endpoint(&**key).unwrap();
    quoting.tell(Method::Open, Act::Fail);
    let error = endpoint.get().unwrap_err();
    assert_eq!(error.endpoint(), Some("postgres://user:***@db.internal:5432/app"));
    let attempt = std::error::Error::source(&error).expect("the attempt");
    let own = attempt.source().expect("the connector's own error");
    assert!(own.to_string().contains(SECRET), "{own}");
    assert_eq!(endpoint.key(), key);
}

#[test]
fn keys_that_differ_in_the_password_alone_are_two_endpoints() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Quoting::default()).build().unwrap();
    let [one, two] = ["one", "two"].map(|password| format!("db://app:{password}@host"));
    let held = pool.get(&*one).unwrap();
    assert_eq!(format!("{held:?}").matches("db://app:***@host").count(), 1, "{held:?}");
    drop(held);
    assert!(pool.try_get(&*two).unwrap().is_none(), "that one is of the other");
    drop(pool.get(&*two).unwrap());
    assert_eq!((pool.stats().idle(), pool.stats().opened()), (2, 2));
    assert_balanced(&pool.stats());
}

#[test]
fn a_name_that_is_refused_is_quoted_without_its_password() {
    let _watchdog = watchdog();
    let pool = Pool::tcp();
    for name in [
        format!("redis://:{SECRET}@host:6379"),
        format!("user:{SECRET}@host:80"),
        format!("http://host/?token={SECRET}:80"),
    ] {
        let error = pool.get(&name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_discreet(&[format!("{error}"), format!("{error:#}"), format!("{error:?}")]);
        let error = name.parse::<Address>().unwrap_err();
        assert_discreet(&[error.to_string()]);
    }
    let long = format!("/run/password={SECRET}{}", "/x".repeat(60));
    assert_discreet(&[SocketPath::new(long).unwrap_err().to_string()]);
}

#[test]
fn a_name_of_a_pool_or_driver_is_shown_without_its_password() {
    let _watchdog = watchdog();
    let name = &keys()[1];
    let pool = Pool::builder(Quoting::default()).name(&**name).build().unwrap();
    drop(pool.get("host").unwrap());
    let driver = Driver::named(&**name).unwrap();
    assert_discreet(&[format!("{pool:?}"), format!("{driver:?}")]);
}

#[test]
fn a_pool_whose_name_holds_a_secret_takes_its_own_settings_back() {
    let _watchdog = watchdog();
    for name in [format!("billing auth: {SECRET}"), format!("two\nlines of {}", keys()[0])] {
        let builder = Pool::builder(Quoting::default()).name(&*name);
        assert_discreet(&[format!("{builder:?}")]);
        let pool = builder.build().unwrap();
        assert_discreet(&[format!("{pool:?}"), format!("{:?}", pool.config())]);
        pool.reconfigure(pool.config()).unwrap();
        pool.reconfigure(pool.config().name(&*name).max_total(7)).unwrap();
        assert_eq!(pool.config(), warmline::Config::new().name(&*name).max_total(7));
        let error = pool.reconfigure(pool.config().name(format!("not {name}"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_discreet(&[error.to_string(), format!("{error:?}")]);
    }
}

#[test]
fn a_name_is_shown_on_one_line_and_cannot_command_a_terminal() {
    let _watchdog = watchdog();
    let name = "one\n\x1b[31mtwo\u{85}three\u{2028}four";
    let pool = Pool::builder(Quoting::default()).name(name).build().unwrap();
    let driver = Driver::named(name).unwrap();
    let held = pool.get(&keys()[0]).unwrap();
    let refused = Pool::tcp().get(name).unwrap_err();
    for text in [
        format!("{pool:?}"),
        format!("{driver:?}"),
        format!("{:?}", Pool::tcp().config().name(name)),
        refused.to_string(),
    ] {
        assert!(text.contains("one  [31mtwo three four"), "{text}");
    }
    let page = pool.report().to_string();
    assert!(page.contains("one  [31mtwo three four") && !page.contains('\x1b'), "{page}");
    drop(held);
}

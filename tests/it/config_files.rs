//! Settings in files: what is written reads back equal, and whatever is wrong is told with the name
//! of the setting and the line.

use std::collections::BTreeMap;
use std::time::Duration;

use warmline::{Config, ErrorKind, Reuse};

use crate::support::tcp;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Every setting there is.
fn all_set() -> Config {
    Config::new()
        .name("orders")
        .max_total(200)
        .max_per_endpoint(50)
        .max_idle(40)
        .max_idle_per_endpoint(20)
        .min_idle(2)
        .max_connecting(8)
        .max_waiting(500)
        .max_uses(1_000)
        .idle_timeout(millis(90_000))
        .max_lifetime(millis(5_400_000))
        .checkout_timeout(millis(3_000))
        .connect_timeout(millis(1_500))
        .fail_fast(false)
        .fair_after(Duration::ZERO)
        .probe_after(Duration::from_micros(250))
        .check_after(millis(500))
        .check_interval(millis(30_000))
        .check_timeout(millis(2_000))
        .settle_timeout(millis(1_000))
        .reuse(Reuse::Oldest)
        .leak_warning(millis(60_000))
        .portable_watch(true)
}

const ALL_IN_TOML: &str = r#"name = "orders"
max_total = 200
max_per_endpoint = 50
max_idle = 40
max_idle_per_endpoint = 20
min_idle = 2
max_connecting = 8
max_waiting = 500
max_uses = 1000
idle_timeout = "1m 30s"
max_lifetime = "1h 30m"
checkout_timeout = "3s"
connect_timeout = "1s 500ms"
fail_fast = false
fair_after = "0s"
probe_after = "250us"
check_after = "500ms"
check_interval = "30s"
check_timeout = "2s"
settle_timeout = "1s"
reuse = "oldest"
leak_warning = "1m"
portable_watch = true
"#;

/// What can be off, off.
fn all_off() -> Config {
    let off = Config::new().max_uses(None).idle_timeout(None).max_lifetime(None);
    off.check_interval(None).leak_warning(None)
}

#[test]
fn every_setting_is_written_under_the_name_of_its_setter_and_reads_back_equal() {
    assert_eq!(toml::to_string(&all_set()).unwrap(), ALL_IN_TOML);
    for config in [Config::new(), all_set(), all_off(), Config::new().fair_after(Duration::MAX)] {
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config, "{text}");
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config, "{text}");
    }
}

#[test]
fn what_is_not_set_is_not_written() {
    assert_eq!(toml::to_string(&Config::new()).unwrap(), "");
    assert_eq!(
        serde_json::to_string(&all_off().name("it")).unwrap(),
        concat!(
            r#"{"name":"it","max_uses":"off","idle_timeout":"off","max_lifetime":"off","#,
            r#""check_interval":"off","leak_warning":"off"}"#
        )
    );
}

#[test]
fn several_pools_can_be_set_in_one_file() {
    let text = "[orders]\nmax_total = 20\n\n[bills]\nmax_totl = 10\n";
    let error = toml::from_str::<BTreeMap<String, Config>>(text).unwrap_err().to_string();
    assert!(error.contains("line 5") && error.contains("unknown field `max_totl`"), "{error}");
    let read: BTreeMap<String, Config> = toml::from_str(&text.replace("totl", "total")).unwrap();
    assert_eq!(read["orders"], Config::new().max_total(20));
    assert_eq!(read["bills"], Config::new().max_total(10));
}

/// What is said to this line, the third of a file in TOML, and to the same in JSON.
fn refusals(field: &str, value: &str) -> [String; 2] {
    let toml = format!("# a pool\nname = \"orders\"\n{field} = {value}\nmin_idle = 1\n");
    let json = format!("{{\n\"name\": \"orders\",\n\"{field}\": {value},\n\"min_idle\": 1\n}}");
    let toml = toml::from_str::<Config>(&toml).expect_err(value).to_string();
    let json = serde_json::from_str::<Config>(&json).expect_err(value).to_string();
    for text in [&toml, &json] {
        let is_named = text.contains("line 3") && text.contains(field);
        assert!(is_named, "{field} = {value}: {text}");
    }
    [toml, json]
}

#[test]
fn an_unknown_setting_is_refused_with_the_line_and_all_there_are() {
    for text in refusals("max_totl", "10") {
        let names = ["unknown field `max_totl`", "`max_total`", "`leak_warning`", "`reuse`"];
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
    }
    refusals("driver", "1");
    refusals("Max_Total", "1");
}

#[test]
fn times_without_a_unit_or_with_a_wrong_one_are_refused_with_the_name_and_the_line() {
    for field in ["idle_timeout", "checkout_timeout", "fair_after", "leak_warning"] {
        for (value, why) in [
            ("\"90\"", "a unit is missing"),
            ("\"90 parsecs\"", "there is no unit \"parsecs\""),
            ("\"2M\"", "there is no unit \"M\""),
            ("\"1.5s\"", "fractions are written in a smaller unit"),
            ("\"-1s\"", "a time with its unit, such as \"90s\""),
            ("\"\"", "a time with its unit"),
            ("\"soon\"", "a time with its unit"),
            ("\"999999999999999999999d\"", "too long"),
            ("90", "a time with its unit"),
            ("-90", "a time with its unit"),
            ("1.5", "a time with its unit"),
            ("true", "a time with its unit"),
            ("[]", "a time with its unit"),
        ] {
            for text in refusals(field, value) {
                assert!(text.contains(why), "{field} = {value}: {text}");
            }
        }
    }
}

#[test]
fn only_what_may_be_off_can_be_off() {
    for field in ["checkout_timeout", "connect_timeout", "max_total", "fail_fast"] {
        refusals(field, "\"off\"");
    }
    for text in refusals("max_lifetime", "\"never\"") {
        assert!(text.contains("or \"off\""), "{text}");
    }
}

#[test]
fn counts_that_are_negative_or_not_whole_and_wrong_types_are_refused_with_the_name_and_the_line() {
    for (field, value, why) in [
        ("max_total", "-1", "a whole number"),
        ("max_total", "1.5", "a whole number"),
        ("max_total", "\"12\"", "a whole number"),
        ("max_waiting", "true", "a whole number"),
        ("max_uses", "-1", "or \"off\""),
        ("max_uses", "4294967296", "below 4294967296"),
        ("max_uses", "false", "or \"off\""),
        ("fail_fast", "1", "true or false"),
        ("portable_watch", "\"yes\"", "true or false"),
        ("reuse", "\"random\"", "\"newest\" or \"oldest\""),
        ("reuse", "1", "\"newest\" or \"oldest\""),
    ] {
        for text in refusals(field, value) {
            assert!(text.contains(why), "{field} = {value}: {text}");
        }
    }
    let error = serde_json::from_str::<Config>("{\n\"idle_timeout\": null\n}").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("idle_timeout") && text.contains("line 2"), "{text}");
}

#[test]
fn a_setting_that_is_there_twice_is_refused() {
    let error = serde_json::from_str::<Config>("{\"max_idle\": 1,\n\"max_idle\": 2}").unwrap_err();
    assert!(error.to_string().contains("duplicate field `max_idle`"), "{error}");
    assert!(error.to_string().contains("line 2"), "{error}");
    let error = toml::from_str::<Config>("max_idle = 1\nmax_idle = 1").unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn what_can_be_read_and_makes_no_sense_is_refused_by_the_pool_with_the_names() {
    let config: Config = toml::from_str("max_total = 10\nmax_per_endpoint = 20").unwrap();
    let pool = tcp().build().unwrap();
    for error in
        [tcp().config(config.clone()).build().unwrap_err(), pool.reconfigure(config).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.to_string(), "max_per_endpoint(20) is more than max_total(10)");
    }
    assert_eq!(pool.config(), Config::new());
}

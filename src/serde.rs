//! Settings as data: [`Config`] read and written through serde.
//!
//! Written by hand, so that whatever is wrong is told with the name of the setting, and by the
//! format with the line: each value is read by a visitor that knows its setting.

mod times;

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Reuse};
use crate::redact::Redacted;

use self::times::{Written, parse};

/// Of what may be there or not: it is not.
const OFF: &str = "off";

/// All settings, in the order in which they are written.
macro_rules! settings {
    ($($field:ident,)*) => {
        const FIELDS: &[&str] = &[$(stringify!($field),)*];

        /// Reads the value of the setting `field`.
        fn read<'de, M: MapAccess<'de>>(
            config: &mut Config,
            field: &'static str,
            map: &mut M,
        ) -> Result<(), M::Error> {
            $(if field == stringify!($field) {
                return once(&mut config.$field, field, map);
            })*
            Err(M::Error::unknown_field(field, FIELDS))
        }

        impl Serialize for Config {
            /// Writes what is set, and nothing of what is not.
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let Self { $($field,)* } = self; // none is forgotten
                let count = [$($field.is_some(),)*].into_iter().filter(|is_set| *is_set).count();
                let mut to = to.serialize_struct("Config", count)?;
                $(match $field {
                    Some(value) => to.serialize_field(stringify!($field), &Writing(value))?,
                    None => to.skip_field(stringify!($field))?,
                })*
                to.end()
            }
        }
    };
}

settings! {
    name,
    max_total,
    max_per_endpoint,
    max_idle,
    max_idle_per_endpoint,
    min_idle,
    max_connecting,
    max_waiting,
    max_uses,
    idle_timeout,
    max_lifetime,
    checkout_timeout,
    connect_timeout,
    fail_fast,
    fair_after,
    probe_after,
    check_after,
    check_interval,
    check_timeout,
    settle_timeout,
    reuse,
    leak_warning,
    portable_watch,
}

/// What a setting can be, in a file.
trait Value: Sized {
    /// As an error names it.
    const EXPECTED: &'static str;

    fn of_number(_: u64) -> Option<Self> {
        None
    }

    fn of_switch(_: bool) -> Option<Self> {
        None
    }

    /// # Errors
    ///
    /// Why this text is none, if there is more to say than that; empty else.
    fn of_text(_: &str) -> Result<Self, String> {
        Err(String::new())
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;
}

impl Value for Redacted<String> {
    const EXPECTED: &'static str = "a text";

    fn of_text(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn of_switch(on: bool) -> Option<Self> {
        Some(on)
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bool(*self)
    }
}

impl Value for usize {
    const EXPECTED: &'static str = "a whole number";

    fn of_number(number: u64) -> Option<Self> {
        number.try_into().ok()
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(*self as u64)
    }
}

impl Value for Option<u32> {
    const EXPECTED: &'static str = "a whole number below 4294967296, or \"off\"";

    fn of_number(number: u64) -> Option<Self> {
        number.try_into().ok().map(Some)
    }

    fn of_text(text: &str) -> Result<Self, String> {
        if text == OFF { Ok(None) } else { Err(String::new()) }
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(number) => to.serialize_u32(*number),
            None => to.serialize_str(OFF),
        }
    }
}

impl Value for Duration {
    const EXPECTED: &'static str = "a time with its unit, such as \"90s\" or \"500ms\"";

    fn of_text(text: &str) -> Result<Self, String> {
        parse(text)
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&Written(*self))
    }
}

impl Value for Option<Duration> {
    const EXPECTED: &'static str = "a time with its unit, such as \"90s\" or \"500ms\", or \"off\"";

    fn of_text(text: &str) -> Result<Self, String> {
        if text == OFF { Ok(None) } else { parse(text).map(Some) }
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(time) => time.write(to),
            None => to.serialize_str(OFF),
        }
    }
}

impl Value for Reuse {
    const EXPECTED: &'static str = "\"newest\" or \"oldest\"";

    fn of_text(text: &str) -> Result<Self, String> {
        match text {
            "newest" => Ok(Self::Newest),
            "oldest" => Ok(Self::Oldest),
            _ => Err(String::new()),
        }
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
        })
    }
}

/// Reads the value of one setting.
struct Reading<V> {
    field: &'static str,
    of: PhantomData<V>,
}

impl<'de, V: Value> DeserializeSeed<'de> for Reading<V> {
    type Value = V;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<V, D::Error> {
        from.deserialize_any(self)
    }
}

impl<V: Value> Visitor<'_> for Reading<V> {
    type Value = V;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be {}", self.field, V::EXPECTED)
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<V, E> {
        V::of_switch(on).ok_or_else(|| E::invalid_type(Unexpected::Bool(on), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<V, E> {
        V::of_number(number).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<V, E> {
        let read = u64::try_from(number).ok().and_then(V::of_number);
        read.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V, E> {
        V::of_text(text).map_err(|why| match why.as_str() {
            "" => E::invalid_value(Unexpected::Str(text), &self),
            why => E::custom(format_args!("{} = {text:?}: {why}", self.field)),
        })
    }
}

/// Reads the name of a setting.
struct Field;

impl<'de> DeserializeSeed<'de> for Field {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<&'static str, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Field {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a setting")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<&'static str, E> {
        let known = FIELDS.iter().find(|field| **field == name);
        known.copied().ok_or_else(|| E::unknown_field(name, FIELDS))
    }
}

struct Settings;

impl<'de> Visitor<'de> for Settings {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings of a pool")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Config, M::Error> {
        let mut config = Config::new();
        while let Some(field) = map.next_key_seed(Field)? {
            read(&mut config, field, &mut map)?;
        }
        Ok(config)
    }
}

/// Reads a setting that may be there once.
fn once<'de, V: Value, M: MapAccess<'de>>(
    setting: &mut Option<V>,
    field: &'static str,
    map: &mut M,
) -> Result<(), M::Error> {
    if setting.is_some() {
        return Err(M::Error::duplicate_field(field));
    }
    *setting = Some(map.next_value_seed(Reading { field, of: PhantomData })?);
    Ok(())
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_struct("Config", FIELDS, Settings)
    }
}

/// Writes the value of one setting.
struct Writing<'v, V>(&'v V);

impl<V: Value> Serialize for Writing<'_, V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.write(to)
    }
}

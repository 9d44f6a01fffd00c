//! A connector of the indiscreet kind: its key holds a password, and all it says quotes the key.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use warmline::{
    BoxError, CloseReason, Connector, Deadline, Look, Opening, Plan, Pool, PooledConn, Reset,
};

use super::lab::{Act, Method};

/// What nobody may ever see.
pub(crate) const SECRET: &str = "Zq:tr@ub4dor&3";

/// Keys with the secret in them.
pub(crate) fn keys() -> [String; 7] {
    [
        format!("postgres://user:{SECRET}@db.internal:5432/app"),
        format!("redis://:{SECRET}@cache"),
        format!("https://api.internal/v1?a=b&api_key={SECRET}"),
        format!("host=db.internal user=app password={SECRET}"),
        format!("host=db.internal user=app password = '{SECRET}'"),
        format!("Server=db;Pwd={SECRET};Timeout=3"),
        format!(r#"{{"host":"db.internal","password":"{SECRET}"}}"#),
    ]
}

/// Does to `method` what it was told, and to every other as a connector that works.
#[derive(Clone, Default)]
pub(crate) struct Quoting(Arc<Mutex<Option<(Method, Act)>>>);

/// A connection, which knows its key.
pub(crate) struct Line(String);

/// Displays itself with the key, and shows more to those who debug.
#[derive(Debug)]
struct Indiscreet {
    key: String,
}

impl fmt::Display for Indiscreet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot talk to {}: refused", self.key)
    }
}

impl std::error::Error for Indiscreet {}

impl Quoting {
    pub(crate) fn tell(&self, method: Method, act: Act) {
        *self.0.lock() = Some((method, act));
    }

    fn act(&self, method: Method, key: &str) -> Result<Act, BoxError> {
        let told = *self.0.lock();
        let act = told.filter(|(told, _)| *told == method).map_or(Act::Go, |(_, act)| act);
        match act {
            Act::Panic => std::panic::panic_any(format!("{method:?} of {key} was told to panic")),
            Act::Fail => Err(Indiscreet { key: key.to_owned() }.into()),
            act => Ok(act),
        }
    }
}

impl Connector for Quoting {
    type Key = String;
    type Conn = Line;

    fn plan(&self, key: &String) -> Plan {
        let _went = self.act(Method::Plan, key);
        Plan::blocking()
    }

    fn open(&self, key: &String, _: &mut Opening) -> Result<Line, BoxError> {
        self.act(Method::Open, key)?;
        Ok(Line(key.clone()))
    }

    fn is_open(&self, conn: &mut Line, _: Look) -> bool {
        self.act(Method::IsOpen, &conn.0).is_ok()
    }

    fn reset(&self, conn: &mut Line) -> Reset {
        let settles = matches!(*self.0.lock(), Some((Method::Settle, _)));
        match self.act(Method::Reset, &conn.0) {
            Ok(_) if settles => Reset::Later,
            Ok(_) => Reset::Ready,
            Err(_) => Reset::Close,
        }
    }

    fn settle(&self, conn: &mut Line, _: Deadline) -> Result<(), BoxError> {
        self.act(Method::Settle, &conn.0).map(drop)
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, conn: &mut Line, _: Deadline) -> Result<(), BoxError> {
        self.act(Method::Check, &conn.0).map(drop)
    }

    fn close(&self, conn: Line, _: CloseReason) {
        let _went = self.act(Method::Close, &conn.0);
    }
}

/// Uses an endpoint of that key while each method fails, and while it panics. Returns what there
/// was to print on the way.
pub(crate) fn go_through_everything(key: &str, pool: &Pool<Quoting>, it: &Quoting) -> Vec<String> {
    let mut seen = vec![format!("{pool:?}")];
    it.tell(Method::Plan, Act::Panic);
    let error = pool.get(key).unwrap_err();
    seen.extend([format!("{error}"), format!("{error:#}"), format!("{error:?}")]);
    it.tell(Method::Plan, Act::Go);
    let endpoint = pool.endpoint(key).unwrap();
    seen.extend([format!("{endpoint:?}"), format!("{:?}", endpoint.request().unwrap())]);
    for act in [Act::Fail, Act::Panic] {
        for method in Method::ALL {
            endpoint.evict();
            it.tell(Method::Open, Act::Go);
            super::eventually("a connection", || endpoint.get().is_ok());
            it.tell(method, act);
            if method == Method::Open {
                endpoint.evict();
            }
            for _ in 0..2 {
                let held = match endpoint.get() {
                    Ok(held) => held,
                    Err(error) => {
                        let texts = [format!("{error}"), format!("{error:#}")];
                        seen.extend(texts.into_iter().chain([format!("{error:?}")]));
                        let attempt = std::error::Error::source(&error).unwrap();
                        seen.extend([format!("{attempt}"), format!("{attempt:?}")]);
                        let error = std::io::Error::from(error);
                        seen.extend([format!("{error}"), format!("{error:?}")]);
                        continue;
                    }
                };
                seen.push(format!("{held:?}"));
                drop::<PooledConn<_>>(held);
            }
            seen.extend([format!("{}", endpoint.stats()), format!("{:?}", endpoint.stats())]);
        }
    }
    it.tell(Method::Open, Act::Go);
    seen
}

//! What both clients are asked to do.

use std::net::SocketAddr;
use std::time::Duration;

use ::redis::{Value, cmd};
use interop::redis::Redis;
use interop::resp::{Reply, Resp};
use warmline::{Address, BoxError, Builder, Connector, Endpoint, Pool, PooledConn};

/// A client of Redis under test.
pub(crate) trait Client: Connector + Sized {
    /// A connector and a key that lead there, with that password.
    fn at(address: SocketAddr, password: Option<&str>) -> (Self, Self::Key);

    /// The same connector, which waits for no answer longer than that.
    fn waits(self, longest: Duration) -> Self;

    /// Sends a command. The answer is put in words; what the server objects to is an error.
    fn ask(conn: &mut Self::Conn, words: &[&str]) -> Result<String, BoxError>;
}

/// An endpoint with settings of its own.
pub(crate) fn endpoint<C: Client>(
    address: SocketAddr,
    set: impl FnOnce(Builder<C>) -> Builder<C>,
) -> Endpoint<C> {
    endpoint_with(address, None, set)
}

pub(crate) fn endpoint_with<C: Client>(
    address: SocketAddr,
    password: Option<&str>,
    set: impl FnOnce(Builder<C>) -> Builder<C>,
) -> Endpoint<C> {
    let (connector, key) = C::at(address, password);
    set(Pool::builder(connector)).build().unwrap().endpoint(&key).unwrap()
}

/// The same as [`Client::ask`], on one line of text.
pub(crate) fn ask<C: Client>(conn: &mut C::Conn, line: &str) -> Result<String, BoxError> {
    C::ask(conn, &line.split(' ').collect::<Vec<_>>())
}

/// One small exchange, whose answer is nobody else's.
pub(crate) fn echo<C: Client>(conn: &mut PooledConn<C>, number: i64) -> Result<(), BoxError> {
    let answer = ask::<C>(conn, &format!("ECHO {number}"))?;
    assert_eq!(answer, number.to_string(), "somebody else's answer");
    Ok(())
}

impl Client for Redis {
    fn at(address: SocketAddr, password: Option<&str>) -> (Self, String) {
        let login = password.map(|password| format!(":{password}@")).unwrap_or_default();
        (Self::new(), format!("redis://{login}{address}/"))
    }

    fn waits(self, longest: Duration) -> Self {
        self.read_timeout(longest)
    }

    fn ask(conn: &mut Self::Conn, words: &[&str]) -> Result<String, BoxError> {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        Ok(in_words(&command.query(conn)?))
    }
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Okay => "OK".into(),
        Value::Nil => "nil".into(),
        Value::Int(number) => number.to_string(),
        Value::SimpleString(text) => text.clone(),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Array(values) => values.iter().map(in_words).collect::<Vec<_>>().join(" "),
        other => panic!("{other:?}"),
    }
}

impl Client for Resp {
    fn at(address: SocketAddr, password: Option<&str>) -> (Self, Address) {
        let connector = password.map_or_else(Self::new, |it| Self::new().password(it));
        (connector, Address::try_from(address).unwrap())
    }

    fn waits(self, longest: Duration) -> Self {
        self.read_timeout(longest)
    }

    fn ask(conn: &mut Self::Conn, words: &[&str]) -> Result<String, BoxError> {
        spelled(&conn.ask(words)?)
    }
}

fn spelled(reply: &Reply) -> Result<String, BoxError> {
    Ok(match reply {
        Reply::Bulk(None) | Reply::List(None) => "nil".into(),
        Reply::Integer(number) => number.to_string(),
        Reply::Status(text) => text.clone(),
        Reply::Bulk(Some(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::List(Some(replies)) => {
            replies.iter().map(spelled).collect::<Result<Vec<_>, _>>()?.join(" ")
        }
        Reply::Error(text) => return Err(text.clone().into()),
    })
}

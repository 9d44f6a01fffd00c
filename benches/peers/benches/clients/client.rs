//! The clients, and the pools that they are in.

use std::error::Error;
use std::net::SocketAddr;
use std::ops::DerefMut;
use std::time::Duration;

use interop::resp::{Reply, Resp};
use interop::servers::{self, Server};
use peers::version;
use postgres::NoTls;
use r2d2_postgres::PostgresConnectionManager;

pub(crate) const CONNECTIONS: usize = 8;
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client, used through the manager that was written for r2d2.
pub(crate) trait Client: 'static {
    type Manager: r2d2::ManageConnection;
    /// What the names of its figures begin with.
    const NAME: &'static str;
    /// What it is asked, in the names of figures.
    const ASKED: &'static str;

    /// The crates, and what a command is.
    fn settings() -> String;

    /// One that has what the commands ask for; none, said aloud, if it is not installed.
    fn server() -> Option<Server>;

    fn manager(address: SocketAddr) -> Self::Manager;

    /// One command, one round trip.
    fn ask(conn: &mut Connection<Self>) -> Result<(), BoxError>;

    /// The connector of `tests/interop`, which has its connections watched.
    fn watched(address: SocketAddr) -> Candidate;
}

type Connection<C> = <<C as Client>::Manager as r2d2::ManageConnection>::Connection;
type BoxError = Box<dyn Error + Send + Sync>;

/// What a caller got in the place of an answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection.
    Checkout(BoxError),
    /// One that did not work.
    Command(BoxError),
}

/// A pool of eight connections, and a checkout, a command and the return.
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) settings: String,
    pub(crate) visit: Box<dyn Fn() -> Result<(), Failure> + Send + Sync>,
}

/// Makes a pool of connections to a server.
pub(crate) type Open = fn(SocketAddr) -> Candidate;

impl Candidate {
    fn new<G: DerefMut, E: Into<BoxError>>(
        name: &'static str,
        settings: String,
        get: impl Fn() -> Result<G, E> + Send + Sync + 'static,
        ask: impl Fn(&mut G::Target) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        let visit = move || {
            let mut conn = get().map_err(|error| Failure::Checkout(error.into()))?;
            ask(&mut conn).map_err(Failure::Command)
        };
        Self { name, settings, visit: Box::new(visit) }
    }

    /// warmline's own pool of the manager, by its handle, with the default settings.
    pub(crate) fn handle<C: Client>(address: SocketAddr) -> Self {
        let manager = warmline::r2d2::Manager::new(C::manager(address));
        let builder = warmline::Pool::builder(manager).max_per_endpoint(CONNECTIONS);
        let endpoint = builder.build().and_then(|pool| pool.only()).expect("one limit");
        endpoint.warm_all(CONNECTIONS, PATIENCE).expect("the server accepts");
        let settings = format!(
            "{}: Endpoint of r2d2::Manager, defaults (check_after=500ms, fail_fast=true) but \
             max_per_endpoint={CONNECTIONS}",
            version("warmline", "")
        );
        Self::new("handle", settings, move || endpoint.get(), C::ask)
    }

    /// warmline's pool by r2d2's names, with r2d2's defaults.
    pub(crate) fn face<C: Client>(address: SocketAddr) -> Self {
        let builder = warmline::r2d2::Pool::builder().max_size(CONNECTIONS as u32);
        let pool = builder.build(C::manager(address)).expect("the server accepts");
        let version = version("warmline", "");
        let settings =
            format!("{version}: warmline::r2d2::Pool, defaults but max_size={CONNECTIONS}");
        Self::new("face", settings, move || pool.get(), C::ask)
    }

    /// r2d2, which asks the server at each checkout whether the connection works.
    pub(crate) fn r2d2_default<C: Client>(address: SocketAddr) -> Self {
        Self::r2d2::<C>("r2d2_default", address, true)
    }

    /// r2d2, which does not ask.
    pub(crate) fn r2d2_unvalidated<C: Client>(address: SocketAddr) -> Self {
        Self::r2d2::<C>("r2d2_unvalidated", address, false)
    }

    fn r2d2<C: Client>(name: &'static str, address: SocketAddr, is_testing: bool) -> Self {
        let builder = r2d2::Pool::builder().max_size(CONNECTIONS as u32);
        let builder = builder.test_on_check_out(is_testing);
        let pool = builder.build(C::manager(address)).expect("the server accepts");
        let settings = format!(
            "{}: defaults but max_size={CONNECTIONS} test_on_check_out={is_testing}",
            version("r2d2", "")
        );
        Self::new(name, settings, move || pool.get(), C::ask)
    }

    /// A connector whose connections are watched, and callers who wait while the server is down.
    fn watching<C, K>(connector: C, key: &K, ask: Ask<C::Conn>, what: &str) -> Self
    where
        C: warmline::Connector,
        K: warmline::Name<C::Key> + ?Sized,
    {
        let builder = warmline::Pool::builder(connector).max_per_endpoint(CONNECTIONS);
        let pool = builder.fail_fast(false).build().expect("settings that fit each other");
        let endpoint = pool.endpoint(key).expect("a key");
        endpoint.warm_all(CONNECTIONS, PATIENCE).expect("the server accepts");
        let settings = format!(
            "{}: {what}, fail_fast=false max_per_endpoint={CONNECTIONS}",
            version("warmline", "")
        );
        Self::new("watched", settings, move || endpoint.get(), ask)
    }
}

type Ask<T> = fn(&mut T) -> Result<(), BoxError>;

// ---- PostgreSQL

pub(crate) struct Postgres;

fn config(address: SocketAddr) -> postgres::Config {
    let mut config = postgres::Config::new();
    config.host(&address.ip().to_string()).port(address.port()).user("postgres");
    config
}

impl Client for Postgres {
    type Manager = PostgresConnectionManager<NoTls>;
    const NAME: &'static str = "pg";
    const ASKED: &'static str = "queries";

    fn settings() -> String {
        let (client, manager) = (version("postgres", "0.19"), version("r2d2_postgres", ""));
        format!("{client}, {manager}, one simple_query(\"SELECT 1\")")
    }

    fn server() -> Option<Server> {
        servers::postgres(&["-c", "max_connections=100"])
    }

    fn manager(address: SocketAddr) -> Self::Manager {
        PostgresConnectionManager::new(config(address), NoTls)
    }

    fn ask(client: &mut postgres::Client) -> Result<(), BoxError> {
        client.simple_query("SELECT 1")?;
        Ok(())
    }

    fn watched(address: SocketAddr) -> Candidate {
        let connector = interop::postgres::Postgres::new(config(address));
        let ask = |conn: &mut interop::postgres::Conn| {
            conn.query_one("SELECT 1", &[])?;
            Ok(())
        };
        Candidate::watching(connector, &warmline::One, ask, "tests/interop's Postgres, query_one")
    }
}

// ---- Redis

pub(crate) struct Redis;

const KEY: &str = "key";

impl Client for Redis {
    type Manager = redis::Client;
    const NAME: &'static str = "redis";
    const ASKED: &'static str = "cmds";

    fn settings() -> String {
        format!("{}, one GET of 2 bytes", version("redis", ""))
    }

    fn server() -> Option<Server> {
        let server = servers::redis(&[])?;
        let mut conn = Self::manager(server.address()).get_connection().expect("it is up");
        redis::cmd("SET").arg(KEY).arg("42").exec(&mut conn).expect("it is up");
        Some(server)
    }

    fn manager(address: SocketAddr) -> redis::Client {
        redis::Client::open(format!("redis://{address}")).expect("an address")
    }

    /// After a restart there is no such key: that is an answer, too.
    fn ask(conn: &mut redis::Connection) -> Result<(), BoxError> {
        redis::cmd("GET").arg(KEY).query::<Option<u64>>(conn)?;
        Ok(())
    }

    fn watched(address: SocketAddr) -> Candidate {
        let ask = |conn: &mut interop::resp::Client| match conn.ask(&["GET", KEY])? {
            Reply::Error(text) => Err(text.into()),
            _ => Ok(()),
        };
        Candidate::watching(Resp::new(), &address, ask, "tests/interop's Resp")
    }
}

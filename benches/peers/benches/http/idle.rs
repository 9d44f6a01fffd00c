//! What an idle connection holds after a GET, beside what it holds without.

use std::thread;
use std::time::Duration;

use peers::{Cost, Spread, Weight, is_quick, now_ns, result};
use warmline::{Pool, TcpConnector};

use crate::ALLOCATOR;
use crate::client::{BUFFER, Client, Reqwest, Ureq, read};
use crate::nginx::Nginx;
use crate::ours::Warmline;
use crate::target::{Size, Target};

/// Powers of two, where vectors that double are full.
const FEW: usize = 128;
const MANY: usize = 512;
/// What still goes on in the background shows within such a time.
const CALM: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

/// What is allocated once nothing changes that any more.
fn weigh_at_rest() -> Weight {
    let began = now_ns();
    loop {
        let (weight, count) = (ALLOCATOR.weigh(), ALLOCATOR.count());
        thread::sleep(CALM);
        let is_calm = ALLOCATOR.weigh().bytes() == weight.bytes() && ALLOCATOR.count() == count;
        if is_calm || Duration::from_nanos(now_ns() - began) > PATIENCE {
            return weight;
        }
    }
}

/// Weighs what `make` makes, which is dropped then, and waits until its threads have ended.
fn weigh<T>(make: impl FnOnce() -> T) -> Weight {
    let threads = || Cost::of_threads("").threads;
    let (before, empty) = (threads(), weigh_at_rest());
    let made = make();
    let weight = weigh_at_rest().since(&empty);
    drop(made);
    let began = now_ns();
    while threads() > before && Duration::from_nanos(now_ns() - began) < PATIENCE {
        thread::sleep(CALM);
    }
    weight
}

/// What there is of the heap with so many more idle connections.
struct Slope {
    few: i64,
    many: i64,
    /// Of which sizes.
    more: Weight,
}

impl Slope {
    fn of<T>(mut make: impl FnMut(usize) -> T) -> Self {
        ALLOCATOR.begin();
        // What is made once for all is there before.
        drop(make(FEW));
        let (few, many) = (weigh(|| make(FEW)), weigh(|| make(MANY)));
        ALLOCATOR.end();
        Self { few: few.bytes(), many: many.bytes(), more: many.since(&few) }
    }

    fn per_connection(&self) -> f64 {
        (self.many - self.few) as f64 / (MANY - FEW) as f64
    }
}

/// With a client that has had so many answers under way at once.
fn of_client<C: Client>(target: &Target) -> Slope {
    let mut buffer = vec![0; BUFFER];
    let make = |count| {
        let client = C::new(count);
        let get = |_| client.get(&target.url).expect("the server is up");
        let bodies = Vec::from_iter((0..count).map(get));
        for body in bodies {
            read(body, &mut buffer, target).expect("the server is up");
        }
        client
    };
    Slope::of(make)
}

/// With warmline's client, whose connections were in use all at once, and never carried a request.
fn of_unused(target: &Target) -> Slope {
    Slope::of(|count| {
        let client = Warmline::new(count);
        let origin = format!("http://{}", target.address);
        let endpoint = client.0.pool().endpoint(origin.as_str()).expect("an origin");
        drop(Vec::from_iter((0..count).map(|_| endpoint.get().expect("a connection"))));
        assert_eq!(endpoint.stats().idle(), count);
        client
    })
}

/// The same with a pool of plain sockets.
fn of_pool(target: &Target) -> Slope {
    Slope::of(|count| {
        let builder = Pool::builder(TcpConnector::new()).max_total(count).max_per_endpoint(count);
        let pool = builder.max_idle(count).build().expect("limits that fit each other");
        let endpoint = pool.endpoint(&target.address).expect("an address");
        drop(Vec::from_iter((0..count).map(|_| endpoint.get().expect("a connection"))));
        assert_eq!(endpoint.stats().idle(), count);
        pool
    })
}

/// The bytes of several rounds: how full trees are depends on the order in which things happened.
fn bytes(slopes: &[Slope]) -> Vec<f64> {
    slopes.iter().map(Slope::per_connection).collect()
}

pub(crate) fn run(nginx: &Nginx) {
    let target = nginx.target(Size::Page);
    let rounds = if is_quick() { 1 } else { 7 };
    let how = format!(
        "heap in use with {MANY} idle connections less that with {FEW}, per connection, all of \
         which were in use at once"
    );
    let (mut used, mut unused, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        used.push(of_client::<Warmline>(&target));
        unused.push(of_unused(&target));
        plain.push(of_pool(&target));
    }
    let differences = bytes(&used).into_iter().zip(bytes(&unused));
    let buffers = Spread::of(differences.map(|(used, unused)| used - unused));
    result(
        "http_idle_buffer_bytes",
        format_args!("{:.1}", buffers.median),
        "B",
        format_args!(
            "{how}; {}; after a GET of {} B each ({}), less without any ({}); median of {rounds} \
             rounds; target 0; {buffers:.1}",
            Warmline::settings(),
            target.bytes,
            used[0].more,
            unused[0].more,
        ),
    );
    let words = format!(
        "{how}; without HTTP, in a pool of TcpConnector: {:.1} B",
        Spread::of(bytes(&plain)).median
    );
    report::<Warmline>("http_idle_heap_bytes", &used, &words);
    of_peer::<Ureq>(&target, &how);
    of_peer::<Reqwest>(&target, &how);
}

fn of_peer<C: Client>(target: &Target, how: &str) {
    let name = format!("http_idle_heap_bytes_{}", C::NAME);
    report::<C>(&name, &[of_client::<C>(target)], how);
}

/// All that an idle connection holds.
fn report<C: Client>(name: &str, slopes: &[Slope], how: &str) {
    let spread = Spread::of(bytes(slopes));
    let what = format!("all that it holds ({})", slopes[0].more);
    let config = format!("{how}; {}; {what}; median of {}; {spread}", C::settings(), slopes.len());
    result(name, format_args!("{:.1}", spread.median), "B", config);
}

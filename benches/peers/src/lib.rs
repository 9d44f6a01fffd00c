//! What the benches share: clocks, statistics, the lines they print, a server to connect to.
//!
//! A bench prints `result: NAME VALUE UNIT` for each figure, and after it a `config:` line with
//! the settings and the noise behind it. Set `WARMLINE_BENCH_QUICK=1` for fewer and shorter rounds.

mod alloc;
mod block_on;
mod child;
mod clock;
mod histogram;
mod report;
mod rng;
mod server;
mod spread;
mod tasks;
mod weigh;

pub use crate::alloc::Counting;
pub use crate::block_on::block_on;
pub use crate::child::{Obedient, obey_all};
pub use crate::clock::{cpu_ns, now_ns, process_cpu_ns};
pub use crate::histogram::Histogram;
pub use crate::report::{is_quick, is_wanted, note, result, version};
pub use crate::rng::Rng;
pub use crate::server::{Server, allow_descriptors, allow_most_descriptors, send_back};
pub use crate::spread::{Spread, percentile};
pub use crate::tasks::Cost;
pub use crate::weigh::{Weighing, Weight};

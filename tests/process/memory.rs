//! Memory: names that are not used any more are forgotten.

use warmline::{BoxError, Connector, Opening, Pool, PooledConn};

use crate::alone;
use crate::support::watchdog;

/// Opens nothing, under any name.
struct Nothing;

impl Connector for Nothing {
    type Key = String;
    type Conn = ();

    fn open(&self, _: &String, _: &mut Opening) -> Result<(), BoxError> {
        Ok(())
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn many_names_used_once_do_not_add_up() {
    alone("memory::many_names_used_once_do_not_add_up", || {
        let _watchdog = watchdog();
        let pool = Pool::builder(Nothing).build().unwrap();
        let visit = |numbers: std::ops::Range<u32>| {
            for number in numbers {
                let name = format!("one-of-many-tenants-{number:0>200}");
                PooledConn::discard(pool.get(&*name).unwrap());
            }
        };
        visit(0..3_000);
        let before = resident_kib();
        visit(3_000..40_000);
        let grown = resident_kib().saturating_sub(before);
        // Each name is remembered twice, with an endpoint: 40 MiB, if none were forgotten.
        assert!(grown < 8 * 1024, "grown by {grown} KiB");
        assert_eq!(pool.stats().checkouts(), 40_000);
    });
}

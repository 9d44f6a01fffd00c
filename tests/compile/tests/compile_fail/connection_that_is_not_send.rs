//! A connection that must stay on its thread cannot be pooled: a pool hands it to others.

use std::rc::Rc;

use warmline::{BoxError, Connector, One, Opening};

struct Bound;

impl Connector for Bound {
    type Key = One;
    type Conn = Rc<()>;

    fn open(&self, _: &One, _: &mut Opening) -> Result<Rc<()>, BoxError> {
        Ok(Rc::new(()))
    }
}

fn main() {}

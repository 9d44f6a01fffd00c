//! Redis, through the `redis` crate and by hand: the same promises for both.

mod clients;
mod idle;
mod refusals;
mod work;

/// Tests that are run with each client. They take it for a parameter.
macro_rules! with_both_clients {
    ($($name:ident,)+) => {
        mod by_the_crate {
            $(#[test] fn $name() { super::$name::<interop::redis::Redis>(); })+
        }
        mod by_hand {
            $(#[test] fn $name() { super::$name::<interop::resp::Resp>(); })+
        }
    };
}
pub(crate) use with_both_clients;

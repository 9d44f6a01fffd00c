//! Tests of the core: each promise by name, then scripts nobody thought of.
//!
//! `world` is the harness. `checkout` to `ending` hold one promise a test; `model` compares random
//! scripts with a naive pool, `scripts` runs random ones over every transition there is, and
//! `exhaustive` runs every short one.

mod attempts;
mod called_off;
mod caps;
mod cause;
mod checkout;
mod checks;
mod crew;
mod ending;
mod exhaustive;
mod failure;
mod freed;
mod giving;
mod hang_up;
mod in_loop;
mod leaks;
mod learned;
mod lifetime;
mod limits;
mod model;
mod pace;
mod pausing;
mod proof;
mod queue;
mod quick;
mod reconfiguring;
mod requests;
mod scripts;
mod shortage;
mod situation;
mod slab;
mod starved;
mod stats;
mod time;
mod timers;
mod told;
mod unused;
mod vacancy;
mod world;

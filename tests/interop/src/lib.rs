//! Other crates' clients in warmline's pool, and the real servers they are tried with. The tests
//! and examples of this package share it.

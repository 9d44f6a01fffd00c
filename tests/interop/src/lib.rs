//! Nothing: this package is its tests. They need more crates than the library does.

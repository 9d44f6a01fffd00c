//! Nothing: this package is its tests, of what the compiler says to users.

//! r2d2's names and managers: what r2d2 promises, and what is to be better.

mod bad_managers;
mod better;
mod errors;
mod hooks;
mod managers;
mod names;

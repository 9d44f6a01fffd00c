//! Mistakes that the compiler finds for users, with what it says, and what it must let pass.
//!
//! The messages are those of the newest stable compiler. Where another one words them differently,
//! look whether each is still about the mistake that its file makes, and renew them:
//!
//! ```text
//! TRYBUILD=overwrite cargo test --package compile
//! ```

#[test]
fn mistakes_with_connections_do_not_compile_and_what_is_sound_does() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
    cases.pass("tests/compile_pass/*.rs");
}

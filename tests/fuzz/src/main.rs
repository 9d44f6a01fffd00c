//! What a server answers is what the fuzzer says. `bash .ci/deep fuzz`, or:
//!
//! ```text
//! mkdir -p target/fuzz/found
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz answers \
//!     target/fuzz/found tests/it/http_answers/corpus -- \
//!     -dict=tests/fuzz/answers.dict -max_len=8192 -detect_leaks=0
//! ```
//!
//! Threads that are about to end look like leaks. An input that fails goes to the corpus, with the
//! name of what should have become of it: tests/it/http_answers plays all of that, without a
//! fuzzer.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;

#[path = "../../it/http_answers/play.rs"]
mod play;
#[path = "../../it/http_answers/strict.rs"]
mod strict;

thread_local! {
    static PLAYER: RefCell<play::Player> = RefCell::new(play::Player::new());
}

fuzz_target!(|input: &[u8]| {
    PLAYER.with_borrow_mut(|player| player.play(input));
});

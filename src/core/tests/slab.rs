//! Numbered places, as far as the tests beside them do not reach.

use crate::core::{Slab, Token};

#[test]
fn a_token_and_its_tag_fill_a_word_to_the_last_bit() {
    let mut token = Slab::starting_at(u32::MAX - 1).insert(());
    while token.pack(0).is_some() {
        token.index = token.index * 2 + 1;
    }
    token.index /= 2; // the last place that an event can name
    assert_eq!(token.pack_again(Token::MOST_TAG), Some(usize::MAX));
}

#[test]
fn a_slab_of_the_usual_size_keeps_its_places_when_the_last_one_leaves_and_a_larger_one_does_not() {
    let next_after = |count: u32| {
        let mut slab = Slab::new();
        let tokens: Vec<_> = (0..count).map(|n| slab.insert(n)).collect();
        tokens.into_iter().for_each(|token| _ = slab.remove(token));
        slab.insert(count).index
    };
    assert_eq!(next_after(64), 63, "the place that was left last is still there");
    assert_eq!(next_after(65), 0);
}

//! Numbered places that are used again, and lists threaded through them.

/// Names a place and who held it when the token was made: stale tokens find nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(crate) index: u32,
    generation: u32,
}

/// A token cut to fit one machine word, beside a tag: that is what an event of the system carries.
///
/// Of the generation only the low bits are left. They repeat after so many that no event waits
/// that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    index: u32,
    generation: u32,
    is_again: bool,
}

#[cfg(target_pointer_width = "64")]
const INDEX_BITS: u32 = 20;
#[cfg(target_pointer_width = "64")]
const GENERATION_BITS: u32 = 27;
#[cfg(not(target_pointer_width = "64"))]
const INDEX_BITS: u32 = 13;
#[cfg(not(target_pointer_width = "64"))]
const GENERATION_BITS: u32 = 10;

const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
const AGAIN: usize = 1 << (INDEX_BITS + GENERATION_BITS);

impl Token {
    /// The largest tag that fits beside a token.
    pub(crate) const MOST_TAG: u16 =
        ((1_u64 << (usize::BITS - INDEX_BITS - GENERATION_BITS - 1)) - 1) as u16;

    /// The token as a number.
    pub(crate) fn number(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// Puts the token and a tag in one word; `None` if its place is too far up for that.
    pub(crate) fn pack(self, tag: u16) -> Option<usize> {
        if self.index >= 1 << INDEX_BITS {
            return None;
        }
        let generation = (self.generation & GENERATION_MASK) as usize;
        let above = (usize::from(tag) << (GENERATION_BITS + 1)) | generation;
        Some((above << INDEX_BITS) | self.index as usize)
    }

    /// The same, in a word that tells itself apart from the first.
    pub(crate) fn pack_again(self, tag: u16) -> Option<usize> {
        self.pack(tag).map(|word| word | AGAIN)
    }
}

impl Cut {
    /// Takes apart what [`Token::pack`] made.
    pub(crate) const fn unpack(word: usize) -> (u16, Self) {
        let index = (word & ((1 << INDEX_BITS) - 1)) as u32;
        let above = word >> INDEX_BITS;
        let generation = (above as u32) & GENERATION_MASK;
        let is_again = word & AGAIN != 0;
        ((above >> (GENERATION_BITS + 1)) as u16, Self { index, generation, is_again })
    }

    /// It was made by [`Token::pack_again`].
    pub(crate) const fn is_again(self) -> bool {
        self.is_again
    }
}

#[derive(Debug)]
pub(crate) struct Slab<N> {
    places: Vec<Place<N>>,
    /// Places free to be used again.
    free: Vec<u32>,
    /// Counted through the whole slab, so that places can be given back and made again.
    generation: u32,
}

#[derive(Debug)]
struct Place<N> {
    generation: u32,
    node: Option<N>,
}

impl<N> Slab<N> {
    pub(crate) const fn new() -> Self {
        Self::starting_at(0)
    }

    pub(crate) const fn starting_at(generation: u32) -> Self {
        Self { places: Vec::new(), free: Vec::new(), generation }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, node: N) -> Token {
        self.generation = self.generation.wrapping_add(1);
        let place = Place { generation: self.generation, node: Some(node) };
        let generation = place.generation;
        if let Some(index) = self.free.pop() {
            if let Some(free) = self.places.get_mut(index as usize) {
                *free = place;
                return Token { index, generation };
            }
        }
        if self.places.len() == self.places.capacity() {
            // A quarter more at a time: with thousands idle, twice as much would be mostly unused.
            self.places.reserve_exact((self.places.len() / 4).max(Self::KEEP));
        }
        let index = u32::try_from(self.places.len()).expect("limits keep slabs under 2^32 places");
        self.places.push(place);
        Token { index, generation }
    }

    #[inline(always)]
    pub(crate) fn get(&self, token: Token) -> Option<&N> {
        let place = self.places.get(token.index as usize)?;
        if place.generation == token.generation { place.node.as_ref() } else { None }
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut N> {
        let place = self.places.get_mut(token.index as usize)?;
        if place.generation == token.generation { place.node.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<N> {
        let place = self.places.get_mut(token.index as usize)?;
        if place.generation != token.generation {
            return None;
        }
        let node = place.node.take()?;
        self.free.push(token.index);
        if self.free.len() == self.places.len() && self.places.len() > Self::KEEP {
            // Nothing is left: give the memory of a busier time back.
            *self = Self::starting_at(self.generation);
        }
        Some(node)
    }

    /// Slabs of this size are not worth giving back.
    const KEEP: usize = 64;

    /// What stands at `index`, which a list or a handle says is taken.
    #[inline(always)]
    pub(crate) fn at(&self, index: u32) -> &N {
        let node = self.places.get(index as usize).and_then(|place| place.node.as_ref());
        node.expect("bug: a list or handle leads to an empty place")
    }

    #[inline(always)]
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut N {
        let node = self.places.get_mut(index as usize).and_then(|place| place.node.as_mut());
        node.expect("bug: a list or handle leads to an empty place")
    }

    /// Whoever stands at `index`, if anybody does.
    pub(crate) fn find_at(&self, index: u32) -> Option<&N> {
        self.places.get(index as usize)?.node.as_ref()
    }

    /// The token of whoever stands at `index` now.
    pub(crate) fn token(&self, index: u32) -> Token {
        let generation = self.places.get(index as usize).map_or(0, |place| place.generation);
        Token { index, generation }
    }

    /// The token of whoever stands at `index`, and himself.
    #[inline(always)]
    pub(crate) fn token_and(&mut self, index: u32) -> (Token, &mut N) {
        let place = self.places.get_mut(index as usize);
        let found = place.and_then(|place| {
            let token = Token { index, generation: place.generation };
            place.node.as_mut().map(|node| (token, node))
        });
        found.expect("bug: a list or handle leads to an empty place")
    }

    /// The token that was cut to this, if whoever it names still stands there.
    pub(crate) fn find(&self, cut: Cut) -> Option<Token> {
        let place = self.places.get(cut.index as usize)?;
        let is_same = place.generation & GENERATION_MASK == cut.generation;
        let generation = place.generation;
        (is_same && place.node.is_some()).then_some(Token { index: cut.index, generation })
    }

    pub(crate) fn indexes(&self) -> impl Iterator<Item = u32> + '_ {
        let taken = self.places.iter().enumerate().filter(|(_, place)| place.node.is_some());
        taken.map(|(index, _)| u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// No place is taken from here on.
    pub(crate) fn end(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &N> {
        self.places.iter().filter_map(|place| place.node.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_token_finds_nothing_once_its_place_is_used_again() {
        let mut slab = Slab::new();
        let first = slab.insert("a");
        assert_eq!(slab.remove(first), Some("a"));
        assert_eq!(slab.remove(first), None);
        let second = slab.insert("b");
        assert_eq!(second.index, first.index);
        assert_eq!((slab.get(first), slab.get(second)), (None, Some(&"b")));
    }

    #[test]
    fn a_token_survives_the_way_through_one_word_and_a_stale_one_finds_nothing() {
        let mut slab = Slab::new();
        let first = slab.insert("a");
        let word = first.pack(Token::MOST_TAG).unwrap();
        let (tag, cut) = Cut::unpack(word);
        assert_eq!((tag, slab.find(cut)), (Token::MOST_TAG, Some(first)));
        let (tag, again) = Cut::unpack(first.pack_again(Token::MOST_TAG).unwrap());
        assert_eq!((tag, slab.find(again)), (Token::MOST_TAG, Some(first)));
        assert!(again.is_again() && !cut.is_again());
        slab.remove(first);
        assert_eq!(slab.find(cut), None);
        let second = slab.insert("b");
        assert_eq!(second.index, first.index);
        assert_eq!(slab.find(cut), None);
        let (tag, cut) = Cut::unpack(second.pack(7).unwrap());
        assert_eq!((tag, slab.find(cut)), (7, Some(second)));
        assert_eq!(Token { index: u32::MAX, generation: 1 }.pack(1), None);
    }

    #[test]
    fn memory_of_a_busier_time_is_given_back_when_the_last_one_leaves() {
        let mut slab = Slab::new();
        let tokens: Vec<_> = (0..10_000).map(|n| slab.insert(n)).collect();
        for token in tokens {
            slab.remove(token);
        }
        assert_eq!(slab.len(), 0);
        assert_eq!(slab.places.capacity(), 0);
        assert_eq!(slab.insert(7).generation, 10_001, "no stale token finds the new place");
    }
}

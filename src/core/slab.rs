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

    /// The token of whoever stands at `index` now.
    pub(crate) fn token(&self, index: u32) -> Token {
        let generation = self.places.get(index as usize).map_or(0, |place| place.generation);
        Token { index, generation }
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = &N> {
        self.places.iter().filter_map(|place| place.node.as_ref())
    }
}

/// No place: the end of a list.
const END: u32 = u32::MAX;

/// A node's neighbours in one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Links {
    prev: u32,
    next: u32,
}

impl Links {
    pub(crate) const NONE: Self = Self { prev: END, next: END };
}

/// A node that can be in list number `L`, once.
pub(crate) trait Linked<const L: usize> {
    fn links(&self) -> &Links;
    fn links_mut(&mut self) -> &mut Links;
}

/// A list threaded through the nodes of a slab: push, pop and removal from the middle cost a few
/// stores each, and no memory.
#[derive(Debug)]
pub(crate) struct List<const L: usize> {
    head: u32,
    tail: u32,
    len: u32,
}

impl<const L: usize> List<L> {
    pub(crate) const fn new() -> Self {
        Self { head: END, tail: END, len: 0 }
    }

    #[inline(always)]
    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    #[inline(always)]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    pub(crate) const fn front(&self) -> Option<u32> {
        if self.head == END { None } else { Some(self.head) }
    }

    #[inline(always)]
    pub(crate) const fn back(&self) -> Option<u32> {
        if self.tail == END { None } else { Some(self.tail) }
    }

    #[inline(always)]
    pub(crate) fn push_back<N: Linked<L>>(&mut self, slab: &mut Slab<N>, index: u32) {
        *slab.at_mut(index).links_mut() = Links { prev: self.tail, next: END };
        if self.tail == END {
            self.head = index;
        } else {
            slab.at_mut(self.tail).links_mut().next = index;
        }
        self.tail = index;
        self.len += 1;
    }

    /// Puts a node in front of one that is in this list.
    pub(crate) fn insert_before<N: Linked<L>>(
        &mut self,
        slab: &mut Slab<N>,
        next: u32,
        index: u32,
    ) {
        let prev = std::mem::replace(&mut slab.at_mut(next).links_mut().prev, index);
        *slab.at_mut(index).links_mut() = Links { prev, next };
        if prev == END {
            self.head = index;
        } else {
            slab.at_mut(prev).links_mut().next = index;
        }
        self.len += 1;
    }

    /// Takes out a node that is in this list.
    #[inline(always)]
    pub(crate) fn remove<N: Linked<L>>(&mut self, slab: &mut Slab<N>, index: u32) {
        let links = std::mem::replace(slab.at_mut(index).links_mut(), Links::NONE);
        if links.prev == END {
            debug_assert_eq!(self.head, index, "bug: the node is in no list, or in another");
            self.head = links.next;
        } else {
            slab.at_mut(links.prev).links_mut().next = links.next;
        }
        if links.next == END {
            debug_assert_eq!(self.tail, index, "bug: the node is in no list, or in another");
            self.tail = links.prev;
        } else {
            slab.at_mut(links.next).links_mut().prev = links.prev;
        }
        self.len -= 1;
    }

    /// Takes out a node that is to come back to its place: it remembers who comes after it.
    pub(crate) fn lift<N: Linked<L>>(&mut self, slab: &mut Slab<N>, index: u32) {
        let next = slab.at(index).links().next;
        self.remove(slab, index);
        slab.at_mut(index).links_mut().next = next;
    }

    /// Puts a node into a list that is in the order of ranks, which no two share. `look` tells of a
    /// node its rank, and whether it is in this list.
    ///
    /// The place that it was [lifted](List::lift) from is looked at first: seldom is it another.
    pub(crate) fn lay_back<N: Linked<L>>(
        &mut self,
        slab: &mut Slab<N>,
        index: u32,
        look: impl Fn(&N) -> (u64, bool),
    ) {
        let (own, _) = look(slab.at(index));
        let is_after = |at: u32| look(slab.at(at)).0 > own;
        let remembered = slab.at(index).links().next;
        let prev = if remembered == END {
            self.tail
        } else {
            let node = slab.places.get(remembered as usize).and_then(|place| place.node.as_ref());
            let is_next = |node: &N| look(node).1 && is_after(remembered);
            node.filter(|node| is_next(node)).map_or(index, |node| node.links().prev)
        };
        let is_there = prev != index && (prev == END || !is_after(prev));
        let next = if is_there {
            Some(remembered).filter(|&next| next != END)
        } else {
            self.iter(slab).find(|&at| is_after(at))
        };
        match next {
            Some(next) => self.insert_before(slab, next, index),
            None => self.push_back(slab, index),
        }
    }

    #[inline(always)]
    pub(crate) fn next<N: Linked<L>>(&self, slab: &Slab<N>, index: u32) -> Option<u32> {
        let next = slab.at(index).links().next;
        if next == END { None } else { Some(next) }
    }

    /// From the front to the back.
    pub(crate) fn iter<'s, N: Linked<L>>(
        &self,
        slab: &'s Slab<N>,
    ) -> impl Iterator<Item = u32> + use<'s, N, L> {
        let first = self.front();
        std::iter::successors(first, move |&index| {
            let next = slab.at(index).links().next;
            if next == END { None } else { Some(next) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node(Links);

    impl Linked<0> for Node {
        fn links(&self) -> &Links {
            &self.0
        }
        fn links_mut(&mut self) -> &mut Links {
            &mut self.0
        }
    }

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

    #[test]
    fn a_node_is_put_in_front_of_the_first_or_of_one_in_the_middle() {
        let mut slab = Slab::new();
        let mut list = List::<0>::new();
        let add = |slab: &mut Slab<Node>| slab.insert(Node(Links::NONE)).index;
        let [first, last] = [add(&mut slab), add(&mut slab)];
        list.push_back(&mut slab, first);
        list.push_back(&mut slab, last);
        let [front, middle] = [add(&mut slab), add(&mut slab)];
        list.insert_before(&mut slab, first, front);
        list.insert_before(&mut slab, last, middle);
        assert_eq!(list.iter(&slab).collect::<Vec<_>>(), [front, first, middle, last]);
        assert_eq!((list.front(), list.back(), list.len()), (Some(front), Some(last), 4));
        // Their neighbours know it, too.
        list.remove(&mut slab, first);
        list.remove(&mut slab, front);
        assert_eq!(list.iter(&slab).collect::<Vec<_>>(), [middle, last]);
    }

    /// What is left of `order` and came back to it, after some were lifted and others moved.
    fn lifted(moves: impl Fn(&mut Slab<Ranked>, &mut List<0>)) -> Vec<u32> {
        let mut slab = Slab::new();
        let mut list = List::new();
        for rank in 0..5 {
            let token = slab.insert(Ranked { rank, is_in: true, links: Links::NONE });
            list.push_back(&mut slab, token.index);
        }
        moves(&mut slab, &mut list);
        let order: Vec<u32> = list.iter(&slab).collect();
        let ranks = |index: &u32| slab.at(*index).rank;
        assert!(order.is_sorted_by_key(ranks), "{order:?}");
        assert_eq!(order.len(), list.len());
        order
    }

    struct Ranked {
        rank: u64,
        is_in: bool,
        links: Links,
    }

    impl Linked<0> for Ranked {
        fn links(&self) -> &Links {
            &self.links
        }
        fn links_mut(&mut self) -> &mut Links {
            &mut self.links
        }
    }

    fn lift(slab: &mut Slab<Ranked>, list: &mut List<0>, index: u32) {
        list.lift(slab, index);
        slab.at_mut(index).is_in = false;
    }

    fn lay_back(slab: &mut Slab<Ranked>, list: &mut List<0>, index: u32) {
        list.lay_back(slab, index, |node| (node.rank, node.is_in));
        slab.at_mut(index).is_in = true;
    }

    #[test]
    fn a_node_that_was_lifted_comes_back_to_its_place_whatever_became_of_its_neighbours() {
        for at in 0..5 {
            let order = lifted(|slab, list| {
                lift(slab, list, at);
                lay_back(slab, list, at);
            });
            assert_eq!(order, [0, 1, 2, 3, 4]);
        }
        // Two neighbours, one after the other.
        for (first, second) in [(1, 2), (2, 1), (3, 4), (0, 1)] {
            let order = lifted(|slab, list| {
                lift(slab, list, first);
                lift(slab, list, second);
                lay_back(slab, list, first);
                lay_back(slab, list, second);
            });
            assert_eq!(order, [0, 1, 2, 3, 4]);
        }
        // The one after it is the newest by now, or gone and another in its place.
        let order = lifted(|slab, list| {
            lift(slab, list, 2);
            list.remove(slab, 3);
            slab.at_mut(3).rank = 9;
            list.push_back(slab, 3);
            lay_back(slab, list, 2);
        });
        assert_eq!(order, [0, 1, 2, 4, 3]);
        let order = lifted(|slab, list| {
            lift(slab, list, 4);
            lift(slab, list, 3);
            let token = slab.token(4);
            slab.remove(token);
            lay_back(slab, list, 3);
            let token = slab.insert(Ranked { rank: 7, is_in: true, links: Links::NONE });
            list.push_back(slab, token.index);
        });
        assert_eq!(order.len(), 5);
    }

    #[test]
    fn a_node_leaves_from_the_front_the_middle_and_the_back() {
        let mut slab = Slab::new();
        let mut list = List::<0>::new();
        for _ in 0..5 {
            let token = slab.insert(Node(Links::NONE));
            list.push_back(&mut slab, token.index);
        }
        let order = |list: &List<0>, slab: &Slab<Node>| list.iter(slab).collect::<Vec<_>>();
        list.remove(&mut slab, 2);
        assert_eq!(order(&list, &slab), [0, 1, 3, 4]);
        list.remove(&mut slab, 0);
        list.remove(&mut slab, 4);
        assert_eq!(order(&list, &slab), [1, 3]);
        assert_eq!((list.front(), list.back(), list.len()), (Some(1), Some(3), 2));
        list.remove(&mut slab, 1);
        list.remove(&mut slab, 3);
        assert!(list.is_empty() && list.front().is_none() && list.back().is_none());
    }
}

//! Lists threaded through the nodes of a slab.

use crate::core::slab::Slab;

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
            let is_next = |node: &&N| look(node).1 && is_after(remembered);
            slab.find_at(remembered).filter(is_next).map_or(index, |node| node.links().prev)
        };
        let is_there = prev != index && (prev == END || !is_after(prev));
        let next = if is_there {
            Some(remembered).filter(|&next| next != END)
        } else if remembered == END {
            // It was the newest, or would be: others have come behind it since.
            let (mut next, mut at) = (END, self.tail);
            while at != END && is_after(at) {
                (next, at) = (at, slab.at(at).links().prev);
            }
            Some(next).filter(|&next| next != END)
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

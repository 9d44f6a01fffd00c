//! Room to open connections, as values.

/// Room for one connection under `max_total`.
///
/// Made by [`Permits::take`] and ended by [`Permits::give_back`], nowhere else; an entry owns
/// exactly one from its first moment to its last.
#[derive(Debug)]
#[must_use = "a permit that is dropped is room lost for ever"]
pub(crate) struct Permit(());

#[derive(Debug)]
pub(crate) struct Permits {
    most: usize,
    taken: usize,
}

impl Permits {
    pub(crate) const fn new(most: usize) -> Self {
        Self { most, taken: 0 }
    }

    pub(crate) fn take(&mut self) -> Option<Permit> {
        if self.taken >= self.most {
            return None;
        }
        self.taken += 1;
        Some(Permit(()))
    }

    #[expect(clippy::needless_pass_by_value, reason = "this is the end of a permit")]
    pub(crate) fn give_back(&mut self, permit: Permit) {
        let Permit(()) = permit;
        self.taken -= 1;
    }

    /// What was taken beyond that stays so until it is given back.
    pub(crate) const fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// More were taken, before that was lowered, than there may be now.
    pub(crate) const fn is_exceeded(&self) -> bool {
        self.taken > self.most
    }

    pub(crate) const fn taken(&self) -> usize {
        self.taken
    }

    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    pub(crate) const fn is_available(&self) -> bool {
        self.taken < self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_permits_out_than_allowed() {
        let mut permits = Permits::new(2);
        let (one, two) = (permits.take(), permits.take());
        assert!(permits.take().is_none());
        permits.give_back(one.unwrap());
        assert!(permits.is_available() && permits.take().is_some());
        permits.give_back(two.unwrap());
        assert_eq!((permits.taken(), permits.most()), (1, 2));
    }
}

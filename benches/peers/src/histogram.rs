//! Counts of durations, cheap enough to be kept per thread.

/// Buckets per power of two: a percentile is at most 1.6 % too high.
const STEPS: u64 = 64;
const BITS: u32 = STEPS.trailing_zeros();

/// A histogram of nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = (u64::BITS - BITS + 1) as usize * STEPS as usize;
        Self { buckets: vec![0; buckets], count: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn add(&mut self, value: u64) {
        self.buckets[bucket(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Counts what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many values were counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The largest value counted.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The value that a share `p` (0 to 1) of all values does not exceed; 0 if there are none.
    #[must_use]
    pub fn percentile(&self, p: f64) -> u64 {
        let rank = (p * self.count as f64).ceil() as u64;
        let mut seen = 0;
        let reaches = |&(_, &count): &(usize, &u64)| {
            seen += count;
            seen >= rank
        };
        let found = self.buckets.iter().enumerate().find(reaches);
        found.map_or(0, |(index, _)| highest(index).min(self.max))
    }
}

/// Values below `STEPS` have a bucket each; above, `STEPS` of them share each power of two.
fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
    ((u64::from(shift) << BITS) + (value >> shift)) as usize
}

/// The highest value that falls into a bucket.
fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> BITS).saturating_sub(1);
    let first = (bucket - (shift << BITS)) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_highest_value_and_not_the_next() {
        for value in (0..5_000).chain([1 << 20, u64::MAX / 3]) {
            let top = highest(bucket(value));
            assert!(top >= value && top - value <= value / STEPS, "{value}: {top}");
            assert_eq!(bucket(top), bucket(value));
            assert_eq!(bucket(top + 1), bucket(value) + 1);
        }
        assert!(bucket(u64::MAX) < Histogram::default().buckets.len());
    }

    #[test]
    fn percentiles_of_known_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), 0);
        (1..=50).for_each(|value| histogram.add(value));
        assert_eq!((histogram.percentile(0.5), histogram.percentile(1.0)), (25, 50));
    }
}

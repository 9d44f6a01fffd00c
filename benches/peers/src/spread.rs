//! Medians, and how far to trust them.

use std::fmt;

/// Where the values of several rounds lie.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// A tenth of the values are below.
    pub p10: f64,
    /// The middle value.
    pub median: f64,
    /// A tenth of the values are above.
    pub p90: f64,
}

impl Spread {
    /// Of at least one value.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let values = Vec::from_iter(values);
        let at = |share| percentile(&values, share);
        Self { p10: at(0.1), median: at(0.5), p90: at(0.9) }
    }

    /// Of the ratios of values that were taken in the same round.
    #[must_use]
    pub fn of_ratios(of: &[f64], to: &[f64]) -> Self {
        Self::of(of.iter().zip(to).map(|(of, to)| of / to))
    }
}

/// The value that a `share` (0 to 1) of `values` does not exceed; between two of them, in proportion.
///
/// # Panics
///
/// If there are none.
#[must_use]
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let place = share * (values.len() - 1) as f64;
    let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// The noise, `p10..p90`, with the precision asked for.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        write!(f, "p10..p90={:.digits$}..{:.digits$}", self.p10, self.p90)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_of_values_lies_between_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!((spread.median, spread.to_string()), (2.5, "p10..p90=1.3..3.7".to_owned()));
    }
}

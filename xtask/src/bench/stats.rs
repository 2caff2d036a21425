//! This module sums up repeated measurements.

use serde::Serialize;

/// The samples of one quantity, measured several times.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Returns the sample in the middle; of an even number the mean of the two in the middle; 0 of
    /// none.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let upper = sorted.len() / 2;
        match (sorted.get(upper.wrapping_sub(1)), sorted.get(upper)) {
            (Some(lower), Some(upper)) if sorted.len().is_multiple_of(2) => {
                f64::midpoint(*lower, *upper)
            }
            (_, Some(middle)) => *middle,
            _ => 0.0,
        }
    }

    /// Returns half the distance from the smallest to the largest, as a part of the median; 0 where
    /// there is none.
    pub(crate) fn spread(&self) -> f64 {
        let sorted = self.sorted();
        match (sorted.first(), sorted.last(), self.median()) {
            (Some(first), Some(last), median) if median != 0.0 => {
                (last - first) / 2.0 / median.abs()
            }
            _ => 0.0,
        }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// Returns `a / b`, or none where that says nothing.
pub(crate) fn ratio(a: f64, b: f64) -> Option<f64> {
    let ratio = a / b;
    (b > 0.0 && ratio.is_finite()).then_some(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let median = |values: &[f64]| values.iter().copied().collect::<Samples>().median();
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert_eq!(median(&[]), 0.0);
        // A single disturbed sample changes nothing.
        assert_eq!(median(&[10.0, 10.0, 0.001]), 10.0);
    }

    #[test]
    fn spread_is_relative_to_the_median() {
        let samples: Samples = [9.0, 10.0, 11.0].into_iter().collect();
        assert!((samples.spread() - 0.1).abs() < 1e-9);
        assert_eq!(Samples::default().spread(), 0.0);
        assert_eq!([0.0, 0.0].into_iter().collect::<Samples>().spread(), 0.0);
    }

    #[test]
    fn ratios_that_say_nothing_are_none() {
        assert_eq!(ratio(3.0, 2.0), Some(1.5));
        assert_eq!(ratio(3.0, 0.0), None);
        assert_eq!(ratio(0.0, 0.0), None);
        assert_eq!(ratio(f64::NAN, 1.0), None);
    }
}

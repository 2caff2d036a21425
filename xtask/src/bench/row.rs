//! This module describes a line of the result: a quantity, ours and a peer's, and the bound of
//! their ratio.

use std::fmt;

use serde::Serialize;

use super::stats::{Samples, ratio};

/// The bound of a row. The ratio is ours divided by theirs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reach {
    /// The ratio must be at least this.
    AtLeast(f64),
    /// The ratio must be at most this.
    AtMost(f64),
    /// The ratio must be at most this far from 1.
    Within(f64),
    /// Our figure itself must be at most this: there is no peer.
    OursAtMost(f64),
}

impl Reach {
    /// Returns `None` if there is nothing to compare.
    fn judge(self, ours: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::AtLeast(bound) => ratio.map(|ratio| ratio >= bound),
            Self::AtMost(bound) => ratio.map(|ratio| ratio <= bound),
            // A bound of 3 % includes 3 %, whatever its binary fraction says.
            Self::Within(bound) => ratio.map(|ratio| (ratio - 1.0).abs() <= bound + 1e-9),
            Self::OursAtMost(bound) => Some(ours <= bound),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
            Self::AtMost(bound) => write!(f, "<= {bound}"),
            Self::Within(bound) => write!(f, "{:.2} to {:.2}", 1.0 - bound, 1.0 + bound),
            Self::OursAtMost(bound) => write!(f, "ours <= {bound}"),
        }
    }
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Name of the group of measurements, as `--only` takes it.
    pub(crate) group: &'static str,
    /// Name of what was measured.
    pub(crate) case: String,
    pub(crate) unit: &'static str,
    /// Median of our samples.
    pub(crate) ours: f64,
    /// Name of the peer.
    pub(crate) peer: Option<String>,
    /// Median of the peer's samples.
    pub(crate) theirs: Option<f64>,
    /// Ours divided by theirs.
    pub(crate) ratio: Option<f64>,
    /// Bound of the ratio, if there is one.
    pub(crate) reach: Option<String>,
    /// True if the ratio reaches its bound; `None` without a bound.
    pub(crate) ok: Option<bool>,
    /// Samples of ours, in the order taken.
    pub(crate) our_samples: Samples,
    /// Samples of theirs; the n-th was taken right after our n-th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) their_samples: Option<Samples>,
    /// Note for the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

impl Row {
    /// Returns a quantity of ours that nothing is compared with yet.
    pub(crate) fn new(
        group: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        ours: Samples,
    ) -> Self {
        Self {
            group,
            case: case.into(),
            unit,
            ours: ours.median(),
            peer: None,
            theirs: None,
            ratio: None,
            reach: None,
            ok: None,
            our_samples: ours,
            their_samples: None,
            note: None,
        }
    }

    pub(crate) fn against(mut self, peer: impl Into<String>, theirs: Samples) -> Self {
        self.peer = Some(peer.into());
        self.theirs = Some(theirs.median());
        self.ratio = ratio(self.ours, theirs.median());
        self.their_samples = Some(theirs);
        self
    }

    /// States the bound; called last.
    pub(crate) fn reach(mut self, reach: Reach) -> Self {
        self.reach = Some(reach.to_string());
        self.ok = Some(reach.judge(self.ours, self.ratio).unwrap_or(false));
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, theirs: f64, reach: Reach) -> Row {
        let samples = |value| [value].into_iter().collect::<Samples>();
        Row::new("raw64", "x", "Mframes/s", samples(ours))
            .against("y", samples(theirs))
            .reach(reach)
    }

    #[test]
    fn bounds_are_judged_and_say_which_way_they_go() {
        let rows = [
            (row(3.0, 2.0, Reach::AtLeast(1.5)), ">= 1.5", true),
            (row(2.9, 2.0, Reach::AtLeast(1.5)), ">= 1.5", false),
            (row(1.0, 2.0, Reach::AtMost(0.5)), "<= 0.5", true),
            (row(1.1, 2.0, Reach::AtMost(0.5)), "<= 0.5", false),
            (row(1.03, 1.0, Reach::Within(0.03)), "0.97 to 1.03", true),
            (row(0.96, 1.0, Reach::Within(0.03)), "0.97 to 1.03", false),
            (row(0.0, 0.0, Reach::OursAtMost(10.0)), "ours <= 10", true),
        ];
        for (row, text, ok) in rows {
            assert_eq!((row.reach.as_deref(), row.ok), (Some(text), Some(ok)), "{row:?}");
        }
    }

    #[test]
    fn a_bound_on_nothing_is_not_met() {
        let row = row(1.0, 0.0, Reach::AtLeast(0.1));
        assert_eq!((row.ratio, row.ok), (None, Some(false)));
    }
}

//! Medians, percentiles and ratios of what was measured.

use serde::Serialize;

/// The figures of several runs, one a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Runs(Vec<f64>);

impl Runs {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// The figure in the middle; NaN without runs.
    pub(crate) fn median(&self) -> f64 {
        percentile(&self.0, 50.0)
    }

    pub(crate) fn lowest(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn highest(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Median by median.
    pub(crate) fn ratio(&self, to: &Self) -> f64 {
        self.median() / to.median()
    }
}

/// The p-th percentile, between the two nearest samples in proportion; NaN without samples.
pub(crate) fn percentile(samples: &[f64], p: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    #[expect(clippy::cast_precision_loss, reason = "far fewer samples than 2^52")]
    let place = last as f64 * p.clamp(0.0, 100.0) / 100.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the last index")]
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_samples() {
        let samples = [4.0, 1.0, 3.0, 2.0];
        assert!((percentile(&samples, 50.0) - 2.5).abs() < 1e-9);
        assert!((percentile(&samples, 0.0) - 1.0).abs() < 1e-9);
        assert!((percentile(&samples, 100.0) - 4.0).abs() < 1e-9);
        assert!((percentile(&[7.0], 99.0) - 7.0).abs() < 1e-9);
        assert!(percentile(&[], 50.0).is_nan());
    }

    #[test]
    fn a_ratio_is_of_medians() {
        let (ours, floor) = (Runs(vec![9.0, 2.0, 4.0]), Runs(vec![1.0, 2.0, 100.0]));
        assert!((ours.ratio(&floor) - 2.0).abs() < 1e-9);
        assert!((ours.lowest() - 2.0).abs() < 1e-9 && (ours.highest() - 9.0).abs() < 1e-9);
    }
}

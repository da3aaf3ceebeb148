//! The table: what was measured, beside what, and whether that is enough.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use crate::stats::Runs;

/// What a figure shall be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub(crate) enum Target {
    /// Ours divided by the other side's, at most.
    RatioAtMost(f64),
    /// Ours divided by the other side's, at least.
    RatioAtLeast(f64),
    /// Below the other side.
    Below,
    /// Above the other side.
    Above,
    /// In the figure's own unit.
    AtMost(f64),
}

impl Target {
    fn met(self, ours: f64, ratio: Option<f64>) -> bool {
        match self {
            Self::RatioAtMost(most) => ratio.is_some_and(|ratio| ratio <= most),
            Self::RatioAtLeast(least) => ratio.is_some_and(|ratio| ratio >= least),
            Self::Below => ratio.is_some_and(|ratio| ratio < 1.0),
            Self::Above => ratio.is_some_and(|ratio| ratio > 1.0),
            Self::AtMost(most) => ours <= most,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioAtMost(most) => write!(f, "≤ {most}×"),
            Self::RatioAtLeast(least) => write!(f, "≥ {least}×"),
            Self::Below => f.write_str("< 1×"),
            Self::Above => f.write_str("> 1×"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
        }
    }
}

/// What ours stands beside.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Other {
    /// `floor`, `peer`, or what else it is.
    pub(crate) name: &'static str,
    /// Its figures, from the same rounds.
    pub(crate) runs: Runs,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) figure: String,
    /// In what.
    pub(crate) unit: &'static str,
    /// One figure a run.
    pub(crate) ours: Runs,
    /// What it is compared with, if with anything.
    pub(crate) other: Option<Other>,
    /// What it shall be.
    pub(crate) target: Target,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.other.as_ref().map(|other| self.ours.ratio(&other.runs))
    }

    /// Everything, with what follows from it.
    pub(crate) fn json(&self) -> Value {
        let Self { figure, unit, ours, other, target } = self;
        json!({
            "figure": figure, "unit": unit, "ours": ours, "median": ours.median(), "other": other,
            "ratio": self.ratio(), "target": target, "met": self.met(),
        })
    }

    /// Whether the target is met, by medians.
    pub(crate) fn met(&self) -> bool {
        self.target.met(self.ours.median(), self.ratio())
    }
}

/// What a figure prints.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    /// It was measured.
    Measured(Row),
    /// It could not be: no target is met by that.
    LeftOut {
        /// What was to be measured.
        figure: String,
        /// Why it was not.
        why: String,
    },
}

impl Line {
    /// Everything, with what follows from it.
    pub(crate) fn json(&self) -> Value {
        match self {
            Self::Measured(row) => row.json(),
            Self::LeftOut { figure, why } => json!({ "figure": figure, "left_out": why, "met": false }),
        }
    }

    /// Whether the target is met.
    pub(crate) fn met(&self) -> bool {
        matches!(self, Self::Measured(row) if row.met())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Measured(row) => row.fmt(f),
            Self::LeftOut { figure, why } => write!(f, "| {figure} | left out: {why} | | | | **not met** |"),
        }
    }
}

/// The table's head, in Markdown.
pub(crate) const HEAD: &str =
    "| figure | Signet | beside | ratio | target | |\n| --- | --- | --- | --- | --- | --- |";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { figure, unit, ours, other, target } = self;
        let beside = other.as_ref().map(|o| format!("{} {}", o.name, shown(&o.runs, unit)));
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}×"));
        let (beside, ratio) = (beside.unwrap_or_default(), ratio.unwrap_or_default());
        let met = if self.met() { "met" } else { "**missed**" };
        let target = match target {
            Target::AtMost(_) => format!("{target} {unit}"),
            _ => target.to_string(),
        };
        write!(f, "| {figure} | {} | {beside} | {ratio} | {target} | {met} |", shown(ours, unit))
    }
}

/// Median, unit, and the range in brackets.
fn shown(runs: &Runs, unit: &str) -> String {
    let short = |figure: f64| match figure.abs() {
        large if large >= 100.0 => format!("{figure:.0}"),
        middle if middle >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    };
    format!("{} {unit} [{} to {}]", short(runs.median()), short(runs.lowest()), short(runs.highest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(figures: &[f64]) -> Runs {
        let mut runs = Runs::new();
        figures.iter().for_each(|figure| runs.push(*figure));
        runs
    }

    fn row(target: Target) -> Row {
        let other = Some(Other { name: "floor", runs: runs(&[2.0]) });
        Row { figure: "x".into(), unit: "ms", ours: runs(&[3.0, 4.0, 150.0]), other, target }
    }

    #[test]
    fn targets_are_met_by_medians() {
        for (target, met) in [
            (Target::RatioAtMost(2.0), true),
            (Target::RatioAtMost(1.9), false),
            (Target::RatioAtLeast(2.0), true),
            (Target::RatioAtLeast(2.1), false),
            (Target::Above, true),
            (Target::Below, false),
            (Target::AtMost(4.0), true),
            (Target::AtMost(3.9), false),
        ] {
            assert_eq!(row(target).met(), met, "{target}");
        }
        assert!(!Row { other: None, ..row(Target::Above) }.met(), "without a ratio nothing is shown");
    }

    #[test]
    fn what_is_left_out_says_why_and_is_not_met() {
        let line = Line::LeftOut { figure: "x".into(), why: "not root".into() };
        assert_eq!(line.to_string(), "| x | left out: not root | | | | **not met** |");
        assert!(!line.met() && line.json()["met"] == false && line.json()["left_out"] == "not root");
        assert!(Line::Measured(row(Target::RatioAtMost(2.0))).met());
    }

    #[test]
    fn a_row_is_markdown() {
        let text = row(Target::RatioAtMost(2.0)).to_string();
        assert_eq!(text, "| x | 4.00 ms [3.00 to 150] | floor 2.00 ms [2.00 to 2.00] | 2.00× | ≤ 2× | met |");
    }
}

//! What is known of one column after each row.

use super::super::table::{Cell, Kind};
use super::report::{ColumnReport, Histogram, Numbers, TopValue};
use super::sketch::{Sketch, part_of};
use super::values::Values;
use super::{AnalysisParams, HistogramAsked};

/// As many numbers as are held to give exact quantiles.
const EXACT: usize = 10_000;
/// How much of a text is shown, in characters.
const SHOWN: usize = 100;

/// Mean and variance of a stream (Welford), with its smallest and largest value.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments {
    pub(super) count: u64,
    mean: f64,
    squares: f64,
    sum: f64,
    /// What was lost of the sum by rounding (Neumaier).
    lost: f64,
    min: f64,
    max: f64,
}

impl Moments {
    pub(super) fn add(&mut self, value: f64) {
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        }
        self.count += 1;
        let off = value - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (value - self.mean);
        let sum = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        self.sum = sum;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// In figures; none without numbers.
    pub(super) fn report(&self) -> Option<Numbers> {
        if self.count == 0 {
            return None;
        }
        let finite = |figure: f64| figure.is_finite().then_some(figure);
        // Of one number alone nothing is known about how numbers vary.
        let variance = (self.count > 1).then(|| self.squares / (self.count - 1) as f64);
        let variance = variance.and_then(finite).map(|variance| variance.max(0.0));
        Some(Numbers {
            count: self.count,
            sum: finite(self.sum + self.lost),
            min: self.min,
            max: self.max,
            mean: finite(self.mean),
            variance,
            deviation: variance.map(f64::sqrt),
        })
    }
}

/// One column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    count: u64,
    missing: u64,
    /// Cells that are neither numbers nor missing.
    others: u64,
    moments: Moments,
    sketch: Sketch,
    values: Values,
    least: Option<String>,
    greatest: Option<String>,
    histogram: Option<Counted>,
}

/// A histogram between bounds that are known before.
#[derive(Debug, Clone)]
struct Counted {
    low: f64,
    high: f64,
    parts: Vec<u64>,
    below: u64,
    above: u64,
}

impl Column {
    /// A column that was not there in so many rows.
    pub(super) fn new(missing: u64, histogram: Option<&HistogramAsked>) -> Self {
        let bounds = histogram.and_then(|asked| Some((asked.min?, asked.max?, asked.bins)));
        let histogram = bounds.map(|(low, high, bins)| Counted { low, high, parts: vec![0; bins], below: 0, above: 0 });
        Self {
            count: 0,
            missing,
            others: 0,
            moments: Moments::default(),
            sketch: Sketch::new(EXACT),
            values: Values::new(),
            least: None,
            greatest: None,
            histogram,
        }
    }

    /// Takes one cell; gives its number.
    pub(super) fn add(&mut self, cell: &Cell) -> Option<f64> {
        if cell.is_missing() {
            self.missing += 1;
            return None;
        }
        self.count += 1;
        self.values.add(&cell.text);
        let Some(number) = cell.number() else {
            self.others += 1;
            self.bound(cell);
            return None;
        };
        let number = number.real();
        self.moments.add(number);
        self.sketch.add(number);
        if let Some(counted) = &mut self.histogram {
            match part_of(number, counted.low, counted.high, counted.parts.len()) {
                Some(part) => counted.parts[part] += 1,
                None if number < counted.low => counted.below += 1,
                None => counted.above += 1,
            }
        }
        Some(number)
    }

    /// The smallest and the largest text.
    fn bound(&mut self, cell: &Cell) {
        if cell.kind == Kind::Nested {
            return;
        }
        if self.least.as_ref().is_none_or(|least| cell.text < *least) {
            self.least = Some(cell.text.clone());
        }
        if self.greatest.as_ref().is_none_or(|greatest| cell.text > *greatest) {
            self.greatest = Some(cell.text.clone());
        }
    }

    /// In figures.
    pub(super) fn report(&self, name: &str, params: &AnalysisParams) -> ColumnReport {
        let numbers = self.moments.report();
        let quantiles = numbers.as_ref().map(|_| {
            let values = self.sketch.quantiles(&params.quantiles);
            params.quantiles.iter().map(|fraction| label(*fraction)).zip(values).collect()
        });
        let kind = match (self.count, self.moments.count, self.others) {
            (0, _, _) => "empty",
            (_, _, 0) => "number",
            (_, 0, _) => "text",
            _ => "mixed",
        };
        let top = self.values.top(params.top).into_iter();
        ColumnReport {
            name: name.to_owned(),
            kind: kind.to_owned(),
            count: self.count,
            missing: self.missing,
            // An estimate may be more than there is.
            distinct: self.values.distinct().min(self.count),
            distinct_exact: self.values.is_exact(),
            least: self.least.as_deref().map(cut),
            greatest: self.greatest.as_deref().map(cut),
            quantiles_exact: numbers.is_some().then(|| self.sketch.is_exact()),
            histogram: self.histogram_of(name, numbers.as_ref(), params),
            numbers,
            quantiles,
            top: top.map(|top| TopValue { value: top.value, count: top.count, over: top.over }).collect(),
        }
    }

    fn histogram_of(&self, name: &str, numbers: Option<&Numbers>, params: &AnalysisParams) -> Option<Histogram> {
        if let Some(Counted { low, high, parts, below, above }) = self.histogram.clone() {
            return Some(Histogram { min: low, max: high, counts: parts, below, above, exact: true });
        }
        let asked = params.histograms.iter().find(|asked| asked.column == name)?;
        let numbers = numbers?;
        // A bound beyond all numbers leaves none between the two: they are one then.
        let (low, high) = match (asked.min, asked.max) {
            (Some(low), _) => (low, numbers.max.max(low)),
            (None, Some(high)) => (numbers.min.min(high), high),
            (None, None) => (numbers.min, numbers.max),
        };
        let (counts, below, above) = self.sketch.histogram(low, high, asked.bins);
        Some(Histogram { min: low, max: high, counts, below, above, exact: self.sketch.is_exact() })
    }
}

/// What a quantile is called: `p50` for one half. The point is moved in the shortest text of the fraction, so that no two
/// have one name.
fn label(fraction: f64) -> String {
    let text = fraction.abs().to_string();
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{rest:0<2}");
    let (percent, rest) = digits.split_at(2);
    let percent = format!("{whole}{percent}");
    let percent = percent.trim_start_matches('0');
    let percent = if percent.is_empty() { "0" } else { percent };
    if rest.is_empty() { format!("p{percent}") } else { format!("p{percent}.{rest}") }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_right_far_from_nought() {
        let mut moments = Moments::default();
        for value in [4.0, 7.0, 13.0, 16.0] {
            moments.add(1e9 + value);
        }
        let numbers = moments.report().unwrap();
        assert_eq!((numbers.mean, numbers.variance), (Some(1e9 + 10.0), Some(30.0)));
        assert_eq!(Moments::default().report(), None);
    }

    #[test]
    fn quantiles_are_called_by_percents() {
        let labels = [0.5, 0.01, 0.999, 1.0, 0.29, 0.0, -0.0, 0.001, 1e-10].map(label);
        assert_eq!(labels, ["p50", "p1", "p99.9", "p100", "p29", "p0", "p0", "p0.1", "p0.00000001"]);
    }
}

//! A figure beside its limit, and the table of all of them.

use std::fmt::Write;

/// What a figure should reach.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// The figure itself at least this.
    AtLeast(f64),
    /// The figure itself at most this.
    AtMost(f64),
    /// The ratio to the limit at least this.
    RatioAtLeast(f64),
    /// The ratio to the limit at most this.
    RatioAtMost(f64),
    /// Shown for comparison.
    None,
}

/// One line of the table.
#[derive(Debug)]
pub struct Figure {
    /// The point of the issue, a letter.
    pub point: char,
    /// What was measured.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// In this unit.
    pub unit: &'static str,
    /// What it is compared with, from the same run, and that one's value.
    pub limit: Option<(&'static str, f64)>,
    /// The ratio, where it is not the plain quotient: a median of ratios says more than a ratio of medians.
    pub ratio: Option<f64>,
    /// What it should be.
    pub target: Target,
}

impl Figure {
    /// A figure that stands alone.
    pub fn new(point: char, name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { point, name: name.into(), value, unit, limit: None, ratio: None, target: Target::None }
    }

    /// Puts it beside its limit.
    pub fn of(mut self, name: &'static str, limit: f64) -> Self {
        self.limit = Some((name, limit));
        self
    }

    /// Gives the ratio, measured by itself.
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = Some(ratio);
        self
    }

    /// Says what it should be.
    pub fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    fn quotient(&self) -> Option<f64> {
        self.ratio.or_else(|| self.limit.map(|(_, limit)| self.value / limit))
    }

    /// Whether the target is met; nothing if there is none.
    pub fn is_met(&self) -> Option<bool> {
        match self.target {
            Target::None => None,
            Target::AtLeast(least) => Some(self.value >= least),
            Target::AtMost(most) => Some(self.value <= most),
            Target::RatioAtLeast(least) => self.quotient().map(|ratio| ratio >= least),
            Target::RatioAtMost(most) => self.quotient().map(|ratio| ratio <= most),
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::None => String::new(),
            Target::AtLeast(least) => format!(">= {}", short(least)),
            Target::AtMost(most) => format!("<= {}", short(most)),
            Target::RatioAtLeast(least) => format!("ratio >= {}", short(least)),
            Target::RatioAtMost(most) => format!("ratio <= {}", short(most)),
        }
    }

    fn cells(&self) -> [String; 6] {
        let verdict = match self.is_met() {
            Some(true) => "  ok",
            Some(false) => "  MISSED",
            None => "",
        };
        [
            format!("{} {}", self.point, self.name),
            format!("{} {}", short(self.value), self.unit),
            self.limit.map_or(String::new(), |(name, value)| format!("{name}: {}", short(value))),
            self.quotient().map_or(String::new(), |ratio| format!("{ratio:.2}")),
            self.target_text(),
            verdict.to_owned(),
        ]
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "point": self.point.to_string(), "figure": self.name, "value": self.value, "unit": self.unit,
            "limit": self.limit.map(|(name, value)| serde_json::json!({ "name": name, "value": value })),
            "ratio": self.quotient(), "target": self.target_text(), "met": self.is_met(),
        })
    }
}

/// A number with as many digits as say something.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 10_000.0 => {
            let digits = format!("{large:.0}");
            let mut text = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// All figures as an aligned table.
pub fn render(figures: &[Figure]) -> String {
    let head = ["figure", "value", "limit or peer, same run", "ratio", "target", ""].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(figures.iter().map(Figure::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let fill = widths[column];
            let _ = match column {
                1 | 3 => write!(line, "{cell:>fill$}  "),
                _ => write!(line, "{cell:<fill$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// All figures as one JSON document.
pub fn json(figures: &[Figure]) -> String {
    serde_json::json!({ "schema": 1, "figures": figures.iter().map(Figure::json).collect::<Vec<_>>() }).to_string()
}

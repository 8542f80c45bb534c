//! How columns vary together: Pearson's correlation of each two of them, in one pass.
//!
//! Rows in which both have a number count.

use super::report::Correlation;

/// Of two columns.
#[derive(Debug, Clone, Default)]
struct Pair {
    count: u64,
    mean: (f64, f64),
    squares: (f64, f64),
    product: f64,
}

/// Of each two of some columns.
#[derive(Debug, Clone)]
pub(super) struct Pairs {
    names: Vec<String>,
    pairs: Vec<Pair>,
}

impl Pairs {
    pub(super) fn new(names: &[String]) -> Self {
        let count = names.len() * names.len().saturating_sub(1) / 2;
        Self { names: names.to_vec(), pairs: vec![Pair::default(); count] }
    }

    /// Takes the numbers of one row, in the order of the names.
    pub(super) fn add(&mut self, numbers: &[Option<f64>]) {
        let mut pairs = self.pairs.iter_mut();
        for (place, one) in numbers.iter().enumerate() {
            for (two, pair) in numbers[place + 1..].iter().zip(&mut pairs) {
                if let (Some(one), Some(two)) = (one, two) {
                    pair.add(*one, *two);
                }
            }
        }
    }

    pub(super) fn report(&self) -> Vec<Correlation> {
        let mut made = Vec::new();
        let mut pairs = self.pairs.iter();
        for (place, one) in self.names.iter().enumerate() {
            for (two, pair) in self.names[place + 1..].iter().zip(&mut pairs) {
                let (a, b) = (one.clone(), two.clone());
                made.push(Correlation { a, b, count: pair.count, r: pair.correlation() });
            }
        }
        made
    }
}

impl Pair {
    fn add(&mut self, one: f64, two: f64) {
        self.count += 1;
        let count = self.count as f64;
        let off = (one - self.mean.0, two - self.mean.1);
        self.mean.0 += off.0 / count;
        self.mean.1 += off.1 / count;
        self.squares.0 += off.0 * (one - self.mean.0);
        self.squares.1 += off.1 * (two - self.mean.1);
        self.product += off.0 * (two - self.mean.1);
    }

    /// None if one of them does not vary.
    fn correlation(&self) -> Option<f64> {
        let r = self.product / (self.squares.0.sqrt() * self.squares.1.sqrt());
        (self.count > 1 && r.is_finite()).then(|| r.clamp(-1.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_together_is_found() {
        let mut pairs = Pairs::new(&["a", "b", "c"].map(str::to_owned));
        for number in 0..10 {
            let one = f64::from(number);
            pairs.add(&[Some(one), Some(-2.0 * one + 1.0), (number % 2 == 0).then_some(5.0)]);
        }
        let report = pairs.report();
        assert_eq!((report[0].count, report[0].r), (10, Some(-1.0)));
        assert_eq!((report[1].a.as_str(), report[1].b.as_str()), ("a", "c"));
        assert_eq!((report[1].count, report[1].r), (5, None));
        assert_eq!((report[2].a.as_str(), report[2].b.as_str()), ("b", "c"));
    }
}

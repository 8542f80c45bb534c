//! The product of two square matrices in double precision, block by block.
//!
//! Their elements are whole numbers from 0 to 99, so that every sum is exact in whatever order it is made. Deliberately
//! absent: anything but the product's sums; the product itself is too large for a result.

use sha2::{Digest, Sha256};

use super::random::SplitMix64;
use crate::actions::Cancelled;
use crate::actions::files::{Meter, in_hex};

/// Rows and columns of a block: three of them fit into a cache.
const BLOCK: usize = 64;
/// Elements are below this.
const ELEMENTS: u64 = 100;

/// What is told of a product.
pub(super) struct Product {
    pub trace: u64,
    pub sum: u64,
    /// Of its elements row by row, each as a whole number of eight bytes, the lowest first.
    pub sha256: String,
}

/// In how many steps the product of such matrices is made.
pub(super) fn steps(n: usize) -> u64 {
    (n.div_ceil(BLOCK) as u64).pow(3)
}

/// The product of two matrices out of one generator: first the one, row by row, then the other.
///
/// # Errors
/// The action is to end.
pub(super) fn product(n: usize, seed: u64, meter: &Meter<'_, '_>) -> Result<Product, Cancelled> {
    let mut random = SplitMix64::new(seed);
    let mut fill = || {
        let mut matrix = Vec::with_capacity(n * n);
        for _ in 0..n {
            meter.check()?;
            matrix.extend((0..n).map(|_| (random.next() % ELEMENTS) as f64));
        }
        Ok::<_, Cancelled>(matrix)
    };
    let (a, b) = (fill()?, fill()?);
    let mut c = vec![0.0_f64; n * n];
    let blocks = || (0..n).step_by(BLOCK);
    for i in blocks() {
        for k in blocks() {
            for j in blocks() {
                block((i, j, k), n, (&a, &b), &mut c);
                meter.add(1)?;
            }
        }
    }
    let (mut sum, mut hash) = (0, Sha256::new());
    for row in c.chunks(n) {
        meter.check()?;
        for element in row {
            let whole = *element as u64;
            sum += whole;
            hash.update(whole.to_le_bytes());
        }
    }
    let trace = c.iter().step_by(n + 1).map(|element| *element as u64).sum();
    Ok(Product { trace, sum, sha256: in_hex(&hash.finalize()) })
}

/// Adds the product of the blocks of `a` at (i, k) and of `b` at (k, j) to that of `c` at (i, j).
fn block((i, j, k): (usize, usize, usize), n: usize, (a, b): (&[f64], &[f64]), c: &mut [f64]) {
    let end = |start: usize| (start + BLOCK).min(n);
    for row in i..end(i) {
        let sums = &mut c[row * n + j..row * n + end(j)];
        for inner in k..end(k) {
            let factor = a[row * n + inner];
            let others = &b[inner * n + j..inner * n + end(j)];
            for (sum, other) in sums.iter_mut().zip(others) {
                *sum += factor * other;
            }
        }
    }
}

//! Numbers in as few bytes as they need: seven bits in each, the low ones first, the high bit set in all but the last.
//!
//! For what is written once for each attempt: reports, and rows of the queue. Pure.

/// Appends a number.
pub fn put(buffer: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        buffer.push(number as u8 | 0x80);
        number >>= 7;
    }
    buffer.push(number as u8);
}

/// Appends a number that may be negative: small ones of either sign take few bytes.
pub fn put_signed(buffer: &mut Vec<u8>, number: i64) {
    put(buffer, (number << 1 ^ number >> 63) as u64);
}

/// Takes numbers off the front of some bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'b> {
    bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    /// At the front of these bytes.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    /// The next number; nothing if the bytes end too early, or it is none.
    pub fn take(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// The next so many numbers.
    pub fn take_all<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.take()?;
        }
        Some(numbers)
    }

    /// The next number that may be negative.
    pub fn take_signed(&mut self) -> Option<i64> {
        let number = self.take()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// The next so many bytes.
    pub fn take_bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*bytes)
    }

    /// What has not been taken.
    pub fn rest(&self) -> &'b [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back_as_they_were(number in any::<u64>(), signed in any::<i64>()) {
            let mut buffer = Vec::new();
            put(&mut buffer, number);
            put_signed(&mut buffer, signed);
            let mut reader = Reader::new(&buffer);
            prop_assert_eq!((reader.take(), reader.take_signed()), (Some(number), Some(signed)));
            prop_assert!(reader.rest().is_empty() && reader.take().is_none());
        }

        #[test]
        fn garbage_is_no_number_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let mut reader = Reader::new(&bytes);
            while reader.take().is_some() {}
        }
    }
}

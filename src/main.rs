//! The `acode` binary.
fn main() {}

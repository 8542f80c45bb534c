//! Graphs of tasks, as the places that each task waits for: what both benchmarks of dependencies build on.
//!
//! Places count from 0, in an order in which everything comes after what it waits for. Deliberately absent: tasks.

/// How wide the lattice is.
const LATTICE: u32 = 300;

/// A graph by its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Nothing waits for anything.
    Independent,
    /// Each waits for the one before it.
    Chain,
    /// All wait for the first.
    FanOut,
    /// The last waits for all.
    FanIn,
    /// Rows of 300; each waits for two neighbours of the row before.
    Lattice,
}

impl Shape {
    /// Those with dependencies.
    pub const GRAPHS: [Self; 4] = [Self::Chain, Self::FanOut, Self::FanIn, Self::Lattice];

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Independent => "independent",
            Self::Chain => "chain",
            Self::FanOut => "fan-out",
            Self::FanIn => "fan-in",
            Self::Lattice => "lattice of 300",
        }
    }

    /// What the task at `place` of `count` waits for.
    pub fn blockers(self, place: u32, count: u32) -> Vec<u32> {
        match self {
            Self::Independent => Vec::new(),
            Self::Chain => place.checked_sub(1).into_iter().collect(),
            Self::FanOut => (place > 0).then_some(0).into_iter().collect(),
            Self::FanIn if place + 1 == count => (0..place).collect(),
            Self::FanIn => Vec::new(),
            Self::Lattice => match place.checked_sub(LATTICE) {
                Some(above) if place % LATTICE + 1 == LATTICE => vec![above + 1 - LATTICE, above],
                Some(above) => vec![above, above + 1],
                None => Vec::new(),
            },
        }
    }
}

//! What was recorded.

use std::fs;

use crate::Failure;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.txt");
const HEAD: &str =
    "# Instructions and system calls per round. Written by `--record`: see src/main.rs.";

/// What a round costs.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) instructions: f64,
    pub(crate) calls: f64,
}

pub(crate) struct Baseline {
    /// What made the measured program.
    pub(crate) compiler: String,
    pub(crate) costs: Vec<(String, Cost)>,
}

impl Baseline {
    pub(crate) fn read() -> Result<Self, Failure> {
        let text = fs::read_to_string(PATH).map_err(|error| format!("{PATH}: {error}"))?;
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let compiler = lines.next().ok_or("the baseline is empty")?.to_owned();
        let cost = |line: &str| {
            let [name, instructions, calls] = Vec::from_iter(line.split(' '))
                .try_into()
                .map_err(|_| format!("not a line of a baseline: {line}"))?;
            let cost = Cost { instructions: instructions.parse()?, calls: calls.parse()? };
            Ok((name.to_owned(), cost))
        };
        let costs = lines.map(cost).collect::<Result<_, Failure>>()?;
        Ok(Self { compiler, costs })
    }

    pub(crate) fn write(&self) -> Result<(), Failure> {
        let mut text = format!("{HEAD}\n{}\n", self.compiler);
        for (name, cost) in &self.costs {
            text += &format!("{name} {:.1} {:.2}\n", cost.instructions, cost.calls);
        }
        Ok(fs::write(PATH, text)?)
    }

    pub(crate) fn of(&self, name: &str) -> Result<Cost, Failure> {
        let found = self.costs.iter().find(|(recorded, _)| recorded == name);
        let (_, cost) = found.ok_or_else(|| format!("{name} is not recorded"))?;
        Ok(*cost)
    }
}

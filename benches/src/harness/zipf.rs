//! [`Zipf`]: a choice among many of which few are frequent.

use fastrand::Rng;

/// Chooses the first twice as often as the second, three times as often as the third, and so on; always the same choices.
pub(crate) struct Zipf {
    /// What is below each, ascending, and the weight of all.
    bounds: Vec<f64>,
    random: Rng,
}

impl Zipf {
    pub(crate) fn new(choices: usize) -> Self {
        let weights = (1..=choices).map(|rank| 1.0 / rank as f64);
        let bounds = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self { bounds: bounds.collect(), random: Rng::with_seed(1) }
    }
}

impl Iterator for Zipf {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let point = self.random.f64() * self.bounds.last()?;
        Some(self.bounds.partition_point(|bound| *bound <= point))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_chosen_as_often_as_its_weight_says() {
        let chosen: Vec<usize> = Zipf::new(1000).take(100_000).collect();
        let share = |choice| chosen.iter().filter(|one| **one == choice).count() as f64 / chosen.len() as f64;
        assert!((share(0) - 0.1336).abs() < 0.01, "{}", share(0));
        assert!((share(1) - 0.0668).abs() < 0.01, "{}", share(1));
        assert!(chosen.iter().all(|choice| *choice < 1000));
    }
}

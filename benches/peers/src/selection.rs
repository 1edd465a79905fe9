//! [`Selection`]: who is measured.

use pgqueue_bench::Contender;

/// The queue, and those whose name contains one of these; everybody if there are none.
pub(crate) struct Selection(pub(crate) Vec<String>);

impl Selection {
    pub(crate) fn includes(&self, who: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|part| who.contains(part))
    }

    /// The contenders that are selected, compared to the first, which always is.
    pub(crate) fn of(&self, contenders: Vec<Contender>) -> Vec<Contender> {
        let contenders = contenders.into_iter().enumerate();
        let selected = contenders.filter(|(at, contender)| *at == 0 || self.includes(contender.who()));
        selected.map(|(at, contender)| if at == 0 { contender } else { contender.against(0) }).collect()
    }
}

//! [`Case`]: one named promise, and the code that looks whether a driver keeps it.

use std::{fmt, panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt, future::BoxFuture};

use crate::{Capability, CaseFailure, Harness, failure::CaseResult, kit::Kit};

/// How long a case may take in all. Each of its waits is much shorter; this ends what a case did not foresee.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// One promise of the contract, tried on a backend of its own.
#[derive(Clone, Copy)]
pub struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Capability],
    pub(crate) run: for<'a> fn(&'a Kit) -> BoxFuture<'a, CaseResult>,
}

impl Case {
    /// Returns its name, `group::promise`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns what the driver must claim for this case to be run.
    #[must_use]
    pub fn needs(&self) -> &'static [Capability] {
        self.needs
    }

    /// Tries the promise on a backend that nothing else uses. Runs on tokio, with time enabled.
    ///
    /// # Errors
    /// What was promised, and what was seen instead. A panic is a failure, and so is more than two minutes.
    ///
    /// # Cancel safety
    /// Dropping the future ends the case and drops the backend.
    pub async fn run(&self, harness: Box<dyn Harness>) -> Result<(), CaseFailure> {
        let run = AssertUnwindSafe(async {
            let kit = Kit::new(harness).await?;
            (self.run)(&kit).await
        });
        let ended = tokio::time::timeout(TIME_LIMIT, run.catch_unwind()).await;
        let seen = match ended {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref().map(String::as_str));
                Err(CaseFailure::new(format!("a panic: {}", said.unwrap_or("no message"))))
            }
            Err(_) => Err(CaseFailure::new(format!("no end within {TIME_LIMIT:?}"))),
        };
        seen.map_err(|failure| failure.of(self.name))
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("needs", &self.needs).finish_non_exhaustive()
    }
}

//! [`Pools`]: the pools of one process, by what they serve.

use std::{collections::BTreeMap, sync::Arc};

use crate::{Absence, Finding, PoolState, Repair, Result, Subscription, WorkerPool, error::chain};

/// For each subscription that is served here its pool, never two.
///
/// Nothing here waits, so that a look and what follows from it are one step. Whoever reads the store before such a step asks
/// whether the pools [are as](Self::is_as) they were before that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools {
    served: BTreeMap<String, Served>,
    /// How many times all were stopped.
    stops: u64,
}

#[derive(Clone, Debug)]
struct Served {
    /// The subscription as it was stored when the pool was started, or last resized.
    subscription: Subscription,
    pool: Arc<WorkerPool>,
}

impl Pools {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<WorkerPool>> {
        self.served.get(name).map(|served| &served.pool)
    }

    /// Whether nobody has done anything about this pool since `earlier`. Somebody who did knew what is stored by now.
    pub(crate) fn is_as(&self, earlier: &Self, name: &str) -> bool {
        let same = match (self.served.get(name), earlier.served.get(name)) {
            (None, None) => true,
            (Some(now), Some(then)) => Arc::ptr_eq(&now.pool, &then.pool) && now.subscription == then.subscription,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same && self.were_not_stopped_since(earlier)
    }

    pub(crate) fn were_not_stopped_since(&self, earlier: &Self) -> bool {
        self.stops == earlier.stops
    }

    /// Returns what is amiss with the pool of a subscription that has a handler here and is stored like this, or not at all.
    pub(crate) fn finding(&self, name: &str, stored: Option<&Subscription>) -> Option<Finding> {
        let subscription = name.to_owned();
        let Some(Served { subscription: served, pool }) = self.served.get(name) else {
            return stored.map(|_| Finding::Missing { subscription, why: Absence::NotStarted });
        };
        let status = pool.status();
        let failure = pool.failure().map(|error| chain(&error));
        // Of two with the same name, the later has no pool before that of the earlier is gone.
        let stored = stored.filter(|stored| status.state.is_over() || served.ensure_same_identity(stored).is_ok());
        match (stored, status.state) {
            (Some(stored), PoolState::Running) => (stored.workers() != status.size).then(|| Finding::Resized {
                subscription,
                size: status.size,
                workers: stored.workers(),
            }),
            (Some(_), PoolState::Stopping) => Some(Finding::Missing { subscription, why: Absence::Stopping }),
            (Some(_), PoolState::Stopped | PoolState::Failed) => {
                Some(Finding::Missing { subscription, why: failure.map_or(Absence::Stopped, Absence::Failed) })
            }
            (None, PoolState::Running | PoolState::Stopping | PoolState::Failed) => {
                Some(Finding::Orphaned { subscription, failure })
            }
            (None, PoolState::Stopped) => None,
        }
    }

    /// Does something about the [finding](Self::finding), if there is one and now is the time for it.
    pub(crate) fn mend(
        &mut self,
        name: &str,
        stored: Option<&Subscription>,
        make: impl FnOnce(Subscription) -> WorkerPool,
    ) -> Result<Option<Repair>> {
        Ok(match (self.finding(name, stored), stored) {
            (Some(Finding::Missing { why: Absence::Stopping, .. }), _) => None,
            (Some(Finding::Missing { subscription, .. }), Some(stored)) => {
                let pool = make(stored.clone());
                pool.launch()?;
                let served = Served { subscription: stored.clone(), pool: Arc::new(pool) };
                self.served.insert(subscription.clone(), served);
                Some(Repair::Started { subscription })
            }
            (Some(Finding::Resized { subscription, size, workers }), Some(stored)) => {
                if let Some(served) = self.served.get_mut(name) {
                    served.pool.resize(workers)?;
                    served.subscription = stored.clone();
                }
                Some(Repair::Resized { subscription, from: size, to: workers })
            }
            (Some(Finding::Orphaned { subscription, failure: Some(_) }), _) => {
                self.served.remove(name);
                Some(Repair::Forgotten { subscription })
            }
            (Some(Finding::Orphaned { subscription, failure: None }), _) => {
                let running = self.get(name).filter(|pool| pool.status().state == PoolState::Running);
                running.map(|pool| pool.begin_stop()).map(|()| Repair::Stopped { subscription })
            }
            _ => None,
        })
    }

    /// Asks all to stop, and returns them.
    pub(crate) fn begin_stop(&mut self) -> Vec<(String, Arc<WorkerPool>)> {
        self.stops += 1;
        let served = self.served.iter();
        served
            .map(|(name, served)| (name.clone(), Arc::clone(&served.pool)))
            .inspect(|(_, pool)| pool.begin_stop())
            .collect()
    }

    /// Forgets a pool, unless there is another by now.
    pub(crate) fn forget(&mut self, name: &str, pool: &Arc<WorkerPool>) {
        if self.get(name).is_some_and(|other| Arc::ptr_eq(other, pool)) {
            self.served.remove(name);
        }
    }
}

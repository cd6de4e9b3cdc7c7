//! A pool whose workers have a lease each: several processes share them.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::Either;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::balance::{Balancer, Effect, Tried};
use super::figures::Seen;
use super::sight::{Names, Sight};
use super::tending::{Context, Ended, either, tend};
use crate::env::quietly;
use crate::error::{ActorPanicked, LeaseError};
use crate::leases::{Lease, LeaseGuard, LeaseOptions, LeaseRecord, boottime};
use crate::pool::supervise::{PoolState, Who};

/// Takes part until the pool is over and everything is given back, or leases are shut down and nothing is held any more.
///
/// # Errors
///
/// A panic, after which nobody knows what was believed: everything has been given back in order, and can be begun anew.
pub(super) async fn serve(context: &Arc<Context>, share: &Share) -> Result<(), ActorPanicked> {
    let mut driver = Driver::new(Arc::clone(context), share.clone());
    let served = context.caught("sharing the partitions of a pool", driver.run());
    let served = served.await;
    if served.is_err() {
        driver.give_back().await;
    }
    context.figures.sees_no_more(context.task);
    served
}

/// How the leases of a pool are asked for.
#[derive(Clone)]
pub(super) struct Share {
    pub names: Names,
    /// Who this is; the leases have it as their label.
    pub me: Arc<str>,
    pub options: LeaseOptions,
    pub seed: u64,
}

type Task = Pin<Box<dyn Future<Output = Event> + Send>>;

/// What has come of a question; none if it panicked, which is told already.
type Asked<T> = Option<Result<T, LeaseError>>;

/// What has come of something that was begun.
enum Event {
    Looked(Asked<Vec<LeaseRecord>>),
    Joined(u32, Asked<LeaseGuard>),
    Left,
    Tried(u32, Asked<LeaseGuard>),
    /// Its worker from before runs still: others may have it.
    NotTried(u32),
    Gone(u32, Ended),
}

struct Driver {
    context: Arc<Context>,
    share: Share,
    balancer: Balancer,
    tasks: FuturesUnordered<Task>,
    /// What gives a partition back.
    gives: HashMap<u32, CancellationToken>,
    leave: CancellationToken,
    /// Of the pool; in its next one another task takes part.
    life: u64,
    /// Nothing is granted any more. What is held may be kept: the workers of a keeper that stops are served until they have ended.
    shut_down: bool,
}

impl Driver {
    fn new(context: Arc<Context>, share: Share) -> Self {
        let partitions = number(context.pool.target());
        let life = context.pool.life();
        let me = Arc::clone(&share.me);
        Self {
            balancer: Balancer::new(me, partitions, context.poll, share.seed),
            context,
            share,
            tasks: FuturesUnordered::new(),
            gives: HashMap::new(),
            leave: CancellationToken::new(),
            life,
            shut_down: false,
        }
    }

    async fn run(&mut self) {
        let context = Arc::clone(&self.context);
        let mut effects = Vec::new();
        loop {
            let now = boottime::now();
            let (state, target) = (context.pool.state(), context.pool.target());
            // It may have failed and been resumed since this was looked at last.
            let is_over = state.is_over()
                || context.pool.life() != self.life
                || (self.shut_down && self.gives.is_empty());
            if is_over {
                self.balancer.stop(now, &mut effects);
            } else if self.shut_down || is_ending(state) {
                self.balancer.withdraw(&mut effects);
            } else {
                self.balancer.resize(now, number(target), &mut effects);
            }
            self.balancer.tick(now, &mut effects);
            for effect in effects.drain(..) {
                self.carry_out(effect);
            }
            self.show();
            if self.balancer.is_done() {
                return;
            }
            let next = self.balancer.next_deadline();
            let timer = async {
                match next {
                    Some(at) => tokio::time::sleep(at.since(boottime::now())).await,
                    None => std::future::pending().await,
                }
            };
            let change = async {
                match is_over {
                    false => context.changed(state, target).await,
                    true => std::future::pending().await,
                }
            };
            let event = async {
                match self.tasks.next().await {
                    Some(event) => event,
                    None => std::future::pending().await,
                }
            };
            if let Either::Left(event) = either(event, either(change, timer)).await {
                context
                    .supervision
                    .bombs
                    .pass("what a partition of a pool tells");
                self.happened(event, &mut effects);
            }
        }
    }

    /// Whatever is held is given back, after its worker has ended, and what is being asked for is not wanted any more.
    async fn give_back(&mut self) {
        self.leave.cancel();
        self.gives.values().for_each(CancellationToken::cancel);
        while let Some(event) = self.tasks.next().await {
            // What was granted meanwhile goes with its guard.
            drop(event);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let context = Arc::clone(&self.context);
        let task: Task = match effect {
            Effect::Look => {
                let list = self.context.leases.list();
                Box::pin(async move {
                    let list = context.caught("looking at the leases of a pool", list);
                    Event::Looked(list.await.ok())
                })
            }
            Effect::Join(slot) => {
                let asked = self.lease(self.share.names.member(slot)).try_acquire();
                Box::pin(async move {
                    let asked = context.caught("joining those who share a pool", asked);
                    Event::Joined(slot, asked.await.ok())
                })
            }
            Effect::Leave => return self.leave.cancel(),
            // After a panic in the leases.
            Effect::Try(partition) if !self.context.is_empty(who(partition)) => {
                Box::pin(std::future::ready(Event::NotTried(partition)))
            }
            Effect::Try(partition) => {
                let asked = self
                    .lease(self.share.names.partition(partition))
                    .try_acquire();
                Box::pin(async move {
                    let asked = context.caught("trying for a partition of a pool", asked);
                    Event::Tried(partition, asked.await.ok())
                })
            }
            Effect::Give(partition) => {
                if let Some(give) = self.gives.get(&partition) {
                    give.cancel();
                }
                return;
            }
        };
        self.tasks.push(task);
    }

    fn happened(&mut self, event: Event, effects: &mut Vec<Effect>) {
        let now = boottime::now();
        match event {
            Event::Looked(Some(Ok(records))) => {
                let sight = Sight::of(&self.share.names, &records);
                self.balancer.looked(now, Some(sight), effects);
            }
            Event::Looked(failed) => {
                if let Some(Err(error)) = &failed {
                    self.failed(error);
                }
                self.balancer.looked(now, None, effects);
            }
            Event::Joined(slot, asked) => {
                let (came, guard) = self.came(asked);
                if let Some(guard) = guard {
                    self.leave = CancellationToken::new();
                    let member = member(guard, self.leave.clone());
                    let context = Arc::clone(&self.context);
                    self.tasks.push(Box::pin(async move {
                        // However it ends, its lease goes with it.
                        drop(context.caught("taking part in a pool", member).await);
                        Event::Left
                    }));
                }
                self.balancer.joined(now, slot, came, effects);
            }
            Event::Left => self.balancer.left(now),
            Event::Tried(partition, asked) => {
                let (came, guard) = self.came(asked);
                if let Some(guard) = guard {
                    self.hold(partition, guard);
                }
                self.balancer.tried(now, partition, came, effects);
            }
            Event::NotTried(partition) => {
                self.balancer.tried(now, partition, Tried::Busy, effects);
            }
            Event::Gone(partition, ended) => {
                self.gives.remove(&partition);
                let why = match ended {
                    Ended::Given => "it was given back".to_owned(),
                    Ended::Lost(reason) => reason.to_string(),
                };
                quietly(|| {
                    tracing::info!(target: "lockkeeper", pool = &**self.context.pool.name(), partition, why, "a partition is not held any more");
                });
                self.balancer.gone(now, partition, effects);
            }
        }
    }

    fn hold(&mut self, partition: u32, guard: LeaseGuard) {
        quietly(|| {
            tracing::info!(target: "lockkeeper", pool = &**self.context.pool.name(), partition, token = guard.token().0, "a partition is held");
        });
        let give = CancellationToken::new();
        self.gives.insert(partition, give.clone());
        let context = Arc::clone(&self.context);
        self.tasks.push(Box::pin(async move {
            let ended = tend(&context, who(partition), guard, give).await;
            Event::Gone(partition, ended)
        }));
    }

    fn came(&mut self, asked: Asked<LeaseGuard>) -> (Tried, Option<LeaseGuard>) {
        match asked {
            Some(Ok(guard)) => return (Tried::Got, Some(guard)),
            Some(Err(LeaseError::Busy { .. })) => return (Tried::Busy, None),
            Some(Err(LeaseError::ShuttingDown)) => self.shut_down = true,
            Some(Err(error)) => self.context.failed(&error),
            None => {}
        }
        (Tried::Failed, None)
    }

    fn failed(&mut self, error: &LeaseError) {
        match error {
            LeaseError::ShuttingDown => self.shut_down = true,
            // What is asked in the list is told to no handler.
            error => {
                self.context.figures.failed(error);
                quietly(|| {
                    tracing::warn!(
                        target: "lockkeeper", pool = &**self.context.pool.name(), error = error as &dyn std::error::Error,
                        "the leases of a pool could not be looked at"
                    );
                });
            }
        }
    }

    fn lease(&self, name: Arc<str>) -> Lease {
        let options = LeaseOptions {
            label: Some(Arc::clone(&self.share.me)),
            ..self.share.options.clone()
        };
        Lease::with_options(self.context.leases.clone(), name, options)
    }

    fn show(&self) {
        let share = self.balancer.share();
        let seen = Seen {
            asking: true,
            share: share.and_then(|share| usize::try_from(share).ok()),
            members: self.balancer.members(),
        };
        self.context.figures.saw(self.context.task, seen);
    }
}

/// Holds a member's lease.
async fn member(guard: LeaseGuard, leave: CancellationToken) {
    if let Either::Right(()) = either(guard.lost(), leave.cancelled()).await {
        // Tried again in the background if it must be.
        drop(guard.release().await);
    }
}

/// It needs no more partitions, and what runs under those that it has may finish in the time that it was given.
fn is_ending(state: PoolState) -> bool {
    use PoolState::{Draining, Failing, Stopping};
    matches!(state, Draining | Stopping | Failing)
}

/// The worker of a partition.
fn who(partition: u32) -> Who {
    Who::One(usize::try_from(partition).unwrap_or(usize::MAX))
}

fn number(workers: usize) -> u32 {
    u32::try_from(workers).unwrap_or(u32::MAX)
}

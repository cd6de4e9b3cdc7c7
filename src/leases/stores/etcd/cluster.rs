//! The members of a cluster, one of which is asked at a time, and another when it does not answer.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Error};
use parking_lot::Mutex;

use crate::leases::StoreError;

/// A request that is given up after so long without an answer makes its member suspect, too.
const SUSPICIOUS: Duration = Duration::from_millis(250);

pub(super) struct Cluster {
    members: Vec<Member>,
    /// Whom to ask.
    current: AtomicUsize,
    connections: AtomicU64,
    options: ConnectOptions,
    timeout: Duration,
}

struct Member {
    /// `None`: the application's client, which is never replaced and finds its members itself.
    endpoint: Option<String>,
    client: Mutex<Option<Connection>>,
}

/// A client, and a number that tells it from the one before.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) number: u64,
}

/// What a member answered.
pub(super) struct Answer<T> {
    pub(super) value: T,
    /// It was asked before, and that answer was lost: what was asked may have happened twice, or may happen again later.
    pub(super) asked_before: bool,
}

#[derive(Debug)]
pub(super) enum CallError {
    /// The etcd lease is not there any more.
    Ended,
    Store(StoreError),
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Ended => Self::Failed("the etcd lease has ended meanwhile".into()),
            CallError::Store(error) => error,
        }
    }
}

impl Cluster {
    pub(super) fn new(endpoints: Vec<String>, options: ConnectOptions, timeout: Duration) -> Self {
        let members = endpoints.into_iter().map(|endpoint| Member {
            endpoint: Some(endpoint),
            client: Mutex::new(None),
        });
        Self {
            members: members.collect(),
            current: AtomicUsize::new(0),
            connections: AtomicU64::new(1),
            options,
            timeout,
        }
    }

    pub(super) fn of_client(client: Client, timeout: Duration) -> Self {
        let member = Member {
            endpoint: None,
            client: Mutex::new(Some(Connection { client, number: 0 })),
        };
        Self {
            members: vec![member],
            ..Self::new(Vec::new(), ConnectOptions::new(), timeout)
        }
    }

    /// Asks one member after the other until one answers, each at most once, and a lone one twice.
    pub(super) async fn call<T, F, A>(&self, mut ask: F) -> Result<Answer<T>, CallError>
    where
        F: FnMut(Connection) -> A,
        A: Future<Output = Result<T, Error>>,
    {
        let mut asked_before = false;
        let mut attempts = self.members.len().max(2);
        loop {
            attempts -= 1;
            let index = self.current.load(Ordering::Relaxed);
            let mut attempt = Attempt {
                cluster: self,
                index,
                begun: Instant::now(),
                over: false,
            };
            let asking = async {
                let connection = self.connection(index).await?;
                ask(connection).await
            };
            let answer = tokio::time::timeout(self.timeout, asking).await;
            attempt.over = true;
            let error = match answer {
                Ok(Ok(value)) => {
                    return Ok(Answer {
                        value,
                        asked_before,
                    });
                }
                Ok(Err(error)) if is_ended(&error) => return Err(CallError::Ended),
                Ok(Err(error)) => to_store_error(error),
                Err(_) => {
                    StoreError::Unreachable(format!("no answer within {:?}", self.timeout).into())
                }
            };
            if !matches!(error, StoreError::Unreachable(_)) {
                return Err(error.into());
            }
            self.suspect(index);
            if attempts == 0 {
                return Err(error.into());
            }
            asked_before = true;
        }
    }

    /// A connection that nobody else uses, to the member that is asked now; the application's client if it is one.
    pub(super) async fn own(&self) -> Result<Client, StoreError> {
        let index = self.current.load(Ordering::Relaxed);
        let client = match self.member(index).map_err(to_store_error)?.endpoint {
            Some(ref endpoint) => {
                let connecting = Client::connect([endpoint], Some(self.options.clone()));
                match tokio::time::timeout(self.timeout, connecting).await {
                    Ok(client) => client.map_err(to_store_error),
                    Err(late) => Err(StoreError::Unreachable(late.into())),
                }
            }
            None => return Ok(self.connection(index).await.map_err(to_store_error)?.client),
        };
        client.inspect_err(|_| self.suspect(index))
    }

    /// The next request goes to another member, and the next to this one on a new connection.
    pub(super) fn suspect(&self, index: usize) {
        let Ok(member) = self.member(index) else {
            return;
        };
        if member.endpoint.is_some() {
            *member.client.lock() = None;
        }
        let next = (index + 1) % self.members.len().max(1);
        // Whoever comes second finds that it has been done.
        let _ = self
            .current
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whom to ask now, for those who keep a stream and want to say that it failed.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn close(&self) {
        let own = |member: &&Member| member.endpoint.is_some();
        for member in self.members.iter().filter(own) {
            *member.client.lock() = None;
        }
    }

    async fn connection(&self, index: usize) -> Result<Connection, Error> {
        let member = self.member(index)?;
        let known = member.client.lock().clone();
        let endpoint = match (known, &member.endpoint) {
            (Some(connection), _) => return Ok(connection),
            (None, Some(endpoint)) => endpoint,
            (None, None) => return Err(Error::EndpointsNotManaged),
        };
        let client = Client::connect([endpoint], Some(self.options.clone())).await?;
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let connection = Connection { client, number };
        // Somebody else may have connected meanwhile.
        Ok(member.client.lock().get_or_insert(connection).clone())
    }

    fn member(&self, index: usize) -> Result<&Member, Error> {
        self.members
            .get(index)
            .ok_or_else(|| Error::InvalidArgs("no endpoint".into()))
    }
}

/// Says that a member is suspect if its answer is not waited for any more.
struct Attempt<'a> {
    cluster: &'a Cluster,
    index: usize,
    begun: Instant,
    over: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.over && self.begun.elapsed() > SUSPICIOUS {
            self.cluster.suspect(self.index);
        }
    }
}

/// gRPC's codes, as numbers: cancelled, unknown (what a broken connection is told as), deadline exceeded, unavailable (no
/// leader, no connection, a request that timed out inside of etcd).
const UNREACHABLE: [i32; 4] = [1, 2, 4, 14];
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
/// What etcd says to somebody who may not come in, with codes that it also uses for other things. A token that is not known any
/// more is not among it: the driver gets another.
const NOT_LET_IN: [&str; 2] = ["authentication failed", "user name is empty"];
const NO_USERS: &str = "authentication is not enabled";
/// Users or their rights have changed since we logged in: that goes well on a new connection, which logs in anew.
const OLD_LOGIN: &str = "revision of auth store is old";

fn is_ended(error: &Error) -> bool {
    match error {
        Error::GRpcStatus(status) => {
            i32::from(status.code()) == NOT_FOUND && status.message().contains("lease not found")
        }
        Error::LeaseKeepAliveError(text) => text == "lease not found",
        _ => false,
    }
}

pub(super) fn to_store_error(error: Error) -> StoreError {
    match &error {
        Error::GRpcStatus(status) => {
            let (code, text) = (i32::from(status.code()), status.message());
            let is_denied =
                code == PERMISSION_DENIED || NOT_LET_IN.iter().any(|said| text.contains(said));
            match code {
                _ if is_denied => StoreError::Denied(error.into()),
                _ if text.contains(NO_USERS) => StoreError::BadConfig(error.to_string()),
                _ if text.contains(OLD_LOGIN) => StoreError::Unreachable(error.into()),
                code if UNREACHABLE.contains(&code) => StoreError::Unreachable(error.into()),
                _ => StoreError::Failed(error.into()),
            }
        }
        Error::InvalidArgs(_) | Error::InvalidUri(_) => StoreError::BadConfig(error.to_string()),
        _ => StoreError::Unreachable(error.into()),
    }
}

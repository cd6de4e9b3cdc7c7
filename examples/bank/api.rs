//! The HTTP service: requests in, one call of the model each, answers out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::error::{JsonPayloadError, PathError, QueryPayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use lockkeeper::TxnError;
use serde::Deserialize;
use serde_json::json;

use crate::model::{Account, Bank, BankError, Transfer};

/// The longest body that is read, in bytes; the longest sensible one has about 100.
const BODY_LIMIT: usize = 4096;

/// Entries on a page of the journal if the caller does not say.
const PAGE_DEFAULT: usize = 100;

/// Most entries on a page of the journal.
const PAGE_MAX: usize = 1000;

/// Seconds after which a caller that met a pause is to try again.
const RETRY_SECONDS: &str = "1";

/// Raised when the service begins to stop, so that the health check says so while open requests are finished.
#[derive(Clone, Default)]
pub struct Stopping(Arc<AtomicBool>);

impl Stopping {
    /// From now on the service is unhealthy.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The routes, for one worker's `App`.
pub fn routes(bank: Bank, stopping: Stopping) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| {
        config
            .app_data(web::Data::new(bank))
            .app_data(web::Data::new(stopping))
            .app_data(
                // Whatever the client calls its body, it is JSON or it is malformed.
                web::JsonConfig::default()
                    .limit(BODY_LIMIT)
                    .content_type_required(false)
                    .content_type(|_| true)
                    .error_handler(|error, _| Failure::from(error).into()),
            )
            .app_data(
                web::PathConfig::default().error_handler(|error, _| Failure::from(error).into()),
            )
            .app_data(
                web::QueryConfig::default().error_handler(|error, _| Failure::from(error).into()),
            )
            .service(web::resource("/accounts").route(web::post().to(open_account)))
            .service(web::resource("/accounts/{id}").route(web::get().to(account)))
            .service(web::resource("/accounts/{id}/journal").route(web::get().to(journal)))
            .service(web::resource("/transfers").route(web::post().to(transfer)))
            .service(web::resource("/total").route(web::get().to(total)))
            .service(web::resource("/stats").route(web::get().to(stats)))
            .service(web::resource("/healthz").route(web::get().to(healthz)))
            .default_service(web::to(no_such_page));
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccount {
    id: u64,
    balance: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTransfer {
    from: u64,
    to: u64,
    amount: u64,
    #[serde(default, rename = "ref")]
    reference: Option<u64>,
}

#[derive(Deserialize)]
struct PageQuery {
    #[serde(default)]
    after: u64,
    #[serde(default = "page_default")]
    limit: usize,
}

fn page_default() -> usize {
    PAGE_DEFAULT
}

type Reply = Result<HttpResponse, Failure>;

async fn open_account(bank: web::Data<Bank>, body: web::Json<NewAccount>) -> Reply {
    let NewAccount { id, balance } = body.into_inner();
    let account = bank.open_account(Account { id, balance }).await?;
    Ok(HttpResponse::Created().json(account))
}

async fn transfer(bank: web::Data<Bank>, body: web::Json<NewTransfer>) -> Reply {
    let NewTransfer {
        from,
        to,
        amount,
        reference,
    } = body.into_inner();
    if amount == 0 {
        return Err(Failure::malformed("an amount of 0 moves nothing"));
    }
    if from == to {
        return Err(Failure::malformed(
            "a transfer needs two different accounts",
        ));
    }
    let transfer = Transfer {
        from,
        to,
        amount,
        reference,
    };
    Ok(HttpResponse::Ok().json(bank.transfer(transfer).await?))
}

async fn account(bank: web::Data<Bank>, id: web::Path<u64>) -> Reply {
    Ok(HttpResponse::Ok().json(bank.account(id.into_inner()).await?))
}

async fn journal(bank: web::Data<Bank>, id: web::Path<u64>, page: web::Query<PageQuery>) -> Reply {
    let PageQuery { after, limit } = page.into_inner();
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Failure::malformed(format!(
            "limit must be from 1 to {PAGE_MAX}"
        )));
    }
    Ok(HttpResponse::Ok().json(bank.journal(id.into_inner(), after, limit).await?))
}

async fn total(bank: web::Data<Bank>) -> Reply {
    Ok(HttpResponse::Ok().json(bank.total().await?))
}

async fn stats(bank: web::Data<Bank>) -> Reply {
    Ok(HttpResponse::Ok().json(bank.stats().await))
}

async fn healthz(bank: web::Data<Bank>, stopping: web::Data<Stopping>) -> Reply {
    if stopping.is_raised() {
        return Err(Failure::Bank(TxnError::ShuttingDown));
    }
    bank.health().await?;
    Ok(HttpResponse::Ok().json(json!({ "status": "ok" })))
}

async fn no_such_page(request: HttpRequest) -> Reply {
    Err(Failure::NoSuchPage(request.path().to_owned()))
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The transaction did not happen (or, in one case, it cannot be said whether it did).
    #[error("{}", in_full(.0))]
    Bank(#[from] TxnError<BankError>),
    #[error("{0}")]
    Malformed(String),
    #[error("a body may have at most {BODY_LIMIT} bytes")]
    TooLarge,
    #[error("there is nothing at {0}")]
    NoSuchPage(String),
}

impl Failure {
    fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed(reason.into())
    }

    /// The status, and the word by which a program can tell the reasons of one status apart.
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed(_) => (StatusCode::UNPROCESSABLE_ENTITY, "malformed"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::NoSuchPage(_) => (StatusCode::NOT_FOUND, "no_such_page"),
            Self::Bank(error) => match error {
                TxnError::Abort(error) => status_of(error),
                TxnError::Conflict { .. }
                | TxnError::ReadChanged { .. }
                | TxnError::RetriesExhausted { .. } => (StatusCode::CONFLICT, "conflict"),
                TxnError::Overloaded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
                TxnError::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
                TxnError::RecoveryNeeded { .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, "recovery_needed")
                }
                TxnError::MapBusy { .. } | TxnError::WriterStalled { .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, "busy")
                }
                TxnError::DeadlineExceeded { .. } => {
                    (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded")
                }
                TxnError::MaybeCommitted { .. } => (StatusCode::GATEWAY_TIMEOUT, "maybe_committed"),
                TxnError::EnvironmentFull { .. } => (StatusCode::INSUFFICIENT_STORAGE, "full"),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            },
        }
    }
}

fn status_of(error: &BankError) -> (StatusCode, &'static str) {
    match error {
        BankError::UnknownAccount(_) => (StatusCode::NOT_FOUND, "unknown_account"),
        BankError::DuplicateAccount(_) => (StatusCode::CONFLICT, "duplicate_account"),
        BankError::InsufficientFunds { .. } => (StatusCode::CONFLICT, "insufficient_funds"),
        BankError::BalanceOverflow(_) => (StatusCode::CONFLICT, "balance_overflow"),
        BankError::TotalOverflow => (StatusCode::CONFLICT, "total_overflow"),
        BankError::JournalFull(_) => (StatusCode::CONFLICT, "journal_full"),
    }
}

/// The bank's own reason, or the keeper's.
fn in_full(error: &TxnError<BankError>) -> String {
    match error {
        TxnError::Abort(error) => error.to_string(),
        error => error.to_string(),
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        self.status().0
    }

    fn error_response(&self) -> HttpResponse {
        let (status, error) = self.status();
        let mut response = HttpResponse::build(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, RETRY_SECONDS));
        }
        let message = if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "a request failed");
            "the bank could not do this; its log says why".to_owned()
        } else {
            self.to_string()
        };
        response.json(json!({ "error": error, "message": message }))
    }
}

impl From<JsonPayloadError> for Failure {
    fn from(error: JsonPayloadError) -> Self {
        match error {
            JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => {
                Self::TooLarge
            }
            error => Self::Malformed(error.to_string()),
        }
    }
}

impl From<PathError> for Failure {
    fn from(error: PathError) -> Self {
        Self::Malformed(format!("an account id is a whole number: {error}"))
    }
}

impl From<QueryPayloadError> for Failure {
    fn from(error: QueryPayloadError) -> Self {
        Self::Malformed(error.to_string())
    }
}

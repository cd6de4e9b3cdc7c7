//! Errors as HTTP answers, so that handlers of actix-web can use `?`. Feature `actix-web`.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};

use crate::error::LockError;
use crate::error::{DatabaseError, EnvError, ErrorClass, TxnError};

/// What a client should wait before it tries again, in seconds.
const RETRY_AFTER: &str = "1";

fn status(class: ErrorClass) -> StatusCode {
    match class {
        ErrorClass::Conflict | ErrorClass::RetriesExhausted | ErrorClass::Abort => {
            StatusCode::CONFLICT
        }
        ErrorClass::MapBusy => StatusCode::LOCKED,
        ErrorClass::Overloaded
        | ErrorClass::WriterStalled
        | ErrorClass::RecoveryNeeded
        | ErrorClass::StoreUnreachable
        | ErrorClass::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        ErrorClass::OutOfTime | ErrorClass::MaybeCommitted => StatusCode::GATEWAY_TIMEOUT,
        ErrorClass::HeldTooLong | ErrorClass::LeaseLost => StatusCode::CONFLICT,
        ErrorClass::LimitReached => StatusCode::SERVICE_UNAVAILABLE,
        ErrorClass::Full => StatusCode::INSUFFICIENT_STORAGE,
        ErrorClass::Usage | ErrorClass::Panic | ErrorClass::Storage | ErrorClass::BadConfig => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn answer(status: StatusCode, text: String) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::LOCKED {
        response.insert_header((header::RETRY_AFTER, RETRY_AFTER));
    }
    response.body(text)
}

/// 409 for what the body refused and for conflicts, 422 for a key that was used for another request, 423 while a view keeps the map from growing, 503 with `Retry-After` for
/// overload, a stalled writer, recovery, shutdown and a lost lease, 504 when the time ran out, 507 when there is no space, 500 otherwise.
impl<E: fmt::Debug + fmt::Display> ResponseError for TxnError<E> {
    fn status_code(&self) -> StatusCode {
        if let Self::KeyReused { .. } = self {
            return StatusCode::UNPROCESSABLE_ENTITY;
        }
        status(self.class())
    }

    fn error_response(&self) -> HttpResponse {
        let text = match self {
            Self::Abort(error) => error.to_string(),
            other => other.to_string(),
        };
        answer(self.status_code(), text)
    }
}

/// 409 for conflicts, 503 with `Retry-After` for a limit that is reached and for shutdown.
impl ResponseError for LockError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Limit { .. } | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        }
    }

    fn error_response(&self) -> HttpResponse {
        answer(self.status_code(), self.to_string())
    }
}

macro_rules! by_transaction {
    ($($error:ident),*) => {
        $(impl ResponseError for $error {
            fn status_code(&self) -> StatusCode {
                match self {
                    Self::Txn(error) => error.status_code(),
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                }
            }

            fn error_response(&self) -> HttpResponse {
                answer(self.status_code(), self.to_string())
            }
        })*
    };
}
by_transaction!(DatabaseError, EnvError);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Stage;

    #[test]
    fn errors_map_to_the_statuses_that_a_person_expects() {
        let key = b"k"[..].into();
        let cases: [(TxnError<&str>, u16); 10] = [
            (TxnError::KeyReused { key }, 422),
            (TxnError::Abort("sold out"), 409),
            (TxnError::Overloaded { limit: 1 }, 503),
            (TxnError::NoSnapshot { max: 8 }, 503),
            (TxnError::SnapshotTooOld, 409),
            (TxnError::SnapshotUnderNoLock, 500),
            (TxnError::ShuttingDown, 503),
            (
                TxnError::DeadlineExceeded {
                    deadline: Duration::from_secs(1),
                    stage: Stage::Ran,
                },
                504,
            ),
            (TxnError::MaybeCommitted { cause: None }, 504),
            (TxnError::EnvironmentFull { size: 1, max: 1 }, 507),
        ];
        for (error, expected) in cases {
            let response = error.error_response();
            assert_eq!(response.status().as_u16(), expected, "{error}");
            assert_eq!(
                response.headers().contains_key(header::RETRY_AFTER),
                expected == 503
            );
        }
    }
}

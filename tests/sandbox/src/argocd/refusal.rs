//! How the API says no: gRPC status codes over HTTP.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A gRPC status (`google.rpc.Code`) as the gateway prints it.
#[derive(Debug)]
pub(super) struct Refusal {
    code: u8,
    message: String,
}

impl Refusal {
    /// What has no code of its own, such as manifests that cannot be generated.
    pub(super) fn unknown(message: impl Into<String>) -> Refusal {
        Refusal {
            code: 2,
            message: message.into(),
        }
    }

    pub(super) fn invalid_argument(message: impl Into<String>) -> Refusal {
        Refusal {
            code: 3,
            message: message.into(),
        }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Refusal {
        Refusal {
            code: 5,
            message: message.into(),
        }
    }

    pub(super) fn denied(message: impl Into<String>) -> Refusal {
        Refusal {
            code: 7,
            message: message.into(),
        }
    }

    pub(super) fn failed_precondition(message: impl Into<String>) -> Refusal {
        Refusal {
            code: 9,
            message: message.into(),
        }
    }

    /// What the real one can do and this one cannot.
    pub(super) fn unimplemented(message: impl Into<String>) -> Refusal {
        Refusal {
            code: 12,
            message: message.into(),
        }
    }

    pub(super) fn unauthenticated(message: impl Into<String>) -> Refusal {
        Refusal {
            code: 16,
            message: message.into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.code {
            3 | 9 => StatusCode::BAD_REQUEST,
            5 => StatusCode::NOT_FOUND,
            7 => StatusCode::FORBIDDEN,
            12 => StatusCode::NOT_IMPLEMENTED,
            16 => StatusCode::UNAUTHORIZED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = json!({"error": self.message, "code": self.code, "message": self.message});
        (status, axum::Json(body)).into_response()
    }
}

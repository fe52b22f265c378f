//! Errors as a Kubernetes `Status` (meta/v1): code, reason, message, causes. Leaves out: what led to them.
//!
//! Invariant: every answer that is not 2xx has this shape. Shown by `tests/api.rs`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::control::operator::Refusal;
use crate::model::Kind;
use crate::model::image::ImageName;
use crate::store::StoreError;

/// An answer that is not the one hoped for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: u16,
    /// metav1.StatusReason.
    pub reason: &'static str,
    pub message: String,
    pub causes: Vec<Cause>,
}

/// metav1.StatusCause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub field: String,
    pub message: String,
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { code, reason, message: message.into(), causes: Vec::new() }
    }

    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "BadRequest", message)
    }

    pub fn not_found(kind: Kind, name: &str) -> ApiError {
        ApiError::new(404, "NotFound", format!("{}.embody.dev \"{name}\" not found", kind.plural()))
    }

    pub(super) fn no_such_image(name: &ImageName) -> ApiError {
        ApiError::new(404, "NotFound", format!("there is no image {name}"))
    }

    pub fn no_such_path() -> ApiError {
        ApiError::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub fn wrong_method() -> ApiError {
        ApiError::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub fn exists(kind: Kind, name: &str) -> ApiError {
        ApiError::new(409, "AlreadyExists", format!("{}.embody.dev \"{name}\" already exists", kind.plural()))
    }

    pub fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(409, "Conflict", message)
    }

    pub fn expired(message: impl Into<String>) -> ApiError {
        ApiError::new(410, "Expired", message)
    }

    pub fn unsupported_type(message: impl Into<String>) -> ApiError {
        ApiError::new(415, "UnsupportedMediaType", message)
    }

    pub fn too_large(limit: usize) -> ApiError {
        ApiError::new(413, "RequestEntityTooLarge", format!("the request has more than {limit} bytes"))
    }

    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(500, "InternalError", message)
    }

    /// Objects that are wrong: the first sentence as message, all of them as causes.
    pub fn invalid(sentences: Vec<String>) -> ApiError {
        let message = match sentences.as_slice() {
            [] => "invalid".to_owned(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        };
        let causes = sentences.into_iter().map(|message| Cause { field: String::new(), message }).collect();
        ApiError { code: 422, reason: "Invalid", message, causes }
    }

    pub fn with_causes(mut self, causes: Vec<Cause>) -> ApiError {
        self.causes = causes;
        self
    }

    pub fn to_json(&self) -> serde_json::Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.causes.is_empty() {
            let causes: Vec<_> = self.causes.iter().map(|c| json!({ "field": c.field, "message": c.message })).collect();
            status["details"] = json!({ "causes": causes });
        }
        status
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, Json(self.to_json())).into_response()
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        let text = chain(&error);
        match error {
            StoreError::Conflict { .. } => {
                ApiError::conflict("the object has been modified; please apply your changes to the latest version")
            }
            StoreError::Compacted { .. } => ApiError::expired(text),
            StoreError::TooLarge { .. } => ApiError::new(413, "RequestEntityTooLarge", text),
            StoreError::Unknown { .. } => ApiError::internal(text),
            StoreError::Fenced { .. } | StoreError::Unreachable { .. } | StoreError::Unusable { .. } | StoreError::Backwards { .. } => {
                ApiError::new(503, "ServiceUnavailable", text)
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        let text = refusal.to_string();
        match refusal {
            Refusal::NotFound { .. } => ApiError::new(404, "NotFound", text),
            Refusal::Refused { .. } | Refusal::NotLeader { .. } => ApiError::conflict(text),
            Refusal::Store { .. } => ApiError::new(503, "ServiceUnavailable", text),
        }
    }
}

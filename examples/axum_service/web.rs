//! The web service: publishes orders, and says how the queue stands.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use pgqueue_core::{Error, PublisherExt};
use pgqueue_postgres::{Client, PgQueue};
use serde_json::{Value, json};

use crate::{SUBSCRIPTION, TOPIC, order::Order};

/// How old the oldest order may be before the service is unwell.
const OLDEST: Duration = Duration::from_secs(60);

pub(crate) fn router<C: Client>(queue: PgQueue<C>) -> Router {
    Router::new().route("/orders", post(take_order::<C>)).route("/health", get(health::<C>)).with_state(queue)
}

/// Answers once the order is durable.
async fn take_order<C: Client>(State(queue): State<PgQueue<C>>, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    match queue.publish_json(TOPIC, &order).await {
        Ok(id) => (StatusCode::ACCEPTED, Json(json!({ "id": id.to_string() }))),
        Err(error) => unavailable(&error),
    }
}

async fn health<C: Client>(State(queue): State<PgQueue<C>>) -> (StatusCode, Json<Value>) {
    match queue.stats(SUBSCRIPTION).await {
        Ok(stats) => {
            let is_well = stats.oldest.is_none_or(|oldest| oldest < OLDEST);
            let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let stands = json!({
                "waiting": stats.waiting,
                "in_flight": stats.in_flight,
                "retrying": stats.retrying,
                "dead": stats.dead,
                "oldest_s": stats.oldest.map(|oldest| oldest.as_secs_f64()),
            });
            (status, Json(stands))
        }
        Err(error) => unavailable(&error),
    }
}

/// Says no more than the kind: who asks over HTTP need not know about the database.
fn unavailable(error: &Error) -> (StatusCode, Json<Value>) {
    eprintln!("{error}");
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": format!("{:?}", error.kind()) })))
}

//! The test server does what its documentation says.

mod pgbouncer;
mod proxy;
mod server;
mod support;

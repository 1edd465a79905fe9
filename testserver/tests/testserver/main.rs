//! The test server does what its documentation says.

mod proxy;
mod server;
mod support;

//! Tests that run through both clients.

/// Makes a test of each function, for both clients.
macro_rules! on_both_clients {
    ($($test:ident),* $(,)?) => {
        mod through_tokio_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test::<pgqueue_tokio_postgres::TokioPostgres>().await;
            })*
        }

        mod through_sqlx {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test::<pgqueue_sqlx::Sqlx>().await;
            })*
        }
    };
}
pub(crate) use on_both_clients;

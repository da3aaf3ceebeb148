//! Every statement is prepared on both databases, and both schemas say the same.

use signet_controller::store::Store;
use signet_controller::{commands, dispatch, hosts, keys};
use signet_testkit::{Pair, on_both_pairs};

on_both_pairs!(every_statement_is_prepared, migrations_run_twice);

async fn store(pair: Pair) -> (Store, signet_testkit::Parts) {
    let parts = pair.parts().await;
    let store = Store::open(parts.database_url()).unwrap();
    store.migrate().await.unwrap();
    (store, parts)
}

async fn every_statement_is_prepared(pair: Pair) {
    let (store, _parts) = store(pair).await;
    let slices = [commands::STATEMENTS, dispatch::STATEMENTS, hosts::STATEMENTS, keys::STATEMENTS]
        .into_iter()
        .flatten();
    let mut count = 0;
    for (name, statement) in slices {
        store.prepare(*statement).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        count += 1;
    }
    assert!(count > 80, "only {count} statements were found");
    store.close().await;
}

async fn migrations_run_twice(pair: Pair) {
    let (store, _parts) = store(pair).await;
    store.migrate().await.unwrap();
    store.close().await;
}

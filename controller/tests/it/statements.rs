//! Every statement is prepared on both databases, and both schemas say the same.

use signet_controller::store::Store;
use signet_controller::{
    accounts, approvals, audit, commands, deploy, dispatch, hosts, keys, leases, repositories,
};
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
    let slices = [
        accounts::STATEMENTS,
        approvals::STATEMENTS,
        commands::STATEMENTS,
        deploy::STATEMENTS,
        deploy::HOST_KEY_STATEMENTS,
        deploy::LEASE_STATEMENTS,
        audit::STATEMENTS,
        dispatch::STATEMENTS,
        leases::ALL,
        hosts::STATEMENTS,
        hosts::BEAT_STATEMENTS,
        hosts::DEPLOYMENT_STATEMENTS,
        hosts::JOIN_STATEMENTS,
        hosts::SEALING_STATEMENTS,
        keys::STATEMENTS,
        repositories::STATEMENTS,
    ]
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

/// Only a server's database is shared by controllers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_controllers_that_start_together_migrate_once() {
    let parts = Pair::MariadbRabbitmq.parts().await;
    let stores: Vec<Store> = (0..3).map(|_| Store::open(parts.database_url()).unwrap()).collect();
    let (a, b, c) = tokio::join!(stores[0].migrate(), stores[1].migrate(), stores[2].migrate());
    assert_eq!((a, b, c), (Ok(()), Ok(()), Ok(())));
    for store in stores {
        store.close().await;
    }
}

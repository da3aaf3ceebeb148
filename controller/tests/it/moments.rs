//! What a snapshot reads, and what others read and write meanwhile.

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use signet_controller::limits::MYSQL_CONNECTIONS_MAX;
use signet_controller::store::{Read, Statement, Store};
use signet_testkit::{Pair, on_both_pairs};

on_both_pairs!(a_snapshot_is_of_one_moment, who_gives_up_leaves_no_moment_behind);

const TABLE: Statement = Statement::same("CREATE TABLE moments (n BIGINT NOT NULL)");
const ADD: Statement = Statement::same("INSERT INTO moments (n) VALUES (1)");
const COUNT: Statement = Statement::same("SELECT COUNT(*) FROM moments");

async fn counted(mut read: impl Read) -> i64 {
    read.first::<(i64,)>(COUNT.query()).await.unwrap().unwrap().0
}

async fn written(store: &Store, statement: Statement) {
    let mut tx = store.begin().await.unwrap();
    tx.run(statement.query()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn a_snapshot_is_of_one_moment(pair: Pair) {
    let parts = pair.parts().await;
    let store = Store::open(parts.database_url()).unwrap();
    written(&store, TABLE).await;
    written(&store, ADD).await;
    let mut moment = store.snapshot().await.unwrap();
    assert_eq!(counted(&mut moment).await, 1);
    // Nobody waits for who reads.
    written(&store, ADD).await;
    assert_eq!(counted(&mut moment).await, 1);
    assert_eq!(counted(&store).await, 2);
    moment.end().await.unwrap();
    // Whoever gets its connection next is bound to nothing.
    let mut next = store.snapshot().await.unwrap();
    assert_eq!(counted(&mut next).await, 2);
    next.end().await.unwrap();
    if matches!(pair, Pair::MariadbRabbitmq) {
        let mut tx = store.begin().await.unwrap();
        assert_eq!(counted(&mut tx).await, 2);
        written(&store, ADD).await;
        assert_eq!(counted(&mut tx).await, 3, "each statement of a transaction sees what is committed");
    }
    store.close().await;
}

async fn who_gives_up_leaves_no_moment_behind(pair: Pair) {
    let parts = pair.parts().await;
    let store = Store::open(parts.database_url()).unwrap();
    written(&store, TABLE).await;
    // More at a time than there are connections, so that each of them has been asked for a moment.
    let many = || 0..2 * MYSQL_CONNECTIONS_MAX;
    join_all(many().map(|_| counted(&store))).await;
    for _ in many() {
        assert!(store.snapshot().now_or_never().is_none_or(|begun| begun.is_ok()));
        assert!(store.begin().now_or_never().is_none_or(|begun| begun.is_ok()));
    }
    written(&store, ADD).await;
    assert!(join_all(many().map(|_| counted(&store))).await.iter().all(|count| *count == 1));
    for moment in
        join_all(many().map(|_| store.snapshot().then(async |begun| begun.unwrap().end().await))).await
    {
        moment.unwrap();
    }
    store.close().await;
}

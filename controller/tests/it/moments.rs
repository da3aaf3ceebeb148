//! What a snapshot reads, and what others read and write meanwhile.

use signet_controller::store::{Read, Statement, Store};
use signet_testkit::{Pair, on_both_pairs};

on_both_pairs!(a_snapshot_is_of_one_moment);

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

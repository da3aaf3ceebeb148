//! The installation's keys: made once, sealed, and the same for every controller.

use std::os::unix::fs::PermissionsExt as _;

use signet_common::keyring::Keyring;
use signet_common::{SigningKey, envelope::DsseJson};
use signet_controller::keys::{Keys, MasterKey};
use signet_controller::store::{Statement, Store};
use signet_testkit::{Pair, on_both_pairs};

on_both_pairs!(
    controllers_that_start_together_end_with_one_key,
    another_master_key_stops_the_start,
    no_secret_lies_open_in_the_database,
    an_emptied_database_gets_its_keys_from_the_copy,
    an_older_database_catches_up_and_another_one_is_refused,
);

async fn database(pair: Pair) -> (Store, signet_testkit::Parts) {
    let parts = pair.parts().await;
    let store = Store::open(parts.database_url()).unwrap();
    store.migrate().await.unwrap();
    (store, parts)
}

async fn controllers_that_start_together_end_with_one_key(pair: Pair) {
    let (store, _parts) = database(pair).await;
    let data = tempfile::tempdir().unwrap();
    let master = data.path().join("master.key");
    let start = async || {
        let keys = Keys::new(MasterKey::load_or_create(&master).unwrap());
        keys.load(&store, data.path()).await.unwrap();
        keys.fleet().unwrap().signing().clone().public().id().clone()
    };
    let (a, b, c) = tokio::join!(start(), start(), start());
    assert!(a == b && b == c);
    assert_eq!(start().await, a, "a later start finds the same key");

    let keys = Keys::new(MasterKey::load_or_create(&master).unwrap());
    assert!(keys.fleet().is_err());
    keys.load(&store, data.path()).await.unwrap();
    assert_eq!(keys.fleet().unwrap().keyring().version(), 1);
    assert_eq!(keys.fleet().unwrap().keyring().current().id(), &a);
    assert_eq!(keys.fleet().unwrap().chain().len(), 1);
    for name in ["master.key", "keyring.sealed"] {
        let mode = std::fs::metadata(data.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

async fn another_master_key_stops_the_start(pair: Pair) {
    let (store, parts) = database(pair).await;
    let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let master = MasterKey::load_or_create(&mine.path().join("master.key")).unwrap();
    Keys::new(master).load(&store, mine.path()).await.unwrap();

    let mut settings = signet_controller::settings::Settings::embedded(other.path());
    settings.database_url = signet_controller::settings::Secret::new(parts.database_url());
    settings.listen = vec!["127.0.0.1:0".parse().unwrap()];
    let mut running = signet_controller::start_on(settings, parts.controller_bus().await).await.unwrap();
    assert!(running.ready().await.is_err());
    let error = format!("{:#}", running.finished().await.unwrap_err());
    assert!(error.contains("master key") && error.contains("SIGNET_MASTER_KEY_FILE"), "{error}");
}

async fn no_secret_lies_open_in_the_database(pair: Pair) {
    let (store, _parts) = database(pair).await;
    let data = tempfile::tempdir().unwrap();
    let keys = Keys::new(MasterKey::load_or_create(&data.path().join("master.key")).unwrap());
    keys.load(&store, data.path()).await.unwrap();
    let copy = std::fs::read(data.path().join("keyring.sealed")).unwrap();
    assert!(!copy.windows(11).any(|part| part == b"PRIVATE KEY"));
    assert!(!format!("{:?}", keys.master()).contains(|c: char| c.is_ascii_digit()));
    let (_, secret) =
        signet_controller::keys::STATEMENTS.iter().find(|(name, _)| *name == "SECRETS").unwrap();
    let rows: Vec<(String, Vec<u8>)> = store.all(secret.query().list(["fleet-key.1"])).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert!(rows.iter().all(|(_, sealed)| !sealed.windows(11).any(|part| part == b"PRIVATE KEY")));
}

/// Loads the keys as a start of the controller does.
async fn started(store: &Store, data: &std::path::Path) -> Result<Keys, String> {
    let keys = Keys::new(MasterKey::load_or_create(&data.join("master.key")).unwrap());
    keys.load(store, data).await.map(|()| keys).map_err(|e| e.to_string())
}

async fn emptied(store: &Store) {
    let mut tx = store.begin().await.unwrap();
    for text in ["DELETE FROM keyrings", "DELETE FROM secrets"] {
        tx.run(Statement::same(text).query()).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn an_emptied_database_gets_its_keys_from_the_copy(pair: Pair) {
    let (store, _parts) = database(pair).await;
    let data = tempfile::tempdir().unwrap();
    let first = started(&store, data.path()).await.unwrap().fleet().unwrap().chain().to_vec();
    let copy = std::fs::read(data.path().join("keyring.sealed")).unwrap();
    emptied(&store).await;
    // Two controllers may begin on it at the same time.
    let (one, two) = tokio::join!(started(&store, data.path()), started(&store, data.path()));
    for keys in [one.unwrap(), two.unwrap()] {
        assert_eq!(keys.fleet().unwrap().chain(), first);
        assert_eq!(
            keys.fleet().unwrap().signing().clone().public(),
            keys.fleet().unwrap().keyring().current()
        );
    }
    assert_eq!(std::fs::read(data.path().join("keyring.sealed")).unwrap(), copy, "the copy stays");
}

async fn an_older_database_catches_up_and_another_one_is_refused(pair: Pair) {
    let (store, _parts) = database(pair).await;
    let data = tempfile::tempdir().unwrap();
    let keys = started(&store, data.path()).await.unwrap();
    let old = keys.fleet().unwrap().signing().clone();
    // A copy such as a rotation leaves: version 2, which this database never saw.
    let new = SigningKey::generate().unwrap();
    let (_, second) = keys.fleet().unwrap().keyring().next(&old, &new, 2, false).unwrap();
    let chain: Vec<DsseJson> = keys.fleet().unwrap().chain().iter().cloned().chain([second]).collect();
    leave_copy(&keys, data.path(), &chain, &new);
    let caught_up = started(&store, data.path()).await.unwrap();
    assert_eq!(caught_up.fleet().unwrap().chain(), chain);
    assert_eq!(caught_up.fleet().unwrap().signing().clone().public(), new.public());
    assert_eq!(started(&store, data.path()).await.unwrap().fleet().unwrap().version(), 2, "it lasts");

    // The keys of another fleet: nothing is overwritten on either side.
    let stranger = SigningKey::generate().unwrap();
    let (_, other) = Keyring::first(&stranger, 1).unwrap();
    leave_copy(&keys, data.path(), &[other], &stranger);
    let copy = std::fs::read(data.path().join("keyring.sealed")).unwrap();
    let error = started(&store, data.path()).await.err().unwrap();
    assert!(error.contains("another fleet's keys"), "{error}");
    assert_eq!(std::fs::read(data.path().join("keyring.sealed")).unwrap(), copy);
    std::fs::remove_file(data.path().join("keyring.sealed")).unwrap();
    assert_eq!(started(&store, data.path()).await.unwrap().fleet().unwrap().chain().to_vec(), chain);
}

fn leave_copy(keys: &Keys, data: &std::path::Path, chain: &[DsseJson], key: &SigningKey) {
    let copy = serde_json::json!({ "chain": chain, "signing_key": key.to_pem().unwrap() });
    let sealed = keys.master().seal("keyring.sealed", copy.to_string().as_bytes()).unwrap();
    std::fs::write(data.join("keyring.sealed"), sealed).unwrap();
}

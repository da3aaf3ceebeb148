//! Commits and tags that somebody must have signed.

use std::fs;

use serde_json::{Value, json};
use signet_testkit::ssh::SshKey;

use crate::world::{World, git};

/// Makes a signed commit or tag in the origin.
fn sign(world: &World, key: &str, arguments: &[&str]) -> String {
    let file = format!("user.signingKey={}", world.dir.path().join(key).display());
    let mut all = vec!["-c", "gpg.format=ssh", "-c", &file];
    all.extend(arguments);
    git(&world.origin, &all);
    world.head()
}

#[tokio::test]
async fn only_what_an_allowed_signer_signed_is_deployed() {
    let world = World::new();
    let (alice, _mallory) =
        (SshKey::ed25519(world.dir.path(), "alice"), SshKey::ed25519(world.dir.path(), "mallory"));
    let signers = format!("alice@example.com namespaces=\"git\" {}\n", alice.public);
    let demand = |change: Value| {
        let mut all = json!({ "allowed_signers": signers });
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        all
    };
    let releases = json!({ "strategy": { "releases": {} }, "path": world.dir.path().join("srv/releases") });

    world.deploy(demand(json!({}))).await.failed("is not signed by an allowed signer");
    world.deploy(demand(releases.clone())).await.failed("is not signed by an allowed signer");
    assert!(!world.path.join("version").exists());
    sign(&world, "mallory", &["commit", "-q", "--allow-empty", "-S", "-m", "x"]);
    world.deploy(demand(json!({}))).await.failed("is not signed by an allowed signer");
    let good = sign(&world, "alice", &["commit", "-q", "--allow-empty", "-S", "-m", "x"]);
    world.deploy(demand(json!({}))).await.succeeded();
    world.deploy(demand(releases.clone())).await.succeeded();
    assert!(!world.deploy(demand(releases.clone())).await.succeeded().changed);

    // A signed tag stands for its commit, and for no other.
    let plain = world.commit("two");
    sign(&world, "alice", &["tag", "-s", "v1", "-m", "v1"]);
    sign(&world, "mallory", &["tag", "-s", "v2", "-m", "v2"]);
    world.commit("three");
    world.deploy(demand(json!({ "commit": plain, "reference": "v2" }))).await.failed("not signed");
    world.deploy(demand(json!({ "reference": "v1" }))).await.failed("not signed");
    world.deploy(demand(json!({ "commit": plain, "reference": "v1" }))).await.succeeded();
    // What is there already must be signed, too.
    world.deploy(json!({})).await.succeeded();
    world.deploy(demand(json!({}))).await.failed("not signed");
    world.deploy(demand(json!({ "commit": good }))).await.succeeded();
    // Also by a tag that came, or was signed, after it did.
    let newer = world.commit("four");
    for path in [world.path.clone(), world.dir.path().join("srv/releases")] {
        let mut how = json!({ "path": path });
        if path != world.path {
            how["strategy"] = releases["strategy"].clone();
        }
        world.deploy(how.clone()).await.succeeded();
        how["commit"] = newer.clone().into();
        how["reference"] = "v4".into();
        git(&world.origin, &["tag", "-f", "v4"]);
        world.deploy(demand(how.clone())).await.failed("not signed");
        sign(&world, "mallory", &["tag", "-f", "-s", "v4", "-m", "v4"]);
        world.deploy(demand(how.clone())).await.failed("not signed");
        sign(&world, "alice", &["tag", "-f", "-s", "v4", "-m", "v4"]);
        assert!(!world.deploy(demand(how)).await.succeeded().changed);
    }
}

#[tokio::test]
async fn another_kind_of_signature_does_not_count() {
    let world = World::new();
    let alice = SshKey::ed25519(world.dir.path(), "alice");
    // A commit that claims an OpenPGP signature, and a configuration that would believe anything.
    let program = world.dir.path().join("gpg");
    fs::write(
        &program,
        "#!/bin/sh\nprintf '[GNUPG:] GOODSIG 0 x\\n[GNUPG:] VALIDSIG 0\\n[GNUPG:] TRUST_ULTIMATE\\n'\n",
    )
    .unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let believes = format!("[gpg]\n\tprogram = {0}\n[gpg \"ssh\"]\n\tprogram = {0}\n", program.display());
    fs::write(world.home.join(".gitconfig"), believes).unwrap();
    let raw = git(&world.origin, &["cat-file", "commit", "HEAD"]);
    let signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n AAAA\n -----END PGP SIGNATURE-----\n";
    let (head, message) = raw.split_once("\n\n").unwrap();
    let file = world.dir.path().join("commit");
    fs::write(&file, format!("{head}\n{signature}\n{message}\n")).unwrap();
    let commit = git(&world.origin, &["hash-object", "-t", "commit", "-w", file.to_str().unwrap()]);
    git(&world.origin, &["update-ref", "refs/heads/main", &commit]);
    let signers = format!("alice {}\n", alice.public);
    world.deploy(json!({ "allowed_signers": signers })).await.failed("is not signed by an allowed signer");
    // And one of a stranger, by a program that calls it good.
    let believer = "#!/bin/sh\necho 'Good \"git\" signature for alice with ED25519 key SHA256:x'\n";
    fs::write(&program, believer).unwrap();
    let _mallory = SshKey::ed25519(world.dir.path(), "mallory");
    sign(&world, "mallory", &["commit", "-q", "--allow-empty", "-S", "-m", "x"]);
    world.deploy(json!({ "allowed_signers": signers })).await.failed("is not signed by an allowed signer");
}

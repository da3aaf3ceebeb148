//! Client keys: which PEM forms are taken, and in which one they are answered.

use std::process::{Command, Stdio};

use serde_json::json;
use signet_common::PublicKey;
use signet_testkit::{Pair, on_both_pairs};

use crate::support::TestApp;

on_both_pairs!(keys_are_answered_in_one_form, what_is_no_key_is_refused, a_key_is_replaced);

/// What openssl prints.
fn openssl(arguments: &[&str], input: &str) -> String {
    use std::io::Write as _;
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn keys_are_answered_in_one_form(pair: Pair) {
    let app = TestApp::start(pair).await;
    let private = app.agent_key().to_pem().unwrap();
    let spki = openssl(&["pkey", "-pubout"], &private);
    let pkcs1 = openssl(&["rsa", "-RSAPublicKey_out"], &private);
    assert!(pkcs1.starts_with("-----BEGIN RSA PUBLIC KEY-----"));
    let crlf = spki.replace('\n', "\r\n");
    for (host, pem) in [("spki", &spki), ("pkcs1", &pkcs1), ("crlf", &crlf)] {
        // One key belongs to one host.
        let app = TestApp::start(pair).await;
        let path = format!("/api/client-keys/{host}");
        let key = app.put(&path, &json!({ "public_key_pem": pem })).await.expect(200);
        assert_eq!(key["public_key_pem"], spki.trim_end(), "{host}");
        // An unknown host is made: group `default`, no address.
        let server = app.get("/api/servers").await.expect(200);
        assert_eq!((&server[0]["hostname"], &server[0]["group"]), (&json!(host), &json!("default")));
        assert_eq!((&server[0]["ip"], &server[0]["status"]), (&json!(""), &json!("offline")));
    }
}

async fn what_is_no_key_is_refused(pair: Pair) {
    let app = TestApp::start(pair).await;
    let small = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], "");
    let curve = openssl(&["genpkey", "-algorithm", "ED25519"], "");
    let private = app.agent_key().to_pem().unwrap();
    let cases = [
        String::new(),
        "not a key".into(),
        private,
        openssl(&["pkey", "-pubout"], &small),
        openssl(&["pkey", "-pubout"], &curve),
    ];
    for pem in cases {
        let refused = app.put("/api/client-keys/server1", &json!({ "public_key_pem": pem })).await;
        assert_eq!(refused.expect(400), json!({ "detail": "无效的公钥格式" }), "{pem}");
    }
    let missing = app.put("/api/client-keys/server1", &json!({})).await.expect(400);
    assert_eq!(missing, json!({ "detail": "public_key_pem is required" }));
    assert_eq!(app.get("/api/servers").await.expect(200), json!([]), "nothing was made");
}

async fn a_key_is_replaced(pair: Pair) {
    let app = TestApp::start(pair).await;
    let keys = [app.agent_key(), app.agent_key()];
    let put = async |key: &PublicKey| {
        app.put("/api/client-keys/Server1", &json!({ "public_key_pem": key.to_pem() })).await.expect(200)
    };
    let first = put(keys[0].public()).await;
    let second = put(keys[1].public()).await;
    assert_eq!(second["hostname"], "server1");
    assert_eq!(second["public_key_pem"], keys[1].public().to_pem());
    assert_eq!(first["created_at"], second["created_at"]);
    let standing = async |key: &PublicKey| {
        let agents = app.get("/api/agents").await.expect(200);
        let agents = agents.as_array().unwrap().clone();
        agents.into_iter().find(|a| a["agent_id"] == key.agent_id().as_str()).unwrap()["standing"].clone()
    };
    assert_eq!(standing(keys[0].public()).await, "replaced");
    assert_eq!(standing(keys[1].public()).await, "accepted");
    assert_eq!(app.get("/api/client-keys").await.expect(200).as_array().unwrap().len(), 1);
}

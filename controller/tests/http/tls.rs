//! HTTPS with certificates of our own, renewed while the program runs. Made by `openssl`, as people make them.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::{Certificate, Client};
use signet_testkit::eventually;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::program::controller;
use super::support::PATIENCE;

/// An authority with a certificate for 127.0.0.1.
struct Authority(PathBuf);

impl Authority {
    fn new(at: &Path) -> Self {
        std::fs::create_dir(at).unwrap();
        let script = r#"
            set -e
            key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
            openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj /CN=ca -addext keyUsage=critical,keyCertSign
            openssl req $key -keyout key.pem -out csr -subj /CN=controller
            printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' > extensions
            openssl x509 -req -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem
        "#;
        let made = Command::new("sh").args(["-c", script]).current_dir(at).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(at.to_owned())
    }

    /// Puts its certificate where the controller reads it.
    fn serve_at(&self, at: &Path) {
        for name in ["key.pem", "cert.pem"] {
            std::fs::copy(self.0.join(name), at.join(name)).unwrap();
        }
    }

    /// A client that trusts this authority alone.
    fn client(&self) -> Client {
        let ca = Certificate::from_pem(&std::fs::read(self.0.join("ca.pem")).unwrap()).unwrap();
        Client::builder().tls_certs_only([ca]).pool_max_idle_per_host(0).build().unwrap()
    }
}

struct Program {
    child: Child,
    url: String,
}

impl Program {
    fn start(data: &Path, tls: &Path) -> Self {
        let mut child = controller()
            .args(["--listen", "127.0.0.1:0"])
            .env("SIGNET_DATA_DIR", data)
            .env("SIGNET_TLS_CERT", tls.join("cert.pem"))
            .env("SIGNET_TLS_KEY", tls.join("key.pem"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.next().unwrap().unwrap();
        let url = ready.strip_prefix("signet: ready on ").unwrap_or_else(|| panic!("{ready}")).to_owned();
        Self { child, url }
    }

    fn hang_up(&self) {
        assert!(
            Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status().unwrap().success()
        );
    }

    async fn answers(&self, client: &Client) -> bool {
        let asked = client.get(format!("{}/api/health", self.url)).send().await;
        asked.is_ok_and(|answer| answer.status() == 200)
    }

    async fn shows(&self, client: &Client, what: &str) {
        eventually(PATIENCE, what, async || self.answers(client).await.then_some(())).await;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_without_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let [one, two, three] = ["one", "two", "three"].map(|name| Authority::new(&root.path().join(name)));
    let tls = root.path().join("tls");
    std::fs::create_dir(&tls).unwrap();
    one.serve_at(&tls);
    let program = Program::start(&root.path().join("data"), &tls);
    assert!(program.url.starts_with("https://127.0.0.1:"), "{}", program.url);
    assert!(program.answers(&one.client()).await);
    assert!(!program.answers(&two.client()).await, "a stranger's certificate is believed");
    let plain =
        Client::new().get(format!("{}/api/health", program.url.replace("https", "http"))).send().await;
    assert!(plain.is_err(), "plain HTTP is answered");

    // Who never says a word keeps nobody else waiting, and is hung up on in the end.
    let address = program.url.strip_prefix("https://").unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert!(program.answers(&one.client()).await);

    two.serve_at(&tls);
    program.hang_up();
    program.shows(&two.client(), "the second certificate").await;
    assert!(!program.answers(&one.client()).await);

    // What can't be used changes nothing: nonsense, and a key that belongs to another certificate.
    std::fs::write(tls.join("cert.pem"), "nonsense").unwrap();
    program.hang_up();
    std::fs::copy(root.path().join("one/cert.pem"), tls.join("cert.pem")).unwrap();
    program.hang_up();
    assert!(program.answers(&two.client()).await);

    // It looks by itself, too.
    three.serve_at(&tls);
    program.shows(&three.client(), "the third certificate").await;

    let mut nothing = [0];
    let hung_up = tokio::time::timeout(PATIENCE, silent.read(&mut nothing)).await.unwrap();
    assert!(matches!(hung_up, Ok(0) | Err(_)), "{hung_up:?}");
}

#[test]
fn a_bad_certificate_stops_the_start() {
    let root = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| Authority::new(&root.path().join(name)));
    let refused = controller()
        .args(["--listen", "127.0.0.1:0"])
        .env("SIGNET_DATA_DIR", root.path().join("data"))
        .env("SIGNET_TLS_CERT", one.0.join("cert.pem"))
        .env("SIGNET_TLS_KEY", two.0.join("key.pem"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("SIGNET_TLS_CERT"), "{text}");
}

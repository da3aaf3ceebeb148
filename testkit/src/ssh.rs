//! SSH keys and signatures by the real `ssh-keygen`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A key pair in files.
pub struct SshKey {
    file: PathBuf,
    /// Its public line: type, key and comment.
    pub public: String,
}

impl SshKey {
    /// Made by `ssh-keygen -t kind`, with further arguments such as `-b 384`; `name` is its file and its comment.
    #[must_use]
    pub fn generate(dir: &Path, name: &str, kind: &str, more: &[&str]) -> Self {
        let file = dir.join(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", name, "-t", kind])
            .args(more)
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .expect("ssh-keygen runs");
        assert!(made.status.success(), "{made:?}");
        let public = fs::read_to_string(file.with_extension("pub")).expect("a public key");
        Self { file, public: public.trim_end().to_owned() }
    }

    /// An Ed25519 key that a passphrase opens.
    #[must_use]
    pub fn locked(dir: &Path, name: &str, passphrase: &str) -> Self {
        let key = Self::ed25519(dir, name);
        let locked = Command::new("ssh-keygen")
            .args(["-q", "-p", "-P", "", "-N", passphrase, "-f"])
            .arg(&key.file)
            .stdin(Stdio::null())
            .output()
            .expect("ssh-keygen runs");
        assert!(locked.status.success(), "{locked:?}");
        key
    }

    /// An Ed25519 key.
    #[must_use]
    pub fn ed25519(dir: &Path, name: &str) -> Self {
        Self::generate(dir, name, "ed25519", &[])
    }

    /// The private key's text.
    #[must_use]
    pub fn private(&self) -> String {
        fs::read_to_string(&self.file).expect("a private key")
    }

    /// `ssh-keygen -Y sign`: the armored signature.
    #[must_use]
    pub fn sign(&self, namespace: &str, message: &[u8], more: &[&str]) -> String {
        let input = self.file.with_extension("message");
        let output = self.file.with_extension("message.sig");
        fs::write(&input, message).expect("a message");
        if output.exists() {
            fs::remove_file(&output).expect("the last signature goes");
        }
        let signed = Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", namespace, "-f"])
            .arg(&self.file)
            .args(more)
            .arg(&input)
            .stdin(Stdio::null())
            .output()
            .expect("ssh-keygen runs");
        assert!(signed.status.success(), "{signed:?}");
        fs::read_to_string(&output).expect("a signature")
    }
}

/// `ssh-keygen -Y verify`: whether `person` signed `message` by these allowed signers.
///
/// # Panics
/// When `ssh-keygen` can't be run.
#[must_use]
pub fn verify(dir: &Path, allowed: &str, person: &str, namespace: &str, message: &[u8], sig: &str) -> Output {
    let (signers, signature, input) =
        (dir.join("allowed_signers"), dir.join("a.sig"), dir.join("verify.message"));
    fs::write(&signers, allowed).expect("allowed signers");
    fs::write(&signature, sig).expect("a signature");
    fs::write(&input, message).expect("a message");
    Command::new("ssh-keygen")
        .args(["-Y", "verify", "-n", namespace, "-I", person, "-f"])
        .arg(&signers)
        .arg("-s")
        .arg(&signature)
        .stdin(fs::File::open(&input).expect("the message"))
        .output()
        .expect("ssh-keygen runs")
}

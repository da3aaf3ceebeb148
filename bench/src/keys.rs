//! Keys of thousands of agents from a pool of primes: a key is a pair of primes, so 102 primes, found once in half a
//! minute and cached, make 5,151 keys at some milliseconds each. Such keys share primes and protect nothing; they cost
//! exactly as much to sign and verify with as others.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use der::Encode as _;
use der::asn1::UintRef;
use num_bigint::BigUint;
use signet_common::SigningKey;

use crate::limits::{PRIME_BITS, PRIMES};

/// Primes of 1,536 bits.
pub(crate) struct PrimePool(Vec<BigUint>);

impl PrimePool {
    /// From the cache, or found with openssl and cached there: one prime a line, in hex.
    pub(crate) fn open(cache: &Path) -> anyhow::Result<Self> {
        let file = cache.join(format!("primes-{PRIME_BITS}.txt"));
        if !file.exists() {
            eprintln!("finding {PRIMES} primes of {PRIME_BITS} bits, once");
            let found: Vec<String> = (0..PRIMES).map(|_| find()).collect::<Result<_, _>>()?;
            write_whole(&file, &found.join("\n"))?;
        }
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let parse = |line: &str| BigUint::parse_bytes(line.as_bytes(), 16);
        let mut primes: Vec<BigUint> =
            text.lines().map(parse).collect::<Option<_>>().context("a prime that is no number")?;
        primes.sort_unstable();
        primes.dedup();
        ensure!(primes.len() == PRIMES, "{} holds {} primes: delete it", file.display(), primes.len());
        Ok(Self(primes))
    }

    /// As many keys as there are pairs.
    pub(crate) fn len(&self) -> usize {
        self.0.len() * (self.0.len() - 1) / 2
    }

    /// The n-th key.
    pub(crate) fn key(&self, n: usize) -> anyhow::Result<SigningKey> {
        let (q, p) = pair(n);
        let (Some(p), Some(q)) = (self.0.get(p), self.0.get(q)) else {
            bail!("{} primes make no {n} keys", self.0.len());
        };
        Ok(SigningKey::from_pem(&assemble(p, q)?)?)
    }
}

/// The n-th pair of two different numbers: (0, 1), (0, 2), (1, 2), (0, 3) …
fn pair(n: usize) -> (usize, usize) {
    let mut larger = 1;
    let mut first = 0;
    while first + larger <= n {
        first += larger;
        larger += 1;
    }
    (n - first, larger)
}

/// A private key in PKCS#1 (RFC 8017, appendix A.1.2), as PEM.
fn assemble(p: &BigUint, q: &BigUint) -> anyhow::Result<String> {
    let one = BigUint::from(1_u8);
    let e = BigUint::from(65_537_u32);
    let (p1, q1) = (p - &one, q - &one);
    let d = e.modinv(&(&p1 * &q1)).context("a prime p with 65537 | p - 1")?;
    let coefficient = q.modinv(p).context("twice the same prime")?;
    let fields = [BigUint::ZERO, p * q, e, d.clone(), p.clone(), q.clone(), &d % p1, &d % q1, coefficient];
    let bytes = fields.map(|field| field.to_bytes_be());
    let integers: Vec<UintRef<'_>> = bytes.iter().map(|b| UintRef::new(b)).collect::<Result<_, _>>()?;
    Ok(pem::encode(&pem::Pem::new("RSA PRIVATE KEY", integers.to_der()?)))
}

/// One prime, its two highest bits set, so that each product has twice its bits.
fn find() -> anyhow::Result<String> {
    let bits = PRIME_BITS.to_string();
    let output = Command::new("openssl").args(["prime", "-generate", "-hex", "-bits", &bits]).output()?;
    ensure!(output.status.success(), "openssl prime: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?.trim().to_owned();
    let prime = BigUint::parse_bytes(text.as_bytes(), 16).context("openssl prime printed no number")?;
    ensure!(prime.bits() == PRIME_BITS && prime.bit(PRIME_BITS - 2), "openssl prime printed {text}");
    Ok(text)
}

/// Writes a file that is there whole or not at all.
fn write_whole(file: &Path, text: &str) -> anyhow::Result<()> {
    let new = PathBuf::from(format!("{}.new", file.display()));
    std::fs::create_dir_all(file.parent().context("a file in a directory")?)?;
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(new, file)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_pair_comes_once() {
        let pairs: HashSet<(usize, usize)> = (0..5_151).map(pair).collect();
        assert_eq!(pairs.len(), 5_151);
        assert!(pairs.iter().all(|(smaller, larger)| smaller < larger && *larger < PRIMES));
    }

    #[test]
    fn an_assembled_key_signs_and_only_its_own_half_verifies() {
        let primes: Vec<BigUint> =
            (0..3).map(|_| BigUint::parse_bytes(find().unwrap().as_bytes(), 16).unwrap()).collect();
        let pool = PrimePool(primes);
        assert_eq!(pool.len(), 3);
        let [one, other] = [0, 2].map(|n| pool.key(n).unwrap());
        let signature = one.sign(b"message").unwrap();
        assert_eq!(signature.len(), 384);
        assert!(one.public().verifies(b"message", &signature));
        assert!(!one.public().verifies(b"massage", &signature));
        assert!(!other.public().verifies(b"message", &signature));
        assert!(pool.key(3).is_err());
    }
}

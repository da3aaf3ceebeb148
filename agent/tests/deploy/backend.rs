//! A git server over HTTP that wants a token, and a search for where that token is seen.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A server of the repositories below a directory.
pub(crate) struct Backend {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    /// What was found in foreign places while a request was under way.
    pub(crate) leaks: Arc<Mutex<Vec<String>>>,
    /// Requests that brought the token.
    pub(crate) served: Arc<Mutex<usize>>,
}

/// A user and a token in one text, as in `Authorization: Basic`.
fn basic(user: &str, token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{token}")))
}

impl Backend {
    /// Serves to who brings this token.
    pub(crate) fn start(root: PathBuf, user: &'static str, token: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (leaks, served) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let backend = Self { url, leaks: Arc::clone(&leaks), served: Arc::clone(&served) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if answer(&stream.unwrap(), &root, &basic(user, token)) {
                    *served.lock().unwrap() += 1;
                    leaks.lock().unwrap().extend(seen_in_processes(token));
                }
            }
        });
        backend
    }
}

/// One request and its answer. True when it brought the token.
fn answer(stream: &TcpStream, root: &Path, wanted: &str) -> bool {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let Some(request) = head.first().cloned() else { return false };
    let header = |name: &str| {
        let line = head.iter().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        line.unwrap_or_default()
    };
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let mut writer = stream;
    if header("authorization") != wanted {
        let refusal = "HTTP/1.1 401 X\r\nwww-authenticate: Basic realm=\"git\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        writer.write_all(refusal.as_bytes()).unwrap();
        return false;
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut cgi = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cgi.stdin.take().unwrap().write_all(&body).unwrap();
    let output = cgi.wait_with_output().unwrap().stdout;
    let end = output.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let headers = String::from_utf8_lossy(&output[..end]).into_owned();
    let status =
        headers.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let length = output.len() - end - 4;
    let start =
        format!("HTTP/1.1 {status}\r\n{headers}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    writer.write_all(start.as_bytes()).unwrap();
    writer.write_all(&output[end + 4..]).unwrap();
    true
}

/// The forms in which a secret may turn up.
fn forms(secret: &str) -> Vec<String> {
    let url: String = secret
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    let json = serde_json::to_string(secret).unwrap();
    let mut forms = vec![secret.to_owned(), url, json.trim_matches('"').to_owned(), STANDARD.encode(secret)];
    // Base64 of it inside something longer: at each of the three offsets, without what its neighbours change.
    for before in 1..3 {
        let shifted = STANDARD.encode([&vec![b'x'; before][..], secret.as_bytes()].concat());
        forms.push(shifted[4..shifted.len() - 4].to_owned());
    }
    forms
}

pub(crate) fn holds(bytes: &[u8], secret: &str) -> bool {
    // All forms are ASCII; a search in text is many times faster than one byte by byte.
    let text = String::from_utf8_lossy(bytes);
    forms(secret).iter().any(|form| text.contains(form))
}

/// Arguments and environments of all processes but this one that hold the secret.
pub(crate) fn seen_in_processes(secret: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if entry.file_name().to_str() == Some(&std::process::id().to_string()) {
            continue;
        }
        for part in ["cmdline", "environ"] {
            let file = entry.path().join(part);
            if fs::read(&file).is_ok_and(|bytes| holds(&bytes, secret)) {
                seen.push(format!(
                    "{}: {}",
                    file.display(),
                    fs::read_to_string(entry.path().join("comm")).unwrap_or_default()
                ));
            }
        }
    }
    seen
}

/// Files below a directory that hold the secret.
pub(crate) fn seen_in_files(directory: &Path, secret: &str) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            seen.extend(seen_in_files(&path, secret));
        } else if fs::read(&path).is_ok_and(|bytes| holds(&bytes, secret)) {
            seen.push(path);
        }
    }
    seen
}

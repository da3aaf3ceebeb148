//! Addresses of repositories in one form, so that two ways to write one are the same.

/// The default port of a scheme.
fn port(scheme: &str) -> &'static str {
    match scheme {
        "https" => ":443",
        "http" => ":80",
        "ssh" => ":22",
        "git" => ":9418",
        _ => "",
    }
}

/// Bytes that mean the same with and without a percent sign, without it.
fn decoded(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    let mut rest = part;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).map(char::from);
        match byte.filter(|c| c.is_ascii_alphanumeric() || "-._~".contains(*c)) {
            Some(c) => {
                out.push(c);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out + rest
}

/// The parts of a path without empty ones; none when one of them leads elsewhere.
fn parts(path: &str) -> Option<Vec<String>> {
    let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
    (!parts.iter().any(|part| part == "." || part == "..")).then_some(parts)
}

/// Everything up to the path, and the path.
fn split(url: &str) -> (String, &str) {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let (user, place) =
                authority.rsplit_once('@').map_or(("", authority), |(user, place)| (user, place));
            let place = place.to_ascii_lowercase();
            let place = place.strip_suffix(port(scheme)).unwrap_or(&place);
            let at = if user.is_empty() { "" } else { "@" };
            (format!("{scheme}://{user}{at}{place}/"), path)
        }
        // user@host:path, from the user's home unless it begins with a slash.
        None => match url.split_once(':') {
            Some((place, path)) => {
                let (user, host) = place.split_once('@').unwrap_or(("", place));
                let root = if path.starts_with('/') { "/" } else { "" };
                (format!("{user}@{}:{root}", host.to_ascii_lowercase()), path)
            }
            None => ("/".to_owned(), url),
        },
    }
}

/// One repository's address in its plain form: no `.git`, no final slash, no default port, the host in lower case. None
/// when it has a part `.` or `..`.
pub(super) fn plain(url: &str) -> Option<String> {
    let (place, path) = split(url);
    let mut parts = parts(path)?;
    if let Some(last) = parts.last_mut() {
        *last = last.trim_end_matches(".git").to_owned();
    }
    parts.retain(|part| !part.is_empty());
    Some(place + &parts.join("/"))
}

/// Likewise of what an entry is for: with a final slash it is for all repositories below.
pub(super) fn entry(url: &str) -> Option<String> {
    if !url.ends_with('/') {
        return plain(url);
    }
    let (place, path) = split(url);
    let parts = parts(path)?;
    Some(parts.into_iter().fold(place, |all, part| all + &part + "/"))
}

/// What an entry for this repository may be for: itself, or anything above.
pub(super) fn entries(url: &str) -> Vec<String> {
    let Some(plain) = plain(url) else { return Vec::new() };
    let (place, _) = split(&plain);
    let above = plain.match_indices('/').map(|(at, _)| at + 1).filter(|end| *end >= place.len());
    let mut all: Vec<String> = above.filter_map(|end| plain.get(..end).map(str::to_owned)).collect();
    // `user@host:` alone is no address.
    all.retain(|entry| entry.ends_with('/') && *entry != plain);
    all.push(plain);
    all
}

/// Whether two addresses are of one repository.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    plain(one).is_some_and(|plain_one| Some(plain_one) == plain(other))
}

/// Whether an address leads elsewhere than it says, by a part `.` or `..`.
#[must_use]
pub fn strays(url: &str) -> bool {
    plain(url).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_repository_has_many_names() {
        let all = [
            "https://git.example.com/team/app",
            "https://git.example.com/team/app.git",
            "https://git.example.com/team/app.git/",
            "https://GIT.example.com:443/team//app/",
            "https://git.example.com/%74eam/app",
            "https://git.example.com/team/app/.git",
        ];
        assert!(all.iter().all(|url| same(all[0], url)), "{:?}", all.map(plain));
        assert!(
            same("git@h:team/app", "git@H:team/app.git") && same("ssh://git@h:22/a", "ssh://git@h/a.git")
        );
        let others = [
            "https://git.example.com/team/App",
            "https://git.example.com/team/app2",
            "https://git.example.com:8443/team/app",
            "http://git.example.com/team/app",
            "ssh://git.example.com/team/app",
            "https://git.example.com/team%2Fapp",
            "https://git.example.com/other/../team/app",
        ];
        assert!(!others.iter().any(|url| same(all[0], url)));
        assert!(!same("git@h:a", "git@h:/a") && !same("git@h:a", "root@h:a"));
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_nothing() {
        for url in ["https://h/team/../x", "https://h/team/%2e%2E/x", "git@h:team/../x", "ssh://h/./x"] {
            assert!(
                strays(url) && entries(url).is_empty() && entry(url).is_none() && !same(url, url),
                "{url}"
            );
        }
        assert!(!strays("https://h/..a/b..") && entry("https://h/a/../b/").is_none());
    }

    #[test]
    fn entries_lie_above() {
        let wanted = ["https://h/", "https://h/a/", "https://h/a/b/", "https://h/a/b/c"];
        assert_eq!(entries("https://H/a/b/c.git"), wanted);
        assert_eq!(entries("git@h:a/b"), ["git@h:a/", "git@h:a/b"]);
        assert_eq!(entries("git@h:/a/b"), ["git@h:/", "git@h:/a/", "git@h:/a/b"]);
        for (url, plain) in [
            ("https://H:443/a//b/", "https://h/a/b/"),
            ("git@h:a/", "git@h:a/"),
            ("https://h/a.git", "https://h/a"),
        ] {
            assert_eq!(entry(url).as_deref(), Some(plain));
        }
        assert!(!entries("https://h/team2/app").contains(&"https://h/team/".to_owned()));
    }
}

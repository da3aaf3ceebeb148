//! Where jobs deploy, and which of them would meet there.

use std::collections::{BTreeSet, HashMap};

/// A host as one job reaches it: its name in lower case, and over SSH where it listens.
///
/// Under another port is another host. An enrolled host that its agent reaches is what has its name, whatever the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    /// By its name; `port` over SSH alone.
    pub(super) fn new(name: &str, port: Option<u16>) -> Self {
        Self { name: name.to_ascii_lowercase(), port }
    }

    /// In lower case.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Paths on hosts. A path holds what is below it.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<String, BTreeSet<(String, Option<u16>)>>);

impl Places {
    /// Adds a path on these hosts.
    pub(super) fn add(&mut self, path: &str, hosts: &[Host]) {
        for host in hosts {
            self.0.entry(host.name.clone()).or_default().insert((path.to_owned(), host.port));
        }
    }

    /// Whether the path is, holds or lies in one of these on one of the hosts.
    pub(super) fn meet(&self, path: &str, hosts: &[Host]) -> bool {
        hosts.iter().any(|host| self.0.get(&host.name).is_some_and(|paths| meets(paths, path, host.port)))
    }
}

fn meets(paths: &BTreeSet<(String, Option<u16>)>, path: &str, port: Option<u16>) -> bool {
    let same = |other: &Option<u16>| port.is_none() || other.is_none() || port == *other;
    let at = |path: &str| {
        let all = (path.to_owned(), None)..=(path.to_owned(), Some(u16::MAX));
        paths.range(all).any(|(_, port)| same(port))
    };
    let above = path.match_indices('/').skip(1).any(|(end, _)| at(&path[..end]));
    let below = format!("{path}/");
    let mut under = paths.range((below.clone(), None)..).take_while(|(path, _)| path.starts_with(&below));
    at(path) || above || under.any(|(_, port)| same(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(one: (&str, Option<u16>, &str), other: (&str, Option<u16>, &str)) -> bool {
        let met = |a: (&str, Option<u16>, &str), b: (&str, Option<u16>, &str)| {
            let mut places = Places::default();
            places.add(a.2, &[Host::new("between", None), Host::new(a.0, a.1)]);
            places.add("/srv/app-", &[Host::new(a.0, a.1)]);
            places.meet(b.2, &[Host::new(b.0, b.1)])
        };
        assert_eq!(met(one, other), met(other, one), "{one:?} {other:?}");
        met(one, other)
    }

    #[test]
    fn the_same_path_and_what_lies_in_it_meet() {
        let app = ("h", None, "/srv/app");
        for path in ["/srv/app", "/srv/app/sub", "/srv", "/srv/app/sub/deep"] {
            assert!(meet(app, ("h", None, path)), "{path}");
        }
        for path in ["/srv/app2", "/srv/ap", "/srv/app-x", "/srv/app.d/sub", "/other"] {
            assert!(!meet(app, ("h", None, path)), "{path}");
        }
        assert!(!meet(app, ("h2", None, "/srv/app")));
    }

    #[test]
    fn a_port_tells_hosts_apart_but_not_an_enrolled_one() {
        let app = ("Web-1", Some(22), "/srv/app");
        assert!(meet(app, ("web-1", Some(22), "/srv/app")));
        assert!(!meet(app, ("web-1", Some(2222), "/srv/app")));
        assert!(meet(app, ("web-1", None, "/srv/app/sub")));
        assert!(meet(("web-1", None, "/srv/app"), ("web-1", Some(2222), "/srv/app")));
    }
}

//! A whole database as bytes, to search in.

use std::process::Command;

/// Everything that lies in the database at this address.
pub fn dump(url: &str) -> Vec<u8> {
    if let Some(file) = url.strip_prefix("sqlite://") {
        let file = file.split('?').next().unwrap();
        // What was written last stands beside it.
        let read = |end: &str| std::fs::read(format!("{file}{end}"));
        return [read("").unwrap(), read("-wal").unwrap_or_default()].concat();
    }
    let (login, place) = url.strip_prefix("mysql://").unwrap().split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let (address, database) = place.split_once('/').unwrap();
    let (host, port) = address.split_once(':').unwrap();
    let mut command = Command::new("mariadb-dump");
    command.args(["--no-defaults", "--protocol=tcp", "--single-transaction", "--skip-extended-insert"]);
    command.args(["-h", host, "-P", port, "-u", user, database.split('?').next().unwrap()]);
    let output = command.env("MYSQL_PWD", password).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

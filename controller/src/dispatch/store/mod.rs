//! The SQL of messages, deliveries and logs. Nobody else reads these tables.

mod deliveries;
mod dispatches;
mod logs;
mod reports;
mod shown;

pub use deliveries::Stored;
pub(super) use deliveries::*;
pub(super) use dispatches::*;
pub use logs::OrphanRow;
pub(super) use logs::*;
pub(super) use reports::*;
pub(super) use shown::*;

use crate::store::statements;

/// Column lists that several statements share.
macro_rules! columns {
    (delivery) => {
        "task_id, hostname, ordinal, agent_id, jti, batch, state, reason, inferred, deadline_at, send_at, \
                cancel_at, cancel_send_at, accepted_at, started_at, finished_at, exit_code, \
                term_signal, final_seq, live_seq, report"
    };
    (log) => {
        "agent_id, log_id, seq, chain, hold, hold_reason, catch_up_to, start_id, report_n, behind_head, \
                behind_since"
    };
    (dispatch) => {
        "d.task_id, d.kind, d.timeout, d.max_failures, d.canary, d.pause, d.next_at, d.released_batch, \
                d.last_batch, d.open, d.live_seq"
    };
}

statements! {
    INSERT_DISPATCH = same("INSERT INTO dispatches (task_id, kind, created_at, timeout, max_failures, \
            canary, pause, released_batch, last_batch, open, live_seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)");
    INSERT_MESSAGES = same("INSERT INTO messages (jti, task_id, payload_type, keyid, sig, body, exp, kept) \
            VALUES {rows:8}");
    INSERT_DELIVERIES = same("INSERT INTO deliveries (task_id, hostname, ordinal, agent_id, jti, batch, \
            state, reason, inferred, deadline_at, send_at, finished_at, final_seq, live_seq) \
            VALUES {rows:14}");
    SELECT_BY_MESSAGE = differ(
        concat!("SELECT ", columns!(delivery), " FROM deliveries WHERE jti IN ({list}) AND (jti, agent_id) IN \
                ({rows:2})"),
        concat!("SELECT ", columns!(delivery), " FROM deliveries WHERE jti IN ({list}) AND (jti, agent_id) IN \
                (VALUES {rows:2})"),
    );
    SELECT_AT = differ(
        concat!("SELECT ", columns!(delivery), " FROM deliveries WHERE task_id IN ({list}) AND hostname IN ({list}) AND \
                (task_id, hostname) IN ({rows:2})"),
        concat!("SELECT ", columns!(delivery), " FROM deliveries WHERE task_id IN ({list}) AND hostname IN ({list}) AND \
                (task_id, hostname) IN (VALUES {rows:2})"),
    );
    SELECT_BY_TASK = same(concat!("SELECT ", columns!(delivery), " FROM deliveries WHERE task_id = ? AND \
            ordinal > ? ORDER BY ordinal LIMIT ?"));
    SELECT_TASK_ROW = same(concat!("SELECT ", columns!(delivery), " FROM deliveries WHERE task_id = ? AND \
            hostname = ?"));
    SELECT_FINAL = same(concat!("SELECT ", columns!(delivery), " FROM deliveries WHERE task_id = ? AND \
            (final_seq > ? OR (final_seq = ? AND ordinal > ?)) ORDER BY final_seq, ordinal LIMIT ?"));
    SELECT_CHANGED = same(concat!("SELECT ", columns!(delivery), " FROM deliveries WHERE task_id = ? AND \
            (live_seq > ? OR (live_seq = ? AND ordinal > ?)) ORDER BY live_seq, ordinal LIMIT ?"));
    SELECT_OPEN_OF_TASK = same(concat!("SELECT ", columns!(delivery), " FROM deliveries WHERE task_id = ? \
            AND state IN ('waiting', 'sent', 'accepted', 'running') ORDER BY ordinal"));
    SELECT_OPEN_OF_AGENT = same(concat!("SELECT ", columns!(delivery), " FROM deliveries WHERE agent_id = \
            ? AND state IN ('waiting', 'sent', 'accepted', 'running') ORDER BY task_id LIMIT ?"));
    UPSERT_DELIVERIES = differ(
        "INSERT INTO deliveries (task_id, hostname, ordinal, agent_id, jti, batch, deadline_at, \
                state, reason, inferred, send_at, cancel_at, cancel_send_at, accepted_at, started_at, \
                finished_at, exit_code, term_signal, final_seq, live_seq, report) VALUES {rows:21} ON DUPLICATE \
                KEY UPDATE state = VALUES(state), reason = VALUES(reason), inferred = VALUES(inferred), \
                send_at = VALUES(send_at), cancel_at = VALUES(cancel_at), cancel_send_at = \
                VALUES(cancel_send_at), accepted_at = VALUES(accepted_at), started_at = \
                VALUES(started_at), finished_at = VALUES(finished_at), exit_code = VALUES(exit_code), \
                term_signal = VALUES(term_signal), final_seq = VALUES(final_seq), live_seq = \
                VALUES(live_seq), report = VALUES(report)",
        "INSERT INTO deliveries (task_id, hostname, ordinal, agent_id, jti, batch, deadline_at, \
                state, reason, inferred, send_at, cancel_at, cancel_send_at, accepted_at, started_at, \
                finished_at, exit_code, term_signal, final_seq, live_seq, report) VALUES {rows:21} ON CONFLICT \
                (task_id, hostname) DO UPDATE SET state = excluded.state, reason = excluded.reason, \
                inferred = excluded.inferred, send_at = excluded.send_at, cancel_at = excluded.cancel_at, \
                cancel_send_at = excluded.cancel_send_at, accepted_at = excluded.accepted_at, started_at \
                = excluded.started_at, finished_at = excluded.finished_at, exit_code = \
                excluded.exit_code, term_signal = excluded.term_signal, final_seq = excluded.final_seq, \
                live_seq = excluded.live_seq, report = excluded.report",
    );
    LOCK_DISPATCHES = differ(
        concat!("SELECT ", columns!(dispatch), " FROM dispatches d FORCE INDEX (PRIMARY) WHERE d.task_id IN ({list}) \
                FOR UPDATE"),
        concat!("SELECT ", columns!(dispatch), " FROM dispatches d WHERE d.task_id IN ({list})"),
    );
    LOCK_BY_MESSAGE = differ(
        concat!("SELECT STRAIGHT_JOIN ", columns!(dispatch), " FROM messages m FORCE INDEX (PRIMARY) JOIN dispatches d \
                FORCE INDEX (PRIMARY) ON d.task_id = m.task_id WHERE m.jti IN ({list}) FOR UPDATE"),
        concat!("SELECT ", columns!(dispatch), " FROM messages m JOIN dispatches d ON d.task_id = m.task_id \
                WHERE m.jti IN ({list})"),
    );
    SELECT_DISPATCHES = same(concat!("SELECT ", columns!(dispatch), " FROM dispatches d WHERE d.task_id IN ({list})"));
    SETTLE = same("UPDATE dispatches SET live_seq = live_seq + 1, open = EXISTS (SELECT 1 FROM deliveries d \
            WHERE d.task_id = dispatches.task_id AND d.state IN ('waiting', 'sent', 'accepted', 'running')) \
            WHERE task_id IN ({list})");
    /// A batch is never below 0; see HELD.
    SELECT_HELD = same("SELECT task_id FROM dispatches WHERE task_id IN ({list}) AND released_batch < 0 AND open = 1");
    SET_DEADLINE = same("UPDATE deliveries SET deadline_at = ? WHERE task_id = ? AND state = 'waiting'");
    SET_RELEASED = same("UPDATE dispatches SET released_batch = ?, next_at = NULL WHERE task_id = ?");
    SET_NEXT = same("UPDATE dispatches SET next_at = ? WHERE task_id = ?");
    /// The canary is the first batch.
    CANARIES_FAILED = same("SELECT hostname FROM deliveries WHERE task_id = ? AND batch = 0 AND \
            state NOT IN ('waiting', 'sent', 'accepted', 'running', 'succeeded') ORDER BY ordinal");
    COUNT_FAILURES = same("SELECT COUNT(*) AS number FROM deliveries WHERE task_id = ? AND batch <= ? AND \
            state IN ('failed', 'timed_out', 'rejected', 'interrupted', 'expired', 'lost')");
    SELECT_MESSAGES = same("SELECT jti, payload_type, keyid, sig, body, exp FROM messages WHERE jti IN \
            ({list})");
    UPDATE_SIGNATURE = same("UPDATE messages SET keyid = ?, sig = ? WHERE jti = ? AND keyid = ?");
    COUNT_STATES = same("SELECT task_id, state, COUNT(*) AS number FROM deliveries WHERE task_id IN ({list}) \
            GROUP BY task_id, state");
    COUNT_OPEN = same("SELECT state, COUNT(*) AS number FROM deliveries WHERE state IN ('waiting', 'sent', \
            'accepted', 'running') GROUP BY state");
    COUNT_UNACCEPTED = same("SELECT agent_id, COUNT(*) AS number FROM deliveries WHERE state = 'sent' AND \
            agent_id IN ({list}) GROUP BY agent_id");
    AGENTS_WAITING = same("SELECT DISTINCT d.agent_id FROM deliveries d JOIN dispatches p ON p.task_id = \
            d.task_id WHERE d.state = 'waiting' AND d.batch <= p.released_batch AND d.agent_id IN ({list})");
    ALL_AGENTS_WAITING = same("SELECT DISTINCT d.agent_id FROM deliveries d JOIN dispatches p ON p.task_id = \
            d.task_id WHERE d.state = 'waiting' AND d.batch <= p.released_batch AND d.agent_id > ? ORDER BY \
            d.agent_id LIMIT ?");
    WAITING_OF_AGENT = same("SELECT d.task_id, d.hostname, d.jti, d.agent_id FROM deliveries d JOIN \
            dispatches p ON p.task_id = d.task_id WHERE d.agent_id = ? AND d.state = 'waiting' AND \
            d.batch <= p.released_batch AND d.deadline_at > ? ORDER BY d.jti LIMIT ?");
    DUE = same("SELECT task_id, hostname, jti, agent_id FROM deliveries WHERE send_at <= ? ORDER BY \
            send_at LIMIT ?");
    MARK_SENT = differ(
        "UPDATE deliveries SET send_at = ? WHERE state = 'sent' AND (task_id, \
                hostname) IN ({rows:2})",
        "UPDATE deliveries SET send_at = ? WHERE state = 'sent' AND (task_id, \
                hostname) IN (VALUES {rows:2})",
    );
    SEND_ALL_SOON = same("UPDATE deliveries SET send_at = ? WHERE state = 'sent' AND send_at > ?");
    DUE_CANCELS = same("SELECT task_id, hostname, jti, agent_id FROM deliveries WHERE cancel_send_at <= ? \
            ORDER BY cancel_send_at LIMIT ?");
    MARK_CANCEL_SENT = differ(
        "UPDATE deliveries SET cancel_send_at = ? WHERE cancel_send_at IS NOT NULL AND (task_id, \
                hostname) IN ({rows:2})",
        "UPDATE deliveries SET cancel_send_at = ? WHERE cancel_send_at IS NOT NULL AND (task_id, \
                hostname) IN (VALUES {rows:2})",
    );
    OVERDUE = same("SELECT task_id, hostname FROM deliveries WHERE state = ? AND deadline_at < ? ORDER BY \
            deadline_at LIMIT ?");
    OPEN_BATCHED = same("SELECT task_id FROM dispatches WHERE open = 1 AND released_batch >= 0 \
            AND released_batch < last_batch AND task_id > ? ORDER BY task_id LIMIT ?");
    SELECT_CURSORS = same(concat!("SELECT ", columns!(log), " FROM logs WHERE agent_id IN ({list})"));
    LOCK_CURSORS = differ(
        // By the primary key, so that no row is waited for that isn't meant.
        concat!("SELECT ", columns!(log), " FROM logs FORCE INDEX (PRIMARY) WHERE agent_id IN ({list}) FOR UPDATE"),
        concat!("SELECT ", columns!(log), " FROM logs WHERE agent_id IN ({list})"),
    );
    UPSERT_CURSORS = differ(
        "INSERT INTO logs (agent_id, log_id, seq, chain, hold, hold_reason, catch_up_to, start_id, \
                report_n, behind_head, behind_since) VALUES {rows:11} ON DUPLICATE KEY UPDATE \
                log_id = VALUES(log_id), seq = VALUES(seq), chain = VALUES(chain), hold = VALUES(hold), \
                hold_reason = VALUES(hold_reason), catch_up_to = VALUES(catch_up_to), start_id = \
                VALUES(start_id), report_n = VALUES(report_n), behind_head = VALUES(behind_head), \
                behind_since = VALUES(behind_since)",
        "INSERT INTO logs (agent_id, log_id, seq, chain, hold, hold_reason, catch_up_to, start_id, \
                report_n, behind_head, behind_since) VALUES {rows:11} ON CONFLICT (agent_id) DO \
                UPDATE SET log_id = excluded.log_id, seq = excluded.seq, chain = excluded.chain, hold = \
                excluded.hold, hold_reason = excluded.hold_reason, catch_up_to = excluded.catch_up_to, \
                start_id = excluded.start_id, report_n = excluded.report_n, behind_head = \
                excluded.behind_head, behind_since = excluded.behind_since",
    );
    BEHIND = same(concat!("SELECT ", columns!(log), " FROM logs WHERE behind_since <= ? AND behind_head > seq AND \
            (resumed_at IS NULL OR resumed_at <= ?) AND hold NOT IN ('set_aside', 'accepted') \
            ORDER BY behind_since LIMIT ?"));
    ACCEPTED_AGAIN = same(concat!("SELECT ", columns!(log), " FROM logs WHERE hold = 'accepted' AND \
            (resumed_at IS NULL OR resumed_at <= ?) LIMIT ?"));
    MARK_RESUMED = same("UPDATE logs SET resumed_at = ? WHERE agent_id IN ({list})");
    CLEAR_STANDING = same("UPDATE logs SET hold = 'none', hold_reason = '', behind_head = NULL, behind_since = NULL \
            WHERE agent_id = ?");
    PAST_LOG = same("SELECT log_id FROM past_logs WHERE agent_id = ? AND log_id = ?");
    INSERT_PAST_LOG = differ(
        "INSERT IGNORE INTO past_logs (agent_id, log_id) VALUES (?, ?)",
        "INSERT OR IGNORE INTO past_logs (agent_id, log_id) VALUES (?, ?)",
    );
    INSERT_ORPHANS = differ(
        "INSERT IGNORE INTO orphans (agent_id, log_id, seq, event, received_at) VALUES {rows:5}",
        "INSERT OR IGNORE INTO orphans (agent_id, log_id, seq, event, received_at) VALUES {rows:5}",
    );
    SELECT_ORPHANS = same("SELECT agent_id, log_id, seq, event, received_at FROM orphans WHERE agent_id = ? AND \
            (log_id > ? OR (log_id = ? AND seq > ?)) ORDER BY log_id, seq LIMIT ?");
    ORPHANS_END = same("SELECT log_id, seq FROM orphans WHERE agent_id = ? AND \
            (log_id > ? OR (log_id = ? AND seq > ?)) ORDER BY log_id, seq LIMIT 2 OFFSET ?");
    NOTE_GAP = same("UPDATE logs SET gap_events = gap_events + ?, gap_at = ? WHERE agent_id = ?");
    SELECT_GAPS = same("SELECT gap_events, gap_at FROM logs WHERE agent_id = ? AND gap_at IS NOT NULL");
    LIVE_SEQ = same("SELECT live_seq FROM dispatches WHERE task_id = ?");
    INSERT_REPORTS = differ(
        "INSERT IGNORE INTO reports (agent_id, jti, keyid, sig, body, received_at) VALUES {rows:6}",
        "INSERT OR IGNORE INTO reports (agent_id, jti, keyid, sig, body, received_at) VALUES {rows:6}",
    );
    SELECT_REPORTS = differ(
        "SELECT agent_id, jti, keyid, sig, body FROM reports WHERE agent_id IN ({list}) AND jti IN ({list}) \
                AND (agent_id, jti) IN ({rows:2})",
        "SELECT agent_id, jti, keyid, sig, body FROM reports WHERE agent_id IN ({list}) AND jti IN ({list}) \
                AND (agent_id, jti) IN (VALUES {rows:2})",
    );
    OLD_REPORTS = same("SELECT agent_id, jti FROM reports WHERE received_at < ? LIMIT ?");
    DELETE_REPORT = same("DELETE FROM reports WHERE agent_id = ? AND jti = ?");
    TASK_MESSAGES = same("SELECT jti, payload_type, keyid, sig, body, exp, kept FROM messages WHERE task_id = ? AND jti > ? \
            ORDER BY jti LIMIT ?");
    SPENT_MESSAGES = same("SELECT m.jti FROM messages m JOIN dispatches d ON d.task_id = m.task_id AND d.open = 0 \
            WHERE m.kept = 1 AND m.exp < ? ORDER BY m.exp LIMIT ?");
    EMPTY_MESSAGES = same("UPDATE messages SET body = x'', kept = 0 WHERE jti IN ({list})");
    INSERT_PARKED = differ(
        "INSERT IGNORE INTO parked (jti, agent_id, body, error, received_at) VALUES (?, ?, ?, ?, ?)",
        "INSERT OR IGNORE INTO parked (jti, agent_id, body, error, received_at) VALUES (?, ?, ?, ?, ?)",
    );
    COUNT_PARKED = same("SELECT COUNT(*) AS number FROM parked");
    SELECT_SETTING = same("SELECT value FROM settings WHERE name = ?");
    GATE = same("SELECT COALESCE((SELECT value FROM settings WHERE name = ?), '') AS paused, \
            COALESCE((SELECT value FROM settings WHERE name = ?), '') AS keyring_old, \
            COALESCE((SELECT MAX(version) FROM keyrings), 0) AS keyring");
    UPSERT_SETTING = differ(
        "INSERT INTO settings (name, value, updated_at) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE value = \
                VALUES(value), updated_at = VALUES(updated_at)",
        "INSERT INTO settings (name, value, updated_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET \
                value = excluded.value, updated_at = excluded.updated_at",
    );
    OLD_DISPATCHES = same("SELECT task_id FROM dispatches WHERE open = 0 AND created_at < ? ORDER BY \
            created_at LIMIT ?");
    DELETE_DISPATCHES = same("DELETE FROM dispatches WHERE task_id IN ({list})");
    DELETE_MESSAGES = same("DELETE FROM messages WHERE task_id IN ({list})");
    DELETE_DELIVERIES = same("DELETE FROM deliveries WHERE task_id IN ({list})");
    OLD_ORPHANS = same("SELECT agent_id, log_id, seq FROM orphans WHERE received_at < ? LIMIT ?");
    DELETE_ORPHAN = same("DELETE FROM orphans WHERE agent_id = ? AND log_id = ? AND seq = ?");
}

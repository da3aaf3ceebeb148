//! Every bound of the controller, by name.

use std::num::NonZeroU32;

/// Statements that each connection to MySQL keeps prepared. The server's limit for all connections together,
/// `max_prepared_stmt_count`, is 16,382 unless set.
pub const PREPARED_STATEMENTS_MAX: usize = 256;
/// Connections to MySQL.
pub const MYSQL_CONNECTIONS_MAX: u32 = 16;
/// Connections that read SQLite beside the one that writes.
pub const SQLITE_READERS_MAX: u32 = 4;
/// How long a request waits for a connection, in seconds.
pub const ACQUIRE_SECONDS_MAX: u64 = 5;
/// A connection to the database that rested so long is asked whether it still lives before it is used, in seconds.
pub const IDLE_CONNECTION_SECONDS: u64 = 1;
/// How often a transaction is tried when another is in its way.
pub const TRANSACTION_TRIES_MAX: u32 = 10;
/// Largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Rows in one batch of writes.
pub const BATCH_ROWS_MAX: usize = 256;
/// Bytes in one batch of writes.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Seconds until what was sent and not accepted is sent again, with the same `jti`.
pub const RESEND_SECONDS: i64 = 15;
/// Deliveries that one host may have sent and not accepted.
pub const UNACCEPTED_MAX: usize = 200;
/// A delivery's deadline lies this long after `exp` + `timeout`, in seconds.
pub const DEADLINE_GRACE_SECONDS: i64 = 120;
/// Bursts of publishes that wait for the outbox; above it the sweep sends what is left.
pub const OUTBOX_BURSTS_MAX: usize = 1_024;
/// Values in one list of a statement; SQLite takes 32,766 in a whole statement.
pub const LIST_VALUES_MAX: usize = 8_000;
/// Hosts whose waiting deliveries are sent in one transaction.
pub const PUMP_AGENTS_MAX: usize = 32;
/// Rows that one sweep takes at a time.
pub const SWEEP_ROWS_MAX: usize = 500;
/// Time between two sweeps, in milliseconds.
pub const SWEEP_MILLISECONDS: u64 = 500;
/// How long the sweeping controller's lease lasts, in seconds.
pub const LEASE_SECONDS: i64 = 10;
/// Events that one gap counts for at most: an agent may say any number.
pub const GAP_EVENTS_MAX: u64 = 1 << 40;
/// Shortest time from the end of a sweep to the next, in milliseconds: who wakes it often does not keep it turning.
pub const SWEEP_PAUSE_MILLISECONDS: u64 = 50;
/// How long a statement waits for a row that another transaction holds, in seconds; then it is tried again.
pub const LOCK_WAIT_SECONDS: u64 = 5;
/// Reports in the intake's hands.
pub const REPORTS_PREFETCH: u16 = 500;
/// Heartbeats in the intake's hands.
pub const HEARTBEATS_PREFETCH: u16 = 2_000;
/// Heartbeats are taken in this often, in milliseconds: they are many, and nobody waits for one.
pub const HEARTBEATS_BATCH_MILLISECONDS: u64 = 100;
/// Hosts told to report again in one go.
pub const RESUMES_MAX: usize = 50;
/// A head must have been above the cursor for this long before the host is told to report again, in seconds.
pub const BEHIND_SECONDS: i64 = 15;
/// Open deliveries of one host that are ended in one transaction.
pub const HOST_GONE_ROWS_MAX: usize = 100_000;
/// How long a pause of the intake lasts after the database or the broker failed, in milliseconds.
pub const INTAKE_PAUSE_MILLISECONDS: u64 = 500;
/// Topics that a live subscriber may be behind before it just reads the tables again.
pub const BELLS_MAX: usize = 1_024;
/// `Retry-After` while the database is away, in seconds.
pub const RETRY_AFTER_SECONDS: u64 = 2;
/// How long `GET /api/health` waits for the database, in seconds.
pub const HEALTH_SECONDS_MAX: u64 = 2;
/// Connections that are answered at the same time; the unit allows for more open files than that.
pub const CONNECTIONS_MAX: usize = 4_096;
/// How long a client may take to send a request's header, in seconds; idle connections end after it too.
pub const HEADER_SECONDS_MAX: u64 = 30;
/// How long a client may take to send a request's body, in seconds.
pub const BODY_SECONDS_MAX: u64 = 60;
/// How long no connection is taken after one could not be, in milliseconds.
pub const ACCEPT_PAUSE_MILLISECONDS: u64 = 250;
/// Live views of tasks at the same time.
pub const WATCHERS_MAX: usize = 256;
/// When somebody may try again who was one too many, in seconds.
pub const WATCHERS_RETRY_SECONDS: u64 = 10;
/// How long a stopping controller waits for requests under way, in seconds.
pub const DRAIN_SECONDS_MAX: u64 = 10;
/// Longest request id that is taken over from a client, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Addresses of `X-Forwarded-For` that are followed.
pub const FORWARDED_HOPS_MAX: usize = 32;
/// Longest API token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Servers and keys in one answer.
pub const HOSTS_PAGE_MAX: usize = 10_000;
/// Rows of a list that are read at once while its answer is streamed.
pub const LIST_CHUNK_ROWS: usize = 500;
/// Hosts that are brought to the newest keyring in one sweep.
pub const KEYRING_HOSTS_MAX: u32 = 10_000;
/// Hosts that are named when they hold a newer keyring than the database.
pub const KEYRING_NEWER_SHOWN_MAX: u32 = 3;
/// Labels of one server.
pub const LABELS_MAX: usize = 64;
/// Longest name of a label, in bytes.
pub const LABEL_NAME_BYTES_MAX: usize = 63;
/// Longest value of a label, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 128;
/// Pending keys shown with the server whose name they claim.
pub const CLAIMS_SHOWN_MAX: usize = 100;
/// Targets shown in a task's detail; all are in its results.
pub const TARGETS_SHOWN_MAX: usize = 10_000;
/// Pieces of output deleted in one transaction of the retention.
pub const OUTPUT_DELETE_PIECES_MAX: usize = 500;
/// Messages emptied in one transaction of the retention.
pub const RETENTION_MESSAGES_MAX: usize = 200;
/// Tasks deleted in one transaction of the retention.
pub const RETENTION_TASKS_MAX: usize = 10;
/// Agents' reports that the retention deletes at a time.
pub const RETENTION_REPORTS_MAX: usize = 100;
/// Time between two rounds of the retention, in seconds.
pub const RETENTION_SECONDS: u64 = 60;
/// Pieces of output that a live view reads at a time, 64 KiB each at most.
pub const LIVE_PIECES_MAX: usize = 32;
/// Targets that a live view reads at a time.
pub const LIVE_TARGETS_MAX: usize = 500;
/// A live view looks by itself this often, in milliseconds, in case a bell was lost.
pub const LIVE_POLL_MILLISECONDS: u64 = 2_000;
/// Longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Tasks in one answer unless asked otherwise.
pub const TASKS_LIMIT: usize = 1_000;
/// Tasks that are read at once while the list is streamed: a command may have 128 KiB.
pub const TASKS_AT_ONCE: usize = 50;
/// Results in one answer unless asked otherwise.
pub const RESULTS_LIMIT: usize = 1_000;
/// Orphans in one answer.
pub const ORPHANS_PAGE_MAX: usize = 10_000;
/// Orphans that are read at once while the answer is streamed; each may be as large as a report.
pub const ORPHANS_AT_ONCE: usize = 32;
/// Longest reason for a pause, in characters.
pub const PAUSE_REASON_CHARS_MAX: usize = 1_000;
/// Results that are read and answered together.
pub const RESULT_HOSTS_AT_ONCE: usize = 50;
/// Pieces of output that are read for them in one statement; where there are more, fewer hosts are read together.
pub const RESULT_PIECES_AT_ONCE: usize = 128;
/// Output of one chunk of results, in bytes; a host with more is a chunk of its own.
pub const RESULT_CHUNK_BYTES: u64 = 1024 * 1024;
/// How long a statement or a commit may take before the database counts as away, in seconds.
pub const STATEMENT_SECONDS_MAX: u64 = 15;
/// How long a nonce for a hello counts, in seconds.
pub const NONCE_SECONDS: i64 = 120;
/// Agents' keys are looked up again this often, in milliseconds.
pub const KNOWN_KEYS_FRESH_MILLISECONDS: i64 = 1_000;
/// All agents' keys are read again this often, in seconds.
pub const KNOWN_KEYS_WHOLE_SECONDS: i64 = 600;
/// Changed keys are looked for from this much before the last look, in seconds: commits overtake one another, and
/// controllers' clocks differ.
pub const KNOWN_KEYS_OVERLAP_SECONDS: i64 = 180;
/// How long one scrape of the metrics waits for the database, and for each queue's depth, in seconds.
pub const METRICS_SECONDS_MAX: u64 = 2;
/// How long the page of a server waits for its queue's depth, in seconds.
pub const DEPTH_SECONDS_MAX: u64 = 2;
/// What is read and dropped of a refused request's body before the answer, in bytes.
pub const DISCARD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long that may take, in seconds.
pub const DISCARD_SECONDS_MAX: u64 = 2;
/// Longest username, in bytes.
pub const USERNAME_BYTES_MAX: usize = 150;
/// Longest mail address, in bytes (RFC 5321).
pub const EMAIL_BYTES_MAX: usize = 254;
/// Longest first or last name, and name of a token, in characters.
pub const NAME_CHARS_MAX: usize = 128;
/// Shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Passwords that are checked at the same time.
pub const PASSWORD_CHECKS_MAX: usize = 2;
/// How long a log-in waits for its turn to be checked, in seconds.
pub const PASSWORD_WAIT_SECONDS_MAX: u64 = 10;
/// Failed log-ins of one account from one address before the first delay.
pub const LOGIN_FAILURES_FREE: i64 = 5;
/// Failed log-ins from one address before the first delay.
pub const LOGIN_FAILURES_FREE_ADDRESS: i64 = 50;
/// Longest delay after failed log-ins, in seconds.
pub const LOGIN_DELAY_SECONDS_MAX: i64 = 3_600;
/// Longest delay for an address from which somebody logged in before, in seconds.
pub const LOGIN_DELAY_KNOWN_SECONDS_MAX: i64 = 60;
/// Failures are forgotten this long after the last one, in seconds.
pub const LOGIN_FORGET_SECONDS: i64 = 86_400;
/// How long an access token counts, in seconds.
pub const ACCESS_TOKEN_SECONDS: i64 = 3_600;
/// How long the single token of document 003 counts, in seconds.
pub const SINGLE_TOKEN_SECONDS: i64 = 86_400;
/// How long a log-in lasts, however often its tokens are renewed, in seconds.
pub const SESSION_SECONDS: i64 = 7 * 86_400;
/// How long a ticket for a stream counts, in seconds.
pub const TICKET_SECONDS: i64 = 30;
/// The last use of an API token is written this often at most, in seconds.
pub const TOKEN_USE_SECONDS: i64 = 60;
/// API tokens of one account.
pub const API_TOKENS_MAX: usize = 1_000;
/// Names in one list of a token's scope.
pub const SCOPE_NAMES_MAX: usize = 100;
/// A token's scope as it is stored, in bytes.
pub const SCOPE_BYTES_MAX: usize = 60_000;
/// Users in one page unless asked otherwise.
pub const USERS_LIMIT: usize = 20;
/// Users in one page.
pub const USERS_LIMIT_MAX: usize = 100;
/// Longest text to search for, in characters.
pub const SEARCH_CHARS_MAX: usize = 256;
/// How long a join token counts unless told otherwise, in seconds.
pub const JOIN_TOKEN_SECONDS: u32 = 3_600;
/// The longest that a join token may count, in seconds.
pub const JOIN_TOKEN_SECONDS_MAX: u32 = 366 * 86_400;
/// How many hosts one join token may enrol.
pub const JOIN_TOKEN_USES_MAX: u32 = 100_000;
/// How long an expired join token is still shown, in seconds.
pub const JOIN_TOKEN_KEPT_SECONDS: i64 = 30 * 86_400;
/// Rules for approvals: all are read with every request.
pub const APPROVAL_RULES_MAX: usize = 100;
/// Approvals that a rule may ask for.
pub const APPROVALS_NEEDED_MAX: u32 = 10;
/// How long a request waits for approval unless its rule says otherwise, in seconds.
pub const APPROVAL_WAIT_SECONDS: u32 = 3_600;
/// The longest that a rule may let it wait, in seconds.
pub const APPROVAL_WAIT_SECONDS_MAX: u32 = 7 * 86_400;
/// Requests for approval in one page unless asked otherwise.
pub const APPROVALS_LIMIT: usize = 100;
/// Requests for approval in one page.
pub const APPROVALS_LIMIT_MAX: usize = 1_000;
/// Longest reason for a refusal, in characters.
pub const REFUSAL_CHARS_MAX: usize = 1_000;
/// Approver keys of one account.
pub const APPROVER_KEYS_MAX: usize = 100;
/// Approver keys in one answer.
pub const APPROVER_KEYS_SHOWN_MAX: usize = 10_000;
/// What is kept of an SSH key's comment, in characters.
pub const KEY_COMMENT_CHARS_MAX: usize = 255;
/// Longest text for people in an entry of the audit trail, and longest object, in characters.
pub const AUDIT_TEXT_CHARS_MAX: usize = 250;
/// Largest old or new value in an entry of the audit trail, in bytes; a larger one stands there by its digest.
pub const AUDIT_VALUE_BYTES_MAX: usize = 16 * 1024;
/// Kinds of refusals that are told apart within a minute.
pub const REFUSALS_KEPT_MAX: usize = 1_000;
/// Of them, kinds of refusals of those who showed no credential that counts.
pub const REFUSALS_OF_STRANGERS_MAX: usize = 100;
/// Bundles that are made at the same time: each may take a hundred MiB.
pub const BUNDLES_AT_ONCE: usize = 2;
/// When to come back for a bundle, in seconds.
pub const BUNDLE_RETRY_SECONDS: u64 = 5;
/// How often the audit trail is sealed, in seconds.
pub const AUDIT_SEAL_SECONDS: u64 = 1;
/// Entries that one block seals.
pub const AUDIT_BLOCK_ENTRIES_MAX: usize = 1_000;
/// Entries that are written, sealed or shown by one statement.
pub const AUDIT_ROWS_AT_ONCE: usize = 100;
/// Entries in one answer unless asked otherwise.
pub const AUDIT_PAGE: usize = 100;
/// Entries in one answer at most.
pub const AUDIT_PAGE_MAX: usize = 1_000;
/// Blocks that an export, or the retention, reads at a time.
pub const AUDIT_BLOCKS_AT_ONCE: usize = 64;
/// Entries that an export reads at a time, when they are in more than one block.
pub const AUDIT_EXPORT_ROWS: i64 = 1_000;
/// Entries without a block at the end of an export.
pub const AUDIT_UNSEALED_EXPORTED_MAX: usize = 10_000;
/// Entries that the retention deletes at a time, when they are in more than one block.
pub const AUDIT_ROWS_DELETED_AT_ONCE: i64 = 1_000;
/// Sum of the parts of one task's bundle, in bytes; their JSON and base64 stay below the bound of the whole.
pub const BUNDLE_PARTS_BYTES_MAX: usize = signet_common::limits::BUNDLE_BYTES_MAX / 2;
/// Messages of a task that its bundle reads at a time.
pub const BUNDLE_MESSAGES_AT_ONCE: usize = 20;
/// Targets of a task that its bundle reads at a time, with their reports.
pub const BUNDLE_TARGETS_AT_ONCE: usize = 50;
/// How long a client may take to agree on TLS, in seconds.
pub const TLS_HANDSHAKE_SECONDS_MAX: u64 = 10;
/// How often the certificate's files are looked at, in seconds.
pub const TLS_LOOK_SECONDS: u64 = 10;
/// Requests of one token or log-in each second, unless told otherwise. Far above what programs need that wait for answers:
/// it is there for the one that asks in an endless loop.
pub const REQUESTS_PER_SECOND: u32 = 2_000;
/// Requests from one address each second, unless told otherwise: many hosts, users or a proxy may stand behind one.
pub const ADDRESS_REQUESTS_PER_SECOND: u32 = 4_000;
/// Seconds of requests that may come at once after a rest.
pub const RATE_BURST_SECONDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
/// Tokens, and addresses, whose requests are counted; more share one count.
pub const RATE_KEYS_MAX: usize = 50_000;
/// How often those that have rested are forgotten, in seconds.
pub const RATE_TIDY_SECONDS: u64 = 1;
/// Calls to the broker's management API at the same time.
pub const MANAGEMENT_CALLS_MAX: usize = 16;
/// How long the broker's management API may take to take a connection, in seconds.
pub const MANAGEMENT_CONNECT_SECONDS_MAX: u64 = 3;
/// How long the broker's management API may take for an answer, in seconds. A hello makes two calls, and an agent waits 20 s
/// for its answer.
pub const MANAGEMENT_ANSWER_SECONDS_MAX: u64 = 4;
/// Time between two looks for broker users that should be gone, in seconds.
pub const BROKER_USERS_LOOK_SECONDS: u64 = 600;
/// A replaced key keeps its broker user for this long, in seconds: its reports still count, and journals keep them so long.
pub const BROKER_USER_KEPT_SECONDS: i64 = 7 * 86_400;
/// Longest address of a repository, in bytes.
pub const GIT_URL_BYTES_MAX: usize = 2_048;
/// Repositories that are known by an entry of their own, or by one above them.
pub const REPOSITORIES_MAX: i64 = 1_000;
/// Longest list of those who may sign what is deployed, in bytes.
pub const ALLOWED_SIGNERS_BYTES_MAX: usize = 32 * 1024;
/// Longest list of hosts that a deploy key goes to, in bytes.
pub const KNOWN_HOSTS_BYTES_MAX: usize = 16 * 1024;
/// Longest name of the user that goes with a token, in characters.
pub const GIT_USER_CHARS_MAX: usize = 255;
/// Longest name of a branch or tag, in bytes.
pub const GIT_REF_BYTES_MAX: usize = 255;
/// Longest path that is deployed to, in bytes (Linux's `PATH_MAX`, with its end).
pub const PATH_BYTES_MAX: usize = 4_095;
/// Longest name of an account on a host, in bytes.
pub const SSH_USER_BYTES_MAX: usize = 64;
/// Longest private key, passphrase or password, in bytes.
pub const SSH_SECRET_BYTES_MAX: usize = 32 * 1024;
/// Hosts of one job.
pub const JOB_TARGETS_MAX: usize = 1_000;
/// How long a job may take unless it says otherwise, in seconds.
pub const JOB_SECONDS: u32 = 3_600;
/// The longest that a job may take, in seconds.
pub const JOB_SECONDS_MAX: u32 = 86_400;
/// The longest pause between two batches of a job, in seconds.
pub const JOB_PAUSE_SECONDS_MAX: u32 = 43_200;
/// Hosts that are named where a canary failed.
pub const BRAKE_HOSTS_SHOWN: usize = 3;
/// The longest that a request waits for its job's end, in seconds.
pub const JOB_WAIT_SECONDS_MAX: u64 = 3_600;
/// Seconds in which a host takes the question whether it has a commit; who does not is away.
pub const PREFLIGHT_ACCEPT_SECONDS: u64 = 15;
/// How long a cancelled job waits for hosts to end what they were asked before its deployment, in seconds.
pub const QUESTION_END_SECONDS: u64 = 15;
/// The shortest pause between two looks at a job under way, in milliseconds.
pub const JOB_LOOK_MILLISECONDS_MIN: u64 = 20;
/// The longest one.
pub const JOB_LOOK_MILLISECONDS_MAX: u64 = 250;
/// The longest one where hosts may be away for hours.
pub const JOB_LOOK_PATIENT_MILLISECONDS_MAX: u64 = 2_000;
/// Between the two, the pause is this part of the time that it took so far.
pub const JOB_LOOK_PART: u32 = 10;
/// Jobs in one page unless asked otherwise.
pub const JOBS_LIMIT: usize = 20;
/// Jobs in one page.
pub const JOBS_LIMIT_MAX: usize = 100;
/// Lines of a job's log in one JSON answer.
pub const JOB_LINES_PAGE_MAX: usize = 10_000;
/// The same in bytes: with what lies between lines, and at least one line.
pub const JOB_LINES_PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a line takes in a JSON answer beside its text and its host, in bytes.
pub const JOB_LINE_FRAME_BYTES: usize = 80;
/// Lines of a job's log that are read at a time.
pub const JOB_LINES_AT_ONCE: usize = 1_000;
/// Longest line of a job's log, in bytes; more of it is cut off.
pub const JOB_LINE_BYTES_MAX: usize = 16 * 1024;
/// Lines of a job's log; what programs write beyond is not kept.
pub const JOB_LINES_MAX: i64 = 200_000;
/// Text of a job's log, in bytes; what programs write beyond is not kept.
pub const JOB_LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Lines beyond that which say how hosts ended.
pub const JOB_WORDS_MAX: i64 = 10_000;
/// Lines of a host's output that are kept of one event of its journal.
pub const JOB_EVENT_LINES_MAX: usize = 1_000;
/// Longest reason for a target's end, in characters.
pub const JOB_REASON_CHARS_MAX: usize = 500;
/// Deployed paths in one page unless asked otherwise.
pub const DEPLOYMENTS_PAGE: usize = 100;
/// Deployed paths in one page.
pub const DEPLOYMENTS_PAGE_MAX: usize = 200;
/// Jobs that one controller runs over SSH at the same time.
pub const JOBS_AT_ONCE: usize = 8;
/// Jobs with agents alone that one controller follows at the same time. Each costs it a look now and then.
pub const JOBS_OF_AGENTS_AT_ONCE: usize = 500;
/// Jobs that are read at a time, to take those that can begin.
pub const JOBS_LOOKED_AT: usize = 100;
/// How often jobs are looked for that another controller left, or took the request for, in milliseconds.
pub const JOBS_LOOK_MILLISECONDS: u64 = 1_000;
/// How long a running job belongs to a controller that is not heard of, in seconds.
pub const JOB_LEASE_SECONDS: i64 = 30;
/// How often a job under way is looked at for a cancel, in milliseconds.
pub const JOB_WATCH_MILLISECONDS: u64 = 500;
/// The same, of a job that has hosts with agents alone.
pub const JOB_OF_AGENTS_WATCH_MILLISECONDS: u64 = 1_000;
/// How often the lease of a job under way is renewed, in seconds.
pub const JOB_RENEW_SECONDS: u64 = 5;
/// How long what a job logs in with is kept for a retry, in seconds.
pub const JOB_SECRETS_SECONDS: i64 = 7 * 86_400;
/// Shortest secret that is blotted out of a log; a shorter one can't be told from other text.
pub const TELLTALE_BYTES_MIN: usize = 4;
/// Hosts that `ansible-playbook` works on at the same time.
pub const ANSIBLE_FORKS_MAX: usize = 50;
/// How long a host may take to let Ansible in, in seconds.
pub const SSH_CONNECT_SECONDS: u32 = 15;
/// Private keys that are opened at the same time.
pub const KEYS_AT_ONCE: usize = 4;
/// How long it may take to open a private key, in seconds.
pub const KEYGEN_SECONDS_MAX: u64 = 20;
/// How often what Ansible wrote about its hosts is read, in milliseconds.
pub const RESULTS_LOOK_MILLISECONDS: u64 = 200;
/// How long processes of a job that was ended may take to go, in milliseconds.
pub const JOB_KILL_MILLISECONDS: u64 = 5_000;
/// Lines of jobs' logs deleted in one transaction of the retention: at most 16 MiB of text.
pub const RETENTION_JOB_LINES_MAX: u64 = 1_000;
/// Jobs deleted in one transaction of the retention.
pub const RETENTION_JOBS_MAX: usize = 5;

/// How long a repository may take to tell its references, in seconds.
pub const LS_REMOTE_SECONDS_MAX: u64 = 20;
/// Repositories that one controller asks at the same time; the others wait.
pub const LS_REMOTES_AT_ONCE: usize = 16;
/// What a repository may say of the references that it is asked for, in bytes: they are at most three.
pub const LS_REMOTE_BYTES_MAX: u64 = 64 * 1024;
/// What is kept of git's complaints about a repository, in bytes.
pub const LS_REMOTE_COMPLAINT_BYTES_MAX: usize = 4 * 1024;
/// How long a host may take to ask a repository for a commit, in seconds.
pub const RESOLVE_SECONDS_MAX: u32 = 60;

/// Fields of a body that are not known, and are named in an answer or a log.
pub const UNKNOWN_FIELDS_MAX: usize = 10;
/// Characters shown of such a field's name with the way to it.
pub const UNKNOWN_FIELD_CHARS_MAX: usize = 100;

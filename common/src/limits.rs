//! Every bound that controller and agent share, by name.

/// Largest message on the bus, in bytes, checked before anything is parsed.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Largest sum of payload type, `keyid` and `sig` on the bus, in bytes. The broker closes the whole connection upon
/// headers that don't fit into one of its frames.
pub const HEADERS_BYTES_MAX: usize = 8 * 1024;
/// Largest sum of command text (or `argv`), `env` and `stdin`, in bytes.
pub const COMMAND_BYTES_MAX: usize = 256 * 1024;
/// Longest command text in bytes: Linux's limit for one argument (`MAX_ARG_STRLEN`) less its NUL.
pub const COMMAND_TEXT_BYTES_MAX: usize = 131_071;
/// Most agents that one signature may name in `aud`.
pub const AUDIENCE_MAX: usize = 64;
/// Largest bundle that proves one task, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most agents that one approved statement may name.
pub const STATEMENT_AGENTS_MAX: usize = 5_000;
/// Most SSH signatures that one approval may carry.
pub const APPROVAL_SIGNATURES_MAX: usize = 64;
/// Longest armored SSH signature in bytes: one by an RSA key of [`RSA_BITS_MAX`] bits has some 3,000.
pub const SSH_SIGNATURE_BYTES_MAX: usize = 8 * 1024;
/// Longest line with an SSH public key in bytes.
pub const SSH_KEY_BYTES_MAX: usize = 8 * 1024;
/// Most keys in one list of allowed signers.
pub const ALLOWED_SIGNERS_MAX: usize = 1_000;
/// Longest `timeout` of a command, in seconds.
pub const TIMEOUT_SECONDS_MAX: u32 = 86_400;
/// `exp` is this long after `iat` unless asked otherwise, in seconds.
pub const EXPIRY_SECONDS_DEFAULT: u32 = 600;
/// `exp` with `batch`, unless asked otherwise, in seconds.
pub const EXPIRY_SECONDS_BATCH: u32 = 86_400;
/// The latest `exp` after `iat`, in seconds.
pub const EXPIRY_SECONDS_MAX: u32 = 7 * 86_400;
/// How far in the future the `iat` of a `command` or `deploy` may lie, in seconds. Nothing is allowed to any `exp`.
pub const CLOCK_SKEW_SECONDS_MAX: i64 = 60;
/// Time that a message to an agent may spend in the broker, in seconds.
pub const AGENT_QUEUE_TTL_SECONDS: u32 = 60;
/// Messages in one agent's queue.
pub const AGENT_QUEUE_LENGTH_MAX: u32 = 1_000;
/// Time that a heartbeat may spend in the broker, in seconds.
pub const HEARTBEAT_TTL_SECONDS: u32 = 30;
/// Bytes that wait in `signet.reports`; above it publishing is refused and the journals keep the rest.
pub const REPORTS_QUEUE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes that wait in `signet.heartbeats`; 5,000 agents say less than this in [`HEARTBEAT_TTL_SECONDS`].
pub const HEARTBEATS_QUEUE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes that `signet.refused` keeps for a person to look at.
pub const REFUSED_QUEUE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Doorbells that wait for one controller.
pub const LIVE_QUEUE_LENGTH_MAX: u32 = 10_000;
/// Deliveries of one report before the broker gives it to `signet.refused`. High, because intake stops without a
/// database and each take-over of the consumer counts as one.
pub const REPORTS_DELIVERY_LIMIT: u32 = 1_000_000;
/// Seconds between two heartbeats.
pub const HEARTBEAT_SECONDS: u32 = 10;
/// Output kept per stream unless asked otherwise, in bytes.
pub const OUTPUT_BYTES_DEFAULT: u64 = 1024 * 1024;
/// Most output kept per stream, in bytes.
pub const OUTPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Output of both streams that may stand inside a `result` event, in bytes.
pub const RESULT_OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Largest piece of output in one `output` event, in bytes.
pub const OUTPUT_CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Sum of the event texts in one report, in bytes; leaves room for the claims below [`MESSAGE_BYTES_MAX`].
pub const REPORT_EVENTS_BYTES_MAX: usize = 768 * 1024;
/// Events in one report.
pub const REPORT_EVENTS_MAX: usize = 1_000;
/// Smallest RSA modulus in bits.
pub const RSA_BITS_MIN: usize = 2_048;
/// Largest RSA modulus in bits.
pub const RSA_BITS_MAX: usize = 8_192;
/// Longest name of a group of hosts, in characters.
pub const GROUP_CHARS_MAX: usize = 128;
/// Longest hostname (RFC 1123) in bytes.
pub const HOSTNAME_BYTES_MAX: usize = 253;
/// Confirms that one publisher may have outstanding, each on a channel of its own.
pub const CONFIRMS_OUTSTANDING_MAX: usize = 128;
/// Declarations, deletions and counts that one controller may have outstanding.
pub const QUEUE_OPERATIONS_MAX: usize = 4;
/// How long a publish waits for its confirm, in seconds.
pub const CONFIRM_SECONDS_MAX: u64 = 30;
/// First retry after a lost broker is spread over this many seconds.
pub const RECONNECT_SPREAD_SECONDS: u64 = 15;
/// Longest pause between two tries to reach the broker, in seconds.
pub const RECONNECT_SECONDS_MAX: u64 = 60;
/// How long one attempt to connect may take, in seconds.
pub const CONNECT_SECONDS_MAX: u64 = 20;
/// How long the broker has to take a consumer, in seconds.
pub const CONSUME_SECONDS_MAX: u64 = 20;
/// How long the broker has for a declaration, a deletion or a count, in seconds.
pub const QUEUE_SECONDS_MAX: u64 = 30;
/// A `signet.reports` that so often in a row gave a consumer no answer, on a new connection each time, and shows neither
/// messages nor consumers, is taken to have lost its leader for good.
pub const LEADERLESS_TRIES: u32 = 2;
/// A connection that stood this long was a good one: when it breaks, the pauses begin anew.
pub const CONNECTION_GOOD_SECONDS: u64 = 60;
/// How long the broker has to answer a goodbye, in seconds.
pub const DISCONNECT_SECONDS_MAX: u64 = 2;
/// How often the state of a connection is looked at, in milliseconds: lapin tells of a broken one only who uses it.
pub const CONNECTION_CHECK_MILLISECONDS: u64 = 500;
/// `frame_max` of a controller's connections.
pub const CONTROLLER_FRAME_BYTES_MAX: u32 = 65_536;
/// `frame_max` of an agent's connection: lapin keeps two buffers of 32 frames, fully touched.
pub const AGENT_FRAME_BYTES_MAX: u32 = 16_384;
/// AMQP heartbeat in seconds.
pub const AMQP_HEARTBEAT_SECONDS: u16 = 20;
/// Longest address of a git repository, in bytes.
pub const DEPLOY_URL_BYTES_MAX: usize = 2_048;
/// Longest name of a branch or tag, in bytes.
pub const DEPLOY_REF_BYTES_MAX: usize = 255;
/// Longest path that is deployed to, in bytes; leaves room for what lies below it.
pub const DEPLOY_PATH_BYTES_MAX: usize = 1_024;
/// Paths that the releases of one deployment may share.
pub const DEPLOY_SHARED_MAX: usize = 100;
/// Hooks of one deployment.
pub const DEPLOY_HOOKS_MAX: usize = 50;
/// Releases that stay unless asked otherwise.
pub const DEPLOY_KEEP_DEFAULT: u32 = 5;
/// Most releases that may stay.
pub const DEPLOY_KEEP_MAX: u32 = 100;
/// How often a health check may be asked at most.
pub const DEPLOY_ATTEMPTS_MAX: u32 = 1_000;
/// Deployed paths that one heartbeat tells of; [`HEARTBEATS_QUEUE_BYTES_MAX`] holds them for 5,000 agents.
pub const DEPLOY_STANDINGS_MAX: usize = 16;
/// Keyrings that may stand in one chain of a hello answer.
pub const KEYRING_CHAIN_MAX: usize = 1_000;

package config

import "time"

// variable is one row of the table that everything else comes from.
type variable struct {
	name string
	// legacy are older names that still work, best first.
	legacy []string
	// fallback is the text that counts when the variable is not set.
	fallback string
	// needed names the stages that cannot do without it; it has no default.
	needed Parts
	// secret values are never shown.
	secret bool
	// file tells that NAME_FILE may name a file that holds the value.
	file bool
	// doc says what it is, what it trades and what special values mean.
	doc string
	// set parses the text into the field. Its error says what is wrong and what is
	// right, without the name of the variable.
	set setter
}

// variables is in the order of the help text.
var variables = []variable{
	{
		name: "SOURCE_TYPE", fallback: "postgres",
		set: choice(func(c *Config) *string { return &c.SourceType }, sourceTypes),
		doc: "Kind of the source: postgres (or postgresql).",
	},
	{
		name: "SOURCE_URL", legacy: []string{"DATABASE_URL"}, needed: Capture, secret: true, file: true,
		set: setSourceURL,
		doc: "Connection string of the source: postgres://user:password@host:5432/database.",
	},
	{
		name: "SOURCE_SLOT_NAME", legacy: []string{"SLOT_NAME"}, fallback: "dbmazz_slot", set: setSlotName,
		doc: "Name of the replication slot. Created when missing, never dropped.",
	},
	{
		name: "SOURCE_PUBLICATION_NAME", legacy: []string{"PUBLICATION_NAME"}, fallback: "dbmazz_pub",
		set: setPublicationName,
		doc: "Name of the publication. Created when missing.",
	},
	{
		name: "TABLES", needed: Capture, set: setTables,
		doc: `Tables to replicate: table or schema.table (schema public where none is given), separated by commas. ` +
			`A name that is not all lower case needs double quotes: "My""Shop"."Orders". ` +
			`Patterns such as shop.* or *.order_? take in every table that there is or will be, and !shop.audit_* leaves tables out again.`,
	},
	{
		name: "TABLES_INTERVAL_S", fallback: "30",
		set: duration(func(c *Config) *time.Duration { return &c.TablesInterval }, unitSeconds, 1, 86_400),
		doc: "Seconds between two looks at the source for tables that came, went or were made anew.",
	},
	{
		name: "SOURCE_PARTITIONS", fallback: PartitionsRoot,
		set: choice(func(c *Config) *string { return &c.Partitions }, partitions),
		doc: "How partitioned tables are replicated: root makes one table of all partitions, leaf one of each partition under its own name.",
	},
	{
		name: "SOURCE_STREAMING", fallback: "true", set: boolean(func(c *Config) *bool { return &c.SourceStreaming }),
		doc: "Receive large transactions while they run (PostgreSQL 14 and later), so that the server need not spill them to its disk. " +
			"They wait in SPOOL_DIR for their commit.",
	},
	{
		name: "SOURCE_HEARTBEAT_S", fallback: "0",
		set: duration(func(c *Config) *time.Duration { return &c.SourceHeartbeat }, unitSeconds, 0, 3600),
		doc: "Seconds between small messages (pg_logical_emit_message) that dbmazz writes into the source's log, for servers whose slot " +
			"stands still while other databases are busy; 0 writes none.",
	},
	{
		name: "SNAPSHOT", legacy: []string{"DO_SNAPSHOT"}, fallback: SnapshotInitial, set: setSnapshot,
		doc: "Whether existing rows are copied: initial copies those of every table that is new to the pipeline, while changes flow; never copies none; " +
			"only copies them and drains the pipeline afterwards.",
	},
	{
		name: "SNAPSHOT_WORKERS", fallback: "2",
		set: integer(func(c *Config) *int { return &c.SnapshotWorkers }, 64),
		doc: "Tables that are copied at a time.",
	},
	{
		name: "SNAPSHOT_CHUNK_ROWS", legacy: []string{"SNAPSHOT_CHUNK_SIZE"}, fallback: "50000",
		set: integer(func(c *Config) *int { return &c.SnapshotChunkRows }, 10_000_000),
		doc: "Rows that are copied by one query. Fewer where rows are wide.",
	},
	{
		name: "SNAPSHOT_RATE", fallback: "0",
		set: from0(func(c *Config) *int { return &c.SnapshotRate }, 100_000_000),
		doc: "Rows per second that are read from the source at most, all tables together; 0 means as fast as they are taken.",
	},
	{
		name: "SINK_TYPE", fallback: "starrocks",
		set: choice(func(c *Config) *string { return &c.SinkType }, sinkTypes),
		doc: "Kind of the sink: starrocks.",
	},
	{
		name: "SINK_URL", legacy: []string{"STARROCKS_URL"}, needed: Apply, set: setSinkURL,
		doc: "HTTP address of a StarRocks FE (or BE): http://host:8030. The scheme defaults to http, the port to 8030.",
	},
	{
		name: "SINK_PORT", legacy: []string{"STARROCKS_PORT"}, fallback: "9030",
		set: integer(func(c *Config) *int { return &c.SinkPort }, 65535),
		doc: "MySQL protocol port of the StarRocks FE.",
	},
	{
		name: "SINK_DATABASE", legacy: []string{"STARROCKS_DB"}, needed: Apply,
		set: text(func(c *Config) *string { return &c.SinkDatabase }),
		doc: "Database in the sink that receives the tables.",
	},
	{
		name: "SINK_USER", legacy: []string{"STARROCKS_USER"}, fallback: "root",
		set: text(func(c *Config) *string { return &c.SinkUser }),
		doc: "User name in the sink.",
	},
	{
		name: "SINK_PASSWORD", legacy: []string{"STARROCKS_PASS"}, secret: true, file: true,
		set: secret(func(c *Config) *Secret { return &c.SinkPassword }),
		doc: "Password in the sink.",
	},
	{
		name: "SINK_DELETE_MODE", fallback: DeleteSoft,
		set: choice(func(c *Config) *string { return &c.SinkDeleteMode }, deleteModes),
		doc: "What a delete does in the sink: soft keeps the row with dbmazz_is_deleted = true, hard removes it.",
	},
	{
		name: "SINK_TABLE_NAME", set: setTableName,
		doc: "Name of a table in the sink, with {schema} and {table} for those of the source, such as {schema}_{table}. " +
			"Defaults to {table} for schema public and {schema}__{table} for others. It cannot change while the pipeline lives.",
	},
	{
		name: "SINK_BE_HOSTS", set: setSinkBEHosts,
		doc: "More hosts (host or host:port, separated by commas) that a load may be redirected to with the password, " +
			"besides those that the sink itself lists.",
	},
	{
		name: "SINK_TLS_CA_FILE", set: text(func(c *Config) *string { return &c.SinkTLSCAFile }),
		doc: "Certificates (PEM) that an https SINK_URL, and with SINK_SQL_TLS the MySQL protocol, are verified with, instead of the system's.",
	},
	{
		name: "SINK_TLS_CERT_FILE", set: text(func(c *Config) *string { return &c.SinkTLSCertFile }),
		doc: "Certificate chain (PEM) of this client, where the sink or a proxy before it asks for one; read again for each connection.",
	},
	{
		name: "SINK_TLS_KEY_FILE", set: text(func(c *Config) *string { return &c.SinkTLSKeyFile }),
		doc: "Key (PEM) of that certificate.",
	},
	{
		name: "SINK_SQL_TLS", fallback: "false", set: boolean(func(c *Config) *bool { return &c.SinkSQLTLS }),
		doc: "Demand TLS of the MySQL protocol too, where the front end has SSL set up.",
	},
	{
		name: "SINK_LOAD_TIMEOUT_S", fallback: "120",
		set: duration(func(c *Config) *time.Duration { return &c.SinkLoadTimeout }, unitSeconds, 1, 259_200),
		doc: "Longest time one load may take, in seconds.",
	},
	{
		name: "SINK_TYPE_OVERRIDES", set: setTypeOverrides,
		doc: `Columns that are stored in another way than docs/types.md has it, separated by commas: table.column=policy or schema.table.column=policy. ` +
			`The policy text stores what PostgreSQL prints in a VARCHAR, null stores NULL for a value that the column cannot hold, refuse is the default.`,
	},
	{
		name: "SINK_REFUSED_ROWS", fallback: RefusedStop,
		set: choice(func(c *Config) *string { return &c.SinkRefusedRows }, refusedRows),
		doc: "What a row does that the sink can never take: stop the pipeline with a message that names the row, or dead-letter, which sets the row " +
			"aside (dbmazz dlq) and goes on.",
	},
	{
		name: "FLUSH_SIZE", fallback: "10000",
		set: integer(func(c *Config) *int { return &c.FlushSize }, FlushSizeMax),
		doc: "Rows that make a batch due at once. While a load is running more rows join, up to FLUSH_BYTES.",
	},
	{
		name: "FLUSH_INTERVAL_MS", fallback: "5000",
		set: duration(func(c *Config) *time.Duration { return &c.FlushInterval }, unitMilliseconds, 1, FlushIntervalMax.Milliseconds()),
		doc: "Longest wait for a batch to fill, in milliseconds. When nothing more is waiting it begins earlier.",
	},
	{
		name: "FLUSH_BYTES", fallback: "16MiB",
		set: size(func(c *Config) *int64 { return &c.FlushBytes }, 1<<10, 4<<30),
		doc: "Bytes that close a batch, with a suffix such as KiB, MiB, GiB, KB, MB or GB; a quarter of BUS_MAX_BYTES at most. Bounds the memory of apply, which is about 20 times as much where rows are narrow; " +
			"where it is not set and memory is limited to less than 512 MiB, it is a 32nd of that.",
	},
	{
		name: "MIN_LOAD_INTERVAL_MS", fallback: "100",
		set: duration(func(c *Config) *time.Duration { return &c.MinLoadInterval }, unitMilliseconds, 0, 60_000),
		doc: "Shortest time between the beginnings of two batches that are not full, in milliseconds. Less means less delay and more versions in the sink.",
	},
	{
		name: "GRPC_ADDR", set: setGRPCAddr,
		doc: "Address of the gRPC API: host or host:port. Defaults to 127.0.0.1 with GRPC_PORT. Any other address than loopback " +
			"needs GRPC_TOKEN, GRPC_TLS_CLIENT_CA_FILE or GRPC_INSECURE=true.",
	},
	{
		name: "GRPC_PORT", legacy: []string{"DBMAZZ_CONTROL_PORT"}, fallback: "50051",
		set: integer(func(c *Config) *int { return &c.grpcPort }, 65535),
		doc: "Port of the gRPC API where GRPC_ADDR names none.",
	},
	{
		name: "GRPC_TOKEN", secret: true, file: true, set: setToken,
		doc: "Token that every call must carry: authorization: Bearer TOKEN. The same for /metrics.",
	},
	{
		name: "GRPC_TLS_CERT_FILE", set: text(func(c *Config) *string { return &c.GRPCTLSCertFile }),
		doc: "Certificate chain (PEM) of the API; read again when it changes.",
	},
	{
		name: "GRPC_TLS_KEY_FILE", set: text(func(c *Config) *string { return &c.GRPCTLSKeyFile }),
		doc: "Key (PEM) of the certificate.",
	},
	{
		name: "GRPC_TLS_CLIENT_CA_FILE", set: text(func(c *Config) *string { return &c.GRPCTLSClientCAFile }),
		doc: "Certificates (PEM) that clients of the API must be signed by.",
	},
	{
		name: "GRPC_INSECURE", fallback: "false", set: boolean(func(c *Config) *bool { return &c.GRPCInsecure }),
		doc: "Allow an address other than loopback without token and client certificates.",
	},
	{
		name: "METRICS_ADDR", set: setMetricsAddr,
		doc: "Address of the HTTP endpoint with /metrics, /healthz and /readyz: host:port. Empty means none. The rule of GRPC_ADDR holds.",
	},
	{
		name: "FLIGHT_RECORDER_S", fallback: "0",
		set: duration(func(c *Config) *time.Duration { return &c.FlightRecorder }, unitSeconds, 0, 60),
		doc: "Seconds of the execution trace that are kept for /debug/flightrecorder of METRICS_ADDR; 0 keeps none until it is asked for there.",
	},
	{
		name: "BUS_DATA_DIR", fallback: "./dbmazz-data",
		set: text(func(c *Config) *string { return &c.BusDataDir }),
		doc: "Folder of the queue. It must survive restarts. An apply process on the same machine finds its capture through it.",
	},
	{
		name: "BUS_URL", set: setBusURL,
		doc: "Servers of an existing NATS installation with JetStream, nats://host:4222 or tls://host:4222, separated by commas. " +
			"Empty means the server inside capture.",
	},
	{
		name: "BUS_LISTEN", set: setBusListen,
		doc: "Address (host:port) where the server inside dbmazz listens for an apply process on another machine; off means nowhere. " +
			"Defaults to 127.0.0.1:4222 for dbmazz capture and to off for dbmazz run. Clients need the key in BUS_DATA_DIR/bus.nk.",
	},
	{
		name: "BUS_NKEY_FILE", set: text(func(c *Config) *string { return &c.BusNKeyFile }),
		doc: "File with the nkey seed to sign in with at BUS_URL, such as a copy of capture's BUS_DATA_DIR/bus.nk.",
	},
	{
		name: "BUS_CREDS_FILE", set: text(func(c *Config) *string { return &c.BusCredsFile }),
		doc: "Credentials file (.creds) to sign in with at BUS_URL.",
	},
	{
		name: "BUS_USER", set: text(func(c *Config) *string { return &c.BusUser }),
		doc: "User name to sign in with at BUS_URL.",
	},
	{
		name: "BUS_PASSWORD", secret: true, file: true,
		set: secret(func(c *Config) *Secret { return &c.BusPassword }),
		doc: "Password of BUS_USER.",
	},
	{
		name: "BUS_TLS_CA_FILE", set: text(func(c *Config) *string { return &c.BusTLSCAFile }),
		doc: "Certificates (PEM) that the servers of BUS_URL are verified with, instead of the system's.",
	},
	{
		name: "BUS_TLS_CERT_FILE", set: text(func(c *Config) *string { return &c.BusTLSCertFile }),
		doc: "Certificate chain (PEM): of the server that listens on BUS_LISTEN, or of this client at BUS_URL.",
	},
	{
		name: "BUS_TLS_KEY_FILE", set: text(func(c *Config) *string { return &c.BusTLSKeyFile }),
		doc: "Key (PEM) of that certificate.",
	},
	{
		name: "BUS_REPLICAS",
		set:  integer(func(c *Config) *int { return &c.BusReplicas }, 5),
		doc:  "How many servers of the cluster at BUS_URL keep the queue: 3 survives the loss of one. Defaults to what the queue has, and to 1 for a new one.",
	},
	{
		name: "BUS_MAX_BYTES", fallback: "10GiB",
		set: size(func(c *Config) *int64 { return &c.BusMaxBytes }, 1<<20, 1<<50),
		doc: "Size at which capture waits for the sink to catch up, with a suffix as for FLUSH_BYTES. Nothing is ever discarded.",
	},
	{
		name: "BUS_RETENTION", fallback: "1h", set: setRetention,
		doc: "How long applied changes are kept for replay, such as 90m or 24h; 0 means not at all.",
	},
	{
		name: "SPOOL_DIR", set: text(func(c *Config) *string { return &c.SpoolDir }),
		doc: "Folder for transactions that are received before they commit. Nothing in it needs to survive. Defaults to BUS_DATA_DIR/spool, " +
			"and with BUS_URL to the system's folder for temporary files.",
	},
	{
		name: "INSTANCE", set: setInstance,
		doc: "Name of this process among those of the pipeline, in status and logs. Defaults to the host name and a random part.",
	},
	{
		name: "HANDOVER_AFTER_S", fallback: "30",
		set: duration(func(c *Config) *time.Duration { return &c.HandoverAfter }, unitSeconds, 0, 3600),
		doc: "Seconds after which a process that fails at a stage (it does not reach the source or the sink, say) leaves it to a standby that has not failed itself; 0 means never.",
	},
	{
		name: "MEMORY_LIMIT",
		set:  size(func(c *Config) *int64 { return &c.MemoryLimit }, 64<<20, 1<<40),
		doc:  "Memory that the process aims to stay below, with a suffix as for FLUSH_BYTES; where it is short, capture and copies go slower. Defaults to GOMEMLIMIT, else to 90 % of the container's limit.",
	},
	{
		name: "LOG_LEVEL", legacy: []string{legacyLogLevel}, fallback: "info", set: setLogLevel,
		doc: "Least level that is logged: debug, info, warn or error.",
	},
	{
		name: "LOG_FORMAT", fallback: LogText,
		set: choice(func(c *Config) *string { return &c.LogFormat }, logFormats),
		doc: "Form of the log: text or json.",
	},
	{
		name: "SHUTDOWN_TIMEOUT_S", fallback: "30",
		set: duration(func(c *Config) *time.Duration { return &c.ShutdownTimeout }, unitSeconds, 1, 3600),
		doc: "Longest time a clean stop may take, in seconds.",
	},
}

// What the choices accept, and what each means.
var (
	sourceTypes = choices{{"postgres", "postgres"}, {"postgresql", "postgres"}}
	sinkTypes   = choices{{"starrocks", "starrocks"}}
	deleteModes = choices{{DeleteSoft, DeleteSoft}, {DeleteHard, DeleteHard}}
	partitions  = choices{{PartitionsRoot, PartitionsRoot}, {PartitionsLeaf, PartitionsLeaf}}
	refusedRows = choices{{RefusedStop, RefusedStop}, {RefusedDeadLetter, RefusedDeadLetter}}
	logFormats  = choices{{LogText, LogText}, {LogJSON, LogJSON}}
)

// fileSuffix makes the name of the variable that names a file with the value.
const fileSuffix = "_FILE"

// names returns every name that sets the variable, the preferred first.
func (v *variable) names() []string {
	names := append([]string{v.name}, v.legacy...)
	if v.file {
		names = append(names, v.name+fileSuffix)
	}
	return names
}

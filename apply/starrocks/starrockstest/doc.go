// Package starrockstest is a stand-in for StarRocks, for tests, demonstrations and benchmarks. It is not StarRocks.
//
// It answers the front end's and the back end's HTTP (Stream Load, label states) and the MySQL protocol. It is
// strict: what StarRocks is known to refuse it refuses, in StarRocks' words, and the traps that lose data in silence
// are there as well. What StarRocks may accept and the stand-in does not know is refused with an error that begins
// "unsupported by the stand-in", never guessed.
//
// # What it models
//
//   - Redirects: the front end answers 307 without reading the body and wants "Expect: 100-continue"; front and back
//     end listen on different addresses, so an HTTP client that follows by itself loses its Authorization header.
//   - Labels: one transaction per label and database, PREPARE while the body is read and after a client went away,
//     _cancel, timeouts, reuse after ABORTED, eviction by count and age, the wrong answer of 3.3.6-3.3.13 and
//     3.4.0-3.4.3 to a duplicate label.
//   - Loads in JSON and CSV: strict_mode, max_filter_ratio, columns, partial_update, merge_condition, __op, the
//     answer's key order, the error URL. A load is applied whole or not at all; of several rows of one key the last
//     one wins.
//   - Conversions: without strict mode what does not convert becomes NULL; excess decimals are rounded, time zones
//     behind a DATETIME ignored, and bad array elements nulled, in strict mode as well.
//   - Primary key tables, and duplicate key tables, whose rows are appended, cannot be updated, and are deleted by
//     comparisons that are joined with AND only.
//   - DDL in StarRocks' syntax with its refusals, schema changes that are instant or asynchronous by version and
//     setting, SHOW and information_schema as far as a client needs them, and simple SELECT, INSERT, UPDATE, DELETE.
//   - Versions: see Options.Version and the functions in version.go.
//
// Documentation behind it: https://docs.starrocks.io/docs/sql-reference/sql-statements/loading_unloading/STREAM_LOAD/,
// https://docs.starrocks.io/docs/loading/Load_to_Primary_Key_tables/,
// https://docs.starrocks.io/docs/sql-reference/sql-statements/table_bucket_part_index/ALTER_TABLE/ and
// https://docs.starrocks.io/docs/sql-reference/data-types/.
//
// # What it does not model
//
// The transaction interface of Stream Load, merge commit, compressed bodies, jsonpaths, json_root, where, enclose and
// escape, expressions in the columns header other than for __op, partitions, other table models, MAP and STRUCT,
// shared-data clusters, several back ends, memory limits, compaction and version build-up (scripted faults stand in for
// the last). A transaction in PREPARE is forgotten by a restart. Error texts and numbers follow StarRocks where they are
// known and are of the stand-in's making elsewhere. No statement here was compared with a running StarRocks.
//
// # Faults
//
// Script queues faults; each names what it acts on and how often. See FaultKind. The admin listener takes the same
// faults as JSON.
//
// # Persistence
//
// With Options.Data every committed load, aborted label and statement is appended to a log and synced before it is
// answered; a start replays it. A record cut short by a kill is dropped, as it was never answered.
package starrockstest

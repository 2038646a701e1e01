// Package pgoutput decodes the messages of PostgreSQL's logical replication output
// plugin, protocol versions 1 and 2, in place: what it returns points into the input
// and decoding a row allocates nothing.
//
// Version 2 (PostgreSQL 14) adds streams: pieces of transactions that are not committed
// yet, between Stream Start and Stream Stop. Messages inside them have another form, so
// there are two functions: [Decode], and [DecodeStreamed] for what is inside. Versions 3
// and 4 are not asked for; they add prepared transactions, and an LSN and a time to
// Stream Abort, for subscribers that apply changes before they are committed.
//
// It is pure. Whatever the bytes are, either answers with a message or with an error
// that names the message and the offset; it never reads past the input. A message that
// it accepts was walked to its last byte, so iterating over its tuples cannot fail.
//
// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
package pgoutput

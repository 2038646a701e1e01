// Package pgoutput decodes the messages of PostgreSQL's logical replication output
// plugin, protocol version 1, in place: what it returns points into the input and
// decoding a row allocates nothing.
//
// It is pure. Whatever the bytes are, [Decode] answers with a message or with an error
// that names the message and the offset; it never reads past the input. A message that
// it accepts was walked to its last byte, so iterating over its tuples cannot fail.
//
// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
package pgoutput

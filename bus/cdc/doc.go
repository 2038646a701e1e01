// Package cdc is what travels from capture to apply: positions, schemas, records
// and the frames that carry them. It is a pure leaf: no I/O, no clock, no goroutine.
//
// A [Position] orders every change of one slot: the LSN of the transaction's commit
// and the ordinal of the change inside it. The LSN of a row is neither unique nor
// monotonic in a logical stream and is never used for identity.
//
// A frame is one message of the stream. It carries many records in position order as
// a sequence of MessagePack objects that any MessagePack library can unpack:
//
//	checksum  uint32  CRC32C (Castagnoli) of everything that follows
//	header    map     see [Header]
//	record    array   [kind, ...], see [Writer] for each kind
//	record    array
//	...
//
// Column values are the bytes that PostgreSQL's output function printed, as
// MessagePack strings; nil is NULL and false is "unchanged TOAST value, not sent".
// The session settings that make this text canonical (ISO dates, UTC, hex bytea) are
// capture's duty. docs/stream-format.md is the specification for other readers.
package cdc

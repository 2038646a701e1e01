// Package starrocks is the sink that writes batches to StarRocks by Stream Load.
//
// The promise: [Sink.Apply] returns nil only after StarRocks has said that every row of
// the batch is committed, each value is stored exactly or refused by an error that
// names it, and calling Apply again with the same batch changes nothing.
//
// The mechanism: a batch is cut into loads in a way that depends on nothing but the
// batch, the table's shape and the configuration. Each load has a label made of those,
// so StarRocks refuses to commit it twice. Whatever leaves the outcome of a load open -
// a lost connection, a timeout, an answer that may be wrong - is settled by asking for
// the state of the label, never by waiting and assuming. A load whose label is known to
// be aborted, or unknown, is sent again with the same label and the same bytes.
//
// Three kinds of rows need more than a label. Rows that leave values out are loaded only
// if StarRocks has the row that those are in (base.go). Rows of tables without a key,
// which would be there twice if they were sent twice, are looked up wherever the label
// may not know of them (append.go). Batches that may come late carry a condition on the
// version (guarded.go).
//
// What no client can help against is a request that is stuck on its way for longer than
// its label is kept, and then begins: label_keep_max_num of StarRocks should be large.
//
// Every load is strict, with a filter ratio of zero, and its row counters are compared
// with what was sent. A label that is committed without them is believed once the rows
// were found in the table (absent.go). docs/types.md is the table of types.
package starrocks

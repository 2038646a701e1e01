package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// chunkBytes bounds a chunk in memory, besides one row.
const chunkBytes = 8 << 20

// chunkBytes is that bound where little may wait in the stream. The caller holds the lock.
func (n *snapshots) chunkBytes() int {
	return min(chunkBytes, n.c.cfg.SnapshotBacklog/4, max(n.room.bytes/2, 1<<20))
}

// errChunkFull ends the reading of a chunk. What was read until then is a chunk too.
var errChunkFull = errors.New("the chunk is full")

// chunk is a range of rows in the order of the key, or one row.
type chunk struct {
	table    *tableCopy
	window   *window
	relation *relation
	schema   *cdc.Schema
	estimate uint64 // rows of the table

	buffers
	last []string
	// full tells that it was cut off, ended that the table has no more rows.
	full, ended bool
	// singles are the keys of rows that are copied again.
	singles []*singleKey

	seen *visibility
	end  cdc.LSN      // H: what it shows is in the log before
	next int          // row to write
	at   cdc.Position // of the last row, once it is written
	// again says why the chunk must be read again, empty if it need not be.
	again string
}

// buffers hold the rows of a chunk.
type buffers struct {
	data []byte // tuples in wire form
	ends []int  // of each of them
}

func (c *chunk) row(i int) cdc.Tuple {
	start := 0
	if i > 0 {
		start = c.ends[i-1]
	}
	return c.data[start:c.ends[i]]
}

// keepRead leaves the single keys in a chunk that was cut off whose rows were read. It
// reports whether there are any.
func (c *chunk) keepRead() bool {
	read := map[string]bool{}
	for i := range c.ends {
		read[strings.Join(keyTexts(c.row(i), c.schema.Key), "\x00")] = true
	}
	c.singles = slices.DeleteFunc(slices.Clone(c.singles), func(k *singleKey) bool { return !read[strings.Join(k.Key, "\x00")] })
	return len(c.singles) > 0
}

// keyColumn is a column of the key with the operators of the index.
type keyColumn struct {
	name, typeName       string
	collate              string // the index's collation as a clause, if it is not that of the column
	less, equal, greater string
	catalog              bool // the operators are in pg_catalog, under their usual names
	// cast is set for a domain over an enumeration, which the operators of enumerations
	// do not take.
	cast string
}

// order writes the column for ORDER BY. The usual operators are also those that the type
// is ordered by without them, and then the index of a domain is found.
func (k *keyColumn) order() string {
	if k.catalog {
		return quote(k.name) + k.collate
	}
	return k.expression() + " USING " + k.less
}

// The index is that of readKey. Its operator classes say how it is ordered; the operators
// that go by the names < and > may be others, depending on search_path. Two keys that the
// column's collation takes for the same may be two to that of the index.
const keyQuery = `
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
  COALESCE((SELECT format(' COLLATE %I.%I', cn.nspname, l.collname) FROM pg_collation l JOIN pg_namespace cn ON cn.oid = l.collnamespace
    WHERE l.oid = k.coll AND k.coll <> a.attcollation), ''),
  max(format('OPERATOR(%I.%s)', n.nspname, o.oprname)) FILTER (WHERE ao.amopstrategy = 1),
  max(format('OPERATOR(%I.%s)', n.nspname, o.oprname)) FILTER (WHERE ao.amopstrategy = 3),
  max(format('OPERATOR(%I.%s)', n.nspname, o.oprname)) FILTER (WHERE ao.amopstrategy = 5),
  bool_and(n.nspname = 'pg_catalog' AND o.oprname IN ('<', '=', '>')),
  COALESCE((WITH RECURSIVE base AS (
    SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
    UNION ALL SELECT t.oid, t.typtype, t.typbasetype FROM base b JOIN pg_type t ON b.typtype = 'd' AND t.oid = b.typbasetype
  ) SELECT '::' || format_type(oid, NULL) FROM base WHERE typtype = 'e' AND oid <> a.atttypid), '')
FROM pg_index i, unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[]) WITH ORDINALITY k(attnum, opclass, coll, ord), pg_attribute a, pg_opclass c, pg_amop ao, pg_operator o, pg_namespace n
WHERE i.indrelid = $1 AND i.indisvalid AND a.attrelid = $1 AND a.attnum = k.attnum AND k.ord <= i.indnkeyatts
  AND CASE WHEN $2 THEN i.indisreplident ELSE i.indisprimary END
  AND c.oid = k.opclass AND ao.amopfamily = c.opcfamily AND ao.amoplefttype = c.opcintype AND ao.amoprighttype = c.opcintype
  AND ao.amopstrategy IN (1, 3, 5) AND o.oid = ao.amopopr AND n.oid = o.oprnamespace
GROUP BY k.ord, k.coll, a.attname, a.atttypid, a.atttypmod, a.attcollation ORDER BY k.ord`

func readKeyColumns(ctx context.Context, conn *pgx.Conn, oid uint32, identity byte) ([]keyColumn, error) {
	rows, err := conn.Query(ctx, keyQuery, oid, identity == 'i')
	if err != nil {
		return nil, fmt.Errorf("look up the order of the key: %w", err)
	}
	key, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k keyColumn, err error) {
		return k, row.Scan(&k.name, &k.typeName, &k.collate, &k.less, &k.equal, &k.greater, &k.catalog, &k.cast)
	})
	if err != nil {
		return nil, fmt.Errorf("look up the order of the key: %w", err)
	}
	return key, nil
}

// chunkQuery is what a chunk is read with.
type chunkQuery struct {
	table   Table
	only    bool // without what inherits from it; a partitioned table has no rows itself
	columns []relationColumn
	key     []keyColumn
	filter  string // of the publication, "" if there is none
	after   []string
	singles []*singleKey // the keys to read
	limit   int
}

// sql writes the query. The rows come in the order of the key's index, so that reading
// on behind the last one needs no sort.
func (q *chunkQuery) sql() string {
	names := make([]string, len(q.columns))
	for i, c := range q.columns {
		names[i] = quote(c.name)
	}
	var where []string
	if q.filter != "" {
		where = append(where, "("+q.filter+")")
	}
	switch {
	case q.singles != nil:
		where = append(where, q.among())
	case q.after != nil:
		where = append(where, q.behind())
	}
	sql := "SELECT " + strings.Join(names, ", ") + " FROM "
	if q.only {
		sql += "ONLY "
	}
	sql += q.table.sqlName()
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	if q.singles == nil && len(q.key) > 0 {
		order := make([]string, len(q.key))
		for i, k := range q.key {
			order[i] = k.order()
		}
		sql += fmt.Sprintf(" ORDER BY %s LIMIT %d", strings.Join(order, ", "), q.limit)
	}
	return "COPY (" + sql + ") TO STDOUT"
}

// behind is the condition for the rows after a key: a comparison of rows, which an index
// answers, unless the columns are ordered by operators of different names.
func (q *chunkQuery) behind() string {
	names, values := make([]string, len(q.key)), make([]string, len(q.key))
	for i, k := range q.key {
		names[i], values[i] = k.expression(), k.literal(q.after[i])
	}
	if len(q.key) == 1 {
		return names[0] + " " + q.key[0].greater + " " + values[0]
	}
	if !slices.ContainsFunc(q.key, func(k keyColumn) bool { return !k.catalog }) {
		return "ROW(" + strings.Join(names, ", ") + ") OPERATOR(pg_catalog.>) ROW(" + strings.Join(values, ", ") + ")"
	}
	var text string
	for i, k := range slices.Backward(q.key) {
		greater := names[i] + " " + k.greater + " " + values[i]
		if text == "" {
			text = greater
			continue
		}
		// "Not greater" is "equal" here, since the row is not before the key either.
		notLess := "NOT (" + names[i] + " " + k.less + " " + values[i] + ")"
		text = "(" + notLess + " AND (" + greater + " OR " + text + "))"
	}
	return text
}

// among is the condition for the rows with single keys.
func (q *chunkQuery) among() string {
	keys := make([]string, len(q.singles))
	for i, s := range q.singles {
		equal := make([]string, len(q.key))
		for j, k := range q.key {
			equal[j] = k.expression() + " " + k.equal + " " + k.literal(s.Key[j])
		}
		keys[i] = strings.Join(equal, " AND ")
	}
	return "(" + strings.Join(keys, " OR ") + ")"
}

// expression writes the column for a comparison, as the index has it.
func (k *keyColumn) expression() string { return quote(k.name) + k.cast + k.collate }

// literal writes a value of the column for SQL. standard_conforming_strings is on.
func (k *keyColumn) literal(value string) string {
	if k.typeName == `"char"` && !utf8.ValidString(value) {
		// One byte, which is no text that the server would take.
		return fmt.Sprintf("(%d)::%s", int8(value[0]), k.typeName) //nolint:gosec // As the server's cast has it.
	}
	return "'" + strings.ReplaceAll(value, "'", "''") + "'::" + k.typeName + k.cast
}

// copyReader takes the text format of COPY and makes tuples of it. The server prints the
// values with the same functions, under the same settings, as in the stream.
//
// https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2
type copyReader struct {
	c       *chunk
	columns int
	line    []byte // the begin of a line whose end has not come
	limit   int    // of bytes
	// flush makes room when the limit is reached; without it that is the end.
	flush func() error
	value []byte
}

// Write takes a part of what the server sends.
func (r *copyReader) Write(data []byte) (int, error) {
	for rest := data; ; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			r.line = append(r.line, rest...)
			return len(data), nil
		}
		line := rest[:i]
		if len(r.line) > 0 {
			r.line = append(r.line, line...)
			line = r.line
		}
		switch {
		case len(r.c.data) < r.limit:
		case r.flush == nil:
			r.c.full = true
			return 0, errChunkFull
		default:
			if err := r.flush(); err != nil {
				return 0, err
			}
		}
		if err := r.row(line); err != nil {
			return 0, err
		}
		r.line, rest = r.line[:0], rest[i+1:]
	}
}

func (r *copyReader) row(line []byte) error {
	c, n := r.c, 0
	out := cdc.Tuple(c.data)
	for ; r.columns > 0; n++ {
		field, rest, more := bytes.Cut(line, []byte{'\t'})
		switch {
		case len(field) == 2 && field[0] == '\\' && field[1] == 'N':
			out = out.AppendValue(cdc.Value{Kind: cdc.Null})
		case bytes.IndexByte(field, '\\') < 0:
			out = out.AppendValue(cdc.Value{Kind: cdc.Text, Bytes: field})
		default:
			r.value = unescape(r.value[:0], field)
			out = out.AppendValue(cdc.Value{Kind: cdc.Text, Bytes: r.value})
		}
		if line = rest; !more {
			n++
			break
		}
	}
	if n != r.columns {
		return fmt.Errorf("read a row of %s: %d columns came, %d were asked for", c.table.Table, n, r.columns)
	}
	c.data = out
	c.ends = append(c.ends, len(c.data))
	return nil
}

func unescape(out, field []byte) []byte {
	for {
		i := bytes.IndexByte(field, '\\')
		if i < 0 || i+1 == len(field) {
			return append(out, field...)
		}
		out = append(out, field[:i]...)
		b := field[i+1]
		switch b {
		case 'b':
			b = '\b'
		case 'f':
			b = '\f'
		case 'n':
			b = '\n'
		case 'r':
			b = '\r'
		case 't':
			b = '\t'
		case 'v':
			b = '\v'
		}
		out, field = append(out, b), field[i+2:]
	}
}

// keyBytes appends what tells the row of a tuple from others: the key columns in the
// order of the columns.
func keyBytes(out []byte, row cdc.Tuple, isKey []bool) []byte {
	for i := 0; ; i++ {
		_, rest, ok := row.Next()
		if !ok {
			return out
		}
		if isKey[i] {
			out = append(out, row[:len(row)-len(rest)]...)
		}
		row = rest
	}
}

// keyTexts returns the key of a row as texts, in the order of the key.
func keyTexts(row cdc.Tuple, key []int) []string {
	texts := make([]string, len(key))
	for i := 0; ; i++ {
		v, rest, ok := row.Next()
		if !ok {
			return texts
		}
		if at := slices.Index(key, i); at >= 0 {
			texts[at] = string(v.Bytes)
		}
		row = rest
	}
}

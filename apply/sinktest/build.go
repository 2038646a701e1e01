package sinktest

import (
	"fmt"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

type unchanged struct{}

// Unchanged stands for a large value that an update did not send, in Tuple.
var Unchanged = unchanged{}

// Tuple makes a tuple of strings, nil for NULL, and Unchanged.
func Tuple(values ...any) cdc.Tuple {
	var t cdc.Tuple
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			t = t.AppendValue(cdc.Value{Kind: cdc.Null})
		case string:
			t = t.AppendValue(cdc.Value{Kind: cdc.Text, Bytes: []byte(v)})
		case unchanged:
			t = t.AppendValue(cdc.Value{Kind: cdc.Unchanged})
		default:
			panic(fmt.Sprintf("sinktest: no value is a %T", v))
		}
	}
	return t
}

// Column makes a column of a type without a modifier.
func Column(name string, typ cdc.Type, typeName string) cdc.Column {
	return cdc.Column{Name: name, Type: typ, TypeName: typeName, Mod: -1, BaseMod: -1}
}

// Numeric makes a column of type numeric(precision, scale).
func Numeric(name string, precision, scale int) cdc.Column {
	mod := int32(precision<<16|scale&0x7ff) + 4 //nolint:gosec // Small numbers.
	return cdc.Column{
		Name: name, Type: cdc.TypeNumeric, Mod: mod, BaseMod: mod,
		TypeName: fmt.Sprintf("numeric(%d,%d)", precision, scale),
	}
}

// Schema makes a sealed schema of schema public with the named columns as its key.
func Schema(t testing.TB, table string, key []string, columns ...cdc.Column) *cdc.Schema {
	t.Helper()
	s := &cdc.Schema{OID: 16384, Namespace: "public", Table: table, ReplicaIdentity: 'd', Columns: columns}
	for _, name := range key {
		found := false
		for i := range columns {
			if columns[i].Name == name {
				columns[i].Identity, columns[i].NotNull = true, true
				s.Key = append(s.Key, i)
				found = true
			}
		}
		if !found {
			t.Fatalf("key column %s is not among the columns", name)
		}
	}
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	return s
}

// Batch makes batches of one table with rising positions.
type Batch struct {
	Schema *cdc.Schema
	prefix string
	number int
	lsn    cdc.LSN
}

// NewBatch returns a maker of batches whose IDs start with prefix.
func NewBatch(schema *cdc.Schema, prefix string) *Batch {
	return &Batch{Schema: schema, prefix: prefix, lsn: 0x1000}
}

// Of returns the next batch. Rows without a position get one each.
func (b *Batch) Of(rows ...apply.Row) *apply.TableBatch {
	b.number++
	out := &apply.TableBatch{
		ID: fmt.Sprintf("%s-%d", b.prefix, b.number), Schema: b.Schema, Rows: rows,
		SyncedAt: time.Date(2024, 5, 6, 7, 8, 9, 123456000, time.UTC).Add(time.Duration(b.number) * time.Second),
	}
	for i := range rows {
		if rows[i].Position.IsZero() {
			rows[i].Position = b.Next()
		}
		out.Bytes += len(rows[i].Tuple)
	}
	return out
}

// Next returns the next position.
func (b *Batch) Next() cdc.Position {
	b.lsn += 0x10
	return cdc.Position{Commit: b.lsn, Ordinal: 1}
}

// Truncate returns a truncate at the next position.
func (b *Batch) Truncate() *apply.TableTruncate {
	b.number++
	return &apply.TableTruncate{
		ID: fmt.Sprintf("%s-%d", b.prefix, b.number), Schema: b.Schema, Position: b.Next(),
		SyncedAt: time.Date(2024, 5, 6, 8, 0, 0, 0, time.UTC),
	}
}

// Insert makes a row with all its values.
func Insert(values ...any) apply.Row { return apply.Row{Op: apply.OpInsert, Tuple: Tuple(values...)} }

// Update makes a row that was updated; it is partial if a value is Unchanged.
func Update(values ...any) apply.Row {
	row := apply.Row{Op: apply.OpUpdate, Tuple: Tuple(values...)}
	for _, v := range values {
		_, u := v.(unchanged)
		row.Partial = row.Partial || u
	}
	return row
}

// Moved makes a partial row that had another key.
func Moved(from cdc.Tuple, values ...any) apply.Row {
	row := Update(values...)
	row.MovedFrom = from
	return row
}

// DeleteKey makes a delete of which only the key is known; the other values are nil.
func DeleteKey(values ...any) apply.Row {
	return apply.Row{Op: apply.OpDelete, KeyOnly: true, Tuple: Tuple(values...)}
}

// Delete makes a delete with the whole old row.
func Delete(values ...any) apply.Row { return apply.Row{Op: apply.OpDelete, Tuple: Tuple(values...)} }

package capture

import (
	"slices"
	"testing"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

func TestTheKeyIsThatOfTheStreamWhereTheCatalogHasAnother(t *testing.T) {
	t.Parallel()
	r := &relation{identity: 'd', columns: []relationColumn{
		{name: "a", oid: 23, identity: true}, {name: "b", oid: 23}, {name: "c", oid: 23, identity: true},
	}}
	attributes := []attribute{{name: "a", oid: 23}, {name: "b", oid: 23}, {name: "c", oid: 23}}
	columns := []cdc.Column{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	for _, c := range []struct {
		name     string
		catalog  []string
		previous *cdc.Schema
		want     []int
		stale    bool
	}{
		{"the catalog has the same", []string{"c", "a"}, nil, []int{2, 0}, false},
		{"the catalog has another", []string{"b"}, nil, []int{0, 2}, true},
		{"the catalog has one that overlaps", []string{"b", "a"}, nil, []int{0, 2}, true},
		{"the catalog has none", nil, nil, []int{0, 2}, true},
		{"the schema before had the same", []string{"b"}, &cdc.Schema{Columns: columns, Key: []int{2, 0}}, []int{2, 0}, true},
		{"the schema before had another", []string{"b"}, &cdc.Schema{Columns: columns, Key: []int{1}}, []int{0, 2}, true},
	} {
		got, stale, ok := key(r, &catalogTable{attributes: attributes, key: c.catalog, identity: 'd'}, c.previous)
		if !ok || stale != c.stale || !slices.Equal(got, c.want) {
			t.Errorf("%s: key %v, stale %v, ok %v, want %v, %v", c.name, got, stale, ok, c.want, c.stale)
		}
	}
}

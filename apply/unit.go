package apply

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// unit is rows of a batch, by index, that reach the sink together or not at all: a row
// that moved and lacks values, and the row that has them. Most units are one row.
type unit []int

// unitsOf cuts a batch into units. They are in an order in which they can be applied one
// by one: that of their last changes, and of those with one position the deletes first,
// because two keys of the source may be one in the sink.
func unitsOf(schema *cdc.Schema, rows []Row) ([]unit, error) {
	root := make([]int, len(rows))
	for i := range root {
		root[i] = i
	}
	find := func(i int) int {
		for root[i] != i {
			root[i] = root[root[i]]
			i = root[i]
		}
		return i
	}
	if slices.ContainsFunc(rows, func(r Row) bool { return r.MovedFrom != nil }) {
		index, err := indexOf(schema, rows)
		if err != nil {
			return nil, err
		}
		c := compactor{schema: schema}
		for i := range rows {
			if rows[i].MovedFrom == nil {
				continue
			}
			key, err := c.key(rows[i].MovedFrom)
			if err != nil {
				return nil, fmt.Errorf("find the row that %s was: %w", keyText(schema, rows[i].Tuple), err)
			}
			if from, ok := index[string(key)]; ok {
				root[find(i)] = find(from)
			}
		}
	}
	members := make([]unit, len(rows))
	for i := range rows {
		r := find(i)
		members[r] = append(members[r], i)
	}
	units := slices.DeleteFunc(members, func(u unit) bool { return len(u) == 0 })
	for _, u := range units {
		slices.SortStableFunc(u, func(a, b int) int { return order(&rows[a], &rows[b]) })
	}
	slices.SortStableFunc(units, func(a, b unit) int { return order(&rows[a[len(a)-1]], &rows[b[len(b)-1]]) })
	return units, nil
}

func order(a, b *Row) int {
	if c := a.Position.Compare(b.Position); c != 0 {
		return c
	}
	deletes := func(r *Row) int {
		if r.Op == OpDelete {
			return 0
		}
		return 1
	}
	return cmp.Compare(deletes(a), deletes(b))
}

// indexOf maps the keys of rows, in wire form, to their indexes.
func indexOf(schema *cdc.Schema, rows []Row) (map[string]int, error) {
	c := compactor{schema: schema}
	index := make(map[string]int, len(rows))
	for i := range rows {
		key, err := c.key(rows[i].Tuple)
		if err != nil {
			return nil, fmt.Errorf("index the rows of table %s: %w", schema.Name(), err)
		}
		index[string(key)] = i
	}
	return index, nil
}

// pick returns the rows of units, one unit after the other.
func pick(rows []Row, units []unit) []Row {
	picked := make([]Row, 0, len(units))
	for _, u := range units {
		for _, i := range u {
			picked = append(picked, rows[i])
		}
	}
	return picked
}

// bytesOf sums the wire bytes of rows.
func bytesOf(rows []Row) int {
	size := 0
	for i := range rows {
		size += len(rows[i].Tuple)
	}
	return size
}

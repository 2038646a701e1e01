package starrockstest

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// namedMax bounds the keys that a condition may name before the table is read as a whole.
const namedMax = 10_000

// keyParts are values of columns of the primary key, by their place in the schema.
type keyParts map[int]value

// named gives the rows in key order that a condition can be true for: those whose primary key it names, else all.
// The caller asks the condition for each of them.
func (t *table) named(where expr) []string {
	if t.model != modelPrimary || where == nil {
		return t.snapshot()
	}
	keys, ok := t.schema.keysNamed(where)
	if !ok {
		return t.snapshot()
	}
	var rows []string
	for _, key := range keys {
		if row, ok := t.rows[key]; ok {
			rows = append(rows, row)
		}
	}
	return rows
}

// keysNamed gives the encoded primary keys, in order, of all rows that the condition can be true for. ok is false where
// it does not tell.
func (s *schema) keysNamed(where expr) (keys []string, ok bool) {
	named, ok := s.namedBy(where)
	if !ok {
		return nil, false
	}
	vals := make([]value, len(s.columns))
	for _, parts := range named {
		if len(parts) != len(s.key) {
			return nil, false
		}
		for i, v := range parts {
			vals[i] = v
		}
		keys = append(keys, string(s.appendKey(nil, vals)))
	}
	slices.Sort(keys)
	return slices.Compact(keys), true
}

// namedBy gives parts of keys of which each row that the condition is true for has one.
func (s *schema) namedBy(e expr) ([]keyParts, bool) {
	switch e := e.(type) {
	case inExpr:
		return s.namedByList(e)
	case binaryExpr:
		switch e.op {
		case "=":
			return s.namedByList(inExpr{e: e.l, list: []expr{e.r}})
		case "and":
			l, okL := s.namedBy(e.l)
			r, okR := s.namedBy(e.r)
			switch {
			case !okL || !okR:
				return append(l, r...), okL || okR
			case len(l)*len(r) > namedMax:
				return l, true
			}
			return mergeParts(l, r), true
		case "or":
			l, okL := s.namedBy(e.l)
			r, okR := s.namedBy(e.r)
			if !okL || !okR || len(l)+len(r) > namedMax {
				return nil, false
			}
			return append(l, r...), true
		}
	}
	return nil, false
}

// mergeParts pairs each of l with each of r, but for those that contradict each other.
func mergeParts(l, r []keyParts) []keyParts {
	var both []keyParts
	for _, a := range l {
	pairs:
		for _, b := range r {
			for i, v := range b {
				if w, ok := a[i]; ok && v != w && v.kind != kindDecimal { // 7 and 007 are equal.
					continue pairs
				}
			}
			merged := maps.Clone(a)
			maps.Copy(merged, b)
			both = append(both, merged)
		}
	}
	return both
}

func (s *schema) namedByList(e inExpr) ([]keyParts, bool) {
	ref, ok := e.e.(columnRef)
	if !ok || e.not || len(e.list) > namedMax {
		return nil, false
	}
	i := s.find(ref.name)
	if i < 0 || !s.isKey(i) {
		return nil, false
	}
	var named []keyParts
	for _, item := range e.list {
		v, ok := keyLiteral(item, s.columns[i].typ)
		if !ok {
			return nil, false
		}
		named = append(named, keyParts{i: v})
	}
	return named, true
}

// keyLiteral gives the only value of a column of the type that is equal to the literal. ok is false where it has another
// type, and more than one value, or none, may be equal.
func keyLiteral(e expr, typ colType) (v value, ok bool) {
	if u, isUnary := e.(unaryExpr); isUnary && u.op == "-" {
		v, ok = keyLiteral(u.e, typ)
		if v.text != "" {
			v.text = "-" + v.text
		}
		v.num = -v.num
		return v, ok && v.kind != kindString
	}
	l, isLiteral := e.(literal)
	if !isLiteral {
		return value{}, false
	}
	switch typ.kind {
	case typeTinyint, typeSmallint, typeInt, typeBigint:
		return l.v, l.v.kind == kindInt
	case typeLargeint:
		if l.v.kind == kindInt {
			return value{kind: kindDecimal, text: strconv.FormatInt(l.v.num, 10)}, true
		}
		return l.v, l.v.kind == kindDecimal && !strings.Contains(l.v.text, ".")
	case typeChar, typeVarchar:
		return l.v, l.v.kind == kindString
	default:
		return value{}, false
	}
}

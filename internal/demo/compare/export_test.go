package compare

// NewTable makes a table without a database: columns are pairs of a name and a type of PostgreSQL.
func NewTable(name string, key []int, columns ...string) *Table {
	t := &Table{Schema: "public", Name: name, Sink: name, Key: key}
	for i := 0; i < len(columns); i += 2 {
		t.Columns = append(t.Columns, Column{Name: columns[i], kind: kindOf(columns[i+1], "b")})
	}
	return t
}

// Equal compares two values of a type.
func Equal(typeName string, source, sink []byte) (bool, error) {
	return equal(kindOf(typeName, "b"), source, sink)
}

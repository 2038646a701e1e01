package starrockstest

import (
	"errors"
	"fmt"
)

// ParsedTable is what a CREATE TABLE statement says, for tests of those who write one.
type ParsedTable struct {
	Database, Name, Comment string
	Columns                 []ParsedColumn
	Key                     []string
}

// ParsedColumn is one column of it.
type ParsedColumn struct{ Name, Type, Comment string }

// ParseTable reads a CREATE TABLE statement as the MySQL listener would.
func ParseTable(sql string) (ParsedTable, error) {
	stmt, err := parseSQL(sql)
	if err != nil {
		return ParsedTable{}, fmt.Errorf("parse the statement: %w", err)
	}
	create, ok := stmt.node.(*createTable)
	if !ok {
		return ParsedTable{}, errors.New("parse the statement: it creates no table")
	}
	out := ParsedTable{Database: create.name.db, Name: create.name.name, Comment: create.comment, Key: create.keys}
	for i := range create.columns {
		c := &create.columns[i]
		out.Columns = append(out.Columns, ParsedColumn{Name: c.name, Type: c.typ.String(), Comment: c.comment})
	}
	return out, nil
}

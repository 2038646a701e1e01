package starrockstest

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
)

// informationViews are the views of information_schema that the stand-in knows.
var informationViews map[string]func(*store) (*relation, error)

func init() {
	informationViews = map[string]func(*store) (*relation, error){
		"columns":       (*store).columnsView,
		"tables":        (*store).tablesView,
		"tables_config": (*store).tablesConfigView,
		"schemata":      (*store).schemataView,
		"loads":         (*store).loadsView,
	}
}

func informationTables() []string {
	var names []string
	for n := range informationViews {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func (s *store) informationSchema(name string) (*relation, error) {
	view, ok := informationViews[strings.ToLower(name)]
	if !ok {
		return nil, s.unknownTable(informationSchema, name)
	}
	rel, err := view(s)
	if err != nil {
		return nil, err
	}
	rel.alias = name
	return rel, nil
}

// eachTable walks over all tables in order of their names.
func (s *store) eachTable(f func(db *database, t *table)) {
	for _, dn := range s.databaseNames() {
		db := s.dbs[dn]
		for _, tn := range s.tableNames(db) {
			f(db, db.tables[tn])
		}
	}
}

func textColumns(names ...string) []outColumn {
	var cols []outColumn
	for _, n := range names {
		cols = append(cols, outColumn{name: n, typ: typText})
	}
	return cols
}

func numberColumns(names ...string) []outColumn {
	var cols []outColumn
	for _, n := range names {
		cols = append(cols, outColumn{name: n, typ: typBigint})
	}
	return cols
}

func (s *store) columnsView() (*relation, error) {
	cols := textColumns("TABLE_CATALOG", "TABLE_SCHEMA", "TABLE_NAME", "COLUMN_NAME")
	cols = append(cols, numberColumns("ORDINAL_POSITION")...)
	cols = append(cols, textColumns("COLUMN_DEFAULT", "IS_NULLABLE", "DATA_TYPE")...)
	cols = append(cols, numberColumns("CHARACTER_MAXIMUM_LENGTH", "CHARACTER_OCTET_LENGTH", "NUMERIC_PRECISION", "NUMERIC_SCALE", "DATETIME_PRECISION")...)
	cols = append(cols, textColumns(
		"CHARACTER_SET_NAME", "COLLATION_NAME", "COLUMN_TYPE", "COLUMN_KEY", "EXTRA", "PRIVILEGES", "COLUMN_COMMENT")...)
	var rows [][]value
	s.eachTable(func(db *database, t *table) {
		for i, c := range t.schema.columns {
			rows = append(rows, s.columnRow(db, t, i, c))
		}
	})
	return rowsRelation(cols, rows), nil
}

func (s *store) columnRow(db *database, t *table, i int, c *column) []value {
	def := null
	if c.hasDefault {
		def = stringValue(c.defaultVal)
	} else if c.defaultNow {
		def = stringValue("CURRENT_TIMESTAMP")
	}
	length, octets, precision, scale, datetime := null, null, null, null, null
	switch c.typ.kind {
	case typeChar, typeVarchar:
		length, octets = intValue(int64(c.typ.length)), intValue(int64(c.typ.length))
	case typeVarbinary:
		octets = intValue(int64(varbinaryLimit(c.typ)))
	case typeDecimal:
		precision, scale = intValue(int64(c.typ.precision)), intValue(int64(c.typ.scale))
	case typeTinyint, typeSmallint, typeInt, typeBigint:
		precision = intValue(map[typeKind]int64{typeTinyint: 3, typeSmallint: 5, typeInt: 10, typeBigint: 19}[c.typ.kind])
		scale = intValue(0)
	case typeDatetime:
		datetime = intValue(0)
	default:
		// The other types have none of these.
	}
	key := ""
	if t.schema.isKey(i) {
		key = "DUP"
		if t.model == modelPrimary {
			key = "PRI"
		}
	}
	return []value{
		stringValue("def"), stringValue(db.name), stringValue(t.name), stringValue(c.name), intValue(int64(i + 1)),
		def, stringValue(yesNo(c.nullable)), stringValue(c.typ.dataType()), length, octets, precision, scale, datetime,
		null, null, stringValue(columnTypeText(c.typ)), stringValue(key), stringValue(""), stringValue(""), stringValue(c.comment),
	}
}

// columnTypeText is information_schema.columns.COLUMN_TYPE.
func columnTypeText(t colType) string {
	switch t.kind {
	case typeBoolean:
		return "tinyint(1)"
	case typeLargeint:
		return "bigint(20) unsigned"
	default:
		return t.sqlName()
	}
}

func (s *store) tablesView() (*relation, error) {
	cols := textColumns("TABLE_CATALOG", "TABLE_SCHEMA", "TABLE_NAME", "TABLE_TYPE", "ENGINE")
	cols = append(cols, numberColumns("VERSION", "TABLE_ROWS", "DATA_LENGTH")...)
	cols = append(cols, outColumn{"CREATE_TIME", typTime})
	cols = append(cols, textColumns("TABLE_COLLATION", "TABLE_COMMENT")...)
	var rows [][]value
	s.eachTable(func(db *database, t *table) {
		rows = append(rows, []value{
			stringValue("def"), stringValue(db.name), stringValue(t.name), stringValue("BASE TABLE"), stringValue("StarRocks"),
			null, intValue(t.rowCount()), intValue(0), formatTime(t.created), stringValue("utf8_general_ci"), stringValue(t.comment),
		})
	})
	return rowsRelation(cols, rows), nil
}

func (s *store) tablesConfigView() (*relation, error) {
	cols := textColumns("TABLE_SCHEMA", "TABLE_NAME", "TABLE_ENGINE", "TABLE_MODEL", "PRIMARY_KEY", "PARTITION_KEY",
		"DISTRIBUTE_KEY", "DISTRIBUTE_TYPE")
	cols = append(cols, numberColumns("DISTRUBTE_BUCKET")...)
	cols = append(cols, textColumns("SORT_KEY", "PROPERTIES")...)
	cols = append(cols, numberColumns("TABLE_ID")...)
	var rows [][]value
	var failed error
	s.eachTable(func(db *database, t *table) {
		props, err := json.Marshal(t.properties)
		if err != nil {
			failed = fmt.Errorf("encode properties: %w", err)
			return
		}
		model := "DUP_KEYS"
		if t.model == modelPrimary {
			model = "PRI_KEYS"
		}
		sortKey := t.sortKey
		if len(sortKey) == 0 {
			sortKey = t.schema.keyNames()
		}
		rows = append(rows, []value{
			stringValue(db.name), stringValue(t.name), stringValue("OLAP"), stringValue(model),
			stringValue(quoteNames(t.schema.keyNames())), stringValue(""), stringValue(quoteNames(t.distribution())),
			stringValue("HASH"), intValue(int64(t.buckets)), stringValue(quoteNames(sortKey)), stringValue(string(props)), intValue(int64(t.id)),
		})
	})
	return rowsRelation(cols, rows), failed
}

func (s *store) schemataView() (*relation, error) {
	cols := textColumns("CATALOG_NAME", "SCHEMA_NAME", "DEFAULT_CHARACTER_SET_NAME", "DEFAULT_COLLATION_NAME", "SQL_PATH")
	var rows [][]value
	for _, name := range append(s.databaseNames(), informationSchema) {
		rows = append(rows, []value{stringValue("def"), stringValue(name), stringValue("utf8"), stringValue("utf8_general_ci"), null})
	}
	return rowsRelation(cols, rows), nil
}

// loadsView lists Stream Loads, which StarRocks keeps in memory only.
func (s *store) loadsView() (*relation, error) {
	cols := numberColumns("JOB_ID")
	cols = append(cols, textColumns("LABEL", "DATABASE_NAME", "STATE", "PROGRESS", "TYPE", "ERROR_MSG", "TABLE_NAME")...)
	cols = append(cols, numberColumns("SCAN_ROWS", "FILTERED_ROWS", "UNSELECTED_ROWS", "SINK_ROWS")...)
	cols = append(cols, outColumn{"CREATE_TIME", typTime})
	var rows [][]value
	for _, l := range s.loads {
		state, msg := "FINISHED", null
		if l.Status != statusSuccess && l.Status != statusPublishTimeout {
			state, msg = "CANCELLED", stringValue(l.Message)
		}
		rows = append(rows, []value{
			intValue(l.TxnID), stringValue(l.Label), stringValue(l.DB), stringValue(state), stringValue("100%"),
			stringValue("STREAM_LOAD"), msg, stringValue(l.Table), intValue(l.Total), intValue(l.Filtered), intValue(0),
			intValue(l.Loaded), formatTime(l.Time),
		})
	}
	return rowsRelation(cols, rows), nil
}

package starrockstest

import (
	"strconv"
	"strings"
	"time"
)

// session is the state of one MySQL connection.
type session struct {
	db string
	// client is what the connection calls itself.
	client string
}

const informationSchema = "information_schema"

// run executes a statement for a session and logs it if it changed something. A SELECT reads a snapshot and leaves the
// lock to others.
func (s *store) run(ses *session, stmt *statement) (*result, error) {
	if sel, ok := stmt.node.(*selectRows); ok {
		rel, err := s.openRelation(ses, sel)
		if err != nil {
			return nil, err
		}
		return s.selectFrom(ses, sel, rel)
	}
	return s.runChange(ses, stmt)
}

func (s *store) runChange(ses *session, stmt *statement) (*result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.advance(); err != nil {
		return nil, err
	}
	at := s.opts.Now()
	s.clock = at
	defer func() { s.clock = time.Time{} }()
	db := ses.db
	res, err := s.runLocked(ses, stmt)
	if err != nil {
		return nil, err
	}
	if changes(stmt.node) {
		if err := s.persistStatement(db, stmt.sql, at); err != nil {
			return nil, err
		}
		s.writers.add(ses.client).Statements++
	}
	return res, nil
}

// changes tells whether a statement has to be in the log.
func changes(node any) bool {
	switch node.(type) {
	case createDatabase, dropDatabase, *createTable, dropTable, truncateTable, alterTable, insertRows, updateRows, deleteRows, setConfig:
		return true
	default:
		return false
	}
}

// runLocked executes without the log; callers hold the mutex.
func (s *store) runLocked(ses *session, stmt *statement) (*result, error) {
	switch n := stmt.node.(type) {
	case ignored:
		return &result{}, nil
	case show:
		return s.runShow(ses, n)
	case useDatabase:
		if !s.databaseExists(n.name) {
			return nil, s.unknownDatabase(n.name)
		}
		ses.db = n.name
		return &result{}, nil
	case createDatabase:
		return &result{}, s.createDatabase(n)
	case dropDatabase:
		return &result{}, s.dropDatabase(n)
	case *createTable:
		return &result{}, s.createTable(ses, n)
	case dropTable:
		return &result{}, s.dropTable(ses, n)
	case truncateTable:
		return &result{}, s.truncateTable(ses, n)
	case alterTable:
		return &result{}, s.alterTable(ses, n)
	case insertRows:
		return s.insertRows(ses, n)
	case updateRows:
		return s.updateRows(ses, n)
	case deleteRows:
		return s.deleteRows(ses, n)
	case setConfig:
		return &result{}, s.setConfig(n)
	default:
		return nil, unsupported("this statement")
	}
}

func (s *store) databaseExists(name string) bool {
	return s.dbs[name] != nil || strings.EqualFold(name, informationSchema)
}

// table finds the table that a name means in a session.
func (s *store) table(ses *session, n tableName) (*database, *table, error) {
	if n.db == "" {
		n.db = ses.db
	}
	if n.db == "" {
		return nil, nil, sqlError(1046, "3D000", "No database selected")
	}
	db := s.dbs[n.db]
	if db == nil {
		return nil, nil, s.unknownDatabase(n.db)
	}
	t := db.tables[n.name]
	if t == nil {
		return nil, nil, s.unknownTable(n.db, n.name)
	}
	return db, t, nil
}

// openRelation takes a snapshot of what a SELECT reads.
func (s *store) openRelation(ses *session, sel *selectRows) (*relation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.advance(); err != nil {
		return nil, err
	}
	rel, err := s.relationOf(ses, sel)
	if err != nil {
		return nil, err
	}
	rel.now = s.now()
	return rel, nil
}

func (s *store) relationOf(ses *session, sel *selectRows) (*relation, error) {
	if sel.from == nil {
		return rowsRelation(nil, [][]value{nil}), nil
	}
	name := *sel.from
	if name.db == "" {
		name.db = ses.db
	}
	if strings.EqualFold(name.db, informationSchema) {
		return s.informationSchema(name.name)
	}
	_, t, err := s.table(ses, name)
	if err != nil {
		return nil, err
	}
	return t.relation(sel.where), nil
}

func (s *store) setConfig(n setConfig) error {
	old, ok := s.config[n.key]
	if !ok {
		return ddlError("Config '%s' does not exist or is not mutable", n.key)
	}
	if _, err := strconv.Atoi(old); err == nil {
		if _, err := strconv.Atoi(n.value); err != nil {
			return ddlError("Invalid value for config '%s': %s", n.key, n.value)
		}
	}
	s.config[n.key] = n.value
	return nil
}

// variables are the system variables that clients ask for.
func (s *store) variables() map[string]string {
	return map[string]string{
		"version":                  mysqlVersion,
		"version_comment":          "StarRocks stand-in, not StarRocks (behaves like " + s.ver.String() + ")",
		"max_allowed_packet":       "33554432",
		"autocommit":               "1",
		"wait_timeout":             "28800",
		"interactive_timeout":      "3600",
		"net_write_timeout":        "60",
		"net_buffer_length":        "16384",
		"sql_mode":                 "ONLY_FULL_GROUP_BY",
		"time_zone":                "UTC",
		"system_time_zone":         "UTC",
		"character_set_client":     "utf8",
		"character_set_connection": "utf8",
		"character_set_results":    "utf8",
		"character_set_server":     "utf8",
		"collation_server":         "utf8_general_ci",
		"collation_connection":     "utf8_general_ci",
		"collation_database":       "utf8_general_ci",
		"init_connect":             "",
		"license":                  "Apache License 2.0",
		"lower_case_table_names":   "0",
		"tx_isolation":             "REPEATABLE-READ",
		"transaction_isolation":    "REPEATABLE-READ",
		"query_timeout":            "300",
		"run_mode":                 "shared_nothing",
		"auto_increment_increment": "1",
		"performance_schema":       "0",
		"query_cache_size":         "1048576",
		"query_cache_type":         "0",
		"session_track_schema":     "1",
	}
}

func (c *compiler) variable(name string) (compiled, error) {
	v, ok := c.store.variables()[name]
	if !ok {
		return compiled{}, sqlError(1193, "HY000", "Unknown system variable '%s'", name)
	}
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		return constant(intValue(n)), nil
	}
	return constant(stringValue(v)), nil
}

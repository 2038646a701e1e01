package starrockstest

import (
	"regexp"
	"strconv"
	"strings"
)

const columnsMax = 10000

var databasePattern = regexp.MustCompile(`^[a-zA-Z]\w{0,255}$`)

// columnNameMaxBytes and the forbidden characters are those of a shared-nothing cluster.
const (
	columnNameMaxBytes  = 1024
	columnNameForbidden = "\x00=<>!*"
)

var knownProperties = map[string]bool{
	"replication_num": true, "enable_persistent_index": true, "persistent_index_type": true, "fast_schema_evolution": true,
	"compression": true, "replicated_storage": true, "storage_medium": true, "write_quorum": true, "in_memory": true,
	"primary_index_cache_expire_sec": true, "bucket_size": true, "light_schema_change": true, "enable_load_profile": true,
}

const aliveBackends = 1

func (s *store) createDatabase(n createDatabase) error {
	if !databasePattern.MatchString(n.name) {
		return sqlError(1102, "42000", "Incorrect database name '%s'", n.name)
	}
	if s.databaseExists(n.name) {
		if n.ifNotExists {
			return nil
		}
		return sqlError(1007, "HY000", "Can't create database '%s'; database exists", n.name)
	}
	s.nextTable++
	s.dbs[n.name] = &database{
		id: int64(s.nextTable), name: n.name, tables: make(map[string]*table), labels: make(map[string]*txn),
	}
	return nil
}

func (s *store) dropDatabase(n dropDatabase) error {
	if s.dbs[n.name] == nil {
		if n.ifExists {
			return nil
		}
		return sqlError(1008, "HY000", "Can't drop database '%s'; database doesn't exist", n.name)
	}
	delete(s.dbs, n.name)
	return nil
}

func (s *store) dropTable(ses *session, n dropTable) error {
	db, t, err := s.table(ses, n.name)
	if err != nil {
		if n.ifExists {
			return nil
		}
		return err
	}
	delete(db.tables, t.name)
	return nil
}

func (s *store) truncateTable(ses *session, n truncateTable) error {
	_, t, err := s.table(ses, n.name)
	if err != nil {
		return err
	}
	t.rows, t.sorted, t.appended, t.counted = make(map[string]string), nil, nil, 0
	t.versions++
	return nil
}

func (s *store) createTable(ses *session, n *createTable) error {
	if n.name.db == "" {
		n.name.db = ses.db
	}
	if n.name.db == "" {
		return sqlError(1046, "3D000", "No database selected")
	}
	db := s.dbs[n.name.db]
	if db == nil {
		return s.unknownDatabase(n.name.db)
	}
	if db.tables[n.name.name] != nil {
		if n.ifNotExists {
			return nil
		}
		return sqlError(1050, "42S01", "Table '%s' already exists", n.name.name)
	}
	if len(n.name.name) > 1024 || strings.ContainsRune(n.name.name, 0) {
		return sqlError(1104, "42000", "Incorrect table name '%s'", n.name.name)
	}
	t := &table{
		id: s.nextTable + 1, db: db.name, name: n.name.name, model: n.model, nextID: 1, comment: n.comment,
		distributed: n.distributed, buckets: n.buckets, sortKey: n.sortKey, created: s.now(),
		properties: make(map[string]string), rows: make(map[string]string),
	}
	if t.model == 0 {
		t.model = modelDuplicate
	}
	if err := s.checkProperties(t, n.properties); err != nil {
		return err
	}
	if err := s.makeSchema(t, n); err != nil {
		return err
	}
	if err := checkDistribution(t); err != nil {
		return err
	}
	s.nextTable += 2 // The second number is the tablet's.
	db.tables[t.name] = t
	return nil
}

func (s *store) checkProperties(t *table, props []property) error {
	for _, p := range props {
		if !knownProperties[p.key] {
			return ddlError("Unknown properties: {%s=%s}", p.key, p.value)
		}
		if _, ok := t.properties[p.key]; !ok {
			t.propOrder = append(t.propOrder, p.key)
		}
		t.properties[p.key] = p.value
	}
	replicas := t.properties["replication_num"]
	if replicas == "" {
		replicas = s.config["default_replication_num"]
		t.properties["replication_num"] = replicas
		t.propOrder = append(t.propOrder, "replication_num")
	}
	n, err := strconv.Atoi(replicas)
	if err != nil || n < 1 {
		return ddlError("Replication num should larger than 0: %s", replicas)
	}
	if n > aliveBackends {
		return ddlError("Table replication num should be less than or equal to the number of available BE nodes. "+
			"You can change this default by setting the replication_num table properties. "+
			"Current alive backend is [10001]. , table=%s, properties.replication_num=%d", t.name, n)
	}
	if _, ok := t.properties["fast_schema_evolution"]; !ok {
		t.properties["fast_schema_evolution"] = s.config["enable_fast_schema_evolution"]
	}
	return nil
}

func (s *store) makeSchema(t *table, n *createTable) error {
	if len(n.columns) > columnsMax {
		return ddlError("Table %s has too many columns: %d, at most %d", t.name, len(n.columns), columnsMax)
	}
	keys := n.keys
	if len(keys) == 0 {
		keys = defaultKeys(n.columns)
	}
	seen := make(map[string]bool)
	var cols []*column
	for _, def := range n.columns {
		lower := strings.ToLower(def.name)
		if seen[lower] {
			return sqlError(1060, "42S21", "Duplicate column name '%s'", def.name)
		}
		seen[lower] = true
		if t.model == modelPrimary && containsFold(keys, def.name) && def.nullable == nil {
			def.nullable = new(bool)
		}
		c, err := s.makeColumn(t, def)
		if err != nil {
			return err
		}
		cols = append(cols, c)
	}
	key, err := keyIndexes(t, cols, keys)
	if err != nil {
		return err
	}
	t.schema = newSchema(cols, key, 0)
	return checkSortKey(t)
}

// defaultKeys are the leading columns that a duplicate key table without a key clause sorts by.
func defaultKeys(defs []columnDef) []string {
	var keys []string
	for _, d := range defs {
		if len(keys) == 3 || !d.typ.canBeDuplicateKey() {
			break
		}
		keys = append(keys, d.name)
	}
	return keys
}

func containsFold(list []string, name string) bool {
	for _, s := range list {
		if strings.EqualFold(s, name) {
			return true
		}
	}
	return false
}

func keyIndexes(t *table, cols []*column, keys []string) ([]int, error) {
	var key []int
	for i, k := range keys {
		if i >= len(cols) || !strings.EqualFold(cols[i].name, k) {
			found := false
			for _, c := range cols {
				found = found || strings.EqualFold(c.name, k)
			}
			if !found {
				return nil, analysisError("Key column(%s) doesn't exist", k)
			}
			return nil, analysisError("Key columns should be a ordered prefix of the schema. KeyColumns[%d] (starts from zero) is %s, "+
				"but corresponding column is %s in the previous columns declaration", i, k, cols[min(i, len(cols)-1)].name)
		}
		c := cols[i]
		if t.model == modelPrimary {
			if !c.typ.canBeKey() {
				return nil, analysisError("primary key column[%s] type not supported: %s", c.name, c.typ.sqlName())
			}
			if c.nullable {
				return nil, analysisError("primary key column[%s] cannot be nullable", c.name)
			}
		} else if !c.typ.canBeDuplicateKey() {
			return nil, analysisError("Invalid data type of key column '%s': '%s'", c.name, c.typ)
		}
		key = append(key, i)
	}
	if len(key) == 0 {
		return nil, analysisError("Table must have at least 1 key column")
	}
	return key, nil
}

// makeColumn checks one column definition.
func (s *store) makeColumn(t *table, def columnDef) (*column, error) {
	if def.name == "" || len(def.name) > columnNameMaxBytes || strings.ContainsAny(def.name, columnNameForbidden) {
		return nil, sqlError(1166, "42000", "Incorrect column name '%s'", def.name)
	}
	if t.model == modelPrimary && (def.name == opColumn || def.name == "__row") {
		return nil, analysisError("Column name '%s' is reserved for primary key table", def.name)
	}
	if err := s.checkType(def.typ); err != nil {
		return nil, err
	}
	c := &column{
		id: t.nextID, name: def.name, typ: def.typ, nullable: def.nullable == nil || *def.nullable,
		hasDefault: def.hasDefault && !def.defaultNull && !def.defaultNow, defaultNow: def.defaultNow,
		defaultVal: def.defaultVal, comment: def.comment,
	}
	t.nextID++
	if def.defaultNull && !c.nullable {
		return nil, analysisError("Can not set null default value to non nullable column: %s", c.name)
	}
	if c.defaultNow && c.typ.kind != typeDatetime {
		return nil, analysisError("Default function currently supported only for DATETIME: %s", c.name)
	}
	if c.hasDefault {
		if k := c.typ.kind; k == typeJSON || k == typeArray || k == typeVarbinary {
			return nil, analysisError("Type '%s' only supports DEFAULT NULL, column: %s", c.typ, c.name)
		}
		if _, err := convertText(c.typ, c.defaultVal, convertOptions{csv: true}); err != nil {
			return nil, analysisError("Invalid default value for '%s'", c.name)
		}
	}
	return c, nil
}

func (s *store) checkType(t colType) error {
	switch t.kind {
	case typeDecimal:
		if limit := s.ver.maxDecimalPrecision(); t.precision > limit {
			return analysisError("DECIMAL's precision should range from 1 to %d: %d", limit, t.precision)
		}
	case typeVarbinary:
		if !s.ver.varbinary() {
			return analysisError("Type VARBINARY is not supported before 3.0")
		}
	case typeArray:
		if t.elem.kind == typeJSON && !s.ver.atLeast(3, 1, 0) {
			return analysisError("Array of JSON is not supported")
		}
		return s.checkType(*t.elem)
	default:
		// The other types are in all versions.
	}
	return nil
}

func checkSortKey(t *table) error {
	for _, name := range t.sortKey {
		i := t.schema.find(name)
		if i < 0 {
			return analysisError("Unknown column '%s' does not exist", name)
		}
		if !t.schema.columns[i].typ.canBeKey() {
			return analysisError("sort key column[%s] type not supported: %s", name, t.schema.columns[i].typ)
		}
	}
	return nil
}

func checkDistribution(t *table) error {
	for _, name := range t.distributed {
		i := t.schema.find(name)
		if i < 0 {
			return ddlError("Distribution column(%s) doesn't exist", name)
		}
		if t.model == modelPrimary && !t.schema.isKey(i) {
			return ddlError("The distribution column must be key column: %s", name)
		}
		if typ := t.schema.columns[i].typ; !typ.canBeDuplicateKey() {
			return ddlError("%s column can not be distribution column", typ)
		}
	}
	return nil
}

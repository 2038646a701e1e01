package starrockstest

import (
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"
	"time"
)

const (
	mysqlVersion   = "8.0.33"
	timeLayout     = "2006-01-02 15:04:05"
	frontendStart  = "2024-01-01 00:00:00"
	databasesTitle = "Database"
)

// textRelation builds a relation of text columns.
func textRelation(names []string, rows [][]string) *relation {
	var cols []outColumn
	for _, n := range names {
		cols = append(cols, outColumn{name: n, typ: typText})
	}
	var out [][]value
	for _, r := range rows {
		vals := make([]value, len(r))
		for i, s := range r {
			vals[i] = stringValue(s)
		}
		out = append(out, vals)
	}
	return rowsRelation(cols, out)
}

// runShow answers SHOW and DESC; LIKE applies to the first column.
func (s *store) runShow(ses *session, n show) (*result, error) {
	rel, err := s.showRelation(ses, n)
	if err != nil {
		return nil, err
	}
	rel.now = s.now()
	sel := n.filter
	sel.items = []selectItem{{star: true}}
	if n.hasLike {
		sel.where = likeExpr{e: columnRef{name: rel.columns[0].name}, pattern: literal{stringValue(n.like)}}
	}
	return s.selectFrom(ses, &sel, rel)
}

func (s *store) showRelation(ses *session, n show) (*relation, error) {
	switch n.kind {
	case showDatabases:
		var rows [][]string
		for _, name := range append(s.databaseNames(), informationSchema) {
			rows = append(rows, []string{name})
		}
		return textRelation([]string{databasesTitle}, rows), nil
	case showTables:
		return s.showTables(ses, n)
	case showColumns:
		return s.showColumns(ses, n)
	case showCreateTable:
		_, t, err := s.table(ses, n.name)
		if err != nil {
			return nil, err
		}
		return textRelation([]string{"Table", "Create Table"}, [][]string{{t.name, t.createStatement()}}), nil
	case showFrontends:
		return s.showFrontends(), nil
	case showBackends:
		return s.showBackends(), nil
	case showComputeNodes:
		return textRelation([]string{
			"ComputeNodeId", "IP", "HeartbeatPort", "BePort", "HttpPort", "BrpcPort", "LastStartTime", "LastHeartbeat", "Alive",
			"SystemDecommissioned", "ClusterDecommissioned", "ErrMsg", "Version",
		}, nil), nil
	case showVariables:
		return settingsRelation([]string{"Variable_name", "Value"}, s.variables()), nil
	case showFrontendConfig:
		return s.showConfig(), nil
	case showAlterColumn:
		return s.showAlterJobs(ses, n)
	case showWarnings:
		return textRelation([]string{"Level", "Code", "Message"}, nil), nil
	default:
		return textRelation([]string{"Id", "User", "Host", "Db", "Command", "Time", "State", "Info"}, nil), nil
	}
}

func settingsRelation(names []string, settings map[string]string) *relation {
	keys := make([]string, 0, len(settings))
	for k := range settings {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var rows [][]string
	for _, k := range keys {
		rows = append(rows, []string{k, settings[k]})
	}
	return textRelation(names, rows)
}

func (s *store) showConfig() *relation {
	var rows [][]string
	for k, v := range s.config {
		rows = append(rows, []string{k, "[]", v, "int", "true", ""})
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i][0] < rows[j][0] })
	return textRelation([]string{"Key", "AliasNames", "Value", "Type", "IsMutable", "Comment"}, rows)
}

func (s *store) showTables(ses *session, n show) (*relation, error) {
	name := n.db
	if name == "" {
		name = ses.db
	}
	if name == "" {
		return nil, sqlError(1046, "3D000", "No database selected")
	}
	var names []string
	if strings.EqualFold(name, informationSchema) {
		names = informationTables()
	} else {
		db := s.dbs[name]
		if db == nil {
			return nil, s.unknownDatabase(name)
		}
		names = s.tableNames(db)
	}
	header := []string{"Tables_in_" + name}
	if n.full {
		header = append(header, "Table_type")
	}
	var rows [][]string
	for _, t := range names {
		row := []string{t}
		if n.full {
			row = append(row, "BASE TABLE")
		}
		rows = append(rows, row)
	}
	return textRelation(header, rows), nil
}

func (s *store) showColumns(ses *session, n show) (*relation, error) {
	_, t, err := s.table(ses, n.name)
	if err != nil {
		return nil, err
	}
	names := []string{"Field", "Type", "Null", "Key", "Default", "Extra"}
	var cols []outColumn
	for _, name := range names {
		cols = append(cols, outColumn{name: name, typ: typText})
	}
	var rows [][]value
	for i, c := range t.schema.columns {
		def := null
		if c.hasDefault {
			def = stringValue(c.defaultVal)
		} else if c.defaultNow {
			def = stringValue("CURRENT_TIMESTAMP")
		}
		rows = append(rows, []value{
			stringValue(c.name), stringValue(c.typ.sqlName()), stringValue(yesNo(c.nullable)),
			stringValue(strconv.FormatBool(t.schema.isKey(i))), def, stringValue(""),
		})
	}
	return rowsRelation(cols, rows), nil
}

func yesNo(b bool) string {
	if b {
		return "YES"
	}
	return "NO"
}

func splitAddr(addr string) (host, port string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, "0"
	}
	return host, port
}

func (s *store) showFrontends() *relation {
	host, httpPort := splitAddr(s.frontAddr)
	_, queryPort := splitAddr(s.queryAddr)
	return textRelation([]string{
		"Id", "Name", "IP", "EditLogPort", "HttpPort", "QueryPort", "RpcPort", "Role", "ClusterId", "Join", "Alive",
		"ReplayedJournalId", "LastHeartbeat", "IsHelper", "ErrMsg", "StartTime", "Version",
	}, [][]string{{
		"1", host + "_9010_1704067200000", host, "9010", httpPort, queryPort, "9020", "LEADER", "1", "true", "true",
		"1000", s.opts.Now().UTC().Format(timeLayout), "true", "", frontendStart, s.ver.String() + "-standin",
	}})
}

func (s *store) showBackends() *relation {
	host, httpPort := splitAddr(s.backendAddr)
	now := s.opts.Now().UTC().Format(timeLayout)
	return textRelation([]string{
		"BackendId", "IP", "HeartbeatPort", "BePort", "HttpPort", "BrpcPort", "LastStartTime", "LastHeartbeat", "Alive",
		"SystemDecommissioned", "ClusterDecommissioned", "TabletNum", "DataUsedCapacity", "AvailCapacity", "TotalCapacity",
		"UsedPct", "MaxDiskUsedPct", "ErrMsg", "Version", "Status", "DataTotalCapacity", "DataUsedPct", "CpuCores",
		"NumRunningQueries", "MemUsedPct", "CpuUsedPct",
	}, [][]string{{
		"10001", host, "9050", "9060", httpPort, "8060", frontendStart, now, "true",
		"false", "false", "1", "0.000 ", "100.000 GB", "100.000 GB", "0.00 %", "0.00 %", "", s.ver.String() + "-standin",
		`{"lastSuccessReportTabletsTime":"` + now + `"}`, "100.000 GB", "0.00 %", "2", "0", "0.00 %", "0.0 %",
	}})
}

func (s *store) showAlterJobs(ses *session, n show) (*relation, error) {
	name := n.db
	if name == "" {
		name = ses.db
	}
	db := s.dbs[name]
	if db == nil {
		return nil, s.unknownDatabase(name)
	}
	type numbered struct {
		id   int64
		cols []string
	}
	var jobs []numbered
	for _, tn := range s.tableNames(db) {
		t := db.tables[tn]
		for _, j := range t.jobs {
			finished := ""
			if !j.finished.IsZero() {
				finished = j.finished.UTC().Format(timeLayout)
			}
			jobs = append(jobs, numbered{j.id, []string{
				strconv.FormatInt(j.id, 10), t.name, j.created.UTC().Format(timeLayout), finished, t.name,
				strconv.FormatUint(t.id+1, 10), strconv.FormatUint(t.id, 10), fmt.Sprintf("%d:%d", j.target.version, j.id),
				strconv.FormatInt(j.maxTxn, 10), j.state, j.msg, "", "86400",
			}})
		}
	}
	// The newest comes first, also among jobs of the same second.
	sort.Slice(jobs, func(i, k int) bool { return jobs[i].id > jobs[k].id })
	var rows [][]string
	for _, j := range jobs {
		rows = append(rows, j.cols)
	}
	return textRelation([]string{
		"JobId", "TableName", "CreateTime", "FinishTime", "IndexName", "IndexId", "OriginIndexId", "SchemaVersion",
		"TransactionId", "State", "Msg", "Progress", "Timeout",
	}, rows), nil
}

// createStatement renders a table as SHOW CREATE TABLE does.
func (t *table) createStatement() string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE `%s` (\n", t.name)
	for i, c := range t.schema.columns {
		fmt.Fprintf(&b, "  `%s` %s %s", c.name, c.typ.sqlName(), nullability(c.nullable))
		if c.hasDefault {
			fmt.Fprintf(&b, " DEFAULT %q", c.defaultVal)
		} else if c.defaultNow {
			b.WriteString(" DEFAULT CURRENT_TIMESTAMP")
		}
		fmt.Fprintf(&b, " COMMENT %q", c.comment)
		if i < len(t.schema.columns)-1 {
			b.WriteString(",")
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, ") ENGINE=OLAP \n%s KEY(%s)\n", t.modelName(), quoteNames(t.schema.keyNames()))
	if t.comment != "" {
		fmt.Fprintf(&b, "COMMENT %q\n", t.comment)
	}
	fmt.Fprintf(&b, "DISTRIBUTED BY HASH(%s)", quoteNames(t.distribution()))
	if t.buckets > 0 {
		fmt.Fprintf(&b, " BUCKETS %d ", t.buckets)
	}
	b.WriteString("\n")
	if len(t.sortKey) > 0 {
		fmt.Fprintf(&b, "ORDER BY(%s)\n", quoteNames(t.sortKey))
	}
	b.WriteString("PROPERTIES (\n")
	for i, k := range t.propOrder {
		sep := ","
		if i == len(t.propOrder)-1 {
			sep = ""
		}
		fmt.Fprintf(&b, "%q = %q%s\n", k, t.properties[k], sep)
	}
	b.WriteString(");")
	return b.String()
}

func (t *table) modelName() string {
	if t.model == modelPrimary {
		return "PRIMARY"
	}
	return "DUPLICATE"
}

func (t *table) distribution() []string {
	if len(t.distributed) > 0 {
		return t.distributed
	}
	return t.schema.keyNames()
}

func nullability(nullable bool) string {
	if nullable {
		return "NULL"
	}
	return "NOT NULL"
}

func quoteNames(names []string) string {
	var out []string
	for _, n := range names {
		out = append(out, "`"+n+"`")
	}
	return strings.Join(out, ", ")
}

func formatTime(t time.Time) value {
	if t.IsZero() {
		return null
	}
	return value{kind: kindDatetime, num: t.UTC().Unix() * microsPerSecond}
}

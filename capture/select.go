package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Selection says which tables are wanted: those that are named, and every other one that
// a pattern matches and no exception does. System tables and temporary ones are never
// matched. Of a partitioned table either the root is, or its leaves are; see
// [Config.Leaves].
type Selection struct {
	Tables           []Table
	Patterns, Except []Pattern
}

// Pattern matches names of tables.
type Pattern interface {
	Match(schema, name string) bool
	// String is for people.
	String() string
}

// LeftOut is a table that a pattern matches but that is not captured, or a pattern that
// matches nothing.
type LeftOut struct {
	Name, Reason string
}

func (s *Selection) isZero() bool { return len(s.Tables) == 0 && len(s.Patterns) == 0 }

func (s *Selection) validate() error {
	var errs []error
	if s.isZero() {
		errs = append(errs, errors.New("no tables to capture"))
	}
	return errors.Join(append(errs, validateTables(s.Tables))...)
}

// clone keeps a selection from being changed by who made it.
func (s *Selection) clone() Selection {
	return Selection{Tables: slices.Clone(s.Tables), Patterns: slices.Clone(s.Patterns), Except: slices.Clone(s.Except)}
}

// listed is a table as the catalog lists it.
type listed struct {
	table     Table
	oid       uint32
	kind      string // pg_class.relkind
	ancestors []uint32
}

// chosen is a table that is wanted.
type chosen struct {
	table Table
	// matched tells that it is not named but matched: what keeps it from being captured
	// keeps nothing else from it.
	matched bool
}

// choose applies the selection to all tables of the database, in an order that depends on
// their names only. idle are the patterns that match nothing.
func (s *Selection) choose(all []listed, leaves bool) (tables []chosen, idle []Pattern) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b listed) int {
		return cmp.Or(cmp.Compare(a.table.Schema, b.table.Schema), cmp.Compare(a.table.Name, b.table.Name))
	})
	byOID, taken := make(map[uint32]*listed, len(all)), make(map[Table]bool, len(all))
	for i := range all {
		byOID[all[i].oid] = &all[i]
	}
	take := func(t Table, matched bool) {
		if !taken[t] {
			taken[t] = true
			tables = append(tables, chosen{t, matched})
		}
	}
	roots := map[Table]bool{} // that are named, for their leaves
	for _, t := range s.Tables {
		if leaves && slices.ContainsFunc(all, func(l listed) bool { return l.table == t && l.kind == "p" }) {
			roots[t] = true
			continue
		}
		take(t, false)
	}
	used := make([]bool, len(s.Patterns))
	for _, l := range all {
		names := []Table{l.table}
		switch {
		case leaves && l.kind == "p", !leaves && len(l.ancestors) > 0:
			continue
		case leaves:
			for _, oid := range l.ancestors {
				if a := byOID[oid]; a != nil {
					names = append(names, a.table)
				}
			}
		}
		matched := slices.ContainsFunc(names, func(t Table) bool { return roots[t] })
		for i, p := range s.Patterns {
			if matchesAny(p, names) {
				matched, used[i] = true, true
			}
		}
		if matched && !slices.ContainsFunc(s.Except, func(p Pattern) bool { return matchesAny(p, names) }) {
			take(l.table, true)
		}
	}
	for i, p := range s.Patterns {
		if !used[i] {
			idle = append(idle, p)
		}
	}
	return tables, idle
}

func matchesAny(p Pattern, names []Table) bool {
	return slices.ContainsFunc(names, func(t Table) bool { return p.Match(t.Schema, t.Name) })
}

const listQuery = `
SELECT n.nspname::text, c.relname::text, c.oid, c.relkind::text,
  CASE WHEN c.relispartition THEN ARRAY(SELECT a.relid::oid FROM pg_partition_ancestors(c.oid) a WHERE a.relid <> c.oid) ELSE '{}' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`

// listTables lists the tables that can be chosen.
func listTables(ctx context.Context, conn *pgx.Conn) ([]listed, error) {
	rows, err := conn.Query(ctx, listQuery)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l listed, err error) {
		return l, row.Scan(&l.table.Schema, &l.table.Name, &l.oid, &l.kind, &l.ancestors)
	})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return all, nil
}

// survey is what a selection comes to on the server.
type survey struct {
	version int
	infos   []tableInfo // to be captured; those that are named may be unfit
	left    []LeftOut
	// problems are those of the publication.
	problems problems
	pub      *publication
	// at is the end of the WAL after the tables were listed.
	at cdc.LSN
}

// tables are those that exist.
func (s *survey) tables() []Table {
	tables := make([]Table, len(s.infos))
	for i := range s.infos {
		tables[i] = s.infos[i].table
	}
	return tables
}

// gone returns those of some tables that are not wanted any more. One that is left out is
// there, but cannot be captured.
func (s *survey) gone(tables []Table) []Table {
	return slices.DeleteFunc(difference(tables, s.tables()), func(t Table) bool {
		return slices.ContainsFunc(s.left, func(l LeftOut) bool { return l.Name == t.String() })
	})
}

// leave takes a table out.
func (s *survey) leave(t Table, reason string) {
	s.infos = slices.DeleteFunc(s.infos, func(i tableInfo) bool { return i.table == t })
	s.left = append(s.left, LeftOut{t.String(), reason})
}

// survey looks up the tables of a selection and the publication. id may be nil.
//
// All is read in one snapshot: a table that is dropped between two would look as if somebody
// had taken it out of the publication, and its last changes as if they were missing.
func (c *Capture) survey(ctx context.Context, conn *pgx.Conn, version int, sel *Selection, id *identity) (s *survey, err error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("look at the catalog: %w", err)
	}
	defer func() {
		if rollbackErr := tx.Rollback(ctx); err == nil && rollbackErr != nil {
			err = fmt.Errorf("look at the catalog: %w", rollbackErr)
		}
	}()
	return c.surveyed(ctx, conn, version, sel, id)
}

func (c *Capture) surveyed(ctx context.Context, conn *pgx.Conn, version int, sel *Selection, id *identity) (*survey, error) {
	s := &survey{version: version}
	tables := make([]chosen, 0, len(sel.Tables))
	for _, t := range sel.Tables {
		tables = append(tables, chosen{table: t})
	}
	if len(sel.Patterns) > 0 || c.cfg.Leaves {
		all, err := listTables(ctx, conn)
		if err != nil {
			return nil, err
		}
		var idle []Pattern
		tables, idle = sel.choose(all, c.cfg.Leaves)
		for _, p := range idle {
			s.left = append(s.left, LeftOut{p.String(), "no table of the source matches it"})
		}
	}
	names := make([]Table, len(tables))
	for i := range tables {
		names[i] = tables[i].table
	}
	infos, err := readTables(ctx, conn, names)
	if err != nil {
		return nil, err
	}
	if s.at, err = walEnd(ctx, conn); err != nil {
		return nil, err
	}
	if s.pub, err = readPublication(ctx, conn, version, c.cfg.Publication, infos); err != nil {
		return nil, err
	}
	s.pub.leaves = c.cfg.Leaves
	for i := range infos {
		infos[i].matched = tables[i].matched
		s.take(&infos[i], c.unaddable(&infos[i]))
	}
	if c.cfg.Target != nil {
		s.separate(c.cfg.Target, id)
	}
	return s, nil
}

// separate keeps tables apart that would be written to one target. A target that was
// written to stays that of its table, also when that is gone.
func (s *survey) separate(target func(Table) string, id *identity) {
	owners := map[string]Table{}
	if id != nil {
		for _, t := range slices.Concat(id.Former, id.Published) {
			owners[target(t)] = t
		}
	}
	for _, t := range slices.Clone(s.infos) {
		name := target(t.table)
		owner, taken := owners[name]
		if !taken {
			owners[name] = t.table
		}
		if !taken || owner == t.table {
			continue
		}
		const clash = "tables %s and %s would both be written to %q in the sink. Give them other names there (SINK_TABLE_NAME), or leave one out of TABLES"
		if id != nil && t.matched {
			s.leave(t.table, fmt.Sprintf(clash, owner, t.table, name))
		} else {
			s.problems.add(clash, owner, t.table, name)
		}
	}
}

// take keeps a table, unless it is one that was matched and is not fit.
func (s *survey) take(t *tableInfo, unaddable string) {
	if !t.matched {
		s.infos = append(s.infos, *t)
		return
	}
	var p problems
	if t.oid == 0 {
		return // It was dropped a moment ago.
	}
	if t.check(&p); len(p) == 0 {
		s.pub.checkTable(t, nil, &p)
		if s.pub.leaves && len(p) > 0 {
			// No leaf gets through.
			s.problems = p
			return
		}
	}
	switch {
	case len(p) > 0:
	case slices.Contains(s.pub.covered, t.oid):
	case !t.owned:
		p.add("Only its owner can put it into publication '%s'. Run as its owner or superuser: ALTER PUBLICATION %s ADD TABLE ONLY %s",
			s.pub.name, quote(s.pub.name), t.table.sqlName())
	case unaddable != "":
		p = problems{unaddable}
	}
	if len(p) > 0 {
		s.left = append(s.left, LeftOut{t.table.String(), p[0]})
		return
	}
	s.infos = append(s.infos, *t)
}

// walEnd reads where the WAL ends: whatever was seen before was logged before.
func walEnd(ctx context.Context, conn *pgx.Conn) (cdc.LSN, error) {
	var text string
	err := conn.QueryRow(ctx, "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text").Scan(&text)
	if err != nil {
		return 0, fmt.Errorf("read WAL position: %w", err)
	}
	return cdc.ParseLSN(text)
}

package starrockstest

import (
	"context"
	"fmt"
	"sort"
	"sync"
)

// Cell is one value of a table as text.
type Cell struct {
	Text string
	Null bool
}

// TableData is the content of a table. Primary key tables come in key order, others in order of arrival.
type TableData struct {
	Columns []string
	Types   []string
	Rows    [][]Cell
}

// TableStats are the figures of a table.
type TableStats struct {
	DB    string `json:"db"`
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
	// Versions counts the committed loads and statements, each of which StarRocks keeps as a version.
	Versions int `json:"versions"`
}

// Stats are the figures of the server.
type Stats struct {
	Tables []TableStats `json:"tables"`
	// Loads counts the answers by their Status, over the loads that Loads still lists.
	Loads map[string]int `json:"loads"`
	// Labels counts the labels that are remembered, by database.
	Labels map[string]int `json:"labels"`
	// Writers counts what was written since the start, by client: the User-Agent of a load, the connection attribute
	// program_name of a statement.
	Writers map[string]WriterStats `json:"writers"`
}

// WriterStats are the figures of one client.
type WriterStats struct {
	// Loads are those that were committed.
	Loads int `json:"loads"`
	// Statements are those that may change something and did not fail, also where they changed nothing.
	Statements int `json:"statements"`
}

type writers map[string]*WriterStats

func (w writers) add(name string) *WriterStats {
	if w[name] == nil {
		w[name] = new(WriterStats)
	}
	return w[name]
}

// Script adds faults to the queue.
func (s *Server) Script(faults ...Fault) error { return s.faults.add(faults) }

// ClearFaults forgets the faults that have not struck yet. What is held stays held until Release.
func (s *Server) ClearFaults() { s.faults.clear() }

// Faults lists the faults that have not struck yet, in order.
func (s *Server) Faults() []Fault { return s.faults.list() }

// Release lets go of everything that a fault holds: answers, commits, publishing and running labels.
func (s *Server) Release() {
	s.store.release()
	s.faults.release()
}

// EvictLabels applies the retention of labels at once.
func (s *Server) EvictLabels() {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.evictLabels(s.store.now())
}

// EvictLabel forgets one label at once, whatever its state.
func (s *Server) EvictLabel(db, label string) { s.store.evictLabel(db, label) }

// AwaitLoads waits until the back end works on n loads, also such whose client has gone.
func (s *Server) AwaitLoads(ctx context.Context, n int) error {
	for {
		running, changed := s.running.read()
		if running == n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d loads that are under way, there are %d: %w", n, running, ctx.Err())
		}
	}
}

// gauge is a number whose changes can be waited for.
type gauge struct {
	mu      sync.Mutex
	n       int
	changed chan struct{}
}

func (g *gauge) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n += n
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

func (g *gauge) read() (n int, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.n, g.changed
}

// LabelState is what get_load_state would answer.
func (s *Server) LabelState(db, label string) (string, error) {
	state, _, err := s.store.labelState(db, label)
	return state, err
}

// Loads lists the last Stream Loads in the order of their answers.
func (s *Server) Loads() []LoadInfo {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return append([]LoadInfo(nil), s.store.loads...)
}

// Stats gives the figures of the server.
func (s *Server) Stats() Stats {
	st := s.store
	st.mu.Lock()
	defer st.mu.Unlock()
	out := Stats{Loads: make(map[string]int), Labels: make(map[string]int), Writers: make(map[string]WriterStats)}
	for name, w := range st.writers {
		out.Writers[name] = *w
	}
	for _, name := range st.databaseNames() {
		db := st.dbs[name]
		out.Labels[name] = len(db.labels)
		for _, tn := range st.tableNames(db) {
			t := db.tables[tn]
			out.Tables = append(out.Tables, TableStats{DB: name, Table: tn, Rows: t.rowCount(), Versions: t.versions})
		}
	}
	for _, l := range st.loads {
		out.Loads[l.Status]++
	}
	return out
}

// Rows gives the visible content of a table.
func (s *Server) Rows(db, name string) (TableData, error) {
	st := s.store
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.advance(); err != nil {
		return TableData{}, err
	}
	d := st.dbs[db]
	if d == nil || d.tables[name] == nil {
		return TableData{}, fmt.Errorf("read rows: unknown table %s.%s", db, name)
	}
	t := d.tables[name]
	var out TableData
	for _, c := range t.schema.columns {
		out.Columns = append(out.Columns, c.name)
		out.Types = append(out.Types, c.typ.String())
	}
	vals := make([]value, len(t.schema.columns))
	for _, row := range t.snapshot() {
		if err := t.schema.decodeRow(row, vals); err != nil {
			return TableData{}, err
		}
		cells := make([]Cell, len(vals))
		for i, v := range vals {
			cells[i] = Cell{Text: v.render(t.schema.columns[i].typ, true), Null: v.isNull()}
		}
		out.Rows = append(out.Rows, cells)
	}
	return out, nil
}

// Exec runs a statement as the MySQL listener would, without a connection. Names may carry their database.
func (s *Server) Exec(sql string) error {
	_, err := s.Query(sql)
	return err
}

// Query runs a statement and gives its result as text.
func (s *Server) Query(sql string) (TableData, error) {
	stmt, err := parseSQL(sql)
	if err != nil {
		return TableData{}, err
	}
	res, err := s.store.run(&session{}, stmt)
	if err != nil {
		return TableData{}, err
	}
	var out TableData
	for _, c := range res.columns {
		out.Columns = append(out.Columns, c.name)
		out.Types = append(out.Types, c.typ.String())
	}
	for _, row := range res.rows {
		cells := make([]Cell, len(row))
		for i, v := range row {
			cells[i] = Cell{Text: v.render(res.columns[i].typ, s.ver.showsMicroseconds()), Null: v.isNull()}
		}
		out.Rows = append(out.Rows, cells)
	}
	return out, nil
}

// Tables lists the tables as "database.table".
func (s *Server) Tables() []string {
	st := s.store
	st.mu.Lock()
	defer st.mu.Unlock()
	var out []string
	for _, db := range st.dbs {
		for _, t := range db.tables {
			out = append(out, t.qualified())
		}
	}
	sort.Strings(out)
	return out
}

func (s *store) setAddresses(front, back, query string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frontAddr, s.backendAddr, s.queryAddr = front, back, query
}

func (s *store) closeLog() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		return nil
	}
	err := s.log.close()
	s.log = nil
	return err
}

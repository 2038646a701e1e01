package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/killpoint"
)

// start is what a session starts with.
type start struct {
	conn      *pgconn.PgConn // for replication, idle
	slot      cdc.LSN        // confirmed by it
	tail      cdc.Tail
	record    *record
	keepAlive time.Duration // wal_sender_timeout, zero if it is off
	version   int           // of the server
	found     *findings
	oids      map[uint32]Table
	glance    map[Table]watched
	from      cdc.Position // what the first frame continues
	fromEnd   cdc.LSN
	witness   witness
	tables    []tableInfo
	survey    *survey
	at        cdc.LSN // the end of the WAL when the tables were looked up
}

// oid returns that of a table, zero if it is not one of those that are captured.
func (st *start) oid(table Table) uint32 {
	for i := range st.tables {
		if st.tables[i].table == table {
			return st.tables[i].oid
		}
	}
	return 0
}

// prepare checks everything, sets up what is missing, and connects.
func (c *Capture) prepare(ctx context.Context) (_ *start, err error) {
	// Nothing is changed on the server by a process that has lost its lease.
	if err := c.fence(); err != nil {
		return nil, err
	}
	c.setState(StateSetup, "connecting to "+c.source.addr)
	c.announcements.forget()
	c.altering.Lock()
	defer c.altering.Unlock()
	st := &start{}
	if st.record, err = loadRecord(ctx, c.stream); err != nil {
		return nil, err
	}
	if st.tail, err = c.stream.Tail(ctx); err != nil {
		return nil, fmt.Errorf("read the end of the stream: %w", err)
	}
	var srv *server
	if err := c.source.with(ctx, func(conn *pgx.Conn) error {
		srv, err = checkServer(ctx, conn)
		return err
	}); err != nil {
		return nil, err
	}
	if st.conn, err = c.source.connectReplication(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.hangUp(ctx, st.conn)
		}
	}()
	p := &place{name: c.cfg.Slot, epoch: c.stream.Epoch(), tail: st.tail}
	if cp, ok := c.progress.Checkpoint(); ok {
		p.applied = cp.End
	}
	sys, err := identify(ctx, st.conn, st.record.get())
	if err != nil {
		return nil, err
	}
	if err = checkSystem(st.record.get(), srv, sys, p); err != nil {
		return nil, err
	}
	err = c.source.with(ctx, func(conn *pgx.Conn) error { return c.setUp(ctx, conn, srv, st, p) })
	if err != nil {
		return nil, err
	}
	if err = c.snapshots.plan(ctx, st, p); err != nil {
		return nil, err
	}
	if err = c.remember(ctx, srv, sys, st, p); err != nil {
		return nil, err
	}
	if err = c.act(ctx, st.record, st.found); err != nil {
		return nil, err
	}
	st.keepAlive, err = walSenderTimeout(ctx, st.conn)
	return st, err
}

// setUp checks tables, publication and slot, all of them before anything is changed,
// and creates what is missing. The publication comes before the slot: PostgreSQL cannot
// decode changes that are older than the publication.
func (c *Capture) setUp(ctx context.Context, conn *pgx.Conn, srv *server, st *start, p *place) error {
	id := st.record.get()
	c.mu.Lock()
	selection := c.selection
	c.mu.Unlock()
	survey, err := c.survey(ctx, conn, srv.version, &selection, id)
	if err != nil {
		return err
	}
	if len(survey.infos)+len(survey.problems) == 0 && id == nil {
		return nothingMatches()
	}
	st.survey, st.at = survey, survey.at
	out := survey.problems
	for i := range survey.infos {
		survey.infos[i].check(&out)
	}
	if err := id.renamed(ctx, conn, survey.infos, &out); err != nil {
		return err
	}
	if p.slot, err = c.claimSlot(ctx, conn); err != nil {
		return err
	}
	p.fresh = c.slotMade || st.record.making()
	for i := range survey.infos {
		if survey.infos[i].appends() {
			p.appends = append(p.appends, survey.infos[i].table)
		}
	}
	before := len(out)
	if p.slot != nil {
		p.slot.check(srv, &out)
	}
	// A slot that is not ours to read says nothing about our changes.
	if len(out) == before {
		if err := checkSlot(id, p); err != nil {
			return err
		}
	}
	again := c.copyAgain(id, survey)
	if err := survey.pub.check(survey.infos, id, tablesOf(again), &out); err != nil {
		return err
	}
	if p.slot == nil && srv.slotsFree <= 0 {
		out.add("Failed to setup replication slot '%s': all max_replication_slots are in use. Drop one that is not needed, or raise max_replication_slots and restart PostgreSQL", c.cfg.Slot)
	}
	if srv.sendersFree < 0 {
		out.add("All max_wal_senders are in use. Raise max_wal_senders and restart PostgreSQL")
	}
	if err := out.err(); err != nil {
		return err
	}
	c.warn(ctx, survey.infos, survey.pub)
	c.warnPlace(ctx, id, srv, p)
	if err := c.setUpTables(ctx, conn, st, id, again); err != nil {
		return err
	}
	if p.slot == nil {
		if p.slot, err = c.newSlot(ctx, conn, srv, st.record); err != nil {
			return err
		}
	}
	st.from, st.fromEnd = p.from()
	st.witness = newWitness(p)
	st.found, err = c.compareShapes(ctx, conn, srv.version, st.tables, id)
	return err
}

// setUpTables puts the tables into the publication and says which count from now on.
func (c *Capture) setUpTables(ctx context.Context, conn *pgx.Conn, st *start, id *identity, again []recopy) error {
	gone, err := c.gone(ctx, conn, id, st.survey)
	if err != nil {
		return err
	}
	leaving := make(map[Table]cdc.LSN, len(gone))
	for _, t := range gone {
		leaving[t] = st.at
	}
	c.mu.Lock()
	c.leaving = leaving
	c.mu.Unlock()
	c.want(slices.Concat(st.survey.tables(), gone))
	// That they were missing does not show afterwards.
	if len(again) > 0 {
		if err := c.snapshots.load(ctx); err != nil {
			return err
		}
		if err := c.snapshots.renew(ctx, again, id.Published); err != nil {
			return err
		}
	}
	refused, err := st.survey.pub.ensure(ctx, conn, st.survey.infos)
	if err != nil {
		return err
	}
	c.refused(st.survey, refused)
	// Before the tables are described, so that what changes in between is found by watch.
	if err := st.meet(ctx, conn, st.survey.version, c.Tables()); err != nil {
		return err
	}
	schemas, err := c.describeTables(ctx, conn, st.survey, id)
	if err != nil {
		return err
	}
	if err := c.announce(ctx, conn, schemas); err != nil {
		return err
	}
	st.tables = st.survey.infos
	c.want(slices.Concat(st.survey.tables(), gone))
	c.leftOut(ctx, st.survey.left)
	return nil
}

// gone returns tables that are not there any more but may have changes that were not
// received yet: those that were captured a moment ago, and those that were ever and do not
// exist. One that exists and is not wanted was taken out on purpose.
func (c *Capture) gone(ctx context.Context, conn *pgx.Conn, id *identity, found *survey) ([]Table, error) {
	if id == nil {
		return nil, nil
	}
	gone := found.gone(c.Tables())
	infos, err := readTables(ctx, conn, difference(found.gone(id.Published), gone))
	if err != nil {
		return nil, err
	}
	for i := range infos {
		if infos[i].oid == 0 {
			gone = append(gone, infos[i].table)
		}
	}
	return gone, nil
}

// meet takes down what the catalog has. What changes from here on is found by watch.
func (st *start) meet(ctx context.Context, conn *pgx.Conn, version int, tables []Table) error {
	st.version, st.oids, st.glance = version, map[uint32]Table{}, map[Table]watched{}
	all, err := glance(ctx, conn, tables)
	if err != nil {
		return err
	}
	for i, t := range tables {
		st.glance[t], st.oids[all[i].oid] = all[i], t
	}
	return nil
}

// newSlot creates the slot and returns it. That it will is stored first: if the process
// dies, or the server's answer is lost, nothing else tells the slot from one that was used.
func (c *Capture) newSlot(ctx context.Context, conn *pgx.Conn, srv *server, r *record) (*slot, error) {
	if err := r.update(ctx, func(id *identity) { id.Making = true }); err != nil {
		return nil, err
	}
	killpoint.Reached("capture.announced")
	c.setState(StateSetup, fmt.Sprintf("creating slot %s; this waits for running transactions", c.cfg.Slot))
	if err := c.createSlot(ctx, conn, srv); err != nil {
		return nil, err
	}
	s, err := readSlot(ctx, conn, c.cfg.Slot)
	if err != nil {
		return nil, err
	}
	if s == nil || s.Confirmed == nil {
		return nil, fmt.Errorf("create slot %q: it is not there", c.cfg.Slot)
	}
	c.slotMade = true
	killpoint.Reached("capture.slotted")
	c.log.InfoContext(ctx, "slot created", "slot", c.cfg.Slot, "failover", s.Failover)
	return s, nil
}

// describeTables makes the schemas of the tables. Matched ones that have none are left out.
func (c *Capture) describeTables(ctx context.Context, conn *pgx.Conn, found *survey, id *identity) ([]*cdc.Schema, error) {
	schemas := make([]*cdc.Schema, 0, len(found.infos))
	for _, t := range slices.Clone(found.infos) {
		r, err := catalogRelation(ctx, conn, found.version, c.cfg.Publication, &t)
		if err != nil {
			return nil, err
		}
		s, _, err := describe(ctx, conn, r, nil, id.shape(t.table.String()))
		if _, ok := errors.AsType[*SetupError](err); ok && t.matched {
			found.leave(t.table, err.Error())
			continue
		}
		if err != nil {
			return nil, err
		}
		schemas = append(schemas, s)
	}
	return schemas, nil
}

// warn logs what works but may not be what was meant, once per table.
func (c *Capture) warn(ctx context.Context, infos []tableInfo, pub *publication) {
	for _, t := range infos {
		name := t.table.String()
		if c.warned[name] {
			continue
		}
		c.warned[name] = true
		if t.appends() {
			c.log.InfoContext(ctx, "the table has no key: each change of it becomes a row of its own in the target", "table", name)
		}
		if t.toast && t.identity != "f" {
			c.log.InfoContext(ctx, "large values that an update does not touch are not sent and stay as they are in the sink; REPLICA IDENTITY FULL would send them",
				"table", name)
		}
		if !t.readable {
			c.log.DebugContext(ctx, "the role may not read the table; streaming works, copying existing rows will not",
				"table", name, "run", "GRANT SELECT ON "+t.table.sqlName()+" TO <role>")
		}
	}
	if len(pub.filtered) > 0 && !c.warned[""] {
		c.warned[""] = true
		c.log.WarnContext(ctx, "the publication leaves out rows or columns", "publication", pub.name, "tables", pub.filtered)
	}
}

// warnPlace logs what is safe but worth knowing about slot and stream.
func (c *Capture) warnPlace(ctx context.Context, id *identity, srv *server, p *place) {
	switch {
	case id == nil && p.slot != nil:
		c.log.WarnContext(ctx, "nothing is known about the slot that exists: capture begins where it stands",
			"slot", p.slot.Name, "lsn", p.slot.Confirmed)
	case id != nil && p.tail.Empty && id.Epoch != p.epoch:
		c.log.WarnContext(ctx, "the stream was made anew: the slot repeats what the sink lacks, older history is gone",
			"slot", p.slot.Name, "lsn", p.slot.Confirmed, "applied", p.applied)
	case !p.tail.Empty && p.tailLost():
		c.log.WarnContext(ctx, "the end of the stream was lost: the slot repeats what the sink lacks",
			"stream_end", p.tail.End, "applied", p.applied, "lsn", p.slot.Confirmed)
	}
	const noFailover = "slot without failover"
	if p.slot != nil && !p.slot.Failover && srv.failoverSlots() && !c.warned[noFailover] {
		c.warned[noFailover] = true
		c.log.InfoContext(ctx, "the slot is not marked for failover: a standby that is promoted does not have it",
			"slot", p.slot.Name, "run", "stop dbmazz; psql '<SOURCE_URL> replication=database' -c 'ALTER_REPLICATION_SLOT "+p.slot.Name+" (FAILOVER true)'")
	}
}

// remember stores who the server is before the first frame is published.
func (c *Capture) remember(ctx context.Context, srv *server, sys *system, st *start, p *place) error {
	st.slot = *p.slot.Confirmed
	tables := c.Tables()
	first := st.record.get() == nil
	since := cdc.LSN(0)
	if !st.tail.Empty {
		// The transaction at the end of the stream may be cut off; it is counted
		// as it was.
		since = st.tail.Last.Commit + 1
	}
	err := st.record.update(ctx, func(id *identity) {
		id.Making = false
		id.SystemID, id.Timeline = sys.id, sys.timeline
		id.Database, id.DatabaseOID = srv.database, srv.databaseOID
		id.Slot, id.Publication, id.Epoch = c.cfg.Slot, c.cfg.Publication, c.stream.Epoch()
		if first {
			id.Confirmed = st.slot
		}
		id.publish(tables)
		id.setFilter(tables, since, st.slot)
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.record = st.record
	c.status.Confirmed, c.status.WALStatus = st.slot, p.slot.WALStatus
	c.mu.Unlock()
	return nil
}

// walSenderTimeout asks how long the server waits for a report.
func walSenderTimeout(ctx context.Context, conn *pgconn.PgConn) (time.Duration, error) {
	results, err := conn.Exec(ctx, "SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'").ReadAll()
	if err != nil {
		return 0, fmt.Errorf("read wal_sender_timeout: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return 0, fmt.Errorf("read wal_sender_timeout: no such setting")
	}
	ms, err := strconv.Atoi(string(results[0].Rows[0][0]))
	if err != nil {
		return 0, fmt.Errorf("read wal_sender_timeout: %w", err)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func (c *Capture) hangUp(ctx context.Context, conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // It is given up whatever Close says.
}

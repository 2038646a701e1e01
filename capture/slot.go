package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// slot is a row of pg_replication_slots. Columns that a version does not have are
// zero.
type slot struct {
	Name         string   `json:"slot_name"`
	Plugin       string   `json:"plugin"`
	Type         string   `json:"slot_type"`
	Database     string   `json:"database"`
	Temporary    bool     `json:"temporary"`
	Active       bool     `json:"active"`
	ActivePID    int      `json:"active_pid"`
	Confirmed    *cdc.LSN `json:"confirmed_flush_lsn"`
	WALStatus    string   `json:"wal_status"`
	TwoPhase     bool     `json:"two_phase"`
	Conflicting  bool     `json:"conflicting"`
	Invalidation string   `json:"invalidation_reason"`
	Failover     bool     `json:"failover"`
	Synced       bool     `json:"synced"`
}

// readSlot returns nil if there is no such slot.
func readSlot(ctx context.Context, conn *pgx.Conn, name string) (*slot, error) {
	var row []byte
	err := conn.QueryRow(ctx, "SELECT to_jsonb(s)::text FROM pg_replication_slots s WHERE slot_name = $1", name).Scan(&row)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // No slot is an answer.
	}
	if err != nil {
		return nil, fmt.Errorf("look up slot %q: %w", name, err)
	}
	var s slot
	if err := json.Unmarshal(row, &s); err != nil {
		return nil, fmt.Errorf("look up slot %q: %w", name, err)
	}
	return &s, nil
}

// check refuses a slot that is not ours to read. Whether it is at the right place is
// for the identity to say.
func (s *slot) check(srv *server, p *problems) {
	add := func(format string, args ...any) {
		p.add("Failed to setup replication slot '%s': %s", s.Name, fmt.Sprintf(format, args...))
	}
	const other = ". Choose another name with SLOT_NAME, or drop the slot if nobody needs it: SELECT pg_drop_replication_slot('%s')"
	switch {
	case s.Type != "logical":
		add("it is a physical slot"+other, s.Name)
	case s.Plugin != "pgoutput":
		add("it uses the plugin '%s' instead of pgoutput"+other, s.Plugin, s.Name)
	case s.Database != srv.database:
		add("it belongs to the database '%s', not to '%s'. Choose another name with SLOT_NAME", s.Database, srv.database)
	case s.Synced && srv.standby:
		add("this server is a standby, and the slot is kept in step with the primary's. Connect to the primary (list all hosts in SOURCE_URL and add target_session_attrs=read-write to find it)")
	case s.Temporary:
		add("it is temporary and ends with the session that made it. Choose another name with SLOT_NAME")
	case s.TwoPhase:
		add("it decodes prepared transactions (two_phase)"+other, s.Name)
	case s.Active:
		add("it is in use by the process with pid %d, another dbmazz or the last connection that is still closing. If it should not be: SELECT pg_terminate_backend(%d)", s.ActivePID, s.ActivePID)
	}
}

// invalid says why the slot cannot be read any more, or nothing, and how to prevent it.
func (s *slot) invalid() (why, remedy string) {
	switch {
	case s.Invalidation == "idle_timeout":
		return "invalidation_reason is idle_timeout: nobody read it for longer than the server allows",
			"raise idle_replication_slot_timeout beyond the longest stop of dbmazz (ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf())"
	case s.Invalidation == "rows_removed" || s.Conflicting && s.Invalidation == "":
		return "it conflicts with recovery on a standby: the primary removed catalog rows that it still needed (rows_removed)",
			"give the standby a replication slot on the primary and set hot_standby_feedback (ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf(), on the standby)"
	case s.Invalidation == "wal_level_insufficient":
		return "invalidation_reason is wal_level_insufficient", "keep wal_level = logical on the primary"
	case s.Invalidation != "" && s.Invalidation != "wal_removed":
		return "invalidation_reason is " + s.Invalidation, "see invalidation_reason in PostgreSQL's documentation of pg_replication_slots"
	case s.Invalidation == "wal_removed" || s.WALStatus == "lost":
		return "wal_status is lost: the server removed WAL that it still needed (max_slot_wal_keep_size)",
			"raise max_slot_wal_keep_size as far as the disk allows (ALTER SYSTEM SET max_slot_wal_keep_size = '<size>'; SELECT pg_reload_conf()), and watch wal_status"
	case s.Confirmed == nil:
		return "it was never completed", "let dbmazz create the slot"
	}
	return "", ""
}

// createSlot creates the slot. The server first waits for every transaction that runs;
// when that takes too long the error says which.
//
// On a primary that can hand slots on to its standbys (PostgreSQL 17) the slot is made so
// that it survives a promotion. Without a standby that asks for it that costs nothing.
func (c *Capture) createSlot(ctx context.Context, conn *pgx.Conn, srv *server) error {
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET statement_timeout = %d", c.cfg.SlotTimeout.Milliseconds())); err != nil {
		return fmt.Errorf("create slot %q: %w", c.cfg.Slot, err)
	}
	watch, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.watchSlotCreation(watch)
	}()
	defer func() {
		stop()
		<-done
	}()
	create := "SELECT pg_create_logical_replication_slot($1, 'pgoutput')"
	if srv.failoverSlots() {
		create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput', failover => true)"
	}
	_, err := conn.Exec(ctx, create, c.cfg.Slot)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("create slot %q: %w", c.cfg.Slot, err)
	}
	if err != nil {
		text := oneLine(err)
		if blockers, errBlock := longTransactions(ctx, conn); errBlock == nil && blockers != "" && strings.Contains(text, "57014") {
			text += ". It waits for transactions that have been running since before: " + blockers + ". End them: SELECT pg_terminate_backend(<pid>), or COMMIT or ROLLBACK PREPARED"
		}
		return setupProblem("Failed to setup replication slot '%s': %s", c.cfg.Slot, text)
	}
	if _, err := conn.Exec(ctx, "RESET statement_timeout"); err != nil {
		return fmt.Errorf("create slot %q: %w", c.cfg.Slot, err)
	}
	return nil
}

// watchSlotCreation shows what the creation of the slot waits for once it takes long.
func (c *Capture) watchSlotCreation(ctx context.Context) {
	if !sleep(ctx, 3*time.Second) {
		return
	}
	conn, err := c.source.connectSQL(ctx)
	if err != nil {
		return // It is only for show; createSlot reports what matters.
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for {
		if text, err := longTransactions(ctx, conn); err == nil && text != "" {
			c.setState(StateSetup, fmt.Sprintf("creating slot %s; it waits for transactions: %s", c.cfg.Slot, text))
			c.log.WarnContext(ctx, "creation of the slot waits for transactions", "slot", c.cfg.Slot, "transactions", text)
		}
		if !sleep(ctx, 5*time.Second) {
			return
		}
	}
}

// longTransactions names the oldest transactions that have an id, which is what the
// creation of a slot waits for.
func longTransactions(ctx context.Context, conn *pgx.Conn) (string, error) {
	var text string
	err := conn.QueryRow(ctx, `
SELECT COALESCE(string_agg(w, '; ' ORDER BY since), '') FROM (
  SELECT 'pid ' || pid || ' (' || COALESCE(usename, '?') || ', ' || COALESCE(state, '?') || ') for ' || date_trunc('second', now() - xact_start) AS w, xact_start AS since
  FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
  UNION ALL
  SELECT 'prepared ' || quote_literal(gid) || ' for ' || date_trunc('second', now() - prepared), prepared FROM pg_prepared_xacts
  ORDER BY 2 LIMIT 5) x`).Scan(&text)
	return text, err
}

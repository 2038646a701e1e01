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
func (s *slot) check(database string, p *problems) {
	add := func(format string, args ...any) {
		p.add("Failed to setup replication slot '%s': %s", s.Name, fmt.Sprintf(format, args...))
	}
	const other = ". Choose another name with SLOT_NAME, or drop the slot if nobody needs it: SELECT pg_drop_replication_slot('%s')"
	switch {
	case s.Type != "logical":
		add("it is a physical slot"+other, s.Name)
	case s.Plugin != "pgoutput":
		add("it uses the plugin '%s' instead of pgoutput"+other, s.Plugin, s.Name)
	case s.Database != database:
		add("it belongs to the database '%s', not to '%s'. Choose another name with SLOT_NAME", s.Database, database)
	case s.Temporary:
		add("it is temporary and ends with the session that made it. Choose another name with SLOT_NAME")
	case s.TwoPhase:
		add("it decodes prepared transactions (two_phase)"+other, s.Name)
	case s.Active:
		add("it is in use by the process with pid %d, another dbmazz or the last connection that is still closing. If it should not be: SELECT pg_terminate_backend(%d)", s.ActivePID, s.ActivePID)
	}
}

// invalid says why the slot cannot be read any more, or nothing.
func (s *slot) invalid() string {
	switch {
	case s.Invalidation != "":
		return "invalidation_reason is " + s.Invalidation
	case s.WALStatus == "lost":
		return "wal_status is lost: the server removed WAL that it still needed (max_slot_wal_keep_size)"
	case s.Conflicting:
		return "it conflicts with recovery on a standby"
	case s.Confirmed == nil:
		return "it was never completed"
	}
	return ""
}

// createSlot creates the slot. The server first waits for every transaction that runs;
// when that takes too long the error says which.
func (c *Capture) createSlot(ctx context.Context, conn *pgx.Conn) error {
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
	_, err := conn.Exec(ctx, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", c.cfg.Slot)
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
